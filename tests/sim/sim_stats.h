/*
 * sim_stats.h - requests counted by method and path pattern.
 */
#ifndef TESTS_SIM_STATS_H
#define TESTS_SIM_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define SIM_STATS_PATTERNS 256

struct sim_stats {
	struct {
		const char *method, *pattern; /* static strings */
		uint64_t count;
	} requests[SIM_STATS_PATTERNS];
	size_t n;
	uint64_t total;
};

void sim_stats_count(struct sim_stats *s, const char *method,
                     const char *pattern);
/* {"GET /queue": 3, ...} */
void sim_stats_put(const struct sim_stats *s, struct buf *b);

#endif
