/*
 * sim_server_http.c - HTTP exchanges of the server module: a request is
 * collected whole, answered by one callback, and its reply written, late or
 * broken if a fault wants it so.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "tests/sim/sim_server_conn.h"
#include "tests/sim/sim_text.h"

static const char *status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} texts[] = {
		{200, "OK"},
		{206, "Partial Content"},
		{400, "Bad Request"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{413, "Request Entity Too Large"},
		{416, "Requested Range Not Satisfiable"},
		{500, "Internal Server Error"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (texts[i].status == status)
			return texts[i].text;
	}
	return "Status";
}

static void copy_header(struct lws *wsi, enum lws_token_indexes token, char *to)
{
	if (lws_hdr_copy(wsi, to, SIM_HEADER_MAX, token) < 0)
		to[0] = '\0';
}

static enum sim_method method_of(struct lws *wsi, char *path)
{
	static const struct {
		enum lws_token_indexes token;
		enum sim_method method;
	} methods[] = {
		{WSI_TOKEN_GET_URI, SIM_GET},
		{WSI_TOKEN_POST_URI, SIM_POST},
		{WSI_TOKEN_OPTIONS_URI, SIM_OPTIONS},
		{WSI_TOKEN_PUT_URI, SIM_PUT},
		{WSI_TOKEN_PATCH_URI, SIM_PATCH},
		{WSI_TOKEN_DELETE_URI, SIM_DELETE},
		{WSI_TOKEN_HEAD_URI, SIM_HEAD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (lws_hdr_total_length(wsi, methods[i].token)) {
			copy_header(wsi, methods[i].token, path);
			return methods[i].method;
		}
	}
	return SIM_GET;
}

struct sim_request *sim_request_new(struct lws *wsi)
{
	struct sim_request *r = sim_calloc(1, sizeof(*r));
	char arg[SIM_HEADER_MAX];

	buf_init(&r->body, SIM_BODY_MAX);
	r->method = method_of(wsi, r->path);
	copy_header(wsi, WSI_TOKEN_HOST, r->host);
	copy_header(wsi, WSI_TOKEN_ORIGIN, r->origin);
	copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, r->content_type);
	copy_header(wsi, WSI_TOKEN_HTTP_RANGE, r->range);
	for (int i = 0; i < SIM_ARGS_MAX; i++) {
		int n = lws_hdr_copy_fragment(wsi, arg, sizeof(arg),
		                              WSI_TOKEN_HTTP_URI_ARGS, i);

		if (n < 0)
			break;
		r->args[r->nargs++] = sim_strndup(arg, (size_t)n);
	}
	return r;
}

void sim_request_free(struct sim_request *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->nargs; i++)
		free(r->args[i]);
	buf_deinit(&r->body);
	free(r);
}

void sim_reply_free(struct sim_reply *r)
{
	if (!r)
		return;
	buf_deinit(&r->headers);
	buf_deinit(&r->body);
	free(r);
}

static struct sim_reply *reply_new(void)
{
	struct sim_reply *r = sim_calloc(1, sizeof(*r));

	r->status = 200;
	buf_init(&r->headers, 65536);
	buf_init(&r->body, SIM_REPLY_MAX);
	return r;
}

/* connect() to nowhere makes the kernel send RST at once, whatever
 * libwebsockets does to the socket afterwards. */
static void reset_socket(struct lws *wsi)
{
	struct sockaddr a = {.sa_family = AF_UNSPEC};

	if (connect(lws_get_socket_fd(wsi), &a, sizeof(a)))
		log_warn("server", "reset: %s", strerror(errno));
}

/* Header and body in one write: they leave in one segment, as aiohttp's do. */
static int write_reply(struct lws *wsi, const struct sim_reply *r,
                       bool without_body)
{
	size_t body = r->body.len, cap, at;
	bool truncate = r->fate == SIM_REPLY_TRUNCATE;
	unsigned char *out;
	int n, done;

	if (without_body)
		body = 0;
	else if (truncate && r->keep_bytes < body)
		body = r->keep_bytes;
	cap = 1024 + r->headers.len + body;
	out = sim_calloc(1, LWS_PRE + cap);
	n = snprintf((char *)out + LWS_PRE, cap,
	             "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n"
	             "Content-Length: %zu\r\n%.*sServer: comfysim\r\n\r\n",
	             r->status, status_text(r->status),
	             r->content_type ? r->content_type
	                             : "application/octet-stream",
	             r->body.len, (int)r->headers.len,
	             r->headers.len ? r->headers.data : "");
	at = (size_t)n;
	if (body)
		memcpy(out + LWS_PRE + at, r->body.data, body);
	done = lws_write(wsi, out + LWS_PRE, at + body, LWS_WRITE_HTTP_HEADERS);
	free(out);
	return done < 0 || truncate ? -1 : 0;
}

