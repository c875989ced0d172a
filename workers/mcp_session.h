/*
 * mcp_session.h - one MCP session: what a client's lines mean and what is sent
 * for each. Eras and versions, requests in flight, batches, cancelling.
 *
 * Lines come numbered; each is ended by exactly one respond(), empty if it
 * calls for no answer. What a session wants of the world is in struct mcp_io,
 * so that it can be driven without a worker.
 */
#ifndef WORKERS_MCP_SESSION_H
#define WORKERS_MCP_SESSION_H

#include "workers/mcp_tools.h"
#include "workers/worker.h"

struct mcp_session;

#define MCP_REQUESTS_MAX 1024 /* in flight at once, those in batches too */
/* Bytes that the client hasn't read above which a large result is replaced by
 * an error: it would only be kept for somebody who doesn't look. */
#define MCP_UNREAD_MAX   (64u << 20)
#define MCP_SMALL_RESULT (64u << 10) /* never replaced */
/* Stdin has ended: for what doesn't wait for a prompt to be answered, since
 * then or since the last answer. Clients that want to wait less send SIGTERM.
 */
#define MCP_END_MS 5000
#define MCP_BUS_MS                                                             \
	6000 /* for the keeper to find a supervisor, or start                  \
	        one, before the first submission */

/* Each as the function of worker.h of that name. */
struct mcp_io {
	bool (*respond)(void *user, uint64_t line, struct span answer);
	bool (*output)(void *user, uint64_t line, struct span bytes);
	int (*record)(void *user, uint64_t line, struct span record,
	              struct worker_record *r, struct error *err);
	size_t (*queued)(void *user);
	/* -1: there is nobody to ask; else mcp_session_bus() follows. */
	int (*want_bus)(void *user, bool start);
	/* After mcp_session_end(): everything is answered or dropped. */
	void (*ended)(void *user);
};

struct mcp_session_config {
	struct ev_loop *loop;
	struct link *link;     /* outlives the session */
	struct worker *worker; /* for files; NULL: there are none */
	const struct mcp_io *io;
	void *user;
	unsigned default_wait_ms; /* 0: TOOL_DEFAULT_WAIT_MS */
	enum cancel_policy cancel_policy;
};

struct mcp_session *mcp_session_new(const struct mcp_session_config *cfg,
                                    struct error *err);
/* Calls that run are dropped, their prompts run on. NULL is fine; returns
 * NULL. */
struct mcp_session *mcp_session_free(struct mcp_session *s);

/* What a predecessor recorded for a line, or (line 0) for the session. */
void mcp_session_record(struct mcp_session *s, uint64_t line,
                        struct span record);
/* The notification of this line that a predecessor sent last: progress goes on
 * rising from there. */
void mcp_session_told(struct mcp_session *s, uint64_t line, struct span text);
void mcp_session_line(struct mcp_session *s, uint64_t line, struct span text);
/* Drops everything that belongs to a line, as if the client had cancelled it
 * without a reason. */
void mcp_session_drop_line(struct mcp_session *s, uint64_t line);
/* Outputs are welcome again. */
void mcp_session_room(struct mcp_session *s);
/* The keeper has answered want_bus. */
void mcp_session_bus(struct mcp_session *s);
/* No line will come; io->ended follows, not from inside. */
void mcp_session_end(struct mcp_session *s);
/* Sends what progress is due; a timer of its own calls it. */
void mcp_session_tick(struct mcp_session *s);

#endif
