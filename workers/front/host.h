/*
 * host.h - a session's connection to the supervisor: asks for a worker, or for
 * a bus for the worker that there is, and hears of the worker's end.
 *
 * The session lasts as long as this connection. Knows nothing of requests and
 * frames; everything is told by callback, never from inside a call.
 */
#ifndef WORKERS_FRONT_HOST_H
#define WORKERS_FRONT_HOST_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/error.h"

#define HOST_HELLO_MS   5000  /* for a sign of life */
#define HOST_ATTACH_MS  10000 /* for a worker or a bus */
#define HOST_SESSION_ID 32    /* bytes of a session's id, with its NUL */
#define HOST_FACTS_MAX  16384 /* bytes of what is told about ComfyUI */

struct host;

enum host_wish {
	HOST_FORK, /* a worker; the descriptor is our end of its channel */
	HOST_KEEP, /* a bus for our worker */
};

struct host_handlers { /* the host may be freed in each */
	/* The wish is granted; the descriptor is the callee's. */
	void (*on_granted)(void *user, enum host_wish wish, int fd);
	/* It isn't. The connection stands. */
	void (*on_refused)(void *user, enum host_wish wish,
	                   const struct error *err);
	/* The session's forked worker has ended; `status` as wait() gives it,
	 * -1 if nobody knows. Comes before the next worker is granted. */
	void (*on_worker_end)(void *user, pid_t pid, int status);
	/* The connection is gone, and open wishes with it. */
	void (*on_lost)(void *user, const struct error *err);
};

struct host_config {
	const char *kind;    /* "run", "mcp" ... */
	const char *comfyui; /* that the user named; NULL: none */
	char *session;       /* HOST_SESSION_ID bytes: the id to come back to,
	                        "" at first; filled in when granted */
	uint64_t *sessions;  /* how many there are, as told last */
	struct buf *facts;   /* JSON of what a worker needs to go on alone, as
	                        told last; empty at first */
};

/* On a connected socket, which it consumes, also on failure (NULL with `err`).
 * What `cfg` points at must outlive it. */
struct host *host_new(struct ev_loop *loop, int fd,
                      const struct host_config *cfg,
                      const struct host_handlers *h, void *user,
                      struct error *err);
/* NULL is fine; returns NULL. */
struct host *host_free(struct host *h);

/* One at a time. 0, or -1 with `err` set and no callback. */
int host_ask(struct host *h, enum host_wish wish, struct error *err);
/* A wish is open. */
bool host_asked(const struct host *h);

#endif
