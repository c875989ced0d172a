/*
 * check_listener.c - the server's socket: what may lie at its path, who wins a
 * race for it, what is left behind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/listener.h"
#include "tests/runner.h"

static char dir[64], path[128];

static void make_dir(void)
{
	(void)snprintf(dir, sizeof(dir), "%s/listener.XXXXXX", runner_tmpdir());
	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/comfymux.sock", dir);
}

/* Number of entries, so that no temporary name stays behind unnoticed. */
static int entries(void)
{
	DIR *d = opendir(dir);
	int n = -2; /* "." and ".." */

	ck_assert_ptr_nonnull(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

static int connect_to(const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	ck_assert_int_ge(fd, 0);
	memcpy(sa.sun_path, name, strlen(name) + 1);
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

/* What a killed server leaves. */
static void make_stale(int type)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path, path, strlen(path) + 1);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 1), 0);
	(void)close(fd);
}

static void expect_failure(enum error_code code, const char *text)
{
	struct listener l;
	struct error err;

	ck_assert_int_eq(listener_init(&l, path, 0600, &err), -1);
	ck_assert_msg(err.code == code && strstr(err.text, text), "%d: %s",
	              (int)err.code, err.text);
	ck_assert_int_eq(l.fd, -1);
	listener_deinit(&l);
}

