/*
 * ops.h - requests of clients: who may ask what, and the answers. Each op of
 * messages.def has its handler here.
 */
#ifndef SUPERVISOR_OPS_H
#define SUPERVISOR_OPS_H

#include "supervisor/supervisor.h"

#define OPS_HISTORY_DEFAULT 20
#define OPS_HISTORY_MAX     1000
/* Ended prompts that one history request with a filename looks at. */
#define OPS_SEARCH_MAX 1000
/* A history reply leaves outputs out from here on. */
#define OPS_HISTORY_BYTES (8u << 20)
/* Prompts that a queue reply names. */
#define OPS_QUEUE_MAX 20000

/* One line of a client. */
void ops_line(struct supervisor *sv, struct peer *peer, struct span line);

/* The handlers that are not in ops.c. Each answers the request, or sets `err`
 * and returns -1. */
typedef int op_handler(struct supervisor *sv, struct peer *peer,
                       const struct request *req, struct error *err);
op_handler ops_progress, ops_queue, ops_history, ops_status,
	ops_metrics; /* ops_query.c */
/* ops_jobs.c */
op_handler ops_job_create, ops_job_add, ops_job_start, ops_jobs, ops_job,
	ops_job_cancel, ops_job_take, ops_job_item, ops_job_intent,
	ops_job_result, ops_job_progress, ops_job_end;

/* Answers with what was built in `out`, which is freed; -1 with `err` set if
 * the building failed, the request is not answered then. */
int ops_answer(struct peer *peer, const struct request *req, struct buf *out,
               struct error *err);
/* Answers an attach: what its session needs to know. `fd` (-1: none) goes along
 * and is consumed. */
void ops_attached(struct supervisor *sv, struct peer *peer, struct span id,
                  int fd);

/* The active prompt that a request names, if the client may see it. NULL with
 * `err` set: not found, which is also what somebody else's is. */
struct prompt *ops_find(struct supervisor *sv, const struct peer *peer,
                        const struct request *req, struct error *err);
/* Decodes a request's prompt_id; ERR_NOT_FOUND if no prompt can have it. */
int ops_prompt_id(const struct request *req, char id[UUID_LEN + 1],
                  struct error *err);

#endif
