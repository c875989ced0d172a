/*
 * check_fdutil.c - flags, passing, throwing away, whole files.
 */
#include "common/fdutil.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/runner.h"

#define LINGER_S    4     /* what the stranger asks for */
#define SOON_MS     2000  /* far below that, far above what is needed */
#define DEADLINE_MS 20000 /* until a child must be through */

static int open_count(void)
{
	int n = 0;

	for (int fd = 0; fd < 2048; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void make_pair(int sv[2])
{
	ck_assert_int_eq(fd_socketpair(sv, 1), 0);
}

/* As a stranger does: many descriptors in one message. */
static void push(int sock, const int *fds, size_t n)
{
	union {
		char space[CMSG_SPACE(FD_PASS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.space,
	                     .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	memset(&control, 0, sizeof(control));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	ck_assert_int_eq(sendmsg(sock, &msg, MSG_NOSIGNAL), 1);
}

START_TEST(flags)
{
	int p[2], sv[2];

	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(fd_set_nonblock(p[0]), 0);
	ck_assert_int_ne(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_eq(fd_set_cloexec(p[0]), 0);
	ck_assert_int_ne(fcntl(p[0], F_GETFD) & FD_CLOEXEC, 0);
	(void)close(p[0]);
	(void)close(p[1]);
	ck_assert_int_eq(fd_set_nonblock(p[0]), -EBADF);
	ck_assert_int_eq(fd_set_cloexec(p[0]), -EBADF);
	for (int nonblock = 0; nonblock < 2; nonblock++) {
		ck_assert_int_eq(fd_socketpair(sv, nonblock), 0);
		ck_assert_int_eq((fcntl(sv[1], F_GETFL) & O_NONBLOCK) != 0,
		                 nonblock);
		ck_assert_int_ne(fcntl(sv[0], F_GETFD) & FD_CLOEXEC, 0);
		(void)close(sv[0]);
		(void)close(sv[1]);
	}
}
END_TEST

START_TEST(send_and_receive)
{
	int sv[2], p[2], fds[FD_PASS_MAX];
	char data[16], byte = 0;
	size_t n = 99;

	make_pair(sv);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(fd_recv(sv[1], data, sizeof(data), fds, &n), -EAGAIN);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(fd_send(sv[0], "plain", 5, -1), 5);
	ck_assert_int_eq(fd_recv(sv[1], data, sizeof(data), fds, &n), 5);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(fd_send(sv[0], "with", 4, p[1]), 4);
	ck_assert_int_ge(fcntl(p[1], F_GETFD), 0); /* still ours */
	ck_assert_int_eq(fd_recv(sv[1], data, sizeof(data), fds, &n), 4);
	ck_assert_mem_eq(data, "with", 4);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_ne(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, 0);
	ck_assert_int_eq(write(fds[0], "y", 1), 1);
	ck_assert_int_eq(read(p[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'y');
	(void)close(fds[0]);
	(void)close(sv[0]);
	ck_assert_int_eq(fd_recv(sv[1], data, sizeof(data), fds, &n), 0);
	/* No SIGPIPE. */
	ck_assert_int_eq(fd_send(sv[1], "x", 1, -1), -EPIPE);
	(void)close(sv[1]);
	(void)close(p[0]);
	(void)close(p[1]);
}
END_TEST

START_TEST(full_socket_says_so)
{
	int sv[2];
	ssize_t n;

	/* Blocking sockets: it must not matter. */
	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	do {
		n = fd_send(sv[0], "0123456789abcdef", 16, -1);
	} while (n > 0);
	ck_assert_int_eq(n, -EAGAIN);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

START_TEST(as_many_as_a_message_carries)
{
	int before = open_count(), fds[FD_PASS_MAX], copies[FD_PASS_MAX];
	int sv[2];
	size_t n;
	char byte;

	make_pair(sv);
	for (int i = 0; i < FD_PASS_MAX; i++)
		copies[i] = sv[0];
	push(sv[0], copies, FD_PASS_MAX);
	/* Credentials come before descriptors and take room. */
	ck_assert_int_eq(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &(int){1},
	                            sizeof(int)),
	                 0);
	ck_assert_int_eq(fd_recv(sv[1], &byte, 1, fds, &n), 1);
	ck_assert_uint_eq(n, FD_PASS_MAX);
	ck_assert_int_eq(open_count(), before + 2 + FD_PASS_MAX);
	fd_discard(fds, n);
	ck_assert_int_eq(open_count(), before + 2);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

/* EOF must come to us from the peer's end, not hang on a child of ours. */
static void await_hangup(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	ck_assert_int_eq(poll(&p, 1, DEADLINE_MS), 1);
	ck_assert_int_ne(p.revents & POLLHUP, 0);
}

START_TEST(discarded_are_really_closed)
{
	int sv[2], other[2], eof[2];
	int64_t start_ms = clock_ms();

	make_pair(sv);
	make_pair(other);
	ck_assert_int_eq(pipe2(eof, O_CLOEXEC), 0);
	fd_discard(&sv[1], 1);
	ck_assert_int_lt(fcntl(sv[1], F_GETFD), 0);
	await_hangup(sv[0]);
	/* Nor does the child keep what is not its own. */
	(void)close(other[1]);
	await_hangup(other[0]);
	ck_assert_int_lt(clock_ms() - start_ms, DEADLINE_MS);
	fd_discard(NULL, 0);
	(void)close(sv[0]);
	(void)close(other[0]);
	(void)close(eof[0]);
	(void)close(eof[1]);
}
END_TEST

static int sigchlds;

static void on_sigchld(int sig)
{
	sigchlds++;
}

START_TEST(no_child_is_left_or_heard_of)
{
	struct sigaction sa = {.sa_handler = on_sigchld}, old;
	int sv[2], fds[2];

	sigchlds = 0;
	ck_assert_int_eq(sigaction(SIGCHLD, &sa, &old), 0);
	for (int i = 0; i < 20; i++) {
		make_pair(sv);
		fds[0] = sv[1];
		fds[1] = open("/dev/null", O_RDONLY);
		ck_assert_int_ge(fds[1], 0);
		fd_discard(fds, 2);
		await_hangup(sv[0]);
		(void)close(sv[0]);
	}
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG | __WALL), -1);
	ck_assert_int_eq(errno, ECHILD);
	ck_assert_int_eq(sigchlds, 0);
	ck_assert_int_eq(sigaction(SIGCHLD, &old, NULL), 0);
}
END_TEST

/* A child of the caller's stays the caller's to reap. */
START_TEST(callers_children_are_left_alone)
{
	pid_t pid = fork();
	int sv[2], status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(7);
	make_pair(sv);
	fd_discard(&sv[1], 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 7);
	(void)close(sv[0]);
}
END_TEST

START_TEST(works_where_children_are_ignored)
{
	struct sigaction sa = {.sa_handler = SIG_IGN}, old;
	int sv[2];

	ck_assert_int_eq(sigaction(SIGCHLD, &sa, &old), 0);
	make_pair(sv);
	fd_discard(&sv[1], 1);
	await_hangup(sv[0]);
	(void)close(sv[0]);
	ck_assert_int_eq(sigaction(SIGCHLD, &old, NULL), 0);
}
END_TEST

/* A TCP connection with unsent data and SO_LINGER: whoever closes it last,
 * waits. Returns the lingering end; *peerp never reads. */
static int make_lingering(int *peerp)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger linger = {.l_onoff = 1, .l_linger = LINGER_S};
	socklen_t len = sizeof(sa);
	static char junk[65536];
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(l, 1), 0);
	ck_assert_int_eq(getsockname(l, (struct sockaddr *)&sa, &len), 0);
	ck_assert_int_eq(connect(s, (struct sockaddr *)&sa, sizeof(sa)), 0);
	*peerp = accept(l, NULL, NULL);
	ck_assert_int_ge(*peerp, 0);
	(void)close(l);
	while (send(s, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	ck_assert_int_eq(
		setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)),
		0);
	return s;
}

/* Without fd_discard() the same socket does block: else the next test would
 * prove nothing. */
START_TEST(lingering_close_blocks)
{
	int64_t start_ms;
	int peer, s = make_lingering(&peer);

	start_ms = clock_ms();
	(void)close(s);
	ck_assert_int_ge(clock_ms() - start_ms, SOON_MS);
	(void)close(peer);
}
END_TEST

static int64_t ms_to_discard_lingering(void)
{
	int sv[2], fds[FD_PASS_MAX], peer, s = make_lingering(&peer);
	int64_t took_ms;
	size_t n;
	char byte;

	make_pair(sv);
	push(sv[0], &s, 1);
	(void)close(s);
	took_ms = -clock_ms();
	ck_assert_int_eq(fd_recv(sv[1], &byte, 1, fds, &n), 1);
	ck_assert_uint_eq(n, 1);
	fd_discard(fds, n);
	ck_assert_int_lt(fcntl(fds[0], F_GETFD), 0);
	took_ms += clock_ms();
	(void)close(peer);
	(void)close(sv[0]);
	(void)close(sv[1]);
	return took_ms;
}

/* One that blocks does so each time, a busy machine doesn't. */
START_TEST(lingering_socket_is_discarded_at_once)
{
	int64_t took_ms = SOON_MS;

	for (int i = 0; i < 3 && took_ms >= SOON_MS; i++)
		took_ms = ms_to_discard_lingering();
	ck_assert_int_lt(took_ms, SOON_MS);
}
END_TEST

/* The message filled the table: no descriptor is left for any means that
 * needs one. */
START_TEST(discard_with_a_full_table)
{
	struct rlimit old, low;
	int sv[2], fds[FD_PASS_MAX];
	size_t n = 0;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = 128;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
	make_pair(sv);
	while (n < FD_PASS_MAX && (fds[n] = dup(sv[1])) >= 0)
		n++;
	ck_assert_uint_gt(n, 0);
	ck_assert_int_eq(errno, EMFILE);
	fd_discard(fds, n);
	(void)close(sv[1]);
	await_hangup(sv[0]);
	(void)close(sv[0]);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
}
END_TEST

static bool under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "vgpreload");
}

/* Regular files go another way; its process shares our table, which valgrind
 * doesn't know. */
START_TEST(regular_files_are_closed_for_us)
{
	int64_t deadline_ms = clock_ms() + DEADLINE_MS;
	struct timespec pause = {.tv_nsec = 1000000};
	char path[256];
	int fd, p[2];

	if (under_valgrind())
		return;
	ck_assert_int_gt(
		snprintf(path, sizeof(path), "%s/file", runner_tmpdir()), 0);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	fd_discard(&fd, 1);
	while (fcntl(fd, F_GETFD) >= 0) {
		ck_assert_int_lt(clock_ms(), deadline_ms);
		(void)nanosleep(&pause, NULL);
	}
	/* Nothing else was closed in the shared table. */
	ck_assert_int_eq(write(p[1], "x", 1), 1);
	(void)close(p[0]);
	(void)close(p[1]);
}
END_TEST

/* --- whole files
 * -------------------------------------------------------------- */

static const char *in_tmpdir(const char *name)
{
	static char path[4096];

	ck_assert_int_lt(
		snprintf(path, sizeof(path), "%s/%s", runner_tmpdir(), name),
		(int)sizeof(path));
	return path;
}

START_TEST(files_go_round)
{
	const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000};
	const char *path = in_tmpdir("round");
	size_t size = sizes[_i], len;
	char *in = malloc(size + 1), *got;

	for (size_t i = 0; i < size; i++)
		in[i] = (char)(i * 7);
	ck_assert_int_eq(fd_write_file(path, in, size, 0600), 0);
	ck_assert_int_eq(fd_read_file(path, size, &got, &len), 0);
	ck_assert_uint_eq(len, size);
	ck_assert_int_eq(memcmp(in, got, size), 0);
	ck_assert_int_eq(got[size], '\0');
	free(got);
	got = NULL;
	if (size > 0) {
		ck_assert_int_eq(fd_read_file(path, size - 1, &got, &len),
		                 -EFBIG);
		ck_assert_ptr_null(got);
	}
	ck_assert_int_eq(fd_read_file(path, SIZE_MAX, &got, NULL), 0);
	free(got);
	free(in);
}
END_TEST

START_TEST(reading_what_is_not_there)
{
	char *got;

	ck_assert_int_eq(fd_read_file(in_tmpdir("none"), 10, &got, NULL),
	                 -ENOENT);
	ck_assert_int_eq(fd_read_file(runner_tmpdir(), 10, &got, NULL),
	                 -EISDIR);
}
END_TEST

START_TEST(mode_is_exact)
{
	const char *path = in_tmpdir("mode");
	mode_t old = umask(077);
	struct stat st;

	ck_assert_int_eq(fd_write_file(path, "x", 1, 0644), 0);
	(void)umask(old);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
}
END_TEST

static int entries_matching(const char *prefix)
{
	char command[4300];
	int n = -1;
	FILE *f;

	ck_assert_int_gt(snprintf(command, sizeof(command),
	                          "ls -A '%s' | grep -c '^%s'", runner_tmpdir(),
	                          prefix),
	                 0);
	f = popen(command, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%d", &n), 1);
	(void)pclose(f);
	return n;
}

/* Readers see the old content or the new, never a part; nothing is left
 * behind. */
START_TEST(replacing_is_atomic)
{
	const char *path = in_tmpdir("atomic");
	char *got;
	int fd;

	ck_assert_int_eq(fd_write_file(path, "old", 3, 0600), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(fd_write_file(path, "newer", 5, 0600), 0);
	ck_assert_int_eq(fd_read_file(path, 10, &got, NULL), 0);
	ck_assert_str_eq(got, "newer");
	free(got);
	got = calloc(1, 16);
	ck_assert_int_eq(read(fd, got, 15), 3);
	ck_assert_str_eq(got, "old");
	free(got);
	(void)close(fd);
	ck_assert_int_eq(entries_matching("atomic"), 1);
}
END_TEST

START_TEST(failed_write_leaves_nothing)
{
	char dir[4096], longest[5000];

	ck_assert_int_eq(fd_write_file(in_tmpdir("no/such"), "x", 1, 0600),
	                 -ENOENT);
	/* The rename fails: a directory is in the way. */
	memcpy(dir, in_tmpdir("taken"), sizeof(dir));
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	ck_assert_int_eq(fd_write_file(dir, "x", 1, 0600), -EISDIR);
	ck_assert_int_eq(entries_matching("taken"), 1);
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_int_eq(fd_write_file(longest, "x", 1, 0600), -ENAMETOOLONG);
}
END_TEST

/* A full disk, by the limit on file sizes. */
START_TEST(no_room_keeps_the_old_content)
{
	const char *path = in_tmpdir("full");
	struct rlimit old, low;
	char *got;
	int r;

	ck_assert_int_eq(fd_write_file(path, "old", 3, 0600), 0);
	ck_assert_ptr_ne(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = 4;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
	r = fd_write_file(path, "123456", 6, 0600);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert_int_eq(r, -EFBIG);
	ck_assert_int_eq(fd_read_file(path, 10, &got, NULL), 0);
	ck_assert_str_eq(got, "old");
	free(got);
	ck_assert_int_eq(entries_matching("full"), 1);
}
END_TEST

START_TEST(relative_path)
{
	char *cwd = getcwd(NULL, 0), *got;

	ck_assert_int_eq(chdir(runner_tmpdir()), 0);
	ck_assert_int_eq(fd_write_file("here", "x", 1, 0600), 0);
	ck_assert_int_eq(fd_read_file("here", 1, &got, NULL), 0);
	free(got);
	ck_assert_int_eq(chdir(cwd), 0);
	free(cwd);
}
END_TEST

static Suite *fdutil_suite(void)
{
	Suite *s = suite_create("fdutil");
	TCase *t = tcase_create("fdutil");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, flags);
	tcase_add_test(t, send_and_receive);
	tcase_add_test(t, full_socket_says_so);
	tcase_add_test(t, as_many_as_a_message_carries);
	tcase_add_test(t, discarded_are_really_closed);
	tcase_add_test(t, no_child_is_left_or_heard_of);
	tcase_add_test(t, callers_children_are_left_alone);
	tcase_add_test(t, works_where_children_are_ignored);
	tcase_add_test(t, lingering_close_blocks);
	tcase_add_test(t, lingering_socket_is_discarded_at_once);
	tcase_add_test(t, discard_with_a_full_table);
	tcase_add_test(t, regular_files_are_closed_for_us);
	tcase_add_loop_test(t, files_go_round, 0, 6);
	tcase_add_test(t, reading_what_is_not_there);
	tcase_add_test(t, mode_is_exact);
	tcase_add_test(t, replacing_is_atomic);
	tcase_add_test(t, failed_write_leaves_nothing);
	tcase_add_test(t, no_room_keeps_the_old_content);
	tcase_add_test(t, relative_path);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(fdutil_suite());
}
