/*
 * comfy_api.c - see comfy_api.h. Here: requests are built and sent;
 * comfy_reply.c decodes what comes back, comfy_cancel.c has the one operation
 * that takes several requests.
 */
#include "common/comfy_api.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/comfy_impl.h"
#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "common/json_mend.h"

#define PATH_MAX_BYTES (64u << 10) /* path and query of a request */
#define QUOTED_MAX     ((size_t)6) /* bytes that one takes in a JSON string */

static const char json_type[] = "application/json";

/* --- calls --------------------------------------------------------------- */

struct comfy_call *comfy_call_new(struct comfy_api *a, const char *prompt_id,
                                  void *user, struct error *err)
{
	size_t len = strlen(prompt_id);
	struct comfy_call *c = calloc(1, sizeof(*c) + len + 1);

	if (!c) {
		(void)error_set_nomem(err, "request to ComfyUI");
		return NULL;
	}
	c->api = a;
	c->user = user;
	memcpy(c->prompt_id, prompt_id, len + 1);
	list_append(&a->calls, &c->link);
	return c;
}

void comfy_call_free(struct comfy_call *c)
{
	if (c->http)
		http_cancel(c->http);
	list_del(&c->link);
	free(c);
}

void comfy_call_begin_telling(struct comfy_call *c)
{
	c->telling = true;
	list_del(&c->link);
}

static void on_http(void *user, const struct http_reply *reply)
{
	struct comfy_call *c = user;
	cleanup_buf struct buf text = BUF_INIT(reply->body.n);
	struct http_reply mended = *reply;

	c->http = NULL;
	/* Out of memory it goes on as it is, and is refused. Bytes that are no
	 * JSON are nobody's to mend. */
	if (reply->content_type &&
	    strcmp(reply->content_type, "application/json") == 0 &&
	    json_may_need_mending(reply->body) &&
	    json_mend(&text, reply->body) == 0)
		mended.body = span_make(text.data, text.len);
	c->on_reply(c, &mended);
}

int comfy_call_send(struct comfy_call *c, struct http_request *req,
                    struct buf *path, struct error *err)
{
	struct buf cleanup_buf url = BUF_INIT(URL_TEXT_MAX + PATH_MAX_BYTES);
	const char *text;

	(void)buf_puts(&url, c->api->base);
	if (buf_ok(path))
		(void)buf_append(&url, path->data, path->len);
	text = buf_ok(path) ? buf_cstr(&url) : NULL;
	if (!text)
		return error_set(err, ERR_LIMIT,
		                 "request to ComfyUI is too long, or memory is "
		                 "out");
	req->url = text;
	c->http = http_start(c->api->http, req, on_http, c, err);
	return c->http ? 0 : -1;
}

/* The usual end of a function that starts a request: sends it, or drops the
 * call. */
static struct comfy_call *send_or_drop(struct comfy_call *c,
                                       struct http_request *req,
                                       struct buf *path, struct error *err)
{
	if (comfy_call_send(c, req, path, err) == 0)
		return c;
	comfy_call_free(c);
	return NULL;
}

static struct comfy_call *get(struct comfy_call *c, struct buf *path,
                              struct error *err)
{
	struct http_request req = {.method = "GET"};

	return send_or_drop(c, &req, path, err);
}

void comfy_call_cancel(struct comfy_call *c)
{
	if (!c->telling)
		comfy_call_free(c);
}

static void tell_plain(struct comfy_call *c, const struct comfy_result *r)
{
	comfy_call_begin_telling(c);
	c->cb.plain(c->user, r);
	comfy_call_free(c);
}

static void on_object(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_result r;

	comfy_decode(&r, reply, COMFY_EXPECT_OBJECT, false);
	tell_plain(c, &r);
}

static void on_json(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_result r;

	comfy_decode(&r, reply, COMFY_EXPECT_JSON, false);
	tell_plain(c, &r);
}

static void on_bytes(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_result r;

	comfy_decode(&r, reply, COMFY_EXPECT_BYTES, false);
	tell_plain(c, &r);
}

/* --- prompts ------------------------------------------------------------- */

static void on_submitted(struct comfy_call *c, const struct http_reply *reply)
{
	char id[COMFY_PROMPT_ID_MAX + 1];
	struct comfy_submitted s;

	comfy_decode_submitted(&s, reply, id);
	comfy_call_begin_telling(c);
	c->cb.submit(c->user, &s);
	comfy_call_free(c);
}

