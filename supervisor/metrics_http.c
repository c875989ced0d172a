/*
 * metrics_http.c - GET /metrics on a loopback port, by libwebsockets on the
 * supervisor's loop.
 *
 * A page is built when it is asked for and written in pieces as the socket
 * takes them. Only requests that name this host are answered, so that a web
 * page which has its own name resolved to 127.0.0.1 learns nothing.
 */
#include <assert.h>
#include <errno.h>
#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/metrics.h"
#include "supervisor/supervisor.h"

#define PIECE      4096 /* bytes written at a time */
#define HEADER_MAX 2048
#define TIMEOUT_S  10
#define STATUS_OK  200
#define NOT_FOUND  404
#define FORBIDDEN  403

struct metrics_http {
	struct supervisor *sv;
	struct lws_context *lws;
};

/* One request; libwebsockets gives it out zeroed. */
struct page {
	struct buf text;
	size_t sent;
	bool built;
};

int metrics_parse_listen(const char *text, char address[64], int *portp,
                         struct error *err)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	char *end = NULL;
	long port = colon ? strtol(colon + 1, &end, 10) : 0;

	if (!colon || end == colon + 1 || *end != '\0' || port < 1 ||
	    port > 65535)
		return error_set(err, ERR_CONFIG,
		                 "metrics_listen: \"%s\" is not an address and "
		                 "a port, as in 127.0.0.1:9199",
		                 text);
	*portp = (int)port;
	if (strncmp(text, "127.0.0.1:", 10) == 0 ||
	    strncmp(text, "localhost:", 10) == 0)
		memcpy(address, "127.0.0.1", sizeof("127.0.0.1"));
	else if (n == 5 && strncmp(text, "[::1]", n) == 0)
		memcpy(address, "::1", sizeof("::1"));
	else
		return error_set(err, ERR_CONFIG,
		                 "metrics_listen: \"%s\" is not on the "
		                 "loopback; 127.0.0.1, [::1] and localhost are",
		                 text);
	return 0;
}

/* The Host header, port cut off, names the loopback. */
static bool is_for_us(struct lws *wsi)
{
	static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
	char host[256];
	char *colon;
	int n = lws_hdr_copy(wsi, host, sizeof(host), WSI_TOKEN_HOST);

	if (n <= 0)
		return n == 0;
	colon = strrchr(host, ':');
	if (colon && !strchr(colon, ']'))
		*colon = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(host, names[i]) == 0)
			return true;
	}
	return false;
}

/* 0: goes on; -1: the connection ends. */
static int begin(struct metrics_http *m, struct lws *wsi, struct page *p,
                 const char *path)
{
	unsigned char head[LWS_PRE + HEADER_MAX], *at = head + LWS_PRE;
	unsigned char *start = at, *end = head + sizeof(head) - 1;

	if (!is_for_us(wsi))
		return lws_return_http_status(wsi, FORBIDDEN, NULL) ? -1 : 0;
	if (strcmp(path, "/metrics") != 0)
		return lws_return_http_status(wsi, NOT_FOUND, NULL) ? -1 : 0;
	buf_init(&p->text, METRICS_TEXT_MAX);
	p->built = true;
	p->sent = 0;
	if (metrics_write(m->sv, &p->text) < 0) {
		log_error("metrics", "no memory for the page");
		return -1;
	}
	if (lws_add_http_common_headers(wsi, STATUS_OK, METRICS_TYPE,
	                                p->text.len, &at, end) ||
	    lws_finalize_write_http_header(wsi, start, &at, end))
		return -1;
	lws_callback_on_writable(wsi);
	return 0;
}

static void drop(struct page *p)
{
	if (p && p->built)
		buf_deinit(&p->text);
	if (p)
		p->built = false;
}

static int go_on(struct lws *wsi, struct page *p)
{
	unsigned char piece[LWS_PRE + PIECE];
	size_t n;

	if (!p->built)
		return -1;
	n = p->text.len - p->sent;
	if (n > PIECE)
		n = PIECE;
	memcpy(piece + LWS_PRE, p->text.data + p->sent, n);
	p->sent += n;
	if (lws_write(wsi, piece + LWS_PRE, n,
	              p->sent == p->text.len ? LWS_WRITE_HTTP_FINAL
	                                     : LWS_WRITE_HTTP) != (int)n)
		return -1;
	if (p->sent < p->text.len) {
		lws_callback_on_writable(wsi);
		return 0;
	}
	drop(p);
	return lws_http_transaction_completed(wsi) ? -1 : 0;
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user,
                  void *in, size_t len)
{
	struct metrics_http *m = lws_context_user(lws_get_context(wsi));

	switch (reason) {
	case LWS_CALLBACK_HTTP:
		return begin(m, wsi, user, in);
	case LWS_CALLBACK_HTTP_WRITEABLE:
		return go_on(wsi, user);
	case LWS_CALLBACK_CLOSED_HTTP:
	case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
		drop(user);
		return 0;
	default:
		return lws_callback_http_dummy(wsi, reason, user, in, len);
	}
}

struct metrics_http *metrics_http_new(struct supervisor *sv, const char *listen,
                                      struct error *err)
{
	static const struct lws_protocols protocols[] = {
		{.name = "http",
	         .callback = on_lws,
	         .per_session_data_size = sizeof(struct page)},
		{0},
	};
	struct metrics_http *m = calloc(1, sizeof(*m));
	void *loops[1] = {sv->loop};
	char address[64];
	struct lws_context_creation_info info = {
		.iface = address,
		.protocols = protocols,
		.options = LWS_SERVER_OPTION_LIBEV |
	                   LWS_SERVER_OPTION_SKIP_SERVER_CANONICAL_NAME |
	                   LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND,
		.foreign_loops = loops,
		.user = m,
		.gid = -1,
		.uid = -1,
		.fd_limit_per_thread = METRICS_SOCKETS_MAX,
		.max_http_header_data2 = HEADER_MAX,
		.timeout_secs = TIMEOUT_S,
		.keepalive_timeout = TIMEOUT_S,
		.http_proxy_address = ":0",
	};

	if (!m) {
		(void)error_set_nomem(err, "metrics");
		return NULL;
	}
	m->sv = sv;
	if (metrics_parse_listen(listen, address, &info.port, err) < 0) {
		free(m);
		return NULL;
	}
	m->lws = lws_create_context(&info);
	if (!m->lws) {
		free(m);
		(void)error_set(err, ERR_SYSTEM,
		                "metrics_listen: cannot listen on %s; is the "
		                "port taken?",
		                listen);
		return NULL;
	}
	log_info("metrics", "served (url=http://%s/metrics)", listen);
	return m;
}

struct metrics_http *metrics_http_free(struct metrics_http *m)
{
	if (m) {
		lws_context_destroy(m->lws);
		free(m);
	}
	return NULL;
}
