/*
 * request_run.c - run, submit and watch: what follows a prompt, or starts one.
 *
 * The record of a prompt's id is safe with the keeper before the prompt is
 * given to anybody: that is what makes a successor resume instead of repeat.
 */
#include <ev.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/progress_log.h"
#include "common/uuid.h"
#include "common/workflow.h"
#include "workers/execute.h"
#include "workers/request_ops.h"

#define OUTPUT_MAX     (PROGRESS_OUTPUTS_MAX + (8u << 20))
#define TIMEOUT_MAX_MS (INT64_C(366) * 86400 * 1000)
#define LOG_BYTES_MAX  (256u << 10) /* of progress_log */

struct run_job {
	struct command *command;
	bool submit_only, hold;
	bool events;            /* outputs carry each event's data too */
	bool previews;          /* wanted */
	struct preview preview; /* the latest, not passed on yet */
	struct json workflow;   /* JSON_NONE for watch */
	size_t total_nodes;
	int64_t timeout_ms;
	char *prompt_id;
	bool resume;
	bool chosen; /* the id is the user's choice */
	struct worker_record record;
	struct execute *execute; /* run, submit */
	struct follow *follow;   /* watch */
	bool known;              /* watch: somebody knows the prompt */
	ev_timer timeout;        /* watch */
	struct progress_log told;
	struct buf log; /* elements of a JSON array */
	size_t log_lines;
	bool dirty; /* an output was left out */
	enum event last_event;
};

/* --- what it says -------------------------------------------------------- */

static bool on_log_line(void *user, const char *line)
{
	struct run_job *j = user;
	size_t before = j->log.len;

	if (j->log_lines >= REQUEST_LOG_LINES)
		return false;
	if (before > 0)
		buf_putc(&j->log, ',');
	if (buf_json_string(&j->log, line, strlen(line))) {
		/* Full: what is there stays, and stays well-formed. */
		j->log.len = before;
		j->log_lines = REQUEST_LOG_LINES;
		return false;
	}
	j->log_lines++;
	return true;
}

static void run_note(struct run_job *j, const struct progress *p)
{
	if (progress_log_update(&j->told, progress_get(p), on_log_line, j))
		log_warn("run", "no memory for the progress log");
}

/* ,"elapsed_ms":N and what is known of the current node. */
static void run_put_facts(const struct run_job *j, const struct cmx_progress *p,
                          struct buf *b)
{
	struct span class = SPAN_NULL;

	buf_printf(b, ",\"elapsed_ms\":%" PRId64,
	           clock_ms() - j->command->received_ms);
	if (j->total_nodes > 0)
		buf_printf(b, ",\"total_nodes\":%zu", j->total_nodes);
	if (!p->current_node)
		return;
	if (json_is(j->workflow, JSON_OBJECT))
		class = workflow_class_of(j->workflow, p->current_node);
	if (class.p) {
		/* Raw bytes of a JSON string: quoted again as they stand. */
		buf_puts(b, ",\"class\":\"");
		buf_append(b, class.p, class.n);
		buf_putc(b, '"');
	}
	if (p->current_max > 0 && isfinite(p->current_max) &&
	    isfinite(p->current_value))
		buf_printf(b, ",\"value\":%.15g,\"max\":%.15g",
		           p->current_value, p->current_max);
}

enum run_outputs {
	RUN_OUTPUTS_NONE,
	RUN_OUTPUTS_NEW, /* of the node that the event is about */
	RUN_OUTPUTS_ALL,
};

/* Outputs are large and rarely change: each goes along once, with the event
 * that it came with, unless that was left out. */
static enum run_outputs run_outputs_of(const struct run_job *j,
                                       const struct follow_news *news)
{
	if (j->dirty)
		return RUN_OUTPUTS_ALL;
	if (!(news->change & PROGRESS_OUTPUT))
		return RUN_OUTPUTS_NONE;
	return news->event == EVENT_EXECUTED &&
	                       json_is(json_get(news->data, "node"),
	                               JSON_STRING)
	               ? RUN_OUTPUTS_NEW
	               : RUN_OUTPUTS_ALL;
}

