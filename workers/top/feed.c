/*
 * feed.c - see feed.h.
 */
#include "workers/top/feed.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/version.h"

#define PARAMS_MAX 4096

static void changed(struct feed *f)
{
	f->handlers->on_change(f->user);
}

/* --- questions ------------------------------------------------------------ */

static void on_status(void *user, const struct incoming *in,
                      const struct error *err)
{
	struct feed *f = user;

	f->status_asked = false;
	if (err)
		return; /* on_close says why, or the next one is answered */
	top_model_status(f->model, in->result, clock_ms());
	changed(f);
}

static void on_queue(void *user, const struct incoming *in,
                     const struct error *err)
{
	struct feed *f = user;

	f->queue_asked = false;
	if (err)
		return;
	top_model_queue(f->model, in->result);
	changed(f);
}

/* At most one of each is on its way: a slow supervisor isn't asked more. */
static void ask_state(struct feed *f)
{
	if (!f->status_asked)
		f->status_asked =
			client_request(f->client, OP_STATUS, SPAN("{}"), 0,
		                       on_status, f, NULL) != 0;
	if (!f->queue_asked && f->model->ages_wanted)
		f->queue_asked = client_request(f->client, OP_QUEUE, SPAN("{}"),
		                                0, on_queue, f, NULL) != 0;
}

static void on_subscribed(void *user, const struct incoming *in,
                          const struct error *err)
{
	struct feed *f = user;

	if (err && err->code != ERR_UNREACHABLE)
		f->handlers->on_note(f->user, err->text);
}

/* --- the connection ------------------------------------------------------- */

static void on_event(void *user, const struct incoming *ev)
{
	struct feed *f = user;

	top_model_event(f->model, ev, clock_epoch_ms());
	changed(f);
}

static void on_ready(void *user, const struct client_server *server)
{
	struct feed *f = user;

	top_model_connected(f->model, server->version, server->pid,
	                    server->is_operator);
	ask_state(f);
	changed(f);
}

static void away(struct feed *f, const struct error *err)
{
	f->status_asked = f->queue_asked = false;
	top_model_away(f->model, err->text);
	changed(f);
}

static void on_close(void *user, const struct error *err)
{
	struct feed *f = user;

	f->client = client_free(f->client);
	away(f, err);
}

static void connect_now(struct feed *f)
{
	static const struct client_handlers handlers = {
		.on_event = on_event,
		.on_ready = on_ready,
		.on_close = on_close,
	};
	struct error err = ERROR_NULL;
	int fd = client_connect_now(f->cfg, &err);
	char name[64];

	(void)snprintf(name, sizeof(name), "comfymux top/%s", comfymux_version);
	/* Consumes fd. */
	if (fd >= 0)
		f->client = client_new(f->loop, fd, name, &handlers, f, &err);
	if (!f->client) {
		away(f, &err);
		if (err.code == ERR_DENIED || err.code == ERR_CONFIG)
			f->handlers->on_hopeless(f->user, &err);
		return;
	}
	f->model->link = TOP_LINK_COMING;
	/* Held back until hello is answered. */
	if (client_request(f->client, OP_SUBSCRIBE, SPAN("{}"), 0,
	                   on_subscribed, f, &err) == 0)
		f->handlers->on_note(f->user, err.text);
	changed(f);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct feed *f = w->data;

	top_model_age(f->model, clock_epoch_ms());
	if (!f->client)
		connect_now(f);
	else if (f->model->link == TOP_LINK_UP)
		ask_state(f);
	changed(f); /* ages go on */
}

void feed_start(struct feed *f, struct ev_loop *loop, const struct config *cfg,
                struct top_model *model, const struct feed_handlers *h,
                void *user)
{
	*f = (struct feed){.loop = loop,
	                   .cfg = cfg,
	                   .model = model,
	                   .handlers = h,
	                   .user = user};
	ev_timer_init(&f->tick, on_tick, 0, FEED_EVERY_S);
	f->tick.data = f;
	ev_timer_start(loop, &f->tick);
}

void feed_stop(struct feed *f)
{
	ev_timer_stop(f->loop, &f->tick);
	f->client = client_free(f->client);
}

/* --- wishes --------------------------------------------------------------- */

static void tell(struct feed *f, const char *what)
{
	char text[512];

	(void)snprintf(text, sizeof(text), "%s: %s", f->wish, what);
	f->wish[0] = '\0';
	f->handlers->on_note(f->user, text);
	changed(f);
}

static void on_cancelled(void *user, const struct incoming *in,
                         const struct error *err)
{
	cleanup_free char *how =
		err ? NULL : json_string_dup(json_get(in->result, "how"), 64);

	tell(user, err ? err->text : how ? how : "done");
}

static void on_restarted(void *user, const struct incoming *in,
                         const struct error *err)
{
	int64_t n = 0;

	if (!err)
		(void)json_int64(json_get(in->result, "workers"), &n);
	tell(user, err     ? err->text
	           : n > 0 ? "it is being replaced"
	                   : "it has no worker of the supervisor's");
}

static void wish(struct feed *f, enum op op, const char *key, const char *id,
                 client_reply_cb *cb)
{
	cleanup_buf struct buf params = BUF_INIT(PARAMS_MAX);
	struct error err = ERROR_NULL;

	if (f->wish[0] != '\0') {
		f->handlers->on_note(f->user, "the last wish is not answered "
		                              "yet; try again in a moment");
		return;
	}
	(void)snprintf(f->wish, sizeof(f->wish), "%s %.8s",
	               op == OP_CANCEL ? "cancel" : "restart the worker of",
	               id);
	(void)buf_putc(&params, '{');
	(void)buf_json_key(&params, key);
	(void)buf_json_string(&params, id, strlen(id));
	(void)buf_putc(&params, '}');
	if (!f->client)
		tell(f, "there is no supervisor now");
	else if (!buf_ok(&params))
		tell(f, "out of memory");
	else if (client_request(f->client, op,
	                        span_make(params.data, params.len), 0, cb, f,
	                        &err) == 0)
		tell(f, err.text);
}

void feed_cancel(struct feed *f, const char *prompt_id)
{
	wish(f, OP_CANCEL, "prompt_id", prompt_id, on_cancelled);
}

void feed_restart(struct feed *f, const char *session)
{
	wish(f, OP_RESTART_WORKERS, "session", session, on_restarted);
}
