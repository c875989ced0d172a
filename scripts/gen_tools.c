/*
 * gen_tools - prints what workers/tool_table.c says as the reference table of
 * README.md.
 *
 * The table points at the tools' code, which nothing here calls: STUB stands in
 * for it, so that none of it has to be linked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tool_code.h"

#define STUB(name)                                                             \
	void name(struct tool_call *c)                                         \
	{                                                                      \
		abort();                                                       \
	}
#define STUB_CANCEL(name)                                                      \
	void name(struct tool_call *c, bool stop)                              \
	{                                                                      \
		abort();                                                       \
	}
STUB(tool_sync_start)
STUB(tool_stream_start)
STUB(tool_submit_start)
STUB_CANCEL(tool_execute_cancel)
STUB_CANCEL(tool_await_cancel)
STUB_CANCEL(tool_job_cancel)
STUB(tool_execute_destroy)
STUB(tool_batch_start)
STUB(tool_chain_start)
STUB(tool_job_destroy)
STUB(tool_await_start)
STUB(tool_await_destroy)
STUB(tool_advance_start)
STUB(tool_abort_start)
STUB(tool_either_destroy)
STUB(tool_queue_start)
STUB(tool_history_start)
STUB(tool_last_start)
STUB(tool_outputs_start)
STUB(tool_details_start)
STUB(tool_query_destroy)
STUB(tool_download_start)
STUB(tool_upload_start)
STUB(tool_transfer_destroy)
STUB(tool_node_start)
STUB(tool_search_start)
STUB(tool_resources_start)
STUB(tool_look_destroy)

/* A '|' would end the cell. */
static void put_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			(void)putchar('\\');
		(void)putchar(*text);
	}
}

static bool is_required(struct json schema, struct json name)
{
	struct json_iter it;
	struct json one;

	json_iter_init(&it, json_get(schema, "required"));
	while (json_iter_next(&it, NULL, &one))
		if (span_eq(json_raw_string(one), json_raw_string(name)))
			return true;
	return false;
}

/* "`a`, `b`"; with `mark`, the required ones in bold. */
static int put_properties(const char *text, bool mark)
{
	struct json schema, key, value;
	struct json_iter it;
	bool first = true;

	if (json_parse(&schema, text, strlen(text), 0, NULL) != JSON_OK)
		return -1;
	json_iter_init(&it, json_get(schema, "properties"));
	while (json_iter_next(&it, &key, &value)) {
		struct span name = json_raw_string(key);
		const char *bold = mark && is_required(schema, key) ? "**" : "";

		(void)printf("%s%s`%.*s`%s", first ? "" : ", ", bold,
		             (int)name.n, name.p, bold);
		first = false;
	}
	if (first)
		(void)printf("none");
	return 0;
}

int main(void)
{
	(void)printf("| tool | what it does | arguments | result |\n"
	             "|---|---|---|---|\n");
	for (size_t i = 0; i < tool_count; i++) {
		const struct tool *t = &tool_table[i];

		(void)printf("| `%s` | ", t->name);
		put_text(t->description);
		(void)printf(" | ");
		if (put_properties(t->input_schema, true) < 0)
			return 1;
		(void)printf(" | ");
		if (put_properties(t->output_schema, false) < 0)
			return 1;
		(void)printf(" |\n");
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
