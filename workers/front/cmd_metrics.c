/*
 * cmd_metrics.c - `comfymux metrics`: the supervisor's figures in Prometheus'
 * text format, for node_exporter's text files or a look by hand.
 */
#include "workers/front/ask.h"

static int print_metrics(const struct cli *cli, struct json result)
{
	cleanup_buf struct buf text = BUF_INIT(1u << 20);
	struct error err = ERROR_NULL;

	if (json_string_decode(json_get(result, "text"), &text) < 0) {
		(void)error_set(&err, ERR_PROTOCOL,
		                "the supervisor's answer has no metrics");
		return cli_fail(&err);
	}
	return cli_print(text.data, text.len);
}

int cmd_metrics(struct cli *cli)
{
	return ask_and_print(cli, OP_METRICS, SPAN("{}"), ASK_FAIL,
	                     print_metrics);
}
