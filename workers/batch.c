/*
 * batch.c - see batch.h: the plan carried out with one execute for each
 * workflow that runs.
 *
 *     plan says next -> wanted -> supplied -> intent -> go -> execute -> end
 *                                    ^                                    |
 *                                    '------- lost: a fresh id -----------'
 *
 * The text is kept until ComfyUI's end of it is known, since a lost workflow
 * is submitted again.
 */
#include "workers/batch.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/uuid.h"
#include "common/workflow.h"
#include "workers/execute_view.h"

enum run_state {
	RUN_FRESH,  /* the pump asks for its text */
	RUN_WANTED, /* that is asked for */
	RUN_INTENT, /* its id is being recorded */
	RUN_GOING,  /* it has an execute */
	RUN_AGAIN,  /* lost: the pump gives it a fresh id */
};

/* One that runs. */
struct batch_run {
	struct list node;
	struct batch *batch;
	enum run_state state;
	size_t index;
	struct buf workflow;
	size_t nodes;
	char *prompt_id;
	bool resume; /* a predecessor recorded the id */
	unsigned resubmits;
	int64_t started_ms;
	struct execute *execute;
};

struct batch {
	struct link *link;
	struct batch_plan plan;
	const struct batch_handlers *handlers;
	void *user;
	struct list runs; /* as many as the concurrency, and those restored */
	ev_timer pump;
	bool cancelled;
};

static void run_free(struct batch_run *r)
{
	list_del(&r->node);
	r->execute = execute_free(r->execute);
	buf_deinit(&r->workflow);
	free(r->prompt_id);
	free(r);
}

/* What is to be done next is done from the loop: no handler is called from
 * inside another. */
static void batch_wake(struct batch *b)
{
	if (!ev_is_active(&b->pump)) {
		ev_timer_set(&b->pump, 0., 0.);
		ev_timer_start(link_loop(b->link), &b->pump);
	}
}

static void batch_tell(struct batch *b)
{
	if (b->handlers->on_progress)
		b->handlers->on_progress(b->user, &b->plan);
}

/* --- ends ---------------------------------------------------------------- */

/* The run is gone afterwards. */
static void run_end(struct batch_run *r, struct batch_result *res)
{
	struct batch *b = r->batch;

	res->index = r->index;
	res->resubmits = r->resubmits;
	res->elapsed_ms = clock_ms() - r->started_ms;
	(void)batch_plan_ended(&b->plan, r->index,
	                       res->end == EXECUTE_COMPLETED
	                               ? BATCH_OUTCOME_OK
	                               : BATCH_OUTCOME_FAILED);
	/* No longer to be found by its index. */
	list_del(&r->node);
	b->handlers->on_item(b->user, res);
	run_free(r);
	batch_tell(b);
	batch_wake(b);
}

static void run_end_unsubmitted(struct batch_run *r, enum execute_end end,
                                const struct error *err)
{
	struct batch_result res = {
		.end = end,
		.node_errors = JSON_MISSING,
		.error = err,
	};

	run_end(r, &res);
}

static bool is_lost(const struct execute_result *e)
{
	const char *type = progress_get(e->progress)->error.type;

	return e->end == EXECUTE_FAILED && type && strcmp(type, "lost") == 0;
}

static void on_end(void *user, const struct execute_result *e)
{
	struct batch_run *r = user;
	struct batch *b = r->batch;
	struct batch_result res = {
		.end = e->end,
		.submitted = e->submitted,
		.progress = e->progress,
		.node_errors = e->node_errors,
		.error = e->error,
	};

	if (is_lost(e) &&
	    batch_plan_ended(&b->plan, r->index, BATCH_OUTCOME_LOST)) {
		r->resubmits++;
		r->state = RUN_AGAIN;
		if (b->handlers->on_lost)
			b->handlers->on_lost(b->user, r->index, r->prompt_id,
			                     r->resubmits);
		r->execute = execute_free(r->execute);
		batch_tell(b);
		batch_wake(b);
		return;
	}
	run_end(r, &res);
}

static void on_submitted(void *user, const char *prompt_id,
                         struct json node_errors)
{
	struct batch_run *r = user;

	if (r->batch->handlers->on_submitted)
		r->batch->handlers->on_submitted(r->batch->user, r->index,
		                                 prompt_id);
}

static void on_news(void *user, const struct follow_news *news)
{
	struct batch_run *r = user;
	struct batch *b = r->batch;
	double before = batch_plan_fraction(&b->plan);

	batch_plan_advance(&b->plan, r->index,
	                   execute_fraction(news->progress, r->nodes));
	if (b->handlers->on_news)
		b->handlers->on_news(b->user, r->index, news);
	if (batch_plan_fraction(&b->plan) > before)
		batch_tell(b);
}

static const struct execute_handlers execute_handlers = {
	.on_submitted = on_submitted,
	.on_news = on_news,
	.on_end = on_end,
};