START_TEST(life)
{
	struct listener l = LISTENER_NULL;
	struct stat st;
	int near, far;

	listener_deinit(&l);
	(void)umask(0077);
	ck_assert_int_eq(listener_init(&l, path, 0666, NULL), 0);
	ck_assert_int_eq(entries(), 1);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	/* The mode asked for, whatever the umask. */
	ck_assert_uint_eq(st.st_mode & 07777, 0666);
	ck_assert_int_eq(listener_accept(&l), -EAGAIN);
	far = connect_to(path);
	ck_assert_int_ge(far, 0);
	near = listener_accept(&l);
	ck_assert_int_ge(near, 0);
	ck_assert(fcntl(near, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(near, F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(write(near, "x", 1), 1);
	listener_deinit(&l);
	listener_deinit(&l);
	ck_assert_int_eq(entries(), 0);
	(void)close(near);
	(void)close(far);
}
END_TEST

START_TEST(mode_is_never_wider)
{
	struct listener l;
	struct stat st;

	(void)umask(0);
	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	listener_deinit(&l);
}
END_TEST

START_TEST(stale_is_replaced)
{
	struct listener l;
	int fd;

	make_stale(SOCK_STREAM);
	ck_assert_int_eq(connect_to(path), -ECONNREFUSED);
	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	fd = connect_to(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(entries(), 1);
	(void)close(fd);
	listener_deinit(&l);
	ck_assert_int_eq(entries(), 0);
}
END_TEST

START_TEST(live_is_left_alone)
{
	struct listener l;
	int fd;

	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	expect_failure(ERR_BUSY, path);
	fd = connect_to(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(entries(), 1);
	(void)close(fd);
	listener_deinit(&l);
}
END_TEST

/* Its queue is full because it doesn't accept: alive all the same. */
START_TEST(busy_is_not_stale)
{
	struct listener l;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, n = 0;

	memcpy(sa.sun_path, path, strlen(path) + 1);
	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	ck_assert_int_eq(listen(l.fd, 0), 0);
	do {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		            0);
		ck_assert_int_ge(fd, 0);
		ck_assert_int_lt(n++, 100);
	} while (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0);
	ck_assert_int_eq(errno, EAGAIN);
	expect_failure(ERR_BUSY, path);
	listener_deinit(&l);
}
END_TEST

START_TEST(what_is_no_socket_is_left_alone)
{
	static const char text[] = "precious";
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct stat st;

	ck_assert_int_eq(write(fd, text, sizeof(text)), sizeof(text));
	(void)close(fd);
	expect_failure(ERR_INVALID, "not a socket");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, sizeof(text));
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	expect_failure(ERR_INVALID, "not a socket");
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("elsewhere", path), 0);
	expect_failure(ERR_INVALID, "not a socket");
	ck_assert_int_eq(entries(), 1);
	ck_assert_int_eq(unlink(path), 0);
	make_stale(SOCK_DGRAM);
	{
		/* A datagram socket that somebody has open. */
		struct sockaddr_un sa = {.sun_family = AF_UNIX};
		int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		ck_assert_int_eq(unlink(path), 0);
		memcpy(sa.sun_path, path, strlen(path) + 1);
		ck_assert_int_eq(
			bind(other, (const struct sockaddr *)&sa, sizeof(sa)),
			0);
		expect_failure(ERR_INVALID, "another kind");
		(void)close(other);
	}
}
END_TEST

START_TEST(bad_paths)
{
	(void)snprintf(path, sizeof(path), "%s/missing/comfymux.sock", dir);
	expect_failure(ERR_NOT_FOUND, "/missing/ does not exist");
	(void)snprintf(path, sizeof(path), "%s/", dir);
	expect_failure(ERR_INVALID, "names no file");
	path[0] = '\0';
	expect_failure(ERR_INVALID, "names no file");
	(void)snprintf(path, sizeof(path), "/dev/null/comfymux.sock");
	expect_failure(ERR_SYSTEM, "Not a directory");
	(void)snprintf(path, sizeof(path), "/proc/comfymux.sock");
	expect_failure(ERR_SYSTEM, "cannot make the socket");
	ck_assert_int_eq(entries(), 0);
}
END_TEST

START_TEST(path_length_at_its_edge)
{
	size_t n = strlen(dir);
	struct listener l;
	int fd;

	/* One letter as the name, so that a longer temporary one would not
	 * fit; then a long name. */
	memcpy(path, dir, n);
	path[n] = '/';
	memset(path + n + 1, 'd', LISTENER_PATH_MAX - n - 3);
	path[LISTENER_PATH_MAX - 2] = '\0';
	ck_assert_int_eq(mkdir(path, 0700), 0);
	memcpy(path + LISTENER_PATH_MAX - 2, "/s", 3);
	ck_assert_uint_eq(strlen(path), LISTENER_PATH_MAX);
	/* Often enough for the temporary name to come out the same. */
	for (int i = 0; i < 300; i++) {
		ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
		fd = connect_to(path);
		ck_assert_int_ge(fd, 0);
		(void)close(fd);
		listener_deinit(&l);
	}

	memset(path + n + 1, 's', LISTENER_PATH_MAX - n - 1);
	path[LISTENER_PATH_MAX] = '\0';
	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	listener_deinit(&l);
	path[LISTENER_PATH_MAX] = 's';
	path[LISTENER_PATH_MAX + 1] = '\0';
	expect_failure(ERR_INVALID,
	               "too long: 108 bytes, the system takes 107");
}
END_TEST

START_TEST(no_permission)
{
	int status;
	pid_t pid;

	ck_assert_int_eq(chmod(dir, 0555), 0);
	if (geteuid() != 0) {
		expect_failure(ERR_DENIED, "no permission to write");
		return;
	}
	ck_assert_int_eq(chmod(runner_tmpdir(), 0755), 0);
	pid = fork();
	if (pid == 0) {
		struct listener l;
		struct error err;

		if (setuid(1234) < 0)
			_exit(2);
		_exit(listener_init(&l, path, 0600, &err) == -1 &&
		                      err.code == ERR_DENIED &&
		                      strstr(err.text, "no permission to write")
		              ? 0
		              : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* Somebody else's file under our name is not ours to remove. */
START_TEST(successor_is_not_unlinked)
{
	struct listener a, b;
	int fd;

	ck_assert_int_eq(listener_init(&a, path, 0600, NULL), 0);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(listener_init(&b, path, 0600, NULL), 0);
	listener_deinit(&a);
	fd = connect_to(path);
	ck_assert_int_ge(fd, 0);
	(void)close(fd);
	listener_deinit(&b);
	ck_assert_int_eq(entries(), 0);
}
END_TEST

START_TEST(locked_directory)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_eq(flock(fd, LOCK_EX), 0);
	expect_failure(ERR_BUSY, "lock");
	ck_assert_int_eq(entries(), 0);
	(void)close(fd);
}
END_TEST

/* In a child: waits for the start signal, reports '+' or '-', and serves until
 * told to end. */
static ATTR_NORETURN void race(int start, int report, int end)
{
	struct listener l;
	struct error err;
	char byte;
	int r;

	if (read(start, &byte, 1) != 0)
		_exit(1);
	r = listener_init(&l, path, 0600, &err);
	byte = r == 0 ? '+' : err.code == ERR_BUSY ? '-' : '?';
	if (write(report, &byte, 1) != 1 || read(end, &byte, 1) != 0)
		_exit(1);
	listener_deinit(&l);
	_exit(0);
}

START_TEST(one_wins_the_race)
{
	enum { RACERS = 8 };
	int start[2], report[2], end[2], winners = 0, status, fd;
	pid_t pids[RACERS];
	char byte;

	make_stale(SOCK_STREAM);
	ck_assert_int_eq(pipe(start), 0);
	ck_assert_int_eq(pipe(report), 0);
	ck_assert_int_eq(pipe(end), 0);
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		ck_assert_int_ge(pids[i], 0);
		if (pids[i] == 0) {
			(void)close(start[1]);
			(void)close(end[1]);
			race(start[0], report[1], end[0]);
		}
	}
	(void)close(start[1]);
	for (int i = 0; i < RACERS; i++) {
		ck_assert_int_eq(read(report[0], &byte, 1), 1);
		ck_assert(byte == '+' || byte == '-');
		winners += byte == '+';
	}
	ck_assert_int_eq(winners, 1);
	/* And it is the winner who can be reached. */
	fd = connect_to(path);
	ck_assert_int_ge(fd, 0);
	(void)close(fd);
	ck_assert_int_eq(entries(), 1);
	(void)close(end[1]);
	for (int i = 0; i < RACERS; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(entries(), 0);
	(void)close(start[0]);
	(void)close(report[0]);
	(void)close(report[1]);
	(void)close(end[0]);
}
END_TEST

START_TEST(adopted_is_never_unlinked)
{
	struct listener l, adopted;
	int near, far;

	ck_assert_int_eq(listener_init(&l, path, 0600, NULL), 0);
	ck_assert_int_eq(listener_adopt(&adopted, dup(l.fd)), 0);
	far = connect_to(path);
	near = listener_accept(&adopted);
	ck_assert_int_ge(near, 0);
	(void)close(near);
	(void)close(far);
	listener_deinit(&adopted);
	ck_assert_int_eq(entries(), 1);
	ck_assert_int_eq(listener_adopt(&adopted, 999), -EBADF);
	listener_deinit(&adopted);
	listener_deinit(&l);
}
END_TEST

static Suite *listener_suite(void)
{
	Suite *s = suite_create("listener");
	TCase *t = tcase_create("listener");

	tcase_add_checked_fixture(t, make_dir, NULL);
	tcase_add_test(t, life);
	tcase_add_test(t, mode_is_never_wider);
	tcase_add_test(t, stale_is_replaced);
	tcase_add_test(t, live_is_left_alone);
	tcase_add_test(t, busy_is_not_stale);
	tcase_add_test(t, what_is_no_socket_is_left_alone);
	tcase_add_test(t, bad_paths);
	tcase_add_test(t, path_length_at_its_edge);
	tcase_add_test(t, no_permission);
	tcase_add_test(t, successor_is_not_unlinked);
	tcase_add_test(t, locked_directory);
	tcase_add_loop_test(t, one_wins_the_race, 0, 20);
	tcase_add_test(t, adopted_is_never_unlinked);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(listener_suite());
}
