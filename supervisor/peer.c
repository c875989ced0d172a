/*
 * peer.c - one client: its lines in, its queue out.
 *
 * Nothing here closes a client while somebody above still holds it: what goes
 * wrong is noted (`closing`) and done where a turn ends, in peer_work and
 * peer_write.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/hub_impl.h"
#include "supervisor/life.h"
#include "supervisor/ops.h"
#include "supervisor/supervisor.h"
#include "supervisor/tell.h"
#include "supervisor/tracker.h"

/* HUB_CONN_LOW and a line of any length behind it. */
#define CONN_QUOTA (HUB_CONN_LOW + 4 * (size_t)LINE_MAX_BYTES)

/* A reply is longer than what it holds by its frame of JSON. */
#define REPLY_MAX (2 * (size_t)LINE_MAX_BYTES)

static void on_readable(struct ev_loop *loop, ev_io *w, int revents);
static void on_writable(struct ev_loop *loop, ev_io *w, int revents);

/* --- beginning and end ---------------------------------------------------- */

static void init_lists(struct peer *p)
{
	list_init(&p->link);
	list_init(&p->dirty);
	list_init(&p->backlog);
	list_init(&p->stalled);
	list_init(&p->waits);
	list_init(&p->prompts);
	subscriber_init(&p->subscriber);
}

/* Operators share in that of all alone. */
static struct lines_budget *budget_of(struct hub *h, struct tenant *t,
                                      bool is_operator)
{
	if (is_operator)
		return &h->budget;
	t->lines.whole = &h->budget;
	t->lines.max = limit_max(&h->sv->cfg, LIMIT_BUFFERED);
	return &t->lines;
}

struct peer *peer_new(struct hub *h, int fd, struct creds *creds,
                      bool is_operator, struct error *err)
{
	struct supervisor *sv = h->sv;
	struct peer *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	if (p) {
		p->tenant = tracker_tenant(&sv->tracker, creds->uid);
		p->conn = (struct conn)CONN_NULL;
		if (p->tenant)
			r = conn_init(&p->conn, fd, LINE_MAX_BYTES, CONN_QUOTA,
			              budget_of(h, p->tenant, is_operator));
	}
	if (r < 0) {
		if (p && p->tenant)
			tracker_release_tenant(&sv->tracker, p->tenant);
		free(p);
		(void)close(fd);
		creds_deinit(creds);
		(void)error_set_errno(err, -r, "cannot serve a client");
		return NULL;
	}
	init_lists(p);
	client_queue_init(&p->queue, (size_t)sv->cfg.client_queue_kb << 10);
	p->sv = sv;
	p->number = h->next_peer++;
	p->creds = *creds;
	p->is_operator = is_operator;
	p->tenant->peer_count++;
	p->subscriber.total = &p->tenant->usage.used[LIMIT_SUBSCRIPTIONS];
	p->subscriber.previews = &sv->previews.wanted;
	preview_box_init(&p->previews, &p->tenant->previews);
	if (!is_operator) {
		p->queue.total = &p->tenant->usage.used[LIMIT_BUFFERED];
		p->queue.total_max = limit_max(&sv->cfg, LIMIT_BUFFERED);
	}
	ev_io_init(&p->reader, on_readable, fd, EV_READ);
	ev_io_init(&p->writer, on_writable, fd, EV_WRITE);
	p->reader.data = p->writer.data = p;
	ev_io_start(sv->loop, &p->reader);
	list_append(&h->peers, &p->link);
	h->peer_count++;
	sv->counters.clients++;
	log_debug("hub", "client connected (client=%llu uid=%u pid=%d)",
	          (unsigned long long)p->number, (unsigned)p->creds.uid,
	          (int)p->creds.pid);
	return p;
}

static void log_close(const struct peer *p, const char *why)
{
	const char *id = p->session ? p->session->id : "none";

	if (why)
		log_warn("hub",
		         "client disconnected: %s (client=%llu uid=%u pid=%d "
		         "session=%s)",
		         why, (unsigned long long)p->number,
		         (unsigned)p->creds.uid, (int)p->creds.pid, id);
	else
		log_debug("hub", "client left (client=%llu uid=%u)",
		          (unsigned long long)p->number,
		          (unsigned)p->creds.uid);
}

