/*
 * result.h - how the end of a prompt is told: outputs, error, exit status.
 */
#ifndef WORKERS_FRONT_RESULT_H
#define WORKERS_FRONT_RESULT_H

#include "workers/front/cli.h"

/* Prints a worker's answer to `run` or `watch` (`body` is its result or its
 * error); with --json as one line. Returns the exit status. */
int result_print(const struct cli *cli, bool ok, struct json body,
                 int64_t elapsed_ms);

#endif
