/*
 * tool_workflow.c - see tool_workflow.h.
 */
#include "workers/tool_workflow.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/workflow.h"
#include "workers/tool_ask.h"

#define PATH_BYTES_MAX 4096
#define READ_CHUNK     65536
#define SETS_MAX       256 /* changes of one workflow */

/* Splices one override after the other; `text` is replaced by the result. */
static int apply_sets(struct buf *text, struct json *workflow, struct json sets,
                      struct error *err)
{
	struct json_iter it;
	struct json key, value;

	/* Each copies the workflow. */
	if (json_count(sets) > SETS_MAX)
		return error_set(err, ERR_LIMIT,
		                 "set: more than %d changes; change the "
		                 "workflow itself",
		                 SETS_MAX);
	json_iter_init(&it, sets);
	while (json_iter_next(&it, &key, &value)) {
		cleanup_buf struct buf target = BUF_INIT(PATH_BYTES_MAX);
		cleanup_buf struct buf changed = BUF_INIT(WORKFLOW_SIZE_MAX);
		struct buf swap;

		if (json_string_decode(key, &target) < 0)
			return error_set(err, ERR_INVALID,
			                 "a key of set is too long");
		if (workflow_set_value(&changed, *workflow,
		                       span_make(target.data, target.len),
		                       value.text, err) < 0) {
			/* Of a node: no prompt or file is meant. */
			if (err->code == ERR_NOT_FOUND)
				err->code = ERR_INVALID;
			return error_prefix(err, "set");
		}
		swap = *text;
		*text = changed;
		changed = swap;
		if (workflow_parse(workflow, text->data, text->len, "workflow",
		                   err) < 0)
			return -1;
	}
	return 0;
}

static int prepare(const struct tool_call *c, struct buf *text,
                   const char *what, struct error *err)
{
	struct json workflow;

	if (workflow_parse(&workflow, text->data, text->len, what, err) < 0 ||
	    apply_sets(text, &workflow, json_get(c->args, "set"), err) < 0)
		return -1;
	/* Wrapped in {"prompt": ...}, only the inside is wanted. */
	if (workflow.text.n != text->len) {
		buf_consume(text, (size_t)(workflow.text.p - text->data));
		text->len = workflow.text.n;
	}
	return 0;
}

static void hand_over(struct tool_call *c, tool_workflow_cb *cb,
                      struct buf *text, const char *what)
{
	struct error err = ERROR_NULL;

	if (prepare(c, text, what, &err) < 0)
		cb(c, NULL, &err);
	else
		cb(c, text, NULL);
}

static void on_file(struct tool_call *c, int fd, const struct error *err)
{
	const struct tool_workflow *w = c->state;
	cleanup_buf struct buf text = BUF_INIT(WORKFLOW_SIZE_MAX + READ_CHUNK);
	cleanup_close int file = fd;
	struct error bad = ERROR_NULL;

	if (err)
		w->cb(c, NULL, err);
	else if (tool_read_file(file, WORKFLOW_SIZE_MAX, "workflow_path", &text,
	                        &bad) < 0)
		w->cb(c, NULL, &bad);
	else
		hand_over(c, w->cb, &text, "workflow_path");
}

static void from_path(struct tool_call *c, tool_workflow_cb *cb)
{
	cleanup_free char *path = json_string_dup(
		json_get(c->args, "workflow_path"), PATH_BYTES_MAX);
	struct tool_workflow *w = c->state;
	struct error err = ERROR_NULL;

	w->cb = cb;
	if (!path || !*path)
		(void)error_set(&err, ERR_INVALID,
		                "give workflow (an object in API format) or "
		                "workflow_path");
	else if (tool_open_read(c, path, on_file, &err) == 0)
		return;
	cb(c, NULL, &err);
}

void tool_workflow_get(struct tool_call *c, tool_workflow_cb *cb)
{
	cleanup_buf struct buf text = BUF_INIT(WORKFLOW_SIZE_MAX + READ_CHUNK);
	struct json w = json_get(c->args, "workflow");
	struct error err = ERROR_NULL;
	int r = 0;

	if (!json_is(w, JSON_NONE) &&
	    json_raw_string(json_get(c->args, "workflow_path")).n > 0) {
		(void)error_set(&err, ERR_INVALID,
		                "give workflow or workflow_path, not both");
		cb(c, NULL, &err);
		return;
	}
	if (json_is(w, JSON_OBJECT)) {
		r = buf_append(&text, w.text.p, w.text.n);
	} else if (json_is(w, JSON_STRING)) {
		r = json_string_decode(w, &text);
	} else {
		from_path(c, cb);
		return;
	}
	if (r < 0) {
		(void)error_set(&err, ERR_LIMIT,
		                "workflow is larger than the %u bytes it may "
		                "have",
		                WORKFLOW_SIZE_MAX);
		cb(c, NULL, &err);
		return;
	}
	hand_over(c, cb, &text, "workflow");
}
