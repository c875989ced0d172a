/*
 * chain_spec.c - see chain_spec.h.
 */
#include "common/chain_spec.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/workflow.h"

static struct json get_either(struct json o, const char *a, const char *b)
{
	struct json j = json_get(o, a);

	return json_is(j, JSON_NONE) ? json_get(o, b) : j;
}

static bool is_absent(struct json j)
{
	return json_is(j, JSON_NONE) || json_is(j, JSON_NULL);
}

/* --- params -------------------------------------------------------------- */

static int set_param(struct buf *workflow, struct span target,
                     struct json value, struct error *err)
{
	cleanup_buf struct buf changed = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct json w;

	if (json_parse(&w, workflow->data, workflow->len, JSON_NONFINITE, NULL))
		return error_set(err, ERR_INTERNAL, "the workflow is gone");
	if (workflow_set_value(&changed, w, target, value.text, err))
		return error_prefix(err, "params");
	buf_reset(workflow);
	return buf_append(workflow, changed.data, changed.len)
	               ? error_set_nomem(err, "workflow")
	               : 0;
}

/* {"3": {"seed": 5}} */
static int set_params_of(struct buf *workflow, struct span node,
                         struct json inputs, struct error *err)
{
	struct json key, value;
	struct json_iter it;

	json_iter_init(&it, inputs);
	while (json_iter_next(&it, &key, &value)) {
		cleanup_buf struct buf target =
			BUF_INIT(2 * CHAIN_NAME_MAX + 2);

		(void)buf_append(&target, node.p, node.n);
		(void)buf_putc(&target, '.');
		(void)json_string_decode(key, &target);
		if (!buf_ok(&target))
			return error_set(err, ERR_LIMIT,
			                 "params: a name is too long");
		if (set_param(workflow, span_make(target.data, target.len),
		              value, err))
			return -1;
	}
	return 0;
}

static int step_set_params(struct chain_step *s, struct json params,
                           struct json workflow, struct error *err)
{
	struct json key, value;
	struct json_iter it;

	if (is_absent(params))
		return 0;
	if (!json_is(params, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "params must be an object such as "
		                 "{\"3.seed\": 5}");
	json_iter_init(&it, params);
	while (json_iter_next(&it, &key, &value)) {
		cleanup_buf struct buf name = BUF_INIT(CHAIN_NAME_MAX);
		struct span target;
		int r;

		if (json_string_decode(key, &name))
			return error_set(err, ERR_LIMIT,
			                 "params: a name is too long");
		target = span_make(name.data, name.len);
		r = json_is(value, JSON_OBJECT) &&
		                    json_is(json_get_span(workflow, target),
		                            JSON_OBJECT)
		            ? set_params_of(&s->workflow, target, value, err)
		            : set_param(&s->workflow, target, value, err);
		if (r)
			return -1;
	}
	return 0;
}

/* --- where it goes ------------------------------------------------------- */

static int step_set_target(struct chain_step *s, struct json workflow,
                           struct json id, struct span in, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT((size_t)3 * CHAIN_NAME_MAX);
	struct span class;

	s->node = json_string_dup(id, CHAIN_NAME_MAX);
	(void)json_string_decode(id, &b);
	(void)buf_putc(&b, '.');
	(void)buf_append(&b, in.p, in.n);
	if (!buf_ok(&b) || !s->node)
		return error_set(err, ERR_LIMIT, "a node's id is too long");
	s->target = buf_steal(&b, NULL);
	class = workflow_class_of(workflow, s->node);
	s->class = strndup(class.p ? class.p : "", class.n);
	return s->target && s->class ? 0 : error_set_nomem(err, "step");
}

/* "node.input" of the longest id that fits; false: no such node. */
static bool find_named(struct json workflow, struct span to, struct json *idp,
                       struct span *inp)
{
	struct json_iter it;
	struct json id, node;
	bool found = false;

	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node)) {
		cleanup_buf struct buf name = BUF_INIT(CHAIN_NAME_MAX);

		if (json_string_decode(id, &name) || name.len + 1 >= to.n ||
		    memcmp(name.data, to.p, name.len) != 0 ||
		    to.p[name.len] != '.')
			continue;
		/* As workflow_set_value: of several the shortest. */
		if (found && to.n - name.len - 1 < inp->n)
			continue;
		*idp = id;
		*inp = span_make(to.p + name.len + 1, to.n - name.len - 1);
		found = true;
	}
	return found;
}

