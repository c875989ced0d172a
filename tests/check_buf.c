/*
 * check_buf.c - the buffer: its cap at the edge, what a failure leaves behind,
 * and the encoders that write into it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "tests/runner.h"

static void assert_content(const struct buf *b, const char *want)
{
	ck_assert_uint_eq(b->len, strlen(want));
	ck_assert_mem_eq(b->data, want, b->len);
}

START_TEST(test_append)
{
	struct buf b = BUF_INIT(1000);

	ck_assert_ptr_null(b.data);
	ck_assert_int_eq(buf_append(&b, NULL, 0), 0);
	ck_assert_int_eq(buf_append(&b, "ab", 2), 0);
	ck_assert_int_eq(buf_puts(&b, "cd"), 0);
	ck_assert_int_eq(buf_putc(&b, 'e'), 0);
	ck_assert_int_eq(buf_printf(&b, "%s-%d", "f", 7), 0);
	assert_content(&b, "abcdef-7");
	ck_assert_str_eq(buf_cstr(&b), "abcdef-7");
	buf_reset(&b);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_str_eq(buf_cstr(&b), "");
	buf_deinit(&b);
	buf_deinit(&b);
	ck_assert_uint_eq(b.max, 1000);
	ck_assert_int_eq(buf_puts(&b, "again"), 0);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_cap_edge)
{
	struct buf b = BUF_INIT(5);

	ck_assert_int_eq(buf_puts(&b, "12345"), 0);
	ck_assert(buf_ok(&b));
	ck_assert_str_eq(buf_cstr(&b), "12345");
	ck_assert_int_eq(buf_putc(&b, '6'), -EMSGSIZE);
	ck_assert(!buf_ok(&b));
	assert_content(&b, "12345");
	ck_assert_ptr_null(buf_cstr(&b));
	ck_assert_ptr_null(buf_steal(&b, NULL));
	/* A failed buffer takes nothing, not even what would fit. */
	buf_consume(&b, 3);
	ck_assert_int_lt(buf_putc(&b, 'x'), 0);
	assert_content(&b, "45");
	buf_reset(&b);
	ck_assert(buf_ok(&b));
	ck_assert_int_eq(buf_printf(&b, "%05d", 42), 0);
	assert_content(&b, "00042");
	ck_assert_int_eq(buf_printf(&b, "%s", ""), 0);
	ck_assert_int_eq(buf_printf(&b, "%d", 1), -EMSGSIZE);
	assert_content(&b, "00042");
	buf_deinit(&b);
}
END_TEST

START_TEST(test_no_room_at_all)
{
	struct buf b = BUF_INIT(0);

	ck_assert_int_eq(buf_append(&b, "", 0), 0);
	ck_assert_str_eq(buf_cstr(&b), "");
	ck_assert_int_eq(buf_putc(&b, 'x'), -EMSGSIZE);
	buf_deinit(&b);
	buf_init(&b, SIZE_MAX);
	ck_assert_int_eq(buf_putc(&b, 'x'), 0);
	ck_assert_ptr_null(buf_reserve(&b, SIZE_MAX - 1));
	ck_assert(!buf_ok(&b));
	buf_reset(&b);
	ck_assert_int_eq(buf_putc(&b, 'x'), 0);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_growth)
{
	int n = runner_times(100000);
	struct buf b = BUF_INIT((size_t)n);

	for (int i = 0; i < n; i++)
		ck_assert_int_eq(buf_putc(&b, (char)('a' + i % 26)), 0);
	ck_assert_int_eq(buf_putc(&b, '!'), -EMSGSIZE);
	for (size_t i = 0; i < b.len; i++)
		ck_assert_int_eq(b.data[i], (char)('a' + (int)i % 26));
	ck_assert_uint_le(b.cap, (size_t)n + 1);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_reserve_consume_steal)
{
	struct buf b = BUF_INIT(64);
	size_t len = 0;
	char *p, *s;

	p = buf_reserve(&b, 10);
	ck_assert_ptr_nonnull(p);
	memcpy(p, "0123456789", 10);
	buf_commit(&b, 6);
	assert_content(&b, "012345");
	buf_consume(&b, 0);
	buf_consume(&b, 2);
	assert_content(&b, "2345");
	s = buf_steal(&b, &len);
	ck_assert_str_eq(s, "2345");
	ck_assert_uint_eq(len, 4);
	free(s);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_ptr_null(b.data);
	ck_assert_int_eq(buf_puts(&b, "x"), 0);
	buf_consume(&b, 99);
	ck_assert_uint_eq(b.len, 0);
	ck_assert_ptr_null(buf_reserve(&b, 65));
	buf_deinit(&b);
	s = buf_steal(&b, NULL);
	ck_assert_str_eq(s, "");
	free(s);
}
END_TEST

