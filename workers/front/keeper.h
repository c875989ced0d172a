/*
 * keeper.h - the user's end of a session: numbers what is asked, keeps each
 * request until it is answered, and replays the unanswered ones, with the
 * worker's records, to a successor when the worker dies.
 *
 * What a worker recorded ("about to submit prompt X") survives it, so that the
 * successor looks that prompt up instead of submitting again.
 */
#ifndef WORKERS_FRONT_KEEPER_H
#define WORKERS_FRONT_KEEPER_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/error.h"
#include "common/span.h"

#define KEEPER_REQUESTS_MAX  1024  /* unanswered, at once */
#define KEEPER_RECORDS_MAX   1024  /* kept per request */
#define KEEPER_LAST_MAX      16384 /* bytes of an output kept for a successor */
#define KEEPER_FAULTS_MAX    2     /* crashes that one request may cause */
#define KEEPER_EARLY_DEATHS  3     /* workers in a row that never got ready */
#define KEEPER_EXITS_MAX     6     /* of our own in a row with a status */
#define KEEPER_EXIT_WAIT_MS  100   /* before a successor; doubles each time */
#define KEEPER_STABLE_MS     10000 /* one that lived so long begins anew */
#define KEEPER_READY_MS      10000 /* for a worker to get ready */
#define KEEPER_HOSTED_MS     15000 /* the same if the supervisor forked it */
#define KEEPER_PENDING_BYTES (64u << 20) /* of unanswered requests */
#define KEEPER_REBUS_MS_MIN  200   /* looking for a supervisor again ... */
#define KEEPER_REBUS_MS_MAX  10000 /* ... doubles up to this */

struct keeper;

#define KEEPER_RESTART_S   30 /* after a supervisor that didn't come up */
#define KEEPER_SESSION_MAX (64u << 10) /* bytes of the session's own record */

struct keeper_handlers {
	/* Bytes that belong to a request; more may follow. */
	void (*on_output)(void *user, uint64_t line, struct span bytes);
	/* A preview that the request asked for. NULL: none is wanted. */
	void (*on_preview)(void *user, uint64_t line, struct span image);
	/* The answer; the request is done. Exactly once per request. */
	void (*on_response)(void *user, uint64_t line, struct span bytes);
	/* The session is over: no worker can be had, `err` says why; or, after
	 * keeper_end(), the worker is through (`err` NULL). The keeper may be
	 * freed in it. */
	void (*on_gone)(void *user, const struct error *err);
	/* A request that will not be answered: it crashed its workers, or
	 * on_gone follows. It is not the keeper's any more. NULL: answered in
	 * the words of the command line (the first case) or not at all. */
	void (*on_failed)(void *user, struct span request,
	                  const struct error *err);
	/* Whether the worker may have this file opened for this request, to be
	 * read or written. NULL: only to be written, and only the path that
	 * came with the request. */
	bool (*may_open)(void *user, struct span request, const char *path);
	/* What waited for the worker to take it is below the mark again (see
	 * keeper_backlog). May be NULL. */
	void (*on_room)(void *user);
	/* Something for the user's eyes. */
	void (*on_log)(void *user, struct span text);
};

struct keeper_config {
	const struct config *cfg; /* must outlive the keeper */
	const char *kind;         /* "run", "mcp" ... */
	bool comfyui_named;       /* the user named the URL himself */
	int bus_fd;         /* connected to the supervisor, which then forks the
	                       worker; consumed; -1: none */
	const char *no_bus; /* why there is none, for the user; may be NULL */
};

/* Starts the session and its worker: forked by the supervisor if there is one
 * that serves the same ComfyUI, else of our own. `loop` must be the default
 * loop (child watchers work on no other). NULL with `err` set on failure. */
struct keeper *keeper_new(struct ev_loop *loop, const struct keeper_config *kc,
                          const struct keeper_handlers *h, void *user,
                          struct error *err);
/* Ends the session: the worker sees EOF. NULL is fine; returns NULL. */
struct keeper *keeper_free(struct keeper *k);

/* Hands a request to the worker; its number, or 0 with `err` set. `path` (may
 * be NULL) is the one path that the worker may ask to have written for it. */
uint64_t keeper_request(struct keeper *k, struct span payload, const char *path,
                        struct error *err);
/* The user doesn't want it any more; on_response still follows. */
void keeper_cancel(struct keeper *k, uint64_t line);

/* No request will come: the worker answers what it can and leaves; on_gone
 * follows. */
void keeper_end(struct keeper *k);
/* Nothing is read from the worker while it is paused; so what it has to say
 * stays with it. Allowed inside the handlers. */
void keeper_pause(struct keeper *k, bool paused);
/* Bytes that wait for the worker to take them. on_room comes once they have
 * fallen below KEEPER_BACKLOG_LOW. */
#define KEEPER_BACKLOG_LOW (64u << 10)
size_t keeper_backlog(const struct keeper *k);
/* Requests without an answer. */
size_t keeper_pending(const struct keeper *k);

#endif
