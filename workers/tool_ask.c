/*
 * tool_ask.c - see tool_ask.h.
 *
 * Answers are handed on from a clean stack: a tool usually ends its call in the
 * callback, which frees the ask and the commands that are just answering.
 */
#include "workers/tool_ask.h"

#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/url.h"
#include "ipc/channel.h"
#include "workers/request.h"
#include "workers/tool_recall.h"

#define ARG_MAX_BYTES (16u << 20)
#define ERROR_BYTES   (1u << 20)
#define READ_CHUNK    65536
#define ANSWER_BYTES  (CHANNEL_PAYLOAD_MAX + 4096)

struct tool_ask {
	struct tool_call *call; /* NULL: orphaned */
	struct list node;       /* of the host's orphans, if it is one */
	struct ev_loop *loop;
	struct commands *commands;
	uint64_t line;
	tool_answer_cb *on_answer;
	tool_output_cb *on_output;
	struct buf answer;
	struct preview preview; /* the latest */
	ev_timer deliver;
	struct worker_record *record; /* waits for its intent to be safe */
};

/* --- what the command says ----------------------------------------------- */

static void on_deliver(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct tool_ask *a = container_of(w, struct tool_ask, deliver);
	struct json whole, body;
	bool ok = false;

	if (!a->call) {
		(void)tool_ask_free(a);
		return;
	}
	if (json_parse(&whole, a->answer.data, a->answer.len, JSON_NONFINITE,
	               NULL) != JSON_OK) {
		tool_fail(a->call, "internal", "the answer is no JSON", NULL);
		return;
	}
	(void)json_bool(json_get(whole, "ok"), &ok);
	body = json_get(whole, ok ? "result" : "error");
	tool_know_prompt(a->call, json_get(body, "prompt_id"));
	a->on_answer(a->call, ok, body);
}

static bool on_respond(void *user, uint64_t line, struct span answer)
{
	struct tool_ask *a = user;

	if (buf_append(&a->answer, answer.p, answer.n) < 0) {
		buf_reset(&a->answer);
		return false;
	}
	ev_timer_start(a->loop, &a->deliver);
	return true;
}

static bool on_command_output(void *user, uint64_t line, struct span bytes)
{
	struct tool_ask *a = user;
	struct json output;

	if (a->call && a->on_output &&
	    json_parse(&output, bytes.p, bytes.n, JSON_NONFINITE, NULL) ==
	            JSON_OK) {
		tool_know_prompt(a->call, json_get(json_get(output, "progress"),
		                                   "prompt_id"));
		a->on_output(a->call, output);
	}
	return true;
}

static bool on_command_preview(void *user, uint64_t line, struct preview *p,
                               bool last)
{
	struct tool_ask *a = user;

	preview_move(&a->preview, p);
	return true;
}

const struct preview *tool_ask_preview(const struct tool_ask *a)
{
	return &a->preview;
}

static void on_intent_safe(struct tool_call *c)
{
	struct tool_ask *a = c->recording;
	struct worker_record *r;

	c->recording = NULL;
	if (!a)
		return;
	r = a->record;
	a->record = NULL;
	r->on_written(r->user);
}

static int on_record(void *user, uint64_t line, struct span record,
                     struct worker_record *r, struct error *err)
{
	struct tool_ask *a = user;

	if (!a->call)
		return error_set(err, ERR_CANCELLED, "cancelled");
	/* worker_record_forget() must find a node that is in no list. */
	list_init(&r->node);
	if (tool_record_then(a->call, record, on_intent_safe, err) < 0)
		return -1;
	a->record = r;
	a->call->recording = a;
	return 0;
}

/* --- life ---------------------------------------------------------------- */

/* A successor goes on with the prompt that its predecessor announced. */
static void replay(struct tool_ask *a)
{
	struct json r;

	for (size_t i = 0; json_is(r = tool_replayed(a->call, i), JSON_OBJECT);
	     i++)
		commands_recorded(a->commands, a->line, r.text);
}

static struct tool_ask *ask_new(struct tool_call *c, const char *op,
                                struct span params, tool_answer_cb *on_answer,
                                tool_output_cb *on_output, struct error *err)
{
	static const struct command_sink sink = {
		.respond = on_respond,
		.output = on_command_output,
		.preview = on_command_preview,
		.record = on_record,
	};
	cleanup_buf struct buf request = BUF_INIT(ANSWER_BYTES);
	struct tool_ask *a = calloc(1, sizeof(*a));

	(void)buf_printf(&request, "{\"op\":\"%s\",\"params\":", op);
	(void)buf_append(&request, params.p, params.n);
	(void)buf_putc(&request, '}');
	if (!a || !buf_ok(&request)) {
		free(a);
		(void)error_set_nomem(err, "a command");
		return NULL;
	}
	list_init(&a->node);
	a->preview.fd = -1;
	a->call = c;
	a->loop = c->host->loop;
	a->line = tool_line(c);
	a->on_answer = on_answer;
	a->on_output = on_output;
	buf_init(&a->answer, ANSWER_BYTES);
	ev_timer_init(&a->deliver, on_deliver, 0., 0.);
	a->commands =
		commands_new(c->host->link, tool_worker(c), &sink, a, err);
	if (!a->commands) {
		free(a);
		return NULL;
	}
	replay(a);
	commands_request(a->commands, a->line,
	                 span_make(request.data, request.len));
	return a;
}

