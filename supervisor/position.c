/*
 * position.c - see position.h.
 */
#include "supervisor/position.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/polling.h"
#include "supervisor/tell.h"

static bool waits(const struct prompt *p)
{
	return p->fsm.state == PROMPT_SUBMITTED;
}

/* Of ours, those that ComfyUI certainly has. */
static size_t certain(const struct supervisor *sv)
{
	const struct tracker *t = &sv->tracker;

	size_t unsure = t->checking_count + sv->poster.posting;

	/* A POST may still be under way for one that has ended already. */
	return t->outstanding_count > unsure ? t->outstanding_count - unsure
	                                     : 0;
}

size_t positions_foreign(const struct supervisor *sv)
{
	const struct positions *po = &sv->positions;
	int64_t ours = (int64_t)sv->tracker.outstanding_count;

	/* A POST under way counts as ours already: rather one too few for a
	 * moment than a look for nothing. */
	if (po->remaining >= 0)
		return po->remaining > ours ? (size_t)(po->remaining - ours)
		                            : 0;
	return po->others;
}

void positions_place(struct supervisor *sv, struct prompt *p, int64_t ahead,
                     enum cmx_method method)
{
	bool paused = sv->paused && p->fsm.state == PROMPT_ACCEPTED;
	unsigned change = progress_fold_queued(p->progress, ahead, method) |
	                  progress_fold_paused(p->progress, paused);
	char data[64];
	int n;

	if (!(change & PROGRESS_QUEUE) || ahead >= POSITION_TOLD_MAX)
		return;
	n = snprintf(data, sizeof(data), "{\"queue_position\":%lld%s}",
	             (long long)ahead, paused ? ",\"paused\":true" : "");
	tell_event(sv, p, method == CMX_POLLING ? EVENT_POLLED : EVENT_QUEUED,
	           span_make(data, (size_t)n));
}

/* In order of posting, which is ComfyUI's own, behind `foreign` others. */
static void place_all(struct supervisor *sv, int64_t foreign)
{
	struct list *it;
	struct prompt *p;
	int64_t ahead = foreign;

	list_for_each (it, &sv->tracker.outstanding) {
		p = list_entry(it, struct prompt, by_post);
		if (waits(p))
			positions_place(sv, p, ahead, CMX_WEBSOCKET);
		ahead++;
	}
}

/* Others are there: is what was seen of them still good? It is if none was in
 * front, since newcomers go behind, unless we have posted since. */
static bool seen_enough(const struct supervisor *sv)
{
	const struct positions *po = &sv->positions;

	if (!po->looked)
		return false;
	if (po->looked_remaining == po->remaining &&
	    po->looked_outstanding == sv->tracker.outstanding_count)
		return true;
	return po->others_in_front == 0 &&
	       sv->tracker.outstanding_count <= po->looked_outstanding;
}

struct waiting {
	struct supervisor *sv;
	int64_t ahead;
	enum cmx_method method;
};

static bool place_one_waiting(void *user, struct queue_entry *e)
{
	struct waiting *w = user;

	positions_place(w->sv, container_of(e, struct prompt, turn), w->ahead++,
	                w->method);
	return true;
}

/* Those that we have not posted yet: behind everything that ComfyUI has, in
 * the order of their turns. */
static void place_waiting(struct supervisor *sv)
{
	struct waiting w = {
		.sv = sv,
		.ahead = (int64_t)(sv->tracker.outstanding_count +
	                           positions_foreign(sv)),
		.method = supervisor_link_up(sv) ? CMX_WEBSOCKET : CMX_POLLING,
	};

	queue_walk(&sv->tracker.queue, place_one_waiting, &w);
}

/* Those that ComfyUI has. */
static void place_outstanding(struct supervisor *sv)
{
	struct positions *po = &sv->positions;
	size_t foreign;

	if (!supervisor_link_up(sv) || po->remaining < 0)
		return; /* polling tells */
	if (certain(sv) <= sv->tracker.executing_count)
		return; /* nothing of ours waits */
	foreign = positions_foreign(sv);
	if (foreign == 0) {
		po->looked = false;
		place_all(sv, 0);
	} else if (!seen_enough(sv)) {
		reconcile_look(&sv->reconcile);
	} else if (po->others_in_front == 0) {
		place_all(sv, 0);
	}
}

