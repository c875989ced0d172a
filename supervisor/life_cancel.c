/*
 * life_cancel.c - cancelling: out of our line, out of ComfyUI's queue, or by an
 * interrupt.
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
		p->fsm.cancelled = false;
		log_warn("life", "prompt not cancelled: %s (prompt_id=%s)",
		         c->r.error.text, p->id);
		refuse_cancels(p, &c->r.error);
		return;
	}
	switch (c->how) {
	case COMFY_CANCEL_DEQUEUED:
		/* No event tells of that: it ends here. */
		(void)life_event(sv, p, PROMPT_EV_DEQUEUED, NULL);
		return;
	case COMFY_CANCEL_INTERRUPTED:
		life_answer_cancels(p, "interrupted");
		return;
	case COMFY_CANCEL_DONE:
		life_answer_cancels(p, "cancelled");
		look_soon(sv, p);
		return;
	case COMFY_CANCEL_NONE:
		p->fsm.cancelled = false;
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
	refuse_cancels(p, &err);
}

int life_cancel(struct supervisor *sv, struct peer *peer, struct span id,
                struct prompt *p, struct error *err)
{
	if (!wait_new(peer, id, p, &p->cancels))
		return error_set_nomem(err, "request");
	log_info("life", "cancel asked (prompt_id=%s uid=%u)", p->id,
	         (unsigned)peer->creds.uid);
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
