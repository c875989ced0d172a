/*
 * check_http.c - HTTP requests against a scripted server in this process: what
 * each way of failing is called, what is bounded, what callbacks may do, and
 * that a POST is never on the wire twice.
 */
#include "common/http.h"

#include <arpa/inet.h>
#include <ev.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "tests/runner.h"
#include "tests/script_server.h"

#define GUARD_S  60.  /* far beyond what any test needs */
#define SHORT_MS 1500 /* for what is meant to time out */
#define BIG      (3u << 20)

static struct ev_loop *loop;
static struct http *http;
static struct script_server *server;
static ev_timer guard;

/* What the last callback got. */
static struct {
	unsigned calls, data_calls;
	struct http_reply reply;
	char type[128];
	struct buf body;
	size_t sunk, sink_max;
} got;

/* What the last request was. */
static struct {
	char method[16], type[128], expect[64], agent[64], origin[64];
	struct buf body;
} seen;

/* --- the script ---------------------------------------------------------- */

static void send_big(struct script_conn *c, int chunked)
{
	char *block = malloc(BIG);

	ck_assert_ptr_nonnull(block);
	memset(block, 'b', BIG);
	if (chunked) {
		script_puts(c, "HTTP/1.1 200 OK\r\n"
		               "Transfer-Encoding: chunked\r\n\r\n"
		               "300000\r\n"); /* BIG */
		script_write(c, block, BIG);
		script_puts(c, "\r\n0\r\n\r\n");
	} else {
		script_reply(c, 200, "image/png", block, BIG);
	}
	free(block);
}

static void note(const struct script_request *req)
{
	(void)snprintf(seen.method, sizeof(seen.method), "%s", req->method);
	(void)snprintf(seen.type, sizeof(seen.type), "%s",
	               script_header(req, "Content-Type"));
	(void)snprintf(seen.expect, sizeof(seen.expect), "%s",
	               script_header(req, "Expect"));
	(void)snprintf(seen.agent, sizeof(seen.agent), "%s",
	               script_header(req, "User-Agent"));
	(void)snprintf(seen.origin, sizeof(seen.origin), "%s",
	               script_header(req, "Origin"));
	buf_reset(&seen.body);
	ck_assert_int_eq(buf_append(&seen.body, req->body.p, req->body.n), 0);
}

static void on_request(void *user, struct script_conn *c,
                       const struct script_request *req)
{
	const char *path = req->path;

	note(req);
	if (strcmp(path, "/ok") == 0)
		script_reply(c, 200, "Application/JSON; charset=utf-8", "{}",
		             2);
	else if (strcmp(path, "/empty") == 0)
		script_reply(c, 200, "text/plain", "", 0);
	else if (strcmp(path, "/404") == 0)
		script_reply(c, 404, "text/plain", "404: Not Found", 14);
	else if (strcmp(path, "/302") == 0)
		script_puts(c, "HTTP/1.1 302 Found\r\nLocation: /ok\r\n"
		               "Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n");
	else if (strcmp(path, "/half") == 0) {
		script_puts(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
		               "12345");
		script_close(c, 0);
	} else if (strcmp(path, "/half-head") == 0) {
		script_puts(c, "HTTP/1.1 200 OK\r\nContent-Le");
		script_close(c, 0);
	} else if (strcmp(path, "/close") == 0)
		script_close(c, 0);
	else if (strcmp(path, "/reset") == 0)
		script_close(c, 1);
	else if (strcmp(path, "/garbage") == 0) {
		script_puts(c, "SSH-2.0-OpenSSH_9.2\r\n");
		script_close(c, 0);
	} else if (strcmp(path, "/chunked") == 0)
		script_puts(c, "HTTP/1.1 200 OK\r\n"
		               "Transfer-Encoding: chunked\r\n\r\n"
		               "4\r\nabcd\r\n3\r\nefg\r\n0\r\n"
		               "X-Trailer: yes\r\n\r\n");
	else if (strcmp(path, "/100") == 0)
		script_puts(c, "HTTP/1.1 100 Continue\r\n\r\n"
		               "HTTP/1.1 200 OK\r\n"
		               "Content-Length: 1\r\n\r\n1");
	else if (strcmp(path, "/100-half") == 0) {
		script_puts(c, "HTTP/1.1 100 Continue\r\n\r\n"
		               "HTTP/1.1 200 OK\r\nContent-Le");
		script_close(c, 0);
	} else if (strcmp(path, "/big") == 0)
		send_big(c, 0);
	else if (strcmp(path, "/big-chunked") == 0)
		send_big(c, 1);
	else if (strcmp(path, "/reused-close") == 0) {
		/* The first on a connection is answered, the next is not. */
		if (req->number > 1 && req->connection == 1)
			script_close(c, 0);
		else
			script_reply(c, 200, "text/plain", "ok", 2);
	} else if (strncmp(path, "/echo", 5) == 0)
		script_reply(c, 200, "text/plain", path, strlen(path));
	else
		ck_assert_str_eq(path, "/silent");
}