/* Its prompts run on; nobody counts them as its own any more. */
static void let_go_of_prompts(struct peer *p)
{
	struct prompt *prompt;
	struct wait *w;
	struct list *n;

	while ((n = list_pop(&p->waits))) {
		w = list_entry(n, struct wait, by_peer);
		prompt = w->prompt;
		wait_free(w);
		life_abandoned(prompt);
	}
	while ((n = list_pop(&p->prompts))) {
		prompt = list_entry(n, struct prompt, by_session);
		prompt->in_flight = NULL;
	}
}

void peer_close(struct peer *p, const char *why)
{
	struct supervisor *sv = p->sv;
	struct hub *h = &sv->hub;

	log_close(p, why);
	let_go_of_prompts(p);
	nursery_peer_gone(&sv->nursery, p);
	jobs_peer_gone(&sv->jobs, p);
	subscriber_clear(&p->subscriber);
	ev_io_stop(sv->loop, &p->reader);
	ev_io_stop(sv->loop, &p->writer);
	list_del(&p->link);
	list_del(&p->dirty);
	list_del(&p->backlog);
	list_del(&p->stalled);
	h->peer_count--;
	if (h->peer_count == 0)
		h->idle_since_ms = clock_ms();
	client_queue_deinit(&p->queue);
	preview_box_deinit(&p->previews);
	sv->counters.descriptors += p->conn.fds_discarded;
	conn_deinit(&p->conn);
	creds_deinit(&p->creds);
	/* The queue's and the lines' bytes were counted there. */
	p->tenant->peer_count--;
	tracker_release_tenant(&sv->tracker, p->tenant);
	free(p);
}

int peer_check_limit(struct peer *p, enum limit which, size_t more,
                     struct error *err)
{
	if (p->is_operator || limit_check(tenant_usage(p->tenant), &p->sv->cfg,
	                                  which, more, err) == 0)
		return 0;
	p->sv->counters.limits_hit++;
	return -1;
}

/* --- in ------------------------------------------------------------------- */

/* Whoever doesn't take his answers gets no more of them. */
static bool may_ask(const struct peer *p)
{
	return !p->closing && !client_queue_full(&p->queue) &&
	       p->wait_count < HUB_WAITS_MAX;
}

static void refuse_long_line(struct peer *p)
{
	struct error err = ERROR_NULL;

	p->sv->counters.requests++;
	p->sv->counters.bad_requests++;
	error_set(&err, ERR_LIMIT, "the line is longer than %u bytes",
	          LINE_MAX_BYTES);
	peer_refuse(p, SPAN_NULL, &err, SPAN_NULL);
}

/* Lines that are there, as many as a turn may take. False when it stopped
 * before the last one. */
static bool take_lines(struct peer *p)
{
	enum lines_result r;
	struct span line;

	for (int n = 0; n < HUB_LINES_PER_TURN; n++) {
		if (!may_ask(p))
			return false;
		r = conn_next(&p->conn, &line);
		if (r == LINES_NONE)
			return true;
		if (r == LINES_TOO_LONG)
			refuse_long_line(p);
		else
			ops_line(p->sv, p, line);
	}
	return false;
}

static void resume_reading(struct peer *p)
{
	ev_io_start(p->sv->loop, &p->reader);
}

/* Reading stops while lines wait to be handled, or while it may not ask. */
static void stop_reading(struct peer *p)
{
	struct hub *h = &p->sv->hub;

	ev_io_stop(p->sv->loop, &p->reader);
	if (!may_ask(p))
		return; /* peer_write, or the end of a wait, goes on */
	if (list_empty(&p->backlog))
		list_append(&h->backlog, &p->backlog);
	if (!ev_is_active(&h->backlog_runner))
		ev_idle_start(p->sv->loop, &h->backlog_runner);
}

/* Closes it if that was noted. True if it is gone. */
static bool settle(struct peer *p)
{
	if (!p->closing)
		return false;
	p->sv->counters.clients_shed++;
	peer_close(p, "it can't be served any longer");
	return true;
}

