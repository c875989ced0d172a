/*
 * job_worker.c - see job_worker.h.
 *
 *     attach -> take (pages of what was done) -> items (a chain's) -> work
 *         -> results stored -> end
 */
#include "workers/job_worker.h"

#include <ev.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/job_result.h"
#include "common/log.h"
#include "common/workflow.h"
#include "ipc/zygote.h"
#include "workers/batch.h"
#include "workers/chain.h"

#define PARAMS_MAX   (15u << 20)
#define TELL_S       0.25  /* between two words on how far the whole is */
#define ASK_MS       60000 /* for the supervisor's answer */
#define RESULT_BYTES (12u << 20)

/* What a predecessor did of an item. */
struct taken {
	char *prompt_id;
	unsigned resubmits;
	bool ended, ok;
	char *outputs; /* of a chain's step that is ok */
};

struct job_worker {
	struct ev_loop *loop;
	struct link *link;
	struct link_watch watch;
	bool is_chain, cancelled, started, done;
	size_t total;
	struct batch_options options;
	struct taken *taken;
	struct buf steps; /* {"steps":[... */
	size_t next_step;
	struct batch *batch;
	struct chain *chain;
	size_t storing;        /* results that are not acknowledged */
	double fraction, told; /* of the whole */
	ev_timer tell;
	int status;
};

/* A question on its way. */
struct job_ask {
	struct job_worker *w;
	size_t index;
	void (*on_reply)(struct job_worker *w, size_t index, struct json result,
	                 const struct error *err);
};

static void job_leave(struct job_worker *w, int status)
{
	w->done = true;
	w->status = status;
	ev_break(w->loop, EVBREAK_ALL);
}

static void job_give_up(struct job_worker *w, const struct error *err)
{
	log_error("job", "%s", err->text);
	job_leave(w, EXIT_FAILURE);
}

static void on_answer(void *user, const struct incoming *in,
                      const struct error *err)
{
	struct job_ask *a = user;
	struct job_ask ask = *a;

	free(a);
	if (ask.w->done)
		return;
	/* No answer at all: the bus is of no use any more. */
	if (err && !in)
		job_give_up(ask.w, err);
	else
		ask.on_reply(ask.w, ask.index, err ? JSON_MISSING : in->result,
		             err);
}

static void job_ask(struct job_worker *w, enum op op, const struct buf *params,
                    size_t index,
                    void (*on_reply)(struct job_worker *w, size_t index,
                                     struct json result,
                                     const struct error *err))
{
	struct job_ask *a = malloc(sizeof(*a));
	struct error err;

	if (!a || !buf_ok(params)) {
		free(a);
		error_set_nomem(&err, "a question");
		job_give_up(w, &err);
		return;
	}
	*a = (struct job_ask){w, index, on_reply};
	if (link_ask(w->link, op, span_make(params->data, params->len), ASK_MS,
	             on_answer, a, &err) == 0) {
		free(a);
		job_give_up(w, &err);
	}
}

/* --- ends ---------------------------------------------------------------- */

static void on_ended(struct job_worker *w, size_t index, struct json result,
                     const struct error *err)
{
	if (err)
		job_give_up(w, err);
	else
		job_leave(w, EXIT_SUCCESS);
}

static void job_end(struct job_worker *w)
{
	cleanup_buf struct buf params = BUF_INIT(16);

	(void)buf_puts(&params, "{}");
	job_ask(w, OP_JOB_END, &params, 0, on_ended);
}

static bool job_is_over(const struct job_worker *w)
{
	return w->started && !w->batch && !w->chain && w->storing == 0;
}

static void on_stored(struct job_worker *w, size_t index, struct json result,
                      const struct error *err)
{
	w->storing--;
	if (err)
		job_give_up(w, err);
	else if (job_is_over(w))
		job_end(w);
}

