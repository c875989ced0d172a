/*
 * progress_impl.h - what the progress_*.c files share: the state behind
 * struct cmx_progress, and its nodes. Nobody else includes it.
 *
 * Nodes are found by hash, those that run hang on a list with the one that was
 * heard of last in front, and the texts of lists and outputs grow with the
 * state: so folding an event costs the same however many nodes are known.
 */
#ifndef COMMON_PROGRESS_IMPL_H
#define COMMON_PROGRESS_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/json_span.h"
#include "common/list.h"
#include "common/map.h"
#include "common/progress.h"

/* The exception's type of a branch that was blocked on purpose; the run goes
 * on (recording 18). */
#define PROGRESS_TYPE_BLOCKED     "ExecutionBlocked"
#define PROGRESS_TYPE_INTERRUPTED "interrupted"
#define PROGRESS_TYPE_UNKNOWN     "error" /* a failure without a name */

enum node_state {
	NODE_IDLE, /* known by name only */
	NODE_RUNNING,
	NODE_COMPLETED,
	NODE_CACHED,
	NODE_ANSWERED, /* by an equal node of the same prompt (27) */
};

struct node {
	struct list running; /* in progress.running while NODE_RUNNING */
	enum node_state state;
	/* Not merely named upon a reconnect, which may name a node that has
	 * ended, or the display id of another (31). */
	bool confirmed;
	bool ran;          /* was seen running */
	bool has_output;   /* at output_at of progress.outputs */
	double fraction;   /* never falls */
	double value, max; /* that belong to fraction */
	size_t output_at, output_len;
	size_t id_len;
	char id[]; /* decoded, terminated */
};

/* One of the public lists, with its text as a JSON array's content. */
struct node_list {
	struct cmx_nodes *nodes;
	size_t cap;
	struct buf json;
};

struct progress {
	struct cmx_progress pub;
	char *prompt_id;
	struct map nodes;
	struct list running; /* heard of last first */
	struct node_list completed, cached;
	struct buf outputs; /* "{...}", or empty */
	char *error_text;   /* what pub.error points into */
	bool error_fatal;   /* fails the prompt at its end */
	bool saw_start;     /* from the first event on */
	bool partial;       /* part of the course was not heard */
	bool saw_state;     /* the server tells node states */
};

/* ---- progress_nodes.c; each returns a set of progress_change ---- */

void progress_nodes_init(struct progress *p);
void progress_nodes_deinit(struct progress *p);
/* The node of that id (a JSON string's raw content), made if need be; NULL
 * and nodes_truncated if it can't be kept. */
struct node *progress_node(struct progress *p, struct span raw_id);
/* The same for one that is known already, else NULL. */
struct node *progress_find_node(const struct progress *p, struct span raw_id);
unsigned progress_node_start(struct progress *p, struct node *n);
/* Steps of a running node; falling ones are passed over. */
unsigned progress_node_step(struct progress *p, struct node *n, double value,
                            double max);
/* Unless it is known not to have run. */
unsigned progress_node_complete(struct progress *p, struct node *n);
/* Unless it was seen running. */
unsigned progress_node_cache(struct progress *p, struct node *n);
/* Completes what runs and was confirmed; the rest is forgotten. */
unsigned progress_complete_running(struct progress *p);
/* Nothing runs any more; completes nothing. */
void progress_drop_running(struct progress *p);
/* Makes current_* those of the node heard of last. */
unsigned progress_refresh_current(struct progress *p);
/* Keeps a node's output; `output` is an object. A different one replaces the
 * first if `replace`. */
unsigned progress_set_output(struct progress *p, struct node *n,
                             struct json output, bool replace);

/* ---- progress_history.c ---- */

/* Outputs of nodes that have none yet; with `replace` of the others, too. */
unsigned progress_add_outputs(struct progress *p, struct json outputs,
                              bool replace);

/* ---- progress.c ---- */

unsigned progress_set_executing(struct progress *p);
/* Notes an error; `message` and `node_id` may be {NULL, 0}. Says whether that
 * is news. */
bool progress_set_error(struct progress *p, struct span type,
                        struct span message, struct span node_id);
bool progress_clear_error(struct progress *p);
/* The same out of JSON strings; what is none counts as absent. */
bool progress_set_error_json(struct progress *p, struct json type,
                             struct json message, struct json node_id);
bool progress_set_interrupted(struct progress *p, struct json node_id);
/* Ends the prompt, failed if a fatal error stands. */
unsigned progress_end(struct progress *p);
/* Nodes of execution_cached; anything but an array is none. */
unsigned progress_fold_cached(struct progress *p, struct json ids);
/* Nodes of an `executed` list of an error or interrupt. */
unsigned progress_complete_executed(struct progress *p, struct json ids);

#endif
