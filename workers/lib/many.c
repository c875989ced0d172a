/*
 * many.c - libcomfymux: batches and chains, on the engines that the worker has
 * for them.
 */
#include <stdlib.h>
#include <string.h>

#include "common/chain_spec.h"
#include "common/workflow.h"
#include "workers/batch.h"
#include "workers/chain.h"
#include "workers/lib/lib.h"

#define STEP_FIELDS_MAX 8192 /* bytes around a step's workflow and params */

// NOLINTBEGIN(misc-redundant-expression): so that they stay equal
_Static_assert(CMX_BATCH_MAX == BATCH_ITEMS_MAX, "as documented");
_Static_assert(CMX_CHAIN_MAX == CHAIN_STEPS_MAX, "as documented");
_Static_assert(CMX_CONCURRENCY == BATCH_CONCURRENCY, "as documented");
_Static_assert(CMX_CONCURRENCY_MAX == BATCH_CONCURRENCY_MAX, "as documented");
// NOLINTEND(misc-redundant-expression)

/* Where the functions that block wait for the end. */
struct many_wait {
	bool done;
	int code;
	struct cmx_results *results;
};

/* What is known of one before it ends. */
struct many_item {
	struct lib_log log;
	struct cmx_result *result; /* NULL: not over */
};

struct many {
	struct cmx_task task;
	struct batch *batch; /* one of these two */
	struct chain *chain;
	const char **workflows; /* of a batch; the texts are the program's */
	struct error *faults;   /* of a chain's steps; ERR_NONE: none */
	size_t count;
	struct many_item *items;
	bool no_memory; /* for a result */
	struct cmx_batch_options o;
	cmx_all_end_fn *on_end; /* NULL: somebody waits */
	void *user;
	struct many_wait *wait;
};

static struct many *many_of(struct cmx_task *t)
{
	return container_of(t, struct many, task);
}

static bool many_may_tell(struct many *m, bool wanted)
{
	return wanted && !m->task.thing.dead && lib_tell_begin(m->task.client);
}

/* --- what the engines tell ------------------------------------------------ */

static void many_tell(struct many *m, size_t index, const struct progress *p)
{
	const struct cmx_progress *c;

	if (!p)
		return;
	c = progress_get(p);
	lib_log_update(&m->items[index].log, c);
	if (!many_may_tell(m, m->o.on_progress != NULL))
		return;
	m->o.on_progress(m->o.user, index, c);
	lib_tell_end(m->task.client);
}

static void many_item_end(struct many *m, struct lib_ending *e,
                          const struct progress *p)
{
	struct many_item *item = &m->items[e->index];

	if (e->submitted)
		many_tell(m, e->index, p);
	e->progress = p ? progress_get(p) : NULL;
	e->log = &item->log;
	if (!item->result)
		item->result = lib_result_new(e);
	lib_log_deinit(&item->log);
	if (!item->result) {
		m->no_memory = true;
		return;
	}
	if (!many_may_tell(m, m->o.on_item != NULL))
		return;
	m->o.on_item(m->o.user, e->index, item->result);
	lib_tell_end(m->task.client);
}

/* NULL when there is no memory for them. */
static struct cmx_results *many_results(struct many *m)
{
	struct cmx_result **all = calloc(m->count, sizeof(struct cmx_result *));
	struct cmx_results *r;

	for (size_t i = 0; all && i < m->count; i++) {
		if (!m->items[i].result) {
			free(all);
			return NULL;
		}
		all[i] = m->items[i].result;
	}
	if (!all)
		return NULL;
	for (size_t i = 0; i < m->count; i++)
		m->items[i].result = NULL;
	r = lib_results_new(all, m->count);
	free(all);
	return r;
}

static void many_end(struct many *m)
{
	const struct cmx_results nothing = {.count = 0};
	struct cmx_results *r = m->no_memory ? NULL : many_results(m);
	int code = !r                         ? CMX_E_NOMEM
	           : r->completed == r->count ? CMX_OK
	                                      : CMX_E_PARTIAL;

	if (m->wait && !m->task.thing.dead) {
		m->wait->done = true;
		m->wait->code = code;
		m->wait->results = r;
	} else {
		if (many_may_tell(m, m->on_end != NULL)) {
			m->on_end(m->user, code, r ? r : &nothing);
			lib_tell_end(m->task.client);
		}
		cmx_results_free(r);
	}
	lib_thing_drop(m->task.client, &m->task.thing);
}

/* --- a batch -------------------------------------------------------------- */

