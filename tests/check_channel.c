/*
 * check_channel.c - the session channel: frames both ways, torn ones, broken
 * framing of every kind, descriptors, bounds at their edge.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/macros.h"
#include "ipc/channel.h"
#include "ipc/creds.h"
#include "tests/runner.h"

static struct channel keeper, worker;

static void make_pair(void)
{
	int sv[2];

	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	ck_assert_int_eq(channel_init(&keeper, sv[0], false), 0);
	ck_assert_int_eq(channel_init(&worker, sv[1], true), 0);
}

static void drop_pair(void)
{
	channel_deinit(&keeper);
	channel_deinit(&worker);
	channel_deinit(&worker);
}

static void send_text(struct channel *c, enum channel_type type, uint64_t line,
                      const char *text, int fd)
{
	ck_assert_int_eq(channel_send(c, type, line, SPAN(text), fd), 0);
	ck_assert_int_eq(channel_flush(c), 0);
}

static void expect(struct channel *c, enum channel_type type, uint64_t line,
                   const char *text)
{
	struct channel_frame f;
	struct error err;

	ck_assert_int_eq(channel_next(c, &f, &err), 1);
	ck_assert_int_eq(f.type, type);
	ck_assert_uint_eq(f.line, line);
	ck_assert(span_eq_str(f.payload, text));
	ck_assert_int_eq(f.fd, -1);
}

static void expect_none(struct channel *c)
{
	struct channel_frame f;

	ck_assert_int_eq(channel_next(c, &f, NULL), 0);
}

START_TEST(frames_both_ways)
{
	ck_assert_int_eq(channel_read(&worker), 0);
	expect_none(&worker);
	send_text(&keeper, CHANNEL_HELLO, 0, "{}", -1);
	send_text(&keeper, CHANNEL_REQUEST, UINT64_MAX, "line one", -1);
	send_text(&keeper, CHANNEL_END, 0, "", -1);
	ck_assert_int_eq(channel_read(&worker), 1);
	expect(&worker, CHANNEL_HELLO, 0, "{}");
	expect(&worker, CHANNEL_REQUEST, UINT64_MAX, "line one");
	expect(&worker, CHANNEL_END, 0, "");
	expect_none(&worker);
	send_text(&worker, CHANNEL_RECORD, 7, "intent", -1);
	send_text(&worker, CHANNEL_RESPONSE, 7, "answer", -1);
	ck_assert_int_eq(channel_read(&keeper), 1);
	expect(&keeper, CHANNEL_RECORD, 7, "intent");
	expect(&keeper, CHANNEL_RESPONSE, 7, "answer");
	ck_assert_int_eq(channel_read(&keeper), 0);
	/* A record goes both ways. */
	send_text(&keeper, CHANNEL_RECORD, 7, "replayed", -1);
	ck_assert_int_eq(channel_read(&worker), 1);
	expect(&worker, CHANNEL_RECORD, 7, "replayed");
}
END_TEST

START_TEST(layout_is_fixed)
{
	static const unsigned char bytes[] = {
		3,    0,    0,    0,    CHANNEL_REQUEST,
		0,    0,    0,    0x88, 0x77,
		0x66, 0x55, 0x44, 0x33, 0x22,
		0x11, 'a',  'b',  'c'};
	char got[64];

	send_text(&keeper, CHANNEL_REQUEST, 0x1122334455667788, "abc", -1);
	ck_assert_int_eq(recv(worker.fd, got, sizeof(got), 0), sizeof(bytes));
	ck_assert_mem_eq(got, bytes, sizeof(bytes));
}
END_TEST

