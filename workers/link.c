/*
 * link.c - the bus: hello, attach, questions, events, and its end.
 *
 * Whatever ends the bus (EOF, a refusal, a supervisor that doesn't answer, a
 * new descriptor) goes through link_drop_bus(): first the state changes, then
 * every open question is answered with ERR_UNREACHABLE, then the watchers
 * hear. So nobody is called with the link half-way.
 */
#include "workers/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/uuid.h"
#include "common/version.h"
#include "workers/link_private.h"
#include "workers/poller.h"

#define STRING_MAX 4096 /* bytes of a string in a reply to attach */

static const struct link_patience default_patience = {
	.attach_ms = LINK_ATTACH_MS,
	.quiet_ms = LINK_QUIET_MS,
	.ping_ms = LINK_PING_MS,
	.away_ms = LINK_AWAY_MS,
	.away_cancel_ms = LINK_AWAY_CANCEL_MS,
	.lookup_gap_ms = LINK_LOOKUP_GAP_MS,
};

/* A question to the supervisor. The client's own callback ends in ours, so
 * that questions can be failed when the client is thrown away. */
struct link_ask {
	struct list node;
	struct link *link;
	uint64_t id;
	client_reply_cb *cb;
	void *user;
};

/* A walk of the watches; removing one moves the walks that stand on it. */
struct link_cursor {
	struct link_cursor *outer;
	struct list *next;
	uint64_t serial; /* watches added later are not visited */
};

static struct link_watch *cursor_next(struct link *l, struct link_cursor *c)
{
	struct link_watch *w;

	while (c->next != &l->watches) {
		w = list_entry(c->next, struct link_watch, node);
		c->next = c->next->next;
		if (w->serial <= c->serial)
			return w;
	}
	return NULL;
}

static void cursor_open(struct link *l, struct link_cursor *c)
{
	c->outer = l->cursors;
	c->next = l->watches.next;
	c->serial = l->serial;
	l->cursors = c;
}

static void cursor_close(struct link *l, struct link_cursor *c)
{
	l->cursors = c->outer;
}

static void link_tell_bus(struct link *l, bool up)
{
	struct link_cursor c;
	struct link_watch *w;

	cursor_open(l, &c);
	while ((w = cursor_next(l, &c))) {
		if (w->on_bus)
			w->on_bus(w->user, up);
	}
	cursor_close(l, &c);
}

static void ask_free(struct link_ask *a)
{
	list_del(&a->node);
	free(a);
}

/* What comes after a bus. */
enum link_after {
	AFTER_LOST, /* it worked, or should have: the keeper may find another */
	AFTER_REFUSED,  /* another attempt would only be refused, too */
	AFTER_REPLACED, /* another is there already */
};

static void link_drop_bus(struct link *l, const struct error *why,
                          enum link_after after)
{
	struct link_ask *a;
	struct list *n;
	struct error err = *why;

	if (l->state == LINK_ALONE)
		return;
	l->state = after == AFTER_REPLACED ? LINK_HELLO : LINK_ALONE;
	l->client = client_free(l->client);
	l->bus_error = err;
	l->refused = after == AFTER_REFUSED;
	ev_timer_stop(l->loop, &l->deadline);
	ev_timer_stop(l->loop, &l->quiet);
	log_debug("link", "bus dropped: %s", err.text);
	err.code = ERR_UNREACHABLE;
	while ((n = list_pop(&l->asks))) {
		a = list_entry(n, struct link_ask, node);
		a->cb(a->user, NULL, &err);
		free(a);
	}
	link_tell_bus(l, false);
	if (after == AFTER_LOST && l->on_lost)
		l->on_lost(l->on_lost_user);
}

static void on_client_close(void *user, const struct error *err)
{
	link_drop_bus(user, err, AFTER_LOST);
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct link *l = container_of(w, struct link, deadline);
	struct error err;

	error_set(&err, ERR_UNREACHABLE,
	          "the supervisor did not answer within %.1f s",
	          l->patience.attach_ms / 1000.0);
	link_drop_bus(l, &err, AFTER_LOST);
}

/* Replaces a string if the reply has one that is not empty. */
static int take_string(char **sp, struct json j)
{
	char *s;

	if (!json_is(j, JSON_STRING) || json_string_eq(j, ""))
		return 0;
	s = json_string_dup(j, STRING_MAX);
	if (!s)
		return -1;
	free(*sp);
	*sp = s;
	return 0;
}

static void take_unsigned(unsigned *up, struct json j)
{
	int64_t v;

	if (json_int64(j, &v) && v > 0 && v <= INT32_MAX)
		*up = (unsigned)v;
}

