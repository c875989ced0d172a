/*
 * gen_protocol.c - the generated tables of ipc/PROTOCOL.md, on standard output.
 *
 * usage: gen_protocol < PROTOCOL.md
 *
 * Copies the page and replaces what stands between `<!-- generated: NAME -->`
 * and `<!-- end -->` by the table NAME, made from ipc/messages.def and the
 * headers' bounds. scripts/gen-protocol compiles and runs it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"
#include "common/json_span.h"
#include "common/macros.h"
#include "ipc/channel.h"
#include "ipc/listener.h"
#include "ipc/message.h"

#define LINE_LEN_MAX 4096

static const char begin_mark[] = "<!-- generated: ";
static const char end_mark[] = "<!-- end -->\n";

static const char *permit_name(enum op_permit p)
{
	switch (p) {
	case PERMIT_ANY:
		return "anybody, before hello too";
	case PERMIT_USER:
		return "after hello";
	case PERMIT_OPERATOR:
		return "operators";
	}
	abort();
}

static void print_bytes(size_t n)
{
	if (n >= 1u << 20 && n % (1u << 20) == 0)
		printf("%zu MiB", n >> 20);
	else if (n >= 1u << 10 && n % (1u << 10) == 0)
		printf("%zu KiB", n >> 10);
	else
		printf("%zu bytes", n);
}

/* ---- ops ---- */

static void print_fields(enum op op, bool in)
{
	bool any = false;

	for (size_t i = 0; i < field_count; i++) {
		const struct field_info *f = &field_table[i];

		if (f->op != op || f->in != in)
			continue;
		if (!any)
			printf("| %s | type | unit | | |\n"
			       "|---|---|---|---|---|\n",
			       in ? "field" : "member of result");
		any = true;
		printf("| `%s` | %s | %s | %s | %s |\n", f->name, f->type,
		       strcmp(f->unit, "-") == 0 ? "" : f->unit,
		       strcmp(f->need, "REQUIRED") == 0    ? "required"
		       : strcmp(f->need, "OPTIONAL") == 0  ? "optional"
		       : strcmp(f->need, "SOMETIMES") == 0 ? "sometimes"
		                                           : "always",
		       f->doc);
	}
	if (any)
		printf("\n");
	else if (in)
		printf("No fields.\n\n");
}

static void print_ops(void)
{
	for (enum op op = 0; op < OP_COUNT; op++) {
		printf("### %s\n\n%s For: %s. Longest request: ",
		       op_table[op].name, op_table[op].doc,
		       permit_name(op_table[op].permit));
		print_bytes(op_table[op].request_max);
		printf(".\n\n");
		print_fields(op, true);
		print_fields(op, false);
	}
}

/* ---- the other tables ---- */

static void print_events(void)
{
	printf("| event | kind | when, and what `data` holds |\n"
	       "|---|---|---|\n");
	for (enum event e = 0; e < EVENT_COUNT; e++)
		printf("| `%s` | %s | %s |\n", event_table[e].name,
		       event_table[e].fold == FOLD_KEEP ? "keep" : "step",
		       event_table[e].doc);
}

static void print_errors(void)
{
	printf("| type | meaning |\n|---|---|\n");
	for (enum error_code c = ERR_NONE + 1; c < ERR_CODE_COUNT; c++)
		printf("| `%s` | %s |\n", error_code_name(c), error_docs[c]);
}

static void print_frames(void)
{
	static const struct {
		unsigned number;
		const char *name, *direction, *doc;
	} frames[] = {
#define TO_WORKER                "to the worker"
#define TO_KEEPER                "to the keeper"
#define BOTH                     "both ways"
#define FRAME(e, name, dir, doc) {CHANNEL_##e, name, dir, doc},
#include "ipc/messages.def"
	};

	printf("| type | name | direction | payload |\n|---|---|---|---|\n");
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
		printf("| %u | `%s` | %s | %s |\n", frames[i].number,
		       frames[i].name, frames[i].direction, frames[i].doc);
}

static void print_bounds(void)
{
	static const struct {
		const char *name;
		size_t value;
		bool is_bytes;
		const char *doc;
	} bounds[] = {
#define BOUND(name, is_bytes, doc) {#name, name, is_bytes, doc}
		BOUND(LINE_MAX_BYTES, true,
	              "longest line either way, newline not counted; a longer "
	              "one is refused once (`limit`) and skipped, the "
	              "connection goes on"),
		BOUND(MESSAGE_ID_MAX, true,
	              "longest `id` of a request, quotes included"),
		BOUND(REQUEST_MEMBERS_MAX, false,
	              "members of a request, known or not"),
		BOUND(JSON_DEPTH_MAX, false,
	              "levels of nesting that are taken"),
		BOUND(LISTENER_BACKLOG, false,
	              "connections that may wait to be accepted"),
		BOUND(LISTENER_PATH_MAX, true, "longest path of the socket"),
		BOUND(PREVIEW_BYTES_MAX, true,
	              "a picture; a larger one is left out"),
		BOUND(ERROR_TEXT_MAX, true,
	              "an error's `message`; a longer one is cut"),
	};

	printf("| bound | value | |\n|---|---|---|\n");
	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		printf("| %s | ", bounds[i].name);
		if (bounds[i].is_bytes)
			print_bytes(bounds[i].value);
		else
			printf("%zu", bounds[i].value);
		printf(" | %s |\n", bounds[i].doc);
	}
}

/* ---- the page ---- */

static const struct {
	const char *name;
	void (*print)(void);
} tables[] = {
	{"ops", print_ops},       {"events", print_events},
	{"errors", print_errors}, {"bounds", print_bounds},
	{"frames", print_frames},
};

static void print_table(const char *mark)
{
	const char *name = mark + strlen(begin_mark);
	size_t n = strcspn(name, " ");

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		if (strlen(tables[i].name) != n ||
		    memcmp(tables[i].name, name, n) != 0)
			continue;
		printf("\n");
		tables[i].print();
		if (strcmp(tables[i].name, "ops") != 0)
			printf("\n");
		return;
	}
	(void)fprintf(stderr, "gen_protocol: no such table: %s", name);
	exit(EXIT_FAILURE);
}

int main(void)
{
	char line[LINE_LEN_MAX];
	bool inside = false;

	while (fgets(line, sizeof(line), stdin)) {
		if (strcmp(line, end_mark) == 0)
			inside = false;
		if (!inside)
			(void)fputs(line, stdout);
		if (strncmp(line, begin_mark, strlen(begin_mark)) == 0) {
			inside = true;
			print_table(line);
		}
	}
	if (inside || ferror(stdin) || fflush(stdout) != 0) {
		(void)fprintf(stderr, "gen_protocol: the page is cut off\n");
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
