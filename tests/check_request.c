/*
 * check_request.c - a whole worker for the command line, in a process of its
 * own: the test is its keeper, its supervisor and its ComfyUI.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/log.h"
#include "ipc/channel.h"
#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/request.h"

#define ID       "33333333-3333-4333-8333-333333333333"
#define WORKFLOW "{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{}}}"
#define RUN                                                                    \
	"{\"op\":\"run\",\"params\":{\"prompt_id\":\"" ID                      \
	"\",\"workflow\":" WORKFLOW "}}"

static struct ev_loop *loop;
static struct fake_bus bus;
static struct fake_comfy comfy;

/* --- the keeper's end ---------------------------------------------------- */

#define FRAMES_MAX 4096

struct got {
	enum channel_type type;
	uint64_t line;
	char *text;
	bool taken;
};

static struct channel channel;
static ev_io io;
static pid_t pid;
static struct got frames[FRAMES_MAX];
static size_t frame_count;
static bool eof;

static void on_channel(struct ev_loop *l, ev_io *w, int revents)
{
	struct channel_frame f;
	struct error err;
	int r = channel_read(&channel);

	while (r >= 0 && (r = channel_next(&channel, &f, &err)) > 0) {
		ck_assert_uint_lt(frame_count, FRAMES_MAX);
		frames[frame_count].type = f.type;
		frames[frame_count].line = f.line;
		frames[frame_count].text =
			strndup(f.payload.p ? f.payload.p : "", f.payload.n);
		frames[frame_count++].taken = false;
	}
	ck_assert_msg(r >= 0 || r == -ECONNRESET, "%s", err.text);
	if (channel.eof || r < 0) {
		eof = true;
		ev_io_stop(l, w);
	}
}

static void tell_fd(enum channel_type type, uint64_t line, const char *text,
                    int fd)
{
	ck_assert_int_eq(channel_send(&channel, type, line, SPAN(text), fd), 0);
	ck_assert_int_eq(channel_flush(&channel), 0);
}

static void tell(enum channel_type type, uint64_t line, const char *text)
{
	tell_fd(type, line, text, -1);
}

/* The next frame of this type and line (0: any); NULL if none came yet. */
static struct got *peek(enum channel_type type, uint64_t line)
{
	for (size_t i = 0; i < frame_count; i++) {
		if (!frames[i].taken && frames[i].type == type &&
		    (line == 0 || frames[i].line == line))
			return &frames[i];
	}
	return NULL;
}

static const char *await(enum channel_type type, uint64_t line)
{
	struct got *g;

	run_until(loop, peek(type, line) != NULL || eof);
	g = peek(type, line);
	ck_assert_msg(g != NULL, "the worker left");
	g->taken = true;
	return g->text;
}

static unsigned count_frames(enum channel_type type)
{
	unsigned n = 0;

	for (size_t i = 0; i < frame_count; i++)
		n += frames[i].type == type;
	return n;
}

/* A member of a JSON text by path "a.b"; its text, "" if there is none. Static
 * buffers, four at a time. */
static const char *member(const char *text, const char *path)
{
	static char out[4][4096];
	static unsigned next;
	char part[64];
	struct json j;

	next = (next + 1) % 4;
	ck_assert_msg(json_parse(&j, text, strlen(text), 0, NULL) == JSON_OK,
	              "not JSON: %s", text);
	while (*path) {
		size_t n = strcspn(path, ".");

		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		j = json_get(j, part);
		path += n + (path[n] == '.');
	}
	snprintf(out[next], sizeof(out[next]), "%.*s", (int)j.text.n,
	         j.text.p ? j.text.p : "");
	return out[next];
}

#define expect(text, path, value)                                              \
	ck_assert_msg(strcmp(member(text, path), value) == 0,                  \
	              "%s is %s, not %s, in %s", path, member(text, path),     \
	              value, text)

/* Starts a worker: with the fake bus, as a tenant's, if asked. */
static void start_worker(bool with_bus, bool tenant)
{
	struct worker_start start = {.bus_fd = -1, .tenant = tenant};
	struct error err;
	int sv[2];

	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	start.session_fd = sv[1];
	if (with_bus)
		start.bus_fd = fake_bus_open(&bus, loop);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		log_set_level(LOG_LEVEL_ERROR);
		if (worker_begin(&start, &err))
			_exit(99);
		exit(worker_run(&start));
	}
	close(sv[1]);
	if (with_bus)
		close(start.bus_fd);
	ck_assert_int_eq(channel_init(&channel, sv[0], false), 0);
	ev_io_init(&io, on_channel, channel.fd, EV_READ);
	ev_io_start(loop, &io);
}

static void say_hello(const char *more)
{
	char hello[1024];

	snprintf(hello, sizeof(hello),
	         "{\"kind\":\"run\",\"comfyui\":\"%s\",\"comfyui_named\":true,"
	         "\"client_id\":\"k-client\",\"connect_timeout_ms\":60000,"
	         "\"request_timeout_ms\":60000,\"poll_interval_ms\":200,"
	         "\"log_level\":\"error\"%s}",
	         script_server_url(comfy.server), more);
	tell(CHANNEL_HELLO, 0, hello);
}

