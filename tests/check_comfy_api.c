/*
 * check_comfy_api.c - requests to ComfyUI as they go over the wire, against a
 * scripted server in this process: what is sent, digit for digit, what the
 * callbacks get, and the steps of a cancellation on old and new servers.
 */
#include "common/comfy_api.h"

#include <ev.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "tests/runner.h"
#include "tests/script_server.h"

#define GUARD_S  60.  /* far beyond what any test needs */
#define SHORT_MS 4000 /* for what is meant to time out */

static struct ev_loop *loop;
static struct http *http;
static struct script_server *server;
static struct comfy_api *api;
static ev_timer guard;

/* What is answered, where the scripted queue below isn't asked. */
static struct {
	int status; /* 0: close without a reply, -1: never reply */
	const char *type, *body;
} answer;

/* The last request, and all of them as "METHOD path body\n". */
static struct {
	char method[16], path[2048], type[128];
	struct buf body, log;
} seen;

/* A queue that behaves as ComfyUI's does. */
static struct {
	bool on, has_jobs;
	int jobs_status;           /* of /api/jobs/... without has_jobs */
	unsigned running, pending; /* how many are called "p" */
	bool pops;     /* starts to run just before the deletion comes */
	bool stubborn; /* deletes nothing */
	unsigned interrupts;
} queue;

static struct {
	unsigned calls;
	enum comfy_outcome outcome;
	int status;
	char type[128], id[300], text[ERROR_TEXT_MAX];
	struct buf raw;
	double number;
	bool has_entry;
	enum comfy_cancel_how how;
	size_t sunk;
} got;

/* --- the script ----------------------------------------------------------- */

static void reply_queue(struct script_conn *c)
{
	struct buf out = BUF_INIT(4096);

	(void)buf_puts(&out, "{\"queue_running\":[[1,\"other\",{},{},[]]");
	for (unsigned i = 0; i < queue.running; i++)
		(void)buf_puts(&out, ",[2,\"p\",{},{},[]]");
	(void)buf_puts(&out, "],\"queue_pending\":[[9,\"last\",{},{},[]]");
	for (unsigned i = 0; i < queue.pending; i++)
		(void)buf_puts(&out, ",[3,\"p\",{},{},[]]");
	(void)buf_puts(&out, "]}");
	ck_assert(buf_ok(&out));
	script_reply(c, 200, "application/json", out.data, out.len);
	buf_deinit(&out);
}

static void act_queue(struct script_conn *c, const struct script_request *req)
{
	bool post = strcmp(req->method, "POST") == 0;

	if (strcmp(req->path, "/comfy/api/jobs/p/cancel") == 0) {
		const char *body = queue.pending + queue.running
		                           ? "{\"cancelled\":true}"
		                           : "{\"cancelled\":false}";

		if (queue.has_jobs)
			script_reply(c, 200, "application/json", body,
			             strlen(body));
		else
			script_reply(c, queue.jobs_status, "text/plain", "", 0);
	} else if (post && strcmp(req->path, "/comfy/queue") == 0) {
		ck_assert(span_eq_str(req->body, "{\"delete\":[\"p\"]}"));
		if (queue.pops && queue.pending > 0) {
			queue.pending--;
			queue.running++;
		} else if (queue.pending > 0 && !queue.stubborn) {
			queue.pending--;
		}
		script_reply(c, 200, "application/octet-stream", "", 0);
	} else if (post) {
		ck_assert_str_eq(req->path, "/comfy/interrupt");
		ck_assert(span_eq_str(req->body, "{\"prompt_id\":\"p\"}"));
		queue.interrupts++;
		script_reply(c, 200, "application/octet-stream", "", 0);
	} else {
		ck_assert_str_eq(req->path, "/comfy/queue");
		reply_queue(c);
	}
}

