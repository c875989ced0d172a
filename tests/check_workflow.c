/*
 * check_workflow.c - workflows are taken, refused with words that help, and
 * changed without bending a digit; ComfyUI's refusals become readable.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/workflow.h"
#include "tests/runner.h"

#define FLOW                                                                   \
	"{\"3\": {\"class_type\": \"KSampler\", \"inputs\": {\"seed\": "       \
	"18446744073709551615, \"model\": [\"4\", 0]}},\n"                     \
	" \"4.0\":{\"class_type\":\"Loader\"},"                                \
	" \"4\": {\"inputs\":{\"0.x\": 1}, \"class_type\": \"L\\u00e4\"}}"

static struct json parse(const char *text)
{
	struct error err = ERROR_NULL;
	struct json j;

	ck_assert_msg(workflow_parse(&j, text, strlen(text), "w", &err) == 0,
	              "%s", err.text);
	return j;
}

static void assert_span(struct span s, const char *want)
{
	ck_assert_msg(span_eq_str(s, want), "\"%.*s\" is not \"%s\"", (int)s.n,
	              s.p, want);
}

static void assert_refused(const char *text, enum error_code code,
                           const char *message)
{
	struct error err = ERROR_NULL;
	struct json j;

	ck_assert_int_eq(workflow_parse(&j, text, strlen(text), "w.json", &err),
	                 -1);
	ck_assert_int_eq(err.code, code);
	ck_assert_str_eq(err.text, message);
	ck_assert_int_eq(workflow_parse(&j, text, strlen(text), "w.json", NULL),
	                 -1);
}

/* ---- parsing ---- */

START_TEST(test_parse)
{
	struct json j = parse(" " FLOW "\n");

	ck_assert_uint_eq(workflow_node_count(j), 3);
	assert_span(j.text, FLOW);
	assert_span(workflow_class_of(j, "3"), "KSampler");
	assert_span(workflow_class_of(j, "4"), "L\\u00e4");
	ck_assert_ptr_null(workflow_class_of(j, "4.0.0.1").p);
	ck_assert_ptr_null(workflow_class_of(j, "").p);
}
END_TEST

START_TEST(test_parse_wrapped)
{
	struct json j = parse("{\"client_id\":\"c\",\"prompt\": " FLOW "}");

	assert_span(j.text, FLOW);
	/* A node of that name is a node. */
	j = parse("{\"prompt\":{\"class_type\":\"A\",\"inputs\":{}}}");
	ck_assert_uint_eq(workflow_node_count(j), 1);
	assert_span(workflow_class_of(j, "prompt"), "A");
	j = parse("\xef\xbb\xbf" FLOW);
	assert_span(j.text, FLOW);
	/* As accepted by the server (25). */
	(void)parse("{\"1\":{\"class_type\":\"A\",\"inputs\":{\"x\":NaN}}}");
}
END_TEST

#define UI_TEXT                                                                \
	"w.json is a workflow saved for the web page; export it there with "   \
	"\"Workflow > Export (API)\" (in older versions \"Save (API "          \
	"Format)\", after dev mode was enabled in the settings)"
#define NODE_TEXT(id)                                                          \
	"w.json: \"" id "\" is not a node (it has no class_type); expected "   \
	"a workflow in API format: {\"ID\": {\"class_type\": ..., "            \
	"\"inputs\": {...}}, ...}"

static const struct {
	const char *text;
	enum error_code code;
	const char *message;
} refused[] = {
	{"", ERR_INVALID, "w.json: no JSON value at line 1, column 1"},
	{"{\"1\":\n {\"a\" 1}}", ERR_INVALID,
         "w.json: not valid JSON at line 2, column 7"},
	{"{\"1\":\"\xff\"}", ERR_INVALID,
         "w.json: invalid UTF-8 at line 1, column 7"},
	{"[]", ERR_INVALID, "w.json is not a workflow: expected a JSON object"},
	{"{}", ERR_INVALID, "w.json has no nodes"},
	{"{\"prompt\":{}}", ERR_INVALID, "w.json has no nodes"},
	{"{\"last_node_id\":9,\"nodes\":[{\"id\":1}],\"links\":[],"
         "\"version\":0.4}",
         ERR_INVALID, UI_TEXT},
	{"{\"prompt\":{\"nodes\":[],\"links\":[]}}", ERR_INVALID, UI_TEXT},
	{"{\"1\":{\"class_type\":\"A\"},\"x\":{\"inputs\":{}}}", ERR_INVALID,
         NODE_TEXT("x")},
	{"{\"1\":7}", ERR_INVALID, NODE_TEXT("1")},
	{"{\"1\":{\"class_type\":7}}", ERR_INVALID, NODE_TEXT("1")},
};

