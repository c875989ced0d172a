/*
 * progress.h - ExecutionProgress: events, or a history entry, folded into the
 * state of one prompt. Pure.
 *
 * The truth it tells:
 * - a node is completed when it ran to its end (progress_state finished, or
 *   the next node starts, or executed), not only when it had an output; nodes
 *   answered from the cache are in cached_nodes, once, and not in
 *   completed_nodes;
 * - current_node_progress is value/max of the current node and never runs
 *   backwards within it (a node may change `max`, recording 03);
 * - several nodes may run at once and nodes may appear at run time
 *   (recording 13): current_node is the one that was heard of last and still
 *   runs;
 * - a node that is answered within the run, because it equals another of the
 *   same prompt, did not run and is not in execution_cached: it is in neither
 *   list (recording 27: `executed` without a start);
 * - the end is `executing` with node null. execution_success comes earlier,
 *   when history is not yet readable (28);
 * - an execution_error is noted and decides at the end, unless
 *   execution_success follows or it is of type ExecutionBlocked, which stops a
 *   branch and not the prompt (18). History agrees by section 4 of the
 *   recordings' README: execution_interrupted in its messages is an
 *   interrupt (07), execution_error there is a failure, even beside a
 *   status_str of success (19), and a blocked branch is not recorded there.
 *
 * What is folded twice changes nothing, so a snapshot and the events around it
 * may overlap.
 */
#ifndef COMMON_PROGRESS_H
#define COMMON_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/comfy_event.h"
#include "common/comfymux.h"
#include "common/json_span.h"

#define PROGRESS_NODES_MAX   20000      /* nodes remembered per prompt */
#define PROGRESS_OUTPUTS_MAX (8u << 20) /* bytes of outputs kept, all nodes */
#define PROGRESS_ERROR_MAX   4096       /* bytes of an error's message */
#define PROGRESS_ID_MAX      256        /* bytes of a prompt's id */
/* Bytes of a node's id: one that is made at run time grows with each level of
 * expansion ("4.0.0.3.0.0.2"), so a loop of a hundred turns has long ones. */
#define PROGRESS_NODE_ID_MAX 1024

struct progress;

/* What a call changed; a set of bits. */
enum progress_change {
	PROGRESS_SAME = 0,
	PROGRESS_STEP = 1 << 0, /* value of the current node only */
	PROGRESS_NODE = 1 << 1, /* a node started, ended, or was cached */
	PROGRESS_OUTPUT = 1 << 2,
	PROGRESS_QUEUE = 1 << 3,  /* queue position, or paused */
	PROGRESS_STATUS = 1 << 4, /* queued -> executing */
	PROGRESS_END = 1 << 5,    /* completed or failed: final */
	PROGRESS_ERROR = 1 << 6,  /* an error was noted, or proved harmless by
	                             the success that followed; not the end */
	/* `executing` null came: whoever owns the prompt may now ask history
	 * where the stream had a gap; without one this state is the result. */
	PROGRESS_EXECUTION_OVER = 1 << 7,
};

/* A queued prompt. NULL when out of memory or the id is longer than
 * PROGRESS_ID_MAX. */
struct progress *progress_new(const char *prompt_id);
/* NULL is fine. Returns NULL. */
struct progress *progress_free(struct progress *p);

/* The ExecutionProgress of the contract (comfymux.h), which is read-only for
 * everybody but progress.c and valid until the next call on its progress. */
const struct cmx_progress *progress_get(const struct progress *p);
static inline bool progress_ended(const struct progress *p)
{
	const struct cmx_progress *c = progress_get(p);

	return c->status == CMX_COMPLETED || c->status == CMX_FAILED;
}

/* Folds an event of this prompt (the caller has matched prompt_id; `executing`
 * with a node and no prompt_id, sent on reconnect, is taken too). Returns a
 * set of progress_change. Events after the end change nothing. `executing`
 * null ends the prompt: failed if an error stands or it was interrupted,
 * completed otherwise. Sets method to websocket when it changes anything. */
unsigned progress_fold_event(struct progress *p, const struct comfy_event *ev);

/* Folds the history entry (the object under the prompt's id). It ends the
 * prompt with the verdict of section 4, takes the entry's outputs and
 * execution_cached, and marks as completed the nodes that ran according to
 * `outputs` and `meta`. An entry of a wrong shape changes nothing and returns
 * PROGRESS_SAME. An end that was reached by events is not changed, but for
 * outputs that were missing. */
unsigned progress_fold_history(struct progress *p, struct json entry,
                               enum cmx_method method);

/* From GET /queue: pending with `ahead` prompts before it, or running. Never
 * takes an executing prompt back to queued. */
unsigned progress_fold_queued(struct progress *p, int64_t ahead,
                              enum cmx_method method);
unsigned progress_fold_running(struct progress *p, enum cmx_method method);
/* Whether it waits because the service is paused. */
unsigned progress_fold_paused(struct progress *p, bool paused);

/* How news will come, where none has come yet to tell. */
void progress_set_method(struct progress *p, enum cmx_method method);

/* Ends the prompt as failed for a reason of ours: type is one of lost,
 * deleted, interrupted, cancelled, rejected, unreachable, timeout or an
 * exception's type; node_id may be NULL. */
unsigned progress_fail(struct progress *p, const char *type,
                       const char *message, const char *node_id);

/* Takes over a state told by somebody else (a snapshot off the bus): the JSON
 * written by progress_to_json. Never runs backwards: what is already known
 * stays known. Wrong shapes are ignored field by field. */
unsigned progress_fold_snapshot(struct progress *p, struct json snapshot);

enum progress_json {
	PROGRESS_JSON_NO_OUTPUTS = 1 << 0, /* leave `outputs` out */
	PROGRESS_JSON_RESULT = 1 << 1,     /* "progress_method" for "method" */
};
/* Appends the ExecutionProgress object: prompt_id, status, current_node,
 * current_node_progress, queue_position, paused, completed_nodes, cached_nodes,
 * outputs, error, method. Members without a value (no current node, unknown
 * position, not paused, no error) are left out. 0 or what buf_append says. */
int progress_to_json(const struct progress *p, unsigned flags, struct buf *out);
/* The same with the output of one node alone, that was executed just now, for
 * those who know the others; without `outputs` if it has none. `raw_id` as
 * json_raw_string() has it. */
int progress_to_json_executed(const struct progress *p, struct span raw_id,
                              struct buf *out);

#endif
