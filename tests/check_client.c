/*
 * check_client.c - the near end of the Unix socket against a scripted server on
 * the same loop: hello, replies in any order, timeouts, garbage, every place
 * where the client may be freed; and finding the server.
 */
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdutil.h"
#include "common/macros.h"
#include "ipc/client.h"
#include "ipc/conn.h"
#include "ipc/listener.h"
#include "tests/runner.h"

#define HELLO                                                                  \
	"{\"id\":1,\"ok\":true,\"result\":{\"version\":\"0.1.0\","             \
	"\"protocol\":1,\"epoch\":\"e1\",\"pid\":77,\"uid\":5,"                \
	"\"operator\":true,\"comfyui\":{\"url\":\"http://h:1/\","              \
	"\"state\":\"connected\"},\"line_max\":16777216}}\n"

static struct ev_loop *loop;
static struct conn server;
static struct client *client;

/* What the callbacks saw, in one string: "R" ready, "E" event, "C" closed,
 * "+" reply, "-" refusal or failure. */
static char seen[10000];
static struct error last;
static struct client_server hello;
static char last_result[200];

/* The callback that frees the client. */
static char free_at;

static void note(char c)
{
	size_t n = strlen(seen);

	ck_assert_uint_lt(n, sizeof(seen) - 1);
	seen[n] = c;
	seen[n + 1] = '\0';
	if (c == free_at)
		client = client_free(client);
}

static void on_event(void *user, const struct incoming *ev)
{
	ck_assert_ptr_eq(user, &client);
	note('E');
	/* Valid during the call, even if the client was freed. */
	ck_assert_int_eq(ev->prompt_id.type, JSON_STRING);
	ck_assert(json_string_eq(ev->prompt_id, "p"));
}

static void on_ready(void *user, const struct client_server *s)
{
	hello = *s;
	note('R');
}

static void on_close(void *user, const struct error *err)
{
	last = *err;
	note('C');
	if (client)
		ck_assert_int_eq(client_fd(client), -1);
}

static const struct client_handlers handlers = {
	.on_event = on_event,
	.on_ready = on_ready,
	.on_close = on_close,
};

static void on_reply(void *user, const struct incoming *in,
                     const struct error *err)
{
	int *calls = user;

	if (calls)
		(*calls)++;
	if (err)
		last = *err;
	else
		(void)snprintf(last_result, sizeof(last_result), "%.*s",
		               (int)in->result.text.n, in->result.text.p);
	note(err ? '-' : '+');
	if (in && !err)
		ck_assert_int_eq(in->result.text.p[0], '{');
}

static void setup(void)
{
	int sv[2];

	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	ck_assert_int_eq(conn_init(&server, sv[0], LINE_MAX_BYTES,
	                           CLIENT_QUOTA + LINE_MAX_BYTES, NULL),
	                 0);
	seen[0] = '\0';
	free_at = '\0';
	client = client_new(loop, sv[1], "check/1", &handlers, &client, NULL);
	ck_assert_ptr_nonnull(client);
}

static void teardown(void)
{
	client = client_free(client);
	conn_deinit(&server);
	ev_loop_destroy(loop);
}

/* Lets the client do all that can be done without waiting. */
static void run(void)
{
	for (int i = 0; i < 20; i++)
		(void)ev_run(loop, EVRUN_NOWAIT);
}

/* All of it is there before the client looks. */
static void write_text(const char *text)
{
	ck_assert_int_eq(conn_send_bytes(&server, text, strlen(text)), 0);
	ck_assert_int_eq(conn_flush(&server), 0);
	ck_assert(!conn_wants_write(&server));
}

static void say(const char *text)
{
	ck_assert_int_eq(conn_send_bytes(&server, text, strlen(text)), 0);
	while (conn_wants_write(&server)) {
		ck_assert_int_eq(conn_flush(&server), 0);
		(void)ev_run(loop, EVRUN_NOWAIT);
	}
	run();
}

static void expect_said(const char *text)
{
	struct span line;

	ck_assert_int_ge(conn_read(&server), 0);
	ck_assert_int_eq(conn_next(&server, &line), LINES_LINE);
	ck_assert_msg(span_eq_str(line, text), "got %.*s", (int)line.n, line.p);
}

static void expect_silence(void)
{
	struct span line;

	ck_assert_int_ge(conn_read(&server), 0);
	ck_assert_int_eq(conn_next(&server, &line), LINES_NONE);
}

