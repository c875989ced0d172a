/*
 * sim_loop.c - see sim_loop.h. A sorted list: there are few timers, and nearly
 * all are appended at its end.
 */
#include "tests/sim/sim_loop.h"

#include "common/clock.h"

static struct list timers = {&timers, &timers};
static double loop_speed = 1.0;

void sim_timer_init(struct sim_timer *t, void (*cb)(struct sim_timer *t))
{
	list_init(&t->link);
	t->cb = cb;
	t->due_us = 0;
}

void sim_timer_start(struct sim_timer *t, int64_t delay_us)
{
	struct list *at;

	list_del(&t->link);
	t->due_us = clock_us() + delay_us;
	for (at = timers.prev; at != &timers; at = at->prev) {
		if (list_entry(at, struct sim_timer, link)->due_us <= t->due_us)
			break;
	}
	list_prepend(at, &t->link);
}

void sim_timer_stop(struct sim_timer *t)
{
	list_del(&t->link);
}

bool sim_timer_armed(const struct sim_timer *t)
{
	return !list_empty(&t->link);
}

int64_t sim_loop_next_us(void)
{
	if (list_empty(&timers))
		return -1;
	return list_first(&timers, struct sim_timer, link)->due_us;
}

void sim_loop_run_due(void)
{
	int64_t now = clock_us();

	/* Timers that are armed meanwhile are due later than `now`, so sockets
	 * get their share in between. */
	while (!list_empty(&timers)) {
		struct sim_timer *t =
			list_first(&timers, struct sim_timer, link);

		if (t->due_us > now)
			break;
		list_del(&t->link);
		t->cb(t);
	}
}

void sim_loop_set_speed(double speed)
{
	loop_speed = speed;
}

double sim_loop_speed(void)
{
	return loop_speed;
}

int64_t sim_loop_scale(double ms)
{
	return (int64_t)(ms * 1000.0 / loop_speed);
}
