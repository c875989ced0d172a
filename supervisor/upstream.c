/*
 * upstream.c - see upstream.h.
 *
 * Does what upstream_fsm asks for with the resolver and upstream_socket, tries
 * the addresses of a name one after the other, keeps the machine's deadline,
 * and says in the log what came of it.
 */
#include "supervisor/upstream.h"

#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/uuid.h"
#include "supervisor/upstream_socket.h"

/* Bytes that hold a host with its port, a whole URL, a path with the id. */
#define HOST_ROOM (URL_HOST_MAX + 16)
#define URL_ROOM  (URL_TEXT_MAX + URL_HOST_MAX + 128)

#define REASON_MAX  ERROR_TEXT_MAX
#define ADDRESS_MAX (sizeof(((struct resolve_result *)0)->address[0]))

/* Counts as the first message of a connection only (ComfyUI 0.3.45 and later);
 * without it previews don't say whose they are. */
static const char hello[] = "{\"type\":\"feature_flags\","
			    "\"data\":{\"supports_preview_metadata\":true}}";

struct upstream {
	struct ev_loop *loop;
	struct resolver *resolver;
	struct upstream_socket *socket;
	struct upstream_handlers h;
	void *user;

	struct url url, proxy;
	bool proxied;
	struct buf name; /* the URL, for messages */
	char client_id[UUID_LEN + 1];

	struct upstream_fsm fsm;
	struct ev_timer timer;  /* of fsm.deadline_ms, or earlier */
	int64_t armed_ms;       /* what it is set to */
	struct ev_watcher kick; /* work put off to the end of this turn */
	bool tell, unresolved;
	uint64_t attempts_before; /* when last connected */

	struct resolve_query *query;
	struct resolve_result found;
	size_t at;    /* index of the address in use */
	size_t tried; /* how many in this attempt */
	char address[ADDRESS_MAX];

	char reason[REASON_MAX]; /* what we know better than the socket */
	char last_error[REASON_MAX];
};

/* --- small things --------------------------------------------------------- */

static void note(struct upstream *u, const char *why)
{
	(void)snprintf(u->reason, sizeof(u->reason), "%s", why);
}

static const char *reason_of(const struct upstream *u)
{
	if (u->reason[0] != '\0')
		return u->reason;
	return upstream_socket_reason(u->socket);
}

static const char *name_of(struct upstream *u)
{
	return buf_cstr(&u->name);
}

static void kick(struct upstream *u)
{
	ev_feed_event(u->loop, &u->kick, EV_CUSTOM);
}

/* Fires early rather than being set anew with each frame; upstream_fsm finds
 * that nothing is due, and apply() comes here again. */
static void arm(struct upstream *u)
{
	int64_t delay_ms;

	if (u->fsm.deadline_ms < 0) {
		ev_timer_stop(u->loop, &u->timer);
		return;
	}
	if (ev_is_active(&u->timer) && u->armed_ms <= u->fsm.deadline_ms)
		return;
	delay_ms = u->fsm.deadline_ms - clock_ms();
	if (delay_ms < 1)
		delay_ms = 1;
	u->armed_ms = u->fsm.deadline_ms;
	ev_timer_stop(u->loop, &u->timer);
	ev_now_update(u->loop);
	ev_timer_set(&u->timer, (double)delay_ms / 1e3, 0.);
	ev_timer_start(u->loop, &u->timer);
}

/* --- what the machine asks for -------------------------------------------- */

static void on_resolved(void *user, const struct resolve_result *result,
                        const struct error *err);

static void resolve(struct upstream *u)
{
	struct error err = ERROR_NULL;

	u->reason[0] = '\0';
	u->query = resolve_start(
		u->resolver, u->proxied ? u->proxy.host : u->url.host,
		u->fsm.timing.connect_timeout_ms, on_resolved, u, &err);
	if (!u->query) {
		note(u, err.text);
		u->unresolved = true;
		kick(u);
	}
}

static void stop_resolving(struct upstream *u)
{
	u->unresolved = false;
	if (u->query)
		resolve_cancel(u->query);
	u->query = NULL;
}

static void open_next(struct upstream *u)
{
	if (u->tried++ > 0)
		u->at++;
	u->at %= u->found.count;
	upstream_socket_open(u->socket, u->found.address[u->at], u->client_id,
	                     u->fsm.timing.connect_timeout_ms);
}

