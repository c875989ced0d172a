/*
 * cmd_restart_workers.c - `comfymux restart-workers [SESSION]`: every worker,
 * or one session's, gives way to a successor, as after an upgrade.
 */
#include <inttypes.h>

#include "common/cleanup.h"
#include "workers/front/ask.h"

static int print_count(const struct cli *cli, struct json result)
{
	int64_t n = 0;

	(void)json_int64(json_get(result, "workers"), &n);
	return cli_printf("%" PRId64 " worker%s replaced\n", n,
	                  n == 1 ? " is" : "s are");
}

int cmd_restart_workers(struct cli *cli)
{
	cleanup_buf struct buf params = BUF_INIT(4096);
	struct error err = ERROR_NULL;

	(void)buf_putc(&params, '{');
	if (cli->argc > 0)
		ask_param(&params, "session", cli->argv[0]);
	if (buf_putc(&params, '}') < 0) {
		(void)error_set(&err, ERR_INVALID,
		                "that is too long for a session's id");
		return cli_fail(&err);
	}
	return ask_and_print(cli, OP_RESTART_WORKERS,
	                     span_make(params.data, params.len), ASK_FAIL,
	                     print_count);
}