/* --- fixture ------------------------------------------------------------- */

static void ATTR_NORETURN on_guard(struct ev_loop *l, ev_timer *t, int revents)
{
	ck_abort_msg("the loop does not end");
}

static void new_http(const struct http_config *cfg)
{
	struct error err = ERROR_NULL;

	http = http_free(http);
	http = http_new(loop, cfg, &err);
	ck_assert_msg(http != NULL, "%s", err.text);
}

static void setup(void)
{
	const struct http_config cfg = {.timeout_ms = 30000};

	ck_assert(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	ck_assert_int_eq(http_global_init(NULL), 0);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	ev_timer_init(&guard, on_guard, GUARD_S, 0.);
	ev_timer_start(loop, &guard);
	memset(&got, 0, sizeof(got));
	buf_init(&got.body, HTTP_REPLY_MAX);
	buf_init(&seen.body, 64u << 20);
	server = script_server_new(loop, on_request, NULL);
	http = NULL;
	new_http(&cfg);
}

static void teardown(void)
{
	http = http_free(http);
	server = script_server_free(server);
	buf_deinit(&got.body);
	buf_deinit(&seen.body);
	ev_timer_stop(loop, &guard);
	ev_loop_destroy(loop);
}

static void on_reply(void *user, const struct http_reply *reply)
{
	got.calls++;
	got.reply = *reply;
	(void)snprintf(got.type, sizeof(got.type), "%s", reply->content_type);
	buf_reset(&got.body);
	ck_assert_int_eq(buf_append(&got.body, reply->body.p, reply->body.n),
	                 0);
	ck_assert_int_eq(reply->error.code == ERR_NONE,
	                 reply->outcome == HTTP_OK);
	ck_assert_int_eq(reply->error.text[0] == '\0',
	                 reply->outcome == HTTP_OK);
}

static bool on_data(void *user, const char *data, size_t len)
{
	got.data_calls++;
	got.sunk += len;
	return got.sink_max == 0 || got.sunk < got.sink_max;
}

static void wait_calls(unsigned n)
{
	while (got.calls < n)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_uint_eq(got.calls, n);
}

static const char *url_of(const char *path)
{
	static char url[512];

	(void)snprintf(url, sizeof(url), "%s%s", script_server_url(server),
	               path);
	return url;
}

static struct http_call *start(const struct http_request *req)
{
	struct error err = ERROR_NULL;
	struct http_call *c = http_start(http, req, on_reply, NULL, &err);

	ck_assert_msg(c != NULL, "%s", err.text);
	return c;
}

/* Runs one request to its end. */
static void run(const struct http_request *req)
{
	unsigned calls = got.calls;

	(void)start(req);
	ck_assert_uint_eq(got.calls, calls);
	wait_calls(calls + 1);
}

static void get(const char *path)
{
	run(&(struct http_request){.method = "GET", .url = url_of(path)});
}

static void post(const char *path, const char *body)
{
	run(&(struct http_request){.method = "POST",
	                           .url = url_of(path),
	                           .content_type = "application/json",
	                           .body = SPAN(body)});
}

static void assert_body(const char *want)
{
	ck_assert_uint_eq(got.body.len, strlen(want));
	ck_assert_int_eq(memcmp(got.body.data, want, got.body.len), 0);
}

/* --- replies ------------------------------------------------------------- */

START_TEST(gets)
{
	get("/ok");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_int_eq(got.reply.status, 200);
	ck_assert(got.reply.sent);
	ck_assert_str_eq(got.type, "application/json");
	assert_body("{}");
	ck_assert_str_eq(seen.method, "GET");
	ck_assert_str_eq(seen.agent, "comfymux");
	ck_assert_str_eq(seen.expect, "");
	ck_assert_str_eq(seen.origin, "");
	get("/chunked");
	assert_body("abcdefg");
	ck_assert_str_eq(got.type, "");
	get("/100");
	ck_assert_int_eq(got.reply.status, 200);
	assert_body("1");
	get("/404");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_int_eq(got.reply.status, 404);
	assert_body("404: Not Found");
	/* Redirects are told, not followed. */
	get("/302");
	ck_assert_int_eq(got.reply.status, 302);
	ck_assert_uint_eq(got.body.len, 0);
	/* All on one connection. */
	ck_assert_uint_eq(script_server_connections(server), 1);
}
END_TEST

START_TEST(posts)
{
	char *big = malloc(BIG);

	post("/empty", "{\"a\":1}");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_uint_eq(got.body.len, 0);
	ck_assert_str_eq(seen.method, "POST");
	ck_assert_str_eq(seen.type, "application/json");
	ck_assert_uint_eq(seen.body.len, 7);
	run(&(struct http_request){.method = "POST", .url = url_of("/ok")});
	ck_assert_str_eq(seen.type, "");
	ck_assert_uint_eq(seen.body.len, 0);

	/* The body is copied: what the caller does to his afterwards is his
	 * affair. */
	ck_assert_ptr_nonnull(big);
	memset(big, 'x', BIG);
	(void)start(&(struct http_request){.method = "POST",
	                                   .url = url_of("/ok"),
	                                   .content_type = "text/plain",
	                                   .body = span_make(big, BIG)});
	memset(big, 'y', BIG);
	free(big);
	wait_calls(3);
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_str_eq(seen.expect, "");
	ck_assert_uint_eq(seen.body.len, BIG);
	ck_assert_int_eq(seen.body.data[0], 'x');
	ck_assert_int_eq(seen.body.data[BIG - 1], 'x');
}
END_TEST

static bool seen_has(const char *text)
{
	return memmem(seen.body.data, seen.body.len, text, strlen(text)) !=
	       NULL;
}

START_TEST(posts_parts)
{
	const struct http_part parts[] = {
		{"image", "a \"b\".png", "image/png",
	         span_make("\x89PNG\r\n\0\x1a", 8)},
		{"overwrite", NULL, NULL, SPAN("true")},
		{"empty", NULL, NULL, SPAN_NULL},
	};

	run(&(struct http_request){.method = "POST",
	                           .url = url_of("/ok"),
	                           .parts = parts,
	                           .part_count = ARRAY_SIZE(parts)});
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_int_eq(
		strncmp(seen.type, "multipart/form-data; boundary=", 30), 0);
	ck_assert(seen_has("name=\"image\"; filename=\"a %22b%22.png\"\r\n"
	                   "Content-Type: image/png\r\n\r\n\x89PNG\r\n"));
	ck_assert(seen_has("name=\"overwrite\"\r\n\r\ntrue\r\n"));
	ck_assert(seen_has("name=\"empty\"\r\n\r\n\r\n"));
	ck_assert_str_eq(seen.expect, "");
}
END_TEST

START_TEST(bounds_replies)
{
	struct http_request req = {.method = "GET", .url = url_of("/big")};

	/* By Content-Length, before the body comes; without it, as it comes. */
	for (int i = 0; i < 2; i++) {
		req.reply_max = BIG - 1;
		run(&req);
		ck_assert_int_eq(got.reply.outcome, HTTP_E_TOO_LARGE);
		ck_assert_int_eq(got.reply.error.code, ERR_LIMIT);
		ck_assert_ptr_nonnull(
			strstr(got.reply.error.text, "3145727 bytes"));
		ck_assert_uint_eq(got.body.len, 0);
		ck_assert(got.reply.sent);
		req.reply_max = BIG;
		run(&req);
		ck_assert_int_eq(got.reply.outcome, HTTP_OK);
		ck_assert_uint_eq(got.body.len, BIG);
		req.url = url_of("/big-chunked");
	}
}
END_TEST

START_TEST(feeds_a_sink)
{
	struct http_request req = {.method = "GET",
	                           .url = url_of("/big-chunked"),
	                           .on_data = on_data};

	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_uint_eq(got.sunk, BIG);
	ck_assert_uint_gt(got.data_calls, 1);
	ck_assert_uint_eq(got.body.len, 0);
	/* It can stop. */
	got.sunk = 0;
	got.sink_max = BIG / 2;
	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_E_SINK);
	ck_assert_uint_lt(got.sunk, BIG);
	/* The bound holds for it as well. */
	got.sunk = got.sink_max = 0;
	req.reply_max = BIG - 1;
	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_E_TOO_LARGE);
	ck_assert_uint_lt(got.sunk, BIG);
	req.reply_max = BIG;
	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	/* What isn't 2xx goes into the body: it is for a message. */
	got.sunk = 0;
	req.url = url_of("/404");
	run(&req);
	ck_assert_uint_eq(got.sunk, 0);
	assert_body("404: Not Found");
}
END_TEST