/* Sent whole counts; torn never happened. */
START_TEST(torn_frame_at_eof)
{
	char copy[CHANNEL_HEADER_LEN + 6];
	size_t cut = (size_t)_i;

	send_text(&worker, CHANNEL_OUTPUT, 5, "abcdef", -1);
	ck_assert_int_eq(recv(keeper.fd, copy, sizeof(copy), 0), sizeof(copy));
	ck_assert_int_eq(send(worker.fd, copy, sizeof(copy), 0), sizeof(copy));
	ck_assert_int_eq(send(worker.fd, copy, cut, 0), (ssize_t)cut);
	channel_deinit(&worker);
	while (!keeper.eof)
		ck_assert_int_eq(channel_read(&keeper), 1);
	expect(&keeper, CHANNEL_OUTPUT, 5, "abcdef");
	expect_none(&keeper);
	expect_none(&keeper);
}
END_TEST

/* The worker dies while its last words, and our request, are under way. */
START_TEST(frames_survive_a_reset)
{
	send_text(&keeper, CHANNEL_REQUEST, 1, "never read", -1);
	send_text(&worker, CHANNEL_RECORD, 1, "about to submit", -1);
	channel_deinit(&worker);
	for (int i = 0; i < 3 && !keeper.eof; i++)
		ck_assert_int_eq(channel_read(&keeper), 1);
	ck_assert(keeper.eof);
	expect(&keeper, CHANNEL_RECORD, 1, "about to submit");
	ck_assert_int_eq(channel_send(&keeper, CHANNEL_END, 0, SPAN_NULL, -1),
	                 0);
	ck_assert_int_eq(channel_flush(&keeper), -EPIPE);
}
END_TEST

START_TEST(cut_anywhere)
{
	char bytes[4096];
	struct channel_frame f;
	size_t len = 0, seen = 0;

	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(
			channel_send(&worker, CHANNEL_OUTPUT, (uint64_t)i,
		                     span_make("0123456789", (size_t)i), -1),
			0);
	ck_assert_int_eq(channel_flush(&worker), 0);
	len = (size_t)recv(keeper.fd, bytes, sizeof(bytes), 0);
	for (size_t i = 0; i < len; i += (size_t)_i) {
		size_t n = len - i < (size_t)_i ? len - i : (size_t)_i;

		ck_assert_int_eq(send(worker.fd, bytes + i, n, 0), (ssize_t)n);
		ck_assert_int_eq(channel_read(&keeper), 1);
		while (channel_next(&keeper, &f, NULL) == 1) {
			ck_assert_uint_eq(f.line, seen);
			ck_assert_uint_eq(f.payload.n, seen);
			seen++;
		}
	}
	ck_assert_uint_eq(seen, 10);
}
END_TEST

/* ---- broken framing ---- */

struct bad_header {
	const char *what;
	unsigned char bytes[CHANNEL_HEADER_LEN];
};

static const struct bad_header bad_headers[] = {
	{"unknown frame type 0", {0, 0, 0, 0, 0}},
	{"unknown frame type 256", {0, 0, 0, 0, 0, 1}},
	{"unknown frame type", {0, 0, 0, 0, CHANNEL_REQUEST, 1}},
	{"wrong direction", {0, 0, 0, 0, CHANNEL_RESPONSE}},
	{"bound", {1, 0, 0, 1, CHANNEL_REQUEST}},
	{"bound", {255, 255, 255, 255, CHANNEL_REQUEST}},
	{"flags 0x2", {0, 0, 0, 0, CHANNEL_FILE, 0, 2}},
	{"flags 0x100", {0, 0, 0, 0, CHANNEL_FILE, 0, 0, 1}},
	{"flags 0x1", {0, 0, 0, 0, CHANNEL_REQUEST, 0, 1}},
	{"flags 0x2", {0, 0, 0, 0, CHANNEL_TYPE_LAST, 0, 2}},
	{"bound", {1, 0, 0, 1, CHANNEL_TYPE_LAST}},
	{"without the descriptor", {0, 0, 0, 0, CHANNEL_FILE, 0, 1}},
};

