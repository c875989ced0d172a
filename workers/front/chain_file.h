/*
 * chain_file.h - a chain's file, with the workflows that it names by path put
 * in: relative paths start at the file's directory.
 */
#ifndef WORKERS_FRONT_CHAIN_FILE_H
#define WORKERS_FRONT_CHAIN_FILE_H

#include "workers/front/cli.h"

/* Appends the members "steps":[...],"stop_on_error":... for a request, and
 * counts the steps. What is no chain is ERR_INVALID: nothing is begun then. A
 * step whose file can't be read says so, and fails when its turn comes. */
int chain_file_read(const struct cli *cli, const char *file, struct buf *out,
                    size_t *countp, struct error *err);

#endif