static const struct {
	const char *in;
	size_t len;
	const char *want;
} strings[] = {
	{"", 0, "\"\""},
	{"plain", 5, "\"plain\""},
	{"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
	{"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
	{"\0\x1f\x7f", 3, "\"\\u0000\\u001f\x7f\""},
	{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9,
         "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
	/* overlong, surrogate, too large, cut off, stray continuation */
	{"\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},
	{"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
	{"\xf4\x90\x80\x80", 4,
         "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
	{"a\xe2\x82", 3, "\"a\xef\xbf\xbd\xef\xbf\xbd\""},
	{"\x80z", 2, "\"\xef\xbf\xbdz\""},
};

START_TEST(test_json_string)
{
	struct buf b = BUF_INIT(100);

	ck_assert_int_eq(buf_json_string(&b, strings[_i].in, strings[_i].len),
	                 0);
	assert_content(&b, strings[_i].want);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_json_string_is_whole_or_not)
{
	struct buf b = BUF_INIT(9);

	ck_assert_int_eq(buf_puts(&b, "{"), 0);
	ck_assert_int_eq(buf_json_string(&b, "ab\ncde", 6), -EMSGSIZE);
	assert_content(&b, "{");
	buf_reset(&b);
	ck_assert_int_eq(buf_puts(&b, "{"), 0);
	ck_assert_int_eq(buf_json_key(&b, "abcdef"), -EMSGSIZE);
	assert_content(&b, "{");
	buf_reset(&b);
	ck_assert_int_eq(buf_puts(&b, "{"), 0);
	ck_assert_int_eq(buf_json_key(&b, "abcde"), 0);
	assert_content(&b, "{\"abcde\":");
	buf_deinit(&b);
}
END_TEST

START_TEST(test_json_key)
{
	struct buf b = BUF_INIT(100);

	ck_assert_int_eq(buf_putc(&b, '{'), 0);
	ck_assert_int_eq(buf_json_key(&b, "a"), 0);
	ck_assert_int_eq(buf_putc(&b, '1'), 0);
	ck_assert_int_eq(buf_json_key(&b, "b\n"), 0);
	ck_assert_int_eq(buf_puts(&b, "{"), 0);
	ck_assert_int_eq(buf_json_key(&b, "c"), 0);
	ck_assert_int_eq(buf_puts(&b, "[]}"), 0);
	ck_assert_int_eq(buf_json_key(&b, "d"), 0);
	ck_assert_int_eq(buf_puts(&b, "\"\"}"), 0);
	assert_content(&b, "{\"a\":1,\"b\\n\":{\"c\":[]},\"d\":\"\"}");
	buf_deinit(&b);
}
END_TEST

/* RFC 4648, section 10. */
static const char *const base64[][2] = {
	{"", ""},
	{"f", "Zg=="},
	{"fo", "Zm8="},
	{"foo", "Zm9v"},
	{"foob", "Zm9vYg=="},
	{"fooba", "Zm9vYmE="},
	{"foobar", "Zm9vYmFy"},
	{"\xfb\xff\xbf", "+/+/"},
};

START_TEST(test_base64)
{
	struct buf b = BUF_INIT(8);

	ck_assert_int_eq(buf_base64(&b, base64[_i][0], strlen(base64[_i][0])),
	                 0);
	assert_content(&b, base64[_i][1]);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_base64_cap)
{
	struct buf b = BUF_INIT(8);

	ck_assert_int_eq(buf_base64(&b, "1234567", 7), -EMSGSIZE);
	ck_assert_uint_eq(b.len, 0);
	buf_deinit(&b);
}
END_TEST

static Suite *buf_suite(void)
{
	Suite *s = suite_create("buf");
	TCase *t = tcase_create("buf");

	tcase_add_test(t, test_append);
	tcase_add_test(t, test_cap_edge);
	tcase_add_test(t, test_no_room_at_all);
	tcase_add_test(t, test_growth);
	tcase_add_test(t, test_reserve_consume_steal);
	tcase_add_loop_test(t, test_json_string, 0, ARRAY_SIZE(strings));
	tcase_add_test(t, test_json_string_is_whole_or_not);
	tcase_add_test(t, test_json_key);
	tcase_add_loop_test(t, test_base64, 0, ARRAY_SIZE(base64));
	tcase_add_test(t, test_base64_cap);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(buf_suite());
}
