/*
 * restart_policy.h - when the successor of a process that died may start. Pure.
 *
 * The first is free: a session that lost its worker goes on at once. Then the
 * delay doubles up to a cap. A process that died before it was of any use
 * counts RESTART_EARLY times, one that lived for RESTART_STABLE_MS clears what
 * was before. Nothing is ever given up: what keeps dying is only tried at the
 * pace of the cap.
 */
#ifndef SUPERVISOR_RESTART_POLICY_H
#define SUPERVISOR_RESTART_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define RESTART_DELAY_MIN_MS 100
#define RESTART_DELAY_MAX_MS 1000 /* a fork takes one: no burden */
#define RESTART_STABLE_MS    5000 /* in use for so long: a success */
#define RESTART_EARLY        3    /* failures that an early death counts */
#define RESTART_FAILURES_MAX 64   /* counted; more change nothing */

struct restart_policy { /* zeroed: nothing has happened */
	unsigned failures;
	int64_t due_ms; /* no successor before it */
};

/* A process that nobody wanted to die has died. `used_ms`: how long it was in
 * use; negative if it never came to that. */
void restart_policy_died(struct restart_policy *p, int64_t now_ms,
                         int64_t used_ms);
/* How long the next has to wait; 0: not at all. */
int64_t restart_policy_wait_ms(const struct restart_policy *p, int64_t now_ms);

#endif
