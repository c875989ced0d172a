/*
 * state_dir.c - see state_dir.h.
 *
 * The lock is an open file description lock: unlike fcntl's older ones it does
 * not vanish when something else in the process opens and closes the file. A
 * forked child shares it until it execs or exits.
 */
#include "supervisor/state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/siphash.h"

#define DIR_MODE      0700
#define FILE_MODE     0600
#define LOCK_NAME     "lock"
#define ID_NAME       "client_id"
#define BAD_NAME      "client_id.bad"
#define PAUSED_NAME   "paused"
#define SECRET_NAME   "secret"
#define NAME_ROOM     64 /* bytes kept free behind the path for a name */
#define PID_TEXT_MAX  24
#define OTHERS_ACCESS (S_IRWXG | S_IRWXO)
#define OTHERS_WRITE  (S_IWGRP | S_IWOTH)

/* --- the directory -------------------------------------------------------- */

/* One directory of the path; those that are there are left as they are. */
static int make_dir(const char *path, struct error *err)
{
	struct stat st;
	int saved_errno;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	if (mkdir(path, DIR_MODE) == 0)
		return 0;
	saved_errno = errno;
	if (stat(path, &st) < 0)
		return error_set_errno(err, saved_errno,
		                       "cannot make the directory %s", path);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, ERR_INVALID,
		                 "%s is not a directory; state_dir has to name "
		                 "one",
		                 path);
	return 0; /* somebody else was quicker */
}

static int make_dirs(const char *path, struct error *err)
{
	char *copy = strdup(path);
	char *slash;
	int r = 0;

	if (!copy)
		return error_set_nomem(err, "state directory");
	for (slash = strchr(copy + 1, '/'); slash && r == 0;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		r = make_dir(copy, err);
		*slash = '/';
	}
	if (r == 0)
		r = make_dir(copy, err);
	free(copy);
	return r;
}

/* Whoever can write here can read the prompts of everybody and take over the
 * link, so it must be ours alone. */
static int check_dir(int dirfd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(dirfd, &st) < 0)
		return error_set_errno(err, errno, "cannot look at %s", path);
	if (st.st_uid != geteuid())
		return error_set(err, ERR_DENIED,
		                 "the state directory %s belongs to user %lu, "
		                 "this process runs as user %lu; name another "
		                 "with --state-dir or run as its owner",
		                 path, (unsigned long)st.st_uid,
		                 (unsigned long)geteuid());
	if (st.st_mode & OTHERS_WRITE)
		return error_set(err, ERR_DENIED,
		                 "the state directory %s can be written by "
		                 "others; chmod go-w %s",
		                 path, path);
	if (faccessat(dirfd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return error_set(err, ERR_DENIED,
		                 "the state directory %s cannot be written: %s",
		                 path, strerror(errno));
	return 0;
}

static int open_dir(struct state_dir *s, const char *path, struct error *err)
{
	if (*path == '\0')
		return error_set(err, ERR_INVALID,
		                 "the state directory has no name");
	if (make_dirs(path, err) < 0)
		return -1;
	/* Absolute, since the process may change its directory later. */
	s->path = realpath(path, NULL);
	if (!s->path)
		return error_set_errno(err, errno, "cannot use %s", path);
	if (strlen(s->path) + NAME_ROOM > PATH_MAX)
		return error_set(err, ERR_LIMIT,
		                 "the path of the state directory is too long: "
		                 "%zu bytes of at most %d",
		                 strlen(s->path), PATH_MAX - NAME_ROOM);
	s->dirfd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dirfd < 0)
		return error_set_errno(err, errno, "cannot open %s", s->path);
	return check_dir(s->dirfd, s->path, err);
}

/* --- the lock ------------------------------------------------------------- */

/* -EAGAIN if somebody has it. */
static int set_lock(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

static int error_busy(const struct state_dir *s, struct error *err)
{
	char text[PID_TEXT_MAX + 1] = "";
	ssize_t n = pread(s->lockfd, text, PID_TEXT_MAX, 0);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	/* Empty for the moment between locking and writing. */
	if (pid <= 0)
		return error_set(err, ERR_BUSY,
		                 "another supervisor uses the state directory "
		                 "%s",
		                 s->path);
	return error_set(err, ERR_BUSY,
	                 "the supervisor with pid %ld uses the state directory "
	                 "%s",
	                 pid, s->path);
}

static int take_lock(struct state_dir *s, struct error *err)
{
	char text[PID_TEXT_MAX];
	int n, r;

	s->lockfd =
		openat(s->dirfd, LOCK_NAME,
	               O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
	               FILE_MODE);
	if (s->lockfd < 0)
		return error_set_errno(err, errno, "cannot open %s",
		                       state_dir_file(s, LOCK_NAME));
	r = set_lock(s->lockfd, F_WRLCK);
	if (r == -EAGAIN)
		return error_busy(s, err);
	if (r < 0)
		return error_set_errno(err, -r, "cannot lock %s",
		                       state_dir_file(s, LOCK_NAME));
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(s->lockfd, 0) < 0 ||
	    pwrite(s->lockfd, text, (size_t)n, 0) != n)
		return error_set_errno(err, errno, "cannot write %s",
		                       state_dir_file(s, LOCK_NAME));
	return 0;
}

