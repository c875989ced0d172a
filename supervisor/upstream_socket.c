/*
 * upstream_socket.c - see upstream_socket.h.
 *
 * What libwebsockets (4.1.6) is not trusted with: names (it resolves them
 * blockingly, so it is given numeric addresses), redirects (the same), the
 * environment's proxy, keeping time (its timers depend on idle moments of the
 * loop, so they are set beyond our deadlines), TLS settings (upstream_tls),
 * telling why a connect failed (SO_ERROR is read before it does that).
 *
 * Text is not checked for UTF-8 here: the event parser is strict, and a bad
 * frame must cost that frame, not the connection.
 */
#include "supervisor/upstream_socket.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <libwebsockets.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/credentials.h"
#include "common/log.h"
#include "supervisor/upstream.h"
#include "supervisor/upstream_tls.h"

#define SOCKET_MAGIC     0x75705354u
#define PROTOCOL_NAME    "comfyui"
#define RX_CHUNK         (32u << 10) /* bytes read at a time */
#define HEADER_MAX       (8u << 10)  /* bytes of the answer's headers */
#define FRAME_KEEP       (1u << 20)  /* a larger buffer is given back */
#define LWS_SOCKETS      4           /* one connection, and its event pipe */
#define LWS_TIMEOUT_S    600         /* beyond each deadline of ours */
#define KEEPALIVE_IDLE_S 60          /* TCP's own probes */
#define KEEPALIVE_STEP_S 15
#define KEEPALIVE_PROBES 4
#define REASON_MAX       256
#define HOST_ROOM        (URL_HOST_MAX + 16) /* with brackets and port */
#define HELLO_MAX        256

struct upstream_socket {
	unsigned int magic;
	struct ev_loop *loop;
	struct upstream_socket_config cfg;
	struct upstream_socket_handlers h;
	void *user;

	struct buf host;          /* the Host header */
	struct buf peer;          /* whom a proxy is asked for */
	struct upstream_tls *tls; /* NULL: none */
	struct lws_context *lws;
	struct lws *wsi; /* the socket, until its end */
	const char *address;

	struct ev_watcher kick; /* work put off to the end of this turn */
	bool over, kill_due;
	int in_lws; /* depth of calls from libwebsockets */

	struct ev_timer connect_timer;
	struct ev_io connect_io;
	bool opening; /* inside lws_client_connect_via_info() */
	bool reached; /* TCP stands */
	bool open;    /* the handshake is over, and no close is wanted */
	bool hello_due, ping_due, close_due, close_begun;
	enum lws_close_status close_code;

	struct buf frame; /* fragments so far */
	bool in_frame, binary;
	char reason[REASON_MAX];
};

/* --- small things --------------------------------------------------------- */

/* The first thing said of a socket is the cause, the rest follows from it. */
ATTR_PRINTF(2, 3)
static void note(struct upstream_socket *s, const char *fmt, ...)
{
	va_list ap;

	if (s->reason[0] != '\0')
		return;
	va_start(ap, fmt);
	(void)vsnprintf(s->reason, sizeof(s->reason), fmt, ap);
	va_end(ap);
}

/* Puts the rest off until libwebsockets and our callers have returned. */
static void kick(struct upstream_socket *s)
{
	ev_feed_event(s->loop, &s->kick, EV_CUSTOM);
}

static void stop_connecting(struct upstream_socket *s)
{
	ev_timer_stop(s->loop, &s->connect_timer);
	ev_io_stop(s->loop, &s->connect_io);
}

static void on_kick(struct ev_loop *loop, struct ev_watcher *w, int revents)
{
	struct upstream_socket *s = w->data;

	if (s->kill_due)
		upstream_socket_kill(s);
	if (s->over) {
		s->over = false;
		s->h.on_end(s->user);
	}
}

static void on_lws_log(int level, const char *line)
{
	size_t len = strlen(line);

	while (len > 0 && line[len - 1] == '\n')
		len--;
	log_debug("lws", "%s", log_safe(line, len));
}

/* --- connecting ----------------------------------------------------------- */