/* The exit status; waits for the end. */
static int worker_status(void)
{
	int status;

	run_until(loop, eof);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	pid = 0;
	ck_assert_msg(WIFEXITED(status), "killed by %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static void setup(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	fake_comfy_init(&comfy, loop);
	memset(&bus, 0, sizeof(bus));
	bus.fd = -1;
	frame_count = 0;
	eof = false;
	channel = (struct channel)CHANNEL_NULL;
}

static void teardown(void)
{
	if (pid > 0 && !eof) {
		/* Every test ends with the keeper's going: at once, cleanly. */
		ev_io_stop(loop, &io);
		channel_deinit(&channel);
		eof = true;
		ck_assert_int_eq(worker_status(), 0);
	}
	ev_io_stop(loop, &io);
	channel_deinit(&channel);
	for (size_t i = 0; i < frame_count; i++)
		free(frames[i].text);
	fake_bus_close(&bus);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

static void start_alone(void)
{
	start_worker(false, false);
	say_hello("");
	await(CHANNEL_READY, 0);
}

static void on_bus_request(struct fake_bus *b, const char *op, struct json req)
{
	if (strcmp(op, "queue") == 0)
		fake_bus_reply(b, req,
		               "{\"running\":[],\"pending\":[],\"others\":3}");
	else if (strcmp(op, "progress") == 0)
		fake_bus_refuse(b, req, "not_found", "\"hint\":\"h\"");
	else if (strcmp(op, "subscribe") == 0)
		fake_bus_reply(b, req, "{\"prompts\":1}");
	else if (strcmp(op, "submit") == 0)
		fake_bus_reply(b, req,
		               "{\"prompt_id\":\"" ID
		               "\",\"status\":\"queued\",\"number\":4}");
}

static void start_on_bus(void)
{
	bus.on_request = on_bus_request;
	start_worker(true, false);
	say_hello(",\"bus\":true");
	await(CHANNEL_READY, 0);
	run_until(loop, bus.attaches == 1);
}

/* --- run ----------------------------------------------------------------- */

START_TEST(runs)
{
	const char *a, *log;

	start_alone();
	tell(CHANNEL_REQUEST, 7, RUN);
	expect(await(CHANNEL_RECORD, 7), "prompt_id", "\"" ID "\"");
	run_until(loop, comfy.posts == 1);
	log = await(CHANNEL_LOG, 0);
	ck_assert_str_eq(log, "no supervisor (none is running): polling "
	                      "ComfyUI every 0.2 s");
	await(CHANNEL_WANT_BUS, 0);
	a = await(CHANNEL_OUTPUT, 7);
	expect(a, "event", "\"polled\"");
	expect(a, "total_nodes", "1");
	expect(a, "progress.method", "\"polling\"");
	expect(a, "progress.prompt_id", "\"" ID "\"");
	ck_assert_str_ne(member(a, "elapsed_ms"), "");
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	a = await(CHANNEL_RESPONSE, 7);
	expect(a, "ok", "true");
	expect(a, "result.prompt_id", "\"" ID "\"");
	expect(a, "result.status", "\"completed\"");
	expect(a, "result.progress_method", "\"polling\"");
	ck_assert_ptr_nonnull(strstr(member(a, "result.outputs"), "a.png"));
	ck_assert_ptr_nonnull(strstr(member(a, "result.progress_log"), "["));
	ck_assert_str_ne(member(a, "result.elapsed_ms"), "");
	ck_assert_str_eq(fake_comfy_find(&comfy, ID)->client_id, "k-client");
}
END_TEST

static const char *executed(unsigned seq, const char *data, const char *outputs)
{
	char progress[1024];

	snprintf(progress, sizeof(progress),
	         "{\"status\":\"executing\",\"outputs\":%s,\"method\":"
	         "\"websocket\"}",
	         outputs);
	fake_bus_event(&bus, "executed", seq, ID, data, progress);
	return await(CHANNEL_OUTPUT, 1);
}

/* Each output goes to the keeper with its event, all of them at the end. */
START_TEST(outputs_as_they_come)
{
	const char *a;

	start_on_bus();
	tell(CHANNEL_REQUEST, 1, RUN);
	await(CHANNEL_RECORD, 1);
	run_for(loop, 50);
	a = executed(1, "{\"node\":\"8\"}", "{\"8\":{\"a\":1}}");
	expect(a, "progress.outputs", "{\"8\":{\"a\":1}}");
	a = executed(2, "{\"node\":\"9\"}", "{\"9\":{}}");
	expect(a, "progress.outputs", "{\"9\":{}}");
	a = executed(3, "{\"node\":\"8\"}", "{\"8\":{\"a\":2}}");
	expect(a, "progress.outputs", "{\"8\":{\"a\":2}}");
	/* Its data was too long to pass on. */
	a = executed(4, "{\"truncated\":true}", "{\"7\":{}}");
	expect(a, "progress.outputs", "{\"8\":{\"a\":2},\"9\":{},\"7\":{}}");
	fake_bus_event(&bus, "executing", 5, ID, "{\"node\":\"6\"}",
	               "{\"status\":\"executing\",\"current_node\":\"6\","
	               "\"method\":\"websocket\"}");
	a = await(CHANNEL_OUTPUT, 1);
	expect(a, "progress.outputs", "");
	fake_bus_event(&bus, "finished", 6, ID, NULL,
	               "{\"status\":\"completed\",\"method\":\"websocket\"}");
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result.outputs", "{\"8\":{\"a\":2},\"9\":{},\"7\":{}}");
}
END_TEST

START_TEST(runs_on_the_bus)
{
	const char *a;

	start_on_bus();
	tell(CHANNEL_REQUEST, 1, RUN);
	await(CHANNEL_RECORD, 1);
	run_for(loop, 50);
	fake_bus_event(&bus, "progress", 1, ID, "{\"value\":5,\"max\":20}",
	               "{\"status\":\"executing\",\"current_node\":\"3\","
	               "\"current_node_progress\":0.25,\"method\":"
	               "\"websocket\"}");
	a = await(CHANNEL_OUTPUT, 1);
	expect(a, "event", "\"progress\"");
	expect(a, "class", "\"KSampler\"");
	expect(a, "progress.method", "\"websocket\"");
	fake_bus_event(&bus, "finished", 2, ID, NULL,
	               "{\"status\":\"completed\",\"outputs\":{\"9\":{}},"
	               "\"method\":\"websocket\"}");
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result.progress_method", "\"websocket\"");
	expect(a, "result.outputs", "{\"9\":{}}");
	ck_assert_uint_eq(comfy.posts + comfy.queues + comfy.histories, 0);
	ck_assert_uint_eq(count_frames(CHANNEL_LOG), 0);
}
END_TEST

START_TEST(failed_prompt_is_a_result)
{
	const char *a;

	start_alone();
	tell(CHANNEL_REQUEST, 1, RUN);
	run_until(loop, comfy.posts == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_FAILED;
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "ok", "true");
	expect(a, "result.status", "\"failed\"");
	expect(a, "result.error.type", "\"RuntimeError\"");
	expect(a, "result.error.node_id", "\"3\"");
}
END_TEST

START_TEST(refused_prompt_is_an_error)
{
	const char *a;

	start_alone();
	comfy.post = FAKE_POST_REJECT;
	tell(CHANNEL_REQUEST, 1, RUN);
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "ok", "false");
	expect(a, "error.type", "\"rejected\"");
	expect(a, "error.prompt_id", "\"" ID "\"");
	expect(a, "error.submitted", "false");
	ck_assert_ptr_nonnull(strstr(member(a, "error.message"), "KSampler"));
	expect(a, "error.node_errors.3.class_type", "\"KSampler\"");
	expect(a, "error.progress.error.type", "\"rejected\"");
}
END_TEST