static void greet(void)
{
	expect_said("{\"op\":\"hello\",\"id\":1,\"client\":\"check/1\"}");
	say(HELLO);
	ck_assert_str_eq(seen, "R");
}

static uint64_t ask(enum op op, const char *params, int *calls)
{
	struct error err;
	uint64_t id = client_request(client, op, SPAN(params), 0, on_reply,
	                             calls, &err);

	ck_assert_msg(id > 0, "%s", err.text);
	return id;
}

START_TEST(hello_and_a_request)
{
	greet();
	ck_assert_str_eq(hello.version, "0.1.0");
	ck_assert_str_eq(hello.epoch, "e1");
	ck_assert_int_eq(hello.pid, 77);
	ck_assert(hello.is_operator);
	ck_assert_str_eq(hello.comfyui_url, "http://h:1/");
	ck_assert_str_eq(hello.comfyui_state, "connected");
	ck_assert_uint_eq(ask(OP_CANCEL, "{\"prompt_id\":\n\"p\"}", NULL), 2);
	expect_said("{\"op\":\"cancel\",\"id\":2,\"prompt_id\": \"p\"}");
	ck_assert_str_eq(seen, "R");
	say("{\"id\":2,\"ok\":true,\"result\":{\"how\":\"dequeued\"}}\n");
	ck_assert_str_eq(seen, "R+");
	ck_assert_str_eq(last_result, "{\"how\":\"dequeued\"}");
}
END_TEST

START_TEST(requests_before_ready_are_held_back)
{
	(void)ask(OP_PING, "", NULL);
	(void)ask(OP_STATUS, "{}", NULL);
	run();
	expect_said("{\"op\":\"hello\",\"id\":1,\"client\":\"check/1\"}");
	expect_silence();
	say(HELLO);
	ck_assert_str_eq(seen, "R");
	expect_said("{\"op\":\"ping\",\"id\":2}");
	expect_said("{\"op\":\"status\",\"id\":3}");
	say("{\"id\":2,\"ok\":true,\"result\":{}}\n"
	    "{\"id\":3,\"ok\":true,\"result\":{}}\n");
	ck_assert_str_eq(seen, "R++");
}
END_TEST

START_TEST(replies_in_any_order)
{
	int calls[3] = {0};

	greet();
	for (int i = 0; i < 3; i++)
		(void)ask(OP_PING, "", &calls[i]);
	say("{\"id\":4,\"ok\":true,\"result\":{}}\n");
	ck_assert(calls[0] == 0 && calls[1] == 0 && calls[2] == 1);
	say("{\"id\":2,\"ok\":false,\"error\":{\"type\":\"denied\","
	    "\"message\":\"no\"}}\n");
	ck_assert(calls[0] == 1 && calls[1] == 0 && calls[2] == 1);
	ck_assert_int_eq(last.code, ERR_DENIED);
	ck_assert_str_eq(last.text, "no");
	say("{\"id\":3,\"ok\":true,\"result\":{}}\n");
	/* Twice the same is ignored. */
	say("{\"id\":3,\"ok\":true,\"result\":{}}\n");
	ck_assert(calls[0] == 1 && calls[1] == 1 && calls[2] == 1);
	ck_assert_str_eq(seen, "R+-+");
}
END_TEST

START_TEST(events_between_replies)
{
	greet();
	(void)ask(OP_SUBSCRIBE, "", NULL);
	say("{\"event\":\"snapshot\",\"prompt_id\":\"p\"}\n"
	    "{\"event\":\"from the future\",\"prompt_id\":\"p\"}\n"
	    "{\"id\":2,\"ok\":true,\"result\":{\"prompts\":1}}\n"
	    "{\"event\":\"progress\",\"prompt_id\":\"p\",\"seq\":4}\n");
	ck_assert_str_eq(seen, "RE+E");
}
END_TEST

/* `head`, letters, `tail`: `len` bytes and a terminator, freed by the caller.
 */
static char *long_text(const char *head, const char *tail, size_t len)
{
	char *text = malloc(len + 1);

	ck_assert_ptr_nonnull(text);
	memset(text, 'w', len);
	memcpy(text, head, strlen(head));
	memcpy(text + len - strlen(tail), tail, strlen(tail) + 1);
	return text;
}

