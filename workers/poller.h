/*
 * poller.h - asks ComfyUI about prompts while no supervisor tells: one /queue
 * for all who want to know, then /history/{id} for each that isn't in it.
 *
 * Every link_poll_ms(), jittered; backing off while ComfyUI doesn't answer,
 * which is never news about a prompt. Nothing is asked when nobody watches.
 */
#ifndef WORKERS_POLLER_H
#define WORKERS_POLLER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/json_span.h"
#include "common/list.h"

struct link;
struct poller;
struct comfy_call;

#define POLLER_KICK_MS       100 /* from a new watch to the round it causes */
#define POLLER_HISTORIES_MAX 4   /* /history/{id} asked at once */

enum poller_found {
	POLLER_PENDING, /* in the queue, `ahead` prompts before it */
	POLLER_RUNNING,
	POLLER_ENDED, /* `entry` is its history */
	/* Not in the queue, and not in the history asked after that. */
	POLLER_MISSING,
};

struct poller_news {
	enum poller_found found;
	int64_t ahead;
	struct json entry; /* valid during the call */
	/* PENDING, RUNNING of a `marked` watch: what ComfyUI calls it, NULL:
	 * likewise. Valid during the call. */
	const char *remote_id;
	/* MISSING: it waited in the queue, and was taken out of it while
	 * ComfyUI stayed up. */
	bool deleted;
};

struct poller_watch {
	const char *prompt_id; /* the watcher's, lives as long as the watch */
	/* Once a round. The watch may be removed in it, others too. */
	void (*on_polled)(void *user, const struct poller_news *n);
	/* A round failed: ComfyUI didn't answer, or not as ComfyUI does. It
	 * goes on trying. May be NULL. */
	void (*on_trouble)(void *user, const struct error *err);
	void *user;
	/* One that has our marker of this id (comfy_marker.h) will do. */
	bool marked;
	/* private */
	struct list node;
	struct poller *poller;
	struct comfy_call *call;
	bool wants_history;
	bool waited;  /* in the queue, when it was asked last */
	bool deleted; /* see struct poller_news */
};

struct poller *poller_new(struct link *l);
/* Without callbacks. NULL is fine; returns NULL. */
struct poller *poller_free(struct poller *p);

/* From now on. The first round starts POLLER_KICK_MS later; if it isn't wanted
 * `soon`, at some moment within link_poll_ms(). */
void poller_add(struct poller *p, struct poller_watch *w, bool soon);
/* Safe twice, and on a zeroed watch. */
void poller_remove(struct poller_watch *w);

#endif
