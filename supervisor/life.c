/*
 * life.c - see life.h: what follows from each event of a prompt's life. How it
 * begins is in life_begin.c, how it ends in life_end.c.
 */
#include "supervisor/life.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/life_impl.h"
#include "supervisor/polling.h"
#include "supervisor/position.h"
#include "supervisor/poster.h"
#include "supervisor/tell.h"

static enum store_state store_state_of(enum prompt_state s)
{
	switch (s) {
	case PROMPT_ACCEPTED:
		return STORE_ACCEPTED;
	case PROMPT_POSTING:
	case PROMPT_CHECKING:
		return STORE_POSTING;
	case PROMPT_SUBMITTED:
	case PROMPT_EXECUTING:
		return STORE_SUBMITTED;
	case PROMPT_ENDED:
	case PROMPT_STATE_COUNT:
		break;
	}
	return STORE_ENDED;
}

/* What the store doesn't learn is found out again after a restart: a prompt
 * noted as POSTING is looked up. So a failure here loses nothing. */
static void save_state(struct supervisor *sv, struct prompt *p)
{
	struct error err = ERROR_NULL;

	if (store_set_state(sv->store, p->row, store_state_of(p->fsm.state),
	                    p->remote_id, p->has_number ? &p->number : NULL,
	                    &err) == 0)
		return;
	sv->counters.store_errors++;
	log_error("life", "%s (prompt_id=%s)", err.text, p->id);
}

static void put_reply(struct buf *out, const struct prompt *p,
                      const struct life_news *news)
{
	const struct cmx_progress *c = progress_get(p->progress);

	(void)buf_printf(out, "{\"prompt_id\":\"%s\",\"status\":\"%s\"", p->id,
	                 cmx_status_name(c->status));
	if (p->has_number)
		(void)buf_printf(out, ",\"number\":%.17g", p->number);
	if (json_count(news->node_errors) > 0) {
		(void)buf_puts(out, ",\"node_errors\":");
		(void)json_compact(out, news->node_errors);
	}
	(void)buf_putc(out, '}');
}

/* One answer; then the subscription, if one was asked for. */
static void answer(struct supervisor *sv, struct wait *w,
                   const struct buf *result)
{
	struct error err = ERROR_NULL;

	if (!buf_ok(result)) {
		error_set_nomem(&err, "reply");
		peer_refuse(w->peer, wait_id(w), &err, SPAN_NULL);
		return;
	}
	peer_reply(w->peer, wait_id(w), span_make(result->data, result->len));
	if (w->subscribe && tell_release(sv, w) != 0)
		log_warn("life",
		         "prompt not subscribed to, its client has too many "
		         "subscriptions (prompt_id=%s client=%llu)",
		         w->prompt->id, (unsigned long long)w->peer->number);
}

void life_reply(struct supervisor *sv, struct prompt *p,
                const struct life_news *news)
{
	struct buf result = BUF_INIT(LINE_MAX_BYTES);
	struct wait *w;

	list_del(&p->unanswered);
	/* It was announced: from now on it is kept. */
	p->fsm.hold = true;
	if (list_empty(&p->waiters))
		return;
	put_reply(&result, p, news);
	while (!list_empty(&p->waiters)) {
		w = list_first(&p->waiters, struct wait, by_prompt);
		answer(sv, w, &result);
		wait_free(w);
	}
	buf_deinit(&result);
}

static void tell_submitted(struct supervisor *sv, struct prompt *p)
{
	char data[64] = "{}";

	if (p->has_number)
		(void)snprintf(data, sizeof(data), "{\"number\":%.17g}",
		               p->number);
	log_info("life", "prompt submitted (prompt_id=%s uid=%u)", p->id,
	         (unsigned)p->tenant->uid);
	tell_event(sv, p, EVENT_SUBMITTED, SPAN(data));
}

/* To those who watch everything, and have heard of it. */
static void tell_forgotten(struct supervisor *sv, struct prompt *p,
                           const struct error *why)
{
	if (p->log.seq == 0)
		return;
	(void)progress_fail(p->progress, error_code_name(why->code), why->text,
	                    NULL);
	tell_event(sv, p, EVENT_FINISHED, SPAN_NULL);
	p->finished = true;
}

static void forget(struct supervisor *sv, struct prompt *p,
                   const struct life_news *news, struct span extra)
{
	static const struct error away = {.code = ERR_UNREACHABLE,
	                                  .text = "ComfyUI does not answer"};
	const struct error *why = news->err ? news->err : &away;
	struct error err = ERROR_NULL;
	struct wait *w;

	log_info("life", "prompt not accepted: %s (prompt_id=%s uid=%u)",
	         why->text, p->id, (unsigned)p->tenant->uid);
	while (!list_empty(&p->waiters)) {
		w = list_first(&p->waiters, struct wait, by_prompt);
		peer_refuse(w->peer, wait_id(w), why, extra);
		wait_free(w);
	}
	tell_forgotten(sv, p, why);
	life_answer_cancels(p, "dequeued");
	if (store_forget(sv->store, p->row, &err) < 0) {
		sv->counters.store_errors++;
		log_error("life", "%s (prompt_id=%s)", err.text, p->id);
	}
	tracker_drop(&sv->tracker, p);
}

