/*
 * check_upstream_socket.c - frames: each length, fragments, broken ones, and
 * the largest.
 */
#include "supervisor/upstream_socket.h"
#include "tests/upstream_fixture.h"

/* --- frames --------------------------------------------------------------- */

static void check_frame(size_t i, bool binary, const void *data, size_t len)
{
	ck_assert_uint_lt(i, seen.frame_count);
	ck_assert_int_eq(seen.frames[i].binary, binary);
	ck_assert_uint_eq(seen.frames[i].len, len);
	ck_assert_int_eq(memcmp(seen.frames[i].data, data, len), 0);
}

/* Each form of the length, and the chunks it is read in. */
#define LENGTH_MAX 1048577

static const size_t lengths[] = {0,     1,      125,       126,   127,
                                 32767, 32768,  32769,     65535, 65536,
                                 67668, 131072, LENGTH_MAX};

START_TEST(test_lengths)
{
	char *data = malloc(LENGTH_MAX);

	ck_assert_ptr_nonnull(data);
	for (size_t i = 0; i < LENGTH_MAX; i++)
		data[i] = (char)(i * 31 + i / 256);
	connect_ok();
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		ws_server_send(server, WS_TEXT, data, lengths[i]);
		ws_server_send(server, WS_BINARY, data, lengths[i]);
	}
	run_until(seen.frame_count == 2 * ARRAY_SIZE(lengths));
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		check_frame(2 * i, false, data, lengths[i]);
		check_frame(2 * i + 1, true, data, lengths[i]);
	}
	free(data);
}
END_TEST

START_TEST(test_first_frames_with_handshake)
{
	struct buf *first = &ws_script(server)->first;

	ws_frame(first, WS_TEXT, "{\"type\":\"status\"}", 17, 17);
	ws_frame(first, WS_BINARY, "abc", 3, 3);
	connect_ok();
	run_until(seen.frame_count == 2);
	check_frame(0, false, "{\"type\":\"status\"}", 17);
	check_frame(1, true, "abc", 3);
	ck_assert_int_eq(seen.frames[0].state, UPSTREAM_CONNECTED);
}
END_TEST

START_TEST(test_fragments)
{
	connect_ok();
	ws_server_send(server, WS_TEXT & ~WS_FIN, "one ", 4);
	ws_server_send(server, WS_PING, "hey", 3);
	ws_server_send(server, 0x00, "", 0);
	ws_server_send(server, 0x00, "two ", 4);
	ws_server_send(server, WS_PONG, "", 0);
	ws_server_send(server, WS_FIN, "three", 5);
	/* Nothing but empty ones; empty at the start; empty at the end. */
	ws_server_send(server, WS_BINARY & ~WS_FIN, "", 0);
	ws_server_send(server, WS_FIN, "", 0);
	ws_server_send(server, WS_BINARY & ~WS_FIN, "", 0);
	ws_server_send(server, WS_FIN, "late", 4);
	ws_server_send(server, WS_TEXT & ~WS_FIN, "early", 5);
	ws_server_send(server, WS_FIN, "", 0);
	ws_server_send(server, WS_BINARY, "whole", 5);
	run_until(seen.frame_count == 5 && ws_seen(server)->pongs == 1);
	check_frame(0, false, "one two three", 13);
	check_frame(1, true, "", 0);
	check_frame(2, true, "late", 4);
	check_frame(3, false, "early", 5);
	check_frame(4, true, "whole", 5);
	ck_assert_str_eq(ws_seen(server)->pong, "hey");
}
END_TEST

START_TEST(test_byte_by_byte)
{
	struct buf bytes = BUF_INIT(1000);

	connect_ok();
	ws_frame(&bytes, WS_TEXT, "{\"a\":1}", 7, 7);
	ws_frame(&bytes, WS_BINARY & ~WS_FIN, "12", 2, 2);
	ws_frame(&bytes, WS_FIN, "34", 2, 2);
	for (size_t i = 0; i < bytes.len; i++) {
		ws_server_write(server, bytes.data + i, 1);
		run_ready();
	}
	run_until(seen.frame_count == 2);
	check_frame(0, false, "{\"a\":1}", 7);
	check_frame(1, true, "1234", 4);
	buf_deinit(&bytes);
}
END_TEST

/* It costs nobody the connection; the parser refuses the frame. */
START_TEST(test_invalid_utf8)
{
	connect_ok();
	ws_server_send(server, WS_TEXT, "\"\xff\xc0\xaf\"", 5);
	ws_server_send(server, WS_TEXT, "{}", 2);
	run_until(seen.frame_count == 2);
	check_frame(0, false, "\"\xff\xc0\xaf\"", 5);
	ck_assert(is_in(UPSTREAM_CONNECTED));
}
END_TEST

