/*
 * check_lib_loop.c - the library's loop: what its users know of libev, and
 * what libev hasn't.
 *
 * The functions of <ev.h> are those of workers/lib/loop.c here: its object
 * comes before the real library.
 */
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/macros.h"
#include "tests/runner.h"
#include "workers/lib/loop.h"

#define TIMERS 200

static struct ev_loop *loop;

struct count {
	ev_io io;
	ev_timer timer;
	unsigned calls;
	int events;
	ev_io *stops; /* in its callback */
};

static void on_io(struct ev_loop *l, ev_io *w, int events)
{
	struct count *c = container_of(w, struct count, io);
	char byte;

	c->calls++;
	c->events |= events;
	if (events & EV_READ)
		(void)!read(w->fd, &byte, 1);
	if (c->stops)
		ev_io_stop(l, c->stops);
}

static void on_timer(struct ev_loop *l, ev_timer *w, int events)
{
	struct count *c = container_of(w, struct count, timer);

	ck_assert_int_eq(events, EV_TIMER);
	c->calls++;
}

static void turn(bool wait)
{
	ck_assert_int_eq(loop_turn(loop, wait), 0);
}

/* As a program with a loop of its own sees it. */
static bool is_ready(int timeout_ms)
{
	struct pollfd p = {.fd = loop_fd(loop), .events = POLLIN};

	ck_assert_int_eq(loop_arm(loop), 0);
	return poll(&p, 1, timeout_ms) == 1;
}

static void setup(void)
{
	loop = loop_new();
	ck_assert_ptr_nonnull(loop);
}

static void teardown(void)
{
	loop = loop_free(loop);
}

