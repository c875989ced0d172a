/*
 * log_sink.c - where the log's lines go: stderr, a file, a datagram socket.
 *
 * stderr belongs to others too, so it can't be made non-blocking: a pipe gets
 * RWF_NOWAIT (or a poll first, where the kernel doesn't know that), a socket
 * MSG_DONTWAIT, a terminal is opened anew for the line. syslog(3) and
 * sd_journal_send(3) block when the daemon at the other end hangs, hence the
 * small client of our own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log_impl.h"

#define MODE_FILE 0640

/* A descriptor of ours, and what tells whether the number still is: whoever
 * closes all he doesn't know may have given it away. */
struct held {
	int fd;
	dev_t dev;
	ino_t ino;
};
static struct held held = {.fd = -1};
static bool sealed; /* nothing can be opened */

/* --- stderr --------------------------------------------------------------- */

static ssize_t result(ssize_t n)
{
	return n < 0 ? -errno : n;
}

ssize_t log_write_when_ready(const char *line, size_t len)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	/* A pipe that polls writable has room for PIPE_BUF bytes, more than a
	 * line; a second writer may still be quicker, which RWF_NOWAIT rules
	 * out where it works. */
	if (poll(&p, 1, 0) != 1)
		return -EAGAIN;
	return result(write(STDERR_FILENO, line, len));
}

/* EPIPE comes with a signal that would end the process. */
static ssize_t write_pipe(const char *line, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)line, len};
	struct timespec no_wait = {0};
	sigset_t sigpipe, before, pending;
	ssize_t n;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	sigemptyset(&pending);
	(void)sigpending(&pending);
	(void)pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
	n = result(pwritev2(STDERR_FILENO, &iov, 1, -1, RWF_NOWAIT));
	if (n < 0 && n != -EAGAIN && n != -EPIPE && n != -EBADF)
		n = log_write_when_ready(line, len);
	if (n == -EPIPE && !sigismember(&pending, SIGPIPE))
		(void)sigtimedwait(&sigpipe, NULL, &no_wait);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

static ssize_t write_terminal(const char *line, size_t len)
{
	ssize_t n;
	int fd = -1;

	if (!sealed)
		fd = open("/proc/self/fd/2",
		          O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return log_write_when_ready(line, len);
	n = result(write(fd, line, len));
	(void)close(fd);
	return n;
}

ssize_t log_write_stderr(const char *line, size_t len)
{
	struct stat st;

	/* Asked anew for each line: stderr may be redirected at any time. */
	if (fstat(STDERR_FILENO, &st) < 0)
		return -errno;
	if (S_ISFIFO(st.st_mode))
		return write_pipe(line, len);
	if (S_ISSOCK(st.st_mode))
		return result(send(STDERR_FILENO, line, len,
		                   MSG_DONTWAIT | MSG_NOSIGNAL));
	if (S_ISCHR(st.st_mode) && isatty(STDERR_FILENO))
		return write_terminal(line, len);
	return result(write(STDERR_FILENO, line, len));
}

/* --- a descriptor of our own -----------------------------------------------
 */

static bool is_ours(void)
{
	struct stat st;

	return held.fd >= 0 && fstat(held.fd, &st) == 0 &&
	       st.st_dev == held.dev && st.st_ino == held.ino;
}

/* Consumes fd. */
static int hold(int fd)
{
	struct stat st;
	int r = 0;

	if (fstat(fd, &st) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	held = (struct held){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
	return 0;
}

void log_sink_close(void)
{
	if (is_ours())
		(void)close(held.fd);
	held.fd = -1;
}

void log_sink_seal(void)
{
	sealed = true;
}

void log_sink_share(void)
{
	if (is_ours())
		(void)dup2(held.fd, STDERR_FILENO);
}

static int datagram_connect(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	return hold(fd);
}

ssize_t log_write_datagram(const char *path, const char *head, size_t head_len,
                           const char *line, size_t len)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)head, head_len},
	                       {(void *)(uintptr_t)line, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;
	int r;

	if (is_ours()) {
		n = result(sendmsg(held.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
		if (n >= 0 || n == -EAGAIN || n == -ENOBUFS)
			return n < 0 ? n : (ssize_t)len;
		(void)close(held.fd);
	}
	/* The daemon was restarted, or this is the first line. */
	held.fd = -1;
	r = datagram_connect(path);
	if (r < 0)
		return r;
	n = result(sendmsg(held.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
	return n < 0 ? n : (ssize_t)len;
}

/* --- a file --------------------------------------------------------------- */

static int open_file(const char *path)
{
	/* Not through a link that somebody put into a directory of his. */
	int fd = open(path,
	              O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW |
	                      O_NONBLOCK | O_NOCTTY,
	              MODE_FILE);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)close(fd);
		return -EINVAL;
	}
	return hold(fd);
}

ssize_t log_write_file(const char *line, size_t len)
{
	if (!is_ours())
		return -EBADF;
	return result(write(held.fd, line, len));
}

int log_sink_open(enum log_sink sink, const char *path)
{
	switch (sink) {
	case LOG_TO_SYSLOG:
	case LOG_TO_JOURNAL:
		log_sink_close();
		/* Now, while the process may still open things; should the
		 * daemon not run yet, the first line tries again. */
		(void)datagram_connect(path);
		return 0;
	case LOG_TO_FILE: {
		struct held before = held;
		int r = open_file(path);

		if (r == 0 && before.fd >= 0)
			(void)close(before.fd);
		return r;
	}
	case LOG_TO_STDERR:
	case LOG_TO_HOOK:
		break;
	}
	log_sink_close();
	return 0;
}
