/*
 * check_json_mend.c - lone surrogates become U+FFFD, and nothing else changes.
 */
#include <string.h>

#include "common/json_mend.h"
#include "common/json_span.h"
#include "common/macros.h"
#include "tests/runner.h"

static const struct {
	const char *in, *out;
} texts[] = {
	{"", ""},
	{"{}", "{}"},
	{"\"\\ud800\"", "\"\\ufffd\""},
	{"\"\\uDCff.png\"", "\"\\ufffd.png\""},
	{"\"\\ud83d\\ude00\"", "\"\\ud83d\\ude00\""},
	{"\"\\ude00\\ud83d\"", "\"\\ufffd\\ufffd\""},
	{"\"\\ud83d\\ud83d\\ude00\"", "\"\\ufffd\\ud83d\\ude00\""},
	{"\"\\ud83dx\\ude00\"", "\"\\ufffdx\\ufffd\""},
	{"\"\\ud83d\\n\"", "\"\\ufffd\\n\""},
	/* A backslash and then letters: no escape. */
	{"\"\\\\ud800\"", "\"\\\\ud800\""},
	{"\"\\\\\\ud800\"", "\"\\\\\\ufffd\""},
	{"\"\\u00e9\\ud7ff\\ue000\"", "\"\\u00e9\\ud7ff\\ue000\""},
	/* No JSON, before or after. */
	{"\\ud8", "\\ud8"},
	{"\"\\ud800", "\"\\ufffd"},
	{"\\", "\\"},
	{"\\u", "\\u"},
};

START_TEST(mends)
{
	struct span in = span_make(texts[_i].in, strlen(texts[_i].in));
	struct buf out = BUF_INIT(1024);

	ck_assert_int_eq(json_mend(&out, in), 0);
	ck_assert_uint_eq(out.len, in.n);
	ck_assert_str_eq(in.n > 0 ? buf_cstr(&out) : "", texts[_i].out);
	if (strcmp(texts[_i].in, texts[_i].out) != 0)
		ck_assert(json_may_need_mending(in));
	buf_deinit(&out);
}
END_TEST

/* What it mends can be read. */
START_TEST(result_is_json)
{
	static const char text[] = "{\"a\": [\"\\ud800\", \"\\udfff\\ud800\"]}";
	struct buf out = BUF_INIT(1024);
	struct json j;

	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL),
	                 JSON_E_UTF8);
	ck_assert_int_eq(json_mend(&out, span_make(text, strlen(text))), 0);
	ck_assert_int_eq(json_parse(&j, out.data, out.len, 0, NULL), JSON_OK);
	buf_deinit(&out);
}
END_TEST

START_TEST(plain_text_is_left_alone)
{
	ck_assert(!json_may_need_mending(SPAN("{\"a\": \"\\u00e4\"}")));
	ck_assert(!json_may_need_mending(SPAN("")));
	ck_assert(!json_may_need_mending(SPAN_NULL));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("json_mend");
	TCase *t = tcase_create("json_mend");

	tcase_add_loop_test(t, mends, 0, ARRAY_SIZE(texts));
	tcase_add_test(t, result_is_json);
	tcase_add_test(t, plain_text_is_left_alone);
	suite_add_tcase(s, t);
	return runner_run(s);
}
