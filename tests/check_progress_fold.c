/*
 * check_progress_fold.c - ExecutionProgress from what is not an event: history
 * entries and snapshots; and its bounds, each at its edge.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/progress_steps.h"

/* ---- history ---- */

#define STATUS(s, m)                                                           \
	"\"status\":{\"status_str\":\"" s "\",\"messages\":[" m "]}"

START_TEST(test_history_success)
{
	unsigned change;

	change = history(
		"{\"outputs\":{\"2\":{\"a\":[1]},\"3\":{\"b\":[NaN]}},"
		"\"meta\":{\"2\":{},\"3\":{}}," STATUS(
			"success", "[\"execution_start\",{}],"
				   "[\"execution_cached\",{\"nodes\":[\"1\","
				   "\"2\"]}],[\"execution_success\",{}]") "}");
	ck_assert_uint_eq(change,
	                  PROGRESS_END | PROGRESS_NODE | PROGRESS_OUTPUT);
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	ck_assert_int_eq(get()->method, CMX_POLLING);
	assert_completed("3");
	assert_nodes(&get()->cached_nodes, "1 2");
	assert_outputs("{\"2\":{\"a\":[1]},\"3\":{\"b\":[null]}}");
}
END_TEST

static const struct {
	const char *entry, *type, *message, *node;
} failures[] = {
	{"{" STATUS("error", "[\"execution_error\",{\"node_id\":\"3\","
                             "\"exception_type\":\"T\","
                             "\"exception_message\":\"m\\n\"}]") "}",
         "T", "m", "3"},
	/* success, but an error among the messages (19) */
	{"{" STATUS("success", "[\"execution_error\",{\"node_id\":\"3\","
                               "\"exception_type\":\"T\","
                               "\"exception_message\":\"m\"}]") "}",
         "T", "m", "3"},
	{"{" STATUS("error", "[\"execution_interrupted\",{\"node_id\":"
                             "\"3\"}]") "}",
         "interrupted", "Execution was interrupted", "3"},
	/* an interrupt outweighs an error, in either order */
	{"{" STATUS("error", "[\"execution_interrupted\",{\"node_id\":"
                             "\"3\"}],[\"execution_error\",{}]") "}",
         "interrupted", "Execution was interrupted", "3"},
	{"{" STATUS("error", "[\"execution_error\",{}],"
                             "[\"execution_interrupted\",null]") "}",
         "interrupted", "Execution was interrupted", NULL},
	{"{" STATUS("error", "") "}", "error",
         "ComfyUI reports an error without details", NULL},
	{"{\"status\":{}}", "error", "ComfyUI reports an error without details",
         NULL},
	{"{" STATUS("error", "7,[],[\"execution_error\"]") "}", "error",
         "ComfyUI reports an error without details", NULL},
	{"{" STATUS("error", "[\"execution_error\",{\"exception_type\":"
                             "\"ExecutionBlocked\"}]") "}",
         "ExecutionBlocked", "", NULL},
};

START_TEST(test_history_failure)
{
	(void)history(failures[_i].entry);
	ck_assert_int_eq(get()->status, CMX_FAILED);
	assert_error(failures[_i].type, failures[_i].message,
	             failures[_i].node);
}
END_TEST

