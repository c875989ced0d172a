/*
 * batch_source.h - the workflows of a batch, as the command line names them:
 * files, directories, JSON Lines, times every combination of the --sweep
 * options. Each text is read when its turn has come.
 */
#ifndef WORKERS_FRONT_BATCH_SOURCE_H
#define WORKERS_FRONT_BATCH_SOURCE_H

#include "workers/front/cli.h"

#define BATCH_LINES_BYTES_MAX (256u << 20) /* of a JSON Lines file */
#define BATCH_SWEEP_VALUES    10000        /* of one --sweep */

struct batch_source;

/* Looks at what the arguments name. A file that can't be read is an item that
 * fails; a bad --sweep, or nothing at all, is an error of the command line.
 * `cli` must outlive it. NULL with `err` set. */
struct batch_source *batch_source_new(const struct cli *cli, struct error *err);
struct batch_source *batch_source_free(struct batch_source *s);

size_t batch_source_count(const struct batch_source *s);
/* "a.json", "lines.jsonl:3", "a.json 3.seed=5"; a static buffer. */
const char *batch_source_label(const struct batch_source *s, size_t index);
/* Appends the workflow of `index`, checked, with --set and --sweep put in.
 * `*prompt_idp` (the caller's to free) is the id that a JSON line gave, or
 * NULL. */
int batch_source_read(struct batch_source *s, size_t index, struct buf *out,
                      char **prompt_idp, struct error *err);

#endif
