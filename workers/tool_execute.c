/*
 * tool_execute.c - the tools that submit and wait: execute_workflow_sync,
 * execute_workflow_stream, submit_workflow, wait_for_execution.
 */
#include "workers/tool_code.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/workflow.h"
#include "workers/tool_ask.h"
#include "workers/tool_files_of.h"
#include "workers/tool_recall.h"
#include "workers/tool_workflow.h"

#define RESULT_BYTES  (9u << 20) /* of structured content */
#define REQUEST_BYTES (16u << 20)
#define MESSAGE_BYTES 512
#define EVENTS_BYTES  (512u << 10)
#define EVENTS_MAX    1000

enum execute_kind {
	EXECUTE_SYNC,
	EXECUTE_STREAM,
	EXECUTE_SUBMIT,
	EXECUTE_WAIT,
};

struct execution {
	struct tool_workflow workflow; /* first: see tool_workflow.h */
	enum execute_kind kind;
	struct tool_ask *ask;
	struct tool_images *images;
	struct tool_facts *facts; /* until the prompt's id is known */
	struct buf request;       /* kept while the supervisor is asked first */
	/* execute_workflow_stream */
	struct buf events; /* elements of the array */
	size_t event_count, folded;
};

void tool_execute_destroy(struct tool_call *c)
{
	struct execution *e = c->state;

	if (!e)
		return;
	e->ask = tool_ask_free(e->ask);
	e->images = tool_images_free(e->images);
	e->facts = tool_facts_free(e->facts);
	buf_deinit(&e->request);
	buf_deinit(&e->events);
	free(e);
}

void tool_execute_cancel(struct tool_call *c, bool stop)
{
	struct execution *e = c->state;

	if (!e || !e->ask || !stop)
		return;
	tool_ask_cancel(e->ask);
	tool_ask_orphan(e->ask);
	e->ask = NULL;
}

void tool_wait_cancel(struct tool_call *c, bool stop)
{
	struct execution *e = c->state;
	cleanup_buf struct buf params = BUF_INIT(4096);
	struct json id = json_get(c->args, "prompt_id");

	/* Whatever is being fetched belongs to one that has ended. */
	if (!e || !e->ask || e->images || !stop)
		return;
	(void)buf_puts(&params, "{\"prompt_id\":");
	(void)buf_append(&params, id.text.p, id.text.n);
	(void)buf_putc(&params, '}');
	if (buf_ok(&params))
		tool_ask_apart(c, "cancel", span_make(params.data, params.len));
}

static struct execution *execution_new(struct tool_call *c,
                                       enum execute_kind kind)
{
	struct execution *e = calloc(1, sizeof(*e));

	c->state = e;
	if (!e) {
		tool_fail(c, "internal", "out of memory", NULL);
		return NULL;
	}
	e->kind = kind;
	buf_init(&e->request, REQUEST_BYTES);
	buf_init(&e->events, EVENTS_BYTES);
	return e;
}

/* --- progress ------------------------------------------------------------ */

/* Hands what is known of the workflow to later waits. */
static void remember(struct tool_call *c, struct json prompt_id)
{
	struct execution *e = c->state;

	if (e->facts && json_is(prompt_id, JSON_STRING))
		tool_recall_put(c->host, prompt_id, steal_ptr(&e->facts));
}

/* "Node 3 (KSampler) step 7 of 20"; `node` may be NULL. */
static void describe_node(struct json output, const struct tool_facts *facts,
                          const char *node, char *text, size_t size)
{
	cleanup_free char *told =
		json_string_dup(json_get(output, "class"), 256);
	const char *class = told    ? told
	                    : facts ? tool_facts_class(facts, node)
	                            : NULL;
	double value, max;
	int n = snprintf(text, size, "Node %s%s%s%s", node, class ? " (" : "",
	                 class ? class : "", class ? ")" : "");

	if (n > 0 && (size_t)n < size &&
	    json_double(json_get(output, "value"), &value) &&
	    json_double(json_get(output, "max"), &max) && max > 1)
		(void)snprintf(text + n, size - (size_t)n, " step %.0f of %.0f",
		               value, max);
}

/* In a few words, for a person: the node and its step, or the position in the
 * queue. */
