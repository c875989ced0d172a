/*
 * check_upstream.c - the link against a server that is scripted in all its bad
 * habits: handshake, pings, refusals, ends, and never two sockets.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/upstream_fixture.h"

#define FDS_MAX 1024

/* --- handshake ------------------------------------------------------------ */

START_TEST(test_connect)
{
	static const enum upstream_state want[] = {
		UPSTREAM_RESOLVING, UPSTREAM_CONNECTING, UPSTREAM_CONNECTED};
	char host[64];

	(void)snprintf(host, sizeof(host), "\r\nHost: 127.0.0.1:%u\r\n",
	               ws_server_port(server));
	connect_ok();
	check_states(want, 3);
	ck_assert_ptr_eq(strstr(ws_seen(server)->head,
	                        "GET /ws?clientId=" ID " HTTP/1.1\r\n"),
	                 ws_seen(server)->head);
	ck_assert(has(host));
	ck_assert(has("\r\nUpgrade: websocket\r\n"));
	ck_assert(has("\r\nSec-WebSocket-Version: 13\r\n"));
	ck_assert(!strcasestr(ws_seen(server)->head, "\r\nOrigin:"));
	ck_assert(!strcasestr(ws_seen(server)->head, "extensions"));
	ck_assert(!strcasestr(ws_seen(server)->head, "protocol:"));
	ck_assert_str_eq(ws_seen(server)->text, HELLO);
	ck_assert(!ws_seen(server)->unmasked);
	ck_assert_str_eq(upstream_address(link_), "127.0.0.1");
	ck_assert_str_eq(upstream_last_error(link_), "");
	ck_assert_uint_eq(upstream_reconnects(link_), 0);
	ck_assert_uint_eq(ws_seen(server)->connections, 1);
}
END_TEST

START_TEST(test_base_path)
{
	make_ok(url_of("/a/comfy%20ui/"));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert(has("GET /a/comfy%20ui/ws?clientId=" ID " HTTP/1.1\r\n"));
}
END_TEST

START_TEST(test_nothing_before_start)
{
	make_ok(url_of(""));
	upstream_reconnect(link_, "test");
	run_ready();
	ck_assert_int_eq(upstream_state(link_), UPSTREAM_DOWN);
	ck_assert_uint_eq(seen.state_count, 0);
	ck_assert_uint_eq(ws_seen(server)->connections, 0);
}
END_TEST

/* Whatever the environment says about proxies. */
START_TEST(test_environment_proxy_ignored)
{
	struct ws_server *proxy = ws_server_new(loop, false);
	char text[64];

	(void)snprintf(text, sizeof(text), "http://127.0.0.1:%u",
	               ws_server_port(proxy));
	ck_assert_int_eq(setenv("http_proxy", text, 1), 0);
	ck_assert_int_eq(setenv("all_proxy", text, 1), 0);
	connect_ok();
	ck_assert_int_eq(unsetenv("http_proxy"), 0);
	ck_assert_int_eq(unsetenv("all_proxy"), 0);
	ck_assert_uint_eq(ws_seen(proxy)->connections, 0);
	(void)ws_server_free(proxy);
}
END_TEST

/* A proxy resolves the name; we must not even try. */
START_TEST(test_proxy)
{
	char proxy[64];

	(void)snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%u",
	               ws_server_port(server));
	cfg.proxy = proxy;
	make_ok("http://comfy.invalid:8188/base");
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED) && ws_seen(server)->texts == 1);
	ck_assert_str_eq(ws_seen(server)->tunnel,
	                 "CONNECT comfy.invalid:8188 HTTP/1.1");
	ck_assert(has("\r\nHost: comfy.invalid:8188\r\n"));
	ck_assert(has("GET /base/ws?clientId=" ID));
	ck_assert_str_eq(upstream_address(link_), "");
	/* And again: the second time goes the same way. */
	upstream_reconnect(link_, "test");
	run_until(ws_seen(server)->texts == 2);
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
}
END_TEST

