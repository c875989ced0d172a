/*
 * check_out.c - writing without blocking and without O_NONBLOCK on what we
 * inherited.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/runner.h"
#include "workers/front/out.h"

#define BIG (1u << 20)

static struct ev_loop *loop;

static void setup(void)
{
	loop = ev_loop_new(0);
	ck_assert_ptr_nonnull(loop);
	(void)signal(SIGPIPE, SIG_IGN);
}

static void teardown(void)
{
	ev_loop_destroy(loop);
}

/* Reads everything while the loop writes; both ends are ours. */
static size_t drain(struct out *o, int fd, size_t want)
{
	static char chunk[7000];
	size_t got = 0;

	while (got < want) {
		ssize_t n = read(fd, chunk, sizeof(chunk));

		ck_assert_int_gt(n, 0);
		/* An assertion for each byte would take seconds. */
		for (ssize_t i = 0; i < n; i++)
			if (chunk[i] != (char)('a' + (got + (size_t)i) % 23))
				ck_abort_msg("byte %zu", got + (size_t)i);
		got += (size_t)n;
		(void)ev_run(loop, EVRUN_NOWAIT);
	}
	ck_assert_uint_eq(out_queued(o), 0);
	return got;
}

static char *pattern(size_t len)
{
	char *p = malloc(len);

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)('a' + i % 23);
	return p;
}

static void whole_transfer(int reader, int writer)
{
	int flags = fcntl(writer, F_GETFL);
	char *data = pattern(BIG);
	struct out o;

	out_init(&o, loop, writer, BIG);
	/* Nobody reads yet: this returns all the same. */
	ck_assert_int_eq(out_write(&o, data, BIG), 0);
	ck_assert_uint_gt(out_queued(&o), 0);
	/* The bound holds, and what is queued is not harmed by it. */
	ck_assert_int_eq(out_write(&o, data, BIG), -EMSGSIZE);
	ck_assert_uint_eq(drain(&o, reader, BIG), BIG);
	ck_assert_int_eq(fcntl(writer, F_GETFL), flags);
	out_deinit(&o);
	out_deinit(&o);
	free(data);
}

START_TEST(test_pipe)
{
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	whole_transfer(fd[0], fd[1]);
	(void)close(fd[0]);
	(void)close(fd[1]);
}
END_TEST

START_TEST(test_socket)
{
	int fd[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	whole_transfer(fd[0], fd[1]);
	(void)close(fd[0]);
	(void)close(fd[1]);
}
END_TEST

START_TEST(test_lines_are_whole)
{
	char chunk[64];
	struct out o;
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	out_init(&o, loop, fd[1], 8);
	ck_assert_int_eq(out_write_line(&o, "1234567", 7), 0);
	ck_assert_int_eq(read(fd[0], chunk, sizeof(chunk)), 8);
	ck_assert_int_eq(memcmp(chunk, "1234567\n", 8), 0);
	/* The newline would be one too many: nothing of it is written. */
	ck_assert_int_eq(out_write_line(&o, "12345678", 8), -EMSGSIZE);
	ck_assert_int_eq(out_write_line(&o, "", 0), 0);
	ck_assert_int_eq(read(fd[0], chunk, sizeof(chunk)), 1);
	ck_assert_int_eq(chunk[0], '\n');
	out_deinit(&o);
	(void)close(fd[0]);
	(void)close(fd[1]);
}
END_TEST

static void on_broken(void *user)
{
	++*(int *)user;
}

START_TEST(test_reader_gone)
{
	struct out o;
	int fd[2], broken = 0;

	ck_assert_int_eq(pipe(fd), 0);
	out_init(&o, loop, fd[1], BIG);
	o.on_broken = on_broken;
	o.user = &broken;
	(void)close(fd[0]);
	ck_assert_int_eq(out_write(&o, "x", 1), -EPIPE);
	ck_assert_int_eq(o.error, EPIPE);
	ck_assert_int_eq(broken, 1);
	ck_assert_int_eq(out_write(&o, "x", 1), -EPIPE);
	ck_assert_int_eq(broken, 1);
	out_deinit(&o);
	(void)close(fd[1]);
}
END_TEST

START_TEST(test_finish_gives_up)
{
	char *data = pattern(BIG);
	struct out o;
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	out_init(&o, loop, fd[1], BIG);
	ck_assert_int_eq(out_write(&o, data, BIG), 0);
	out_finish(&o, 10);
	ck_assert_uint_gt(out_queued(&o), 0);
	out_deinit(&o);
	free(data);
	(void)close(fd[0]);
	(void)close(fd[1]);
}
END_TEST

static Suite *out_suite(void)
{
	Suite *s = suite_create("out");
	TCase *t = tcase_create("out");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_pipe);
	tcase_add_test(t, test_socket);
	tcase_add_test(t, test_lines_are_whole);
	tcase_add_test(t, test_reader_gone);
	tcase_add_test(t, test_finish_gives_up);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(out_suite());
}
