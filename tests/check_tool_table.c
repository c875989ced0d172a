/*
 * check_tool_table.c - the table of tools: schemas that parse and that our own
 * checker understands, names, texts, and the size of the whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/runner.h"
#include "workers/mcp_describe.h"
#include "workers/mcp_tools.h"
#include "workers/tool_recall.h"

#define DESCRIPTION_MAX 500 /* bytes: all of them are read by the model */
#define WISHED_LIST_MAX (20u << 10)

static struct json parsed(const char *text)
{
	struct json j;

	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL), JSON_OK);
	ck_assert(json_is(j, JSON_OBJECT));
	return j;
}

static void check_names(struct json names, struct json properties)
{
	struct json_iter it;
	struct json name;

	json_iter_init(&it, names);
	while (json_iter_next(&it, NULL, &name)) {
		char *s = json_string_dup(name, 100);

		ck_assert_ptr_nonnull(s);
		ck_assert_msg(json_is(json_get(properties, s), JSON_OBJECT),
		              "%s is required and not there", s);
		free(s);
	}
}

START_TEST(test_schemas)
{
	const struct tool *t = &tool_table[_i];
	struct json in = parsed(t->input_schema);
	struct json out = parsed(t->output_schema);
	bool open = true;

	ck_assert(json_string_eq(json_get(in, "type"), "object"));
	ck_assert(json_string_eq(json_get(out, "type"), "object"));
	ck_assert(json_bool(json_get(in, "additionalProperties"), &open));
	ck_assert(!open);
	check_names(json_get(in, "required"), json_get(in, "properties"));
	check_names(json_get(out, "required"), json_get(out, "properties"));
}
END_TEST

START_TEST(test_texts)
{
	const struct tool *t = &tool_table[_i];

	ck_assert_uint_gt(strlen(t->title), 0);
	ck_assert_uint_gt(strlen(t->description), 30);
	ck_assert_uint_le(strlen(t->description), DESCRIPTION_MAX);
	ck_assert_uint_le(strlen(t->name), 40);
	ck_assert_uint_eq(strspn(t->name, "abcdefghijklmnopqrstuvwxyz_"),
	                  strlen(t->name));
	ck_assert_ptr_nonnull(t->start);
	ck_assert_ptr_nonnull(t->destroy);
	/* A tool that only reads destroys nothing, and submits nothing. */
	if (t->annotations & TOOL_READ_ONLY)
		ck_assert(
			!(t->annotations & (TOOL_DESTRUCTIVE | TOOL_SUBMITS)));
}
END_TEST

START_TEST(test_found_by_name)
{
	const struct tool *t = &tool_table[_i];
	char longer[64];

	ck_assert_ptr_eq(tool_find(span_make(t->name, strlen(t->name))), t);
	ck_assert_ptr_null(tool_find(span_make(t->name, strlen(t->name) - 1)));
	(void)snprintf(longer, sizeof(longer), "%s_", t->name);
	ck_assert_ptr_null(tool_find(span_make(longer, strlen(longer))));
}
END_TEST

START_TEST(test_whole_list_is_short)
{
	for (enum mcp_version v = 0; v < MCP_VERSION_COUNT; v++) {
		struct buf b = BUF_INIT(1u << 20);

		ck_assert_int_eq(mcp_describe_tools(&b, v), 0);
		ck_assert_uint_lt(b.len, TOOL_LIST_MAX);
		ck_assert_uint_lt(b.len, WISHED_LIST_MAX);
		buf_deinit(&b);
	}
}
END_TEST

START_TEST(test_no_arguments)
{
	struct json none = parsed("{}");
	struct json odd = parsed("{\"no such argument\": 1}");

	for (size_t i = 0; i < tool_count; i++) {
		struct error err = ERROR_NULL;
		struct json in = parsed(tool_table[i].input_schema);
		bool needed = json_count(json_get(in, "required")) > 0;

		ck_assert_int_eq(
			tool_check_args(none, tool_table[i].input_schema, &err),
			needed ? -1 : 0);
		ck_assert_int_eq(
			tool_check_args(odd, tool_table[i].input_schema, &err),
			-1);
		ck_assert_int_eq(err.code, ERR_INVALID);
	}
}
END_TEST