/* The client has closed its end: what it asked is answered as far as the
 * answers are ready, then it is let go. */
static void take_leave(struct peer *p)
{
	p->leaving = true;
	subscriber_clear(&p->subscriber);
	peer_write(p);
}

void peer_work(struct peer *p)
{
	bool all;

	previews_settle(p);
	all = take_lines(p);
	if (settle(p))
		return;
	if (!all)
		stop_reading(p);
	else if (p->conn.eof)
		take_leave(p);
	else
		resume_reading(p);
}

/* More than may be kept of his unfinished lines: he hears why before he is let
 * go, if he reads. */
static void tell_too_much(struct peer *p)
{
	struct error err = ERROR_NULL;

	if (p->is_operator ||
	    p->sv->hub.budget.used > HUB_LINES_BYTES_MAX / 2) {
		(void)error_set(&err, ERR_LIMIT,
		                "all clients together send more than can be "
		                "kept; try again later");
	} else {
		limit_note(&p->tenant->usage, LIMIT_BUFFERED);
		p->sv->counters.limits_hit++;
		(void)error_set(&err, ERR_LIMIT,
		                "your clients' unfinished lines are more than "
		                "the %zu bytes that a user may have "
		                "(max_buffered_kb); send shorter ones, or "
		                "fewer at a time",
		                p->tenant->lines.max);
	}
	peer_refuse(p, SPAN_NULL, &err, SPAN_NULL);
	(void)conn_flush(&p->conn);
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct peer *p = w->data;
	int r = conn_read(&p->conn);

	if (r < 0) {
		p->sv->counters.clients_shed++;
		if (r == -ENOBUFS)
			tell_too_much(p);
		peer_close(p, strerror(-r));
		return;
	}
	if (p->conn.eof)
		ev_io_stop(loop, w);
	peer_work(p);
}

/* --- out ------------------------------------------------------------------ */

void peer_touch(struct peer *p)
{
	if (list_empty(&p->dirty))
		list_append(&p->sv->hub.dirty, &p->dirty);
}

/* Straight to conn while little waits there: nothing could be folded anyway. */
static bool goes_straight(const struct peer *p)
{
	return p->queue.count == 0 && p->conn.out.bytes < HUB_CONN_LOW;
}

void peer_send(struct peer *p, struct frame *f)
{
	if (!goes_straight(p) || conn_send(&p->conn, f) != 0) {
		if (client_queue_reply(&p->queue, f) != 0)
			p->closing = true;
	}
	peer_touch(p);
}

void peer_tell(struct peer *p, struct frame *f, enum event_fold fold,
               const char *prompt_id)
{
	struct client_queue *q = &p->queue;
	uint64_t folded = q->folded, missed = q->missed;

	if (p->frame_us == 0)
		p->frame_us = p->sv->frame_us;
	if (!goes_straight(p) || !list_empty(&q->due) ||
	    conn_send(&p->conn, f) != 0) {
		if (client_queue_event(q, f, fold, prompt_id) != 0)
			p->closing = true;
		p->sv->counters.folded += q->folded - folded;
		p->sv->counters.missed += q->missed - missed;
		if (q->missed != missed && client_queue_over(q)) {
			limit_note(&p->tenant->usage, LIMIT_BUFFERED);
			p->sv->counters.limits_hit++;
		}
	}
	peer_touch(p);
}

static void send_line(struct peer *p, struct buf *line, int built)
{
	struct frame *f = NULL;

	if (built == 0)
		f = frame_new(line->data, line->len, -1);
	if (f)
		peer_send(p, f);
	else
		p->closing = true; /* an answer would be missing */
	frame_unref(f);
	buf_deinit(line);
	peer_touch(p);
}

void peer_reply(struct peer *p, struct span id, struct span result)
{
	struct buf line = BUF_INIT(REPLY_MAX);

	send_line(p, &line, reply_ok(&line, id, result));
}

void peer_refuse(struct peer *p, struct span id, const struct error *err,
                 struct span extra)
{
	struct buf line = BUF_INIT(REPLY_MAX);

	send_line(p, &line, reply_error(&line, id, err, extra));
}

