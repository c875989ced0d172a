/*
 * upstream_fsm.h - the life of the link to ComfyUI: states by events, delays,
 * deadlines. Pure: it is told what happened and what time it is, and says what
 * to do.
 *
 * Never two sockets with one client id: a new one is opened only after the end
 * of the old one was seen (recording 12), or a grace for it has passed.
 */
#ifndef SUPERVISOR_UPSTREAM_FSM_H
#define SUPERVISOR_UPSTREAM_FSM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/backoff.h"

enum upstream_state {
	UPSTREAM_DOWN,       /* not started, or stopped */
	UPSTREAM_RESOLVING,  /* name to address */
	UPSTREAM_CONNECTING, /* TCP, TLS, handshake */
	UPSTREAM_CONNECTED,
	UPSTREAM_CLOSING, /* close sent, its end awaited */
	UPSTREAM_WAITING, /* for the next attempt */
	UPSTREAM_STATE_COUNT
};

enum upstream_event {
	UPSTREAM_EV_START,
	UPSTREAM_EV_RESOLVED,
	UPSTREAM_EV_ESTABLISHED,
	UPSTREAM_EV_FRAME, /* anything was received */
	UPSTREAM_EV_PONG,
	UPSTREAM_EV_FAILED,    /* resolving or connecting failed */
	UPSTREAM_EV_CLOSED,    /* the socket has ended */
	UPSTREAM_EV_RECONNECT, /* somebody wants a fresh connection */
	UPSTREAM_EV_STOP,
	UPSTREAM_EV_TIMER, /* the deadline asked for has come */
	UPSTREAM_EV_COUNT
};

/* What the owner has to do; a set of bits. */
enum upstream_action {
	UPSTREAM_DO_RESOLVE = 1 << 0,
	UPSTREAM_DO_CONNECT = 1 << 1,
	UPSTREAM_DO_PING = 1 << 2,
	UPSTREAM_DO_CLOSE = 1 << 3, /* orderly: close frame, then wait */
	UPSTREAM_DO_KILL = 1 << 4,  /* drop the socket at once */
	UPSTREAM_DO_TELL = 1 << 5,  /* the state has changed */
	UPSTREAM_DO_ABORT = 1 << 6, /* drop a resolve or connect under way */
};

#define UPSTREAM_CLOSE_GRACE_MS   2000  /* for the end of a closing socket */
#define UPSTREAM_STABLE_MS        10000 /* connected this long: backoff reset */
#define UPSTREAM_ATTEMPT_EXTRA_MS 10000 /* handshake, after connect_timeout */
#define UPSTREAM_JITTER_PERCENT   20    /* of the delay before an attempt */

struct upstream_timing {
	uint32_t connect_timeout_ms, ping_interval_ms, pong_timeout_ms;
};

struct upstream_fsm {
	enum upstream_state state;
	struct upstream_timing timing;
	struct backoff backoff;
	int64_t deadline_ms; /* when EV_TIMER is wanted; -1: not */
	int64_t since_ms;    /* in this state */
	int64_t pinged_ms;   /* ping without pong; -1: none */
	bool stopping;
	bool again_at_once; /* a reconnect was asked for: no delay */
	uint64_t connects, attempts, failures;
};

void upstream_fsm_init(struct upstream_fsm *f, const struct upstream_timing *t,
                       uint64_t seed);
/* Other timings from now on; a ping that is due sooner by them comes sooner. */
void upstream_fsm_set_timing(struct upstream_fsm *f,
                             const struct upstream_timing *t, int64_t now_ms);
/* Returns the actions, in the order of the bits. */
unsigned upstream_fsm_event(struct upstream_fsm *f, enum upstream_event ev,
                            int64_t now_ms);

/* "connected", "connecting", "waiting" or "down": the contract's names. */
const char *upstream_state_name(enum upstream_state s);
/* The machine's own name of the state, for logs. */
const char *upstream_state_debug_name(enum upstream_state s);

#endif
