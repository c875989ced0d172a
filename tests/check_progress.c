/*
 * check_progress.c - ExecutionProgress step by step: what each event and queue
 * answer changes, and what it must not. History, snapshots and bounds are in
 * check_progress_fold.c; whole recordings are replayed by check_replay.c.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/progress_steps.h"

/* ---- events ---- */

START_TEST(test_new)
{
	char id[PROGRESS_ID_MAX + 2];
	struct progress *q;

	ck_assert_int_eq(get()->status, CMX_QUEUED);
	ck_assert_int_eq(get()->queue_position, -1);
	ck_assert_ptr_null(get()->current_node);
	assert_outputs("{}");
	assert_json(0, "{\"prompt_id\":\"p\",\"status\":\"queued\","
	               "\"completed_nodes\":[],\"cached_nodes\":[],"
	               "\"outputs\":{},\"method\":\"websocket\"}");
	memset(id, 'x', sizeof(id));
	id[PROGRESS_ID_MAX] = '\0';
	q = progress_new(id);
	ck_assert_ptr_nonnull(q);
	ck_assert_str_eq(progress_get(q)->prompt_id, id);
	(void)progress_free(q);
	id[PROGRESS_ID_MAX] = 'x';
	id[PROGRESS_ID_MAX + 1] = '\0';
	ck_assert_ptr_null(progress_new(id));
}
END_TEST

START_TEST(test_names)
{
	ck_assert_str_eq(cmx_status_name(CMX_QUEUED), "queued");
	ck_assert_str_eq(cmx_status_name(CMX_EXECUTING), "executing");
	ck_assert_str_eq(cmx_status_name(CMX_COMPLETED), "completed");
	ck_assert_str_eq(cmx_status_name(CMX_FAILED), "failed");
	ck_assert_str_eq(cmx_status_name((enum cmx_status)9), "unknown");
	ck_assert_str_eq(cmx_method_name(CMX_WEBSOCKET), "websocket");
	ck_assert_str_eq(cmx_method_name(CMX_POLLING), "polling");
	ck_assert_str_eq(cmx_method_name((enum cmx_method)9), "unknown");
}
END_TEST

START_TEST(test_run)
{
	(void)progress_fold_queued(p, 2, CMX_POLLING);
	ck_assert_int_eq(get()->method, CMX_POLLING);
	ck_assert_uint_eq(start(), PROGRESS_STATUS | PROGRESS_QUEUE);
	ck_assert_int_eq(get()->status, CMX_EXECUTING);
	ck_assert_int_eq(get()->queue_position, 0);
	ck_assert_int_eq(get()->method, CMX_WEBSOCKET);
	ck_assert_uint_eq(fold("execution_cached", "\"nodes\":[\"1\",\"2\"]"),
	                  PROGRESS_NODE);
	assert_nodes(&get()->cached_nodes, "1 2");
	ck_assert_uint_ne(state("3:r0/1") & PROGRESS_NODE, 0);
	ck_assert_str_eq(get()->current_node, "3");
	ck_assert_uint_eq(executing("3"), PROGRESS_SAME);
	ck_assert_uint_eq(state("3:r1/4"), PROGRESS_STEP);
	ck_assert_uint_eq(step("3", "1", "4"), PROGRESS_SAME);
	ck_assert_double_eq(get()->current_node_progress, 0.25);
	ck_assert_double_eq(get()->current_value, 1);
	ck_assert_double_eq(get()->current_max, 4);
	assert_json(0, "{\"prompt_id\":\"p\",\"status\":\"executing\","
	               "\"current_node\":\"3\",\"current_node_progress\":0.25,"
	               "\"queue_position\":0,\"completed_nodes\":[],"
	               "\"cached_nodes\":[\"1\",\"2\"],\"outputs\":{},"
	               "\"method\":\"websocket\"}");
	ck_assert_uint_ne(executed("3", "{\"images\":[ 1 ]}") &
	                          (PROGRESS_OUTPUT | PROGRESS_NODE),
	                  0);
	ck_assert_uint_eq(state("3:f4/4"), PROGRESS_SAME);
	/* A cached output node is answered, and stays cached. */
	ck_assert_uint_eq(executed("2", "{\"text\":[\"\\u00e4\"]}"),
	                  PROGRESS_OUTPUT);
	ck_assert_uint_eq(state("3:f4/4 2:f1/1"), PROGRESS_SAME);
	ck_assert_uint_eq(fold("execution_success", ""), PROGRESS_SAME);
	ck_assert(!progress_ended(p));
	ck_assert_uint_eq(over(), PROGRESS_END | PROGRESS_EXECUTION_OVER);
	ck_assert(progress_ended(p));
	assert_json(PROGRESS_JSON_RESULT,
	            "{\"prompt_id\":\"p\",\"status\":\"completed\","
	            "\"queue_position\":0,\"completed_nodes\":[\"3\"],"
	            "\"cached_nodes\":[\"1\",\"2\"],\"outputs\":{\"3\":"
	            "{\"images\":[1]},\"2\":{\"text\":[\"\\u00e4\"]}},"
	            "\"progress_method\":\"websocket\"}");
	assert_json(PROGRESS_JSON_NO_OUTPUTS,
	            "{\"prompt_id\":\"p\",\"status\":\"completed\","
	            "\"queue_position\":0,\"completed_nodes\":[\"3\"],"
	            "\"cached_nodes\":[\"1\",\"2\"],\"method\":\"websocket\"}");
}
END_TEST

