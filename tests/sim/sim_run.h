/*
 * sim_run.h - one node being acted out: its arguments, its outputs, what it
 * tells, and the ways in which it can end. Used by the functions of the node
 * table (sim_behave.h).
 */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "tests/sim/sim_exec.h"
#include "tests/sim/sim_files.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_nodes.h"
#include "tests/sim/sim_value.h"

/* A node of an expansion, before it is in the graph. */
struct sim_new_node {
	char *id; /* with its prefix */
	const char *class_name;
	char *display; /* NULL: the expanding node's */
	struct sim_input *inputs;
	size_t ninputs;
};

struct sim_run {
	struct sim_exec *exec;
	struct sim_node *node;
	struct sim_timer timer;
	struct sim_value **args; /* one for each of node->inputs, or NULL */
	struct sim_value **out;  /* one for each output, or NULL */
	struct buf ui;           /* JSON object; empty: none */
	unsigned phase;          /* how often the function was called before */
	int64_t wait_us;
	int64_t started_us;
	enum sim_step step; /* how the last call ended */
	char *error_type, *error_message;
	bool waiting;               /* a coroutine under way */
	bool was_async;             /* it ended after having waited */
	bool expanded;              /* its expansion is in the graph */
	struct sim_new_node *fresh; /* the expansion */
	size_t nfresh;
	unsigned next_id;
	struct sim_value *preview_of; /* scratch for the table's functions */
};

struct sim_run *sim_run_new(struct sim_exec *x, struct sim_node *n);
void sim_run_free(struct sim_run *r);

/* Arguments by name. NULL if not given. */
struct sim_value *sim_arg(const struct sim_run *r, const char *name);
double sim_arg_number(const struct sim_run *r, const char *name,
                      double otherwise);
int64_t sim_arg_int(const struct sim_run *r, const char *name,
                    int64_t otherwise);
uint64_t sim_arg_uint64(const struct sim_run *r, const char *name);
bool sim_arg_bool(const struct sim_run *r, const char *name, bool otherwise);
/* Decoded, freed by the caller; "" if it is no string. */
char *sim_arg_text(const struct sim_run *r, const char *name);

/* Takes over the reference. */
void sim_out(struct sim_run *r, size_t slot, struct sim_value *v);
enum sim_step sim_wait_ms(struct sim_run *r, double simulated_ms);
enum sim_step sim_fail(struct sim_run *r, const char *type,
                       const char *message);
/* Simulated milliseconds since the function was first called. */
double sim_run_elapsed_ms(const struct sim_run *r);

enum sim_progress_flags {
	SIM_PROGRESS_FLOATS = 1 << 0,    /* written 1.0, not 1 */
	SIM_PROGRESS_NEW_STYLE = 1 << 1, /* progress_state only */
};

/* One step; `preview` (may be NULL) goes along. False if an interrupt was
 * noticed: return SIM_STEP_INTERRUPTED then. */
bool sim_run_progress(struct sim_run *r, double value, double max,
                      unsigned flags, const struct sim_blob *preview,
                      const char *mime);
/* A text frame (binary type 3) to everybody. */
void sim_run_say(struct sim_run *r, const char *text);

/* --- expansions ---------------------------------------------------------- */

/* A node of the expansion with id prefix + name, or prefix + a number. Valid
 * until the next one is added. */
struct sim_new_node *sim_fresh(struct sim_run *r, const char *class_name,
                               const char *name);
/* Takes over the reference. */
void sim_fresh_value(struct sim_new_node *f, const char *input,
                     struct sim_value *v);
void sim_fresh_link(struct sim_new_node *f, const char *input,
                    const char *from_id, long slot);
/* The link to an output of it, as a value. */
struct sim_value *sim_link_value(const char *id, long slot);

#endif
