/*
 * stream.c - see stream.h. From the frame to the event line: parsed once,
 * looked up by the raw id, folded; a line is built only if somebody watches.
 */
#include "supervisor/stream.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/json_mend.h"
#include "common/log.h"
#include "supervisor/life.h"
#include "supervisor/polling.h"
#include "supervisor/position.h"
#include "supervisor/poster.h"
#include "supervisor/tell.h"

/* --- events --------------------------------------------------------------- */

static bool is_over(const struct comfy_event *ev)
{
	return ev->type == COMFY_EV_EXECUTING && ev->node_is_null;
}

static void take_event(struct supervisor *sv, struct prompt *p,
                       const struct comfy_event *ev)
{
	bool over = is_over(ev);

	if (p->fsm.state == PROMPT_ENDED)
		return;
	if (p->fsm.state != PROMPT_EXECUTING && !over &&
	    !life_event(sv, p, PROMPT_EV_STARTED, NULL))
		return;
	/* The end is folded when it is certain, see life_end. */
	if (!over)
		(void)progress_fold_event(p->progress, ev);
	tell_comfy_event(sv, p, ev);
	if (over)
		(void)life_event(sv, p, PROMPT_EV_OVER, NULL);
}

/* An old server's event may come before the answer that tells its id. */
static void take_foreign(struct supervisor *sv, const struct comfy_event *ev,
                         const char *frame, size_t len)
{
	sv->counters.foreign++;
	if (sv->poster.posting && !sv->poster.server_takes_ids)
		early_keep(&sv->early, ev->prompt_id, frame, len);
}

static void take_status(struct supervisor *sv, const struct comfy_event *ev)
{
	sv->deaf_due_ms = -1;
	sv->last_status_ms = sv->last_frame_ms;
	positions_status(sv, ev->u.status.queue_remaining);
}

static void read_text(struct supervisor *sv, const char *frame, size_t len)
{
	cleanup_buf struct buf mended = BUF_INIT(len);
	enum comfy_event_outcome outcome;
	struct comfy_event ev;
	struct prompt *p;

	outcome = comfy_event_parse_text(&ev, frame, len);
	if (outcome == COMFY_EVENT_E_JSON &&
	    json_may_need_mending(span_make(frame, len)) &&
	    json_mend(&mended, span_make(frame, len)) == 0) {
		frame = mended.data;
		outcome = comfy_event_parse_text(&ev, frame, len);
	}
	if (outcome != COMFY_EVENT_OK) {
		sv->counters.parse_errors++;
		log_debug("stream", "event not understood: %s",
		          comfy_event_outcome_text(outcome));
		return;
	}
	sv->counters.events[ev.type]++;
	if (ev.type == COMFY_EV_STATUS) {
		take_status(sv, &ev);
		return;
	}
	/* On reconnect `executing` names a node alone, which may have ended
	 * already (recording 31): the next event of the prompt tells. */
	if (!ev.prompt_id.p) {
		sv->counters.nameless++;
		return;
	}
	p = tracker_find_remote(&sv->tracker, ev.prompt_id);
	if (p)
		take_event(sv, p, &ev);
	else
		take_foreign(sv, &ev, frame, len);
}

static void on_text(void *user, const char *frame, size_t len,
                    int64_t received_us)
{
	struct supervisor *sv = user;

	sv->counters.frames++;
	sv->counters.bytes += len;
	sv->last_frame_ms = received_us / 1000;
	sv->frame_us = received_us;
	read_text(sv, frame, len);
	sv->frame_us = 0;
}

/* Parsed only if somebody wants what they show. */
static void on_binary(void *user, const char *frame, size_t len,
                      int64_t received_us)
{
	struct supervisor *sv = user;
	enum comfy_event_outcome outcome;
	struct comfy_event ev;

	sv->counters.frames++;
	sv->counters.bytes += len;
	sv->last_frame_ms = received_us / 1000;
	if (!previews_wanted(&sv->previews)) {
		sv->counters.events[comfy_event_binary_type(frame, len)]++;
		return;
	}
	outcome = comfy_event_parse_binary(&ev, frame, len);
	if (outcome != COMFY_EVENT_OK) {
		sv->counters.parse_errors++;
		return;
	}
	sv->counters.events[ev.type]++;
	previews_take(sv, &ev);
}

static void on_early(void *user, const char *frame, size_t len)
{
	read_text(user, frame, len);
}