START_TEST(test_nothing_after_the_end)
{
	struct comfy_event ev = {.type = COMFY_EV_UNKNOWN};

	(void)executing("1");
	(void)over();
	ck_assert_uint_eq(start(), PROGRESS_SAME);
	ck_assert_uint_eq(executing("2"), PROGRESS_SAME);
	ck_assert_uint_eq(state("2:f1/1"), PROGRESS_SAME);
	ck_assert_uint_eq(executed("2", "{}"), PROGRESS_SAME);
	ck_assert_uint_eq(fold("execution_error", "\"node_id\":\"1\""),
	                  PROGRESS_SAME);
	ck_assert_uint_eq(over(), PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_event(p, &ev), PROGRESS_SAME);
	ck_assert_uint_eq(progress_fail(p, "lost", "x", NULL), PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_queued(p, 3, CMX_POLLING),
	                  PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_running(p, CMX_POLLING), PROGRESS_SAME);
	ck_assert_uint_eq(history("{\"outputs\":{},\"status\":{"
	                          "\"status_str\":\"error\"}}"),
	                  PROGRESS_SAME);
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	assert_completed("1");
}
END_TEST

START_TEST(test_irrelevant_events)
{
	static const char *const frames[] = {
		"{\"type\":\"status\",\"data\":{}}",
		"{\"type\":\"feature_flags\",\"data\":{}}",
		"{\"type\":\"x\",\"data\":{\"prompt_id\":\"p\"}}",
		"{\"type\":\"executing\",\"data\":{\"node\":null}}",
	};
	struct comfy_event ev;

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		ck_assert_int_eq(comfy_event_parse_text(&ev, frames[i],
		                                        strlen(frames[i])),
		                 COMFY_EVENT_OK);
		ck_assert_uint_eq(progress_fold_event(p, &ev), PROGRESS_SAME);
	}
	ck_assert_int_eq(get()->status, CMX_QUEUED);
}
END_TEST

/* No progress_state, one node after the other, no execution_success. */
START_TEST(test_old_server)
{
	(void)start();
	(void)executing("1");
	ck_assert_str_eq(get()->current_node, "1");
	assert_completed("");
	ck_assert_uint_ne(executing("2") & PROGRESS_NODE, 0);
	assert_completed("1");
	/* Without a node's name the step is the running one's. */
	ck_assert_uint_eq(fold("progress", "\"value\":1,\"max\":2"),
	                  PROGRESS_STEP);
	ck_assert_double_eq(get()->current_node_progress, 0.5);
	ck_assert_uint_eq(executing("1"), PROGRESS_SAME);
	ck_assert_str_eq(get()->current_node, "2");
	(void)over();
	assert_completed("1 2");
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
}
END_TEST

/* Where the server tells states, the next start ends nobody. */
START_TEST(test_start_beside_another)
{
	(void)start();
	(void)state("1:r0/1");
	(void)executing("2");
	assert_completed("");
	ck_assert_str_eq(get()->current_node, "2");
	(void)state("1:f1/1 2:r0/1");
	assert_completed("1");
}
END_TEST

