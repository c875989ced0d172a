/*
 * http.c - see http.h. Here: libcurl's multi socket interface on libev, and
 * what an ended transfer means. http_request.c sets up one transfer.
 *
 * curl names the sockets and the timer that it waits for, libev watches them.
 * Nothing that belongs to a caller runs inside curl except on_data: calls that
 * have ended are taken out of the multi handle first and told afterwards, so
 * that a callback may do as it likes.
 */
#include "common/http.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/http_impl.h"

struct http_socket {
	struct list link;
	ev_io io;
	struct http *http;
};

/* --- calls --------------------------------------------------------------- */

/* Out of the multi handle and all lists. */
static void detach(struct http_call *c)
{
	ev_timer_stop(c->http->loop, &c->deadline);
	if (c->easy)
		(void)curl_multi_remove_handle(c->http->multi, c->easy);
	list_del(&c->link);
	c->http->call_count--;
}

/* Lower case, without parameters. */
static void keep_content_type(struct http_call *c)
{
	char *type = NULL;
	size_t n = 0;

	(void)curl_easy_getinfo(c->easy, CURLINFO_CONTENT_TYPE, &type);
	while (type && n < sizeof(c->content_type) - 1 && type[n] &&
	       !strchr("; \t", type[n])) {
		c->content_type[n] = (char)tolower((unsigned char)type[n]);
		n++;
	}
	c->content_type[n] = '\0';
}

static bool is_tls_failure(CURLcode code)
{
	switch (code) {
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CRL_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
	case CURLE_SSL_ENGINE_INITFAILED:
	case CURLE_USE_SSL_FAILED:
		return true;
	default:
		return false;
	}
}

/* The end of a handshake that TLS 1.3 tells only with the first read: the
 * server has read nothing of the request. */
static bool is_late_refusal(const struct http_call *c)
{
	static const char *const alerts[] = {
		"alert certificate required", "alert bad certificate",
		"alert unknown ca",           "alert certificate expired",
		"alert certificate revoked",  "alert certificate unknown",
		"alert access denied",
	};

	for (size_t i = 0; i < ARRAY_SIZE(alerts); i++) {
		if (strstr(c->curl_error, alerts[i]))
			return true;
	}
	return false;
}

static bool is_our_failure(CURLcode code)
{
	return code == CURLE_OUT_OF_MEMORY || code == CURLE_FAILED_INIT ||
	       code == CURLE_BAD_FUNCTION_ARGUMENT ||
	       code == CURLE_UNKNOWN_OPTION || code == CURLE_NOT_BUILT_IN;
}

/* What curl's verdict means to one who asks "was it seen?". The codes alone
 * do not tell: CURLE_UNSUPPORTED_PROTOCOL, for one, stands for a wrong scheme
 * and for a reply that isn't HTTP. */
static enum http_outcome classify(const struct http_call *c, CURLcode code)
{
	bool sent = c->reply.sent;

	if (code == CURLE_OK)
		return HTTP_OK;
	if (c->no_memory || is_our_failure(code))
		return HTTP_E_INTERNAL;
	if (c->too_large || code == CURLE_FILESIZE_EXCEEDED)
		return HTTP_E_TOO_LARGE;
	if (c->sink_stopped)
		return HTTP_E_SINK;
	if (is_tls_failure(code) || is_late_refusal(c))
		return HTTP_E_TLS;
	if (!sent)
		return HTTP_E_CONNECT;
	return code == CURLE_OPERATION_TIMEDOUT ? HTTP_E_TIMEOUT
	                                        : HTTP_E_BROKEN;
}

/* A server that is late is one that cannot be reached: ERR_TIMEOUT is kept for
 * the time that the user gave. */
