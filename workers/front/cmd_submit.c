/*
 * cmd_submit.c - `comfymux submit FILE`: queue a workflow, print its id, go.
 */
#include <stdio.h>

#include "common/cleanup.h"
#include "common/uuid.h"
#include "common/workflow.h"
#include "ipc/client.h"
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

/* The id is ours, so that it can be asked for again. */
static int put_params(const struct cli *cli, const char *prompt_id,
                      struct buf *params, struct error *err)
{
	cleanup_buf struct buf workflow = BUF_INIT(WORKFLOW_SIZE_MAX);

	if (cli_read_workflow(cli, cli->argv[0], &workflow, err) < 0)
		return -1;
	(void)buf_putc(params, '{');
	ask_param(params, "prompt_id", prompt_id);
	(void)buf_puts(params, cli->hold ? ",\"hold\":true,\"workflow\":"
	                                 : ",\"workflow\":");
	(void)buf_append(params, workflow.data, workflow.len);
	(void)buf_putc(params, '}');
	return buf_ok(params) ? 0 : error_set_nomem(err, "the request");
}

int cmd_submit(struct cli *cli)
{
	cleanup_buf struct buf params = BUF_INIT(LINE_MAX_BYTES);
	cleanup_buf struct buf reply = BUF_INIT(CLIENT_QUOTA);
	struct error err = ERROR_NULL;
	struct json result = JSON_MISSING;
	char id[UUID_LEN + 1];
	int r = uuid_new(id);

	if (r < 0) {
		(void)error_set_errno(&err, r, "cannot make an id");
		return cli_fail(&err);
	}
	if (put_params(cli, id, &params, &err) < 0)
		return cli_fail(&err);
	r = ask_submit(cli, span_make(params.data, params.len), id, &reply,
	               &result, &err);
	return ask_print(cli, r, result, &err, print_submitted);
}