static void run_pass(struct supervisor *sv)
{
	sv->positions.stale = false;
	place_outstanding(sv);
	place_waiting(sv);
}

static void arm_pass(struct supervisor *sv, double delay_s)
{
	struct positions *po = &sv->positions;

	if (ev_is_active(&po->pass))
		return;
	ev_timer_set(&po->pass, delay_s, 0.);
	ev_timer_start(sv->loop, &po->pass);
}

static void on_pass(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;

	if (sv->positions.stale)
		run_pass(sv);
}

/* ComfyUI has had fewer prompts than we think for a while: somebody deleted
 * one of ours, or the link is deaf. */
static void on_fewer(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;

	if (sv->positions.remaining < 0 ||
	    (size_t)sv->positions.remaining >= certain(sv))
		return;
	log_debug("position", "ComfyUI has fewer prompts than we gave it");
	reconcile_start(&sv->reconcile);
	polling_arm(sv);
}

static void check_fewer(struct supervisor *sv)
{
	struct positions *po = &sv->positions;
	bool fewer = po->remaining >= 0 && supervisor_link_up(sv) &&
	             (size_t)po->remaining < certain(sv);

	if (!fewer) {
		ev_timer_stop(sv->loop, &po->fewer);
	} else if (!ev_is_active(&po->fewer)) {
		ev_timer_set(&po->fewer, POSITION_FEWER_S, 0.);
		ev_timer_start(sv->loop, &po->fewer);
	}
}

void positions_changed(struct supervisor *sv)
{
	struct positions *po = &sv->positions;

	check_fewer(sv);
	if (po->stale)
		return;
	po->stale = true;
	/* Zero: in the next turn, when all events of this one are read. With
	 * others around each pass may cost a look. */
	if (positions_foreign(sv) > 0)
		arm_pass(sv, POSITION_LOOK_MS / 1e3);
	else if (sv->tracker.active > POSITION_SMALL)
		arm_pass(sv, POSITION_PASS_S);
	else
		arm_pass(sv, 0.);
}

void positions_status(struct supervisor *sv, int64_t queue_remaining)
{
	if (queue_remaining < 0)
		return;
	if (queue_remaining == sv->positions.remaining) {
		check_fewer(sv);
		return;
	}
	sv->positions.remaining = queue_remaining;
	positions_changed(sv);
}

void positions_enter(struct supervisor *sv, struct prompt *p)
{
	struct positions *po = &sv->positions;
	size_t before = sv->tracker.outstanding_count - 1;

	(void)progress_fold_paused(p->progress, false);
	if (po->remaining < 0)
		return;
	/* Told with `submitted`. */
	(void)progress_fold_queued(p->progress,
	                           (int64_t)(before + positions_foreign(sv)),
	                           CMX_WEBSOCKET);
}

void positions_others(struct supervisor *sv, const struct reconcile_others *o)
{
	struct positions *po = &sv->positions;

	po->others = o->count;
	po->others_in_front = o->in_front;
	po->looked = true;
	po->looked_remaining = po->remaining;
	po->looked_outstanding = sv->tracker.outstanding_count;
}

void positions_forget(struct supervisor *sv)
{
	sv->positions.remaining = -1;
	sv->positions.looked = false;
	ev_timer_stop(sv->loop, &sv->positions.fewer);
}

void positions_init(struct supervisor *sv)
{
	struct positions *po = &sv->positions;

	po->remaining = -1;
	ev_timer_init(&po->pass, on_pass, 0., 0.);
	ev_timer_init(&po->fewer, on_fewer, 0., 0.);
	po->pass.data = po->fewer.data = sv;
}

void positions_deinit(struct supervisor *sv)
{
	ev_timer_stop(sv->loop, &sv->positions.pass);
	ev_timer_stop(sv->loop, &sv->positions.fewer);
}