START_TEST(valid_in_part_is_told)
{
	const char *a;

	start_alone();
	comfy.post = FAKE_POST_PARTLY;
	tell(CHANNEL_REQUEST, 1, RUN);
	run_until(loop, comfy.posts == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result.node_errors.4.class_type", "\"X\"");
}
END_TEST

START_TEST(timeout_is_an_error)
{
	const char *a;

	start_alone();
	tell(CHANNEL_REQUEST, 1,
	     "{\"op\":\"run\",\"params\":{\"prompt_id\":\"" ID
	     "\",\"timeout_ms\":5000,\"workflow\":" WORKFLOW "}}");
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "error.type", "\"timeout\"");
	expect(a, "error.prompt_id", "\"" ID "\"");
	expect(a, "error.submitted", "true");
	expect(a, "error.progress.status", "\"queued\"");
	expect(a, "error.progress.queue_position", "0");
}
END_TEST

START_TEST(cancelled_run)
{
	const char *a;

	start_alone();
	tell(CHANNEL_REQUEST, 1, RUN);
	run_until(loop, comfy.posts == 1);
	if (_i == 1)
		fake_comfy_find(&comfy, ID)->state = FAKE_RUNNING;
	tell(CHANNEL_CANCEL, 1, "");
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "ok", "true");
	expect(a, "result.status", "\"failed\"");
	expect(a, "result.error.type", "\"cancelled\"");
	ck_assert_uint_eq(comfy.interrupts, (unsigned)_i);
	tell(CHANNEL_CANCEL, 1, ""); /* too late: nothing */
	tell(CHANNEL_CANCEL, 99, "");
	run_for(loop, 50);
	ck_assert_uint_eq(count_frames(CHANNEL_RESPONSE), 1);
}
END_TEST

/* A cancel right behind its request: nothing is submitted. */
START_TEST(cancelled_at_once)
{
	const char *a;

	start_alone();
	ck_assert_int_eq(
		channel_send(&channel, CHANNEL_REQUEST, 1, SPAN(RUN), -1), 0);
	tell(CHANNEL_CANCEL, 1, "");
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result.error.type", "\"cancelled\"");
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

/* A successor: the record names the prompt, ComfyUI has it. */
START_TEST(resumes_a_record)
{
	const char *a;

	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	start_alone();
	tell(CHANNEL_RECORD, 5, "{\"prompt_id\":\"" ID "\"}");
	tell(CHANNEL_RECORD, 6, "{\"prompt_id\":\"other\"}");
	tell(CHANNEL_REQUEST, 5,
	     "{\"op\":\"run\",\"params\":{\"workflow\":" WORKFLOW "}}");
	await(CHANNEL_OUTPUT, 5);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	a = await(CHANNEL_RESPONSE, 5);
	expect(a, "result.prompt_id", "\"" ID "\"");
	ck_assert_uint_eq(comfy.posts, 0);
	ck_assert_uint_eq(count_frames(CHANNEL_RECORD), 0);
}
END_TEST

/* --- the other ops, without a supervisor --------------------------------- */

