/*
 * chain_file.c - see chain_file.h. The text is spliced, never printed anew:
 * digits stay.
 */
#include "workers/front/chain_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/chain_spec.h"
#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/workflow.h"
#include "ipc/message.h"

#define PATH_BYTES 4096

static char *path_beside(const char *file, const char *name)
{
	const char *slash = strrchr(file, '/');
	char *path;

	if (*name == '/' || !slash)
		return strdup(name);
	if (asprintf(&path, "%.*s/%s", (int)(slash - file), file, name) < 0)
		return NULL;
	return path;
}

/* A step whose workflow is a path: with the file's text in its place, or why
 * that can't be had. */
static int put_step(struct json step, const char *file, struct buf *out)
{
	struct json named = json_get(step, "workflow");
	cleanup_buf struct buf text = BUF_INIT(WORKFLOW_SIZE_MAX);
	cleanup_free char *name = json_string_dup(named, PATH_BYTES);
	cleanup_free char *path = NULL;
	struct error why = ERROR_NULL;

	if (!json_is(named, JSON_STRING))
		return buf_append(out, step.text.p, step.text.n);
	if (name)
		path = path_beside(file, name);
	if (!path)
		(void)error_set(&why, ERR_INVALID,
		                "the workflow's path is too long");
	if (!path || cli_read_file(path, &text, &why)) {
		buf_reset(&text);
		(void)buf_puts(&text, "null");
		cli_put_unreadable(&text, &why);
	}
	/* The analyser does not see that cleanup_free frees `path`.
	 * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
	return json_splice(out, step.text, named.text,
	                   span_make(text.data, text.len));
}

static int put_steps(struct json steps, const char *file, struct buf *out,
                     struct error *err)
{
	struct json_iter it;
	struct json step;
	size_t i = 0;

	(void)buf_puts(out, "\"steps\":[");
	json_iter_init(&it, steps);
	while (json_iter_next(&it, NULL, &step)) {
		(void)buf_puts(out, i++ ? "," : "");
		if (put_step(step, file, out))
			break;
	}
	(void)buf_putc(out, ']');
	return buf_ok(out) ? 0
	                   : error_set(err, ERR_INVALID,
	                               "the chain is larger than %u bytes",
	                               LINE_MAX_BYTES);
}

int chain_file_read(const struct cli *cli, const char *file, struct buf *out,
                    size_t *countp, struct error *err)
{
	cleanup_free char *text = NULL;
	struct json chain, steps, stop;
	struct chain_spec *spec;
	enum json_outcome o;
	size_t len;
	int r = fd_read_file(file, LINE_MAX_BYTES, &text, &len);

	if (r < 0) {
		(void)error_set_errno(err, -r, "cannot read %s", file);
		err->code = ERR_INVALID;
		return -1;
	}
	o = json_parse(&chain, text, len, JSON_NONFINITE, NULL);
	if (o != JSON_OK)
		return error_set(err, ERR_INVALID, "%s: %s", file,
		                 json_outcome_text(o));
	/* Whether it is a chain at all is said before a session is begun. */
	spec = chain_spec_parse(chain, err);
	if (!spec) {
		err->code = ERR_INVALID;
		return error_prefix(err, "%s", file);
	}
	*countp = spec->count;
	(void)chain_spec_free(spec);
	steps = json_is(chain, JSON_OBJECT) ? json_get(chain, "steps") : chain;
	stop = json_get(chain, "stop_on_error");
	if (cli->keep_going)
		(void)buf_puts(out, "\"stop_on_error\":false,");
	else if (!json_is(stop, JSON_NONE))
		(void)buf_printf(out, "\"stop_on_error\":%.*s,",
		                 (int)stop.text.n, stop.text.p);
	return put_steps(steps, file, out, err);
}