/* The parts are put side by side, not parsed and printed: numbers keep their
 * digits. */
static void build_submission(struct buf *body, const struct comfy_submission *s)
{
	(void)buf_puts(body, "{\"prompt\":");
	(void)buf_append(body, s->workflow.p, s->workflow.n);
	if (s->client_id) {
		(void)buf_json_key(body, "client_id");
		(void)buf_json_string(body, s->client_id, strlen(s->client_id));
	}
	if (s->prompt_id) {
		(void)buf_json_key(body, "prompt_id");
		(void)buf_json_string(body, s->prompt_id, strlen(s->prompt_id));
	}
	if (s->prompt_id) {
		(void)buf_json_key(body, "extra_data");
		if (comfy_marker_put(body, s->extra_data, s->prompt_id) < 0)
			body->failed = true;
	} else if (s->extra_data.n > 0) {
		(void)buf_json_key(body, "extra_data");
		(void)buf_append(body, s->extra_data.p, s->extra_data.n);
	}
	(void)buf_putc(body, '}');
}

struct comfy_call *comfy_submit(struct comfy_api *a,
                                const struct comfy_submission *s,
                                comfy_submit_cb *cb, void *user,
                                struct error *err)
{
	size_t ids = (s->client_id ? strlen(s->client_id) : 0) +
	             (s->prompt_id ? strlen(s->prompt_id) : 0);
	struct buf cleanup_buf body = BUF_INIT(s->workflow.n + s->extra_data.n +
	                                       QUOTED_MAX * ids * 2 + 256);
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX_BYTES);
	struct http_request req = {.method = "POST", .content_type = json_type};
	struct comfy_call *c = comfy_call_new(a, "", user, err);

	if (!c)
		return NULL;
	c->cb.submit = cb;
	c->on_reply = on_submitted;
	build_submission(&body, s);
	if (!buf_ok(&body)) {
		(void)error_set_nomem(err, "workflow");
		comfy_call_free(c);
		return NULL;
	}
	req.body = span_make(body.data, body.len);
	(void)buf_puts(&path, "/prompt");
	return send_or_drop(c, &req, &path, err);
}

static void on_queue(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_queue q;

	comfy_decode_queue(&q, reply);
	comfy_call_begin_telling(c);
	c->cb.queue(c->user, &q);
	comfy_queue_deinit(&q);
	comfy_call_free(c);
}

struct comfy_call *comfy_get_queue(struct comfy_api *a, comfy_queue_cb *cb,
                                   void *user, struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX_BYTES);
	struct comfy_call *c = comfy_call_new(a, "", user, err);

	if (!c)
		return NULL;
	c->cb.queue = cb;
	c->on_reply = on_queue;
	(void)buf_puts(&path, "/queue");
	return get(c, &path, err);
}

static void on_history(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_history h;

	comfy_decode_history(&h, reply, c->prompt_id);
	comfy_call_begin_telling(c);
	c->cb.history(c->user, &h);
	comfy_call_free(c);
}

struct comfy_call *comfy_get_history(struct comfy_api *a, const char *prompt_id,
                                     comfy_history_cb *cb, void *user,
                                     struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX_BYTES);
	struct comfy_call *c;

	/* "/history/" would be another request. */
	if (!*prompt_id) {
		(void)error_set(err, ERR_INVALID, "prompt_id is empty");
		return NULL;
	}
	c = comfy_call_new(a, prompt_id, user, err);
	if (!c)
		return NULL;
	c->cb.history = cb;
	c->on_reply = on_history;
	(void)buf_puts(&path, "/history/");
	(void)url_encode(&path, prompt_id, strlen(prompt_id));
	return get(c, &path, err);
}

struct comfy_call *comfy_list_history(struct comfy_api *a, unsigned max_items,
                                      comfy_cb *cb, void *user,
                                      struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX_BYTES);
	struct comfy_call *c = comfy_call_new(a, "", user, err);

	if (!c)
		return NULL;
	c->cb.plain = cb;
	c->on_reply = on_object;
	(void)buf_printf(&path, "/history?max_items=%u", max_items);
	return get(c, &path, err);
}

/* --- the rest ------------------------------------------------------------ */