static const struct {
	const char *bytes;
	size_t len;
} violations[] = {
	{"\xc1\x01x", 3},          /* a reserved bit without an extension */
	{"\x83\x01x", 3},          /* an unknown type */
	{"\x80\x01x", 3},          /* a continuation of nothing */
	{"\x01\x01x\x81\x01y", 6}, /* a new frame inside another */
	{"\x09\x01x", 3},          /* a ping in fragments */
	{"\x89\x7e\x00\x7e", 4},   /* a ping that is too long */
	{"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10}, /* 2^64 - 1 bytes */
};

START_TEST(test_protocol_violation)
{
	connect_ok();
	ws_server_write(server, violations[_i].bytes, violations[_i].len);
	run_until(is_in(UPSTREAM_WAITING));
	ck_assert_uint_eq(seen.frame_count, 0);
	ck_assert_str_ne(upstream_last_error(link_), "");
	upstream_reconnect(link_, "test");
	run_until(is_in(UPSTREAM_CONNECTED));
	ck_assert_uint_eq(ws_seen(server)->most_open, 1);
}
END_TEST

/* A frame that says it has `len` bytes, and enough of them to be noticed. */
static void send_declared(size_t len)
{
	static const char start[70000];
	struct buf header = BUF_INIT(sizeof(start) + 100);

	ws_frame(&header, WS_BINARY, start, sizeof(start), len);
	ws_server_write(server, header.data, header.len);
	buf_deinit(&header);
}

START_TEST(test_too_large)
{
	connect_ok();
	send_declared((size_t)UPSTREAM_FRAME_MAX + 1);
	run_until(is_in(UPSTREAM_WAITING));
	ck_assert_int_eq(ws_seen(server)->close_code, 1009);
	check_error("larger than the limit");
	ck_assert_uint_eq(seen.frame_count, 0);
	upstream_reconnect(link_, "test");
	run_until(is_in(UPSTREAM_CONNECTED));
}
END_TEST

START_TEST(test_just_not_too_large)
{
	connect_ok();
	send_declared(UPSTREAM_FRAME_MAX);
	/* Waits for the rest. */
	ws_server_write(server, "more", 4);
	run_ready();
	ck_assert(is_in(UPSTREAM_CONNECTED));
	ck_assert_uint_eq(ws_seen(server)->closes, 0);
}
END_TEST

START_TEST(test_drop_in_a_frame)
{
	connect_ok();
	ws_server_send(server, WS_TEXT & ~WS_FIN, "never ", 6);
	send_declared(80000);
	ws_server_drop(server, false);
	run_until(is_in(UPSTREAM_WAITING));
	upstream_reconnect(link_, "test");
	run_until(is_in(UPSTREAM_CONNECTED));
	/* Nothing of the old one is left. */
	ws_server_send(server, WS_TEXT, "new", 3);
	run_until(seen.frame_count == 1);
	check_frame(0, false, "new", 3);
}
END_TEST

/* --- the socket by itself ------------------------------------------------- */

#define SMALL_MAX 1000

static struct {
	unsigned opened, unfit, ended;
	size_t len;
	unsigned frames;
} sock;

static void on_sock_open(void *user)
{
	sock.opened++;
}

static void on_sock_data(void *user)
{
}

static void on_sock_frame(void *user, bool binary, const char *frame,
                          size_t len, int64_t received_us)
{
	sock.frames++;
	sock.len = len;
}

static void on_sock_unfit(void *user)
{
	sock.unfit++;
}

static void on_sock_end(void *user)
{
	sock.ended++;
}

/* The limit of a frame at its edge, whole and in fragments. */
START_TEST(test_frame_max)
{
	static const struct upstream_socket_handlers h = {
		.on_open = on_sock_open,
		.on_data = on_sock_data,
		.on_pong = on_sock_data,
		.on_frame = on_sock_frame,
		.on_unfit = on_sock_unfit,
		.on_end = on_sock_end,
	};
	struct upstream_socket_config c = {
		.ca_file = "", .hello = "{}", .frame_max = SMALL_MAX};
	static const char data[SMALL_MAX + 1];
	size_t extra = _i & 1, split = _i & 2 ? 400 : 0;
	struct upstream_socket *s;
	struct url url;

	memset(&sock, 0, sizeof(sock));
	ck_assert_int_eq(url_parse(&url, url_of(""), &err), 0);
	c.url = &url;
	s = upstream_socket_new(loop, &c, &h, NULL, &err);
	ck_assert_ptr_nonnull(s);
	upstream_socket_open(s, "127.0.0.1", ID, 5000);
	run_until(sock.opened);
	if (split) {
		ws_server_send(server, WS_TEXT & ~WS_FIN, data, split);
		ws_server_send(server, WS_FIN, data, SMALL_MAX + extra - split);
	} else {
		ws_server_send(server, WS_TEXT, data, SMALL_MAX + extra);
	}
	run_until(sock.frames || sock.ended);
	ck_assert_uint_eq(sock.unfit, extra);
	ck_assert_uint_eq(sock.frames, !extra);
	ck_assert_uint_eq(sock.len, extra ? 0 : SMALL_MAX);
	ck_assert_int_eq(ws_seen(server)->close_code, extra ? 1009 : 0);
	(void)upstream_socket_free(s);
}
END_TEST

static Suite *upstream_socket_suite(void)
{
	Suite *s = suite_create("upstream_socket");
	TCase *t = tcase_create("upstream_socket");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 2 * LIMIT_S);
	tcase_add_test(t, test_lengths);
	tcase_add_test(t, test_first_frames_with_handshake);
	tcase_add_test(t, test_fragments);
	tcase_add_test(t, test_byte_by_byte);
	tcase_add_test(t, test_invalid_utf8);
	tcase_add_loop_test(t, test_protocol_violation, 0,
	                    (int)ARRAY_SIZE(violations));
	tcase_add_test(t, test_too_large);
	tcase_add_test(t, test_just_not_too_large);
	tcase_add_test(t, test_drop_in_a_frame);
	tcase_add_loop_test(t, test_frame_max, 0, 4);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(upstream_socket_suite());
}
