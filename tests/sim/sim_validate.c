/*
 * sim_validate.c - see sim_validate.h: the walk over the outputs of a workflow.
 * A single input is checked in sim_validate_input.c.
 */
#include "tests/sim/sim_validate.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_text.h"
#include "tests/sim/sim_validate_input.h"

static void put_error(struct buf *b, const char *type, const char *message,
                      const char *details)
{
	buf_reset(b);
	(void)buf_puts(b, "{\"type\": ");
	(void)sim_put_string(b, type);
	(void)buf_puts(b, ", \"message\": ");
	(void)sim_put_string(b, message);
	(void)buf_puts(b, ", \"details\": ");
	(void)sim_put_string(b, details);
	(void)buf_puts(b, ", \"extra_info\": {}}");
}

static void vnode_free(struct sim_vnode *n)
{
	buf_deinit(&n->errors);
	buf_deinit(&n->dependent);
	buf_deinit(&n->details);
	free(n->id);
	free(n);
}

static void walk_deinit(struct sim_walk *w)
{
	for (size_t i = 0; i < w->nnodes; i++)
		vnode_free(w->nodes[i]);
	free(w->nodes);
	free(w->splices);
	map_deinit(&w->by_id);
	buf_deinit(&w->replacements);
}

static struct sim_vnode *add_node(struct sim_walk *w, struct json key,
                                  struct json value)
{
	struct sim_vnode *n = sim_calloc(1, sizeof(*n));

	n->id = json_string_dup(key, w->workflow.text.n);
	n->node = value;
	n->inputs = json_get(value, "inputs");
	buf_init(&n->errors, SIM_DETAILS_MAX);
	buf_init(&n->dependent, SIM_DETAILS_MAX);
	buf_init(&n->details, SIM_DETAILS_MAX);
	if (!n->id || map_add(&w->by_id, n->id, strlen(n->id), n)) {
		/* A key that comes twice: the first one's place, the last
		 * one's value. */
		struct sim_vnode *first =
			n->id ? map_get(&w->by_id, n->id, strlen(n->id)) : NULL;

		if (first) {
			first->node = n->node;
			first->inputs = n->inputs;
		}
		vnode_free(n);
		return first;
	}
	if (w->nnodes % 64 == 0)
		w->nodes = sim_realloc(w->nodes, w->nnodes + 64,
		                       sizeof(struct sim_vnode *));
	w->nodes[w->nnodes++] = n;
	return n;
}

static enum sim_verdict read_nodes(struct sim_walk *w)
{
	struct json_iter it;
	struct json key, value;

	json_iter_init(&it, w->workflow);
	while (json_iter_next(&it, &key, &value)) {
		if (w->nnodes >= SIM_NODES_MAX || !add_node(w, key, value))
			return SIM_CRASH;
	}
	return SIM_VALID;
}

static bool is_target(struct json targets, const char *id)
{
	struct json_iter it;
	struct json j;

	if (!json_is(targets, JSON_ARRAY))
		return true;
	json_iter_init(&it, targets);
	while (json_iter_next(&it, NULL, &j)) {
		if (json_string_eq(j, id))
			return true;
	}
	return false;
}

/* Every class must exist, whether it is needed or not. */
static enum sim_verdict
find_classes(struct sim_walk *w, struct sim_validation *v, struct json targets)
{
	for (size_t i = 0; i < w->nnodes; i++) {
		struct sim_vnode *n = w->nodes[i];
		struct json name = json_get(n->node, "class_type");
		char *text = json_string_dup(name, 4096);
		struct buf b = BUF_INIT(65536), where = BUF_INIT(65536);
		enum sim_verdict verdict = SIM_VALID;

		if (!json_is(n->node, JSON_OBJECT)) {
			verdict = SIM_CRASH;
		} else if (json_is(name, JSON_NONE)) {
			(void)buf_puts(&b, "Cannot execute because a node is "
			                   "missing the class_type property.");
			verdict = SIM_INVALID;
		} else {
			n->cls = text ? sim_nodes_find(text) : NULL;
			if (!n->cls) {
				(void)buf_puts(&b,
				               "Cannot execute because node ");
				(void)sim_put_python(&b, name, false);
				(void)buf_puts(&b, " does not exist.");
				verdict = SIM_INVALID;
			}
		}
		(void)buf_printf(&where, "Node ID '#%s'", n->id);
		if (verdict == SIM_INVALID)
			put_error(&v->error, "invalid_prompt", buf_cstr(&b),
			          buf_cstr(&where));
		buf_deinit(&b);
		buf_deinit(&where);
		free(text);
		if (verdict != SIM_VALID)
			return verdict;
		n->is_output = n->cls->row->flags & SIM_OUTPUT &&
		               is_target(targets, n->id);
	}
	return SIM_VALID;
}

/* An output failed: every node with errors so far counts as a cause, as in the
 * original, which asks no further. */
static void blame(struct sim_walk *w, const char *output)
{
	for (size_t i = 0; i < w->nnodes; i++) {
		struct sim_vnode *n = w->nodes[i];

		if (n->state != SIM_V_FAILED || !n->errors.len)
			continue;
		if (n->dependent.len)
			(void)buf_puts(&n->dependent, ", ");
		(void)sim_put_string(&n->dependent, output);
	}
}

