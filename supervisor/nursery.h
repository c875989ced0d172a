/*
 * nursery.h - sessions: who runs for them, who is to be started and when, and
 * what became of those that died.
 *
 * A session belongs to its keeper's connection and ends with it. Its worker is
 * forked for it (the usual case), or lives on from before a restart of the
 * supervisor and is only given a bus again, or attached itself over the
 * keeper's own connection. A worker has a successor when its keeper asks for
 * one, which it does once it has read all that the predecessor had to say.
 */
#ifndef SUPERVISOR_NURSERY_H
#define SUPERVISOR_NURSERY_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/list.h"
#include "common/map.h"
#include "common/span.h"
#include "ipc/message.h"
#include "supervisor/restart_policy.h"
#include "supervisor/worker_proc.h"

struct buf;
struct job;
struct peer;
struct supervisor;
struct zygote_proc;

#define NURSERY_ID_MAX      16 /* bytes of a session's id, with its NUL */
#define NURSERY_ZYGOTES_MAX 8  /* at once: one that serves, others leaving */
#define NURSERY_TRIES       2  /* forks for one attach, if zygotes die */
/* Sessions are told how many there are when that has changed by an eighth, for
 * how often they poll without a supervisor depends on it. */
#define NURSERY_CROWD_PART 8
#define NURSERY_CROWD_S    0.1 /* for more to come or go */

enum session_host {
	SESSION_SELF,    /* the worker's connection is the session's */
	SESSION_FORKED,  /* the worker is ours */
	SESSION_ADOPTED, /* it is somebody's who knows its session's end */
};

struct session {
	struct list link; /* nursery.sessions */
	struct nursery *nursery;
	char id[NURSERY_ID_MAX]; /* "s1" */
	const char *kind;        /* static */
	uid_t uid;
	enum session_host host;
	struct peer *keeper; /* NULL: gone, only the worker is left */
	struct job *job;     /* the session has no keeper, but this; or NULL */
	struct peer *bus;    /* NULL: none; the keeper itself if SESSION_SELF */
	unsigned restarts;   /* workers beyond the first */
	bool had_worker;
	/* SESSION_FORKED */
	struct worker_proc worker;
	struct zygote_proc *zygote; /* its parent; NULL: we are */
	struct restart_policy policy;
	ev_timer deadline; /* of the worker's state */
	ev_timer due;      /* of its successor */
	int keeper_fd;     /* the keeper's end, until it is handed over */
	/* An attach that waits for its worker. */
	bool asked;
	unsigned tries;
	size_t ask_len;
	char ask[MESSAGE_ID_MAX];
};

struct nursery {
	struct supervisor *sv;
	struct list sessions; /* all, in the order of their beginning */
	struct map by_id;
	size_t attached; /* that have a keeper */
	size_t told;     /* how many there are, to all of them */
	ev_timer crowd;  /* runs when they are to be told again */
	uint64_t next_id, generation;
	struct zygote_proc *zygotes[NURSERY_ZYGOTES_MAX];
	size_t zygote_count;
	struct zygote_proc *zygote; /* the one that serves; NULL: none yet */
	int64_t zygote_started_ms;
	struct restart_policy zygote_policy;
	ev_child children;
	bool stopping;
};

int nursery_init(struct nursery *n, struct supervisor *sv, struct error *err);
/* Workers that are left live on, unless they were to stop: those are killed.
 * Safe twice, and zeroed. */
void nursery_deinit(struct nursery *n);

struct nursery_wish {
	const char *kind;       /* static */
	const char *session;    /* id of one's own to resume; "": a new one */
	enum session_host host; /* who is to work for it */
};
/* Answers the attach of `p`, now or when the worker is there; or -1 with `err`
 * set. */
int nursery_attach(struct nursery *n, struct peer *p, struct span request_id,
                   const struct nursery_wish *wish, struct error *err);
/* A worker is there, by its bus. Its session is p->session. */
int nursery_bus_attached(struct nursery *n, struct peer *p, struct error *err);
/* Called when a client's connection ends. */
void nursery_peer_gone(struct nursery *n, struct peer *p);

/* A session for a detached job, and its worker; successors come until the job
 * is over. */
int nursery_begin_job(struct nursery *n, struct job *job, struct error *err);
/* The job's worker is to be replaced. */
void nursery_stop_job(struct session *s);

/* Stops the worker of one session, or (NULL) of all that `by` may see; their
 * keepers ask for successors. For an operator the zygote is replaced first, so
 * that new code is picked up; a tenant has no say in what serves the others.
 * How many; 0 if the session has none of ours. */
size_t nursery_restart(struct nursery *n, const struct peer *by,
                       struct session *s);
/* Stops all workers, and takes no more. */
void nursery_stop(struct nursery *n);
/* All of them are gone. */
bool nursery_idle(const struct nursery *n);

struct session *nursery_find(const struct nursery *n, const char *id);
/* Whether its worker may what operators may. An MCP session acts for its own
 * uid alone, unless the supervisor serves nobody else. */
bool session_is_operator(const struct session *s);
/* Its worker's pid, by the zygote's word or the kernel's; 0: not known. */
pid_t session_pid(const struct session *s);

#endif
