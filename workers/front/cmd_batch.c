/*
 * cmd_batch.c - `comfymux batch FILE...`: one session, one request for each
 * workflow, so many at a time.
 *
 * The keeper plans (common/batch_plan) and reads each file when its turn has
 * come: a batch of thousands is never in one piece anywhere. Each workflow is
 * a request of its own, kept and replayed with its record like any other, so
 * that a worker that dies costs nothing and submits nothing twice.
 */
#include <stdlib.h>
#include <string.h>

#include "common/batch_plan.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/job_result.h"
#include "common/map.h"
#include "common/workflow.h"
#include "ipc/message.h"
#include "workers/front/batch_source.h"
#include "workers/front/job.h"
#include "workers/front/job_fetch.h"
#include "workers/front/jobs.h"

#define RESULT_BYTES (32u << 20)

struct batch_item {
	struct batch_run *batch;
	size_t index;
	unsigned resubmits;
	int64_t started_ms;
	char *given_id; /* by a JSON line, until it was used */
	char *result;   /* while its files are fetched */
};

struct batch_run {
	struct job job;
	struct batch_source *source;
	struct batch_plan plan;
	struct job_fetch *fetch; /* NULL: no --download */
	struct batch_item *items;
	struct map ids; /* given by JSON lines */
	size_t held;    /* the one that waits for room; else count */
	bool pumping;
};

static void batch_pump(struct batch_run *b);

static const char *label_of(void *user, size_t index)
{
	struct batch_run *b = user;

	return batch_source_label(b->source, index);
}

/* --- ends ---------------------------------------------------------------- */

static void item_told(struct batch_run *b, size_t index, struct span result)
{
	job_view_ended(&b->job.view, index, result);
	batch_pump(b);
}

static void on_fetched(struct job *j, size_t index, struct span files)
{
	struct batch_run *b = container_of(j, struct batch_run, job);
	struct batch_item *it = &b->items[index];

	job_view_fetched(&j->view, index, &it->result, files);
	batch_pump(b);
}

/* The plan knows already. */
static void item_end(struct batch_item *it, struct job_result *r)
{
	struct batch_run *b = it->batch;
	cleanup_buf struct buf text = BUF_INIT(RESULT_BYTES);

	r->index = it->index;
	r->resubmits = it->resubmits;
	r->elapsed_ms = it->started_ms ? clock_ms() - it->started_ms : 0;
	job_result_json(r, &text);
	if (!buf_ok(&text)) {
		buf_reset(&text);
		r->progress = r->node_errors = JSON_MISSING;
		job_result_json(r, &text);
	}
	if (b->fetch && r->end == JOB_COMPLETED)
		it->result = strndup(text.data, text.len);
	if (it->result)
		job_fetch_outputs(b->fetch, it->index,
		                  json_get(r->progress, "outputs"));
	else
		item_told(b, it->index, span_make(text.data, text.len));
}

static void item_fail(struct batch_item *it, const struct error *err)
{
	struct job_result r = {.end = JOB_FAILED,
	                       .progress = JSON_MISSING,
	                       .node_errors = JSON_MISSING,
	                       .error = err};

	(void)batch_plan_ended(&it->batch->plan, it->index,
	                       BATCH_OUTCOME_FAILED);
	item_end(it, &r);
}

static int item_submit(struct batch_item *it, struct error *err);

/* ComfyUI forgot it: again, under another id. True if that is so. */
static bool item_again(struct batch_item *it, struct json result)
{
	struct batch_run *b = it->batch;
	cleanup_free char *id =
		json_string_dup(json_get(result, "prompt_id"), 256);
	struct error err = ERROR_NULL;

	if (!json_string_eq(json_get(json_get(result, "error"), "type"),
	                    "lost") ||
	    !batch_plan_ended(&b->plan, it->index, BATCH_OUTCOME_LOST))
		return false;
	it->resubmits++;
	job_view_note(&b->job.view,
	              "%s: ComfyUI lost prompt %s; submitting it again (%u of "
	              "%u)",
	              label_of(b, it->index), id ? id : "?", it->resubmits,
	              b->plan.options.resubmits);
	if (item_submit(it, &err))
		item_fail(it, &err);
	return true;
}

