/*
 * job_result.h - how one workflow of a batch or one step of a chain ended, as
 * JSON: the same members wherever results of jobs are told. Pure.
 *
 *     {"index", "prompt_id", "status", "outputs", "error", "method",
 *      "completed_nodes", "cached_nodes", "node_errors", "resubmits",
 *      "elapsed_ms"}
 *
 * prompt_id is null when nothing was submitted, error is left out when it
 * completed, and status is completed or failed.
 */
#ifndef COMMON_JOB_RESULT_H
#define COMMON_JOB_RESULT_H

#include "common/error.h"
#include "common/json_span.h"

enum job_end {
	JOB_COMPLETED,
	JOB_FAILED,    /* by its progress, else by `error` */
	JOB_CANCELLED, /* whatever its progress calls it */
};

struct job_result {
	size_t index;
	enum job_end end;
	/* The ExecutionProgress, with method or progress_method; NONE if
	 * nothing was submitted. */
	struct json progress;
	/* Why, where the progress doesn't say it (a timeout, an unreadable
	 * file); may be NULL. */
	const struct error *error;
	struct json node_errors; /* or NONE */
	unsigned resubmits;
	int64_t elapsed_ms;
	/* What was handed over to a chain's step ("handed"), or NULL. */
	const char *handed;
	/* Further members, JSON text that begins with a comma; may be empty. */
	struct span more;
};

/* Appends the object. */
void job_result_json(const struct job_result *r, struct buf *out);

#endif
