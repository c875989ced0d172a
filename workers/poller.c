/*
 * poller.c - rounds of questions: /queue for all, then /history/{id} for those
 * that are not in it.
 *
 * The history is asked after the queue, so that a prompt that ends between the
 * two is found in the second: in neither means that ComfyUI doesn't have it
 * (section 4 of the recordings' README).
 */
#include "workers/poller.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "common/log.h"
#include "workers/link.h"

#define BACKOFF_JITTER 10 /* percent */

struct poller {
	struct link *link;
	ev_timer next;
	struct list watches;
	size_t count; /* of watches, wherever their nodes are just now */
	bool in_round;
	bool delivering; /* inside a watcher's callback */
	bool again;      /* a watch came during the round: soon another */
	struct comfy_call *queue_call;
	unsigned histories;   /* calls under way */
	struct error trouble; /* of this round; ERR_NONE: none so far */
	bool told_trouble;
	struct backoff backoff;
	/* One that was in the queue: where it still is in the next answer,
	 * ComfyUI has not been restarted in between. */
	char *witness;
	bool stayed_up;
};

static void poller_histories(struct poller *p);

static void poller_schedule(struct poller *p, unsigned ms)
{
	struct ev_loop *loop = link_loop(p->link);

	ev_timer_stop(loop, &p->next);
	ev_timer_set(&p->next, ms / 1000.0, 0.);
	ev_timer_start(loop, &p->next);
}

/* Those who are called may remove any watch, or add some: so all are moved
 * over, and each is put back before its call. */
static void poller_set_aside(struct poller *p, struct list *todo)
{
	struct list *n;

	list_init(todo);
	while (!list_empty(&p->watches)) {
		n = p->watches.next;
		list_del(n);
		list_append(todo, n);
	}
}

static struct poller_watch *poller_take(struct poller *p, struct list *todo)
{
	struct list *n = todo->next;

	if (list_empty(todo))
		return NULL;
	list_del(n);
	list_append(&p->watches, n);
	return list_entry(n, struct poller_watch, node);
}

static void poller_tell_trouble(struct poller *p)
{
	struct poller_watch *w;
	struct list todo;

	if (!p->told_trouble) {
		p->told_trouble = true;
		link_notice(p->link,
		            "ComfyUI does not answer (%s): trying again",
		            p->trouble.text);
	}
	p->delivering = true;
	poller_set_aside(p, &todo);
	while ((w = poller_take(p, &todo))) {
		if (w->on_trouble)
			w->on_trouble(w->user, &p->trouble);
	}
	p->delivering = false;
}

static void poller_end_round(struct poller *p)
{
	unsigned ms = link_poll_ms(p->link), wait_ms;

	if (p->trouble.code != ERR_NONE) {
		poller_tell_trouble(p);
		wait_ms = backoff_next_ms(&p->backoff);
		if (wait_ms > ms)
			ms = wait_ms;
	} else {
		backoff_reset(&p->backoff);
		if (p->again)
			ms = POLLER_KICK_MS;
	}
	p->again = false;
	p->in_round = false;
	if (p->count > 0)
		poller_schedule(p, ms);
}

static void poller_note_trouble(struct poller *p, const struct error *err)
{
	if (p->trouble.code != ERR_NONE)
		return;
	p->trouble = *err;
	if (p->trouble.code == ERR_NONE)
		p->trouble.code = ERR_UNREACHABLE;
}

static void on_history(void *user, const struct comfy_history *h)
{
	struct poller_watch *w = user;
	struct poller *p = w->poller;
	struct poller_news n = {
		.found = POLLER_MISSING, .ahead = -1, .deleted = w->deleted};

	w->call = NULL;
	p->histories--;
	if (h->r.outcome != COMFY_OK) {
		poller_note_trouble(p, &h->r.error);
	} else {
		if (json_is(h->entry, JSON_OBJECT)) {
			n.found = POLLER_ENDED;
			n.entry = h->entry;
		}
		p->delivering = true;
		w->on_polled(w->user, &n);
		p->delivering = false;
	}
	poller_histories(p);
}

/* Asks for as many histories as may be under way; ends the round when none is
 * left. */
static void poller_histories(struct poller *p)
{
	struct poller_watch *w;
	struct comfy_api *api;
	struct error err = ERROR_NULL;
	struct list *it;

	list_for_each (it, &p->watches) {
		w = list_entry(it, struct poller_watch, node);
		if (!w->wants_history)
			continue;
		if (p->histories >= POLLER_HISTORIES_MAX)
			return;
		w->wants_history = false;
		api = link_api(p->link, &err);
		w->call = api ? comfy_get_history(api, w->prompt_id, on_history,
		                                  w, &err)
		              : NULL;
		if (w->call)
			p->histories++;
		else
			poller_note_trouble(p, &err);
	}
	if (p->in_round && p->histories == 0 && !p->queue_call)
		poller_end_round(p);
}

/* As comfy_queue_ahead, of what has our marker; `id` gets ComfyUI's. */
static int64_t poller_marked(const struct poller_watch *w,
                             const struct comfy_queue *q, bool *runningp,
                             char id[COMFY_PROMPT_ID_MAX + 1])
{
	const struct comfy_queue_item *item =
		comfy_queue_marked(q, w->prompt_id);

	if (!item || item->prompt_id.n > COMFY_PROMPT_ID_MAX)
		return -1;
	memcpy(id, item->prompt_id.p, item->prompt_id.n);
	id[item->prompt_id.n] = '\0';
	return comfy_queue_ahead(q, id, runningp);
}

