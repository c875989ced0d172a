/*
 * worker.h - one session's worker: the session channel to its keeper, the link
 * to ComfyUI, and the kind of session that works on the requests.
 *
 * A kind (the command line's, MCP's) is a table of functions; the worker knows
 * no request's meaning. Everything a kind calls here returns at once; it is
 * called back from the loop only.
 */
#ifndef WORKERS_WORKER_H
#define WORKERS_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/json_span.h"
#include "common/list.h"
#include "common/macros.h"
#include "common/span.h"

struct credentials;
struct ev_loop;
struct link;
struct worker;
struct zygote_told;

/* Bytes towards the keeper above which what may be left out is left out; below
 * the lower one it is made up for. */
#define WORKER_QUEUE_HIGH (256u << 10)
#define WORKER_QUEUE_LOW  (64u << 10)
#define WORKER_HELLO_MS   30000 /* for the keeper's hello */
#define WORKER_DRAIN_MS   2000  /* to get the last answers out */

struct worker_kind {
	/* Whether this kind serves sessions that hello calls `name`. */
	bool (*serves)(struct json name);
	/* Its state, passed to all others; NULL with `err` set on failure. */
	void *(*start)(struct worker *w, struct json hello, struct error *err);
	/* What a predecessor left about `line`; before its request. */
	void (*on_record)(void *state, uint64_t line, struct span record);
	/* The output of `line` that went out last, through a predecessor;
	 * before its request. */
	void (*on_told)(void *state, uint64_t line, struct span output);
	/* Ends with worker_respond(w, line, ...), once. */
	void (*on_request)(void *state, uint64_t line, struct span request);
	void (*on_cancel)(void *state, uint64_t line);
	/* Outputs were refused, and are welcome again. May be NULL. */
	void (*on_room)(void *state);
	/* The keeper handed over a bus, or said that there is none. May be
	 * NULL. */
	void (*on_bus)(void *state);
	/* No request will come: what can be answered now, is. The worker leaves
	 * when it returns and its answers are out; with worker_hold(), not
	 * before worker_release(). May be NULL. */
	void (*on_end)(void *state);
	void (*stop)(void *state);
};

/* What the process that starts a worker knows. */
struct worker_start {
	int session_fd; /* consumed */
	int bus_fd;     /* consumed; -1: none */
	/* Forked by a supervisor that serves several users; see
	 * link_config. */
	bool tenant;
	/* What a zygote's fork request said, which the keeper's hello can't
	 * override; NULL in a worker of the keeper's own. Must outlive it. */
	const struct zygote_told *told;
	/* Likewise; NULL in a worker of the keeper's own, which reads what
	 * hello names. Must outlive it. */
	const struct credentials *credentials;
};

/* First thing in a process that becomes a worker, whether forked or exec'd:
 * default signals, nothing blocked, no descriptors but the named ones and 0 to
 * 2. Numbers of the descriptors may change (never below 3). */
int worker_begin(struct worker_start *start, struct error *err);
/* Works until the keeper goes, or says that it is over, or SIGTERM: the exit
 * status, 0 for all of these. */
int worker_run(const struct worker_start *start);

/* For kinds. */
struct link *worker_link(const struct worker *w);
struct ev_loop *worker_loop(const struct worker *w);
/* The answer to `line`. Never lost: kept here while the channel is full. False
 * if it is longer than a frame may be: nothing was sent, say so instead. */
bool worker_respond(struct worker *w, uint64_t line, struct span answer);
/* False if it was left out because the keeper is behind; on_room comes. */
bool worker_output(struct worker *w, uint64_t line, struct span bytes);
/* Bytes of answers and outputs that the keeper hasn't taken yet. */
size_t worker_queued(const struct worker *w);
/* Has the keeper look for a supervisor, and start one if `start` and that is
 * wanted; on_bus follows. 0 or what channel_send says. */
int worker_want_bus(struct worker *w, bool start);
/* From on_end: the worker stays to finish what is quick. */
void worker_hold(struct worker *w);
void worker_release(struct worker *w);
/* A line for the user. */
void worker_log(struct worker *w, uint64_t line, const char *fmt, ...)
	ATTR_PRINTF(3, 4);

/* An intent or a checkpoint. What must not happen before the record is safe
 * with the keeper waits for on_written, which never comes from inside. */
struct worker_record {
	void (*on_written)(void *user);
	void *user;
	struct list node; /* private */
	uint64_t mark;    /* private */
};
int worker_record(struct worker *w, uint64_t line, struct span record,
                  struct worker_record *r, struct error *err);
/* No on_written will come. Safe twice, and zeroed. */
void worker_record_forget(struct worker_record *r);

#endif