static const char *ask(const char *request)
{
	static uint64_t line = 100;

	tell(CHANNEL_REQUEST, ++line, request);
	return await(CHANNEL_RESPONSE, line);
}

START_TEST(submit_alone)
{
	const char *a;

	start_alone();
	a = ask("{\"op\":\"submit\",\"params\":{\"prompt_id\":\"" ID
	        "\",\"workflow\":" WORKFLOW "}}");
	expect(a, "result.prompt_id", "\"" ID "\"");
	expect(a, "result.status", "\"queued\"");
	expect(a, "result.number", "7");
	ck_assert_uint_eq(count_frames(CHANNEL_RECORD), 1);
	/* Without an id one is made up, and recorded. */
	a = ask("{\"op\":\"submit\",\"params\":{\"workflow\":" WORKFLOW "}}");
	ck_assert_uint_eq(strlen(member(a, "result.prompt_id")), 38);
}
END_TEST

START_TEST(questions_alone)
{
	const char *a;

	fake_comfy_add(&comfy, "r", FAKE_RUNNING);
	fake_comfy_add(&comfy, "p", FAKE_PENDING);
	fake_comfy_add(&comfy, "d1", FAKE_DONE);
	fake_comfy_add(&comfy, "d2", FAKE_FAILED);
	start_alone();
	a = ask("{\"op\":\"queue\",\"params\":{}}");
	expect(a, "result.running",
	       "[{\"prompt_id\":\"r\",\"status\":\"executing\","
	       "\"queue_position\":0}]");
	expect(a, "result.pending",
	       "[{\"prompt_id\":\"p\",\"status\":\"queued\","
	       "\"queue_position\":1}]");
	expect(a, "result.others", "0");
	a = ask("{\"op\":\"history\"}");
	/* running, queued, then the newest ended */
	ck_assert_ptr_nonnull(strstr(a, "\"r\""));
	ck_assert(strstr(a, "\"r\"") < strstr(a, "\"p\""));
	ck_assert(strstr(a, "\"p\"") < strstr(a, "\"d2\""));
	ck_assert(strstr(a, "\"d2\"") < strstr(a, "\"d1\""));
	ck_assert_ptr_nonnull(strstr(a, "\"submitted_at\":5"));
	ck_assert_ptr_nonnull(strstr(a, "\"ended_at\":20"));
	a = ask("{\"op\":\"history\",\"params\":{\"limit\":3}}");
	ck_assert_ptr_nonnull(strstr(a, "\"d2\""));
	ck_assert_ptr_null(strstr(a, "\"d1\""));
	a = ask("{\"op\":\"progress\",\"params\":{\"prompt_id\":\"d2\"}}");
	expect(a, "result.status", "\"failed\"");
	a = ask("{\"op\":\"progress\",\"params\":{\"prompt_id\":\"zz\"}}");
	expect(a, "error.type", "\"not_found\"");
	a = ask("{\"op\":\"cancel\",\"params\":{\"prompt_id\":\"p\"}}");
	expect(a, "result.how", "\"dequeued\"");
	a = ask("{\"op\":\"cancel\",\"params\":{\"prompt_id\":\"r\"}}");
	expect(a, "result.how", "\"interrupted\"");
	a = ask("{\"op\":\"cancel\",\"params\":{\"prompt_id\":\"d1\"}}");
	expect(a, "result.how", "\"ended\"");
	a = ask("{\"op\":\"cancel\",\"params\":{\"prompt_id\":\"zz\"}}");
	expect(a, "error.type", "\"not_found\"");
	a = ask("{\"op\":\"comfy\",\"params\":{\"path\":\"/system_stats\"}}");
	expect(a, "result", "{\"system\":{\"x\":null}}");
	/* Idle: no connection is kept. */
	run_until(loop, script_server_open(comfy.server) == 0);
}
END_TEST

START_TEST(history_limit_at_its_bounds)
{
	start_alone();
	expect(ask("{\"op\":\"history\",\"params\":{\"limit\":0}}"),
	       "error.type", "\"invalid\"");
	expect(ask("{\"op\":\"history\",\"params\":{\"limit\":1}}"), "ok",
	       "true");
	expect(ask("{\"op\":\"history\",\"params\":{\"limit\":1000}}"), "ok",
	       "true");
	expect(ask("{\"op\":\"history\",\"params\":{\"limit\":1001}}"),
	       "error.type", "\"invalid\"");
}
END_TEST

START_TEST(only_harmless_paths)
{
	static const char *const bad[] = {
		"/queue",        "/history",    "/prompt", "/models/../queue",
		"/object_info/", "/models/x?y", "/free",   "system_stats",
	};
	char request[256];

	start_alone();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(request, sizeof(request),
		         "{\"op\":\"comfy\",\"params\":{\"path\":\"%s\"}}",
		         bad[i]);
		expect(ask(request), "error.type", "\"denied\"");
	}
	ck_assert_uint_eq(script_server_requests(comfy.server), 0);
	expect(ask("{\"op\":\"comfy\",\"params\":{\"path\":"
	           "\"/object_info/KSampler\"}}"),
	       "error.type", "\"not_found\"");
}
END_TEST