/* --- what a session remembers of workflows -------------------------------- */

static struct json id_of(unsigned n)
{
	static char text[32];
	struct json j;

	(void)snprintf(text, sizeof(text), "\"p%u\"", n);
	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL), JSON_OK);
	return j;
}

static struct json any(const char *text)
{
	struct json j;

	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL), JSON_OK);
	return j;
}

/* What a successor is told is what it then knows, and saves in turn. */
START_TEST(test_recall_is_handed_on)
{
	struct tool_host h = {0}, next = {0};
	struct buf saved = BUF_INIT(1 << 20), again = BUF_INIT(1 << 20);
	const struct tool_facts *f;
	struct json w = parsed("{\"3\":{\"class_type\":\"KSampler\"},"
	                       "\"a\\u0000b\":{\"class_type\":\"B\"}}");

	list_init(&h.recalled);
	list_init(&next.recalled);
	for (unsigned i = 0; i < 3; i++)
		tool_recall_put(&h, id_of(i), tool_facts_new(w));
	tool_recall_save(&h, &saved);
	tool_recall_load(&next, any(buf_cstr(&saved)));
	ck_assert_uint_eq(next.recalled_count, 3);
	f = tool_recall_find(&next, id_of(2));
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(tool_facts_nodes(f), 2);
	ck_assert_str_eq(tool_facts_class(f, "3"), "KSampler");
	/* A name with a NUL in it is none. */
	ck_assert_ptr_null(tool_facts_class(f, "a"));
	ck_assert_ptr_null(tool_facts_class(f, "b"));
	tool_recall_save(&next, &again);
	ck_assert_str_eq(buf_cstr(&again), buf_cstr(&saved));
	tool_recall_clear(&h);
	tool_recall_clear(&next);
	buf_deinit(&saved);
	buf_deinit(&again);
}
END_TEST

/* With many large ones the names of the oldest are left out, the counts stay.
 */
START_TEST(test_recall_is_bounded)
{
	struct tool_host h = {0}, next = {0};
	struct buf saved = BUF_INIT(TOOL_RECALL_SAVED + (8 << 10));
	struct buf w = BUF_INIT(1 << 20);

	list_init(&h.recalled);
	list_init(&next.recalled);
	(void)buf_putc(&w, '{');
	for (unsigned i = 0; i < 60; i++)
		(void)buf_printf(&w, "%s\"%u\":{\"class_type\":\"Class%u\"}",
		                 i ? "," : "", i, i);
	(void)buf_putc(&w, '}');
	for (unsigned i = 0; i <= TOOL_RECALL_MAX; i++)
		tool_recall_put(&h, id_of(i),
		                tool_facts_new(parsed(buf_cstr(&w))));
	tool_recall_save(&h, &saved);
	ck_assert(buf_ok(&saved));
	tool_recall_load(&next, any(buf_cstr(&saved)));
	ck_assert_uint_eq(next.recalled_count, TOOL_RECALL_MAX);
	ck_assert_str_eq(
		tool_facts_class(
			tool_recall_find(&next, id_of(TOOL_RECALL_MAX)), "7"),
		"Class7");
	ck_assert_uint_eq(tool_facts_nodes(tool_recall_find(&next, id_of(1))),
	                  60);
	ck_assert_ptr_null(
		tool_facts_class(tool_recall_find(&next, id_of(1)), "7"));
	tool_recall_clear(&h);
	tool_recall_clear(&next);
	buf_deinit(&saved);
	buf_deinit(&w);
}
END_TEST

static const char *const not_saved[] = {
	"{}",
	"[1,null,[],{}]",
	"[{\"id\":\"x\",\"names\":[\"3\"]}]",
	"[{\"id\":\"x\",\"nodes\":-1,\"names\":[1,2,\"3\",\"4\"]}]",
};