START_TEST(test_proxy_ipv6_target)
{
	char proxy[64];

	(void)snprintf(proxy, sizeof(proxy), "127.0.0.1:%u",
	               ws_server_port(server));
	cfg.proxy = proxy;
	make_ok("http://[fd00::1]:8188");
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert_str_eq(ws_seen(server)->tunnel,
	                 "CONNECT [fd00::1]:8188 HTTP/1.1");
	ck_assert(has("\r\nHost: [fd00::1]:8188\r\n"));
}
END_TEST

START_TEST(test_ipv6)
{
	struct ws_server *v6 = ws_server_new(loop, true);
	char url[64], host[64];

	if (!v6)
		return;
	(void)ws_server_free(server);
	server = v6;
	(void)snprintf(url, sizeof(url), "http://[::1]:%u",
	               ws_server_port(server));
	(void)snprintf(host, sizeof(host), "\r\nHost: [::1]:%u\r\n",
	               ws_server_port(server));
	make_ok(url);
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert(has(host));
	ck_assert_str_eq(upstream_address(link_), "::1");
}
END_TEST

/* localhost is two addresses nearly everywhere, ComfyUI listens on one. */
START_TEST(test_localhost)
{
	char url[64];

	(void)snprintf(url, sizeof(url), "http://localhost:%u",
	               ws_server_port(server));
	make_ok(url);
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert_str_eq(upstream_address(link_), "127.0.0.1");
	/* Within one attempt. */
	ck_assert(!was_in(UPSTREAM_WAITING));
}
END_TEST

/* --- pings ---------------------------------------------------------------- */

static void set_pings(uint32_t interval_ms, uint32_t pong_ms)
{
	struct upstream_timing t = {
		.connect_timeout_ms = 5000,
		.ping_interval_ms = interval_ms,
		.pong_timeout_ms = pong_ms,
	};

	upstream_set_timing(link_, &t);
}

START_TEST(test_pings_answered)
{
	connect_ok();
	set_pings(5, 10000);
	run_until(ws_seen(server)->pings == 10);
	ck_assert(is_in(UPSTREAM_CONNECTED));
	ck_assert_uint_eq(ws_seen(server)->connections, 1);
}
END_TEST

/* The path is dead: no pong, no answer to the close, no end. Only a reset on
 * our side gets us further, and no second socket before it. */
START_TEST(test_half_open)
{
	connect_ok();
	ws_script(server)->no_pong = true;
	ws_script(server)->no_close = true;
	set_pings(5, 20);
	run_until(is_in(UPSTREAM_CLOSING));
	run_until(is_in(UPSTREAM_WAITING));
	check_error("no answer to a ping");
	ck_assert_uint_eq(ws_seen(server)->pings, 1);
	ck_assert_uint_eq(ws_seen(server)->closes, 1);
	ws_script(server)->no_pong = false;
	ws_script(server)->no_close = false;
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert_uint_eq(ws_seen(server)->connections, 2);
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
	ck_assert_uint_eq(ws_seen(server)->resets, 1);
	ck_assert_uint_eq(upstream_reconnects(link_), 1);
}
END_TEST

#define PONG_MS 100

static void stand_still(void)
{
	/* The pong is on its way; now nobody reads it until it is too late. */
	ck_assert_int_eq(usleep((PONG_MS + 50) * 1000), 0);
}

/* A standstill of ours is not the server's fault. */
START_TEST(test_standstill)
{
	connect_ok();
	ws_script(server)->on_ping = stand_still;
	set_pings(5, PONG_MS);
	run_until(ws_seen(server)->pings == 3);
	ck_assert(is_in(UPSTREAM_CONNECTED));
	ck_assert_uint_eq(ws_seen(server)->connections, 1);
}
END_TEST

START_TEST(test_reconfigure)
{
	connect_ok();
	cfg.ping_interval_s = 1;
	upstream_reconfigure(link_, &cfg);
	run_until(ws_seen(server)->pings == 1);
}
END_TEST

/* --- refusals ------------------------------------------------------------- */