static void make_pipe(int fds[2])
{
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

START_TEST(descriptors)
{
	struct count r = {.calls = 0}, w = {.calls = 0};
	int fds[2];

	make_pipe(fds);
	ev_io_init(&r.io, on_io, fds[0], EV_READ);
	ev_io_init(&w.io, on_io, fds[1], EV_WRITE);
	ev_io_start(loop, &r.io);
	ev_io_start(loop, &r.io);
	turn(false);
	ck_assert_uint_eq(r.calls, 0);
	ck_assert(!is_ready(0));
	ev_io_start(loop, &w.io);
	ck_assert(is_ready(0));
	turn(true);
	ck_assert_uint_eq(w.calls, 1);
	ck_assert_int_eq(w.events, EV_WRITE);
	ev_io_stop(loop, &w.io);
	ev_io_stop(loop, &w.io);
	ck_assert(!is_ready(0));
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	turn(true);
	ck_assert_uint_eq(r.calls, 1);
	/* The end is something to read. */
	(void)close(fds[1]);
	turn(true);
	ck_assert_uint_eq(r.calls, 2);
	ev_io_stop(loop, &r.io);
	(void)close(fds[0]);
}
END_TEST

/* Two watchers of one descriptor, as ipc/client has them. */
START_TEST(two_of_one_descriptor)
{
	struct count a = {.calls = 0}, b = {.calls = 0};
	int fds[2];

	make_pipe(fds);
	ev_io_init(&a.io, on_io, fds[1], EV_READ);
	ev_io_init(&b.io, on_io, fds[1], EV_WRITE);
	ev_io_start(loop, &a.io);
	ev_io_start(loop, &b.io);
	turn(true);
	ck_assert_uint_eq(a.calls, 0);
	ck_assert_uint_eq(b.calls, 1);
	ev_io_stop(loop, &b.io);
	turn(false);
	ck_assert_uint_eq(b.calls, 1);
	(void)close(fds[0]);
	turn(true);
	ck_assert_uint_eq(a.calls, 1);
	ev_io_stop(loop, &a.io);
	(void)close(fds[1]);
}
END_TEST

/* One that is stopped by another's callback of the same turn isn't called. */
START_TEST(stopped_meanwhile)
{
	struct count a = {.calls = 0}, b = {.calls = 0};
	int fds[2];

	make_pipe(fds);
	ev_io_init(&a.io, on_io, fds[1], EV_WRITE);
	ev_io_init(&b.io, on_io, fds[1], EV_WRITE);
	a.stops = &b.io;
	b.stops = &a.io;
	ev_io_start(loop, &a.io);
	ev_io_start(loop, &b.io);
	turn(true);
	ck_assert_uint_eq(a.calls + b.calls, 1);
	(void)close(fds[0]);
	(void)close(fds[1]);
}
END_TEST

/* Its number may come again before it is stopped, as libcurl does. */
START_TEST(closed_before_it_is_stopped)
{
	struct count a = {.calls = 0}, b = {.calls = 0};
	int fds[2], again[2];

	make_pipe(fds);
	ev_io_init(&a.io, on_io, fds[1], EV_WRITE);
	ev_io_start(loop, &a.io);
	(void)close(fds[0]);
	(void)close(fds[1]);
	make_pipe(again);
	ck_assert_int_eq(again[1], fds[1]);
	ev_io_init(&b.io, on_io, again[1], EV_WRITE);
	ev_io_start(loop, &b.io);
	ev_io_stop(loop, &a.io);
	turn(true);
	ck_assert_uint_eq(b.calls, 1);
	ck_assert_uint_eq(a.calls, 0);
	ev_io_stop(loop, &b.io);
	(void)close(again[0]);
	(void)close(again[1]);
}
END_TEST

START_TEST(bad_descriptor_is_told)
{
	struct count a = {.calls = 0};

	ev_io_init(&a.io, on_io, -1, EV_READ);
	ev_io_start(loop, &a.io);
	ck_assert_int_eq(loop_turn(loop, false), -EBADF);
	turn(false);
	a.io.fd = 900;
	ev_io_start(loop, &a.io);
	ck_assert_int_eq(loop_turn(loop, false), -EBADF);
	ev_io_stop(loop, &a.io);
	turn(false);
}
END_TEST

START_TEST(timers)
{
	struct count a = {.calls = 0}, b = {.calls = 0};
	int64_t before = clock_ms();

	ev_timer_init(&a.timer, on_timer, 0.05, 0.);
	ev_timer_init(&b.timer, on_timer, 60., 0.);
	ev_now_update(loop);
	ev_timer_start(loop, &a.timer);
	ev_timer_start(loop, &b.timer);
	ck_assert(ev_timer_remaining(loop, &b.timer) > 59.);
	while (a.calls == 0)
		turn(true);
	ck_assert_int_ge(clock_ms() - before, 50);
	ck_assert(!ev_is_active(&a.timer));
	ck_assert(ev_is_active(&b.timer));
	/* What is left is kept. */
	ev_timer_stop(loop, &b.timer);
	ck_assert(ev_timer_remaining(loop, &b.timer) < 60.);
	ck_assert_uint_eq(b.calls, 0);
}
END_TEST

START_TEST(timer_again)
{
	struct count a = {.calls = 0};

	ev_timer_init(&a.timer, on_timer, 0., 0.02);
	ev_timer_again(loop, &a.timer);
	while (a.calls < 3)
		turn(true);
	a.timer.repeat = 60.;
	ev_timer_again(loop, &a.timer);
	turn(false);
	ck_assert_uint_eq(a.calls, 3);
	a.timer.repeat = 0.;
	ev_timer_again(loop, &a.timer);
	ck_assert(!ev_is_active(&a.timer));
}
END_TEST

/* In the order of their times, whatever is started and stopped between. */
static struct count many[TIMERS];
static unsigned order[TIMERS], fired;

static void on_ordered(struct ev_loop *l, ev_timer *w, int events)
{
	order[fired++] =
		(unsigned)(container_of(w, struct count, timer) - many);
}

START_TEST(timers_in_order)
{
	unsigned expected = 0;

	fired = 0;
	ev_now_update(loop);
	for (unsigned i = 0; i < TIMERS; i++) {
		unsigned rank = i * 73 % TIMERS;

		ev_timer_init(&many[i].timer, on_ordered, rank * 1e-5, 0.);
		ev_timer_start(loop, &many[i].timer);
	}
	for (unsigned i = 0; i < TIMERS; i++) {
		if (i % 3 == 0)
			ev_timer_stop(loop, &many[i].timer);
		else
			expected++;
	}
	while (fired < expected)
		turn(true);
	for (unsigned i = 1; i < fired; i++)
		ck_assert_uint_lt(order[i - 1] * 73 % TIMERS,
		                  order[i] * 73 % TIMERS);
	turn(false);
	ck_assert_uint_eq(fired, expected);
}
END_TEST

/* The one descriptor covers timers, those that are set later and sooner, too.
 */
START_TEST(descriptor_covers_timers)
{
	struct count a = {.calls = 0}, b = {.calls = 0};

	ck_assert(!is_ready(0));
	ev_timer_init(&a.timer, on_timer, 60., 0.);
	ev_now_update(loop);
	ev_timer_start(loop, &a.timer);
	ck_assert(!is_ready(0));
	ev_timer_init(&b.timer, on_timer, 0.02, 0.);
	ev_timer_start(loop, &b.timer);
	while (b.calls == 0) {
		ck_assert(is_ready(20000));
		turn(false);
	}
	ck_assert(!is_ready(0));
	/* Due at once. */
	ev_timer_set(&b.timer, 0., 0.);
	ev_timer_start(loop, &b.timer);
	ck_assert(is_ready(20000));
	ev_timer_stop(loop, &b.timer);
	ev_timer_stop(loop, &a.timer);
	ck_assert(!is_ready(0));
	ck_assert_uint_eq(a.calls, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib_loop");
	TCase *t = tcase_create("lib_loop");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, descriptors);
	tcase_add_test(t, two_of_one_descriptor);
	tcase_add_test(t, stopped_meanwhile);
	tcase_add_test(t, closed_before_it_is_stopped);
	tcase_add_test(t, bad_descriptor_is_told);
	tcase_add_test(t, timers);
	tcase_add_test(t, timer_again);
	tcase_add_test(t, timers_in_order);
	tcase_add_test(t, descriptor_covers_timers);
	suite_add_tcase(s, t);
	return runner_run(s);
}
