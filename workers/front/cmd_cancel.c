/*
 * cmd_cancel.c - `comfymux cancel PROMPT_ID`, or of a job.
 */
#include "common/cleanup.h"
#include "workers/front/ask.h"
#include "workers/front/jobs.h"

static int print_cancelled(const struct cli *cli, struct json result)
{
	cleanup_free char *how = json_string_dup(json_get(result, "how"), 64);

	return cli_printf("%s\n", how ? how : "cancelled");
}

int cmd_cancel(struct cli *cli)
{
	cleanup_buf struct buf params = BUF_INIT(4096);
	struct error err = ERROR_NULL;

	if (jobs_is_id(cli->argv[0]))
		return jobs_cancel(cli);
	(void)buf_putc(&params, '{');
	ask_param(&params, "prompt_id", cli->argv[0]);
	if (buf_putc(&params, '}') < 0) {
		(void)error_set(&err, ERR_INVALID,
		                "that is too long for a prompt id");
		return cli_fail(&err);
	}
	return ask_and_print(cli, OP_CANCEL, span_make(params.data, params.len),
	                     ASK_WORKER, print_cancelled);
}