static void run_output(struct run_job *j, enum event event,
                       enum run_outputs outputs, struct json data)
{
	const struct progress *p = j->follow ? follow_progress(j->follow)
	                                     : execute_progress(j->execute);
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);
	const char *name =
		event_table[event == EVENT_COUNT ? EVENT_POLLED : event].name;

	buf_puts(&b, "{\"event\":");
	buf_json_string(&b, name, strlen(name));
	run_put_facts(j, progress_get(p), &b);
	if (j->events && !json_is(data, JSON_NONE)) {
		buf_puts(&b, ",\"data\":");
		buf_append(&b, data.text.p, data.text.n);
	}
	buf_puts(&b, ",\"progress\":");
	if (outputs == RUN_OUTPUTS_NEW)
		progress_to_json_executed(
			p, json_raw_string(json_get(data, "node")), &b);
	else
		progress_to_json(p,
		                 outputs == RUN_OUTPUTS_ALL
		                         ? 0
		                         : PROGRESS_JSON_NO_OUTPUTS,
		                 &b);
	buf_putc(&b, '}');
	if (!buf_ok(&b)) {
		log_warn("run", "an output was too long");
		return;
	}
	j->dirty = !command_output(j->command, span_make(b.data, b.len));
	j->last_event = event;
}

static void on_news(void *user, const struct follow_news *news)
{
	struct run_job *j = user;

	j->known = true;
	run_note(j, news->progress);
	run_output(j, news->event, run_outputs_of(j, news), news->data);
}

/* --- previews ------------------------------------------------------------ */

static void run_show(struct run_job *j, bool last)
{
	if (preview_is(&j->preview) &&
	    command_preview(j->command, &j->preview, last))
		preview_drop(&j->preview);
}

static void on_preview(void *user, struct json data, int fd)
{
	struct run_job *j = user;
	int r = preview_take(&j->preview, data, fd);

	if (r < 0)
		log_warn("run", "a preview can't be kept: %s", strerror(-r));
	run_show(j, false);
}

static void run_room(struct command *c)
{
	struct run_job *j = c->job;

	run_show(j, false);

	if (j->dirty && (j->execute || j->follow))
		run_output(j, j->last_event, RUN_OUTPUTS_ALL, JSON_MISSING);
}

/* Appends the result's members; the object stays open. */
static void run_put_result(struct run_job *j, const struct progress *p,
                           struct json node_errors, struct buf *b)
{
	progress_to_json(p, PROGRESS_JSON_RESULT, b);
	if (b->len > 0)
		b->len--; /* the brace */
	buf_printf(b, ",\"elapsed_ms\":%" PRId64 ",\"progress_log\":[",
	           clock_ms() - j->command->received_ms);
	buf_append(b, j->log.data, j->log.len);
	buf_putc(b, ']');
	if (json_is(node_errors, JSON_OBJECT)) {
		buf_puts(b, ",\"node_errors\":");
		buf_append(b, node_errors.text.p, node_errors.text.n);
	}
	buf_putc(b, '}');
}

static void run_end_result(struct run_job *j, const struct progress *p,
                           struct json node_errors, bool cancelled)
{
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);
	cleanup_buf struct buf fixed = BUF_INIT(OUTPUT_MAX);
	struct json whole, error;
	struct error err;

	run_show(j, true);
	run_note(j, p);
	run_put_result(j, p, node_errors, &b);
	if (!buf_ok(&b) || json_parse(&whole, b.data, b.len, 0, NULL)) {
		error_set(&err, ERR_LIMIT, "the result is too long");
		command_fail(j->command, &err, SPAN_NULL);
		return;
	}
	/* ComfyUI calls it interrupted, or has forgotten it; the user
	 * cancelled. */
	error = json_get(json_get(whole, "error"), "type");
	if (cancelled && json_is(error, JSON_STRING) &&
	    json_splice(&fixed, whole.text, error.text,
	                SPAN("\"cancelled\"")) == 0)
		command_ok(j->command, span_make(fixed.data, fixed.len));
	else
		command_ok(j->command, whole.text);
}