static void poller_match(struct poller_watch *w, const struct comfy_queue *q)
{
	struct poller_news n = {.found = POLLER_PENDING};
	char remote[COMFY_PROMPT_ID_MAX + 1];
	bool running = false;

	n.ahead = comfy_queue_ahead(q, w->prompt_id, &running);
	if (n.ahead < 0 && w->marked) {
		n.ahead = poller_marked(w, q, &running, remote);
		n.remote_id = remote;
	}
	w->wants_history = n.ahead < 0;
	w->deleted = n.ahead < 0 && w->waited && w->poller->stayed_up;
	w->waited = n.ahead >= 0 && !running;
	if (w->wants_history)
		return;
	if (running)
		n.found = POLLER_RUNNING;
	w->on_polled(w->user, &n);
}

static void poller_look_for_witness(struct poller *p,
                                    const struct comfy_queue *q)
{
	const struct comfy_queue_item *item =
		q->running_count > 0 ? q->running : q->pending;

	p->stayed_up =
		p->witness && comfy_queue_ahead(q, p->witness, NULL) >= 0;
	free(p->witness);
	p->witness = NULL;
	/* For want of memory nothing is proven. */
	if (q->running_count + q->pending_count > 0)
		p->witness = strndup(item->prompt_id.p, item->prompt_id.n);
}

static void on_queue(void *user, const struct comfy_queue *q)
{
	struct poller *p = user;
	struct poller_watch *w;
	struct list todo;

	p->queue_call = NULL;
	if (q->r.outcome != COMFY_OK) {
		poller_note_trouble(p, &q->r.error);
		poller_end_round(p);
		return;
	}
	if (p->told_trouble) {
		p->told_trouble = false;
		link_notice(p->link, "ComfyUI answers again");
	}
	poller_look_for_witness(p, q);
	p->delivering = true;
	poller_set_aside(p, &todo);
	while ((w = poller_take(p, &todo)))
		poller_match(w, q);
	p->delivering = false;
	poller_histories(p);
}

static void on_next(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct poller *p = container_of(t, struct poller, next);
	struct comfy_api *api;
	struct error err = ERROR_NULL;

	if (p->count == 0)
		return;
	link_tell_polling(p->link);
	p->in_round = true;
	p->trouble = (struct error)ERROR_NULL;
	api = link_api(p->link, &err);
	p->queue_call = api ? comfy_get_queue(api, on_queue, p, &err) : NULL;
	if (p->queue_call)
		return;
	poller_note_trouble(p, &err);
	poller_end_round(p);
}

void poller_add(struct poller *p, struct poller_watch *w, bool soon)
{
	struct ev_loop *loop = link_loop(p->link);
	unsigned ms = soon ? POLLER_KICK_MS : link_spread_ms(p->link);

	/* Held between rounds as well, for the kept-alive connection. */
	if (p->count++ == 0)
		link_api_hold(p->link);
	w->poller = p;
	w->call = NULL;
	w->wants_history = w->waited = w->deleted = false;
	list_append(&p->watches, &w->node);
	if (p->in_round)
		p->again = p->again || soon;
	else if (!ev_is_active(&p->next) ||
	         ev_timer_remaining(loop, &p->next) > ms / 1000.0)
		poller_schedule(p, ms);
}

/* What was left of it was for a watch that is gone. Ended without a word, for
 * we are inside a caller's call. */
static void poller_abandon_round(struct poller *p)
{
	p->in_round = p->again = false;
	poller_schedule(p, link_poll_ms(p->link));
}

/* Nobody watches any more. */
static void poller_stop(struct poller *p)
{
	ev_timer_stop(link_loop(p->link), &p->next);
	if (p->queue_call)
		comfy_call_cancel(p->queue_call);
	p->queue_call = NULL;
	p->in_round = p->again = false;
	link_api_release(p->link);
}

void poller_remove(struct poller_watch *w)
{
	struct poller *p = w->poller;

	if (!p)
		return;
	w->poller = NULL;
	list_del(&w->node);
	if (w->call) {
		comfy_call_cancel(w->call);
		w->call = NULL;
		p->histories--;
	}
	if (--p->count == 0)
		poller_stop(p);
	else if (p->in_round && !p->delivering && !p->queue_call &&
	         p->histories == 0)
		poller_abandon_round(p);
}

struct poller *poller_new(struct link *l)
{
	struct poller *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->link = l;
	list_init(&p->watches);
	ev_timer_init(&p->next, on_next, 0., 0.);
	backoff_init(&p->backoff, backoff_link_ms, ARRAY_SIZE(backoff_link_ms),
	             BACKOFF_JITTER, (uint64_t)clock_us());
	return p;
}

struct poller *poller_free(struct poller *p)
{
	if (!p)
		return NULL;
	ev_timer_stop(link_loop(p->link), &p->next);
	if (p->queue_call)
		comfy_call_cancel(p->queue_call);
	free(p->witness);
	free(p);
	return NULL;
}
