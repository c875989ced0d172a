/*
 * fd_discard.c - fd_discard() of fdutil.h: closing what others pushed at us
 * without ever waiting for it.
 *
 * Two kinds of close block. The last close of a socket lingers; that one is
 * left to a child which keeps copies until we have closed ours, and which then
 * exits (an exiting process doesn't linger at all). A close of a file on FUSE
 * or NFS waits for its server each time, not only the last; so a child that
 * shares our table closes those for us.
 *
 * Both children are forked twice, so that nobody has to wait for them, and the
 * first fork ends without a signal, so that a SIGCHLD handler or a child
 * watcher of the caller's never hears of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/fdutil.h"

#define DISCARD_WAIT_S 1 /* see wait_for_parent() */

static pid_t fork_quietly(unsigned long flags)
{
	return (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
}

/* In the child, 1; in the parent 0, or a negative errno. */
static int fork_detached(unsigned long flags)
{
	pid_t pid = fork_quietly(flags);
	int status = 0;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		pid = fork_quietly(flags);
		if (pid == 0)
			return 1;
		_exit(pid < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	while (waitpid(pid, &status, __WALL) < 0) {
		/* ECHILD: the caller ignores its children's ends. */
		if (errno != EINTR)
			return errno == ECHILD ? 0 : -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS
	               ? 0
	               : -EAGAIN;
}

/* Until the parent has closed its descriptors, or is stopped or gone. A shared
 * page needs no descriptor, unlike a pipe: this is called when there may be
 * none left. */
static void wait_for_parent(atomic_int *done)
{
	struct timespec limit = {.tv_sec = DISCARD_WAIT_S};

	/* Woken, timed out, or already done: all the same. */
	while (atomic_load(done) == 0) {
		if (syscall(SYS_futex, done, FUTEX_WAIT, 0, &limit, NULL, 0) <
		            0 &&
		    errno != EINTR)
			return;
	}
}

static int compare_ints(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The child must not keep the caller's own connections alive. Close errors
 * don't matter, the process ends soon anyway. */
static void close_others(const int *sorted, size_t n)
{
	unsigned int from = 0;

	for (size_t i = 0; i < n; i++) {
		if (sorted[i] < 0)
			continue;
		if ((unsigned int)sorted[i] > from)
			(void)close_range(from, (unsigned int)sorted[i] - 1, 0);
		from = (unsigned int)sorted[i] + 1;
	}
	(void)close_range(from, UINT_MAX, 0);
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
	}
}

static void discard_last_close(int *fds, size_t n)
{
	const int prot = PROT_READ | PROT_WRITE;
	const int flags = MAP_SHARED | MAP_ANONYMOUS;
	atomic_int *done;

	// cppcheck-suppress invalidFunctionArg ; -1 goes with MAP_ANONYMOUS
	done = mmap(NULL, sizeof(*done), prot, flags, -1, 0);
	if (done != MAP_FAILED && fork_detached(0) > 0) {
		qsort(fds, n, sizeof(*fds), compare_ints);
		close_others(fds, n);
		wait_for_parent(done);
		_exit(EXIT_SUCCESS);
	}
	close_all(fds, n);
	if (done == MAP_FAILED)
		return;
	atomic_store(done, 1);
	(void)syscall(SYS_futex, done, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	(void)munmap(done, sizeof(*done));
}

static void discard_any_close(const int *fds, size_t n)
{
	int r = fork_detached(CLONE_FILES);

	if (r == 0)
		return;
	close_all(fds, n);
	if (r > 0)
		_exit(EXIT_SUCCESS);
}

static bool is_regular(int fd)
{
	struct statx sx;

	/* Without the flag a FUSE server is asked, which may never answer. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &sx) <
	    0)
		return false;
	return S_ISREG(sx.stx_mode);
}

void fd_discard(const int *fds, size_t n)
{
	int files[FD_PASS_MAX], others[FD_PASS_MAX];
	size_t nfiles, nothers;

	while (n > 0) {
		nfiles = nothers = 0;
		for (; n > 0 && nfiles + nothers < FD_PASS_MAX; fds++, n--) {
			if (is_regular(*fds))
				files[nfiles++] = *fds;
			else
				others[nothers++] = *fds;
		}
		/* In this order: the second child would else hold on to
		 * copies of the others. */
		if (nothers > 0)
			discard_last_close(others, nothers);
		if (nfiles > 0)
			discard_any_close(files, nfiles);
	}
}
