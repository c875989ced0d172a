/*
 * check_comfy_event.c - every frame that was recorded parses, and each type
 * gives the fields that its frame holds.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/comfy_event.h"
#include "tests/runner.h"

#define RECORDINGS 31

static struct comfy_event parse(const char *text)
{
	struct comfy_event ev;

	ck_assert_int_eq(comfy_event_parse_text(&ev, text, strlen(text)),
	                 COMFY_EVENT_OK);
	return ev;
}

static void assert_span(struct span s, const char *want)
{
	if (!want) {
		ck_assert_ptr_null(s.p);
		return;
	}
	ck_assert_msg(span_eq_str(s, want), "\"%.*s\" is not \"%s\"", (int)s.n,
	              s.p, want);
}

/* ---- text frames ---- */

static const struct {
	enum comfy_event_type type;
	const char *text, *prompt_id, *node, *display;
} frames[] = {
	{COMFY_EV_EXECUTION_START,
         "{\"type\": \"execution_start\", \"data\": {\"prompt_id\": \"p\", "
         "\"timestamp\": 1}}",
         "p", NULL, NULL},
	{COMFY_EV_EXECUTION_CACHED,
         "{\"type\":\"execution_cached\",\"data\":{\"nodes\":[],"
         "\"prompt_id\":\"p\"}}",
         "p", NULL, NULL},
	{COMFY_EV_EXECUTING,
         "{\"data\":{\"node\":\"4.0.0.1\",\"display_node\":\"4\","
         "\"prompt_id\":\"p\"},\"type\":\"executing\"}",
         "p", "4.0.0.1", "4"},
	{COMFY_EV_EXECUTING,
         "{\"type\":\"executing\",\"data\":{\"node\":\"4\"}}", NULL, "4", NULL},
	{COMFY_EV_PROGRESS,
         "{\"type\":\"progress\",\"data\":{\"value\":1,\"max\":2}}", NULL, NULL,
         NULL},
	{COMFY_EV_EXECUTION_SUCCESS,
         "{\"type\":\"execution_success\",\"data\":{\"prompt_id\":null}}", NULL,
         NULL, NULL},
	{COMFY_EV_EXECUTION_ERROR,
         "{\"type\":\"execution_error\",\"data\":{\"node\":\"no\","
         "\"node_id\":\"7\",\"prompt_id\":\"p\\u0041\"}}",
         "p\\u0041", "7", NULL},
	{COMFY_EV_EXECUTION_INTERRUPTED,
         "{\"type\":\"execution_interrupted\",\"data\":{\"node_id\":\"7\"}}",
         NULL, "7", NULL},
	{COMFY_EV_FEATURE_FLAGS, "{\"type\":\"feature_flags\",\"data\":{}}",
         NULL, NULL, NULL},
	{COMFY_EV_UNKNOWN, "{\"type\":\"crystools.monitor\",\"data\":[1]}",
         NULL, NULL, NULL},
	{COMFY_EV_UNKNOWN, "{\"type\":\"logs\"}", NULL, NULL, NULL},
	{COMFY_EV_UNKNOWN, "{\"type\":\"preview\",\"data\":{}}", NULL, NULL,
         NULL},
	{COMFY_EV_UNKNOWN,
         "{\"type\":\"executin\\u0067\",\"data\":{\"prompt_id\":\"p\"}}", "p",
         NULL, NULL},
};

START_TEST(test_types)
{
	struct comfy_event ev = parse(frames[_i].text);

	ck_assert_int_eq(ev.type, frames[_i].type);
	assert_span(ev.prompt_id, frames[_i].prompt_id);
	assert_span(ev.node, frames[_i].node);
	assert_span(ev.display_node, frames[_i].display);
	ck_assert(!ev.node_is_null);
	if (ev.type != COMFY_EV_UNKNOWN)
		assert_span(ev.type_name, comfy_event_type_name(ev.type));
}
END_TEST

