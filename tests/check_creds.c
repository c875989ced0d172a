/*
 * check_creds.c - who is at the other end: ourselves, another user (where the
 * test may become one), nobody.
 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/creds.h"
#include "tests/runner.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

START_TEST(ourselves)
{
	struct creds c;
	gid_t groups[1024];
	int sv[2], n = getgroups(1024, groups);

	ck_assert_int_ge(n, 0);
	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	ck_assert_int_eq(creds_get(&c, sv[0], NULL), 0);
	ck_assert_int_eq(c.pid, getpid());
	ck_assert_uint_eq(c.uid, geteuid());
	ck_assert_uint_eq(c.gid, getegid());
	ck_assert_uint_eq(c.group_count, (size_t)n);
	for (int i = 0; i < n; i++)
		ck_assert(creds_in_group(&c, groups[i]));
	ck_assert(creds_in_group(&c, getegid()));
	ck_assert(!creds_in_group(&c, 4242424));
	creds_deinit(&c);
	creds_deinit(&c);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

/* A child that is another user, in many groups, makes the pair. */
static ATTR_NORETURN void be_another(int out)
{
	gid_t groups[300];
	int sv[2];

	for (gid_t i = 0; i < 300; i++)
		groups[i] = 5000 + i;
	if (setgroups(300, groups) < 0 || setgid(4321) < 0 ||
	    setuid(1234) < 0 || fd_socketpair(sv, 0) < 0 ||
	    fd_send(out, "x", 1, sv[0]) != 1)
		_exit(EXIT_FAILURE);
	_exit(EXIT_SUCCESS);
}

START_TEST(another_user)
{
	int sv[2], fds[FD_PASS_MAX], status;
	struct creds c, copy;
	size_t n;
	char byte;
	pid_t pid;

	if (geteuid() != 0)
		return; /* only root can become somebody else */
	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		be_another(sv[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(fd_recv(sv[0], &byte, 1, fds, &n), 1);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_eq(creds_get(&c, fds[0], NULL), 0);
	ck_assert_int_eq(c.pid, pid);
	ck_assert_uint_eq(c.uid, 1234);
	ck_assert_uint_eq(c.gid, 4321);
	ck_assert_uint_eq(c.group_count, 300);
	ck_assert(creds_in_group(&c, 5299));
	ck_assert(creds_in_group(&c, 4321));
	ck_assert(!creds_in_group(&c, 5300));
	ck_assert(!creds_in_group(&c, 0));
	ck_assert_int_eq(creds_copy(&copy, &c), 0);
	creds_deinit(&c);
	ck_assert_int_eq(copy.pid, pid);
	ck_assert_uint_eq(copy.uid, 1234);
	ck_assert_uint_eq(copy.gid, 4321);
	ck_assert_uint_eq(copy.group_count, 300);
	ck_assert(creds_in_group(&copy, 5299));
	creds_deinit(&copy);
	(void)close(fds[0]);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

START_TEST(nobody_there)
{
	struct error err;
	struct creds c;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), p[2];

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(creds_get(&c, fd, &err), -1);
	creds_deinit(&c);
	(void)close(fd);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(creds_get(&c, p[0], &err), -1);
	ck_assert_int_eq(err.code, ERR_SYSTEM);
	creds_deinit(&c);
	(void)close(p[0]);
	(void)close(p[1]);
}
END_TEST

START_TEST(descriptors_are_refused_where_known)
{
	int sv[2], value = -1;
	socklen_t len = sizeof(value);

	ck_assert_int_eq(fd_socketpair(sv, 1), 0);
	ck_assert_int_eq(creds_allow_fds(sv[0], false), 0);
	if (getsockopt(sv[0], SOL_SOCKET, SO_PASSRIGHTS, &value, &len) == 0) {
		ck_assert_int_eq(value, 0);
		ck_assert_int_eq(fd_send(sv[1], "x", 1, 0), -EPERM);
	} else {
		ck_assert_int_eq(errno, ENOPROTOOPT);
	}
	ck_assert_int_eq(creds_allow_fds(sv[0], true), 0);
	ck_assert_int_eq(fd_send(sv[1], "x", 1, 0), 1);
	ck_assert_int_eq(creds_allow_fds(-1, true), -EBADF);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

static Suite *creds_suite(void)
{
	Suite *s = suite_create("creds");
	TCase *t = tcase_create("creds");

	tcase_add_test(t, ourselves);
	tcase_add_test(t, another_user);
	tcase_add_test(t, nobody_there);
	tcase_add_test(t, descriptors_are_refused_where_known);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(creds_suite());
}
