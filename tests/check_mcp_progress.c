/*
 * check_mcp_progress.c - what is told of a call's progress, and when: strictly
 * rising, seldom enough, often enough.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/runner.h"
#include "workers/mcp_progress.h"

static struct mcp_progress p;
static int64_t now;
static double last;

static void setup(void)
{
	now = 5000;
	last = -1;
	mcp_progress_init(&p, -1, now);
}

/* What is told now, if anything: the number, always larger than the last. */
static bool tell(double *valuep)
{
	char number[24], *end;
	double v;

	if (!mcp_progress_next(&p, now, number))
		return false;
	v = strtod(number, &end);
	ck_assert_str_eq(end, "");
	ck_assert_msg(v > last, "%s after %.12g", number, last);
	ck_assert_msg(v < 1, "%s", number);
	last = v;
	mcp_progress_told(&p, now);
	if (valuep)
		*valuep = v;
	return true;
}

START_TEST(first_news_waits_a_moment)
{
	double v;

	ck_assert(!tell(NULL));
	mcp_progress_set(&p, 0.25, "step 5 of 20", false, now);
	ck_assert(!tell(NULL));
	ck_assert_int_eq(mcp_progress_due_ms(&p), now + MCP_PROGRESS_SETTLE_MS);
	now += MCP_PROGRESS_SETTLE_MS - 1;
	ck_assert(!tell(NULL));
	now++;
	ck_assert(tell(&v));
	ck_assert_double_eq(v, 0.25);
	ck_assert_str_eq(p.message, "step 5 of 20");
	ck_assert(!tell(NULL));
}
END_TEST

/* Later news is told as it comes, unless the end may follow at once. */
START_TEST(only_the_last_news_waits)
{
	mcp_progress_set(&p, 0.25, "a", false, now);
	now += MCP_PROGRESS_SETTLE_MS;
	ck_assert(tell(NULL));
	now += MCP_PROGRESS_GAP_MS;
	mcp_progress_set(&p, 0.5, "b", false, now);
	ck_assert(tell(NULL));
	now += MCP_PROGRESS_GAP_MS;
	mcp_progress_set(&p, 0.75, "c", true, now);
	ck_assert(!tell(NULL));
	ck_assert_int_eq(mcp_progress_due_ms(&p), now + MCP_PROGRESS_SETTLE_MS);
	/* News that turns up meanwhile does not put it off. */
	now += MCP_PROGRESS_SETTLE_MS / 2;
	mcp_progress_set(&p, 0.8, "d", true, now);
	now += MCP_PROGRESS_SETTLE_MS / 2;
	ck_assert(tell(NULL));
}
END_TEST

/* Updates in one gap are one line, of the latest of them. */
START_TEST(at_most_so_often)
{
	int64_t told_at[100];
	size_t count = 0;

	for (int i = 0; i < 2000; i++, now++) {
		mcp_progress_set(&p, i / 2001.0, NULL, false, now);
		if (tell(NULL))
			told_at[count++] = now;
	}
	ck_assert_uint_ge(count, 7);
	ck_assert_uint_le(count, 9);
	for (size_t i = 1; i < count; i++)
		ck_assert_int_ge(told_at[i] - told_at[i - 1],
		                 MCP_PROGRESS_GAP_MS);
}
END_TEST

START_TEST(at_least_so_often)
{
	double a, b;

	/* Even when there was nothing to be said at all. */
	now += MCP_PROGRESS_REPEAT_MS - 1;
	ck_assert(!tell(NULL));
	now++;
	ck_assert(tell(&a));
	mcp_progress_set(&p, 0.5, "waiting", false, now);
	now += MCP_PROGRESS_GAP_MS;
	ck_assert(tell(&a));
	mcp_progress_set(&p, 0.5, "waiting", false, now);
	ck_assert_int_eq(mcp_progress_due_ms(&p), now + MCP_PROGRESS_REPEAT_MS);
	now += MCP_PROGRESS_REPEAT_MS;
	ck_assert(tell(&b));
	ck_assert_double_gt(b, a);
	ck_assert_double_lt(b - a, 0.001);
}
END_TEST