static void run_end_error(struct run_job *j, const struct progress *p,
                          struct json node_errors, bool submitted,
                          const struct error *err)
{
	cleanup_buf struct buf extra = BUF_INIT(OUTPUT_MAX);
	const char *id = progress_get(p)->prompt_id;

	run_show(j, true);
	buf_puts(&extra, "\"prompt_id\":");
	buf_json_string(&extra, id, strlen(id));
	buf_printf(&extra, ",\"submitted\":%s", submitted ? "true" : "false");
	if (json_is(node_errors, JSON_OBJECT)) {
		buf_puts(&extra, ",\"node_errors\":");
		buf_append(&extra, node_errors.text.p, node_errors.text.n);
	}
	buf_puts(&extra, ",\"progress\":");
	progress_to_json(p, PROGRESS_JSON_RESULT, &extra);
	command_fail(j->command, err,
	             buf_ok(&extra) ? span_make(extra.data, extra.len)
	                            : SPAN_NULL);
}

static void submit_end(struct run_job *j, const struct execute_result *r)
{
	const struct cmx_progress *p = progress_get(r->progress);
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);
	struct error err;

	buf_puts(&b, "{\"prompt_id\":");
	buf_json_string(&b, p->prompt_id, strlen(p->prompt_id));
	buf_printf(&b, ",\"status\":\"%s\"", cmx_status_name(p->status));
	if (r->has_number && isfinite(r->number))
		buf_printf(&b, ",\"number\":%.15g", r->number);
	if (json_is(r->node_errors, JSON_OBJECT)) {
		buf_puts(&b, ",\"node_errors\":");
		buf_append(&b, r->node_errors.text.p, r->node_errors.text.n);
	}
	buf_putc(&b, '}');
	if (buf_ok(&b)) {
		command_ok(j->command, span_make(b.data, b.len));
		return;
	}
	error_set_nomem(&err, "answer");
	command_fail(j->command, &err, SPAN_NULL);
}

static void on_end(void *user, const struct execute_result *r)
{
	struct run_job *j = user;

	switch (r->end) {
	case EXECUTE_COMPLETED:
	case EXECUTE_FAILED:
		if (j->submit_only && r->end == EXECUTE_COMPLETED)
			submit_end(j, r);
		else
			run_end_result(j, r->progress, r->node_errors, false);
		return;
	case EXECUTE_CANCELLED:
		run_end_result(j, r->progress, r->node_errors, true);
		return;
	case EXECUTE_REJECTED:
	case EXECUTE_UNREACHABLE:
	case EXECUTE_TIMED_OUT:
	case EXECUTE_ERROR:
		run_end_error(j, r->progress, r->node_errors, r->submitted,
		              r->error);
		return;
	}
}

static const struct execute_handlers run_handlers = {
	.on_news = on_news,
	.on_end = on_end,
};

static const struct execute_handlers run_handlers_previews = {
	.on_news = on_news,
	.on_preview = on_preview,
	.on_end = on_end,
};

/* --- run and submit ------------------------------------------------------ */

static void run_drop(struct command *c)
{
	struct run_job *j = c->job;

	if (!j)
		return;
	worker_record_forget(&j->record);
	ev_timer_stop(link_loop(command_link(c)), &j->timeout);
	j->execute = execute_free(j->execute);
	j->follow = follow_free(j->follow);
	preview_drop(&j->preview);
	progress_log_deinit(&j->told);
	buf_deinit(&j->log);
	free(j->prompt_id);
	free(j);
	c->job = NULL;
}

static void run_cancel(struct command *c)
{
	struct run_job *j = c->job;

	/* One whose record isn't written yet sees the flag then. */
	if (j->execute)
		execute_cancel(j->execute);
}

