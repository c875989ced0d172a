/*
 * sim_exec.h - the virtual executor: takes prompts from the queue and acts
 * their nodes out on timers, one prompt at a time.
 *
 * Events, their order and their addressees are those of ComfyUI 0.3.64 (the
 * recordings in tests/data/comfyui).
 */
#ifndef TESTS_SIM_EXEC_H
#define TESTS_SIM_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "tests/sim/sim_graph.h"
#include "tests/sim/sim_loop.h"

struct sim;
struct sim_prompt;

enum sim_exec_state {
	SIM_EXEC_IDLE,
	SIM_EXEC_RUNNING,
	SIM_EXEC_ENDING, /* told, not yet in history */
};

struct sim_exec {
	struct sim *sim;
	enum sim_exec_state state;
	struct sim_prompt *prompt; /* the queue's running one */
	struct sim_graph graph;
	struct sim_cache *cache;
	struct sim_node *busy; /* a plain function runs: nothing else may */
	struct sim_timer turn; /* the next node, prompt or end */
	struct buf messages;   /* of the history entry: [type, data], ... */
	char *client_id;       /* of the latest prompt; NULL: none */
	char *last_node;       /* shown to a client that connects */
	bool interrupt;
	bool success, interrupted;
	bool paused;
	int64_t pause_after;  /* steps told; 0: no pause is to come */
	int64_t pause_starts; /* the same for prompts begun */
};

void sim_exec_init(struct sim_exec *x, struct sim *sim);
void sim_exec_deinit(struct sim_exec *x);
/* Something may be there to run. */
void sim_exec_wake(struct sim_exec *x);
/* Drops the running prompt without a word and empties the cache. */
void sim_exec_forget(struct sim_exec *x);
void sim_exec_pause(struct sim_exec *x, bool paused);
/* It goes on, and pauses when `steps` more have been told or `starts` more
 * prompts begun, if > 0. */
void sim_exec_pause_after(struct sim_exec *x, int64_t steps, int64_t starts);
/* A step was told. */
void sim_exec_count_step(struct sim_exec *x);
/* True and cleared if an interrupt was waiting. */
bool sim_exec_take_interrupt(struct sim_exec *x);

/* A node that waits has come to an end of its waiting. */
void sim_exec_resume(struct sim_exec *x, struct sim_node *n);

#endif
