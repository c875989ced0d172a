/*
 * worker_private.h - what remote_file.c and preview.c need of the worker.
 */
#ifndef WORKERS_WORKER_PRIVATE_H
#define WORKERS_WORKER_PRIVATE_H

#include "ipc/channel.h"
#include "workers/remote_file.h"
#include "workers/worker.h"

struct remote_files *worker_remote_files(struct worker *w);
/* The keeper is behind: on_room comes when it has caught up. */
void worker_want_room(struct worker *w);
/* Queues a frame and writes what can be written. 0 or what channel_send says;
 * a keeper that is gone ends the worker, from the loop. */
int worker_send(struct worker *w, enum channel_type type, uint64_t line,
                struct span payload);

#endif