static void log_waiting(struct upstream *u, enum upstream_state from)
{
	bool was_up = from != UPSTREAM_RESOLVING && from != UPSTREAM_CONNECTING;
	const char *why = reason_of(u);

	log_warn("upstream", "%s %s: %s; next attempt in %.1f s",
	         was_up ? "lost the connection to" : "no connection to",
	         name_of(u), *why ? why : "it was closed",
	         (double)(u->fsm.deadline_ms - u->fsm.since_ms) / 1e3);
}

static void log_change(struct upstream *u, enum upstream_state from)
{
	switch (u->fsm.state) {
	case UPSTREAM_RESOLVING:
		log_info("upstream", "connecting to %s (attempt=%llu)",
		         name_of(u),
		         (unsigned long long)(u->fsm.attempts -
		                              u->attempts_before));
		break;
	case UPSTREAM_CONNECTED:
		log_info("upstream", "connected to %s (address=%s)", name_of(u),
		         u->found.address[u->at]);
		break;
	case UPSTREAM_CLOSING:
		log_info("upstream", "closing the connection to %s%s%s",
		         name_of(u), *reason_of(u) ? ": " : "", reason_of(u));
		break;
	case UPSTREAM_WAITING:
		log_waiting(u, from);
		break;
	case UPSTREAM_DOWN:
		log_info("upstream", "the link to %s is down", name_of(u));
		break;
	default:
		break;
	}
}

static void changed(struct upstream *u, enum upstream_state from)
{
	switch (u->fsm.state) {
	case UPSTREAM_CONNECTED:
		u->reason[0] = u->last_error[0] = '\0';
		u->attempts_before = u->fsm.attempts;
		break;
	case UPSTREAM_WAITING:
		(void)snprintf(u->last_error, sizeof(u->last_error), "%s",
		               reason_of(u));
		break;
	default:
		break;
	}
	log_change(u, from);
}

static void apply(struct upstream *u, enum upstream_event ev)
{
	enum upstream_state from = u->fsm.state;
	unsigned int todo = upstream_fsm_event(&u->fsm, ev, clock_ms());

	if (u->fsm.state != from)
		changed(u, from);
	if (todo & UPSTREAM_DO_ABORT)
		stop_resolving(u);
	if (todo & UPSTREAM_DO_RESOLVE)
		resolve(u);
	if (todo & UPSTREAM_DO_CONNECT)
		open_next(u);
	if (todo & UPSTREAM_DO_PING)
		upstream_socket_ping(u->socket);
	if (todo & UPSTREAM_DO_CLOSE)
		upstream_socket_close(u->socket);
	if (todo & UPSTREAM_DO_KILL)
		upstream_socket_kill(u->socket);
	if (todo & UPSTREAM_DO_TELL) {
		u->tell = true;
		kick(u);
	}
	arm(u);
}

/* --- events of the loop --------------------------------------------------- */

static void tell_now(struct upstream *u)
{
	if (!u->tell)
		return;
	u->tell = false;
	u->h.on_state(u->user, u->fsm.state);
}

static void on_kick(struct ev_loop *loop, struct ev_watcher *w, int revents)
{
	struct upstream *u = w->data;

	if (u->unresolved) {
		u->unresolved = false;
		apply(u, UPSTREAM_EV_FAILED);
	}
	tell_now(u);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	struct upstream *u = w->data;
	bool due = u->fsm.deadline_ms >= 0 && clock_ms() >= u->fsm.deadline_ms;

	if (due && u->fsm.state == UPSTREAM_RESOLVING)
		note(u, "resolving the name took too long");
	if (due && u->fsm.state == UPSTREAM_CONNECTING)
		note(u, "no answer to the request in time");
	if (due && u->fsm.state == UPSTREAM_CONNECTED && u->fsm.pinged_ms >= 0)
		note(u, "no answer to a ping in time");
	apply(u, UPSTREAM_EV_TIMER);
}

static void on_resolved(void *user, const struct resolve_result *result,
                        const struct error *err)
{
	struct upstream *u = user;

	u->query = NULL;
	if (!result || result->count == 0) {
		note(u, err ? err->text : "the name has no address");
		apply(u, UPSTREAM_EV_FAILED);
		return;
	}
	u->found = *result;
	u->tried = 0;
	apply(u, UPSTREAM_EV_RESOLVED);
}

