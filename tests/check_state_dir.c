/*
 * check_state_dir.c - the state directory: made, refused, locked against a
 * second supervisor, the client id kept, damaged, renewed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/log.h"
#include "supervisor/state_dir.h"
#include "tests/runner.h"

#define ID         "0b1f2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
#define OTHER_USER 65534 /* nobody */

static struct state_dir s;
static struct error err;
static char dir[PATH_MAX];

static const char *in_dir(const char *name)
{
	static char path[PATH_MAX];

	ck_assert_int_lt(snprintf(path, sizeof(path), "%s/%s", dir, name),
	                 (int)sizeof(path));
	return path;
}

static void put(const char *name, const char *text, size_t len)
{
	ck_assert_int_eq(fd_write_file(in_dir(name), text, len, 0600), 0);
}

static bool is_there(const char *name)
{
	struct stat st;

	return lstat(in_dir(name), &st) == 0;
}

static void setup(void)
{
	static unsigned int count;

	/* The warnings are not what is looked at. */
	log_set_level(LOG_LEVEL_ERROR);
	s = (struct state_dir)STATE_DIR_NULL;
	memset(&err, 0, sizeof(err));
	ck_assert_int_lt(snprintf(dir, sizeof(dir), "%s/state%u",
	                          runner_tmpdir(), ++count),
	                 (int)sizeof(dir));
	ck_assert_int_eq(mkdir(dir, 0700), 0);
}

static void teardown(void)
{
	state_dir_close(&s);
	/* What a refused test left unreadable; the rest goes with the
	 * process. */
	(void)chmod(dir, 0700);
}

static void open_ok(const char *path)
{
	int r = state_dir_open(&s, path, &err);

	ck_assert_msg(r == 0, "%s", err.text);
}

static void open_fails(const char *path, enum error_code code, const char *part)
{
	ck_assert_int_eq(state_dir_open(&s, path, &err), -1);
	ck_assert_msg(strstr(err.text, part), "\"%s\" lacks \"%s\"", err.text,
	              part);
	ck_assert_int_eq(err.code, code);
	ck_assert_int_eq(s.dirfd, -1);
	ck_assert_int_eq(s.lockfd, -1);
	ck_assert_ptr_null(s.path);
}

/* --- the directory -------------------------------------------------------- */

START_TEST(test_made_with_parents)
{
	struct stat st;

	(void)umask(0022);
	open_ok(in_dir("a/b//c/"));
	for (int i = 0; i < 3; i++) {
		static const char *const made[] = {"a", "a/b", "a/b/c"};

		ck_assert_int_eq(stat(in_dir(made[i]), &st), 0);
		ck_assert_int_eq(st.st_mode & 07777, 0700);
	}
	ck_assert_str_eq(s.path, in_dir("a/b/c"));
	ck_assert_int_eq(fcntl(s.dirfd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(s.lockfd, F_GETFD), FD_CLOEXEC);
}
END_TEST

START_TEST(test_relative_becomes_absolute)
{
	ck_assert_int_eq(chdir(dir), 0);
	open_ok("sub");
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_str_eq(s.path, in_dir("sub"));
	ck_assert_str_eq(state_dir_file(&s, "db"), in_dir("sub/db"));
	ck_assert_int_eq(state_dir_renew_client_id(&s, &err), 0);
}
END_TEST

START_TEST(test_not_a_directory)
{
	put("file", "x", 1);
	open_fails(in_dir("file"), ERR_INVALID, "is not a directory");
	open_fails(in_dir("file/sub"), ERR_INVALID, "file is not a directory");
	open_fails("", ERR_INVALID, "no name");
	ck_assert_int_eq(symlink("nowhere", in_dir("dangling")), 0);
	open_fails(in_dir("dangling"), ERR_SYSTEM, "dangling");
}
END_TEST

START_TEST(test_symlink_to_directory)
{
	ck_assert_int_eq(mkdir(in_dir("real"), 0755), 0);
	ck_assert_int_eq(symlink("real", in_dir("link")), 0);
	open_ok(in_dir("link"));
	ck_assert_str_eq(s.path, in_dir("real"));
}
END_TEST

START_TEST(test_too_long)
{
	char path[PATH_MAX + 100];

	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	open_fails(path, ERR_SYSTEM, "cannot make the directory");
}
END_TEST

START_TEST(test_writable_by_others)
{
	static const mode_t bad[] = {0720, 0702, 01777};

	for (size_t i = 0; i < 3; i++) {
		ck_assert_int_eq(chmod(dir, bad[i]), 0);
		open_fails(dir, ERR_DENIED, "written by others; chmod go-w");
	}
	ck_assert_int_eq(chmod(dir, 0755), 0);
	open_ok(dir);
}
END_TEST

/* As another user, which root can become and others can not. */
static void as_other_user(void)
{
	ck_assert_int_eq(setegid(OTHER_USER), 0);
	ck_assert_int_eq(seteuid(OTHER_USER), 0);
}

static void as_root(void)
{
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(setegid(0), 0);
}

START_TEST(test_somebody_elses)
{
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chown(dir, OTHER_USER, OTHER_USER), 0);
	open_fails(dir, ERR_DENIED, "belongs to user 65534");
	ck_assert_ptr_nonnull(strstr(err.text, "as user 0"));
	ck_assert(!is_there("lock"));
}
END_TEST

