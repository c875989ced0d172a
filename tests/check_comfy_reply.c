/*
 * check_comfy_reply.c - ComfyUI's replies decoded: every recorded one, and
 * those of older and later versions that the recordings' README tells about.
 */
#include "common/comfy_reply.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "tests/runner.h"

static const char json_type[] = "application/json";
static const char text_type[] = "text/plain";

static struct http_reply reply_of(int status, const char *type,
                                  struct span body)
{
	return (struct http_reply){.outcome = HTTP_OK,
	                           .status = status,
	                           .sent = true,
	                           .content_type = type,
	                           .body = body};
}

static struct http_reply json_reply(int status, const char *body)
{
	return reply_of(status, json_type, SPAN(body));
}

/* --- the recordings ------------------------------------------------------- */

static struct {
	unsigned accepted, rejected, failed_posts, queues, histories, lists,
		entries, empties;
} counts;

struct exchange {
	struct json request;
	char *method, *path;
	struct http_reply reply;
};

static void assert_readable(const struct comfy_result *r, const char *path)
{
	ck_assert_msg(r->error.code != ERR_NONE && *r->error.text, "%s", path);
	for (const char *p = r->error.text; *p; p++)
		ck_assert_msg((unsigned char)*p >= ' ' || *p == '\n', "%s: %s",
		              path, r->error.text);
}

static void check_prompt(const struct exchange *e)
{
	char id[COMFY_PROMPT_ID_MAX + 1];
	struct comfy_submitted s;
	struct json ours = json_get(e->request, "prompt_id");

	comfy_decode_submitted(&s, &e->reply, id);
	if (e->reply.status == 200) {
		ck_assert_int_eq(s.r.outcome, COMFY_OK);
		ck_assert(json_string_eq(json_get(s.r.body, "prompt_id"),
		                         s.prompt_id));
		if (json_is(ours, JSON_STRING))
			ck_assert(json_string_eq(ours, s.prompt_id));
		ck_assert(json_is(s.node_errors, JSON_OBJECT));
		counts.accepted++;
	} else if (e->reply.status == 400) {
		ck_assert_int_eq(s.r.outcome, COMFY_E_REJECTED);
		ck_assert_int_eq(s.r.error.code, ERR_REJECTED);
		ck_assert(json_is(s.r.body, JSON_OBJECT));
		ck_assert_str_eq(s.prompt_id, "");
		assert_readable(&s.r, e->path);
		counts.rejected++;
	} else {
		ck_assert_int_eq(s.r.outcome, COMFY_E_STATUS);
		ck_assert_ptr_nonnull(
			strstr(s.r.error.text, "500 Internal Server Error"));
		ck_assert_ptr_null(strchr(s.r.error.text, '\n'));
		counts.failed_posts++;
	}
}

static void check_queue(const struct exchange *e)
{
	struct comfy_queue q;

	comfy_decode_queue(&q, &e->reply);
	ck_assert_msg(q.r.outcome == COMFY_OK, "%s", q.r.error.text);
	ck_assert_uint_eq(q.running_count,
	                  json_count(json_get(q.r.body, "queue_running")));
	ck_assert_uint_eq(q.pending_count,
	                  json_count(json_get(q.r.body, "queue_pending")));
	for (size_t i = 0; i < q.pending_count; i++) {
		char id[64];

		if (i > 0)
			ck_assert(q.pending[i - 1].number <=
			          q.pending[i].number);
		(void)snprintf(id, sizeof(id), "%.*s",
		               (int)q.pending[i].prompt_id.n,
		               q.pending[i].prompt_id.p);
		ck_assert_int_eq(comfy_queue_ahead(&q, id, NULL),
		                 (int64_t)(q.running_count + i));
		ck_assert(json_string_eq(json_at(q.pending[i].item, 1), id));
	}
	comfy_queue_deinit(&q);
	comfy_queue_deinit(&q);
	counts.queues++;
}

static void check_history(const struct exchange *e)
{
	const char *id = strrchr(e->path, '/') + 1;
	struct comfy_history h;

	comfy_decode_history(&h, &e->reply, id);
	ck_assert_msg(h.r.outcome == COMFY_OK, "%s: %s", e->path,
	              h.r.error.text);
	counts.histories++;
	if (json_count(h.r.body) == 0) {
		ck_assert(json_is(h.entry, JSON_NONE));
		counts.empties++;
		return;
	}
	ck_assert(json_is(json_get(json_get(h.entry, "status"), "messages"),
	                  JSON_ARRAY));
	counts.entries++;
}

