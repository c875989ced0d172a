/*
 * worker_fakes.c - see worker_fakes.h.
 */
#include "tests/worker_fakes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/comfy_marker.h"
#include "common/fdutil.h"
#include "ipc/message.h"
#include "tests/runner.h"
#include "workers/link.h"

/* --- bus ----------------------------------------------------------------- */

static void bus_send(struct fake_bus *b, struct buf *line)
{
	size_t at = 0;

	ck_assert(buf_ok(line));
	while (b->fd >= 0 && at < line->len) {
		ssize_t n = send(b->fd, line->data + at, line->len - at,
		                 MSG_NOSIGNAL);

		if (n < 0)
			return; /* the other end is gone: the test's business */
		at += (size_t)n;
	}
}

void fake_bus_reply(struct fake_bus *b, struct json req, const char *result)
{
	cleanup_buf struct buf line = BUF_INIT(LINE_MAX_BYTES);

	ck_assert_int_eq(
		reply_ok(&line, json_get(req, "id").text, SPAN(result)), 0);
	bus_send(b, &line);
}

void fake_bus_refuse(struct fake_bus *b, struct json req, const char *type,
                     const char *extra)
{
	cleanup_buf struct buf line = BUF_INIT(LINE_MAX_BYTES);
	struct error err;

	error_set(&err, error_code_from_name(type), "refused: %s", type);
	ck_assert_int_eq(reply_error(&line, json_get(req, "id").text, &err,
	                             extra ? SPAN(extra) : SPAN_NULL),
	                 0);
	bus_send(b, &line);
}

void fake_bus_event(struct fake_bus *b, const char *event, unsigned seq,
                    const char *prompt_id, const char *data,
                    const char *progress)
{
	cleanup_buf struct buf line = BUF_INIT(LINE_MAX_BYTES);
	struct event_line ev = {
		.event = event_from_name(SPAN(event)),
		.seq = seq,
		.prompt_id = prompt_id,
		.t_ms = 1,
		.data = data ? SPAN(data) : SPAN_NULL,
		.progress = progress ? SPAN(progress) : SPAN_NULL,
	};

	ck_assert_int_ne(ev.event, EVENT_COUNT);
	ck_assert_int_eq(event_build(&line, &ev), 0);
	bus_send(b, &line);
}

static void bus_line(struct fake_bus *b, struct span line)
{
	cleanup_buf struct buf result = BUF_INIT(4096);
	struct json req;
	char op[32];
	struct span name;

	ck_assert_int_eq(json_parse(&req, line.p, line.n, 0, NULL), JSON_OK);
	name = json_raw_string(json_get(req, "op"));
	snprintf(op, sizeof(op), "%.*s", (int)name.n, name.p);
	if (strcmp(op, "hello") == 0) {
		b->hellos++;
		buf_printf(&result,
		           "{\"version\":\"0\",\"protocol\":1,\"epoch\":\"%s\","
		           "\"pid\":1,\"uid\":0,\"operator\":false,"
		           "\"line_max\":16777216,\"comfyui\":{\"url\":"
		           "\"http://127.0.0.1:1\",\"state\":\"connected\"}}",
		           b->epoch ? b->epoch : FAKE_EPOCH);
		fake_bus_reply(b, req, buf_cstr(&result));
	} else if (strcmp(op, "attach") == 0) {
		b->attaches++;
		snprintf(b->attach, sizeof(b->attach), "%.*s", (int)line.n,
		         line.p);
		if (b->refuse_attach)
			fake_bus_refuse(b, req, "denied", NULL);
		else
			fake_bus_reply(b, req,
			               "{\"session\":\"s1\",\"comfyui\":{"
			               "\"url\":\"http://127.0.0.1:1\","
			               "\"client_id\":\"bus-client\"},"
			               "\"sessions\":2,"
			               "\"poll_interval_ms\":200}");
	} else if (strcmp(op, "ping") == 0) {
		b->pings++;
		fake_bus_reply(b, req, "{}");
	} else if (b->on_request) {
		b->on_request(b, op, req);
	}
}

static void on_bus_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct fake_bus *b = container_of(w, struct fake_bus, io);
	char data[65536];
	struct span line;
	ssize_t n;

	if (b->deaf) {
		ev_io_stop(loop, w);
		return;
	}
	n = recv(b->fd, data, sizeof(data), 0);
	if (n <= 0) {
		fake_bus_close(b);
		return;
	}
	ck_assert_int_eq(lines_feed(&b->lines, data, (size_t)n), 0);
	while (b->fd >= 0 && lines_next(&b->lines, &line) == LINES_LINE)
		bus_line(b, line);
}