static void connect_failed(struct upstream_socket *s, const char *why)
{
	note(s, "cannot connect to %s port %u: %s", s->address,
	     s->cfg.proxy ? s->cfg.proxy->port : s->cfg.url->port, why);
}

static void on_connect_timer(struct ev_loop *loop, struct ev_timer *w,
                             int revents)
{
	struct upstream_socket *s = w->data;

	connect_failed(s, strerror(ETIMEDOUT));
	upstream_socket_kill(s);
}

/* Comes before libwebsockets' own watcher, which would read the error and tell
 * nobody. */
static void on_connectable(struct ev_loop *loop, struct ev_io *w, int revents)
{
	struct upstream_socket *s = w->data;
	int error = 0;
	socklen_t len = sizeof(error);

	stop_connecting(s);
	if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error == 0) {
		s->reached = true;
		return;
	}
	connect_failed(s, strerror(error));
	upstream_socket_kill(s);
}

static int use_proxy(struct upstream_socket *s)
{
	struct lws_vhost *vhost = lws_get_vhost_by_name(s->lws, "default");
	char text[96];

	(void)snprintf(text, sizeof(text),
	               strchr(s->address, ':') ? "[%s]:%u" : "%s:%u",
	               s->address, s->cfg.proxy->port);
	return lws_set_proxy(vhost, text);
}

static struct lws *start(struct upstream_socket *s, const char *path)
{
	/* Neither pings nor hang-ups by libwebsockets' clock. */
	static const lws_retry_bo_t no_validity_timers;
	struct lws_client_connect_info info = {
		.context = s->lws,
		.address = s->cfg.proxy ? buf_cstr(&s->peer) : s->address,
		.port = s->cfg.url->port,
		.path = path,
		.host = buf_cstr(&s->host),
		.ssl_connection = LCCSCF_HTTP_NO_FOLLOW_REDIRECT,
		.local_protocol_name = PROTOCOL_NAME,
		.alpn = "http/1.1",
		.retry_and_idle_policy = &no_validity_timers,
		.opaque_user_data = s,
		.pwsi = &s->wsi,
	};

	if (s->tls)
		/* upstream_tls has the name checked. */
		info.ssl_connection |=
			LCCSCF_USE_SSL | LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK;
	if (!path || (s->cfg.proxy && use_proxy(s) < 0))
		return NULL;
	s->opening = true;
	if (!lws_client_connect_via_info(&info))
		s->wsi = NULL;
	s->opening = false;
	return s->wsi;
}

void upstream_socket_open(struct upstream_socket *s, const char *address,
                          const char *client_id, uint32_t connect_timeout_ms)
{
	struct buf path = BUF_INIT(UPSTREAM_PATH_MAX + 1);

	assert(!s->wsi);
	s->address = address;
	s->reason[0] = '\0';
	s->reached = s->open = s->in_frame = false;
	s->hello_due = s->ping_due = s->kill_due = false;
	s->close_due = s->close_begun = false;
	s->close_code = LWS_CLOSE_STATUS_NORMAL;
	buf_reset(&s->frame);
	if (s->tls)
		upstream_tls_clear_reason(s->tls);
	(void)url_ws_path(s->cfg.url, client_id, &path);
	errno = 0;
	if (!start(s, buf_cstr(&path))) {
		connect_failed(s, errno ? strerror(errno) : "out of memory");
		s->over = true;
		kick(s);
	} else {
		ev_io_set(&s->connect_io, lws_get_socket_fd(s->wsi), EV_WRITE);
		ev_io_start(s->loop, &s->connect_io);
		ev_now_update(s->loop);
		ev_timer_set(&s->connect_timer, connect_timeout_ms / 1e3, 0.);
		ev_timer_start(s->loop, &s->connect_timer);
	}
	buf_deinit(&path);
}

/* --- frames --------------------------------------------------------------- */

static void deliver(struct upstream_socket *s, const char *frame, size_t len)
{
	s->in_frame = false;
	s->h.on_frame(s->user, s->binary, frame, len, clock_us());
}