static void job_store(struct job_worker *w, size_t index,
                      const struct buf *result)
{
	cleanup_buf struct buf params = BUF_INIT(PARAMS_MAX);

	(void)buf_printf(&params, "{\"index\":%zu,\"result\":", index);
	(void)buf_append(&params, result->data, result->len);
	(void)buf_putc(&params, '}');
	w->storing++;
	job_ask(w, OP_JOB_RESULT, &params, index, on_stored);
}

/* A result too long to be kept goes without its outputs, and says so. */
static void job_store_bounded(struct job_worker *w, struct job_result *r,
                              const struct buf *whole)
{
	cleanup_buf struct buf b = BUF_INIT(RESULT_BYTES);

	if (buf_ok(whole)) {
		job_store(w, r->index, whole);
		return;
	}
	r->progress = r->node_errors = JSON_MISSING;
	r->more = SPAN(",\"outputs_left_out\":true");
	job_result_json(r, &b);
	job_store(w, r->index, &b);
}

static void job_done(struct job_worker *w)
{
	if (job_is_over(w))
		job_end(w);
}

/* --- how far it is -------------------------------------------------------- */

/* Only said: whoever looks at the job sees its ends in any case. */
static void on_progress_taken(struct job_worker *w, size_t index,
                              struct json result, const struct error *err)
{
	if (err)
		log_debug("job", "progress: %s", err->text);
}

static void job_tell(struct job_worker *w)
{
	cleanup_buf struct buf params = BUF_INIT(64);

	w->told = w->fraction;
	(void)buf_printf(&params, "{\"fraction\":%.4f}", w->told);
	job_ask(w, OP_JOB_PROGRESS, &params, 0, on_progress_taken);
	ev_timer_set(&w->tell, TELL_S, 0.);
	ev_timer_start(w->loop, &w->tell);
}

static void on_tell(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct job_worker *w = container_of(t, struct job_worker, tell);

	if (w->fraction > w->told)
		job_tell(w);
}

static void on_fraction(void *user, double fraction)
{
	struct job_worker *w = user;

	w->fraction = fraction;
	if (fraction > w->told && !ev_is_active(&w->tell))
		job_tell(w);
}

/* --- intents ------------------------------------------------------------- */

static void on_intended(struct job_worker *w, size_t index, struct json result,
                        const struct error *err)
{
	if (err)
		job_give_up(w, err);
	else if (w->batch)
		batch_go(w->batch, index);
	else if (w->chain)
		chain_go(w->chain, index);
}

static void on_intent(void *user, size_t index, const char *prompt_id,
                      unsigned resubmits)
{
	cleanup_buf struct buf params = BUF_INIT(1024);

	(void)buf_printf(&params, "{\"index\":%zu,\"resubmits\":%u", index,
	                 resubmits);
	(void)buf_json_key(&params, "prompt_id");
	(void)buf_json_string(&params, prompt_id, strlen(prompt_id));
	(void)buf_putc(&params, '}');
	job_ask(user, OP_JOB_INTENT, &params, index, on_intended);
}

/* --- batch --------------------------------------------------------------- */

static void put_index(struct buf *params, size_t index)
{
	(void)buf_printf(params, "{\"index\":%zu}", index);
}

static void on_text(struct job_worker *w, size_t index, struct json result,
                    const struct error *err)
{
	struct json item = json_get(result, "item"), text;
	cleanup_free char *unreadable =
		json_string_dup(json_get(item, "unreadable"), ERROR_TEXT_MAX);
	struct error why;

	if (!w->batch)
		return;
	if (!err && unreadable) {
		(void)error_set(&why, ERR_INVALID, "%s", unreadable);
		err = &why;
	} else if (!err && workflow_parse(&text, item.text.p, item.text.n,
	                                  "workflow", &why)) {
		err = &why;
	}
	if (err)
		batch_fail_item(w->batch, index, err);
	else
		batch_supply(w->batch, index, text.text, NULL);
}

static void on_want(void *user, size_t index)
{
	cleanup_buf struct buf params = BUF_INIT(64);

	put_index(&params, index);
	job_ask(user, OP_JOB_ITEM, &params, index, on_text);
}