static const struct {
	enum comfy_event_outcome r;
	const char *text;
} refused[] = {
	{COMFY_EVENT_E_JSON, ""},
	{COMFY_EVENT_E_JSON, "{\"type\":\"status\",\"data\":{}"},
	{COMFY_EVENT_E_JSON, "{\"type\":\"st\xff\",\"data\":{}}"},
	{COMFY_EVENT_E_JSON, "{\"type\":\"status\",\"data\":{}} x"},
	{COMFY_EVENT_E_SHAPE, "[]"},
	{COMFY_EVENT_E_SHAPE, "null"},
	{COMFY_EVENT_E_SHAPE, "{}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":1,\"data\":{}}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"status\"}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"status\",\"data\":[]}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"executing\",\"data\":{}}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"executing\",\"data\":{\"node\":4}}"},
	{COMFY_EVENT_E_SHAPE,
         "{\"type\":\"executing\",\"data\":{\"node\":\"4\","
         "\"prompt_id\":4}}"},
	{COMFY_EVENT_E_SHAPE,
         "{\"type\":\"execution_cached\",\"data\":{\"nodes\":{}}}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"progress_state\",\"data\":{}}"},
	{COMFY_EVENT_E_SHAPE,
         "{\"type\":\"progress_state\",\"data\":{\"nodes\":[]}}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"progress\",\"data\":{\"node\":[]}}"},
	{COMFY_EVENT_E_SHAPE,
         "{\"type\":\"executed\",\"data\":{\"node\":null}}"},
	{COMFY_EVENT_E_SHAPE, "{\"type\":\"executed\",\"data\":{\"node\":\"1\","
                              "\"output\":[]}}"},
	{COMFY_EVENT_E_SHAPE,
         "{\"type\":\"execution_error\",\"data\":{\"node_id\":3}}"},
};

START_TEST(test_refused)
{
	struct comfy_event ev;

	ck_assert_int_eq(comfy_event_parse_text(&ev, refused[_i].text,
	                                        strlen(refused[_i].text)),
	                 refused[_i].r);
}
END_TEST

START_TEST(test_status)
{
	struct comfy_event ev = parse(
		"{\"type\":\"status\",\"data\":{\"status\":{\"exec_info\":{"
		"\"queue_remaining\":3}},\"sid\":\"abc\"}}");

	ck_assert_int_eq(ev.u.status.queue_remaining, 3);
	assert_span(ev.u.status.sid, "abc");
	ev = parse("{\"type\":\"status\",\"data\":{\"status\":null}}");
	ck_assert_int_eq(ev.u.status.queue_remaining, -1);
	assert_span(ev.u.status.sid, NULL);
}
END_TEST

START_TEST(test_executing_null)
{
	struct comfy_event ev = parse("{\"type\":\"executing\",\"data\":{"
	                              "\"node\":null,\"prompt_id\":\"p\"}}");

	ck_assert(ev.node_is_null);
	ck_assert_ptr_null(ev.node.p);
	assert_span(ev.prompt_id, "p");
}
END_TEST

START_TEST(test_progress)
{
	struct comfy_event ev = parse("{\"type\":\"progress\",\"data\":{"
	                              "\"value\":0.7853,\"max\":2.0,"
	                              "\"prompt_id\":\"p\",\"node\":\"2\"}}");

	ck_assert_double_eq(ev.u.progress.value, 0.7853);
	ck_assert_double_eq(ev.u.progress.max, 2);
	ev = parse(
		"{\"type\":\"progress\",\"data\":{\"value\":NaN,\"max\":2}}");
	ck_assert_double_eq(ev.u.progress.value, 0);
	ck_assert_double_eq(ev.u.progress.max, 0);
	ev = parse("{\"type\":\"progress\",\"data\":{\"value\":3,"
	           "\"max\":\"x\"}}");
	ck_assert_double_eq(ev.u.progress.max, 0);
}
END_TEST

START_TEST(test_executed)
{
	struct comfy_event ev = parse("{\"type\":\"executed\",\"data\":{"
	                              "\"node\":\"9\",\"output\":{\"a\":[]}}}");

	ck_assert_int_eq(ev.u.executed.output.type, JSON_OBJECT);
	ev = parse("{\"type\":\"executed\",\"data\":{\"node\":\"9\","
	           "\"output\":null}}");
	ck_assert_int_eq(ev.u.executed.output.type, JSON_NULL);
}
END_TEST

START_TEST(test_error)
{
	struct comfy_event ev = parse(
		"{\"type\":\"execution_error\",\"data\":{\"node_id\":\"2\","
		"\"exception_message\":\"m\\n\",\"exception_type\":\"T\","
		"\"node_type\":\"C\",\"traceback\":[\"a\"],"
		"\"executed\":[\"1\"],\"current_inputs\":{\"x\":[NaN]}}}");

	assert_span(ev.u.error.message.text, "\"m\\n\"");
	assert_span(ev.u.error.type.text, "\"T\"");
	assert_span(ev.u.error.node_type.text, "\"C\"");
	ck_assert_int_eq(ev.u.error.traceback.type, JSON_ARRAY);
	ck_assert_uint_eq(json_count(ev.u.error.executed), 1);
}
END_TEST

