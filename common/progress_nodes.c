/*
 * progress_nodes.c - the nodes of a prompt: their states, the lists of the
 * completed and the cached, their outputs. See progress_impl.h.
 */
#include <stdlib.h>
#include <string.h>

#include "common/progress_impl.h"

static const char outputs_none[] = "{}";

void progress_nodes_init(struct progress *p)
{
	list_init(&p->running);
	p->completed.nodes = &p->pub.completed_nodes;
	p->cached.nodes = &p->pub.cached_nodes;
	/* Bounded by the number and length of ids. */
	buf_init(&p->completed.json, SIZE_MAX);
	buf_init(&p->cached.json, SIZE_MAX);
	buf_init(&p->outputs, PROGRESS_OUTPUTS_MAX);
	p->pub.outputs = outputs_none;
	p->pub.outputs_len = strlen(outputs_none);
}

void progress_nodes_deinit(struct progress *p)
{
	size_t i;

	map_for_each (i, &p->nodes)
		free(p->nodes.slots[i].value);
	map_deinit(&p->nodes);
	free(p->pub.completed_nodes.ids);
	free(p->pub.cached_nodes.ids);
	buf_deinit(&p->completed.json);
	buf_deinit(&p->cached.json);
	buf_deinit(&p->outputs);
}

/* ---- finding ---- */

static struct node *node_new(struct progress *p, struct span id)
{
	struct node *n;

	if (p->nodes.count >= PROGRESS_NODES_MAX)
		return NULL;
	n = calloc(1, sizeof(*n) + id.n + 1);
	if (!n)
		return NULL;
	list_init(&n->running);
	n->id_len = id.n;
	if (id.n > 0)
		memcpy(n->id, id.p, id.n);
	if (map_add(&p->nodes, n->id, n->id_len, n) < 0) {
		free(n);
		return NULL;
	}
	return n;
}

/* `id` is decoded. */
static struct node *node_get(struct progress *p, struct span id)
{
	struct node *n = map_get(&p->nodes, id.p, id.n);

	if (n)
		return n;
	/* Ids are handed out as C strings. */
	if (id.n <= PROGRESS_NODE_ID_MAX && !memchr(id.p, '\0', id.n))
		n = node_new(p, id);
	if (!n)
		p->pub.nodes_truncated = true;
	return n;
}

/* Decodes into `id`, unless the bytes stand for themselves. */
static bool id_decode(struct span *raw_id, struct buf *id)
{
	if (!raw_id->p)
		return false;
	if (!memchr(raw_id->p, '\\', raw_id->n))
		return true;
	/* The quotes are where the string was taken from. */
	if (json_string_decode(
		    (struct json){JSON_STRING, {raw_id->p - 1, raw_id->n + 2}},
		    id) < 0)
		return false;
	*raw_id = span_make(id->data, id->len);
	return true;
}

struct node *progress_node(struct progress *p, struct span raw_id)
{
	cleanup_buf struct buf id = BUF_INIT(PROGRESS_NODE_ID_MAX);

	if (id_decode(&raw_id, &id))
		return node_get(p, raw_id);
	p->pub.nodes_truncated |= raw_id.p != NULL;
	return NULL;
}

struct node *progress_find_node(const struct progress *p, struct span raw_id)
{
	cleanup_buf struct buf id = BUF_INIT(PROGRESS_NODE_ID_MAX);

	return id_decode(&raw_id, &id) ? map_get(&p->nodes, raw_id.p, raw_id.n)
	                               : NULL;
}

/* ---- lists ---- */

static bool node_list_grow(struct node_list *l)
{
	size_t cap = l->cap ? l->cap * 2 : 16;
	char **ids;

	if (l->nodes->count < l->cap)
		return true;
	ids = realloc(l->nodes->ids, cap * sizeof(*ids));
	if (!ids)
		return false;
	l->nodes->ids = ids;
	l->cap = cap;
	return true;
}

static bool node_list_text(struct node_list *l, const struct node *n)
{
	size_t len = l->json.len;

	if (len > 0)
		(void)buf_putc(&l->json, ',');
	(void)buf_json_string(&l->json, n->id, n->id_len);
	if (buf_ok(&l->json))
		return true;
	buf_reset(&l->json);
	l->json.len = len;
	return false;
}

static void node_list_add(struct progress *p, struct node_list *l,
                          struct node *n)
{
	if (node_list_grow(l) && node_list_text(l, n))
		l->nodes->ids[l->nodes->count++] = n->id;
	else
		p->pub.nodes_truncated = true;
}

/* Rare, and so without an index: see progress_node_cache(). */
static void node_list_remove(struct progress *p, struct node_list *l,
                             const struct node *n)
{
	size_t count = l->nodes->count;

	buf_reset(&l->json);
	l->nodes->count = 0;
	for (size_t i = 0; i < count; i++) {
		struct node *other =
			container_of(l->nodes->ids[i], struct node, id);

		if (other != n)
			node_list_add(p, l, other);
	}
}

/* ---- states ---- */

unsigned progress_refresh_current(struct progress *p)
{
	static const struct node nothing;
	struct cmx_progress *c = &p->pub;
	const struct node *n = &nothing;
	const char *id = NULL;

	if (!list_empty(&p->running)) {
		n = list_first(&p->running, struct node, running);
		id = n->id;
	}
	/* Equal means identical here: a copy of what was copied before. */
	if (c->current_node == id &&
	    !(c->current_node_progress < n->fraction) &&
	    !(c->current_value < n->value || c->current_value > n->value) &&
	    !(c->current_max < n->max || c->current_max > n->max))
		return PROGRESS_SAME;
	c->current_node = id;
	c->current_node_progress = n->fraction;
	c->current_value = n->value;
	c->current_max = n->max;
	return PROGRESS_STEP;
}