static void describe(struct http_call *c, CURLcode code)
{
	static const enum error_code codes[] = {
		[HTTP_OK] = ERR_NONE,
		[HTTP_E_CONNECT] = ERR_UNREACHABLE,
		[HTTP_E_TLS] = ERR_UNREACHABLE,
		[HTTP_E_BROKEN] = ERR_UNREACHABLE,
		[HTTP_E_TIMEOUT] = ERR_UNREACHABLE,
		[HTTP_E_TOO_LARGE] = ERR_LIMIT,
		[HTTP_E_SINK] = ERR_CANCELLED,
		[HTTP_E_INTERNAL] = ERR_INTERNAL,
	};
	enum error_code e = codes[c->reply.outcome];
	struct error *err = &c->reply.error;
	const char *cause =
		c->curl_error[0] ? c->curl_error : curl_easy_strerror(code);

	switch (c->reply.outcome) {
	case HTTP_OK:
		return;
	case HTTP_E_TOO_LARGE:
		(void)error_set(err, e, "reply is larger than %zu bytes",
		                c->reply_max ? c->reply_max : c->body.max);
		break;
	case HTTP_E_SINK:
		(void)error_set(err, e, "stopped by the receiver");
		break;
	case HTTP_E_TIMEOUT:
		(void)error_set(err, e, "no whole reply within %u ms",
		                c->timeout_ms);
		break;
	case HTTP_E_TLS:
		(void)error_set(err, e,
		                is_late_refusal(c)
		                        ? "%s (client_cert names a certificate "
		                          "to show)"
		                        : "%s (ca_file names authorities of "
		                          "one's own)",
		                cause);
		break;
	case HTTP_E_INTERNAL:
		(void)error_set(err, e, "%s",
		                c->no_memory ? "out of memory" : cause);
		break;
	case HTTP_E_CONNECT:
	case HTTP_E_BROKEN:
		(void)error_set(err, e, "%s", cause);
		break;
	}
	(void)error_prefix(err, "%s %.*s", c->method, HTTP_URL_SHOWN_MAX,
	                   c->url);
}

/* Takes the call out of curl with its result, to be told by tell_done(). */
static void finish(struct http_call *c, CURLcode code)
{
	struct http *h = c->http;
	long status = 0, request_size = 0;

	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	/* Counts what the socket took, over all attempts. */
	(void)curl_easy_getinfo(c->easy, CURLINFO_REQUEST_SIZE, &request_size);
	if (code == CURLE_OK && !c->head_ended)
		code = CURLE_PARTIAL_FILE;
	keep_content_type(c);
	c->reply.status = (int)status;
	c->reply.sent = request_size > 0;
	c->reply.content_type = c->content_type;
	c->reply.outcome = classify(c, code);
	describe(c, code);
	detach(c);
	http_call_free_easy(c);
	list_append(&h->done, &c->link);
	h->call_count++;
	if (c->reply.outcome == HTTP_OK)
		c->reply.body = span_make(c->body.data, c->body.len);
}

/* --- the multi handle ---------------------------------------------------- */

static void on_socket(struct ev_loop *loop, ev_io *io, int revents);

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *user,
                          void *socketp)
{
	struct http *h = user;
	struct http_socket *s = socketp;
	int events = (what & CURL_POLL_IN ? EV_READ : 0) |
	             (what & CURL_POLL_OUT ? EV_WRITE : 0);

	if (what == CURL_POLL_REMOVE) {
		if (!s)
			return 0;
		ev_io_stop(h->loop, &s->io);
		list_del(&s->link);
		free(s);
		return 0;
	}
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return -1;
		s->http = h;
		ev_init(&s->io, on_socket);
		list_append(&h->sockets, &s->link);
		(void)curl_multi_assign(h->multi, fd, s);
	}
	ev_io_stop(h->loop, &s->io);
	ev_io_set(&s->io, fd, events);
	ev_io_start(h->loop, &s->io);
	return 0;
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *user)
{
	struct http *h = user;

	ev_timer_stop(h->loop, &h->timer);
	if (timeout_ms >= 0) {
		ev_timer_set(&h->timer, (double)timeout_ms / 1e3, 0.);
		ev_timer_start(h->loop, &h->timer);
	}
	return 0;
}

