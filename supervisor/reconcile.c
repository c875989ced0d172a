/*
 * reconcile.c - see reconcile.h.
 */
#include "supervisor/reconcile.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "common/macros.h"

/* Multiples of the poll interval after errors in a row, at most 30 s. */
static const unsigned char error_factors[] = {1, 2, 4, 8, 16, 20};
#define ERROR_DELAY_MAX_MS 30000
#define DEFAULT_DELAY_MS   1500
#define JITTER_PERCENT     10

static void set_delays(struct reconcile *r, uint32_t interval_ms)
{
	uint32_t d;

	_Static_assert(ARRAY_SIZE(error_factors) == ARRAY_SIZE(r->delays_ms),
	               "one delay a factor");
	for (size_t i = 0; i < ARRAY_SIZE(error_factors); i++) {
		d = interval_ms * error_factors[i];
		if (d > ERROR_DELAY_MAX_MS && interval_ms < ERROR_DELAY_MAX_MS)
			d = ERROR_DELAY_MAX_MS;
		r->delays_ms[i] = d;
	}
}

void reconcile_init(struct reconcile *r, struct tracker *t,
                    const struct reconcile_handlers *h, void *user,
                    uint64_t seed)
{
	*r = (struct reconcile){
		.tracker = t, .h = h, .user = user, .due_ms = -1};
	list_init(&r->asks);
	set_delays(r, DEFAULT_DELAY_MS);
	backoff_init(&r->errors, r->delays_ms, ARRAY_SIZE(r->delays_ms),
	             JITTER_PERCENT, seed);
}

static bool idle(const struct reconcile *r)
{
	return !r->queue_asked && r->asking == 0 && list_empty(&r->asks);
}

/* One whose POST is under way is no concern of ours: its answer decides. */
static bool in_flight(const struct prompt *p)
{
	return prompt_fsm_outstanding(&p->fsm) &&
	       p->fsm.state != PROMPT_POSTING;
}

static bool anything_in_flight(const struct reconcile *r)
{
	struct list *it;

	/* At most one is POSTING. */
	list_for_each (it, &r->tracker->outstanding) {
		if (in_flight(list_entry(it, struct prompt, by_post)))
			return true;
	}
	return false;
}

/* The delay grows while `failed` says that requests fail. */
static uint32_t next_delay(struct reconcile *r)
{
	if (!r->failed)
		backoff_reset(&r->errors);
	return backoff_next_ms(&r->errors);
}

static void finish(struct reconcile *r, int64_t now_ms)
{
	bool failed = r->failed;

	if (!idle(r))
		return;
	if (r->round_wanted) {
		r->round_wanted = false;
		reconcile_start(r);
		return;
	}
	if (r->look_wanted) {
		r->look_wanted = false;
		reconcile_look(r);
		return;
	}
	if (failed || reconcile_polling(r))
		reconcile_soon(r, next_delay(r), now_ms);
	else
		backoff_reset(&r->errors);
	r->failed = false;
}

static void ask_queue(struct reconcile *r, bool full)
{
	struct list *it;
	struct prompt *p;

	r->full = full;
	if (full) {
		r->round++;
		r->due_ms = -1;
		list_for_each (it, &r->tracker->outstanding) {
			p = list_entry(it, struct prompt, by_post);
			if (in_flight(p))
				p->round = r->round;
		}
	}
	r->queue_asked = true;
	if (r->h->get_queue(r->user) < 0) {
		r->queue_asked = false;
		r->failed = true;
	}
}

void reconcile_start(struct reconcile *r)
{
	if (!idle(r)) {
		r->round_wanted = true;
		return;
	}
	if (!anything_in_flight(r)) {
		r->due_ms = -1;
		return;
	}
	ask_queue(r, true);
	if (!r->queue_asked)
		reconcile_soon(r, next_delay(r), clock_ms());
}

void reconcile_look(struct reconcile *r)
{
	if (r->queue_asked) {
		/* A prompt posted since may not be in that answer. */
		r->look_wanted = true;
		return;
	}
	ask_queue(r, false);
}

