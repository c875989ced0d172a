/*
 * job_view.h - how a job of several workflows reaches the user: bars for those
 * that run and a line of totals on a terminal, a line for each end elsewhere,
 * JSON lines with --json:
 *
 *     {"event": "progress", "total", "completed", "failed", "waiting",
 *      "fraction", "per_minute", "left_s", "running": [{"index", "label",
 *      "prompt_id", "status", "fraction"}]}     at most one a second
 *     {"event": "result", "label", "index", ...}       see common/job_result
 *     {"event": "done", "total", "completed", "failed", "elapsed_ms"}
 *
 * Results come in the order of the input, each as soon as those before it are
 * there.
 */
#ifndef WORKERS_FRONT_JOB_VIEW_H
#define WORKERS_FRONT_JOB_VIEW_H

#include <ev.h>

#include "common/progress.h"
#include "workers/front/bars.h"
#include "workers/front/cli.h"
#include "workers/front/out.h"

#define JOB_VIEW_ROWS        16           /* bars at a time */
#define JOB_VIEW_RESULTS_MAX (512u << 20) /* bytes of results held back */

struct job_view_item {
	struct progress *progress; /* while it runs */
	char *node_class;
	size_t total_nodes;
	int64_t started_ms, executing_ms;
	char *result; /* JSON text, once it has ended */
	size_t result_len;
	bool ok, told;
};

struct job_view {
	struct ev_loop *loop;
	const struct cli *cli;
	const char *noun; /* "workflow", "step" */
	size_t count;
	struct job_view_item *items;
	/* What `index` is called; valid until the next call. */
	const char *(*label)(void *user, size_t index);
	void *user;
	struct out out;
	struct bars bars;
	bool use_bars, dirty;
	ev_timer tick;
	ev_signal resized;
	size_t completed, failed, running, told;
	size_t results_bytes;
	double fraction;
	bool fraction_told;
	int64_t started_ms;
};

int job_view_init(struct job_view *v, struct ev_loop *loop,
                  const struct cli *cli, const char *noun, size_t count,
                  const char *(*label)(void *user, size_t index), void *user,
                  struct error *err);
/* Safe twice. */
void job_view_deinit(struct job_view *v);

void job_view_started(struct job_view *v, size_t index);
/* A worker's output: {"progress": {...}, "class", "total_nodes"}. */
void job_view_news(struct job_view *v, size_t index, struct json line);
/* How far the whole is, where somebody else counts: nobody does here then. */
void job_view_fraction(struct job_view *v, double fraction);
void job_view_note(struct job_view *v, const char *fmt, ...) ATTR_PRINTF(2, 3);
/* It ended: the object of common/job_result, copied. */
void job_view_ended(struct job_view *v, size_t index, struct span result);
/* The same, and `files` were fetched for it, the content of a JSON array. The
 * result is freed, `*resultp` NULL then. */
void job_view_fetched(struct job_view *v, size_t index, char **resultp,
                      struct span files);
/* All is over: the last lines. */
void job_view_finish(struct job_view *v);
/* The exit status that the results make: 6 in part; where all failed, that of
 * their error if it is the same for all. */
int job_view_status(const struct job_view *v);

#endif
