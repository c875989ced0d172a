/*
 * cmd_reconnect.c - `comfymux reconnect`: a fresh WebSocket, for an operator
 * who doesn't trust the one there is.
 */
#include "common/cleanup.h"
#include "workers/front/ask.h"

static int print_state(const struct cli *cli, struct json result)
{
	cleanup_free char *state =
		json_string_dup(json_get(result, "state"), 64);

	return cli_printf("reconnecting (%s)\n", state ? state : "?");
}

int cmd_reconnect(struct cli *cli)
{
	return ask_and_print(cli, OP_RECONNECT, SPAN("{}"), ASK_FAIL,
	                     print_state);
}