START_TEST(large_both_ways)
{
	char *text = long_text("{\"workflow\":{\"a\":\"", "\"}}", 12u << 20);
	struct span line;

	greet();
	(void)ask(OP_SUBMIT, text, NULL);
	do {
		run();
		ck_assert_int_ge(conn_read(&server), 0);
	} while (conn_next(&server, &line) == LINES_NONE);
	ck_assert_uint_eq(line.n,
	                  (12u << 20) - 1 +
	                          strlen("{\"op\":\"submit\",\"id\":2,"));
	free(text);
	text = long_text("{\"id\":2,\"ok\":true,\"result\":{\"x\":\"", "\"}}\n",
	                 12u << 20);
	say(text);
	ck_assert_str_eq(seen, "R+");
	free(text);
}
END_TEST

/* ---- the end of the connection ---- */

START_TEST(server_goes_away)
{
	int calls[2] = {0};

	greet();
	(void)ask(OP_PING, "", &calls[0]);
	(void)ask(OP_PING, "", &calls[1]);
	/* What it said before is heard. */
	write_text("{\"id\":2,\"ok\":true,\"result\":{}}\n"
	           "{\"id\":3,\"ok\":tr");
	conn_deinit(&server);
	run();
	ck_assert_str_eq(seen, "R+-C");
	ck_assert(calls[0] == 1 && calls[1] == 1);
	ck_assert_int_eq(last.code, ERR_UNREACHABLE);
	ck_assert_uint_eq(client_request(client, OP_PING, SPAN_NULL, 0, NULL,
	                                 NULL, &last),
	                  0);
	ck_assert_int_eq(last.code, ERR_UNREACHABLE);
	run();
	ck_assert_str_eq(seen, "R+-C");
}
END_TEST

START_TEST(server_goes_before_hello)
{
	(void)ask(OP_PING, "", NULL);
	conn_deinit(&server);
	run();
	ck_assert_str_eq(seen, "-C");
}
END_TEST

/* Sending fails before the reader has noticed: no callback from inside. */
START_TEST(broken_while_asking)
{
	greet();
	conn_deinit(&server);
	(void)ask(OP_PING, "", NULL);
	ck_assert_str_eq(seen, "R");
	run();
	ck_assert_str_eq(seen, "R-C");
}
END_TEST

/* Sending fails; what it said before it went is heard all the same. */
START_TEST(broken_while_an_answer_waits)
{
	greet();
	(void)ask(OP_PING, "", NULL);
	write_text("{\"id\":2,\"ok\":true,\"result\":{}}\n");
	conn_deinit(&server);
	(void)ask(OP_PING, "", NULL);
	run();
	ck_assert_str_eq(seen, "R+-C");
}
END_TEST

static const struct {
	const char *line, *text;
	enum error_code code;
} bad_lines[] = {
	{"hello\n", "not JSON", ERR_PROTOCOL},
	{"\n", "not JSON", ERR_PROTOCOL},
	{"{}\n", "\"ok\"", ERR_PROTOCOL},
	{"\xff\n", "not JSON", ERR_PROTOCOL},
	{"{\"id\":99,\"ok\":true,\"result\":{}}\n", "never made", ERR_PROTOCOL},
	{"{\"id\":null,\"ok\":true,\"result\":{}}\n", "never made",
         ERR_PROTOCOL},
	/* Its own reason, before it hangs up. */
	{"{\"id\":null,\"ok\":false,\"error\":{\"type\":\"limit\","
         "\"message\":\"too many clients\"}}\n",
         "too many clients", ERR_LIMIT},
};

START_TEST(garbage_from_the_server)
{
	greet();
	(void)ask(OP_PING, "", NULL);
	say(bad_lines[_i].line);
	ck_assert_str_eq(seen, "R-C");
	ck_assert_int_eq(last.code, bad_lines[_i].code);
	ck_assert_msg(strstr(last.text, bad_lines[_i].text), "%s", last.text);
}
END_TEST

START_TEST(endless_line_from_the_server)
{
	static char text[LINE_MAX_BYTES + 2];

	greet();
	memset(text, 'x', sizeof(text) - 1);
	say(text);
	ck_assert_str_eq(seen, "RC");
	ck_assert_int_eq(last.code, ERR_PROTOCOL);
}
END_TEST

