/*
 * tool_query.c - the tools that look and cancel: get_execution_progress,
 * cancel_execution, get_queue, get_history, get_last_output, list_outputs,
 * get_error_details.
 *
 * What they may see is the supervisor's word: its ops know whose prompt is
 * whose.
 */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/progress.h"
#include "workers/tool_ask.h"
#include "workers/tool_code.h"
#include "workers/tool_files_of.h"
#include "workers/tool_prompts.h"

#define RESULT_BYTES     (9u << 20)
#define LISTED_OUTPUTS   (64u << 10) /* of one prompt among others */
#define LAST_LIMIT       50          /* prompts looked through for an image */
#define TRACEBACK_BYTES  (16u << 10) /* shown of a traceback, its end */
#define TRACEBACK_LINES  200
#define LINE_BYTES       2048        /* shown of one of its lines */
#define LINE_DECODED_MAX (16u << 20) /* no reply of ComfyUI's is longer */

struct query {
	struct tool_prompts prompts; /* first: see tool_prompts.h */
	struct tool_ask *ask;
	struct tool_images *images;
	struct comfy_call *call; /* get_error_details */
	bool holds_api;
	struct buf progress; /* get_error_details: the first answer */
};

void tool_query_destroy(struct tool_call *c)
{
	struct query *q = c->state;

	if (!q)
		return;
	tool_prompts_deinit(&q->prompts);
	q->ask = tool_ask_free(q->ask);
	q->images = tool_images_free(q->images);
	if (q->call)
		comfy_call_cancel(q->call);
	if (q->holds_api)
		link_api_release(c->host->link);
	buf_deinit(&q->progress);
	free(q);
}

static struct query *query_new(struct tool_call *c)
{
	struct query *q = calloc(1, sizeof(*q));

	c->state = q;
	if (!q) {
		tool_fail(c, "internal", "out of memory", NULL);
		return NULL;
	}
	buf_init(&q->progress, RESULT_BYTES);
	return q;
}

static void query_prompt(struct tool_call *c, const char *op,
                         tool_answer_cb *cb)
{
	cleanup_buf struct buf params = BUF_INIT(4096);
	struct query *q = query_new(c);

	if (q && tool_prompt_params(c, &params))
		q->ask = tool_ask_new(c, op, span_make(params.data, params.len),
		                      cb, NULL);
}

static void on_progress(struct tool_call *c, bool ok, struct json body)
{
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	tool_put_progress(&out, body, TOOL_OUTPUTS_BYTES);
	tool_finish(c, &out, false, NULL, 0);
}

static void on_history(struct tool_call *c, bool ok, struct json body)
{
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	struct json_iter it;
	struct json prompt;
	size_t n = 0;

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	(void)buf_puts(&out, "{\"prompts\":[");
	json_iter_init(&it, json_get(body, "prompts"));
	while (json_iter_next(&it, NULL, &prompt)) {
		(void)buf_puts(&out, n++ > 0 ? "," : "");
		tool_put_progress(&out, prompt, LISTED_OUTPUTS);
	}
	(void)buf_puts(&out, "]}");
	tool_finish(c, &out, false, NULL, 0);
}

static void on_queue(struct tool_call *c, bool ok, struct json body)
{
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	(void)json_compact(&out, body);
	tool_finish(c, &out, false, NULL, 0);
}

void tool_progress_start(struct tool_call *c)
{
	query_prompt(c, "progress", on_progress);
}

void tool_queue_start(struct tool_call *c)
{
	if (query_new(c))
		tool_prompts_get(c, "queue", 0, on_queue);
}

void tool_history_start(struct tool_call *c)
{
	if (query_new(c))
		tool_prompts_get(c, "history", tool_arg_int(c, "limit", 10),
		                 on_history);
}

/* --- cancel_execution ---------------------------------------------------- */

