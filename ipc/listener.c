/*
 * listener.c - see listener.h.
 *
 * Everything between "is the file there stale?" and the rename happens under an
 * exclusive flock() of the directory, and so does the unlink at the end: else
 * two starting processes could each take the other's fresh socket for the stale
 * one. The lock needs no file of its own, and a dead holder leaves none behind.
 */
#include "ipc/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "ipc/creds.h"

#define LOCK_RETRY_MS  5
#define TEMP_NAME_MAX  12 /* characters of a temporary name */
#define TEMP_TRIES_MAX 64

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) ==
                       LISTENER_PATH_MAX + 1,
               "LISTENER_PATH_MAX is what the kernel takes");

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	memcpy(sa.sun_path, path, strlen(path) + 1);
	return sa;
}

/* ---- the directory ---- */

/* Length of the directory part of `path`, its last slash included. */
static size_t dir_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + 1 : 0;
}

static int open_dir(const char *path, struct error *err)
{
	char dir[LISTENER_PATH_MAX + 1] = ".";
	size_t n = dir_len(path);
	int fd;

	if (n > 0) {
		memcpy(dir, path, n);
		dir[n] = '\0';
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		(void)error_set(
			err, ERR_NOT_FOUND,
			"cannot make the socket %s: the directory %s "
			"does not exist; make it or choose another path",
			path, dir);
	else if (fd < 0 && errno == EACCES)
		(void)error_set(err, ERR_DENIED,
		                "cannot make the socket %s: no permission to "
		                "read the directory %s",
		                path, dir);
	else if (fd < 0)
		(void)error_set_errno(err, errno,
		                      "cannot make the socket %s: cannot open "
		                      "the directory %s",
		                      path, dir);
	return fd;
}

/* 0 or -EWOULDBLOCK when somebody holds it for longer than LISTENER_LOCK_MS. */
static int lock_dir(int dir_fd)
{
	const struct timespec nap = {.tv_nsec = LOCK_RETRY_MS * 1000000L};
	int tries = LISTENER_LOCK_MS / LOCK_RETRY_MS;

	while (flock(dir_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (--tries < 0)
			return -EWOULDBLOCK;
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

/* ---- the temporary name ---- */

/* In the same directory and no longer than the name itself, so that it fits
 * wherever the name does. */
static int temp_name(char temp[LISTENER_PATH_MAX + 1], const char *path)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
				      "0123456789";
	unsigned char random[TEMP_NAME_MAX];
	size_t dir = dir_len(path), n = strlen(path) - dir;

	if (n > TEMP_NAME_MAX)
		n = TEMP_NAME_MAX;
	if (getrandom(random, n, 0) != (ssize_t)n)
		return -EIO;
	memcpy(temp, path, dir);
	for (size_t i = 0; i < n; i++)
		temp[dir + i] = letters[random[i] % (sizeof(letters) - 1)];
	if (n > 1)
		temp[dir] = '.';
	temp[dir + n] = '\0';
	return 0;
}

static int bind_temp(int fd, const char *path, char *temp)
{
	struct sockaddr_un sa;
	int r;

	for (int i = 0; i < TEMP_TRIES_MAX; i++) {
		r = temp_name(temp, path);
		if (r < 0)
			return r;
		/* Likely enough for a name of one letter. */
		if (strcmp(temp, path) == 0)
			continue;
		sa = address(temp);
		if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
			return 0;
		if (errno != EADDRINUSE)
			return -errno;
	}
	return -EADDRINUSE;
}

static int explain_bind(int errnum, const char *path, struct error *err)
{
	switch (errnum) {
	case EACCES:
	case EPERM:
		return error_set(err, ERR_DENIED,
		                 "cannot make the socket %s: no permission to "
		                 "write to its directory",
		                 path);
	case EROFS:
		return error_set(err, ERR_DENIED,
		                 "cannot make the socket %s: the file system "
		                 "is read-only; choose another path",
		                 path);
	default:
		return error_set_errno(err, errnum, "cannot make the socket %s",
		                       path);
	}
}

/* ---- the name ---- */

static int check_path(const char *path, struct error *err)
{
	size_t n = strlen(path);

	if (n == 0 || path[n - 1] == '/')
		return error_set(err, ERR_INVALID,
		                 "the socket path \"%s\" names no file", path);
	if (n > LISTENER_PATH_MAX)
		return error_set(err, ERR_INVALID,
		                 "the socket path %s is too long: %zu bytes, "
		                 "the system takes %d; choose a shorter one",
		                 path, n, LISTENER_PATH_MAX);
	return 0;
}

/* Does anybody accept connections there? 0: no, the file is stale. */
static int check_stale(const char *path, struct error *err)
{
	struct sockaddr_un sa = address(path);
	cleanup_close int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return error_set_errno(err, errno, "cannot make a socket");
	/* EAGAIN: alive, its queue of connections is full. */
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 ||
	    errno == EAGAIN)
		return error_set(err, ERR_BUSY,
		                 "another process serves the socket %s already",
		                 path);
	switch (errno) {
	case ECONNREFUSED:
	case ENOENT:
		return 0;
	case EPROTOTYPE:
		return error_set(err, ERR_INVALID,
		                 "%s is a socket of another kind; remove it or "
		                 "choose another path",
		                 path);
	case EACCES:
	case EPERM:
		return error_set(err, ERR_DENIED,
		                 "%s belongs to another user, and whether "
		                 "anybody serves it cannot be told; choose "
		                 "another path",
		                 path);
	default:
		return error_set_errno(err, errno,
		                       "cannot tell whether anybody serves %s",
		                       path);
	}
}

/* The name may be taken: nothing is there, or a stale socket. */
static int check_name(const char *path, struct error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0) {
		if (errno == ENOENT)
			return 0;
		return error_set_errno(err, errno, "cannot look at %s", path);
	}
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, ERR_INVALID,
		                 "%s exists and is not a socket; remove it or "
		                 "choose another path",
		                 path);
	return check_stale(path, err);
}

