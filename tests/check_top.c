/*
 * check_top.c - what `comfymux top` shows: news folded into rows, sorted,
 * filtered, cut to the screen; what keys do; that no text of others reaches the
 * terminal as it is.
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/runner.h"
#include "workers/top/input.h"
#include "workers/top/text.h"

#define NOW 1000000 /* both clocks, ms */

static struct top_model m;
static struct top_view v;

static void setup(void)
{
	ck_assert_ptr_nonnull(setlocale(LC_CTYPE, "C.UTF-8"));
	top_model_init(&m);
	ck_assert_int_eq(m.link, TOP_LINK_COMING);
	top_model_connected(&m, "0.1.0", 42, true);
	v = (struct top_view){.pane = TOP_PROMPTS};
}

static void teardown(void)
{
	top_model_deinit(&m);
}

static struct json parsed(const char *text)
{
	struct json j;

	ck_assert_msg(json_parse(&j, text, strlen(text), 0, NULL) == JSON_OK,
	              "%s", text);
	return j;
}

/* An event line as the socket has it, at `ms`. */
static void hear_at(const char *line, int64_t ms)
{
	struct incoming in;

	ck_assert_int_eq(incoming_parse(&in, line, strlen(line), NULL), 0);
	top_model_event(&m, &in, ms);
}

static void prompt(const char *id, const char *progress, int64_t ms)
{
	char line[1024];

	(void)snprintf(line, sizeof(line),
	               "{\"event\":\"snapshot\",\"seq\":1,\"prompt_id\":\"%s\","
	               "\"t\":1,\"progress\":%s}",
	               id, progress);
	hear_at(line, ms);
}

#define RUNNING                                                                \
	"{\"status\":\"executing\",\"current_node\":\"3\","                    \
	"\"current_node_progress\":0.5,\"queue_position\":0,"                  \
	"\"completed_nodes\":[\"1\"],\"cached_nodes\":[\"2\"]}"
#define QUEUED(n) "{\"status\":\"queued\",\"queue_position\":" #n "}"
#define DONE      "{\"status\":\"completed\"}"
#define FAILED    "{\"status\":\"failed\",\"error\":{\"type\":\"lost\"}}"

static const struct top_screen wide = {
	.columns = 100, .utf8 = true, .now_ms = NOW, .epoch_ms = NOW};

/* The ids as they are shown, "a b c". */
static const char *order(enum top_pane pane)
{
	static struct buf out;
	struct top_rows r;

	buf_deinit(&out);
	buf_init(&out, 4096);
	ck_assert_int_eq(top_rows(&m, &v, pane, &r), 0);
	for (size_t i = 0; i < r.count; i++)
		(void)buf_printf(&out, "%s%s", i > 0 ? " " : "",
		                 top_row_id(&r, i));
	top_rows_deinit(&r);
	return buf_cstr(&out);
}

static const char *row(const struct top_screen *s, enum top_pane pane, size_t i)
{
	static struct buf out;
	struct top_rows r;

	buf_deinit(&out);
	buf_init(&out, TOP_LINE_BYTES);
	ck_assert_int_eq(top_rows(&m, &v, pane, &r), 0);
	top_row(&out, s, &r, i);
	top_rows_deinit(&r);
	return buf_cstr(&out);
}

static const char *header(const struct top_screen *s, unsigned line)
{
	static struct buf out;

	buf_deinit(&out);
	buf_init(&out, TOP_LINE_BYTES);
	top_header(&out, s, &m, line);
	return buf_cstr(&out);
}

static enum top_action key(int k)
{
	return top_input(&v, &m, k, 3, NOW);
}

static void type(const char *text)
{
	for (; *text; text++)
		ck_assert_int_eq(key((unsigned char)*text), TOP_NOTHING);
}

/* --- the model ------------------------------------------------------------ */