static void check_refused(const char *part)
{
	make_ok(url_of(""));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_WAITING));
	check_error(part);
	ck_assert(!was_in(UPSTREAM_CONNECTED));
	/* The next attempt is a new one. */
	ws_script(server)->answer = WS_UPGRADE;
	upstream_reconnect(link_, "test");
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert_str_eq(upstream_last_error(link_), "");
	ck_assert_uint_eq(upstream_reconnects(link_), 0);
	ck_assert_uint_le(ws_seen(server)->most_open, 1);
}

static const struct {
	enum ws_answer answer;
	const char *raw, *part;
} refusals[] = {
	{WS_RAW, "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno\r\n",
         "HTTP status 403"},
	{WS_RAW_END,
         "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno\r\n",
         "HTTP status 403"},
	{WS_RAW, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
         "HTTP status 401"},
	{WS_RAW, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
         "HTTP status 200"},
	{WS_RAW, "HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", "HTTP status 502"},
	{WS_RAW_END, "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "handshake failed"},
	{WS_RAW_END, "\x15\x03\x01\x02\x02\x46\r\n\r\n", "handshake failed"},
	{WS_RAW_END, "", "handshake failed"},
	{WS_RAW_END, "HTTP/1.1 101 Switching", "handshake failed"},
	{WS_RAW, "HTTP/1.1 101 Switching Protocols\r\n\r\n",
         "handshake failed"},
	{WS_BAD_KEY, NULL, "handshake failed"},
};

START_TEST(test_refused)
{
	ws_script(server)->answer = refusals[_i].answer;
	ws_script(server)->raw = refusals[_i].raw;
	check_refused(refusals[_i].part);
}
END_TEST

/* Elsewhere would be a name to resolve, and nobody asked for it. */
START_TEST(test_redirect_not_followed)
{
	struct ws_server *other = ws_server_new(loop, false);
	char raw[256];

	(void)snprintf(raw, sizeof(raw),
	               "HTTP/1.1 307 Moved\r\nLocation: "
	               "http://127.0.0.1:%u/ws\r\nContent-Length: 0\r\n\r\n",
	               ws_server_port(other));
	ws_script(server)->answer = WS_RAW;
	ws_script(server)->raw = raw;
	check_refused("HTTP status 307");
	ck_assert_uint_eq(ws_seen(other)->connections, 0);
	(void)ws_server_free(other);
}
END_TEST

START_TEST(test_nobody_listens)
{
	char part[64];

	(void)snprintf(part, sizeof(part),
	               "cannot connect to 127.0.0.1 port %u: %s",
	               ws_server_port(server), strerror(ECONNREFUSED));
	make_ok(url_of(""));
	ws_server_close_port(server);
	upstream_start(link_);
	run_until(is_in(UPSTREAM_WAITING));
	check_error(part);
	/* By itself, after about a second. */
	run_until(is_in(UPSTREAM_CONNECTING));
	ck_assert_str_eq(upstream_address(link_), "");
}
END_TEST

START_TEST(test_name_unknown)
{
	make_ok("http://no-such-host.invalid:8188");
	upstream_start(link_);
	run_until(is_in(UPSTREAM_WAITING));
	check_error("no-such-host.invalid");
}
END_TEST

/* A port whose queue is full: connecting hangs, as it does with a host that
 * is switched off. */
START_TEST(test_connect_timeout)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fill[8];
	char url[64];

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(listener, 0), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	for (int i = 0; i < 8; i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(fill[i], (struct sockaddr *)&a, len);
	}
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u",
	               ntohs(a.sin_port));
	cfg.connect_timeout_ms = 100;
	make_ok(url);
	upstream_start(link_);
	run_until(is_in(UPSTREAM_WAITING));
	check_error(strerror(ETIMEDOUT));
	for (int i = 0; i < 8; i++)
		(void)close(fill[i]);
	(void)close(listener);
}
END_TEST

/* --- ends ----------------------------------------------------------------- */