static void describe(struct json output, struct json p,
                     const struct tool_facts *facts, char *text, size_t size)
{
	cleanup_free char *node =
		json_string_dup(json_get(p, "current_node"), 256);
	bool queued = json_string_eq(json_get(p, "status"), "queued");
	const char *why = "";
	bool paused = false;
	int64_t position;

	if (json_bool(json_get(p, "paused"), &paused) && paused)
		why = "; the service is paused";
	if (node)
		describe_node(output, facts, node, text, size);
	else if (queued && json_int64(json_get(p, "queue_position"), &position))
		(void)snprintf(text, size, "Queued (position: %" PRId64 "%s)",
		               position, why);
	else if (queued)
		(void)snprintf(text, size, "Queued%s", why);
	else
		(void)snprintf(text, size, "Executing");
}

/* How many nodes will run; 0 if that isn't known. */
static size_t nodes_to_run(struct json output, struct json p,
                           const struct tool_facts *facts)
{
	uint64_t total = facts ? tool_facts_nodes(facts) : 0;
	size_t cached = json_count(json_get(p, "cached_nodes"));

	(void)json_uint64(json_get(output, "total_nodes"), &total);
	return total > cached ? (size_t)total - cached : 0;
}

/* One scale for the whole: of the nodes that will run, those that have, and the
 * fraction of the current one. */
static double fraction_of(struct json output, struct json p,
                          const struct tool_facts *facts)
{
	double current = 0;
	size_t total = nodes_to_run(output, p, facts);
	double done = (double)json_count(json_get(p, "completed_nodes"));

	if (total == 0)
		return 0;
	(void)json_double(json_get(p, "current_node_progress"), &current);
	done = (done + current) / (double)total;
	return done < 0.99 ? done : 0.99;
}

/* Whether the end may come any moment: the last node runs, and has no steps or
 * few left. */
static bool near_end(struct json output, struct json p,
                     const struct tool_facts *facts)
{
	size_t done = json_count(json_get(p, "completed_nodes"));
	double max = 0, current = 0;

	if (done + 1 < nodes_to_run(output, p, facts))
		return false;
	(void)json_double(json_get(output, "max"), &max);
	(void)json_double(json_get(p, "current_node_progress"), &current);
	return max <= 1 || current > 0.9;
}

/* Events that come by the dozen and supersede each other. */
static bool is_step(struct json type)
{
	return json_string_eq(type, "progress") ||
	       json_string_eq(type, "progress_state");
}

/* Appends {"type":"...","data":...}. Steps may fill one half of the list, so
 * that what starts, ends and fails always has the other. */
static void note_event(struct execution *e, struct json type, struct json data)
{
	size_t before = e->events.len;
	bool step = is_step(type);

	if (json_string_eq(type, "snapshot") || json_string_eq(type, "polled"))
		return;
	if (e->event_count >= (step ? EVENTS_MAX / 2 : EVENTS_MAX) ||
	    (step && before >= EVENTS_BYTES / 2)) {
		e->folded++;
		return;
	}
	/* The first one has a comma too; it is cut off at the end. */
	(void)buf_puts(&e->events, ",{\"type\":");
	(void)buf_append(&e->events, type.text.p, type.text.n);
	(void)buf_puts(&e->events, ",\"data\":");
	if (json_is(data, JSON_OBJECT))
		(void)buf_append(&e->events, data.text.p, data.text.n);
	else
		(void)buf_puts(&e->events, "{}");
	if (buf_putc(&e->events, '}') < 0) {
		e->events.failed = false;
		e->events.len = before;
		e->folded++;
		return;
	}
	e->event_count++;
}

static void on_output(struct tool_call *c, struct json output)
{
	struct execution *e = c->state;
	struct json p = json_get(output, "progress");
	struct json id = json_get(p, "prompt_id");
	const struct tool_facts *facts;
	char text[MESSAGE_BYTES];

	if (e->kind == EXECUTE_STREAM)
		note_event(e, json_get(output, "event"),
		           json_get(output, "data"));
	remember(c, id);
	facts = tool_recall_find(c->host, id);
	describe(output, p, facts, text, sizeof(text));
	tool_progress(c, fraction_of(output, p, facts), text,
	              near_end(output, p, facts));
}

