/*
 * check_base64.c - the vectors of RFC 4648, section 10, and bad input.
 */
#include <errno.h>
#include <string.h>

#include "common/base64.h"
#include "tests/runner.h"

START_TEST(test_vectors)
{
	static const char *const table[][2] = {
		{"", ""},
		{"Zg==", "f"},
		{"Zm8=", "fo"},
		{"Zm9v", "foo"},
		{"Zm9vYg==", "foob"},
		{"Zm9vYmE=", "fooba"},
		{"Zm9vYmFy", "foobar"},
		{"Zm9vYg", "foob"},
		{"Zm9v\nYmFy ", "foobar"},
		{"data:image/png;base64,Zm9v", "foo"},
	};
	cleanup_buf struct buf out = BUF_INIT(64);

	ck_assert_int_eq(
		base64_decode(&out, table[_i][0], strlen(table[_i][0])), 0);
	ck_assert_uint_eq(out.len, strlen(table[_i][1]));
	ck_assert(out.len == 0 || memcmp(out.data, table[_i][1], out.len) == 0);
}
END_TEST

START_TEST(test_bad)
{
	static const char *const table[] = {"Z",    "Zm9vY",        "Zm*v",
	                                    "Zg=x", "Zm9v\xc3\xa9", "data:foo"};
	cleanup_buf struct buf out = BUF_INIT(64);

	ck_assert_int_eq(base64_decode(&out, table[_i], strlen(table[_i])),
	                 -EINVAL);
}
END_TEST

START_TEST(test_round_trip_of_all_bytes)
{
	cleanup_buf struct buf text = BUF_INIT(4096), back = BUF_INIT(4096);
	char bytes[256];

	for (int i = 0; i < 256; i++)
		bytes[i] = (char)i;
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		buf_reset(&text);
		buf_reset(&back);
		ck_assert_int_eq(buf_base64(&text, bytes, n), 0);
		ck_assert_int_eq(base64_decode(&back, text.data, text.len), 0);
		ck_assert_uint_eq(back.len, n);
		ck_assert(n == 0 || memcmp(back.data, bytes, n) == 0);
	}
}
END_TEST

START_TEST(test_bound)
{
	cleanup_buf struct buf out = BUF_INIT(2);

	ck_assert_int_eq(base64_decode(&out, "Zm8=", 4), 0);
	buf_reset(&out);
	ck_assert_int_eq(base64_decode(&out, "Zm9v", 4), -EMSGSIZE);
}
END_TEST

static Suite *base64_suite(void)
{
	Suite *s = suite_create("base64");
	TCase *t = tcase_create("decode");

	tcase_add_loop_test(t, test_vectors, 0, 10);
	tcase_add_loop_test(t, test_bad, 0, 6);
	tcase_add_test(t, test_round_trip_of_all_bytes);
	tcase_add_test(t, test_bound);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(base64_suite());
}