static CURLM *new_multi(struct http *h)
{
	CURLM *m = curl_multi_init();

	if (!m)
		return NULL;
	if (curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_curl_socket) ==
	            CURLM_OK &&
	    curl_multi_setopt(m, CURLMOPT_SOCKETDATA, h) == CURLM_OK &&
	    curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_curl_timer) ==
	            CURLM_OK &&
	    curl_multi_setopt(m, CURLMOPT_TIMERDATA, h) == CURLM_OK &&
	    curl_multi_setopt(m, CURLMOPT_MAX_TOTAL_CONNECTIONS,
	                      (long)h->max_connections) == CURLM_OK)
		return m;
	(void)curl_multi_cleanup(m);
	return NULL;
}

static void free_multi(struct http *h)
{
	struct list *it, *tmp;

	/* Closes the connections, which can still call on_curl_socket(). */
	(void)curl_multi_cleanup(h->multi);
	h->multi = NULL;
	ev_timer_stop(h->loop, &h->timer);
	list_for_each_safe (it, tmp, &h->sockets) {
		struct http_socket *s =
			list_entry(it, struct http_socket, link);

		ev_io_stop(h->loop, &s->io);
		free(s);
	}
	list_init(&h->sockets);
}

/* curl has no call that closes idle connections; a fresh multi handle has
 * none. */
static void close_idle_now(struct http *h)
{
	CURLM *fresh = new_multi(h);

	h->close_when_idle = false;
	if (!fresh)
		return;
	free_multi(h);
	h->multi = fresh;
}

static void tell(struct http_call *c)
{
	c->telling = true;
	c->cb(c->user, &c->reply);
	http_call_free(c);
}

/* Tells all calls that have ended. `h` may be gone afterwards. */
static void tell_done(struct http *h)
{
	h->telling++;
	while (!list_empty(&h->done)) {
		struct http_call *c =
			list_first(&h->done, struct http_call, link);

		detach(c);
		tell(c);
	}
	h->telling--;
	if (h->freed) {
		if (h->telling == 0)
			free(h);
		return;
	}
	if (h->close_when_idle && list_empty(&h->calls))
		close_idle_now(h);
}

/* Lets curl work. `h` may be gone afterwards. */
static void act(struct http *h, curl_socket_t fd, int events)
{
	CURLMsg *msg;
	int running, left;

	h->in_curl = true;
	(void)curl_multi_socket_action(h->multi, fd, events, &running);
	h->in_curl = false;
	while ((msg = curl_multi_info_read(h->multi, &left)) != NULL) {
		char *c = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &c);
		/* This ends the life of `msg`. */
		finish((struct http_call *)(void *)c, msg->data.result);
	}
	tell_done(h);
}

static void on_socket(struct ev_loop *loop, ev_io *io, int revents)
{
	struct http_socket *s = container_of(io, struct http_socket, io);

	act(s->http, io->fd,
	    (revents & EV_READ ? CURL_CSELECT_IN : 0) |
	            (revents & EV_WRITE ? CURL_CSELECT_OUT : 0) |
	            (revents & EV_ERROR ? CURL_CSELECT_ERR : 0));
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	act(container_of(timer, struct http, timer), CURL_SOCKET_TIMEOUT, 0);
}

void http_call_on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct http_call *c = container_of(timer, struct http_call, deadline);
	struct http *h = c->http;

	finish(c, CURLE_OPERATION_TIMEDOUT);
	tell_done(h);
}

/* --- the interface ------------------------------------------------------- */

struct http_call *http_start(struct http *h, const struct http_request *req,
                             http_cb *cb, void *user, struct error *err)
{
	struct http_call *c;
	CURLMcode mc;

	assert(!h->in_curl);
	if (strcmp(req->method, "GET") != 0 &&
	    strcmp(req->method, "POST") != 0) {
		(void)error_set(err, ERR_INTERNAL, "HTTP method %s",
		                req->method);
		return NULL;
	}
	if (h->call_count >= HTTP_CALLS_MAX) {
		(void)error_set(err, ERR_LIMIT,
		                "%d HTTP requests are under way already",
		                HTTP_CALLS_MAX);
		return NULL;
	}
	c = http_call_new(h, req, cb, user, err);
	if (!c)
		return NULL;
	mc = curl_multi_add_handle(h->multi, c->easy);
	if (mc != CURLM_OK) {
		(void)error_set(err, ERR_INTERNAL,
		                "cannot start the request %s %.*s: %s",
		                c->method, HTTP_URL_SHOWN_MAX, c->url,
		                curl_multi_strerror(mc));
		http_call_free(c);
		return NULL;
	}
	/* The loop's time may be as old as the callback that we are in. */
	ev_now_update(h->loop);
	ev_timer_start(h->loop, &c->deadline);
	list_append(&h->calls, &c->link);
	h->call_count++;
	h->close_when_idle = false;
	return c;
}

