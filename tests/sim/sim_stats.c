/*
 * sim_stats.c - see sim_stats.h.
 */
#include "tests/sim/sim_stats.h"

void sim_stats_count(struct sim_stats *s, const char *method,
                     const char *pattern)
{
	size_t i;

	s->total++;
	/* Both are of a fixed table each, so pointers tell them apart. */
	for (i = 0; i < s->n; i++) {
		if (s->requests[i].method == method &&
		    s->requests[i].pattern == pattern)
			break;
	}
	if (i == SIM_STATS_PATTERNS)
		return;
	if (i == s->n) {
		s->requests[i].method = method;
		s->requests[i].pattern = pattern;
		s->n++;
	}
	s->requests[i].count++;
}

void sim_stats_put(const struct sim_stats *s, struct buf *b)
{
	(void)buf_putc(b, '{');
	for (size_t i = 0; i < s->n; i++)
		(void)buf_printf(b, "%s\"%s %s\": %llu", i ? ", " : "",
		                 s->requests[i].method, s->requests[i].pattern,
		                 (unsigned long long)s->requests[i].count);
	(void)buf_putc(b, '}');
}