static int link_take_attach(struct link *l, struct json result)
{
	struct json comfyui = json_get(result, "comfyui");

	take_unsigned(&l->sessions, json_get(result, "sessions"));
	take_unsigned(&l->poll_interval_ms,
	              json_get(result, "poll_interval_ms"));
	if (take_string(&l->session, json_get(result, "session")) ||
	    take_string(&l->client_id, json_get(comfyui, "client_id")) ||
	    take_string(&l->address, json_get(comfyui, "address")))
		return -1;
	log_set_session(l->session);
	/* What the user named stands: the supervisor has just agreed that it
	 * is the same server. */
	if (take_string(&l->default_url, json_get(comfyui, "url")))
		return -1;
	link_http_moved(l);
	return 0;
}

static void link_watch_quiet(struct link *l)
{
	if (l->state == LINK_UP && (l->listeners > 0 || !list_empty(&l->asks)))
		ev_timer_again(l->loop, &l->quiet);
	else
		ev_timer_stop(l->loop, &l->quiet);
}

static void on_attached(void *user, const struct incoming *in,
                        const struct error *err)
{
	struct link *l = user;
	struct error bad = ERROR_NULL;

	if (err) {
		/* A bus that broke is told by on_client_close. */
		if (in || err->code != ERR_UNREACHABLE)
			link_drop_bus(l, err, in ? AFTER_REFUSED : AFTER_LOST);
		return;
	}
	if (link_take_attach(l, in->result)) {
		error_set(&bad, ERR_PROTOCOL,
		          "the supervisor's reply to attach is not usable");
		link_drop_bus(l, &bad, AFTER_REFUSED);
		return;
	}
	l->state = LINK_UP;
	l->had_bus = true;
	l->bus_error = (struct error)ERROR_NULL;
	ev_timer_stop(l->loop, &l->deadline);
	link_watch_quiet(l);
	if (l->told_polling) {
		l->told_polling = false;
		link_notice(l, "a supervisor answers again: no more polling");
	}
	link_pay_cancels(l);
	link_tell_bus(l, true);
}

/* The kinds of session that there are; single commands are runs. */
static const char *attach_kind(const char *kind)
{
	static const char *const kinds[] = {"mcp", "batch", "chain"};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(kind, kinds[i]) == 0)
			return kind;
	}
	return "run";
}

static int link_attach(struct link *l, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(8192);

	buf_puts(&b, "{");
	buf_json_key(&b, "kind");
	buf_json_string(&b, attach_kind(l->kind), strlen(attach_kind(l->kind)));
	if (l->comfyui[0]) {
		buf_json_key(&b, "comfyui");
		buf_json_string(&b, l->comfyui, strlen(l->comfyui));
	}
	if (l->session) {
		buf_json_key(&b, "session");
		buf_json_string(&b, l->session, strlen(l->session));
	}
	buf_putc(&b, '}');
	if (!buf_ok(&b))
		return error_set_nomem(err, "attach");
	if (!client_request(l->client, OP_ATTACH, span_make(b.data, b.len),
	                    l->patience.attach_ms, on_attached, l, err))
		return -1;
	return 0;
}

static void on_client_ready(void *user, const struct client_server *server)
{
	struct link *l = user;
	struct error err;

	(void)snprintf(l->epoch, sizeof(l->epoch), "%s", server->epoch);
	l->uid = server->uid;
	l->guest = !server->is_operator;
	l->state = LINK_ATTACH;
	if (link_attach(l, &err))
		link_drop_bus(l, &err, AFTER_REFUSED);
}

static void on_preview_acked(void *user, const struct incoming *in,
                             const struct error *err)
{
	if (in && err)
		log_debug("link", "preview_ack: %s", err->text);
}

/* Acknowledged at once: what comes takes the place of what is kept. */
static void link_take_preview(struct link *l, const struct incoming *ev)
{
	cleanup_close int fd = client_take_fd(l->client);
	struct link_cursor c;
	struct link_watch *w;
	struct error err;

	if (fd >= 0 && link_ask(l, OP_PREVIEW_ACK, SPAN_NULL, 0,
	                        on_preview_acked, NULL, &err) == 0)
		log_debug("link", "preview_ack not sent: %s", err.text);
	cursor_open(l, &c);
	while (fd >= 0 && (w = cursor_next(l, &c))) {
		if (w->on_preview && w->prompt_id &&
		    json_string_eq(ev->prompt_id, w->prompt_id))
			w->on_preview(w->user, ev->data, fd);
	}
	cursor_close(l, &c);
}

static void on_client_event(void *user, const struct incoming *ev)
{
	struct link *l = user;
	struct link_cursor c;
	struct link_watch *w;

	link_watch_quiet(l);
	if (ev->event == EVENT_SESSIONS)
		take_unsigned(&l->sessions, json_get(ev->data, "sessions"));
	if (ev->event == EVENT_PREVIEW) {
		link_take_preview(l, ev);
		return;
	}
	cursor_open(l, &c);
	while ((w = cursor_next(l, &c))) {
		if (w->on_event &&
		    (!w->prompt_id ||
		     json_string_eq(ev->prompt_id, w->prompt_id)))
			w->on_event(w->user, ev);
	}
	cursor_close(l, &c);
}