static void on_request(void *user, struct script_conn *c,
                       const struct script_request *req)
{
	(void)snprintf(seen.method, sizeof(seen.method), "%s", req->method);
	(void)snprintf(seen.path, sizeof(seen.path), "%s", req->path);
	(void)snprintf(seen.type, sizeof(seen.type), "%s",
	               script_header(req, "Content-Type"));
	buf_reset(&seen.body);
	(void)buf_append(&seen.body, req->body.p, req->body.n);
	(void)buf_printf(&seen.log, "%s %s\n", req->method, req->path);
	ck_assert(buf_ok(&seen.body) && buf_ok(&seen.log));
	if (queue.on)
		act_queue(c, req);
	else if (answer.status == 0)
		script_close(c, 0);
	else if (answer.status > 0)
		script_reply(c, answer.status, answer.type, answer.body,
		             strlen(answer.body));
}

/* --- fixture -------------------------------------------------------------- */

static void ATTR_NORETURN on_guard(struct ev_loop *l, ev_timer *t, int revents)
{
	ck_abort_msg("the loop does not end");
}

static void new_api(unsigned timeout_ms)
{
	const struct http_config cfg = {.timeout_ms = timeout_ms};
	struct error err = ERROR_NULL;
	struct url url;
	char text[128];

	api = comfy_api_free(api);
	http = http_free(http);
	(void)snprintf(text, sizeof(text), "%s/comfy/",
	               script_server_url(server));
	ck_assert_int_eq(url_parse(&url, text, &err), 0);
	http = http_new(loop, &cfg, &err);
	ck_assert_ptr_nonnull(http);
	api = comfy_api_new(loop, http, &url, &err);
	ck_assert_ptr_nonnull(api);
}