static void refuse(struct upstream_socket *s, enum lws_close_status code,
                   const char *why)
{
	note(s, "%s", why);
	s->close_code = code;
	upstream_socket_close(s);
	s->h.on_unfit(s->user);
}

/* `left`: what is still to come of this fragment. */
static void take_chunk(struct upstream_socket *s, const char *data, size_t len,
                       size_t left, bool final)
{
	if (left > s->cfg.frame_max ||
	    s->frame.len + len + left > s->cfg.frame_max) {
		refuse(s, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE,
		       "a frame was larger than the limit");
		return;
	}
	if (final && s->frame.len == 0) {
		/* The usual case: nothing to put together. */
		deliver(s, data, len);
		return;
	}
	if (buf_append(&s->frame, data, len) < 0) {
		refuse(s, LWS_CLOSE_STATUS_UNEXPECTED_CONDITION,
		       "out of memory for a frame");
		return;
	}
	if (!final)
		return;
	deliver(s, s->frame.data, s->frame.len);
	if (s->frame.cap > FRAME_KEEP)
		buf_deinit(&s->frame);
	buf_reset(&s->frame);
}

static void on_receive(struct upstream_socket *s, const char *data, size_t len)
{
	if (!s->open)
		return;
	s->h.on_data(s->user);
	if (!s->in_frame) {
		s->in_frame = true;
		s->binary = lws_frame_is_binary(s->wsi);
	}
	take_chunk(s, data, len, lws_remaining_packet_payload(s->wsi),
	           lws_is_final_fragment(s->wsi));
}

/* One write a call; -1 ends the connection. */
static int on_writable(struct upstream_socket *s)
{
	unsigned char out[LWS_PRE + HELLO_MAX];
	size_t len = strlen(s->cfg.hello);
	int r = 0;

	if (s->close_begun)
		/* Another -1 would mean: don't wait for the server's. */
		return 0;
	if (s->close_due) {
		s->close_begun = true;
		lws_close_reason(s->wsi, s->close_code, NULL, 0);
		return -1;
	}
	if (s->hello_due) {
		s->hello_due = false;
		memcpy(out + LWS_PRE, s->cfg.hello, len);
		r = lws_write(s->wsi, out + LWS_PRE, len, LWS_WRITE_TEXT);
	} else if (s->ping_due) {
		s->ping_due = false;
		r = lws_write(s->wsi, out + LWS_PRE, 0, LWS_WRITE_PING);
	}
	if (r < 0) {
		note(s, "writing failed");
		return -1;
	}
	if (s->ping_due)
		(void)lws_callback_on_writable(s->wsi);
	return 0;
}

/* --- libwebsockets' callback ---------------------------------------------- */

static void on_established(struct upstream_socket *s)
{
	s->open = s->hello_due = true;
	(void)lws_callback_on_writable(s->wsi);
	s->h.on_open(s->user);
}

static void on_failed(struct upstream_socket *s, const char *text, size_t len)
{
	unsigned int status = lws_http_client_http_response(s->wsi);

	if (s->tls && upstream_tls_reason(s->tls)[0] != '\0')
		note(s, "%s", upstream_tls_reason(s->tls));
	else if (status == 401 || status == 403)
		note(s,
		     "the server answered with HTTP status %u: it wants "
		     "credentials, or doesn't accept those it got; see "
		     "token_file, header_file and client_cert in the "
		     "configuration",
		     status);
	else if (status != 0 && status != 101)
		note(s,
		     "the server answered with HTTP status %u instead of a "
		     "WebSocket",
		     status);
	else
		note(s, "the handshake failed: %s",
		     text ? log_safe(text, len) : "no reason given");
	/* By itself it would say goodbye in WebSocket's words to a server that
	 * never spoke it, and wait for an answer. */
	s->kill_due = true;
	kick(s);
}

static void on_peer_close(struct upstream_socket *s, const unsigned char *p,
                          size_t len)
{
	if (len < 2)
		return;
	note(s, "the server closed the connection (code=%d reason=\"%s\")",
	     p[0] << 8 | p[1], log_safe((const char *)p + 2, len - 2));
}