START_TEST(test_read_only)
{
	const char *path;

	if (geteuid() == 0) {
		/* Root may write anywhere; its tmpdir is closed to others. */
		ck_assert_int_eq(chmod(runner_tmpdir(), 0711), 0);
		ck_assert_int_eq(chown(dir, OTHER_USER, OTHER_USER), 0);
	}
	ck_assert_int_eq(chmod(dir, 0500), 0);
	if (geteuid() == 0)
		as_other_user();
	open_fails(dir, ERR_DENIED, "cannot be written: Permission denied");
	path = in_dir("sub");
	open_fails(path, ERR_SYSTEM, "cannot make the directory");
	if (getuid() == 0)
		as_root();
}
END_TEST

/* --- the lock ------------------------------------------------------------- */

static char *lock_text(void)
{
	static char text[64];
	char *data;
	size_t len;

	ck_assert_int_eq(
		fd_read_file(in_dir("lock"), sizeof(text) - 1, &data, &len), 0);
	memcpy(text, data, len + 1);
	free(data);
	return text;
}

START_TEST(test_lock)
{
	struct state_dir second = STATE_DIR_NULL;
	char want[64];

	open_ok(dir);
	(void)snprintf(want, sizeof(want), "%ld\n", (long)getpid());
	ck_assert_str_eq(lock_text(), want);
	ck_assert_int_eq(state_dir_open(&second, dir, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	(void)snprintf(want, sizeof(want), "pid %ld uses", (long)getpid());
	ck_assert_ptr_nonnull(strstr(err.text, want));
	ck_assert_ptr_nonnull(strstr(err.text, dir));
	/* The loser took nothing from the winner. */
	ck_assert_int_eq(state_dir_open(&second, dir, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, want));
	state_dir_close(&s);
	ck_assert_str_eq(lock_text(), "");
	ck_assert_int_eq(state_dir_open(&second, dir, &err), 0);
	state_dir_close(&second);
}
END_TEST

START_TEST(test_lock_pid_not_written_yet)
{
	struct state_dir second = STATE_DIR_NULL;

	open_ok(dir);
	ck_assert_int_eq(ftruncate(s.lockfd, 0), 0);
	ck_assert_int_eq(state_dir_open(&second, dir, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "another supervisor"));
}
END_TEST

/* The lock dies with its holder, whatever the file says. */
START_TEST(test_lock_of_the_dead)
{
	char byte;
	int ready[2], status;
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (state_dir_open(&s, dir, NULL) < 0 ||
		    write(ready[1], "x", 1) != 1)
			_exit(1);
		(void)pause();
		_exit(0);
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert_int_eq(state_dir_open(&s, dir, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_gt((int)strlen(lock_text()), 0);
	open_ok(dir);
	(void)close(ready[0]);
	(void)close(ready[1]);
}
END_TEST

/* A child that was forked and lives on doesn't keep the lock of a supervisor
 * that has closed it. */
START_TEST(test_lock_and_fork)
{
	pid_t pid;
	int status;

	open_ok(dir);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	state_dir_close(&s);
	open_ok(dir);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}
END_TEST

START_TEST(test_lock_is_a_symlink)
{
	put("target", "precious", 8);
	ck_assert_int_eq(symlink("target", in_dir("lock")), 0);
	open_fails(dir, ERR_SYSTEM, "cannot open");
	ck_assert(is_there("target"));
}
END_TEST

START_TEST(test_close_twice)
{
	open_ok(dir);
	state_dir_close(&s);
	state_dir_close(&s);
	ck_assert_int_eq(s.dirfd, -1);
	ck_assert_ptr_null(s.path);
}
END_TEST

/* --- the client id -------------------------------------------------------- */

START_TEST(test_id_made_and_kept)
{
	char id[UUID_LEN + 1];
	struct stat st;

	open_ok(dir);
	ck_assert(uuid_valid(s.client_id, strlen(s.client_id)));
	memcpy(id, s.client_id, sizeof(id));
	ck_assert_int_eq(stat(in_dir("client_id"), &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, UUID_LEN + 1);
	state_dir_close(&s);
	open_ok(dir);
	ck_assert_str_eq(s.client_id, id);
	ck_assert(!is_there("client_id.bad"));
}
END_TEST

START_TEST(test_id_renewed)
{
	char id[UUID_LEN + 1], renewed[UUID_LEN + 1];

	open_ok(dir);
	memcpy(id, s.client_id, sizeof(id));
	ck_assert_int_eq(state_dir_renew_client_id(&s, &err), 0);
	ck_assert_str_ne(s.client_id, id);
	memcpy(renewed, s.client_id, sizeof(renewed));
	state_dir_close(&s);
	open_ok(dir);
	ck_assert_str_eq(s.client_id, renewed);
}
END_TEST

/* A renewal that can't be written changes nothing. */
START_TEST(test_id_renewal_fails)
{
	char id[UUID_LEN + 1];

	open_ok(dir);
	memcpy(id, s.client_id, sizeof(id));
	ck_assert_int_eq(unlink(in_dir("client_id")), 0);
	ck_assert_int_eq(mkdir(in_dir("client_id"), 0700), 0);
	ck_assert_int_eq(state_dir_renew_client_id(&s, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "client_id"));
	ck_assert_str_eq(s.client_id, id);
}
END_TEST

START_TEST(test_id_good_forms)
{
	static const char *const good[] = {ID, ID "\n"};

	put("client_id", good[_i], strlen(good[_i]));
	open_ok(dir);
	ck_assert_str_eq(s.client_id, ID);
	ck_assert(!is_there("client_id.bad"));
}
END_TEST

static const char *const damaged[] = {
	"",
	"\n",
	"0b1f2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4",
	"0B1F2C3D-4E5F-4A6B-8C7D-9E0F1A2B3C4D\n",
	ID " ",
	ID "\n\n",
	ID "0",
	(" " ID),
	"0b1f2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4\n\n",
	"not an id at all, but a rather long text that somebody wrote here\n",
};

START_TEST(test_id_damaged)
{
	char *data;
	size_t len;

	put("client_id", damaged[_i], strlen(damaged[_i]));
	put("client_id.bad", "older", 5);
	open_ok(dir);
	ck_assert(uuid_valid(s.client_id, strlen(s.client_id)));
	ck_assert_str_ne(s.client_id, ID);
	ck_assert_int_eq(
		fd_read_file(in_dir("client_id.bad"), 1000, &data, &len), 0);
	ck_assert_uint_eq(len, strlen(damaged[_i]));
	ck_assert_int_eq(memcmp(data, damaged[_i], len), 0);
	free(data);
	ck_assert_int_eq(fd_read_file(in_dir("client_id"), 1000, &data, &len),
	                 0);
	ck_assert_uint_eq(len, UUID_LEN + 1);
	ck_assert_int_eq(memcmp(data, s.client_id, UUID_LEN), 0);
	free(data);
}
END_TEST

START_TEST(test_id_zero_bytes)
{
	char zeros[UUID_LEN + 1] = {0};

	/* What a crash leaves behind on some file systems. */
	put("client_id", zeros, sizeof(zeros));
	open_ok(dir);
	ck_assert(uuid_valid(s.client_id, strlen(s.client_id)));
	ck_assert(is_there("client_id.bad"));
}
END_TEST

START_TEST(test_id_not_a_file)
{
	switch (_i) {
	case 0:
		ck_assert_int_eq(symlink("elsewhere", in_dir("client_id")), 0);
		break;
	case 1:
		ck_assert_int_eq(mkfifo(in_dir("client_id"), 0600), 0);
		break;
	default:
		ck_assert_int_eq(mkdir(in_dir("client_id"), 0700), 0);
	}
	open_ok(dir);
	ck_assert(uuid_valid(s.client_id, strlen(s.client_id)));
	ck_assert(is_there("client_id.bad"));
}
END_TEST

START_TEST(test_id_of_somebody_else)
{
	if (geteuid() != 0)
		return;
	put("client_id", ID "\n", UUID_LEN + 1);
	ck_assert_int_eq(chown(in_dir("client_id"), OTHER_USER, OTHER_USER), 0);
	open_ok(dir);
	ck_assert_str_ne(s.client_id, ID);
	ck_assert(is_there("client_id.bad"));
}
END_TEST

START_TEST(test_id_made_private)
{
	struct stat st;

	put("client_id", ID "\n", UUID_LEN + 1);
	ck_assert_int_eq(chmod(in_dir("client_id"), 0644), 0);
	open_ok(dir);
	ck_assert_str_eq(s.client_id, ID);
	ck_assert_int_eq(stat(in_dir("client_id"), &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(test_id_cannot_be_set_aside)
{
	put("client_id", "rubbish", 7);
	ck_assert_int_eq(mkdir(in_dir("client_id.bad"), 0700), 0);
	open_fails(dir, ERR_SYSTEM, "cannot be set aside");
	/* Failing leaves no lock behind. */
	ck_assert_int_eq(rmdir(in_dir("client_id.bad")), 0);
	open_ok(dir);
}
END_TEST

static Suite *state_dir_suite(void)
{
	Suite *suite = suite_create("state_dir");
	TCase *t = tcase_create("state_dir");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_made_with_parents);
	tcase_add_test(t, test_relative_becomes_absolute);
	tcase_add_test(t, test_not_a_directory);
	tcase_add_test(t, test_symlink_to_directory);
	tcase_add_test(t, test_too_long);
	tcase_add_test(t, test_writable_by_others);
	tcase_add_test(t, test_somebody_elses);
	tcase_add_test(t, test_read_only);
	tcase_add_test(t, test_lock);
	tcase_add_test(t, test_lock_pid_not_written_yet);
	tcase_add_test(t, test_lock_of_the_dead);
	tcase_add_test(t, test_lock_and_fork);
	tcase_add_test(t, test_lock_is_a_symlink);
	tcase_add_test(t, test_close_twice);
	tcase_add_test(t, test_id_made_and_kept);
	tcase_add_test(t, test_id_renewed);
	tcase_add_test(t, test_id_renewal_fails);
	tcase_add_loop_test(t, test_id_good_forms, 0, 2);
	tcase_add_loop_test(t, test_id_damaged, 0, (int)ARRAY_SIZE(damaged));
	tcase_add_test(t, test_id_zero_bytes);
	tcase_add_loop_test(t, test_id_not_a_file, 0, 3);
	tcase_add_test(t, test_id_of_somebody_else);
	tcase_add_test(t, test_id_made_private);
	tcase_add_test(t, test_id_cannot_be_set_aside);
	suite_add_tcase(suite, t);
	return suite;
}

int main(void)
{
	return runner_run(state_dir_suite());
}
