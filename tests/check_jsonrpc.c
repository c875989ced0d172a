/*
 * check_jsonrpc.c - lines taken apart and put together, row by row of the
 * table of errors; what official servers were seen to get.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/runner.h"
#include "workers/jsonrpc.h"

/* --- taking apart -------------------------------------------------------- */

static const struct row {
	const char *line;
	enum rpc_kind kind;
	enum rpc_code code; /* of RPC_INVALID */
	const char *id;     /* JSON text; NULL: none */
} rows[] = {
	{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", RPC_REQUEST, 0,
         "1"},
	{" {\"method\":\"ping\" , \"id\":\"\",\"jsonrpc\":\"2.0\"}\t",
         RPC_REQUEST, 0, "\"\""},
	{"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"x\"}", RPC_REQUEST, 0,
         "0"},
	{"{\"jsonrpc\":\"2.0\",\"id\":-7,\"method\":\"x\"}", RPC_REQUEST, 0,
         "-7"},
	{"{\"jsonrpc\":\"2.0\",\"id\":123456789012345678901234567890,"
         "\"method\":\"x\"}",
         RPC_REQUEST, 0, "123456789012345678901234567890"},
	{"{\"jsonrpc\":\"2.0\",\"id\":\"\\u00e4\\n\",\"method\":\"x\"}",
         RPC_REQUEST, 0, "\"\\u00e4\\n\""},
	{"{\"jsonrpc\":\"2.0\",\"id\":1.0,\"method\":\"x\"}", RPC_REQUEST, 0,
         "1.0"},
	{"{\"jsonrpc\":\"2\\u002e0\",\"id\":1,\"method\":\"x\"}", RPC_REQUEST,
         0, "1"},
	{"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}",
         RPC_NOTIFICATION, 0, NULL},
	/* ids that are none */
	{"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"x\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"x\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"x\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"x\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"x\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, NULL},
	/* wrong shapes, with the id where there is one */
	{"{\"id\":4,\"method\":\"ping\"}", RPC_INVALID, RPC_INVALID_REQUEST,
         "4"},
	{"{\"jsonrpc\":\"1.0\",\"id\":4,\"method\":\"ping\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, "4"},
	{"{\"jsonrpc\":2.0,\"id\":4,\"method\":\"ping\"}", RPC_INVALID,
         RPC_INVALID_REQUEST, "4"},
	{"{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":7}", RPC_INVALID,
         RPC_INVALID_REQUEST, "4"},
	{"{\"jsonrpc\":\"2.0\",\"id\":\"a\"}", RPC_INVALID, RPC_INVALID_REQUEST,
         "\"a\""},
	{"42", RPC_INVALID, RPC_INVALID_REQUEST, NULL},
	{"\"x\"", RPC_INVALID, RPC_INVALID_REQUEST, NULL},
	{"null", RPC_INVALID, RPC_INVALID_REQUEST, NULL},
	/* not JSON at all */
	{"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"", RPC_INVALID,
         RPC_PARSE_ERROR, NULL},
	{"hello", RPC_INVALID, RPC_PARSE_ERROR, NULL},
	{"{} {}", RPC_INVALID, RPC_PARSE_ERROR, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", RPC_INVALID,
         RPC_PARSE_ERROR, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\ud800\"}", RPC_INVALID,
         RPC_PARSE_ERROR, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"x\"}",
         RPC_INVALID, RPC_PARSE_ERROR, NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":NaN}",
         RPC_INVALID, RPC_PARSE_ERROR, NULL},
	/* responses: never answered, whatever they look like */
	{"{\"jsonrpc\":\"2.0\",\"id\":\"zz\",\"result\":{}}", RPC_RESPONSE, 0,
         NULL},
	{"{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{}}", RPC_RESPONSE, 0, NULL},
	{"{\"id\":3,\"result\":null}", RPC_RESPONSE, 0, NULL},
	{"[]", RPC_BATCH, 0, NULL},
	{"[1]", RPC_BATCH, 0, NULL},
};

START_TEST(parses)
{
	const struct row *row = &rows[_i];
	struct rpc_message m;

	rpc_parse(&m, row->line, strlen(row->line));
	ck_assert_msg(m.kind == row->kind, "%s: kind %d", row->line, m.kind);
	if (row->kind == RPC_INVALID) {
		ck_assert_msg(m.code == row->code, "%s: code %d", row->line,
		              m.code);
		ck_assert_ptr_nonnull(m.why);
	}
	if (row->id)
		ck_assert_msg(span_eq_str(m.id, row->id), "%s: id %.*s",
		              row->line, (int)m.id.n, m.id.p);
	else
		ck_assert_msg(m.id.n == 0, "%s: id %.*s", row->line,
		              (int)m.id.n, m.id.p);
}
END_TEST

static char *with_id_of(size_t bytes)
{
	char *line = malloc(bytes + 64), *p = line;

	ck_assert_ptr_nonnull(line);
	p += sprintf(p, "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"id\":\"");
	memset(p, 'i', bytes - 2);
	p += bytes - 2;
	memcpy(p, "\"}", 3);
	return line;
}

START_TEST(id_of_any_size_up_to_the_bound)
{
	char *at = with_id_of(RPC_ID_MAX), *over = with_id_of(RPC_ID_MAX + 1);
	struct rpc_message m;

	rpc_parse(&m, at, strlen(at));
	ck_assert_int_eq(m.kind, RPC_REQUEST);
	ck_assert_uint_eq(m.id.n, RPC_ID_MAX);
	rpc_parse(&m, over, strlen(over));
	ck_assert_int_eq(m.kind, RPC_INVALID);
	ck_assert_int_eq(m.code, RPC_INVALID_REQUEST);
	ck_assert_uint_eq(m.id.n, 0);
	free(at);
	free(over);
}
END_TEST

