/*
 * comfy_reply.c - see comfy_reply.h.
 *
 * The shapes are those of the recordings (0.3.64) and of the versions that
 * their README tells about. What isn't needed isn't looked at: a server may add
 * members and elements as it likes.
 */
#include "common/comfy_reply.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/workflow.h"

#define REFUSAL_MAX (64u << 10) /* room for a refusal before it is cut */

/* --- failures ------------------------------------------------------------ */

static void fail(struct comfy_result *r, enum comfy_outcome outcome,
                 enum error_code code, const char *what)
{
	r->outcome = outcome;
	(void)error_set(&r->error, code, "%s", what);
}

/* What the reply says about itself: the message of a JSON error, or the first
 * line of a text. "" if there is nothing for a person. */
static const char *reason_of(const struct comfy_result *r)
{
	struct json error = json_get(r->body, "error");
	struct json message = json_get(error, "message");
	struct span s = r->raw;
	const char *nl;

	if (json_is(message, JSON_STRING))
		s = json_raw_string(message);
	else if (json_is(error, JSON_STRING))
		s = json_raw_string(error);
	else if (strcmp(r->content_type, "text/plain") != 0)
		return "";
	nl = s.n ? memchr(s.p, '\n', s.n) : NULL;
	if (nl)
		s.n = (size_t)(nl - s.p);
	while (s.n > 0 && (s.p[s.n - 1] == '\r' || s.p[s.n - 1] == ' '))
		s.n--;
	if (s.n > COMFY_REASON_MAX)
		s.n = COMFY_REASON_MAX;
	return log_safe(s.p, s.n);
}

static void fail_status(struct comfy_result *r)
{
	const char *reason = reason_of(r);
	enum error_code code = ERR_PROTOCOL;

	r->outcome = COMFY_E_STATUS;
	if (r->status == 404) {
		r->outcome = COMFY_E_NOT_FOUND;
		code = ERR_NOT_FOUND;
	} else if (r->status == 401 || r->status == 403) {
		code = ERR_DENIED;
	} else if (r->status >= 502 && r->status <= 504) {
		r->outcome = COMFY_E_UNKNOWN;
		code = ERR_UNREACHABLE;
	}
	(void)error_set(&r->error, code,
	                "ComfyUI answered with status %d%s%s%s", r->status,
	                *reason ? ": " : "", reason,
	                code == ERR_DENIED
	                        ? "; it wants credentials, or doesn't accept "
	                          "those it got: see token_file, header_file "
	                          "and client_cert in the configuration"
	                        : "");
}

static void fail_transport(struct comfy_result *r,
                           const struct http_reply *reply, bool changes)
{
	r->error = reply->error;
	switch (reply->outcome) {
	case HTTP_E_CONNECT:
	case HTTP_E_TLS:
		r->outcome = COMFY_E_UNREACHABLE;
		break;
	case HTTP_E_BROKEN:
	case HTTP_E_TIMEOUT:
		r->outcome = COMFY_E_UNKNOWN;
		break;
	default:
		r->outcome = changes && reply->sent ? COMFY_E_UNKNOWN
		                                    : COMFY_E_LOCAL;
		break;
	}
}

/* --- the common part ----------------------------------------------------- */

static bool is_json_type(const char *type)
{
	size_t n = strlen(type);

	return strcmp(type, "application/json") == 0 ||
	       (n > 5 && strcmp(type + n - 5, "+json") == 0);
}

/* Sets r->body where there is JSON to be had; false with the outcome set where
 * JSON was promised and isn't there. */
static bool parse_body(struct comfy_result *r)
{
	enum json_outcome o;
	size_t at = 0;

	if (!is_json_type(r->content_type) || r->raw.n == 0)
		return true;
	o = json_parse(&r->body, r->raw.p, r->raw.n, JSON_NONFINITE, &at);
	if (o == JSON_OK)
		return true;
	r->body = JSON_MISSING;
	r->outcome = o == JSON_E_NOMEM ? COMFY_E_LOCAL : COMFY_E_REPLY;
	(void)error_set(&r->error,
	                o == JSON_E_NOMEM ? ERR_INTERNAL : ERR_PROTOCOL,
	                "ComfyUI's reply is not valid JSON: %s at byte %zu of "
	                "%zu",
	                json_outcome_text(o), at, r->raw.n);
	return false;
}

void comfy_decode(struct comfy_result *r, const struct http_reply *reply,
                  enum comfy_expect expect, bool changes)
{
	bool valid = true;

