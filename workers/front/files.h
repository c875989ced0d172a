/*
 * files.h - the keeper's files: written as the user, in the user's directory,
 * under a temporary name until they are complete.
 */
#ifndef WORKERS_FRONT_FILES_H
#define WORKERS_FRONT_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/list.h"
#include "common/span.h"

#define FILES_OPEN_MAX 32 /* at once, per session */

struct files {
	struct list open;
	size_t count;
};

/* Opens a regular file for reading; the caller closes it. */
int files_open(const char *path, struct error *err);

/* Replaces the content of `path` at once, for whoever looks at it: by a new
 * file, with the mode that the umask leaves. Not synced. A file that is there
 * and isn't a regular one is ERR_INVALID. */
int files_replace(const char *path, struct span content, struct error *err);

void files_init(struct files *f);
/* Drops what is not complete. Safe twice. */
void files_deinit(struct files *f);

/* Opens a temporary file beside `path` for writing; a directory as `path`
 * keeps `name` (whose own directories are dropped: a server's file name never
 * leads elsewhere). A file that exists is ERR_INVALID unless `overwrite`. The
 * descriptor stays files' own; `token` names it from now on. */
int files_create(struct files *f, uint64_t token, const char *path,
                 const char *name, bool overwrite, int *fdp, struct error *err);
/* Renames it into place; `*pathp` is the final path, the caller's to free. */
int files_commit(struct files *f, uint64_t token, char **pathp,
                 struct error *err);
/* Removes it. Unknown tokens are fine. */
void files_drop(struct files *f, uint64_t token);

#endif
