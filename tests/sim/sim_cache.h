/*
 * sim_cache.h - outputs of nodes that ran, kept for as long as the latest
 * prompt has a node of the same key (class, inputs, ancestors).
 *
 * Nodes of an expansion have a cache of their own below the node that
 * expanded. A cache also keeps what ComfyUI keeps in a node's object: the
 * random suffix of PreviewImage's file names.
 */
#ifndef TESTS_SIM_CACHE_H
#define TESTS_SIM_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/map.h"
#include "tests/sim/sim_value.h"

#define SIM_SUFFIX_LEN 5

struct sim_key {
	uint64_t h[2];
};

struct sim_entry {
	struct sim_key key;
	struct sim_value **out; /* NULL: no outputs yet */
	size_t nout;
	bool done;  /* outputs are set */
	char *ui;   /* JSON object, NULL: none */
	char *meta; /* JSON object beside `ui` */
	bool used;
};

struct sim_cache {
	struct map entries; /* struct sim_entry by its key */
	struct map subs;    /* struct sim_subcache by "id\nclass" */
};

struct sim_subcache;

struct sim_cache *sim_cache_new(void);
void sim_cache_free(struct sim_cache *c);

/* A key under construction; order matters. */
void sim_key_init(struct sim_key *k);
void sim_key_add(struct sim_key *k, const void *data, size_t len);
void sim_key_add_text(struct sim_key *k, const char *text);
/* Something that is never the same twice. */
void sim_key_add_nonce(struct sim_key *k);

/* Which entries stay: begin, use for each node, clean. */
void sim_cache_begin(struct sim_cache *c);
void sim_cache_use(struct sim_cache *c, const struct sim_key *k, const char *id,
                   const char *class_name);
void sim_cache_clean(struct sim_cache *c);

/* NULL if there is none. */
struct sim_entry *sim_cache_get(const struct sim_cache *c,
                                const struct sim_key *k);
/* Made if there is none. */
struct sim_entry *sim_cache_put(struct sim_cache *c, const struct sim_key *k);
/* Takes over the references in `out`. */
void sim_entry_set_outputs(struct sim_entry *e, struct sim_value **out,
                           size_t n);
struct sim_cache *sim_cache_sub(struct sim_cache *c, const char *id,
                                const char *class_name);
const char *sim_cache_suffix(struct sim_cache *c, const char *id,
                             const char *class_name);

#endif