START_TEST(test_progress_state)
{
	struct comfy_event ev = parse(
		"{\"type\":\"progress_state\",\"data\":{\"prompt_id\":\"p\","
		"\"nodes\":{\"1\":{\"value\":1,\"max\":4.0,"
		"\"state\":\"running\",\"node_id\":\"1\","
		"\"display_node_id\":\"D\",\"real_node_id\":\"R\"},"
		"\"x\":7,\"2\":{\"value\":Infinity,\"max\":1,"
		"\"state\":\"finished\"},\"3\":{\"state\":\"error\"},"
		"\"4\":{\"state\":\"pending\"}}}}");
	struct comfy_node_state s;
	struct json_iter it;

	json_iter_init(&it, ev.u.state.nodes);
	ck_assert(comfy_node_state_next(&it, &s));
	assert_span(s.id, "1");
	assert_span(s.display_id, "D");
	assert_span(s.real_id, "R");
	ck_assert(s.running && !s.finished && !s.error);
	ck_assert_double_eq(s.value, 1);
	ck_assert_double_eq(s.max, 4);
	ck_assert(comfy_node_state_next(&it, &s));
	assert_span(s.id, "2");
	ck_assert(!s.running && s.finished && !s.error);
	ck_assert_double_eq(s.max, 0);
	assert_span(s.display_id, NULL);
	ck_assert(comfy_node_state_next(&it, &s));
	ck_assert(!s.running && !s.finished && s.error);
	ck_assert(comfy_node_state_next(&it, &s));
	ck_assert(!s.running && !s.finished && !s.error);
	ck_assert(!comfy_node_state_next(&it, &s));
	json_iter_init(&it, JSON_MISSING);
	ck_assert(!comfy_node_state_next(&it, &s));
}
END_TEST

/* ---- binary frames ---- */

#define BE32(n) "\0\0\0" n
#define META                                                                   \
	"{\"prompt_id\":\"p\",\"node_id\":\"2\",\"display_node_id\":"          \
	"\"2\",\"image_type\":\"image/png\"}"

static enum comfy_event_outcome parse_binary(struct comfy_event *ev,
                                             const char *frame, size_t len)
{
	/* A copy of exactly that size, so that reading past it is noticed. */
	static char *copy;
	enum comfy_event_outcome r;

	free(copy);
	copy = malloc(len > 0 ? len : 1);
	ck_assert_ptr_nonnull(copy);
	memcpy(copy, frame, len);
	r = comfy_event_parse_binary(ev, copy, len);
	if (r == COMFY_EVENT_OK)
		ck_assert_int_eq(comfy_event_binary_type(copy, len), ev->type);
	if (r == COMFY_EVENT_E_SHORT && len < 8)
		ck_assert_int_eq(comfy_event_binary_type(copy, len),
		                 COMFY_EV_UNKNOWN);
	return r;
}

START_TEST(test_preview)
{
	static const char frame[] = BE32("\1") BE32("\1") "JPEG";
	static const char png[] = BE32("\1") BE32("\2");
	static const char other[] = BE32("\1") BE32("\3") "x";
	struct comfy_event ev;

	ck_assert_int_eq(parse_binary(&ev, frame, sizeof(frame) - 1),
	                 COMFY_EVENT_OK);
	ck_assert_int_eq(ev.type, COMFY_EV_PREVIEW);
	assert_span(ev.type_name, "preview");
	ck_assert_str_eq(ev.u.preview.mime, "image/jpeg");
	assert_span(ev.u.preview.image, "JPEG");
	ck_assert_ptr_null(ev.prompt_id.p);
	ck_assert_int_eq(parse_binary(&ev, png, sizeof(png) - 1),
	                 COMFY_EVENT_OK);
	ck_assert_str_eq(ev.u.preview.mime, "image/png");
	ck_assert_uint_eq(ev.u.preview.image.n, 0);
	ck_assert_int_eq(parse_binary(&ev, other, sizeof(other) - 1),
	                 COMFY_EVENT_OK);
	ck_assert_ptr_null(ev.u.preview.mime);
	for (size_t n = 0; n < 8; n++)
		ck_assert_int_eq(parse_binary(&ev, frame, n),
		                 COMFY_EVENT_E_SHORT);
}
END_TEST