START_TEST(broken_header)
{
	const struct bad_header *bad = &bad_headers[_i];
	struct channel_frame f;
	struct error err;

	ck_assert_int_eq(send(keeper.fd, bad->bytes, sizeof(bad->bytes), 0),
	                 sizeof(bad->bytes));
	ck_assert_int_eq(channel_read(&worker), 1);
	ck_assert_int_eq(channel_next(&worker, &f, &err), -1);
	ck_assert_int_eq(err.code, ERR_PROTOCOL);
	ck_assert_msg(strstr(err.text, bad->what), "%s", err.text);
	/* It stays broken. */
	ck_assert_int_eq(channel_next(&worker, &f, &err), -1);
}
END_TEST

/* Of a release to come: skipped whole, its descriptor closed. */
START_TEST(later_types_are_skipped)
{
	static const unsigned char first[] = {
		5,  0,   0,   0,   CHANNEL_TYPE_COUNT,
		0,  0,   0,   0,   0,
		0,  0,   0,   0,   0,
		0,  'l', 'a', 't', 'e',
		'r'};
	static const unsigned char last[] = {
		0, 0, 0, 0, CHANNEL_TYPE_LAST, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

	ck_assert_int_eq(send(keeper.fd, first, sizeof(first) - 1, 0),
	                 sizeof(first) - 1);
	ck_assert_int_eq(channel_read(&worker), 1);
	expect_none(&worker);
	ck_assert_int_eq(send(keeper.fd, "r", 1, 0), 1);
	send_text(&keeper, CHANNEL_REQUEST, 1, "one", -1);
	ck_assert_int_eq(send(keeper.fd, last, sizeof(last), 0), sizeof(last));
	send_text(&keeper, CHANNEL_REQUEST, 2, "two", -1);
	ck_assert_int_eq(channel_read(&worker), 1);
	expect(&worker, CHANNEL_REQUEST, 1, "one");
	expect(&worker, CHANNEL_REQUEST, 2, "two");
	expect_none(&worker);
}
END_TEST

START_TEST(later_type_with_a_descriptor)
{
	static const unsigned char header[CHANNEL_HEADER_LEN] = {
		0, 0, 0, 0, CHANNEL_TYPE_LAST, 0, CHANNEL_FLAG_FD};
	int pipefd[2];

	ck_assert_int_eq(pipe(pipefd), 0);
	ck_assert_int_eq(fd_send(keeper.fd, header, sizeof(header), pipefd[1]),
	                 sizeof(header));
	(void)close(pipefd[1]);
	ck_assert_int_eq(channel_read(&worker), 1);
	expect_none(&worker);
	/* Nobody holds the other end any more. */
	ck_assert_int_eq(read(pipefd[0], (char[1]){0}, 1), 0);
	(void)close(pipefd[0]);
}
END_TEST

START_TEST(worker_may_not_send_what_the_keeper_sends)
{
	unsigned char request[CHANNEL_HEADER_LEN] = {0, 0, 0, 0,
	                                             CHANNEL_REQUEST};
	struct channel_frame f;
	struct error err;

	ck_assert_int_eq(send(worker.fd, request, sizeof(request), 0),
	                 sizeof(request));
	ck_assert_int_eq(channel_read(&keeper), 1);
	ck_assert_int_eq(channel_next(&keeper, &f, &err), -1);
	ck_assert_int_eq(err.code, ERR_PROTOCOL);
}
END_TEST

START_TEST(our_own_mistakes_are_refused)
{
	struct span none = SPAN_NULL;

	ck_assert_int_eq(channel_send(&keeper, CHANNEL_NONE, 0, none, -1),
	                 -EINVAL);
	ck_assert_int_eq(channel_send(&keeper, CHANNEL_TYPE_COUNT, 0, none, -1),
	                 -EINVAL);
	ck_assert_int_eq(channel_send(&keeper, CHANNEL_RESPONSE, 0, none, -1),
	                 -EINVAL);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_REQUEST, 0, none, -1),
	                 -EINVAL);
	ck_assert_int_eq(channel_send(&keeper, CHANNEL_REQUEST, 0, none, 0),
	                 -EINVAL);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_RECORD, 0, none, 0),
	                 -EINVAL);
	ck_assert_int_eq(channel_send(&keeper, CHANNEL_FILE, 0, none, 999),
	                 -EBADF);
	ck_assert(!channel_wants_write(&keeper));
	ck_assert(!channel_wants_write(&worker));
}
END_TEST