START_TEST(test_drop_and_reconnect)
{
	connect_ok();
	ck_assert_int_eq(upstream_set_client_id(link_, OTHER_ID), 0);
	ws_server_drop(server, _i != 0);
	run_until(is_in(UPSTREAM_WAITING));
	check_error("dropped");
	run_until(is_in(UPSTREAM_CONNECTED) && ws_seen(server)->texts == 2);
	ck_assert_uint_eq(upstream_reconnects(link_), 1);
	ck_assert_str_eq(ws_seen(server)->text, HELLO);
	ck_assert(has("clientId=" OTHER_ID " "));
}
END_TEST

START_TEST(test_server_closes)
{
	ws_script(server)->no_close = true;
	connect_ok();
	ws_server_send(server, WS_CLOSE,
	               "\x03\xe9"
	               "bye\x1b[2J",
	               9);
	run_until(is_in(UPSTREAM_WAITING));
	check_error("(code=1001 reason=\"bye\\x1b[2J\")");
	run_until(ws_seen(server)->open == 0);
	ck_assert_uint_eq(ws_seen(server)->closes, 1);
	ck_assert_int_eq(ws_seen(server)->close_code, 1001);
}
END_TEST

START_TEST(test_reconnect)
{
	static const enum upstream_state want[] = {
		UPSTREAM_RESOLVING, UPSTREAM_CONNECTING, UPSTREAM_CONNECTED,
		UPSTREAM_CLOSING,   UPSTREAM_RESOLVING,  UPSTREAM_CONNECTING,
		UPSTREAM_CONNECTED};

	connect_ok();
	upstream_reconnect(link_, "test");
	/* Told from the loop only. */
	ck_assert_uint_eq(seen.state_count, 3);
	ck_assert_int_eq(upstream_state(link_), UPSTREAM_CLOSING);
	run_until(seen.state_count == ARRAY_SIZE(want));
	check_states(want, ARRAY_SIZE(want));
	ck_assert_uint_eq(ws_seen(server)->closes, 1);
	ck_assert_int_eq(ws_seen(server)->close_code, 1000);
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
	ck_assert_uint_eq(upstream_reconnects(link_), 1);
}
END_TEST

/* The server does not answer the close: the old socket is reset before the
 * new one is opened. */
START_TEST(test_reconnect_stuck)
{
	ws_script(server)->no_close = true;
	connect_ok();
	upstream_reconnect(link_, "test");
	run_until(ws_seen(server)->closes == 1);
	/* Frames that come meanwhile belong to nobody. */
	ws_server_send(server, WS_TEXT, "late", 4);
	run_until(is_in(UPSTREAM_CONNECTED) &&
	          ws_seen(server)->connections == 2);
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
	ck_assert_uint_eq(ws_seen(server)->resets, 1);
	ck_assert_uint_eq(seen.frame_count, 0);
	ck_assert(!was_in(UPSTREAM_WAITING));
}
END_TEST

START_TEST(test_reconnect_while_connecting)
{
	ws_script(server)->answer = WS_SILENCE;
	make_ok(url_of(""));
	upstream_start(link_);
	run_until(ws_seen(server)->requests == 1);
	ws_script(server)->answer = WS_UPGRADE;
	ck_assert_int_eq(upstream_set_client_id(link_, OTHER_ID), 0);
	upstream_reconnect(link_, "test");
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert(has("clientId=" OTHER_ID " "));
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
}
END_TEST

START_TEST(test_stop)
{
	connect_ok();
	upstream_stop(link_);
	run_until(is_in(UPSTREAM_DOWN));
	run_until(ws_seen(server)->open == 0);
	ck_assert_uint_eq(ws_seen(server)->closes, 1);
	ck_assert_int_eq(ws_seen(server)->close_code, 1000);
	/* Again, and from the beginning. */
	upstream_stop(link_);
	run_until(seen.state_count == 6);
	ck_assert(is_in(UPSTREAM_DOWN));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
}
END_TEST

START_TEST(test_stop_stuck)
{
	int64_t start_ms = clock_ms();

	ws_script(server)->no_close = true;
	connect_ok();
	upstream_stop(link_);
	run_until(is_in(UPSTREAM_DOWN));
	ck_assert_int_ge(clock_ms() - start_ms, UPSTREAM_CLOSE_GRACE_MS);
	run_until(ws_seen(server)->open == 0);
}
END_TEST

