/*
 * tool_job_view.c - a job as the tools tell of it.
 */
#include "workers/tool_ask.h"
#include "workers/tool_job_private.h"

#define RESULTS_BYTES (4u << 20) /* of all results in one answer */

bool tool_is_job(struct json id)
{
	struct span s = json_raw_string(id);

	if (s.n < 2 || s.n >= TOOL_JOB_ID_MAX || s.p[0] != 'j')
		return false;
	for (size_t i = 1; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	}
	return true;
}

int64_t tool_job_number(struct json o, const char *key)
{
	int64_t n = 0;

	(void)json_int64(json_get(o, key), &n);
	return n;
}

void tool_job_put_results(struct json items, bool wrapped, struct buf *out)
{
	struct json_iter it;
	struct json item, r;
	size_t from = out->len;
	bool first = true;

	(void)buf_json_key(out, "results");
	(void)buf_putc(out, '[');
	json_iter_init(&it, items);
	while (json_iter_next(&it, NULL, &item)) {
		r = wrapped ? json_get(item, "result") : item;
		if (!json_is(r, JSON_OBJECT))
			continue;
		(void)buf_puts(out, first ? "" : ",");
		first = false;
		if (out->len - from + r.text.n <= RESULTS_BYTES) {
			(void)json_compact(out, r);
			continue;
		}
		(void)buf_putc(out, '{');
		tool_put_member(out, "index", json_get(r, "index"));
		tool_put_member(out, "prompt_id", json_get(r, "prompt_id"));
		tool_put_member(out, "status", json_get(r, "status"));
		(void)buf_puts(out, ",\"outputs_left_out\":");
		(void)buf_printf(out, "%zu}", json_get(r, "outputs").text.n);
	}
	(void)buf_putc(out, ']');
}

static const char *status_of(struct json job)
{
	if (!json_string_eq(json_get(job, "state"), "over"))
		return tool_job_number(job, "completed") +
		                               tool_job_number(job, "failed") >
		                       0
		               ? "executing"
		               : "queued";
	return tool_job_number(job, "failed") > 0 ? "failed" : "completed";
}

void tool_job_put(struct json job, bool results, struct buf *out)
{
	(void)buf_putc(out, '{');
	/* Where a prompt's id is expected the job's does as well. */
	tool_put_member(out, "prompt_id", json_get(job, "job"));
	tool_put_member(out, "job_id", json_get(job, "job"));
	tool_put_string(out, "status", status_of(job));
	tool_put_member(out, "total", json_get(job, "total"));
	tool_put_member(out, "completed", json_get(job, "completed"));
	tool_put_member(out, "failed", json_get(job, "failed"));
	tool_put_member(out, "fraction", json_get(job, "fraction"));
	if (results)
		tool_job_put_results(json_get(job, "items"), true, out);
}