static void on_watch_timeout(struct ev_loop *loop, ev_timer *t, int revents);

static struct run_job *run_job_new(struct command *c, struct error *err)
{
	struct run_job *j = calloc(1, sizeof(*j));

	if (!j) {
		error_set_nomem(err, "request");
		return NULL;
	}
	j->command = c;
	j->workflow = JSON_MISSING;
	j->preview.fd = -1;
	(void)json_bool(json_get(c->params, "previews"), &j->previews);
	ev_timer_init(&j->timeout, on_watch_timeout, 0., 0.);
	progress_log_init(&j->told);
	buf_init(&j->log, LOG_BYTES_MAX);
	c->job = j;
	return j;
}

/* The progress that a predecessor has told, which ours must not fall behind;
 * JSON_MISSING if there is none. Points into the command. */
static struct json run_told(const struct run_job *j)
{
	const struct buf *b = &j->command->told;
	struct json told;

	if (b->len == 0 || json_parse(&told, b->data, b->len, 0, NULL))
		return JSON_MISSING;
	return json_get(told, "progress");
}

static int run_execute(struct run_job *j, struct error *err)
{
	struct execute_options o = {
		.told = run_told(j),
		.workflow = j->workflow.text,
		.prompt_id = j->prompt_id,
		.timeout_ms = j->timeout_ms,
		.submit_only = j->submit_only,
		.hold = j->hold,
		.every_event = j->events,
		.resume = j->resume,
		.chosen = j->chosen,
	};

	/* What the wait for the record took counts as well. */
	if (o.timeout_ms > 0) {
		o.timeout_ms -= clock_ms() - j->command->received_ms;
		if (o.timeout_ms < 1)
			o.timeout_ms = 1;
	}
	j->execute = execute_new(
		command_link(j->command), &o,
		j->previews ? &run_handlers_previews : &run_handlers, j, err);
	if (!j->execute)
		return -1;
	if (j->command->cancelled)
		execute_cancel(j->execute);
	return 0;
}

static void on_recorded(void *user)
{
	struct run_job *j = user;
	struct error err;

	if (run_execute(j, &err))
		command_fail(j->command, &err, SPAN_NULL);
}

static int run_record(struct run_job *j, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(1024);

	if (command_prompt_params(&b, j->prompt_id, err))
		return -1;
	if (j->chosen) {
		/* The record vouches for who made it, not for whose it is. */
		b.len--;
		buf_puts(&b, ",\"chosen\":true}");
		if (!buf_ok(&b))
			return error_set_nomem(err, "request");
	}
	j->record.on_written = on_recorded;
	j->record.user = j;
	return command_record(j->command, span_make(b.data, b.len), &j->record,
	                      err);
}

static int run_take_id(struct run_job *j, struct error *err)
{
	char fresh[UUID_LEN + 1];

	if (j->command->recorded) {
		j->resume = true;
		j->chosen = j->command->recorded_chosen;
		j->prompt_id = strdup(j->command->recorded);
		return j->prompt_id ? 0 : error_set_nomem(err, "prompt id");
	}
	if (command_string(j->command, "prompt_id", UUID_LEN, &j->prompt_id,
	                   err))
		return -1;
	j->chosen = j->prompt_id != NULL;
	if (j->prompt_id)
		return uuid_valid(j->prompt_id, strlen(j->prompt_id))
		               ? 0
		               : error_set(err, ERR_INVALID,
		                           "prompt_id must be a UUID in lower "
		                           "case: %s",
		                           log_safe(j->prompt_id,
		                                    strlen(j->prompt_id)));
	if (uuid_new(fresh))
		return error_set(err, ERR_SYSTEM, "no random bytes");
	j->prompt_id = strdup(fresh);
	return j->prompt_id ? 0 : error_set_nomem(err, "prompt id");
}

