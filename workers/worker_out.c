/*
 * worker_out.c - what one worker sends its keeper: answers, which are kept
 * while the channel has no room; outputs, which are left out then; records,
 * whose owners hear when they are written.
 */
#include <errno.h>
#include <ev.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "ipc/zygote.h"
#include "workers/record_mac.h"
#include "workers/worker_private.h"

#define LOG_TEXT_MAX 1500

/* An answer that the channel had no room for. */
struct worker_answer {
	struct list node;
	uint64_t line;
	size_t len;
	char bytes[];
};

static void worker_watch_out(struct worker *w)
{
	if (channel_wants_write(&w->channel) && !w->left)
		ev_io_start(w->loop, &w->writer);
	else
		ev_io_stop(w->loop, &w->writer);
	if (!list_empty(&w->records) && !ev_is_active(&w->written) &&
	    list_first(&w->records, struct worker_record, node)->mark <=
	            w->queued_total - channel_queued(&w->channel)) {
		ev_timer_set(&w->written, 0., 0.);
		ev_timer_start(w->loop, &w->written);
	}
}

int worker_send(struct worker *w, enum channel_type type, uint64_t line,
                struct span payload)
{
	int r;

	if (w->left)
		return 0;
	r = channel_send(&w->channel, type, line, payload, -1);
	if (r < 0)
		return r;
	w->queued_total += CHANNEL_HEADER_LEN + payload.n;
	r = channel_flush(&w->channel);
	if (r < 0)
		worker_lost_keeper(w, r);
	worker_watch_out(w);
	return 0;
}

/* Answers wait in order behind those that wait already. */
static int worker_keep_answer(struct worker *w, uint64_t line,
                              struct span answer)
{
	struct worker_answer *a = malloc(sizeof(*a) + answer.n);

	if (!a)
		return -ENOMEM;
	a->line = line;
	a->len = answer.n;
	if (answer.n > 0)
		memcpy(a->bytes, answer.p, answer.n);
	list_append(&w->answers, &a->node);
	w->answer_bytes += a->len;
	return 0;
}

bool worker_respond(struct worker *w, uint64_t line, struct span answer)
{
	int r = -ENOBUFS;

	if (answer.n > CHANNEL_PAYLOAD_MAX)
		return false;
	if (list_empty(&w->answers))
		r = worker_send(w, CHANNEL_RESPONSE, line, answer);
	if (r < 0)
		r = worker_keep_answer(w, line, answer);
	if (r < 0) {
		/* A successor, with more memory, answers instead. */
		log_error("worker", "no memory for an answer");
		worker_leave(w, 1);
	}
	return true;
}

static void worker_send_kept(struct worker *w)
{
	struct worker_answer *a;
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &w->answers) {
		a = list_entry(it, struct worker_answer, node);
		if (worker_send(w, CHANNEL_RESPONSE, a->line,
		                span_make(a->bytes, a->len)) < 0)
			return;
		list_del(&a->node);
		w->answer_bytes -= a->len;
		free(a);
	}
}

size_t worker_queued(const struct worker *w)
{
	return channel_queued(&w->channel) + w->answer_bytes;
}

void worker_want_room(struct worker *w)
{
	w->behind = true;
}

bool worker_output(struct worker *w, uint64_t line, struct span bytes)
{
	if (channel_queued(&w->channel) > WORKER_QUEUE_HIGH ||
	    worker_send(w, CHANNEL_OUTPUT, line, bytes) < 0) {
		worker_want_room(w);
		return false;
	}
	return true;
}

void worker_log(struct worker *w, uint64_t line, const char *fmt, ...)
{
	char text[LOG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (worker_send(w, CHANNEL_LOG, line, SPAN(text)) < 0)
		log_warn("worker", "%s", text);
}

int worker_record(struct worker *w, uint64_t line, struct span record,
                  struct worker_record *r, struct error *err)
{
	cleanup_buf struct buf signed_record =
		BUF_INIT(record.n + RECORD_MAC_LEN + 1);

	if (w->tenant && w->told) {
		if (record_mac_add(&signed_record, w->told->record_key, line,
		                   record))
			return error_set_nomem(err, "a record");
		record = span_make(signed_record.data, signed_record.len);
	}
	if (worker_send(w, CHANNEL_RECORD, line, record) < 0)
		return error_set(err, ERR_LIMIT,
		                 "the session's channel is full");
	r->mark = w->queued_total;
	list_append(&w->records, &r->node);
	worker_watch_out(w);
	return 0;
}

void worker_record_forget(struct worker_record *r)
{
	if (r->node.next)
		list_del(&r->node);
}

static void on_written(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct worker *w = container_of(t, struct worker, written);
	struct worker_record *r;

	while (!w->left && !list_empty(&w->records)) {
		r = list_first(&w->records, struct worker_record, node);
		if (r->mark > w->queued_total - channel_queued(&w->channel))
			break;
		list_del(&r->node);
		r->on_written(r->user);
	}
}

void worker_leave_if_done(struct worker *w)
{
	if (w->draining && !w->held && !channel_wants_write(&w->channel) &&
	    list_empty(&w->answers))
		worker_leave(w, 0);
}

void worker_drain(struct worker *w)
{
	worker_leave_if_done(w);
	if (w->left)
		return;
	ev_timer_set(&w->drain, WORKER_DRAIN_MS / 1000.0, 0.);
	ev_timer_start(w->loop, &w->drain);
}

void worker_hold(struct worker *w)
{
	w->held = true;
}

void worker_release(struct worker *w)
{
	w->held = false;
	worker_drain(w);
}

static void on_writable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct worker *w = container_of(io, struct worker, writer);
	int r = channel_flush(&w->channel);

	if (r < 0) {
		worker_lost_keeper(w, r);
		return;
	}
	worker_send_kept(w);
	worker_watch_out(w);
	if (w->behind && channel_queued(&w->channel) < WORKER_QUEUE_LOW) {
		w->behind = false;
		if (w->kind->on_room)
			w->kind->on_room(w->state);
	}
	worker_leave_if_done(w);
}

int worker_want_bus(struct worker *w, bool start)
{
	return worker_send(w, CHANNEL_WANT_BUS, 0,
	                   start ? SPAN("start") : SPAN("look"));
}

void worker_out_init(struct worker *w)
{
	list_init(&w->records);
	list_init(&w->answers);
	ev_timer_init(&w->written, on_written, 0., 0.);
	ev_io_init(&w->writer, on_writable, w->channel.fd, EV_WRITE);
}

void worker_out_deinit(struct worker *w)
{
	struct worker_answer *a;
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &w->answers) {
		a = list_entry(it, struct worker_answer, node);
		list_del(&a->node);
		free(a);
	}
	ev_io_stop(w->loop, &w->writer);
	ev_timer_stop(w->loop, &w->written);
}
