/*
 * show.h - how a prompt's progress reaches the user: bars on a terminal, plain
 * lines elsewhere, JSON lines with --json. Shared by run and watch.
 */
#ifndef WORKERS_FRONT_SHOW_H
#define WORKERS_FRONT_SHOW_H

#include <ev.h>

#include "common/progress.h"
#include "common/progress_log.h"
#include "workers/front/bars.h"
#include "workers/front/cli.h"
#include "workers/front/out.h"

#define SHOW_QUEUE_BYTES (4u << 20) /* waiting for a slow reader of stdout */

struct show {
	struct ev_loop *loop;
	const struct cli *cli;
	const char *label;
	struct out out;
	struct bars bars;
	bool use_bars;
	ev_signal resized;
	ev_timer tick; /* elapsed time moves on without news */
	struct progress *progress;
	struct progress_log log;
	char *node_class;
	size_t total_nodes;
	int64_t started_ms, executing_ms;
};

/* `label` is borrowed. */
void show_init(struct show *s, struct ev_loop *loop, const struct cli *cli,
               const char *label);
/* Safe twice. */
void show_deinit(struct show *s);
/* Takes one line of a worker's `run` or `watch`: {"progress": {...}, "class",
 * "total_nodes", ...}, or an event of the bus, which has the same "progress"
 * member. */
void show_update(struct show *s, struct json line);
/* The last state, from a result that holds an ExecutionProgress. */
void show_result(struct show *s, struct json result);
/* A line for the user beside the progress, on stderr. */
void show_note(struct show *s, struct span text);
/* The end: what was drawn stays, stdout is written out. */
void show_finish(struct show *s);

#endif
