/*
 * message_build.c - the builders of message.h: request, reply and event lines.
 *
 * An event is built once for all who hear it, a reply for each request; numbers
 * and names are appended as bytes, without printf.
 */
#include "ipc/message.h"

#include <errno.h>
#include <string.h>

/* Appends until something fails; what was appended is taken back then. */
struct line {
	struct buf *out;
	size_t start;
	int r;
};

static struct line line_begin(struct buf *out)
{
	return (struct line){.out = out, .start = out->len};
}

static int line_end(struct line *l)
{
	if (l->r == 0)
		l->r = buf_append(l->out, "}\n", 2);
	if (l->r < 0)
		l->out->len = l->start;
	return l->r;
}

static void put(struct line *l, const char *p, size_t n)
{
	if (l->r == 0)
		l->r = buf_append(l->out, p, n);
}

#define PUT_TEXT(l, literal) put((l), "" literal, sizeof(literal) - 1)

/* A name of messages.def, which needs no escapes. */
static void put_name(struct line *l, const char *name)
{
	PUT_TEXT(l, "\"");
	put(l, name, strlen(name));
	PUT_TEXT(l, "\"");
}

static void put_string(struct line *l, const char *s, size_t n)
{
	if (l->r == 0)
		l->r = buf_json_string(l->out, s, n);
}

static void put_uint(struct line *l, uint64_t v)
{
	char digits[20], *p = digits + sizeof(digits);

	do
		*--p = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	put(l, p, (size_t)(digits + sizeof(digits) - p));
}

static void put_int(struct line *l, int64_t v)
{
	if (v < 0)
		PUT_TEXT(l, "-");
	put_uint(l, v < 0 ? -(uint64_t)v : (uint64_t)v);
}

/* Valid JSON has newlines between its tokens only, and rarely. */
static void put_json(struct line *l, struct span text)
{
	const char *at = text.p, *end = text.p + text.n, *newline;

	while ((newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		put(l, at, (size_t)(newline - at));
		PUT_TEXT(l, " ");
		at = newline + 1;
	}
	put(l, at, (size_t)(end - at));
}

static void put_id(struct line *l, struct span id)
{
	PUT_TEXT(l, "{\"id\":");
	if (id.p)
		put(l, id.p, id.n);
	else
		PUT_TEXT(l, "null");
}

static int build_ok(struct buf *out, struct span id, struct span result,
                    bool fd)
{
	struct line l = line_begin(out);

	put_id(&l, id);
	PUT_TEXT(&l, ",\"ok\":true");
	if (fd)
		PUT_TEXT(&l, ",\"fds\":1");
	PUT_TEXT(&l, ",\"result\":");
	if (result.p)
		put_json(&l, result);
	else
		PUT_TEXT(&l, "{}");
	return line_end(&l);
}

int reply_ok(struct buf *out, struct span id, struct span result)
{
	return build_ok(out, id, result, false);
}

int reply_ok_fd(struct buf *out, struct span id, struct span result)
{
	return build_ok(out, id, result, true);
}

int reply_error(struct buf *out, struct span id, const struct error *err,
                struct span extra)
{
	struct line l = line_begin(out);

	put_id(&l, id);
	PUT_TEXT(&l, ",\"ok\":false,\"error\":{\"type\":");
	put_name(&l, error_code_name(err->code));
	PUT_TEXT(&l, ",\"message\":");
	put_string(&l, err->text, strlen(err->text));
	if (extra.p && extra.n > 0) {
		PUT_TEXT(&l, ",");
		put_json(&l, extra);
	}
	PUT_TEXT(&l, "}");
	return line_end(&l);
}

int event_build(struct buf *out, const struct event_line *ev)
{
	struct line l = line_begin(out);

	PUT_TEXT(&l, "{\"event\":");
	put_name(&l, event_table[ev->event].name);
	if (ev->prompt_id) {
		PUT_TEXT(&l, ",\"seq\":");
		put_uint(&l, ev->seq);
		PUT_TEXT(&l, ",\"prompt_id\":");
		put_string(&l, ev->prompt_id, strlen(ev->prompt_id));
	}
	PUT_TEXT(&l, ",\"t\":");
	put_int(&l, ev->t_ms);
	if (ev->fd)
		PUT_TEXT(&l, ",\"fds\":1");
	if (ev->data.p) {
		PUT_TEXT(&l, ",\"data\":");
		put_json(&l, ev->data);
	}
	if (ev->progress.p) {
		PUT_TEXT(&l, ",\"progress\":");
		put_json(&l, ev->progress);
	}
	return line_end(&l);
}

/* ---- requests ---- */

static int check_params(struct json *params, struct span text,
                        struct error *err)
{
	enum json_outcome o;

	if (text.n == 0)
		text = SPAN("{}");
	o = json_parse(params, text.p, text.n, 0, NULL);
	if (o != JSON_OK)
		return error_set(err, ERR_INVALID,
		                 "the request's fields are not JSON: %s",
		                 json_outcome_text(o));
	if (params->type != JSON_OBJECT)
		return error_set(err, ERR_INVALID,
		                 "the request's fields are not a JSON object");
	if (json_get(*params, "op").type != JSON_NONE ||
	    json_get(*params, "id").type != JSON_NONE)
		return error_set(
			err, ERR_INVALID,
			"\"op\" and \"id\" are not the caller's to set");
	return 0;
}

int request_build(struct buf *out, enum op op, uint64_t id, struct span params,
                  struct error *err)
{
	struct line l = line_begin(out);
	size_t max = op_table[op].request_max;
	struct json body;
	int r;

	if (check_params(&body, params, err) < 0)
		return -1;
	PUT_TEXT(&l, "{\"op\":");
	put_name(&l, op_table[op].name);
	PUT_TEXT(&l, ",\"id\":");
	put_uint(&l, id);
	if (json_count(body) > 0) {
		PUT_TEXT(&l, ",");
		/* Without its braces. */
		put_json(&l, span_make(body.text.p + 1, body.text.n - 2));
	}
	r = line_end(&l);
	if (r == -EMSGSIZE || (r == 0 && out->len - l.start - 1 > max)) {
		out->len = l.start;
		return error_set(err, ERR_LIMIT,
		                 "a %s request is at most %zu bytes long",
		                 op_table[op].name, max);
	}
	return r < 0 ? error_set_nomem(err, "a request") : 0;
}
