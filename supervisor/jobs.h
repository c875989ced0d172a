/*
 * jobs.h - detached jobs: batches and chains that live in the store and are
 * worked on by forked workers of their own, without a keeper.
 *
 * A worker of a job has nothing but a bus. It asks what there is to do, records
 * each prompt's id before it submits it, and each end; when it dies, or the
 * supervisor does, another takes it up from there. It leaves when its bus
 * breaks, so there is never more than one that can submit anything.
 */
#ifndef SUPERVISOR_JOBS_H
#define SUPERVISOR_JOBS_H

#include <ev.h>

#include "common/list.h"
#include "common/uuid.h"
#include "supervisor/store_jobs.h"
#include "supervisor/subscription.h"

struct peer;
struct session;
struct supervisor;
struct tenant;

/* Bytes of a job's id with its NUL: as a prompt's, so that a client's queue
 * folds the events of either. */
#define JOBS_ID_MAX    (UUID_LEN + 1)
#define JOBS_KEPT_MAX  100          /* over, of one uid; the oldest goes */
#define JOBS_BYTES_MAX (256u << 20) /* of the items of one job */
#define JOBS_WORKERS   16 /* jobs worked on at a time; the others wait */
#define JOBS_REPLY_MAX (4u << 20) /* bytes of items told at once */

struct job {
	struct list link; /* jobs.all, the oldest first */
	int64_t row;
	char id[JOBS_ID_MAX]; /* "j12" */
	uid_t uid;
	struct tenant *tenant; /* while it is not over: it counts there */
	const char *kind;      /* static */
	enum job_state state;
	int64_t total, added, bytes, completed, failed;
	double fraction;              /* of the whole, never runs backwards */
	struct subject subject;       /* who is told of changes */
	int64_t created_at, ended_at; /* epoch ms; 0: not */
	struct peer *receiving;       /* who sends its items */
	struct session *session;      /* of its worker; NULL: none */
};

struct jobs {
	struct supervisor *sv;
	struct list all;
	size_t active;  /* working or cancelling */
	ev_timer start; /* workers that are due */
};

/* Takes up what the store has. After the nursery. */
int jobs_init(struct jobs *j, struct supervisor *sv, struct error *err);
/* Safe twice, and zeroed. */
void jobs_deinit(struct jobs *j);

/* One that `peer` may see; NULL with `err`: not found. */
struct job *jobs_find(struct jobs *j, const struct peer *peer, const char *id,
                      struct error *err);

struct jobs_wish {
	const char *kind; /* static */
	int64_t total;
	struct span options; /* JSON object text */
};
/* NULL with `err`: past `max_jobs`, or not to be kept. */
struct job *jobs_create(struct jobs *j, struct peer *by,
                        const struct jobs_wish *wish, struct error *err);
int jobs_add(struct jobs *j, struct job *job, int64_t index, const char *label,
             struct span item, struct error *err);
int jobs_start(struct jobs *j, struct job *job, struct error *err);
int jobs_cancel(struct jobs *j, struct job *job, struct error *err);

/* From the job's worker. */
void jobs_progress(struct jobs *j, struct job *job, double fraction);
int jobs_result(struct jobs *j, struct job *job, int64_t index, bool ok,
                struct span result, struct error *err);
int jobs_end(struct jobs *j, struct job *job, struct error *err);

/* A connection ends: what it was sending is dropped. */
void jobs_peer_gone(struct jobs *j, const struct peer *p);
/* The session of a job's worker is about to be freed. */
void jobs_session_gone(struct jobs *j, struct session *s);

const char *job_state_name(enum job_state s);
/* Appends the members of its state, as op jobs tells them. */
void job_to_json(const struct job *job, struct buf *out);

#endif
