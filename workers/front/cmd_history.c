/*
 * cmd_history.c - `comfymux history`: one's prompts, newest first.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "workers/front/ask.h"

static void format_time(struct json ms, char *out, size_t size)
{
	int64_t value;
	struct tm tm;
	time_t t;

	(void)snprintf(out, size, "-");
	if (!json_int64(ms, &value) || value <= 0)
		return;
	t = (time_t)(value / 1000);
	if (localtime_r(&t, &tm))
		(void)strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm);
}

/* The files of a prompt's outputs, or why it has none. */
static int print_details(struct json prompt)
{
	cleanup_buf struct buf text = BUF_INIT(1u << 20);
	struct json error = json_get(prompt, "error");

	if (json_is(error, JSON_OBJECT)) {
		cleanup_buf struct buf m = BUF_INIT(65536);

		(void)json_string_decode(json_get(error, "message"), &m);
		(void)buf_printf(&text, "  %s\n", log_safe(m.data, m.len));
	}
	cli_outputs_text(json_get(prompt, "outputs"), &text);
	return text.len > 0 ? cli_print(text.data, text.len) : EXIT_COMPLETED;
}

static int print_history(const struct cli *cli, struct json result)
{
	struct json_iter it;
	struct json prompt;
	int r = EXIT_COMPLETED;

	json_iter_init(&it, json_get(result, "prompts"));
	while (r == EXIT_COMPLETED && json_iter_next(&it, NULL, &prompt)) {
		cleanup_free char *id =
			json_string_dup(json_get(prompt, "prompt_id"), 256);
		cleanup_free char *status =
			json_string_dup(json_get(prompt, "status"), 64);
		char when[32];

		format_time(json_get(prompt, "submitted_at"), when,
		            sizeof(when));
		r = cli_printf("%-36s  %-19s  %s\n", id ? id : "?", when,
		               status ? status : "?");
		if (r == EXIT_COMPLETED)
			r = print_details(prompt);
	}
	return r;
}

int cmd_history(struct cli *cli)
{
	char params[64];

	(void)snprintf(params, sizeof(params), "{\"limit\":%" PRId64 "}",
	               cli->limit);
	return ask_and_print(cli, OP_HISTORY, SPAN(params), ASK_WORKER,
	                     print_history);
}
