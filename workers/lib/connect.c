/*
 * connect.c - libcomfymux: a client's way to the supervisor, there and back
 * again; what the keeper does for a worker.
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "ipc/client.h"
#include "workers/lib/lib.h"

static void lib_schedule(struct cmx *c)
{
	if (ev_is_active(&c->reconnect))
		return;
	ev_now_update(c->loop);
	ev_timer_set(&c->reconnect, backoff_next_ms(&c->backoff) / 1e3, 0.);
	ev_timer_start(c->loop, &c->reconnect);
}

/* False with `err` when another attempt, later, makes no sense. */
static bool lib_connect(struct cmx *c, struct error *err)
{
	int fd = client_connect_now(&c->cfg, err);

	ev_timer_stop(c->loop, &c->reconnect);
	if (fd >= 0 && link_set_bus(c->link, fd, err) == 0)
		return true;
	link_set_bus_error(c->link, err->text);
	lib_schedule(c);
	return err->code != ERR_DENIED && err->code != ERR_CONFIG;
}

static void on_reconnect(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct cmx *c = container_of(w, struct cmx, reconnect);
	struct error err = ERROR_NULL;

	if (!lib_connect(c, &err))
		log_warn("link", "%s", err.text);
}

static void on_bus(void *user, bool up)
{
	struct cmx *c = user;

	if (up)
		backoff_reset(&c->backoff);
}

/* Also told when polling begins without a supervisor. */
static void on_bus_lost(void *user)
{
	lib_schedule(user);
}

void lib_link_free(struct cmx *c)
{
	if (!c->link)
		return;
	ev_timer_stop(c->loop, &c->reconnect);
	link_watch_remove(c->link, &c->bus);
	c->link = link_free(c->link);
	c->begun = false;
}

int lib_link_renew(struct cmx *c, const struct config *cfg, struct error *err)
{
	bool named = config_origin_of(cfg, "comfyui") != CONFIG_DEFAULT;
	struct link_config lc = {
		.kind = "run",
		.comfyui = named ? cfg->comfyui : NULL,
		.default_url = cfg->comfyui,
		.ca_file = cfg->ca_file,
		.proxy = cfg->proxy,
		.connect_timeout_ms = (unsigned)cfg->connect_timeout_ms,
		.request_timeout_ms = (unsigned)cfg->request_timeout_ms,
		.poll_interval_ms = (unsigned)cfg->poll_interval_ms,
		.sessions = 1,
		.bus_error = c->no_events ? "the program wants none" : NULL,
	};
	struct link *l = link_new(c->loop, &lc, err);

	if (!l)
		return -1;
	lib_link_free(c);
	c->link = l;
	ev_timer_init(&c->reconnect, on_reconnect, 0., 0.);
	if (c->no_events)
		return 0;
	c->bus = (struct link_watch){
		.prompt_id = "",
		.on_bus = on_bus,
		.user = c,
	};
	link_watch_add(l, &c->bus);
	link_on_bus_lost(l, on_bus_lost, c);
	return 0;
}

int lib_begin(struct cmx *c)
{
	struct error err;

	if (c->begun || c->no_events)
		return 0;
	if (!lib_connect(c, &err))
		return lib_fail_with(&err);
	c->begun = true;
	return 0;
}

/* 0 once there is a bus. */
static int lib_connect_and_wait(struct cmx *c)
{
	struct error err;
	int r = 0;

	if (c->no_events)
		return lib_fail(CMX_E_UNREACHABLE,
		                "the client was made with no_events");
	if (!link_on_bus(c->link) && !link_bus_pending(c->link)) {
		c->begun = true;
		if (!lib_connect(c, &err)) {
			c->begun = false;
			return lib_fail_with(&err);
		}
	}
	while (link_bus_pending(c->link)) {
		if (!lib_turn(c, true, &r))
			return r;
	}
	if (link_on_bus(c->link))
		return 0;
	return lib_fail(CMX_E_UNREACHABLE, "%s", link_bus_error(c->link));
}

int cmx_connect(struct cmx *c)
{
	int r = lib_enter(c, LIB_BLOCKS);

	return r < 0 ? r : lib_leave(c, lib_connect_and_wait(c));
}

int cmx_is_connected(const struct cmx *c)
{
	return c && !c->freed && link_on_bus(c->link);
}

/* --- are there events? ---------------------------------------------------- */

struct question {
	bool done, connected;
	char state[32];
	struct error err;
};

static void on_status(void *user, const struct incoming *in,
                      const struct error *err)
{
	struct question *q = user;
	char *state;

	q->done = true;
	if (err) {
		q->err = *err;
		return;
	}
	state = json_string_dup(
		json_get(json_get(in->result, "upstream"), "state"),
		sizeof(q->state) - 1);
	q->connected = state && strcmp(state, "connected") == 0;
	(void)error_set(&q->err, ERR_UNREACHABLE,
	                "the supervisor is not connected to ComfyUI (%s)",
	                state ? state : "it does not say why");
	free(state);
}

static int lib_ask_status(struct cmx *c)
{
	struct question q = {.err = ERROR_NULL};
	uint64_t id = link_ask(c->link, OP_STATUS, SPAN_NULL, LIB_STATUS_MS,
	                       on_status, &q, &q.err);
	int r;

	if (id == 0) {
		(void)lib_fail_with(&q.err);
		return 0;
	}
	r = lib_run_until(c, &q.done);
	if (!q.done) {
		link_forget(c->link, id);
		return r;
	}
	if (!q.connected)
		(void)lib_fail_with(&q.err);
	return q.connected;
}

int cmx_events_available(struct cmx *c)
{
	int r = lib_enter(c, LIB_BLOCKS);

	if (r < 0)
		return r;
	r = lib_connect_and_wait(c);
	if (r == 0)
		r = lib_ask_status(c);
	else if (r != CMX_E_SYSTEM && r != CMX_E_NOMEM && !c->freed)
		r = 0;
	return lib_leave(c, r);
}