/* --- failures ------------------------------------------------------------ */

/* A port of 127.0.0.1 that nobody listens on: bound, so that nobody else gets
 * it meanwhile. */
static int refused_port(char *url, size_t size)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	(void)snprintf(url, size, "http://127.0.0.1:%u/ok",
	               (unsigned)ntohs(addr.sin_port));
	return fd;
}

START_TEST(refused)
{
	char url[64];
	int fd = refused_port(url, sizeof(url));

	run(&(struct http_request){.method = "POST", .url = url});
	ck_assert_int_eq(got.reply.outcome, HTTP_E_CONNECT);
	ck_assert(!got.reply.sent);
	ck_assert_int_eq(got.reply.status, 0);
	ck_assert_int_eq(got.reply.error.code, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(got.reply.error.text, "POST"));
	ck_assert_ptr_nonnull(strstr(got.reply.error.text, url));
	ck_assert_int_eq(close(fd), 0);
}
END_TEST

static const char *const unusable[] = {
	"ftp://127.0.0.1/x",       "http://",
	"http://127.0.0.1:99999/", "http://a b/",
	"file:///etc/passwd",
};

START_TEST(unusable_urls)
{
	run(&(struct http_request){.method = "GET", .url = unusable[_i]});
	ck_assert_int_eq(got.reply.outcome, HTTP_E_CONNECT);
	ck_assert(!got.reply.sent);
}
END_TEST

