/*
 * check_restart_policy.c - delays, what clears them, what makes them longer.
 */
#include "common/macros.h"
#include "supervisor/restart_policy.h"
#include "tests/runner.h"

#define NOW 1000000

static int64_t die(struct restart_policy *p, int64_t used_ms)
{
	restart_policy_died(p, NOW, used_ms);
	return restart_policy_wait_ms(p, NOW);
}

START_TEST(test_nothing_yet)
{
	struct restart_policy p = {0};

	ck_assert_int_eq(restart_policy_wait_ms(&p, 0), 0);
	ck_assert_int_eq(restart_policy_wait_ms(&p, NOW), 0);
}
END_TEST

START_TEST(test_doubles_to_the_cap)
{
	static const int64_t delays[] = {0,   100,  200,  400,
	                                 800, 1000, 1000, 1000};
	struct restart_policy p = {0};

	for (size_t i = 0; i < ARRAY_SIZE(delays); i++)
		ck_assert_int_eq(die(&p, 0), delays[i]);
	/* Never given up, and no overflow. */
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(die(&p, -1), RESTART_DELAY_MAX_MS);
}
END_TEST

START_TEST(test_early_death_counts_more)
{
	struct restart_policy early = {0}, late = {0};
	int64_t first = die(&early, -1);

	ck_assert_int_gt(first, 0);
	ck_assert_int_eq(die(&late, 0), 0);
	for (int i = 1; i < RESTART_EARLY; i++)
		(void)die(&late, 0);
	ck_assert_int_eq(restart_policy_wait_ms(&late, NOW), first);
}
END_TEST

START_TEST(test_success_resets)
{
	struct restart_policy p = {0};

	for (int i = 0; i < 5; i++)
		(void)die(&p, 0);
	ck_assert_int_gt(die(&p, RESTART_STABLE_MS - 1), 0);
	ck_assert_int_eq(die(&p, RESTART_STABLE_MS), 0);
	ck_assert_int_eq(die(&p, 0), RESTART_DELAY_MIN_MS);
}
END_TEST

START_TEST(test_the_wait_passes)
{
	struct restart_policy p = {0};

	(void)die(&p, 0);
	ck_assert_int_eq(die(&p, 0), 100);
	ck_assert_int_eq(restart_policy_wait_ms(&p, NOW + 99), 1);
	ck_assert_int_eq(restart_policy_wait_ms(&p, NOW + 100), 0);
	ck_assert_int_eq(restart_policy_wait_ms(&p, NOW + 9999), 0);
}
END_TEST

static Suite *restart_policy_suite(void)
{
	Suite *s = suite_create("restart_policy");
	TCase *t = tcase_create("all");

	tcase_add_test(t, test_nothing_yet);
	tcase_add_test(t, test_doubles_to_the_cap);
	tcase_add_test(t, test_early_death_counts_more);
	tcase_add_test(t, test_success_resets);
	tcase_add_test(t, test_the_wait_passes);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(restart_policy_suite());
}