static void put_node_errors(struct sim_walk *w, struct buf *b)
{
	(void)buf_putc(b, '{');
	for (size_t i = 0; i < w->nnodes; i++) {
		struct sim_vnode *n = w->nodes[i];

		if (!n->dependent.len)
			continue;
		if (b->len > 1)
			(void)buf_puts(b, ", ");
		(void)sim_put_string(b, n->id);
		(void)buf_puts(b, ": {\"errors\": [");
		(void)buf_append(b, n->errors.data, n->errors.len);
		(void)buf_puts(b, "], \"dependent_outputs\": [");
		(void)buf_append(b, n->dependent.data, n->dependent.len);
		(void)buf_printf(b, "], \"class_type\": \"%s\"}",
		                 n->cls->row->name);
	}
	(void)buf_putc(b, '}');
}

static int by_place(const void *a, const void *b)
{
	const struct sim_splice *x = a, *y = b;

	return x->part.p < y->part.p ? -1 : x->part.p > y->part.p;
}

/* The workflow with converted values in place of the given ones. */
static void put_workflow(struct sim_walk *w, struct buf *b)
{
	const char *at = w->workflow.text.p, *end = at + w->workflow.text.n;

	if (w->nsplices)
		qsort(w->splices, w->nsplices, sizeof(*w->splices), by_place);
	for (size_t i = 0; i < w->nsplices; i++) {
		struct sim_splice *s = &w->splices[i];

		if (s->part.p < at)
			continue;
		(void)buf_append(b, at, (size_t)(s->part.p - at));
		(void)buf_append(b, w->replacements.data + s->start, s->len);
		at = s->part.p + s->part.n;
	}
	(void)buf_append(b, at, (size_t)(end - at));
}

static void add_output(struct sim_validation *v, const char *id)
{
	v->outputs =
		sim_realloc(v->outputs, v->noutputs + 1, sizeof(*v->outputs));
	v->outputs[v->noutputs++] = sim_strdup(id);
}

static enum sim_verdict check_outputs(struct sim_walk *w,
                                      struct sim_validation *v)
{
	struct buf details = BUF_INIT(SIM_DETAILS_MAX);
	size_t outputs = 0;

	for (size_t i = 0; i < w->nnodes; i++) {
		struct sim_vnode *n = w->nodes[i];

		if (!n->is_output)
			continue;
		outputs++;
		sim_validate_output(w, n);
		if (n->state == SIM_V_GOOD) {
			add_output(v, n->id);
			continue;
		}
		blame(w, n->id);
		if (n->details.len) {
			if (details.len)
				(void)buf_putc(&details, '\n');
			(void)buf_append(&details, n->details.data,
			                 n->details.len);
		}
	}
	if (!outputs)
		put_error(&v->error, "prompt_no_outputs",
		          "Prompt has no outputs", "");
	else if (!v->noutputs)
		put_error(&v->error, "prompt_outputs_failed_validation",
		          "Prompt outputs failed validation",
		          details.len ? buf_cstr(&details) : "");
	buf_deinit(&details);
	put_node_errors(w, &v->node_errors);
	return v->noutputs ? SIM_VALID : SIM_INVALID;
}

enum sim_verdict sim_validate(struct sim_validation *v, struct json workflow,
                              struct json targets,
                              const struct sim_files *files)
{
	struct sim_walk w = {.workflow = workflow, .files = files};
	enum sim_verdict verdict;

	memset(v, 0, sizeof(*v));
	buf_init(&v->error, SIM_DETAILS_MAX);
	buf_init(&v->node_errors, SIM_DETAILS_MAX);
	buf_init(&v->workflow, SIZE_MAX / 2);
	buf_init(&w.replacements, SIM_DETAILS_MAX);
	/* An empty list has no members to stumble over. */
	if (!json_is(workflow, JSON_OBJECT) &&
	    !(json_is(workflow, JSON_ARRAY) && !json_count(workflow)))
		return SIM_CRASH;
	verdict = read_nodes(&w);
	if (verdict == SIM_VALID)
		verdict = find_classes(&w, v, targets);
	if (verdict == SIM_INVALID)
		(void)buf_puts(&v->node_errors, "{}");
	if (verdict == SIM_VALID)
		verdict = check_outputs(&w, v);
	if (verdict == SIM_VALID)
		put_workflow(&w, &v->workflow);
	walk_deinit(&w);
	if (!buf_ok(&v->error) || !buf_ok(&v->node_errors) ||
	    !buf_ok(&v->workflow))
		return SIM_CRASH;
	return verdict;
}

void sim_validation_deinit(struct sim_validation *v)
{
	for (size_t i = 0; i < v->noutputs; i++)
		free(v->outputs[i]);
	free(v->outputs);
	buf_deinit(&v->error);
	buf_deinit(&v->node_errors);
	buf_deinit(&v->workflow);
	v->outputs = NULL;
	v->noutputs = 0;
}
