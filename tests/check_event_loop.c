/*
 * check_event_loop.c - how long an idle loop sleeps: what it asks the kernel
 * for, which is not asked here.
 */
#include "common/event_loop.h"

#include <ev.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/runner.h"

#define HOUR_MS 3600000

static int asked_ms;

/* In libc's place, for libev too. */
__attribute__((visibility("default"))) int
epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
{
	asked_ms = timeout_ms;
	return 0;
}

static void on_input(struct ev_loop *loop, ev_io *w, int revents)
{
}

static int idle_ms(bool sleep_long)
{
	struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	ev_io input;
	int ends[2];

	ck_assert_ptr_nonnull(loop);
	ck_assert_int_eq(pipe(ends), 0);
	if (sleep_long)
		event_loop_sleep_long(loop);
	ev_io_init(&input, on_input, ends[0], EV_READ);
	ev_io_start(loop, &input);
	asked_ms = 0;
	ck_assert(ev_run(loop, EVRUN_ONCE));
	ev_io_stop(loop, &input);
	ev_loop_destroy(loop);
	(void)close(ends[0]);
	(void)close(ends[1]);
	return asked_ms;
}

START_TEST(sleeps_for_hours)
{
	ck_assert_int_gt(idle_ms(true), HOUR_MS);
}
END_TEST

/* What the function is for; where this fails, it has become useless. */
START_TEST(wakes_up_every_minute)
{
	int ms = idle_ms(false);

	ck_assert_int_gt(ms, 0);
	ck_assert_int_le(ms, 60000);
}
END_TEST

/* The watcher that had it made is gone: there is nothing left to do. */
START_TEST(keeps_no_loop_running)
{
	struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);

	ck_assert_ptr_nonnull(loop);
	event_loop_sleep_long(loop);
	ck_assert(!ev_run(loop, 0));
	ev_loop_destroy(loop);
}
END_TEST

static Suite *event_loop_suite(void)
{
	Suite *s = suite_create("event_loop");
	TCase *t = tcase_create("event_loop");

	tcase_add_test(t, sleeps_for_hours);
	tcase_add_test(t, wakes_up_every_minute);
	tcase_add_test(t, keeps_no_loop_running);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(event_loop_suite());
}