START_TEST(test_parse_refused)
{
	assert_refused(refused[_i].text, refused[_i].code, refused[_i].message);
}
END_TEST

START_TEST(test_parse_size_max)
{
	char *text = malloc(WORKFLOW_SIZE_MAX + 2);
	struct error err = ERROR_NULL;
	struct json j;

	ck_assert_ptr_nonnull(text);
	memset(text, ' ', WORKFLOW_SIZE_MAX + 1);
	text[WORKFLOW_SIZE_MAX + 1] = '\0';
	memcpy(text, FLOW, strlen(FLOW));
	ck_assert_int_eq(workflow_parse(&j, text, WORKFLOW_SIZE_MAX, "w", &err),
	                 0);
	ck_assert_int_eq(
		workflow_parse(&j, text, WORKFLOW_SIZE_MAX + 1, "w", &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_ptr_nonnull(strstr(err.text, "w is larger than "));
	free(text);
}
END_TEST

START_TEST(test_parse_nodes_max)
{
	struct buf b = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct error err = ERROR_NULL;
	struct json j;

	ck_assert_int_eq(buf_putc(&b, '{'), 0);
	for (int i = 0; i < WORKFLOW_NODES_MAX; i++)
		(void)buf_printf(&b, "%s\"%d\":{\"class_type\":\"A\"}",
		                 i > 0 ? "," : "", i);
	ck_assert_int_eq(buf_putc(&b, '}'), 0);
	ck_assert_uint_eq(workflow_node_count(parse(buf_cstr(&b))),
	                  WORKFLOW_NODES_MAX);
	b.len--;
	ck_assert_int_eq(buf_puts(&b, ",\"x\":{\"class_type\":\"A\"}}"), 0);
	ck_assert_int_eq(workflow_parse(&j, b.data, b.len, "w", &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_str_eq(err.text, "w has more than 20000 nodes");
	buf_deinit(&b);
}
END_TEST

/* ---- overrides ---- */

#define SET_IN                                                                   \
	"{\"3\":{\"class_type\":\"K\",\"inputs\":{\"seed\":18446744073709551615" \
	", \"cfg\" : 7}}, \"4\":{\"class_type\":\"L\"},\"4.0\":{\"class_type\""  \
	":\"M\",\"inputs\":{}},\"a\\u002eb\":{\"class_type\":\"N\","             \
	"\"inputs\":{\"t\":\"\"}}}"

static const struct {
	const char *assignment, *find, *replace;
} sets[] = {
	{"3.seed=9007199254740993", "18446744073709551615", "9007199254740993"},
	{"3.seed= 18446744073709551614 ", "18446744073709551615",
         "18446744073709551614"},
	{"3.cfg=1.10", ": 7}", ": 1.10}"},
	{"3.cfg=[\"4\",0]", ": 7}", ": [\"4\",0]}"},
	{"3.cfg=true", ": 7}", ": true}"},
	{"3.cfg=a cat", ": 7}", ": \"a cat\"}"},
	{"3.cfg=\"7\"", ": 7}", ": \"7\"}"},
	{"3.cfg=", ": 7}", ": \"\"}"},
	{"3.cfg=a=b", ": 7}", ": \"a=b\"}"},
	{"3.cfg=NaN", ": 7}", ": \"NaN\"}"},
	{"3.cfg=say \"hi\"\n", ": 7}", ": \"say \\\"hi\\\"\\n\"}"},
	{"3.new.dotted=1", ": 7}", ": 7,\"new.dotted\":1}"},
	{"4.x=1", "{\"class_type\":\"L\"}",
         "{\"class_type\":\"L\",\"inputs\":{\"x\":1}}"},
	/* the first dot that ends a node's id */
	{"4.0.y=1", "{\"class_type\":\"L\"}",
         "{\"class_type\":\"L\",\"inputs\":{\"0.y\":1}}"},
	{"a.b.t=x", "\"t\":\"\"", "\"t\":\"x\""},
};

START_TEST(test_set)
{
	struct buf out = BUF_INIT(4096), want = BUF_INIT(4096);
	static const char in[] = SET_IN;
	const char *at = strstr(in, sets[_i].find);
	struct error err = ERROR_NULL;

	ck_assert_ptr_nonnull(at);
	ck_assert_int_eq(json_splice(&want, SPAN(in),
	                             span_make(at, strlen(sets[_i].find)),
	                             SPAN(sets[_i].replace)),
	                 0);
	ck_assert_msg(
		workflow_set(&out, parse(in), sets[_i].assignment, &err) == 0,
		"%s", err.text);
	ck_assert_str_eq(buf_cstr(&out), buf_cstr(&want));
	(void)parse(buf_cstr(&out));
	buf_deinit(&out);
	buf_deinit(&want);
}
END_TEST

static const struct {
	const char *assignment;
	enum error_code code;
	const char *message;
} bad_sets[] = {
	{"3.seed", ERR_INVALID,
         "\"3.seed\" is not of the form NODE.INPUT=VALUE"},
	{"3=1", ERR_INVALID, "\"3\" is not of the form NODE.INPUT"},
	{"=1", ERR_INVALID, "\"\" is not of the form NODE.INPUT"},
	{"3.=1", ERR_INVALID, "\"3.\" names a node but no input"},
	{"9.seed=1", ERR_NOT_FOUND,
         "the workflow has no node that \"9.seed\" names (nodes: 3, 4, 4.0, "
         "a\\u002eb)"},
	{"33.seed=1", ERR_NOT_FOUND,
         "the workflow has no node that \"33.seed\" names (nodes: 3, 4, "
         "4.0, a\\u002eb)"},
	{"3.s\xff=1", ERR_INVALID, "\"3.s\xff\" is not of the form NODE.INPUT"},
	{"3.seed=\xff", ERR_INVALID, "the value for 3.seed is not UTF-8"},
};

START_TEST(test_set_refused)
{
	struct buf out = BUF_INIT(4096);
	struct error err = ERROR_NULL;

	ck_assert_int_eq(workflow_set(&out, parse(SET_IN),
	                              bad_sets[_i].assignment, &err),
	                 -1);
	ck_assert_int_eq(err.code, bad_sets[_i].code);
	ck_assert_str_eq(err.text, bad_sets[_i].message);
	ck_assert_uint_eq(out.len, 0);
	buf_deinit(&out);
}
END_TEST

START_TEST(test_set_value)
{
	struct buf out = BUF_INIT(strlen(SET_IN));
	struct error err = ERROR_NULL;
	struct json j = parse(SET_IN);

	ck_assert_int_eq(
		workflow_set_value(&out, j, SPAN("3.cfg"), SPAN(" 8 "), &err),
		0);
	buf_reset(&out);
	ck_assert_int_eq(
		workflow_set_value(&out, j, SPAN("3.cfg"), SPAN("88"), &err),
		-1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_uint_eq(out.len, 0);
	buf_reset(&out);
	ck_assert_int_eq(
		workflow_set_value(&out, j, SPAN("3.cfg"), SPAN("x"), &err),
		-1);
	ck_assert_str_eq(err.text, "the value for 3.cfg: not valid JSON");
	j = parse("{\"1\":{\"class_type\":\"A\",\"inputs\":[]}}");
	ck_assert_int_eq(
		workflow_set_value(&out, j, SPAN("1.a"), SPAN("1"), &err), -1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	buf_deinit(&out);
}
END_TEST

START_TEST(test_set_target_max)
{
	char target[4098];
	struct buf out = BUF_INIT(10000);
	struct json j = parse(SET_IN);

	memset(target, '.', sizeof(target));
	target[0] = '3';
	ck_assert_int_eq(workflow_set_value(&out, j, span_make(target, 4096),
	                                    SPAN("1"), NULL),
	                 0);
	ck_assert_int_eq(workflow_set_value(&out, j, span_make(target, 4097),
	                                    SPAN("1"), NULL),
	                 -1);
	buf_deinit(&out);
}
END_TEST

/* ---- refusals ---- */

static void assert_refusal(struct json reply, const char *want)
{
	struct buf b = BUF_INIT(1u << 20);

	workflow_refusal_text(reply, &b);
	ck_assert(buf_ok(&b));
	ck_assert_str_eq(buf_cstr(&b), want);
	buf_deinit(&b);
}

/* In the order of recording 06; those answered with 500 have no JSON. */
static const char *const refusals[] = {
	"No prompt provided",
	"No prompt provided",
	"Prompt has no outputs",
	"Prompt has no outputs",
	"Cannot execute because node NoSuchNode does not exist (Node ID "
	"'#1')",
	"Cannot execute because a node is missing the class_type property "
	"(Node ID '#1')",
	"node 2 (ImageScale): Required input is missing: width",
	"node 2 (ImageScale): Required input is missing: width\n"
	"node 3 (SaveImage): Required input is missing: filename_prefix",
	"node 2 (ImageScale): Value not in list: upscale_method: 'magic' not "
	"in ['nearest-exact', 'bilinear', 'area', 'bicubic', 'lanczos']",
	"node 1 (EmptyImage): Value 0 smaller than min of 1: width",
	"node 2 (ImageScale): Value 1000000000 bigger than max of 16384: "
	"width",
	"node 2 (ImageScale): Failed to convert an input value to a INT "
	"value: width, wide, invalid literal for int() with base 10: 'wide'",
	"node 2 (SaveImage): Return type mismatch between linked nodes: "
	"images, received_type(INT) mismatch input_type(IMAGE)",
	"node 3 (SaveImage): Exception when validating node: KeyError: '99'",
	"node 2 (ImageInvert): Exception when validating inner node: "
	"KeyError: '99'",
	"node 3 (SaveImage): Exception when validating node: IndexError: "
	"tuple index out of range",
	"node 3 (SaveImage): Bad linked input, must be a length-2 list of "
	"[node_id, slot_index]: images",
	"node 1 (TestCustomValidation5): Custom validation failed for node: "
	"input1 - 7s are not allowed. I've never liked 7s\n"
	"node 1 (TestCustomValidation5): Custom validation failed for node: "
	"input2 - 7s are not allowed. I've never liked 7s",
	"node 1 (LoadImage): Custom validation failed for node: image - "
	"Invalid image file: nope.png",
};

/* The answers to POST /prompt of a recording that are JSON objects and name a
 * fault. Returns how many there were; *otherp counts the rest. */
static size_t check_recording(const char *name, const char *const *want,
                              size_t count, size_t *otherp)
{
	char path[256], *data, *line, *save = NULL;
	struct json j, reply;
	size_t n = 0;

	(void)snprintf(path, sizeof(path), "comfyui/%s/http.jsonl", name);
	data = runner_read_data(path, NULL);
	for (line = strtok_r(data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		ck_assert_int_eq(json_parse(&j, line, strlen(line), 0, NULL),
		                 JSON_OK);
		if (!json_string_eq(json_get(j, "method"), "POST") ||
		    !json_string_eq(json_get(j, "path"), "/prompt"))
			continue;
		reply = json_get(j, "response_body");
		if (json_count(json_get(reply, "node_errors")) == 0 &&
		    json_get(reply, "error").type == JSON_NONE) {
			++*otherp;
			continue;
		}
		ck_assert_uint_lt(n, count);
		assert_refusal(reply, want[n++]);
	}
	free(data);
	return n;
}

START_TEST(test_refusals_recorded)
{
	static const char *const partly[] = {
		"node 3 (ImageScale): Value not in list: upscale_method: "
		"'magic' not in ['nearest-exact', 'bilinear', 'area', "
		"'bicubic', 'lanczos']",
	};
	size_t other = 0;

	ck_assert_uint_eq(check_recording("06-rejected-prompts", refusals,
	                                  ARRAY_SIZE(refusals), &other),
	                  ARRAY_SIZE(refusals));
	ck_assert_uint_eq(other, 2); /* 21 in all */
	other = 0;
	ck_assert_uint_eq(
		check_recording("24-partly-valid-prompt", partly, 1, &other),
		1);
	ck_assert_uint_eq(other, 1);
}
END_TEST

static const struct {
	const char *reply, *want;
} odd_refusals[] = {
	{"{\"error\":\"No prompt provided\",\"node_errors\":[]}",
         "No prompt provided"},
	{"{\"error\":{\"type\":\"odd_one\"}}", "odd_one"},
	{"{\"error\":{\"message\":\"two\\nlines\\u0007.\",\"details\":7}}",
         "two lines"},
	{"{}", "ComfyUI refused the workflow and gave no reason"},
	{"[]", "ComfyUI refused the workflow and gave no reason"},
	{"{\"node_errors\":{\"1\":{},\"2\":7,\"3\":{\"errors\":[]}}}",
         "ComfyUI refused the workflow and gave no reason"},
	{"{\"node_errors\":{\"1\":{\"errors\":[{},7,{\"type\":\"t\"}]}}}",
         "node 1: unknown fault\nnode 1: unknown fault\nnode 1: t"},
};

START_TEST(test_refusals_odd)
{
	struct json j;

	ck_assert_int_eq(json_parse(&j, odd_refusals[_i].reply,
	                            strlen(odd_refusals[_i].reply), 0, NULL),
	                 JSON_OK);
	assert_refusal(j, odd_refusals[_i].want);
	assert_refusal(JSON_MISSING,
	               "ComfyUI refused the workflow and gave no reason");
}
END_TEST

START_TEST(test_refusal_bounds)
{
	struct buf b = BUF_INIT(1u << 20), text = BUF_INIT(1u << 20);
	const char *last;
	struct json j;
	size_t lines = 0;

	ck_assert_int_eq(buf_puts(&b, "{\"node_errors\":{\"1\":{\"errors\":["),
	                 0);
	for (int i = 0; i < 60; i++)
		(void)buf_printf(&b, "%s{\"message\":\"%0399d\\u20ac\"}",
		                 i > 0 ? "," : "", i);
	ck_assert_int_eq(buf_puts(&b, "]}}}"), 0);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, 0, NULL), JSON_OK);
	workflow_refusal_text(j, &text);
	last = buf_cstr(&text);
	for (const char *p = last; (p = strchr(p, '\n')) != NULL; p++) {
		lines++;
		last = p + 1;
	}
	ck_assert_uint_eq(lines, 50);
	ck_assert_str_eq(last, "and 10 more");
	/* Cut before the character that crosses the bound. */
	ck_assert_ptr_nonnull(strstr(text.data, "00000000001...\n"));
	ck_assert_ptr_null(strstr(text.data, "\xe2"));
	buf_deinit(&b);
	buf_deinit(&text);
}
END_TEST

static Suite *workflow_suite(void)
{
	Suite *s = suite_create("workflow");
	TCase *t = tcase_create("workflow");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, test_parse);
	tcase_add_test(t, test_parse_wrapped);
	tcase_add_loop_test(t, test_parse_refused, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, test_parse_size_max);
	tcase_add_test(t, test_parse_nodes_max);
	tcase_add_loop_test(t, test_set, 0, ARRAY_SIZE(sets));
	tcase_add_loop_test(t, test_set_refused, 0, ARRAY_SIZE(bad_sets));
	tcase_add_test(t, test_set_value);
	tcase_add_test(t, test_set_target_max);
	tcase_add_test(t, test_refusals_recorded);
	tcase_add_loop_test(t, test_refusals_odd, 0, ARRAY_SIZE(odd_refusals));
	tcase_add_test(t, test_refusal_bounds);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(workflow_suite());
}
