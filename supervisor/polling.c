/*
 * polling.c - the requests that reconcile asks for, and what its conclusions
 * mean: the handlers between reconcile.c, ComfyUI and the prompts' lives.
 */
#include "supervisor/polling.h"

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "common/log.h"
#include "supervisor/life.h"
#include "supervisor/position.h"
#include "supervisor/tell.h"

/* What is found by looking, on a link that has been silent for so long, is
 * something whose event should have come. */
#define MISSED_EVENT_MS 2000

static void on_queue(void *user, const struct comfy_queue *q)
{
	struct supervisor *sv = user;

	api_answered(sv, &q->r);
	reconcile_queue_answer(&sv->reconcile, q, clock_ms());
	polling_arm(sv);
}

static int get_queue(void *user)
{
	struct supervisor *sv = user;
	struct error err = ERROR_NULL;

	if (sv->stopping)
		return -1;
	if (!comfy_get_queue(sv->api, on_queue, sv, &err)) {
		log_warn("polling", "%s", err.text);
		return -1;
	}
	sv->counters.http_requests++;
	return 0;
}

/* An unanswered POST may have brought it there under another id than ours. Not
 * where the server is known to take ours. */
static bool wants_marker(const struct supervisor *sv, const struct prompt *p)
{
	return p->fsm.state == PROMPT_CHECKING && !p->remote_id &&
	       !sv->poster.server_takes_ids;
}

static void take_marked(struct supervisor *sv, struct prompt *p,
                        struct comfy_history *h)
{
	cleanup_buf struct buf id = BUF_INIT(COMFY_PROMPT_ID_MAX + 1);
	struct span remote = SPAN_NULL;
	struct json entry = comfy_history_marked(h->r.body, p->id, &remote);

	if (!json_is(entry, JSON_OBJECT))
		return;
	if (buf_append(&id, remote.p, remote.n) == 0 && buf_cstr(&id) &&
	    reconcile_adopt(&sv->reconcile, p, id.data) == 0)
		h->entry = entry;
}

static void on_listed(void *user, const struct comfy_result *r)
{
	struct comfy_history h = {.r = *r, .entry = JSON_MISSING};
	struct api_call *call = user;
	struct supervisor *sv = call->sv;
	struct prompt *p = api_call_end(call);

	api_answered(sv, r);
	if (p && r->outcome == COMFY_OK)
		take_marked(sv, p, &h);
	reconcile_history_answer(&sv->reconcile, p, &h, clock_ms());
	polling_arm(sv);
}

static void list_history(struct supervisor *sv, struct prompt *p)
{
	struct comfy_history failed = {
		.r = {.outcome = COMFY_E_LOCAL, .error = ERROR_NULL},
		.entry = JSON_MISSING};
	struct api_call *call = api_call_new(sv, p->id);

	if (call && comfy_list_history(sv->api, COMFY_MARKED_MAX, on_listed,
	                               call, &failed.r.error)) {
		sv->counters.http_requests++;
		return;
	}
	if (call)
		(void)api_call_end(call);
	reconcile_history_answer(&sv->reconcile, p, &failed, clock_ms());
}

static void on_history_answer(void *user, const struct comfy_history *h)
{
	struct api_call *call = user;
	struct supervisor *sv = call->sv;
	struct prompt *p = api_call_end(call);

	api_answered(sv, &h->r);
	if (p && h->r.outcome == COMFY_OK && !json_is(h->entry, JSON_OBJECT) &&
	    wants_marker(sv, p))
		list_history(sv, p);
	else
		reconcile_history_answer(&sv->reconcile, p, h, clock_ms());
	polling_arm(sv);
}

static int get_history(void *user, struct prompt *p)
{
	struct supervisor *sv = user;
	struct error err = ERROR_NULL;
	struct api_call *call;

	if (sv->stopping)
		return -1;
	call = api_call_new(sv, p->id);
	if (!call)
		return -1;
	if (!comfy_get_history(sv->api, prompt_remote_id(p), on_history_answer,
	                       call, &err)) {
		log_warn("polling", "%s", err.text);
		(void)api_call_end(call);
		return -1;
	}
	sv->counters.http_requests++;
	return 0;
}

static enum cmx_method method(const struct supervisor *sv)
{
	return supervisor_link_up(sv) ? CMX_WEBSOCKET : CMX_POLLING;
}

static void on_pending(void *user, struct prompt *p, int64_t ahead)
{
	struct supervisor *sv = user;

	if (!life_event(sv, p, PROMPT_EV_PENDING, NULL))
		return;
	life_go_on_cancelling(sv, p);
	if (p->fsm.state == PROMPT_SUBMITTED)
		positions_place(sv, p, ahead, method(sv));
}