START_TEST(test_a_prompt)
{
	const struct top_prompt *p;

	prompt("a", RUNNING, NOW - 65000);
	hear_at("{\"event\":\"progress\",\"seq\":2,\"prompt_id\":\"a\",\"t\":1,"
	        "\"data\":{\"node\":\"3\",\"value\":5,\"max\":20},"
	        "\"progress\":" RUNNING "}",
	        NOW);
	p = top_model_prompt(&m, "a");
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(p->status, CMX_EXECUTING);
	ck_assert_uint_eq(p->nodes_done, 2);
	ck_assert(m.ages_wanted);
	ck_assert_str_eq(row(&wide, TOP_PROMPTS, 0),
	                 "a        running            1:05 "
	                 "[##########..........]  50%     2 3  5/20");
	/* The step of the node that runs, out of the state of all. */
	hear_at("{\"event\":\"progress_state\",\"seq\":3,\"prompt_id\":\"a\","
	        "\"t\":1,\"data\":{\"nodes\":{\"2\":{\"value\":1,\"max\":1},"
	        "\"3\":{\"value\":7,\"max\":20}}},\"progress\":" RUNNING "}",
	        NOW);
	ck_assert_double_eq(p->value, 7);
	/* Another node: its steps are not known yet. */
	prompt("a",
	       "{\"status\":\"executing\",\"current_node\":\"4\","
	       "\"current_node_progress\":0}",
	       NOW);
	ck_assert_double_eq(p->max, 0);
	top_model_queue(&m,
	                parsed("{\"running\":[{\"prompt_id\":\"a\","
	                       "\"submitted_at\":990000}],\"pending\":[]}"));
	ck_assert_int_eq(p->since_ms, 990000);
	ck_assert(!m.ages_wanted);
}
END_TEST

START_TEST(test_an_end)
{
	prompt("a", FAILED, NOW);
	prompt("b", RUNNING, NOW);
	ck_assert_ptr_nonnull(strstr(row(&wide, TOP_PROMPTS, 1), "failed"));
	ck_assert_ptr_nonnull(strstr(row(&wide, TOP_PROMPTS, 1), " lost"));
	top_model_age(&m, NOW + TOP_ENDED_KEEP_MS);
	ck_assert_str_eq(order(TOP_PROMPTS), "b a");
	top_model_age(&m, NOW + TOP_ENDED_KEEP_MS + 1);
	ck_assert_str_eq(order(TOP_PROMPTS), "b");
}
END_TEST

START_TEST(test_a_supervisor_goes_and_comes)
{
	prompt("a", RUNNING, NOW);
	prompt("b", DONE, NOW);
	top_model_away(&m, "it broke");
	/* What was known stays in sight. */
	ck_assert_str_eq(order(TOP_PROMPTS), "a b");
	ck_assert_str_eq(header(&wide, 0),
	                 "no supervisor: it broke; trying again");
	top_model_connected(&m, "0.1.0", 43, false);
	ck_assert_str_eq(order(TOP_PROMPTS), "b");
}
END_TEST

START_TEST(test_the_bound_of_prompts)
{
	char id[32];

	prompt("old", DONE, NOW - 2);
	prompt("older", DONE, NOW - 3);
	for (int i = 0; i < TOP_PROMPTS_MAX; i++) {
		(void)snprintf(id, sizeof(id), "p%d", i);
		prompt(id, QUEUED(1), NOW);
	}
	/* Those that were over made room, then there was none. */
	ck_assert_uint_eq(m.prompt_count, TOP_PROMPTS_MAX);
	ck_assert(!m.prompts_left_out);
	ck_assert_ptr_null(top_model_prompt(&m, "old"));
	prompt("more", RUNNING, NOW);
	ck_assert_ptr_null(top_model_prompt(&m, "more"));
	ck_assert(m.prompts_left_out);
	prompt("p0", DONE, NOW);
	prompt("more", RUNNING, NOW);
	ck_assert_ptr_nonnull(top_model_prompt(&m, "more"));
	ck_assert(!m.prompts_left_out);
}
END_TEST

#define STATUS(frames, c0, c1, c2)                                             \
	"{\"version\":\"0.1.0\",\"pid\":42,\"paused\":false,\"upstream\":{"    \
	"\"url\":\"http://x\",\"state\":\"connected\",\"reconnects\":0},"      \
	"\"prompts\":{\"active\":1,\"queued\":2,\"retained\":3},"              \
	"\"subscribers\":4,\"sessions\":["                                     \
	"{\"id\":\"s10\",\"kind\":\"mcp\",\"pid\":7,\"keeper_pid\":6,"         \
	"\"uid\":1000,\"in_flight\":0,\"restarts\":2},"                        \
	"{\"id\":\"s9\",\"kind\":\"run\",\"pid\":9,\"keeper_pid\":8,"          \
	"\"uid\":0,\"in_flight\":3,\"restarts\":0}],"                          \
	"\"counters\":{\"frames\":" #frames ",\"missed\":0,\"latency\":{"      \
	"\"bounds_us\":[50,1000],\"counts\":[" #c0 "," #c1 "," #c2 "]}}}"