int fake_bus_open(struct fake_bus *b, struct ev_loop *loop)
{
	int sv[2];

	ck_assert_int_eq(fd_socketpair(sv, 0), 0);
	b->loop = loop;
	b->fd = sv[0];
	lines_init(&b->lines, LINE_MAX_BYTES, NULL);
	ev_io_init(&b->io, on_bus_readable, b->fd, EV_READ);
	ev_io_start(loop, &b->io);
	return sv[1];
}

void fake_bus_connect(struct fake_bus *b, struct ev_loop *loop, struct link *l)
{
	struct error err;

	ck_assert_int_eq(link_set_bus(l, fake_bus_open(b, loop), &err), 0);
}

void fake_bus_close(struct fake_bus *b)
{
	if (!b->loop || b->fd < 0)
		return;
	ev_io_stop(b->loop, &b->io);
	lines_deinit(&b->lines);
	close(b->fd);
	b->fd = -1;
}

/* --- ComfyUI ------------------------------------------------------------- */

struct fake_prompt *fake_comfy_find(struct fake_comfy *c, const char *id)
{
	for (size_t i = 0; i < c->count; i++) {
		if (strcmp(c->prompts[i].id, id) == 0)
			return &c->prompts[i];
	}
	return NULL;
}

struct fake_prompt *fake_comfy_add(struct fake_comfy *c, const char *id,
                                   enum fake_prompt_state state)
{
	struct fake_prompt *p = fake_comfy_find(c, id);

	if (!p) {
		ck_assert_uint_lt(c->count, FAKE_PROMPTS_MAX);
		p = &c->prompts[c->count++];
		memset(p, 0, sizeof(*p));
		snprintf(p->id, sizeof(p->id), "%s", id);
	}
	p->state = state;
	return p;
}

void fake_comfy_settle(struct fake_comfy *c)
{
	for (size_t i = 0; i < c->count; i++) {
		if (c->prompts[i].state == FAKE_HIDDEN)
			c->prompts[i].state = FAKE_PENDING;
	}
}

static void reply_json(struct script_conn *conn, int status, const char *text)
{
	script_reply(conn, status, "application/json; charset=utf-8", text,
	             strlen(text));
}

static void put_items(const struct fake_comfy *c, enum fake_prompt_state state,
                      struct buf *b)
{
	bool first = true;

	for (size_t i = 0; i < c->count; i++) {
		if (c->prompts[i].state != state)
			continue;
		buf_printf(b,
		           "%s[%zu,\"%s\",{},{\"client_id\":\"x\","
		           "\"comfymux\":{\"prompt_id\":\"%s\"}},[\"9\"]]",
		           first ? "" : ",", i, c->prompts[i].id,
		           c->prompts[i].mark);
		first = false;
	}
}

static void serve_queue(struct fake_comfy *c, struct script_conn *conn)
{
	cleanup_buf struct buf b = BUF_INIT(1 << 20);

	c->queues++;
	buf_puts(&b, "{\"queue_running\":[");
	put_items(c, FAKE_RUNNING, &b);
	buf_puts(&b, "],\"queue_pending\":[");
	put_items(c, FAKE_PENDING, &b);
	buf_puts(&b, "]}");
	reply_json(conn, 200, buf_cstr(&b));
}

static void put_entry(const struct fake_prompt *p, struct buf *b)
{
	bool ok = p->state == FAKE_DONE;

	buf_printf(b,
	           "\"%s\":{\"prompt\":[0,\"%s\",{},{\"create_time\":5,"
	           "\"comfymux\":{\"prompt_id\":\"%s\"}},[]],"
	           "\"outputs\":{\"9\":{\"images\":[{\"filename\":\"a.png\","
	           "\"subfolder\":\"\",\"type\":\"output\"}]}},\"status\":{"
	           "\"status_str\":\"%s\",\"completed\":%s,\"messages\":["
	           "[\"execution_start\",{\"prompt_id\":\"%s\",\"timestamp\":"
	           "10}]",
	           p->id, p->id, p->mark, ok ? "success" : "error",
	           ok ? "true" : "false", p->id);
	if (p->state == FAKE_FAILED)
		buf_printf(b,
		           ",[\"execution_error\",{\"prompt_id\":\"%s\","
		           "\"node_id\":\"3\",\"node_type\":\"KSampler\","
		           "\"exception_message\":\"out of VRAM\\n\","
		           "\"exception_type\":\"RuntimeError\","
		           "\"traceback\":[],\"timestamp\":20}]",
		           p->id);
	else if (p->state == FAKE_INTERRUPTED)
		buf_printf(b,
		           ",[\"execution_interrupted\",{\"prompt_id\":\"%s\","
		           "\"node_id\":\"3\",\"node_type\":\"KSampler\","
		           "\"timestamp\":20}]",
		           p->id);
	else
		buf_printf(b,
		           ",[\"execution_success\",{\"prompt_id\":\"%s\","
		           "\"timestamp\":20}]",
		           p->id);
	buf_puts(b, "]},\"meta\":{\"9\":{\"node_id\":\"9\"}}}");
}