struct tool_ask *tool_ask_new(struct tool_call *c, const char *op,
                              struct span params, tool_answer_cb *on_answer,
                              tool_output_cb *on_output)
{
	struct error err = ERROR_NULL;
	struct tool_ask *a = ask_new(c, op, params, on_answer, on_output, &err);

	if (!a)
		tool_fail(c, error_code_name(err.code), err.text, NULL);
	return a;
}

void tool_ask_apart(struct tool_call *c, const char *op, struct span params)
{
	struct error err = ERROR_NULL;
	struct tool_ask *a = ask_new(c, op, params, NULL, NULL, &err);

	if (a)
		tool_ask_orphan(a);
	else
		log_warn("tool", "%s: %s", op, err.text);
}

void tool_ask_cancel(struct tool_ask *a)
{
	commands_cancel(a->commands, a->line);
}

struct tool_ask *tool_ask_free(struct tool_ask *a)
{
	if (!a)
		return NULL;
	if (a->call && a->call->recording == a)
		a->call->recording = NULL;
	list_del(&a->node);
	ev_timer_stop(a->loop, &a->deliver);
	a->commands = commands_free(a->commands);
	buf_deinit(&a->answer);
	preview_drop(&a->preview);
	free(a);
	return NULL;
}

void tool_ask_orphan(struct tool_ask *a)
{
	/* An intent that nobody waits for any more leads to nothing. */
	if (a->call->recording == a || ev_is_active(&a->deliver)) {
		(void)tool_ask_free(a);
		return;
	}
	list_append(&a->call->host->orphans, &a->node);
	a->call = NULL;
}

void tool_host_init(struct tool_host *h)
{
	list_init(&h->orphans);
	list_init(&h->recalled);
	h->recalled_count = 0;
}

void tool_host_deinit(struct tool_host *h)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &h->orphans)
		(void)tool_ask_free(list_entry(it, struct tool_ask, node));
	tool_recall_clear(h);
}

/* --- arguments ----------------------------------------------------------- */

char *tool_arg_string(const struct tool_call *c, const char *key)
{
	return json_string_dup(json_get(c->args, key), ARG_MAX_BYTES);
}

bool tool_arg_bool(const struct tool_call *c, const char *key, bool otherwise)
{
	(void)json_bool(json_get(c->args, key), &otherwise);
	return otherwise;
}

int64_t tool_arg_int(const struct tool_call *c, const char *key,
                     int64_t otherwise)
{
	(void)json_int64(json_get(c->args, key), &otherwise);
	return otherwise;
}

bool tool_prompt_params(struct tool_call *c, struct buf *params)
{
	struct json id = json_get(c->args, "prompt_id");

	(void)buf_puts(params, "{\"prompt_id\":");
	(void)buf_append(params, id.text.p, id.text.n);
	(void)buf_putc(params, '}');
	if (buf_ok(params))
		return true;
	tool_fail(c, "invalid", "that is too long for a prompt_id", NULL);
	return false;
}

/* --- results ------------------------------------------------------------- */

void tool_finish(struct tool_call *c, struct buf *structured, bool is_error,
                 const struct tool_content *content, size_t count)
{
	struct tool_result r = {.is_error = is_error,
	                        .content = content,
	                        .content_count = count};

	if (!buf_ok(structured)) {
		tool_fail(c, "limit",
		          "the result is larger than fits in one message; ask "
		          "for less of it",
		          NULL);
		return;
	}
	r.structured = span_make(structured->data, structured->len);
	tool_done(c, &r);
}