static void on_ping_answer(void *user, const struct incoming *in,
                           const struct error *err)
{
	struct link *l = user;
	struct error quiet;

	if (in) {
		link_watch_quiet(l);
		return;
	}
	if (err && err->code == ERR_UNREACHABLE)
		return;
	error_set(&quiet, ERR_UNREACHABLE,
	          "the supervisor has not answered for %.1f s",
	          (l->patience.quiet_ms + l->patience.ping_ms) / 1000.0);
	link_drop_bus(l, &quiet, AFTER_LOST);
}

static void on_quiet(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct link *l = container_of(w, struct link, quiet);
	struct error err;

	ev_timer_stop(loop, w);
	if (!link_ask(l, OP_PING, SPAN_NULL, l->patience.ping_ms,
	              on_ping_answer, l, &err))
		link_drop_bus(l, &err, AFTER_LOST);
}

int link_set_bus(struct link *l, int fd, struct error *err)
{
	static const struct client_handlers handlers = {
		.on_event = on_client_event,
		.on_ready = on_client_ready,
		.on_close = on_client_close,
	};
	struct error replaced;
	char name[64];

	error_set(&replaced, ERR_UNREACHABLE, "%s",
	          fd < 0 ? "none is running" : "another bus took its place");
	link_drop_bus(l, &replaced, fd < 0 ? AFTER_REFUSED : AFTER_REPLACED);
	if (fd < 0) {
		l->bus_error = replaced;
		return 0;
	}
	(void)snprintf(name, sizeof(name), "comfymux %.32s/%s", l->kind,
	               comfymux_version);
	l->client = client_new(l->loop, fd, name, &handlers, l, &l->bus_error);
	if (!l->client) {
		if (err)
			*err = l->bus_error;
		l->state = LINK_ALONE;
		link_tell_bus(l, false);
		return -1;
	}
	/* Previews come with some. One that isn't announced stays where it is
	 * until the bus is closed; a few, and it is. */
	if (client_expect_fds(l->client) < 0)
		log_warn("link", "no descriptors can be taken: no previews");
	l->state = LINK_HELLO;
	ev_timer_set(&l->deadline, l->patience.attach_ms / 1000.0, 0.);
	ev_timer_start(l->loop, &l->deadline);
	return 0;
}

bool link_on_bus(const struct link *l)
{
	return l->state == LINK_UP;
}

bool link_bus_pending(const struct link *l)
{
	return l->state == LINK_HELLO || l->state == LINK_ATTACH;
}

const char *link_bus_error(const struct link *l)
{
	return l->state == LINK_UP ? "" : l->bus_error.text;
}

void link_set_bus_error(struct link *l, const char *text)
{
	if (l->state == LINK_ALONE)
		error_set(&l->bus_error, ERR_UNREACHABLE, "%s", text);
}

static void on_reply(void *user, const struct incoming *in,
                     const struct error *err)
{
	struct link_ask *a = user;

	/* The bus broke: on_close comes next and fails all that are left. */
	if (!in && err && err->code == ERR_UNREACHABLE)
		return;
	list_del(&a->node);
	link_watch_quiet(a->link);
	a->cb(a->user, in, err);
	free(a);
}

uint64_t link_ask(struct link *l, enum op op, struct span params,
                  unsigned timeout_ms, client_reply_cb *cb, void *user,
                  struct error *err)
{
	struct link_ask *a;

	if (l->state != LINK_UP) {
		error_set(err, ERR_UNREACHABLE, "no supervisor: %s",
		          l->bus_error.text);
		return 0;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		error_set_nomem(err, "request");
		return 0;
	}
	a->link = l;
	a->cb = cb;
	a->user = user;
	a->id = client_request(l->client, op, params, timeout_ms, on_reply, a,
	                       err);
	if (!a->id) {
		free(a);
		return 0;
	}
	list_append(&l->asks, &a->node);
	if (!ev_is_active(&l->quiet))
		link_watch_quiet(l);
	return a->id;
}

void link_forget(struct link *l, uint64_t id)
{
	struct list *it;
	struct link_ask *a;

	if (id == 0)
		return;
	list_for_each (it, &l->asks) {
		a = list_entry(it, struct link_ask, node);
		if (a->id == id) {
			client_forget(l->client, id);
			ask_free(a);
			return;
		}
	}
}

void link_watch_add(struct link *l, struct link_watch *w)
{
	w->serial = ++l->serial;
	list_append(&l->watches, &w->node);
	if (w->on_event)
		l->listeners++;
	if (!ev_is_active(&l->quiet))
		link_watch_quiet(l);
}

