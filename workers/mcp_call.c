/*
 * mcp_call.c - tools/call: from the request to the tool and back, and what a
 * session offers to its tools but for files (mcp_files.c).
 */
#include "workers/mcp_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/progress.h"
#include "workers/mcp_result.h"

#define RECORD_MAX (8u << 20) /* bytes of one record */

struct call_record {
	struct worker_record w;
	struct list node;
	struct mcp_call *call;
	tool_recorded_cb *cb; /* NULL: nobody waits */
};

/* --- the end of a call --------------------------------------------------- */

static void call_free(struct mcp_call *call)
{
	struct list *n;

	if (call->started && call->c.tool->destroy)
		call->c.tool->destroy(&call->c);
	mcp_call_close_files(call);
	while ((n = list_pop(&call->records))) {
		struct call_record *r = list_entry(n, struct call_record, node);

		worker_record_forget(&r->w);
		free(r);
	}
	free(call->c.prompt_id);
	free(call);
}

void tool_know_prompt(struct tool_call *c, struct json prompt_id)
{
	/* Out of memory it stays unknown. */
	if (!c->prompt_id)
		c->prompt_id = json_string_dup(prompt_id, PROGRESS_ID_MAX);
}

/* {"error":{"type","message"},"prompt_id"} */
static void error_text(struct buf *b, const char *type, const char *message,
                       const char *prompt_id)
{
	(void)buf_puts(b, "{\"error\":{");
	(void)buf_json_key(b, "type");
	(void)buf_json_string(b, type, strlen(type));
	(void)buf_json_key(b, "message");
	(void)buf_json_string(b, message, strlen(message));
	(void)buf_putc(b, '}');
	if (prompt_id) {
		(void)buf_json_key(b, "prompt_id");
		(void)buf_json_string(b, prompt_id, strlen(prompt_id));
	}
	(void)buf_putc(b, '}');
}

static void answer_error(struct mcp_request *r, const char *type,
                         const char *message, const char *prompt_id)
{
	cleanup_buf struct buf text = BUF_INIT(MCP_RESULT_MAX);
	cleanup_buf struct buf result = BUF_INIT(MCP_RESULT_MAX);
	struct tool_result error = {.is_error = true};

	error_text(&text, type, message, prompt_id);
	error.structured = span_make(text.data, text.len);
	if (!buf_ok(&text) ||
	    mcp_build_result(&result, r->version, &error, NULL) < 0)
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL, "Out of memory");
	else
		mcp_answer_buf(r, &result);
}

/* Nobody reads what is there already: more of it would only fill memory. */
static bool is_unread(const struct mcp_request *r, size_t len)
{
	const struct mcp_session *s = r->session;

	return len > MCP_SMALL_RESULT &&
	       s->io->queued(s->user) > MCP_UNREAD_MAX;
}

void tool_done(struct tool_call *c, const struct tool_result *result)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);
	struct mcp_call *call = mcp_call_of(c);
	struct mcp_request *r = call->r;
	cleanup_free char *prompt_id = steal_ptr(&c->prompt_id);
	int e = mcp_build_result(&b, r->version, result, prompt_id);

	if (e == -EINVAL)
		log_error("mcp", "%s: its result is no JSON object",
		          c->tool->name);
	/* The result may point into what is freed here. */
	call_free(call);
	r->job = NULL;
	if (e < 0)
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL,
		           "The result could not be put together");
	else if (is_unread(r, b.len))
		answer_error(r, "limit",
		             "too many results wait to be read; read them, "
		             "then ask again",
		             prompt_id);
	else
		mcp_answer_buf(r, &b);
}

void tool_fail(struct tool_call *c, const char *type, const char *message,
               const char *prompt_id)
{
	cleanup_buf struct buf text = BUF_INIT(MCP_RESULT_MAX);
	struct tool_result error = {.is_error = true};

	error_text(&text, type, message, prompt_id);
	if (!buf_ok(&text))
		log_error("mcp", "%s: no memory for its error", c->tool->name);
	error.structured = span_make(text.data, text.len);
	tool_done(c, &error);
}

struct worker *tool_worker(struct tool_call *c)
{
	return mcp_call_of(c)->r->session->worker;
}

uint64_t tool_line(struct tool_call *c)
{
	return mcp_call_of(c)->r->line->number;
}

/* --- the start ----------------------------------------------------------- */

static const struct tool *tool_of(const struct mcp_request *r)
{
	cleanup_buf struct buf name = BUF_INIT(256);

	/* One that is longer is no tool's. */
	if (json_string_decode(json_get(r->params, "name"), &name) < 0)
		return NULL;
	return tool_find(span_make(name.data, name.len));
}

