/*
 * cmd_submit.c - `comfymux submit FILE`: queue a workflow, print its id, go.
 */
#include <stdio.h>

#include "common/cleanup.h"
#include "common/workflow.h"
#include "workers/front/ask.h"

static int print_submitted(const struct cli *cli, struct json result)
{
	cleanup_free char *id =
		json_string_dup(json_get(result, "prompt_id"), 256);
	struct json faults = json_get(result, "node_errors");

	if (json_count(faults) > 0) {
		cleanup_buf struct buf text = BUF_INIT(65536);

		workflow_refusal_text(result, &text);
		(void)fprintf(stderr,
		              "comfymux: accepted in part, these outputs were "
		              "left out:\n%.*s\n",
		              (int)text.len, text.data ? text.data : "");
	}
	return cli_printf("%s\n", id ? id : "?");
}

int cmd_submit(struct cli *cli)
{
	cleanup_buf struct buf workflow = BUF_INIT(WORKFLOW_SIZE_MAX);
	cleanup_buf struct buf params = BUF_INIT(LINE_MAX_BYTES);
	struct error err = ERROR_NULL;

	if (cli_read_workflow(cli, cli->argv[0], &workflow, &err) < 0)
		return cli_fail(&err);
	(void)buf_puts(&params, cli->hold ? "{\"hold\":true,\"workflow\":"
	                                  : "{\"workflow\":");
	(void)buf_append(&params, workflow.data, workflow.len);
	(void)buf_putc(&params, '}');
	if (!buf_ok(&params)) {
		(void)error_set_nomem(&err, "the request");
		return cli_fail(&err);
	}
	return ask_and_print(cli, OP_SUBMIT, span_make(params.data, params.len),
	                     ASK_AUTOSTART, print_submitted);
}
