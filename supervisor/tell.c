/*
 * tell.c - see tell.h.
 */
#include "supervisor/tell.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

/* Scratch memory kept between events. */
#define SCRATCH_KEEP (256u << 10)

struct delivery {
	struct supervisor *sv;
	struct frame *frame;
	enum event_fold fold;
	const char *prompt_id;
};

static void scratch_reset(struct buf *b)
{
	if (b->cap > SCRATCH_KEEP)
		buf_deinit(b);
	else
		buf_reset(b);
}

static struct span text_of(const struct buf *b)
{
	return span_make(b->data, b->len);
}

struct span tell_progress(struct supervisor *sv, const struct prompt *p,
                          unsigned flags)
{
	scratch_reset(&sv->progress);
	if (progress_to_json(p->progress, flags, &sv->progress) == 0)
		return text_of(&sv->progress);
	/* Too much for a line: the outputs are what can be that big. */
	scratch_reset(&sv->progress);
	if (progress_to_json(p->progress, flags | PROGRESS_JSON_NO_OUTPUTS,
	                     &sv->progress) == 0)
		return text_of(&sv->progress);
	return SPAN_NULL;
}

/* The line as a frame with one reference; NULL when out of memory. */
static struct frame *build(struct supervisor *sv, const struct event_line *line)
{
	scratch_reset(&sv->line);
	if (event_build(&sv->line, line) != 0) {
		log_warn("tell", "%s event not told: no memory, or too long",
		         event_table[line->event].name);
		return NULL;
	}
	return frame_new(sv->line.data, sv->line.len, -1);
}

static void deliver(void *user, struct subscriber *s)
{
	const struct delivery *d = user;

	d->sv->counters.deliveries++;
	peer_tell(peer_of(s), d->frame, d->fold, d->prompt_id);
}

/* For those whose submit is not answered yet, unless they were just told. */
static void hold_back(struct supervisor *sv, struct prompt *p, struct frame *f)
{
	struct list *it;
	struct wait *w;

	list_for_each (it, &p->waiters) {
		w = list_entry(it, struct wait, by_prompt);
		if (!w->subscribe ||
		    w->peer->subscriber.stamp == sv->event_stamp)
			continue;
		if (w->held_count < WAIT_HELD_MAX)
			w->held[w->held_count++] = frame_ref(f);
		else
			w->held_missed++;
	}
}

/* Outputs are told once each, by the event that they came with, and all of
 * them at the end: else what a prompt costs would grow with the square of
 * their number. */
static struct span progress_after(struct supervisor *sv, const struct prompt *p,
                                  enum event event, struct span node)
{
	if (event == EVENT_FINISHED)
		return tell_progress(sv, p, 0);
	if (event == EVENT_EXECUTED) {
		scratch_reset(&sv->progress);
		if (progress_to_json_executed(p->progress, node,
		                              &sv->progress) == 0)
			return text_of(&sv->progress);
	}
	return tell_progress(sv, p, PROGRESS_JSON_NO_OUTPUTS);
}

/* `node`: that was executed, its raw id. */
static void tell(struct supervisor *sv, struct prompt *p, enum event event,
                 struct span data, struct span node)
{
	struct delivery d = {
		.sv = sv, .fold = event_table[event].fold, .prompt_id = p->id};
	struct event_line line = {
		.event = event,
		.prompt_id = p->id,
		.t_ms = clock_epoch_ms(),
		.data = data,
	};

	if (!tracker_watched(&sv->tracker, p))
		return;
	line.progress = progress_after(sv, p, event, node);
	line.seq = ++p->log.seq;
	d.frame = build(sv, &line);
	if (!d.frame)
		return;
	d.frame->seq = line.seq;
	sv->counters.lines++;
	sv->event_stamp++;
	subject_tell(&p->subject, sv->event_stamp, deliver, &d);
	subject_tell(&p->tenant->all, sv->event_stamp, deliver, &d);
	subject_tell(&sv->tracker.everything, sv->event_stamp, deliver, &d);
	if (p->eager > 0)
		hold_back(sv, p, d.frame);
	frame_unref(d.frame);
}

void tell_event(struct supervisor *sv, struct prompt *p, enum event event,
                struct span data)
{
	tell(sv, p, event, data, SPAN_NULL);
}

void tell_comfy_event(struct supervisor *sv, struct prompt *p,
                      const struct comfy_event *ev)
{
	enum event event = eventlog_event(ev->type);

	if (event == EVENT_COUNT || !tracker_watched(&sv->tracker, p))
		return;
	scratch_reset(&sv->data);
	if (eventlog_data(&p->log, ev, &sv->data) != EVENTLOG_OK)
		return;
	tell(sv, p, event, text_of(&sv->data), ev->node);
}

/* --- snapshots ------------------------------------------------------------ */

struct snapshot {
	struct supervisor *sv;
	struct peer *peer;
	struct event_line line;
	char missed[32];
};

static void send_snapshot(struct snapshot *s)
{
	struct frame *f = build(s->sv, &s->line);

	if (!f)
		return;
	s->sv->counters.snapshots++;
	peer_send(s->peer, f);
	frame_unref(f);
}

static bool on_ended(void *user, const struct store_ended *e)
{
	struct snapshot *s = user;

	if (!may_see(s->peer->creds.uid, s->peer->is_operator, e->uid))
		return false;
	s->line.progress = e->result;
	s->line.prompt_id = e->id;
	send_snapshot(s);
	return false;
}

