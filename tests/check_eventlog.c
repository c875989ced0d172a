/*
 * check_eventlog.c - what is told of an event, on recorded events; and frames
 * that come early.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "supervisor/early.h"
#include "supervisor/eventlog.h"
#include "tests/runner.h"

static struct eventlog l;
static struct buf out;

static void setup(void)
{
	eventlog_init(&l);
	buf_init(&out, 16u << 20);
}

static void teardown(void)
{
	eventlog_deinit(&l);
	eventlog_deinit(&l);
	buf_deinit(&out);
}

/* The data of a frame; "SAME" when there is nothing to tell. */
static const char *told(const char *frame)
{
	struct comfy_event ev;
	int r;

	ck_assert_int_eq(comfy_event_parse_text(&ev, frame, strlen(frame)),
	                 COMFY_EVENT_OK);
	buf_reset(&out);
	r = eventlog_data(&l, &ev, &out);
	if (r == EVENTLOG_E_SAME)
		return "SAME";
	ck_assert_int_eq(r, EVENTLOG_OK);
	return buf_cstr(&out);
}

START_TEST(test_events)
{
	static const struct {
		enum comfy_event_type type;
		enum event event;
	} rows[] = {
		{COMFY_EV_EXECUTION_START, EVENT_EXECUTION_START},
		{COMFY_EV_EXECUTION_CACHED, EVENT_EXECUTION_CACHED},
		{COMFY_EV_PROGRESS_STATE, EVENT_PROGRESS_STATE},
		{COMFY_EV_EXECUTING, EVENT_EXECUTING},
		{COMFY_EV_PROGRESS, EVENT_PROGRESS},
		{COMFY_EV_EXECUTED, EVENT_EXECUTED},
		{COMFY_EV_EXECUTION_SUCCESS, EVENT_EXECUTION_SUCCESS},
		{COMFY_EV_EXECUTION_ERROR, EVENT_EXECUTION_ERROR},
		{COMFY_EV_EXECUTION_INTERRUPTED, EVENT_EXECUTION_INTERRUPTED},
		{COMFY_EV_STATUS, EVENT_COUNT},
		{COMFY_EV_UNKNOWN, EVENT_COUNT},
		{COMFY_EV_FEATURE_FLAGS, EVENT_COUNT},
		{COMFY_EV_PREVIEW, EVENT_COUNT},
		{COMFY_EV_TEXT, EVENT_COUNT},
		{COMFY_EV_PREVIEW_META, EVENT_COUNT},
	};

	ck_assert_uint_eq(ARRAY_SIZE(rows), COMFY_EV_TYPE_COUNT);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ck_assert_int_eq(eventlog_event(rows[i].type), rows[i].event);
		/* Same names on both sides. */
		if (rows[i].event != EVENT_COUNT)
			ck_assert_str_eq(event_table[rows[i].event].name,
			                 comfy_event_type_name(rows[i].type));
	}
}
END_TEST

START_TEST(test_as_sent_but_compact)
{
	ck_assert_str_eq(told("{\"type\": \"progress\", \"data\": {\"value\": "
	                      "3, \"max\" : 20, \"prompt_id\": \"p\", \"node\":"
	                      " \"1\", \"new\": NaN}}"),
	                 "{\"value\":3,\"max\":20,\"prompt_id\":\"p\","
	                 "\"node\":\"1\",\"new\":null}");
	ck_assert_str_eq(told("{\"type\":\"executing\",\"data\":{\"node\":null,"
	                      "\"prompt_id\":\"p\"}}"),
	                 "{\"node\":null,\"prompt_id\":\"p\"}");
}
END_TEST

#define STATE(nodes)                                                           \
	"{\"type\":\"progress_state\",\"data\":{\"prompt_id\":\"p\","          \
	"\"nodes\":{" nodes "}}}"
#define NODE(id, value) "\"" id "\":{\"value\":" value ",\"max\":2}"
#define TOLD(nodes)     "{\"prompt_id\":\"p\",\"nodes\":{" nodes "}}"

