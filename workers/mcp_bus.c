/*
 * mcp_bus.c - when the requests of a session begin: those that need the
 * supervisor wait until it is clear whether there is one, and the keeper is
 * asked to look for it, or to start it.
 */
#include "workers/mcp_private.h"

static void request_start(struct mcp_request *r)
{
	r->started = true;
	r->method->start(r);
}

/* What the keeper should do for this request while there is no bus. */
static enum bus_asked wish_of(const struct mcp_request *r)
{
	return mcp_call_submits(r) ? BUS_START : BUS_LOOK;
}

/* One question at a time; it counts for everybody who waits then. False: there
 * is nobody to ask. */
static bool ask_for_bus(struct mcp_session *s, enum bus_asked what)
{
	struct list *it;

	if (s->io->want_bus(s->user, what == BUS_START) < 0)
		return false;
	s->asked = what;
	list_for_each (it, &s->requests)
		list_entry(it, struct mcp_request, node)->bus_asked = what;
	ev_timer_set(&s->bus_wait, MCP_BUS_MS / 1000.0, 0.);
	ev_timer_start(s->loop, &s->bus_wait);
	return true;
}

static bool bus_is_unsettled(const struct mcp_session *s)
{
	return s->asked != BUS_NOT_ASKED || link_bus_pending(s->link);
}

/* Starts what waited, if it is clear now whether there is a bus. */
static void settle(struct mcp_session *s)
{
	struct list *it, *next;

	if (bus_is_unsettled(s))
		return;
	list_for_each_safe (it, next, &s->requests) {
		struct mcp_request *r =
			list_entry(it, struct mcp_request, node);

		if (r->started)
			continue;
		if (!link_on_bus(s->link) && r->bus_asked < wish_of(r) &&
		    ask_for_bus(s, wish_of(r)))
			return;
		request_start(r);
	}
}

static void on_bus(void *user, bool up)
{
	settle(user);
}

void mcp_session_bus(struct mcp_session *s)
{
	s->asked = BUS_NOT_ASKED;
	ev_timer_stop(s->loop, &s->bus_wait);
	settle(s);
}

/* No answer: everybody goes on without. */
static void on_bus_wait(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct mcp_session *s = container_of(w, struct mcp_session, bus_wait);
	struct list *it;

	list_for_each (it, &s->requests)
		list_entry(it, struct mcp_request, node)->bus_asked = BUS_START;
	mcp_session_bus(s);
}

void mcp_begin(struct mcp_request *r)
{
	struct mcp_session *s = r->session;

	if (!r->method->uses_link) {
		request_start(r);
		return;
	}
	if (r->token.n > 0)
		mcp_schedule_tick(s, mcp_progress_due_ms(&r->progress));
	if (bus_is_unsettled(s)) {
		r->bus_asked = s->asked;
		return;
	}
	if (!link_on_bus(s->link) && ask_for_bus(s, wish_of(r)))
		return;
	request_start(r);
}

void mcp_bus_init(struct mcp_session *s)
{
	ev_timer_init(&s->bus_wait, on_bus_wait, 0., 0.);
	s->watch = (struct link_watch){
		.prompt_id = "", .on_bus = on_bus, .user = s};
	link_watch_add(s->link, &s->watch);
}

void mcp_bus_deinit(struct mcp_session *s)
{
	link_watch_remove(s->link, &s->watch);
	ev_timer_stop(s->loop, &s->bus_wait);
}
