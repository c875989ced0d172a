/*
 * sim_graph.h - the graph of a running prompt: nodes of the workflow and those
 * that appear at run time, and which of them runs next.
 *
 * The order of execution follows ComfyUI's: a node waits for its links; among
 * the ready ones outputs and coroutines go first, then what feeds an output,
 * then what feeds that.
 */
#ifndef TESTS_SIM_GRAPH_H
#define TESTS_SIM_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#include "common/list.h"
#include "common/map.h"
#include "tests/sim/sim_cache.h"
#include "tests/sim/sim_nodes.h"
#include "tests/sim/sim_value.h"

struct sim_input {
	char *name;
	char *link; /* id of the node it comes from; NULL: `value` */
	long slot;
	struct sim_value *value;
};

struct sim_node {
	char *id;
	const struct sim_class *cls;
	struct sim_input *inputs;
	size_t ninputs;
	struct sim_node
		*parent; /* that expanded into it; NULL: in the workflow */
	char *display;   /* id shown to the user */
	struct sim_cache *cache;
	struct sim_key key;
	enum { SIM_KEY_NONE, SIM_KEY_BUSY, SIM_KEY_SET } key_state;
	/* what waits for what */
	struct list pending;
	bool is_pending;
	unsigned blocked_by;
	struct sim_node **blocks;
	size_t nblocks;
	/* progress, as registered */
	struct list touched;
	bool is_touched, finished;
	double value, max;
	bool value_int, max_int;
	bool executed;
	struct sim_run *run; /* under way, or its expansion is */
};

struct sim_graph {
	struct map by_id;
	struct sim_node **nodes;
	size_t nnodes;
	struct list pending; /* in the order they were added */
	struct list touched;
	unsigned external; /* coroutines under way */
};

void sim_graph_init(struct sim_graph *g);
void sim_graph_deinit(struct sim_graph *g);
/* NULL if the id is taken. */
struct sim_node *sim_graph_add(struct sim_graph *g, const char *id,
                               const struct sim_class *cls,
                               struct sim_node *parent, const char *display);
struct sim_node *sim_graph_find(const struct sim_graph *g, const char *id);
/* Another class, and no inputs. */
void sim_node_reset(struct sim_node *n, const struct sim_class *cls);
/* Takes over the reference; a constant of the form ["id", 0] is a link. */
void sim_node_set_input(struct sim_node *n, const char *name,
                        struct sim_value *value);
void sim_node_set_link(struct sim_node *n, const char *name, const char *from,
                       long slot);
struct sim_input *sim_node_input(const struct sim_node *n, const char *name);
/* The node of the workflow that a node comes from. */
const struct sim_node *sim_node_real(const struct sim_node *n);
struct sim_entry *sim_node_entry(const struct sim_node *n);
/* Its outputs are in the cache. */
bool sim_node_cached(const struct sim_node *n);

/* Computes the cache keys of the node and of what it depends on. `volatile_`
 * says what a file input's content is keyed by. */
void sim_graph_key(struct sim_graph *g, struct sim_node *n,
                   void (*file_key)(void *arg, struct sim_node *n,
                                    struct sim_key *k),
                   void *arg);

/* Schedules a node with all that it needs and that isn't cached. */
void sim_graph_want(struct sim_graph *g, struct sim_node *n);
/* Makes `to` wait for `from`. */
void sim_graph_wait(struct sim_graph *g, struct sim_node *from,
                    struct sim_node *to);
/* The next one to run, or NULL if none is ready. */
struct sim_node *sim_graph_pick(const struct sim_graph *g);
void sim_graph_pop(struct sim_graph *g, struct sim_node *n);
bool sim_graph_empty(const struct sim_graph *g);
/* The id to blame for a cycle among the pending nodes. */
const char *sim_graph_blame(const struct sim_graph *g);

#endif
