/*
 * sim_validate.h - what POST /prompt checks before it queues a workflow: the
 * errors are those of ComfyUI 0.3.64 (recordings 06 and 24).
 */
#ifndef TESTS_SIM_VALIDATE_H
#define TESTS_SIM_VALIDATE_H

#include <stddef.h>

#include "common/buf.h"
#include "common/json_span.h"
#include "tests/sim/sim_files.h"

#define SIM_NODES_MAX   20000 /* nodes of a workflow */
#define SIM_DEPTH_MAX   1000  /* links from an output to its farthest input */
#define SIM_DETAILS_MAX 67108864 /* bytes of a refusal */

enum sim_verdict {
	SIM_VALID,   /* perhaps in part: node_errors may be there */
	SIM_INVALID, /* `error` says why */
	SIM_CRASH,   /* the original answers 500 */
};

struct sim_validation {
	struct buf error;       /* JSON object */
	struct buf node_errors; /* JSON object */
	struct buf workflow;    /* with values converted to their types */
	char **outputs;         /* nodes to run, in the workflow's order */
	size_t noutputs;
};

/* `targets` is the array partial_execution_targets, or missing. */
enum sim_verdict sim_validate(struct sim_validation *v, struct json workflow,
                              struct json targets,
                              const struct sim_files *files);
void sim_validation_deinit(struct sim_validation *v);

#endif