START_TEST(test_stop_while_connecting)
{
	ws_script(server)->answer = WS_SILENCE;
	make_ok(url_of(""));
	upstream_start(link_);
	run_until(ws_seen(server)->requests == 1);
	upstream_stop(link_);
	run_until(is_in(UPSTREAM_DOWN) && ws_seen(server)->open == 0);
}
END_TEST

START_TEST(test_stop_while_resolving)
{
	make_ok(url_of(""));
	upstream_start(link_);
	ck_assert_int_eq(upstream_state(link_), UPSTREAM_RESOLVING);
	upstream_stop(link_);
	run_until(is_in(UPSTREAM_DOWN));
	run_ready();
	ck_assert_uint_eq(ws_seen(server)->connections, 0);
}
END_TEST

/* --- calls from handlers -------------------------------------------------- */

static void reconnect_once(void)
{
	seen.on_text = NULL;
	upstream_reconnect(link_, "test");
}

/* Frames that were read together with the one that made us want a new
 * connection are not handed on. */
START_TEST(test_reconnect_in_on_text)
{
	struct buf bytes = BUF_INIT(100);

	connect_ok();
	seen.on_text = reconnect_once;
	ws_frame(&bytes, WS_TEXT, "a", 1, 1);
	ws_frame(&bytes, WS_TEXT, "b", 1, 1);
	ws_server_write(server, bytes.data, bytes.len);
	buf_deinit(&bytes);
	run_until(is_in(UPSTREAM_CONNECTED) &&
	          ws_seen(server)->connections == 2);
	ck_assert_uint_eq(seen.frame_count, 1);
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
}
END_TEST

static void stop_when_connected(enum upstream_state state)
{
	if (state == UPSTREAM_CONNECTED)
		upstream_stop(link_);
}

START_TEST(test_stop_in_on_state)
{
	struct buf *first = &ws_script(server)->first;

	ws_frame(first, WS_TEXT, "{}", 2, 2);
	seen.on_state = stop_when_connected;
	make_ok(url_of(""));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_DOWN));
	ck_assert_uint_eq(seen.frame_count, 0);
	run_until(ws_seen(server)->open == 0);
}
END_TEST

static void reconnect_when_waiting(enum upstream_state state)
{
	if (state == UPSTREAM_WAITING && seen.state_count < 20)
		upstream_reconnect(link_, "test");
}

START_TEST(test_reconnect_in_on_state)
{
	make_ok(url_of(""));
	ws_server_close_port(server);
	seen.on_state = reconnect_when_waiting;
	upstream_start(link_);
	run_until(seen.state_count >= 20 && is_in(UPSTREAM_WAITING));
}
END_TEST

/* --- free ----------------------------------------------------------------- */

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < FDS_MAX; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static bool ticked;

static void on_tick(struct ev_loop *l, struct ev_timer *w, int revents)
{
	ticked = true;
}

/* Freed in any state, the link leaves the loop as it was. */
START_TEST(test_free)
{
	enum upstream_state state = (enum upstream_state)_i;
	int fds = count_fds();
	struct ev_timer tick;

	ws_script(server)->no_close = true;
	if (state == UPSTREAM_CONNECTING)
		ws_script(server)->answer = WS_SILENCE;
	make_ok(url_of(""));
	if (state == UPSTREAM_WAITING)
		ws_server_close_port(server);
	if (state != UPSTREAM_DOWN)
		upstream_start(link_);
	if (state == UPSTREAM_CLOSING) {
		run_until(is_in(UPSTREAM_CONNECTED));
		upstream_reconnect(link_, "test");
	}
	if (state == UPSTREAM_CONNECTING)
		run_until(ws_seen(server)->requests == 1);
	else if (state != UPSTREAM_RESOLVING)
		run_until(upstream_state(link_) == state);
	ck_assert_int_eq(upstream_state(link_), state);
	link_ = upstream_free(link_);
	seen.state_count = 0;
	run_until(ws_seen(server)->open == 0);
	ev_timer_init(&tick, on_tick, 0.05, 0.);
	ev_timer_start(loop, &tick);
	ticked = false;
	run_until(ticked);
	ck_assert_uint_eq(seen.state_count, 0);
	if (state == UPSTREAM_WAITING)
		fds--; /* the server's port */
	ck_assert_int_eq(count_fds(), fds);
	ck_assert_ptr_null(upstream_free(NULL));
}
END_TEST