static void check_other(const struct exchange *e)
{
	bool changes = strcmp(e->method, "POST") == 0;
	struct comfy_result r;

	comfy_decode(&r, &e->reply,
	             changes ? COMFY_EXPECT_NOTHING : COMFY_EXPECT_BYTES,
	             changes);
	if (e->reply.status == 200) {
		ck_assert_int_eq(r.outcome, COMFY_OK);
		return;
	}
	ck_assert_int_eq(r.outcome, e->reply.status == 404 ? COMFY_E_NOT_FOUND
	                                                   : COMFY_E_STATUS);
	assert_readable(&r, e->path);
}

static void check_exchange(const struct exchange *e)
{
	bool get = strcmp(e->method, "GET") == 0;
	struct comfy_result r;

	if (!get && strcmp(e->path, "/prompt") == 0 &&
	    strcmp(e->method, "POST") == 0) {
		check_prompt(e);
	} else if (get && strcmp(e->path, "/queue") == 0) {
		check_queue(e);
	} else if (get && (strncmp(e->path, "/history/", 9) == 0 ||
	                   strncmp(e->path, "/api/history/", 13) == 0)) {
		check_history(e);
	} else if (get && strncmp(e->path, "/history", 8) == 0 &&
	           e->reply.status == 200) {
		comfy_decode(&r, &e->reply, COMFY_EXPECT_OBJECT, false);
		ck_assert_int_eq(r.outcome, COMFY_OK);
		counts.lists++;
	} else {
		check_other(e);
	}
}

/* The body as it was on the wire: JSON stands in the recording as it is, a
 * text as a string. False if it was not kept. */
static bool body_of(struct json line, bool is_json, struct buf *out)
{
	struct json text = json_get(line, "response_text");
	struct json body = json_get(line, "response_body");

	if (json_is(text, JSON_STRING))
		return json_string_decode(text, out) == 0;
	if (json_is(body, JSON_NONE))
		return false;
	if (json_is(body, JSON_STRING) && !is_json)
		return json_string_decode(body, out) == 0;
	return buf_append(out, body.text.p, body.text.n) == 0;
}

static void check_line(const char *text, size_t len)
{
	struct json line, type;
	struct exchange e;
	struct buf body = BUF_INIT(16u << 20);
	int64_t status;
	char *content_type;

	ck_assert_int_eq(json_parse(&line, text, len, JSON_NONFINITE, NULL),
	                 JSON_OK);
	if (!json_int64(json_get(line, "status"), &status))
		return; /* the server was gone */
	type = json_get(json_get(line, "response_headers"), "content-type");
	content_type = json_string_dup(type, 200);
	e.method = json_string_dup(json_get(line, "method"), 100);
	e.path = json_string_dup(json_get(line, "path"), 2000);
	ck_assert(e.method && e.path);
	if (content_type)
		content_type[strcspn(content_type, ";")] = '\0';
	if (body_of(line, content_type && strcmp(content_type, json_type) == 0,
	            &body)) {
		e.request = json_get(line, "request_body");
		e.reply =
			reply_of((int)status, content_type ? content_type : "",
		                 span_make(body.data, body.len));
		check_exchange(&e);
	}
	buf_deinit(&body);
	free(content_type);
	free(e.method);
	free(e.path);
}

START_TEST(recordings)
{
	glob_t files;

	ck_assert_int_eq(
		glob(runner_data_path("comfyui/*/http.jsonl"), 0, NULL, &files),
		0);
	memset(&counts, 0, sizeof(counts));
	for (size_t i = 0; i < files.gl_pathc; i++) {
		const char *name = strstr(files.gl_pathv[i], "comfyui/");
		char *text = runner_read_data(name, NULL), *save = NULL;

		for (char *line = strtok_r(text, "\n", &save); line;
		     line = strtok_r(NULL, "\n", &save))
			check_line(line, strlen(line));
		free(text);
	}
	globfree(&files);
	/* What README.md lists; a loop over nothing would find no fault. */
	ck_assert_uint_eq(counts.accepted, 72);
	ck_assert_uint_eq(counts.rejected, 19);
	ck_assert_uint_eq(counts.failed_posts, 2);
	ck_assert_uint_eq(counts.queues, 13);
	ck_assert_uint_eq(counts.histories, 72);
	ck_assert_uint_eq(counts.lists, 5);
	ck_assert_uint_gt(counts.entries, 40);
	ck_assert_uint_gt(counts.empties, 3);
}
END_TEST

