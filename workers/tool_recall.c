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
	while (json_iter_next(&it, &id, &node)) {
		size_t before = f->names.len;

		if (json_string_decode(id, &f->names) < 0 ||
		    buf_putc(&f->names, '\0') < 0 ||
		    json_string_decode(json_get(node, "class_type"),
		                       &f->names) < 0 ||
		    buf_putc(&f->names, '\0') < 0) {
			/* Full: those that are in it will do. */
			f->names.len = before;
			break;
		}
	}
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

void tool_recall_put(struct tool_host *h, struct json prompt_id,
                     struct tool_facts *f)
{
	f->prompt_id = json_string_dup(prompt_id, PROGRESS_ID_MAX);
	if (!f->prompt_id || tool_recall_find(h, prompt_id)) {
		(void)tool_facts_free(f);
		return;
	}
	if (h->recalled_count == TOOL_RECALL_MAX) {
		(void)tool_facts_free(
			list_first(&h->recalled, struct tool_facts, node));
		h->recalled_count--;
	}
	list_append(&h->recalled, &f->node);
	h->recalled_count++;
}

void tool_recall_clear(struct tool_host *h)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &h->recalled)
		(void)tool_facts_free(list_entry(it, struct tool_facts, node));
	h->recalled_count = 0;
}
