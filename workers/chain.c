/*
 * chain.c - see chain.h: one step after the other.
 *
 *     next -> (fetch and upload) -> intent -> go -> execute -> end -> next
 *                    ^                                |
 *                    '--- refused for the reference --'
 *
 * A reference that ComfyUI refuses (a loader that is no longer what it was, a
 * file that is gone) has executed nothing: then the image is fetched and
 * uploaded, or it turns out that it can't be.
 */
#include "workers/chain.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/uuid.h"
#include "common/workflow.h"
#include "workers/execute_view.h"
#include "workers/hand_over.h"

enum chain_state {
	CHAIN_NEXT, /* the pump begins the current step */
	CHAIN_HAND, /* its image is fetched and uploaded */
	CHAIN_INTENT,
	CHAIN_GOING,
};

/* What is known of a step that has ended. */
struct step_end {
	bool ended, ok;
	char *outputs; /* JSON text, of one that is ok */
	size_t outputs_len;
};

struct chain {
	struct link *link;
	struct chain_spec *spec;
	struct chain_options options;
	const struct chain_handlers *handlers;
	void *user;
	ev_timer pump;
	struct step_end *ends;
	size_t failed;
	bool cancelled;
	double told; /* of the whole */
	/* The current step. */
	size_t current;
	enum chain_state state;
	int64_t started_ms;
	struct hand_over *hand;
	char *handed;
	bool referred, uploaded; /* how it was handed over */
	struct buf workflow;     /* as it is submitted */
	char *prompt_id;
	bool resume;
	struct execute *execute;
};

static void chain_wake(struct chain *c)
{
	if (!ev_is_active(&c->pump)) {
		ev_timer_set(&c->pump, 0., 0.);
		ev_timer_start(link_loop(c->link), &c->pump);
	}
}

static const struct chain_step *chain_step(const struct chain *c)
{
	return &c->spec->steps[c->current];
}

static void chain_tell(struct chain *c, double of_step)
{
	double whole = ((double)c->current + of_step) / (double)c->spec->count;

	if (whole <= c->told)
		return;
	c->told = whole;
	if (c->handlers->on_progress)
		c->handlers->on_progress(c->user, whole);
}

/* --- ends ---------------------------------------------------------------- */

/* Of the current step, so that the next can begin. */
static void chain_drop_step(struct chain *c)
{
	c->hand = hand_over_free(c->hand);
	c->execute = execute_free(c->execute);
	free(c->handed);
	c->handed = NULL;
	free(c->prompt_id);
	c->prompt_id = NULL;
	buf_reset(&c->workflow);
	c->referred = c->uploaded = c->resume = false;
}

/* False: no memory for them. */
static bool chain_keep_outputs(struct step_end *e, const struct progress *p)
{
	const struct cmx_progress *g = progress_get(p);

	e->outputs = malloc(g->outputs_len + 1);
	if (!e->outputs)
		return false;
	memcpy(e->outputs, g->outputs, g->outputs_len);
	e->outputs[g->outputs_len] = '\0';
	e->outputs_len = g->outputs_len;
	return true;
}

static void chain_end_step(struct chain *c, struct chain_result *r)
{
	struct step_end *e = &c->ends[c->current];

	r->index = c->current;
	r->handed = c->handed;
	r->elapsed_ms = c->started_ms ? clock_ms() - c->started_ms : 0;
	e->ended = true;
	e->ok = r->end == EXECUTE_COMPLETED;
	if (!e->ok)
		c->failed++;
	else if (!progress_get(r->progress)->outputs_truncated)
		(void)chain_keep_outputs(e, r->progress);
	c->handlers->on_step(c->user, r);
	chain_tell(c, 1);
	chain_drop_step(c);
	c->current++;
	c->state = CHAIN_NEXT;
	c->started_ms = 0;
	chain_wake(c);
}

static void chain_end_unsubmitted(struct chain *c, enum execute_end end,
                                  bool skipped, const struct error *err)
{
	struct chain_result r = {
		.end = end,
		.skipped = skipped,
		.node_errors = JSON_MISSING,
		.error = err,
	};

	chain_end_step(c, &r);
}

static void chain_fail_step(struct chain *c, const struct error *err)
{
	chain_end_unsubmitted(c, EXECUTE_ERROR, false, err);
}

static void chain_skip(struct chain *c, const char *why)
{
	struct error err;

	error_set(&err, ERR_CANCELLED, "not started: %s", why);
	chain_end_unsubmitted(c, EXECUTE_CANCELLED, true, &err);
}

static void chain_fetch(struct chain *c);

/* It was refused for the image's name, and there is another way. */
static bool is_refused_reference(const struct chain *c,
                                 const struct execute_result *r)
{
	return r->end == EXECUTE_REJECTED && c->referred && !c->cancelled &&
	       json_is(json_get(r->node_errors, chain_step(c)->node),
	               JSON_OBJECT);
}

