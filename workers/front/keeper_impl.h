/*
 * keeper_impl.h - struct keeper, for the two files that make it up: keeper.c
 * (requests, and the frames about them) and keeper_worker.c (where the worker
 * comes from, its bus, its end and its successor).
 */
#ifndef WORKERS_FRONT_KEEPER_IMPL_H
#define WORKERS_FRONT_KEEPER_IMPL_H

#include "common/list.h"
#include "ipc/channel.h"
#include "workers/front/files.h"
#include "workers/front/host.h"
#include "workers/front/keeper.h"

struct pending {
	struct list node;
	uint64_t line;
	struct buf payload;
	char *path; /* may be written for it; NULL: none */
	struct buf *records;
	size_t record_count, record_cap;
	struct buf last; /* output that went out last, unless it was long */
	unsigned faults;
	bool cancelled;
};

struct keeper {
	struct ev_loop *loop;
	struct keeper_config kc;
	struct keeper_handlers h;
	void *user;
	struct list pending; /* in order of their numbers */
	size_t pending_count, pending_bytes;
	uint64_t next_line;
	struct files files;
	struct buf session; /* the worker's record of itself, the latest */
	bool paused;        /* nothing is read from the worker */
	bool ended;         /* keeper_end() */
	bool *freed;        /* set when a callback frees the keeper */

	/* the worker in hand */
	bool has_worker; /* until its end is complete, which needs both: */
	bool over;       /* all that it had to say is read, */
	bool exited;     /* and it is gone, as far as can be known */
	bool live;       /* frames may be sent to it */
	bool ready;
	bool hosted;   /* forked by the supervisor, else our own child */
	bool replaced; /* by one of the supervisor's; nobody's failure */
	pid_t pid;     /* 0: not known, or none */
	int status;    /* of its end, as wait() gives it; -1: not known */
	ev_child child;
	struct channel channel;
	ev_io reader, writer;
	ev_timer ready_timer;
	unsigned early_deaths;
	unsigned exits;     /* in a row, see count_exit */
	ev_tstamp ready_at; /* of the one in hand */
	ev_timer due;       /* of a successor that has to wait */

	/* the supervisor */
	struct host *host; /* NULL: no connection */
	char session_id[HOST_SESSION_ID];
	struct buf facts;  /* that it told, see host.h */
	uint64_t sessions; /* likewise; 0: nothing was told */
	int next_fd;       /* channel of the next worker; -1: none */
	bool own_only;     /* workers of the supervisor keep dying */
	bool answer_due;   /* the worker asked, and gets a BUS in any case */
	ev_timer rebus;    /* the next look for one */
	double rebus_s;
	ev_io starting; /* one; active while that goes on */
	ev_tstamp start_failed;
	char no_bus[ERROR_TEXT_MAX]; /* why there is none */
};

/* keeper.c */
void keeper_send(struct keeper *k, enum channel_type type, uint64_t line,
                 struct span payload, int fd);
/* Everything that a fresh worker needs to go on where we are. */
void keeper_replay(struct keeper *k);
void keeper_on_frame(struct keeper *k, const struct channel_frame *f);
/* The worker died of a fault: answers the requests that did it twice. False: a
 * callback freed the keeper. */
bool keeper_blame(struct keeper *k);
/* The session is over; `err` NULL: as it should be. Frees the keeper,
 * perhaps. */
void keeper_give_up(struct keeper *k, const struct error *err);

/* keeper_worker.c */
void keeper_worker_init(struct keeper *k);
/* Stops and releases everything. */
void keeper_worker_deinit(struct keeper *k);
/* Has one started, by the supervisor at `fd` (-1: look for one) or here. */
int keeper_worker_start(struct keeper *k, int fd, struct error *err);
/* It makes no sense any more: it goes, and a successor comes. */
void keeper_worker_drop(struct keeper *k);
/* A successor that has to wait for its turn waits no longer. */
void keeper_worker_hurry(struct keeper *k);
void keeper_on_want_bus(struct keeper *k, struct span how);

#endif