/* --- events of the socket ------------------------------------------------- */

static void on_open(void *user)
{
	struct upstream *u = user;

	(void)snprintf(u->address, sizeof(u->address), "%s",
	               u->proxied ? "" : u->found.address[u->at]);
	apply(u, UPSTREAM_EV_ESTABLISHED);
	/* Frames may have come with the same segment: the state goes first. */
	tell_now(u);
}

static void on_data(void *user)
{
	apply(user, UPSTREAM_EV_FRAME);
}

static void on_pong(void *user)
{
	apply(user, UPSTREAM_EV_PONG);
}

static void on_frame(void *user, bool binary, const char *frame, size_t len,
                     int64_t received_us)
{
	struct upstream *u = user;

	if (binary)
		u->h.on_binary(u->user, frame, len, received_us);
	else
		u->h.on_text(u->user, frame, len, received_us);
}

static void on_unfit(void *user)
{
	apply(user, UPSTREAM_EV_FAILED);
}

static void on_end(void *user)
{
	struct upstream *u = user;

	if (u->fsm.state != UPSTREAM_CONNECTING) {
		if (*reason_of(u) == '\0' && u->fsm.state == UPSTREAM_CONNECTED)
			note(u, "the server dropped the connection");
		apply(u, UPSTREAM_EV_CLOSED);
	} else if (!upstream_socket_reached(u->socket) &&
	           u->tried < u->found.count) {
		open_next(u);
	} else {
		/* Should this one lead nowhere, the next has its turn. */
		u->at++;
		apply(u, UPSTREAM_EV_FAILED);
	}
}

/* --- life ----------------------------------------------------------------- */

static struct upstream_timing timing_of(const struct config *cfg)
{
	return (struct upstream_timing){
		.connect_timeout_ms = (uint32_t)cfg->connect_timeout_ms,
		.ping_interval_ms = (uint32_t)cfg->ping_interval_s * 1000,
		.pong_timeout_ms = (uint32_t)cfg->pong_timeout_s * 1000,
	};
}

static int set_proxy(struct upstream *u, const char *text, struct error *err)
{
	if (!text || *text == '\0')
		return 0;
	if (url_parse(&u->proxy, text, err) < 0)
		return error_prefix(err, "proxy");
	if (u->proxy.tls)
		return error_set(err, ERR_CONFIG,
		                 "proxy %s: only proxies spoken to by plain "
		                 "HTTP are supported",
		                 text);
	if (strlen(u->url.host) > UPSTREAM_PROXIED_HOST_MAX)
		return error_set(err, ERR_CONFIG,
		                 "the host %s is too long to be reached by a "
		                 "proxy: at most %d bytes",
		                 u->url.host, UPSTREAM_PROXIED_HOST_MAX);
	u->proxied = true;
	return 0;
}

static int set_url(struct upstream *u, struct error *err)
{
	struct buf authority = BUF_INIT(HOST_ROOM);
	struct buf path = BUF_INIT(URL_ROOM);
	size_t authority_len, path_len;
	int r;

	r = url_authority(&u->url, &authority) < 0 ||
	    url_ws_path(&u->url, u->client_id, &path) < 0 ||
	    url_http(&u->url, &u->name) < 0 || !name_of(u);
	authority_len = authority.len;
	path_len = path.len;
	buf_deinit(&authority);
	buf_deinit(&path);
	if (r != 0)
		return error_set_nomem(err, "upstream");
	if (authority_len > UPSTREAM_AUTHORITY_MAX)
		return error_set(err, ERR_CONFIG,
		                 "host and port have %zu bytes, at most %d are "
		                 "possible: %s",
		                 authority_len, UPSTREAM_AUTHORITY_MAX,
		                 name_of(u));
	if (path_len > UPSTREAM_PATH_MAX)
		return error_set(err, ERR_CONFIG,
		                 "the path of the WebSocket has %zu bytes, at "
		                 "most %d are possible: %s",
		                 path_len, UPSTREAM_PATH_MAX, name_of(u));
	return 0;
}

