/*
 * remote_file.h - files that the keeper opens for us, and puts in place, as its
 * user: a worker has no file system.
 *
 *     OPEN -> FILE (descriptor) -> read or write -> CLOSE -> CLOSED (path)
 */
#ifndef WORKERS_REMOTE_FILE_H
#define WORKERS_REMOTE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/list.h"
#include "common/span.h"

struct worker;
struct channel_frame;

#define REMOTE_FILES_MAX 64 /* open at once in one worker */

struct remote_file;
struct remote_file_handlers {
	/* It is open: the descriptor is the remote file's. */
	void (*on_open)(void *user, int fd);
	/* Last call: where it lies now, or why not (`err` set, `path` NULL).
	 * Comes for a file that couldn't be opened, too. */
	void (*on_closed)(void *user, const char *path,
	                  const struct error *err);
};
/* Which file. Of a directory as `path` the keeper takes the file `name`. */
struct remote_file_wish {
	const char *path, *name; /* name may be NULL */
	bool write, overwrite;
};
struct remote_file *remote_file_open(struct worker *w, uint64_t line,
                                     const struct remote_file_wish *wish,
                                     const struct remote_file_handlers *h,
                                     void *user, struct error *err);
/* After on_open: complete (`keep`), or to be dropped. on_closed follows. */
void remote_file_close(struct remote_file *f, bool keep);
/* Drops it without further calls. NULL is fine; returns NULL. */
struct remote_file *remote_file_free(struct remote_file *f);

/* For worker.c: all of a worker's remote files. */
struct remote_files {
	struct list open;
	size_t count;
	uint64_t last_token;
};
void remote_files_init(struct remote_files *fs);
/* Drops all without calls. */
void remote_files_deinit(struct remote_files *fs);
/* FILE or CLOSED came; consumes the frame's descriptor. */
void remote_files_on_frame(struct remote_files *fs,
                           const struct channel_frame *f);

#endif