void link_watch_remove(struct link *l, struct link_watch *w)
{
	if (!w->node.next || list_empty(&w->node))
		return;
	for (struct link_cursor *c = l->cursors; c; c = c->outer) {
		if (c->next == &w->node)
			c->next = w->node.next;
	}
	list_del(&w->node);
	if (w->on_event && --l->listeners == 0 && list_empty(&l->asks))
		ev_timer_stop(l->loop, &l->quiet);
}

bool link_watched(const struct link *l, const char *prompt_id)
{
	const struct link_watch *w;
	struct list *it;

	list_for_each (it, &l->watches) {
		w = list_entry(it, struct link_watch, node);
		if (w->prompt_id && strcmp(w->prompt_id, prompt_id) == 0)
			return true;
	}
	return false;
}

bool link_had_bus(const struct link *l)
{
	return l->had_bus;
}

void link_on_bus_lost(struct link *l, void (*cb)(void *user), void *user)
{
	l->on_lost = cb;
	l->on_lost_user = user;
}

const struct link_patience *link_patience(const struct link *l)
{
	return &l->patience;
}

struct ev_loop *link_loop(const struct link *l)
{
	return l->loop;
}

uid_t link_uid(const struct link *l)
{
	return l->uid;
}

const char *link_epoch(const struct link *l)
{
	return l->epoch;
}

static char *dup_string(const char *s)
{
	return strdup(s ? s : "");
}

static int link_copy_config(struct link *l, const struct link_config *cfg)
{
	char id[UUID_LEN + 1] = "";

	/* Submitting without a client id would send the events nowhere and the
	 * previews to everybody. */
	if ((!cfg->client_id || !cfg->client_id[0]) && uuid_new(id))
		return -1;
	l->kind = dup_string(cfg->kind);
	l->comfyui = dup_string(cfg->comfyui);
	l->default_url = dup_string(cfg->default_url);
	l->address = dup_string(cfg->address);
	l->client_id = dup_string(id[0] ? id : cfg->client_id);
	l->ca_file = dup_string(cfg->ca_file);
	l->proxy = dup_string(cfg->proxy);
	l->credentials = cfg->credentials;
	l->credentials_url = dup_string(cfg->credentials_url);
	l->credentials_error = dup_string(cfg->credentials_error);
	l->connect_timeout_ms = cfg->connect_timeout_ms;
	l->request_timeout_ms = cfg->request_timeout_ms;
	l->poll_interval_ms = cfg->poll_interval_ms;
	l->sessions = cfg->sessions;
	l->tenant = cfg->tenant;
	l->had_bus = cfg->had_bus;
	return l->kind && l->comfyui && l->default_url && l->address &&
	                       l->client_id && l->ca_file && l->proxy &&
	                       l->credentials_url && l->credentials_error
	               ? 0
	               : -1;
}

struct link *link_new(struct ev_loop *loop, const struct link_config *cfg,
                      struct error *err)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l) {
		error_set_nomem(err, "link");
		return NULL;
	}
	l->loop = loop;
	l->uid = geteuid();
	list_init(&l->asks);
	list_init(&l->watches);
	ev_timer_init(&l->deadline, on_deadline, 0., 0.);
	l->patience = cfg->patience ? *cfg->patience : default_patience;
	ev_timer_init(&l->quiet, on_quiet, 0., l->patience.quiet_ms / 1000.0);
	link_http_init(l);
	error_set(&l->bus_error, ERR_UNREACHABLE, "%s",
	          cfg->bus_error && cfg->bus_error[0] ? cfg->bus_error
	                                              : "none is running");
	if (link_copy_config(l, cfg)) {
		error_set_nomem(err, "link");
		return link_free(l);
	}
	l->rng = (uint64_t)clock_us() ^ (uint64_t)getpid() << 32;
	l->poller = poller_new(l);
	if (!l->poller) {
		error_set_nomem(err, "link");
		return link_free(l);
	}
	return l;
}

struct link *link_free(struct link *l)
{
	struct list *it, *tmp;

	if (!l)
		return NULL;
	ev_timer_stop(l->loop, &l->deadline);
	ev_timer_stop(l->loop, &l->quiet);
	l->client = client_free(l->client);
	list_for_each_safe (it, tmp, &l->asks)
		ask_free(list_entry(it, struct link_ask, node));
	l->poller = poller_free(l->poller);
	link_http_deinit(l);
	free(l->kind);
	free(l->comfyui);
	free(l->default_url);
	free(l->address);
	free(l->client_id);
	free(l->session);
	free(l->ca_file);
	free(l->proxy);
	free(l->credentials_url);
	free(l->credentials_error);
	free(l);
	return NULL;
}