static int run_begin(struct command *c, bool submit_only, struct error *err)
{
	struct run_job *j = run_job_new(c, err);
	struct json w;

	if (!j)
		return -1;
	w = json_get(c->params, "workflow");
	j->submit_only = submit_only;
	if (!json_is(w, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "%s needs workflow, an "
		                 "object",
		                 c->op->name);
	if (workflow_parse(&j->workflow, w.text.p, w.text.n, "workflow", err))
		return -1;
	j->total_nodes = workflow_node_count(j->workflow);
	(void)json_bool(json_get(c->params, "hold"), &j->hold);
	(void)json_bool(json_get(c->params, "events"), &j->events);
	if (command_int(c, "timeout_ms", TIMEOUT_MAX_MS, 0, &j->timeout_ms,
	                err) ||
	    run_take_id(j, err))
		return -1;
	return j->resume ? run_execute(j, err) : run_record(j, err);
}

static int run_start(struct command *c, struct error *err)
{
	return run_begin(c, false, err);
}

static int submit_start(struct command *c, struct error *err)
{
	return run_begin(c, true, err);
}

const struct command_op command_run = {
	.name = "run",
	.start = run_start,
	.cancel = run_cancel,
	.room = run_room,
	.drop = run_drop,
};

const struct command_op command_submit = {
	.name = "submit",
	.start = submit_start,
	.cancel = run_cancel,
	.drop = run_drop,
};

/* --- watch --------------------------------------------------------------- */

static void on_watch_end(void *user, const struct progress *p)
{
	run_end_result(user, p, JSON_MISSING, false);
}

static void on_watch_unknown(void *user, const struct error *err)
{
	struct run_job *j = user;

	command_fail(j->command, err, SPAN_NULL);
}

/* ComfyUI that never answered can't have told anything; once there was news, or
 * where it is certain that there is such a prompt, it is waited for. */
static void on_watch_trouble(void *user, const struct error *err)
{
	struct run_job *j = user;

	if (!j->known && !link_claimed(command_link(j->command), j->prompt_id))
		command_fail(j->command, err, SPAN_NULL);
}

static void on_watch_timeout(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct run_job *j = container_of(t, struct run_job, timeout);
	struct error err;

	error_set(&err, ERR_TIMEOUT,
	          "not finished in time; the prompt runs on");
	run_end_error(j, follow_progress(j->follow), JSON_MISSING, true, &err);
}

static const struct follow_handlers watch_handlers = {
	.on_news = on_news,
	.on_end = on_watch_end,
	.on_unknown = on_watch_unknown,
	.on_trouble = on_watch_trouble,
};

static const struct follow_handlers watch_handlers_previews = {
	.on_news = on_news,
	.on_preview = on_preview,
	.on_end = on_watch_end,
	.on_unknown = on_watch_unknown,
	.on_trouble = on_watch_trouble,
};

static int watch_start(struct command *c, struct error *err)
{
	struct run_job *j = run_job_new(c, err);
	struct link *l = command_link(c);

	if (!j)
		return -1;
	if (command_need_string(c, "prompt_id", PROGRESS_ID_MAX, &j->prompt_id,
	                        err) ||
	    command_int(c, "timeout_ms", TIMEOUT_MAX_MS, 0, &j->timeout_ms,
	                err) ||
	    (!link_on_bus(l) && command_check_sight(c, j->prompt_id, err)))
		return -1;
	j->follow = follow_new(
		l, j->prompt_id, link_claimed(l, j->prompt_id), false,
		j->previews ? &watch_handlers_previews : &watch_handlers, j,
		err);
	if (!j->follow)
		return -1;
	j->known = follow_resume(j->follow, run_told(j));
	if (j->timeout_ms > 0) {
		ev_timer_set(&j->timeout, (double)j->timeout_ms / 1000.0, 0.);
		ev_timer_start(link_loop(l), &j->timeout);
	}
	return 0;
}

const struct command_op command_watch = {
	.name = "watch",
	.start = watch_start,
	.room = run_room,
	.drop = run_drop,
};