static void on_cancelled(struct tool_call *c, bool ok, struct json body)
{
	cleanup_buf struct buf out = BUF_INIT(4096);

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	(void)buf_putc(&out, '{');
	(void)buf_json_key(&out, "prompt_id");
	(void)json_compact(&out, json_get(c->args, "prompt_id"));
	(void)buf_putc(&out, ',');
	tool_put_members(&out, body);
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

void tool_cancel_start(struct tool_call *c)
{
	query_prompt(c, "cancel", on_cancelled);
}

/* --- list_outputs -------------------------------------------------------- */

static void on_outputs(struct tool_call *c, bool ok, struct json body)
{
	struct query *q = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	struct json outputs = json_get(body, "outputs");

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	(void)buf_putc(&out, '{');
	tool_put_member(&out, "prompt_id", json_get(body, "prompt_id"));
	tool_put_member(&out, "status", json_get(body, "status"));
	(void)buf_json_key(&out, "files");
	(void)tool_put_files(&out, c, outputs);
	(void)tool_put_bounded(&out, "outputs", outputs, TOOL_OUTPUTS_BYTES);
	(void)buf_putc(&out, '}');
	tool_finish_files(c, &q->images, &out, false,
	                  json_get(body, "prompt_id"), outputs,
	                  tool_arg_bool(c, "return_images", false), NULL);
}

void tool_outputs_start(struct tool_call *c)
{
	query_prompt(c, "progress", on_outputs);
}

/* --- get_last_output ----------------------------------------------------- */

struct finding {
	struct json node, file;
};

static bool find_image(void *user, struct json node, struct json file)
{
	struct finding *f = user;

	if (!tool_is_image(file))
		return true;
	f->node = node;
	f->file = file;
	return false;
}

static void finish_last(struct tool_call *c, struct json prompt,
                        struct json in_flight, const struct finding *f)
{
	struct query *q = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	cleanup_buf struct buf one = BUF_INIT(65536);
	struct json outputs;

	(void)buf_putc(&out, '{');
	tool_put_member(&out, "prompt_id", json_get(prompt, "prompt_id"));
	tool_put_member(&out, "node", f->node);
	tool_put_member(&out, "filename", json_get(f->file, "filename"));
	tool_put_typed(&out, "subfolder", json_get(f->file, "subfolder"),
	               JSON_STRING);
	tool_put_typed(&out, "type", json_get(f->file, "type"), JSON_STRING);
	(void)buf_json_key(&out, "view_url");
	tool_put_view_url(&out, c, f->file);
	tool_put_member(&out, "in_flight", in_flight);
	(void)buf_putc(&out, '}');
	/* Only this one is linked and shown. */
	(void)buf_putc(&one, '{');
	(void)buf_append(&one, f->node.text.p, f->node.text.n);
	(void)buf_puts(&one, ":{\"images\":[");
	(void)buf_append(&one, f->file.text.p, f->file.text.n);
	(void)buf_puts(&one, "]}}");
	if (!buf_ok(&one) || json_parse(&outputs, one.data, one.len,
	                                JSON_NONFINITE, NULL) != JSON_OK)
		outputs = JSON_MISSING;
	tool_finish_files(c, &q->images, &out, false,
	                  json_get(prompt, "prompt_id"), outputs,
	                  tool_arg_bool(c, "return_images", false), NULL);
}

/* The first of those on their way (they come first). One that was submitted
 * before the prompt with the image isn't newer than it. */
static struct json newer_in_flight(struct json prompts, struct json than)
{
	struct json_iter it;
	struct json prompt;
	int64_t ms, than_ms;

	json_iter_init(&it, prompts);
	while (json_iter_next(&it, NULL, &prompt)) {
		struct json status = json_get(prompt, "status");

		if (!json_string_eq(status, "queued") &&
		    !json_string_eq(status, "executing"))
			break;
		if (prompt.text.p == than.text.p)
			continue;
		if (!json_int64(json_get(prompt, "submitted_at"), &ms) ||
		    !json_int64(json_get(than, "submitted_at"), &than_ms) ||
		    ms >= than_ms)
			return json_get(prompt, "prompt_id");
	}
	return JSON_MISSING;
}

static void on_last(struct tool_call *c, bool ok, struct json body)
{
	struct json prompts = json_get(body, "prompts"), in_flight, prompt;
	struct finding f = {JSON_MISSING, JSON_MISSING};
	struct json_iter it;

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	/* Queued and running come first, then the newest ended ones; a running
	 * one may have an image already. */
	json_iter_init(&it, prompts);
	while (json_iter_next(&it, NULL, &prompt)) {
		tool_files_each(json_get(prompt, "outputs"), find_image, &f);
		if (!json_is(f.file, JSON_NONE)) {
			finish_last(c, prompt, newer_in_flight(prompts, prompt),
			            &f);
			return;
		}
	}
	in_flight = newer_in_flight(prompts, JSON_MISSING);
	tool_fail(c, "not_found",
	          json_is(in_flight, JSON_NONE)
	                  ? "none of your recent prompts has made an image"
	                  : "none of your prompts has made an image yet, but "
	                    "one is still running: call get_queue, then "
	                    "wait_for_execution",
	          NULL);
}

void tool_last_start(struct tool_call *c)
{
	if (query_new(c))
		tool_prompts_get(c, "history", LAST_LIMIT, on_last);
}

/* --- get_error_details --------------------------------------------------- */

/* A line as a string of at most LINE_BYTES, cut at a character's edge. */
static void put_line(struct buf *out, struct json line)
{
	cleanup_buf struct buf text = BUF_INIT(LINE_DECODED_MAX);
	size_t n;

	if (json_string_decode(line, &text) < 0) {
		(void)buf_puts(out, "\"(a line too long to be shown)\"");
		return;
	}
	n = text.len;
	if (n > LINE_BYTES) {
		n = LINE_BYTES;
		while (n > 0 && ((unsigned char)text.data[n] & 0xc0) == 0x80)
			n--;
	}
	(void)buf_json_string(out, text.data ? text.data : "", n);
}

/* The last lines, where the fault is. */
static void put_traceback(struct buf *out, struct json traceback)
{
	struct json lines[TRACEBACK_LINES];
	size_t count = 0, used = 0, first;
	struct json_iter it;
	struct json line;

	json_iter_init(&it, traceback);
	while (json_iter_next(&it, NULL, &line))
		if (json_is(line, JSON_STRING))
			lines[count++ % TRACEBACK_LINES] = line;
	for (first = count; first > 0 && count - first < TRACEBACK_LINES;
	     first--) {
		size_t n = lines[(first - 1) % TRACEBACK_LINES].text.n;

		used += n < LINE_BYTES ? n : LINE_BYTES;
		if (used > TRACEBACK_BYTES)
			break;
	}
	(void)buf_json_key(out, "traceback");
	(void)buf_putc(out, '[');
	for (size_t i = first; i < count; i++) {
		(void)buf_puts(out, i > first ? "," : "");
		put_line(out, lines[i % TRACEBACK_LINES]);
	}
	(void)buf_putc(out, ']');
	if (first > 0)
		(void)buf_printf(out, ",\"traceback_lines_left_out\":%zu",
		                 first);
}

/* The data of execution_error in a history entry's messages. */
static struct json error_message(struct json entry)
{
	struct json_iter it;
	struct json m;

	json_iter_init(&it, json_get(json_get(entry, "status"), "messages"));
	while (json_iter_next(&it, NULL, &m))
		if (json_string_eq(json_at(m, 0), "execution_error"))
			return json_at(m, 1);
	return JSON_MISSING;
}

static const char *details_next(struct json p)
{
	struct json error = json_get(p, "error");
	const char *text = tool_advice(json_get(error, "type"));

	if (!json_is(error, JSON_OBJECT))
		return json_string_eq(json_get(p, "status"), "completed")
		               ? "it has not failed: list_outputs names its "
		                 "files"
		               : "it has not failed so far: "
		                 "wait_for_execution";
	return text ? text
	            : "change the node's inputs (get_node_info tells which it "
	              "takes) and run the workflow again";
}

static void finish_details(struct tool_call *c, struct json details)
{
	const struct query *q = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	struct json p;

	if (json_parse(&p, q->progress.data, q->progress.len, JSON_NONFINITE,
	               NULL) != JSON_OK) {
		tool_fail(c, "internal", "out of memory", NULL);
		return;
	}
	(void)buf_putc(&out, '{');
	tool_put_member(&out, "prompt_id", json_get(p, "prompt_id"));
	tool_put_member(&out, "status", json_get(p, "status"));
	tool_put_member(&out, "error", json_get(p, "error"));
	tool_put_typed(&out, "node_type", json_get(details, "node_type"),
	               JSON_STRING);
	tool_put_member(&out, "node_errors", json_get(p, "node_errors"));
	if (json_is(json_get(details, "traceback"), JSON_ARRAY))
		put_traceback(&out, json_get(details, "traceback"));
	tool_put_next(&out, details_next(p));
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

static void on_details(void *user, const struct comfy_history *h)
{
	struct tool_call *c = user;
	struct query *q = c->state;

	q->call = NULL;
	/* Without it what the supervisor knows has to do. */
	finish_details(c, error_message(h->entry));
}

static void on_error_progress(struct tool_call *c, bool ok, struct json body)
{
	struct query *q = c->state;
	struct link *l = c->host->link;
	cleanup_free char *id =
		json_string_dup(json_get(body, "prompt_id"), PROGRESS_ID_MAX);
	struct error err = ERROR_NULL;
	struct comfy_api *api;

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	if (!id || json_compact(&q->progress, body) < 0) {
		tool_fail(c, "internal", "out of memory", NULL);
		return;
	}
	if (!json_is(json_get(body, "error"), JSON_OBJECT)) {
		finish_details(c, JSON_MISSING);
		return;
	}
	api = link_api(l, &err);
	if (api) {
		link_api_hold(l);
		q->holds_api = true;
		q->call = comfy_get_history(api, id, on_details, c, &err);
	}
	if (!q->call)
		finish_details(c, JSON_MISSING);
}

void tool_details_start(struct tool_call *c)
{
	query_prompt(c, "progress", on_error_progress);
}
