/*
 * result.c - libcomfymux: results. Each lies in one block of memory, which is
 * measured first and then filled by the same function.
 */
#include <stdlib.h>
#include <string.h>

#include "workers/lib/lib.h"

#define ALIGNMENT sizeof(void *)

/* --- the course in words -------------------------------------------------- */

static bool on_line(void *user, const char *line)
{
	struct lib_log *l = user;
	char **more;

	if (l->count >= CMX_LOG_LINES_MAX)
		return false;
	more = realloc(l->lines, (l->count + 1) * sizeof(*more));
	if (!more)
		return false;
	l->lines = more;
	l->lines[l->count] = strdup(line);
	if (!l->lines[l->count])
		return false;
	l->count++;
	return true;
}

void lib_log_update(struct lib_log *l, const struct cmx_progress *p)
{
	if (!l->begun)
		progress_log_init(&l->told);
	l->begun = true;
	/* Without memory it ends early. */
	if (!l->full && progress_log_update(&l->told, p, on_line, l))
		l->full = true;
}

void lib_log_deinit(struct lib_log *l)
{
	if (l->begun)
		progress_log_deinit(&l->told);
	for (size_t i = 0; i < l->count; i++)
		free(l->lines[i]);
	free(l->lines);
	memset(l, 0, sizeof(*l));
}

/* --- packing -------------------------------------------------------------- */

struct pack {
	char *base; /* NULL: only measured */
	size_t len;
};

/* Room for `len` bytes, zeroed. NULL while measuring. */
static void *take(struct pack *k, size_t len)
{
	char *p = k->base ? k->base + k->len : NULL;

	k->len += (len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return p;
}

static char *pack_bytes(struct pack *k, const char *s, size_t len)
{
	char *to;

	if (!s)
		return NULL;
	to = take(k, len + 1);
	if (to)
		memcpy(to, s, len);
	return to;
}

static char *pack_string(struct pack *k, const char *s)
{
	return s ? pack_bytes(k, s, strlen(s)) : NULL;
}

static char **pack_strings(struct pack *k, char *const *s, size_t count)
{
	char **to = take(k, count * sizeof(*to)), *copy;

	for (size_t i = 0; i < count; i++) {
		copy = pack_string(k, s[i]);
		if (to)
			to[i] = copy;
	}
	return to;
}

/* With `to` NULL only measured. */
static void pack_progress(struct pack *k, const struct cmx_progress *p,
                          struct cmx_progress *to)
{
	struct cmx_progress copy = *p;

	copy.prompt_id = pack_string(k, p->prompt_id);
	copy.current_node = pack_string(k, p->current_node);
	copy.completed_nodes.ids = pack_strings(k, p->completed_nodes.ids,
	                                        p->completed_nodes.count);
	copy.cached_nodes.ids =
		pack_strings(k, p->cached_nodes.ids, p->cached_nodes.count);
	copy.outputs = pack_bytes(k, p->outputs, p->outputs_len);
	copy.error.node_id = pack_string(k, p->error.node_id);
	copy.error.message = pack_string(k, p->error.message);
	copy.error.type = pack_string(k, p->error.type);
	if (to)
		*to = copy;
}

/* --- results -------------------------------------------------------------- */

/* What nothing is known of: it was never submitted. */
static const struct cmx_progress nothing = {
	.prompt_id = "",
	.status = CMX_FAILED,
	.method = CMX_POLLING,
	.queue_position = -1,
	.outputs = "{}",
	.outputs_len = 2,
};

/* For a person; NULL if all is well. */
static const char *text_of(const struct lib_ending *e)
{
	if (e->error && e->error->text[0])
		return e->error->text;
	if (e->progress && e->progress->error.message)
		return e->progress->error.message;
	return e->code == CMX_OK ? NULL : cmx_strerror(e->code);
}

static struct cmx_result *pack_result(struct pack *k,
                                      const struct lib_ending *e)
{
	struct cmx_result *r = take(k, sizeof(*r));
	struct cmx_progress *p = take(k, sizeof(*p));
	struct cmx_result copy = {
		.code = e->code,
		.submitted = e->submitted,
		.index = e->index,
		.progress = p,
		.log_count = e->log ? e->log->count : 0,
	};

	pack_progress(k, e->progress ? e->progress : &nothing, p);
	copy.text = pack_string(k, text_of(e));
	if (json_is(e->node_errors, JSON_OBJECT))
		copy.node_errors = pack_bytes(k, e->node_errors.text.p,
		                              e->node_errors.text.n);
	if (e->log)
		copy.log = (const char *const *)pack_strings(k, e->log->lines,
		                                             e->log->count);
	copy.handed = pack_string(k, e->handed);
	if (r)
		*r = copy;
	return r;
}

struct cmx_result *lib_result_new(const struct lib_ending *e)
{
	struct pack k = {.base = NULL};

	(void)pack_result(&k, e);
	k.base = calloc(1, k.len);
	k.len = 0;
	return k.base ? pack_result(&k, e) : NULL;
}

void cmx_result_free(struct cmx_result *r)
{
	free(r);
}

/* The struct of the interface comes first. */
struct results {
	struct cmx_results pub;
	struct cmx_result *items[];
};

struct cmx_results *lib_results_new(struct cmx_result **items, size_t count)
{
	struct results *r =
		malloc(sizeof(*r) + count * sizeof(struct cmx_result *));

	if (!r) {
		for (size_t i = 0; i < count; i++)
			cmx_result_free(items[i]);
		return NULL;
	}
	memcpy(r->items, items, count * sizeof(struct cmx_result *));
	r->pub = (struct cmx_results){
		.count = count,
		.items = (const struct cmx_result *const *)r->items,
	};
	for (size_t i = 0; i < count; i++)
		r->pub.completed += items[i]->code == CMX_OK;
	return &r->pub;
}

void cmx_results_free(struct cmx_results *pub)
{
	struct results *r = (struct results *)(void *)pub;

	if (!r)
		return;
	for (size_t i = 0; i < r->pub.count; i++)
		cmx_result_free(r->items[i]);
	free(r);
}
