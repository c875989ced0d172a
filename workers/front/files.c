/*
 * files.c - see files.h.
 */
#include "workers/front/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

struct file {
	struct list node;
	uint64_t token;
	int fd;
	bool overwrite;
	char *temporary, *final;
};

/* What the user can mend has a type of its own, and is no failure of the
 * machine's. */
static enum error_code code_of(int errnum)
{
	switch (errnum) {
	case ENOENT:
	case ENOTDIR:
		return ERR_NOT_FOUND;
	case EACCES:
	case EPERM:
	case EROFS:
		return ERR_DENIED;
	case EEXIST:
	case EISDIR:
	case ELOOP:
	case ENAMETOOLONG:
		return ERR_INVALID;
	default:
		return ERR_SYSTEM;
	}
}

static int fail(struct error *err, int errnum, const char *what,
                const char *path)
{
	(void)error_set_errno(err, errnum, "%s %s", what, path);
	if (err)
		err->code = code_of(errnum);
	return -1;
}

/* O_NONBLOCK: a FIFO must not hold us up before we see that it is one. */
int files_open(const char *path, struct error *err)
{
	cleanup_close int fd =
		open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, errno, "cannot read", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERR_INVALID, "%s is no regular file",
		                 path);
	return steal_fd(&fd);
}

/* The user's umask decides, not mkstemp's 0600. */
static int apply_umask(int fd)
{
	mode_t mask = umask(0);

	(void)umask(mask);
	return fchmod(fd, 0666 & ~mask);
}

static int write_all(int fd, struct span s)
{
	size_t done = 0;
	ssize_t n;

	while (done < s.n) {
		n = write(fd, s.p + done, s.n - done);
		if (n < 0 && errno != EINTR)
			return -1;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int files_replace(const char *path, struct span content, struct error *err)
{
	cleanup_free char *temporary = NULL;
	cleanup_close int fd = -1;
	struct stat st;
	int r;

	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return error_set(err, ERR_INVALID, "%s is no regular file",
		                 path);
	if (asprintf(&temporary, "%s.XXXXXX.part", path) < 0) {
		temporary = NULL;
		return error_set_nomem(err, "a path");
	}
	fd = mkostemps(temporary, 5, O_CLOEXEC);
	if (fd < 0)
		return fail(err, errno, "cannot write beside", path);
	if (apply_umask(fd) == 0 && write_all(fd, content) == 0 &&
	    rename(temporary, path) == 0)
		return 0;
	r = fail(err, errno, "cannot write", path);
	(void)unlink(temporary);
	return r;
}

void files_init(struct files *f)
{
	list_init(&f->open);
	f->count = 0;
}

static void file_free(struct files *f, struct file *file)
{
	list_del(&file->node);
	f->count--;
	(void)close(file->fd);
	free(file->temporary);
	free(file->final);
	free(file);
}

static struct file *file_find(struct files *f, uint64_t token)
{
	struct list *it;

	list_for_each (it, &f->open) {
		struct file *file = list_entry(it, struct file, node);

		if (file->token == token)
			return file;
	}
	return NULL;
}

void files_deinit(struct files *f)
{
	while (!list_empty(&f->open))
		files_drop(f, list_first(&f->open, struct file, node)->token);
}

/* Where the file is to lie: `path`, or `path`/last component of `name`. */
static char *final_path(const char *path, const char *name, struct error *err)
{
	const char *base = strrchr(name, '/');
	struct stat st;
	char *full = NULL;

	base = base ? base + 1 : name;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		if (*base == '\0' || strcmp(base, ".") == 0 ||
		    strcmp(base, "..") == 0) {
			(void)error_set(err, ERR_INVALID,
			                "'%s' is no name for a file in %s",
			                name, path);
			return NULL;
		}
		if (asprintf(&full, "%s/%s", path, base) < 0)
			full = NULL;
	} else {
		full = strdup(path);
	}
	if (!full)
		(void)error_set_nomem(err, "a path");
	return full;
}

static int create_temporary(struct file *file, struct error *err)
{
	int r = asprintf(&file->temporary, "%s.XXXXXX.part", file->final);

	if (r < 0) {
		file->temporary = NULL;
		return error_set_nomem(err, "a path");
	}
	file->fd = mkostemps(file->temporary, 5, O_CLOEXEC);
	if (file->fd < 0)
		return fail(err, errno, "cannot write beside", file->final);
	if (apply_umask(file->fd) < 0)
		return error_set_errno(err, errno, "cannot set the mode of %s",
		                       file->temporary);
	return 0;
}

int files_create(struct files *f, uint64_t token, const char *path,
                 const char *name, bool overwrite, int *fdp, struct error *err)
{
	struct file *file;

	if (f->count >= FILES_OPEN_MAX)
		return error_set(err, ERR_LIMIT, "%d files are open already",
		                 FILES_OPEN_MAX);
	if (file_find(f, token))
		return error_set(err, ERR_BUSY, "this file is open already");
	file = calloc(1, sizeof(*file));
	if (!file)
		return error_set_nomem(err, "a file");
	file->token = token;
	file->overwrite = overwrite;
	file->fd = -1;
	file->final = final_path(path, name, err);
	if (!file->final)
		goto fail;
	if (!overwrite && access(file->final, F_OK) == 0) {
		(void)error_set(err, ERR_INVALID,
		                "%s exists; name another file or ask for "
		                "overwriting",
		                file->final);
		goto fail;
	}
	if (create_temporary(file, err) < 0)
		goto fail;
	list_append(&f->open, &file->node);
	f->count++;
	*fdp = file->fd;
	return 0;
fail:
	if (file->fd >= 0)
		(void)close(file->fd);
	if (file->fd >= 0 && file->temporary)
		(void)unlink(file->temporary);
	free(file->temporary);
	free(file->final);
	free(file);
	return -1;
}

/* Without `overwrite` a name that appeared meanwhile is left alone: link()
 * fails where rename() would replace. */
static int move_into_place(const struct file *file)
{
	if (file->overwrite)
		return rename(file->temporary, file->final);
	if (link(file->temporary, file->final) == 0) {
		(void)unlink(file->temporary);
		return 0;
	}
	/* Some file systems have no hard links. */
	if (errno == EPERM || errno == EOPNOTSUPP)
		return renameat2(AT_FDCWD, file->temporary, AT_FDCWD,
		                 file->final, RENAME_NOREPLACE);
	return -1;
}

int files_commit(struct files *f, uint64_t token, char **pathp,
                 struct error *err)
{
	struct file *file = file_find(f, token);
	int r = 0;

	if (!file)
		return error_set(err, ERR_NOT_FOUND, "no such open file");
	if (fsync(file->fd) < 0) {
		r = fail(err, errno, "cannot write", file->final);
	} else if (move_into_place(file) < 0) {
		r = fail(err, errno, "cannot put in its place", file->final);
	}
	if (r < 0) {
		files_drop(f, token);
		return r;
	}
	*pathp = steal_ptr(&file->final);
	file_free(f, file);
	return 0;
}

void files_drop(struct files *f, uint64_t token)
{
	struct file *file = file_find(f, token);

	if (!file)
		return;
	(void)unlink(file->temporary);
	file_free(f, file);
}