/* --- results ------------------------------------------------------------- */

/* The members that every result of an execution has, from an ExecutionProgress
 * as run and watch give it. */
static void put_execution(struct tool_call *c, struct json p, struct buf *out)
{
	static const char *const keys[] = {
		"prompt_id",       "status",       "progress_method",
		"queue_position",  "current_node", "current_node_progress",
		"completed_nodes", "cached_nodes", "error",
		"node_errors",     "elapsed_ms",   "paused",
	};
	struct execution *e = c->state;

	(void)buf_putc(out, '{');
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		tool_put_member(out, keys[i], json_get(p, keys[i]));
	(void)tool_put_bounded(out, "outputs", json_get(p, "outputs"),
	                       TOOL_OUTPUTS_BYTES);
	if (e->kind != EXECUTE_STREAM &&
	    tool_arg_bool(c, "stream_progress", true))
		tool_put_member(out, "progress_log",
		                json_get(p, "progress_log"));
	if (e->kind != EXECUTE_STREAM)
		return;
	(void)buf_json_key(out, "events");
	(void)buf_putc(out, '[');
	if (e->events.len > 0)
		(void)buf_append(out, e->events.data + 1, e->events.len - 1);
	(void)buf_printf(out, "],\"events_folded\":%zu", e->folded);
}

/* An exception's advice is that of no type of ours. */
static const char *what_next(struct json p)
{
	const char *text = tool_advice(json_get(json_get(p, "error"), "type"));

	return text ? text
	            : "get_error_details has the traceback; change the "
	              "workflow and run it again";
}

/* What a call that ends without a result shows, if it asked: of a prompt that
 * isn't through. */
static const struct preview *preview_of(const struct tool_call *c)
{
	const struct execution *e = c->state;

	return tool_arg_bool(c, "return_preview", false)
	               ? tool_ask_preview(e->ask)
	               : NULL;
}

static void finish_result(struct tool_call *c, struct json p)
{
	struct execution *e = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	bool failed = !json_string_eq(json_get(p, "status"), "completed");

	put_execution(c, p, &out);
	if (failed)
		tool_put_next(&out, what_next(p));
	(void)buf_putc(&out, '}');
	tool_finish_files(c, &e->images, &out, failed, json_get(p, "prompt_id"),
	                  json_get(p, "outputs"),
	                  tool_arg_bool(c, "return_images", false),
	                  failed ? preview_of(c) : NULL);
}

/* The wait is over before the prompt is: no error, but a hand to hold. */
static void finish_waiting(struct tool_call *c, struct json error)
{
	struct json p = json_get(error, "progress");
	struct execution *e = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	remember(c, json_get(p, "prompt_id"));
	put_execution(c, p, &out);
	(void)buf_puts(&out, ",\"timed_out\":true");
	tool_put_next(&out,
	              "the prompt goes on: call wait_for_execution with this "
	              "prompt_id, or cancel_execution");
	(void)buf_putc(&out, '}');
	tool_finish_files(c, &e->images, &out, false, json_get(p, "prompt_id"),
	                  JSON_MISSING, false, preview_of(c));
}

static void on_answer(struct tool_call *c, bool ok, struct json body)
{
	if (ok)
		finish_result(c, body);
	else if (json_string_eq(json_get(body, "type"), "timeout") &&
	         json_is(json_get(body, "progress"), JSON_OBJECT))
		finish_waiting(c, body);
	else
		tool_finish_error(c, body);
}

