/*
 * sim_graph.c - see sim_graph.h.
 */
#include "tests/sim/sim_graph.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_text.h"

#define KEY_DEPTH_MAX 2000 /* links that a cache key looks back */

void sim_graph_init(struct sim_graph *g)
{
	memset(g, 0, sizeof(*g));
	list_init(&g->pending);
	list_init(&g->touched);
}

static void input_deinit(struct sim_input *in)
{
	free(in->name);
	free(in->link);
	sim_value_unref(in->value);
}

static void node_free(struct sim_node *n)
{
	for (size_t i = 0; i < n->ninputs; i++)
		input_deinit(&n->inputs[i]);
	free(n->inputs);
	free(n->blocks);
	free(n->display);
	free(n->id);
	free(n);
}

void sim_graph_deinit(struct sim_graph *g)
{
	for (size_t i = 0; i < g->nnodes; i++)
		node_free(g->nodes[i]);
	free(g->nodes);
	map_deinit(&g->by_id);
	sim_graph_init(g);
}

struct sim_node *sim_graph_find(const struct sim_graph *g, const char *id)
{
	return map_get(&g->by_id, id, strlen(id));
}

struct sim_node *sim_graph_add(struct sim_graph *g, const char *id,
                               const struct sim_class *cls,
                               struct sim_node *parent, const char *display)
{
	struct sim_node *n, *shown = sim_graph_find(g, display);

	if (sim_graph_find(g, id))
		return NULL;
	n = sim_calloc(1, sizeof(*n));
	n->id = sim_strdup(id);
	n->cls = cls;
	n->parent = parent;
	/* A node shown as one that is itself shown as another. */
	n->display = sim_strdup(shown ? shown->display : display);
	list_init(&n->pending);
	list_init(&n->touched);
	if (map_add(&g->by_id, n->id, strlen(n->id), n))
		abort();
	if (g->nnodes % 64 == 0)
		g->nodes = sim_realloc(g->nodes, g->nnodes + 64,
		                       sizeof(struct sim_node *));
	g->nodes[g->nnodes++] = n;
	return n;
}

void sim_node_reset(struct sim_node *n, const struct sim_class *cls)
{
	for (size_t i = 0; i < n->ninputs; i++)
		input_deinit(&n->inputs[i]);
	n->ninputs = 0;
	n->cls = cls;
}

struct sim_input *sim_node_input(const struct sim_node *n, const char *name)
{
	for (size_t i = 0; i < n->ninputs; i++) {
		if (strcmp(n->inputs[i].name, name) == 0)
			return &n->inputs[i];
	}
	return NULL;
}

static struct sim_input *fresh_input(struct sim_node *n, const char *name)
{
	struct sim_input *in = sim_node_input(n, name);

	if (in) {
		input_deinit(in);
	} else {
		n->inputs = sim_realloc(n->inputs, n->ninputs + 1,
		                        sizeof(*n->inputs));
		in = &n->inputs[n->ninputs++];
	}
	*in = (struct sim_input){.name = sim_strdup(name)};
	return in;
}

void sim_node_set_input(struct sim_node *n, const char *name,
                        struct sim_value *value)
{
	struct sim_input *in = fresh_input(n, name);
	double slot = 0;

	if (!sim_value_is_link(value)) {
		in->value = value;
		return;
	}
	in->link = json_string_dup(json_at(sim_value_as_json(value), 0),
	                           value->len);
	(void)json_double(json_at(sim_value_as_json(value), 1), &slot);
	in->slot = (long)slot;
	if (in->link)
		sim_value_unref(value);
	else
		in->value = value;
}

void sim_node_set_link(struct sim_node *n, const char *name, const char *from,
                       long slot)
{
	struct sim_input *in = fresh_input(n, name);

	in->link = sim_strdup(from);
	in->slot = slot;
}

const struct sim_node *sim_node_real(const struct sim_node *n)
{
	while (n->parent)
		n = n->parent;
	return n;
}

struct sim_entry *sim_node_entry(const struct sim_node *n)
{
	return n->cache ? sim_cache_get(n->cache, &n->key) : NULL;
}

bool sim_node_cached(const struct sim_node *n)
{
	struct sim_entry *e = sim_node_entry(n);

	return e && e->done;
}

