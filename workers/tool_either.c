/*
 * tool_either.c - wait_for_execution, get_execution_progress and
 * cancel_execution: of a prompt or of a job, by the id that they are given.
 */
#include "workers/tool_code.h"
#include "workers/tool_job_private.h"

static bool is_of_job(const struct tool_call *c)
{
	return tool_is_job(json_get(c->args, "prompt_id"));
}

void tool_await_start(struct tool_call *c)
{
	if (is_of_job(c))
		tool_job_wait(c);
	else
		tool_wait_start(c);
}

void tool_await_cancel(struct tool_call *c, bool stop)
{
	if (is_of_job(c))
		tool_job_cancel(c, stop);
	else
		tool_wait_cancel(c, stop);
}

void tool_await_destroy(struct tool_call *c)
{
	if (is_of_job(c))
		tool_job_destroy(c);
	else
		tool_execute_destroy(c);
}

void tool_advance_start(struct tool_call *c)
{
	if (is_of_job(c))
		tool_job_ask(c, OP_JOB);
	else
		tool_progress_start(c);
}

void tool_abort_start(struct tool_call *c)
{
	if (is_of_job(c))
		tool_job_ask(c, OP_JOB_CANCEL);
	else
		tool_cancel_start(c);
}

void tool_either_destroy(struct tool_call *c)
{
	if (is_of_job(c))
		tool_job_destroy(c);
	else
		tool_query_destroy(c);
}
