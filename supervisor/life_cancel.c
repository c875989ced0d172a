/*
 * life_cancel.c - cancelling: out of our line, out of ComfyUI's queue, or by an
 * interrupt.
 *
 * That it is wanted is in the store before anybody is answered: whoever takes
 * over after a crash neither posts the prompt again nor lets it run on.
 */
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/life_impl.h"
#include "supervisor/polling.h"

/* After a cancel whose effect is not told: if no event tells, the queue will.
 */
#define CANCEL_LOOK_MS 1000

void life_answer_cancels(struct prompt *p, const char *how)
{
	struct buf result = BUF_INIT(128);
	struct wait *w;

	if (list_empty(&p->cancels))
		return;
	(void)buf_printf(&result, "{\"how\":\"%s\"}", how);
	while (!list_empty(&p->cancels)) {
		w = list_first(&p->cancels, struct wait, by_prompt);
		peer_reply(w->peer, wait_id(w),
		           span_make(result.data, result.len));
		wait_free(w);
	}
	buf_deinit(&result);
}

/* A store that is out of order keeps nobody from cancelling. */
static void mark(struct supervisor *sv, struct prompt *p, bool cancelled)
{
	struct error err = ERROR_NULL;

	if (store_set_cancelled(sv->store, p->row, cancelled, &err) == 0)
		return;
	sv->counters.store_errors++;
	log_error("life",
	          "a cancel is not kept over a crash: %s (prompt_id=%s)",
	          err.text, p->id);
}

static void refuse_cancels(struct prompt *p, const struct error *err)
{
	struct wait *w;

	while (!list_empty(&p->cancels)) {
		w = list_first(&p->cancels, struct wait, by_prompt);
		peer_refuse(w->peer, wait_id(w), err, SPAN_NULL);
		wait_free(w);
	}
}

/* Of one that waited no event will come. */
static void look_soon(struct supervisor *sv, const struct prompt *p)
{
	reconcile_soon(&sv->reconcile,
	               p->fsm.state == PROMPT_SUBMITTED ? 0 : CANCEL_LOOK_MS,
	               clock_ms());
	polling_arm(sv);
}

/* `done`: perhaps it took effect all the same. */
static void cancel_failed(struct supervisor *sv, struct prompt *p,
                          const struct error *err, bool done)
{
	log_warn("life", "prompt not cancelled: %s (prompt_id=%s)", err->text,
	         p->id);
	/* Nobody is left who could ask again: we do. */
	if (list_empty(&p->cancels)) {
		p->cancel_wanted = true;
		return;
	}
	p->fsm.cancelled = done || p->cancel_took;
	mark(sv, p, p->cancel_took);
	refuse_cancels(p, err);
}

static void on_cancelled(void *user, const struct comfy_cancelled *c)
{
	struct api_call *call = user;
	struct supervisor *sv = call->sv;
	struct prompt *p = api_call_end(call);

	api_answered(sv, &c->r);
	if (!p)
		return;
	p->cancelling = false;
	if (p->fsm.state == PROMPT_ENDED)
		return;
	if (c->r.outcome != COMFY_OK) {
		cancel_failed(sv, p, &c->r.error,
		              c->r.outcome == COMFY_E_UNKNOWN);
		return;
	}
	switch (c->how) {
	case COMFY_CANCEL_DEQUEUED:
		/* No event tells of that: it ends here. */
		(void)life_event(sv, p, PROMPT_EV_DEQUEUED, NULL);
		return;
	case COMFY_CANCEL_INTERRUPTED:
		p->cancel_took = true;
		life_answer_cancels(p, "interrupted");
		return;
	case COMFY_CANCEL_DONE:
		p->cancel_took = true;
		life_answer_cancels(p, "cancelled");
		look_soon(sv, p);
		return;
	case COMFY_CANCEL_NONE:
		/* Perhaps for a cancel before this one, whose event is still to
		 * come. */
		p->fsm.cancelled = p->cancel_took;
		mark(sv, p, p->cancel_took);
		life_answer_cancels(p, "ended");
		look_soon(sv, p);
		return;
	}
}

void life_start_cancel(struct supervisor *sv, struct prompt *p)
{
	struct error err = ERROR_NULL;
	struct api_call *call;

	if (p->cancelling)
		return;
	call = api_call_new(sv, p->id);
	if (!call) {
		error_set_nomem(&err, "cancel");
	} else if (!comfy_cancel(sv->api, prompt_remote_id(p), on_cancelled,
	                         call, &err)) {
		(void)api_call_end(call);
	} else {
		/* Before the answer: the event may come first. */
		p->fsm.cancelled = true;
		p->cancelling = true;
		sv->counters.http_requests++;
		return;
	}
	cancel_failed(sv, p, &err, p->fsm.cancelled);
}

void life_go_on_cancelling(struct supervisor *sv, struct prompt *p)
{
	if (!p->cancel_wanted || (p->fsm.state != PROMPT_SUBMITTED &&
	                          p->fsm.state != PROMPT_EXECUTING))
		return;
	p->cancel_wanted = false;
	life_start_cancel(sv, p);
}

int life_cancel(struct supervisor *sv, struct peer *peer, struct span id,
                struct prompt *p, struct error *err)
{
	if (!wait_new(peer, id, p, &p->cancels))
		return error_set_nomem(err, "request");
	log_info("life", "cancel asked (prompt_id=%s uid=%u)", p->id,
	         (unsigned)peer->creds.uid);
	if (p->fsm.state != PROMPT_ENDED)
		mark(sv, p, true);
	switch (p->fsm.state) {
	case PROMPT_ACCEPTED:
		(void)life_event(sv, p, PROMPT_EV_DEQUEUED, NULL);
		break;
	case PROMPT_POSTING:
	case PROMPT_CHECKING:
		p->cancel_wanted = true;
		break;
	case PROMPT_SUBMITTED:
	case PROMPT_EXECUTING:
		life_start_cancel(sv, p);
		break;
	case PROMPT_ENDED:
	case PROMPT_STATE_COUNT:
		life_answer_cancels(p, "ended");
		break;
	}
	return 0;
}
