/*
 * ask.c - see ask.h.
 */
#include "workers/front/ask.h"

#include <ev.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
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
	bool sent, replied; /* to and by the supervisor, this time */
	bool open;          /* one had the question and never replied */
	bool gone; /* this time's went away before it had the question */
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
		q->replied = in != NULL;
		if (q->err)
			*q->err = *err;
		if (in)
			keep(q, in->error);
		answered(q, -1);
		return;
	}
	q->replied = true;
	keep(q, in->result);
	answered(q, 0);
}

static void on_event(void *user, const struct incoming *ev)
{
}

/* Until then the request is held back. */
static void on_ready(void *user, const struct client_server *server)
{
	struct question *q = user;

	q->sent = true;
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
	q->open = q->open || (q->sent && !q->replied);
	q->gone = q->status < 0 && !q->sent && q->err->code == ERR_UNREACHABLE;
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

/* --- whoever is there ---------------------------------------------------- */

static int ask_any(struct question *q, const struct cli *cli, enum op op,
                   struct span params, enum ask_without without)
{
	bool may_start = without == ASK_AUTOSTART || without == ASK_RESTART;
	struct error *err = q->err;
	char why[ERROR_TEXT_MAX];
	int fd;

	*q->result = JSON_MISSING;
	buf_reset(q->reply);
	q->answered = q->sent = q->replied = q->gone = false;
	q->loop = ev_default_loop(0);
	if (!q->loop)
		return error_set(err, ERR_SYSTEM,
		                 "no event loop: libev found "
		                 "no way to wait here");
	fd = may_start ? autostart_connect(&cli->cfg, err)
	               : client_connect(&cli->cfg, NULL, err);
	if (fd >= 0)
		return ask_supervisor(q, fd, op, params);
	if (err->code != ERR_UNREACHABLE || without == ASK_FAIL ||
	    without == ASK_RESTART)
		return -1;
	(void)snprintf(why, sizeof(why), "%s", err->text);
	return ask_worker(q, cli, op, params, why);
}

int ask(const struct cli *cli, enum op op, struct span params,
        enum ask_without without, struct buf *reply, struct json *result,
        struct error *err)
{
	struct question q = {.reply = reply, .result = result, .err = err};

	return ask_any(&q, cli, op, params, without);
}

/* --- what must be done once ---------------------------------------------- */

static int left_open(struct question *q, const char *prompt_id)
{
	struct buf *b = q->reply;

	(void)error_prefix(q->err,
	                   "the supervisor went away before it replied, and "
	                   "may have taken the prompt (comfymux watch %s "
	                   "tells)",
	                   prompt_id);
	q->err->code = ERR_UNREACHABLE;
	buf_reset(b);
	(void)buf_puts(b, "{\"type\":\"unreachable\"");
	ask_param(b, "message", q->err->text);
	ask_param(b, "prompt_id", prompt_id);
	(void)buf_putc(b, '}');
	if (!buf_ok(b) ||
	    json_parse(q->result, b->data, b->len, 0, NULL) != JSON_OK)
		*q->result = JSON_MISSING;
	return -1;
}

int ask_submit(const struct cli *cli, struct span params, const char *prompt_id,
               struct buf *reply, struct json *result, struct error *err)
{
	const struct timespec gap = {.tv_nsec = ASK_AGAIN_GAP_MS * 1000000L};
	struct question q = {.reply = reply, .result = result, .err = err};
	int64_t until = clock_ms() + ASK_AGAIN_MS;

	for (;;) {
		/* A worker doesn't see what a supervisor holds: it is for those
		 * of whom nobody has heard. */
		int r = ask_any(&q, cli, OP_SUBMIT, params,
		                q.open ? ASK_RESTART : ASK_AUTOSTART);
		/* One that is stopping says that it took nothing now. */
		bool told = r == 0 || (q.replied && err->code != ERR_BUSY);
		bool again = q.open || q.gone || err->code == ERR_BUSY;

		if (told || !again)
			return r;
		if (clock_ms() >= until)
			return q.open ? left_open(&q, prompt_id) : -1;
		(void)nanosleep(&gap, NULL);
	}
}

int ask_and_print(const struct cli *cli, enum op op, struct span params,
                  enum ask_without without,
                  int (*text)(const struct cli *cli, struct json result))
{
	cleanup_buf struct buf reply = BUF_INIT(CLIENT_QUOTA);
	struct error err = ERROR_NULL;
	struct json result;
	int r = ask(cli, op, params, without, &reply, &result, &err);

	return ask_print(cli, r, result, &err, text);
}

int ask_print(const struct cli *cli, int r, struct json result,
              const struct error *err,
              int (*text)(const struct cli *cli, struct json result))
{
	if (r < 0) {
		if (cli->json && !json_is(result, JSON_NONE))
			(void)cli_print_json_line(result);
		return cli_fail(err);
	}
	return cli->json ? cli_print_json_line(result) : text(cli, result);
}

void ask_param(struct buf *params, const char *key, const char *value)
{
	(void)buf_json_key(params, key);
	(void)buf_json_string(params, value, strlen(value));
}