struct candidates {
	size_t loaders, others;
	struct json loader, other;
};

/* Nodes whose input `in` holds a constant: one that is linked is fed already.
 */
static void find_candidates(struct json workflow, struct span in,
                            struct candidates *c)
{
	struct json_iter it;
	struct json id, node, value;

	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node)) {
		value = json_get_span(json_get(node, "inputs"), in);
		if (is_absent(value) || json_is(value, JSON_ARRAY))
			continue;
		if (chain_class_loads(
			    json_raw_string(json_get(node, "class_type")))) {
			c->loaders++;
			c->loader = id;
		} else {
			c->others++;
			c->other = id;
		}
	}
}

static int step_find_target(struct chain_step *s, struct json workflow,
                            const char *to, struct error *err)
{
	struct candidates c = {0};
	struct span in = SPAN(to);
	struct json id;

	if (!find_named(workflow, in, &id, &in)) {
		find_candidates(workflow, in, &c);
		if (c.loaders + c.others == 0)
			return error_set(
				err, ERR_NOT_FOUND,
				"outputTo \"%s\": no node of the "
				"workflow has a constant input of that "
				"name; give it as \"node.input\"",
				log_safe(to, strlen(to)));
		if (c.loaders > 1 || (c.loaders == 0 && c.others > 1))
			return error_set(err, ERR_INVALID,
			                 "outputTo \"%s\": %zu nodes have an "
			                 "input of that name; give it as "
			                 "\"node.input\"",
			                 log_safe(to, strlen(to)),
			                 c.loaders ? c.loaders : c.others);
		id = c.loaders ? c.loader : c.other;
	}
	return step_set_target(s, workflow, id, in, err);
}

/* --- a step -------------------------------------------------------------- */

static int step_take_source(struct chain_step *s, size_t index, size_t count,
                            struct json from, struct error *err)
{
	struct json node = get_either(from, "outputNode", "output_node");
	struct json at = get_either(from, "outputIndex", "output_index");
	uint64_t step, output = 0;

	if (!json_is(from, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "inputFrom must be an object {step, "
		                 "outputNode, outputIndex}");
	if (!json_uint64(json_get(from, "step"), &step))
		return error_set(err, ERR_INVALID,
		                 "inputFrom needs step, the number of an "
		                 "earlier step (the first is 0)");
	if (step >= count)
		return error_set(err, ERR_NOT_FOUND,
		                 "inputFrom names step %llu, and the chain has "
		                 "%zu (the first is 0)",
		                 (unsigned long long)step, count);
	if (step >= index)
		return error_set(err, ERR_INVALID,
		                 "inputFrom names step %llu, which does not "
		                 "come before this one",
		                 (unsigned long long)step);
	if (!is_absent(at) &&
	    (!json_uint64(at, &output) || output > CHAIN_INDEX_MAX))
		return error_set(err, ERR_INVALID,
		                 "outputIndex must be from 0 to %d",
		                 CHAIN_INDEX_MAX);
	s->from = (size_t)step;
	s->output_index = (size_t)output;
	if (json_is(node, JSON_NUMBER))
		s->output_node = strndup(node.text.p, node.text.n);
	else if (!is_absent(node))
		s->output_node = json_string_dup(node, CHAIN_NAME_MAX);
	if (!s->output_node && !is_absent(node))
		return error_set(err, ERR_INVALID,
		                 "outputNode must be a node's id");
	return 0;
}

static int step_take_text(struct chain_step *s, struct json step,
                          struct error *err)
{
	struct json text = json_get(step, "workflow"), w;
	cleanup_free char *why =
		json_string_dup(json_get(step, "unreadable"), ERROR_TEXT_MAX);

	if (why) {
		s->unread = true;
		return error_set(err, ERR_INVALID, "%s", why);
	}
	if (json_is(text, JSON_STRING))
		return error_set(
			err, ERR_INVALID,
			"workflow is a path, and this place can't read "
			"files; give the object");
	if (!json_is(text, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "a step needs workflow, an object in API "
		                 "format");
	if (workflow_parse(&w, text.text.p, text.text.n, "workflow", err))
		return -1;
	if (buf_append(&s->workflow, w.text.p, w.text.n))
		return error_set_nomem(err, "workflow");
	return step_set_params(s, json_get(step, "params"), w, err);
}

static int step_parse(struct chain_step *s, size_t index, size_t count,
                      struct json step, struct error *err)
{
	struct json from = get_either(step, "inputFrom", "input_from");
	struct json to = get_either(step, "outputTo", "output_to");
	cleanup_free char *name = NULL;
	struct json w;