static void setup(void)
{
	ck_assert(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	ck_assert_int_eq(http_global_init(NULL), 0);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	ev_timer_init(&guard, on_guard, GUARD_S, 0.);
	ev_timer_start(loop, &guard);
	memset(&got, 0, sizeof(got));
	memset(&seen, 0, sizeof(seen));
	memset(&queue, 0, sizeof(queue));
	buf_init(&got.raw, 64u << 20);
	buf_init(&seen.body, 64u << 20);
	buf_init(&seen.log, 64u << 10);
	answer.status = 200;
	answer.type = "application/json; charset=utf-8";
	answer.body = "{}";
	server = script_server_new(loop, on_request, NULL);
	http = NULL;
	api = NULL;
	new_api(30000);
}

static void teardown(void)
{
	api = comfy_api_free(api);
	http = http_free(http);
	server = script_server_free(server);
	buf_deinit(&got.raw);
	buf_deinit(&seen.body);
	buf_deinit(&seen.log);
	ev_timer_stop(loop, &guard);
	ev_loop_destroy(loop);
}

static void on_result(void *user, const struct comfy_result *r)
{
	got.calls++;
	got.outcome = r->outcome;
	got.status = r->status;
	(void)snprintf(got.type, sizeof(got.type), "%s", r->content_type);
	(void)snprintf(got.text, sizeof(got.text), "%s", r->error.text);
	ck_assert_int_eq(*r->error.text == '\0', r->outcome == COMFY_OK);
	buf_reset(&got.raw);
	ck_assert_int_eq(buf_append(&got.raw, r->raw.p, r->raw.n), 0);
}

static void on_submitted(void *user, const struct comfy_submitted *s)
{
	on_result(user, &s->r);
	(void)snprintf(got.id, sizeof(got.id), "%s", s->prompt_id);
	got.number = s->number;
}

static void on_queue(void *user, const struct comfy_queue *q)
{
	on_result(user, &q->r);
	got.number = (double)comfy_queue_ahead(q, "last", NULL);
}

static void on_history(void *user, const struct comfy_history *h)
{
	on_result(user, &h->r);
	got.has_entry = !json_is(h->entry, JSON_NONE);
}

static void on_cancelled(void *user, const struct comfy_cancelled *c)
{
	on_result(user, &c->r);
	got.how = c->how;
}

static bool on_data(void *user, const char *data, size_t len)
{
	got.sunk += len;
	return true;
}

static void wait_calls(unsigned n)
{
	while (got.calls < n)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_uint_eq(got.calls, n);
}

/* Waits for the one callback of a call that was just started. */
static void wait_for(struct comfy_call *c)
{
	unsigned calls = got.calls;

	ck_assert_ptr_nonnull(c);
	wait_calls(calls + 1);
}

static void answer_with(int status, const char *body)
{
	answer.status = status;
	answer.body = body;
}

static void assert_sent(const char *method, const char *path, const char *body)
{
	ck_assert_str_eq(seen.method, method);
	ck_assert_str_eq(seen.path, path);
	ck_assert_msg(seen.body.len == strlen(body) &&
	                      memcmp(seen.body.data, body, seen.body.len) == 0,
	              "%.*s", (int)seen.body.len, seen.body.data);
}

/* --- prompts -------------------------------------------------------------- */

static const char workflow[] =
	"{\"3\": {\"inputs\": {\"seed\": 18446744073709551615, \"x\": 1e400, "
	"\"n\": NaN, \"t\": \"\\ud83d\\ude00\"}, \"class_type\": \"K\"}}";

static struct comfy_call *submit(void)
{
	struct comfy_submission s = {.workflow = SPAN(workflow),
	                             .prompt_id = "id-1",
	                             .client_id = "a \"client\"",
	                             .extra_data = SPAN("{\"k\": 1.50}")};

	return comfy_submit(api, &s, on_submitted, NULL, NULL);
}

START_TEST(submits)
{
	char want[1024];
	struct comfy_submission bare = {.workflow = SPAN("{}")};

	answer_with(200, "{\"prompt_id\":\"id-2\",\"number\":4,"
	                 "\"node_errors\":{}}");
	wait_for(submit());
	ck_assert_int_eq(got.outcome, COMFY_OK);
	/* An older server has ids of its own. */
	ck_assert_str_eq(got.id, "id-2");
	ck_assert(got.number > 3.9 && got.number < 4.1);
	(void)snprintf(want, sizeof(want),
	               "{\"prompt\":%s,\"client_id\":\"a \\\"client\\\"\","
	               "\"prompt_id\":\"id-1\",\"extra_data\":{\"k\": 1.50,"
	               "\"comfymux\":{\"prompt_id\":\"id-1\"}}}",
	               workflow);
	assert_sent("POST", "/comfy/prompt", want);
	ck_assert_str_eq(seen.type, "application/json");
	wait_for(comfy_submit(api, &bare, on_submitted, NULL, NULL));
	assert_sent("POST", "/comfy/prompt", "{\"prompt\":{}}");
}
END_TEST

START_TEST(submission_outcomes)
{
	answer_with(400, "{\"error\":{\"type\":\"prompt_no_outputs\","
	                 "\"message\":\"Prompt has no outputs\",\"details\":"
	                 "\"\",\"extra_info\":{}},\"node_errors\":{}}");
	wait_for(submit());
	ck_assert_int_eq(got.outcome, COMFY_E_REJECTED);
	ck_assert_ptr_nonnull(strstr(got.text, "Prompt has no outputs"));
	ck_assert_uint_eq(got.raw.len, strlen(answer.body));
	/* No reply, and it was seen once. */
	answer.status = 0;
	wait_for(submit());
	ck_assert_int_eq(got.outcome, COMFY_E_UNKNOWN);
	ck_assert_uint_eq(script_server_requests(server), 2);
	new_api(SHORT_MS);
	answer.status = -1;
	wait_for(submit());
	ck_assert_int_eq(got.outcome, COMFY_E_UNKNOWN);
	ck_assert_uint_eq(script_server_requests(server), 3);
	/* Nobody there. */
	new_api(30000);
	server = script_server_free(server);
	wait_for(submit());
	ck_assert_int_eq(got.outcome, COMFY_E_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(got.text, "/comfy/prompt"));
}
END_TEST

START_TEST(asks_for_queue_and_history)
{
	answer_with(200, "{\"queue_running\":[[1,\"a\"]],"
	                 "\"queue_pending\":[[9,\"last\"],[2,\"b\"]]}");
	wait_for(comfy_get_queue(api, on_queue, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ck_assert(got.number > 1.9 && got.number < 2.1);
	assert_sent("GET", "/comfy/queue", "");

	answer_with(200, "{\"a/b c\":{}}");
	wait_for(comfy_get_history(api, "a/b c", on_history, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ck_assert(got.has_entry);
	assert_sent("GET", "/comfy/history/a%2Fb%20c", "");
	wait_for(comfy_get_history(api, "x", on_history, NULL, NULL));
	ck_assert(!got.has_entry);
	/* A file's name that wasn't UTF-8 doesn't cost the whole reply. */
	answer_with(200, "{\"x\":{\"outputs\":{\"9\":{\"images\":"
	                 "[{\"filename\":\"\\udcff.png\"}]}}}}");
	wait_for(comfy_get_history(api, "x", on_history, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ck_assert(got.has_entry);
	ck_assert_ptr_null(comfy_get_history(api, "", on_history, NULL, NULL));

	wait_for(comfy_list_history(api, 7, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	assert_sent("GET", "/comfy/history?max_items=7", "");
	answer_with(200, "[]");
	wait_for(comfy_list_history(api, 7, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_REPLY);
}
END_TEST

static const char *const bad_paths[] = {"",     "queue", "/a b",
                                        "/a\n", "/a#b",  "/\xc3\xa4"};

START_TEST(asks_for_json)
{
	struct error err = ERROR_NULL;

	answer_with(200, "[\"checkpoints\"]");
	wait_for(comfy_get_json(api, "/models?x=%20y", on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	assert_sent("GET", "/comfy/models?x=%20y", "");
	answer_with(404, "");
	wait_for(comfy_get_json(api, "/models/none", on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_NOT_FOUND);
	for (size_t i = 0; i < ARRAY_SIZE(bad_paths); i++) {
		ck_assert_ptr_null(comfy_get_json(api, bad_paths[i], on_result,
		                                  NULL, &err));
		ck_assert_int_eq(err.code, ERR_INVALID);
	}
}
END_TEST

/* --- files ---------------------------------------------------------------- */

START_TEST(views)
{
	struct comfy_view v = {.filename = "a b&c/\xc3\xa4.png"};

	answer.type = "image/png";
	answer_with(200, "bytes");
	wait_for(comfy_get_view(api, &v, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ck_assert_str_eq(got.type, "image/png");
	ck_assert_uint_eq(got.raw.len, 5);
	assert_sent("GET", "/comfy/view?filename=a%20b%26c%2F%C3%A4.png", "");
	v = (struct comfy_view){.filename = "x",
	                        .subfolder = "s/t",
	                        .type = "output",
	                        .preview = "webp;75",
	                        .on_data = on_data};
	wait_for(comfy_get_view(api, &v, on_result, NULL, NULL));
	ck_assert_uint_eq(got.sunk, 5);
	ck_assert_uint_eq(got.raw.len, 0);
	assert_sent("GET",
	            "/comfy/view?filename=x&subfolder=s%2Ft&type=output"
	            "&preview=webp%3B75",
	            "");
	v = (struct comfy_view){.filename = "x", .reply_max = 4};
	wait_for(comfy_get_view(api, &v, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_LOCAL);
	answer_with(404, "");
	wait_for(comfy_get_view(api, &v, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_NOT_FOUND);
	v.filename = "";
	ck_assert_ptr_null(comfy_get_view(api, &v, on_result, NULL, NULL));
}
END_TEST

static bool body_has(const char *text)
{
	return memmem(seen.body.data, seen.body.len, text, strlen(text)) !=
	       NULL;
}

START_TEST(uploads)
{
	struct comfy_upload u = {.filename = "a.png",
	                         .subfolder = "sub",
	                         .overwrite = true,
	                         .data = span_make("\0\1\2", 3)};

	answer_with(200, "{\"name\":\"a (1).png\",\"subfolder\":\"sub\","
	                 "\"type\":\"input\"}");
	wait_for(comfy_upload(api, &u, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ck_assert_str_eq(seen.path, "/comfy/upload/image");
	ck_assert_int_eq(strncmp(seen.type, "multipart/form-data;", 20), 0);
	ck_assert(body_has("name=\"image\"; filename=\"a.png\""));
	ck_assert(body_has("name=\"subfolder\"\r\n\r\nsub\r\n"));
	ck_assert(body_has("name=\"overwrite\"\r\n\r\ntrue\r\n"));
	ck_assert_ptr_nonnull(
		memmem(seen.body.data, seen.body.len, "\r\n\r\n\0\1\2\r\n", 9));
	u = (struct comfy_upload){.filename = "b"};
	wait_for(comfy_upload(api, &u, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ck_assert(!body_has("subfolder") && !body_has("overwrite"));
	answer_with(200, "{}");
	wait_for(comfy_upload(api, &u, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_REPLY);
	answer_with(400, "");
	wait_for(comfy_upload(api, &u, on_result, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_STATUS);
	u.filename = NULL;
	ck_assert_ptr_null(comfy_upload(api, &u, on_result, NULL, NULL));
}
END_TEST

/* --- cancelling ----------------------------------------------------------- */

static const struct {
	const char *name;
	bool has_jobs;
	unsigned running, pending;
	bool pops, stubborn;
	enum comfy_outcome outcome;
	enum comfy_cancel_how how;
	unsigned interrupts, requests;
} cancels[] = {
	{"new, pending", true, 0, 1, false, false, COMFY_OK, COMFY_CANCEL_DONE,
         0, 1},
	{"new, unknown", true, 0, 0, false, false, COMFY_OK, COMFY_CANCEL_NONE,
         0, 1},
	{"old, pending", false, 0, 1, false, false, COMFY_OK,
         COMFY_CANCEL_DEQUEUED, 0, 4},
	{"old, running", false, 1, 0, false, false, COMFY_OK,
         COMFY_CANCEL_INTERRUPTED, 1, 3},
	{"old, unknown", false, 0, 0, false, false, COMFY_OK, COMFY_CANCEL_NONE,
         0, 2},
	{"old, begins to run", false, 0, 1, true, false, COMFY_OK,
         COMFY_CANCEL_INTERRUPTED, 1, 5},
	{"old, three times", false, 1, 2, false, false, COMFY_OK,
         COMFY_CANCEL_INTERRUPTED, 1, 7},
	{"old, stubborn", false, 0, 1, false, true, COMFY_E_REPLY,
         COMFY_CANCEL_NONE, 0, 2 + 2 * 8},
};

START_TEST(cancels_prompts)
{
	queue.on = true;
	queue.has_jobs = cancels[_i].has_jobs;
	queue.jobs_status = _i % 2 ? 404 : 405;
	queue.running = cancels[_i].running;
	queue.pending = cancels[_i].pending;
	queue.pops = cancels[_i].pops;
	queue.stubborn = cancels[_i].stubborn;
	wait_for(comfy_cancel(api, "p", on_cancelled, NULL, NULL));
	ck_assert_msg(got.outcome == cancels[_i].outcome, "%s: %s",
	              cancels[_i].name, got.text);
	ck_assert_msg(got.how == cancels[_i].how, "%s: %d", cancels[_i].name,
	              got.how);
	ck_assert_uint_eq(queue.interrupts, cancels[_i].interrupts);
	ck_assert_uint_eq(script_server_requests(server), cancels[_i].requests);
}
END_TEST

static unsigned jobs_requests(void)
{
	unsigned n = 0;

	for (const char *p = buf_cstr(&seen.log);
	     (p = strstr(p, "/api/jobs/")) != NULL; p++)
		n++;
	return n;
}

START_TEST(remembers_what_the_server_lacks)
{
	static const struct {
		int status;
		unsigned asked; /* in two cancellations */
	} rows[] = {{404, 1}, {405, 1}, {403, 2}, {500, 2}};

	queue.on = true;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		new_api(30000);
		buf_reset(&seen.log);
		queue.jobs_status = rows[i].status;
		for (int n = 0; n < 2; n++) {
			queue.pending = 1;
			wait_for(comfy_cancel(api, "p", on_cancelled, NULL,
			                      NULL));
			ck_assert_int_eq(got.how, COMFY_CANCEL_DEQUEUED);
		}
		ck_assert_uint_eq(jobs_requests(), rows[i].asked);
	}
}
END_TEST

START_TEST(cancellation_fails)
{
	/* No reply to the first request: it may have been done. */
	answer.status = 0;
	wait_for(comfy_cancel(api, "p", on_cancelled, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_UNKNOWN);
	ck_assert_uint_eq(script_server_requests(server), 1);
	/* Something else than ComfyUI: no job, no queue. */
	answer_with(404, "");
	wait_for(comfy_cancel(api, "p", on_cancelled, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_NOT_FOUND);
	ck_assert_int_eq(got.how, COMFY_CANCEL_NONE);
	ck_assert_ptr_null(comfy_cancel(api, "", on_cancelled, NULL, NULL));
	server = script_server_free(server);
	wait_for(comfy_cancel(api, "p", on_cancelled, NULL, NULL));
	ck_assert_int_eq(got.outcome, COMFY_E_UNREACHABLE);
}
END_TEST

START_TEST(cancellation_encodes_the_id)
{
	answer_with(200, "{\"cancelled\":true}");
	wait_for(comfy_cancel(api, "../a?b", on_cancelled, NULL, NULL));
	assert_sent("POST", "/comfy/api/jobs/..%2Fa%3Fb/cancel", "{}");
}
END_TEST

/* --- what callbacks may do ------------------------------------------------ */

START_TEST(ended_calls_stay_silent)
{
	struct comfy_call *c;

	answer.status = -1;
	c = comfy_get_queue(api, on_queue, NULL, NULL);
	(void)submit();
	while (script_server_requests(server) < 2)
		ev_run(loop, EVRUN_ONCE);
	comfy_call_cancel(c);
	api = comfy_api_free(api);
	while (script_server_open(server) > 0)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_uint_eq(got.calls, 0);
	ck_assert_ptr_null(comfy_api_free(NULL));
}
END_TEST

static struct comfy_call *self;

static void on_free_all(void *user, const struct comfy_queue *q)
{
	comfy_call_cancel(self); /* nothing */
	api = comfy_api_free(api);
	http = http_free(http);
	on_queue(user, q);
}

START_TEST(callback_frees_everything)
{
	answer_with(200, "{\"queue_running\":[],\"queue_pending\":[]}");
	self = comfy_get_queue(api, on_free_all, NULL, NULL);
	(void)submit();
	wait_for(self);
	ck_assert_int_eq(got.outcome, COMFY_OK);
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert_uint_eq(got.calls, 1);
}
END_TEST

START_TEST(requests_past_the_limit)
{
	struct error err = ERROR_NULL;

	answer.status = -1;
	for (int i = 0; i < HTTP_CALLS_MAX; i++)
		ck_assert_ptr_nonnull(submit());
	ck_assert_ptr_null(comfy_get_queue(api, on_queue, NULL, &err));
	ck_assert_int_eq(err.code, ERR_LIMIT);
}
END_TEST

static Suite *comfy_api_suite(void)
{
	Suite *s = suite_create("comfy_api");
	TCase *t = tcase_create("comfy_api");

	tcase_set_timeout(t, 2 * GUARD_S);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, submits);
	tcase_add_test(t, submission_outcomes);
	tcase_add_test(t, asks_for_queue_and_history);
	tcase_add_test(t, asks_for_json);
	tcase_add_test(t, views);
	tcase_add_test(t, uploads);
	tcase_add_loop_test(t, cancels_prompts, 0, ARRAY_SIZE(cancels));
	tcase_add_test(t, remembers_what_the_server_lacks);
	tcase_add_test(t, cancellation_fails);
	tcase_add_test(t, cancellation_encodes_the_id);
	tcase_add_test(t, ended_calls_stay_silent);
	tcase_add_test(t, callback_frees_everything);
	tcase_add_test(t, requests_past_the_limit);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(comfy_api_suite());
}
