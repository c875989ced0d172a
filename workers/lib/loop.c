/*
 * loop.c - see loop.h. One epoll set; timers in a binary heap.
 *
 * As in libev, `active` of a watcher tells that it runs (of a timer, where it
 * stands in the heap, counted from 1), and `pending` where it stands among the
 * callbacks of this turn, so that stopping it takes that callback back.
 */
#include "workers/lib/loop.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MAX_MS (3600 * 1000) /* of one epoll_wait */

/* What is watched of one descriptor; the index is its number. */
struct loop_fd {
	struct ev_watcher_list *first;
	int events; /* as epoll was told; 0: it isn't in the set */
};

struct loop_pending {
	ev_watcher *w; /* NULL: stopped meanwhile */
	int events;
};

struct ev_loop {
	int epoll_fd;
	int timer_fd;    /* -1 until somebody asked for the descriptor */
	double armed_at; /* what timer_fd is set to; 0: to nothing */
	double now;      /* s, monotonic */
	int broken;      /* a negative errno that the next turn tells */
	struct loop_fd *fds;
	size_t fd_count;
	ev_timer **heap;
	size_t timer_count, heap_size;
	struct loop_pending *pendings;
	size_t pending_count, pending_size;
};

/* --- helpers -------------------------------------------------------------- */

