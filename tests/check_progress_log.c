/*
 * check_progress_log.c - lines that tell a prompt's course.
 */
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/progress_log.h"
#include "tests/runner.h"

static struct buf told;

static bool on_line(void *user, const char *line)
{
	ck_assert_int_eq(buf_puts(&told, line), 0);
	ck_assert_int_eq(buf_putc(&told, '\n'), 0);
	return true;
}

static void setup(void)
{
	buf_init(&told, 1u << 20);
}

static void teardown(void)
{
	buf_deinit(&told);
}

static void fold_text(struct progress *p, const char *frame)
{
	struct comfy_event ev;

	ck_assert_int_eq(comfy_event_parse_text(&ev, frame, strlen(frame)),
	                 COMFY_EVENT_OK);
	(void)progress_fold_event(p, &ev);
}

/* The guide's example, from the events that lead to it. */
START_TEST(test_whole_course)
{
	static const char *const frames[] = {
		"{\"type\":\"execution_start\",\"data\":{\"prompt_id\":\"p\"}}",
		"{\"type\":\"execution_cached\",\"data\":{\"nodes\":[\"4\"],"
		"\"prompt_id\":\"p\"}}",
		"{\"type\":\"executing\",\"data\":{\"node\":\"6\","
		"\"prompt_id\":\"p\"}}",
		"{\"type\":\"progress\",\"data\":{\"value\":1,\"max\":4,"
		"\"node\":\"6\",\"prompt_id\":\"p\"}}",
		"{\"type\":\"progress\",\"data\":{\"value\":1.2,\"max\":4,"
		"\"node\":\"6\",\"prompt_id\":\"p\"}}",
		"{\"type\":\"progress\",\"data\":{\"value\":2,\"max\":4,"
		"\"node\":\"6\",\"prompt_id\":\"p\"}}",
		"{\"type\":\"progress\",\"data\":{\"value\":4,\"max\":4,"
		"\"node\":\"6\",\"prompt_id\":\"p\"}}",
		"{\"type\":\"executing\",\"data\":{\"node\":\"7\","
		"\"prompt_id\":\"p\"}}",
		"{\"type\":\"executing\",\"data\":{\"node\":null,"
		"\"prompt_id\":\"p\"}}",
	};
	struct progress *p = progress_new("p");
	struct progress_log log;

	ck_assert_ptr_nonnull(p);
	progress_log_init(&log);
	(void)progress_fold_queued(p, 2, CMX_WEBSOCKET);
	ck_assert_int_eq(
		progress_log_update(&log, progress_get(p), on_line, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		fold_text(p, frames[i]);
		ck_assert_int_eq(progress_log_update(&log, progress_get(p),
		                                     on_line, NULL),
		                 0);
	}
	ck_assert_str_eq(buf_cstr(&told), "Queued (position: 2)\n"
	                                  "Node 4 cached\n"
	                                  "Node 6 started\n"
	                                  "Node 6 progress: 25%\n"
	                                  "Node 6 progress: 50%\n"
	                                  "Node 6 completed\n"
	                                  "Node 7 started\n"
	                                  "Node 7 completed\n"
	                                  "Execution finished\n");
	/* The end is told once. */
	ck_assert_int_eq(
		progress_log_update(&log, progress_get(p), on_line, NULL), 0);
	ck_assert_ptr_null(
		strstr(strstr(buf_cstr(&told), "finished") + 1, "finished"));
	progress_log_deinit(&log);
	progress_log_deinit(&log);
	(void)progress_free(p);
}
END_TEST

START_TEST(test_failure)
{
	struct progress *p = progress_new("p");
	struct progress_log log;

	progress_log_init(&log);
	(void)progress_fail(p, "ValueError", "no such sampler", "5");
	ck_assert_int_eq(
		progress_log_update(&log, progress_get(p), on_line, NULL), 0);
	ck_assert_str_eq(
		buf_cstr(&told),
		"Execution failed at node 5: ValueError: no such sampler\n");
	progress_log_deinit(&log);
	(void)progress_free(p);
}
END_TEST

static bool on_line_stop(void *user, const char *line)
{
	++*(int *)user;
	return false;
}

START_TEST(test_callback_stops_the_walk)
{
	struct progress *p = progress_new("p");
	struct progress_log log;
	int calls = 0;

	progress_log_init(&log);
	fold_text(p, "{\"type\":\"execution_cached\",\"data\":{\"nodes\":"
	             "[\"1\",\"2\",\"3\"],\"prompt_id\":\"p\"}}");
	ck_assert_int_eq(progress_log_update(&log, progress_get(p),
	                                     on_line_stop, &calls),
	                 0);
	ck_assert_int_eq(calls, 1);
	progress_log_deinit(&log);
	(void)progress_free(p);
}
END_TEST

static Suite *progress_log_suite(void)
{
	Suite *s = suite_create("progress_log");
	TCase *t = tcase_create("lines");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_whole_course);
	tcase_add_test(t, test_failure);
	tcase_add_test(t, test_callback_stops_the_walk);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(progress_log_suite());
}
