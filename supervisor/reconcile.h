/*
 * reconcile.h - queue and history against what is in flight: what ended, was
 * lost or deleted while no events came; and the polling while the link is
 * down. It does no I/O of its own: requests go out by its handlers, answers
 * are given to it, and it says when it wants to be called next.
 *
 * A round is GET /queue, then GET /history/{id} for each prompt that was in
 * flight when the round began and is not in the queue. A prompt leaves
 * ComfyUI's queue and enters its history in one step, so what is in neither,
 * asked in this order, is gone. There is never more than one GET /queue under
 * way, for whatever reason it is wanted.
 */
#ifndef SUPERVISOR_RECONCILE_H
#define SUPERVISOR_RECONCILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/backoff.h"
#include "common/comfy_api.h"
#include "common/uuid.h"
#include "supervisor/tracker.h"

#define RECONCILE_ASKS_MAX 4 /* GET /history/{id} under way at once */
/* Before the second look for a prompt whose POST was not answered. */
#define RECONCILE_SETTLE_MS 2000

/* What a queue answer says about prompts that are not ours. */
struct reconcile_others {
	size_t count;    /* running or waiting */
	size_t in_front; /* of them before the last of ours that waits */
};

struct reconcile_handlers {
	/* Start a request whose answer goes to reconcile_queue_answer or
	 * reconcile_history_answer. 0, or -1 if it couldn't be started. */
	int (*get_queue)(void *user);
	int (*get_history)(void *user, struct prompt *p);
	/* What was learned. The prompt may be dropped by the handler. */
	void (*on_pending)(void *user, struct prompt *p, int64_t ahead);
	void (*on_running)(void *user, struct prompt *p);
	void (*on_history)(void *user, struct prompt *p, struct json entry);
	/* `deleted`: it waited in the queue, and was taken out of it while
	 * ComfyUI stayed up; else nobody can tell why it is not there. */
	void (*on_absent)(void *user, struct prompt *p, bool deleted);
	void (*on_others)(void *user, const struct reconcile_others *o);
	/* ComfyUI doesn't answer; `err` says why. */
	void (*on_unreachable)(void *user, const struct error *err);
};

struct reconcile {
	struct tracker *tracker;
	const struct reconcile_handlers *h;
	void *user;
	bool queue_asked; /* GET /queue is under way */
	bool full;        /* ... and begins a round; else a look only */
	bool round_wanted, look_wanted; /* after what is under way */
	bool failed;                    /* a request of this round did */
	uint64_t round;
	/* Of /queue, counted, and one that was in the last: where it still is
	 * in the next, ComfyUI has not been restarted in between. */
	uint64_t answers;
	size_t ours_seen; /* in the last */
	char witness[UUID_LEN + 1];
	bool stayed_up;
	struct list asks;          /* prompts whose history is to be asked */
	unsigned asking;           /* requests for it under way */
	int64_t due_ms;            /* when reconcile_tick is wanted; -1: not */
	uint32_t poll_interval_ms; /* 0: don't poll */
	struct backoff errors;
	uint32_t delays_ms[6];
};

void reconcile_init(struct reconcile *r, struct tracker *t,
                    const struct reconcile_handlers *h, void *user,
                    uint64_t seed);

/* A round as soon as possible, if anything is in flight. */
void reconcile_start(struct reconcile *r);
/* GET /queue for the positions alone. */
void reconcile_look(struct reconcile *r);
/* Asks history for one prompt: its end was seen, but the stream had a gap. */
void reconcile_ask(struct reconcile *r, struct prompt *p);
/* ComfyUI has it, an event or the answer to its POST says: what was asked
 * before can't tell that it is gone. */
void reconcile_heard(struct reconcile *r, struct prompt *p);
/* A round within `delay_ms`. */
void reconcile_soon(struct reconcile *r, int64_t delay_ms, int64_t now_ms);
/* Rounds every `interval_ms` from now on; 0 ends it. */
void reconcile_set_polling(struct reconcile *r, uint32_t interval_ms,
                           int64_t now_ms);
/* Something is in flight (again): polling, if it is on, resumes. */
void reconcile_in_flight(struct reconcile *r, int64_t now_ms);
static inline bool reconcile_polling(const struct reconcile *r)
{
	return r->poll_interval_ms > 0;
}

/* To be called at r->due_ms. */
void reconcile_tick(struct reconcile *r, int64_t now_ms);
void reconcile_queue_answer(struct reconcile *r, const struct comfy_queue *q,
                            int64_t now_ms);
/* A prompt whose POST was not answered is known to ComfyUI by an id of its own.
 * 0, -EEXIST, -ENOMEM. */
int reconcile_adopt(struct reconcile *r, struct prompt *p,
                    const char *remote_id);
/* `p` is NULL if it is gone by now. */
void reconcile_history_answer(struct reconcile *r, struct prompt *p,
                              const struct comfy_history *h, int64_t now_ms);

#endif