START_TEST(test_progress_state_goes_on_as_changes)
{
	ck_assert_str_eq(told(STATE(NODE("1", "0"))), TOLD(NODE("1", "0")));
	ck_assert_str_eq(told(STATE(NODE("1", "0"))), "SAME");
	ck_assert_str_eq(told(STATE(NODE("1", "2") "," NODE("2", "0"))),
	                 TOLD(NODE("1", "2") "," NODE("2", "0")));
	ck_assert_str_eq(told(STATE(NODE("1", "2") "," NODE("2", "1"))),
	                 TOLD(NODE("2", "1")));
	/* Back to what it was before last is a change too. */
	ck_assert_str_eq(told(STATE(NODE("1", "0") "," NODE("2", "1"))),
	                 TOLD(NODE("1", "0")));
	ck_assert_str_eq(told(STATE("")), "SAME");
}
END_TEST

START_TEST(test_nodes_beyond_the_bound_are_always_told)
{
	struct buf frame = BUF_INIT(64u << 20);
	struct comfy_event ev;
	unsigned n = EVENTLOG_NODES_MAX + 1;

	(void)buf_puts(&frame, "{\"type\":\"progress_state\",\"data\":{"
	                       "\"prompt_id\":\"p\",\"nodes\":{");
	for (unsigned i = 0; i < n; i++)
		(void)buf_printf(&frame, "%s\"%u\":{\"value\":0}",
		                 i > 0 ? "," : "", i);
	(void)buf_puts(&frame, "}}}");
	ck_assert_int_eq(comfy_event_parse_text(&ev, frame.data, frame.len),
	                 COMFY_EVENT_OK);
	ck_assert_int_eq(eventlog_data(&l, &ev, &out), EVENTLOG_OK);
	ck_assert_uint_eq(l.nodes.count, EVENTLOG_NODES_MAX);
	buf_reset(&out);
	ck_assert_int_eq(eventlog_data(&l, &ev, &out), EVENTLOG_OK);
	ck_assert_str_eq(buf_cstr(&out), TOLD("\"20000\":{\"value\":0}"));
	buf_deinit(&frame);
}
END_TEST

/* The recording with 340 nodes: what was 22 MB of progress_state becomes
 * little, and adding up the changes gives the last frame's state. */
START_TEST(test_recorded_large_run)
{
	size_t len, in = 0, tell = 0, nodes = 0, frames = 0;
	char *text = runner_read_data("comfyui/13-multi-output-and-expansion/"
	                              "ws.jsonl",
	                              &len);
	struct json_iter it;
	struct json value;
	char *line, *save = NULL;

	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct json record, frame;
		struct comfy_event ev;
		char *raw;
		int r;

		ck_assert_int_eq(
			json_parse(&record, line, strlen(line), 0, NULL),
			JSON_OK);
		frame = json_get(record, "text");
		if (!json_string_eq(json_get(record, "dir"), "in") ||
		    !json_is(frame, JSON_STRING))
			continue;
		raw = json_string_dup(frame, 1u << 20);
		ck_assert_ptr_nonnull(raw);
		ck_assert_int_eq(comfy_event_parse_text(&ev, raw, strlen(raw)),
		                 COMFY_EVENT_OK);
		if (ev.type == COMFY_EV_EXECUTION_START) {
			eventlog_deinit(&l);
			eventlog_init(&l);
		}
		if (ev.type == COMFY_EV_PROGRESS_STATE) {
			buf_reset(&out);
			r = eventlog_data(&l, &ev, &out);
			ck_assert_int_ge(r, 0);
			in += ev.data.text.n;
			tell += r == EVENTLOG_OK ? out.len : 0;
			frames++;
			nodes = 0;
			json_iter_init(&it, ev.u.state.nodes);
			while (json_iter_next(&it, NULL, &value))
				nodes++;
			/* Every node of the frame is known by now. */
			ck_assert_uint_eq(l.nodes.count, nodes);
		}
		free(raw);
	}
	ck_assert_uint_gt(frames, 50);
	ck_assert_uint_lt(tell * 2, in);
	free(text);
}
END_TEST