const char *tool_advice(struct json type)
{
	static const struct {
		const char *type, *text;
	} advice[] = {
		{"rejected",
	         "nothing ran: mend what node_errors names (get_node_info "
	         "tells a node's inputs and choices) and call again"},
		{"unreachable",
	         "make sure that ComfyUI is running and reachable, then call "
	         "again; get_history tells whether a prompt got through"},
		{"lost",
	         "ComfyUI restarted or forgot the prompt: run it again"},
		{"deleted",
	         "somebody took the prompt out of ComfyUI's queue or "
	         "history: run it again if it is still wanted"},
		{"interrupted", "somebody stopped it at the server: run it "
	                        "again if it is still wanted"},
		{"cancelled",
	         "it was cancelled as asked: run it again if it is "
	         "still wanted"},
		{"not_found", "get_history lists your prompts with their ids "
	                      "and files"},
		{"timeout", "ComfyUI is slow to answer: call again later, or "
	                    "get_history to find the prompt"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(advice); i++)
		if (json_string_eq(type, advice[i].type))
			return advice[i].text;
	return NULL;
}

void tool_put_next(struct buf *out, const char *text)
{
	if (text)
		tool_put_string(out, "next", text);
}

void tool_finish_error(struct tool_call *c, struct json error)
{
	cleanup_buf struct buf b = BUF_INIT(ERROR_BYTES);

	(void)buf_puts(&b, "{\"error\":{");
	tool_put_member(&b, "type", json_get(error, "type"));
	tool_put_member(&b, "message", json_get(error, "message"));
	(void)tool_put_bounded(&b, "node_errors",
	                       json_get(error, "node_errors"), ERROR_BYTES / 2);
	(void)buf_putc(&b, '}');
	tool_put_member(&b, "prompt_id", json_get(error, "prompt_id"));
	tool_put_next(&b, tool_advice(json_get(error, "type")));
	(void)buf_putc(&b, '}');
	tool_finish(c, &b, true, NULL, 0);
}

void tool_put_member(struct buf *out, const char *key, struct json value)
{
	if (json_is(value, JSON_NONE))
		return;
	(void)buf_json_key(out, key);
	(void)json_compact(out, value);
}

void tool_put_typed(struct buf *out, const char *key, struct json value,
                    enum json_type type)
{
	if (json_is(value, type))
		tool_put_member(out, key, value);
}

bool tool_put_bounded(struct buf *out, const char *key, struct json value,
                      size_t max)
{
	char name[64];

	if (value.text.n <= max) {
		tool_put_member(out, key, value);
		return true;
	}
	(void)snprintf(name, sizeof(name), "%s_left_out", key);
	(void)buf_json_key(out, name);
	(void)buf_printf(out, "%zu", value.text.n);
	return false;
}

void tool_put_progress(struct buf *out, struct json p, size_t max)
{
	struct json_iter it;
	struct json key, value;

	(void)buf_putc(out, '{');
	json_iter_init(&it, p);
	while (json_iter_next(&it, &key, &value)) {
		if (json_string_eq(key, "outputs")) {
			(void)tool_put_bounded(out, "outputs", value, max);
			continue;
		}
		if (out->data && out->len > 0 && out->data[out->len - 1] != '{')
			(void)buf_putc(out, ',');
		(void)json_compact(out, key);
		(void)buf_putc(out, ':');
		(void)json_compact(out, value);
	}
	(void)buf_putc(out, '}');
}

void tool_put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

int tool_read_file(int fd, size_t max, const char *what, struct buf *out,
                   struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set_errno(err, errno, "%s", what);
	/* A pipe or a device could block the whole session. */
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERR_INVALID, "%s names no regular file",
		                 what);
	if (st.st_size > (off_t)max)
		return error_set(err, ERR_LIMIT,
		                 "%s: larger than the %zu bytes it may have",
		                 what, max);
	for (;;) {
		char *room = buf_reserve(out, READ_CHUNK);
		ssize_t n;

		if (!room)
			return error_set(err, ERR_LIMIT, "%s is too large",
			                 what);
		n = read(fd, room, READ_CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set_errno(err, errno, "%s", what);
		if (n == 0)
			return 0;
		buf_commit(out, (size_t)n);
	}
}

void tool_put_members(struct buf *out, struct json j)
{
	if (json_is(j, JSON_OBJECT) && j.text.n > 2)
		(void)buf_append(out, j.text.p + 1, j.text.n - 2);
}

static void put_query(struct buf *out, const char *key, struct json value)
{
	cleanup_buf struct buf text = BUF_INIT(4096);

	(void)buf_printf(out, "%s=", key);
	if (json_string_decode(value, &text) == 0)
		(void)url_encode(out, text.data ? text.data : "", text.len);
}

void tool_put_view_url(struct buf *out, const struct tool_call *c,
                       struct json file)
{
	cleanup_buf struct buf url = BUF_INIT(16384);

	(void)buf_printf(&url, "%s/view?", link_url(c->host->link));
	put_query(&url, "filename", json_get(file, "filename"));
	put_query(&url, "&subfolder", json_get(file, "subfolder"));
	put_query(&url, "&type", json_get(file, "type"));
	if (buf_ok(&url))
		(void)buf_json_string(out, url.data, url.len);
	else
		(void)buf_puts(out, "\"\"");
}