START_TEST(test_fraction_never_falls)
{
	(void)state("1:r0.0/1.0");
	ck_assert_double_eq(get()->current_node_progress, 0);
	(void)step("1", "3", "4");
	ck_assert_double_eq(get()->current_node_progress, 0.75);
	ck_assert_uint_eq(step("1", "1", "4"), PROGRESS_SAME);
	ck_assert_uint_eq(step("1", "3", "8"), PROGRESS_SAME);
	ck_assert_double_eq(get()->current_max, 4);
	ck_assert_uint_eq(step("1", "7", "8"), PROGRESS_STEP);
	ck_assert_double_eq(get()->current_max, 8);
	ck_assert_uint_eq(step("1", "9", "8"), PROGRESS_STEP);
	ck_assert_double_eq(get()->current_node_progress, 1);
	/* What can't be counted changes nothing. */
	ck_assert_uint_eq(step("1", "1", "0"), PROGRESS_SAME);
	ck_assert_uint_eq(step("1", "NaN", "2"), PROGRESS_SAME);
	(void)executing("2");
	ck_assert_uint_eq(step("2", "-1", "2"), PROGRESS_STEP);
	ck_assert_double_eq(get()->current_node_progress, 0);
	ck_assert_uint_eq(step("2", "-1", "-2"), PROGRESS_SAME);
}
END_TEST

START_TEST(test_parallel)
{
	(void)start();
	(void)state("4:r0/1");
	(void)state("4:r0/1 4.1:r0/1");
	(void)state("4:r0/1 4.1:r0/1 4.2:r0/1");
	ck_assert_str_eq(get()->current_node, "4.2");
	(void)state("4:r0/1 4.1:r1/3 4.2:r0/1");
	ck_assert_str_eq(get()->current_node, "4.1");
	ck_assert_double_eq(get()->current_value, 1);
	(void)executing("4.2");
	ck_assert_str_eq(get()->current_node, "4.2");
	(void)state("4:r0/1 4.1:r1/3 4.2:f1/1");
	ck_assert_str_eq(get()->current_node, "4.1");
	(void)state("4:r0/1 4.1:f3/3 4.2:f1/1");
	ck_assert_str_eq(get()->current_node, "4");
	assert_completed("4.2 4.1");
	/* What ended doesn't run again. */
	ck_assert_uint_eq(executing("4.2"), PROGRESS_SAME);
	ck_assert_uint_eq(step("4.2", "1", "2"), PROGRESS_SAME);
	ck_assert_uint_eq(state("4.2:r0/1"), PROGRESS_SAME);
	(void)state("4:f1/1");
	ck_assert_ptr_null(get()->current_node);
	ck_assert_double_eq(get()->current_node_progress, 0);
	assert_completed("4.2 4.1 4");
}
END_TEST

START_TEST(test_answered_by_an_equal_node)
{
	(void)start();
	(void)state("2:f1/1");
	ck_assert_uint_eq(executed("3", "null"), PROGRESS_SAME);
	ck_assert_uint_eq(state("2:f1/1 3:f1/1"), PROGRESS_SAME);
	(void)fold("execution_success", "");
	(void)over();
	assert_completed("2");
	assert_nodes(&get()->cached_nodes, "");
	assert_outputs("{}");
}
END_TEST

START_TEST(test_executed_after_a_gap)
{
	/* Its start was not heard: having output, it counts as run. */
	ck_assert_uint_ne(executed("3", "{}") & PROGRESS_NODE, 0);
	(void)executed("4", "null");
	assert_completed("3");
}
END_TEST

static unsigned reconnect(const char *node)
{
	char text[128];
	struct comfy_event ev;

	(void)snprintf(text, sizeof(text),
	               "{\"type\":\"executing\",\"data\":{\"node\":\"%s\"}}",
	               node);
	ck_assert_int_eq(comfy_event_parse_text(&ev, text, strlen(text)),
	                 COMFY_EVENT_OK);
	return progress_fold_event(p, &ev);
}

START_TEST(test_reconnect)
{
	(void)start();
	(void)state("1:f1/1 3:f1/1 4:r0/1");
	/* It names one that has ended (31) ... */
	ck_assert_uint_eq(reconnect("3"), PROGRESS_SAME);
	ck_assert_str_eq(get()->current_node, "4");
	/* ... or one that is another's display id. */
	(void)reconnect("9");
	ck_assert_str_eq(get()->current_node, "9");
	(void)state("1:f1/1 3:f1/1 4:r1/2");
	ck_assert_str_eq(get()->current_node, "4");
	(void)fold("execution_success", "");
	(void)over();
	assert_completed("1 3 4");
}
END_TEST

START_TEST(test_reconnect_names_the_right_one)
{
	(void)start();
	(void)reconnect("9");
	(void)state("9:r0/1");
	(void)over();
	assert_completed("9");
}
END_TEST

