/*
 * cmd_download.c - `comfymux download NAME`: a file from ComfyUI into the
 * user's directory. The worker fetches, the keeper writes.
 */
#include <inttypes.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "workers/front/ask.h"
#include "workers/front/session.h"

static int print_downloaded(const struct cli *cli, bool ok, struct json body,
                            int64_t elapsed_ms)
{
	cleanup_free char *path = NULL, *type = NULL, *message = NULL;
	int64_t bytes = 0;

	if (cli->json) {
		int r = cli_print_json_line(body);

		if (ok || r != EXIT_COMPLETED)
			return r;
	}
	if (ok) {
		path = json_string_dup(json_get(body, "path"), 8192);
		(void)json_int64(json_get(body, "bytes"), &bytes);
		return cli_printf("%s (%" PRId64 " bytes)\n", path ? path : "?",
		                  bytes);
	}
	type = json_string_dup(json_get(body, "type"), 64);
	message = json_string_dup(json_get(body, "message"), ERROR_TEXT_MAX);
	if (!cli->json)
		(void)fprintf(stderr, "comfymux: %s\n",
		              message ? message : "download failed");
	return cli_exit_of_type(type ? type : "internal");
}

int cmd_download(struct cli *cli)
{
	cleanup_buf struct buf request = BUF_INIT(65536);
	const char *path = cli->output ? cli->output : ".";
	struct session_job job = {.label = cli->argv[0],
	                          .path = path,
	                          .interrupted = EXIT_CANCELLED,
	                          .print = print_downloaded};
	struct error err = ERROR_NULL;

	(void)buf_puts(&request, "{\"op\":\"view\",\"params\":{");
	ask_param(&request, "filename", cli->argv[0]);
	ask_param(&request, "subfolder", cli->subfolder ? cli->subfolder : "");
	ask_param(&request, "type", cli->type ? cli->type : "output");
	ask_param(&request, "path", path);
	(void)buf_printf(&request, ",\"overwrite\":%s}}",
	                 cli->overwrite ? "true" : "false");
	if (!buf_ok(&request)) {
		(void)error_set(&err, ERR_INVALID,
		                "these names are too long for a file");
		return cli_fail(&err);
	}
	job.request = span_make(request.data, request.len);
	return session_run(cli, &job);
}