/* ---- bounds ---- */

START_TEST(payload_at_its_edge)
{
	char *big = calloc(1, CHANNEL_PAYLOAD_MAX + 1);
	struct channel_frame f;
	int r;

	ck_assert_ptr_nonnull(big);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_OUTPUT, 1,
	                              span_make(big, CHANNEL_PAYLOAD_MAX + 1),
	                              -1),
	                 -EMSGSIZE);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_OUTPUT, 1,
	                              span_make(big, CHANNEL_PAYLOAD_MAX), -1),
	                 0);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_READY, 0, SPAN_NULL, -1),
	                 0);
	ck_assert_uint_eq(channel_queued(&worker),
	                  CHANNEL_PAYLOAD_MAX + 2 * CHANNEL_HEADER_LEN);
	do {
		ck_assert_int_eq(channel_flush(&worker), 0);
		ck_assert_int_ge(channel_read(&keeper), 0);
		r = channel_next(&keeper, &f, NULL);
		ck_assert_int_ge(r, 0);
	} while (r == 0);
	ck_assert_uint_eq(f.payload.n, CHANNEL_PAYLOAD_MAX);
	ck_assert_int_eq(channel_flush(&worker), 0);
	ck_assert_int_ge(channel_read(&keeper), 0);
	expect(&keeper, CHANNEL_READY, 0, "");
	expect_none(&keeper);
	/* The memory is given back at once. */
	ck_assert_uint_eq(keeper.in.cap, 0);
	free(big);
}
END_TEST

START_TEST(quota_at_its_edge)
{
	char *big = calloc(1, CHANNEL_PAYLOAD_MAX);
	size_t left;

	ck_assert_ptr_nonnull(big);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(
			channel_send(&worker, CHANNEL_OUTPUT, 1,
		                     span_make(big, CHANNEL_PAYLOAD_MAX), -1),
			0);
	left = CHANNEL_QUOTA - channel_queued(&worker) - CHANNEL_HEADER_LEN;
	ck_assert_int_eq(channel_send(&worker, CHANNEL_OUTPUT, 1,
	                              span_make(big, left + 1), -1),
	                 -ENOBUFS);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_OUTPUT, 1,
	                              span_make(big, left), -1),
	                 0);
	ck_assert_uint_eq(channel_queued(&worker), CHANNEL_QUOTA);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_READY, 0, SPAN_NULL, -1),
	                 -ENOBUFS);
	free(big);
}
END_TEST

/* An owner that doesn't take frames: the buffer is bounded, nothing is lost. */
START_TEST(full_buffer_waits_for_the_owner)
{
	static char text[60000];
	struct channel_frame f;
	size_t sent = 0, got = 0;
	int r;

	while (channel_queued(&worker) == 0 || sent < 500) {
		if (sent < 500 && channel_queued(&worker) == 0) {
			ck_assert_int_eq(
				channel_send(&worker, CHANNEL_OUTPUT, ++sent,
			                     span_make(text, sizeof(text)), -1),
				0);
		}
		ck_assert_int_eq(channel_flush(&worker), 0);
		ck_assert_int_eq(channel_read(&keeper), 1);
		if (keeper.in.len == keeper.in.max)
			break;
	}
	ck_assert_uint_eq(keeper.in.len, keeper.in.max);
	do {
		while ((r = channel_next(&keeper, &f, NULL)) == 1) {
			ck_assert_uint_eq(f.line, ++got);
			ck_assert_uint_eq(f.payload.n, sizeof(text));
		}
		ck_assert_int_eq(r, 0);
		ck_assert_int_eq(channel_flush(&worker), 0);
	} while (channel_read(&keeper) > 0 || channel_queued(&worker) > 0);
	ck_assert_uint_eq(got, sent);
}
END_TEST

/* Small frames and the beginning of the largest one fill the buffer: taking the
 * small ones has to make room. */
