/*
 * tracker.h - the prompts that are not over yet, by id and by owner. Pure: it
 * keeps the books, others act.
 *
 * Ended prompts leave as soon as the store has them; what ComfyUI calls by an
 * id of its own (before 0.3.45) is found under both.
 */
#ifndef SUPERVISOR_TRACKER_H
#define SUPERVISOR_TRACKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/list.h"
#include "common/map.h"
#include "common/progress.h"
#include "common/span.h"
#include "common/uuid.h"
#include "ipc/lines.h"
#include "supervisor/eventlog.h"
#include "supervisor/limits.h"
#include "supervisor/prompt_fsm.h"
#include "supervisor/queue.h"
#include "supervisor/subscription.h"

/* Everybody of one uid. Lives while it has prompts, connections or jobs. */
struct tenant {
	uid_t uid;
	struct list prompts; /* in order of acceptance */
	struct queue_line line;
	struct subject all; /* connections that want every prompt of it */
	size_t prompt_count, peer_count;
	size_t job_count;          /* not over */
	struct limit_usage usage;  /* see tenant_usage() */
	struct lines_budget lines; /* unfinished lines of its connections */
	size_t previews;           /* held for its connections */
};

/* What it has, as it is now. */
static inline struct limit_usage *tenant_usage(struct tenant *t)
{
	t->usage.used[LIMIT_QUEUED] = t->prompt_count;
	t->usage.used[LIMIT_CONNECTIONS] = t->peer_count;
	t->usage.used[LIMIT_JOBS] = t->job_count;
	return &t->usage;
}

struct prompt {
	char id[UUID_LEN + 1];
	char *remote_id; /* what ComfyUI calls it; NULL: likewise */
	struct tenant *tenant;
	struct prompt_fsm fsm;
	struct progress *progress;
	struct eventlog log;
	struct subject subject;
	struct queue_entry turn; /* while ACCEPTED */
	struct list by_tenant;
	struct list by_post; /* tracker.outstanding, or itself */
	struct list ask;     /* reconcile's: history is to be asked */
	struct list unsaved; /* ended, not stored yet; or itself */
	struct list
		unanswered;  /* poster's: its submitter was told nothing yet */
	struct list waiters; /* requests that wait for the POST */
	size_t eager;        /* of them, those that subscribe too */
	struct list cancels; /* requests that wait for a cancel */
	struct list by_session; /* of the connection that submitted it */
	size_t *in_flight;      /* that connection's count, or NULL */
	int64_t row;            /* the store's */
	int64_t submitted_at, ended_at; /* epoch ms; ended_at 0: not */
	double number;                  /* ComfyUI's */
	bool has_number;
	bool cancel_wanted; /* as soon as ComfyUI is known to have it */
	bool cancelling;    /* a comfy_cancel is under way */
	bool cancel_took;   /* one has stopped it */
	bool told;          /* besides its submitter others know of it */
	bool asking;        /* a GET /history is under way */
	bool outdated;      /* ... or wanted, and it was heard of since */
	bool finished;      /* that event was told */
	uint64_t
		answer_seen; /* the last of /queue that had it, see reconcile */
	uint64_t round, round_seen; /* reconcile's */
};

struct tracker {
	struct map by_id, by_remote, tenants;
	struct queue queue;
	struct list outstanding; /* POSTING to EXECUTING, in order of posting */
	size_t outstanding_count, checking_count, executing_count;
	size_t active;             /* not ENDED */
	struct subject everything; /* operators that want every prompt */
};

void tracker_init(struct tracker *t);
/* Frees all prompts and tenants; safe twice. */
void tracker_deinit(struct tracker *t);

/* The tenant of a uid, made if need be. NULL when out of memory. */
struct tenant *tracker_tenant(struct tracker *t, uid_t uid);
/* NULL if there is none. */
struct tenant *tracker_find_tenant(struct tracker *t, uid_t uid);
/* Gives it up if nothing holds it. */
void tracker_release_tenant(struct tracker *t, struct tenant *tenant);

/* A fresh ACCEPTED prompt at the end of its tenant's line. `id` is a canonical
 * UUID not in use. NULL when out of memory. */
struct prompt *tracker_add(struct tracker *t, const char *id, uid_t uid);
/* Likewise one that an earlier process left in `state` (ACCEPTED to
 * SUBMITTED): in line again, or outstanding. */
struct prompt *tracker_restore(struct tracker *t, const char *id, uid_t uid,
                               enum prompt_state state);
/* Takes it out of everything and frees it. Its waiters must be gone. */
void tracker_drop(struct tracker *t, struct prompt *p);

struct prompt *tracker_find(const struct tracker *t, const char *id,
                            size_t len);
/* By the id that ComfyUI uses. */
struct prompt *tracker_find_remote(const struct tracker *t, struct span id);
/* From now on ComfyUI calls it by this id. 0, -EEXIST, -ENOMEM. */
int tracker_alias(struct tracker *t, struct prompt *p, const char *remote_id);
static inline const char *prompt_remote_id(const struct prompt *p)
{
	return p->remote_id ? p->remote_id : p->id;
}

/* Brings lists and counts in line after p->fsm changed from `from`. `front`:
 * if it waits again, then at the front of its line. */
void tracker_moved(struct tracker *t, struct prompt *p, enum prompt_state from,
                   bool front);

/* Anybody to tell of the prompt's events. */
static inline bool tracker_watched(const struct tracker *t,
                                   const struct prompt *p)
{
	return p->eager > 0 || subject_watched(&p->subject) ||
	       subject_watched(&p->tenant->all) ||
	       subject_watched(&t->everything);
}

#endif