/* Nobody but its submitter has heard of it, and he is told: it never was. */
static bool reject_at_once(struct supervisor *sv, struct prompt *p,
                           const struct life_news *news)
{
	struct buf extra = BUF_INIT(LINE_MAX_BYTES / 2);

	if (p->fsm.why != PROMPT_END_REJECTED || p->told ||
	    list_empty(&p->unanswered) || list_empty(&p->waiters))
		return false;
	if (!json_is(news->node_errors, JSON_NONE)) {
		(void)buf_puts(&extra, "\"node_errors\":");
		(void)json_compact(&extra, news->node_errors);
	}
	sv->counters.rejected++;
	forget(sv, p, news,
	       buf_ok(&extra) && extra.len > 0
	               ? span_make(extra.data, extra.len)
	               : SPAN_NULL);
	buf_deinit(&extra);
	return true;
}

/* A cancel came while the POST was under way, or before a crash. */
static bool cancel_late(struct supervisor *sv, struct prompt *p)
{
	if (!p->cancel_wanted)
		return true;
	if (p->fsm.state == PROMPT_ACCEPTED)
		return life_event(sv, p, PROMPT_EV_DEQUEUED, NULL);
	life_go_on_cancelling(sv, p);
	return true;
}

/* What the new state asks for besides the actions. */
static void follow_up(struct supervisor *sv, struct prompt *p,
                      enum prompt_state from)
{
	if (p->fsm.state == PROMPT_SUBMITTED && from != PROMPT_SUBMITTED)
		positions_enter(sv, p);
	if (p->fsm.state == PROMPT_SUBMITTED ||
	    p->fsm.state == PROMPT_EXECUTING)
		reconcile_heard(&sv->reconcile, p);
	if (prompt_fsm_outstanding(&p->fsm))
		polling_watch(sv);
}

static void look_up(struct supervisor *sv, const struct prompt *p)
{
	reconcile_soon(&sv->reconcile,
	               p->fsm.absent > 0 ? RECONCILE_SETTLE_MS : 0, clock_ms());
	polling_arm(sv);
}

bool life_event(struct supervisor *sv, struct prompt *p, enum prompt_event ev,
                const struct life_news *news)
{
	static const struct life_news none;
	enum prompt_state from = p->fsm.state;
	bool lives = true, moved;
	unsigned todo;

	if (!news)
		news = &none;
	todo = prompt_fsm_event(&p->fsm, ev, supervisor_link_up(sv));
	moved = p->fsm.state != from;
	if (moved) {
		log_debug("life", "prompt %s -> %s (prompt_id=%s event=%s)",
		          prompt_state_name(from),
		          prompt_state_name(p->fsm.state), p->id,
		          prompt_event_name(ev));
		tracker_moved(&sv->tracker, p, from, todo & PROMPT_DO_LINE);
		follow_up(sv, p, from);
	}
	if (todo & PROMPT_DO_STORE)
		save_state(sv, p);
	if (todo & PROMPT_DO_REPLY)
		life_reply(sv, p, news);
	if (todo & PROMPT_DO_TELL)
		tell_submitted(sv, p);
	if (todo & PROMPT_DO_CHECK)
		look_up(sv, p);
	if (todo & PROMPT_DO_ASK)
		reconcile_ask(&sv->reconcile, p);
	if (todo & PROMPT_DO_FORGET) {
		forget(sv, p, news, SPAN_NULL);
		lives = false;
	} else if (todo & PROMPT_DO_END) {
		lives = !reject_at_once(sv, p, news);
		if (lives)
			life_end(sv, p, news);
	}
	if (moved && lives)
		lives = cancel_late(sv, p);
	if (moved) {
		positions_changed(sv);
		poster_kick(sv);
	}
	return lives;
}

void life_unreachable(struct supervisor *sv, const struct error *err)
{
	struct poster *po = &sv->poster;
	struct life_news news = {.err = err};
	struct list todo, *it, *next;
	struct prompt *p;

	/* Each leaves the list, or is put back. */
	list_init(&todo);
	list_for_each_safe (it, next, &po->unanswered) {
		list_del(it);
		list_append(&todo, it);
	}
	while (!list_empty(&todo)) {
		p = list_first(&todo, struct prompt, unanswered);
		list_del(&p->unanswered);
		list_append(&po->unanswered, &p->unanswered);
		if (p->fsm.state == PROMPT_ACCEPTED)
			(void)life_event(sv, p, PROMPT_EV_UNREACHED, &news);
		else if (p->fsm.state == PROMPT_CHECKING)
			life_reply(sv, p, &news);
	}
}

void life_announce(struct supervisor *sv)
{
	static const struct life_news none;
	struct list *it, *after;
	struct prompt *p;

	list_for_each_safe (it, after, &sv->poster.unanswered) {
		p = list_entry(it, struct prompt, unanswered);
		if (p->fsm.state == PROMPT_ACCEPTED)
			life_reply(sv, p, &none);
	}
}

void life_told(struct prompt *p)
{
	p->told = true;
	p->fsm.hold = true;
}

void life_abandoned(struct prompt *p)
{
	if (!list_empty(&p->waiters))
		return;
	/* Nobody is left to be told "not accepted". */
	p->fsm.hold = true;
	list_del(&p->unanswered);
}