/* ---- errors ---- */

START_TEST(test_error)
{
	(void)start();
	(void)state("1:r0/1");
	(void)state("1:r0/1 3:r0/1");
	ck_assert_uint_ne(fold("execution_error", RAISED) & PROGRESS_ERROR, 0);
	ck_assert_int_eq(get()->status, CMX_EXECUTING);
	assert_error("ValueError", "bad", "3");
	assert_completed("1");
	ck_assert_uint_eq(over(), PROGRESS_END | PROGRESS_EXECUTION_OVER);
	ck_assert_int_eq(get()->status, CMX_FAILED);
	assert_completed("1");
	ck_assert_ptr_null(get()->current_node);
	assert_json(0, "{\"prompt_id\":\"p\",\"status\":\"failed\","
	               "\"queue_position\":0,\"completed_nodes\":[\"1\"],"
	               "\"cached_nodes\":[],\"outputs\":{},\"error\":{"
	               "\"node_id\":\"3\",\"message\":\"bad\",\"type\":"
	               "\"ValueError\"},\"method\":\"websocket\"}");
}
END_TEST

START_TEST(test_error_that_is_not_the_end)
{
	(void)start();
	(void)executing("3");
	ck_assert_uint_eq(fold("execution_error", BLOCKED), PROGRESS_ERROR);
	assert_error("ExecutionBlocked", "no", "3");
	(void)state("3:f1/1 4:r0/1");
	ck_assert_uint_ne(fold("execution_success", "") & PROGRESS_ERROR, 0);
	assert_error(NULL, NULL, NULL);
	(void)over();
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	assert_completed("3 4");
}
END_TEST

START_TEST(test_blocked_without_success)
{
	(void)executing("3");
	(void)fold("execution_error", BLOCKED);
	(void)over();
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	assert_error(NULL, NULL, NULL);
}
END_TEST

START_TEST(test_success_clears_any_exception)
{
	(void)executing("3");
	(void)fold("execution_error", RAISED);
	(void)fold("execution_success", "");
	(void)over();
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
}
END_TEST

START_TEST(test_interrupted)
{
	(void)start();
	(void)state("2:r0/1");
	ck_assert_uint_eq(fold("execution_interrupted",
	                       "\"node_id\":\"2\",\"executed\":[]"),
	                  PROGRESS_ERROR);
	(void)over();
	ck_assert_int_eq(get()->status, CMX_FAILED);
	assert_error("interrupted", "Execution was interrupted", "2");
	assert_completed("");
}
END_TEST

START_TEST(test_error_without_details)
{
	(void)fold("execution_error", "\"exception_type\":7,\"node_id\":null");
	assert_error("error", "", NULL);
	(void)over();
	ck_assert_int_eq(get()->status, CMX_FAILED);
}
END_TEST

START_TEST(test_fail)
{
	ck_assert_uint_eq(progress_fail(p, "rejected", "not\0this", "7"),
	                  PROGRESS_END);
	assert_error("rejected", "not", "7");
	ck_assert_int_eq(get()->status, CMX_FAILED);
	ck_assert_int_eq(get()->queue_position, 0);
}
END_TEST

START_TEST(test_fail_overrides)
{
	(void)executing("3");
	(void)fold("execution_error", RAISED);
	/* Even under a name that an exception would survive. */
	(void)progress_fail(p, "ExecutionBlocked", "x", NULL);
	assert_error("ExecutionBlocked", "x", NULL);
	ck_assert_int_eq(get()->status, CMX_FAILED);
}
END_TEST

START_TEST(test_error_bounds)
{
	char *text = malloc(PROGRESS_ERROR_MAX + 4);

	ck_assert_ptr_nonnull(text);
	memset(text, 'x', PROGRESS_ERROR_MAX + 3);
	text[PROGRESS_ERROR_MAX] = '\0';
	(void)progress_fail(p, "lost", text, NULL);
	ck_assert_str_eq(get()->error.message, text);
	teardown();
	setup();
	/* A character across the bound goes as a whole. */
	(void)strcpy(text + PROGRESS_ERROR_MAX - 1, "\xe2\x82\xac");
	(void)progress_fail(p, "lost", text, NULL);
	ck_assert_uint_eq(strlen(get()->error.message), PROGRESS_ERROR_MAX - 1);
	teardown();
	setup();
	memset(text, 'y', PROGRESS_ERROR_MAX + 3);
	text[PROGRESS_ERROR_MAX + 3] = '\0';
	(void)progress_fail(p, text, "m", text);
	ck_assert_uint_eq(strlen(get()->error.type), PROGRESS_ID_MAX);
	ck_assert_uint_eq(strlen(get()->error.node_id), PROGRESS_NODE_ID_MAX);
	free(text);
}
END_TEST

