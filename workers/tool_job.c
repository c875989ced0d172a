/*
 * tool_job.c - execute_batch and execute_chain, and what other tools do with
 * their jobs.
 *
 * With a supervisor the work is a detached job of its store, so that it
 * survives whatever dies, and the call waits for it:
 *
 *     create -> add, one after the other -> record its id -> start -> look
 *        ^                                                             |
 *        '-- a job that was never started is dropped with its sender --'
 *
 * Without one the session's own worker does it, and the call lasts until the
 * end.
 */
#include <ev.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/batch_plan.h"
#include "common/chain_spec.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "workers/tool_ask.h"
#include "workers/tool_code.h"
#include "workers/tool_job.h"
#include "workers/tool_job_private.h"

#define LOOK_S       0.3 /* between two looks at a job */
#define RESULT_BYTES (9u << 20)
#define PARAMS_BYTES (16u << 20)

enum work_phase {
	WORK_BUS,    /* waits for a supervisor, if one is on its way */
	WORK_CREATE, /* create, add, record, start */
	WORK_FIND,   /* was it started? */
	WORK_LOOK,
	WORK_ALONE, /* as a command of the session's own worker */
};

struct tool_work {
	struct tool_call *call;
	struct link *link;
	struct link_watch watch;
	enum work_phase phase;
	bool is_chain, follows; /* follows: a job of an earlier call */
	struct json items;      /* of the arguments */
	size_t total, added;
	char id[TOOL_JOB_ID_MAX]; /* "": none yet */
	uint64_t ask;
	ev_timer look, deadline;
	struct tool_ask *alone;
	struct buf latest; /* the reply to op job */
};

static void work_finish(struct tool_work *w, struct json job, bool timed_out)
{
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	bool over = json_string_eq(json_get(job, "state"), "over");

	tool_job_put(job, true, &out);
	if (!over || timed_out)
		(void)buf_puts(&out, ",\"timed_out\":true");
	if (!over)
		tool_put_next(&out, "the job goes on: call wait_for_execution "
		                    "with this job_id as prompt_id, or "
		                    "cancel_execution");
	(void)buf_putc(&out, '}');
	/* Each result says how it went: the job itself was done. */
	tool_finish(w->call, &out, false, NULL, 0);
}

static void work_fail(struct tool_work *w, const struct error *err)
{
	tool_fail(w->call, error_code_name(err->code), err->text,
	          *w->id ? w->id : NULL);
}

/* --- asking --------------------------------------------------------------- */

static void work_lost_bus(struct tool_work *w)
{
	if (w->phase == WORK_CREATE || w->phase == WORK_FIND)
		w->phase = *w->id ? WORK_FIND : WORK_BUS;
	/* on_bus comes, or the deadline. */
}

static bool work_ask(struct tool_work *w, enum op op, const struct buf *params,
                     client_reply_cb *cb)
{
	struct error err = ERROR_NULL;

	if (!buf_ok(params)) {
		error_set(&err, ERR_LIMIT, "the arguments are too long");
		work_fail(w, &err);
		return false;
	}
	w->ask = link_ask(w->link, op, span_make(params->data, params->len), 0,
	                  cb, w, &err);
	if (w->ask)
		return true;
	if (err.code == ERR_UNREACHABLE)
		work_lost_bus(w);
	else
		work_fail(w, &err);
	return false;
}

static void put_id(const struct tool_work *w, struct buf *params)
{
	(void)buf_puts(params, "{\"job\":");
	(void)buf_json_string(params, w->id, strlen(w->id));
	(void)buf_putc(params, '}');
}

/* --- looking -------------------------------------------------------------- */

static void work_create(struct tool_work *w);

static void work_keep(struct tool_work *w, struct json job)
{
	buf_reset(&w->latest);
	if (buf_append(&w->latest, job.text.p, job.text.n))
		buf_reset(&w->latest);
}

