/*
 * progress_history.c - progress_fold_history() of progress.h: what an entry of
 * GET /history says about a prompt, by section 4 of the recordings' README.
 *
 * An entry tells less than the events: which nodes ran can only be seen from
 * those that had output and, after a failure, from the list in its message.
 */
#include <string.h>

#include "common/progress_impl.h"

struct verdict {
	bool interrupted, failed;
	struct json cached; /* data of execution_cached */
	struct json end;    /* data of what ended it, if that was no success */
};

/* The last of each kind counts; an interrupt outweighs an error. */
static void read_messages(struct verdict *v, struct json messages)
{
	struct json_iter it;
	struct json message, type, data;

	json_iter_init(&it, messages);
	while (json_iter_next(&it, NULL, &message)) {
		type = json_at(message, 0);
		data = json_at(message, 1);
		if (json_string_eq(type, "execution_cached")) {
			v->cached = data;
		} else if (json_string_eq(type, "execution_interrupted")) {
			v->interrupted = true;
			v->end = data;
		} else if (json_string_eq(type, "execution_error")) {
			v->failed = true;
			if (!v->interrupted)
				v->end = data;
		}
	}
}

/* False if the entry is none. Servers before 2024 keep no status. */
static bool read_verdict(struct verdict *v, struct json entry)
{
	struct json status = json_get(entry, "status");

	*v = (struct verdict){.cached = JSON_MISSING, .end = JSON_MISSING};
	if (status.type == JSON_OBJECT) {
		read_messages(v, json_get(status, "messages"));
		if (!json_string_eq(json_get(status, "status_str"), "success"))
			v->failed = true;
		return true;
	}
	return json_get(entry, "outputs").type == JSON_OBJECT &&
	       (status.type == JSON_NONE || status.type == JSON_NULL);
}

static unsigned fold_verdict(struct progress *p, const struct verdict *v)
{
	bool news = false;

	if (v->interrupted) {
		news = progress_set_interrupted(p, json_get(v->end, "node_id"));
	} else if (v->failed && v->end.type == JSON_OBJECT) {
		news = progress_set_error_json(
			p, json_get(v->end, "exception_type"),
			json_get(v->end, "exception_message"),
			json_get(v->end, "node_id"));
	} else if (v->failed && !p->error_fatal) {
		news = progress_set_error(
			p, SPAN(PROGRESS_TYPE_UNKNOWN),
			SPAN("ComfyUI reports an error without details"),
			SPAN_NULL);
	} else if (!v->failed) {
		news = progress_clear_error(p);
	}
	/* Whatever its type: here it is final. */
	p->error_fatal = v->interrupted || v->failed;
	return news ? PROGRESS_ERROR : PROGRESS_SAME;
}

/* Whoever has output or is described ran, unless the cache answered. */
static unsigned fold_ran(struct progress *p, struct json by_id)
{
	unsigned change = PROGRESS_SAME;
	struct json id, value;
	struct json_iter it;
	struct node *n;

	if (by_id.type != JSON_OBJECT)
		return PROGRESS_SAME;
	json_iter_init(&it, by_id);
	while (json_iter_next(&it, &id, &value)) {
		n = progress_node(p, json_raw_string(id));
		if (n && (!p->pub.error.node_id ||
		          strcmp(n->id, p->pub.error.node_id) != 0))
			change |= progress_node_complete(p, n);
	}
	return change;
}

unsigned progress_add_outputs(struct progress *p, struct json outputs,
                              bool replace)
{
	unsigned change = PROGRESS_SAME;
	struct json id, value;
	struct json_iter it;
	struct node *n;

	if (outputs.type != JSON_OBJECT)
		return PROGRESS_SAME;
	json_iter_init(&it, outputs);
	while (json_iter_next(&it, &id, &value)) {
		if (value.type != JSON_OBJECT)
			continue;
		n = progress_node(p, json_raw_string(id));
		if (n)
			change |= progress_set_output(p, n, value, replace);
	}
	return change;
}

unsigned progress_fold_history(struct progress *p, struct json entry,
                               enum cmx_method method)
{
	unsigned change = PROGRESS_SAME;
	struct json outputs;
	struct verdict v;

	if (!read_verdict(&v, entry))
		return PROGRESS_SAME;
	outputs = json_get(entry, "outputs");
	if (!progress_ended(p)) {
		change |= progress_fold_cached(p, json_get(v.cached, "nodes"));
		change |= fold_verdict(p, &v);
		change |= fold_ran(p, outputs);
		change |= fold_ran(p, json_get(entry, "meta"));
		change |= progress_complete_executed(
			p, json_get(v.end, "executed"));
		change |= progress_end(p);
	}
	change |= progress_add_outputs(p, outputs, false);
	if (change != PROGRESS_SAME)
		p->pub.method = method;
	return change;
}