struct comfy_call *comfy_get_json(struct comfy_api *a, const char *path,
                                  comfy_cb *cb, void *user, struct error *err)
{
	struct buf cleanup_buf whole = BUF_INIT(PATH_MAX_BYTES);
	struct comfy_call *c;
	const char *p = path;

	while (*p > ' ' && *p < 0x7f && *p != '#')
		p++;
	if (*path != '/' || *p) {
		(void)error_set(err, ERR_INVALID,
		                "a path begins with '/' and is encoded for a "
		                "URL");
		return NULL;
	}
	c = comfy_call_new(a, "", user, err);
	if (!c)
		return NULL;
	c->cb.plain = cb;
	c->on_reply = on_json;
	(void)buf_puts(&whole, path);
	return get(c, &whole, err);
}

static bool on_view_data(void *user, const char *data, size_t len)
{
	struct comfy_call *c = user;

	return c->on_data(c->user, data, len);
}

static void add_query(struct buf *path, const char *key, const char *value)
{
	if (!value || !*value)
		return;
	(void)buf_printf(path, "&%s=", key);
	(void)url_encode(path, value, strlen(value));
}

struct comfy_call *comfy_get_view(struct comfy_api *a,
                                  const struct comfy_view *v, comfy_cb *cb,
                                  void *user, struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX_BYTES);
	struct http_request req = {.method = "GET",
	                           .reply_max = v->reply_max,
	                           .timeout_is_idle = true};
	struct comfy_call *c;

	if (!v->filename || !*v->filename) {
		(void)error_set(err, ERR_INVALID, "filename is empty");
		return NULL;
	}
	c = comfy_call_new(a, "", user, err);
	if (!c)
		return NULL;
	c->cb.plain = cb;
	c->on_reply = on_bytes;
	c->on_data = v->on_data;
	if (v->on_data)
		req.on_data = on_view_data;
	(void)buf_puts(&path, "/view?filename=");
	(void)url_encode(&path, v->filename, strlen(v->filename));
	add_query(&path, "subfolder", v->subfolder);
	add_query(&path, "type", v->type);
	add_query(&path, "preview", v->preview);
	return send_or_drop(c, &req, &path, err);
}

static void on_uploaded(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_result r;

	comfy_decode(&r, reply, COMFY_EXPECT_OBJECT, true);
	if (r.outcome == COMFY_OK &&
	    !json_is(json_get(r.body, "name"), JSON_STRING)) {
		r.outcome = COMFY_E_REPLY;
		(void)error_set(&r.error, ERR_PROTOCOL,
		                "ComfyUI took the file, but its reply names "
		                "none");
	}
	tell_plain(c, &r);
}

struct comfy_call *comfy_upload(struct comfy_api *a,
                                const struct comfy_upload *u, comfy_cb *cb,
                                void *user, struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX_BYTES);
	struct http_part parts[3] = {
		{"image", u->filename, "application/octet-stream", u->data},
	};
	struct http_request req = {.method = "POST",
	                           .parts = parts,
	                           .part_count = 1,
	                           .timeout_is_idle = true};
	struct comfy_call *c;

	if (!u->filename || !*u->filename) {
		(void)error_set(err, ERR_INVALID, "filename is empty");
		return NULL;
	}
	if (u->subfolder && *u->subfolder)
		parts[req.part_count++] = (struct http_part){
			.name = "subfolder", .data = SPAN(u->subfolder)};
	if (u->overwrite)
		parts[req.part_count++] = (struct http_part){
			.name = "overwrite", .data = SPAN("true")};
	c = comfy_call_new(a, "", user, err);
	if (!c)
		return NULL;
	c->cb.plain = cb;
	c->on_reply = on_uploaded;
	(void)buf_puts(&path, "/upload/image");
	return send_or_drop(c, &req, &path, err);
}

struct comfy_api *comfy_api_new(struct ev_loop *loop, struct http *http,
                                const struct url *url, struct error *err)
{
	struct buf cleanup_buf base = BUF_INIT(URL_TEXT_MAX + URL_HOST_MAX);
	struct comfy_api *a = calloc(1, sizeof(*a));

	(void)url_http(url, &base);
	if (a)
		a->base = buf_steal(&base, NULL);
	if (!a || !a->base) {
		free(a);
		(void)error_set_nomem(err, "ComfyUI client");
		return NULL;
	}
	a->http = http;
	list_init(&a->calls);
	return a;
}

struct comfy_api *comfy_api_free(struct comfy_api *a)
{
	struct list *it, *tmp;

	if (!a)
		return NULL;
	list_for_each_safe (it, tmp, &a->calls)
		comfy_call_free(list_entry(it, struct comfy_call, link));
	free(a->base);
	free(a);
	return NULL;
}
