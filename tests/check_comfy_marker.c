/*
 * check_comfy_marker.c - our id in extra_data: put in digit for digit, found in
 * queue and history as ComfyUI shows them, and not where it is not.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "tests/runner.h"

#define ID    "0b0e6a66-96f7-4e35-8d2a-0d7a1f6f0c11"
#define OTHER "5d3f3c4e-2d62-4b7b-9d54-6c35e7d21d22"
#define MARK  "\"comfymux\":{\"prompt_id\":\"" ID "\"}"

START_TEST(test_put)
{
	static const struct {
		const char *extra, *want;
	} rows[] = {
		{"", "{" MARK "}"},
		{"{}", "{" MARK "}"},
		/* Nothing is printed anew. */
		{"{\"seed\": 18446744073709551615, \"x\":1.50}",
	         "{\"seed\": 18446744073709551615, \"x\":1.50," MARK "}"},
		{"{\"n\":NaN}", "{\"n\":NaN," MARK "}"},
		/* Whoever wrote one: it is ours that counts. */
		{"{\"comfymux\":{\"prompt_id\":\"" OTHER "\"},\"a\":1}",
	         "{" MARK ",\"a\":1}"},
		{"{\"comfymux\":1,\"comfymux\":2}", "{" MARK "}"},
	};
	cleanup_buf struct buf out = BUF_INIT(4096);

	ck_assert_int_eq(comfy_marker_put(&out, SPAN(rows[_i].extra), ID), 0);
	ck_assert_str_eq(buf_cstr(&out), rows[_i].want);
}
END_TEST

START_TEST(test_put_into_no_object)
{
	static const char *const bad[] = {"[]", "1", "null", "{", "x"};
	cleanup_buf struct buf out = BUF_INIT(4096);

	ck_assert_int_eq(comfy_marker_put(&out, SPAN(bad[_i]), ID), -EINVAL);
}
END_TEST

static void queue_of(struct comfy_queue *q, const char *text)
{
	struct http_reply reply = {.status = 200,
	                           .content_type = "application/json",
	                           .body = SPAN(text)};

	comfy_decode_queue(q, &reply);
	ck_assert_int_eq(q->r.outcome, COMFY_OK);
}

#define ITEM(number, id, extra)                                                \
	"[" #number ",\"" id "\",{\"1\":{}}," extra ",[\"1\"]]"

START_TEST(test_in_the_queue)
{
	static const struct {
		const char *running, *pending, *want; /* "": not there */
	} rows[] = {
		{ITEM(1, "a", "{" MARK "}"), "", "a"},
		{ITEM(1, "a", "{}"), ITEM(2, "b", "{\"x\":1," MARK "}"), "b"},
		{ITEM(1, "a", "{}"), ITEM(2, "b", "{}"), ""},
		{"", ITEM(2, "b", "null"), ""},
		{"", ITEM(2, "b", "{\"comfymux\":\"" ID "\"}"), ""},
		{"", ITEM(2, "b", "{\"comfymux\":{\"prompt_id\":7}}"), ""},
		{"", "[2,\"b\",{" MARK "}]", ""},
		{"", "[2,\"b\"]", ""},
		/* A later version's sixth element. */
		{"", "[2,\"b\",{},{" MARK "},[],{}]", "b"},
	};
	const struct comfy_queue_item *item;
	struct comfy_queue q;
	char text[1024];

	(void)snprintf(text, sizeof(text),
	               "{\"queue_running\":[%s],\"queue_pending\":[%s]}",
	               rows[_i].running, rows[_i].pending);
	queue_of(&q, text);
	item = comfy_queue_marked(&q, ID);
	if (rows[_i].want[0] != '\0') {
		ck_assert_ptr_nonnull(item);
		ck_assert(span_eq_str(item->prompt_id, rows[_i].want));
	} else {
		ck_assert_ptr_null(item);
	}
	ck_assert_ptr_null(comfy_queue_marked(&q, OTHER));
	comfy_queue_deinit(&q);
}
END_TEST

#define ENTRY(id, extra)                                                       \
	"\"" id "\":{\"prompt\":" ITEM(1, id, extra) ",\"outputs\":{}}"

START_TEST(test_in_the_history)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{"{" ENTRY("a", "{}") "," ENTRY("b", "{" MARK "}") "}", "b"},
		{"{" ENTRY("a", "{" MARK "}") "," ENTRY("b", "{}") "}", "a"},
		/* The newest, should it have run twice. */
		{"{" ENTRY("a", "{" MARK "}") "," ENTRY("b", "{" MARK "}") "}",
	         "b"},
		{"{" ENTRY("a", "{}") "}", ""},
		{"{}", ""},
		{"[]", ""},
		{"{\"a\":{}}", ""},
		{"{\"a\":null}", ""},
	};
	struct span id = SPAN_NULL;
	struct json body, entry;

	ck_assert_int_eq(json_parse(&body, rows[_i].text, strlen(rows[_i].text),
	                            0, NULL),
	                 JSON_OK);
	entry = comfy_history_marked(body, ID, &id);
	ck_assert_int_eq(json_is(entry, JSON_OBJECT), rows[_i].want[0] != '\0');
	if (rows[_i].want[0] != '\0')
		ck_assert(span_eq_str(id, rows[_i].want));
}
END_TEST

static Suite *marker_suite(void)
{
	Suite *s = suite_create("comfy_marker");
	TCase *t = tcase_create("comfy_marker");

	tcase_add_loop_test(t, test_put, 0, 6);
	tcase_add_loop_test(t, test_put_into_no_object, 0, 5);
	tcase_add_loop_test(t, test_in_the_queue, 0, 9);
	tcase_add_loop_test(t, test_in_the_history, 0, 8);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(marker_suite());
}