bool tell_snapshot(struct supervisor *sv, struct peer *peer, const char *id,
                   uint64_t missed, uint64_t seq)
{
	struct prompt *p = tracker_find(&sv->tracker, id, strlen(id));
	struct snapshot s = {.sv = sv, .peer = peer};
	struct error err = ERROR_NULL;
	bool found = false;
	int n;

	/* No prompt is called so. */
	if (id[0] == 'j')
		return tell_job_state(sv, peer, id);
	s.line = (struct event_line){
		.event = EVENT_SNAPSHOT, .seq = seq, .t_ms = clock_epoch_ms()};
	if (missed > 0) {
		n = snprintf(s.missed, sizeof(s.missed), "{\"missed\":%llu}",
		             (unsigned long long)missed);
		s.line.data = span_make(s.missed, (size_t)n);
	}
	if (p) {
		s.line.prompt_id = p->id;
		s.line.seq = p->log.seq;
		/* Whoever reads too slowly for the events gets along with less,
		 * not with more: finished has all outputs. */
		s.line.progress =
			tell_progress(sv, p,
		                      missed > 0 && !progress_ended(p->progress)
		                              ? PROGRESS_JSON_NO_OUTPUTS
		                              : 0);
		send_snapshot(&s);
		return true;
	}
	if (store_find_ended(sv->store, id, on_ended, &s, &found, &err) < 0) {
		sv->counters.store_errors++;
		log_error("tell", "%s", err.text);
	}
	return found;
}

void tell_snapshot_soon(struct supervisor *sv, struct peer *peer,
                        const char *id)
{
	if (peer->queue.bytes <= peer->queue.quota / 2) {
		client_queue_unwant(&peer->queue, id);
		(void)tell_snapshot(sv, peer, id, 0, 0);
	} else if (client_queue_want(&peer->queue, id) != 0) {
		peer->closing = true;
	}
	peer_touch(peer);
}

/* --- submit and subscribe in one ------------------------------------------ */

void tell_hold(struct supervisor *sv, struct wait *w, bool previews)
{
	struct event_line line = {
		.event = EVENT_SNAPSHOT,
		.seq = w->prompt->log.seq,
		.prompt_id = w->prompt->id,
		.t_ms = clock_epoch_ms(),
		.progress = tell_progress(sv, w->prompt, 0),
	};

	w->subscribe = true;
	w->previews = previews;
	w->prompt->eager++;
	w->held[0] = build(sv, &line);
	if (w->held[0])
		w->held_count = 1;
}

int tell_release(struct supervisor *sv, struct wait *w)
{
	struct prompt *p = w->prompt;
	int r = 0;

	if (!p->finished)
		r = subscription_add(&p->subject, &w->peer->subscriber);
	if (r != 0)
		return r;
	if (w->previews)
		subscription_set_previews(&p->subject, &w->peer->subscriber,
		                          true);
	if (w->held_missed > 0) {
		/* What was held is part of the snapshot. */
		(void)tell_snapshot(sv, w->peer, p->id,
		                    w->held_missed + w->held_count - 1,
		                    p->log.seq);
		return 0;
	}
	for (size_t i = 0; i < w->held_count; i++)
		peer_send(w->peer, w->held[i]);
	return 0;
}

/* --- jobs ----------------------------------------------------------------- */

static struct frame *build_job(struct supervisor *sv, const struct job *job)
{
	struct event_line line = {.event = EVENT_JOB, .t_ms = clock_epoch_ms()};

	scratch_reset(&sv->data);
	(void)buf_putc(&sv->data, '{');
	job_to_json(job, &sv->data);
	(void)buf_putc(&sv->data, '}');
	if (!buf_ok(&sv->data))
		return NULL;
	line.data = text_of(&sv->data);
	return build(sv, &line);
}

void tell_job(struct supervisor *sv, struct job *job)
{
	struct delivery d = {.sv = sv, .fold = FOLD_STEP, .prompt_id = job->id};

	if (!subject_watched(&job->subject))
		return;
	d.frame = build_job(sv, job);
	if (!d.frame)
		return;
	sv->counters.lines++;
	sv->event_stamp++;
	subject_tell(&job->subject, sv->event_stamp, deliver, &d);
	frame_unref(d.frame);
}

bool tell_job_state(struct supervisor *sv, struct peer *peer, const char *id)
{
	struct error err = ERROR_NULL;
	const struct job *job = jobs_find(&sv->jobs, peer, id, &err);
	struct frame *f = job ? build_job(sv, job) : NULL;

	if (f)
		peer_send(peer, f);
	frame_unref(f);
	return job != NULL;
}

/* --- the link ------------------------------------------------------------- */

void tell_upstream(struct supervisor *sv)
{
	struct event_line line = {.event = EVENT_UPSTREAM,
	                          .t_ms = clock_epoch_ms()};
	struct frame *f;
	struct list *it;
	struct peer *peer;
	char data[64];
	int n;

	n = snprintf(data, sizeof(data), "{\"state\":\"%s\"}", sv->link_name);
	line.data = span_make(data, (size_t)n);
	f = build(sv, &line);
	if (!f)
		return;
	sv->counters.lines++;
	list_for_each (it, &sv->hub.peers) {
		peer = list_entry(it, struct peer, link);
		if (peer->subscriber.count == 0)
			continue;
		sv->counters.deliveries++;
		peer_tell(peer, f, FOLD_KEEP, NULL);
	}
	frame_unref(f);
}