static int by_name(const void *a, const void *b)
{
	const struct sim_input *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static void
key_input(struct sim_graph *g, struct sim_key *k, const struct sim_input *in,
          void (*file_key)(void *, struct sim_node *, struct sim_key *),
          void *arg)
{
	struct sim_node *from;

	sim_key_add_text(k, in->name);
	if (!in->link) {
		/* A value made at run time is never the same, nor is NaN. */
		if (in->value->kind != SIM_V_JSON ||
		    strstr(in->value->text, "NaN"))
			sim_key_add_nonce(k);
		else
			sim_key_add_text(k, in->value->text);
		return;
	}
	from = sim_graph_find(g, in->link);
	sim_key_add(k, &in->slot, sizeof(in->slot));
	if (!from) {
		sim_key_add_nonce(k);
	} else if (from->key_state == SIM_KEY_BUSY) {
		sim_key_add_text(k, from->id);
	} else {
		sim_graph_key(g, from, file_key, arg);
		sim_key_add(k, &from->key, sizeof(from->key));
	}
}

void sim_graph_key(struct sim_graph *g, struct sim_node *n,
                   void (*file_key)(void *arg, struct sim_node *n,
                                    struct sim_key *k),
                   void *arg)
{
	unsigned flags = n->cls->row->flags;
	struct sim_input **sorted;
	static unsigned depth;
	struct sim_key k;

	if (n->key_state != SIM_KEY_NONE)
		return;
	n->key_state = SIM_KEY_BUSY;
	sim_key_init(&k);
	/* Longer chains are not validated, so they never run. */
	if (++depth > KEY_DEPTH_MAX) {
		sim_key_add_nonce(&k);
		n->key = k;
		n->key_state = SIM_KEY_SET;
		depth--;
		return;
	}
	sim_key_add_text(&k, n->cls->row->name);
	if (flags & SIM_UNIQUE)
		sim_key_add_text(&k, n->id);
	if (flags & SIM_VOLATILE)
		sim_key_add_nonce(&k);
	if (flags & SIM_READS_FILE)
		file_key(arg, n, &k);
	sorted = sim_calloc(n->ninputs, sizeof(struct sim_input *));
	for (size_t i = 0; i < n->ninputs; i++)
		sorted[i] = &n->inputs[i];
	qsort(sorted, n->ninputs, sizeof(struct sim_input *), by_name);
	for (size_t i = 0; i < n->ninputs; i++)
		key_input(g, &k, sorted[i], file_key, arg);
	free(sorted);
	n->key = k;
	n->key_state = SIM_KEY_SET;
	depth--;
}

static bool is_lazy(const struct sim_node *n, const char *name)
{
	const struct sim_class_input *in = sim_class_input(n->cls, name);

	return in && in->lazy;
}

void sim_graph_wait(struct sim_graph *g, struct sim_node *from,
                    struct sim_node *to)
{
	if (sim_node_cached(from))
		return;
	sim_graph_want(g, from);
	for (size_t i = 0; i < from->nblocks; i++) {
		if (from->blocks[i] == to)
			return;
	}
	from->blocks = sim_realloc(from->blocks, from->nblocks + 1,
	                           sizeof(struct sim_node *));
	from->blocks[from->nblocks++] = to;
	to->blocked_by++;
}

struct wanted {
	struct sim_node **stack;
	size_t n;
	struct sim_node **links; /* pairs: from, to */
	size_t nlinks;
};

static void push(struct sim_node ***listp, size_t *np, struct sim_node *n)
{
	if (*np % 64 == 0)
		*listp = sim_realloc(*listp, *np + 64,
		                     sizeof(struct sim_node *));
	(*listp)[(*np)++] = n;
}

static void want_one(struct sim_graph *g, struct wanted *w, struct sim_node *n)
{
	n->is_pending = true;
	list_append(&g->pending, &n->pending);
	n->blocked_by = 0;
	n->nblocks = 0;
	for (size_t i = 0; i < n->ninputs; i++) {
		struct sim_input *in = &n->inputs[i];
		struct sim_node *from =
			in->link ? sim_graph_find(g, in->link) : NULL;

		/* Lazy inputs are waited for when the node asks for them. */
		if (!from || is_lazy(n, in->name))
			continue;
		if (!sim_node_cached(from))
			push(&w->stack, &w->n, from);
		push(&w->links, &w->nlinks, from);
		push(&w->links, &w->nlinks, n);
	}
}

void sim_graph_want(struct sim_graph *g, struct sim_node *n)
{
	struct wanted w = {0};

	if (n->is_pending)
		return;
	push(&w.stack, &w.n, n);
	while (w.n) {
		struct sim_node *next = w.stack[--w.n];

		if (!next->is_pending)
			want_one(g, &w, next);
	}
	for (size_t i = 0; i < w.nlinks; i += 2)
		sim_graph_wait(g, w.links[i], w.links[i + 1]);
	free(w.stack);
	free(w.links);
}

static bool is_output(const struct sim_node *n)
{
	return n->cls->row->flags & SIM_OUTPUT;
}

static bool feeds_output(const struct sim_node *n, int depth)
{
	for (size_t i = 0; i < n->nblocks; i++) {
		if (depth == 1 ? is_output(n->blocks[i])
		               : feeds_output(n->blocks[i], depth - 1))
			return true;
	}
	return false;
}

/* Lower is sooner. */
static int rank(const struct sim_node *n)
{
	if (n->cls->row->flags & (SIM_OUTPUT | SIM_ASYNC))
		return 0;
	if (feeds_output(n, 1))
		return 1;
	if (feeds_output(n, 2))
		return 2;
	return 3;
}

struct sim_node *sim_graph_pick(const struct sim_graph *g)
{
	struct sim_node *best = NULL;
	int best_rank = 0;
	struct list *it;

	list_for_each (it, &g->pending) {
		struct sim_node *n = list_entry(it, struct sim_node, pending);
		int r;

		if (n->blocked_by)
			continue;
		r = rank(n);
		if (!best || r < best_rank) {
			best = n;
			best_rank = r;
		}
		if (r == 0)
			break;
	}
	return best;
}

void sim_graph_pop(struct sim_graph *g, struct sim_node *n)
{
	list_del(&n->pending);
	n->is_pending = false;
	for (size_t i = 0; i < n->nblocks; i++)
		n->blocks[i]->blocked_by--;
	n->nblocks = 0;
}

bool sim_graph_empty(const struct sim_graph *g)
{
	return list_empty(&g->pending);
}

/* Whether anything that `n` waits for is still in the set of suspects, of
 * which `out` are those that were cleared. */
static bool waits_for_suspect(const struct sim_graph *g,
                              const struct sim_node *n,
                              struct sim_node *const *out, size_t nout)
{
	struct list *it;

	list_for_each (it, &g->pending) {
		struct sim_node *from =
			list_entry(it, struct sim_node, pending);
		bool cleared = false;

		for (size_t i = 0; i < nout && !cleared; i++)
			cleared = out[i] == from;
		for (size_t i = 0; i < from->nblocks && !cleared; i++) {
			if (from->blocks[i] == n)
				return true;
		}
	}
	return false;
}

static bool contains(struct sim_node *const *list, size_t n,
                     const struct sim_node *x)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == x)
			return true;
	}
	return false;
}

const char *sim_graph_blame(const struct sim_graph *g)
{
	struct sim_node **out = NULL;
	const char *first = NULL, *blamed = NULL;
	size_t nout = 0;
	struct list *it;
	bool again = true;

	/* Clear what waits for nothing, again and again: the cycle remains,
	 * with what hangs on it. */
	while (again) {
		again = false;
		list_for_each (it, &g->pending) {
			struct sim_node *n =
				list_entry(it, struct sim_node, pending);

			if (!contains(out, nout, n) &&
			    !waits_for_suspect(g, n, out, nout)) {
				push(&out, &nout, n);
				again = true;
			}
		}
	}
	list_for_each (it, &g->pending) {
		struct sim_node *n = list_entry(it, struct sim_node, pending);

		if (contains(out, nout, n))
			continue;
		if (!first)
			first = n->id;
		/* A workflow's own cycles are refused, so the first node that
		 * isn't of the workflow is to blame: what it is shown as. */
		if (!blamed && strcmp(n->display, n->id) != 0)
			blamed = n->display;
	}
	free(out);
	return blamed ? blamed : first;
}