static void on_item_answer(struct job *j, void *what, bool ok, struct json body)
{
	struct batch_item *it = what;
	struct batch_run *b = it->batch;
	cleanup_free char *type = NULL;
	struct error err = ERROR_NULL;
	struct job_result r = {.progress = body, .node_errors = JSON_MISSING};

	if (ok && item_again(it, body))
		return;
	r.node_errors = json_get(body, "node_errors");
	if (ok) {
		type = json_string_dup(
			json_get(json_get(body, "error"), "type"), 256);
		r.end = json_string_eq(json_get(body, "status"), "completed")
		                ? JOB_COMPLETED
		        : type && strcmp(type, "cancelled") == 0 ? JOB_CANCELLED
		                                                 : JOB_FAILED;
	} else {
		job_refusal(body, &err);
		r.end = err.code == ERR_CANCELLED ? JOB_CANCELLED : JOB_FAILED;
		r.error = &err;
		r.progress = json_get(body, "progress");
	}
	(void)batch_plan_ended(&b->plan, it->index,
	                       r.end == JOB_COMPLETED ? BATCH_OUTCOME_OK
	                                              : BATCH_OUTCOME_FAILED);
	item_end(it, &r);
}

static void on_item_output(struct job *j, void *what, struct json line)
{
	struct batch_item *it = what;

	job_view_news(&j->view, it->index, line);
}

/* --- beginnings ---------------------------------------------------------- */

static const struct job_waiter waiter = {.on_output = on_item_output,
                                         .on_answer = on_item_answer};

/* One id, one workflow. */
static int claim_id(struct batch_item *it, struct error *err)
{
	struct batch_run *b = it->batch;
	struct batch_item *other;
	const char *id = it->given_id;

	if (!id)
		return 0;
	other = map_get(&b->ids, id, strlen(id));
	if (other == it)
		return 0;
	if (other)
		return error_set(err, ERR_BUSY,
		                 "prompt_id %s is that of %s already", id,
		                 label_of(b, other->index));
	return map_add(&b->ids, id, strlen(id), it)
	               ? error_set_nomem(err, "prompt id")
	               : 0;
}

static int item_read(struct batch_item *it, struct buf *workflow,
                     struct error *err)
{
	struct batch_run *b = it->batch;
	cleanup_free char *id = NULL;

	if (batch_source_read(b->source, it->index, workflow, &id, err))
		return -1;
	/* Of the first submission alone. */
	if (it->resubmits > 0)
		return 0;
	if (!it->given_id)
		it->given_id = steal_ptr(&id);
	return claim_id(it, err);
}

static int item_submit(struct batch_item *it, struct error *err)
{
	struct batch_run *b = it->batch;
	cleanup_buf struct buf workflow = BUF_INIT(WORKFLOW_SIZE_MAX);
	cleanup_buf struct buf request = BUF_INIT(LINE_MAX_BYTES);

	if (item_read(it, &workflow, err))
		return -1;
	(void)buf_puts(&request, "{\"op\":\"run\",\"params\":{");
	if (b->plan.options.timeout_ms > 0)
		(void)buf_printf(&request, "\"timeout_ms\":%lld,",
		                 (long long)b->plan.options.timeout_ms);
	if (it->given_id && it->resubmits == 0)
		(void)buf_printf(&request, "\"prompt_id\":\"%s\",",
		                 it->given_id);
	(void)buf_puts(&request, "\"workflow\":");
	(void)buf_append(&request, workflow.data, workflow.len);
	(void)buf_puts(&request, "}}");
	if (!buf_ok(&request))
		return error_set(err, ERR_LIMIT, "the workflow is too large");
	return job_ask(&b->job, span_make(request.data, request.len), NULL, it,
	               &waiter, err);
}

static void item_start(struct batch_run *b, size_t index)
{
	struct batch_item *it = &b->items[index];
	struct error err = ERROR_NULL;

	if (it->started_ms == 0) {
		it->started_ms = clock_ms();
		job_view_started(&b->job.view, index);
	}
	if (item_submit(it, &err) == 0)
		return;
	/* Too many bytes are in hand: after the next answer. */
	if (err.code == ERR_LIMIT && b->job.ask_count > 0 &&
	    b->held == b->plan.count)
		b->held = index;
	else
		item_fail(it, &err);
}