/* ---- making it ---- */

/* A socket that listens under a temporary name. */
static int make_socket(const char *path, char *temp, mode_t mode,
                       struct error *err)
{
	cleanup_close int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot make a socket");
	/* bind() gives the file these bits less the umask. */
	if (fchmod(fd, mode) < 0)
		return error_set_errno(err, errno,
		                       "cannot set the mode of a socket");
	/* Connections that wait to be accepted are covered by this too. */
	r = creds_allow_fds(fd, false);
	if (r < 0)
		return error_set_errno(err, -r, "cannot set up a socket");
	r = bind_temp(fd, path, temp);
	if (r < 0)
		return explain_bind(-r, path, err);
	if (chmod(temp, mode) < 0 || listen(fd, LISTENER_BACKLOG) < 0) {
		r = -errno;
		(void)unlink(temp);
		return error_set_errno(err, -r, "cannot set up the socket %s",
		                       path);
	}
	return steal_fd(&fd);
}

/* Gives the socket its name, if that is free. */
static int publish(struct listener *l, const char *temp, int dir_fd,
                   struct error *err)
{
	struct stat st;
	int r = lock_dir(dir_fd);

	if (r == -EWOULDBLOCK)
		return error_set(err, ERR_BUSY,
		                 "cannot make the socket %s: another process "
		                 "holds a lock on its directory",
		                 l->path);
	if (r < 0)
		return error_set_errno(
			err, -r, "cannot lock the directory of %s", l->path);
	if (check_name(l->path, err) < 0)
		return -1;
	if (lstat(temp, &st) < 0 || rename(temp, l->path) < 0)
		return error_set_errno(err, errno, "cannot make the socket %s",
		                       l->path);
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

int listener_init(struct listener *l, const char *path, mode_t mode,
                  struct error *err)
{
	char temp[LISTENER_PATH_MAX + 1];
	/* Closing it is what unlocks. */
	cleanup_close int dir_fd = -1;

	*l = (struct listener)LISTENER_NULL;
	if (check_path(path, err) < 0)
		return -1;
	dir_fd = open_dir(path, err);
	if (dir_fd < 0)
		return -1;
	l->fd = make_socket(path, temp, mode, err);
	if (l->fd < 0)
		return -1;
	l->path = strdup(path);
	if (!l->path)
		(void)error_set_nomem(err, "the socket's path");
	else if (publish(l, temp, dir_fd, err) == 0)
		return 0;
	(void)unlink(temp);
	(void)close(l->fd);
	free(l->path);
	*l = (struct listener)LISTENER_NULL;
	return -1;
}

int listener_give(struct listener *l, uid_t uid, gid_t gid, struct error *err)
{
	if (lchown(l->path, uid, gid) == 0)
		return 0;
	return error_set_errno(err, errno,
	                       "cannot give the socket %s to user "
	                       "%u",
	                       l->path, (unsigned)uid);
}

int listener_renew(struct listener *l, struct error *err)
{
	if (listen(l->fd, LISTENER_BACKLOG) == 0)
		return 0;
	return error_set_errno(err, errno, "cannot set up the socket %s",
	                       l->path);
}

int listener_adopt(struct listener *l, int fd)
{
	int r;

	*l = (struct listener)LISTENER_NULL;
	r = fd_set_nonblock(fd);
	if (r == 0)
		r = fd_set_cloexec(fd);
	if (r == 0)
		r = creds_allow_fds(fd, false);
	if (r < 0)
		(void)close(fd);
	else
		l->fd = fd; /* consumes fd */
	return r;
}

int listener_accept(struct listener *l)
{
	int fd;

	/* ECONNABORTED: one that left while it waited; the next may be there.
	 */
	do
		fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	return fd < 0 ? -errno : fd;
}

/* While we hold the descriptor the file's inode can't be used again, so device
 * and number tell ours from a successor's. */
static void remove_name(const struct listener *l)
{
	struct stat st;
	int dir_fd = open_dir(l->path, NULL), r;

	if (dir_fd < 0)
		return; /* the directory went, and the file with it */
	r = lock_dir(dir_fd);
	if (r < 0) {
		/* Harmless: whoever comes next finds it stale. */
		log_warn("listener", "%s is left behind: %s", l->path,
		         strerror(-r));
	} else if (lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
	           st.st_ino == l->ino && unlink(l->path) < 0) {
		log_info("listener", "%s is left behind: %s", l->path,
		         strerror(errno));
	}
	(void)close(dir_fd);
}

void listener_deinit(struct listener *l)
{
	if (l->path)
		remove_name(l);
	if (l->fd >= 0)
		(void)close(l->fd);
	free(l->path);
	*l = (struct listener)LISTENER_NULL;
}
