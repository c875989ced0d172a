/*
 * upstream_fsm.c - see upstream_fsm.h.
 *
 * One row a state, one column an event; an empty field means that the event
 * says nothing new there. Each rule moves the machine by enter(), which alone
 * changes the state, and returns what the owner has to do.
 */
#include "supervisor/upstream_fsm.h"

#include "common/log.h"
#include "common/macros.h"

#define NO_DEADLINE (-1)
#define NO_PING     (-1)

typedef unsigned int rule_fn(struct upstream_fsm *f, int64_t now_ms);

static const struct {
	const char *name;  /* for logs */
	const char *shown; /* the contract's */
} states[] = {
	[UPSTREAM_DOWN] = {"down", "down"},
	[UPSTREAM_RESOLVING] = {"resolving", "connecting"},
	[UPSTREAM_CONNECTING] = {"connecting", "connecting"},
	[UPSTREAM_CONNECTED] = {"connected", "connected"},
	[UPSTREAM_CLOSING] = {"closing", "waiting"},
	[UPSTREAM_WAITING] = {"waiting", "waiting"},
};
STATIC_ASSERT_ARRAY_SIZE(states, UPSTREAM_STATE_COUNT);

/* --- moves ---------------------------------------------------------------- */

static unsigned int enter(struct upstream_fsm *f, enum upstream_state to,
                          int64_t now_ms, int64_t deadline_ms)
{
	log_debug("upstream", "state %s -> %s", states[f->state].name,
	          states[to].name);
	/* Asked on the way out, so that no timer is spent on it. */
	if (f->state == UPSTREAM_CONNECTED &&
	    now_ms - f->since_ms >= UPSTREAM_STABLE_MS)
		backoff_reset(&f->backoff);
	f->state = to;
	f->since_ms = now_ms;
	f->deadline_ms = deadline_ms;
	f->pinged_ms = NO_PING;
	return UPSTREAM_DO_TELL;
}

/* Resolving and connecting have the same limit each; it is the net below the
 * finer ones of the resolver and of each address. */
static int64_t attempt_deadline(const struct upstream_fsm *f, int64_t now_ms)
{
	return now_ms + f->timing.connect_timeout_ms +
	       UPSTREAM_ATTEMPT_EXTRA_MS;
}

static unsigned int attempt(struct upstream_fsm *f, int64_t now_ms)
{
	f->attempts++;
	f->again_at_once = false;
	return UPSTREAM_DO_RESOLVE | enter(f, UPSTREAM_RESOLVING, now_ms,
	                                   attempt_deadline(f, now_ms));
}

static unsigned int end(struct upstream_fsm *f, int64_t now_ms)
{
	f->stopping = false;
	f->again_at_once = false;
	return enter(f, UPSTREAM_DOWN, now_ms, NO_DEADLINE);
}

/* There is no socket any more: what now? */
static unsigned int after_end(struct upstream_fsm *f, int64_t now_ms)
{
	unsigned int todo;

	if (f->stopping)
		return end(f, now_ms);
	if (f->again_at_once)
		return attempt(f, now_ms);
	todo = enter(f, UPSTREAM_WAITING, now_ms, NO_DEADLINE);
	/* Only now: entering may have reset it. */
	f->deadline_ms = now_ms + backoff_next_ms(&f->backoff);
	return todo;
}

static unsigned int shut(struct upstream_fsm *f, int64_t now_ms,
                         unsigned int how)
{
	return how | enter(f, UPSTREAM_CLOSING, now_ms,
	                   now_ms + UPSTREAM_CLOSE_GRACE_MS);
}

/* --- rules ---------------------------------------------------------------- */

static unsigned int on_start(struct upstream_fsm *f, int64_t now_ms)
{
	return attempt(f, now_ms);
}

/* Nothing changes, but whoever asked waits to be told. */
static unsigned int on_stop_again(struct upstream_fsm *f, int64_t now_ms)
{
	return UPSTREAM_DO_TELL;
}

static unsigned int on_stop_idle(struct upstream_fsm *f, int64_t now_ms)
{
	return end(f, now_ms);
}

static unsigned int on_stop_resolving(struct upstream_fsm *f, int64_t now_ms)
{
	return UPSTREAM_DO_ABORT | end(f, now_ms);
}

