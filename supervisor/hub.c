/*
 * hub.c - see hub.h: the door, and the turns of the loop. What concerns one
 * client is in peer.c.
 */
#include "supervisor/hub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "supervisor/hub_impl.h"
#include "supervisor/supervisor.h"

/* --- the door ------------------------------------------------------------- */

/* A line that says why, to one who is not let in. A fresh socket takes it. */
static void turn_away(struct hub *h, int fd, const struct error *err)
{
	struct buf line = BUF_INIT(4096);

	h->sv->counters.clients_refused++;
	log_warn("hub", "client turned away: %s", err->text);
	if (reply_error(&line, SPAN_NULL, err, SPAN_NULL) == 0)
		(void)send(fd, line.data, line.len,
		           MSG_NOSIGNAL | MSG_DONTWAIT);
	buf_deinit(&line);
}

static int check_room(struct hub *h, const struct creds *creds,
                      bool is_operator, struct error *err)
{
	const struct config *cfg = &h->sv->cfg;
	size_t max = (size_t)cfg->max_clients;
	size_t room = is_operator ? max : limit_less_reserve(cfg, max);
	struct tenant *tenant;

	if (h->peer_count >= room)
		return error_set(err, ERR_LIMIT,
		                 "the supervisor has %zu clients already "
		                 "(max_clients%s); try again later",
		                 h->peer_count,
		                 is_operator ? "" : ", operator_reserve");
	if (is_operator)
		return 0;
	tenant = tracker_find_tenant(&h->sv->tracker, creds->uid);
	if (!tenant)
		return 0;
	if (limit_check(tenant_usage(tenant), cfg, LIMIT_CONNECTIONS, 1, err) <
	    0) {
		h->sv->counters.limits_hit++;
		return -1;
	}
	if (tenant->peer_count >= max / HUB_TENANT_SHARE)
		return error_set(err, ERR_LIMIT,
		                 "uid %u has %zu connections already, which "
		                 "is its share of max_clients",
		                 (unsigned)creds->uid, tenant->peer_count);
	return 0;
}

static void pause_accepting(struct hub *h, const char *why)
{
	log_warn("hub", "accepting pauses: %s", why);
	ev_io_stop(h->sv->loop, &h->acceptor);
	ev_timer_set(&h->pause, HUB_PAUSE_S, 0.);
	ev_timer_start(h->sv->loop, &h->pause);
}

/* The lowest free number is given out: a high one tells that few are left. They
 * are for operators, and for what those inside need; so tenants alone never
 * bring accepting to a stop. */
static bool is_among_last(const struct hub *h, int fd)
{
	size_t reserve =
		HUB_FDS_PER_RESERVE * (size_t)h->sv->cfg.operator_reserve;

	if (reserve > h->sv->fd_limit / 4)
		reserve = h->sv->fd_limit / 4;
	return (size_t)fd >= h->sv->fd_limit - reserve;
}

static void let_in(struct hub *h, int fd_)
{
	cleanup_close int fd = fd_;
	struct error err = ERROR_NULL;
	struct creds creds = {0};
	bool operator_;

	if (creds_get(&creds, fd, &err) < 0) {
		turn_away(h, fd, &err);
		return;
	}
	operator_ = admission_is_operator(&h->sv->admission, &creds);
	if (!operator_ && is_among_last(h, fd)) {
		(void)error_set(&err, ERR_LIMIT,
		                "the supervisor is short of descriptors; try "
		                "again later");
		turn_away(h, fd, &err);
		creds_deinit(&creds);
		return;
	}
	if (admission_check(&h->sv->admission, &creds, &err) < 0 ||
	    check_room(h, &creds, operator_, &err) < 0) {
		turn_away(h, fd, &err);
		creds_deinit(&creds);
		return;
	}
	/* Consumes fd and creds. */
	if (!peer_new(h, steal_fd(&fd), &creds, operator_, &err))
		log_error("hub", "client dropped: %s", err.text);
}

struct peer *hub_adopt(struct hub *h, int fd_, const struct creds *as,
                       bool roomy, bool is_operator_, struct error *err)
{
	cleanup_close int fd = fd_;
	struct creds creds = {0};
	struct peer *p;

	if (check_room(h, as, roomy, err) < 0)
		return NULL;
	if (creds_copy(&creds, as) < 0) {
		(void)error_set_nomem(err, "a bus");
		return NULL;
	}
	/* Consumes fd and creds. */
	p = peer_new(h, steal_fd(&fd), &creds, is_operator_, err);
	if (p)
		p->is_bus = true;
	return p;
}

static void on_pause_over(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct hub *h = w->data;

	if (h->listener.fd >= 0)
		ev_io_start(loop, &h->acceptor);
}

/* One a turn: a crowd at the door delays nobody inside. */
static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
	struct hub *h = w->data;
	int fd = listener_accept(&h->listener);

	if (fd >= 0) {
		let_in(h, fd);
		return;
	}
	if (fd != -EAGAIN)
		pause_accepting(h, strerror(-fd));
}

