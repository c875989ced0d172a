/*
 * check_conn.c - lines over a socketpair: order, quota, batches, descriptors
 * asked for and pushed, the ends of a connection.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/conn.h"
#include "ipc/creds.h"
#include "tests/runner.h"

#define LINE_MAX_TEST 100000
#define QUOTA_TEST    (1u << 20)

static struct conn a, b;

static void make_pair(void)
{
	int sv[2];

	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	ck_assert_int_eq(conn_init(&a, sv[0], LINE_MAX_TEST, QUOTA_TEST, NULL),
	                 0);
	ck_assert_int_eq(conn_init(&b, sv[1], LINE_MAX_TEST, QUOTA_TEST, NULL),
	                 0);
}

static void drop_pair(void)
{
	conn_deinit(&a);
	conn_deinit(&b);
}

/* As on a kernel that doesn't let a socket refuse descriptors. */
static void let_fds_through(struct conn *c)
{
	ck_assert_int_eq(creds_allow_fds(c->fd, true), 0);
}

static int open_null(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void expect_line(struct conn *c, const char *text)
{
	struct span line;

	ck_assert_int_eq(conn_next(c, &line), LINES_LINE);
	ck_assert_msg(span_eq_str(line, text), "got \"%.*s\", expected \"%s\"",
	              (int)line.n, line.p, text);
}

static void expect_none(struct conn *c)
{
	struct span line;

	ck_assert_int_eq(conn_next(c, &line), LINES_NONE);
}

START_TEST(lines_both_ways)
{
	ck_assert_int_eq(conn_read(&a), 0);
	ck_assert_int_eq(conn_send_bytes(&a, "one\ntw", 6), 0);
	ck_assert_int_eq(conn_send_bytes(&a, "o\n", 2), 0);
	ck_assert(conn_wants_write(&a));
	ck_assert_uint_eq(a.out.bytes, 8);
	ck_assert_int_eq(conn_flush(&a), 0);
	ck_assert(!conn_wants_write(&a));
	ck_assert_uint_eq(a.out.bytes, 0);
	ck_assert_int_eq(conn_read(&b), 1);
	expect_line(&b, "one");
	expect_line(&b, "two");
	expect_none(&b);
	ck_assert_int_eq(b.sender, getpid());
	ck_assert_int_eq(conn_send_bytes(&b, "back\r\n", 6), 0);
	ck_assert_int_eq(conn_flush(&b), 0);
	ck_assert_int_eq(conn_read(&a), 1);
	expect_line(&a, "back");
	ck_assert_int_eq(conn_read(&a), 0);
	ck_assert(!a.eof);
}
END_TEST

START_TEST(initial_state_of_the_descriptor)
{
	int p[2];

	ck_assert(fcntl(a.fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
	/* No socket: refused, and still ours. */
	ck_assert_int_eq(pipe(p), 0);
	{
		struct conn c;

		ck_assert_int_eq(conn_init(&c, p[0], 10, 10, NULL), -ENOTSOCK);
		conn_deinit(&c);
	}
	ck_assert_int_eq(close(p[0]), 0);
	ck_assert_int_eq(close(p[1]), 0);
}
END_TEST

START_TEST(quota_at_its_edge)
{
	char *big = calloc(1, QUOTA_TEST);
	struct frame *f;

	ck_assert_ptr_nonnull(big);
	ck_assert_int_eq(conn_send_bytes(&a, big, QUOTA_TEST - 1), 0);
	ck_assert_int_eq(conn_send_bytes(&a, big, 2), -ENOBUFS);
	ck_assert_uint_eq(a.out.bytes, QUOTA_TEST - 1);
	ck_assert_uint_eq(a.out.count, 1);
	ck_assert_int_eq(conn_send_bytes(&a, big, 1), 0);
	ck_assert_int_eq(conn_send_bytes(&a, big, 1), -ENOBUFS);
	conn_deinit(&a);
	make_pair();
	/* Alone, anything goes; then nothing more. */
	f = frame_new(big, QUOTA_TEST, -1);
	a.quota = 10;
	ck_assert_int_eq(conn_send(&a, f), 0);
	ck_assert_uint_eq(f->refs, 2);
	ck_assert_int_eq(conn_send(&a, f), -ENOBUFS);
	ck_assert_uint_eq(f->refs, 2);
	conn_deinit(&a);
	ck_assert_uint_eq(f->refs, 1);
	(void)frame_unref(f);
	free(big);
}
END_TEST

START_TEST(frames_at_their_edge)
{
	struct frame *f = frame_new("\n", 1, -1);

	for (size_t i = 0; i < CONN_FRAMES_MAX; i++)
		ck_assert_int_eq(conn_send(&a, f), 0);
	ck_assert_int_eq(conn_send(&a, f), -ENOBUFS);
	ck_assert_uint_eq(a.out.count, CONN_FRAMES_MAX);
	(void)frame_unref(f);
}
END_TEST

START_TEST(empty_frames)
{
	struct frame *f = frame_new(NULL, 0, -1);

	ck_assert_int_eq(conn_send(&a, f), 0);
	ck_assert(!conn_wants_write(&a));
	(void)frame_unref(f);
	f = frame_new(NULL, 0, open_null());
	ck_assert_int_eq(conn_send(&a, f), -EINVAL);
	(void)frame_unref(f);
}
END_TEST

/* More than the socket takes at once, of many sizes: nothing is lost, doubled
 * or torn, and the queue's memory is given back. */
START_TEST(partial_writes_keep_order)
{
	char text[3000];
	struct span line;
	size_t in = 0, out = 0, n;

	memset(text, 'x', sizeof(text));
	while (out < 5000) {
		for (; in < 5000; in++) {
			n = (size_t)snprintf(text, 20, "%zu:", in);
			text[n] = 'x';
			n += in * 7919 % 2900;
			text[n] = '\n';
			if (conn_send_bytes(&a, text, n + 1) < 0) {
				text[n] = 'x';
				break;
			}
			text[n] = 'x';
		}
		ck_assert_int_eq(conn_flush(&a), 0);
		ck_assert_int_eq(conn_read(&b), 1);
		while (conn_next(&b, &line) == LINES_LINE) {
			ck_assert_uint_eq(strtoul(line.p, NULL, 10), out);
			n = (size_t)snprintf(NULL, 0, "%zu:", out);
			ck_assert_uint_eq(line.n, n + out * 7919 % 2900);
			out++;
		}
	}
	ck_assert(!conn_wants_write(&a));
	ck_assert_uint_eq(a.out.bytes, 0);
	ck_assert_uint_le(a.out.cap, 64);
	ck_assert_uint_le(b.lines.cap, LINES_KEEP_BYTES);
}
END_TEST

START_TEST(one_read_is_bounded)
{
	static char text[1u << 16];
	size_t sent = 0;
	struct span line;
	int size = 4 << 20;
	ssize_t n;

	(void)setsockopt(a.fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	memset(text, 'x', sizeof(text));
	for (size_t i = 99; i < sizeof(text); i += 100)
		text[i] = '\n';
	while ((n = send(a.fd, text, sizeof(text), MSG_DONTWAIT)) > 0)
		sent += (size_t)n;
	ck_assert_uint_gt(sent, CONN_READ_MAX / 2);
	while (sent > 0) {
		size_t before = b.lines.len;

		ck_assert_int_eq(conn_read(&b), 1);
		ck_assert_uint_le(b.lines.len - before, CONN_READ_MAX);
		sent -= b.lines.len - before;
		while (conn_next(&b, &line) == LINES_LINE)
			continue;
	}
}
END_TEST

START_TEST(line_too_long_goes_on)
{
	static char text[LINE_MAX_TEST * 3];
	struct span line;
	int reports = 0;

	memset(text, 'x', sizeof(text));
	a.quota = sizeof(text) + 10;
	ck_assert_int_eq(conn_send_bytes(&a, text, sizeof(text)), 0);
	ck_assert_int_eq(conn_send_bytes(&a, "\nnext\n", 6), 0);
	while (conn_wants_write(&a) || reports == 0) {
		ck_assert_int_eq(conn_flush(&a), 0);
		ck_assert_int_eq(conn_read(&b), 1);
		while (conn_wants_write(&a) &&
		       conn_next(&b, &line) == LINES_TOO_LONG)
			reports++;
		if (!conn_wants_write(&a))
			break;
	}
	while (conn_read(&b) > 0)
		continue;
	for (;;) {
		enum lines_result r = conn_next(&b, &line);

		if (r == LINES_LINE)
			break;
		ck_assert_int_eq(r, LINES_TOO_LONG);
		reports++;
	}
	ck_assert(span_eq_str(line, "next"));
	ck_assert_int_eq(reports, 1);
}
END_TEST

START_TEST(full_buffer_waits_for_the_owner)
{
	static char newlines[1u << 16];
	struct span line;
	size_t sent = 0, taken = 0;
	ssize_t n;

	memset(newlines, '\n', sizeof(newlines));
	for (int i = 0; i < 64; i++) {
		n = send(a.fd, newlines, sizeof(newlines), MSG_DONTWAIT);
		sent += n > 0 ? (size_t)n : 0;
		ck_assert_int_eq(conn_read(&b), 1);
	}
	ck_assert(lines_full(&b.lines));
	do {
		while (conn_next(&b, &line) == LINES_LINE)
			taken++;
	} while (conn_read(&b) > 0);
	ck_assert_uint_eq(taken, sent);
}
END_TEST

START_TEST(budget_drops_the_peer)
{
	struct lines_budget budget = {.max = LINES_KEEP_BYTES};
	static char text[LINES_FREE_BYTES + 2 * LINES_KEEP_BYTES];

	b.lines.budget = &budget;
	memset(text, 'x', sizeof(text));
	ck_assert_int_eq(conn_send_bytes(&a, text, sizeof(text)), 0);
	ck_assert_int_eq(conn_flush(&a), 0);
	ck_assert_int_eq(conn_read(&b), -ENOBUFS);
	conn_deinit(&b);
	ck_assert_uint_eq(budget.used, 0);
}
END_TEST

/* ---- descriptors ---- */

START_TEST(expected_descriptors_in_order)
{
	struct stat sent[3], got;
	struct frame *f;
	char text[20];
	int fd, p[2];

	ck_assert_int_eq(conn_expect_fds(&b), 0);
	ck_assert_int_eq(conn_take_fd(&b), -1);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(pipe(p), 0);
		(void)close(p[1]);
		ck_assert_int_eq(fstat(p[0], &sent[i]), 0);
		(void)snprintf(text, sizeof(text), "plain %d\n", i);
		ck_assert_int_eq(conn_send_bytes(&a, text, strlen(text)), 0);
		f = frame_new("with\n", 5, p[0]);
		ck_assert_int_eq(conn_send(&a, f), 0);
		(void)frame_unref(f);
	}
	ck_assert_int_eq(conn_flush(&a), 0);
	while (conn_read(&b) > 0)
		continue;
	ck_assert_uint_eq(b.fd_count, 3);
	for (int i = 0; i < 3; i++) {
		(void)snprintf(text, sizeof(text), "plain %d", i);
		expect_line(&b, text);
		expect_line(&b, "with");
		fd = conn_take_fd(&b);
		ck_assert_int_ge(fd, 0);
		ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		ck_assert_int_eq(fstat(fd, &got), 0);
		ck_assert_uint_eq(got.st_ino, sent[i].st_ino);
		(void)close(fd);
	}
	ck_assert_int_eq(conn_take_fd(&b), -1);
	ck_assert_uint_eq(b.fds_discarded, 0);
}
END_TEST

START_TEST(too_many_expected_descriptors)
{
	int fd = open_null();

	ck_assert_int_eq(conn_expect_fds(&b), 0);
	for (int i = 0; i < CONN_FDS_MAX; i++)
		ck_assert_int_eq(fd_send(a.fd, "x\n", 2, fd), 2);
	while (conn_read(&b) > 0)
		continue;
	ck_assert_uint_eq(b.fd_count, CONN_FDS_MAX);
	ck_assert_int_eq(fd_send(a.fd, "y\n", 2, fd), 2);
	ck_assert_int_eq(conn_read(&b), -ENOBUFS);
	ck_assert_uint_eq(b.fds_discarded, 1);
	/* What came stays readable. */
	for (int i = 0; i < CONN_FDS_MAX; i++)
		expect_line(&b, "x");
	(void)close(fd);
}
END_TEST

/* As many as one message carries, none of which stays open. */
START_TEST(pushed_descriptors_are_thrown_away)
{
	union {
		char space[CMSG_SPACE(FD_PASS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	char text[] = "hello\n";
	struct iovec iov = {text, sizeof(text) - 1};
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.space,
	                     .msg_controllen = sizeof(control.space)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
	int lowest, p[2], fds[FD_PASS_MAX];
	char byte;

	let_fds_through(&b);
	ck_assert_int_eq(pipe(p), 0);
	for (size_t i = 0; i < FD_PASS_MAX; i++)
		fds[i] = p[1];
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(h), fds, sizeof(fds));
	ck_assert_int_eq(sendmsg(a.fd, &msg, 0), 6);
	(void)close(p[1]);
	lowest = open_null();
	(void)close(lowest);
	ck_assert_int_eq(conn_read(&b), 1);
	ck_assert_uint_eq(b.fds_discarded, FD_PASS_MAX);
	expect_line(&b, "hello");
	ck_assert_int_eq(open_null(), lowest);
	(void)close(lowest);
	/* All copies of the writing end are gone: EOF. */
	ck_assert_int_eq(read(p[0], &byte, 1), 0);
	(void)close(p[0]);
}
END_TEST

START_TEST(pushed_descriptors_are_drained_before_close)
{
	int p[2];
	char byte;

	let_fds_through(&b);
	ck_assert_int_eq(pipe(p), 0);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(fd_send(a.fd, "zzzz", 4, p[1]), 4);
	(void)close(p[1]);
	conn_deinit(&b);
	conn_deinit(&b);
	ck_assert_int_eq(b.fd, -1);
	/* Bytes that were left unread would make this ECONNRESET. */
	ck_assert_int_eq(recv(a.fd, &byte, 1, 0), 0);
	ck_assert_int_eq(read(p[0], &byte, 1), 0);
	(void)close(p[0]);
}
END_TEST

/* ---- ends ---- */

START_TEST(eof_comes_after_the_lines)
{
	ck_assert_int_eq(conn_send_bytes(&a, "last\ntorn", 9), 0);
	ck_assert_int_eq(conn_flush(&a), 0);
	conn_deinit(&a);
	while (!b.eof)
		ck_assert_int_eq(conn_read(&b), 1);
	expect_line(&b, "last");
	expect_none(&b);
	ck_assert_int_eq(conn_send_bytes(&b, "x\n", 2), 0);
	ck_assert_int_eq(conn_flush(&b), -EPIPE);
}
END_TEST

/* Closing with unread bytes makes the other end see ECONNRESET; what had been
 * sent to it before is not lost. */
START_TEST(reset_counts_as_eof)
{
	ck_assert_int_eq(conn_send_bytes(&b, "never read\n", 11), 0);
	ck_assert_int_eq(conn_flush(&b), 0);
	ck_assert_int_eq(send(a.fd, "bye\n", 4, 0), 4);
	(void)close(a.fd);
	a.fd = -1;
	for (int i = 0; i < 3 && !b.eof; i++)
		ck_assert_int_eq(conn_read(&b), 1);
	ck_assert(b.eof);
	expect_line(&b, "bye");
}
END_TEST

/* One frame to many: nothing is copied, and a peer that doesn't read keeps
 * nobody waiting. */
START_TEST(broadcast)
{
	enum { PEERS = 20, ROUNDS = 500 };
	struct conn near[PEERS], far[PEERS];
	char text[256];
	struct span line;
	struct frame *f;
	size_t got = 0;
	int sv[2], r;

	for (int i = 0; i < PEERS; i++) {
		ck_assert_int_eq(fd_socketpair(sv, 1), 0);
		ck_assert_int_eq(conn_init(&near[i], sv[0], 1000, 30000, NULL),
		                 0);
		ck_assert_int_eq(conn_init(&far[i], sv[1], 1000, 1000, NULL),
		                 0);
	}
	memset(text, 'e', sizeof(text));
	text[sizeof(text) - 1] = '\n';
	for (int n = 0; n < ROUNDS; n++) {
		f = frame_new(text, sizeof(text), -1);
		for (int i = 0; i < PEERS; i++) {
			r = conn_send(&near[i], f);
			ck_assert(r == 0 || (i == 0 && r == -ENOBUFS));
			ck_assert_int_eq(conn_flush(&near[i]), 0);
		}
		(void)frame_unref(f);
		/* Number 0 never reads. */
		for (int i = 1; i < PEERS; i++) {
			ck_assert_int_eq(conn_read(&far[i]), 1);
			while (conn_next(&far[i], &line) == LINES_LINE)
				got += line.n == sizeof(text) - 1;
		}
	}
	ck_assert_uint_eq(got, (PEERS - 1) * ROUNDS);
	ck_assert_uint_le(near[0].out.bytes, 30000);
	for (int i = 0; i < PEERS; i++) {
		conn_deinit(&near[i]);
		conn_deinit(&far[i]);
	}
}
END_TEST

static Suite *conn_suite(void)
{
	Suite *s = suite_create("conn");
	TCase *t = tcase_create("conn");

	tcase_add_checked_fixture(t, make_pair, drop_pair);
	tcase_add_test(t, lines_both_ways);
	tcase_add_test(t, initial_state_of_the_descriptor);
	tcase_add_test(t, quota_at_its_edge);
	tcase_add_test(t, frames_at_their_edge);
	tcase_add_test(t, empty_frames);
	tcase_add_test(t, partial_writes_keep_order);
	tcase_add_test(t, one_read_is_bounded);
	tcase_add_test(t, line_too_long_goes_on);
	tcase_add_test(t, full_buffer_waits_for_the_owner);
	tcase_add_test(t, budget_drops_the_peer);
	tcase_add_test(t, expected_descriptors_in_order);
	tcase_add_test(t, too_many_expected_descriptors);
	tcase_add_test(t, pushed_descriptors_are_thrown_away);
	tcase_add_test(t, pushed_descriptors_are_drained_before_close);
	tcase_add_test(t, eof_comes_after_the_lines);
	tcase_add_test(t, reset_counts_as_eof);
	tcase_add_test(t, broadcast);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(conn_suite());
}