static void on_item(void *user, const struct batch_result *r)
{
	cleanup_buf struct buf b = BUF_INIT(RESULT_BYTES);
	struct job_result bare = {
		.index = r->index,
		.end = r->end == EXECUTE_COMPLETED ? JOB_COMPLETED : JOB_FAILED,
		.error = r->error,
		.resubmits = r->resubmits,
		.elapsed_ms = r->elapsed_ms,
	};

	batch_result_json(r, &b);
	job_store_bounded(user, &bare, &b);
}

static void on_plan(void *user, const struct batch_plan *plan)
{
	on_fraction(user, batch_plan_fraction(plan));
}

static void on_batch_done(void *user, const struct batch_plan *plan)
{
	struct job_worker *w = user;

	w->batch = batch_free(w->batch);
	job_done(w);
}

static const struct batch_handlers batch_handlers = {
	.on_want = on_want,
	.on_intent = on_intent,
	.on_item = on_item,
	.on_progress = on_plan,
	.on_done = on_batch_done,
};

static int start_batch(struct job_worker *w, struct error *err)
{
	w->batch = batch_new(w->link, w->total, &w->options, &batch_handlers, w,
	                     err);
	for (size_t i = 0; w->batch && i < w->total; i++) {
		const struct taken *t = &w->taken[i];

		if (t->ended)
			batch_restore_ended(w->batch, i, t->ok);
		else if (t->prompt_id &&
		         batch_restore_intent(w->batch, i, t->prompt_id,
		                              t->resubmits, err))
			return -1;
	}
	if (w->batch && w->cancelled)
		batch_cancel(w->batch);
	return w->batch ? 0 : -1;
}

/* --- chain --------------------------------------------------------------- */

static void on_step_intent(void *user, size_t index, const char *prompt_id)
{
	on_intent(user, index, prompt_id, 0);
}

static void on_step(void *user, const struct chain_result *r)
{
	cleanup_buf struct buf b = BUF_INIT(RESULT_BYTES);
	struct job_result bare = {
		.index = r->index,
		.end = r->end == EXECUTE_COMPLETED ? JOB_COMPLETED : JOB_FAILED,
		.error = r->error,
		.elapsed_ms = r->elapsed_ms,
	};

	chain_result_json(r, &b);
	job_store_bounded(user, &bare, &b);
}

static void on_chain_done(void *user, size_t failed)
{
	struct job_worker *w = user;

	w->chain = chain_free(w->chain);
	job_done(w);
}

static const struct chain_handlers chain_handlers = {
	.on_intent = on_step_intent,
	.on_step = on_step,
	.on_progress = on_fraction,
	.on_done = on_chain_done,
};

static int start_chain(struct job_worker *w, struct error *err)
{
	const struct chain_options o = {
		.stop_on_error = w->options.stop_on_error,
		.timeout_ms = w->options.timeout_ms,
	};
	struct chain_spec *spec;
	struct json whole;

	(void)buf_puts(&w->steps, "]}");
	if (!buf_ok(&w->steps) ||
	    json_parse(&whole, w->steps.data, w->steps.len, JSON_NONFINITE,
	               NULL))
		return error_set(err, ERR_LIMIT, "the chain is too long");
	spec = chain_spec_parse(whole, err);
	/* Consumes spec. */
	w->chain = spec ? chain_new(w->link, spec, &o, &chain_handlers, w, err)
	                : NULL;
	for (size_t i = 0; w->chain && i < w->total; i++) {
		const struct taken *t = &w->taken[i];
		struct span outputs = t->outputs ? SPAN(t->outputs) : SPAN_NULL;

		if (t->ended ? chain_restore_ended(w->chain, i, t->ok, outputs,
		                                   err)
		             : t->prompt_id &&
		                       chain_restore_intent(w->chain, i,
		                                            t->prompt_id, err))
			return -1;
	}
	if (w->chain && w->cancelled)
		chain_cancel(w->chain);
	buf_deinit(&w->steps);
	return w->chain ? 0 : -1;
}

