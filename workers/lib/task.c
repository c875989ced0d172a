/*
 * task.c - libcomfymux: what was started and is not over, and of that the run
 * of one workflow. Batches and chains are in many.c.
 */
#include <stdlib.h>
#include <string.h>

#include "common/workflow.h"
#include "workers/lib/lib.h"

// NOLINTNEXTLINE(misc-redundant-expression): so that they stay equal
_Static_assert(CMX_WORKFLOW_MAX == WORKFLOW_SIZE_MAX, "as documented");

/* --- tasks ---------------------------------------------------------------- */

static void task_free(struct lib_thing *thing)
{
	struct cmx_task *t = container_of(thing, struct cmx_task, thing);

	t->kind->free(t);
}

/* One that could not be started after all. */
void lib_task_discard(struct cmx_task *t)
{
	list_del(&t->thing.node);
	t->kind->free(t);
}

void lib_task_init(struct cmx_task *t, struct cmx *c,
                   const struct lib_task_kind *kind)
{
	t->client = c;
	t->kind = kind;
	lib_thing_add(&c->tasks, &t->thing, task_free);
}

int lib_task_enter(struct cmx *c, bool has_on_end, struct cmx_task **taskp)
{
	if (taskp)
		*taskp = NULL;
	return has_on_end ? lib_enter(c, LIB_QUICK)
	                  : lib_fail(CMX_E_INVALID, "on_end is NULL");
}

int lib_task_wait(struct cmx *c, struct cmx_task *t, const bool *done)
{
	int r = lib_run_until(c, done);

	if (*done)
		return 0;
	/* With the client gone the task is as well. */
	if (!c->freed)
		lib_thing_drop(c, &t->thing);
	return r;
}

int lib_end_code(enum execute_end end, const struct error *err)
{
	switch (end) {
	case EXECUTE_COMPLETED:
		return CMX_OK;
	case EXECUTE_FAILED:
		return CMX_E_FAILED;
	case EXECUTE_REJECTED:
		return CMX_E_REJECTED;
	case EXECUTE_UNREACHABLE:
		return CMX_E_UNREACHABLE;
	case EXECUTE_TIMED_OUT:
		return CMX_E_TIMEOUT;
	case EXECUTE_CANCELLED:
		return CMX_E_CANCELLED;
	case EXECUTE_ERROR:
		break;
	}
	return err && err->code != ERR_NONE ? lib_code(err->code)
	                                    : CMX_E_INTERNAL;
}

const struct error *lib_end_words(enum execute_end end, const struct error *err,
                                  const struct progress *p, struct error *space)
{
	const struct cmx_error *e = p ? &progress_get(p)->error : NULL;

	if (err || end == EXECUTE_COMPLETED || !e || !e->message)
		return err;
	if (e->node_id && e->node_id[0])
		(void)error_set(space, ERR_NONE, "node %s: %s: %s", e->node_id,
		                e->type ? e->type : "error", e->message);
	else
		(void)error_set(space, ERR_NONE, "%s: %s",
		                e->type ? e->type : "error", e->message);
	return space;
}

const char *cmx_task_prompt_id(struct cmx_task *t)
{
	return t ? t->kind->prompt_id(t) : "";
}

int cmx_task_cancel(struct cmx_task *t)
{
	int r;

	if (!t)
		return lib_fail(CMX_E_INVALID, "the task is NULL");
	r = lib_enter(t->client, LIB_QUICK);
	if (r < 0)
		return r;
	if (!t->thing.dead)
		t->kind->cancel(t);
	return lib_leave(t->client, 0);
}

void cmx_task_free(struct cmx_task *t)
{
	struct cmx *c = t ? t->client : NULL;

	if (!t || lib_enter(c, LIB_QUICK) < 0)
		return;
	lib_thing_drop(c, &t->thing);
	(void)lib_leave(c, 0);
}

/* --- one workflow --------------------------------------------------------- */

struct run {
	struct cmx_task task;
	struct execute *execute;
	struct lib_log log;
	cmx_progress_fn *on_progress;
	cmx_end_fn *on_end; /* NULL: cmx_run waits */
	void *user;
	struct run_wait *wait;
};

/* Where cmx_run waits for its end. */
struct run_wait {
	bool done;
	struct cmx_result *result; /* NULL: out of memory */
};

static struct run *run_of(struct cmx_task *t)
{
	return container_of(t, struct run, task);
}

static void run_tell(struct run *run, const struct progress *p)
{
	const struct cmx_progress *c = progress_get(p);

	lib_log_update(&run->log, c);
	if (run->task.thing.dead || !run->on_progress ||
	    !lib_tell_begin(run->task.client))
		return;
	run->on_progress(run->user, c);
	lib_tell_end(run->task.client);
}

static void on_submitted(void *user, const char *prompt_id,
                         struct json node_errors)
{
	struct run *run = user;

	run_tell(run, execute_progress(run->execute));
}

static void on_news(void *user, const struct follow_news *news)
{
	if (news->change != PROGRESS_SAME)
		run_tell(user, news->progress);
}

