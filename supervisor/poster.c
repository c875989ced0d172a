/*
 * poster.c - see poster.h.
 */
#include "supervisor/poster.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/workflow.h"
#include "supervisor/life.h"
#include "supervisor/position.h"
#include "supervisor/reconcile.h"
#include "supervisor/stream.h"

/* While ComfyUI is away somebody tries this often; a new submission tries at
 * once. */
static const uint32_t delays_ms[] = {1000, 2000, 4000, 8000, 15000};
#define JITTER_PERCENT 20
/* Bytes of a refusal's text, before it is cut to an error's. */
#define REFUSAL_MAX 65536

static void on_retry(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;

	poster_kick(sv);
}

void poster_init(struct supervisor *sv)
{
	struct poster *po = &sv->poster;

	list_init(&po->unanswered);
	po->settled_ms = clock_ms() + RECONCILE_SETTLE_MS;
	backoff_init(&po->backoff, delays_ms, ARRAY_SIZE(delays_ms),
	             JITTER_PERCENT, (uint64_t)clock_us());
	ev_timer_init(&po->retry, on_retry, 0., 0.);
	po->retry.data = sv;
}

void poster_deinit(struct supervisor *sv)
{
	ev_timer_stop(sv->loop, &sv->poster.retry);
}

static void retry_later(struct supervisor *sv)
{
	struct poster *po = &sv->poster;

	ev_timer_stop(sv->loop, &po->retry);
	ev_timer_set(&po->retry, backoff_next_ms(&po->backoff) / 1e3, 0.);
	ev_timer_start(sv->loop, &po->retry);
}

bool poster_has_room(const struct supervisor *sv)
{
	const struct tracker *t = &sv->tracker;

	if (sv->paused)
		return false;
	return sv->single_user || t->outstanding_count + t->queue.waiting <
	                                  (size_t)sv->cfg.max_outstanding;
}

static enum prompt_event event_of(const struct comfy_submitted *s)
{
	switch (s->r.outcome) {
	case COMFY_OK:
		return PROMPT_EV_TAKEN;
	case COMFY_E_REJECTED:
		return PROMPT_EV_REFUSED;
	case COMFY_E_UNREACHABLE:
	case COMFY_E_NOT_FOUND: /* something else listens there */
		return PROMPT_EV_UNREACHED;
	case COMFY_E_STATUS:
		/* What stands between may have lost an answer (502 to 504);
		 * ComfyUI itself fails before it queues. */
		return s->r.status > 500 ? PROMPT_EV_UNANSWERED
		                         : PROMPT_EV_REFUSED;
	case COMFY_E_UNKNOWN:
	case COMFY_E_REPLY:
	case COMFY_E_LOCAL:
		break;
	}
	return PROMPT_EV_UNANSWERED;
}

/* Notes what the answer says about ids. */
static void note_id(struct supervisor *sv, struct prompt *p,
                    const struct comfy_submitted *s)
{
	struct poster *po = &sv->poster;

	if (strcmp(s->prompt_id, p->id) == 0) {
		po->server_takes_ids = true;
		return;
	}
	if (!po->server_picks_ids)
		log_info("poster", "this ComfyUI chooses prompt ids itself");
	po->server_picks_ids = true;
	if (tracker_alias(&sv->tracker, p, s->prompt_id) != 0)
		log_error("poster",
		          "prompt can't be followed under %s (prompt_id=%s)",
		          log_safe(s->prompt_id, strlen(s->prompt_id)), p->id);
}

/* The refusal in words. */
static void explain(const struct comfy_submitted *s, struct error *err)
{
	struct buf text = BUF_INIT(REFUSAL_MAX);

	*err = s->r.error;
	if (s->r.outcome == COMFY_E_REJECTED)
		workflow_refusal_text(s->r.body, &text);
	if (buf_ok(&text) && text.len > 0)
		error_set(err, ERR_REJECTED, "%.*s", (int)text.len, text.data);
	err->code = ERR_REJECTED;
	buf_deinit(&text);
}

/* Brings the answer to the prompt. */
static void pass_on(struct supervisor *sv, struct prompt *p,
                    const struct comfy_submitted *s, enum prompt_event ev)
{
	struct life_news news = {.err = &s->r.error};
	struct error refusal;

	if (ev == PROMPT_EV_TAKEN) {
		note_id(sv, p, s);
		p->number = s->number;
		p->has_number = true;
		news.node_errors = s->node_errors;
	} else if (ev == PROMPT_EV_REFUSED) {
		explain(s, &refusal);
		news.err = &refusal;
		news.node_errors = json_get(s->r.body, "node_errors");
	}
	if (life_event(sv, p, ev, &news) && p->remote_id)
		stream_replay(sv, p->remote_id);
}

