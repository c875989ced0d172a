/*
 * map.h - hash table from byte strings to pointers, intrusive-free, with
 * random seed (keys come from untrusted peers).
 *
 * Keys are not copied: they must live as long as their entry, usually inside
 * the object that the entry points to.
 */
#ifndef COMMON_MAP_H
#define COMMON_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry {
	const char *key;
	size_t key_len;
	uint64_t hash;
	void *value; /* NULL: free slot */
};

struct map {
	struct map_entry *slots;
	size_t cap, count; /* cap is 0 or a power of two */
	uint64_t seed[2];
};

#define MAP_NULL                                                               \
	{                                                                      \
		0                                                              \
	}

/* Releases the table (not keys and values); safe twice. */
void map_deinit(struct map *m);
/* NULL if there is none. */
void *map_get(const struct map *m, const char *key, size_t key_len);
/* 0, -EEXIST if the key is there, -ENOMEM. `value` must not be NULL. */
int map_add(struct map *m, const char *key, size_t key_len, void *value);
/* The value that was there, or NULL. */
void *map_remove(struct map *m, const char *key, size_t key_len);

/* Visits every value; the table must not change meanwhile. */
#define map_for_each(i, m)                                                     \
	for ((i) = 0; (i) < (m)->cap; (i)++)                                   \
		if ((m)->slots[i].value)

#endif
