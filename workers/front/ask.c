/*
 * ask.c - see ask.h.
 */
#include "workers/front/ask.h"

#include <ev.h>
#include <stdio.h>
#include <string.h>

#include "common/version.h"
#include "ipc/client.h"
#include "workers/front/autostart.h"
#include "workers/front/keeper.h"

struct question {
	struct ev_loop *loop;
	struct buf *reply;
	struct json *result;
	struct error *err;
	int status; /* 0 or -1 once answered */
	bool answered;
};

static void answered(struct question *q, int status)
{
	if (q->answered)
		return;
	q->status = status;
	q->answered = true;
	ev_break(q->loop, EVBREAK_ALL);
}

/* Keeps a copy of the value's text, since replies are gone when their callback
 * returns. */
static void keep(struct question *q, struct json value)
{
	if (json_is(value, JSON_NONE))
		return;
	if (buf_append(q->reply, value.text.p, value.text.n) < 0) {
		answered(q, error_set_nomem(q->err, "an answer"));
		return;
	}
	q->result->type = value.type;
	q->result->text = span_make(q->reply->data, q->reply->len);
}

/* --- the supervisor ------------------------------------------------------ */

static void on_reply(void *user, const struct incoming *in,
                     const struct error *err)
{
	struct question *q = user;

	if (err) {
		if (q->err)
			*q->err = *err;
		if (in)
			keep(q, in->error);
		answered(q, -1);
		return;
	}
	keep(q, in->result);
	answered(q, 0);
}

static void on_event(void *user, const struct incoming *ev)
{
}

static void on_ready(void *user, const struct client_server *server)
{
}

static void on_close(void *user, const struct error *err)
{
	struct question *q = user;

	if (q->err && !q->answered)
		*q->err = *err;
	answered(q, -1);
}

static int ask_supervisor(struct question *q, int fd, enum op op,
                          struct span params)
{
	static const struct client_handlers handlers = {
		.on_event = on_event,
		.on_ready = on_ready,
		.on_close = on_close,
	};
	struct client *c;
	char name[64];

	(void)snprintf(name, sizeof(name), "comfymux/%s", comfymux_version);
	c = client_new(q->loop, fd, name, &handlers, q, q->err);
	if (!c)
		return -1;
	if (client_request(c, op, params, 0, on_reply, q, q->err) == 0) {
		(void)client_free(c);
		return -1;
	}
	while (!q->answered)
		(void)ev_run(q->loop, 0);
	(void)client_free(c);
	return q->status;
}

/* --- a worker ------------------------------------------------------------ */

static void on_worker_output(void *user, uint64_t line, struct span bytes)
{
}

static void on_worker_response(void *user, uint64_t line, struct span bytes)
{
	struct question *q = user;
	struct json body, error;
	bool ok = false;

	if (json_parse(&body, bytes.p, bytes.n, 0, NULL) != JSON_OK) {
		answered(q, error_set(q->err, ERR_INTERNAL,
		                      "the worker's answer is no JSON"));
		return;
	}
	(void)json_bool(json_get(body, "ok"), &ok);
	if (ok) {
		keep(q, json_get(body, "result"));
		answered(q, 0);
		return;
	}
	error = json_get(body, "error");
	if (q->err) {
		struct incoming in = {.error = error};

		incoming_error(&in, q->err);
	}
	keep(q, error);
	answered(q, -1);
}

static void on_worker_gone(void *user, const struct error *err)
{
	struct question *q = user;

	if (q->err)
		*q->err = *err;
	answered(q, -1);
}

static void on_worker_log(void *user, struct span text)
{
	(void)fprintf(stderr, "comfymux: %.*s\n", (int)text.n, text.p);
}

static int ask_worker(struct question *q, const struct cli *cli, enum op op,
                      struct span params, const char *why)
{
	static const struct keeper_handlers handlers = {
		.on_output = on_worker_output,
		.on_response = on_worker_response,
		.on_gone = on_worker_gone,
		.on_log = on_worker_log,
	};
	const struct keeper_config kc = {.cfg = &cli->cfg,
	                                 .kind = "run",
	                                 .comfyui_named = cli->comfyui_named,
	                                 .bus_fd = -1,
	                                 .no_bus = why};
	cleanup_buf struct buf request = BUF_INIT(CLIENT_QUOTA);
	struct keeper *k = keeper_new(q->loop, &kc, &handlers, q, q->err);

	if (!k)
		return -1;
	(void)buf_printf(&request,
	                 "{\"op\":\"%s\",\"params\":", op_table[op].name);
	(void)buf_append(&request, params.p, params.n);
	(void)buf_putc(&request, '}');
	if (!buf_ok(&request)) {
		(void)error_set_nomem(q->err, "a request");
		(void)keeper_free(k);
		return -1;
	}
	if (keeper_request(k, span_make(request.data, request.len), NULL,
	                   q->err) == 0) {
		(void)keeper_free(k);
		return -1;
	}
	while (!q->answered)
		(void)ev_run(q->loop, 0);
	(void)keeper_free(k);
	return q->status;
}

int ask(const struct cli *cli, enum op op, struct span params,
        enum ask_without without, struct buf *reply, struct json *result,
        struct error *err)
{
	struct question q = {.loop = ev_default_loop(0),
	                     .reply = reply,
	                     .result = result,
	                     .err = err};
	int fd;

	*result = JSON_MISSING;
	if (!q.loop)
		return error_set(err, ERR_SYSTEM,
		                 "no event loop: libev found "
		                 "no way to wait here");
	fd = without == ASK_AUTOSTART ? autostart_connect(&cli->cfg, err)
	                              : client_connect(&cli->cfg, NULL, err);
	if (fd >= 0)
		return ask_supervisor(&q, fd, op, params);
	if (err->code != ERR_UNREACHABLE || without == ASK_FAIL)
		return -1;
	{
		char why[ERROR_TEXT_MAX];

		(void)snprintf(why, sizeof(why), "%s", err->text);
		return ask_worker(&q, cli, op, params, why);
	}
}

int ask_and_print(const struct cli *cli, enum op op, struct span params,
                  enum ask_without without,
                  int (*text)(const struct cli *cli, struct json result))
{
	cleanup_buf struct buf reply = BUF_INIT(CLIENT_QUOTA);
	struct error err = ERROR_NULL;
	struct json result;

	if (ask(cli, op, params, without, &reply, &result, &err) < 0) {
		if (cli->json && !json_is(result, JSON_NONE))
			(void)cli_print_json_line(result);
		return cli_fail(&err);
	}
	return cli->json ? cli_print_json_line(result) : text(cli, result);
}

void ask_param(struct buf *params, const char *key, const char *value)
{
	(void)buf_json_key(params, key);
	(void)buf_json_string(params, value, strlen(value));
}