static void work_tell(struct tool_work *w, struct json job)
{
	int64_t done = tool_job_number(job, "completed") +
	               tool_job_number(job, "failed");
	int64_t total = tool_job_number(job, "total"),
		failed = tool_job_number(job, "failed");
	double fraction = 0;
	char text[128];
	int n = snprintf(text, sizeof(text), "%" PRId64 " of %" PRId64 " done",
	                 done, total);

	if (failed > 0 && n > 0 && (size_t)n < sizeof(text))
		(void)snprintf(text + n, sizeof(text) - (size_t)n,
		               ", %" PRId64 " of them failed", failed);
	(void)json_double(json_get(job, "fraction"), &fraction);
	tool_progress(w->call, fraction, text, total > 0 && done == total);
}

static void on_looked(void *user, const struct incoming *in,
                      const struct error *err)
{
	struct tool_work *w = user;

	w->ask = 0;
	if (err && !in) {
		work_lost_bus(w);
		return;
	}
	if (err) {
		work_fail(w, err);
		return;
	}
	work_keep(w, in->result);
	work_tell(w, in->result);
	if (json_string_eq(json_get(in->result, "state"), "over"))
		work_finish(w, in->result, false);
}

static void work_look(struct tool_work *w)
{
	cleanup_buf struct buf params = BUF_INIT(128);

	put_id(w, &params);
	(void)work_ask(w, OP_JOB, &params, on_looked);
}

static void on_look(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct tool_work *w = container_of(t, struct tool_work, look);

	if (w->phase == WORK_LOOK && w->ask == 0 && link_on_bus(w->link))
		work_look(w);
}

static void work_watch(struct tool_work *w)
{
	w->phase = WORK_LOOK;
	ev_timer_start(w->call->host->loop, &w->look);
	work_look(w);
}

/* --- handing over --------------------------------------------------------- */

static void on_found(void *user, const struct incoming *in,
                     const struct error *err)
{
	struct tool_work *w = user;

	w->ask = 0;
	if (err && !in) {
		work_lost_bus(w);
	} else if (err && err->code == ERR_NOT_FOUND && !w->follows) {
		/* It was never started, and went with its sender. */
		w->id[0] = '\0';
		work_create(w);
	} else if (err) {
		work_fail(w, err);
	} else {
		work_keep(w, in->result);
		work_watch(w);
	}
}

static void work_find(struct tool_work *w)
{
	cleanup_buf struct buf params = BUF_INIT(128);

	w->phase = WORK_FIND;
	put_id(w, &params);
	(void)work_ask(w, OP_JOB, &params, on_found);
}

static void on_started(void *user, const struct incoming *in,
                       const struct error *err)
{
	struct tool_work *w = user;

	w->ask = 0;
	if (err && !in)
		work_lost_bus(w);
	else if (err)
		work_fail(w, err);
	else
		work_watch(w);
}

/* The id is safe: from here on a successor finds the job. */
static void on_recorded(struct tool_call *c)
{
	cleanup_buf struct buf params = BUF_INIT(128);
	struct tool_work *w = c->state;

	if (w->phase != WORK_CREATE)
		return;
	put_id(w, &params);
	(void)work_ask(w, OP_JOB_START, &params, on_started);
}

static void work_record(struct tool_work *w)
{
	cleanup_buf struct buf record = BUF_INIT(128);
	struct error err = ERROR_NULL;

	put_id(w, &record);
	if (tool_record_then(w->call, span_make(record.data, record.len),
	                     on_recorded, &err))
		work_fail(w, &err);
}

/* An item as an object: JSON text is taken apart, and what is none becomes an
 * item that says so. */
static void put_item(struct json item, struct buf *out)
{
	cleanup_buf struct buf text = BUF_INIT(PARAMS_BYTES);
	struct json inner;

	if (json_is(item, JSON_OBJECT)) {
		(void)buf_append(out, item.text.p, item.text.n);
		return;
	}
	if (json_string_decode(item, &text) == 0 &&
	    json_parse(&inner, text.data ? text.data : "", text.len,
	               JSON_NONFINITE, NULL) == JSON_OK &&
	    json_is(inner, JSON_OBJECT))
		(void)buf_append(out, inner.text.p, inner.text.n);
	else
		(void)buf_puts(out, "{}");
}