static const char *user_name(int64_t uid)
{
	return uid == 0 ? "root" : NULL;
}

START_TEST(test_rates_and_latency)
{
	m.user_name = user_name;
	ck_assert_str_eq(header(&wide, 0), "connecting to the supervisor");
	top_model_status(&m, parsed(STATUS(100, 5, 5, 5)), NOW - 2000);
	ck_assert_int_eq(top_model_latency_us(&m, 0.5), -1);
	prompt("a", RUNNING, NOW);
	prompt("a", RUNNING, NOW);
	top_model_status(&m, parsed(STATUS(300, 95, 14, 6)), NOW);
	ck_assert_double_eq_tol(m.frames_rate, 100, 1e-9);
	ck_assert_double_eq_tol(m.heard_rate, 1, 1e-9);
	/* 90, 9 and 1 of 100. */
	ck_assert_int_eq(top_model_latency_us(&m, 0.5), 50);
	ck_assert_int_eq(top_model_latency_us(&m, 0.90), 50);
	ck_assert_int_eq(top_model_latency_us(&m, 0.91), 1000);
	ck_assert_int_eq(top_model_latency_us(&m, 1), INT64_MAX);
	ck_assert_str_eq(header(&wide, 0),
	                 "connected   ComfyUI http://x   comfymuxd 0.1.0, "
	                 "pid 42");
	ck_assert_str_eq(header(&wide, 1),
	                 "1 running, 2 waiting, 2 sessions, 4 subscribers, "
	                 "3 ended");
	ck_assert_str_eq(header(&wide, 2),
	                 "events 100/s from ComfyUI, 1/s told here   latency "
	                 "p50 <0.05 ms, p99 <1 ms");
	ck_assert_str_eq(row(&wide, TOP_SESSIONS, 1),
	                 "s10     mcp          7        6 1000               0 "
	                 "       2 ");
	ck_assert_ptr_nonnull(strstr(row(&wide, TOP_SESSIONS, 0), "root"));
}
END_TEST

START_TEST(test_a_supervisor_that_is_silent)
{
	struct top_screen late = wide;

	top_model_status(&m, parsed(STATUS(1, 0, 0, 0)), NOW);
	late.now_ms = NOW + 3000;
	ck_assert_ptr_null(strstr(header(&late, 0), "no answer"));
	late.now_ms = NOW + 3001;
	ck_assert_ptr_nonnull(strstr(header(&late, 0),
	                             "no answer from the supervisor for 3 s"));
}
END_TEST

/* Whatever an answer holds: nothing, other types, too much. */
START_TEST(test_odd_answers)
{
	static const char *const odd[] = {
		"{}",
		"[]",
		"null",
		"{\"sessions\":{},\"upstream\":[1]}",
		"{\"sessions\":[1,null,{}],\"counters\":{\"latency\":{"
		"\"bounds_us\":[1,2],\"counts\":[1,2]}}}",
		"{\"sessions\":[{\"id\":\"\\ud83d\\ude00\",\"pid\":1e99}],"
		"\"counters\":{\"latency\":{\"bounds_us\":[\"a\"],\"counts\":"
		"[1,2]}}}"};

	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		top_model_status(&m, parsed(odd[i]), NOW + (int64_t)i);
		top_model_queue(&m, parsed(odd[i]));
		(void)row(&wide, TOP_SESSIONS, 0);
		(void)header(&wide, 2);
	}
	hear_at("{\"event\":\"progress\",\"seq\":1,\"prompt_id\":\"\",\"t\":1,"
	        "\"progress\":{}}",
	        NOW);
	hear_at("{\"event\":\"finished\",\"seq\":1,\"prompt_id\":\"a\","
	        "\"t\":1}",
	        NOW);
	ck_assert_uint_eq(m.prompt_count, 0);
}
END_TEST

/* --- rows ----------------------------------------------------------------- */

static void five_prompts(void)
{
	prompt("done", DONE, NOW - 50);
	prompt("third", QUEUED(2), NOW - 40);
	prompt("second", QUEUED(1), NOW - 30);
	prompt("first", RUNNING, NOW - 20);
	prompt("failed", FAILED, NOW - 10);
}