static const struct {
	const char *line;
	enum error_code code;
} bad_hellos[] = {
	{"{\"id\":1,\"ok\":false,\"error\":{\"type\":\"denied\","
         "\"message\":\"go away\"}}\n",
         ERR_DENIED},
	{"{\"id\":1,\"ok\":true,\"result\":{}}\n", ERR_PROTOCOL},
	{"{\"id\":1,\"ok\":true,\"result\":{\"protocol\":2}}\n", ERR_PROTOCOL},
	{"{\"id\":1,\"ok\":true,\"result\":{\"protocol\":1,\"version\":\"1\"}}\n",
         ERR_PROTOCOL},
	{"{\"id\":1,\"ok\":true,\"result\":{\"version\":\"0123456789012345678901"
         "234567890123456789012345678901234567890123\",\"protocol\":1,"
         "\"epoch\":\"e1\",\"pid\":77,\"operator\":true,\"comfyui\":"
         "{\"url\":\"http://h:1/\",\"state\":\"connected\"}}}\n",
         ERR_PROTOCOL},
	/* A reply to a request that was held back. */
	{"{\"id\":2,\"ok\":true,\"result\":{}}\n", ERR_NONE},
};

START_TEST(bad_hello)
{
	int calls = 0;

	(void)ask(OP_SUBMIT, "{\"workflow\":{}}", &calls);
	say(bad_hellos[_i].line);
	expect_said("{\"op\":\"hello\",\"id\":1,\"client\":\"check/1\"}");
	if (bad_hellos[_i].code == ERR_NONE) {
		ck_assert_str_eq(seen, "");
		say(HELLO);
		ck_assert_int_eq(calls, 0);
		return;
	}
	/* What was held back was never sent. */
	ck_assert_str_eq(seen, "-C");
	ck_assert_int_eq(last.code, bad_hellos[_i].code);
	ck_assert_int_eq(conn_read(&server), 1);
	ck_assert(server.eof);
	{
		struct span line;

		ck_assert_int_eq(conn_next(&server, &line), LINES_NONE);
	}
}
END_TEST

/* ---- deadlines ---- */

static void run_until(const char *what)
{
	while (strcmp(seen, what) != 0) {
		ck_assert_uint_lt(strlen(seen), strlen(what));
		(void)ev_run(loop, EVRUN_ONCE);
	}
}

START_TEST(timeouts)
{
	int64_t now_ms = clock_ms();
	int calls[4] = {0};

	/* It decides what is overdue, however late the timer's call is. */
	clock_fake(now_ms);
	greet();
	for (int i = 0; i < 4; i++) {
		static const unsigned ms[] = {60, 20, 60000, 40};

		ck_assert_uint_gt(client_request(client, OP_PING, SPAN_NULL,
		                                 ms[i], on_reply, &calls[i],
		                                 NULL),
		                  0);
	}
	clock_fake(now_ms + 20);
	run_until("R-");
	ck_assert_int_eq(calls[1], 1);
	ck_assert_int_eq(last.code, ERR_TIMEOUT);
	clock_fake(now_ms + 60);
	run_until("R---");
	ck_assert(calls[0] == 1 && calls[3] == 1 && calls[2] == 0);
	/* Too late, and ignored. */
	say("{\"id\":3,\"ok\":true,\"result\":{}}\n");
	ck_assert_str_eq(seen, "R---");
	say("{\"id\":4,\"ok\":true,\"result\":{}}\n");
	ck_assert_str_eq(seen, "R---+");
	clock_fake(-1);
}
END_TEST

START_TEST(held_back_requests_time_out_too)
{
	ck_assert_uint_gt(client_request(client, OP_PING, SPAN_NULL, 10,
	                                 on_reply, NULL, NULL),
	                  0);
	run_until("-");
	ck_assert_int_eq(last.code, ERR_TIMEOUT);
	expect_said("{\"op\":\"hello\",\"id\":1,\"client\":\"check/1\"}");
	say(HELLO);
	expect_silence();
}
END_TEST

/* Hello and a request are overdue at once: the request is answered before the
 * end of the connection is told. */
START_TEST(no_answer_to_hello)
{
	clock_fake(1000000);
	/* Their deadlines are set by this clock, the timer by the real one. */
	teardown();
	setup();
	ck_assert_uint_gt(client_request(client, OP_PING, SPAN_NULL, 20,
	                                 on_reply, NULL, NULL),
	                  0);
	clock_fake(1000000 + CLIENT_HELLO_MS);
	run_until("-C");
	ck_assert_int_eq(last.code, ERR_TIMEOUT);
	clock_fake(-1);
}
END_TEST