static unsigned int on_resolved(struct upstream_fsm *f, int64_t now_ms)
{
	return UPSTREAM_DO_CONNECT | enter(f, UPSTREAM_CONNECTING, now_ms,
	                                   attempt_deadline(f, now_ms));
}

static unsigned int on_attempt_failed(struct upstream_fsm *f, int64_t now_ms)
{
	f->failures++;
	return after_end(f, now_ms);
}

static unsigned int on_resolve_timeout(struct upstream_fsm *f, int64_t now_ms)
{
	return UPSTREAM_DO_ABORT | on_attempt_failed(f, now_ms);
}

/* No close frame before the handshake is over: the socket is dropped. Its end
 * is awaited all the same, the server may have entered it in its table. */
static unsigned int on_connect_timeout(struct upstream_fsm *f, int64_t now_ms)
{
	f->failures++;
	return shut(f, now_ms, UPSTREAM_DO_KILL);
}

static unsigned int on_stop_connecting(struct upstream_fsm *f, int64_t now_ms)
{
	f->stopping = true;
	return shut(f, now_ms, UPSTREAM_DO_KILL);
}

static unsigned int on_reconnect_connecting(struct upstream_fsm *f,
                                            int64_t now_ms)
{
	f->again_at_once = true;
	return shut(f, now_ms, UPSTREAM_DO_KILL);
}

static unsigned int on_established(struct upstream_fsm *f, int64_t now_ms)
{
	f->connects++;
	return enter(f, UPSTREAM_CONNECTED, now_ms,
	             now_ms + f->timing.ping_interval_ms);
}

/* A pong stands in line behind what is being sent: as long as bytes come, the
 * path is not dead. */
static unsigned int on_frame(struct upstream_fsm *f, int64_t now_ms)
{
	if (f->pinged_ms != NO_PING)
		f->deadline_ms = now_ms + f->timing.pong_timeout_ms;
	return 0;
}

static unsigned int on_pong(struct upstream_fsm *f, int64_t now_ms)
{
	if (f->pinged_ms == NO_PING)
		return 0;
	f->deadline_ms = f->pinged_ms + f->timing.ping_interval_ms;
	if (f->deadline_ms < now_ms)
		f->deadline_ms = now_ms;
	f->pinged_ms = NO_PING;
	return 0;
}

/* The next ping is due, or the pong of the last one overdue. */
static unsigned int on_ping_timer(struct upstream_fsm *f, int64_t now_ms)
{
	if (f->pinged_ms != NO_PING)
		return shut(f, now_ms, UPSTREAM_DO_CLOSE);
	f->pinged_ms = now_ms;
	f->deadline_ms = now_ms + f->timing.pong_timeout_ms;
	return UPSTREAM_DO_PING;
}

/* The connection stands but is of no use any more. */
static unsigned int on_link_failed(struct upstream_fsm *f, int64_t now_ms)
{
	return shut(f, now_ms, UPSTREAM_DO_CLOSE);
}

static unsigned int on_stop_connected(struct upstream_fsm *f, int64_t now_ms)
{
	f->stopping = true;
	return shut(f, now_ms, UPSTREAM_DO_CLOSE);
}

static unsigned int on_reconnect_connected(struct upstream_fsm *f,
                                           int64_t now_ms)
{
	f->again_at_once = true;
	return shut(f, now_ms, UPSTREAM_DO_CLOSE);
}

static unsigned int on_closed(struct upstream_fsm *f, int64_t now_ms)
{
	return after_end(f, now_ms);
}

static unsigned int on_start_closing(struct upstream_fsm *f, int64_t now_ms)
{
	if (f->stopping)
		f->again_at_once = true;
	f->stopping = false;
	return 0;
}

static unsigned int on_reconnect_closing(struct upstream_fsm *f, int64_t now_ms)
{
	f->again_at_once = !f->stopping;
	return 0;
}

static unsigned int on_stop_closing(struct upstream_fsm *f, int64_t now_ms)
{
	f->stopping = true;
	return 0;
}

/* Asked again as often as it takes: without its end no new socket. */
static unsigned int on_grace_over(struct upstream_fsm *f, int64_t now_ms)
{
	f->deadline_ms = now_ms + UPSTREAM_CLOSE_GRACE_MS;
	return UPSTREAM_DO_KILL;
}

