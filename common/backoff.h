/*
 * backoff.h - delays between attempts: 1, 2, 4, 8, 16, 30 s (or a table of
 * one's own), jittered, back to the start after a stable success. Pure.
 */
#ifndef COMMON_BACKOFF_H
#define COMMON_BACKOFF_H

#include <stddef.h>
#include <stdint.h>

struct backoff {
	const uint32_t *table_ms; /* delays; the last one repeats */
	size_t count;
	size_t next;             /* index of the next delay */
	uint32_t jitter_percent; /* delay is spread +-this much */
	uint64_t rng;
};

/* 1, 2, 4, 8, 16, 30 s: what the upstream link uses. */
extern const uint32_t backoff_link_ms[6];

void backoff_init(struct backoff *b, const uint32_t *table_ms, size_t count,
                  uint32_t jitter_percent, uint64_t seed);
/* The delay before the next attempt, and one step on. */
uint32_t backoff_next_ms(struct backoff *b);
void backoff_reset(struct backoff *b);

#endif