START_TEST(forgotten)
{
	int calls = 0;
	uint64_t a, b;

	a = client_request(client, OP_PING, SPAN_NULL, 10, on_reply, &calls,
	                   NULL);
	client_forget(client, a);
	client_forget(client, a);
	client_forget(client, 1); /* hello's is not the caller's */
	client_forget(client, 12345);
	greet();
	expect_silence();
	b = ask(OP_PING, "", &calls);
	client_forget(client, b);
	say("{\"id\":3,\"ok\":true,\"result\":{}}\n");
	conn_deinit(&server);
	run();
	ck_assert_int_eq(calls, 0);
	ck_assert_str_eq(seen, "RC");
}
END_TEST

/* ---- bounds ---- */

START_TEST(requests_at_their_edge)
{
	bool before_hello = _i == 0;

	if (!before_hello)
		greet();
	for (int i = 0; i < CLIENT_REQUESTS_MAX; i++)
		(void)ask(OP_PING, "", NULL);
	ck_assert_uint_eq(client_request(client, OP_PING, SPAN_NULL, 0, NULL,
	                                 NULL, &last),
	                  0);
	ck_assert_int_eq(last.code, ERR_LIMIT);
	if (before_hello)
		say(HELLO);
	say("{\"id\":2,\"ok\":true,\"result\":{}}\n");
	(void)ask(OP_PING, "", NULL);
	conn_deinit(&server);
	run();
	ck_assert_uint_eq(strlen(seen), 1 + 1 + CLIENT_REQUESTS_MAX + 1);
}
END_TEST

START_TEST(bytes_at_their_edge)
{
	size_t len = LINE_MAX_BYTES - 100;
	char *text = long_text("{\"workflow\":{\"a\":\"", "\"}}", len);
	int n = 0;

	if (_i == 1)
		greet();
	while (client_request(client, OP_SUBMIT, span_make(text, len), 0,
	                      on_reply, NULL, &last) > 0)
		ck_assert_int_lt(n++, 10);
	ck_assert_int_eq(last.code, ERR_LIMIT);
	ck_assert_int_ge(n, 3);
	ck_assert_uint_eq(client_request(client, OP_SUBMIT, SPAN("[]"), 0,
	                                 on_reply, NULL, &last),
	                  0);
	ck_assert_int_eq(last.code, ERR_INVALID);
	free(text);
}
END_TEST

/* ---- freeing ---- */

START_TEST(freed_in_every_callback)
{
	static const char at[] = "RE+-C";
	static const char *const ends[] = {"R", "R+E", "R+", "R+E-", "R+E--C"};

	free_at = at[_i];
	for (int i = 0; i < 3; i++)
		(void)ask(OP_PING, "", NULL);
	write_text(HELLO);
	run();
	if (client) {
		write_text("{\"id\":2,\"ok\":true,\"result\":{}}\n"
		           "{\"event\":\"progress\",\"prompt_id\":\"p\"}\n"
		           "garbage\n"
		           "{\"id\":3,\"ok\":true,\"result\":{}}\n");
		run();
	}
	ck_assert_ptr_null(client);
	ck_assert_str_eq(seen, ends[_i]);
	/* The other end sees it. */
	while (!server.eof)
		ck_assert_int_eq(conn_read(&server), 1);
}
END_TEST

START_TEST(freed_in_a_timeout)
{
	greet();
	for (int i = 0; i < 3; i++)
		ck_assert_uint_gt(client_request(client, OP_PING, SPAN_NULL, 5,
		                                 on_reply, NULL, NULL),
		                  0);
	free_at = '-';
	run_until("R-");
	run();
	ck_assert_str_eq(seen, "R-");
	ck_assert_ptr_null(client);
}
END_TEST

static void ask_again(void *user, const struct incoming *in,
                      const struct error *err)
{
	int *left = user;

	note(err ? '-' : '+');
	if (client && --*left > 0)
		(void)client_request(client, OP_PING, SPAN_NULL, 0, ask_again,
		                     user, NULL);
}

