/*
 * cmd_pause.c - `comfymux pause` and `comfymux resume`: whether ComfyUI gets
 * prompts, for operators. A prompt that it has already runs on.
 */
#include <inttypes.h>

#include "workers/front/ask.h"

static int print_paused(const struct cli *cli, struct json result)
{
	int64_t waiting = 0;
	bool paused = false;

	(void)json_bool(json_get(result, "paused"), &paused);
	(void)json_int64(json_get(result, "waiting"), &waiting);
	return cli_printf("%s (%" PRId64 " waiting)\n",
	                  paused ? "paused" : "resumed", waiting);
}

int cmd_pause(struct cli *cli)
{
	return ask_and_print(cli, OP_PAUSE, SPAN("{}"), ASK_FAIL, print_paused);
}

int cmd_resume(struct cli *cli)
{
	return ask_and_print(cli, OP_RESUME, SPAN("{}"), ASK_FAIL,
	                     print_paused);
}
