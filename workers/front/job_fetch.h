/*
 * job_fetch.h - --download: the files among a workflow's outputs, fetched into
 * a directory of the user's. The worker fetches, the keeper writes; whatever
 * ComfyUI calls a file, only the last part of its name is used. What several
 * workflows name is fetched once, and is where it is for all of them.
 */
#ifndef WORKERS_FRONT_JOB_FETCH_H
#define WORKERS_FRONT_JOB_FETCH_H

#include "workers/front/job.h"

#define JOB_FETCHES_MAX 8    /* at a time */
#define JOB_FILES_MAX   1000 /* of one workflow */

struct job_fetch;

/* All files of `index` are there, or not: elements of a JSON array, each
 * {"filename", "path", "bytes"} or {"filename", "error"}. */
typedef void job_fetched_cb(struct job *j, size_t index, struct span files);

/* Makes the directory if it isn't there. NULL with `err` set. */
struct job_fetch *job_fetch_new(struct job *j, const char *directory,
                                bool overwrite, job_fetched_cb *cb,
                                struct error *err);
struct job_fetch *job_fetch_free(struct job_fetch *f);
/* `cb` follows; at once when there are none. */
void job_fetch_outputs(struct job_fetch *f, size_t index, struct json outputs);

#endif
