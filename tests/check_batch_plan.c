/*
 * check_batch_plan.c - what is started when, what is submitted again, and that
 * the whole never runs backwards.
 */
#include "common/batch_plan.h"
#include "tests/runner.h"

static struct batch_plan plan;
static struct error err;

static void teardown(void)
{
	batch_plan_deinit(&plan);
}

static void begin(size_t count, unsigned concurrency, bool stop_on_error)
{
	struct batch_options o = {.concurrency = concurrency,
	                          .stop_on_error = stop_on_error,
	                          .resubmits = BATCH_RESUBMITS_MAX};

	ck_assert_int_eq(batch_plan_init(&plan, count, &o, &err), 0);
}

static size_t next(void)
{
	size_t index;

	ck_assert(batch_plan_next(&plan, &index));
	return index;
}

static bool idle(void)
{
	size_t index;

	return !batch_plan_next(&plan, &index);
}

static int try(size_t count, unsigned concurrency)
{
	struct batch_options o = {.concurrency = concurrency};
	int r = batch_plan_init(&plan, count, &o, &err);

	batch_plan_deinit(&plan);
	return r;
}

START_TEST(test_bounds)
{
	ck_assert_int_eq(try(1, 1), 0);
	ck_assert_int_eq(try(BATCH_ITEMS_MAX, BATCH_CONCURRENCY_MAX), 0);
	ck_assert_int_eq(try(0, 1), -1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_int_eq(try(BATCH_ITEMS_MAX + 1, 1), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_int_eq(try(1, 0), -1);
	ck_assert_int_eq(try(1, BATCH_CONCURRENCY_MAX + 1), -1);
	ck_assert_int_eq(try(1, 10000), -1);
	ck_assert_int_eq(err.code, ERR_INVALID);
}
END_TEST

START_TEST(test_in_order_and_no_more_at_a_time)
{
	begin(3, 2, false);
	ck_assert_uint_eq(next(), 0);
	ck_assert_uint_eq(next(), 1);
	ck_assert(idle());
	ck_assert(!batch_plan_ended(&plan, 1, BATCH_OUTCOME_OK));
	ck_assert_uint_eq(next(), 2);
	ck_assert(!batch_plan_ended(&plan, 0, BATCH_OUTCOME_FAILED));
	ck_assert(!batch_plan_over(&plan));
	ck_assert(!batch_plan_ended(&plan, 2, BATCH_OUTCOME_OK));
	ck_assert(batch_plan_over(&plan));
	ck_assert_uint_eq(plan.in_state[BATCH_COMPLETED], 2);
	ck_assert_uint_eq(plan.in_state[BATCH_FAILED], 1);
}
END_TEST

START_TEST(test_lost_ones_go_again_twice)
{
	begin(1, 1, true);
	(void)next();
	ck_assert(batch_plan_ended(&plan, 0, BATCH_OUTCOME_LOST));
	ck_assert(batch_plan_ended(&plan, 0, BATCH_OUTCOME_LOST));
	ck_assert_uint_eq(plan.resubmitted, 2);
	ck_assert(!batch_plan_ended(&plan, 0, BATCH_OUTCOME_LOST));
	ck_assert_uint_eq(plan.in_state[BATCH_FAILED], 1);
	ck_assert(plan.stopped);
}
END_TEST

START_TEST(test_stop_on_error_skips_what_waits)
{
	size_t index;

	begin(4, 2, true);
	(void)next();
	(void)next();
	ck_assert(!batch_plan_skip(&plan, &index));
	(void)batch_plan_ended(&plan, 1, BATCH_OUTCOME_FAILED);
	ck_assert(idle());
	ck_assert(batch_plan_skip(&plan, &index));
	ck_assert_uint_eq(index, 2);
	ck_assert(batch_plan_skip(&plan, &index));
	ck_assert(!batch_plan_skip(&plan, &index));
	/* What runs goes on to its end. */
	ck_assert(!batch_plan_over(&plan));
	(void)batch_plan_ended(&plan, 0, BATCH_OUTCOME_OK);
	ck_assert(batch_plan_over(&plan));
	ck_assert_uint_eq(plan.in_state[BATCH_SKIPPED], 2);
}
END_TEST

START_TEST(test_nothing_goes_again_once_stopped)
{
	begin(2, 2, false);
	(void)next();
	batch_plan_stop(&plan);
	ck_assert(idle());
	ck_assert(!batch_plan_ended(&plan, 0, BATCH_OUTCOME_LOST));
}
END_TEST

START_TEST(test_whole_never_runs_backwards)
{
	double before;

	begin(2, 2, false);
	(void)next();
	(void)next();
	batch_plan_advance(&plan, 0, 0.5);
	ck_assert_double_eq_tol(batch_plan_fraction(&plan), 0.25, 1e-6);
	batch_plan_advance(&plan, 0, 0.2);
	ck_assert_double_eq_tol(batch_plan_fraction(&plan), 0.25, 1e-6);
	before = batch_plan_fraction(&plan);
	ck_assert(batch_plan_ended(&plan, 0, BATCH_OUTCOME_LOST));
	ck_assert_double_ge(batch_plan_fraction(&plan), before);
	batch_plan_advance(&plan, 0, 7);
	(void)batch_plan_ended(&plan, 0, BATCH_OUTCOME_OK);
	ck_assert_double_eq_tol(batch_plan_fraction(&plan), 0.5, 1e-6);
	(void)batch_plan_ended(&plan, 1, BATCH_OUTCOME_OK);
	ck_assert_double_eq_tol(batch_plan_fraction(&plan), 1, 1e-9);
}
END_TEST

START_TEST(test_restored)
{
	begin(4, 2, false);
	batch_plan_restore_ended(&plan, 0, true);
	batch_plan_restore_running(&plan, 2, 9);
	batch_plan_restore_running(&plan, 2, 1); /* told twice */
	batch_plan_restore_ended(&plan, 99, true);
	ck_assert_uint_eq(next(), 1);
	ck_assert(idle());
	ck_assert(!batch_plan_ended(&plan, 2, BATCH_OUTCOME_LOST));
	ck_assert_uint_eq(next(), 3);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("batch_plan");
	TCase *t = tcase_create("batch_plan");

	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_add_test(t, test_bounds);
	tcase_add_test(t, test_in_order_and_no_more_at_a_time);
	tcase_add_test(t, test_lost_ones_go_again_twice);
	tcase_add_test(t, test_stop_on_error_skips_what_waits);
	tcase_add_test(t, test_nothing_goes_again_once_stopped);
	tcase_add_test(t, test_whole_never_runs_backwards);
	tcase_add_test(t, test_restored);
	suite_add_tcase(s, t);
	return runner_run(s);
}
