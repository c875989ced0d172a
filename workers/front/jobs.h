/*
 * jobs.h - detached jobs on the command line: batch and chain with --detach,
 * and cancel with a job's id. `jobs` and `attach` are commands of their own.
 */
#ifndef WORKERS_FRONT_JOBS_H
#define WORKERS_FRONT_JOBS_H

#include "workers/front/batch_source.h"

/* Each hands a job over, prints its id, and returns the exit status. */
int jobs_detach_batch(const struct cli *cli, struct batch_source *source);
int jobs_detach_chain(const struct cli *cli, struct json steps);

bool jobs_is_id(const char *text);
int jobs_cancel(struct cli *cli);

#endif
