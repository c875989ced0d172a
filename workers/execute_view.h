/*
 * execute_view.h - what jobs of several workflows tell of each: how far it is
 * and how it ended.
 */
#ifndef WORKERS_EXECUTE_VIEW_H
#define WORKERS_EXECUTE_VIEW_H

#include "common/job_result.h"
#include "workers/execute.h"

/* Of the nodes that will run those that have, and the part of the current one:
 * 0 to 0.99. `total` is the workflow's number of nodes. */
double execute_fraction(const struct progress *p, size_t total);

/* Appends job_result_json() of `r`, whose end and progress are filled in from
 * the others; `p` may be NULL. */
void execute_result_json(struct job_result *r, enum execute_end end,
                         const struct progress *p, struct buf *out);

#endif
