/*
 * check_account.c - users and groups by name and number.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/account.h"
#include "common/macros.h"
#include "tests/runner.h"

START_TEST(users)
{
	struct error err = ERROR_NULL;
	uid_t uid = 7;
	gid_t gid = 7;

	ck_assert_int_eq(account_find_user("root", &uid, &gid, &err), 0);
	ck_assert_uint_eq(uid, 0);
	ck_assert_uint_eq(gid, 0);
	ck_assert_int_eq(account_find_user("0", &uid, NULL, &err), 0);
	ck_assert_uint_eq(uid, 0);
	ck_assert_int_eq(account_find_user("4200000001", &uid, &gid, &err), 0);
	ck_assert_uint_eq(uid, 4200000001U);
	ck_assert_uint_eq(gid, (gid_t)-1);
}
END_TEST

START_TEST(nobody_of_that_name)
{
	/* -1 is nobody's number, nor is more than fits. */
	static const char *const names[] = {"no-such-user-here",
	                                    "",
	                                    "-1",
	                                    "4294967295",
	                                    "4294967296",
	                                    "99999999999999999999",
	                                    "0x0",
	                                    "\x1b[31m"};
	struct error err;
	uid_t uid;
	gid_t gid;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		err = (struct error)ERROR_NULL;
		ck_assert_int_eq(account_find_user(names[i], &uid, NULL, &err),
		                 -1);
		ck_assert_int_eq(err.code, ERR_NOT_FOUND);
		ck_assert_ptr_null(strchr(err.text, '\x1b'));
		ck_assert_int_eq(account_find_group(names[i], &gid, &err), -1);
		ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	}
}
END_TEST

START_TEST(groups)
{
	gid_t gid = 7;

	ck_assert_int_eq(account_find_group("root", &gid, NULL), 0);
	ck_assert_uint_eq(gid, 0);
	ck_assert_int_eq(account_find_group("12345", &gid, NULL), 0);
	ck_assert_uint_eq(gid, 12345);
}
END_TEST

START_TEST(names)
{
	char *name = account_name(0);

	ck_assert_str_eq(name, "root");
	free(name);
	ck_assert_ptr_null(account_name(4200000001U));
}
END_TEST

static int collect(void *user, const char *name, struct error *err)
{
	char *out = user;

	strcat(strcat(out, name), "|");
	return strcmp(name, "stop") == 0 ? 5 : 0;
}

START_TEST(lists)
{
	static const struct {
		const char *list, *want;
		int result;
	} rows[] = {
		{"", "", 0},
		{" ,, ", "", 0},
		{"ann", "ann|", 0},
		{"ann, bob\tcarl ,dora", "ann|bob|carl|dora|", 0},
		{"ann stop bob", "ann|stop|", 5},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char got[64] = "";

		ck_assert_int_eq(
			account_each_name(rows[i].list, collect, got, NULL),
			rows[i].result);
		ck_assert_str_eq(got, rows[i].want);
	}
}
END_TEST

static Suite *account_suite(void)
{
	Suite *s = suite_create("account");
	TCase *t = tcase_create("account");

	tcase_add_test(t, users);
	tcase_add_test(t, nobody_of_that_name);
	tcase_add_test(t, groups);
	tcase_add_test(t, names);
	tcase_add_test(t, lists);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(account_suite());
}