void stream_replay(struct supervisor *sv, const char *remote_id)
{
	early_replay(&sv->early, SPAN(remote_id), on_early, sv);
}

/* --- the link ------------------------------------------------------------- */

static void on_gap(struct supervisor *sv)
{
	struct list *it;

	sv->counters.gaps++;
	sv->deaf_due_ms = -1;
	sv->poster.server_takes_ids = false;
	positions_forget(sv);
	list_for_each (it, &sv->tracker.outstanding) {
		struct prompt *p = list_entry(it, struct prompt, by_post);

		/* Moves nobody, so the list stays as it is. */
		(void)life_event(sv, p, PROMPT_EV_GAP, NULL);
	}
}

static void on_up(struct supervisor *sv)
{
	reconcile_set_polling(&sv->reconcile, 0, clock_ms());
	reconcile_start(&sv->reconcile);
	sv->silence_ms = SUPERVISOR_SILENCE_MS;
	poster_kick_now(sv);
}

static void on_state(void *user, enum upstream_state state)
{
	const char *name = upstream_state_name(state);
	struct supervisor *sv = user;
	bool was_up = sv->link_name &&
	              strcmp(sv->link_name,
	                     upstream_state_name(UPSTREAM_CONNECTED)) == 0;

	if (was_up && state != UPSTREAM_CONNECTED)
		on_gap(sv);
	if (state == UPSTREAM_CONNECTED)
		on_up(sv);
	else if (!sv->stopping)
		polling_watch(sv);
	polling_arm(sv);
	if (!sv->link_name || strcmp(sv->link_name, name) != 0) {
		sv->link_name = name;
		tell_upstream(sv);
		if (!sv->stopping)
			notify_status("ComfyUI at %.*s: %s",
			              (int)sv->url_text.len, sv->url_text.data,
			              name);
	}
}

const struct upstream_handlers stream_handlers = {
	.on_text = on_text,
	.on_binary = on_binary,
	.on_state = on_state,
};

/* --- a link that is up but hears nothing ---------------------------------- */

static void on_deaf(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;
	int64_t left;

	if (sv->deaf_due_ms < 0 || !supervisor_link_up(sv))
		return;
	left = sv->deaf_due_ms - clock_ms();
	if (left > 0) {
		ev_timer_set(&sv->deaf, (double)left / 1e3, 0.);
		ev_timer_start(loop, &sv->deaf);
		return;
	}
	sv->deaf_due_ms = -1;
	sv->counters.deaf++;
	upstream_reconnect(sv->upstream, "no status followed a POST");
}

void stream_expect_status(struct supervisor *sv)
{
	/* It often comes before the POST's answer. */
	if (!supervisor_link_up(sv) ||
	    sv->last_status_ms >= sv->poster.started_ms || sv->deaf_due_ms >= 0)
		return;
	sv->deaf_due_ms = clock_ms() + SUPERVISOR_DEAF_MS;
	if (ev_is_active(&sv->deaf))
		return;
	ev_timer_set(&sv->deaf, SUPERVISOR_DEAF_MS / 1e3, 0.);
	ev_timer_start(sv->loop, &sv->deaf);
}

void stream_sweep(struct supervisor *sv, int64_t now_ms)
{
	int64_t silent = now_ms - sv->last_frame_ms;

	if (!supervisor_link_up(sv) || sv->tracker.outstanding_count == 0 ||
	    silent < SUPERVISOR_SILENCE_MS) {
		sv->silence_ms = SUPERVISOR_SILENCE_MS;
		return;
	}
	if (silent < sv->silence_ms)
		return;
	log_debug("stream", "silence looked into (s=%lld)",
	          (long long)(silent / 1000));
	sv->silence_ms = silent * 2 < SUPERVISOR_SILENCE_MAX_MS
	                         ? silent * 2
	                         : silent + SUPERVISOR_SILENCE_MAX_MS;
	reconcile_start(&sv->reconcile);
	polling_arm(sv);
}

void stream_init(struct supervisor *sv)
{
	sv->deaf_due_ms = -1;
	sv->silence_ms = SUPERVISOR_SILENCE_MS;
	ev_timer_init(&sv->deaf, on_deaf, 0., 0.);
	sv->deaf.data = sv;
}

void stream_deinit(struct supervisor *sv)
{
	ev_timer_stop(sv->loop, &sv->deaf);
	early_clear(&sv->early);
}