START_TEST(test_sorting)
{
	five_prompts();
	ck_assert_str_eq(order(TOP_PROMPTS), "first second third failed done");
	v.reverse[TOP_PROMPTS] = true;
	ck_assert_str_eq(order(TOP_PROMPTS), "done failed third second first");
	v.reverse[TOP_PROMPTS] = false;
	v.sort[TOP_PROMPTS] = 1;
	ck_assert_str_eq(top_sort_name(TOP_PROMPTS, 1), "age");
	ck_assert_str_eq(order(TOP_PROMPTS), "done third second first failed");
	v.sort[TOP_PROMPTS] = 2;
	ck_assert_str_eq(order(TOP_PROMPTS), "first done third second failed");
	v.sort[TOP_PROMPTS] = 3;
	ck_assert_str_eq(order(TOP_PROMPTS), "done failed first second third");
	ck_assert_ptr_null(top_sort_name(TOP_PROMPTS, 4));
	ck_assert_ptr_null(top_sort_name(TOP_SESSIONS, 5));

	top_model_status(&m, parsed(STATUS(1, 0, 0, 0)), NOW);
	ck_assert_str_eq(order(TOP_SESSIONS), "s9 s10");
	v.sort[TOP_SESSIONS] = 1;
	ck_assert_str_eq(order(TOP_SESSIONS), "s10 s9");
	v.sort[TOP_SESSIONS] = 3;
	ck_assert_str_eq(order(TOP_SESSIONS), "s9 s10");
	v.sort[TOP_SESSIONS] = 4;
	ck_assert_str_eq(order(TOP_SESSIONS), "s10 s9");
}
END_TEST

START_TEST(test_filter)
{
	five_prompts();
	type("/LOST");
	ck_assert_str_eq(order(TOP_PROMPTS), "failed");
	ck_assert_int_eq(key(TOP_KEY_ENTER), TOP_NOTHING);
	ck_assert_str_eq(order(TOP_PROMPTS), "failed");
	/* Keys are keys again, and the text is taken up where it was. */
	type("/");
	ck_assert_int_eq(key(TOP_KEY_BACKSPACE), TOP_NOTHING);
	ck_assert_str_eq(v.filter, "LOS");
	type("\xc3\xa4");
	ck_assert_int_eq(key(TOP_KEY_BACKSPACE), TOP_NOTHING);
	ck_assert_str_eq(v.filter, "LOS");
	for (int i = 0; i < 100; i++)
		type("x");
	ck_assert_uint_eq(strlen(v.filter), TOP_FILTER_MAX);
	for (int i = 0; i < 100; i++)
		(void)key(TOP_KEY_BACKSPACE);
	ck_assert_str_eq(v.filter, "");
	type("q");
	ck_assert_int_eq(key(TOP_KEY_ESCAPE), TOP_NOTHING);
	ck_assert_str_eq(order(TOP_PROMPTS), "first second third failed done");
	ck_assert_int_eq(key('q'), TOP_QUIT);
}
END_TEST

static const char *selected(void)
{
	static char id[TOP_ID_MAX + 1];
	struct top_rows r;

	ck_assert_int_eq(top_rows(&m, &v, v.pane, &r), 0);
	(void)snprintf(id, sizeof(id), "%s", top_row_id(&r, r.selected));
	top_rows_deinit(&r);
	return id;
}

START_TEST(test_selecting)
{
	ck_assert_int_eq(key('j'), TOP_NOTHING);
	ck_assert_str_eq(selected(), "");
	five_prompts();
	ck_assert_str_eq(selected(), "first");
	type("jj");
	ck_assert_str_eq(selected(), "third");
	/* It stays with the row, wherever that goes. */
	type("S");
	ck_assert_str_eq(selected(), "third");
	type("S");
	(void)key(TOP_KEY_PAGE_DOWN);
	ck_assert_str_eq(selected(), "done");
	(void)key(TOP_KEY_DOWN);
	ck_assert_str_eq(selected(), "done");
	(void)key(TOP_KEY_PAGE_UP);
	ck_assert_str_eq(selected(), "second");
	type("g");
	(void)key(TOP_KEY_UP);
	ck_assert_str_eq(selected(), "first");
	type("G");
	ck_assert_str_eq(selected(), "done");
	type("/third");
	(void)key(TOP_KEY_ENTER);
	ck_assert_str_eq(selected(), "third");
}
END_TEST