START_TEST(unreachable_comfyui)
{
	start_alone();
	comfy.closed = true;
	expect(ask("{\"op\":\"queue\"}"), "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"progress\",\"params\":{\"prompt_id\":\"x\"}}"),
	       "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"watch\",\"params\":{\"prompt_id\":\"x\"}}"),
	       "error.type", "\"unreachable\"");
}
END_TEST

START_TEST(bad_requests)
{
	static const char *const bad[][2] = {
		{"", "invalid"},
		{"[]", "invalid"},
		{"{\"op\":\"run\"", "invalid"},
		{"{}", "not_found"},
		{"{\"op\":\"reboot\"}", "not_found"},
		{"{\"op\":\"run\"}", "invalid"},
		{"{\"op\":\"run\",\"params\":{\"workflow\":[]}}", "invalid"},
		{"{\"op\":\"run\",\"params\":{\"workflow\":{\"1\":2}}}",
	         "invalid"},
		{"{\"op\":\"run\",\"params\":{\"timeout_ms\":-1,\"workflow\":"
	         "" WORKFLOW "}}",
	         "invalid"},
		{"{\"op\":\"run\",\"params\":{\"prompt_id\":\"X\",\"workflow\":"
	         "" WORKFLOW "}}",
	         "invalid"},
		{"{\"op\":\"watch\",\"params\":{}}", "invalid"},
		{"{\"op\":\"cancel\",\"params\":{\"prompt_id\":7}}", "invalid"},
		{"{\"op\":\"view\",\"params\":{}}", "invalid"},
		{"{\"op\":\"view\",\"params\":{\"filename\":3}}", "invalid"},
		{"{\"op\":\"comfy\"}", "invalid"},
	};

	start_alone();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char type[32];
		const char *a = ask(bad[i][0]);

		snprintf(type, sizeof(type), "\"%s\"", bad[i][1]);
		expect(a, "ok", "false");
		expect(a, "error.type", type);
	}
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

START_TEST(as_many_as_fit)
{
	start_alone();
	comfy.refuse_all = true;
	for (uint64_t i = 1; i <= REQUEST_COMMANDS_MAX + 1; i++) {
		ck_assert_int_eq(channel_send(&channel, CHANNEL_REQUEST, i,
		                              SPAN(RUN), -1),
		                 0);
		if (i % 100 == 0)
			run_for(loop, 1);
		ck_assert_int_eq(channel_flush(&channel), 0);
	}
	while (channel_wants_write(&channel)) {
		run_for(loop, 1);
		ck_assert_int_eq(channel_flush(&channel), 0);
	}
	expect(await(CHANNEL_RESPONSE, REQUEST_COMMANDS_MAX + 1), "error.type",
	       "\"limit\"");
}
END_TEST

/* --- watch --------------------------------------------------------------- */

START_TEST(watches)
{
	const char *a;

	fake_comfy_add(&comfy, "w", FAKE_RUNNING);
	start_alone();
	tell(CHANNEL_REQUEST, 1,
	     "{\"op\":\"watch\",\"params\":{\"prompt_id\":\"w\"}}");
	a = await(CHANNEL_OUTPUT, 1);
	expect(a, "progress.status", "\"executing\"");
	expect(a, "total_nodes", "");
	fake_comfy_find(&comfy, "w")->state = FAKE_DONE;
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result.status", "\"completed\"");
	expect(ask("{\"op\":\"watch\",\"params\":{\"prompt_id\":\"zz\"}}"),
	       "error.type", "\"not_found\"");
	fake_comfy_add(&comfy, "w2", FAKE_RUNNING);
	a = ask("{\"op\":\"watch\",\"params\":{\"prompt_id\":\"w2\","
	        "\"timeout_ms\":300}}");
	expect(a, "error.type", "\"timeout\"");
	/* Its cancel ends the watching, not the prompt. */
	tell(CHANNEL_REQUEST, 2,
	     "{\"op\":\"watch\",\"params\":{\"prompt_id\":\"w2\"}}");
	await(CHANNEL_OUTPUT, 2);
	tell(CHANNEL_CANCEL, 2, "");
	expect(await(CHANNEL_RESPONSE, 2), "error.type", "\"cancelled\"");
	ck_assert_uint_eq(comfy.interrupts, 0);
}
END_TEST

/* --- with a supervisor --------------------------------------------------- */

START_TEST(supervisor_answers_pass)
{
	const char *a;

	start_on_bus();
	a = ask("{\"op\":\"queue\",\"params\":{}}");
	expect(a, "result", "{\"running\":[],\"pending\":[],\"others\":3}");
	a = ask("{\"op\":\"progress\",\"params\":{\"prompt_id\":\"x\"}}");
	expect(a, "error.type", "\"not_found\"");
	expect(a, "error.hint", "\"h\"");
	a = ask("{\"op\":\"submit\",\"params\":{\"prompt_id\":\"" ID
	        "\",\"workflow\":" WORKFLOW "}}");
	expect(a, "result.number", "4");
	ck_assert_uint_eq(script_server_requests(comfy.server), 0);
}
END_TEST

/* A request that comes while hello and attach are open waits for them. */
START_TEST(request_waits_for_the_bus)
{
	bus.on_request = on_bus_request;
	start_worker(true, false);
	say_hello(",\"bus\":true");
	tell(CHANNEL_REQUEST, 1, "{\"op\":\"queue\"}");
	expect(await(CHANNEL_RESPONSE, 1), "result.others", "3");
}
END_TEST