static void on_end(void *user, const struct execute_result *e)
{
	struct chain *c = user;
	struct chain_result r = {
		.end = e->end,
		.submitted = e->submitted,
		.progress = e->progress,
		.node_errors = e->node_errors,
		.error = e->error,
	};

	if (!is_refused_reference(c, e)) {
		chain_end_step(c, &r);
		return;
	}
	c->execute = execute_free(c->execute);
	free(c->prompt_id);
	c->prompt_id = NULL;
	chain_fetch(c);
}

static void on_submitted(void *user, const char *prompt_id,
                         struct json node_errors)
{
	struct chain *c = user;

	if (c->handlers->on_submitted)
		c->handlers->on_submitted(c->user, c->current, prompt_id);
}

static void on_news(void *user, const struct follow_news *news)
{
	struct chain *c = user;

	if (c->handlers->on_news)
		c->handlers->on_news(c->user, c->current, news);
	chain_tell(c, execute_fraction(news->progress, chain_step(c)->nodes));
}

static const struct execute_handlers execute_handlers = {
	.on_submitted = on_submitted,
	.on_news = on_news,
	.on_end = on_end,
};

/* --- submitting ---------------------------------------------------------- */

static void step_go(struct chain *c)
{
	struct execute_options o = {
		.workflow = span_make(c->workflow.data, c->workflow.len),
		.prompt_id = c->prompt_id,
		.timeout_ms = c->options.timeout_ms,
		.resume = c->resume,
	};
	struct error err;

	c->state = CHAIN_GOING;
	c->resume = false;
	c->execute = execute_new(c->link, &o, &execute_handlers, c, &err);
	if (!c->execute)
		chain_fail_step(c, &err);
	else if (c->cancelled)
		execute_cancel(c->execute);
}

static void step_intend(struct chain *c)
{
	char fresh[UUID_LEN + 1];
	struct error err;

	if (!c->prompt_id) {
		if (uuid_new(fresh) == 0)
			c->prompt_id = strdup(fresh);
		if (!c->prompt_id) {
			error_set_nomem(&err, "prompt id");
			chain_fail_step(c, &err);
			return;
		}
	}
	c->state = CHAIN_INTENT;
	if (c->resume || !c->handlers->on_intent)
		step_go(c);
	else
		c->handlers->on_intent(c->user, c->current, c->prompt_id);
}

/* The image goes by this name: into the workflow with it. */
static void step_fill(struct chain *c, const char *name)
{
	struct error err;

	buf_reset(&c->workflow);
	free(c->handed);
	c->handed = NULL;
	c->handed = strdup(name);
	if (!c->handed)
		error_set_nomem(&err, "image");
	if (!c->handed ||
	    chain_step_fill(chain_step(c), name, &c->workflow, &err))
		chain_fail_step(c, &err);
	else
		step_intend(c);
}

static void on_handed(void *user, const char *name, const struct error *err)
{
	struct chain *c = user;
	struct error why;

	c->hand = NULL;
	if (name) {
		c->uploaded = true;
		step_fill(c, name);
		return;
	}
	why = *err;
	(void)error_prefix(&why,
	                   "the image of step %zu could not be handed "
	                   "over",
	                   chain_step(c)->from);
	chain_fail_step(c, &why);
}

static int chain_pick(struct chain *c, struct chain_image *image,
                      struct error *err)
{
	const struct chain_step *s = chain_step(c);
	const struct step_end *from = &c->ends[s->from];
	struct json outputs;

	memset(image, 0, sizeof(*image));
	if (!from->ok)
		return error_set(err, ERR_NOT_FOUND,
		                 "step %zu did not complete, so it gave no "
		                 "image to take",
		                 s->from);
	if (!from->outputs ||
	    json_parse(&outputs, from->outputs, from->outputs_len,
	               JSON_NONFINITE, NULL))
		return error_set(err, ERR_LIMIT,
		                 "the outputs of step %zu are too long to be "
		                 "kept",
		                 s->from);
	return chain_image_pick(image, s, outputs, err);
}

static void chain_fetch(struct chain *c)
{
	struct chain_image image;
	struct error err;

	c->state = CHAIN_HAND;
	c->referred = false;
	if (chain_pick(c, &image, &err) == 0)
		c->hand = hand_over_new(c->link, &image, on_handed, c, &err);
	chain_image_deinit(&image);
	if (!c->hand)
		chain_fail_step(c, &err);
}

static void step_hand_over(struct chain *c)
{
	cleanup_buf struct buf name = BUF_INIT((size_t)4 * CHAIN_NAME_MAX);
	struct chain_image image;
	struct error err;

	if (chain_pick(c, &image, &err)) {
		chain_image_deinit(&image);
		chain_fail_step(c, &err);
		return;
	}
	c->referred = chain_can_refer(chain_step(c)->class, &image);
	if (c->referred)
		chain_reference(&image, &name);
	chain_image_deinit(&image);
	if (c->referred)
		step_fill(c, buf_cstr(&name));
	else
		chain_fetch(c);
}

static void step_begin(struct chain *c)
{
	const struct chain_step *s = chain_step(c);
	struct error err;

	c->started_ms = clock_ms();
	if (s->takes) {
		step_hand_over(c);
	} else if (buf_append(&c->workflow, s->workflow.data,
	                      s->workflow.len)) {
		error_set_nomem(&err, "workflow");
		chain_fail_step(c, &err);
	} else {
		step_intend(c);
	}
}

