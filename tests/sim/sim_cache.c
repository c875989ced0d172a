/*
 * sim_cache.c - see sim_cache.h.
 */
#include "tests/sim/sim_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_text.h"

/* FNV-1a, twice with different offsets: accidents are what it guards from,
 * not adversaries. */
#define FNV_PRIME 0x100000001b3ULL

struct sim_subcache {
	char *name;              /* "id\nclass" */
	struct sim_cache *cache; /* NULL: never expanded */
	char suffix[SIM_SUFFIX_LEN + 1];
	bool used;
};

void sim_key_init(struct sim_key *k)
{
	k->h[0] = 0xcbf29ce484222325ULL;
	k->h[1] = 0x6c62272e07bb0142ULL;
}

void sim_key_add(struct sim_key *k, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		k->h[0] = (k->h[0] ^ p[i]) * FNV_PRIME;
		k->h[1] = (k->h[1] ^ (p[i] + 0x55U)) * FNV_PRIME;
	}
}

void sim_key_add_text(struct sim_key *k, const char *text)
{
	/* With its terminator, so that "ab" "c" is not "a" "bc". */
	sim_key_add(k, text, strlen(text) + 1);
}

void sim_key_add_nonce(struct sim_key *k)
{
	static uint64_t nonce;

	nonce++;
	sim_key_add(k, &nonce, sizeof(nonce));
}

struct sim_cache *sim_cache_new(void)
{
	return sim_calloc(1, sizeof(struct sim_cache));
}

static void drop_outputs(struct sim_entry *e)
{
	for (size_t i = 0; i < e->nout; i++)
		sim_value_unref(e->out[i]);
	free(e->out);
	e->out = NULL;
	e->nout = 0;
	e->done = false;
}

static void entry_free(struct sim_entry *e)
{
	drop_outputs(e);
	free(e->ui);
	free(e->meta);
	free(e);
}

static void subcache_free(struct sim_subcache *s)
{
	sim_cache_free(s->cache);
	free(s->name);
	free(s);
}

void sim_cache_free(struct sim_cache *c)
{
	size_t i;

	if (!c)
		return;
	map_for_each (i, &c->entries)
		entry_free(c->entries.slots[i].value);
	map_for_each (i, &c->subs)
		subcache_free(c->subs.slots[i].value);
	map_deinit(&c->entries);
	map_deinit(&c->subs);
	free(c);
}

static struct sim_subcache *subcache(struct sim_cache *c, const char *id,
                                     const char *class_name, bool make)
{
	struct sim_subcache *s;
	char *name = NULL;

	if (asprintf(&name, "%s\n%s", id, class_name) < 0)
		abort();
	s = map_get(&c->subs, name, strlen(name));
	if (s || !make) {
		free(name);
		return s;
	}
	s = sim_calloc(1, sizeof(*s));
	s->name = name;
	for (int i = 0; i < SIM_SUFFIX_LEN; i++)
		s->suffix[i] = (char)('a' + random() % 26);
	if (map_add(&c->subs, s->name, strlen(s->name), s))
		abort();
	return s;
}

void sim_cache_begin(struct sim_cache *c)
{
	size_t i;

	map_for_each (i, &c->entries)
		((struct sim_entry *)c->entries.slots[i].value)->used = false;
	map_for_each (i, &c->subs)
		((struct sim_subcache *)c->subs.slots[i].value)->used = false;
}

void sim_cache_use(struct sim_cache *c, const struct sim_key *k, const char *id,
                   const char *class_name)
{
	struct sim_entry *e = sim_cache_get(c, k);
	struct sim_subcache *s = subcache(c, id, class_name, false);

	if (e)
		e->used = true;
	if (s)
		s->used = true;
}

/* Both maps are rebuilt rather than thinned out: one pass. */
static void clean_entries(struct sim_cache *c)
{
	struct map kept = MAP_NULL;
	size_t i;

	map_for_each (i, &c->entries) {
		struct sim_entry *e = c->entries.slots[i].value;

		if (!e->used)
			entry_free(e);
		else if (map_add(&kept, (const char *)&e->key, sizeof(e->key),
		                 e))
			abort();
	}
	map_deinit(&c->entries);
	c->entries = kept;
}

void sim_cache_clean(struct sim_cache *c)
{
	struct map kept = MAP_NULL;
	size_t i;

	clean_entries(c);
	map_for_each (i, &c->subs) {
		struct sim_subcache *s = c->subs.slots[i].value;

		if (!s->used)
			subcache_free(s);
		else if (map_add(&kept, s->name, strlen(s->name), s))
			abort();
	}
	map_deinit(&c->subs);
	c->subs = kept;
}

struct sim_entry *sim_cache_get(const struct sim_cache *c,
                                const struct sim_key *k)
{
	return map_get(&c->entries, (const char *)k, sizeof(*k));
}

struct sim_entry *sim_cache_put(struct sim_cache *c, const struct sim_key *k)
{
	struct sim_entry *e = sim_cache_get(c, k);

	if (e)
		return e;
	e = sim_calloc(1, sizeof(*e));
	e->key = *k;
	e->used = true;
	if (map_add(&c->entries, (const char *)&e->key, sizeof(e->key), e))
		abort();
	return e;
}

void sim_entry_set_outputs(struct sim_entry *e, struct sim_value **out,
                           size_t n)
{
	drop_outputs(e);
	e->out = sim_calloc(n, sizeof(struct sim_value *));
	for (size_t i = 0; i < n; i++)
		e->out[i] = out[i];
	e->nout = n;
	e->done = true;
}

struct sim_cache *sim_cache_sub(struct sim_cache *c, const char *id,
                                const char *class_name)
{
	struct sim_subcache *s = subcache(c, id, class_name, true);

	s->used = true;
	if (!s->cache)
		s->cache = sim_cache_new();
	return s->cache;
}

const char *sim_cache_suffix(struct sim_cache *c, const char *id,
                             const char *class_name)
{
	struct sim_subcache *s = subcache(c, id, class_name, true);

	s->used = true;
	return s->suffix;
}
