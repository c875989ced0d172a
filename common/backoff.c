/*
 * backoff.c - see backoff.h.
 *
 * The generator is SplitMix64 (Steele, Lea, Flood 2014): any seed is good, and
 * jitter needs no secrecy.
 */
#include "common/backoff.h"

const uint32_t backoff_link_ms[6] = {1000, 2000, 4000, 8000, 16000, 30000};

static uint64_t rng_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15U;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
	z = (z ^ z >> 27) * 0x94d049bb133111ebU;
	return z ^ z >> 31;
}

void backoff_init(struct backoff *b, const uint32_t *table_ms, size_t count,
                  uint32_t jitter_percent, uint64_t seed)
{
	*b = (struct backoff){
		.table_ms = table_ms,
		.count = count,
		/* More would ask for a negative delay. */
		.jitter_percent = jitter_percent > 100 ? 100 : jitter_percent,
		.rng = seed,
	};
}

uint32_t backoff_next_ms(struct backoff *b)
{
	uint64_t base, spread, delay;

	if (b->count == 0)
		return 0;
	base = b->table_ms[b->next];
	if (b->next + 1 < b->count)
		b->next++;
	spread = base * b->jitter_percent / 100;
	delay = base - spread + rng_next(&b->rng) % (2 * spread + 1);
	return delay > UINT32_MAX ? UINT32_MAX : (uint32_t)delay;
}

void backoff_reset(struct backoff *b)
{
	b->next = 0;
}
