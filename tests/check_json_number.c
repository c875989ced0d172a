/*
 * check_json_number.c - the numbers of JSON text: exact integers up to 64 bits,
 * doubles to the last bit.
 */
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_span.h"
#include "tests/runner.h"

static struct json parse(const char *text, unsigned flags)
{
	struct json j;
	size_t at;
	enum json_outcome r = json_parse(&j, text, strlen(text), flags, &at);

	ck_assert_msg(r == JSON_OK, "%s: %s at %zu", text, json_outcome_text(r),
	              at);
	return j;
}

static const struct {
	const char *text;
	bool is_int, is_uint;
	int64_t i;
	uint64_t u;
} integers[] = {
	{"0", true, true, 0, 0},
	{"-0", true, true, 0, 0},
	{"-0.0e5", true, true, 0, 0},
	{"7", true, true, 7, 7},
	{"1.0", true, true, 1, 1},
	{"1e3", true, true, 1000, 1000},
	{"1200e-2", true, true, 12, 12},
	{"0.00012e5", true, true, 12, 12},
	{"1.5", false, false, 0, 0},
	{"1e-1", false, false, 0, 0},
	{"-1", true, false, -1, 0},
	{"9007199254740993", true, true, 9007199254740993, 9007199254740993u},
	{"9223372036854775807", true, true, INT64_MAX, INT64_MAX},
	{"9223372036854775808", false, true, 0, 9223372036854775808u},
	{"-9223372036854775808", true, false, INT64_MIN, 0},
	{"-9223372036854775809", false, false, 0, 0},
	{"18446744073709551615", false, true, 0, UINT64_MAX},
	{"18446744073709551615.000", false, true, 0, UINT64_MAX},
	{"1844674407370955161.5e1", false, true, 0, UINT64_MAX},
	{"18446744073709551616", false, false, 0, 0},
	{"99999999999999999999", false, false, 0, 0},
	{"1e19", false, true, 0, 10000000000000000000u},
	{"1e20", false, false, 0, 0},
	{"1e999999999999999999999", false, false, 0, 0},
	{"1e-999999999999999999999", false, false, 0, 0},
	{"0e999999999999999999999", true, true, 0, 0},
	{"\"1\"", false, false, 0, 0},
	{"true", false, false, 0, 0},
};

START_TEST(test_integers)
{
	struct json j = parse(integers[_i].text, 0);
	int64_t i = 42;
	uint64_t u = 42;

	ck_assert_int_eq(json_int64(j, &i), integers[_i].is_int);
	ck_assert_int_eq(json_uint64(j, &u), integers[_i].is_uint);
	ck_assert_int_eq(i, integers[_i].is_int ? integers[_i].i : 42);
	ck_assert_uint_eq(u, integers[_i].is_uint ? integers[_i].u : 42);
}
END_TEST

static const char *const doubles[] = {
	"0",
	"-0.0",
	"1",
	"0.1",
	"0.7853",
	"-2.5e-3",
	"1.0",
	"123456789012345",
	"1234567890123456",
	"9007199254740993",
	"18446744073709551615",
	"1e22",
	"1e23",
	"1e-22",
	"1e-23",
	"1.7976931348623157e308",
	"2.2250738585072011e-308",
	"2.2250738585072014e-308",
	"4.9e-324",
	"2.4703282292062327e-324",
	"2.4703282292062328e-324",
	"1e-400",
	"0.000000000000000000000000000000000000000000001",
	"100000000000000000000000000000000000000000000000e-46",
	/* halfway between two doubles, and a little above */
	"9007199254740993.0",
	"9007199254740993.00000000000000000000000000000000000000000001",
	"5e-324",
	"3e-324",
};

START_TEST(test_doubles)
{
	double want = strtod(doubles[_i], NULL), d = 7;

	ck_assert(json_double(parse(doubles[_i], 0), &d));
	ck_assert_mem_eq(&d, &want, sizeof(d));
}
END_TEST

START_TEST(test_doubles_long)
{
	struct buf b = BUF_INIT(5000);
	double d, want;

	/* The digit that decides lies beyond what is kept. */
	ck_assert_int_eq(buf_puts(&b, "9007199254740993"), 0);
	for (int i = 0; i < 2000; i++)
		ck_assert_int_eq(buf_putc(&b, '0'), 0);
	ck_assert_int_eq(buf_puts(&b, "1e-2001"), 0);
	want = strtod(buf_cstr(&b), NULL);
	ck_assert(json_double(parse(buf_cstr(&b), 0), &d));
	ck_assert_mem_eq(&d, &want, sizeof(d));
	ck_assert_double_eq(d, 9007199254740994.0);

	/* Dense digits past the bound. */
	buf_reset(&b);
	ck_assert_int_eq(buf_puts(&b, "0."), 0);
	for (int i = 0; i < 3000; i++)
		ck_assert_int_eq(buf_putc(&b, (char)('1' + i % 9)), 0);
	want = strtod(buf_cstr(&b), NULL);
	ck_assert(json_double(parse(buf_cstr(&b), 0), &d));
	ck_assert_mem_eq(&d, &want, sizeof(d));
	buf_deinit(&b);
}
END_TEST

START_TEST(test_doubles_refused)
{
	double d = 7;

	ck_assert(!json_double(parse("1e309", 0), &d));
	ck_assert(!json_double(parse("-1e999999999999999999999", 0), &d));
	ck_assert(!json_double(parse("\"1\"", 0), &d));
	ck_assert(!json_double(JSON_MISSING, &d));
	ck_assert(!json_double(parse("NaN", JSON_NONFINITE), &d));
	ck_assert_double_eq(d, 7);
}
END_TEST

START_TEST(test_doubles_in_any_locale)
{
	double d;

	/* Where there is no such locale the test is as good as the others. */
	(void)setlocale(LC_ALL, "de_DE.UTF-8");
	ck_assert(json_double(parse("0.123456789012345678", 0), &d));
	(void)setlocale(LC_ALL, "C");
	ck_assert_double_eq(d, 0.123456789012345678);
}
END_TEST

static Suite *json_number_suite(void)
{
	Suite *s = suite_create("json_number");
	TCase *t = tcase_create("json_number");

	tcase_add_loop_test(t, test_integers, 0, ARRAY_SIZE(integers));
	tcase_add_loop_test(t, test_doubles, 0, ARRAY_SIZE(doubles));
	tcase_add_test(t, test_doubles_long);
	tcase_add_test(t, test_doubles_refused);
	tcase_add_test(t, test_doubles_in_any_locale);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(json_number_suite());
}
