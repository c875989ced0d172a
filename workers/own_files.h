/*
 * own_files.h - whether a file is one's own: looked for by name in the outputs
 * of all of one's prompts that the supervisor keeps, a thousand at a time.
 */
#ifndef WORKERS_OWN_FILES_H
#define WORKERS_OWN_FILES_H

#include <stdbool.h>

#include "workers/link.h"
#include "workers/tool_files_of.h"

struct own_files;

/* The search is over, and gone. `err` is set if it could not be made. */
typedef void own_files_cb(void *user, bool found, const struct error *err);

/* Needs a bus. `is_it` is called for each file that a prompt's outputs name,
 * the newest prompt first; false: that is it. Neither is called from inside.
 * NULL with `err` set on failure. */
struct own_files *own_files_find(struct link *l, const char *filename,
                                 tool_file_of_cb *is_it, own_files_cb *on_end,
                                 void *user, struct error *err);
/* No callback will come. NULL is fine; returns NULL. */
struct own_files *own_files_free(struct own_files *o);

#endif