static void on_run_end(void *user, const struct execute_result *r)
{
	struct run *run = user;
	struct cmx *c = run->task.client;
	struct error words;
	struct lib_ending ending = {
		.code = lib_end_code(r->end, r->error),
		.submitted = r->submitted,
		.error = lib_end_words(r->end, r->error, r->progress, &words),
		.progress = progress_get(r->progress),
		.node_errors = r->node_errors,
		.log = &run->log,
	};
	struct cmx_result *result;
	struct cmx_result poor = {.code = CMX_E_NOMEM};

	if (r->submitted)
		run_tell(run, r->progress);
	result = lib_result_new(&ending);
	if (run->wait && !run->task.thing.dead) {
		run->wait->done = true;
		run->wait->result = result;
	} else {
		if (run->on_end && !run->task.thing.dead && lib_tell_begin(c)) {
			poor.progress = ending.progress;
			run->on_end(run->user, result ? result : &poor);
			lib_tell_end(c);
		}
		cmx_result_free(result);
	}
	lib_thing_drop(c, &run->task.thing);
}

static const struct execute_handlers handlers = {
	.on_submitted = on_submitted,
	.on_news = on_news,
	.on_end = on_run_end,
};

static const char *run_prompt_id(struct cmx_task *t)
{
	return execute_prompt_id(run_of(t)->execute);
}

static const struct cmx_progress *run_progress(struct cmx_task *t,
                                               const char *prompt_id)
{
	return strcmp(run_prompt_id(t), prompt_id) == 0
	               ? progress_get(execute_progress(run_of(t)->execute))
	               : NULL;
}

static void run_cancel(struct cmx_task *t)
{
	execute_cancel(run_of(t)->execute);
}

static bool run_cancel_prompt(struct cmx_task *t, const char *prompt_id)
{
	if (!run_progress(t, prompt_id))
		return false;
	run_cancel(t);
	return true;
}

static void run_free(struct cmx_task *t)
{
	struct run *run = run_of(t);

	run->execute = execute_free(run->execute);
	lib_log_deinit(&run->log);
	free(run);
}

static const struct lib_task_kind run_kind = {
	.prompt_id = run_prompt_id,
	.progress = run_progress,
	.cancel = run_cancel,
	.cancel_prompt = run_cancel_prompt,
	.free = run_free,
};

static int run_new(struct cmx *c, const char *workflow, int64_t timeout_ms,
                   struct run **runp)
{
	struct execute_options o = {.timeout_ms = timeout_ms};
	struct run *run = calloc(1, sizeof(*run));
	struct error err;
	struct json j;

	if (!run)
		return lib_fail(CMX_E_NOMEM, "out of memory: a task");
	if (workflow_parse(&j, workflow,
	                   strnlen(workflow, (size_t)WORKFLOW_SIZE_MAX + 1),
	                   "workflow", &err)) {
		free(run);
		return lib_fail(CMX_E_INVALID, "%s", err.text);
	}
	o.workflow = j.text;
	run->execute = execute_new(c->link, &o, &handlers, run, &err);
	if (!run->execute) {
		free(run);
		return lib_fail_with(&err);
	}
	lib_task_init(&run->task, c, &run_kind);
	*runp = run;
	return 0;
}

/* Between lib_enter and lib_leave. */
static int run_start(struct cmx *c, const char *workflow, int64_t timeout_ms,
                     cmx_progress_fn *on_progress, void *user,
                     struct run **runp)
{
	int r = lib_check_timeout(&timeout_ms);

	if (r == 0 && !workflow)
		r = lib_fail(CMX_E_INVALID, "the workflow is NULL");
	if (r == 0)
		r = lib_begin(c);
	if (r == 0)
		r = run_new(c, workflow, timeout_ms, runp);
	if (r != 0)
		return r;
	(*runp)->on_progress = on_progress;
	(*runp)->user = user;
	return 0;
}

int cmx_start(struct cmx *c, const char *workflow, int64_t timeout_ms,
              cmx_progress_fn *on_progress, cmx_end_fn *on_end, void *user,
              struct cmx_task **taskp)
{
	struct run *run;
	int r = lib_task_enter(c, on_end != NULL, taskp);

	if (r < 0)
		return r;
	r = run_start(c, workflow, timeout_ms, on_progress, user, &run);
	if (r == 0) {
		run->on_end = on_end;
		if (taskp)
			*taskp = &run->task;
	}
	return lib_leave(c, r);
}

static int run_wait(struct cmx *c, struct run *run, struct run_wait *w,
                    struct cmx_result **resultp)
{
	int r;

	run->wait = w;
	r = lib_task_wait(c, &run->task, &w->done);
	if (!w->done)
		return r;
	if (!w->result)
		return lib_fail(CMX_E_NOMEM, "out of memory: a result");
	r = w->result->code;
	if (r < 0)
		(void)lib_fail(r, "%s", w->result->text);
	if (resultp)
		*resultp = w->result;
	else
		cmx_result_free(w->result);
	return r;
}

int cmx_run(struct cmx *c, const char *workflow, int64_t timeout_ms,
            cmx_progress_fn *on_progress, void *user,
            struct cmx_result **resultp)
{
	struct run_wait w = {.done = false};
	struct run *run;
	int r;

	if (resultp)
		*resultp = NULL;
	r = lib_enter(c, LIB_BLOCKS);
	if (r < 0)
		return r;
	r = run_start(c, workflow, timeout_ms, on_progress, user, &run);
	if (r == 0)
		r = run_wait(c, run, &w, resultp);
	return lib_leave(c, r);
}