static void on_destroyed(struct upstream_socket *s)
{
	s->wsi = NULL;
	s->open = false;
	buf_deinit(&s->frame);
	if (!s->opening) {
		s->over = true;
		kick(s);
	}
}

/* `*atp`: where the next line of the request goes, `len` bytes are free. */
static int add_headers(struct upstream_socket *s, unsigned char **atp,
                       size_t len)
{
	const struct credentials *c = s->cfg.credentials;
	unsigned char *end = *atp + len;
	char name[CREDENTIALS_HEADER_MAX + 2];
	const struct credentials_header *h;

	for (size_t i = 0; c && i < c->header_count; i++) {
		h = &c->headers[i];
		(void)snprintf(name, sizeof(name), "%s:", h->name);
		if (lws_add_http_header_by_name(
			    s->wsi, (const unsigned char *)name,
			    (const unsigned char *)h->value,
			    (int)strlen(h->value), atp, end)) {
			note(s, "the header lines of header_file are too long");
			return -1;
		}
	}
	return 0;
}

static int handle(struct upstream_socket *s, enum lws_callback_reasons reason,
                  void *in, size_t len)
{
	switch (reason) {
	case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
		return add_headers(s, in, len);
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		on_established(s);
		return 0;
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		if (s->wsi)
			on_failed(s, in, len);
		return 0;
	case LWS_CALLBACK_CLIENT_RECEIVE:
		on_receive(s, in, len);
		return 0;
	case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
		s->h.on_pong(s->user);
		return 0;
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		return on_writable(s);
	case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
		on_peer_close(s, in, len);
		return 0;
	case LWS_CALLBACK_WSI_DESTROY:
		/* Its descriptor is closed by now. */
		on_destroyed(s);
		return 0;
	default:
		return 0;
	}
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason,
                  void *session, void *in, size_t len)
{
	/* Our sockets alone have it; there are others, and some that are no
	 * more than a stand-in. */
	struct upstream_socket *s = wsi ? lws_get_opaque_user_data(wsi) : NULL;
	int r;

	if (!s)
		return 0;
	assert(s->magic == SOCKET_MAGIC);
	s->in_lws++;
	r = handle(s, reason, in, len);
	s->in_lws--;
	return r;
}

/* --- closing -------------------------------------------------------------- */

void upstream_socket_ping(struct upstream_socket *s)
{
	if (!s->open)
		return;
	s->ping_due = true;
	(void)lws_callback_on_writable(s->wsi);
}

void upstream_socket_close(struct upstream_socket *s)
{
	s->open = false;
	if (!s->wsi || s->close_due)
		return;
	s->close_due = true;
	(void)lws_callback_on_writable(s->wsi);
}

void upstream_socket_kill(struct upstream_socket *s)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};
	int fd;

	s->kill_due = false;
	s->open = false;
	if (!s->wsi)
		return;
	if (s->in_lws) {
		/* It would free what its own callers still hold. */
		s->kill_due = true;
		kick(s);
		return;
	}
	stop_connecting(s);
	fd = lws_get_socket_fd(s->wsi);
	/* With a reset, so that a server that does not read learns it too, and
	 * nothing lingers in the kernel. */
	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) < 0)
		log_debug("upstream", "SO_LINGER: %s", strerror(errno));
	lws_set_timeout(s->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_SYNC);
	/* Still there if a write was cut short; it won't survive this. */
	if (s->wsi && shutdown(fd, SHUT_RDWR) < 0)
		log_debug("upstream", "shutdown: %s", strerror(errno));
}

/* --- life ----------------------------------------------------------------- */