static void on_added(void *user, const struct incoming *in,
                     const struct error *err);

static void work_add(struct tool_work *w)
{
	cleanup_buf struct buf params = BUF_INIT(PARAMS_BYTES);

	if (w->added == w->total) {
		work_record(w);
		return;
	}
	(void)buf_printf(&params,
	                 "{\"job\":\"%s\",\"index\":%zu,\"item\":", w->id,
	                 w->added);
	put_item(json_at(w->items, w->added), &params);
	(void)buf_putc(&params, '}');
	(void)work_ask(w, OP_JOB_ADD, &params, on_added);
}

static void on_added(void *user, const struct incoming *in,
                     const struct error *err)
{
	struct tool_work *w = user;

	w->ask = 0;
	if (err && !in) {
		work_lost_bus(w);
	} else if (err) {
		work_fail(w, err);
	} else {
		w->added++;
		work_add(w);
	}
}

static void on_created(void *user, const struct incoming *in,
                       const struct error *err)
{
	struct tool_work *w = user;
	struct span id =
		in ? json_raw_string(json_get(in->result, "job")) : SPAN_NULL;
	struct error bad = ERROR_NULL;

	w->ask = 0;
	if (err && !in) {
		work_lost_bus(w);
	} else if (err) {
		work_fail(w, err);
	} else if (id.n == 0 || id.n >= sizeof(w->id)) {
		error_set(&bad, ERR_PROTOCOL, "the supervisor named no job");
		work_fail(w, &bad);
	} else {
		memcpy(w->id, id.p, id.n);
		w->id[id.n] = '\0';
		work_add(w);
	}
}

static void put_options(const struct tool_work *w, struct buf *b)
{
	const struct tool_call *c = w->call;

	(void)buf_printf(b, "\"stop_on_error\":%s",
	                 tool_arg_bool(c, "stop_on_error", w->is_chain)
	                         ? "true"
	                         : "false");
	if (!w->is_chain)
		(void)buf_printf(
			b, ",\"concurrency\":%" PRId64,
			tool_arg_int(c, "concurrency", BATCH_CONCURRENCY));
	/* Tools don't submit again what ComfyUI lost: they say so. */
	(void)buf_puts(b, ",\"resubmits\":0");
}

static void work_create(struct tool_work *w)
{
	cleanup_buf struct buf params = BUF_INIT(1024);

	w->phase = WORK_CREATE;
	w->added = 0;
	(void)buf_printf(&params,
	                 "{\"kind\":\"%s\",\"total\":%zu,\"options\":{",
	                 w->is_chain ? "chain" : "batch", w->total);
	put_options(w, &params);
	(void)buf_puts(&params, "}}");
	(void)work_ask(w, OP_JOB_CREATE, &params, on_created);
}

/* --- alone ---------------------------------------------------------------- */