/* It was found to run, not told. The event may still be on its way, but not
 * for long: another look, and if nothing has come until then the link has gone
 * deaf (recording 12). */
static void suspect_start(struct supervisor *sv, bool starts)
{
	int64_t now_ms = clock_ms();

	if (!supervisor_link_up(sv))
		return;
	if (starts && sv->unheard_ms <= sv->last_frame_ms) {
		sv->unheard_ms = now_ms;
		reconcile_soon(&sv->reconcile, MISSED_EVENT_MS, now_ms);
	} else if (sv->unheard_ms > sv->last_frame_ms &&
	           now_ms - sv->unheard_ms >= MISSED_EVENT_MS) {
		sv->unheard_ms = 0;
		upstream_reconnect(sv->upstream,
		                   "a prompt runs without an event");
	}
}

/* The end was found, not told. One that was in flight before this link came up
 * may have ended in between, unless it was seen since. */
static void suspect_end(struct supervisor *sv, const struct prompt *p)
{
	if (!supervisor_link_up(sv) || (p->fsm.gap && !p->fsm.seen) ||
	    clock_ms() - sv->last_frame_ms < MISSED_EVENT_MS)
		return;
	upstream_reconnect(sv->upstream, "a prompt ended without an event");
}

static void on_running(void *user, struct prompt *p)
{
	struct supervisor *sv = user;
	bool waited = p->fsm.state == PROMPT_SUBMITTED;
	unsigned change;

	/* That is for the POST's answer, or an event, to say. */
	if (p->fsm.state == PROMPT_POSTING)
		return;
	if (!life_event(sv, p, PROMPT_EV_RUNNING, NULL))
		return;
	life_go_on_cancelling(sv, p);
	suspect_start(sv, waited);
	change = progress_fold_running(p->progress, method(sv));
	if (change != PROGRESS_SAME)
		tell_event(sv, p, EVENT_POLLED, SPAN_NULL);
}

static void on_history(void *user, struct prompt *p, struct json entry)
{
	struct supervisor *sv = user;
	struct life_news news = {.entry = entry};

	/* The last event came, only the outputs were in doubt. */
	news.method = p->fsm.over ? CMX_WEBSOCKET : CMX_POLLING;
	suspect_end(sv, p);
	(void)life_event(sv, p, PROMPT_EV_HISTORY, &news);
}

static void on_absent(void *user, struct prompt *p, bool deleted)
{
	struct life_news news = {.method = method(user)};

	p->fsm.seen |= deleted;
	(void)life_event(user, p, PROMPT_EV_ABSENT, &news);
}

static void on_others(void *user, const struct reconcile_others *o)
{
	positions_others(user, o);
}

static void on_unreachable(void *user, const struct error *err)
{
	struct supervisor *sv = user;

	log_debug("polling", "%s", err->text);
	life_unreachable(sv, err);
}

static const struct reconcile_handlers handlers = {
	.get_queue = get_queue,
	.get_history = get_history,
	.on_pending = on_pending,
	.on_running = on_running,
	.on_history = on_history,
	.on_absent = on_absent,
	.on_others = on_others,
	.on_unreachable = on_unreachable,
};

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;

	reconcile_tick(&sv->reconcile, clock_ms());
	polling_arm(sv);
}

void polling_init(struct supervisor *sv)
{
	reconcile_init(&sv->reconcile, &sv->tracker, &handlers, sv,
	               (uint64_t)clock_us());
	ev_timer_init(&sv->reconcile_timer, on_timer, 0., 0.);
	sv->reconcile_timer.data = sv;
}

void polling_deinit(struct supervisor *sv)
{
	ev_timer_stop(sv->loop, &sv->reconcile_timer);
}

void polling_arm(struct supervisor *sv)
{
	int64_t left;

	ev_timer_stop(sv->loop, &sv->reconcile_timer);
	if (sv->reconcile.due_ms < 0 || sv->stopping)
		return;
	left = sv->reconcile.due_ms - clock_ms();
	ev_timer_set(&sv->reconcile_timer, left > 0 ? (double)left / 1e3 : 0.,
	             0.);
	ev_timer_start(sv->loop, &sv->reconcile_timer);
}

void polling_watch(struct supervisor *sv)
{
	if (supervisor_link_up(sv) || !sv->upstream_started)
		return;
	reconcile_set_polling(&sv->reconcile,
	                      (uint32_t)sv->cfg.poll_interval_ms, clock_ms());
	reconcile_in_flight(&sv->reconcile, clock_ms());
	polling_arm(sv);
}