/* --- the client id -------------------------------------------------------- */

enum id_result {
	ID_GOOD,
	ID_MISSING,
	ID_DAMAGED,
	ID_ERROR, /* errno tells */
};

/* The id is a capability: who connects with it takes the events. */
static void keep_private(const struct state_dir *s, int fd,
                         const struct stat *st)
{
	if (!(st->st_mode & OTHERS_ACCESS))
		return;
	if (fchmod(fd, FILE_MODE) < 0)
		log_warn("state", "%s can be read by others: chmod: %s",
		         state_dir_file(s, ID_NAME), strerror(errno));
	else
		log_warn("state",
		         "%s could be read by others, its mode is 0600 now",
		         state_dir_file(s, ID_NAME));
}

static enum id_result read_id(struct state_dir *s)
{
	char text[UUID_LEN + 2];
	cleanup_close int fd = -1;
	struct stat st;
	ssize_t n;

	/* Not blocking: somebody may have put a fifo there. */
	fd = openat(s->dirfd, ID_NAME,
	            O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return ID_MISSING;
	if (fd < 0 && (errno == ELOOP || errno == ENXIO))
		return ID_DAMAGED;
	if (fd < 0 || fstat(fd, &st) < 0)
		return ID_ERROR;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return ID_DAMAGED;
	n = pread(fd, text, sizeof(text), 0);
	if (n < 0)
		return ID_ERROR;
	if (n == UUID_LEN + 1 && text[UUID_LEN] == '\n')
		n--;
	if (!uuid_valid(text, (size_t)n))
		return ID_DAMAGED;
	memcpy(s->client_id, text, UUID_LEN);
	s->client_id[UUID_LEN] = '\0';
	keep_private(s, fd, &st);
	return ID_GOOD;
}

static int set_aside_id(struct state_dir *s, struct error *err)
{
	if (renameat(s->dirfd, ID_NAME, s->dirfd, BAD_NAME) < 0)
		return error_set_errno(err, errno,
		                       "%s is damaged and cannot be set aside "
		                       "as " BAD_NAME,
		                       state_dir_file(s, ID_NAME));
	log_warn("state",
	         "%s is damaged: set aside as " BAD_NAME
	         ", a new client id is made; events of prompts that ComfyUI "
	         "still runs are lost, their results are not",
	         state_dir_file(s, ID_NAME));
	return 0;
}

static int load_id(struct state_dir *s, struct error *err)
{
	switch (read_id(s)) {
	case ID_GOOD:
		return 0;
	case ID_DAMAGED:
		if (set_aside_id(s, err) < 0)
			return -1;
		break;
	case ID_MISSING:
		break;
	case ID_ERROR:
		return error_set_errno(err, errno, "cannot read %s",
		                       state_dir_file(s, ID_NAME));
	}
	return state_dir_renew_client_id(s, err);
}

/* --- the secret ----------------------------------------------------------- */

/* 1: read; 0: there is none that can be used; -1: errno tells. */
static int read_secret(struct state_dir *s)
{
	char bytes[sizeof(s->secret) + 1];
	cleanup_close int fd = -1;
	struct stat st;
	ssize_t n;

	fd = openat(s->dirfd, SECRET_NAME,
	            O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ELOOP ? 0 : -1;
	if (fstat(fd, &st) < 0)
		return -1;
	n = S_ISREG(st.st_mode) ? pread(fd, bytes, sizeof(bytes), 0) : 0;
	if (n < 0)
		return -1;
	/* One that others could read is none. */
	if (n != sizeof(s->secret) || st.st_uid != geteuid() ||
	    (st.st_mode & OTHERS_ACCESS)) {
		log_warn("state", "%s is damaged or not private: replaced",
		         state_dir_file(s, SECRET_NAME));
		return 0;
	}
	memcpy(s->secret, bytes, sizeof(s->secret));
	return 1;
}

static int load_secret(struct state_dir *s, struct error *err)
{
	int r = read_secret(s);

	if (r < 0)
		return error_set_errno(err, errno, "cannot read %s",
		                       state_dir_file(s, SECRET_NAME));
	if (r > 0)
		return 0;
	if (getrandom(s->secret, sizeof(s->secret), 0) != sizeof(s->secret))
		return error_set(err, ERR_SYSTEM, "no random bytes");
	r = fd_write_file(state_dir_file(s, SECRET_NAME), s->secret,
	                  sizeof(s->secret), FILE_MODE);
	if (r < 0)
		return error_set_errno(err, -r, "cannot write %s",
		                       state_dir_file(s, SECRET_NAME));
	return 0;
}

/* --- interface ------------------------------------------------------------ */

int state_dir_open(struct state_dir *s, const char *path, struct error *err)
{
	*s = (struct state_dir)STATE_DIR_NULL;
	if (open_dir(s, path, err) < 0)
		goto failed;
	if (take_lock(s, err) < 0) {
		/* Not ours: closing must not clear the holder's pid. */
		if (s->lockfd >= 0)
			(void)close(s->lockfd);
		s->lockfd = -1;
		goto failed;
	}
	if (load_id(s, err) < 0 || load_secret(s, err) < 0)
		goto failed;
	return 0;
failed:
	state_dir_close(s);
	return -1;
}

void state_dir_close(struct state_dir *s)
{
	if (s->lockfd >= 0) {
		/* By hand, since a child forked meanwhile may hold a copy of
		 * the descriptor for a moment longer. */
		if (ftruncate(s->lockfd, 0) < 0 ||
		    set_lock(s->lockfd, F_UNLCK) < 0)
			log_warn("state", "cannot release the lock in %s: %s",
			         s->path, strerror(errno));
		(void)close(s->lockfd);
	}
	if (s->dirfd >= 0)
		(void)close(s->dirfd);
	free(s->path);
	*s = (struct state_dir)STATE_DIR_NULL;
}

int state_dir_renew_client_id(struct state_dir *s, struct error *err)
{
	char text[UUID_LEN + 2];
	int r = uuid_new(text);

	if (r < 0)
		return error_set_errno(err, -r, "cannot make a client id");
	text[UUID_LEN] = '\n';
	r = fd_write_file(state_dir_file(s, ID_NAME), text, UUID_LEN + 1,
	                  FILE_MODE);
	if (r < 0)
		return error_set_errno(err, -r, "cannot write %s",
		                       state_dir_file(s, ID_NAME));
	memcpy(s->client_id, text, UUID_LEN);
	s->client_id[UUID_LEN] = '\0';
	return 0;
}

int state_dir_is_paused(const struct state_dir *s, bool *pausedp,
                        struct error *err)
{
	*pausedp = faccessat(s->dirfd, PAUSED_NAME, F_OK,
	                     AT_SYMLINK_NOFOLLOW) == 0;
	if (*pausedp || errno == ENOENT)
		return 0;
	return error_set_errno(err, errno, "cannot look at %s",
	                       state_dir_file(s, PAUSED_NAME));
}

int state_dir_set_paused(const struct state_dir *s, bool paused,
                         struct error *err)
{
	static const char text[] = "comfymux resume ends this pause\n";
	int r = 0;

	if (paused)
		r = fd_write_file(state_dir_file(s, PAUSED_NAME), text,
		                  sizeof(text) - 1, FILE_MODE);
	else if (unlinkat(s->dirfd, PAUSED_NAME, 0) < 0 && errno != ENOENT)
		r = -errno;
	if (r < 0)
		return error_set_errno(err, -r, "cannot %s %s",
		                       paused ? "write" : "remove",
		                       state_dir_file(s, PAUSED_NAME));
	return 0;
}

void state_dir_record_key(const struct state_dir *s, uid_t uid, uint32_t key[4])
{
	char text[] = {'r', 'e', 'c', 'o', 'r', 'd', 0, 0, 0, 0, 0};
	uint32_t id = uid;
	uint64_t half;

	memcpy(text + 6, &id, sizeof(id));
	for (size_t i = 0; i < 2; i++) {
		text[10] = (char)i;
		half = siphash(s->secret, 2, 4, text, sizeof(text));
		memcpy(key + 2 * i, &half, sizeof(half));
	}
}

const char *state_dir_file(const struct state_dir *s, const char *name)
{
	static char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", s->path, name);
	return path;
}
