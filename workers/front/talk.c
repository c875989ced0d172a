/*
 * talk.c - see talk.h.
 */
#include "workers/front/talk.h"

#include <ev.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/version.h"
#include "ipc/client.h"
#include "workers/front/autostart.h"

struct talk {
	struct ev_loop *loop;
	struct client *client;
	struct buf *reply;
	struct json *result;
	struct error *err;
	bool answered, broken;
	int status;
	/* Whoever listens. */
	struct ev_loop *outer;
	ev_io readable;
	void (*cb)(void *user, const struct incoming *ev);
	void *user;
};

static void talk_hush(struct talk *t)
{
	if (t->outer)
		ev_io_stop(t->outer, &t->readable);
	t->outer = NULL;
}

static void talk_end(struct talk *t, int status)
{
	if (t->answered)
		return;
	t->answered = true;
	t->status = status;
	ev_break(t->loop, EVBREAK_ALL);
}

static void on_reply(void *user, const struct incoming *in,
                     const struct error *err)
{
	struct talk *t = user;
	struct json value = in ? (err ? in->error : in->result) : JSON_MISSING;

	if (err)
		*t->err = *err;
	if (buf_append(t->reply, value.text.p, value.text.n)) {
		talk_end(t, error_set_nomem(t->err, "an answer"));
		return;
	}
	*t->result = value;
	t->result->text = span_make(t->reply->data, t->reply->len);
	talk_end(t, err ? -1 : 0);
}

static void on_event(void *user, const struct incoming *ev)
{
	struct talk *t = user;

	if (t->cb)
		t->cb(t->user, ev);
}

static void on_ready(void *user, const struct client_server *server)
{
}

static void on_close(void *user, const struct error *err)
{
	struct talk *t = user;

	t->broken = true;
	talk_hush(t);
	if (!t->answered && t->err)
		*t->err = *err;
	talk_end(t, -1);
	if (t->cb)
		t->cb(t->user, NULL);
}

static void on_readable(struct ev_loop *outer, ev_io *w, int revents)
{
	struct talk *t = container_of(w, struct talk, readable);

	(void)ev_run(t->loop, EVRUN_NOWAIT);
}

void talk_listen(struct talk *t, struct ev_loop *loop,
                 void (*cb)(void *user, const struct incoming *ev), void *user)
{
	t->cb = cb;
	t->user = user;
	if (t->broken)
		return;
	t->outer = loop;
	ev_io_init(&t->readable, on_readable, client_fd(t->client), EV_READ);
	ev_io_start(loop, &t->readable);
}

struct talk *talk_open(const struct cli *cli, struct error *err)
{
	static const struct client_handlers handlers = {
		.on_event = on_event,
		.on_ready = on_ready,
		.on_close = on_close,
	};
	struct talk *t = calloc(1, sizeof(*t));
	char name[64];
	int fd;

	if (!t) {
		(void)error_set_nomem(err, "a connection");
		return NULL;
	}
	fd = autostart_connect(&cli->cfg, err);
	if (fd < 0) {
		free(t);
		return NULL;
	}
	t->answered = true; /* nothing is asked */
	t->loop = ev_loop_new(EVFLAG_AUTO);
	(void)snprintf(name, sizeof(name), "comfymux/%s", comfymux_version);
	/* Consumes fd. */
	t->client = t->loop ? client_new(t->loop, fd, name, &handlers, t, err)
	                    : NULL;
	if (!t->loop)
		(void)error_set(err, ERR_SYSTEM, "no event loop");
	return t->client ? t : talk_close(t);
}

struct talk *talk_close(struct talk *t)
{
	if (!t)
		return NULL;
	talk_hush(t);
	(void)client_free(t->client);
	if (t->loop)
		ev_loop_destroy(t->loop);
	free(t);
	return NULL;
}

int talk_ask(struct talk *t, enum op op, struct span params, struct buf *reply,
             struct json *result, struct error *err)
{
	*result = JSON_MISSING;
	if (t->broken)
		return error_set(err, ERR_UNREACHABLE,
		                 "the supervisor is gone");
	t->answered = false;
	t->reply = reply;
	t->result = result;
	t->err = err;
	if (client_request(t->client, op, params, 0, on_reply, t, err) == 0) {
		t->answered = true;
		return -1;
	}
	while (!t->answered)
		(void)ev_run(t->loop, 0);
	return t->status;
}