/* --- POST /prompt --------------------------------------------------------- */

static struct comfy_submitted submitted(struct http_reply reply)
{
	static char id[COMFY_PROMPT_ID_MAX + 1];
	struct comfy_submitted s;

	comfy_decode_submitted(&s, &reply, id);
	return s;
}

START_TEST(submitted_by_other_versions)
{
	struct comfy_submitted s;

	/* Valid in part. */
	s = submitted(json_reply(200,
	                         "{\"prompt_id\":\"a\\u0062\",\"number\":-2.5,"
	                         "\"node_errors\":{\"3\":{\"errors\":[]}}}"));
	ck_assert_int_eq(s.r.outcome, COMFY_OK);
	ck_assert_str_eq(s.prompt_id, "ab");
	ck_assert(s.number < -2.4 && s.number > -2.6);
	ck_assert_uint_eq(json_count(s.node_errors), 1);
	/* Nothing but the id is needed. */
	s = submitted(json_reply(200, "{\"prompt_id\":\"x\",\"number\":NaN,"
	                              "\"node_errors\":[]}"));
	ck_assert_int_eq(s.r.outcome, COMFY_OK);
	ck_assert(json_is(s.node_errors, JSON_NONE));
	/* A string and an array, before 0.3.28. */
	s = submitted(json_reply(400, "{\"error\":\"no prompt\","
	                              "\"node_errors\":[]}"));
	ck_assert_int_eq(s.r.outcome, COMFY_E_REJECTED);
	ck_assert_ptr_nonnull(strstr(s.r.error.text, "no prompt"));
	/* Strict ids, after 0.3.64. */
	s = submitted(json_reply(
		400, "{\"error\":{\"type\":\"invalid_prompt_id\",\"message\":"
		     "\"prompt_id must be a UUID\",\"details\":\"\","
		     "\"extra_info\":{}},\"node_errors\":{}}"));
	ck_assert_int_eq(s.r.outcome, COMFY_E_REJECTED);
	ck_assert_ptr_nonnull(
		strstr(s.r.error.text, "prompt_id must be a UUID"));
}
END_TEST

static const struct {
	int status;
	const char *type, *body;
	enum comfy_outcome outcome;
	enum error_code code;
	const char *text;
} odd[] = {
	{200, json_type, "{\"number\":1}", COMFY_E_REPLY, ERR_PROTOCOL,
         "names no prompt_id"},
	{200, json_type, "{\"prompt_id\":\"\"}", COMFY_E_REPLY, ERR_PROTOCOL,
         "names no prompt_id"},
	{200, json_type, "{\"prompt_id\":7}", COMFY_E_REPLY, ERR_PROTOCOL,
         "names no prompt_id"},
	{200, json_type, "{\"prompt_id\":\"a\\u0000b\"}", COMFY_E_REPLY,
         ERR_PROTOCOL, "names no prompt_id"},
	{200, json_type, "[]", COMFY_E_REPLY, ERR_PROTOCOL, "no JSON object"},
	{200, json_type, "{\"prompt_id\":\"a\"", COMFY_E_REPLY, ERR_PROTOCOL,
         "not valid JSON"},
	{200, json_type, "", COMFY_E_REPLY, ERR_PROTOCOL, "is that ComfyUI?"},
	{200, "text/html", "<html>", COMFY_E_REPLY, ERR_PROTOCOL,
         "not JSON but text/html: is that ComfyUI?"},
	{200, "", "{\"prompt_id\":\"a\"}", COMFY_E_REPLY, ERR_PROTOCOL,
         "of no type"},
	{400, json_type, "{\"message\":\"?\"}", COMFY_E_STATUS, ERR_PROTOCOL,
         "status 400"},
	{400, json_type, "{\"error\":", COMFY_E_STATUS, ERR_PROTOCOL,
         "status 400"},
	{400, text_type, "Bad\x1b[31m", COMFY_E_STATUS, ERR_PROTOCOL,
         "status 400: Bad\\x1b[31m"},
	{500, text_type, "", COMFY_E_STATUS, ERR_PROTOCOL, "status 500"},
	{500, text_type, "line one \r\nline two", COMFY_E_STATUS, ERR_PROTOCOL,
         "status 500: line one"},
	{500, json_type, "{\"error\":{\"message\":\"boom\"}}", COMFY_E_STATUS,
         ERR_PROTOCOL, "status 500: boom"},
	{401, "text/html", "<html>", COMFY_E_STATUS, ERR_DENIED, "status 401"},
	{403, "", "", COMFY_E_STATUS, ERR_DENIED, "status 403"},
	{404, text_type, "404: Not Found", COMFY_E_NOT_FOUND, ERR_NOT_FOUND,
         "status 404: 404: Not Found"},
	{302, "", "", COMFY_E_STATUS, ERR_PROTOCOL, "status 302"},
	{501, "", "", COMFY_E_STATUS, ERR_PROTOCOL, "status 501"},
	{502, "text/html", "<html>", COMFY_E_UNKNOWN, ERR_UNREACHABLE,
         "status 502"},
	{503, "", "", COMFY_E_UNKNOWN, ERR_UNREACHABLE, "status 503"},
	{504, "", "", COMFY_E_UNKNOWN, ERR_UNREACHABLE, "status 504"},
	{505, "", "", COMFY_E_STATUS, ERR_PROTOCOL, "status 505"},
};