bool mcp_call_submits(const struct mcp_request *r)
{
	const struct tool *t;

	if (r->method->start != mcp_call_start)
		return false;
	t = tool_of(r);
	return t && (t->annotations & TOOL_SUBMITS);
}

static void run(struct mcp_request *r, const struct tool *tool,
                struct json args)
{
	struct mcp_call *call = calloc(1, sizeof(*call));

	if (!call) {
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL, "Out of memory");
		return;
	}
	call->c = (struct tool_call){.tool = tool,
	                             .host = &r->session->host,
	                             .args = args,
	                             .version = r->version,
	                             .has_progress = r->token.n > 0};
	call->r = r;
	list_init(&call->records);
	list_init(&call->files);
	r->job = call;
	call->started = true;
	tool_know_prompt(&call->c, json_get(args, "prompt_id"));
	tool->start(&call->c);
}

void mcp_call_start(struct mcp_request *r)
{
	static const struct json none = {JSON_OBJECT, {"{}", 2}};
	struct json name = json_get(r->params, "name");
	struct json args = json_get(r->params, "arguments");
	const struct tool *tool = tool_of(r);
	struct error err = ERROR_NULL;

	if (!json_is(name, JSON_STRING)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL,
		           "name must be a string: that of a tool");
		return;
	}
	if (!tool) {
		struct span raw = json_raw_string(name);

		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL, "Unknown tool: %s",
		           log_safe(raw.p, raw.n));
		return;
	}
	if (json_is(args, JSON_NONE))
		args = none;
	if (!json_is(args, JSON_OBJECT)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL,
		           "arguments must be an object");
		return;
	}
	if (tool_check_args(args, tool->input_schema, &err) < 0) {
		(void)error_prefix(&err, "%s", tool->name);
		answer_error(r, error_code_name(err.code), err.text, NULL);
		return;
	}
	run(r, tool, args);
}

void mcp_call_drop(struct mcp_request *r, bool stop)
{
	struct mcp_call *call = r->job;

	r->job = NULL;
	if (call->c.tool->cancel)
		call->c.tool->cancel(&call->c, stop);
	call_free(call);
}

/* --- progress ------------------------------------------------------------ */

void tool_progress(struct tool_call *c, double fraction, const char *message,
                   bool near_end)
{
	struct mcp_request *r = mcp_call_of(c)->r;

	r->waiting = true;
	if (r->token.n > 0) {
		mcp_progress_set(&r->progress, fraction, message, near_end,
		                 clock_ms());
		mcp_schedule_tick(r->session,
		                  mcp_progress_due_ms(&r->progress));
	}
	mcp_check_ended(r->session);
}

/* --- records ------------------------------------------------------------- */

static void on_recorded(void *user)
{
	struct call_record *rec = user;
	struct mcp_call *call = rec->call;
	tool_recorded_cb *cb = rec->cb;

	list_del(&rec->node);
	free(rec);
	if (cb)
		cb(&call->c);
}

int tool_record_then(struct tool_call *c, struct span record,
                     tool_recorded_cb *cb, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(RECORD_MAX);
	struct mcp_call *call = mcp_call_of(c);
	struct mcp_session *s = call->r->session;
	struct call_record *rec;

	(void)buf_printf(&b, "{\"i\":%u,\"r\":", call->r->index);
	(void)buf_append(&b, record.p, record.n);
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b))
		return error_set(err, ERR_LIMIT,
		                 "a record of %zu bytes is too large",
		                 record.n);
	rec = calloc(1, sizeof(*rec));
	if (!rec)
		return error_set_nomem(err, "a record");
	rec->w.on_written = on_recorded;
	rec->w.user = rec;
	list_init(&rec->w.node);
	rec->call = call;
	rec->cb = cb;
	list_append(&call->records, &rec->node);
	if (s->io->record(s->user, call->r->line->number,
	                  span_make(b.data, b.len), &rec->w, err) < 0) {
		list_del(&rec->node);
		free(rec);
		return -1;
	}
	return 0;
}

void tool_record(struct tool_call *c, struct span record)
{
	struct error err = ERROR_NULL;

	if (tool_record_then(c, record, NULL, &err) < 0)
		log_warn("mcp", "%s: a record is lost: %s", c->tool->name,
		         err.text);
}

struct json tool_replayed(struct tool_call *c, size_t i)
{
	const struct mcp_request *r = mcp_call_of(c)->r;
	struct list *it;

	list_for_each (it, &r->line->records) {
		const struct mcp_record *rec =
			list_entry(it, struct mcp_record, node);

		if (rec->index == r->index && i-- == 0)
			return rec->value;
	}
	return JSON_MISSING;
}