START_TEST(bus_lost_and_found)
{
	int fd;

	start_on_bus();
	ask("{\"op\":\"queue\"}");
	fake_bus_close(&bus);
	await(CHANNEL_WANT_BUS, 0);
	expect(ask("{\"op\":\"queue\"}"), "result.others", "0");
	fd = fake_bus_open(&bus, loop);
	tell_fd(CHANNEL_BUS, 0, "", fd);
	close(fd);
	run_until(loop, bus.attaches == 2);
	expect(ask("{\"op\":\"queue\"}"), "result.others", "3");
	/* None, and why. */
	tell(CHANNEL_BUS, 0, "it was removed");
	tell(CHANNEL_REQUEST, 1, RUN);
	ck_assert_ptr_nonnull(
		strstr(await(CHANNEL_LOG, 0), "(it was removed)"));
}
END_TEST

/* The supervisor breaks with a question open: ComfyUI answers it. */
static void on_break(struct fake_bus *b, const char *op, struct json req)
{
	fake_bus_close(b);
}

START_TEST(question_survives_the_bus)
{
	bus.on_request = on_break;
	start_worker(true, false);
	say_hello(",\"bus\":true");
	expect(ask("{\"op\":\"queue\"}"), "result.others", "0");
}
END_TEST

/* With the service's rights, a tenant without its supervisor sees nothing but
 * what this session submitted. */
START_TEST(tenant_without_supervisor)
{
	char progress[256];
	const char *a;

	fake_comfy_add(&comfy, "theirs", FAKE_RUNNING);
	start_worker(false, true);
	say_hello("");
	expect(ask("{\"op\":\"queue\"}"), "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"history\"}"), "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"progress\",\"params\":{\"prompt_id\":"
	           "\"theirs\"}}"),
	       "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"watch\",\"params\":{\"prompt_id\":\"theirs\"}}"),
	       "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"cancel\",\"params\":{\"prompt_id\":\"theirs\"}}"),
	       "error.type", "\"unreachable\"");
	expect(ask("{\"op\":\"view\",\"params\":{\"prompt_id\":\"theirs\"}}"),
	       "error.type", "\"unreachable\"");
	ck_assert_uint_eq(script_server_requests(comfy.server), 0);
	a = ask("{\"op\":\"submit\",\"params\":{\"workflow\":" WORKFLOW "}}");
	snprintf(progress, sizeof(progress),
	         "{\"op\":\"progress\",\"params\":{\"prompt_id\":%s}}",
	         member(a, "result.prompt_id"));
	expect(ask(progress), "result.status", "\"queued\"");
}
END_TEST

/* What the keeper hands over as a predecessor's record, or the user chooses,
 * may name anybody's prompt: without a supervisor ComfyUI isn't asked. */
START_TEST(tenant_names_others_prompt)
{
	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	start_worker(false, true);
	say_hello("");
	if (_i == 0)
		tell(CHANNEL_RECORD, 1, "{\"prompt_id\":\"" ID "\"}");
	tell(CHANNEL_REQUEST, 1,
	     _i == 0 ? "{\"op\":\"run\",\"params\":{\"timeout_ms\":500,"
	               "\"workflow\":" WORKFLOW "}}"
	             : "{\"op\":\"run\",\"params\":{\"timeout_ms\":500,"
	               "\"prompt_id\":\"" ID "\",\"workflow\":" WORKFLOW "}}");
	expect(await(CHANNEL_RESPONSE, 1), "ok", "false");
	expect(ask("{\"op\":\"progress\",\"params\":{\"prompt_id\":\"" ID
	           "\"}}"),
	       "error.type", "\"unreachable\"");
	ck_assert_uint_eq(script_server_requests(comfy.server), 0);
}
END_TEST

/* --- view ---------------------------------------------------------------- */

static int open_file(const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", runner_tmpdir(), name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void answer_open(const char *open, int fd)
{
	char text[128];

	snprintf(text, sizeof(text), "{\"token\":%s}", member(open, "token"));
	tell_fd(CHANNEL_FILE, 1, text, fd);
}

START_TEST(view_saves_a_file)
{
	char text[256], bytes[64];
	const char *a;
	int fd = open_file("a.png");

	start_alone();
	comfy.view = "the bytes";
	tell(CHANNEL_REQUEST, 1,
	     "{\"op\":\"view\",\"params\":{\"filename\":\"x/a.png\","
	     "\"subfolder\":\"s\",\"path\":\"out\",\"overwrite\":true}}");
	a = await(CHANNEL_OPEN, 1);
	expect(a, "path", "\"out\"");
	expect(a, "name", "\"a.png\"");
	expect(a, "write", "true");
	expect(a, "overwrite", "true");
	answer_open(a, fd);
	a = await(CHANNEL_CLOSE, 1);
	expect(a, "keep", "true");
	ck_assert_int_eq(pread(fd, bytes, sizeof(bytes), 0), 9);
	ck_assert_int_eq(memcmp(bytes, "the bytes", 9), 0);
	ck_assert_uint_eq(count_frames(CHANNEL_RESPONSE), 0);
	snprintf(text, sizeof(text), "{\"token\":%s,\"path\":\"/home/a.png\"}",
	         member(a, "token"));
	tell(CHANNEL_CLOSED, 1, text);
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result",
	       "{\"path\":\"/home/a.png\",\"bytes\":9,\"content_type\":"
	       "\"image/png\"}");
	close(fd);
}
END_TEST

