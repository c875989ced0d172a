/*
 * restart_policy.c - see restart_policy.h.
 */
#include "supervisor/restart_policy.h"

/* After this many failures beyond the first. */
static int64_t delay_ms(unsigned failures)
{
	int64_t d = RESTART_DELAY_MIN_MS;

	while (failures-- > 1 && d < RESTART_DELAY_MAX_MS)
		d *= 2;
	return d < RESTART_DELAY_MAX_MS ? d : RESTART_DELAY_MAX_MS;
}

void restart_policy_died(struct restart_policy *p, int64_t now_ms,
                         int64_t used_ms)
{
	if (used_ms >= RESTART_STABLE_MS)
		p->failures = 0;
	p->failures += used_ms < 0 ? RESTART_EARLY : 1;
	if (p->failures > RESTART_FAILURES_MAX)
		p->failures = RESTART_FAILURES_MAX;
	p->due_ms = now_ms;
	if (p->failures > 1)
		p->due_ms += delay_ms(p->failures - 1);
}

int64_t restart_policy_wait_ms(const struct restart_policy *p, int64_t now_ms)
{
	return p->due_ms > now_ms ? p->due_ms - now_ms : 0;
}