START_TEST(test_history_wrong_shape)
{
	static const char *const entries[] = {
		"{}",
		"[]",
		"null",
		"{\"status\":\"success\"}",
		"{\"status\":[],\"outputs\":{}}",
		"{\"outputs\":[]}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
		ck_assert_uint_eq(history(entries[i]), PROGRESS_SAME);
	ck_assert_uint_eq(progress_fold_history(p, JSON_MISSING, CMX_POLLING),
	                  PROGRESS_SAME);
	ck_assert_int_eq(get()->status, CMX_QUEUED);
	/* Servers before 2024 keep no status. */
	ck_assert_uint_eq(history("{\"status\":null,\"outputs\":{\"1\":{}}}"),
	                  PROGRESS_END | PROGRESS_NODE | PROGRESS_OUTPUT);
	assert_completed("1");
}
END_TEST

START_TEST(test_history_completes_what_events_began)
{
	(void)start();
	(void)state("1:f1/1 2:r1/2");
	(void)history("{\"outputs\":{\"3\":{}}," STATUS("success", "") "}");
	/* 2 was running and the whole succeeded. */
	assert_completed("1 3 2");
	ck_assert_ptr_null(get()->current_node);
}
END_TEST

START_TEST(test_history_after_the_end)
{
	(void)start();
	(void)executing("1");
	(void)executed("1", "{\"a\":1}");
	(void)over();
	ck_assert_uint_eq(
		history("{\"outputs\":{\"1\":{\"a\":2},\"2\":{\"b\":3},"
	                "\"4\":7}," STATUS("error", "") "}"),
		PROGRESS_OUTPUT);
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	assert_outputs("{\"1\":{\"a\":1},\"2\":{\"b\":3}}");
	assert_completed("1");
}
END_TEST

START_TEST(test_history_corrects_cached)
{
	/* Heard in part, a cached node with output looked like one that ran. */
	(void)state("1:f1/1 2:r0/1");
	(void)state("1:f1/1 2:f1/1 5:f1/1");
	assert_completed("1 2 5");
	(void)history("{" STATUS("success", "[\"execution_cached\",{\"nodes\":"
	                                    "[\"1\",\"2\",7]}]") "}");
	assert_completed("2 5");
	assert_nodes(&get()->cached_nodes, "1");
	assert_json(PROGRESS_JSON_NO_OUTPUTS,
	            "{\"prompt_id\":\"p\",\"status\":\"completed\","
	            "\"queue_position\":0,\"completed_nodes\":[\"2\",\"5\"],"
	            "\"cached_nodes\":[\"1\"],\"method\":\"polling\"}");
}
END_TEST

START_TEST(test_history_clears_a_harmless_error)
{
	(void)executing("3");
	(void)fold("execution_error", BLOCKED);
	(void)history("{" STATUS("success", "") "}");
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	assert_error(NULL, NULL, NULL);
}
END_TEST

START_TEST(test_history_keeps_known_details)
{
	(void)executing("3");
	(void)fold("execution_error", RAISED);
	(void)history("{" STATUS("error", "") "}");
	assert_error("ValueError", "bad", "3");
	ck_assert_int_eq(get()->status, CMX_FAILED);
}
END_TEST

static unsigned snapshot(const char *text)
{
	unsigned change = progress_fold_snapshot(p, json(text));

	ck_assert_uint_eq(progress_fold_snapshot(p, json(text)), PROGRESS_SAME);
	return change;
}

/* ---- outputs and bounds ---- */

START_TEST(test_outputs_replaced)
{
	(void)start();
	(void)executed("1", "{\"a\":1}");
	(void)executed("2", "{\"b\":2}");
	(void)executed("3", "{\"c\":3}");
	ck_assert_uint_eq(executed("2", "{\"b\":[\"longer\"]}"),
	                  PROGRESS_OUTPUT);
	assert_outputs("{\"1\":{\"a\":1},\"2\":{\"b\":[\"longer\"]},"
	               "\"3\":{\"c\":3}}");
	(void)executed("1", "{}");
	(void)executed("3", "{\"c\":[]}");
	assert_outputs("{\"1\":{},\"2\":{\"b\":[\"longer\"]},"
	               "\"3\":{\"c\":[]}}");
	ck_assert_uint_eq(executed("3", "{ \"c\" : [ ] }"), PROGRESS_SAME);
	ck_assert_uint_eq(executed("3", "null"), PROGRESS_SAME);
}
END_TEST

static void assert_executed_json(const char *raw_id, const char *outputs)
{
	cleanup_buf struct buf out = BUF_INIT(4096);
	struct json j;

	ck_assert_int_eq(progress_to_json_executed(
				 p, span_make(raw_id, strlen(raw_id)), &out),
	                 0);
	ck_assert(json_parse(&j, out.data, out.len, 0, NULL) == JSON_OK);
	ck_assert_ptr_nonnull(json_get(j, "method").text.p);
	j = json_get(j, "outputs");
	if (!outputs) {
		ck_assert_int_eq(j.type, JSON_NONE);
		return;
	}
	ck_assert_uint_eq(j.text.n, strlen(outputs));
	ck_assert_mem_eq(j.text.p, outputs, j.text.n);
}

/* What goes along with an `executed`: that node's output and no other. */
START_TEST(test_output_of_one)
{
	/* In quotes, as raw ids always stand. */
	static const char quoted[] = "\"a\\u00e4\"";
	struct span raw = span_make(quoted + 1, sizeof(quoted) - 3);
	cleanup_buf struct buf out = BUF_INIT(4096);
	size_t nodes;

	(void)start();
	(void)executed("1", "{\"a\":1}");
	(void)executed("2", "{\"b\":2}");
	(void)executed("3", "null");
	assert_executed_json("1", "{\"1\":{\"a\":1}}");
	assert_executed_json("2", "{\"2\":{\"b\":2}}");
	(void)executed("1", "{\"a\":[\"longer\"]}");
	assert_executed_json("1", "{\"1\":{\"a\":[\"longer\"]}}");
	assert_executed_json("2", "{\"2\":{\"b\":2}}");
	assert_executed_json("3", NULL);
	/* One that is not known isn't made known by asking. */
	nodes = get()->completed_nodes.count;
	assert_executed_json("4", NULL);
	ck_assert_uint_eq(get()->completed_nodes.count, nodes);
	ck_assert_int_eq(progress_to_json_executed(p, SPAN_NULL, &out), 0);
	(void)executed("a\\u00e4", "{\"c\":3}");
	buf_reset(&out);
	ck_assert_int_eq(progress_to_json_executed(p, raw, &out), 0);
	ck_assert_ptr_nonnull(strstr(buf_cstr(&out),
	                             "\"outputs\":{\"a\xc3\xa4\":{\"c\":3}}"));
}
END_TEST

/* Events that each tell one output add up; a later one of the same node counts.
 * After the end only those that were missing are taken. */
START_TEST(test_outputs_by_snapshots)
{
	(void)start();
	(void)snapshot("{\"outputs\":{\"1\":{\"a\":1}}}");
	(void)snapshot("{\"outputs\":{\"2\":{\"b\":2}}}");
	(void)snapshot("{\"status\":\"executing\"}");
	assert_outputs("{\"1\":{\"a\":1},\"2\":{\"b\":2}}");
	ck_assert_uint_eq(snapshot("{\"outputs\":{\"1\":{\"a\":3}}}"),
	                  PROGRESS_OUTPUT);
	assert_outputs("{\"1\":{\"a\":3},\"2\":{\"b\":2}}");
	(void)over();
	ck_assert_uint_eq(snapshot("{\"outputs\":{\"1\":{\"a\":4},"
	                           "\"3\":{}}}"),
	                  PROGRESS_OUTPUT);
	assert_outputs("{\"1\":{\"a\":3},\"2\":{\"b\":2},\"3\":{}}");
}
END_TEST

static char *big_output(size_t len)
{
	char *s = malloc(len + 1);

	ck_assert_ptr_nonnull(s);
	memset(s, 'x', len);
	memcpy(s, "{\"\":\"", 5);
	memcpy(s + len - 2, "\"}", 3);
	return s;
}

START_TEST(test_outputs_max)
{
	/* {"1":...} */
	char *fits = big_output(PROGRESS_OUTPUTS_MAX - 6);
	char *over_by_one = big_output(PROGRESS_OUTPUTS_MAX - 5);

	(void)start();
	(void)executed("1", over_by_one);
	ck_assert(get()->outputs_truncated);
	assert_outputs("{}");
	teardown();
	setup();
	(void)start();
	(void)executed("1", fits);
	ck_assert(!get()->outputs_truncated);
	ck_assert_uint_eq(get()->outputs_len, PROGRESS_OUTPUTS_MAX);
	ck_assert_uint_eq(executed("2", "{}"), PROGRESS_SAME);
	ck_assert(get()->outputs_truncated);
	ck_assert_uint_eq(get()->outputs_len, PROGRESS_OUTPUTS_MAX);
	ck_assert_int_eq(get()->outputs[PROGRESS_OUTPUTS_MAX - 1], '}');
	/* One too long in place of one that fits is not taken. */
	ck_assert_uint_eq(executed("1", over_by_one), PROGRESS_SAME);
	ck_assert_uint_eq(get()->outputs_len, PROGRESS_OUTPUTS_MAX);
	/* Once there is room again, it is used. */
	(void)executed("1", "{}");
	ck_assert_uint_eq(executed("2", "{}"), PROGRESS_OUTPUT);
	assert_outputs("{\"1\":{},\"2\":{}}");
	free(fits);
	free(over_by_one);
}
END_TEST

START_TEST(test_nodes_max)
{
	struct buf b = BUF_INIT(16u << 20);

	ck_assert_int_eq(buf_puts(&b, "\"nodes\":["), 0);
	for (int i = 0; i < PROGRESS_NODES_MAX; i++)
		(void)buf_printf(&b, "%s\"%d\"", i > 0 ? "," : "", i);
	ck_assert_int_eq(buf_putc(&b, ']'), 0);
	(void)fold("execution_cached", buf_cstr(&b));
	ck_assert_uint_eq(get()->cached_nodes.count, PROGRESS_NODES_MAX);
	ck_assert(!get()->nodes_truncated);
	(void)executing("one more");
	ck_assert(get()->nodes_truncated);
	ck_assert_ptr_null(get()->current_node);
	(void)over();
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_node_ids)
{
	char id[PROGRESS_NODE_ID_MAX + 2], data[PROGRESS_NODE_ID_MAX + 64];

	memset(id, '1', sizeof(id));
	id[PROGRESS_NODE_ID_MAX] = '\0';
	(void)snprintf(data, sizeof(data), "\"node\":\"%s\"", id);
	(void)fold("executing", data);
	ck_assert_str_eq(get()->current_node, id);
	ck_assert(!get()->nodes_truncated);
	/* The same node, escaped and not. */
	(void)state("1:r0/1");
	(void)fold("executing", "\"node\":\"\\u0061\\n\"");
	ck_assert_str_eq(get()->current_node, "a\n");
	ck_assert_uint_eq(
		fold("progress", "\"node\":\"a\\u000a\",\"value\":1,\"max\":2"),
		PROGRESS_STEP);
	ck_assert(!get()->nodes_truncated);
	id[PROGRESS_NODE_ID_MAX] = '1';
	id[PROGRESS_NODE_ID_MAX + 1] = '\0';
	(void)snprintf(data, sizeof(data), "\"node\":\"%s\"", id);
	ck_assert_uint_eq(fold("executing", data), PROGRESS_SAME);
	ck_assert(get()->nodes_truncated);
	teardown();
	setup();
	(void)fold("executing", "\"node\":\"a\\u0000b\"");
	ck_assert(get()->nodes_truncated);
	ck_assert_ptr_null(get()->current_node);
}
END_TEST

static const struct {
	const char *value, *max, *want;
} fractions[] = {
	{"0", "1", "0"},
	{"1", "1", "1"},
	{"1", "2", "0.5"},
	{"1", "3", "0.333333"},
	{"2", "3", "0.666667"},
	{"1", "100000", "0.00001"},
	{"1", "1000000", "0.000001"},
	{"1", "10000000", "0"},
	{"9999999", "10000000", "1"},
};

START_TEST(test_fraction_text)
{
	char want[256];

	(void)executing("1");
	(void)step("1", fractions[_i].value, fractions[_i].max);
	(void)snprintf(want, sizeof(want),
	               "{\"prompt_id\":\"p\",\"status\":\"executing\","
	               "\"current_node\":\"1\",\"current_node_progress\":%s,"
	               "\"queue_position\":0,\"completed_nodes\":[],"
	               "\"cached_nodes\":[],\"method\":\"websocket\"}",
	               fractions[_i].want);
	assert_json(PROGRESS_JSON_NO_OUTPUTS, want);
}
END_TEST

START_TEST(test_to_json_no_room)
{
	struct buf b = BUF_INIT(1000), small;
	size_t len;

	(void)executing("1");
	ck_assert_int_eq(progress_to_json(p, 0, &b), 0);
	len = b.len;
	buf_init(&small, len);
	ck_assert_int_eq(progress_to_json(p, 0, &small), 0);
	buf_deinit(&small);
	buf_init(&small, len);
	ck_assert_int_eq(buf_putc(&small, ' '), 0);
	ck_assert_int_eq(progress_to_json(p, 0, &small), -EMSGSIZE);
	ck_assert_uint_eq(small.len, 1);
	buf_deinit(&small);
	buf_deinit(&b);
}
END_TEST

/* ---- snapshots ---- */

START_TEST(test_snapshot)
{
	static const char text[] =
		"{\"prompt_id\":\"p\",\"status\":\"executing\","
		"\"current_node\":\"3\",\"current_node_progress\":0.5,"
		"\"queue_position\":0,\"completed_nodes\":[\"2\",\"1\"],"
		"\"cached_nodes\":[\"9\"],\"outputs\":{\"2\":{\"a\":[]}},"
		"\"error\":{\"node_id\":\"2\",\"message\":\"m\","
		"\"type\":\"ExecutionBlocked\"},\"method\":\"polling\"}";

	ck_assert_uint_eq(snapshot(text),
	                  PROGRESS_STATUS | PROGRESS_QUEUE | PROGRESS_NODE |
	                          PROGRESS_STEP | PROGRESS_OUTPUT |
	                          PROGRESS_ERROR);
	assert_json(0, text);
	/* Older events around it change nothing. */
	ck_assert_uint_eq(executing("2"), PROGRESS_SAME);
	ck_assert_uint_eq(step("3", "1", "4"), PROGRESS_SAME);
	ck_assert_uint_eq(fold("execution_cached", "\"nodes\":[\"9\"]"),
	                  PROGRESS_SAME);
	ck_assert_uint_eq(step("3", "3", "4"), PROGRESS_STEP);
	/* Nor does the snapshot run backwards. */
	ck_assert_uint_eq(snapshot(text), PROGRESS_SAME);
	ck_assert_double_eq(get()->current_node_progress, 0.75);
	/* A node that ran beside the current one: its start was not heard. */
	(void)executed("7", "{}");
	assert_completed("2 1 7");
	(void)over();
	assert_completed("2 1 7 3");
}
END_TEST

START_TEST(test_snapshot_queued)
{
	ck_assert_uint_eq(snapshot("{\"status\":\"queued\","
	                           "\"queue_position\":4}"),
	                  PROGRESS_QUEUE);
	ck_assert_int_eq(get()->queue_position, 4);
	(void)start();
	ck_assert_uint_eq(snapshot("{\"status\":\"queued\","
	                           "\"queue_position\":4}"),
	                  PROGRESS_SAME);
	ck_assert_int_eq(get()->status, CMX_EXECUTING);
}
END_TEST

START_TEST(test_snapshot_ended)
{
	(void)executing("3");
	(void)fold("execution_error", RAISED);
	ck_assert_uint_ne(snapshot("{\"status\":\"completed\","
	                           "\"completed_nodes\":[\"3\"],"
	                           "\"progress_method\":\"polling\"}") &
	                          PROGRESS_END,
	                  0);
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
	ck_assert_int_eq(get()->method, CMX_POLLING);
	assert_error(NULL, NULL, NULL);
	ck_assert_uint_eq(snapshot("{\"status\":\"failed\",\"outputs\":"
	                           "{\"3\":{}}}"),
	                  PROGRESS_OUTPUT);
	ck_assert_int_eq(get()->status, CMX_COMPLETED);
}
END_TEST

START_TEST(test_snapshot_failed)
{
	(void)executing("3");
	(void)fold("execution_error", BLOCKED);
	(void)snapshot("{\"status\":\"failed\",\"error\":{\"type\":\"lost\","
	               "\"message\":\"gone\"}}");
	ck_assert_int_eq(get()->status, CMX_FAILED);
	assert_error("lost", "gone", NULL);
	teardown();
	setup();
	(void)snapshot("{\"status\":\"failed\"}");
	ck_assert_int_eq(get()->status, CMX_FAILED);
	assert_error("error", "failed for an unknown reason", NULL);
}
END_TEST

START_TEST(test_snapshot_wrong_shapes)
{
	static const char *const texts[] = {
		"[]",
		"{}",
		"7",
		"{\"status\":\"later\",\"current_node\":7,"
		"\"current_node_progress\":\"x\",\"queue_position\":1.5,"
		"\"completed_nodes\":{\"a\":1},\"cached_nodes\":[7,null],"
		"\"outputs\":[1],\"error\":\"x\",\"method\":7}",
		"{\"current_node\":\"3\",\"current_node_progress\":1}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		ck_assert_uint_eq(snapshot(texts[i]), PROGRESS_SAME);
	(void)snapshot("{\"status\":\"executing\",\"current_node\":\"3\","
	               "\"current_node_progress\":7}");
	ck_assert_double_eq(get()->current_node_progress, 1);
	(void)snapshot("{\"status\":\"executing\",\"current_node\":\"4\","
	               "\"current_node_progress\":-7}");
	ck_assert_double_eq(get()->current_node_progress, 0);
}
END_TEST

static void add_history(Suite *s)
{
	TCase *t = progress_case(s, "history");

	tcase_add_test(t, test_history_success);
	tcase_add_loop_test(t, test_history_failure, 0, ARRAY_SIZE(failures));
	tcase_add_test(t, test_history_wrong_shape);
	tcase_add_test(t, test_history_completes_what_events_began);
	tcase_add_test(t, test_history_after_the_end);
	tcase_add_test(t, test_history_corrects_cached);
	tcase_add_test(t, test_history_clears_a_harmless_error);
	tcase_add_test(t, test_history_keeps_known_details);
}

static Suite *progress_fold_suite(void)
{
	Suite *s = suite_create("progress_fold");
	TCase *t;

	add_history(s);
	t = progress_case(s, "bounds");
	tcase_add_test(t, test_outputs_replaced);
	tcase_add_test(t, test_output_of_one);
	tcase_add_test(t, test_outputs_by_snapshots);
	tcase_add_test(t, test_outputs_max);
	tcase_add_test(t, test_nodes_max);
	tcase_add_test(t, test_node_ids);
	tcase_add_loop_test(t, test_fraction_text, 0, ARRAY_SIZE(fractions));
	tcase_add_test(t, test_to_json_no_room);
	t = progress_case(s, "snapshot");
	tcase_add_test(t, test_snapshot);
	tcase_add_test(t, test_snapshot_queued);
	tcase_add_test(t, test_snapshot_ended);
	tcase_add_test(t, test_snapshot_failed);
	tcase_add_test(t, test_snapshot_wrong_shapes);
	return s;
}

int main(void)
{
	return runner_run(progress_fold_suite());
}
