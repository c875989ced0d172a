/*
 * sim_exec_node.h - shared by the two files of the executor and nobody else.
 */
#ifndef TESTS_SIM_EXEC_NODE_H
#define TESTS_SIM_EXEC_NODE_H

#include "tests/sim/sim_exec.h"

/* The picked node gets its turn. */
void sim_exec_node(struct sim_exec *x, struct sim_node *n);
/* A node that waited goes on. */
void sim_exec_continue(struct sim_exec *x, struct sim_node *n);
/* Nothing is ready and nothing is under way. */
void sim_exec_cycle(struct sim_exec *x);
/* What a node's file input is keyed by. */
void sim_exec_file_key(void *arg, struct sim_node *n, struct sim_key *k);
/* The prompt has come to its last event. */
void sim_exec_end(struct sim_exec *x);

#endif