/* The loop serves another one afterwards, and two at a time. */
START_TEST(test_several)
{
	struct upstream *first;

	for (int i = 0; i < 3; i++) {
		connect_ok();
		link_ = upstream_free(link_);
		run_until(ws_seen(server)->open == 0);
		seen.state_count = 0;
		(void)ws_server_free(server);
		server = ws_server_new(loop, false);
	}
	connect_ok();
	first = link_;
	seen.state_count = 0;
	make_ok(url_of(""));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	(void)upstream_free(first);
	ws_server_send(server, WS_TEXT, "still here", 10);
	run_until(seen.frame_count == 1);
}
END_TEST

/* --- construction --------------------------------------------------------- */

static void check_not_made(const char *url, const char *part)
{
	ck_assert_ptr_null(make(url));
	ck_assert_msg(strstr(err.text, part), "\"%s\" lacks \"%s\"", err.text,
	              part);
}

/* A host of `len` bytes in labels that are not too long. */
static const char *long_host_url(size_t len, const char *rest)
{
	static char url[1024];
	size_t at = strlen("http://");

	memcpy(url, "http://", at);
	for (size_t i = 0; i < len; i++)
		url[at++] = i % 40 == 39 ? '.' : 'a';
	memcpy(url + at, rest, strlen(rest) + 1);
	return url;
}

START_TEST(test_limits_of_host)
{
	make_ok(long_host_url(UPSTREAM_AUTHORITY_MAX, ""));
	link_ = upstream_free(link_);
	make_ok(long_host_url(UPSTREAM_AUTHORITY_MAX - 5, ":8188"));
	link_ = upstream_free(link_);
	check_not_made(long_host_url(UPSTREAM_AUTHORITY_MAX + 1, ""),
	               "120 bytes, at most 119");
	check_not_made(long_host_url(UPSTREAM_AUTHORITY_MAX - 4, ":8188"),
	               "at most 119");
}
END_TEST

START_TEST(test_limits_of_proxied_host)
{
	static char proxy[] = "127.0.0.1:3128";

	cfg.proxy = proxy;
	make_ok(long_host_url(UPSTREAM_PROXIED_HOST_MAX, ":65535"));
	link_ = upstream_free(link_);
	check_not_made(long_host_url(UPSTREAM_PROXIED_HOST_MAX + 1, ":65535"),
	               "by a proxy");
}
END_TEST

/* At the limits the request arrives whole. */
START_TEST(test_longest_host)
{
	char proxy[64], host[256];
	const char *url = long_host_url(UPSTREAM_PROXIED_HOST_MAX, ":65535");

	(void)snprintf(proxy, sizeof(proxy), "127.0.0.1:%u",
	               ws_server_port(server));
	cfg.proxy = proxy;
	make_ok(url);
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert_int_lt(snprintf(host, sizeof(host), "\r\nHost: %s\r\n",
	                          url + strlen("http://")),
	                 (int)sizeof(host));
	ck_assert(has(host));
	ck_assert_ptr_nonnull(strstr(ws_seen(server)->tunnel, ":65535 HTTP"));
}
END_TEST

START_TEST(test_longest_path)
{
	static const char rest[] = "/ws?clientId=" ID " HTTP/1.1\r\n";
	char path[UPSTREAM_PATH_MAX + 64] = "/";
	size_t base = UPSTREAM_PATH_MAX - strlen("/ws?clientId=" ID);

	memset(path + 1, 'p', base - 1);
	make_ok(url_of(path));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED));
	memcpy(path + base, rest, sizeof(rest));
	ck_assert(has(path));
}
END_TEST

