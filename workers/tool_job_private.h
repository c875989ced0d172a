/*
 * tool_job_private.h - what tool_job.c (the work), tool_job_view.c (what is
 * told of it) and tool_either.c (tools that take a prompt's id or a job's)
 * share.
 */
#ifndef WORKERS_TOOL_JOB_PRIVATE_H
#define WORKERS_TOOL_JOB_PRIVATE_H

#include "common/buf.h"
#include "common/json_span.h"
#include "ipc/message.h"
#include "workers/tool_job.h"

/* --- tool_job.c --- */

/* Waits for the job that the arguments name. */
void tool_job_wait(struct tool_call *c);
/* Answers with what the supervisor says of it, or does to it. */
void tool_job_ask(struct tool_call *c, enum op op);

/* --- tool_job_view.c --- */

/* Of a reply of the supervisor's; 0: it is not there. */
int64_t tool_job_number(struct json o, const char *key);
/* Appends the member "results": the elements of `items` (`wrapped`: their
 * members "result") that have ended; past a bound without their outputs. */
void tool_job_put_results(struct json items, bool wrapped, struct buf *out);
/* Opens an object with the state of a job, in the words of the tools. */
void tool_job_put(struct json job, bool results, struct buf *out);

#endif