static void on_want(void *user, size_t index)
{
	struct many *m = user;
	const char *text = m->workflows[index];
	struct error err;
	struct json j;

	if (!text) {
		(void)error_set(&err, ERR_INVALID, "the workflow is NULL");
		batch_fail_item(m->batch, index, &err);
	} else if (workflow_parse(&j, text,
	                          strnlen(text, (size_t)WORKFLOW_SIZE_MAX + 1),
	                          "workflow", &err)) {
		batch_fail_item(m->batch, index, &err);
	} else {
		batch_supply(m->batch, index, j.text, NULL);
	}
}

static void on_batch_submitted(void *user, size_t index, const char *prompt_id)
{
	struct many *m = user;

	many_tell(m, index, batch_item_progress(m->batch, index));
}

static void on_many_news(void *user, size_t index,
                         const struct follow_news *news)
{
	if (news->change != PROGRESS_SAME)
		many_tell(user, index, news->progress);
}

static void on_item(void *user, const struct batch_result *r)
{
	struct error words;
	struct lib_ending e = {
		.code = lib_end_code(r->end, r->error),
		.submitted = r->submitted,
		.index = r->index,
		.error = lib_end_words(r->end, r->error, r->progress, &words),
		.node_errors = r->node_errors,
	};

	many_item_end(user, &e, r->progress);
}

static void on_batch_done(void *user, const struct batch_plan *plan)
{
	many_end(user);
}

static const struct batch_handlers batch_handlers = {
	.on_want = on_want,
	.on_submitted = on_batch_submitted,
	.on_news = on_many_news,
	.on_item = on_item,
	.on_done = on_batch_done,
};

static int many_make_batch(struct many *m, const char *const *workflows)
{
	struct batch_options o = {
		.concurrency = m->o.concurrency,
		.stop_on_error = m->o.stop_on_error,
		.timeout_ms = m->o.timeout_ms,
		.resubmits = BATCH_RESUBMITS_MAX,
	};
	struct error err;

	m->workflows = calloc(m->count, sizeof(*m->workflows));
	if (!m->workflows)
		return lib_fail(CMX_E_NOMEM, "out of memory: a batch");
	memcpy(m->workflows, workflows, m->count * sizeof(*m->workflows));
	m->batch = batch_new(m->task.client->link, m->count, &o,
	                     &batch_handlers, m, &err);
	return m->batch ? 0 : lib_fail_with(&err);
}

/* --- a chain -------------------------------------------------------------- */

static void on_chain_submitted(void *user, size_t index, const char *prompt_id)
{
	struct many *m = user;

	many_tell(m, index, chain_progress(m->chain));
}

static void on_step(void *user, const struct chain_result *r)
{
	struct many *m = user;
	const struct error *err = r->error;
	struct error words;
	struct lib_ending e = {
		.submitted = r->submitted,
		.index = r->index,
		.node_errors = r->node_errors,
		.handed = r->handed,
	};

	/* Of a text that isn't JSON the chain knows nothing. */
	if (r->end == EXECUTE_ERROR && m->faults[r->index].code != ERR_NONE)
		err = &m->faults[r->index];
	e.code = lib_end_code(r->end, err);
	e.error = lib_end_words(r->end, err, r->progress, &words);
	many_item_end(m, &e, r->progress);
}

static void on_chain_done(void *user, size_t failed)
{
	many_end(user);
}

static const struct chain_handlers chain_handlers = {
	.on_submitted = on_chain_submitted,
	.on_news = on_many_news,
	.on_step = on_step,
	.on_done = on_chain_done,
};

static void put_source(struct buf *b, const struct cmx_step *s)
{
	(void)buf_printf(b, ",\"inputFrom\":{\"step\":%zu,\"outputIndex\":%zu",
	                 s->input_step, s->input_index);
	if (s->input_node) {
		(void)buf_json_key(b, "outputNode");
		(void)buf_json_string(b, s->input_node, strlen(s->input_node));
	}
	(void)buf_putc(b, '}');
}