START_TEST(test_recall_of_nonsense)
{
	struct tool_host h = {0};
	const struct tool_facts *f;

	list_init(&h.recalled);
	tool_recall_load(&h, any(not_saved[_i]));
	f = tool_recall_find(&h, any("\"x\""));
	if (f) {
		ck_assert_uint_eq(tool_facts_nodes(f), 0);
		ck_assert_ptr_null(tool_facts_class(f, "3"));
	}
	tool_recall_clear(&h);
}
END_TEST

START_TEST(test_recalls)
{
	struct tool_host h = {0};
	const struct tool_facts *f;
	struct json w = parsed("{\"3\":{\"class_type\":\"KSampler\"},"
	                       "\"4.0\":{\"class_type\":\"A\\u00e9\"},"
	                       "\"\":{\"class_type\":\"B\"}}");

	list_init(&h.recalled);
	for (unsigned i = 0; i <= TOOL_RECALL_MAX; i++)
		tool_recall_put(&h, id_of(i), tool_facts_new(w));
	/* The oldest had to go. */
	ck_assert_uint_eq(h.recalled_count, TOOL_RECALL_MAX);
	ck_assert_ptr_null(tool_recall_find(&h, id_of(0)));
	f = tool_recall_find(&h, id_of(TOOL_RECALL_MAX));
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(tool_facts_nodes(f), 3);
	ck_assert_str_eq(tool_facts_class(f, "3"), "KSampler");
	ck_assert_str_eq(tool_facts_class(f, "4.0"), "A\xc3\xa9");
	ck_assert_str_eq(tool_facts_class(f, ""), "B");
	ck_assert_ptr_null(tool_facts_class(f, "4"));
	/* Once is enough. */
	tool_recall_put(&h, id_of(1), tool_facts_new(w));
	ck_assert_uint_eq(h.recalled_count, TOOL_RECALL_MAX);
	ck_assert_ptr_null(tool_recall_find(&h, JSON_MISSING));
	tool_recall_clear(&h);
	ck_assert(list_empty(&h.recalled));
}
END_TEST

START_TEST(test_recalls_a_large_one_in_part)
{
	struct buf b = BUF_INIT(1u << 20);
	struct tool_facts *f;
	char name[16];
	size_t known = 0;

	(void)buf_putc(&b, '{');
	for (int i = 0; i < 2000; i++)
		(void)buf_printf(&b, "%s\"%d\":{\"class_type\":\"Class%d\"}",
		                 i ? "," : "", i, i);
	(void)buf_putc(&b, '}');
	ck_assert_ptr_nonnull(buf_cstr(&b));
	f = tool_facts_new(parsed(b.data));
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(tool_facts_nodes(f), 2000);
	for (int i = 0; i < 2000; i++) {
		const char *class;

		(void)snprintf(name, sizeof(name), "%d", i);
		class = tool_facts_class(f, name);
		known += class != NULL;
		if (class)
			ck_assert_str_eq(class + strlen("Class"), name);
	}
	ck_assert_uint_gt(known, 500);
	ck_assert_uint_lt(known, 2000);
	ck_assert_ptr_null(tool_facts_free(f));
	buf_deinit(&b);
}
END_TEST

static Suite *tool_table_suite(void)
{
	Suite *s = suite_create("tool_table");
	TCase *tc = tcase_create("tool_table");

	tcase_add_loop_test(tc, test_schemas, 0, (int)tool_count);
	tcase_add_loop_test(tc, test_texts, 0, (int)tool_count);
	tcase_add_loop_test(tc, test_found_by_name, 0, (int)tool_count);
	tcase_add_test(tc, test_whole_list_is_short);
	tcase_add_test(tc, test_no_arguments);
	tcase_add_test(tc, test_recalls);
	tcase_add_test(tc, test_recall_is_handed_on);
	tcase_add_test(tc, test_recall_is_bounded);
	tcase_add_loop_test(tc, test_recall_of_nonsense, 0,
	                    ARRAY_SIZE(not_saved));
	tcase_add_test(tc, test_recalls_a_large_one_in_part);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return runner_run(tool_table_suite());
}