START_TEST(test_cancelling)
{
	ck_assert_int_eq(key('c'), TOP_NOTHING);
	ck_assert_str_eq(v.note, "there are no prompts here");
	five_prompts();
	type("jc");
	ck_assert_int_eq(v.mode, TOP_CONFIRM);
	/* The rows may move while the question stands. */
	prompt("second", RUNNING, NOW);
	ck_assert_int_eq(key('n'), TOP_NOTHING);
	type("c");
	ck_assert_int_eq(key(TOP_KEY_ENTER), TOP_NOTHING);
	type("c");
	prompt("zero", RUNNING, NOW - 100);
	ck_assert_int_eq(key('y'), TOP_CANCEL);
	ck_assert_str_eq(v.target, "second");
	type("Gc");
	ck_assert_str_eq(v.note, "that prompt is over already");
	ck_assert_int_eq(v.mode, TOP_BROWSE);
}
END_TEST

START_TEST(test_restarting)
{
	top_model_status(&m, parsed(STATUS(1, 0, 0, 0)), NOW);
	ck_assert_int_eq(key('r'), TOP_NOTHING);
	ck_assert_str_eq(v.note,
	                 "Tab goes to the sessions, which this key is for");
	ck_assert_int_eq(key(TOP_KEY_TAB), TOP_NOTHING);
	type("j");
	ck_assert_int_eq(key('r'), TOP_RESTART);
	ck_assert_str_eq(v.target, "s10");
	ck_assert_int_eq(key('c'), TOP_NOTHING);
	ck_assert_int_eq(v.mode, TOP_BROWSE);
	ck_assert_int_eq(key(TOP_KEY_REDRAW), TOP_REDRAW);
	type("h");
	ck_assert_int_eq(v.mode, TOP_HELP);
	ck_assert_int_eq(key('r'), TOP_NOTHING);
	ck_assert_int_eq(v.mode, TOP_BROWSE);
}
END_TEST

/* --- the screen ----------------------------------------------------------- */

