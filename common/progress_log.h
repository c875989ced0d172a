/*
 * progress_log.h - a prompt's course in plain words, one line per fact:
 * "Queued (position: 2)", "Node 6 started", "Node 6 progress: 25%",
 * "Node 6 completed", "Execution finished". Pure.
 *
 * What `comfymux run` prints off a terminal and what MCP tools return as
 * progress_log. It compares states, so news that were folded together still
 * give every line that is true of them.
 */
#ifndef COMMON_PROGRESS_LOG_H
#define COMMON_PROGRESS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/progress.h"

#define PROGRESS_LOG_STEP 25 /* per cent between two lines of one node */

struct progress_log {
	bool paused;              /* told last */
	int64_t position;         /* last told; -1: none */
	char *node;               /* started last; owned */
	int step;                 /* per cent told of it */
	size_t completed, cached; /* entries of the lists that were told */
	bool executing, ended;
};

/* Gets each line without a newline; false stops the walk. */
typedef bool progress_log_cb(void *user, const char *line);

void progress_log_init(struct progress_log *l);
/* Safe twice. */
void progress_log_deinit(struct progress_log *l);
/* Tells what is new in `p` since the last call. 0 or -ENOMEM. */
int progress_log_update(struct progress_log *l, const struct cmx_progress *p,
                        progress_log_cb *cb, void *user);

#endif
