/*
 * worker_private.h - one worker, as worker.c (its loop, what comes in, its
 * life), worker_hello.c and worker_out.c share it; remote_file.c and preview.c
 * need some of the functions.
 */
#ifndef WORKERS_WORKER_PRIVATE_H
#define WORKERS_WORKER_PRIVATE_H

#include <ev.h>

#include "common/credentials.h"
#include "common/list.h"
#include "ipc/channel.h"
#include "workers/remote_file.h"
#include "workers/worker.h"

struct worker {
	struct ev_loop *loop;
	struct channel channel;
	ev_io reader, writer;
	ev_signal term;
	ev_timer hello;        /* deadline for it */
	ev_timer drain;        /* deadline for the last answers */
	ev_timer written;      /* tells what was written, from the loop */
	uint64_t queued_total; /* bytes ever queued on the channel */
	struct list records;   /* waiting to be written, oldest first */
	struct list answers;
	size_t answer_bytes; /* of `answers` */
	struct remote_files files;
	bool behind;   /* an output was left out */
	bool draining; /* END came */
	bool held;     /* and the kind isn't through with it */
	bool left;     /* nothing more is to be done */
	int status;
	bool tenant;
	const struct zygote_told *told; /* NULL: hello is believed */
	const struct credentials *told_credentials;
	struct credentials credentials; /* of one without a supervisor */
	int early_bus;                  /* came before hello; -1: none */
	struct link *link;
	const struct worker_kind *kind;
	void *state;
};

/* --- worker.c --- */

/* Once; the loop ends, and the process with this status. */
void worker_leave(struct worker *w, int status);
/* The keeper is gone: the same whether reading (`r` 0: its end) or writing (a
 * negative errno) shows it. */
void worker_lost_keeper(struct worker *w, int r);
struct remote_files *worker_remote_files(struct worker *w);

/* --- worker_hello.c --- */

/* The first frame. 0, or -1 with `err`: the session can't be. */
int worker_hello(struct worker *w, struct span payload, struct error *err);
/* After hello. Consumes the descriptor; -1: there is none any more. */
void worker_set_bus(struct worker *w, int fd);

/* --- worker_out.c --- */

void worker_out_init(struct worker *w);
void worker_out_deinit(struct worker *w);
/* Queues a frame and writes what can be written. 0 or what channel_send says;
 * a keeper that is gone ends the worker, from the loop. */
int worker_send(struct worker *w, enum channel_type type, uint64_t line,
                struct span payload);
/* The keeper is behind: on_room comes when it has caught up. */
void worker_want_room(struct worker *w);
/* After END: nothing more to say, and all of it said. */
void worker_leave_if_done(struct worker *w);
/* Nothing is to come any more: leaves when it is all out, or too late. */
void worker_drain(struct worker *w);

#endif