START_TEST(view_fails)
{
	const char *a;
	int fd = _i == 1 ? open("/dev/full", O_WRONLY | O_CLOEXEC)
	                 : open_file("b.png");

	start_alone();
	comfy.view = _i == 0 ? NULL : "bytes";
	tell(CHANNEL_REQUEST, 1,
	     "{\"op\":\"view\",\"params\":{\"filename\":\"b.png\"}}");
	a = await(CHANNEL_OPEN, 1);
	expect(a, "path", "\".\"");
	if (_i == 2) {
		char text[128];

		snprintf(text, sizeof(text),
		         "{\"token\":%s,\"error\":\"it exists\"}",
		         member(a, "token"));
		tell(CHANNEL_FILE, 1, text);
	} else {
		answer_open(a, fd);
		expect(await(CHANNEL_CLOSE, 1), "keep", "false");
	}
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "ok", "false");
	if (_i == 0) {
		expect(a, "error.type", "\"not_found\"");
		ck_assert_ptr_nonnull(strstr(a, "b.png"));
	}
	if (_i == 1)
		ck_assert_ptr_nonnull(strstr(a, "No space left"));
	if (_i == 2)
		ck_assert_ptr_nonnull(strstr(a, "it exists"));
	close(fd);
}
END_TEST

START_TEST(view_of_a_prompt)
{
	char text[256];
	const char *a;
	int fd = open_file("c.png");

	fake_comfy_add(&comfy, "d", FAKE_DONE);
	fake_comfy_add(&comfy, "r", FAKE_RUNNING);
	start_alone();
	comfy.view = "1234";
	tell(CHANNEL_REQUEST, 1,
	     "{\"op\":\"view\",\"params\":{\"prompt_id\":\"d\",\"path\":"
	     "\"dir\"}}");
	a = await(CHANNEL_OPEN, 1);
	expect(a, "path", "\"dir\"");
	expect(a, "name", "\"a.png\"");
	answer_open(a, fd);
	a = await(CHANNEL_CLOSE, 1);
	snprintf(text, sizeof(text), "{\"token\":%s,\"path\":\"dir/a.png\"}",
	         member(a, "token"));
	tell(CHANNEL_CLOSED, 1, text);
	a = await(CHANNEL_RESPONSE, 1);
	expect(a, "result.files",
	       "[{\"path\":\"dir/a.png\",\"bytes\":4,\"content_type\":"
	       "\"image/png\"}]");
	expect(ask("{\"op\":\"view\",\"params\":{\"prompt_id\":\"r\"}}"),
	       "error.type", "\"not_found\"");
	close(fd);
}
END_TEST

/* A server's name never leads elsewhere. */
START_TEST(view_of_unsafe_names)
{
	static const char *const bad[] = {"..", "a/..",   "x/",
	                                  ".",  "a\\\\b", "a\\u0001b"};
	char request[128];

	start_alone();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(request, sizeof(request),
		         "{\"op\":\"view\",\"params\":{\"filename\":\"%s\"}}",
		         bad[i]);
		expect(ask(request), "error.type", "\"denied\"");
	}
	ck_assert_uint_eq(count_frames(CHANNEL_OPEN), 0);
}
END_TEST

START_TEST(view_cancelled)
{
	const char *a;
	int fd = open_file("e.png");

	start_alone();
	comfy.view = "x";
	tell(CHANNEL_REQUEST, 1,
	     "{\"op\":\"view\",\"params\":{\"filename\":\"e.png\"}}");
	a = await(CHANNEL_OPEN, 1);
	tell(CHANNEL_CANCEL, 1, "");
	expect(await(CHANNEL_CLOSE, 1), "keep", "false");
	expect(await(CHANNEL_RESPONSE, 1), "error.type", "\"cancelled\"");
	answer_open(a, fd); /* on its way already: closed, not used */
	expect(ask("{\"op\":\"queue\"}"), "ok", "true");
	ck_assert_uint_eq(comfy.views, 0);
	close(fd);
}
END_TEST

/* --- the worker ---------------------------------------------------------- */

START_TEST(leaves_with_the_keeper)
{
	start_alone();
	tell(CHANNEL_REQUEST, 1, RUN);
	run_until(loop, comfy.posts == 1);
	ck_assert_int_eq(shutdown(channel.fd, SHUT_WR), 0);
	ck_assert_int_eq(worker_status(), 0);
	/* The prompt runs on. */
	ck_assert_int_eq(fake_comfy_find(&comfy, ID)->state, FAKE_PENDING);
}
END_TEST

START_TEST(leaves_at_end)
{
	start_alone();
	tell(CHANNEL_REQUEST, 1, "{\"op\":\"nope\"}");
	tell(CHANNEL_END, 0, "");
	ck_assert_int_eq(worker_status(), 0);
	ck_assert_uint_eq(count_frames(CHANNEL_RESPONSE), 1);
}
END_TEST

START_TEST(leaves_on_sigterm)
{
	start_alone();
	tell(CHANNEL_REQUEST, 1, RUN);
	run_until(loop, comfy.posts == 1);
	kill(pid, SIGINT); /* the keeper's business */
	kill(pid, SIGHUP);
	expect(ask("{\"op\":\"queue\"}"), "ok", "true");
	kill(pid, SIGTERM);
	ck_assert_int_eq(worker_status(), 0);
}
END_TEST