static bool in_history(const struct fake_prompt *p)
{
	return p->state == FAKE_DONE || p->state == FAKE_FAILED ||
	       p->state == FAKE_INTERRUPTED;
}

static void serve_history(struct fake_comfy *c, struct script_conn *conn,
                          const char *id)
{
	cleanup_buf struct buf b = BUF_INIT(1 << 20);
	const struct fake_prompt *p;
	bool first = true;

	c->histories++;
	buf_putc(&b, '{');
	for (size_t i = 0; i < c->count; i++) {
		p = &c->prompts[i];
		if (!in_history(p) || (id && strcmp(id, p->id) != 0))
			continue;
		buf_puts(&b, first ? "" : ",");
		put_entry(p, &b);
		first = false;
	}
	buf_putc(&b, '}');
	reply_json(conn, 200, buf_cstr(&b));
}

static void take_prompt(struct fake_comfy *c, struct json body, const char *id,
                        enum fake_prompt_state state)
{
	struct fake_prompt *p = fake_comfy_add(c, id, state);
	cleanup_free char *client =
		json_string_dup(json_get(body, "client_id"), 63);
	struct span mark = comfy_marker_of(json_get(body, "extra_data"));

	p->posts++;
	snprintf(p->mark, sizeof(p->mark), "%.*s", (int)mark.n,
	         mark.p ? mark.p : "");
	snprintf(p->client_id, sizeof(p->client_id), "%s",
	         client ? client : "");
}

static void serve_post(struct fake_comfy *c, struct script_conn *conn,
                       const struct script_request *req)
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	cleanup_free char *id = NULL;
	struct json body;

	c->posts++;
	snprintf(c->last_body, sizeof(c->last_body), "%.*s", (int)req->body.n,
	         req->body.p);
	ck_assert_int_eq(json_parse(&body, req->body.p, req->body.n,
	                            JSON_NONFINITE, NULL),
	                 JSON_OK);
	id = json_string_dup(json_get(body, "prompt_id"), 63);
	ck_assert_ptr_nonnull(id);
	buf_printf(&b, "{\"prompt_id\":\"%s\",\"number\":7,\"node_errors\":%s}",
	           c->post == FAKE_POST_OTHER_ID ? FAKE_OTHER_ID : id,
	           c->post == FAKE_POST_PARTLY
	                   ? "{\"4\":{\"errors\":[],\"class_type\":\"X\"}}"
	                   : "{}");
	switch (c->post) {
	case FAKE_POST_TAKE:
	case FAKE_POST_PARTLY:
		take_prompt(c, body, id, FAKE_PENDING);
		reply_json(conn, 200, buf_cstr(&b));
		break;
	case FAKE_POST_OTHER_ID:
		take_prompt(c, body, FAKE_OTHER_ID, FAKE_PENDING);
		reply_json(conn, 200, buf_cstr(&b));
		break;
	case FAKE_POST_OTHER_DROP:
		take_prompt(c, body, FAKE_OTHER_ID, c->other_state);
		script_close(conn, 0);
		break;
	case FAKE_POST_REJECT:
		reply_json(conn, 400,
		           "{\"error\":{\"type\":"
		           "\"prompt_outputs_failed_validation\",\"message\":"
		           "\"Prompt outputs failed validation\",\"details\":"
		           "\"\",\"extra_info\":{}},\"node_errors\":{\"3\":{"
		           "\"errors\":[{\"type\":\"value_not_in_list\","
		           "\"message\":\"Value not in list\",\"details\":"
		           "\"sampler_name: 'x'\",\"extra_info\":{}}],"
		           "\"dependent_outputs\":[\"9\"],\"class_type\":"
		           "\"KSampler\"}}}");
		break;
	case FAKE_POST_500:
		script_reply(conn, 500, "text/plain", "500 Internal", 12);
		break;
	case FAKE_POST_502:
		script_reply(conn, 502, "text/html", "bad gateway", 11);
		break;
	case FAKE_POST_TAKE_DROP:
		take_prompt(c, body, id, FAKE_PENDING);
		script_close(conn, 0);
		break;
	case FAKE_POST_TAKE_LATER:
		take_prompt(c, body, id, FAKE_HIDDEN);
		script_close(conn, 0);
		break;
	case FAKE_POST_DROP:
		script_close(conn, 0);
		break;
	case FAKE_POST_HANG:
		take_prompt(c, body, id, FAKE_PENDING);
		break;
	}
}

