/*
 * spawn.c - see spawn.h.
 */
#include "workers/front/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/program.h"
#include "ipc/channel.h"

#define FIRST_FREE_FD 16 /* above every number that a child is promised */

/* In the child: says why over the close-on-exec pipe, which stays silent when
 * exec succeeds. */
static ATTR_NORETURN void child_fail(int report)
{
	int e = errno;

	(void)!write(report, &e, sizeof(e));
	_exit(127);
}

/* Puts `fd` on number `to` of the child, whatever stands there. */
static int place_fd(int fd, int to)
{
	return fd < 0 ? 0 : dup2(fd, to);
}

static void reset_signals(void)
{
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	for (int s = 1; s < NSIG; s++)
		(void)signal(s, SIG_DFL);
}

static ATTR_NORETURN void child_exec(char *const argv[], int fd3, int fd4,
                                     int report, bool detach)
{
	int null;

	/* Move what is passed on out of the way of its own targets first. */
	if (fd3 >= 0)
		fd3 = fcntl(fd3, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	if (fd4 >= 0)
		fd4 = fcntl(fd4, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	report = fcntl(report, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	if (report < 0)
		_exit(127);
	/* The user's stdio is the keeper's alone; a worker has but stderr. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		child_fail(report);
	if (detach && (setsid() < 0 || chdir("/") < 0 || dup2(null, 2) < 0))
		child_fail(report);
	if (place_fd(fd3, CHANNEL_SESSION_FD) < 0 ||
	    place_fd(fd4, CHANNEL_BUS_FD) < 0)
		child_fail(report);
	reset_signals();
	(void)execv(argv[0], argv);
	child_fail(report);
}

/* Waits for the exec: 0, or the errno that it failed with. */
static int exec_result(int report)
{
	int e = 0;
	ssize_t n;

	do
		n = read(report, &e, sizeof(e));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(e) ? e : 0;
}

static pid_t start(char *const argv[], int fd3, int fd4, bool detach,
                   struct error *err)
{
	cleanup_close int report = -1, report_child = -1;
	int pipefd[2], e;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0) {
		(void)error_set_errno(err, errno, "cannot make a pipe");
		return -1;
	}
	report = pipefd[0];
	report_child = pipefd[1];
	pid = fork();
	if (pid < 0) {
		(void)error_set_errno(err, errno, "cannot fork");
		return -1;
	}
	if (pid == 0) {
		/* A grandchild belongs to init, so nobody need reap it. */
		if (detach && fork() != 0)
			_exit(0);
		child_exec(argv, fd3, fd4, report_child, detach);
	}
	(void)close(steal_fd(&report_child));
	e = exec_result(report);
	if (detach || e != 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	if (e != 0) {
		(void)error_set_errno(err, e, "cannot start %s", argv[0]);
		return -1;
	}
	return pid;
}

pid_t spawn_worker(int session_fd, int bus_fd, struct error *err)
{
	cleanup_free char *path = program_find("comfymux-worker", err);
	char bus[] = "--bus";
	char *argv[] = {path, bus_fd >= 0 ? bus : NULL, NULL};

	return path ? start(argv, session_fd, bus_fd, false, err) : -1;
}

int spawn_detached(char *const argv[], int fd, struct error *err)
{
	return start(argv, fd, -1, true, err) < 0 ? -1 : 0;
}