void reconcile_soon(struct reconcile *r, int64_t delay_ms, int64_t now_ms)
{
	if (r->due_ms < 0 || now_ms + delay_ms < r->due_ms)
		r->due_ms = now_ms + delay_ms;
}

void reconcile_set_polling(struct reconcile *r, uint32_t interval_ms,
                           int64_t now_ms)
{
	if (r->poll_interval_ms == interval_ms)
		return;
	r->poll_interval_ms = interval_ms;
	if (interval_ms == 0)
		return;
	set_delays(r, interval_ms);
	backoff_reset(&r->errors);
	reconcile_in_flight(r, now_ms);
}

void reconcile_in_flight(struct reconcile *r, int64_t now_ms)
{
	if (reconcile_polling(r) && r->due_ms < 0 && idle(r))
		reconcile_soon(r, next_delay(r), now_ms);
}

void reconcile_tick(struct reconcile *r, int64_t now_ms)
{
	if (r->due_ms < 0 || now_ms < r->due_ms)
		return;
	r->due_ms = -1;
	/* With nothing in flight the clock stops until reconcile_in_flight. */
	reconcile_start(r);
}

static void pump(struct reconcile *r)
{
	struct prompt *p;

	while (r->asking < RECONCILE_ASKS_MAX && !list_empty(&r->asks)) {
		p = list_first(&r->asks, struct prompt, ask);
		list_del(&p->ask);
		if (r->h->get_history(r->user, p) < 0) {
			r->failed = true;
			continue;
		}
		p->asking = true;
		r->asking++;
	}
}

void reconcile_ask(struct reconcile *r, struct prompt *p)
{
	if (p->asking || !list_empty(&p->ask))
		return;
	list_append(&r->asks, &p->ask);
	pump(r);
	/* Only if it couldn't even be asked. */
	if (r->failed)
		finish(r, clock_ms());
}

void reconcile_heard(struct reconcile *r, struct prompt *p)
{
	p->round_seen = r->round;
	p->outdated = p->asking || !list_empty(&p->ask);
}

/* Tells of one place in the queue. */
static void tell_place(struct reconcile *r, const struct comfy_queue_item *item,
                       bool running, int64_t ahead)
{
	struct prompt *p = tracker_find_remote(r->tracker, item->prompt_id);

	if (!p)
		return;
	reconcile_heard(r, p);
	p->answer_seen = r->answers;
	r->ours_seen++;
	if (running)
		r->h->on_running(r->user, p);
	else
		r->h->on_pending(r->user, p, ahead);
}

/* Prompts of others do as well; whatever id is too long does not. */
static void look_for_witness(struct reconcile *r, const struct comfy_queue *q)
{
	const struct comfy_queue_item *item =
		q->running_count > 0 ? q->running : q->pending;

	r->answers++;
	r->ours_seen = 0;
	r->stayed_up = r->witness[0] != '\0' &&
	               comfy_queue_ahead(q, r->witness, NULL) >= 0;
	r->witness[0] = '\0';
	if (q->running_count + q->pending_count > 0 &&
	    item->prompt_id.n <= UUID_LEN) {
		memcpy(r->witness, item->prompt_id.p, item->prompt_id.n);
		r->witness[item->prompt_id.n] = '\0';
	}
}

/* One of ours that was posted before it is there still: so ComfyUI was not
 * restarted since, nor has it come to this one. */
static bool older_is_there(const struct reconcile *r, const struct prompt *p)
{
	const struct prompt *older;
	struct list *it;

	/* What an earlier process posted may stand in another order. */
	if (r->ours_seen == 0 || !p->fsm.posted)
		return false;
	list_for_each (it, &r->tracker->outstanding) {
		older = list_entry(it, struct prompt, by_post);
		if (older == p)
			break;
		if (older->fsm.posted && older->answer_seen == r->answers)
			return true;
	}
	return false;
}

static bool was_deleted(const struct reconcile *r, const struct prompt *p)
{
	if (p->fsm.state != PROMPT_SUBMITTED)
		return false;
	return (r->stayed_up && p->answer_seen + 1 == r->answers) ||
	       older_is_there(r, p);
}