START_TEST(test_recorded_error_is_cut)
{
	size_t len;
	char *text =
		runner_read_data("comfyui/05-execution-error/ws.jsonl", &len);
	char *line, *save = NULL;
	unsigned errors = 0;

	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct json record, data;
		char *raw;

		if (!strstr(line, "execution_error"))
			continue;
		ck_assert_int_eq(
			json_parse(&record, line, strlen(line), 0, NULL),
			JSON_OK);
		raw = json_string_dup(json_get(record, "text"), 1u << 20);
		ck_assert_ptr_nonnull(raw);
		(void)told(raw);
		ck_assert_int_eq(json_parse(&data, out.data, out.len, 0, NULL),
		                 JSON_OK);
		ck_assert(json_is(json_get(data, "current_inputs"), JSON_NONE));
		ck_assert(
			json_is(json_get(data, "current_outputs"), JSON_NONE));
		ck_assert(json_is(json_get(data, "node_id"), JSON_STRING));
		ck_assert(json_is(json_get(data, "exception_message"),
		                  JSON_STRING));
		ck_assert_uint_gt(json_count(json_get(data, "traceback")), 0);
		errors++;
		free(raw);
	}
	ck_assert_uint_ge(errors, 2);
	free(text);
}
END_TEST

static struct json tell_error(struct buf *frame)
{
	struct comfy_event ev;
	struct json data;

	ck_assert_int_eq(comfy_event_parse_text(&ev, frame->data, frame->len),
	                 COMFY_EVENT_OK);
	buf_reset(&out);
	ck_assert_int_eq(eventlog_data(&l, &ev, &out), EVENTLOG_OK);
	ck_assert_int_eq(json_parse(&data, out.data, out.len, 0, NULL),
	                 JSON_OK);
	return data;
}

START_TEST(test_long_traceback_keeps_its_end)
{
	struct buf frame = BUF_INIT(4u << 20);
	struct json lines;
	size_t n;

	(void)buf_puts(&frame, "{\"type\":\"execution_error\",\"data\":{"
	                       "\"prompt_id\":\"p\",\"traceback\":[");
	for (int i = 0; i < 1000; i++)
		(void)buf_printf(&frame, "%s\"line %03d %0*d\"",
		                 i > 0 ? "," : "", i, 100, 0);
	(void)buf_puts(&frame, "]}}");
	lines = json_get(tell_error(&frame), "traceback");
	ck_assert_uint_le(lines.text.n, EVENTLOG_TRACEBACK_MAX + 1000);
	n = json_count(lines);
	ck_assert_uint_ge(n, EVENTLOG_TRACEBACK_MAX / 120);
	ck_assert_int_eq(strncmp(json_at(lines, n - 1).text.p, "\"line 999", 9),
	                 0);
	buf_deinit(&frame);
}
END_TEST

START_TEST(test_long_message_is_cut_at_a_character)
{
	struct buf frame = BUF_INIT(4u << 20);
	struct json data;
	char *message;

	(void)buf_puts(&frame, "{\"type\":\"execution_error\",\"data\":{"
	                       "\"prompt_id\":\"p\",\"exception_message\":\"x");
	for (unsigned i = 0; i < EVENTLOG_MESSAGE_MAX; i++)
		(void)buf_puts(&frame, "\\u20ac");
	(void)buf_puts(&frame, "\"}}");
	data = tell_error(&frame);
	message = json_string_dup(json_get(data, "exception_message"),
	                          EVENTLOG_MESSAGE_MAX);
	ck_assert_ptr_nonnull(message);
	/* x, then as many of three bytes each as fit. */
	ck_assert_uint_eq(strlen(message),
	                  1 + (EVENTLOG_MESSAGE_MAX - 1) / 3 * 3);
	free(message);
	buf_deinit(&frame);
}
END_TEST

