/*
 * check_backoff.c - the delays of the link, jitter's bounds, reset.
 */
#include "common/backoff.h"

#include "tests/runner.h"

START_TEST(link_goes_1_2_4_8_16_30_30)
{
	const uint32_t want[] = {1000,  2000,  4000,  8000,
	                         16000, 30000, 30000, 30000};
	struct backoff b;

	backoff_init(&b, backoff_link_ms, 6, 0, 1);
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		ck_assert_uint_eq(backoff_next_ms(&b), want[i]);
	backoff_reset(&b);
	ck_assert_uint_eq(backoff_next_ms(&b), 1000);
	ck_assert_uint_eq(backoff_next_ms(&b), 2000);
}
END_TEST

START_TEST(jitter_fills_its_range_and_no_more)
{
	const uint32_t table[] = {1000};
	uint32_t low = UINT32_MAX, high = 0, d;
	struct backoff b;

	backoff_init(&b, table, 1, 20, 42);
	for (int i = 0; i < 10000; i++) {
		d = backoff_next_ms(&b);
		ck_assert_uint_ge(d, 800);
		ck_assert_uint_le(d, 1200);
		low = d < low ? d : low;
		high = d > high ? d : high;
	}
	/* 401 values, 10000 draws: both ends come up. */
	ck_assert_uint_eq(low, 800);
	ck_assert_uint_eq(high, 1200);
}
END_TEST

START_TEST(same_seed_same_delays)
{
	struct backoff a, b, c;
	int differ = 0;
	uint32_t d;

	backoff_init(&a, backoff_link_ms, 6, 25, 7);
	backoff_init(&b, backoff_link_ms, 6, 25, 7);
	backoff_init(&c, backoff_link_ms, 6, 25, 8);
	for (int i = 0; i < 20; i++) {
		d = backoff_next_ms(&a);
		ck_assert_uint_eq(d, backoff_next_ms(&b));
		differ += d != backoff_next_ms(&c);
	}
	ck_assert_int_gt(differ, 10);
}
END_TEST

START_TEST(jitter_beyond_100_percent_is_100)
{
	const uint32_t table[] = {10};
	struct backoff b;

	backoff_init(&b, table, 1, 1000, 3);
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_le(backoff_next_ms(&b), 20);
}
END_TEST

START_TEST(edges)
{
	const uint32_t table[] = {UINT32_MAX};
	const uint32_t zero[] = {0};
	struct backoff b;

	backoff_init(&b, table, 1, 100, 5);
	for (int i = 0; i < 100; i++)
		(void)backoff_next_ms(&b); /* must not wrap: UBSan watches */
	backoff_init(&b, zero, 1, 50, 5);
	ck_assert_uint_eq(backoff_next_ms(&b), 0);
	backoff_init(&b, NULL, 0, 50, 5);
	ck_assert_uint_eq(backoff_next_ms(&b), 0);
}
END_TEST

static Suite *backoff_suite(void)
{
	Suite *s = suite_create("backoff");
	TCase *t = tcase_create("backoff");

	tcase_add_test(t, link_goes_1_2_4_8_16_30_30);
	tcase_add_test(t, jitter_fills_its_range_and_no_more);
	tcase_add_test(t, same_seed_same_delays);
	tcase_add_test(t, jitter_beyond_100_percent_is_100);
	tcase_add_test(t, edges);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(backoff_suite());
}
