/*
 * check_clock.c - clocks go forward, and stand still when told to.
 */
#include "common/clock.h"

#include <time.h>

#include "tests/runner.h"

static void thaw(void)
{
	clock_fake(-1);
}

START_TEST(monotonic_never_goes_back)
{
	int64_t last_us = clock_us(), now_us;

	for (int i = 0; i < 10000; i++) {
		now_us = clock_us();
		ck_assert_int_ge(now_us, last_us);
		last_us = now_us;
	}
	ck_assert_int_gt(last_us, 0);
}
END_TEST

START_TEST(units_agree)
{
	int64_t before_ms = clock_ms(), us = clock_us(), after_ms = clock_ms();

	ck_assert_int_ge(us / 1000, before_ms);
	ck_assert_int_le(us / 1000, after_ms);
}
END_TEST

START_TEST(epoch_is_the_calendar)
{
	int64_t before_s = time(NULL), ms = clock_epoch_ms();

	/* time(2) may lag by a tick. */
	ck_assert_int_ge(ms / 1000, before_s);
	ck_assert_int_le(ms / 1000, (int64_t)time(NULL) + 1);
}
END_TEST

START_TEST(fake_freezes_all)
{
	clock_fake(0);
	ck_assert_int_eq(clock_ms(), 0);
	ck_assert_int_eq(clock_epoch_ms(), 0);
	clock_fake(1234567);
	ck_assert_int_eq(clock_ms(), 1234567);
	ck_assert_int_eq(clock_epoch_ms(), 1234567);
	ck_assert_int_eq(clock_us(), 1234567000);
}
END_TEST

START_TEST(thaw_returns_to_real_time)
{
	clock_fake(5);
	clock_fake(-1);
	ck_assert_int_gt(clock_epoch_ms(), INT64_C(1500000000000));
}
END_TEST

static Suite *clock_suite(void)
{
	Suite *s = suite_create("clock");
	TCase *t = tcase_create("clock");

	tcase_add_checked_fixture(t, NULL, thaw);
	tcase_add_test(t, monotonic_never_goes_back);
	tcase_add_test(t, units_agree);
	tcase_add_test(t, epoch_is_the_calendar);
	tcase_add_test(t, fake_freezes_all);
	tcase_add_test(t, thaw_returns_to_real_time);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(clock_suite());
}