START_TEST(depth_is_bounded)
{
	char line[4096];
	struct rpc_message m;
	size_t n;

	n = (size_t)sprintf(line,
	                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\","
	                    "\"params\":");
	/* One level is the message itself. */
	memset(line + n, '[', JSON_DEPTH_MAX);
	memset(line + n + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	line[n + 2 * JSON_DEPTH_MAX] = '}';
	rpc_parse(&m, line, n + 2 * JSON_DEPTH_MAX + 1);
	ck_assert_int_eq(m.kind, RPC_INVALID);
	ck_assert_int_eq(m.code, RPC_PARSE_ERROR);
	memmove(line + n, line + n + 1, 2 * JSON_DEPTH_MAX);
	line[n + 2 * JSON_DEPTH_MAX - 2] = '}';
	rpc_parse(&m, line, n + 2 * JSON_DEPTH_MAX - 1);
	ck_assert_int_eq(m.kind, RPC_REQUEST);
}
END_TEST

START_TEST(params_are_as_sent)
{
	static const char line[] =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a/b\","
		"\"params\":{\"seed\":18446744073709551615}}";
	struct rpc_message m;

	rpc_parse(&m, line, strlen(line));
	ck_assert(json_string_eq(m.method, "a/b"));
	ck_assert(span_eq_str(json_get(m.params, "seed").text,
	                      "18446744073709551615"));
	rpc_parse(&m, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}", 38);
	ck_assert(json_is(m.params, JSON_NONE));
}
END_TEST

/* --- putting together ---------------------------------------------------- */

static void same(struct buf *b, const char *text)
{
	ck_assert(buf_ok(b));
	ck_assert_msg(span_eq_str(span_make(b->data, b->len), text),
	              "\n%.*s\n%s", (int)b->len, b->data, text);
	buf_reset(b);
}

START_TEST(builds)
{
	struct buf b = BUF_INIT(4096);

	ck_assert_int_eq(rpc_result(&b, SPAN("0"), SPAN("{}")), 0);
	same(&b, "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}");
	ck_assert_int_eq(rpc_error(&b, SPAN("\"a\""), RPC_INVALID_PARAMS,
	                           "no \"name\"\n", SPAN_NULL),
	                 0);
	same(&b, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"error\":{\"code\":-32602,"
	         "\"message\":\"no \\\"name\\\"\\n\"}}");
	ck_assert_int_eq(rpc_error(&b, SPAN_NULL, RPC_PARSE_ERROR, "x",
	                           SPAN("{\"uri\":1}")),
	                 0);
	/* Without an id the member isn't there: null is refused by clients. */
	same(&b, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,"
	         "\"message\":\"x\",\"data\":{\"uri\":1}}}");
	ck_assert_int_eq(rpc_notification(&b, "notifications/progress",
	                                  SPAN("{\"progress\":1}")),
	                 0);
	same(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\","
	         "\"params\":{\"progress\":1}}");
	ck_assert_int_eq(rpc_notification(&b, "x", SPAN_NULL), 0);
	same(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}");
	buf_deinit(&b);
}
END_TEST

START_TEST(messages_are_cut_between_characters)
{
	char text[RPC_MESSAGE_MAX + 8];
	struct buf b = BUF_INIT(8192);
	struct rpc_message m;
	struct json message;

	memset(text, 'm', sizeof(text));
	memcpy(text + RPC_MESSAGE_MAX - 1, "\xc3\xa4", 3);
	ck_assert_int_eq(
		rpc_error(&b, SPAN("1"), RPC_INTERNAL_ERROR, text, SPAN_NULL),
		0);
	rpc_parse(&m, b.data, b.len);
	ck_assert_int_eq(m.kind, RPC_RESPONSE);
	message = json_get(json_get(m.whole, "error"), "message");
	ck_assert_uint_eq(json_raw_string(message).n, RPC_MESSAGE_MAX - 1);
	buf_deinit(&b);
}
END_TEST

START_TEST(bytes_that_are_no_utf8_never_reach_a_line)
{
	struct buf b = BUF_INIT(4096);
	struct rpc_message m;

	ck_assert_int_eq(rpc_error(&b, SPAN("1"), RPC_INTERNAL_ERROR,
	                           "file \xff\xfe\x01", SPAN_NULL),
	                 0);
	rpc_parse(&m, b.data, b.len);
	ck_assert_int_eq(m.kind, RPC_RESPONSE);
	ck_assert_ptr_null(memchr(b.data, '\n', b.len));
	buf_deinit(&b);
}
END_TEST

static Suite *jsonrpc_suite(void)
{
	Suite *s = suite_create("jsonrpc");
	TCase *in = tcase_create("in"), *out = tcase_create("out");

	tcase_add_loop_test(in, parses, 0, (int)ARRAY_SIZE(rows));
	tcase_add_test(in, id_of_any_size_up_to_the_bound);
	tcase_add_test(in, depth_is_bounded);
	tcase_add_test(in, params_are_as_sent);
	suite_add_tcase(s, in);
	tcase_add_test(out, builds);
	tcase_add_test(out, messages_are_cut_between_characters);
	tcase_add_test(out, bytes_that_are_no_utf8_never_reach_a_line);
	suite_add_tcase(s, out);
	return s;
}

int main(void)
{
	return runner_run(jsonrpc_suite());
}
