/*
 * check_limits.c - each limit at its edge, named and counted; the reserve.
 */
#include <stdio.h>
#include <string.h>

#include "supervisor/limits.h"
#include "tests/runner.h"

static struct config cfg;
static struct limit_usage use;
static struct error err;

static void start(void)
{
	ck_assert_int_eq(config_init(&cfg, &err), 0);
	use = (struct limit_usage){0};
	err = (struct error)ERROR_NULL;
}

static void end(void)
{
	config_deinit(&cfg);
}

/* Every row: up to the maximum, one more, and a maximum that was lowered. */
START_TEST(edges)
{
	enum limit which = (enum limit)_i;
	size_t max = limit_max(&cfg, which);
	char number[64];

	ck_assert_uint_gt(max, 0);
	ck_assert_int_eq(limit_check(&use, &cfg, which, max, &err), 0);
	ck_assert_int_eq(limit_check(&use, &cfg, which, max + 1, &err), -1);
	use.used[which] = max - 1;
	ck_assert_int_eq(limit_check(&use, &cfg, which, 1, &err), 0);
	ck_assert_uint_eq(use.hit[which], 1);
	use.used[which] = max;
	ck_assert_int_eq(limit_check(&use, &cfg, which, 0, &err), 0);
	ck_assert_int_eq(limit_check(&use, &cfg, which, 1, &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	(void)snprintf(number, sizeof(number), "may have %zu (max_", max);
	ck_assert_msg(strstr(err.text, number), "%s", err.text);
	use.used[which] = max + 5;
	ck_assert_int_eq(limit_check(&use, &cfg, which, 0, &err), -1);
	ck_assert_int_eq(limit_check(&use, &cfg, which, (size_t)-1, &err), -1);
	ck_assert_uint_eq(use.hit[which], 4);
	limit_note(&use, which);
	ck_assert_uint_eq(use.hit[which], 5);
}
END_TEST

START_TEST(json)
{
	struct buf out = BUF_INIT(4096);
	char want[128];

	use.used[LIMIT_SESSIONS] = 3;
	use.hit[LIMIT_BUFFERED] = 7;
	limits_to_json(&use, &cfg, &out);
	ck_assert_ptr_nonnull(buf_cstr(&out));
	(void)snprintf(want, sizeof(want),
	               "{\"sessions\":{\"used\":3,\"max\":%zu,\"hit\":0},",
	               limit_max(&cfg, LIMIT_SESSIONS));
	ck_assert_ptr_eq(strstr(out.data, want), out.data);
	(void)snprintf(want, sizeof(want),
	               "\"buffered\":{\"used\":0,\"max\":%zu,\"hit\":7}}",
	               limit_max(&cfg, LIMIT_BUFFERED));
	ck_assert_ptr_nonnull(strstr(out.data, want));
	for (int i = 0; i < LIMIT_COUNT; i++)
		ck_assert_ptr_nonnull(
			strstr(out.data, limit_name((enum limit)i)));
	buf_deinit(&out);
}
END_TEST

START_TEST(reserve)
{
	cfg.operator_reserve = 16;
	ck_assert_uint_eq(limit_less_reserve(&cfg, 4096), 4080);
	ck_assert_uint_eq(limit_less_reserve(&cfg, 64), 48);
	/* At most a quarter. */
	ck_assert_uint_eq(limit_less_reserve(&cfg, 63), 48);
	ck_assert_uint_eq(limit_less_reserve(&cfg, 8), 6);
	cfg.operator_reserve = 0;
	ck_assert_uint_eq(limit_less_reserve(&cfg, 8), 8);
}
END_TEST

static Suite *limits_suite(void)
{
	Suite *s = suite_create("limits");
	TCase *t = tcase_create("limits");

	tcase_add_checked_fixture(t, start, end);
	tcase_add_loop_test(t, edges, 0, LIMIT_COUNT);
	tcase_add_test(t, json);
	tcase_add_test(t, reserve);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(limits_suite());
}
