/*
 * check_admission.c - who is let in, for each way of saying so.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/macros.h"
#include "supervisor/admission.h"
#include "tests/runner.h"

#define OWN 990 /* the supervisor's uid */

static struct config cfg;
static struct admission a;
static struct error err;

/* With these values of the keys. */
static int settle(const char *users, const char *groups, const char *operators,
                  bool shared)
{
	char u[256], g[256], o[256];

	(void)snprintf(u, sizeof(u), "%s", users);
	(void)snprintf(g, sizeof(g), "%s", groups);
	(void)snprintf(o, sizeof(o), "%s", operators);
	cfg = (struct config){
		.allow_users = u, .allow_groups = g, .operator_group = o};
	err = (struct error)ERROR_NULL;
	return admission_init(&a, &cfg, OWN, shared, &err);
}

static bool lets_in(uid_t uid, gid_t gid, gid_t also)
{
	struct creds c = {.uid = uid,
	                  .gid = gid,
	                  .groups = &also,
	                  .group_count = also ? 1 : 0};

	err = (struct error)ERROR_NULL;
	return admission_check(&a, &c, &err) == 0;
}

static bool is_operator(uid_t uid, gid_t gid, gid_t also)
{
	struct creds c = {.uid = uid,
	                  .gid = gid,
	                  .groups = &also,
	                  .group_count = also ? 1 : 0};

	return admission_is_operator(&a, &c);
}

START_TEST(ones_own)
{
	ck_assert_int_eq(settle("", "", "", false), 0);
	ck_assert(!admission_has_others(&a));
	ck_assert(lets_in(OWN, OWN, 0));
	ck_assert(lets_in(0, 0, 0));
	ck_assert(!lets_in(1000, OWN, 0));
	ck_assert_int_eq(err.code, ERR_DENIED);
	ck_assert_ptr_nonnull(strstr(err.text, "uid 1000"));
	ck_assert_ptr_nonnull(strstr(err.text, "allow_users"));
	ck_assert(is_operator(OWN, 5, 0) && is_operator(0, 5, 0));
	admission_deinit(&a);
	admission_deinit(&a);
}
END_TEST

START_TEST(a_service)
{
	ck_assert_int_eq(settle("", "", "", true), 0);
	ck_assert(admission_has_others(&a));
	ck_assert(lets_in(1000, 1000, 0));
	ck_assert(!is_operator(1000, 1000, 0));
	admission_deinit(&a);
}
END_TEST

START_TEST(by_name)
{
	ck_assert_int_eq(settle("1000, 1001", "500", "", true), 0);
	ck_assert(lets_in(1000, 1, 0));
	ck_assert(lets_in(1001, 1, 0));
	ck_assert(!lets_in(1002, 1, 0));
	ck_assert(lets_in(1002, 500, 0)); /* primary */
	ck_assert(lets_in(1002, 1, 500)); /* supplementary */
	ck_assert(!lets_in(500, 1, 0));   /* a group is no user */
	ck_assert(lets_in(OWN, 1, 0));
	admission_deinit(&a);
	ck_assert_int_eq(settle("*", "", "", false), 0);
	ck_assert(lets_in(31337, 31337, 0));
	admission_deinit(&a);
}
END_TEST

START_TEST(operators)
{
	ck_assert_int_eq(settle("", "", "77", false), 0);
	ck_assert(admission_has_others(&a));
	ck_assert(lets_in(1000, 1, 77));
	ck_assert(is_operator(1000, 77, 0));
	ck_assert(!is_operator(77, 1, 0));
	ck_assert(!lets_in(1000, 1, 78));
	admission_deinit(&a);
}
END_TEST

START_TEST(names_that_are_none)
{
	static const struct {
		const char *users, *groups, *operators, *key;
	} rows[] = {
		{"root no-such-user", "", "", "allow_users"},
		{"", "no-such-group", "", "allow_groups"},
		{"", "", "no-such-group", "operator_group"},
		{"-1", "", "", "allow_users"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ck_assert_int_eq(settle(rows[i].users, rows[i].groups,
		                        rows[i].operators, true),
		                 -1);
		ck_assert_int_eq(err.code, ERR_CONFIG);
		ck_assert_ptr_nonnull(strstr(err.text, rows[i].key));
	}
}
END_TEST

START_TEST(as_many_as_there_may_be)
{
	static char list[8 * (ADMISSION_NAMES_MAX + 2)];
	size_t n = 0;

	for (int i = 0; i < ADMISSION_NAMES_MAX; i++)
		n += (size_t)sprintf(list + n, "%d ", 20000 + i);
	cfg = (struct config){.allow_users = list,
	                      .allow_groups = list + n,
	                      .operator_group = list + n};
	ck_assert_int_eq(admission_init(&a, &cfg, OWN, true, &err), 0);
	ck_assert(lets_in(20000 + ADMISSION_NAMES_MAX - 1, 1, 0));
	ck_assert(!lets_in(20000 + ADMISSION_NAMES_MAX, 1, 0));
	admission_deinit(&a);
	n += (size_t)sprintf(list + n, "5");
	cfg.allow_groups = cfg.operator_group = list + n;
	ck_assert_int_eq(admission_init(&a, &cfg, OWN, true, &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
}
END_TEST

static Suite *admission_suite(void)
{
	Suite *s = suite_create("admission");
	TCase *t = tcase_create("admission");

	tcase_add_test(t, ones_own);
	tcase_add_test(t, a_service);
	tcase_add_test(t, by_name);
	tcase_add_test(t, operators);
	tcase_add_test(t, names_that_are_none);
	tcase_add_test(t, as_many_as_there_may_be);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(admission_suite());
}
