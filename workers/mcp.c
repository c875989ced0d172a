/*
 * mcp.c - an MCP session as a kind of session that a worker serves: what the
 * session wants of the world, given by the worker.
 */
#include "workers/mcp.h"

#include <stdlib.h>

#include "workers/link.h"
#include "workers/mcp_session.h"

/* --- what the session asks for ------------------------------------------- */

static bool io_respond(void *user, uint64_t line, struct span answer)
{
	return worker_respond(user, line, answer);
}

static bool io_output(void *user, uint64_t line, struct span bytes)
{
	return worker_output(user, line, bytes);
}

static int io_record(void *user, uint64_t line, struct span record,
                     struct worker_record *r, struct error *err)
{
	return worker_record(user, line, record, r, err);
}

static size_t io_queued(void *user)
{
	return worker_queued(user);
}

static int io_want_bus(void *user, bool start)
{
	return worker_want_bus(user, start);
}

static void io_ended(void *user)
{
	worker_release(user);
}

static const struct mcp_io io = {
	.respond = io_respond,
	.output = io_output,
	.record = io_record,
	.queued = io_queued,
	.want_bus = io_want_bus,
	.ended = io_ended,
};

/* --- what the worker tells ----------------------------------------------- */

struct mcp {
	struct worker *worker;
	struct mcp_session *session;
};

static bool mcp_serves(struct json name)
{
	return json_string_eq(name, "mcp");
}

static enum cancel_policy policy_of(struct json hello)
{
	struct json name = json_get(hello, "mcp_cancel");

	if (json_string_eq(name, "detach"))
		return CANCEL_DETACH;
	if (json_string_eq(name, "interrupt"))
		return CANCEL_INTERRUPT;
	return CANCEL_AUTO;
}

static void *mcp_start(struct worker *w, struct json hello, struct error *err)
{
	struct mcp *m = calloc(1, sizeof(*m));
	struct mcp_session_config cfg = {
		.loop = worker_loop(w),
		.link = worker_link(w),
		.worker = w,
		.io = &io,
		.user = w,
		.cancel_policy = policy_of(hello),
	};
	int64_t wait_ms;

	if (!m) {
		(void)error_set_nomem(err, "an MCP session");
		return NULL;
	}
	if (json_int64(json_get(hello, "mcp_wait_ms"), &wait_ms) &&
	    wait_ms > 0 && wait_ms <= TOOL_TIMEOUT_MAX_MS)
		cfg.default_wait_ms = (unsigned)wait_ms;
	m->worker = w;
	m->session = mcp_session_new(&cfg, err);
	if (!m->session) {
		free(m);
		return NULL;
	}
	return m;
}

static void mcp_on_record(void *state, uint64_t line, struct span record)
{
	struct mcp *m = state;

	mcp_session_record(m->session, line, record);
}

static void mcp_on_told(void *state, uint64_t line, struct span output)
{
	struct mcp *m = state;

	mcp_session_told(m->session, line, output);
}

static void mcp_on_request(void *state, uint64_t line, struct span request)
{
	struct mcp *m = state;

	mcp_session_line(m->session, line, request);
}

static void mcp_on_cancel(void *state, uint64_t line)
{
	struct mcp *m = state;

	mcp_session_drop_line(m->session, line);
}

static void mcp_on_room(void *state)
{
	struct mcp *m = state;

	mcp_session_room(m->session);
}

static void mcp_on_bus(void *state)
{
	struct mcp *m = state;

	mcp_session_bus(m->session);
}

static void mcp_on_end(void *state)
{
	struct mcp *m = state;

	worker_hold(m->worker);
	mcp_session_end(m->session);
}

static void mcp_stop(void *state)
{
	struct mcp *m = state;

	m->session = mcp_session_free(m->session);
	free(m);
}

const struct worker_kind mcp_kind = {
	.serves = mcp_serves,
	.start = mcp_start,
	.on_record = mcp_on_record,
	.on_told = mcp_on_told,
	.on_request = mcp_on_request,
	.on_cancel = mcp_on_cancel,
	.on_room = mcp_on_room,
	.on_bus = mcp_on_bus,
	.on_end = mcp_on_end,
	.stop = mcp_stop,
};
