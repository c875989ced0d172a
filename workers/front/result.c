/*
 * result.c - see result.h.
 */
#include "workers/front/result.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/progress.h"

/* "comfymux: KSampler said no (ValueError) at node 5, prompt 1234-..." */
static void print_failure(struct json error, const char *prompt_id)
{
	cleanup_free char *type = json_string_dup(json_get(error, "type"), 256);
	cleanup_free char *node =
		json_string_dup(json_get(error, "node_id"), 256);
	cleanup_buf struct buf message = BUF_INIT(PROGRESS_ERROR_MAX);

	(void)json_string_decode(json_get(error, "message"), &message);
	(void)fprintf(
		stderr, "comfymux: %s: %.*s%s%s%s%s\n", type ? type : "failed",
		(int)message.len, message.data ? message.data : "",
		node && *node ? "\n  at node " : "", node ? node : "",
		prompt_id ? "\n  prompt " : "", prompt_id ? prompt_id : "");
}

static int exit_of_result(struct json result)
{
	cleanup_free char *type = json_string_dup(
		json_get(json_get(result, "error"), "type"), 256);

	if (json_string_eq(json_get(result, "status"), "completed"))
		return EXIT_COMPLETED;
	/* An exception may well be called "timeout": only these two are ours
	 * where a prompt ran. */
	if (type &&
	    (strcmp(type, "cancelled") == 0 || strcmp(type, "rejected") == 0))
		return cli_exit_of_type(type);
	return EXIT_FAILED;
}

static int print_result(struct json result, int64_t elapsed_ms)
{
	cleanup_free char *id =
		json_string_dup(json_get(result, "prompt_id"), 256);
	cleanup_buf struct buf text = BUF_INIT(PROGRESS_OUTPUTS_MAX);
	int status = exit_of_result(result), printed;

	if (status != EXIT_COMPLETED) {
		print_failure(json_get(result, "error"), id);
		return status;
	}
	cli_outputs_text(json_get(result, "outputs"), &text);
	printed = cli_printf("Completed in %.1f s (prompt %s)\n",
	                     (double)elapsed_ms / 1000, id ? id : "?");
	if (printed == EXIT_COMPLETED && text.len > 0)
		printed = cli_print(text.data, text.len);
	return printed;
}

/* With --json a refusal is a result like any other: the same members. */
static int print_json_error(struct json error)
{
	cleanup_buf struct buf line = BUF_INIT(PROGRESS_OUTPUTS_MAX);
	struct json id = json_get(error, "prompt_id");
	struct json progress = json_get(error, "progress");
	bool timed_out = json_string_eq(json_get(error, "type"), "timeout");

	if (timed_out && json_is(progress, JSON_OBJECT)) {
		(void)buf_append(&line, progress.text.p, progress.text.n - 1);
		(void)buf_puts(&line, ",\"timed_out\":true}\n");
		return cli_print(line.data, line.len);
	}
	(void)buf_putc(&line, '{');
	if (json_is(id, JSON_STRING)) {
		(void)buf_json_key(&line, "prompt_id");
		(void)buf_append(&line, id.text.p, id.text.n);
	}
	(void)buf_json_key(&line, "status");
	(void)buf_puts(&line, "\"failed\"");
	(void)buf_json_key(&line, "error");
	(void)json_compact(&line, error);
	(void)buf_puts(&line, "}\n");
	return cli_print(line.data, line.len);
}

int result_print(const struct cli *cli, bool ok, struct json body,
                 int64_t elapsed_ms)
{
	cleanup_free char *id = NULL, *type = NULL;

	if (ok && !cli->json)
		return print_result(body, elapsed_ms);
	if (ok)
		return cli_print_json_line(body) == EXIT_COMPLETED
		               ? exit_of_result(body)
		               : EXIT_FAILED;
	id = json_string_dup(json_get(body, "prompt_id"), 256);
	type = json_string_dup(json_get(body, "type"), 256);
	if (!cli->json)
		print_failure(body, id);
	else if (print_json_error(body) != EXIT_COMPLETED)
		return EXIT_FAILED;
	return cli_exit_of_type(type ? type : "internal");
}
