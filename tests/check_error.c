/*
 * check_error.c - texts, cuts at characters, names on the wire.
 */
#include "common/error.h"

#include <errno.h>
#include <string.h>

#include "common/utf8.h"
#include "tests/runner.h"

static void assert_utf8(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t left = strlen(s), n;

	while (left > 0) {
		n = utf8_char_len(u, left);
		ck_assert_uint_gt(n, 0);
		u += n;
		left -= n;
	}
}

static const char *repeat(char *out, size_t size, const char *unit)
{
	size_t n = strlen(unit), len = 0;

	for (; len + n < size; len += n)
		memcpy(out + len, unit, n);
	out[len] = '\0';
	return out;
}

START_TEST(set_fills_code_and_text)
{
	struct error e = ERROR_NULL;

	ck_assert_int_eq(error_set(&e, ERR_BUSY, "lock %s: pid %d", "a", 7),
	                 -1);
	ck_assert_int_eq(e.code, ERR_BUSY);
	ck_assert_str_eq(e.text, "lock a: pid 7");
}
END_TEST

START_TEST(null_error_is_allowed)
{
	ck_assert_int_eq(error_set(NULL, ERR_BUSY, "x"), -1);
	ck_assert_int_eq(error_set_errno(NULL, ENOENT, "x"), -1);
	ck_assert_int_eq(error_set_nomem(NULL, "x"), -1);
	ck_assert_int_eq(error_prefix(NULL, "x"), -1);
}
END_TEST

START_TEST(errno_text_follows)
{
	struct error e = ERROR_NULL;

	ck_assert_int_eq(error_set_errno(&e, ENOENT, "open %s", "f"), -1);
	ck_assert_int_eq(e.code, ERR_SYSTEM);
	ck_assert_str_eq(e.text, "open f: No such file or directory");
	ck_assert_int_eq(error_set_errno(&e, -ENOENT, "open %s", "f"), -1);
	ck_assert_str_eq(e.text, "open f: No such file or directory");
}
END_TEST

START_TEST(nomem_names_what)
{
	struct error e = ERROR_NULL;

	ck_assert_int_eq(error_set_nomem(&e, "a frame"), -1);
	ck_assert_int_eq(e.code, ERR_INTERNAL);
	ck_assert_ptr_nonnull(strstr(e.text, "a frame"));
}
END_TEST

START_TEST(prefix_keeps_code)
{
	struct error e = ERROR_NULL;

	error_set(&e, ERR_CONFIG, "no such key");
	ck_assert_int_eq(error_prefix(&e, "%s:%d", "f.conf", 3), -1);
	ck_assert_int_eq(e.code, ERR_CONFIG);
	ck_assert_str_eq(e.text, "f.conf:3: no such key");
}
END_TEST

START_TEST(own_text_as_argument)
{
	struct error e = ERROR_NULL;

	error_set(&e, ERR_CONFIG, "inner");
	error_set(&e, ERR_INVALID, "outer (%s)", e.text);
	ck_assert_str_eq(e.text, "outer (inner)");
	error_prefix(&e, "[%s]", e.text);
	ck_assert_str_eq(e.text, "[outer (inner)]: outer (inner)");
}
END_TEST

/* The last length that fits, and the first that is cut. */
START_TEST(cut_at_the_bound)
{
	char in[ERROR_TEXT_MAX + 2];
	struct error e = ERROR_NULL;

	repeat(in, ERROR_TEXT_MAX, "a");
	error_set(&e, ERR_INVALID, "%s", in);
	ck_assert_str_eq(e.text, in);
	repeat(in, ERROR_TEXT_MAX + 1, "a");
	error_set(&e, ERR_INVALID, "%s", in);
	ck_assert_uint_eq(strlen(e.text), ERROR_TEXT_MAX - 1);
}
END_TEST

static const char *const units[] = {"\xc3\xa9", "\xe2\x82\xac",
                                    "\xf0\x9f\x98\x80"};

/* 0 to 3 bytes in front put the bound at every place inside a character. */
START_TEST(cut_keeps_whole_characters)
{
	const char *unit = units[_i / 4], *front = &"---"[_i % 4];
	char in[2 * ERROR_TEXT_MAX];
	struct error e = ERROR_NULL;

	repeat(in, sizeof(in), unit);
	error_set(&e, ERR_INVALID, "%s%s", front, in);
	assert_utf8(e.text);
	ck_assert_uint_gt(strlen(e.text), ERROR_TEXT_MAX - 1 - strlen(unit));
	error_prefix(&e, "%s", front);
	assert_utf8(e.text);
	error_set_errno(&e, EACCES, "%s%s", front, in);
	assert_utf8(e.text);
	ck_assert_ptr_nonnull(strstr(e.text, ": Permission denied"));
	error_set(&e, ERR_INVALID, "x");
	error_prefix(&e, "%s%s", front, in);
	assert_utf8(e.text);
	ck_assert_uint_lt(strlen(e.text), ERROR_TEXT_MAX);
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_cut_too)
{
	char in[2 * ERROR_TEXT_MAX];
	struct error e = ERROR_NULL;

	repeat(in, sizeof(in), "\x80");
	error_set(&e, ERR_INVALID, "%s", in);
	ck_assert_uint_eq(strlen(e.text), ERROR_TEXT_MAX - 1);
}
END_TEST

START_TEST(names_go_round)
{
	enum error_code code = (enum error_code)_i;

	ck_assert_int_eq(error_code_from_name(error_code_name(code)), code);
}
END_TEST

START_TEST(names_are_fixed)
{
	ck_assert_str_eq(error_code_name(ERR_NOT_FOUND), "not_found");
	ck_assert_str_eq(error_code_name(ERR_REJECTED), "rejected");
	ck_assert_int_eq(error_code_from_name("no such"), ERR_INTERNAL);
	ck_assert_str_eq(error_code_name(ERR_CODE_COUNT), "internal");
}
END_TEST

static Suite *error_suite(void)
{
	Suite *s = suite_create("error");
	TCase *t = tcase_create("error");

	tcase_add_test(t, set_fills_code_and_text);
	tcase_add_test(t, null_error_is_allowed);
	tcase_add_test(t, errno_text_follows);
	tcase_add_test(t, nomem_names_what);
	tcase_add_test(t, prefix_keeps_code);
	tcase_add_test(t, own_text_as_argument);
	tcase_add_test(t, cut_at_the_bound);
	tcase_add_loop_test(t, cut_keeps_whole_characters, 0, 12);
	tcase_add_test(t, bytes_that_are_not_utf8_are_cut_too);
	tcase_add_loop_test(t, names_go_round, 0, ERR_CODE_COUNT);
	tcase_add_test(t, names_are_fixed);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(error_suite());
}