static int set_up(struct upstream *u, const struct config *cfg,
                  const struct credentials *credentials, const char *client_id,
                  struct error *err)
{
	static const struct upstream_socket_handlers handlers = {
		.on_open = on_open,
		.on_data = on_data,
		.on_pong = on_pong,
		.on_frame = on_frame,
		.on_unfit = on_unfit,
		.on_end = on_end,
	};
	struct upstream_socket_config socket = {
		.url = &u->url,
		.ca_file = cfg->ca_file ? cfg->ca_file : "",
		.credentials = credentials,
		.hello = hello,
		.frame_max = UPSTREAM_FRAME_MAX,
	};

	if (upstream_set_client_id(u, client_id) < 0)
		return error_set(err, ERR_INVALID, "\"%s\" is no client id",
		                 log_safe(client_id, strlen(client_id)));
	if (set_url(u, err) < 0 || set_proxy(u, cfg->proxy, err) < 0)
		return -1;
	socket.proxy = u->proxied ? &u->proxy : NULL;
	u->socket = upstream_socket_new(u->loop, &socket, &handlers, u, err);
	return u->socket ? 0 : -1;
}

static uint64_t make_seed(void)
{
	uint64_t seed;

	/* For jitter the clock will do. */
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = (uint64_t)clock_us();
	return seed;
}

struct upstream *upstream_new(struct ev_loop *loop, struct resolver *resolver,
                              const struct url *url, const struct config *cfg,
                              const struct credentials *credentials,
                              const char *client_id,
                              const struct upstream_handlers *h, void *user,
                              struct error *err)
{
	struct upstream *u = calloc(1, sizeof(*u));
	struct upstream_timing t = timing_of(cfg);

	if (!u) {
		(void)error_set_nomem(err, "upstream");
		return NULL;
	}
	u->loop = loop;
	u->resolver = resolver;
	u->url = *url;
	u->h = *h;
	u->user = user;
	buf_init(&u->name, URL_ROOM);
	upstream_fsm_init(&u->fsm, &t, make_seed());
	ev_init(&u->kick, on_kick);
	ev_init(&u->timer, on_timer);
	u->kick.data = u->timer.data = u;
	/* After a standstill of ours a pong is waiting in the socket, and has
	 * to be read before its deadline is judged. */
	ev_set_priority(&u->timer, EV_MINPRI);
	if (set_up(u, cfg, credentials, client_id, err) < 0)
		return upstream_free(u);
	return u;
}

struct upstream *upstream_free(struct upstream *u)
{
	if (!u)
		return NULL;
	stop_resolving(u);
	u->socket = upstream_socket_free(u->socket);
	ev_timer_stop(u->loop, &u->timer);
	ev_clear_pending(u->loop, &u->kick);
	buf_deinit(&u->name);
	free(u);
	return NULL;
}

void upstream_start(struct upstream *u)
{
	apply(u, UPSTREAM_EV_START);
}

void upstream_reconnect(struct upstream *u, const char *why)
{
	log_info("upstream", "a new connection to %s is wanted: %s", name_of(u),
	         why);
	apply(u, UPSTREAM_EV_RECONNECT);
}

void upstream_stop(struct upstream *u)
{
	apply(u, UPSTREAM_EV_STOP);
}

void upstream_set_timing(struct upstream *u, const struct upstream_timing *t)
{
	upstream_fsm_set_timing(&u->fsm, t, clock_ms());
	arm(u);
}

void upstream_reconfigure(struct upstream *u, const struct config *cfg)
{
	struct upstream_timing t = timing_of(cfg);

	upstream_set_timing(u, &t);
}

int upstream_set_client_id(struct upstream *u, const char *client_id)
{
	if (!uuid_valid(client_id, strlen(client_id)))
		return -EINVAL;
	memcpy(u->client_id, client_id, sizeof(u->client_id));
	return 0;
}

enum upstream_state upstream_state(const struct upstream *u)
{
	return u->fsm.state;
}

uint64_t upstream_reconnects(const struct upstream *u)
{
	return u->fsm.connects > 0 ? u->fsm.connects - 1 : 0;
}

const char *upstream_address(const struct upstream *u)
{
	return u->address;
}

const char *upstream_last_error(const struct upstream *u)
{
	return u->last_error;
}