START_TEST(largest_frame_behind_small_ones)
{
	char *big = calloc(1, CHANNEL_PAYLOAD_MAX);
	struct channel_frame f;
	uint64_t got = 0;

	ck_assert_ptr_nonnull(big);
	for (uint64_t i = 1; i <= 300; i++)
		ck_assert_int_eq(channel_send(&worker, CHANNEL_OUTPUT, i,
		                              span_make(big, 1000), -1),
		                 0);
	ck_assert_int_eq(channel_send(&worker, CHANNEL_OUTPUT, 301,
	                              span_make(big, CHANNEL_PAYLOAD_MAX), -1),
	                 0);
	while (keeper.in.len < keeper.in.max) {
		ck_assert_int_eq(channel_flush(&worker), 0);
		ck_assert_int_eq(channel_read(&keeper), 1);
	}
	for (int i = 0; i < 100000 && got < 301; i++) {
		while (channel_next(&keeper, &f, NULL) == 1)
			ck_assert_uint_eq(f.line, ++got);
		ck_assert_int_eq(channel_flush(&worker), 0);
		ck_assert_int_ge(channel_read(&keeper), 0);
	}
	ck_assert_uint_eq(got, 301);
	free(big);
}
END_TEST

/* ---- descriptors ---- */

static ino_t inode_of(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_ino;
}

START_TEST(descriptors_to_the_worker)
{
	struct channel_frame f;
	ino_t inodes[3];
	int p[2];

	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(pipe(p), 0);
		inodes[i] = inode_of(p[0]);
		ck_assert_int_eq(
			channel_send(&keeper, CHANNEL_CANCEL, 1, SPAN_NULL, -1),
			0);
		ck_assert_int_eq(
			channel_send(&keeper,
		                     i == 1 ? CHANNEL_BUS : CHANNEL_FILE, 1,
		                     SPAN("{}"), p[0]),
			0);
		/* It was duplicated. */
		(void)close(p[0]);
		(void)close(p[1]);
	}
	/* No bus: the same type without. */
	send_text(&keeper, CHANNEL_BUS, 0, "", -1);
	while (channel_read(&worker) > 0)
		continue;
	for (int i = 0; i < 3; i++) {
		expect(&worker, CHANNEL_CANCEL, 1, "");
		ck_assert_int_eq(channel_next(&worker, &f, NULL), 1);
		ck_assert_int_eq(f.type, i == 1 ? CHANNEL_BUS : CHANNEL_FILE);
		ck_assert_int_ge(f.fd, 0);
		ck_assert(fcntl(f.fd, F_GETFD) & FD_CLOEXEC);
		ck_assert_uint_eq(inode_of(f.fd), inodes[i]);
		(void)close(f.fd);
	}
	expect(&worker, CHANNEL_BUS, 0, "");
	expect_none(&worker);
}
END_TEST

START_TEST(descriptors_are_closed_with_the_channel)
{
	int p[2];
	char byte;

	ck_assert_int_eq(pipe(p), 0);
	send_text(&keeper, CHANNEL_FILE, 1, "{}", p[1]);
	/* One received and not taken, one queued and not sent. */
	ck_assert_int_eq(channel_read(&worker), 1);
	ck_assert_int_eq(
		channel_send(&keeper, CHANNEL_FILE, 1, SPAN("{}"), p[1]), 0);
	(void)close(p[1]);
	channel_deinit(&worker);
	channel_deinit(&keeper);
	ck_assert_int_eq(read(p[0], &byte, 1), 0);
	(void)close(p[0]);
}
END_TEST

START_TEST(descriptor_that_no_frame_announces)
{
	unsigned char end[CHANNEL_HEADER_LEN] = {0, 0, 0, 0, CHANNEL_END};
	struct channel_frame f;
	struct error err;

	ck_assert_int_eq(fd_send(keeper.fd, end, sizeof(end), keeper.fd),
	                 sizeof(end));
	ck_assert_int_eq(channel_read(&worker), 1);
	expect(&worker, CHANNEL_END, 0, "");
	ck_assert_int_eq(channel_next(&worker, &f, &err), -1);
	ck_assert_int_eq(err.code, ERR_PROTOCOL);
}
END_TEST

