/*
 * check_log_signal.c - lines made without the C library's help are those that
 * are made with it.
 */
#include <string.h>

#include "common/clock.h"
#include "common/log_impl.h"
#include "tests/runner.h"

#define DAYS 60000 /* until 2134: a century that is no leap year among them */

static const struct log_message message = {
	.level = LOG_LEVEL_WARN,
	.role = "worker",
	.module = "sandbox",
	.text = "system call 257 was refused",
	.len = sizeof("system call 257 was refused") - 1,
};

static void compare(enum log_format format, int64_t ms)
{
	char want[LOG_LINE_MAX], got[LOG_SIGNAL_MAX];
	size_t len;

	clock_fake(ms);
	want[log_format_line(format, &message, want)] = '\0';
	len = log_format_signal(format, &message, ms, got, sizeof(got) - 1);
	got[len] = '\0';
	ck_assert_str_eq(got, want);
	clock_fake(-1);
}

START_TEST(test_as_other_lines)
{
	compare((enum log_format)_i, 1700000000123);
}
END_TEST

START_TEST(test_every_day)
{
	for (int64_t day = 0; day < DAYS; day += DAYS / runner_times(DAYS)) {
		compare(LOG_FORMAT_JSON, day * 86400000);
		compare(LOG_FORMAT_JSON, day * 86400000 + 86399999);
	}
}
END_TEST

/* Cut at what there is room for. */
START_TEST(test_bound)
{
	char got[LOG_SIGNAL_MAX];

	for (size_t n = 0; n < 200; n++) {
		memset(got, '#', sizeof(got));
		ck_assert_uint_le(log_format_signal(LOG_FORMAT_JSON, &message,
		                                    1700000000123, got, n),
		                  n);
		ck_assert_int_eq(got[n], '#');
	}
}
END_TEST

static Suite *log_signal_suite(void)
{
	Suite *s = suite_create("log_signal");
	TCase *t = tcase_create("log_signal");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_as_other_lines, 0, LOG_FORMAT_COUNT);
	tcase_add_test(t, test_every_day);
	tcase_add_test(t, test_bound);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(log_signal_suite());
}
