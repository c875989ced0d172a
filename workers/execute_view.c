/*
 * execute_view.c - see execute_view.h.
 */
#include "workers/execute_view.h"

#define VIEW_MAX (PROGRESS_OUTPUTS_MAX + (8u << 20))

double execute_fraction(const struct progress *p, size_t total)
{
	const struct cmx_progress *c = progress_get(p);
	double done = (double)c->completed_nodes.count;

	if (total <= c->cached_nodes.count)
		return 0;
	done = (done + c->current_node_progress) /
	       (double)(total - c->cached_nodes.count);
	return done < 0.99 ? done : 0.99;
}

void execute_result_json(struct job_result *r, enum execute_end end,
                         const struct progress *p, struct buf *out)
{
	cleanup_buf struct buf b = BUF_INIT(VIEW_MAX);

	r->end = end == EXECUTE_COMPLETED   ? JOB_COMPLETED
	         : end == EXECUTE_CANCELLED ? JOB_CANCELLED
	                                    : JOB_FAILED;
	r->progress = JSON_MISSING;
	if (p)
		(void)progress_to_json(p, 0, &b);
	if (b.len > 0 && buf_ok(&b) &&
	    json_parse(&r->progress, b.data, b.len, 0, NULL))
		r->progress = JSON_MISSING;
	job_result_json(r, out);
}
