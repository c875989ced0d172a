/*
 * sim_validate_input.h - shared by the two files of validation and nobody else.
 */
#ifndef TESTS_SIM_VALIDATE_INPUT_H
#define TESTS_SIM_VALIDATE_INPUT_H

#include "common/map.h"
#include "tests/sim/sim_nodes.h"
#include "tests/sim/sim_validate.h"

struct sim_vnode {
	char *id;
	struct json node, inputs;
	const struct sim_class *cls;
	bool is_output;
	enum {
		SIM_V_UNSEEN,
		SIM_V_BUSY, /* its inputs are being looked at: a cycle */
		SIM_V_GOOD,
		SIM_V_FAILED,
	} state;
	struct buf errors;    /* JSON objects with commas between */
	struct buf details;   /* "message: details" lines */
	struct buf dependent; /* JSON strings with commas between */
};

/* A value that is to be replaced by another, at `start` of replacements. */
struct sim_splice {
	struct span part;
	size_t start, len;
};

struct sim_walk {
	struct json workflow;
	const struct sim_files *files;
	struct sim_vnode **nodes;
	size_t nnodes;
	struct map by_id;
	struct sim_splice *splices;
	size_t nsplices;
	struct buf replacements;
	unsigned depth;
};

void sim_validate_output(struct sim_walk *w, struct sim_vnode *n);

#endif