static const char *const broken[] = {"/half",  "/half-head", "/100-half",
                                     "/close", "/reset",     "/garbage"};

START_TEST(broken_off)
{
	get(broken[_i]);
	ck_assert_msg(got.reply.outcome == HTTP_E_BROKEN, "%d %s",
	              got.reply.outcome, got.reply.error.text);
	ck_assert(got.reply.sent);
	ck_assert_uint_eq(got.body.len, 0);
	post(broken[_i], "{}");
	ck_assert_int_eq(got.reply.outcome, HTTP_E_BROKEN);
	ck_assert(got.reply.sent);
}
END_TEST

START_TEST(too_slow)
{
	struct http_request req = {.method = "POST",
	                           .url = url_of("/silent"),
	                           .timeout_ms = SHORT_MS};

	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_E_TIMEOUT);
	ck_assert_int_eq(got.reply.error.code, ERR_UNREACHABLE);
	ck_assert(got.reply.sent);
	ck_assert_uint_eq(script_server_requests(server), 1);
	ck_assert_ptr_nonnull(strstr(got.reply.error.text, "1500 ms"));
	/* The connection is not used again. */
	get("/ok");
	ck_assert_uint_eq(script_server_connections(server), 2);
}
END_TEST

/* A server that accepts and says nothing: the handshake is part of
 * connecting. */