START_TEST(test_node_text)
{
	static const char frame[] = BE32("\3") BE32("\2") "12hello";
	static const char all[] = BE32("\3") BE32("\2") "12";
	static const char cut[] = BE32("\3") BE32("\3") "12";
	static const char huge[] = BE32("\3") "\xff\xff\xff\xff"
					      "12";
	struct comfy_event ev;

	ck_assert_int_eq(parse_binary(&ev, frame, sizeof(frame) - 1),
	                 COMFY_EVENT_OK);
	ck_assert_int_eq(ev.type, COMFY_EV_TEXT);
	assert_span(ev.node, "12");
	assert_span(ev.u.text.text, "hello");
	ck_assert_int_eq(parse_binary(&ev, all, sizeof(all) - 1),
	                 COMFY_EVENT_OK);
	ck_assert_uint_eq(ev.u.text.text.n, 0);
	ck_assert_int_eq(parse_binary(&ev, cut, sizeof(cut) - 1),
	                 COMFY_EVENT_E_SHORT);
	ck_assert_int_eq(parse_binary(&ev, huge, sizeof(huge) - 1),
	                 COMFY_EVENT_E_SHORT);
}
END_TEST

START_TEST(test_preview_meta)
{
	char frame[256] = "\0\0\0\4\0\0\0";
	size_t len = 8 + strlen(META);
	struct comfy_event ev;

	frame[7] = (char)strlen(META);
	memcpy(frame + 8, META, strlen(META));
	memcpy(frame + len, "PNG", 3);
	ck_assert_int_eq(parse_binary(&ev, frame, len + 3), COMFY_EVENT_OK);
	ck_assert_int_eq(ev.type, COMFY_EV_PREVIEW_META);
	assert_span(ev.prompt_id, "p");
	assert_span(ev.node, "2");
	assert_span(ev.display_node, "2");
	ck_assert_str_eq(ev.u.preview.mime, "image/png");
	assert_span(ev.u.preview.image, "PNG");
	ck_assert_int_eq(parse_binary(&ev, frame, len), COMFY_EVENT_OK);
	ck_assert_int_eq(parse_binary(&ev, frame, len - 1),
	                 COMFY_EVENT_E_SHORT);
	frame[7]--;
	ck_assert_int_eq(parse_binary(&ev, frame, len), COMFY_EVENT_E_JSON);
	frame[7] = 2;
	memcpy(frame + 8, "[]", 2);
	ck_assert_int_eq(parse_binary(&ev, frame, len), COMFY_EVENT_E_SHAPE);
}
END_TEST

START_TEST(test_binary_types)
{
	static const char two[] = BE32("\2") BE32("\1") "x";
	static const char far[] = "\1\0\0\1" BE32("\1") "x";
	struct comfy_event ev;

	ck_assert_int_eq(parse_binary(&ev, two, sizeof(two) - 1),
	                 COMFY_EVENT_E_TYPE);
	ck_assert_int_eq(parse_binary(&ev, far, sizeof(far) - 1),
	                 COMFY_EVENT_E_TYPE);
}
END_TEST

START_TEST(test_names)
{
	for (int i = 0; i < COMFY_EV_TYPE_COUNT; i++)
		ck_assert_ptr_nonnull(
			comfy_event_type_name((enum comfy_event_type)i));
	ck_assert_str_eq(comfy_event_type_name(COMFY_EV_TYPE_COUNT), "unknown");
	for (int i = COMFY_EVENT_OK; i <= COMFY_EVENT_E_TYPE; i++)
		ck_assert_str_ne(
			comfy_event_outcome_text((enum comfy_event_outcome)i),
			"unknown error");
	ck_assert_str_eq(comfy_event_outcome_text((enum comfy_event_outcome)99),
	                 "unknown error");
}
END_TEST

/* ---- recordings ---- */

static unsigned base64_digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	ck_assert_msg(at != NULL, "not base64: %c", c);
	return (unsigned)(at - digits);
}

static void decode_base64(struct span in, struct buf *out)
{
	unsigned v = 0, bits = 0;

	for (size_t i = 0; i < in.n && in.p[i] != '='; i++) {
		v = v << 6 | base64_digit(in.p[i]);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			ck_assert_int_eq(buf_putc(out, (char)(v >> bits)), 0);
			v &= (1u << bits) - 1;
		}
	}
}

