/*
 * cmd_run.c - `comfymux run FILE`: a session with one request. Shows live
 * progress, prints the outputs, cancels the prompt on Ctrl-C.
 */
#include "common/workflow.h"
#include "ipc/message.h"
#include "workers/front/result.h"
#include "workers/front/session.h"

static int build_request(const struct cli *cli, const struct buf *workflow,
                         struct buf *request, struct error *err)
{
	(void)buf_printf(request, "{\"op\":\"run\",\"params\":{");
	if (cli->timeout_ms > 0)
		(void)buf_printf(request, "\"timeout_ms\":%lld,",
		                 (long long)cli->timeout_ms);
	if (cli->preview)
		(void)buf_puts(request, "\"previews\":true,");
	(void)buf_puts(request, "\"workflow\":");
	(void)buf_append(request, workflow->data, workflow->len);
	(void)buf_puts(request, "}}");
	return buf_ok(request) ? 0 : error_set_nomem(err, "the request");
}

int cmd_run(struct cli *cli)
{
	cleanup_buf struct buf workflow = BUF_INIT(WORKFLOW_SIZE_MAX);
	cleanup_buf struct buf request = BUF_INIT(LINE_MAX_BYTES);
	struct session_job job = {.label = cli->argv[0],
	                          .preview = cli->preview,
	                          .autostart = true,
	                          .cancel = true,
	                          .interrupted = EXIT_CANCELLED,
	                          .print = result_print};
	struct error err = ERROR_NULL;

	if (cli_read_workflow(cli, cli->argv[0], &workflow, &err) < 0 ||
	    build_request(cli, &workflow, &request, &err) < 0)
		return cli_fail(&err);
	job.request = span_make(request.data, request.len);
	return session_run(cli, &job);
}