static void node_touch(struct progress *p, struct node *n)
{
	list_del(&n->running);
	list_prepend(&p->running, &n->running);
}

unsigned progress_node_start(struct progress *p, struct node *n)
{
	if (n->state != NODE_IDLE && n->state != NODE_RUNNING)
		return PROGRESS_SAME;
	node_touch(p, n);
	if (n->state == NODE_RUNNING)
		return PROGRESS_SAME;
	n->state = NODE_RUNNING;
	n->ran = true;
	return PROGRESS_NODE;
}

unsigned progress_node_step(struct progress *p, struct node *n, double value,
                            double max)
{
	double fraction;

	if (n->state != NODE_RUNNING || !(max > 0))
		return PROGRESS_SAME;
	fraction = value / max;
	if (!(fraction > 0))
		fraction = 0;
	if (fraction > 1)
		fraction = 1;
	if (fraction < n->fraction ||
	    (fraction <= n->fraction && value <= n->value && max <= n->max &&
	     n->max > 0))
		return PROGRESS_SAME;
	n->fraction = fraction;
	n->value = value;
	n->max = max;
	node_touch(p, n);
	return PROGRESS_STEP;
}

unsigned progress_node_complete(struct progress *p, struct node *n)
{
	if (n->state != NODE_IDLE && n->state != NODE_RUNNING)
		return PROGRESS_SAME;
	list_del(&n->running);
	n->state = NODE_COMPLETED;
	node_list_add(p, &p->completed, n);
	return PROGRESS_NODE;
}

unsigned progress_node_cache(struct progress *p, struct node *n)
{
	if (n->state == NODE_CACHED || n->ran)
		return PROGRESS_SAME;
	/* Of a course heard in part, a cached node with output looks like one
	 * that ran, until history tells. */
	if (n->state == NODE_COMPLETED)
		node_list_remove(p, &p->completed, n);
	n->state = NODE_CACHED;
	node_list_add(p, &p->cached, n);
	return PROGRESS_NODE;
}

unsigned progress_complete_running(struct progress *p)
{
	unsigned change = PROGRESS_SAME;
	struct list *it, *prev;
	struct node *n;

	/* From behind: in the order they were heard of. */
	for (it = p->running.prev; it != &p->running; it = prev) {
		prev = it->prev;
		n = list_entry(it, struct node, running);
		if (n->confirmed)
			change |= progress_node_complete(p, n);
	}
	progress_drop_running(p);
	return change;
}

void progress_drop_running(struct progress *p)
{
	struct node *n;

	while (!list_empty(&p->running)) {
		n = list_first(&p->running, struct node, running);
		list_del(&n->running);
		n->state = NODE_IDLE;
	}
}

/* ---- outputs ---- */

static void outputs_publish(struct progress *p)
{
	p->pub.outputs = p->outputs.len > 0 ? p->outputs.data : outputs_none;
	p->pub.outputs_len =
		p->outputs.len > 0 ? p->outputs.len : strlen(outputs_none);
}

/* Appends the member in place of the closing brace. */
static bool outputs_add(struct progress *p, struct node *n, struct json output)
{
	struct buf *b = &p->outputs;
	size_t len = b->len;

	if (len == 0)
		(void)buf_putc(b, '{');
	else
		b->data[--b->len] = ',';
	if (len > 0)
		b->len++;
	(void)buf_json_string(b, n->id, n->id_len);
	(void)buf_putc(b, ':');
	n->output_at = b->len;
	(void)json_compact(b, output);
	n->output_len = b->len - n->output_at;
	(void)buf_putc(b, '}');
	if (buf_ok(b))
		return true;
	buf_reset(b);
	b->len = len;
	if (len > 0)
		b->data[len - 1] = '}';
	return false;
}

/* Puts `text` in the place of the node's output. */
static bool outputs_replace(struct progress *p, struct node *n,
                            const struct buf *text)
{
	struct buf *b = &p->outputs;
	size_t tail = b->len - n->output_at - n->output_len, i;
	struct node *other;
	char *at;

	if (text->len > n->output_len &&
	    !buf_reserve(b, text->len - n->output_len)) {
		b->failed = false;
		return false;
	}
	at = b->data + n->output_at;
	memmove(at + text->len, at + n->output_len, tail);
	memcpy(at, text->data, text->len);
	b->len = n->output_at + text->len + tail;
	map_for_each (i, &p->nodes) {
		other = p->nodes.slots[i].value;
		if (other->has_output && other->output_at > n->output_at)
			other->output_at += text->len - n->output_len;
	}
	n->output_len = text->len;
	return true;
}

unsigned progress_set_output(struct progress *p, struct node *n,
                             struct json output, bool replace)
{
	struct buf text = BUF_INIT(PROGRESS_OUTPUTS_MAX);
	bool same, kept = false;

	if (n->has_output && !replace)
		return PROGRESS_SAME;
	if (!n->has_output) {
		kept = n->has_output = outputs_add(p, n, output);
	} else if (json_compact(&text, output) == 0) {
		same = text.len == n->output_len &&
		       memcmp(text.data, p->outputs.data + n->output_at,
		              text.len) == 0;
		if (same) {
			buf_deinit(&text);
			return PROGRESS_SAME;
		}
		kept = outputs_replace(p, n, &text);
	}
	buf_deinit(&text);
	outputs_publish(p);
	if (!kept)
		p->pub.outputs_truncated = true;
	return kept ? PROGRESS_OUTPUT : PROGRESS_SAME;
}