START_TEST(test_data_has_a_bound)
{
	struct buf frame = BUF_INIT(4u << 20);
	struct comfy_event ev;
	size_t fixed;

	for (int more = 0; more <= 1; more++) {
		buf_reset(&frame);
		buf_reset(&out);
		(void)buf_puts(&frame,
		               "{\"type\":\"executed\",\"data\":{\"prompt_id\":"
		               "\"p\",\"node\":\"1\",\"output\":{\"text\":[\"");
		fixed = strlen("{\"prompt_id\":\"p\",\"node\":\"1\","
		               "\"output\":{\"text\":[\"\"]}}");
		for (size_t i = fixed; i < EVENTLOG_DATA_MAX + (size_t)more;
		     i++)
			(void)buf_putc(&frame, 'x');
		(void)buf_puts(&frame, "\"]}}}");
		ck_assert_int_eq(
			comfy_event_parse_text(&ev, frame.data, frame.len),
			COMFY_EVENT_OK);
		ck_assert_int_eq(eventlog_data(&l, &ev, &out), EVENTLOG_OK);
		if (more)
			ck_assert_str_eq(buf_cstr(&out),
			                 "{\"truncated\":true}");
		else
			ck_assert_uint_eq(out.len, EVENTLOG_DATA_MAX);
	}
	buf_deinit(&frame);
}
END_TEST

/* --- early frames --------------------------------------------------------- */

static char replayed[256];

static void on_early(void *user, const char *frame, size_t len)
{
	strncat(replayed, frame, len);
}

START_TEST(test_early)
{
	struct early e = {0};

	replayed[0] = '\0';
	early_keep(&e, SPAN("a"), "1", 1);
	early_keep(&e, SPAN("b"), "2", 1);
	early_keep(&e, SPAN("a"), "3", 1);
	early_replay(&e, SPAN("a"), on_early, NULL);
	ck_assert_str_eq(replayed, "13");
	/* And all is forgotten. */
	early_replay(&e, SPAN("b"), on_early, NULL);
	ck_assert_str_eq(replayed, "13");
	ck_assert_uint_eq(e.count, 0);
	ck_assert_uint_eq(e.bytes, 0);
	early_clear(&e);
}
END_TEST

START_TEST(test_early_is_bounded)
{
	static char big[EARLY_BYTES_MAX + 1];
	struct early e = {0};
	char text[16];

	replayed[0] = '\0';
	for (int i = 0; i < EARLY_FRAMES_MAX + 3; i++) {
		(void)snprintf(text, sizeof(text), "%d,", i);
		early_keep(&e, SPAN(i < 5 || i > EARLY_FRAMES_MAX ? "a" : "b"),
		           text, strlen(text));
		ck_assert_uint_le(e.count, EARLY_FRAMES_MAX);
	}
	early_replay(&e, SPAN("a"), on_early, NULL);
	ck_assert_str_eq(replayed, "3,4,65,66,");
	/* One byte more than fits is left out, at the bound all else gives
	 * way. */
	early_keep(&e, SPAN("a"), "x", 1);
	early_keep(&e, SPAN("a"), big, sizeof(big) - 1);
	ck_assert_uint_eq(e.count, 1);
	early_keep(&e, SPAN("a"), big, sizeof(big) - 2);
	ck_assert_uint_eq(e.count, 1);
	ck_assert_uint_eq(e.bytes, EARLY_BYTES_MAX);
	early_clear(&e);
	early_clear(&e);
}
END_TEST

static Suite *eventlog_suite(void)
{
	Suite *s = suite_create("eventlog");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_events);
	tcase_add_test(t, test_as_sent_but_compact);
	tcase_add_test(t, test_progress_state_goes_on_as_changes);
	tcase_add_test(t, test_nodes_beyond_the_bound_are_always_told);
	tcase_add_test(t, test_recorded_large_run);
	tcase_add_test(t, test_recorded_error_is_cut);
	tcase_add_test(t, test_long_traceback_keeps_its_end);
	tcase_add_test(t, test_long_message_is_cut_at_a_character);
	tcase_add_test(t, test_data_has_a_bound);
	tcase_add_test(t, test_early);
	tcase_add_test(t, test_early_is_bounded);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(eventlog_suite());
}