/* Where nothing may run after a failure, nothing need run before one that is
 * certain: the step that can't work whatever the others do. A file that can't
 * be read is no fault of the chain's: what comes before it runs. */
static bool is_doomed(const struct chain *c)
{
	if (!c->options.stop_on_error)
		return false;
	for (size_t i = c->current + 1; i < c->spec->count; i++) {
		const struct chain_step *s = &c->spec->steps[i];

		if (s->fault.code != ERR_NONE && !s->unread)
			return true;
	}
	return false;
}

static void chain_next(struct chain *c)
{
	if (c->cancelled && !c->prompt_id)
		chain_skip(c, "the chain was cancelled");
	else if (chain_step(c)->fault.code != ERR_NONE)
		chain_fail_step(c, &chain_step(c)->fault);
	else if (c->options.stop_on_error && c->failed > 0)
		chain_skip(c, "an earlier step failed");
	else if (is_doomed(c) && !c->prompt_id)
		chain_skip(c, "a later step cannot work");
	else
		step_begin(c);
}

static void on_pump(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct chain *c = container_of(t, struct chain, pump);
	struct error err;

	while (c->current < c->spec->count && c->ends[c->current].ended)
		c->current++;
	if (c->current == c->spec->count) {
		c->handlers->on_done(c->user, c->failed);
		return;
	}
	if (c->state == CHAIN_NEXT) {
		chain_next(c);
	} else if (c->state == CHAIN_HAND && c->cancelled) {
		error_set(&err, ERR_CANCELLED,
		          "cancelled before it was submitted");
		chain_end_unsubmitted(c, EXECUTE_CANCELLED, false, &err);
	}
}

void chain_go(struct chain *c, size_t index)
{
	if (index == c->current && c->state == CHAIN_INTENT)
		step_go(c);
}

void chain_cancel(struct chain *c)
{
	c->cancelled = true;
	if (c->state == CHAIN_GOING)
		execute_cancel(c->execute);
	else
		chain_wake(c);
}

/* --- life ---------------------------------------------------------------- */

struct chain *chain_new(struct link *l, struct chain_spec *spec,
                        const struct chain_options *o,
                        const struct chain_handlers *h, void *user,
                        struct error *err)
{
	struct chain *c = calloc(1, sizeof(*c));

	if (c)
		c->ends = calloc(spec->count, sizeof(*c->ends));
	if (!c || !c->ends) {
		free(c);
		(void)chain_spec_free(spec);
		error_set_nomem(err, "chain");
		return NULL;
	}
	c->link = l;
	c->spec = spec;
	c->options = *o;
	c->handlers = h;
	c->user = user;
	buf_init(&c->workflow, WORKFLOW_SIZE_MAX);
	ev_timer_init(&c->pump, on_pump, 0., 0.);
	chain_wake(c);
	return c;
}

struct chain *chain_free(struct chain *c)
{
	if (!c)
		return NULL;
	ev_timer_stop(link_loop(c->link), &c->pump);
	chain_drop_step(c);
	buf_deinit(&c->workflow);
	for (size_t i = 0; i < c->spec->count; i++)
		free(c->ends[i].outputs);
	free(c->ends);
	(void)chain_spec_free(c->spec);
	free(c);
	return NULL;
}

int chain_restore_ended(struct chain *c, size_t index, bool ok,
                        struct span outputs, struct error *err)
{
	struct step_end *e = index < c->spec->count ? &c->ends[index] : NULL;

	if (!e || e->ended)
		return 0;
	e->ended = true;
	e->ok = ok;
	if (!ok) {
		c->failed++;
		return 0;
	}
	e->outputs = strndup(outputs.p ? outputs.p : "", outputs.n);
	if (!e->outputs)
		return error_set_nomem(err, "outputs");
	e->outputs_len = outputs.n;
	return 0;
}

/* Only the first that has not ended can have been submitted. */
int chain_restore_intent(struct chain *c, size_t index, const char *prompt_id,
                         struct error *err)
{
	while (c->current < c->spec->count && c->ends[c->current].ended)
		c->current++;
	if (index != c->current || index >= c->spec->count)
		return 0;
	free(c->prompt_id);
	c->prompt_id = strdup(prompt_id);
	if (!c->prompt_id)
		return error_set_nomem(err, "prompt id");
	c->resume = true;
	return 0;
}

const struct chain_spec *chain_spec_of(const struct chain *c)
{
	return c->spec;
}

size_t chain_current(const struct chain *c)
{
	return c->current;
}

const struct progress *chain_progress(const struct chain *c)
{
	return c->execute ? execute_progress(c->execute) : NULL;
}

void chain_result_json(const struct chain_result *r, struct buf *out)
{
	struct job_result res = {
		.index = r->index,
		.error = r->error,
		.node_errors = r->node_errors,
		.handed = r->handed,
		.elapsed_ms = r->elapsed_ms,
	};

	execute_result_json(&res, r->end, r->progress, out);
}
