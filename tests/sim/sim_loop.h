/*
 * sim_loop.h - timers of the one event loop, ordered by due time.
 *
 * The server module sleeps until sim_loop_next_us() and calls
 * sim_loop_run_due(). Simulated durations go through sim_loop_scale(), so that
 * --speed shortens all of them alike.
 */
#ifndef TESTS_SIM_LOOP_H
#define TESTS_SIM_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"

struct sim_timer {
	struct list link; /* in no list while not armed */
	int64_t due_us;
	void (*cb)(struct sim_timer *t);
};

void sim_timer_init(struct sim_timer *t, void (*cb)(struct sim_timer *t));
/* (Re)arms; a delay of 0 runs in the next turn of the loop, never at once. */
void sim_timer_start(struct sim_timer *t, int64_t delay_us);
void sim_timer_stop(struct sim_timer *t);
bool sim_timer_armed(const struct sim_timer *t);

/* When the first timer is due (clock_us()), or -1 without any. */
int64_t sim_loop_next_us(void);
void sim_loop_run_due(void);

/* Simulated durations are divided by this; > 0. */
void sim_loop_set_speed(double speed);
double sim_loop_speed(void);
/* Microseconds to wait for `ms` simulated milliseconds. */
int64_t sim_loop_scale(double ms);

#endif