static int check_params(const char *params, struct error *err)
{
	struct json j;

	if (json_parse(&j, params, strlen(params), 0, NULL) ||
	    !json_is(j, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "params is not a JSON object");
	return 0;
}

/* The step as chain_spec reads it; null in place of one that is at fault. */
static void put_step(struct buf *b, const struct cmx_step *s,
                     struct error *fault)
{
	struct json workflow;

	fault->code = ERR_NONE;
	for (size_t i = 0; i < ARRAY_SIZE(s->reserved); i++) {
		if (s->reserved[i])
			(void)error_set(fault, ERR_INVALID,
			                "reserved members must be NULL");
	}
	if (!s->workflow)
		(void)error_set(fault, ERR_INVALID, "the workflow is NULL");
	else if (workflow_parse(
			 &workflow, s->workflow,
			 strnlen(s->workflow, (size_t)WORKFLOW_SIZE_MAX + 1),
			 "workflow", fault) == 0 &&
	         s->params)
		(void)check_params(s->params, fault);
	if (fault->code != ERR_NONE) {
		(void)buf_puts(b, "null");
		return;
	}
	(void)buf_puts(b, "{\"workflow\":");
	(void)buf_append(b, workflow.text.p, workflow.text.n);
	if (s->params)
		(void)buf_printf(b, ",\"params\":%s", s->params);
	if (s->output_to || s->input_node)
		put_source(b, s);
	if (s->output_to) {
		(void)buf_json_key(b, "outputTo");
		(void)buf_json_string(b, s->output_to, strlen(s->output_to));
	}
	(void)buf_putc(b, '}');
}

static int many_make_chain(struct many *m, const struct cmx_step *steps)
{
	struct chain_options o = {
		.stop_on_error = m->o.stop_on_error,
		.timeout_ms = m->o.timeout_ms,
	};
	cleanup_buf struct buf b =
		BUF_INIT((size_t)CHAIN_STEPS_MAX *
	                 (2 * (size_t)WORKFLOW_SIZE_MAX + STEP_FIELDS_MAX));
	struct chain_spec *spec;
	struct error err;
	struct json j;

	m->faults = calloc(m->count, sizeof(*m->faults));
	if (!m->faults)
		return lib_fail(CMX_E_NOMEM, "out of memory: a chain");
	(void)buf_putc(&b, '[');
	for (size_t i = 0; i < m->count; i++) {
		if (i > 0)
			(void)buf_putc(&b, ',');
		put_step(&b, &steps[i], &m->faults[i]);
	}
	(void)buf_putc(&b, ']');
	if (!buf_ok(&b) || json_parse(&j, b.data, b.len, JSON_NONFINITE, NULL))
		return lib_fail(CMX_E_INVALID,
		                "a step's text is too long, or out of memory");
	spec = chain_spec_parse(j, &err);
	if (!spec)
		return lib_fail_with(&err);
	m->chain = chain_new(m->task.client->link, spec, &o, &chain_handlers, m,
	                     &err);
	return m->chain ? 0 : lib_fail_with(&err);
}

/* --- both ----------------------------------------------------------------- */

static const char *many_prompt_id(struct cmx_task *t)
{
	return "";
}

static const struct cmx_progress *named(const struct progress *p,
                                        const char *prompt_id)
{
	const struct cmx_progress *c = p ? progress_get(p) : NULL;

	return c && strcmp(c->prompt_id, prompt_id) == 0 ? c : NULL;
}

static const struct cmx_progress *many_progress(struct cmx_task *t,
                                                const char *prompt_id)
{
	struct many *m = many_of(t);
	const struct cmx_progress *c = NULL;

	if (m->chain)
		return named(chain_progress(m->chain), prompt_id);
	for (size_t i = 0; !c && i < m->count; i++)
		c = named(batch_item_progress(m->batch, i), prompt_id);
	return c;
}

static void many_cancel(struct cmx_task *t)
{
	struct many *m = many_of(t);

	if (m->batch)
		batch_cancel(m->batch);
	else
		chain_cancel(m->chain);
}

/* As somebody else would: it is cancelled where it is. */
static bool many_cancel_prompt(struct cmx_task *t, const char *prompt_id)
{
	return false;
}

static void many_free(struct cmx_task *t)
{
	struct many *m = many_of(t);

	m->batch = batch_free(m->batch);
	m->chain = chain_free(m->chain);
	for (size_t i = 0; i < m->count; i++) {
		lib_log_deinit(&m->items[i].log);
		cmx_result_free(m->items[i].result);
	}
	free(m->items);
	free(m->workflows);
	free(m->faults);
	free(m);
}

static const struct lib_task_kind many_kind = {
	.prompt_id = many_prompt_id,
	.progress = many_progress,
	.cancel = many_cancel,
	.cancel_prompt = many_cancel_prompt,
	.free = many_free,
};

/* --- starting ------------------------------------------------------------- */

/* What is to be run: one of the two. */
struct many_work {
	const char *const *workflows;
	const struct cmx_step *steps;
	size_t count;
};

static int read_batch_options(struct cmx_batch_options *to,
                              const struct cmx_batch_options *from)
{
	const struct cmx_batch_options defaults = CMX_BATCH_OPTIONS_INIT;
	int r = lib_read_struct(to, sizeof(*to), from ? from : &defaults);

	return r < 0 ? r : lib_check_timeout(&to->timeout_ms);
}

static int check_work(const struct many_work *w, struct cmx_batch_options *o)
{
	size_t max = w->steps ? CMX_CHAIN_MAX : CMX_BATCH_MAX;

	if (!w->workflows && !w->steps)
		return lib_fail(CMX_E_INVALID,
		                "the array of workflows or steps is NULL");
	if (w->count == 0)
		return lib_fail(CMX_E_INVALID, "there is nothing to run: give "
		                               "at least one workflow");
	if (w->count > max)
		return lib_fail(CMX_E_LIMIT,
		                "%zu of them, at most %zu can be "
		                "given at a time",
		                w->count, max);
	if (w->workflows &&
	    (o->concurrency == 0 || o->concurrency > CMX_CONCURRENCY_MAX))
		return lib_fail(CMX_E_INVALID, "concurrency is 1 to %d, not %u",
		                CMX_CONCURRENCY_MAX, o->concurrency);
	return 0;
}

/* Between lib_enter and lib_leave. */
static int many_start(struct cmx *c, const struct many_work *w,
                      const struct cmx_batch_options *options, struct many **mp)
{
	struct many *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return lib_fail(CMX_E_NOMEM, "out of memory: a task");
	r = read_batch_options(&m->o, options);
	if (r == 0)
		r = check_work(w, &m->o);
	if (r == 0)
		r = lib_begin(c);
	if (r == 0) {
		m->count = w->count;
		m->items = calloc(m->count, sizeof(*m->items));
		if (!m->items)
			r = lib_fail(CMX_E_NOMEM, "out of memory: a task");
	}
	if (r < 0) {
		free(m);
		return r;
	}
	lib_task_init(&m->task, c, &many_kind);
	r = w->workflows ? many_make_batch(m, w->workflows)
	                 : many_make_chain(m, w->steps);
	if (r < 0)
		lib_task_discard(&m->task);
	else
		*mp = m;
	return r;
}

static int many_start_public(struct cmx *c, const struct many_work *w,
                             const struct cmx_batch_options *options,
                             cmx_all_end_fn *on_end, void *user,
                             struct cmx_task **taskp)
{
	struct many *m;
	int r = lib_task_enter(c, on_end != NULL, taskp);

	if (r < 0)
		return r;
	r = many_start(c, w, options, &m);
	if (r == 0) {
		m->on_end = on_end;
		m->user = user;
		if (taskp)
			*taskp = &m->task;
	}
	return lib_leave(c, r);
}

static int many_wait(struct cmx *c, struct many *m, struct many_wait *w,
                     struct cmx_results **resultsp)
{
	int r;

	m->wait = w;
	r = lib_task_wait(c, &m->task, &w->done);
	if (!w->done)
		return r;
	if (w->code == CMX_E_NOMEM)
		return lib_fail(CMX_E_NOMEM, "out of memory: results");
	if (w->code < 0)
		(void)lib_fail(w->code, "%zu of %zu did not complete",
		               w->results->count - w->results->completed,
		               w->results->count);
	if (resultsp)
		*resultsp = w->results;
	else
		cmx_results_free(w->results);
	return w->code;
}

static int many_run(struct cmx *c, const struct many_work *w,
                    const struct cmx_batch_options *options,
                    struct cmx_results **resultsp)
{
	struct many_wait wait = {.done = false};
	struct many *m;
	int r;

	if (resultsp)
		*resultsp = NULL;
	r = lib_enter(c, LIB_BLOCKS);
	if (r < 0)
		return r;
	r = many_start(c, w, options, &m);
	if (r == 0)
		r = many_wait(c, m, &wait, resultsp);
	return lib_leave(c, r);
}

int cmx_start_batch(struct cmx *c, const char *const *workflows, size_t count,
                    const struct cmx_batch_options *options,
                    cmx_all_end_fn *on_end, void *user, struct cmx_task **taskp)
{
	const struct many_work w = {.workflows = workflows, .count = count};

	return many_start_public(c, &w, options, on_end, user, taskp);
}

int cmx_start_chain(struct cmx *c, const struct cmx_step *steps, size_t count,
                    const struct cmx_batch_options *options,
                    cmx_all_end_fn *on_end, void *user, struct cmx_task **taskp)
{
	const struct many_work w = {.steps = steps, .count = count};

	return many_start_public(c, &w, options, on_end, user, taskp);
}

int cmx_batch(struct cmx *c, const char *const *workflows, size_t count,
              const struct cmx_batch_options *options,
              struct cmx_results **resultsp)
{
	const struct many_work w = {.workflows = workflows, .count = count};

	return many_run(c, &w, options, resultsp);
}

int cmx_chain(struct cmx *c, const struct cmx_step *steps, size_t count,
              const struct cmx_batch_options *options,
              struct cmx_results **resultsp)
{
	const struct many_work w = {.steps = steps, .count = count};

	return many_run(c, &w, options, resultsp);
}