START_TEST(asking_in_callbacks)
{
	int left = 3;
	char line[100];

	greet();
	(void)client_request(client, OP_PING, SPAN_NULL, 0, ask_again, &left,
	                     NULL);
	for (int i = 2; i < 4; i++) {
		(void)snprintf(line, sizeof(line),
		               "{\"id\":%d,\"ok\":true,\"result\":{}}\n", i);
		say(line);
	}
	conn_deinit(&server);
	run();
	ck_assert_str_eq(seen, "R++-C");
}
END_TEST

/* A line of the server's with a descriptor on its first byte. */
static void say_with_fd(const char *text, int fd)
{
	struct frame *f = frame_new(text, strlen(text), dup(fd));

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(conn_send(&server, f), 0);
	(void)frame_unref(f);
	ck_assert_int_eq(conn_flush(&server), 0);
	run();
}

static int taken_fd;

static void on_reply_with_fd(void *user, const struct incoming *in,
                             const struct error *err)
{
	taken_fd = client_take_fd(client);
	ck_assert_int_eq(client_take_fd(client), -1);
	on_reply(user, in, err);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

static int lowest_free(void)
{
	int fd = dup(0);

	(void)close(fd);
	return fd;
}

START_TEST(descriptors)
{
	int p[2], free_before;
	uint64_t id;

	greet();
	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	ck_assert_int_eq(client_expect_fds(client), 0);
	free_before = lowest_free();
	id = client_request(client, OP_PING, SPAN_NULL, 0, on_reply_with_fd,
	                    NULL, NULL);
	ck_assert_uint_eq(id, 2);
	say_with_fd("{\"id\":2,\"ok\":true,\"fds\":1,\"result\":{}}\n", p[0]);
	ck_assert_str_eq(seen, "R+");
	ck_assert(same_file(taken_fd, p[0]));
	(void)close(taken_fd);
	/* One that nobody takes, not even a callback, is closed. */
	(void)ask(OP_PING, "", NULL);
	say_with_fd("{\"id\":3,\"ok\":true,\"fds\":1,\"result\":{}}\n", p[0]);
	id = ask(OP_PING, "", NULL);
	client_forget(client, id);
	say_with_fd("{\"id\":4,\"ok\":true,\"fds\":1,\"result\":{}}\n", p[1]);
	ck_assert_str_eq(seen, "R++");
	ck_assert_int_eq(lowest_free(), free_before);
	ck_assert_int_eq(client_take_fd(client), -1);
	/* A line without the descriptor that it speaks of. */
	(void)ask(OP_PING, "", NULL);
	say("{\"id\":5,\"ok\":true,\"fds\":1,\"result\":{}}\n");
	ck_assert_str_eq(seen, "R++-C");
	ck_assert_int_eq(last.code, ERR_PROTOCOL);
	ck_assert_int_eq(client_expect_fds(client), -ENOTCONN);
	(void)close(p[0]);
	(void)close(p[1]);
}
END_TEST

START_TEST(nothing_to_free)
{
	struct error err;
	int p[2];

	ck_assert_ptr_null(client_free(NULL));
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_ptr_null(client_new(loop, p[0], "x", &handlers, NULL, &err));
	ck_assert_int_eq(fcntl(p[0], F_GETFD), -1);
	(void)close(p[1]);
	{
		static char name[8192];
		int sv[2];

		memset(name, 'n', sizeof(name) - 1);
		ck_assert_int_eq(fd_socketpair(sv, 0), 0);
		ck_assert_ptr_null(
			client_new(loop, sv[0], name, &handlers, NULL, &err));
		ck_assert_int_eq(err.code, ERR_LIMIT);
		ck_assert_int_eq(fcntl(sv[0], F_GETFD), -1);
		(void)close(sv[1]);
	}
}
END_TEST

/* ---- finding the server ---- */

static char dir[64], path[200];
static struct config cfg;

static void make_dir(void)
{
	(void)snprintf(dir, sizeof(dir), "%s/client.XXXXXX", runner_tmpdir());
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(setenv("HOME", dir, 1), 0);
	ck_assert_int_eq(setenv("XDG_STATE_HOME", dir, 1), 0);
	ck_assert_int_eq(unsetenv("COMFYMUX_SOCKET"), 0);
	(void)snprintf(path, sizeof(path), "%s/s", dir);
}

static void remove_dir(void)
{
	config_deinit(&cfg);
}

/* `name` NULL: nobody named one, the usual places are tried. */
static int connect_named(const char *name, char **pathp, struct error *err)
{
	struct config_flag flag = {"socket", name};
	struct config_sources src = {.flags = &flag,
	                             .flag_count = name ? 1 : 0};

	ck_assert_msg(config_load(&cfg, &src, err) == 0, "%s", err->text);
	return client_connect(&cfg, pathp, err);
}

START_TEST(connects)
{
	struct listener l;
	struct error err;
	char *found = NULL;
	int fd, near;

	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	fd = connect_named(path, &found, &err);
	ck_assert_int_ge(fd, 0);
	ck_assert_str_eq(found, path);
	near = listener_accept(&l);
	ck_assert_int_ge(near, 0);
	(void)close(near);
	(void)close(fd);
	free(found);
	listener_deinit(&l);
}
END_TEST

START_TEST(nobody_there)
{
	struct error err;

	ck_assert_int_eq(connect_named(path, NULL, &err), -1);
	ck_assert_int_eq(err.code, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_ptr_nonnull(strstr(err.text, "does not exist"));
}
END_TEST

START_TEST(stale)
{
	struct listener l;
	struct error err;

	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	ck_assert_int_eq(close(l.fd), 0);
	l.fd = -1;
	ck_assert_int_eq(connect_named(path, NULL, &err), -1);
	ck_assert_int_eq(err.code, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(err.text, "nobody serves"));
	listener_deinit(&l);
}
END_TEST

/* Every place that was tried is named. */
START_TEST(usual_places)
{
	const char *place;
	struct error err;
	bool is_explicit;
	int fd = connect_named(NULL, NULL, &err);

	if (fd >= 0) {
		(void)close(fd);
		return; /* this machine has one running */
	}
	if (err.code == ERR_DENIED)
		return;
	ck_assert_int_eq(err.code, ERR_UNREACHABLE);
	for (size_t i = 0;
	     (place = config_socket_candidate(&cfg, i, &is_explicit)); i++)
		ck_assert_msg(strstr(err.text, place), "%s: %s", place,
		              err.text);
}
END_TEST

START_TEST(busy)
{
	struct listener l;
	struct error err;
	int fds[8], n = 0, fd;
	int64_t took_ms;
	pid_t pid;

	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	ck_assert_int_eq(listen(l.fd, 0), 0);
	fd = connect_named(path, NULL, &err);
	ck_assert_int_ge(fd, 0);
	fds[n++] = fd;
	/* It makes room while we wait. */
	pid = fork();
	if (pid == 0) {
		(void)usleep(100000);
		_exit(listener_accept(&l) >= 0 ? 0 : 1);
	}
	for (; n < 3; n++) {
		fds[n] = client_connect(&cfg, NULL, &err);
		if (fds[n] < 0)
			break;
	}
	/* And then it doesn't any more. */
	ck_assert_int_ge(n, 2);
	ck_assert_int_eq(client_connect(&cfg, NULL, &err), -1);
	ck_assert_int_eq(err.code, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(err.text, "too busy"));
	/* One that waits does so each time, a busy machine doesn't. */
	took_ms = CLIENT_CONNECT_MS;
	for (int i = 0; i < 3 && took_ms >= CLIENT_CONNECT_MS; i++) {
		took_ms = -clock_ms();
		ck_assert_int_eq(client_connect_now(&cfg, &err), -1);
		ck_assert_int_eq(err.code, ERR_UNREACHABLE);
		took_ms += clock_ms();
	}
	ck_assert_int_lt(took_ms, CLIENT_CONNECT_MS);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	while (n > 0)
		(void)close(fds[--n]);
	listener_deinit(&l);
}
END_TEST

/* The configuration would not take such a path; this is the last guard. */
START_TEST(path_at_its_edge)
{
	struct error err;

	ck_assert_int_eq(connect_named(path, NULL, &err), -1);
	ck_assert_uint_eq(cfg.candidate_count, 1);
	free(cfg.candidates[0]);
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[LISTENER_PATH_MAX] = '\0';
	cfg.candidates[0] = strdup(path);
	ck_assert_int_eq(client_connect(&cfg, NULL, &err), -1);
	ck_assert_int_eq(err.code, ERR_UNREACHABLE);
	path[LISTENER_PATH_MAX] = 'p';
	path[LISTENER_PATH_MAX + 1] = '\0';
	free(cfg.candidates[0]);
	cfg.candidates[0] = strdup(path);
	ck_assert_int_eq(client_connect(&cfg, NULL, &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.text, "too long"));
}
END_TEST

/* Becomes somebody else and asks; its error code is its exit status. */
static int code_as_another_user(void)
{
	struct error err = ERROR_NULL;
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (setgid(1234) < 0 || setuid(1234) < 0)
			_exit(100);
		if (client_connect(&cfg, NULL, &err) >= 0)
			_exit(0);
		_exit((int)err.code);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

START_TEST(permission_is_not_absence)
{
	struct listener l;
	struct error err;
	int fd;

	if (geteuid() != 0)
		return; /* only root can become somebody else */
	ck_assert_int_eq(chmod(runner_tmpdir(), 0755), 0);
	ck_assert_int_eq(chmod(dir, 0755), 0);
	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	fd = connect_named(path, NULL, &err);
	ck_assert_int_ge(fd, 0);
	(void)close(fd);
	ck_assert_int_eq(code_as_another_user(), ERR_DENIED);
	/* Root may be trusted. */
	ck_assert_int_eq(chmod(path, 0666), 0);
	ck_assert_int_eq(code_as_another_user(), 0);
	ck_assert_int_eq(chmod(dir, 0700), 0);
	ck_assert_int_eq(code_as_another_user(), ERR_DENIED);
	listener_deinit(&l);
}
END_TEST

/* Some user's socket where a supervisor is expected. */
START_TEST(impostor)
{
	struct error err;
	int ready[2], end[2];
	char byte;
	pid_t pid;

	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chmod(runner_tmpdir(), 0755), 0);
	ck_assert_int_eq(chmod(dir, 0777), 0);
	ck_assert_int_eq(pipe(ready), 0);
	ck_assert_int_eq(pipe(end), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		struct listener l;

		(void)close(end[1]);
		if (setgid(1234) < 0 || setuid(1234) < 0 ||
		    listener_init(&l, path, 0666, NULL) < 0 ||
		    write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(read(end[0], &byte, 1) == 0 ? 0 : 1);
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert_int_eq(connect_named(path, NULL, &err), -1);
	ck_assert_int_eq(err.code, ERR_DENIED);
	ck_assert_ptr_nonnull(strstr(err.text, "user 1234"));
	/* To that user himself it is his own. */
	ck_assert_int_eq(code_as_another_user(), 0);
	(void)close(end[1]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

static Suite *client_suite(void)
{
	Suite *s = suite_create("client");
	TCase *t = tcase_create("client"), *c = tcase_create("connect");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, hello_and_a_request);
	tcase_add_test(t, requests_before_ready_are_held_back);
	tcase_add_test(t, replies_in_any_order);
	tcase_add_test(t, events_between_replies);
	tcase_add_test(t, large_both_ways);
	tcase_add_test(t, server_goes_away);
	tcase_add_test(t, server_goes_before_hello);
	tcase_add_test(t, broken_while_asking);
	tcase_add_test(t, broken_while_an_answer_waits);
	tcase_add_loop_test(t, garbage_from_the_server, 0,
	                    (int)ARRAY_SIZE(bad_lines));
	tcase_add_test(t, endless_line_from_the_server);
	tcase_add_loop_test(t, bad_hello, 0, (int)ARRAY_SIZE(bad_hellos));
	tcase_add_test(t, timeouts);
	tcase_add_test(t, held_back_requests_time_out_too);
	tcase_add_test(t, no_answer_to_hello);
	tcase_add_test(t, forgotten);
	tcase_add_loop_test(t, requests_at_their_edge, 0, 2);
	tcase_add_loop_test(t, bytes_at_their_edge, 0, 2);
	tcase_add_loop_test(t, freed_in_every_callback, 0, 5);
	tcase_add_test(t, freed_in_a_timeout);
	tcase_add_test(t, asking_in_callbacks);
	tcase_add_test(t, nothing_to_free);
	tcase_add_test(t, descriptors);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(c, make_dir, remove_dir);
	tcase_add_test(c, connects);
	tcase_add_test(c, nobody_there);
	tcase_add_test(c, stale);
	tcase_add_test(c, usual_places);
	tcase_add_test(c, busy);
	tcase_add_test(c, path_at_its_edge);
	tcase_add_test(c, permission_is_not_absence);
	tcase_add_test(c, impostor);
	tcase_set_timeout(c, 60);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	return runner_run(client_suite());
}