/* --- turns ---------------------------------------------------------------- */

/* Moves all of `from` to the head `to`. */
static void list_take(struct list *to, struct list *from)
{
	list_init(to);
	if (list_empty(from))
		return;
	*to = *from;
	to->next->prev = to;
	to->prev->next = to;
	list_init(from);
}

/* Lines that did not fit into their client's turn. Runs each time round the
 * loop, whatever else is going on. */
static void on_backlog(struct ev_loop *loop, ev_idle *w, int revents)
{
	struct hub *h = w->data;
	struct list turn;

	list_take(&turn, &h->backlog);
	while (!list_empty(&turn)) {
		struct peer *p = list_first(&turn, struct peer, backlog);

		list_del(&p->backlog);
		peer_work(p);
	}
	if (list_empty(&h->backlog) && list_empty(&h->dirty))
		ev_idle_stop(loop, w);
}

/* Just before the loop waits: what this turn has produced is written. */
static void on_flush(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct hub *h = w->data;
	struct list turn;

	list_take(&turn, &h->dirty);
	while (!list_empty(&turn)) {
		struct peer *p = list_first(&turn, struct peer, dirty);

		list_del(&p->dirty);
		peer_write(p);
	}
	/* Some have more than a turn's work: don't wait. */
	if (!list_empty(&h->dirty))
		ev_idle_start(loop, &h->backlog_runner);
}

void hub_sweep(struct hub *h, int64_t now_ms)
{
	struct list *it, *next;
	struct peer *p;

	list_for_each_safe (it, next, &h->stalled) {
		p = list_entry(it, struct peer, stalled);
		if (now_ms - p->stalled_ms < HUB_STALL_MS)
			continue;
		h->sv->counters.clients_shed++;
		peer_close(p, "it takes nothing that is sent to it");
	}
}

/* --- beginning and end ---------------------------------------------------- */

int hub_make_socket(struct hub *h, struct supervisor *sv, struct error *err)
{
	if (listener_init(&h->listener, sv->cfg.socket, sv->socket_mode, err) <
	    0)
		return -1;
	return listener_give(&h->listener, sv->user.uid, sv->user.gid, err);
}

/* systemd's socket, if it made one, else our own. */
static int open_door(struct hub *h, struct error *err)
{
	const struct supervisor *sv = h->sv;
	int fd, r;

	/* Made before: clients are to see who serves it now. */
	if (h->listener.fd >= 0)
		return listener_renew(&h->listener, err);
	if (notify_take_socket(sv->cfg.socket, &fd, err) < 0)
		return -1;
	if (fd < 0)
		return listener_init(&h->listener, sv->cfg.socket,
		                     sv->socket_mode, err);
	r = listener_adopt(&h->listener, fd); /* consumes fd */
	return r < 0 ? error_set_errno(err, -r, "cannot take systemd's socket")
	             : 0;
}

int hub_init(struct hub *h, struct supervisor *sv, struct error *err)
{
	*h = (struct hub){.sv = sv,
	                  .listener = h->listener,
	                  .budget = {.max = HUB_LINES_BYTES_MAX},
	                  .next_peer = 1};
	list_init(&h->peers);
	list_init(&h->dirty);
	list_init(&h->backlog);
	list_init(&h->stalled);
	h->idle_since_ms = clock_ms();
	if (open_door(h, err) < 0)
		return -1;
	ev_io_init(&h->acceptor, on_accept, h->listener.fd, EV_READ);
	ev_timer_init(&h->pause, on_pause_over, 0., 0.);
	ev_idle_init(&h->backlog_runner, on_backlog);
	/* The highest: idle watchers else wait until nothing is pending. */
	ev_set_priority(&h->backlog_runner, EV_MAXPRI);
	ev_prepare_init(&h->flusher, on_flush);
	h->acceptor.data = h->pause.data = h;
	h->backlog_runner.data = h->flusher.data = h;
	ev_io_start(sv->loop, &h->acceptor);
	ev_prepare_start(sv->loop, &h->flusher);
	return 0;
}

void hub_close_door(struct hub *h)
{
	if (h->listener.fd < 0)
		return;
	ev_io_stop(h->sv->loop, &h->acceptor);
	ev_timer_stop(h->sv->loop, &h->pause);
	listener_deinit(&h->listener);
}

bool hub_drained(const struct hub *h)
{
	struct list *it;
	struct peer *p;

	list_for_each (it, &h->peers) {
		p = list_entry(it, struct peer, link);
		if (conn_wants_write(&p->conn) || !client_queue_idle(&p->queue))
			return false;
	}
	return true;
}

void hub_deinit(struct hub *h)
{
	if (!h->sv) {
		listener_deinit(&h->listener);
		return;
	}
	hub_close_door(h);
	while (!list_empty(&h->peers))
		peer_close(list_first(&h->peers, struct peer, link), NULL);
	ev_idle_stop(h->sv->loop, &h->backlog_runner);
	ev_prepare_stop(h->sv->loop, &h->flusher);
	h->sv = NULL;
}