START_TEST(connect_too_slow)
{
	const struct http_config cfg = {.connect_timeout_ms = SHORT_MS};
	char plain[64], url[80];
	int fd = refused_port(plain, sizeof(plain));

	ck_assert_int_eq(listen(fd, 8), 0);
	(void)snprintf(url, sizeof(url), "https%s", plain + strlen("http"));
	new_http(&cfg);
	run(&(struct http_request){.method = "POST", .url = url});
	ck_assert_int_eq(got.reply.outcome, HTTP_E_CONNECT);
	ck_assert(!got.reply.sent);
	ck_assert_int_eq(close(fd), 0);
}
END_TEST

/* With one connection, taken by a request that hangs, the next cannot have
 * been seen when its time is up. */
START_TEST(waiting_for_a_connection_counts)
{
	const struct http_config cfg = {.max_connections = 1};
	struct http_request req = {.method = "GET", .url = url_of("/silent")};
	struct http_call *first;

	new_http(&cfg);
	first = start(&req);
	while (script_server_requests(server) == 0)
		ev_run(loop, EVRUN_ONCE);
	req.timeout_ms = SHORT_MS;
	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_E_CONNECT);
	ck_assert(!got.reply.sent);
	ck_assert_uint_eq(script_server_requests(server), 1);
	http_cancel(first);
	get("/ok");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
}
END_TEST

static struct script_conn *dripping;
static unsigned drips;
static ev_timer drip;

static void on_drip(struct ev_loop *l, ev_timer *t, int revents)
{
	script_puts(dripping, "x");
	if (--drips == 0)
		ev_timer_stop(l, t);
}