/* --- beginnings ---------------------------------------------------------- */

static void run_go(struct batch_run *r)
{
	struct batch *b = r->batch;
	struct execute_options o = {
		.workflow = span_make(r->workflow.data, r->workflow.len),
		.prompt_id = r->prompt_id,
		.timeout_ms = b->plan.options.timeout_ms,
		.resume = r->resume,
	};
	struct error err;

	r->state = RUN_GOING;
	r->resume = false;
	r->execute = execute_new(b->link, &o, &execute_handlers, r, &err);
	if (!r->execute) {
		run_end_unsubmitted(r, EXECUTE_ERROR, &err);
		return;
	}
	if (b->cancelled)
		execute_cancel(r->execute);
}

static void run_intend(struct batch_run *r)
{
	struct batch *b = r->batch;

	r->state = RUN_INTENT;
	if (r->resume || !b->handlers->on_intent)
		run_go(r);
	else
		b->handlers->on_intent(b->user, r->index, r->prompt_id,
		                       r->resubmits);
}

static int run_take_id(struct batch_run *r, const char *given,
                       struct error *err)
{
	char fresh[UUID_LEN + 1];

	if (!given && uuid_new(fresh))
		return error_set(err, ERR_SYSTEM, "no random bytes");
	free(r->prompt_id);
	r->prompt_id = strdup(given ? given : fresh);
	return r->prompt_id ? 0 : error_set_nomem(err, "prompt id");
}

static void run_again(struct batch_run *r)
{
	struct error err;

	if (r->batch->cancelled) {
		error_set(&err, ERR_CANCELLED,
		          "ComfyUI lost it, and the batch was cancelled before "
		          "it was submitted again");
		run_end_unsubmitted(r, EXECUTE_CANCELLED, &err);
	} else if (run_take_id(r, NULL, &err)) {
		run_end_unsubmitted(r, EXECUTE_ERROR, &err);
	} else {
		run_intend(r);
	}
}

/* On failure what there is remains NULL; the plan isn't touched. */
static struct batch_run *run_new(struct batch *b, size_t index)
{
	struct batch_run *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->batch = b;
	r->index = index;
	r->state = RUN_FRESH;
	r->started_ms = clock_ms();
	buf_init(&r->workflow, WORKFLOW_SIZE_MAX);
	list_append(&b->runs, &r->node);
	return r;
}

/* One that has no run: skipped, or there is no memory for one. */
static void batch_item_end(struct batch *b, size_t index, bool skipped,
                           const struct error *err)
{
	struct batch_result res = {
		.index = index,
		.end = skipped ? EXECUTE_CANCELLED : EXECUTE_ERROR,
		.skipped = skipped,
		.node_errors = JSON_MISSING,
		.error = err,
	};

	b->handlers->on_item(b->user, &res);
	batch_tell(b);
}

static void batch_skip(struct batch *b)
{
	struct error err;
	size_t index;

	while (batch_plan_skip(&b->plan, &index)) {
		error_set(&err, ERR_CANCELLED, "not started: %s",
		          b->cancelled ? "the batch was cancelled"
		                       : "an earlier workflow failed");
		batch_item_end(b, index, true, &err);
	}
}

/* Whether there is still nothing of it that anybody could have seen. */
static bool run_is_unseen(const struct batch_run *r)
{
	return (r->state == RUN_FRESH || r->state == RUN_WANTED) && !r->resume;
}

/* Each handler may end the run in question, and no other. */
static void batch_advance(struct batch *b)
{
	struct batch_run *r;
	struct list *it, *tmp;
	struct error err;

	list_for_each_safe (it, tmp, &b->runs) {
		r = list_entry(it, struct batch_run, node);
		if (b->cancelled && run_is_unseen(r)) {
			error_set(&err, ERR_CANCELLED,
			          "cancelled before it was submitted");
			run_end_unsubmitted(r, EXECUTE_CANCELLED, &err);
		} else if (r->state == RUN_AGAIN) {
			run_again(r);
		} else if (r->state == RUN_FRESH) {
			r->state = RUN_WANTED;
			b->handlers->on_want(b->user, r->index);
		}
	}
}

static void on_pump(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct batch *b = container_of(t, struct batch, pump);
	struct error err;
	size_t index;

	/* One a turn: they reach ComfyUI in the order of their numbers. */
	if (batch_plan_next(&b->plan, &index)) {
		batch_wake(b);
		if (!run_new(b, index)) {
			error_set_nomem(&err, "workflow");
			(void)batch_plan_ended(&b->plan, index,
			                       BATCH_OUTCOME_FAILED);
			batch_item_end(b, index, false, &err);
		}
	}
	batch_advance(b);
	batch_skip(b);
	if (batch_plan_over(&b->plan)) {
		ev_timer_stop(loop, t);
		b->handlers->on_done(b->user, &b->plan);
	}
}