	*r = (struct comfy_result){
		.outcome = COMFY_OK,
		.status = reply->status,
		.body = JSON_MISSING,
		.content_type = reply->content_type ? reply->content_type : "",
		.raw = reply->body,
		.error = ERROR_NULL,
	};
	if (reply->outcome != HTTP_OK) {
		fail_transport(r, reply, changes);
		return;
	}
	if (expect != COMFY_EXPECT_BYTES || reply->status != 200)
		valid = parse_body(r);
	if (reply->status != 200) {
		fail_status(r);
		return;
	}
	if (expect == COMFY_EXPECT_BYTES || expect == COMFY_EXPECT_NOTHING) {
		r->outcome = COMFY_OK;
		r->error = (struct error)ERROR_NULL;
		return;
	}
	if (!valid)
		return;
	if (json_is(r->body, JSON_NONE))
		(void)error_set(&r->error, ERR_PROTOCOL,
		                "the reply is not JSON but %s: is that "
		                "ComfyUI?",
		                *r->content_type ? r->content_type
		                                 : "of no type");
	else if (expect == COMFY_EXPECT_OBJECT &&
	         !json_is(r->body, JSON_OBJECT))
		(void)error_set(&r->error, ERR_PROTOCOL,
		                "ComfyUI's reply is no JSON object");
	if (r->error.code != ERR_NONE)
		r->outcome = COMFY_E_REPLY;
}

/* --- POST /prompt -------------------------------------------------------- */

/* Old servers send `error` as a string and `node_errors` as an array. */
static bool is_refusal(const struct comfy_result *r)
{
	struct json error = json_get(r->body, "error");

	return r->status == 400 &&
	       (json_is(error, JSON_OBJECT) || json_is(error, JSON_STRING));
}

static void fail_refused(struct comfy_result *r)
{
	struct buf text = BUF_INIT(REFUSAL_MAX);
	const char *s;

	workflow_refusal_text(r->body, &text);
	while (text.len > 0 && text.data[text.len - 1] == '\n')
		text.len--;
	s = text.len > 0 ? buf_cstr(&text) : NULL;
	fail(r, COMFY_E_REJECTED, ERR_REJECTED,
	     s ? s : "ComfyUI refused the workflow");
	buf_deinit(&text);
}

/* Decodes a string of 1 to COMFY_PROMPT_ID_MAX bytes. */
static bool take_id(char id[COMFY_PROMPT_ID_MAX + 1], struct json j)
{
	char *copy = json_string_dup(j, COMFY_PROMPT_ID_MAX);
	bool ok = copy && *copy;

	if (ok)
		memcpy(id, copy, strlen(copy) + 1);
	free(copy);
	return ok;
}

void comfy_decode_submitted(struct comfy_submitted *s,
                            const struct http_reply *reply,
                            char id[COMFY_PROMPT_ID_MAX + 1])
{
	static const char *const keys[] = {"prompt_id", "number",
	                                   "node_errors"};
	struct json v[ARRAY_SIZE(keys)];

	s->prompt_id = "";
	s->number = 0;
	s->node_errors = JSON_MISSING;
	comfy_decode(&s->r, reply, COMFY_EXPECT_OBJECT, true);
	if (s->r.outcome == COMFY_E_STATUS && is_refusal(&s->r)) {
		fail_refused(&s->r);
		return;
	}
	if (s->r.outcome != COMFY_OK)
		return;
	json_get_many(s->r.body, keys, v, ARRAY_SIZE(keys));
	if (!take_id(id, v[0])) {
		fail(&s->r, COMFY_E_REPLY, ERR_PROTOCOL,
		     "ComfyUI took the workflow, but its reply names no "
		     "prompt_id");
		return;
	}
	s->prompt_id = id;
	if (!json_double(v[1], &s->number))
		s->number = 0;
	if (json_is(v[2], JSON_OBJECT))
		s->node_errors = v[2];
}

/* --- GET /queue ---------------------------------------------------------- */

/* [number, prompt_id, ...]; false if it isn't. */
static bool decode_item(struct comfy_queue_item *out, struct json item)
{
	struct json_iter it;
	struct json number, id;

	if (!json_is(item, JSON_ARRAY))
		return false;
	json_iter_init(&it, item);
	if (!json_iter_next(&it, NULL, &number) ||
	    !json_iter_next(&it, NULL, &id) || !json_is(id, JSON_STRING))
		return false;
	out->item = item;
	out->prompt_id = json_raw_string(id);
	/* A client may have sent NaN: that is a number to the server. */
	if (!json_double(number, &out->number))
		out->number = 0;
	return json_is(number, JSON_NUMBER) || json_is(number, JSON_NULL);
}

static bool decode_items(struct comfy_queue_item *out, struct json list)
{
	struct json_iter it;
	struct json item;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &item)) {
		if (!decode_item(out++, item))
			return false;
	}
	return true;
}