static int make_context(struct upstream_socket *s, struct error *err)
{
	static const struct lws_protocols protocols[] = {
		{.name = PROTOCOL_NAME,
	         .callback = on_lws,
	         .rx_buffer_size = RX_CHUNK},
		{0},
	};
	void *loops[1] = {s->loop};
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = protocols,
		.options = LWS_SERVER_OPTION_LIBEV |
	                   LWS_SERVER_OPTION_SKIP_SERVER_CANONICAL_NAME,
		.foreign_loops = loops,
		.gid = -1,
		.uid = -1,
		/* Else it allocates by RLIMIT_NOFILE. */
		.fd_limit_per_thread = LWS_SOCKETS,
		.pt_serv_buf_size = RX_CHUNK,
		.max_http_header_data2 = HEADER_MAX,
		.timeout_secs = LWS_TIMEOUT_S,
		.connect_timeout_secs = LWS_TIMEOUT_S,
		.ka_time = KEEPALIVE_IDLE_S,
		.ka_interval = KEEPALIVE_STEP_S,
		.ka_probes = KEEPALIVE_PROBES,
		/* None; NULL would mean: whatever http_proxy says. */
		.http_proxy_address = ":0",
	};

	if (s->tls) {
		info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
		info.provided_client_ssl_ctx = upstream_tls_context(s->tls);
	}
	lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
	s->lws = lws_create_context(&info);
	if (!s->lws)
		return error_set(err, ERR_INTERNAL,
		                 "libwebsockets could not be set up; is its "
		                 "part for libev installed "
		                 "(libwebsockets-evlib-ev)?");
	return 0;
}

static void init_watchers(struct upstream_socket *s)
{
	ev_init(&s->kick, on_kick);
	ev_init(&s->connect_timer, on_connect_timer);
	ev_init(&s->connect_io, on_connectable);
	s->kick.data = s->connect_timer.data = s->connect_io.data = s;
	ev_set_priority(&s->connect_timer, EV_MINPRI);
	ev_set_priority(&s->connect_io, EV_MAXPRI);
}

static int set_up(struct upstream_socket *s, struct error *err)
{
	const struct url *url = s->cfg.url;

	if (url_authority(url, &s->host) < 0 || !buf_cstr(&s->host) ||
	    buf_printf(&s->peer, url->host_is_ipv6 ? "[%s]" : "%s", url->host))
		return error_set_nomem(err, "upstream");
	if (url->tls) {
		s->tls = upstream_tls_new(url, s->cfg.ca_file, err);
		if (!s->tls ||
		    upstream_tls_show(s->tls, s->cfg.credentials, err) < 0)
			return -1;
	}
	return make_context(s, err);
}

struct upstream_socket *upstream_socket_new(
	struct ev_loop *loop, const struct upstream_socket_config *cfg,
	const struct upstream_socket_handlers *h, void *user, struct error *err)
{
	struct upstream_socket *s = calloc(1, sizeof(*s));

	if (!s) {
		(void)error_set_nomem(err, "upstream");
		return NULL;
	}
	assert(strlen(cfg->hello) <= HELLO_MAX);
	s->magic = SOCKET_MAGIC;
	s->loop = loop;
	s->cfg = *cfg;
	s->h = *h;
	s->user = user;
	buf_init(&s->host, HOST_ROOM);
	buf_init(&s->peer, HOST_ROOM);
	buf_init(&s->frame, cfg->frame_max);
	init_watchers(s);
	if (set_up(s, err) < 0)
		return upstream_socket_free(s);
	s->cfg.ca_file = NULL; /* read, and the caller's */
	return s;
}

struct upstream_socket *upstream_socket_free(struct upstream_socket *s)
{
	if (!s)
		return NULL;
	assert(!s->in_lws);
	stop_connecting(s);
	if (s->lws)
		lws_context_destroy(s->lws);
	/* After the end of the socket, which has fed it. */
	ev_clear_pending(s->loop, &s->kick);
	s->tls = upstream_tls_free(s->tls);
	buf_deinit(&s->host);
	buf_deinit(&s->peer);
	buf_deinit(&s->frame);
	s->magic = 0;
	free(s);
	return NULL;
}

bool upstream_socket_reached(const struct upstream_socket *s)
{
	return s->reached;
}

const char *upstream_socket_reason(const struct upstream_socket *s)
{
	return s->reason;
}