static void on_posted(void *user, const struct comfy_submitted *s)
{
	struct supervisor *sv = user;
	struct poster *po = &sv->poster;
	struct prompt *p = tracker_find(&sv->tracker, po->id, UUID_LEN);
	enum prompt_event ev = event_of(s);

	po->posting = false;
	api_answered(sv, &s->r);
	if (ev == PROMPT_EV_TAKEN) {
		backoff_reset(&po->backoff);
		stream_expect_status(sv);
	} else if (ev == PROMPT_EV_UNREACHED) {
		retry_later(sv);
	}
	if (p)
		pass_on(sv, p, s, ev);
	early_clear(&sv->early);
	if (ev == PROMPT_EV_UNREACHED)
		life_unreachable(sv, &s->r.error);
	poster_kick(sv);
}

/* 0, or -1: it can't be posted now, `err` says why. */
static int post(struct supervisor *sv, struct prompt *p, struct error *err)
{
	struct buf workflow = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct buf extra = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct comfy_submission s = {.prompt_id = p->id,
	                             .client_id = sv->state_dir.client_id};
	int r = store_load_workflow(sv->store, p->row, &workflow, &extra, err);

	/* Whoever finds POSTING after a crash looks before he posts, so it has
	 * to be written first. */
	if (r == 0)
		r = store_set_state(sv->store, p->row, STORE_POSTING, NULL,
		                    NULL, err);
	if (r == 0) {
		s.workflow = span_make(workflow.data, workflow.len);
		if (extra.len > 0)
			s.extra_data = span_make(extra.data, extra.len);
		r = comfy_submit(sv->api, &s, on_posted, sv, err) ? 0 : -1;
	}
	buf_deinit(&workflow);
	buf_deinit(&extra);
	return r;
}

static void post_next(struct supervisor *sv, struct prompt *p)
{
	struct poster *po = &sv->poster;
	struct error err = ERROR_NULL;
	struct life_news news = {.err = &err};

	if (post(sv, p, &err) < 0 && err.code == ERR_NOT_FOUND) {
		(void)life_event(sv, p, PROMPT_EV_ABSENT, &news);
		return;
	}
	if (err.code != ERR_NONE) {
		log_error("poster", "prompt can't be posted: %s (prompt_id=%s)",
		          err.text, p->id);
		retry_later(sv);
		life_unreachable(sv, &err);
		return;
	}
	/* Its line has had its turn. */
	(void)queue_take(&sv->tracker.queue);
	sv->counters.posts++;
	sv->counters.http_requests++;
	memcpy(po->id, p->id, sizeof(po->id));
	po->started_ms = clock_ms();
	po->posting = true;
	(void)life_event(sv, p, PROMPT_EV_POST, &news);
}

/* A worker that posts by itself may be about to: it looks for a supervisor
 * before it does, but a POST takes its time. */
static bool settling(struct supervisor *sv)
{
	struct poster *po = &sv->poster;
	int64_t left = po->settled_ms - clock_ms();

	if (left <= 0)
		return false;
	ev_timer_set(&po->retry, (double)left / 1e3, 0.);
	ev_timer_start(sv->loop, &po->retry);
	return true;
}

void poster_kick(struct supervisor *sv)
{
	struct poster *po = &sv->poster;
	struct tracker *t = &sv->tracker;
	struct queue_entry *e = queue_peek(&t->queue);
	struct prompt *p;

	if (!e || po->posting || sv->stopping || sv->paused ||
	    ev_is_active(&po->retry))
		return;
	/* One whose fate is not known yet comes first. */
	if (t->checking_count > 0)
		return;
	if (!sv->single_user &&
	    t->outstanding_count >= (size_t)sv->cfg.max_outstanding)
		return;
	p = container_of(e, struct prompt, turn);
	if (!p->fsm.unsure)
		post_next(sv, p);
	else if (!settling(sv))
		(void)life_event(sv, p, PROMPT_EV_LOOK, NULL);
}

void poster_kick_now(struct supervisor *sv)
{
	ev_timer_stop(sv->loop, &sv->poster.retry);
	poster_kick(sv);
}

int poster_set_paused(struct supervisor *sv, bool paused, struct error *err)
{
	if (state_dir_set_paused(&sv->state_dir, paused, err) < 0)
		return -1;
	if (sv->paused == paused)
		return 0;
	sv->paused = paused;
	if (paused)
		life_announce(sv);
	else
		poster_kick_now(sv);
	positions_changed(sv);
	return 0;
}