static void check_binary(struct span base64, size_t *seen)
{
	struct buf frame = BUF_INIT(1u << 20);
	struct comfy_event ev;

	decode_base64(base64, &frame);
	ck_assert_int_eq(comfy_event_parse_binary(&ev, frame.data, frame.len),
	                 COMFY_EVENT_OK);
	seen[ev.type]++;
	if (ev.type == COMFY_EV_PREVIEW || ev.type == COMFY_EV_PREVIEW_META) {
		ck_assert_ptr_nonnull(ev.u.preview.mime);
		ck_assert_uint_gt(ev.u.preview.image.n, 0);
	}
	if (ev.type == COMFY_EV_PREVIEW_META)
		ck_assert_uint_eq(ev.prompt_id.n, 36);
	buf_deinit(&frame);
}

static void check_text(struct json text, size_t *seen)
{
	struct buf frame = BUF_INIT(1u << 20);
	struct comfy_node_state s;
	struct comfy_event ev;
	struct json_iter it;

	ck_assert_int_eq(json_string_decode(text, &frame), 0);
	ck_assert_int_eq(comfy_event_parse_text(&ev, frame.data, frame.len),
	                 COMFY_EVENT_OK);
	seen[ev.type]++;
	ck_assert_int_ne(ev.type, COMFY_EV_UNKNOWN);
	if (ev.type == COMFY_EV_PROGRESS)
		ck_assert_double_gt(ev.u.progress.max, 0);
	if (ev.type == COMFY_EV_STATUS)
		ck_assert_int_ge(ev.u.status.queue_remaining, 0);
	if (ev.type == COMFY_EV_PROGRESS_STATE) {
		json_iter_init(&it, ev.u.state.nodes);
		while (comfy_node_state_next(&it, &s)) {
			ck_assert(s.running != s.finished);
			ck_assert_double_gt(s.max, 0);
			ck_assert_double_ge(s.max, s.value);
		}
	}
	buf_deinit(&frame);
}

static void check_recording(const char *name, size_t *seen)
{
	char path[512];
	char *data, *line, *save = NULL;
	struct json j, v;

	ck_assert_int_lt(
		snprintf(path, sizeof(path), "comfyui/%s/ws.jsonl", name),
		(int)sizeof(path));
	data = runner_read_data(path, NULL);
	for (line = strtok_r(data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		ck_assert_int_eq(json_parse(&j, line, strlen(line), 0, NULL),
		                 JSON_OK);
		if (!json_string_eq(json_get(j, "dir"), "in"))
			continue;
		v = json_get(j, "binary_b64");
		if (json_is(v, JSON_STRING))
			check_binary(json_raw_string(v), seen);
		v = json_get(j, "text");
		if (json_is(v, JSON_STRING))
			check_text(v, seen);
	}
	free(data);
}

START_TEST(test_recordings)
{
	size_t seen[COMFY_EV_TYPE_COUNT] = {0};
	DIR *dir = opendir(runner_data_path("comfyui"));
	struct dirent *e;
	int folders = 0;

	ck_assert_ptr_nonnull(dir);
	while ((e = readdir(dir)) != NULL) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		check_recording(e->d_name, seen);
		folders++;
	}
	(void)closedir(dir);
	ck_assert_int_eq(folders, RECORDINGS);
	/* Nothing unknown, and everything else at least once. */
	ck_assert_uint_eq(seen[COMFY_EV_UNKNOWN], 0);
	for (int i = COMFY_EV_UNKNOWN + 1; i < COMFY_EV_TYPE_COUNT; i++)
		ck_assert_msg(seen[i] > 0, "no %s was recorded",
		              comfy_event_type_name((enum comfy_event_type)i));
}
END_TEST

static Suite *comfy_event_suite(void)
{
	Suite *s = suite_create("comfy_event");
	TCase *t = tcase_create("comfy_event");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_types, 0, ARRAY_SIZE(frames));
	tcase_add_loop_test(t, test_refused, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, test_status);
	tcase_add_test(t, test_executing_null);
	tcase_add_test(t, test_progress);
	tcase_add_test(t, test_executed);
	tcase_add_test(t, test_error);
	tcase_add_test(t, test_progress_state);
	tcase_add_test(t, test_preview);
	tcase_add_test(t, test_node_text);
	tcase_add_test(t, test_preview_meta);
	tcase_add_test(t, test_binary_types);
	tcase_add_test(t, test_names);
	tcase_add_test(t, test_recordings);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(comfy_event_suite());
}
