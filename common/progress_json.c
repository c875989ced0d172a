/*
 * progress_json.c - ExecutionProgress as JSON text, out and back in; see
 * progress.h.
 *
 * Lists and outputs are kept as text while they grow, so writing is copying.
 */
#include <string.h>

#include "common/macros.h"
#include "common/progress_impl.h"

#define FRACTION_DIGITS 6 /* decimal places of current_node_progress */
#define FRACTION_SCALE  1000000

/* ---- out ---- */

/* Not by printf's %f, whose decimal point is the locale's. */
static void put_fraction(struct buf *out, double fraction)
{
	unsigned v = (unsigned)(fraction * FRACTION_SCALE + 0.5);
	int digits = FRACTION_DIGITS;

	if (v == 0 || v >= FRACTION_SCALE) {
		(void)buf_putc(out, v == 0 ? '0' : '1');
		return;
	}
	for (; v % 10 == 0; v /= 10)
		digits--;
	(void)buf_printf(out, "0.%0*u", digits, v);
}

static void put_string(struct buf *out, const char *key, const char *value)
{
	if (!value)
		return;
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static void put_list(struct buf *out, const char *key,
                     const struct node_list *l)
{
	(void)buf_json_key(out, key);
	(void)buf_putc(out, '[');
	(void)buf_append(out, l->json.data, l->json.len);
	(void)buf_putc(out, ']');
}

static void put_error(struct buf *out, const struct cmx_error *e)
{
	if (!e->type)
		return;
	(void)buf_json_key(out, "error");
	(void)buf_putc(out, '{');
	put_string(out, "node_id", e->node_id);
	put_string(out, "message", e->message);
	put_string(out, "type", e->type);
	(void)buf_putc(out, '}');
}

/* All outputs, or with `only` that of one node. */
static void put_outputs(struct buf *out, const struct progress *p,
                        const struct node *only)
{
	(void)buf_json_key(out, "outputs");
	if (!only) {
		(void)buf_append(out, p->pub.outputs, p->pub.outputs_len);
		return;
	}
	(void)buf_putc(out, '{');
	(void)buf_json_string(out, only->id, only->id_len);
	(void)buf_putc(out, ':');
	(void)buf_append(out, p->outputs.data + only->output_at,
	                 only->output_len);
	(void)buf_putc(out, '}');
}

static int put_progress(const struct progress *p, unsigned flags,
                        const struct node *only, struct buf *out)
{
	const struct cmx_progress *c = &p->pub;
	size_t len = out->len;
	int r = buf_putc(out, '{');

	if (r < 0)
		return r;
	put_string(out, "prompt_id", c->prompt_id);
	put_string(out, "status", cmx_status_name(c->status));
	if (c->current_node) {
		put_string(out, "current_node", c->current_node);
		(void)buf_json_key(out, "current_node_progress");
		put_fraction(out, c->current_node_progress);
	}
	if (c->queue_position >= 0) {
		(void)buf_json_key(out, "queue_position");
		(void)buf_printf(out, "%lld", (long long)c->queue_position);
	}
	if (c->paused)
		(void)buf_puts(out, ",\"paused\":true");
	put_list(out, "completed_nodes", &p->completed);
	put_list(out, "cached_nodes", &p->cached);
	if (!(flags & PROGRESS_JSON_NO_OUTPUTS))
		put_outputs(out, p, only);
	put_error(out, &c->error);
	put_string(out,
	           flags & PROGRESS_JSON_RESULT ? "progress_method" : "method",
	           cmx_method_name(c->method));
	/* The last append says how the others went. */
	r = buf_putc(out, '}');
	if (r < 0)
		out->len = len;
	return r;
}

int progress_to_json(const struct progress *p, unsigned flags, struct buf *out)
{
	return put_progress(p, flags, NULL, out);
}

int progress_to_json_executed(const struct progress *p, struct span raw_id,
                              struct buf *out)
{
	const struct node *n = progress_find_node(p, raw_id);

	if (!n || !n->has_output)
		return put_progress(p, PROGRESS_JSON_NO_OUTPUTS, NULL, out);
	return put_progress(p, 0, n, out);
}

/* ---- in ---- */

enum snapshot_field {
	S_STATUS,
	S_CURRENT_NODE,
	S_CURRENT_PROGRESS,
	S_QUEUE_POSITION,
	S_PAUSED,
	S_COMPLETED,
	S_CACHED,
	S_OUTPUTS,
	S_ERROR,
	S_METHOD,
	S_PROGRESS_METHOD,
	S_COUNT
};

static const char *const snapshot_names[] = {
	[S_STATUS] = "status",
	[S_CURRENT_NODE] = "current_node",
	[S_CURRENT_PROGRESS] = "current_node_progress",
	[S_QUEUE_POSITION] = "queue_position",
	[S_PAUSED] = "paused",
	[S_COMPLETED] = "completed_nodes",
	[S_CACHED] = "cached_nodes",
	[S_OUTPUTS] = "outputs",
	[S_ERROR] = "error",
	[S_METHOD] = "method",
	[S_PROGRESS_METHOD] = "progress_method",
};
STATIC_ASSERT_ARRAY_SIZE(snapshot_names, S_COUNT);

static bool read_status(struct json j, enum cmx_status *out)
{
	for (int s = CMX_QUEUED; s <= CMX_FAILED; s++) {
		if (json_string_eq(j, cmx_status_name((enum cmx_status)s))) {
			*out = (enum cmx_status)s;
			return true;
		}
	}
	return false;
}

static enum cmx_method read_method(const struct json *f, enum cmx_method known)
{
	for (int m = CMX_WEBSOCKET; m <= CMX_POLLING; m++) {
		const char *name = cmx_method_name((enum cmx_method)m);

		if (json_string_eq(f[S_METHOD], name) ||
		    json_string_eq(f[S_PROGRESS_METHOD], name))
			return (enum cmx_method)m;
	}
	return known;
}

static unsigned fold_lists(struct progress *p, const struct json *f)
{
	unsigned change = progress_fold_cached(p, f[S_CACHED]);
	struct json_iter it;
	struct json id;
	struct node *n;

	if (f[S_COMPLETED].type != JSON_ARRAY)
		return change;
	json_iter_init(&it, f[S_COMPLETED]);
	while (json_iter_next(&it, NULL, &id)) {
		n = progress_node(p, json_raw_string(id));
		if (n)
			change |= progress_node_complete(p, n);
	}
	return change;
}

static unsigned fold_current(struct progress *p, const struct json *f)
{
	unsigned change = PROGRESS_SAME;
	struct node *n;
	double fraction;

	if (p->pub.status != CMX_EXECUTING)
		return PROGRESS_SAME;
	n = progress_node(p, json_raw_string(f[S_CURRENT_NODE]));
	if (!n)
		return PROGRESS_SAME;
	n->confirmed = true;
	change |= progress_node_start(p, n);
	if (n->state == NODE_RUNNING &&
	    json_double(f[S_CURRENT_PROGRESS], &fraction) &&
	    fraction > n->fraction)
		n->fraction = fraction < 1 ? fraction : 1;
	return change;
}

static unsigned fold_snapshot_error(struct progress *p, struct json error)
{
	if (error.type != JSON_OBJECT)
		return PROGRESS_SAME;
	return progress_set_error_json(p, json_get(error, "type"),
	                               json_get(error, "message"),
	                               json_get(error, "node_id"))
	               ? PROGRESS_ERROR
	               : PROGRESS_SAME;
}

static unsigned fold_ended(struct progress *p, enum cmx_status status)
{
	if (status == CMX_FAILED && !p->pub.error.type)
		(void)progress_set_error(p, SPAN(PROGRESS_TYPE_UNKNOWN),
		                         SPAN("failed for an unknown reason"),
		                         SPAN_NULL);
	p->error_fatal = status == CMX_FAILED;
	return progress_end(p);
}

/* All but outputs, of a prompt that has not ended here. */
static unsigned fold_course(struct progress *p, const struct json *f)
{
	enum cmx_status status = p->pub.status;
	unsigned change = PROGRESS_SAME;
	bool paused = false;
	int64_t ahead;

	p->partial = true;
	(void)read_status(f[S_STATUS], &status);
	if (status == CMX_EXECUTING)
		change |= progress_set_executing(p);
	else if (json_int64(f[S_QUEUE_POSITION], &ahead))
		change |= progress_fold_queued(p, ahead, p->pub.method);
	(void)json_bool(f[S_PAUSED], &paused);
	change |= progress_fold_paused(p, paused);
	change |= fold_lists(p, f);
	change |= fold_current(p, f);
	/* What is known stays known, but how it ended is told there. */
	if (!p->pub.error.type || status == CMX_FAILED)
		change |= fold_snapshot_error(p, f[S_ERROR]);
	if (status == CMX_COMPLETED || status == CMX_FAILED)
		change |= fold_ended(p, status);
	return change | progress_refresh_current(p);
}

unsigned progress_fold_snapshot(struct progress *p, struct json snapshot)
{
	struct json f[S_COUNT];
	bool going_on = !progress_ended(p);
	unsigned change = PROGRESS_SAME;

	if (snapshot.type != JSON_OBJECT)
		return PROGRESS_SAME;
	json_get_many(snapshot, snapshot_names, f, S_COUNT);
	if (going_on)
		change |= fold_course(p, f);
	/* A node may run again; after the end only what is missing is news. */
	change |= progress_add_outputs(p, f[S_OUTPUTS], going_on);
	if (change != PROGRESS_SAME)
		p->pub.method = read_method(f, p->pub.method);
	return change;
}