START_TEST(a_step_back_is_no_news)
{
	double v;

	mcp_progress_set(&p, 0.5, "a", false, now);
	now += MCP_PROGRESS_SETTLE_MS;
	ck_assert(tell(NULL));
	mcp_progress_set(&p, 0.1, "a", false, now);
	now += MCP_PROGRESS_GAP_MS * 2;
	ck_assert(!tell(NULL));
	/* But other words are, and the number rises all the same. */
	mcp_progress_set(&p, 0.1, "b", false, now);
	now += MCP_PROGRESS_SETTLE_MS;
	ck_assert(tell(&v));
	ck_assert_double_lt(v, 0.501);
	ck_assert_str_eq(p.message, "b");
}
END_TEST

START_TEST(not_told_is_due_again)
{
	char number[24];

	mcp_progress_set(&p, 0.5, NULL, false, now);
	now += MCP_PROGRESS_SETTLE_MS;
	ck_assert(mcp_progress_next(&p, now, number));
	ck_assert(mcp_progress_next(&p, now, number));
	ck_assert(tell(NULL));
	ck_assert(!mcp_progress_next(&p, now, number));
}
END_TEST

/* Nonsense from a tool is still a line that clients take. */
START_TEST(any_number_will_do)
{
	static const double said[] = {-1, 0, -0.0, 5, 1, 1e300};
	double v;

	for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
		char text[8];

		(void)snprintf(text, sizeof(text), "%zu", i);
		mcp_progress_set(&p, said[i], text, false, now);
		now += MCP_PROGRESS_GAP_MS;
		ck_assert(tell(&v));
	}
	mcp_progress_set(&p, (double)NAN, "nan", false, now);
	now += MCP_PROGRESS_GAP_MS;
	ck_assert(tell(&v));
	mcp_progress_set(&p, (double)INFINITY, "inf", false, now);
	now += MCP_PROGRESS_GAP_MS;
	ck_assert(tell(&v));
}
END_TEST

START_TEST(rises_for_six_hours)
{
	double v = 0;

	mcp_progress_set(&p, 1, "x", false, now);
	for (int i = 0; i < runner_times(6 * 3600 * 4); i++) {
		mcp_progress_set(&p, 1, i % 2 ? "x" : "y", false, now);
		now += MCP_PROGRESS_GAP_MS;
		ck_assert(tell(&v));
	}
	ck_assert_double_lt(v, 1);
}
END_TEST

START_TEST(message_is_cut_between_characters)
{
	char text[MCP_PROGRESS_MESSAGE_MAX + 8];

	memset(text, 'm', sizeof(text));
	memcpy(text + MCP_PROGRESS_MESSAGE_MAX - 1, "\xc3\xa4", 3);
	mcp_progress_set(&p, 0, text, false, now);
	ck_assert_uint_eq(strlen(p.message), MCP_PROGRESS_MESSAGE_MAX - 1);
	text[MCP_PROGRESS_MESSAGE_MAX - 1] = 'm';
	text[MCP_PROGRESS_MESSAGE_MAX] = '\0';
	mcp_progress_set(&p, 0, text, false, now);
	ck_assert_str_eq(p.message, text);
}
END_TEST

static Suite *mcp_progress_suite(void)
{
	Suite *s = suite_create("mcp_progress");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, first_news_waits_a_moment);
	tcase_add_test(t, only_the_last_news_waits);
	tcase_add_test(t, at_most_so_often);
	tcase_add_test(t, at_least_so_often);
	tcase_add_test(t, a_step_back_is_no_news);
	tcase_add_test(t, not_told_is_due_again);
	tcase_add_test(t, any_number_will_do);
	tcase_add_test(t, rises_for_six_hours);
	tcase_add_test(t, message_is_cut_between_characters);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(mcp_progress_suite());
}