static void serve_delete(struct fake_comfy *c, struct script_conn *conn,
                         const struct script_request *req)
{
	struct json body, ids, id;
	struct json_iter it;

	c->deletes++;
	ck_assert_int_eq(json_parse(&body, req->body.p, req->body.n, 0, NULL),
	                 JSON_OK);
	ids = json_get(body, "delete");
	json_iter_init(&it, ids);
	while (json_iter_next(&it, NULL, &id)) {
		for (size_t i = 0; i < c->count; i++) {
			if (c->prompts[i].state == FAKE_PENDING &&
			    json_string_eq(id, c->prompts[i].id))
				c->prompts[i].state = FAKE_GONE;
		}
	}
	script_reply(conn, 200, "", "", 0);
}

static void serve_interrupt(struct fake_comfy *c, struct script_conn *conn)
{
	c->interrupts++;
	for (size_t i = 0; i < c->count; i++) {
		if (c->prompts[i].state == FAKE_RUNNING)
			c->prompts[i].state = FAKE_INTERRUPTED;
	}
	script_reply(conn, 200, "", "", 0);
}

static void on_http(void *user, struct script_conn *conn,
                    const struct script_request *req)
{
	struct fake_comfy *c = user;
	bool post = strcmp(req->method, "POST") == 0;

	if (c->closed)
		script_close(conn, 1);
	else if (c->refuse_all)
		script_reply(conn, 503, "text/plain", "busy", 4);
	else if (post && strcmp(req->path, "/prompt") == 0)
		serve_post(c, conn, req);
	else if (post && strcmp(req->path, "/queue") == 0)
		serve_delete(c, conn, req);
	else if (post && strcmp(req->path, "/interrupt") == 0)
		serve_interrupt(c, conn);
	else if (strcmp(req->path, "/queue") == 0)
		serve_queue(c, conn);
	else if (strncmp(req->path, "/history/", 9) == 0)
		serve_history(c, conn, req->path + 9);
	else if (strncmp(req->path, "/history", 8) == 0)
		serve_history(c, conn, NULL);
	else if (strcmp(req->path, "/system_stats") == 0)
		reply_json(conn, 200, "{\"system\":{\"x\":NaN}}");
	else if (strncmp(req->path, "/view", 5) == 0 && ++c->views && c->view)
		script_reply(conn, 200, "image/png", c->view, strlen(c->view));
	else
		script_reply(conn, 404, "text/plain", "404: Not Found", 14);
}

void fake_comfy_init(struct fake_comfy *c, struct ev_loop *loop)
{
	memset(c, 0, sizeof(*c));
	c->server = script_server_new(loop, on_http, c);
	ck_assert_ptr_nonnull(c->server);
}

void fake_comfy_deinit(struct fake_comfy *c)
{
	c->server = script_server_free(c->server);
}

/* --- loop ---------------------------------------------------------------- */

static void on_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
	container_of(w, struct run_limit, timer)->over = true;
}

void run_limit_start(struct run_limit *r, struct ev_loop *loop)
{
	r->over = false;
	ev_timer_init(&r->timer, on_limit, 20., 0.);
	ev_timer_start(loop, &r->timer);
}

void run_limit_stop(struct run_limit *r, struct ev_loop *loop)
{
	ev_timer_stop(loop, &r->timer);
}

void run_for(struct ev_loop *loop, unsigned ms)
{
	struct run_limit r = {.over = false};

	ev_timer_init(&r.timer, on_limit, ms / 1000.0, 0.);
	ev_timer_start(loop, &r.timer);
	while (!r.over)
		ev_run(loop, EVRUN_ONCE);
}

/* --- link ---------------------------------------------------------------- */

const struct link_patience fake_patience = {
	.attach_ms = 60000,
	.quiet_ms = 60000,
	.ping_ms = 60000,
	.away_ms = 400,
	.away_cancel_ms = 150,
	.lookup_gap_ms = 50,
};

struct link *fake_link_new(struct ev_loop *loop, const struct fake_comfy *c,
                           unsigned poll_interval_ms)
{
	const struct link_config cfg = {
		.kind = "run",
		.comfyui = script_server_url(c->server),
		.client_id = "my-client",
		.connect_timeout_ms = 60000,
		.request_timeout_ms = 60000,
		.poll_interval_ms = poll_interval_ms,
		.patience = &fake_patience,
	};
	struct error err;
	struct link *l = link_new(loop, &cfg, &err);

	ck_assert_ptr_nonnull(l);
	return l;
}