START_TEST(wants_hello_first)
{
	start_worker(false, false);
	if (_i) {
		say_hello("");
		say_hello("");
	} else {
		tell(CHANNEL_REQUEST, 1, "{\"op\":\"queue\"}");
	}
	ck_assert_int_eq(worker_status(), 1);
}
END_TEST

/* That is in the last output. */
static bool told_last(const char *what)
{
	for (size_t i = frame_count; i > 0; i--) {
		if (frames[i - 1].type == CHANNEL_OUTPUT)
			return strstr(frames[i - 1].text, what) != NULL;
	}
	return false;
}

/* A keeper that doesn't read: outputs are folded, answers are not. */
START_TEST(slow_keeper)
{
	char filler[2048], progress[4096];
	unsigned outputs;

	start_on_bus();
	tell(CHANNEL_REQUEST, 1, RUN);
	await(CHANNEL_RECORD, 1);
	tell(CHANNEL_REQUEST, 2, "{\"op\":\"queue\"}");
	await(CHANNEL_RESPONSE, 2); /* so the submission was answered too */
	ev_io_stop(loop, &io);
	memset(filler, 'n', sizeof(filler) - 1);
	filler[sizeof(filler) - 1] = '\0';
	for (unsigned i = 1; i <= 1000; i++) {
		snprintf(progress, sizeof(progress),
		         "{\"status\":\"executing\",\"current_node\":\"%s%u\","
		         "\"method\":\"websocket\"}",
		         filler + sizeof(filler) - 200, i);
		fake_bus_event(&bus, "executing", i, ID, NULL, progress);
	}
	for (uint64_t i = 10; i < 60; i++)
		tell(CHANNEL_REQUEST, i, "{\"op\":\"nope\"}");
	run_for(loop, 2000);
	ev_io_start(loop, &io);
	for (uint64_t i = 10; i < 60; i++)
		await(CHANNEL_RESPONSE, i);
	run_until(loop, told_last("n1000\""));
	run_for(loop, 300);
	outputs = count_frames(CHANNEL_OUTPUT);
	ck_assert_uint_gt(outputs, 1);
	ck_assert_uint_lt(outputs, 1000);
	/* The last one told is the last state. */
	ck_assert(told_last("n1000\""));
}
END_TEST

/* A full channel: the record can't get out, so nothing is submitted yet. */
START_TEST(record_comes_first)
{
	char request[512];

	start_alone();
	ev_io_stop(loop, &io);
	memset(request, 'x', sizeof(request));
	memcpy(request, "{\"op\":\"", 7);
	strcpy(request + sizeof(request) - 3, "\"}");
	for (uint64_t i = 1; i <= 2000; i++) {
		tell(CHANNEL_REQUEST, i, request);
		while (channel_wants_write(&channel)) {
			run_for(loop, 1);
			ck_assert_int_eq(channel_flush(&channel), 0);
		}
	}
	tell(CHANNEL_REQUEST, 5000, RUN);
	run_for(loop, 300);
	ck_assert_uint_eq(comfy.posts, 0);
	ev_io_start(loop, &io);
	await(CHANNEL_RECORD, 5000);
	run_until(loop, comfy.posts == 1);
	await(CHANNEL_RESPONSE, 2000);
}
END_TEST

static Suite *request_suite(void)
{
	Suite *s = suite_create("request");
	TCase *t = tcase_create("request");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, runs);
	tcase_add_test(t, runs_on_the_bus);
	tcase_add_test(t, outputs_as_they_come);
	tcase_add_test(t, failed_prompt_is_a_result);
	tcase_add_test(t, refused_prompt_is_an_error);
	tcase_add_test(t, valid_in_part_is_told);
	tcase_add_test(t, timeout_is_an_error);
	tcase_add_loop_test(t, cancelled_run, 0, 2);
	tcase_add_test(t, cancelled_at_once);
	tcase_add_test(t, resumes_a_record);
	tcase_add_test(t, submit_alone);
	tcase_add_test(t, questions_alone);
	tcase_add_test(t, history_limit_at_its_bounds);
	tcase_add_test(t, only_harmless_paths);
	tcase_add_test(t, unreachable_comfyui);
	tcase_add_test(t, bad_requests);
	tcase_add_test(t, as_many_as_fit);
	tcase_add_test(t, watches);
	tcase_add_test(t, supervisor_answers_pass);
	tcase_add_test(t, request_waits_for_the_bus);
	tcase_add_test(t, bus_lost_and_found);
	tcase_add_test(t, question_survives_the_bus);
	tcase_add_test(t, tenant_without_supervisor);
	tcase_add_loop_test(t, tenant_names_others_prompt, 0, 2);
	tcase_add_test(t, view_saves_a_file);
	tcase_add_loop_test(t, view_fails, 0, 3);
	tcase_add_test(t, view_of_a_prompt);
	tcase_add_test(t, view_of_unsafe_names);
	tcase_add_test(t, view_cancelled);
	tcase_add_test(t, leaves_with_the_keeper);
	tcase_add_test(t, leaves_at_end);
	tcase_add_test(t, leaves_on_sigterm);
	tcase_add_loop_test(t, wants_hello_first, 0, 2);
	tcase_add_test(t, slow_keeper);
	tcase_add_test(t, record_comes_first);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(request_suite());
}