/* --- what there is to do ------------------------------------------------- */

/* It can't be done at all: each item that has not ended says so. */
static void job_fail_all(struct job_worker *w, const struct error *err)
{
	for (size_t i = 0; i < w->total && !w->done; i++) {
		cleanup_buf struct buf b = BUF_INIT(RESULT_BYTES);
		struct job_result r = {.index = i,
		                       .end = JOB_FAILED,
		                       .progress = JSON_MISSING,
		                       .node_errors = JSON_MISSING,
		                       .error = err};

		if (w->taken[i].ended)
			continue;
		job_result_json(&r, &b);
		job_store(w, i, &b);
	}
	job_done(w);
}

static void job_start(struct job_worker *w)
{
	struct error err;
	int r = w->is_chain ? start_chain(w, &err) : start_batch(w, &err);

	w->started = true;
	if (r == 0)
		return;
	w->batch = batch_free(w->batch);
	w->chain = chain_free(w->chain);
	job_fail_all(w, &err);
}

static void on_step_text(struct job_worker *w, size_t index, struct json result,
                         const struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(64);
	struct json item = json_get(result, "item");

	if (err) {
		job_give_up(w, err);
		return;
	}
	(void)buf_puts(&w->steps, index ? "," : "{\"steps\":[");
	(void)buf_append(&w->steps, item.text.p, item.text.n);
	if (++w->next_step == w->total) {
		job_start(w);
		return;
	}
	put_index(&params, w->next_step);
	job_ask(w, OP_JOB_ITEM, &params, w->next_step, on_step_text);
}

static void take_item(struct job_worker *w, struct json it)
{
	struct json result = json_get(it, "result");
	uint64_t index, resubmits = 0;
	struct taken *t;

	if (!json_uint64(json_get(it, "index"), &index) || index >= w->total)
		return;
	t = &w->taken[index];
	(void)json_uint64(json_get(it, "resubmits"), &resubmits);
	t->resubmits = (unsigned)resubmits;
	free(t->prompt_id);
	t->prompt_id =
		json_string_dup(json_get(it, "prompt_id"), PROGRESS_ID_MAX);
	t->ended = json_is(result, JSON_OBJECT);
	t->ok = json_string_eq(json_get(result, "status"), "completed");
	if (w->is_chain && t->ok) {
		struct span o = json_get(result, "outputs").text;

		free(t->outputs);
		t->outputs = strndup(o.p ? o.p : "{}", o.p ? o.n : 2);
	}
}

/* Whoever made the job may have put anything there. */
static void take_options(struct job_worker *w, struct json o)
{
	int64_t n;

	w->options = (struct batch_options){
		.concurrency = BATCH_CONCURRENCY,
		.stop_on_error = w->is_chain,
		.resubmits = BATCH_RESUBMITS_MAX,
	};
	if (json_int64(json_get(o, "concurrency"), &n) && n >= 1 &&
	    n <= BATCH_CONCURRENCY_MAX)
		w->options.concurrency = (unsigned)n;
	if (json_int64(json_get(o, "resubmits"), &n) && n >= 0 &&
	    n <= BATCH_RESUBMITS_MAX)
		w->options.resubmits = (unsigned)n;
	if (json_int64(json_get(o, "timeout_ms"), &n) && n > 0)
		w->options.timeout_ms = n;
	(void)json_bool(json_get(o, "stop_on_error"),
	                &w->options.stop_on_error);
}

static int take_head(struct job_worker *w, struct json result)
{
	uint64_t total;

	if (!json_uint64(json_get(result, "total"), &total) || total < 1 ||
	    total > BATCH_ITEMS_MAX)
		return -1;
	w->total = (size_t)total;
	w->is_chain = json_string_eq(json_get(result, "kind"), "chain");
	(void)json_bool(json_get(result, "cancelled"), &w->cancelled);
	take_options(w, json_get(result, "options"));
	w->taken = calloc(w->total, sizeof(*w->taken));
	return w->taken ? 0 : -1;
}

