/*
 * mcp_private.h - struct mcp_session and a request in it, for the files that
 * make it up: mcp_session.c (lines, requests, answers), mcp_bus.c (when they
 * begin), mcp_records.c (what goes on to a successor), mcp_ticker.c (progress),
 * mcp_methods.c (eras, dispatch, the small methods), mcp_call.c (tools/call),
 * mcp_files.c (files of a call) and mcp_resources.c.
 */
#ifndef WORKERS_MCP_PRIVATE_H
#define WORKERS_MCP_PRIVATE_H

#include <ev.h>

#include "common/list.h"
#include "common/map.h"
#include "workers/jsonrpc.h"
#include "workers/mcp_progress.h"
#include "workers/mcp_session.h"

struct mcp_request;

/* What the keeper was asked to do about a missing bus. */
enum bus_asked {
	BUS_NOT_ASKED,
	BUS_LOOK,
	BUS_START, /* start a supervisor, too, if that is wanted */
};

/* A method of the protocol. */
struct mcp_method {
	const char *name;
	bool legacy, modern; /* eras that have it */
	/* Asks supervisor or ComfyUI: starts when it is clear whether there is
	 * a bus. */
	bool uses_link;
	/* Ends with mcp_answer() or mcp_refuse(), now or later. */
	void (*start)(struct mcp_request *r);
	/* Releases r->job without an answer. `stop`: what it does on ComfyUI
	 * is to be stopped too. NULL: it never outlives start. */
	void (*drop)(struct mcp_request *r, bool stop);
	/* An output was refused and would be taken now. May be NULL. */
	void (*room)(struct mcp_request *r);
	/* Stdin has ended. NULL: it is given MCP_END_MS, unless it waits. */
	void (*end)(struct mcp_request *r);
};

/* What a predecessor said of a line. */
struct mcp_record {
	struct list node;
	uint64_t line;
	unsigned index; /* of the request in its batch */
	char *text;
	struct json value; /* the tool's own record, in `text` */
};

/* A line in hand: one request, or a batch. */
struct mcp_line {
	struct list node;
	uint64_t number;
	char *text; /* what the requests' spans point into */
	bool is_batch;
	bool reading; /* its messages are still being taken in */
	bool answered;
	int64_t told;        /* of progress, the largest; -1: none */
	unsigned open;       /* requests in flight */
	struct buf replies;  /* of a batch, without the brackets */
	struct list records; /* of a predecessor */
};

struct mcp_request {
	struct list node;
	struct mcp_session *session;
	struct mcp_line *line;
	unsigned index;
	struct span id; /* JSON text, in line->text */
	char *key;      /* see mcp_find(); NULL: not in the map */
	size_t key_len;
	enum mcp_version version;
	const struct mcp_method *method;
	struct json params;
	void *job; /* the method's own */
	bool started;
	enum bus_asked bus_asked; /* while it waits to be started */
	bool waiting; /* for what may take long: not worth an END's patience */
	struct span token; /* JSON text; {NULL,0}: no progress wanted */
	struct mcp_progress progress;
};

struct mcp_session {
	struct ev_loop *loop;
	struct link *link;
	struct worker *worker;
	const struct mcp_io *io;
	void *user;
	struct tool_host host;
	enum mcp_version negotiated; /* MCP_VERSION_COUNT before initialize */
	struct worker_record session_record;
	struct list lines, requests; /* in the order of their coming */
	size_t request_count;
	struct map in_flight; /* by key */
	struct list records;  /* whose lines haven't come yet */
	size_t record_count;
	uint64_t told_line; /* the one that comes next was told of already: */
	int64_t told;       /* so much, see mcp_progress.h; -1: nothing */
	struct link_watch watch;
	enum bus_asked asked; /* an answer that the keeper owes */
	ev_timer bus_wait;    /* patience with it */
	ev_timer ticker;      /* for progress */
	int64_t tick_ms;      /* when it is set to */
	bool behind;          /* an output was refused */
	ev_timer last;        /* runs once stdin has ended */
	bool ending;          /* stdin has ended, and not all is through */
	int64_t end_ms;       /* when patience with that is over */
	bool restoring;       /* a predecessor's record is being read */
	bool stopping;        /* nothing goes out any more */
};

/* --- mcp_session.c -------------------------------------------------------- */

/* Each ends the request, which is gone then. `result` is a whole result
 * object. */
void mcp_answer(struct mcp_request *r, struct span result);
void mcp_refuse(struct mcp_request *r, enum rpc_code code, struct span data,
                const char *fmt, ...) ATTR_PRINTF(4, 5);
/* Answers with what a builder left in `b`: an internal error if that failed. */
void mcp_answer_buf(struct mcp_request *r, const struct buf *b);
/* Ends it without an answer. */
void mcp_drop(struct mcp_request *r, bool stop);
/* NULL if no request of that id is in flight. */
struct mcp_request *mcp_find(struct mcp_session *s, struct json id);
/* A new request of a line; refuses by itself, returns NULL then. */
struct mcp_request *mcp_request_new(struct mcp_session *s, struct mcp_line *l,
                                    const struct rpc_message *m,
                                    unsigned index);
/* A reply without a request: where none could be made of it. */
void mcp_reply_error(struct mcp_session *s, struct mcp_line *l, struct span id,
                     enum rpc_code code, struct span data, const char *message);
/* Once stdin has ended: is there still something to wait for? */
void mcp_check_ended(struct mcp_session *s);

/* --- mcp_bus.c ------------------------------------------------------------ */

void mcp_bus_init(struct mcp_session *s);
void mcp_bus_deinit(struct mcp_session *s);
/* Starts it, or lets it wait until the link is settled. */
void mcp_begin(struct mcp_request *r);

/* --- mcp_records.c -------------------------------------------------------- */

/* After the tool host. */
void mcp_records_init(struct mcp_session *s);
void mcp_records_deinit(struct mcp_session *s);
/* Records what a successor has to know, which is to go before an answer that
 * lets the client count on it. -1: it could not be, and was logged. */
int mcp_record_session(struct mcp_session *s);
/* Moves to the line what a predecessor left about it. */
void mcp_take_records(struct mcp_session *s, struct mcp_line *l);
void mcp_record_free(struct mcp_record *r);

/* --- mcp_ticker.c --------------------------------------------------------- */

void mcp_ticker_init(struct mcp_session *s);
/* Has the ticker run at `due_ms` at the latest. */
void mcp_schedule_tick(struct mcp_session *s, int64_t due_ms);

/* --- mcp_methods.c -------------------------------------------------------- */

/* Works on one message of a line. */
void mcp_handle(struct mcp_session *s, struct mcp_line *l,
                const struct rpc_message *m, unsigned index);

/* --- mcp_call.c, mcp_resources.c ------------------------------------------ */

void mcp_call_start(struct mcp_request *r);
void mcp_call_drop(struct mcp_request *r, bool stop);
/* Whether the call may submit: worth having a supervisor for. */
bool mcp_call_submits(const struct mcp_request *r);
void mcp_resources_list(struct mcp_request *r);
void mcp_resources_read(struct mcp_request *r);
void mcp_resources_drop(struct mcp_request *r, bool stop);
void mcp_templates_list(struct mcp_request *r);

#endif