static struct batch_run *batch_run_of(const struct batch *b, size_t index)
{
	struct batch_run *r;
	struct list *it;

	list_for_each (it, &b->runs) {
		r = list_entry(it, struct batch_run, node);
		if (r->index == index)
			return r;
	}
	return NULL;
}

static struct batch_run *batch_find(struct batch *b, size_t index,
                                    enum run_state state)
{
	struct batch_run *r = batch_run_of(b, index);

	return r && r->state == state ? r : NULL;
}

static int run_take(struct batch_run *r, struct span workflow,
                    const char *prompt_id, struct error *err)
{
	struct json w;

	if (buf_append(&r->workflow, workflow.p, workflow.n))
		return error_set(err, ERR_LIMIT,
		                 "the workflow has %zu bytes, and at most %u "
		                 "are taken",
		                 workflow.n, WORKFLOW_SIZE_MAX);
	if (workflow_parse(&w, r->workflow.data, r->workflow.len, "workflow",
	                   err))
		return -1;
	r->nodes = workflow_node_count(w);
	return r->prompt_id ? 0 : run_take_id(r, prompt_id, err);
}

void batch_supply(struct batch *b, size_t index, struct span workflow,
                  const char *prompt_id)
{
	struct batch_run *r = batch_find(b, index, RUN_WANTED);
	struct error err;

	if (!r)
		return; /* cancelled meanwhile */
	if (run_take(r, workflow, prompt_id, &err))
		run_end_unsubmitted(r, EXECUTE_ERROR, &err);
	else
		run_intend(r);
}

void batch_fail_item(struct batch *b, size_t index, const struct error *err)
{
	struct batch_run *r = batch_find(b, index, RUN_WANTED);

	if (r)
		run_end_unsubmitted(r, EXECUTE_ERROR, err);
}

void batch_go(struct batch *b, size_t index)
{
	struct batch_run *r = batch_find(b, index, RUN_INTENT);

	if (r)
		run_go(r);
}

void batch_cancel(struct batch *b)
{
	struct batch_run *r;
	struct list *it;

	b->cancelled = true;
	batch_plan_stop(&b->plan);
	/* An intent is carried out, and cancelled then; so is what a
	 * predecessor may have submitted. */
	list_for_each (it, &b->runs) {
		r = list_entry(it, struct batch_run, node);
		if (r->state == RUN_GOING)
			execute_cancel(r->execute);
	}
	batch_wake(b);
}

/* --- life ---------------------------------------------------------------- */

struct batch *batch_new(struct link *l, size_t count,
                        const struct batch_options *o,
                        const struct batch_handlers *h, void *user,
                        struct error *err)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b) {
		error_set_nomem(err, "batch");
		return NULL;
	}
	b->link = l;
	b->handlers = h;
	b->user = user;
	ev_timer_init(&b->pump, on_pump, 0., 0.);
	list_init(&b->runs);
	if (batch_plan_init(&b->plan, count, o, err))
		return batch_free(b);
	batch_wake(b);
	return b;
}

struct batch *batch_free(struct batch *b)
{
	struct list *it, *tmp;

	if (!b)
		return NULL;
	ev_timer_stop(link_loop(b->link), &b->pump);
	list_for_each_safe (it, tmp, &b->runs)
		run_free(list_entry(it, struct batch_run, node));
	batch_plan_deinit(&b->plan);
	free(b);
	return NULL;
}

void batch_restore_ended(struct batch *b, size_t index, bool ok)
{
	batch_plan_restore_ended(&b->plan, index, ok);
}

int batch_restore_intent(struct batch *b, size_t index, const char *prompt_id,
                         unsigned resubmits, struct error *err)
{
	struct batch_run *r;

	if (index >= b->plan.count ||
	    b->plan.items[index].state != BATCH_WAITING)
		return 0;
	r = run_new(b, index);
	if (!r)
		return error_set_nomem(err, "workflow");
	r->resume = true;
	r->resubmits = resubmits;
	if (run_take_id(r, prompt_id, err)) {
		run_free(r);
		return -1;
	}
	batch_plan_restore_running(&b->plan, index, resubmits);
	return 0;
}

const struct batch_plan *batch_plan_of(const struct batch *b)
{
	return &b->plan;
}

const struct progress *batch_item_progress(const struct batch *b, size_t index)
{
	const struct batch_run *r = batch_run_of(b, index);

	return r && r->execute ? execute_progress(r->execute) : NULL;
}

void batch_result_json(const struct batch_result *r, struct buf *out)
{
	struct job_result res = {
		.index = r->index,
		.error = r->error,
		.node_errors = r->node_errors,
		.resubmits = r->resubmits,
		.elapsed_ms = r->elapsed_ms,
	};

	execute_result_json(&res, r->end, r->progress, out);
}