/* Snapshots that are due, as far as there is room. */
static void send_due(struct peer *p)
{
	char id[UUID_LEN + 1];
	uint64_t missed, seq;

	for (int n = 0; n < HUB_SNAPSHOTS_PER_TURN; n++) {
		if (!client_queue_due(&p->queue, id, &missed, &seq))
			return;
		(void)tell_snapshot(p->sv, p, id, missed, seq);
	}
	/* The next turn goes on. */
	peer_touch(p);
}

/* From the queue to conn, never more than the kernel takes soon: what waits in
 * the queue can still be folded. 0 or a negative errno; `*tookp` tells whether
 * the client took anything. */
static int push(struct peer *p, bool *tookp)
{
	size_t total = p->conn.out.bytes;
	struct frame *f;
	int r;

	do {
		while (p->conn.out.bytes < HUB_CONN_LOW &&
		       (f = client_queue_pop(&p->queue))) {
			total += f->len;
			r = conn_send(&p->conn, f);
			frame_unref(f);
			if (r != 0)
				return r;
		}
		r = conn_flush(&p->conn);
		if (r != 0)
			return r;
	} while (!conn_wants_write(&p->conn) && p->queue.count > 0);
	*tookp = p->conn.out.bytes < total;
	return 0;
}

/* Notes since when a client that has more than its share takes nothing. */
static void watch_stall(struct peer *p, bool took)
{
	bool full = client_queue_full(&p->queue) ||
	            !list_empty(&p->queue.due) || p->leaving;

	if (!conn_wants_write(&p->conn) || !full) {
		list_del(&p->stalled);
	} else if (list_empty(&p->stalled) || took) {
		p->stalled_ms = clock_ms();
		list_del(&p->stalled);
		list_append(&p->sv->hub.stalled, &p->stalled);
	}
}

/* Everything is written. */
static void on_drained(struct peer *p)
{
	int64_t took_us = clock_us() - p->frame_us;

	if (p->frame_us > 0 && took_us >= 0)
		histogram_add(&p->sv->counters.latency, (uint64_t)took_us);
	p->frame_us = 0;
	ev_io_stop(p->sv->loop, &p->writer);
	if (p->leaving) {
		if (p->wait_count == 0 && client_queue_idle(&p->queue))
			peer_close(p, NULL);
		return;
	}
	/* Snapshots became due, or found room, only now. */
	if (!client_queue_idle(&p->queue))
		peer_touch(p);
}

/* Reading was stopped while the queue was full, or too much asked. It goes on
 * as soon as there is room, though not all is written: some write all of their
 * requests before they read. */
static void read_on(struct peer *p)
{
	if (!p->leaving && !ev_is_active(&p->reader) &&
	    list_empty(&p->backlog) && may_ask(p))
		stop_reading(p);
}

void peer_write(struct peer *p)
{
	bool took = false;
	int r;

	if (settle(p))
		return;
	send_due(p);
	r = push(p, &took);
	if (r != 0) {
		/* It closed its end, which is its right. */
		peer_close(p, r == -EPIPE || r == -ECONNRESET ? NULL
		                                              : strerror(-r));
		return;
	}
	watch_stall(p, took);
	read_on(p);
	if (conn_wants_write(&p->conn))
		ev_io_start(p->sv->loop, &p->writer);
	else
		on_drained(p);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	peer_write(w->data);
}

/* --- requests that wait --------------------------------------------------- */

struct wait *wait_new(struct peer *p, struct span id, struct prompt *prompt,
                      struct list *on)
{
	struct wait *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->peer = p;
	w->prompt = prompt;
	w->id_len = id.n;
	if (id.n > 0)
		memcpy(w->id, id.p, id.n);
	list_append(&p->waits, &w->by_peer);
	list_append(on, &w->by_prompt);
	p->wait_count++;
	return w;
}

void wait_free(struct wait *w)
{
	while (w->held_count > 0)
		(void)frame_unref(w->held[--w->held_count]);
	if (w->subscribe)
		w->prompt->eager--;
	w->peer->wait_count--;
	list_del(&w->by_peer);
	list_del(&w->by_prompt);
	peer_touch(w->peer);
	free(w);
}
