/*
 * tool_recall.c - see tool_recall.h.
 */
#include "workers/tool_recall.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/progress.h"
#include "common/workflow.h"

struct tool_facts {
	struct list node;
	char *prompt_id;
	size_t nodes;
	struct buf names; /* id, NUL, class, NUL, ... */
};

/* With its NUL, and no other. */
static bool put_name(struct buf *names, struct json name)
{
	size_t before = names->len;

	return json_string_decode(name, names) == 0 &&
	       (names->len == before ||
	        !memchr(names->data + before, '\0', names->len - before)) &&
	       buf_putc(names, '\0') == 0;
}

/* False when it is full: those that are in it will do. */
static bool put_names(struct tool_facts *f, struct json id, struct json class)
{
	size_t before = f->names.len;

	if (put_name(&f->names, id) && put_name(&f->names, class))
		return true;
	f->names.len = before;
	return false;
}

struct tool_facts *tool_facts_new(struct json workflow)
{
	struct tool_facts *f = calloc(1, sizeof(*f));
	struct json_iter it;
	struct json id, node;

	if (!f)
		return NULL;
	list_init(&f->node);
	buf_init(&f->names, TOOL_RECALL_BYTES);
	f->nodes = workflow_node_count(workflow);
	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node) &&
	       put_names(f, id, json_get(node, "class_type")))
		;
	return f;
}

struct tool_facts *tool_facts_free(struct tool_facts *f)
{
	if (!f)
		return NULL;
	list_del(&f->node);
	buf_deinit(&f->names);
	free(f->prompt_id);
	free(f);
	return NULL;
}

size_t tool_facts_nodes(const struct tool_facts *f)
{
	return f->nodes;
}

const char *tool_facts_class(const struct tool_facts *f, const char *node)
{
	const char *p = f->names.data, *end = p + f->names.len;

	while (p < end) {
		const char *class = p + strlen(p) + 1;

		if (strcmp(p, node) == 0)
			return class;
		p = class + strlen(class) + 1;
	}
	return NULL;
}

const struct tool_facts *tool_recall_find(const struct tool_host *h,
                                          struct json prompt_id)
{
	struct list *it;

	list_for_each (it, &h->recalled) {
		const struct tool_facts *f =
			list_entry(it, struct tool_facts, node);

		if (json_string_eq(prompt_id, f->prompt_id))
			return f;
	}
	return NULL;
}

/* False if it is no use. */
static bool keep(struct tool_host *h, struct json prompt_id,
                 struct tool_facts *f)
{
	f->prompt_id = json_string_dup(prompt_id, PROGRESS_ID_MAX);
	if (!f->prompt_id || tool_recall_find(h, prompt_id)) {
		(void)tool_facts_free(f);
		return false;
	}
	if (h->recalled_count == TOOL_RECALL_MAX) {
		(void)tool_facts_free(
			list_first(&h->recalled, struct tool_facts, node));
		h->recalled_count--;
	}
	list_append(&h->recalled, &f->node);
	h->recalled_count++;
	return true;
}

void tool_recall_put(struct tool_host *h, struct json prompt_id,
                     struct tool_facts *f)
{
	if (keep(h, prompt_id, f) && h->on_recall)
		h->on_recall(h);
}

/* --- for a successor ----------------------------------------------------- */

static void save_names(const struct tool_facts *f, struct buf *out)
{
	const char *p = f->names.data, *end = p + f->names.len;
	bool first = true;

	for (; p < end; p += strlen(p) + 1) {
		if (!first)
			(void)buf_putc(out, ',');
		(void)buf_json_string(out, p, strlen(p));
		first = false;
	}
}

static void save_one(const struct tool_facts *f, bool names, struct buf *out)
{
	(void)buf_puts(out, out->data[out->len - 1] == '[' ? "{" : ",{");
	(void)buf_json_key(out, "id");
	(void)buf_json_string(out, f->prompt_id, strlen(f->prompt_id));
	(void)buf_printf(out, ",\"nodes\":%zu,\"names\":[", f->nodes);
	if (names)
		save_names(f, out);
	(void)buf_puts(out, "]}");
}

void tool_recall_save(const struct tool_host *h, struct buf *out)
{
	struct list *it;

	(void)buf_putc(out, '[');
	for (it = h->recalled.prev; it != &h->recalled; it = it->prev) {
		const struct tool_facts *f =
			list_entry(it, struct tool_facts, node);

		/* Escaped a byte takes up to six. */
		save_one(f, 6 * f->names.len + out->len < TOOL_RECALL_SAVED,
		         out);
	}
	(void)buf_putc(out, ']');
}

static void load_one(struct tool_host *h, struct json saved)
{
	struct tool_facts *f = tool_facts_new(JSON_MISSING);
	uint64_t nodes = 0;
	struct json_iter it;
	struct json id, class;

	if (!f)
		return;
	(void)json_uint64(json_get(saved, "nodes"), &nodes);
	f->nodes = (size_t)nodes;
	json_iter_init(&it, json_get(saved, "names"));
	while (json_iter_next(&it, NULL, &id) &&
	       json_iter_next(&it, NULL, &class) && put_names(f, id, class))
		;
	(void)keep(h, json_get(saved, "id"), f);
}

void tool_recall_load(struct tool_host *h, struct json saved)
{
	struct json each[TOOL_RECALL_MAX];
	struct json_iter it;
	size_t n = 0;

	tool_recall_clear(h);
	if (!json_is(saved, JSON_ARRAY))
		return;
	json_iter_init(&it, saved);
	while (n < TOOL_RECALL_MAX && json_iter_next(&it, NULL, &each[n]))
		n++;
	/* The newest was the first. */
	while (n > 0)
		load_one(h, each[--n]);
}

void tool_recall_clear(struct tool_host *h)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &h->recalled)
		(void)tool_facts_free(list_entry(it, struct tool_facts, node));
	h->recalled_count = 0;
}