static void on_alone_answer(struct tool_call *c, bool ok, struct json body)
{
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	(void)buf_putc(&out, '{');
	tool_put_member(&out, "status", json_get(body, "status"));
	tool_put_member(&out, "total", json_get(body, "total"));
	tool_put_member(&out, "completed", json_get(body, "completed"));
	tool_put_member(&out, "failed", json_get(body, "failed"));
	tool_job_put_results(json_get(body, "results"), false, &out);
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

static void on_alone_output(struct tool_call *c, struct json output)
{
	struct tool_work *w = c->state;
	char text[64];
	double fraction = 0;

	(void)json_double(json_get(output, "fraction"), &fraction);
	(void)snprintf(text, sizeof(text), "Working on %zu", w->total);
	tool_progress(c, fraction, text, fraction >= 1);
}

static void work_alone(struct tool_work *w)
{
	cleanup_buf struct buf params = BUF_INIT(PARAMS_BYTES);

	w->phase = WORK_ALONE;
	(void)buf_putc(&params, '{');
	put_options(w, &params);
	(void)buf_json_key(&params, w->is_chain ? "steps" : "workflows");
	(void)buf_putc(&params, '[');
	for (size_t i = 0; i < w->total; i++) {
		(void)buf_puts(&params, i ? "," : "");
		put_item(json_at(w->items, i), &params);
	}
	(void)buf_puts(&params, "]}");
	if (!buf_ok(&params)) {
		tool_fail(w->call, "limit", "the arguments are too long", NULL);
		return;
	}
	w->alone = tool_ask_new(w->call, w->is_chain ? "chain" : "batch",
	                        span_make(params.data, params.len),
	                        on_alone_answer, on_alone_output);
}

/* --- life ----------------------------------------------------------------- */

static void on_bus(void *user, bool up)
{
	struct tool_work *w = user;
	struct error err = ERROR_NULL;

	if (up && w->phase == WORK_FIND) {
		work_find(w);
	} else if (up && w->phase == WORK_BUS) {
		if (*w->id)
			work_find(w);
		else
			work_create(w);
	} else if (!up && w->phase == WORK_BUS && !*w->id) {
		work_alone(w);
	} else if (!up && w->phase == WORK_BUS) {
		error_set(&err, ERR_UNREACHABLE,
		          "no supervisor (%s) that could tell of the job",
		          link_bus_error(w->link));
		work_fail(w, &err);
	}
}

static void on_deadline(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct tool_work *w = container_of(t, struct tool_work, deadline);
	struct error err = ERROR_NULL;
	struct json job;

	if (w->phase == WORK_ALONE) {
		/* Nobody else could go on with it. */
		tool_ask_cancel(w->alone);
	} else if (w->latest.len > 0 &&
	           json_parse(&job, w->latest.data, w->latest.len,
	                      JSON_NONFINITE, NULL) == JSON_OK) {
		work_finish(w, job, true);
	} else {
		error_set(&err, ERR_TIMEOUT, "no answer of the supervisor");
		work_fail(w, &err);
	}
}

static struct tool_work *work_new(struct tool_call *c)
{
	struct tool_work *w = calloc(1, sizeof(*w));
	bool told = json_is(json_get(c->args, "timeout_ms"), JSON_NUMBER);
	int64_t wait_ms =
		tool_arg_int(c, "timeout_ms", c->host->default_wait_ms);

	c->state = w;
	if (!w) {
		tool_fail(c, "internal", "out of memory", NULL);
		return NULL;
	}
	w->call = c;
	w->link = c->host->link;
	w->items = JSON_MISSING;
	buf_init(&w->latest, PARAMS_BYTES);
	ev_timer_init(&w->look, on_look, LOOK_S, LOOK_S);
	ev_timer_init(&w->deadline, on_deadline, (double)wait_ms / 1e3, 0.);
	w->watch = (struct link_watch){
		.prompt_id = "", .on_bus = on_bus, .user = w};
	link_watch_add(w->link, &w->watch);
	/* Alone only a time that was asked for ends it. */
	if (told || link_on_bus(w->link) || link_bus_pending(w->link))
		ev_timer_start(c->host->loop, &w->deadline);
	return w;
}

/* What a predecessor recorded: {"job": id}. */
static void work_take_record(struct tool_work *w)
{
	struct json r, id;

	for (size_t i = 0; json_is(r = tool_replayed(w->call, i), JSON_OBJECT);
	     i++) {
		id = json_get(r, "job");
		if (tool_is_job(id))
			(void)snprintf(w->id, sizeof(w->id), "%.*s",
			               (int)json_raw_string(id).n,
			               json_raw_string(id).p);
	}
}

static void work_begin(struct tool_work *w)
{
	if (link_on_bus(w->link))
		on_bus(w, true);
	else if (!link_bus_pending(w->link))
		on_bus(w, false);
}

static void work_start(struct tool_call *c, bool is_chain)
{
	struct tool_work *w = work_new(c);
	const char *what = is_chain ? "steps" : "workflows";
	size_t max = is_chain ? CHAIN_STEPS_MAX : BATCH_ITEMS_MAX;
	char text[128];

	if (!w)
		return;
	w->is_chain = is_chain;
	w->items = json_get(c->args, what);
	w->total = json_count(w->items);
	if (w->total < 1 || w->total > max) {
		(void)snprintf(text, sizeof(text),
		               "%s: give 1 to %zu of them, not %zu", what, max,
		               w->total);
		tool_fail(c, "invalid", text, NULL);
		return;
	}
	tool_progress(c, 0, "Submitting", false);
	work_take_record(w);
	work_begin(w);
}

void tool_batch_start(struct tool_call *c)
{
	work_start(c, false);
}

void tool_chain_start(struct tool_call *c)
{
	work_start(c, true);
}

void tool_job_wait(struct tool_call *c)
{
	struct tool_work *w = work_new(c);

	if (!w)
		return;
	w->follows = true;
	(void)snprintf(w->id, sizeof(w->id), "%.*s",
	               (int)json_raw_string(json_get(c->args, "prompt_id")).n,
	               json_raw_string(json_get(c->args, "prompt_id")).p);
	tool_progress(c, 0, "Waiting", false);
	work_begin(w);
}

static void on_nothing(void *user, const struct incoming *in,
                       const struct error *err)
{
}

void tool_job_cancel(struct tool_call *c, bool stop)
{
	struct tool_work *w = c->state;
	cleanup_buf struct buf params = BUF_INIT(128);
	struct error err;

	if (!w || !stop)
		return;
	if (w->alone) {
		tool_ask_cancel(w->alone);
		tool_ask_orphan(w->alone);
		w->alone = NULL;
	} else if (*w->id && link_on_bus(w->link)) {
		put_id(w, &params);
		(void)link_ask(w->link, OP_JOB_CANCEL,
		               span_make(params.data, params.len), 0,
		               on_nothing, NULL, &err);
	}
}

void tool_job_destroy(struct tool_call *c)
{
	struct tool_work *w = c->state;

	if (!w)
		return;
	c->state = NULL;
	link_watch_remove(w->link, &w->watch);
	link_forget(w->link, w->ask);
	ev_timer_stop(c->host->loop, &w->look);
	ev_timer_stop(c->host->loop, &w->deadline);
	w->alone = tool_ask_free(w->alone);
	buf_deinit(&w->latest);
	free(w);
}

/* --- progress and cancel of a job, for tool_query.c ----------------------- */

static void on_told(void *user, const struct incoming *in,
                    const struct error *err)
{
	struct tool_work *w = user;
	struct tool_call *c = w->call;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	w->ask = 0;
	if (err) {
		tool_fail(c, error_code_name(err->code), err->text, w->id);
		return;
	}
	if (json_is(json_get(in->result, "total"), JSON_NUMBER)) {
		tool_job_put(in->result, false, &out);
		tool_put_string(&out, "method", "websocket");
	} else {
		(void)buf_putc(&out, '{');
		tool_put_string(&out, "prompt_id", w->id);
		tool_put_string(
			&out, "how",
			json_string_eq(json_get(in->result, "state"), "over")
				? "ended"
				: "cancelled");
	}
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

void tool_job_ask(struct tool_call *c, enum op op)
{
	struct tool_work *w = work_new(c);
	cleanup_buf struct buf params = BUF_INIT(128);
	struct span id = json_raw_string(json_get(c->args, "prompt_id"));

	if (!w)
		return;
	w->phase = WORK_LOOK; /* on_bus has no part in it */
	(void)snprintf(w->id, sizeof(w->id), "%.*s", (int)id.n, id.p);
	if (!link_on_bus(w->link)) {
		tool_fail(c, "unreachable",
		          "there is no supervisor, which has the jobs", w->id);
		return;
	}
	put_id(w, &params);
	(void)work_ask(w, op, &params, on_told);
}