START_TEST(descriptors_waiting_at_their_edge)
{
	unsigned char file[CHANNEL_HEADER_LEN] = {0, 0, 0, 0, CHANNEL_FILE,
	                                          0, 1};
	struct channel_frame f;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), n = 0;

	for (int i = 0; i < CHANNEL_FDS_MAX; i++)
		ck_assert_int_eq(fd_send(keeper.fd, file, sizeof(file), fd),
		                 sizeof(file));
	while (channel_read(&worker) > 0)
		continue;
	ck_assert_uint_eq(worker.fd_count, CHANNEL_FDS_MAX);
	ck_assert_int_eq(fd_send(keeper.fd, file, sizeof(file), fd),
	                 sizeof(file));
	ck_assert_int_eq(channel_read(&worker), -ENOBUFS);
	while (channel_next(&worker, &f, NULL) == 1) {
		(void)close(f.fd);
		n++;
	}
	ck_assert_int_eq(n, CHANNEL_FDS_MAX);
	(void)close(fd);
}
END_TEST

START_TEST(worker_cannot_push_descriptors)
{
	unsigned char ready[CHANNEL_HEADER_LEN] = {0, 0, 0, 0, CHANNEL_READY};
	int p[2];
	char byte;

	/* As on a kernel where a socket can't refuse them. */
	ck_assert_int_eq(creds_allow_fds(keeper.fd, true), 0);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(fd_send(worker.fd, ready, sizeof(ready), p[1]),
	                 sizeof(ready));
	(void)close(p[1]);
	ck_assert_int_eq(channel_read(&keeper), -EPROTO);
	ck_assert_uint_eq(keeper.fd_count, 0);
	ck_assert_int_eq(read(p[0], &byte, 1), 0);
	(void)close(p[0]);
}
END_TEST

START_TEST(names)
{
	ck_assert_str_eq(channel_type_name(CHANNEL_HELLO), "hello");
	ck_assert_str_eq(channel_type_name(CHANNEL_WANT_BUS), "want_bus");
	ck_assert_str_eq(channel_type_name(CHANNEL_END), "end");
	ck_assert_str_eq(channel_type_name(CHANNEL_NONE), "none");
	ck_assert_str_eq(channel_type_name(CHANNEL_TYPE_COUNT), "none");
}
END_TEST

static Suite *channel_suite(void)
{
	Suite *s = suite_create("channel");
	TCase *t = tcase_create("channel");

	tcase_add_checked_fixture(t, make_pair, drop_pair);
	tcase_add_test(t, frames_both_ways);
	tcase_add_test(t, layout_is_fixed);
	tcase_add_loop_test(t, torn_frame_at_eof, 0, CHANNEL_HEADER_LEN + 6);
	tcase_add_test(t, frames_survive_a_reset);
	tcase_add_loop_test(t, cut_anywhere, 1, 40);
	tcase_add_loop_test(t, broken_header, 0, (int)ARRAY_SIZE(bad_headers));
	tcase_add_test(t, later_types_are_skipped);
	tcase_add_test(t, later_type_with_a_descriptor);
	tcase_add_test(t, worker_may_not_send_what_the_keeper_sends);
	tcase_add_test(t, our_own_mistakes_are_refused);
	tcase_add_test(t, payload_at_its_edge);
	tcase_add_test(t, quota_at_its_edge);
	tcase_add_test(t, full_buffer_waits_for_the_owner);
	tcase_add_test(t, largest_frame_behind_small_ones);
	tcase_add_test(t, descriptors_to_the_worker);
	tcase_add_test(t, descriptors_are_closed_with_the_channel);
	tcase_add_test(t, descriptor_that_no_frame_announces);
	tcase_add_test(t, descriptors_waiting_at_their_edge);
	tcase_add_test(t, worker_cannot_push_descriptors);
	tcase_add_test(t, names);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(channel_suite());
}
