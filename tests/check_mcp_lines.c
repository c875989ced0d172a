/*
 * check_mcp_lines.c - what the keeper does with an MCP line by itself: refusing
 * it when no worker can be had, and which files it lets a worker open.
 */
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/runner.h"
#include "workers/front/mcp_lines.h"

#define REFUSED(id)                                                            \
	"{\"jsonrpc\":\"2.0\",\"id\":" id ",\"error\":{\"code\":-32603,"       \
	"\"message\":\"no worker\"}}"

static const struct {
	const char *line, *reply;
} refusals[] = {
	{"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}", REFUSED("0")},
	{"{\"jsonrpc\":\"2.0\",\"id\":\"\",\"method\":\"x\",\"params\":7}",
         REFUSED("\"\"")},
	{"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}", ""},
	{"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", ""},
	{"[]", ""},
	{"[{\"jsonrpc\":\"2.0\",\"method\":\"x\"}]", ""},
	{"[{\"jsonrpc\":\"2.0\",\"method\":\"x\"},{\"jsonrpc\":\"2.0\","
         "\"id\":2,\"method\":\"x\"},{\"jsonrpc\":\"2.0\",\"method\":\"x\"},"
         "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"x\"}]",
         "[" REFUSED("2") "," REFUSED("3") "]"},
	/* What is wrong with the line itself is told all the same. */
	{"{\"jsonrpc\":\"2.0\",\"id\":4}",
         "{\"jsonrpc\":\"2.0\",\"id\":4,\"error\":{\"code\":-32600,"
         "\"message\":\"method must be a string\"}}"},
};

START_TEST(refuses)
{
	struct buf b = BUF_INIT(4096);

	ck_assert_int_eq(mcp_line_refuse(&b, SPAN(refusals[_i].line),
	                                 RPC_INTERNAL_ERROR, "no worker"),
	                 0);
	ck_assert_str_eq(buf_cstr(&b), refusals[_i].reply);
	buf_deinit(&b);
}
END_TEST

START_TEST(refusing_is_bounded)
{
	struct buf b = BUF_INIT(16);

	ck_assert_int_lt(mcp_line_refuse(&b, SPAN(refusals[0].line),
	                                 RPC_INTERNAL_ERROR, "no worker"),
	                 0);
	buf_deinit(&b);
}
END_TEST

#define CALL(method, params)                                                   \
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method                   \
	"\",\"params\":{" params "}}"

static const struct {
	const char *line;
	bool named; /* "/a/b" */
} namings[] = {
	{CALL("tools/call", "\"arguments\":{\"path\":\"/a/b\"}"), true},
	{CALL("tools/call", "\"arguments\":{\"path\":\"\\/a\\u002fb\"}"), true},
	{CALL("tools/call", "\"arguments\":{\"x\":[1,{\"y\":[\"/a/b\"]}]}"),
         true},
	{"[7," CALL("tools/call", "\"arguments\":{\"p\":\"/a/b\"}") "]", true},
	/* Not an argument, not all of a string, not a call. */
	{CALL("tools/call", "\"arguments\":{\"/a/b\":1}"), false},
	{CALL("tools/call", "\"name\":\"/a/b\""), false},
	{CALL("tools/call", "\"arguments\":{\"path\":\"/a/b/c\"}"), false},
	{CALL("tools/call", "\"arguments\":{\"path\":\"/a/b\\u0000\"}"), false},
	{CALL("tools/call", "\"_meta\":{\"path\":\"/a/b\"}"), false},
	{CALL("resources/read", "\"arguments\":{\"path\":\"/a/b\"}"), false},
	{"{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":"
         "{\"arguments\":{\"path\":\"/a/b\"}}}",
         false},
	{"{\"arguments\":\"/a/b\"", false},
	{"[]", false},
};

START_TEST(knows_what_is_named)
{
	ck_assert_msg(mcp_line_names(SPAN(namings[_i].line), "/a/b") ==
	                      namings[_i].named,
	              "%s", namings[_i].line);
}
END_TEST

START_TEST(blank_lines)
{
	ck_assert(mcp_line_is_blank(SPAN("")));
	ck_assert(mcp_line_is_blank(SPAN(" \t\r ")));
	ck_assert(!mcp_line_is_blank(SPAN(" {")));
	ck_assert(!mcp_line_is_blank(span_make("\0", 1)));
}
END_TEST

static Suite *mcp_lines_suite(void)
{
	Suite *s = suite_create("mcp_lines");
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, refuses, 0, (int)ARRAY_SIZE(refusals));
	tcase_add_test(t, refusing_is_bounded);
	tcase_add_loop_test(t, knows_what_is_named, 0,
	                    (int)ARRAY_SIZE(namings));
	tcase_add_test(t, blank_lines);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(mcp_lines_suite());
}