static double read_clock(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Room for `need` elements of `size` bytes; fresh ones are zeroed. */
static int grow(void **arrayp, size_t *countp, size_t need, size_t size)
{
	size_t count = *countp ? *countp : 16;
	char *a;

	if (need <= *countp)
		return 0;
	while (count < need)
		count *= 2;
	a = realloc(*arrayp, count * size);
	if (!a)
		return -ENOMEM;
	memset(a + *countp * size, 0, (count - *countp) * size);
	*arrayp = a;
	*countp = count;
	return 0;
}

/* The interface has no way to say that a watcher could not be started. */
static void note(struct ev_loop *l, int r)
{
	if (r < 0 && l->broken == 0)
		l->broken = r;
}

static void feed(struct ev_loop *l, ev_watcher *w, int events)
{
	int r;

	if (w->pending) {
		l->pendings[w->pending - 1].events |= events;
		return;
	}
	r = grow((void **)&l->pendings, &l->pending_size, l->pending_count + 1,
	         sizeof(*l->pendings));
	if (r < 0) {
		note(l, r);
		return;
	}
	l->pendings[l->pending_count].w = w;
	l->pendings[l->pending_count].events = events;
	w->pending = (int)++l->pending_count;
}

static void unfeed(struct ev_loop *l, ev_watcher *w)
{
	if (w->pending)
		l->pendings[w->pending - 1].w = NULL;
	w->pending = 0;
}

/* --- descriptors ---------------------------------------------------------- */

static int wanted(const struct loop_fd *f)
{
	int events = 0;

	for (const struct ev_watcher_list *w = f->first; w; w = w->next)
		events |= ((const ev_io *)(const void *)w)->events;
	return events & (EV_READ | EV_WRITE);
}

/* Tells epoll. A descriptor that was closed under its watcher has left the set
 * by itself, and its number may be another's by now: so what epoll says counts,
 * not what it was told before. */
static int tell_epoll(struct ev_loop *l, int fd, bool anew)
{
	struct loop_fd *f = &l->fds[fd];
	int events = wanted(f), op;
	struct epoll_event e = {
		.events = (events & EV_READ ? EPOLLIN : 0) |
	                  (events & EV_WRITE ? EPOLLOUT : 0),
		.data.fd = fd,
	};

	if (events == f->events && !anew)
		return 0;
	op = events == 0      ? EPOLL_CTL_DEL
	     : f->events == 0 ? EPOLL_CTL_ADD
	                      : EPOLL_CTL_MOD;
	f->events = events;
	if (epoll_ctl(l->epoll_fd, op, fd, &e) == 0 || events == 0)
		return 0;
	if (errno == ENOENT)
		op = EPOLL_CTL_ADD;
	else if (errno == EEXIST)
		op = EPOLL_CTL_MOD;
	else
		return -errno;
	return epoll_ctl(l->epoll_fd, op, fd, &e) == 0 ? 0 : -errno;
}

void ev_io_start(struct ev_loop *l, ev_io *w)
{
	struct loop_fd *f;
	int r;

	if (w->active)
		return;
	if (w->fd < 0) {
		note(l, -EBADF);
		return;
	}
	r = grow((void **)&l->fds, &l->fd_count, (size_t)w->fd + 1,
	         sizeof(*l->fds));
	if (r < 0) {
		note(l, r);
		return;
	}
	f = &l->fds[w->fd];
	w->active = 1;
	w->next = f->first;
	f->first = (struct ev_watcher_list *)(void *)w;
	note(l, tell_epoll(l, w->fd, true));
}

void ev_io_stop(struct ev_loop *l, ev_io *w)
{
	struct ev_watcher_list **at;

	unfeed(l, (ev_watcher *)(void *)w);
	if (!w->active)
		return;
	at = &l->fds[w->fd].first;
	while (*at != (struct ev_watcher_list *)(void *)w)
		at = &(*at)->next;
	*at = w->next;
	w->active = 0;
	note(l, tell_epoll(l, w->fd, false));
}

static void feed_fd(struct ev_loop *l, const struct epoll_event *e)
{
	struct loop_fd *f = &l->fds[e->data.fd];
	int events =
		(e->events & (EPOLLIN | EPOLLERR | EPOLLHUP) ? EV_READ : 0) |
		(e->events & (EPOLLOUT | EPOLLERR | EPOLLHUP) ? EV_WRITE : 0);

	if (!f->first) {
		/* Closed before it was stopped, and the number used again. */
		(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, e->data.fd, NULL);
		return;
	}
	for (struct ev_watcher_list *w = f->first; w; w = w->next) {
		int got = events & ((ev_io *)(void *)w)->events;

		if (got)
			feed(l, (ev_watcher *)(void *)w, got);
	}
}

/* --- timers --------------------------------------------------------------- */

static void place(struct ev_loop *l, ev_timer *w, size_t i)
{
	l->heap[i] = w;
	w->active = (int)i + 1;
}

static void sift_up(struct ev_loop *l, size_t i)
{
	ev_timer *w = l->heap[i];

	while (i > 0 && l->heap[(i - 1) / 2]->at > w->at) {
		place(l, l->heap[(i - 1) / 2], i);
		i = (i - 1) / 2;
	}
	place(l, w, i);
}

static void sift_down(struct ev_loop *l, size_t i)
{
	ev_timer *w = l->heap[i];
	size_t child;

	while ((child = 2 * i + 1) < l->timer_count) {
		if (child + 1 < l->timer_count &&
		    l->heap[child + 1]->at < l->heap[child]->at)
			child++;
		if (l->heap[child]->at >= w->at)
			break;
		place(l, l->heap[child], i);
		i = child;
	}
	place(l, w, i);
}

static void heap_remove(struct ev_loop *l, ev_timer *w)
{
	size_t i = (size_t)w->active - 1;

	w->active = 0;
	if (i == --l->timer_count)
		return;
	place(l, l->heap[l->timer_count], i);
	sift_down(l, i);
	sift_up(l, i);
}

static void heap_add(struct ev_loop *l, ev_timer *w)
{
	int r = grow((void **)&l->heap, &l->heap_size, l->timer_count + 1,
	             sizeof(ev_timer *));

	if (r < 0) {
		note(l, r);
		return;
	}
	place(l, w, l->timer_count);
	sift_up(l, l->timer_count++);
}

void ev_timer_start(struct ev_loop *l, ev_timer *w)
{
	if (w->active)
		return;
	w->at += l->now;
	heap_add(l, w);
}

/* As libev has it: `at` is what is left, so that a start goes on from there. */
void ev_timer_stop(struct ev_loop *l, ev_timer *w)
{
	unfeed(l, (ev_watcher *)(void *)w);
	if (!w->active)
		return;
	heap_remove(l, w);
	w->at -= l->now;
}

void ev_timer_again(struct ev_loop *l, ev_timer *w)
{
	ev_timer_stop(l, w);
	if (w->repeat > 0.) {
		w->at = w->repeat;
		ev_timer_start(l, w);
	}
}

ev_tstamp ev_timer_remaining(struct ev_loop *l, ev_timer *w)
{
	return w->active ? w->at - l->now : w->at;
}

void ev_now_update(struct ev_loop *l)
{
	l->now = read_clock();
}

static void feed_due(struct ev_loop *l)
{
	ev_timer *w;

	while (l->timer_count > 0 && l->heap[0]->at <= l->now) {
		w = l->heap[0];
		heap_remove(l, w);
		if (w->repeat > 0.) {
			w->at = l->now + w->repeat;
			heap_add(l, w);
		}
		feed(l, (ev_watcher *)(void *)w, EV_TIMER);
	}
}

/* --- turns ---------------------------------------------------------------- */

/* Rounded up: one that is not quite due would be waited for with 0. */
static int wait_ms(const struct ev_loop *l)
{
	double ms;

	if (l->timer_count == 0)
		return WAIT_MAX_MS;
	ms = (l->heap[0]->at - l->now) * 1e3;
	if (ms <= 0)
		return 0;
	return ms >= WAIT_MAX_MS ? WAIT_MAX_MS : (int)ms + 1;
}

static int collect(struct ev_loop *l, bool wait)
{
	struct epoll_event events[LOOP_EVENTS_MAX];
	uint64_t ticks;
	int n;

	l->now = read_clock();
	n = epoll_wait(l->epoll_fd, events, LOOP_EVENTS_MAX,
	               wait ? wait_ms(l) : 0);
	if (n < 0 && errno != EINTR)
		return -errno;
	l->now = read_clock();
	for (int i = 0; i < n; i++) {
		if (events[i].data.fd == l->timer_fd) {
			/* Not blocking; what it says is in l->now, too. */
			if (read(l->timer_fd, &ticks, sizeof(ticks)) > 0)
				l->armed_at = 0;
		} else {
			feed_fd(l, &events[i]);
		}
	}
	feed_due(l);
	return 0;
}

int loop_turn(struct ev_loop *l, bool wait)
{
	ev_watcher *w;
	int r = collect(l, wait);

	/* What is fed from within a callback is called in this turn, too. */
	for (size_t i = 0; i < l->pending_count; i++) {
		w = l->pendings[i].w;
		if (!w)
			continue;
		w->pending = 0;
		w->cb(l, w, l->pendings[i].events);
	}
	l->pending_count = 0;
	if (r == 0)
		r = l->broken;
	l->broken = 0;
	return r;
}

int loop_fd(struct ev_loop *l)
{
	struct epoll_event e = {.events = EPOLLIN};
	int fd, r;

	if (l->timer_fd >= 0)
		return l->epoll_fd;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	e.data.fd = fd;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	l->timer_fd = fd;
	l->armed_at = 0;
	return l->epoll_fd;
}

int loop_arm(struct ev_loop *l)
{
	double at = l->timer_count > 0 ? l->heap[0]->at : 0;
	struct itimerspec t = {.it_value.tv_nsec = 0};

	if (l->timer_fd < 0 || at == l->armed_at)
		return 0;
	if (l->timer_count > 0) {
		t.it_value.tv_sec = at > 0 ? (time_t)at : 0;
		t.it_value.tv_nsec =
			at > 0 ? (long)((at - (double)(time_t)at) * 1e9) : 0;
		/* Zero would turn it off. */
		if (t.it_value.tv_sec == 0 && t.it_value.tv_nsec == 0)
			t.it_value.tv_nsec = 1;
	}
	if (timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &t, NULL) < 0)
		return -errno;
	l->armed_at = at;
	return 0;
}

struct ev_loop *loop_new(void)
{
	struct ev_loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->timer_fd = -1;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		free(l);
		return NULL;
	}
	l->now = read_clock();
	return l;
}

struct ev_loop *loop_free(struct ev_loop *l)
{
	if (!l)
		return NULL;
	(void)close(l->epoll_fd);
	if (l->timer_fd >= 0)
		(void)close(l->timer_fd);
	free(l->fds);
	free(l->heap);
	free(l->pendings);
	free(l);
	return NULL;
}
