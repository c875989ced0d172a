/*
 * fdutil.c - see fdutil.h.
 */
#include "common/fdutil.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

/* Room for what else the kernel may put before the descriptors: credentials, a
 * security label. A buffer too short makes it drop descriptors then and there,
 * in our own time. */
#define CONTROL_EXTRA 512
#define READ_CHUNK    4096 /* bytes, first allocation of a file's content */

int fd_set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int fd_set_cloexec(int fd)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

int fd_socketpair(int sv[2], int nonblock)
{
	int type = SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0);

	return socketpair(AF_UNIX, type, 0, sv) < 0 ? -errno : 0;
}

/* --- passing ---------------------------------------------------------------
 */

ssize_t fd_send(int sock, const void *data, size_t len, int fd)
{
	struct iovec iov = {(void *)(uintptr_t)data, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct cmsghdr *c;
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t fd_recv(int sock, void *data, size_t len, int fds[FD_PASS_MAX],
                size_t *nfds)
{
	struct iovec iov = {data, len};
	union {
		char space[CMSG_SPACE(FD_PASS_MAX * sizeof(int)) +
		           CONTROL_EXTRA];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.space,
	                     .msg_controllen = sizeof(control.space)};
	struct cmsghdr *c;
	size_t count;
	ssize_t n;

	*nfds = 0;
	do {
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		/* The kernel stops at FD_PASS_MAX by itself. */
		if (count > FD_PASS_MAX - *nfds)
			count = FD_PASS_MAX - *nfds;
		memcpy(fds + *nfds, CMSG_DATA(c), count * sizeof(int));
		*nfds += count;
	}
	return n;
}

/* --- whole files -----------------------------------------------------------
 */

int fd_read_file(const char *path, size_t max, char **datap, size_t *lenp)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	return fd < 0 ? -errno : fd_read_all(fd, max, datap, lenp);
}

int fd_read_all(int fd, size_t max, char **datap, size_t *lenp)
{
	cleanup_free char *data = NULL;
	size_t len = 0, cap = 0;
	char *bigger;
	ssize_t n;

	if (max > SSIZE_MAX - 1)
		max = SSIZE_MAX - 1;
	for (;;) {
		/* One byte more than may come tells a file that is too long;
		 * its place is the terminator's otherwise. */
		if (len == cap || !data) {
			cap = cap ? cap * 2 : READ_CHUNK;
			if (cap > max + 1)
				cap = max + 1;
			bigger = realloc(data, cap);
			if (!bigger)
				return -ENOMEM;
			data = bigger;
		}
		n = read(fd, data + len, cap - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
	}
	data[len] = '\0';
	*datap = steal_ptr(&data);
	if (lenp)
		*lenp = len;
	return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
	ssize_t n;

	while (len > 0) {
		n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int fd_sealed(const char *name, const void *data, size_t len)
{
	const int seals =
		F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, data, len);
	if (r == 0 &&
	    (lseek(fd, 0, SEEK_SET) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0))
		r = -errno;
	if (r < 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

static int write_and_sync(int fd, const void *data, size_t len, mode_t mode)
{
	int r = fchmod(fd, mode) < 0 ? -errno : 0;

	if (r == 0)
		r = write_all(fd, data, len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	/* Some file systems report a full disk only here. */
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

/* A rename lasts once its directory is on disk. */
static int sync_dir_of(const char *path)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	cleanup_close int fd = -1;
	int n;

	if (!slash)
		n = snprintf(dir, sizeof(dir), ".");
	else
		n = snprintf(dir, sizeof(dir), "%.*s/", (int)(slash - path),
		             path);
	if (n < 0 || (size_t)n >= sizeof(dir))
		return -ENAMETOOLONG;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* EINVAL: a file system that has nothing to sync there. */
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

int fd_write_file(const char *path, const void *data, size_t len, mode_t mode)
{
	char tmp[PATH_MAX];
	int n = snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path);
	int fd, r;

	if (n < 0 || (size_t)n >= sizeof(tmp))
		return -ENAMETOOLONG;
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_and_sync(fd, data, len, mode);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlink(tmp);
		return r;
	}
	return sync_dir_of(path);
}
