/*
 * map.c - see map.h.
 *
 * Open addressing with linear probing; removal shifts the rest of the run back
 * instead of leaving tombstones, so a table that churns for months doesn't
 * slow down. The hash is SipHash-1-3 (Aumasson, Bernstein 2012, with the round
 * counts that hash tables commonly use): without the seed a peer can't make up
 * keys that fall into one run.
 */
#include "common/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>

#include "common/siphash.h"

#define MAP_CAP_MIN 8

static uint64_t hash_key(const uint64_t seed[2], const char *key, size_t len)
{
	return siphash(seed, 1, 3, key, len);
}

static void make_seed(uint64_t seed[2])
{
	const void *at_random;

	/* 16 bytes at once are never cut short. Where a sandbox forbids the
	 * call, the bytes that the kernel gave at exec are as unknown to peers;
	 * only forked siblings share them. */
	if (getrandom(seed, 2 * sizeof(*seed), 0) == 2 * sizeof(*seed))
		return;
	at_random = (const void *)getauxval(AT_RANDOM);
	if (at_random)
		memcpy(seed, at_random, 2 * sizeof(*seed));
}

void map_deinit(struct map *m)
{
	free(m->slots);
	*m = (struct map)MAP_NULL;
}

/* The slot that holds the key, or the free one where it belongs. There always
 * is a free one, as the table is never full. */
static struct map_entry *find_slot(const struct map *m, const char *key,
                                   size_t len, uint64_t hash)
{
	size_t mask = m->cap - 1, i = (size_t)hash & mask;
	struct map_entry *e;

	for (;; i = (i + 1) & mask) {
		e = &m->slots[i];
		if (!e->value)
			return e;
		if (e->hash == hash && e->key_len == len &&
		    (len == 0 || memcmp(e->key, key, len) == 0))
			return e;
	}
}

void *map_get(const struct map *m, const char *key, size_t key_len)
{
	if (m->count == 0)
		return NULL;
	return find_slot(m, key, key_len, hash_key(m->seed, key, key_len))
	        ->value;
}

static int map_grow(struct map *m)
{
	size_t cap = m->cap ? m->cap * 2 : MAP_CAP_MIN;
	struct map old = *m;
	const struct map_entry *e;
	size_t i;

	if (m->cap > SIZE_MAX / 2)
		return -ENOMEM;
	m->slots = calloc(cap, sizeof(*m->slots));
	if (!m->slots) {
		m->slots = old.slots;
		return -ENOMEM;
	}
	m->cap = cap;
	if (old.cap == 0)
		make_seed(m->seed);
	map_for_each (i, &old) {
		e = &old.slots[i];
		*find_slot(m, e->key, e->key_len, e->hash) = *e;
	}
	free(old.slots);
	return 0;
}

int map_add(struct map *m, const char *key, size_t key_len, void *value)
{
	struct map_entry *e;
	uint64_t hash;
	int r;

	if (map_get(m, key, key_len))
		return -EEXIST;
	/* At most three quarters full: longer runs cost more than memory. */
	if (m->count + 1 > m->cap / 4 * 3) {
		r = map_grow(m);
		if (r < 0)
			return r;
	}
	hash = hash_key(m->seed, key, key_len);
	e = find_slot(m, key, key_len, hash);
	*e = (struct map_entry){key, key_len, hash, value};
	m->count++;
	return 0;
}

/* Closes the gap at `hole`: every later entry of the run that may stand there
 * (its home is not behind the hole) moves up. */
static void shift_back(struct map *m, size_t hole)
{
	size_t mask = m->cap - 1, home;

	for (size_t i = (hole + 1) & mask; m->slots[i].value;
	     i = (i + 1) & mask) {
		home = (size_t)m->slots[i].hash & mask;
		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		m->slots[hole] = m->slots[i];
		hole = i;
	}
	m->slots[hole] = (struct map_entry){0};
}

void *map_remove(struct map *m, const char *key, size_t key_len)
{
	struct map_entry *e;
	void *value;

	if (m->count == 0)
		return NULL;
	e = find_slot(m, key, key_len, hash_key(m->seed, key, key_len));
	value = e->value;
	if (!value)
		return NULL;
	shift_back(m, (size_t)(e - m->slots));
	m->count--;
	return value;
}