START_TEST(odd_replies)
{
	struct comfy_submitted s = submitted(
		reply_of(odd[_i].status, odd[_i].type, SPAN(odd[_i].body)));

	ck_assert_msg(s.r.outcome == odd[_i].outcome, "%d: %s", s.r.outcome,
	              s.r.error.text);
	ck_assert_int_eq(s.r.error.code, odd[_i].code);
	ck_assert_msg(strstr(s.r.error.text, odd[_i].text) != NULL,
	              "\"%s\" lacks \"%s\"", s.r.error.text, odd[_i].text);
	ck_assert_str_eq(s.prompt_id, "");
	ck_assert_int_eq(s.r.status, odd[_i].status);
}
END_TEST

START_TEST(bounds)
{
	char body[2 * COMFY_PROMPT_ID_MAX];
	char text[COMFY_REASON_MAX + 2];
	struct comfy_submitted s;

	(void)snprintf(body, sizeof(body), "{\"prompt_id\":\"%0*d\"}",
	               COMFY_PROMPT_ID_MAX, 1);
	s = submitted(json_reply(200, body));
	ck_assert_int_eq(s.r.outcome, COMFY_OK);
	ck_assert_uint_eq(strlen(s.prompt_id), COMFY_PROMPT_ID_MAX);
	(void)snprintf(body, sizeof(body), "{\"prompt_id\":\"%0*d\"}",
	               COMFY_PROMPT_ID_MAX + 1, 1);
	s = submitted(json_reply(200, body));
	ck_assert_int_eq(s.r.outcome, COMFY_E_REPLY);

	memset(text, 'r', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	s = submitted(reply_of(500, text_type, SPAN(text)));
	ck_assert_uint_eq(strspn(strchr(s.r.error.text, ':') + 2, "r"),
	                  COMFY_REASON_MAX);
	ck_assert_uint_eq(strlen(strchr(s.r.error.text, ':') + 2),
	                  COMFY_REASON_MAX);
}
END_TEST

/* What became of the request, as HTTP tells it. */
static const struct {
	enum http_outcome http;
	bool sent;
	enum comfy_outcome post, get;
} transports[] = {
	{HTTP_E_CONNECT, false, COMFY_E_UNREACHABLE, COMFY_E_UNREACHABLE},
	{HTTP_E_TLS, false, COMFY_E_UNREACHABLE, COMFY_E_UNREACHABLE},
	{HTTP_E_BROKEN, true, COMFY_E_UNKNOWN, COMFY_E_UNKNOWN},
	{HTTP_E_TIMEOUT, true, COMFY_E_UNKNOWN, COMFY_E_UNKNOWN},
	{HTTP_E_TOO_LARGE, true, COMFY_E_UNKNOWN, COMFY_E_LOCAL},
	{HTTP_E_SINK, true, COMFY_E_UNKNOWN, COMFY_E_LOCAL},
	{HTTP_E_INTERNAL, true, COMFY_E_UNKNOWN, COMFY_E_LOCAL},
	{HTTP_E_INTERNAL, false, COMFY_E_LOCAL, COMFY_E_LOCAL},
};

START_TEST(transport_failures)
{
	struct http_reply reply = {.outcome = transports[_i].http,
	                           .sent = transports[_i].sent,
	                           .content_type = ""};
	struct comfy_queue q;
	struct comfy_submitted s;

	(void)error_set(&reply.error, ERR_TIMEOUT, "because");
	s = submitted(reply);
	ck_assert_int_eq(s.r.outcome, transports[_i].post);
	ck_assert_int_eq(s.r.error.code, ERR_TIMEOUT);
	ck_assert_str_eq(s.r.error.text, "because");
	comfy_decode_queue(&q, &reply);
	ck_assert_int_eq(q.r.outcome, transports[_i].get);
	ck_assert_int_eq(comfy_queue_ahead(&q, "a", NULL), -1);
}
END_TEST

/* --- GET /queue ----------------------------------------------------------- */

static struct comfy_queue queue(const char *body)
{
	struct http_reply reply = json_reply(200, body);
	struct comfy_queue q;

	comfy_decode_queue(&q, &reply);
	return q;
}

START_TEST(queue_order)
{
	struct comfy_queue q =
		queue("{\"queue_running\":[[7,\"run\",{},{},[]]],"
	              "\"queue_pending\":[[10,\"c\",{},{},[],{\"sixth\":1}],"
	              "[9.5,\"b\"],[-1,\"a\"],[10,\"ca\"],[10,\"B\"],"
	              "[NaN,\"n\"],[1e400,\"huge\"]]}");
	static const char *const order[] = {"a", "huge", "n", "b",
	                                    "B", "c",    "ca"};
	bool running;

	ck_assert_int_eq(q.r.outcome, COMFY_OK);
	ck_assert_uint_eq(q.running_count, 1);
	ck_assert_uint_eq(q.pending_count, ARRAY_SIZE(order));
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		ck_assert_msg(span_eq_str(q.pending[i].prompt_id, order[i]),
		              "%zu: %.*s", i, (int)q.pending[i].prompt_id.n,
		              q.pending[i].prompt_id.p);
		ck_assert_int_eq(comfy_queue_ahead(&q, order[i], &running),
		                 (int64_t)i + 1);
		ck_assert(!running);
	}
	ck_assert_int_eq(comfy_queue_ahead(&q, "run", &running), 0);
	ck_assert(running);
	ck_assert_int_eq(comfy_queue_ahead(&q, "none", &running), -1);
	ck_assert(!running);
	comfy_queue_deinit(&q);
}
END_TEST