/* Sends the waiting reply and ends the exchange; what the callback returns. */
static int finish(struct sim_conn *c)
{
	struct sim_reply *r = c->reply;
	bool head = c->req && c->req->method == SIM_HEAD;
	bool sized =
		lws_hdr_total_length(c->wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH);
	bool unsized_post = c->req && c->req->method != SIM_GET && !sized;
	int result = -1;

	if (r->fate == SIM_REPLY_RESET)
		reset_socket(c->wsi);
	else if (r->fate != SIM_REPLY_CUT)
		result = write_reply(c->wsi, r, head);
	c->reply = NULL;
	sim_reply_free(r);
	sim_request_free(c->req);
	c->req = NULL;
	/* libwebsockets expects a body with every POST; rather than let it wait
	 * for one, the connection ends. */
	if (result || c->too_large || unsized_post)
		return -1;
	return lws_http_transaction_completed(c->wsi) ? -1 : 0;
}

static void on_delay(struct sim_timer *t)
{
	struct sim_conn *c = container_of(t, struct sim_conn, delay);

	lws_callback_on_writable(c->wsi);
}

static int dispatch(struct sim_conn *c)
{
	struct sim_server *s = c->server;

	c->reply = reply_new();
	if (c->too_large) {
		c->reply->status = 413;
		c->reply->content_type = "text/plain; charset=utf-8";
		(void)buf_printf(&c->reply->body,
		                 "Maximum request body size %d exceeded",
		                 SIM_BODY_MAX);
	} else {
		s->ops->on_request(s->arg, c->req, c->reply);
	}
	/* A reply may wait longer than libwebsockets' patience. */
	lws_set_timeout(c->wsi, NO_PENDING_TIMEOUT, 0);
	if (c->reply->delay_us) {
		sim_timer_start(&c->delay, c->reply->delay_us);
		return 0;
	}
	return finish(c);
}

static int on_request(struct sim_server *s, struct lws *wsi, struct sim_conn *c)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	unsigned char out[LWS_PRE + sizeof(go_on)];
	char length[32] = "";

	sim_request_free(c->req);
	c->req = sim_request_new(wsi);
	c->too_large = false;
	if (lws_hdr_copy(wsi, length, sizeof(length),
	                 WSI_TOKEN_HTTP_CONTENT_LENGTH) <= 0 ||
	    strtoll(length, NULL, 10) <= 0)
		return dispatch(c);
	if (strtoll(length, NULL, 10) > SIM_BODY_MAX) {
		c->too_large = true;
		return dispatch(c);
	}
	if (lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_EXPECT)) {
		memcpy(out + LWS_PRE, go_on, sizeof(go_on));
		if (lws_write(wsi, out + LWS_PRE, sizeof(go_on) - 1,
		              LWS_WRITE_HTTP_HEADERS) < 0)
			return -1;
	}
	return 0;
}

/* An upgrade that is refused is answered as any other request. */
static int on_upgrade(struct sim_server *s, struct lws *wsi)
{
	struct sim_request *req = sim_request_new(wsi);
	struct sim_reply *reply = reply_new();
	int result = 0;

	if (s->ops->on_upgrade(s->arg, req, reply)) {
		(void)buf_puts(&reply->headers, "Connection: close\r\n");
		(void)write_reply(wsi, reply, false);
		result = -1;
	}
	sim_reply_free(reply);
	sim_request_free(req);
	return result;
}

int sim_http_callback(struct sim_server *s, struct lws *wsi,
                      enum lws_callback_reasons reason, struct sim_conn *c,
                      const void *in, size_t len)
{
	switch (reason) {
	case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
		return on_upgrade(s, wsi);
	case LWS_CALLBACK_HTTP:
		if (!c->server)
			sim_conn_init(c, s, wsi);
		return on_request(s, wsi, c);
	case LWS_CALLBACK_HTTP_BODY:
		if (c->req && buf_append(&c->req->body, in, len))
			c->too_large = true;
		return 0;
	case LWS_CALLBACK_HTTP_BODY_COMPLETION:
		return c->req && !c->reply ? dispatch(c) : 0;
	case LWS_CALLBACK_HTTP_WRITEABLE:
		if (c->dropping) {
			if (c->reset)
				reset_socket(wsi);
			return -1;
		}
		if (!c->reply || sim_timer_armed(&c->delay))
			return 0;
		return finish(c);
	case LWS_CALLBACK_CLOSED_HTTP:
		if (c && c->server)
			sim_conn_deinit(c);
		return 0;
	default:
		return 0;
	}
}

/* Notes what is under way on a socket. */
static void socket_of(struct lws *wsi, struct sim_conn *c)
{
	struct sim_socket *socket = lws_get_opaque_user_data(wsi);

	if (socket)
		socket->conn = c;
}

void sim_conn_init(struct sim_conn *c, struct sim_server *s, struct lws *wsi)
{
	if (c->server)
		return;
	memset(c, 0, sizeof(*c));
	c->server = s;
	c->wsi = wsi;
	list_append(&s->conns, &c->link);
	socket_of(wsi, c);
	buf_init(&c->message, SIM_MESSAGE_MAX);
	sim_timer_init(&c->delay, on_delay);
}

void sim_conn_deinit(struct sim_conn *c)
{
	while (c->first)
		sim_frame_unref(sim_conn_take(c));
	list_del(&c->link);
	socket_of(c->wsi, NULL);
	sim_timer_stop(&c->delay);
	sim_request_free(c->req);
	sim_reply_free(c->reply);
	c->req = NULL;
	c->reply = NULL;
	buf_deinit(&c->message);
	c->server = NULL;
}