static unsigned int on_delay_over(struct upstream_fsm *f, int64_t now_ms)
{
	return attempt(f, now_ms);
}

/* clang-format off */
static rule_fn *const rules[][UPSTREAM_EV_COUNT] = {
	[UPSTREAM_DOWN] = {
		[UPSTREAM_EV_START] = on_start,
		[UPSTREAM_EV_STOP] = on_stop_again,
	},
	[UPSTREAM_RESOLVING] = {
		[UPSTREAM_EV_RESOLVED] = on_resolved,
		[UPSTREAM_EV_FAILED] = on_attempt_failed,
		[UPSTREAM_EV_STOP] = on_stop_resolving,
		[UPSTREAM_EV_TIMER] = on_resolve_timeout,
	},
	[UPSTREAM_CONNECTING] = {
		[UPSTREAM_EV_ESTABLISHED] = on_established,
		[UPSTREAM_EV_FAILED] = on_attempt_failed,
		[UPSTREAM_EV_CLOSED] = on_attempt_failed,
		[UPSTREAM_EV_RECONNECT] = on_reconnect_connecting,
		[UPSTREAM_EV_STOP] = on_stop_connecting,
		[UPSTREAM_EV_TIMER] = on_connect_timeout,
	},
	[UPSTREAM_CONNECTED] = {
		[UPSTREAM_EV_FRAME] = on_frame,
		[UPSTREAM_EV_PONG] = on_pong,
		[UPSTREAM_EV_FAILED] = on_link_failed,
		[UPSTREAM_EV_CLOSED] = on_closed,
		[UPSTREAM_EV_RECONNECT] = on_reconnect_connected,
		[UPSTREAM_EV_STOP] = on_stop_connected,
		[UPSTREAM_EV_TIMER] = on_ping_timer,
	},
	[UPSTREAM_CLOSING] = {
		[UPSTREAM_EV_START] = on_start_closing,
		[UPSTREAM_EV_CLOSED] = on_closed,
		[UPSTREAM_EV_RECONNECT] = on_reconnect_closing,
		[UPSTREAM_EV_STOP] = on_stop_closing,
		[UPSTREAM_EV_TIMER] = on_grace_over,
	},
	[UPSTREAM_WAITING] = {
		[UPSTREAM_EV_RECONNECT] = on_delay_over,
		[UPSTREAM_EV_STOP] = on_stop_idle,
		[UPSTREAM_EV_TIMER] = on_delay_over,
	},
};
/* clang-format on */
STATIC_ASSERT_ARRAY_SIZE(rules, UPSTREAM_STATE_COUNT);

/* --- interface ------------------------------------------------------------ */

void upstream_fsm_init(struct upstream_fsm *f, const struct upstream_timing *t,
                       uint64_t seed)
{
	*f = (struct upstream_fsm){
		.state = UPSTREAM_DOWN,
		.timing = *t,
		.deadline_ms = NO_DEADLINE,
		.pinged_ms = NO_PING,
	};
	backoff_init(&f->backoff, backoff_link_ms, ARRAY_SIZE(backoff_link_ms),
	             UPSTREAM_JITTER_PERCENT, seed);
}

void upstream_fsm_set_timing(struct upstream_fsm *f,
                             const struct upstream_timing *t, int64_t now_ms)
{
	int64_t ping_ms = now_ms + t->ping_interval_ms;

	f->timing = *t;
	if (f->state == UPSTREAM_CONNECTED && f->pinged_ms == NO_PING &&
	    f->deadline_ms > ping_ms)
		f->deadline_ms = ping_ms;
}

unsigned upstream_fsm_event(struct upstream_fsm *f, enum upstream_event ev,
                            int64_t now_ms)
{
	rule_fn *rule = rules[f->state][ev];

	if (!rule)
		return 0;
	/* A timer set for an earlier deadline, or one that fired early. */
	if (ev == UPSTREAM_EV_TIMER &&
	    (f->deadline_ms == NO_DEADLINE || now_ms < f->deadline_ms))
		return 0;
	return rule(f, now_ms);
}

const char *upstream_state_name(enum upstream_state s)
{
	return states[s].shown;
}

const char *upstream_state_debug_name(enum upstream_state s)
{
	return states[s].name;
}