	if (!json_is(step, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "a step must be an object with workflow");
	if (is_absent(from) != is_absent(to))
		return error_set(err, ERR_INVALID,
		                 "inputFrom and outputTo belong together: what "
		                 "is taken, and where it goes");
	if (!is_absent(from) && step_take_source(s, index, count, from, err))
		return -1;
	if (step_take_text(s, step, err))
		return -1;
	if (json_parse(&w, s->workflow.data, s->workflow.len, JSON_NONFINITE,
	               NULL))
		return error_set(err, ERR_INTERNAL, "the workflow is gone");
	s->nodes = workflow_node_count(w);
	if (is_absent(from))
		return 0;
	name = json_string_dup(to, CHAIN_NAME_MAX);
	if (!name || !*name)
		return error_set(
			err, ERR_INVALID,
			"outputTo must be \"input\" or \"node.input\"");
	s->takes = true;
	return step_find_target(s, w, name, err);
}

/* --- the whole ----------------------------------------------------------- */

static int spec_parse(struct chain_spec *s, struct json steps,
                      struct error *err)
{
	struct json_iter it;
	struct json step;
	size_t i = 0;

	s->count = json_count(steps);
	if (s->count == 0)
		return error_set(err, ERR_INVALID,
		                 "the chain is empty: give at least one step");
	if (s->count > CHAIN_STEPS_MAX)
		return error_set(err, ERR_LIMIT,
		                 "%zu steps, and a chain holds at most %d",
		                 s->count, CHAIN_STEPS_MAX);
	s->steps = calloc(s->count, sizeof(*s->steps));
	if (!s->steps)
		return error_set_nomem(err, "chain");
	json_iter_init(&it, steps);
	while (i < s->count && json_iter_next(&it, NULL, &step)) {
		struct chain_step *t = &s->steps[i];

		buf_init(&t->workflow, WORKFLOW_SIZE_MAX);
		t->fault.code = ERR_NONE;
		if (step_parse(t, i, s->count, step, &t->fault))
			t->takes = false;
		i++;
	}
	return 0;
}

struct chain_spec *chain_spec_parse(struct json chain, struct error *err)
{
	struct json steps = chain, stop;
	struct chain_spec *s;

	if (json_is(chain, JSON_OBJECT))
		steps = json_get(chain, "steps");
	if (!json_is(steps, JSON_ARRAY)) {
		error_set(
			err, ERR_INVALID,
			"a chain is an array of steps, or {\"steps\": [...]}");
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		error_set_nomem(err, "chain");
		return NULL;
	}
	stop = get_either(chain, "stop_on_error", "stopOnError");
	s->has_stop = json_bool(stop, &s->stop_on_error);
	if (!is_absent(stop) && !s->has_stop) {
		error_set(err, ERR_INVALID,
		          "stop_on_error must be true or false");
		return chain_spec_free(s);
	}
	return spec_parse(s, steps, err) ? chain_spec_free(s) : s;
}

struct chain_spec *chain_spec_free(struct chain_spec *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; s->steps && i < s->count; i++) {
		buf_deinit(&s->steps[i].workflow);
		free(s->steps[i].output_node);
		free(s->steps[i].target);
		free(s->steps[i].node);
		free(s->steps[i].class);
	}
	free(s->steps);
	free(s);
	return NULL;
}

int chain_step_fill(const struct chain_step *step, const char *value,
                    struct buf *out, struct error *err)
{
	cleanup_buf struct buf quoted = BUF_INIT((size_t)8 * CHAIN_NAME_MAX);
	struct json w;

	if (buf_json_string(&quoted, value, strlen(value)))
		return error_set(err, ERR_LIMIT,
		                 "the image's name is too "
		                 "long");
	if (json_parse(&w, step->workflow.data, step->workflow.len,
	               JSON_NONFINITE, NULL))
		return error_set(err, ERR_INTERNAL, "the workflow is gone");
	return workflow_set_value(out, w, SPAN(step->target),
	                          span_make(quoted.data, quoted.len), err);
}