START_TEST(queue_ids_are_compared_decoded)
{
	struct comfy_queue q = queue("{\"queue_running\":[],\"queue_pending\":"
	                             "[[1,\"\\u0061\\/b\"],[2,\"a\"],"
	                             "[3,\"a\"]]}");

	ck_assert_int_eq(comfy_queue_ahead(&q, "a/b", NULL), 0);
	/* Ids are not unique; the first counts. */
	ck_assert_int_eq(comfy_queue_ahead(&q, "a", NULL), 1);
	comfy_queue_deinit(&q);
	q = queue("{\"queue_running\":[],\"queue_pending\":[]}");
	ck_assert_int_eq(q.r.outcome, COMFY_OK);
	ck_assert_int_eq(comfy_queue_ahead(&q, "a", NULL), -1);
	comfy_queue_deinit(&q);
}
END_TEST

static const char *const bad_queues[] = {
	"{}",
	"[]",
	"{\"queue_running\":[]}",
	"{\"queue_running\":{},\"queue_pending\":[]}",
	"{\"queue_running\":[1],\"queue_pending\":[]}",
	"{\"queue_running\":[[]],\"queue_pending\":[]}",
	"{\"queue_running\":[[1]],\"queue_pending\":[]}",
	"{\"queue_running\":[[\"a\",\"a\"]],\"queue_pending\":[]}",
	"{\"queue_running\":[],\"queue_pending\":[[1,\"a\"],[1,2]]}",
};