static void on_submitted(struct tool_call *c, bool ok, struct json body)
{
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	remember(c, json_get(body, "prompt_id"));
	(void)buf_putc(&out, '{');
	tool_put_member(&out, "prompt_id", json_get(body, "prompt_id"));
	tool_put_member(&out, "status", json_get(body, "status"));
	tool_put_member(&out, "number", json_get(body, "number"));
	tool_put_member(&out, "node_errors", json_get(body, "node_errors"));
	tool_put_next(&out, "call wait_for_execution with this prompt_id");
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

/* --- starting ------------------------------------------------------------ */

static void put_wait(const struct tool_call *c, struct buf *out)
{
	(void)buf_printf(
		out, "\"timeout_ms\":%" PRId64,
		tool_arg_int(c, "timeout_ms", c->host->default_wait_ms));
	if (tool_arg_bool(c, "return_preview", false))
		(void)buf_puts(out, ",\"previews\":true");
}

static void start_request(struct tool_call *c)
{
	struct execution *e = c->state;
	struct span params = span_make(e->request.data, e->request.len);
	bool submit = e->kind == EXECUTE_SUBMIT;

	e->ask = tool_ask_new(c, submit ? "submit" : "run", params,
	                      submit ? on_submitted : on_answer, on_output);
}

/* Events need the link, not only the supervisor. */
static void on_status(void *user, const struct incoming *in,
                      const struct error *err)
{
	struct tool_call *c = user;
	struct json upstream;

	if (err) {
		tool_fail(c, "unreachable", err->text, NULL);
		return;
	}
	upstream = json_get(in->result, "upstream");
	if (!json_string_eq(json_get(upstream, "state"), "connected")) {
		tool_fail(c, "unreachable",
		          "the WebSocket to ComfyUI is down, so there are no "
		          "events; execute_workflow_sync works without them",
		          NULL);
		return;
	}
	start_request(c);
}

static void start_stream(struct tool_call *c)
{
	struct error err = ERROR_NULL;

	if (!link_on_bus(c->host->link) ||
	    link_ask(c->host->link, OP_STATUS, SPAN("{}"), 0, on_status, c,
	             &err) == 0)
		tool_fail(c, "unreachable",
		          "there is no supervisor with a WebSocket to ComfyUI, "
		          "so there are no events; execute_workflow_sync works "
		          "without them",
		          NULL);
}

static void on_workflow(struct tool_call *c, const struct buf *workflow,
                        const struct error *err)
{
	struct execution *e = c->state;

	struct json w;

	if (err) {
		tool_fail(c, error_code_name(err->code), err->text, NULL);
		return;
	}
	if (json_parse(&w, workflow->data, workflow->len, JSON_NONFINITE,
	               NULL) == JSON_OK)
		e->facts = tool_facts_new(w);
	(void)buf_putc(&e->request, '{');
	if (e->kind != EXECUTE_SUBMIT) {
		put_wait(c, &e->request);
		(void)buf_putc(&e->request, ',');
	}
	if (e->kind == EXECUTE_STREAM)
		(void)buf_puts(&e->request, "\"events\":true,");
	(void)buf_puts(&e->request, "\"workflow\":");
	(void)buf_append(&e->request, workflow->data, workflow->len);
	(void)buf_putc(&e->request, '}');
	if (!buf_ok(&e->request)) {
		tool_fail(c, "limit", "the workflow is too large", NULL);
		return;
	}
	if (e->kind != EXECUTE_SUBMIT)
		tool_progress(c, 0, "Submitting", true);
	if (e->kind == EXECUTE_STREAM)
		start_stream(c);
	else
		start_request(c);
}

static void start_kind(struct tool_call *c, enum execute_kind kind)
{
	if (execution_new(c, kind))
		tool_workflow_get(c, on_workflow);
}

void tool_sync_start(struct tool_call *c)
{
	start_kind(c, EXECUTE_SYNC);
}

void tool_stream_start(struct tool_call *c)
{
	start_kind(c, EXECUTE_STREAM);
}

void tool_submit_start(struct tool_call *c)
{
	start_kind(c, EXECUTE_SUBMIT);
}

void tool_wait_start(struct tool_call *c)
{
	struct json id = json_get(c->args, "prompt_id");
	struct execution *e = execution_new(c, EXECUTE_WAIT);

	if (!e)
		return;
	(void)buf_putc(&e->request, '{');
	put_wait(c, &e->request);
	(void)buf_puts(&e->request, ",\"prompt_id\":");
	(void)buf_append(&e->request, id.text.p, id.text.n);
	(void)buf_putc(&e->request, '}');
	tool_progress(c, 0, "Waiting", true);
	e->ask = tool_ask_new(c, "watch",
	                      span_make(e->request.data, e->request.len),
	                      on_answer, on_output);
}