static void on_taken(struct job_worker *w, size_t index, struct json result,
                     const struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(64);
	struct error bad;
	struct json_iter it;
	struct json item;
	int64_t next;

	if (err) {
		job_give_up(w, err);
		return;
	}
	if (!w->taken && take_head(w, result)) {
		error_set(&bad, ERR_PROTOCOL, "what to do is not usable");
		job_give_up(w, &bad);
		return;
	}
	json_iter_init(&it, json_get(result, "items"));
	while (json_iter_next(&it, NULL, &item))
		take_item(w, item);
	if (json_int64(json_get(result, "next"), &next)) {
		(void)buf_printf(&params, "{\"from\":%" PRId64 "}", next);
		job_ask(w, OP_JOB_TAKE, &params, 0, on_taken);
	} else if (w->is_chain) {
		put_index(&params, 0);
		job_ask(w, OP_JOB_ITEM, &params, 0, on_step_text);
	} else {
		job_start(w);
	}
}

static void on_bus(void *user, bool up)
{
	cleanup_buf struct buf params = BUF_INIT(16);
	struct job_worker *w = user;

	if (!up) {
		/* Not one line more: whoever comes next takes it up. */
		log_info("job", "the supervisor is gone");
		log_flush();
		_exit(EXIT_FAILURE);
	}
	(void)buf_puts(&params, "{}");
	job_ask(w, OP_JOB_TAKE, &params, 0, on_taken);
}

/* --- life ---------------------------------------------------------------- */

static int job_open(struct job_worker *w, const struct worker_start *start,
                    struct error *err)
{
	const struct zygote_told *t = start->told;
	const struct link_config cfg = {
		.kind = "batch",
		.default_url = t->comfyui,
		.address = t->address,
		.client_id = t->client_id,
		.ca_file = t->ca_file,
		.proxy = t->proxy,
		.connect_timeout_ms = t->connect_timeout_ms,
		.request_timeout_ms = t->request_timeout_ms,
		.poll_interval_ms = t->poll_interval_ms,
		.sessions = t->sessions,
		.had_bus = true,
		.tenant = start->tenant,
	};

	w->link = link_new(w->loop, &cfg, err);
	if (!w->link) {
		(void)close(start->bus_fd);
		return -1;
	}
	w->watch = (struct link_watch){
		.prompt_id = "", .on_bus = on_bus, .user = w};
	link_watch_add(w->link, &w->watch);
	/* Consumes the descriptor. */
	return link_set_bus(w->link, start->bus_fd, err);
}

static void job_close(struct job_worker *w)
{
	ev_timer_stop(w->loop, &w->tell);
	w->batch = batch_free(w->batch);
	w->chain = chain_free(w->chain);
	if (w->link) {
		link_watch_remove(w->link, &w->watch);
		w->link = link_free(w->link);
	}
	for (size_t i = 0; w->taken && i < w->total; i++) {
		free(w->taken[i].prompt_id);
		free(w->taken[i].outputs);
	}
	free(w->taken);
	buf_deinit(&w->steps);
}

int job_worker_run(const struct worker_start *start)
{
	struct job_worker w = {.status = EXIT_FAILURE};
	struct error err;

	(void)close(start->session_fd);
	(void)signal(SIGPIPE, SIG_IGN);
	buf_init(&w.steps, PARAMS_MAX);
	ev_timer_init(&w.tell, on_tell, 0., 0.);
	w.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!w.loop) {
		log_error("job", "no event loop");
		return EXIT_FAILURE;
	}
	if (job_open(&w, start, &err))
		job_give_up(&w, &err);
	while (!w.done)
		(void)ev_run(w.loop, 0);
	job_close(&w);
	ev_loop_destroy(w.loop);
	return w.status;
}