static void batch_skip(struct batch_run *b)
{
	struct error err = ERROR_NULL;
	size_t index;

	while (batch_plan_skip(&b->plan, &index)) {
		struct job_result r = {.end = JOB_CANCELLED,
		                       .progress = JSON_MISSING,
		                       .node_errors = JSON_MISSING,
		                       .error = &err};

		(void)error_set(&err, ERR_CANCELLED, "not started: %s",
		                b->job.cancelled
		                        ? "the batch was cancelled"
		                        : "an earlier workflow failed");
		item_end(&b->items[index], &r);
	}
}

static bool batch_is_told(const struct batch_run *b)
{
	const struct job_view *v = &b->job.view;

	return batch_plan_over(&b->plan) &&
	       v->completed + v->failed == v->count;
}

/* Whatever can be begun now. Ends call it, and it calls for ends: no deeper
 * than once. */
static void batch_pump(struct batch_run *b)
{
	size_t index;

	if (b->pumping)
		return;
	b->pumping = true;
	if (b->held < b->plan.count) {
		index = b->held;
		b->held = b->plan.count;
		item_start(b, index);
	}
	while (b->held == b->plan.count && batch_plan_next(&b->plan, &index))
		item_start(b, index);
	batch_skip(b);
	b->pumping = false;
	if (batch_is_told(b))
		job_end(&b->job, b->job.cancelled
		                         ? EXIT_CANCELLED
		                         : job_view_status(&b->job.view));
}

static void on_cancel(struct job *j)
{
	struct batch_run *b = container_of(j, struct batch_run, job);
	struct error err = ERROR_NULL;
	size_t held = b->held;

	batch_plan_stop(&b->plan);
	b->held = b->plan.count;
	if (held < b->plan.count) {
		(void)error_set(&err, ERR_CANCELLED,
		                "cancelled before it was submitted");
		item_fail(&b->items[held], &err);
	}
	batch_pump(b);
}

/* --- the command --------------------------------------------------------- */

static int batch_open(struct batch_run *b, struct cli *cli, struct error *err)
{
	struct batch_options o = {
		.concurrency =
			cli->concurrency ? cli->concurrency : BATCH_CONCURRENCY,
		.stop_on_error = cli->stop_on_error,
		.timeout_ms = cli->timeout_ms,
		.resubmits = BATCH_RESUBMITS_MAX,
	};

	b->source = batch_source_new(cli, err);
	if (!b->source ||
	    batch_plan_init(&b->plan, batch_source_count(b->source), &o, err))
		return -1;
	b->held = b->plan.count;
	b->items = calloc(b->plan.count, sizeof(*b->items));
	if (!b->items)
		return error_set_nomem(err, "the batch");
	for (size_t i = 0; i < b->plan.count; i++) {
		b->items[i].batch = b;
		b->items[i].index = i;
	}
	if (cli->download) {
		b->fetch = job_fetch_new(&b->job, cli->download, cli->overwrite,
		                         on_fetched, err);
		if (!b->fetch)
			return -1;
	}
	if (job_view_init(&b->job.view, b->job.loop, cli, "workflow",
	                  b->plan.count, label_of, b, err))
		return -1;
	return job_open(&b->job, "batch", err);
}

static void batch_close(struct batch_run *b)
{
	job_close(&b->job);
	b->fetch = job_fetch_free(b->fetch);
	for (size_t i = 0; b->items && i < b->plan.count; i++) {
		free(b->items[i].given_id);
		free(b->items[i].result);
	}
	free(b->items);
	map_deinit(&b->ids);
	batch_plan_deinit(&b->plan);
	b->source = batch_source_free(b->source);
}

int cmd_batch(struct cli *cli)
{
	struct batch_run b = {.job = {.cli = cli,
	                              .loop = ev_default_loop(0),
	                              .on_cancel = on_cancel}};
	struct error err = ERROR_NULL;
	int status;

	if (!b.job.loop) {
		(void)error_set(&err, ERR_SYSTEM, "no event loop");
		return cli_fail(&err);
	}
	if (cli->detach) {
		b.source = batch_source_new(cli, &err);
		status = b.source ? jobs_detach_batch(cli, b.source)
		                  : cli_fail(&err);
	} else if (batch_open(&b, cli, &err)) {
		status = cli_fail(&err);
		if (err.code == ERR_LIMIT)
			status = EXIT_USAGE;
	} else {
		batch_pump(&b);
		job_run(&b.job);
		job_view_finish(&b.job.view);
		status = b.job.status;
	}
	batch_close(&b);
	return status;
}