START_TEST(bad_queue)
{
	struct comfy_queue q = queue(bad_queues[_i]);

	ck_assert_int_eq(q.r.outcome, COMFY_E_REPLY);
	ck_assert_int_eq(q.r.error.code, ERR_PROTOCOL);
	ck_assert_uint_eq(q.running_count + q.pending_count, 0);
	ck_assert_ptr_null(q.running);
}
END_TEST

/* --- the others ----------------------------------------------------------- */

START_TEST(history_entries)
{
	struct http_reply reply =
		json_reply(200, "{\"a\\/b\":{\"outputs\":{}},\"c\":[],"
	                        "\"d\":{\"x\":NaN}}");
	struct comfy_history h;

	comfy_decode_history(&h, &reply, "a/b");
	ck_assert_int_eq(h.r.outcome, COMFY_OK);
	ck_assert(json_is(h.entry, JSON_OBJECT));
	comfy_decode_history(&h, &reply, "d");
	ck_assert(json_is(h.entry, JSON_OBJECT));
	comfy_decode_history(&h, &reply, "none");
	ck_assert_int_eq(h.r.outcome, COMFY_OK);
	ck_assert(json_is(h.entry, JSON_NONE));
	comfy_decode_history(&h, &reply, "c");
	ck_assert_int_eq(h.r.outcome, COMFY_E_REPLY);
	ck_assert(json_is(h.entry, JSON_NONE));
}
END_TEST

START_TEST(job_cancel)
{
	struct http_reply reply = json_reply(200, "{\"cancelled\":true}");
	struct comfy_result r;
	bool cancelled;

	comfy_decode_job_cancel(&r, &reply, &cancelled);
	ck_assert(r.outcome == COMFY_OK && cancelled);
	reply = json_reply(200, "{\"cancelled\":false}");
	comfy_decode_job_cancel(&r, &reply, &cancelled);
	ck_assert(r.outcome == COMFY_OK && !cancelled);
	reply = json_reply(200, "{\"cancelled\":1}");
	comfy_decode_job_cancel(&r, &reply, &cancelled);
	ck_assert(r.outcome == COMFY_E_REPLY && !cancelled);
}
END_TEST

START_TEST(success_without_content)
{
	struct comfy_result r;
	struct http_reply reply =
		reply_of(200, "application/octet-stream", span_make(NULL, 0));

	comfy_decode(&r, &reply, COMFY_EXPECT_NOTHING, true);
	ck_assert_int_eq(r.outcome, COMFY_OK);
	ck_assert(json_is(r.body, JSON_NONE));
	reply = json_reply(200, "not JSON at all");
	comfy_decode(&r, &reply, COMFY_EXPECT_NOTHING, true);
	ck_assert_int_eq(r.outcome, COMFY_OK);
	ck_assert_int_eq(r.error.code, ERR_NONE);
	/* A file that is said to be JSON is a file. */
	comfy_decode(&r, &reply, COMFY_EXPECT_BYTES, false);
	ck_assert_int_eq(r.outcome, COMFY_OK);
	ck_assert(json_is(r.body, JSON_NONE));
	reply = reply_of(200, "application/problem+json", SPAN("[1]"));
	comfy_decode(&r, &reply, COMFY_EXPECT_JSON, false);
	ck_assert_int_eq(r.outcome, COMFY_OK);
	ck_assert(json_is(r.body, JSON_ARRAY));
}
END_TEST

static Suite *comfy_reply_suite(void)
{
	Suite *s = suite_create("comfy_reply");
	TCase *t = tcase_create("comfy_reply");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, recordings);
	tcase_add_test(t, submitted_by_other_versions);
	tcase_add_loop_test(t, odd_replies, 0, ARRAY_SIZE(odd));
	tcase_add_test(t, bounds);
	tcase_add_loop_test(t, transport_failures, 0, ARRAY_SIZE(transports));
	tcase_add_test(t, queue_order);
	tcase_add_test(t, queue_ids_are_compared_decoded);
	tcase_add_loop_test(t, bad_queue, 0, ARRAY_SIZE(bad_queues));
	tcase_add_test(t, history_entries);
	tcase_add_test(t, job_cancel);
	tcase_add_test(t, success_without_content);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(comfy_reply_suite());
}