/* ---- queue ---- */

START_TEST(test_queue)
{
	ck_assert_uint_eq(progress_fold_queued(p, 2, CMX_POLLING),
	                  PROGRESS_QUEUE);
	ck_assert_uint_eq(progress_fold_queued(p, 2, CMX_POLLING),
	                  PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_queued(p, -1, CMX_POLLING),
	                  PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_queued(p, 3, CMX_POLLING),
	                  PROGRESS_QUEUE);
	ck_assert_int_eq(get()->queue_position, 3);
	ck_assert_uint_eq(progress_fold_queued(p, 0, CMX_POLLING),
	                  PROGRESS_QUEUE);
	ck_assert_uint_eq(progress_fold_running(p, CMX_POLLING),
	                  PROGRESS_STATUS);
	ck_assert_uint_eq(progress_fold_running(p, CMX_POLLING), PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_queued(p, 1, CMX_POLLING),
	                  PROGRESS_SAME);
	ck_assert_int_eq(get()->status, CMX_EXECUTING);
	ck_assert_int_eq(get()->queue_position, 0);
}
END_TEST

START_TEST(test_paused)
{
	static const char text[] = "{\"status\":\"queued\",\"paused\":true}";
	static const char on[] = "{\"status\":\"queued\"}";
	struct json j;

	ck_assert_uint_eq(progress_fold_paused(p, false), PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_paused(p, true), PROGRESS_QUEUE);
	ck_assert_uint_eq(progress_fold_paused(p, true), PROGRESS_SAME);
	assert_json(0, "{\"prompt_id\":\"p\",\"status\":\"queued\","
	               "\"paused\":true,\"completed_nodes\":[],"
	               "\"cached_nodes\":[],\"outputs\":{},"
	               "\"method\":\"websocket\"}");
	ck_assert_int_eq(json_parse(&j, on, strlen(on), 0, NULL), JSON_OK);
	ck_assert_uint_eq(progress_fold_snapshot(p, j), PROGRESS_QUEUE);
	ck_assert(!get()->paused);
	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL), JSON_OK);
	ck_assert_uint_eq(progress_fold_snapshot(p, j), PROGRESS_QUEUE);
	ck_assert(get()->paused);
	/* One that runs doesn't wait. */
	(void)progress_fold_running(p, CMX_WEBSOCKET);
	ck_assert(!get()->paused);
	ck_assert_uint_eq(progress_fold_paused(p, true), PROGRESS_SAME);
}
END_TEST

static void add_events(Suite *s)
{
	TCase *t = progress_case(s, "events");

	tcase_add_test(t, test_new);
	tcase_add_test(t, test_names);
	tcase_add_test(t, test_run);
	tcase_add_test(t, test_nothing_after_the_end);
	tcase_add_test(t, test_irrelevant_events);
	tcase_add_test(t, test_old_server);
	tcase_add_test(t, test_start_beside_another);
	tcase_add_test(t, test_fraction_never_falls);
	tcase_add_test(t, test_parallel);
	tcase_add_test(t, test_answered_by_an_equal_node);
	tcase_add_test(t, test_executed_after_a_gap);
	tcase_add_test(t, test_reconnect);
	tcase_add_test(t, test_reconnect_names_the_right_one);
	tcase_add_test(t, test_queue);
	tcase_add_test(t, test_paused);
}

static void add_errors(Suite *s)
{
	TCase *t = progress_case(s, "errors");

	tcase_add_test(t, test_error);
	tcase_add_test(t, test_error_that_is_not_the_end);
	tcase_add_test(t, test_blocked_without_success);
	tcase_add_test(t, test_success_clears_any_exception);
	tcase_add_test(t, test_interrupted);
	tcase_add_test(t, test_error_without_details);
	tcase_add_test(t, test_fail);
	tcase_add_test(t, test_fail_overrides);
	tcase_add_test(t, test_error_bounds);
}

static Suite *progress_suite(void)
{
	Suite *s = suite_create("progress");

	add_events(s);
	add_errors(s);
	return s;
}

int main(void)
{
	return runner_run(progress_suite());
}
