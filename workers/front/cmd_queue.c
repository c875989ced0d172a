/*
 * cmd_queue.c - `comfymux queue`: what runs and waits.
 */
#include <inttypes.h>

#include "common/cleanup.h"
#include "workers/front/ask.h"

static int print_items(struct json list)
{
	struct json_iter it;
	struct json item;
	int r = EXIT_COMPLETED;

	json_iter_init(&it, list);
	while (r == EXIT_COMPLETED && json_iter_next(&it, NULL, &item)) {
		cleanup_free char *id =
			json_string_dup(json_get(item, "prompt_id"), 256);
		cleanup_free char *status =
			json_string_dup(json_get(item, "status"), 64);
		int64_t position = -1;

		(void)json_int64(json_get(item, "queue_position"), &position);
		if (position > 0)
			r = cli_printf("%-36s  %s, %" PRId64 " ahead\n",
			               id ? id : "?", status ? status : "?",
			               position);
		else
			r = cli_printf("%-36s  %s\n", id ? id : "?",
			               status ? status : "?");
	}
	return r;
}

static int print_queue(const struct cli *cli, struct json result)
{
	struct json running = json_get(result, "running");
	struct json pending = json_get(result, "pending");
	int64_t others = 0;
	int r = print_items(running);

	(void)json_int64(json_get(result, "others"), &others);
	if (r == EXIT_COMPLETED)
		r = print_items(pending);
	if (r == EXIT_COMPLETED)
		r = cli_printf(
			"%zu running, %zu waiting, %" PRId64 " of others\n",
			json_count(running), json_count(pending), others);
	return r;
}

int cmd_queue(struct cli *cli)
{
	return ask_and_print(cli, OP_QUEUE, SPAN("{}"), ASK_WORKER,
	                     print_queue);
}