void http_cancel(struct http_call *c)
{
	struct http *h = c->http;

	if (c->telling)
		return;
	assert(!h->in_curl);
	detach(c);
	http_call_free(c);
	if (h->close_when_idle && list_empty(&h->calls))
		close_idle_now(h);
}

void http_close_idle(struct http *h)
{
	assert(!h->in_curl);
	if (list_empty(&h->calls))
		close_idle_now(h);
	else
		h->close_when_idle = true;
}

/* "host:port:address", which curl takes in place of an answer of a resolver. */
static bool add_resolve(struct http *h, const struct http_config *cfg)
{
	struct buf entry = BUF_INIT(1024);
	bool v6 = strchr(cfg->resolve_address, ':') != NULL;

	(void)buf_printf(&entry, v6 ? "%s:%u:[%s]" : "%s:%u:%s",
	                 cfg->resolve_host, cfg->resolve_port,
	                 cfg->resolve_address);
	if (buf_cstr(&entry))
		h->resolve = curl_slist_append(NULL, entry.data);
	buf_deinit(&entry);
	return h->resolve != NULL;
}

/* NULL for "" and NULL. */
static bool copy_setting(char **out, const char *value)
{
	if (!value || !*value)
		return true;
	*out = strdup(value);
	return *out != NULL;
}

struct http *http_new(struct ev_loop *loop, const struct http_config *cfg,
                      struct error *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h) {
		(void)error_set_nomem(err, "HTTP client");
		return NULL;
	}
	h->loop = loop;
	list_init(&h->calls);
	list_init(&h->done);
	list_init(&h->sockets);
	ev_init(&h->timer, on_timer);
	h->connect_timeout_ms = cfg->connect_timeout_ms
	                                ? cfg->connect_timeout_ms
	                                : HTTP_CONNECT_MS;
	h->timeout_ms = cfg->timeout_ms ? cfg->timeout_ms : HTTP_TIMEOUT_MS;
	h->max_connections =
		cfg->max_connections ? cfg->max_connections : HTTP_CONNECTIONS;
	h->credentials = cfg->credentials;
	h->multi = new_multi(h);
	if (!h->multi || !copy_setting(&h->ca_file, cfg->ca_file) ||
	    !copy_setting(&h->proxy, cfg->proxy) ||
	    (cfg->resolve_host && cfg->resolve_address &&
	     !add_resolve(h, cfg))) {
		(void)error_set_nomem(err, "HTTP client");
		return http_free(h);
	}
	return h;
}

static void drop_calls(struct list *calls)
{
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, calls) {
		struct http_call *c = list_entry(it, struct http_call, link);

		detach(c);
		http_call_free(c);
	}
}

struct http *http_free(struct http *h)
{
	if (!h)
		return NULL;
	assert(!h->in_curl);
	drop_calls(&h->calls);
	drop_calls(&h->done);
	if (h->multi)
		free_multi(h);
	curl_slist_free_all(h->resolve);
	free(h->ca_file);
	free(h->proxy);
	if (h->telling > 0)
		h->freed = true;
	else
		free(h);
	return NULL;
}

int http_global_init(struct error *err)
{
	CURLcode rc = curl_global_init(CURL_GLOBAL_DEFAULT);

	if (rc == CURLE_OK)
		return 0;
	return error_set(err, ERR_SYSTEM, "cannot start libcurl: %s",
	                 curl_easy_strerror(rc));
}