static void on_drip_request(void *user, struct script_conn *c,
                            const struct script_request *req)
{
	script_puts(c, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nx");
	dripping = c;
	drips = 11;
	ev_timer_init(&drip, on_drip, SHORT_MS / 3e3, SHORT_MS / 3e3);
	ev_timer_start(loop, &drip);
}

/* A reply that takes longer than timeout_ms as a whole, but never pauses for
 * that long. */
START_TEST(idle_timeout)
{
	struct http_request req = {.method = "GET", .timeout_ms = 3 * SHORT_MS};

	server = script_server_free(server);
	server = script_server_new(loop, on_drip_request, NULL);
	req.url = url_of("/");
	run(&req);
	ck_assert_int_eq(got.reply.outcome, HTTP_E_TIMEOUT);
	ev_timer_stop(loop, &drip);
	req.timeout_is_idle = true;
	run(&req);
	ck_assert_msg(got.reply.outcome == HTTP_OK, "%s", got.reply.error.text);
	ck_assert_uint_eq(got.body.len, 12);
}
END_TEST

/* --- connections --------------------------------------------------------- */

START_TEST(kept_alive_connection_ends)
{
	get("/ok");
	script_close_all(server);
	get("/ok");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_uint_eq(script_server_connections(server), 2);
}
END_TEST

/* The server takes the request and closes without a word. A GET that was sent
 * on a kept-alive connection is repeated by curl; a POST must not be. */
START_TEST(post_is_never_doubled)
{
	get("/reused-close");
	get("/reused-close");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	ck_assert_uint_eq(script_server_requests(server), 3);

	server = script_server_free(server);
	server = script_server_new(loop, on_request, NULL);
	get("/ok");
	ck_assert_uint_eq(script_server_open(server), 1);
	post("/close", "{}");
	ck_assert_int_eq(got.reply.outcome, HTTP_E_BROKEN);
	ck_assert_uint_eq(script_server_requests(server), 2);
	post("/reset", "{}");
	ck_assert_int_eq(got.reply.outcome, HTTP_E_BROKEN);
	ck_assert_uint_eq(script_server_requests(server), 3);
}
END_TEST

static void wait_open(unsigned n)
{
	while (script_server_open(server) != n)
		ev_run(loop, EVRUN_ONCE);
}

START_TEST(closes_idle_connections)
{
	struct http_request req = {.method = "GET", .url = url_of("/ok")};

	get("/ok");
	ck_assert_uint_eq(script_server_open(server), 1);
	http_close_idle(http);
	wait_open(0);
	/* With a call under way, when that ends. */
	(void)start(&req);
	http_close_idle(http);
	wait_calls(2);
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	wait_open(0);
	/* A call that was started since takes it back. */
	(void)start(&req);
	http_close_idle(http);
	(void)start(&req);
	wait_calls(4);
	ck_assert_uint_ge(script_server_open(server), 1);
}
END_TEST

START_TEST(limits_connections)
{
	const struct http_config cfg = {.max_connections = 2};

	new_http(&cfg);
	for (int i = 0; i < 20; i++)
		(void)start(&(struct http_request){.method = "GET",
		                                   .url = url_of("/ok")});
	wait_calls(20);
	ck_assert_uint_le(script_server_connections(server), 2);
}
END_TEST

START_TEST(limits_calls)
{
	struct http_request req = {.method = "GET", .url = url_of("/ok")};
	struct error err = ERROR_NULL;

	for (int i = 0; i < HTTP_CALLS_MAX; i++)
		(void)start(&req);
	ck_assert_ptr_null(http_start(http, &req, on_reply, NULL, &err));
	ck_assert_int_eq(err.code, ERR_LIMIT);
	wait_calls(HTTP_CALLS_MAX);
	get("/ok");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
}
END_TEST

START_TEST(unknown_method)
{
	struct http_request req = {.method = "BREW", .url = url_of("/ok")};
	struct error err = ERROR_NULL;

	ck_assert_ptr_null(http_start(http, &req, on_reply, NULL, &err));
	ck_assert_int_eq(err.code, ERR_INTERNAL);
}
END_TEST

/* A proxy is asked for whole URLs. */
static void on_proxy_request(void *user, struct script_conn *c,
                             const struct script_request *req)
{
	ck_assert_str_eq(req->path, "http://gpu.invalid/ok");
	script_reply(c, 200, "text/plain", "by proxy", 8);
}

START_TEST(environment_proxies_are_ignored)
{
	struct http_config cfg = {0};

	ck_assert_int_eq(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
	ck_assert_int_eq(setenv("ALL_PROXY", "http://127.0.0.1:1", 1), 0);
	ck_assert_int_eq(setenv("no_proxy", "*", 1), 0);
	get("/ok");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	/* One that is configured is used, whatever no_proxy says. */
	server = script_server_free(server);
	server = script_server_new(loop, on_proxy_request, NULL);
	cfg.proxy = script_server_url(server);
	new_http(&cfg);
	run(&(struct http_request){.method = "GET",
	                           .url = "http://gpu.invalid/ok"});
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
	unsetenv("no_proxy");
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
	assert_body("by proxy");
}
END_TEST

START_TEST(resolves_as_told)
{
	struct http_config cfg = {.resolve_host = "gpu.invalid",
	                          .resolve_address = "127.0.0.1"};
	char url[64];

	cfg.resolve_port = script_server_port(server);
	(void)snprintf(url, sizeof(url), "http://gpu.invalid:%u/ok",
	               cfg.resolve_port);
	new_http(&cfg);
	run(&(struct http_request){.method = "GET", .url = url});
	ck_assert_msg(got.reply.outcome == HTTP_OK, "%s", got.reply.error.text);
}
END_TEST

START_TEST(path_goes_as_it_is)
{
	get("/echo/../a/%2e%2e/b");
	assert_body("/echo/../a/%2e%2e/b");
}
END_TEST

START_TEST(descriptors_do_not_outlive_exec)
{
	unsigned sockets = 0;

	get("/ok");
	for (int fd = 3; fd < 1024; fd++) {
		struct sockaddr_in peer = {.sin_family = AF_UNSPEC};
		socklen_t len = sizeof(peer);

		if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0 ||
		    peer.sin_family != AF_INET)
			continue;
		ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		sockets++;
	}
	ck_assert_uint_ge(sockets, 2); /* ours, and the server's end */
}
END_TEST

/* --- what callbacks may do ----------------------------------------------- */

START_TEST(cancelled_calls_stay_silent)
{
	struct http_request req = {.method = "GET", .url = url_of("/ok")};
	struct http_call *at_once = start(&req), *later;

	http_cancel(at_once);
	req.url = url_of("/silent");
	later = start(&req);
	while (script_server_requests(server) == 0)
		ev_run(loop, EVRUN_ONCE);
	http_cancel(later);
	wait_open(0);
	get("/ok");
	ck_assert_uint_eq(got.calls, 1);
}
END_TEST

static struct http_call *other;

static void on_cancel_other(void *user, const struct http_reply *reply)
{
	got.calls++;
	http_cancel(other);
	http_cancel(*(struct http_call **)user); /* itself: nothing */
}

START_TEST(callback_cancels)
{
	struct http_request req = {.method = "GET", .url = "ftp://x"};
	struct http_call *self;

	/* Both end in the same turn of curl; whichever is told first takes
	 * the other away. */
	self = http_start(http, &req, on_cancel_other, &self, NULL);
	other = http_start(http, &req, on_reply, NULL, NULL);
	ck_assert(self && other);
	wait_calls(1);
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert_uint_eq(got.calls, 1);
}
END_TEST

static void on_start_next(void *user, const struct http_reply *reply)
{
	got.calls++;
	http_close_idle(http);
	get("/ok");
}

START_TEST(callback_starts_and_waits)
{
	struct http_request req = {.method = "GET", .url = url_of("/ok")};

	/* Even a loop within the loop is survived. */
	ck_assert_ptr_nonnull(
		http_start(http, &req, on_start_next, NULL, NULL));
	while (got.calls < 2)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_int_eq(got.reply.outcome, HTTP_OK);
}
END_TEST

static void on_free_all(void *user, const struct http_reply *reply)
{
	got.calls++;
	http = http_free(http);
	/* The reply outlives it. */
	ck_assert_str_eq(reply->content_type, "application/json");
	ck_assert_uint_eq(reply->body.n, 2);
}

START_TEST(callback_frees_everything)
{
	struct http_request req = {.method = "GET", .url = url_of("/silent")};

	(void)start(&req);
	req.url = url_of("/ok");
	ck_assert_ptr_nonnull(http_start(http, &req, on_free_all, NULL, NULL));
	(void)start(&req);
	while (http)
		ev_run(loop, EVRUN_ONCE);
	wait_open(0);
	ck_assert_uint_ge(got.calls, 1);
}
END_TEST

START_TEST(freed_with_calls_under_way)
{
	struct http_request req = {.method = "GET", .url = url_of("/silent")};

	for (int i = 0; i < 20; i++)
		(void)start(&req);
	while (script_server_requests(server) < 3)
		ev_run(loop, EVRUN_ONCE);
	http = http_free(http);
	wait_open(0);
	ck_assert_uint_eq(got.calls, 0);
	ck_assert_ptr_null(http_free(NULL));
}
END_TEST

/* --- TLS ----------------------------------------------------------------- */

static pid_t spawn(const char *const *argv, int out)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		if (dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0 ||
		    dup2(null, 2) < 0)
			_exit(127);
		execvp(argv[0], (char *const *)(const void *)argv);
		_exit(127);
	}
	return pid;
}