START_TEST(test_fitting)
{
	static const struct {
		const char *in, *utf8, *ascii;
		unsigned columns;
	} t[] = {
		{"plain", "plain", "plain", 5},
		{"plain", "plai", "plai", 4},
		{"a\x1b[31m\x07\x7fz", "a?[31m??z", "a?[31m??z", 50},
		{"\xc3\xa4\xc3\xb6", "\xc3\xa4\xc3\xb6", "??", 2},
		/* Wide ones count twice; no half of one is shown. */
		{"\xe4\xb8\xad\xe4\xb8\xad", "\xe4\xb8\xad", "???", 3},
		/* Bytes that are no character; C1 controls; a torn end. */
		{"\xff\x80q", "??q", "??q", 5},
		{"\xc2\x9b"
	         "31m",
	         "?31m", "?31m", 5},
		{"ab\xe4\xb8", "ab??", "ab??", 9},
		/* What has no width, marks and turns of direction. */
		{"e\xcc\x81\xe2\x80\xaex", "ex", "e??x", 9},
		{"", "", "", 0},
		{"x", "", "", 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		for (int utf8 = 0; utf8 < 2; utf8++) {
			cleanup_buf struct buf out = BUF_INIT(256);
			const char *want = utf8 ? t[i].utf8 : t[i].ascii;

			if (!utf8 && t[i].columns == 3 && i == 4)
				want = "??";
			(void)top_fit(&out, t[i].in, t[i].columns, utf8);
			ck_assert_msg(strcmp(buf_cstr(&out), want) == 0,
			              "%zu: \"%s\" not \"%s\"", i,
			              buf_cstr(&out), want);
		}
	}
}
END_TEST

/* Every line at every width stays within it. */
START_TEST(test_widths)
{
	prompt("0123456789abcdef", RUNNING, NOW);
	top_model_status(&m, parsed(STATUS(1, 0, 0, 0)), NOW);
	for (unsigned w = 0; w <= 120; w++) {
		struct top_screen s = wide;

		s.columns = w;
		ck_assert_uint_le(strlen(row(&s, TOP_PROMPTS, 0)), w);
		ck_assert_uint_le(strlen(row(&s, TOP_SESSIONS, 0)), w);
		for (unsigned i = 0; i < TOP_HEADER_MAX; i++)
			ck_assert_uint_le(strlen(header(&s, i)), w);
	}
}
END_TEST

START_TEST(test_layouts)
{
	for (unsigned lines = 0; lines < 100; lines++) {
		for (int pane = 0; pane < TOP_PANE_COUNT; pane++) {
			struct top_layout l;
			unsigned all;

			top_layout(&l, lines, (enum top_pane)pane, lines / 2);
			all = l.header + 1;
			for (int i = 0; i < TOP_PANE_COUNT; i++)
				if (l.pane[i].count > 0)
					all += 1 + l.pane[i].count;
			ck_assert_uint_le(all, lines < 2 ? 2 : lines);
			ck_assert_uint_eq(l.bottom, lines < 2 ? 1 : lines - 1);
			/* The one that keys mean is seen where anything is. */
			if (lines >= 4)
				ck_assert_uint_ge(l.pane[pane].count, 1);
			if (lines >= 14)
				ck_assert_uint_ge(l.pane[1 - pane].count, 1);
		}
	}
}
END_TEST

START_TEST(test_scrolling)
{
	ck_assert_uint_eq(top_scroll(0, 0, 100, 10), 0);
	ck_assert_uint_eq(top_scroll(0, 9, 100, 10), 0);
	ck_assert_uint_eq(top_scroll(0, 10, 100, 10), 1);
	ck_assert_uint_eq(top_scroll(50, 20, 100, 10), 20);
	ck_assert_uint_eq(top_scroll(95, 99, 100, 10), 90);
	ck_assert_uint_eq(top_scroll(95, 3, 5, 10), 0);
	ck_assert_uint_eq(top_scroll(5, 5, 100, 0), 0);
}
END_TEST

START_TEST(test_durations)
{
	static const struct {
		int64_t ms;
		const char *text;
	} t[] = {{-5, "0:00"},          {7999, "0:07"},
	         {3599000, "59:59"},    {3723000, "1:02:03"},
	         {183600000, "2d 03h"}, {INT64_MAX, "0d"}};
	char text[24];

	for (size_t i = 0; i + 1 < ARRAY_SIZE(t); i++) {
		top_duration(text, t[i].ms);
		ck_assert_str_eq(text, t[i].text);
	}
	top_duration(text, INT64_MAX);
	ck_assert_uint_lt(strlen(text), 16);
	top_latency_text(text, -1);
	ck_assert_str_eq(text, "-");
	top_latency_text(text, 250);
	ck_assert_str_eq(text, "<0.25 ms");
	top_latency_text(text, INT64_MAX);
	ck_assert_str_eq(text, "seconds");
}
END_TEST

START_TEST(test_bottom)
{
	cleanup_buf struct buf out = BUF_INIT(TOP_LINE_BYTES);
	struct top_screen late = wide;

	top_note(&v, NOW, "done %d", 1);
	top_bottom(&out, &wide, &v);
	ck_assert_str_eq(buf_cstr(&out), "done 1");
	buf_reset(&out);
	late.now_ms = NOW + TOP_NOTE_MS;
	top_bottom(&out, &late, &v);
	ck_assert_ptr_nonnull(strstr(buf_cstr(&out), "q quit"));
	for (size_t i = 0; top_key_help[i].keys; i++)
		ck_assert(top_help(&out, &wide, i));
}
END_TEST

static Suite *make_suite(void)
{
	Suite *s = suite_create("top");
	TCase *c = tcase_create("top");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, test_a_prompt);
	tcase_add_test(c, test_an_end);
	tcase_add_test(c, test_a_supervisor_goes_and_comes);
	tcase_add_test(c, test_the_bound_of_prompts);
	tcase_add_test(c, test_rates_and_latency);
	tcase_add_test(c, test_a_supervisor_that_is_silent);
	tcase_add_test(c, test_odd_answers);
	tcase_add_test(c, test_sorting);
	tcase_add_test(c, test_filter);
	tcase_add_test(c, test_selecting);
	tcase_add_test(c, test_cancelling);
	tcase_add_test(c, test_restarting);
	tcase_add_test(c, test_fitting);
	tcase_add_test(c, test_widths);
	tcase_add_test(c, test_layouts);
	tcase_add_test(c, test_scrolling);
	tcase_add_test(c, test_durations);
	tcase_add_test(c, test_bottom);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	return runner_run(make_suite());
}