/* Of those whose POST was not answered, what the queue has under an id that
 * the server chose. What happened to it until now nobody has heard. */
static void adopt(struct reconcile *r, const struct comfy_queue *q)
{
	const struct comfy_queue_item *item;
	char id[COMFY_PROMPT_ID_MAX + 1];
	struct prompt *p;
	struct list *it;

	list_for_each (it, &r->tracker->outstanding) {
		p = list_entry(it, struct prompt, by_post);
		if (p->fsm.state != PROMPT_CHECKING || p->remote_id ||
		    comfy_queue_ahead(q, p->id, NULL) >= 0)
			continue;
		item = comfy_queue_marked(q, p->id);
		if (!item || item->prompt_id.n > COMFY_PROMPT_ID_MAX)
			continue;
		memcpy(id, item->prompt_id.p, item->prompt_id.n);
		id[item->prompt_id.n] = '\0';
		(void)reconcile_adopt(r, p, id);
	}
}

static void walk_queue(struct reconcile *r, const struct comfy_queue *q)
{
	struct reconcile_others others = {0};
	size_t i, foreign = 0;

	adopt(r, q);
	look_for_witness(r, q);
	for (i = 0; i < q->running_count; i++) {
		if (!tracker_find_remote(r->tracker, q->running[i].prompt_id))
			foreign++;
	}
	for (i = 0; i < q->pending_count; i++) {
		if (tracker_find_remote(r->tracker, q->pending[i].prompt_id))
			others.in_front = foreign;
		else
			foreign++;
	}
	others.count = foreign;
	r->h->on_others(r->user, &others);
	for (i = 0; i < q->running_count; i++)
		tell_place(r, &q->running[i], true, 0);
	for (i = 0; i < q->pending_count; i++)
		tell_place(r, &q->pending[i], false,
		           (int64_t)(q->running_count + i));
}

/* Those of the round that are not in the queue. */
static void ask_missing(struct reconcile *r)
{
	struct list *it;
	struct prompt *p;

	list_for_each (it, &r->tracker->outstanding) {
		p = list_entry(it, struct prompt, by_post);
		if (p->round == r->round && p->round_seen != r->round &&
		    in_flight(p) && !p->asking && list_empty(&p->ask))
			list_append(&r->asks, &p->ask);
	}
}

void reconcile_queue_answer(struct reconcile *r, const struct comfy_queue *q,
                            int64_t now_ms)
{
	bool full = r->full;

	r->queue_asked = false;
	r->full = false;
	if (q->r.outcome != COMFY_OK) {
		r->failed = true;
		r->h->on_unreachable(r->user, &q->r.error);
		finish(r, now_ms);
		return;
	}
	/* A look reads the same answer, but judges nobody. */
	if (!full)
		r->round++;
	walk_queue(r, q);
	if (full)
		ask_missing(r);
	pump(r);
	finish(r, now_ms);
}

int reconcile_adopt(struct reconcile *r, struct prompt *p,
                    const char *remote_id)
{
	int e;

	if (tracker_find_remote(r->tracker, SPAN(remote_id)))
		return -EEXIST;
	e = tracker_alias(r->tracker, p, remote_id);
	if (e == 0)
		(void)prompt_fsm_event(&p->fsm, PROMPT_EV_GAP, false);
	return e;
}

void reconcile_history_answer(struct reconcile *r, struct prompt *p,
                              const struct comfy_history *h, int64_t now_ms)
{
	r->asking--;
	if (h->r.outcome != COMFY_OK) {
		r->failed = true;
		r->h->on_unreachable(r->user, &h->r.error);
	}
	if (p) {
		bool outdated = p->outdated;

		p->asking = p->outdated = false;
		if (h->r.outcome == COMFY_OK && json_is(h->entry, JSON_OBJECT))
			r->h->on_history(r->user, p, h->entry);
		else if (h->r.outcome == COMFY_OK && outdated)
			reconcile_soon(r, 0, now_ms);
		else if (h->r.outcome == COMFY_OK)
			r->h->on_absent(r->user, p, was_deleted(r, p));
	}
	pump(r);
	finish(r, now_ms);
}