static bool succeeds(const char *const *argv)
{
	int status;
	pid_t pid = spawn(argv, -1);

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* `openssl s_server` on a port of its own choice, which it prints. */
static pid_t start_tls_server(const char *cert, const char *key,
                              unsigned *portp)
{
	const char *argv[] = {"openssl", "s_server", "-accept", "127.0.0.1:0",
	                      "-cert",   cert,       "-key",    key,
	                      "-www",    NULL};
	char line[256];
	FILE *f;
	int out[2];
	pid_t pid;

	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	pid = spawn(argv, out[1]);
	ck_assert_int_eq(close(out[1]), 0);
	f = fdopen(out[0], "r");
	ck_assert_ptr_nonnull(f);
	*portp = 0;
	while (*portp == 0 && fgets(line, sizeof(line), f))
		(void)sscanf(line, "ACCEPT 127.0.0.1:%u", portp);
	(void)fclose(f);
	ck_assert_uint_ne(*portp, 0);
	return pid;
}

START_TEST(certificates)
{
	const struct http_config plain = {0};
	struct http_config with_ca = {0};
	char key[PATH_MAX], cert[PATH_MAX], url[64];
	const char *version[] = {"openssl", "version", NULL};
	const char *make[] = {"openssl",  "req",
	                      "-x509",    "-newkey",
	                      "rsa:2048", "-nodes",
	                      "-days",    "2",
	                      "-subj",    "/CN=localhost",
	                      "-addext",  "subjectAltName=DNS:localhost",
	                      "-keyout",  key,
	                      "-out",     cert,
	                      NULL};
	unsigned port;
	pid_t pid;

	if (!succeeds(version)) {
		(void)fprintf(stderr, "check_http: no openssl program, "
		                      "certificates not tested\n");
		return;
	}
	(void)snprintf(key, sizeof(key), "%s/key.pem", runner_tmpdir());
	(void)snprintf(cert, sizeof(cert), "%s/cert.pem", runner_tmpdir());
	ck_assert(succeeds(make));
	pid = start_tls_server(cert, key, &port);
	(void)snprintf(url, sizeof(url), "https://localhost:%u/", port);

	new_http(&plain);
	run(&(struct http_request){.method = "POST", .url = url});
	ck_assert_int_eq(got.reply.outcome, HTTP_E_TLS);
	ck_assert(!got.reply.sent);
	ck_assert_int_eq(got.reply.error.code, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(got.reply.error.text, "ca_file"));

	with_ca.ca_file = cert;
	new_http(&with_ca);
	run(&(struct http_request){.method = "GET", .url = url});
	ck_assert_msg(got.reply.outcome == HTTP_OK, "%s", got.reply.error.text);
	ck_assert_int_eq(got.reply.status, 200);

	/* The right authority, the wrong name. */
	(void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/", port);
	run(&(struct http_request){.method = "GET", .url = url});
	ck_assert_int_eq(got.reply.outcome, HTTP_E_TLS);

	/* A file that isn't there is no reason to trust anybody. */
	with_ca.ca_file = "/nonexistent/ca.pem";
	new_http(&with_ca);
	run(&(struct http_request){.method = "GET", .url = url});
	ck_assert_int_eq(got.reply.outcome, HTTP_E_TLS);

	/* TLS spoken to a server that speaks plain HTTP. */
	(void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/ok",
	               script_server_port(server));
	run(&(struct http_request){.method = "GET", .url = url});
	ck_assert_int_ne(got.reply.outcome, HTTP_OK);
	ck_assert(!got.reply.sent);
	ck_assert_int_eq(kill(pid, SIGTERM), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

static void add_replies(TCase *t)
{
	tcase_add_test(t, gets);
	tcase_add_test(t, posts);
	tcase_add_test(t, posts_parts);
	tcase_add_test(t, bounds_replies);
	tcase_add_test(t, feeds_a_sink);
	tcase_add_test(t, refused);
	tcase_add_loop_test(t, unusable_urls, 0, ARRAY_SIZE(unusable));
	tcase_add_loop_test(t, broken_off, 0, ARRAY_SIZE(broken));
	tcase_add_test(t, too_slow);
	tcase_add_test(t, connect_too_slow);
	tcase_add_test(t, waiting_for_a_connection_counts);
	tcase_add_test(t, idle_timeout);
}

static Suite *http_suite(void)
{
	Suite *s = suite_create("http");
	TCase *t = tcase_create("http");

	tcase_set_timeout(t, 2 * GUARD_S);
	tcase_add_checked_fixture(t, setup, teardown);
	add_replies(t);
	tcase_add_test(t, kept_alive_connection_ends);
	tcase_add_test(t, post_is_never_doubled);
	tcase_add_test(t, closes_idle_connections);
	tcase_add_test(t, limits_connections);
	tcase_add_test(t, limits_calls);
	tcase_add_test(t, unknown_method);
	tcase_add_test(t, environment_proxies_are_ignored);
	tcase_add_test(t, resolves_as_told);
	tcase_add_test(t, path_goes_as_it_is);
	tcase_add_test(t, descriptors_do_not_outlive_exec);
	tcase_add_test(t, cancelled_calls_stay_silent);
	tcase_add_test(t, callback_cancels);
	tcase_add_test(t, callback_starts_and_waits);
	tcase_add_test(t, callback_frees_everything);
	tcase_add_test(t, freed_with_calls_under_way);
	tcase_add_test(t, certificates);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(http_suite());
}
