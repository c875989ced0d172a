/*
 * job_result.c - see job_result.h.
 */
#include "common/job_result.h"

#include <inttypes.h>

static void put_member(struct buf *out, const char *key, struct json value,
                       const char *otherwise)
{
	if (json_is(value, JSON_NONE) && !otherwise)
		return;
	(void)buf_json_key(out, key);
	if (json_is(value, JSON_NONE))
		(void)buf_puts(out, otherwise);
	else
		(void)buf_append(out, value.text.p, value.text.n);
}

static void put_text(struct buf *out, const char *key, const char *text)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, text, strlen(text));
}

/* {"type", "message", "node_id"}: the progress' own where it has one. */
static void put_error(const struct job_result *r, struct buf *out)
{
	struct json told = json_get(r->progress, "error");
	struct json message = json_get(told, "message");
	const char *type = r->end == JOB_CANCELLED ? "cancelled"
	                   : r->error ? error_code_name(r->error->code)
	                              : "internal";

	(void)buf_json_key(out, "error");
	if (r->end == JOB_FAILED && json_is(told, JSON_OBJECT)) {
		(void)buf_append(out, told.text.p, told.text.n);
		return;
	}
	(void)buf_putc(out, '{');
	put_text(out, "type", type);
	if (r->error)
		put_text(out, "message", r->error->text);
	else
		put_member(out, "message", message, "\"\"");
	put_member(out, "node_id", json_get(told, "node_id"), NULL);
	(void)buf_putc(out, '}');
}

void job_result_json(const struct job_result *r, struct buf *out)
{
	struct json method = json_get(r->progress, "method");

	if (json_is(method, JSON_NONE))
		method = json_get(r->progress, "progress_method");
	(void)buf_printf(out, "{\"index\":%zu", r->index);
	put_member(out, "prompt_id", json_get(r->progress, "prompt_id"),
	           "null");
	put_text(out, "status",
	         r->end == JOB_COMPLETED ? "completed" : "failed");
	put_member(out, "outputs", json_get(r->progress, "outputs"), "{}");
	if (r->end != JOB_COMPLETED)
		put_error(r, out);
	put_member(out, "method", method, "null");
	put_member(out, "completed_nodes",
	           json_get(r->progress, "completed_nodes"), "[]");
	put_member(out, "cached_nodes", json_get(r->progress, "cached_nodes"),
	           "[]");
	if (json_is(r->node_errors, JSON_OBJECT))
		put_member(out, "node_errors", r->node_errors, NULL);
	if (r->handed)
		put_text(out, "handed", r->handed);
	if (r->resubmits > 0)
		(void)buf_printf(out, ",\"resubmits\":%u", r->resubmits);
	(void)buf_printf(out, ",\"elapsed_ms\":%" PRId64, r->elapsed_ms);
	(void)buf_append(out, r->more.p, r->more.n);
	(void)buf_putc(out, '}');
}