START_TEST(test_limit_of_path)
{
	char url[URL_TEXT_MAX];
	size_t base = UPSTREAM_PATH_MAX - strlen("/ws?clientId=" ID);
	size_t at = strlen("http://a/");

	memcpy(url, "http://a/", at);
	memset(url + at, 'p', base);
	url[at + base - 1] = '\0';
	make_ok(url);
	link_ = upstream_free(link_);
	url[at + base - 1] = 'p';
	url[at + base] = '\0';
	check_not_made(url, "2033 bytes, at most 2032");
}
END_TEST

START_TEST(test_bad_arguments)
{
	static char tls_proxy[] = "https://proxy:3128";
	static char bad_proxy[] = "http://user:pass@proxy";
	struct url url;

	ck_assert_int_eq(url_parse(&url, "http://127.0.0.1:1", &err), 0);
	ck_assert_ptr_null(upstream_new(loop, resolver, &url, &cfg, NULL, "me",
	                                &handlers, &seen, &err));
	ck_assert_ptr_nonnull(strstr(err.text, "\"me\" is no client id"));
	cfg.proxy = tls_proxy;
	check_not_made("http://127.0.0.1:1", "plain HTTP");
	cfg.proxy = bad_proxy;
	check_not_made("http://127.0.0.1:1", "proxy: ");
}
END_TEST

START_TEST(test_bad_client_id)
{
	connect_ok();
	ck_assert_int_eq(upstream_set_client_id(link_, "x"), -EINVAL);
	upstream_reconnect(link_, "test");
	run_until(ws_seen(server)->connections == 2);
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert(has("clientId=" ID " "));
}
END_TEST

static Suite *upstream_suite(void)
{
	Suite *s = suite_create("upstream");
	TCase *t = tcase_create("upstream");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 2 * LIMIT_S);
	tcase_add_test(t, test_connect);
	tcase_add_test(t, test_base_path);
	tcase_add_test(t, test_nothing_before_start);
	tcase_add_test(t, test_environment_proxy_ignored);
	tcase_add_test(t, test_proxy);
	tcase_add_test(t, test_proxy_ipv6_target);
	tcase_add_test(t, test_ipv6);
	tcase_add_test(t, test_localhost);
	tcase_add_test(t, test_pings_answered);
	tcase_add_test(t, test_half_open);
	tcase_add_test(t, test_standstill);
	tcase_add_test(t, test_reconfigure);
	tcase_add_loop_test(t, test_refused, 0, (int)ARRAY_SIZE(refusals));
	tcase_add_test(t, test_redirect_not_followed);
	tcase_add_test(t, test_nobody_listens);
	tcase_add_test(t, test_name_unknown);
	tcase_add_test(t, test_connect_timeout);
	tcase_add_loop_test(t, test_drop_and_reconnect, 0, 2);
	tcase_add_test(t, test_server_closes);
	tcase_add_test(t, test_reconnect);
	tcase_add_test(t, test_reconnect_stuck);
	tcase_add_test(t, test_reconnect_while_connecting);
	tcase_add_test(t, test_stop);
	tcase_add_test(t, test_stop_stuck);
	tcase_add_test(t, test_stop_while_connecting);
	tcase_add_test(t, test_stop_while_resolving);
	tcase_add_test(t, test_reconnect_in_on_text);
	tcase_add_test(t, test_stop_in_on_state);
	tcase_add_test(t, test_reconnect_in_on_state);
	tcase_add_loop_test(t, test_free, 0, UPSTREAM_STATE_COUNT);
	tcase_add_test(t, test_several);
	tcase_add_test(t, test_limits_of_host);
	tcase_add_test(t, test_limits_of_proxied_host);
	tcase_add_test(t, test_longest_host);
	tcase_add_test(t, test_longest_path);
	tcase_add_test(t, test_limit_of_path);
	tcase_add_test(t, test_bad_arguments);
	tcase_add_test(t, test_bad_client_id);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(upstream_suite());
}