/* As the server's heap takes them: by number, then by id. */
static int compare_items(const void *a, const void *b)
{
	const struct comfy_queue_item *x = a, *y = b;
	size_t n = x->prompt_id.n < y->prompt_id.n ? x->prompt_id.n
	                                           : y->prompt_id.n;
	int r;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	r = n ? memcmp(x->prompt_id.p, y->prompt_id.p, n) : 0;
	if (r != 0)
		return r;
	if (x->prompt_id.n != y->prompt_id.n)
		return x->prompt_id.n < y->prompt_id.n ? -1 : 1;
	return x->item.text.p < y->item.text.p ? -1 : 1;
}

void comfy_decode_queue(struct comfy_queue *q, const struct http_reply *reply)
{
	static const char *const keys[] = {"queue_running", "queue_pending"};
	struct json v[ARRAY_SIZE(keys)];
	struct comfy_queue_item *items;
	size_t running, pending;

	q->running_count = q->pending_count = 0;
	q->running = q->pending = NULL;
	comfy_decode(&q->r, reply, COMFY_EXPECT_OBJECT, false);
	if (q->r.outcome != COMFY_OK)
		return;
	json_get_many(q->r.body, keys, v, ARRAY_SIZE(keys));
	if (!json_is(v[0], JSON_ARRAY) || !json_is(v[1], JSON_ARRAY)) {
		fail(&q->r, COMFY_E_REPLY, ERR_PROTOCOL,
		     "ComfyUI's queue lacks queue_running or queue_pending");
		return;
	}
	running = json_count(v[0]);
	pending = json_count(v[1]);
	/* One more, so that an empty queue is no special case. */
	items = calloc(running + pending + 1, sizeof(*items));
	if (!items) {
		fail(&q->r, COMFY_E_LOCAL, ERR_INTERNAL,
		     "out of memory for ComfyUI's queue");
		return;
	}
	if (!decode_items(items, v[0]) ||
	    !decode_items(items + running, v[1])) {
		free(items);
		fail(&q->r, COMFY_E_REPLY, ERR_PROTOCOL,
		     "ComfyUI's queue holds an item that is not "
		     "[number, prompt_id, ...]");
		return;
	}
	qsort(items + running, pending, sizeof(*items), compare_items);
	q->running = items;
	q->running_count = running;
	q->pending = items + running;
	q->pending_count = pending;
}

void comfy_queue_deinit(struct comfy_queue *q)
{
	/* The one allocation, of which `pending` is the second part. */
	free((void *)(uintptr_t)q->running);
	q->running = q->pending = NULL;
	q->running_count = q->pending_count = 0;
}

static bool is_item_of(const struct comfy_queue_item *item,
                       const char *prompt_id)
{
	/* The string with its quotes, which are there around the span. */
	struct json j = {JSON_STRING, span_make(item->prompt_id.p - 1,
	                                        item->prompt_id.n + 2)};

	return json_string_eq(j, prompt_id);
}

static size_t find_item(const struct comfy_queue_item *items, size_t n,
                        const char *prompt_id)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (is_item_of(&items[i], prompt_id))
			break;
	}
	return i;
}

bool comfy_queue_has(const struct comfy_queue_item *items, size_t n,
                     const char *prompt_id)
{
	return find_item(items, n, prompt_id) < n;
}

int64_t comfy_queue_ahead(const struct comfy_queue *q, const char *prompt_id,
                          bool *runningp)
{
	bool running = comfy_queue_has(q->running, q->running_count, prompt_id);
	size_t i;

	if (runningp)
		*runningp = running;
	if (running)
		return 0;
	i = find_item(q->pending, q->pending_count, prompt_id);
	return i < q->pending_count ? (int64_t)(q->running_count + i) : -1;
}

/* --- the others ---------------------------------------------------------- */

void comfy_decode_history(struct comfy_history *h,
                          const struct http_reply *reply, const char *prompt_id)
{
	h->entry = JSON_MISSING;
	comfy_decode(&h->r, reply, COMFY_EXPECT_OBJECT, false);
	if (h->r.outcome != COMFY_OK)
		return;
	h->entry = json_get(h->r.body, prompt_id);
	if (json_is(h->entry, JSON_NONE) || json_is(h->entry, JSON_OBJECT))
		return;
	h->entry = JSON_MISSING;
	fail(&h->r, COMFY_E_REPLY, ERR_PROTOCOL,
	     "ComfyUI's history entry is no JSON object");
}

void comfy_decode_job_cancel(struct comfy_result *r,
                             const struct http_reply *reply, bool *cancelledp)
{
	*cancelledp = false;
	comfy_decode(r, reply, COMFY_EXPECT_OBJECT, true);
	if (r->outcome == COMFY_OK &&
	    !json_bool(json_get(r->body, "cancelled"), cancelledp))
		fail(r, COMFY_E_REPLY, ERR_PROTOCOL,
		     "ComfyUI does not say whether the prompt was cancelled");
}
