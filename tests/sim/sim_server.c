/*
 * sim_server.c - see sim_server.h: context, listening socket, loop, and the
 * list of connections. HTTP is in sim_server_http.c, WebSockets are in
 * sim_server_ws.c.
 *
 * The listening socket is ours and not libwebsockets', so that it can be
 * closed and reopened while connections live, and so that connections can be
 * counted and bounded before anything is spent on them.
 */
#include "tests/sim/sim_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_server_conn.h"
#include "tests/sim/sim_text.h"

/* Descriptors beside those of connections: log, journal, listener, loop. */
#define SPARE_FDS 64
/* aiohttp's: how long an idle connection is kept for the next request. */
#define KEEPALIVE_S      75
#define ACCEPTS_PER_TURN 16

/* One timer of the kernel's stands for the first of ours. libwebsockets' own
 * wait for whole milliseconds and spin through the last one. */
static void arm(struct sim_server *s)
{
	int64_t next = sim_loop_next_us();
	struct itimerspec at = {0};

	if (next == s->armed_us)
		return;
	s->armed_us = next;
	if (next >= 0) {
		at.it_value.tv_sec = next / 1000000;
		at.it_value.tv_nsec = next % 1000000 * 1000 + 1;
	}
	if (timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &at, NULL))
		log_error("server", "timerfd_settime: %s", strerror(errno));
}

static int on_timer(struct lws *wsi, enum lws_callback_reasons reason,
                    void *user, void *in, size_t len)
{
	struct sim_server *s = lws_context_user(lws_get_context(wsi));
	uint64_t times;

	/* What is due is done by whoever called lws_service(). */
	if (reason == LWS_CALLBACK_RAW_RX_FILE &&
	    read(s->timer_fd, &times, sizeof(times)) == sizeof(times))
		s->armed_us = -1;
	return 0;
}

static void accept_some(struct sim_server *s, int fd)
{
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int one = 1;
		int sock =
			accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (sock < 0)
			return;
		if (s->stats.tcp_open >= SIM_CONNECTIONS_MAX) {
			s->stats.tcp_refused++;
			(void)close(sock);
			continue;
		}
		if (setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one,
		               sizeof(one)))
			log_warn("server", "TCP_NODELAY: %s", strerror(errno));
		/* Closes the socket on failure. */
		if (!lws_adopt_socket_vhost(s->vhost, sock))
			log_warn("server", "a connection could not be adopted");
	}
}

static int on_listener(struct lws *wsi, enum lws_callback_reasons reason,
                       void *user, void *in, size_t len)
{
	struct sim_server *s = lws_context_user(lws_get_context(wsi));

	if (reason == LWS_CALLBACK_RAW_RX_FILE)
		accept_some(s, s->listen_fd);
	if (reason == LWS_CALLBACK_RAW_CLOSE_FILE && s->listener == wsi) {
		s->listener = NULL;
		s->listen_fd = -1;
	}
	return 0;
}

static void add_socket(struct sim_server *s, struct lws *wsi)
{
	struct sim_socket *socket = sim_calloc(1, sizeof(*socket));

	socket->wsi = wsi;
	list_append(&s->sockets, &socket->link);
	lws_set_opaque_user_data(wsi, socket);
}

static void remove_socket(struct lws *wsi)
{
	struct sim_socket *socket = lws_get_opaque_user_data(wsi);

	if (!socket)
		return;
	lws_set_opaque_user_data(wsi, NULL);
	list_del(&socket->link);
	free(socket);
}

static int on_conn(struct lws *wsi, enum lws_callback_reasons reason,
                   void *user, void *in, size_t len)
{
	struct sim_server *s = lws_context_user(lws_get_context(wsi));
	struct sim_conn *c = user;

	switch (reason) {
	case LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED:
		s->stats.tcp_open++;
		s->stats.tcp_total++;
		add_socket(s, wsi);
		break;
	case LWS_CALLBACK_WSI_DESTROY:
		/* Fires for the listener and for the context's own too. */
		if (c && c->server)
			sim_conn_deinit(c);
		remove_socket(wsi);
		if (lws_get_protocol(wsi) &&
		    lws_get_protocol(wsi)->callback == on_conn &&
		    s->stats.tcp_open)
			s->stats.tcp_open--;
		break;
	case LWS_CALLBACK_HTTP_BIND_PROTOCOL:
		if (c)
			sim_conn_init(c, s, wsi);
		break;
	case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
		/* An upgraded connection keeps its struct until it closes. */
		if (c && c->server && !c->ws)
			sim_conn_deinit(c);
		break;
	case LWS_CALLBACK_HTTP:
	case LWS_CALLBACK_HTTP_BODY:
	case LWS_CALLBACK_HTTP_BODY_COMPLETION:
	case LWS_CALLBACK_HTTP_WRITEABLE:
	case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
	case LWS_CALLBACK_CLOSED_HTTP:
		return sim_http_callback(s, wsi, reason, c, in, len);
	case LWS_CALLBACK_ESTABLISHED:
	case LWS_CALLBACK_RECEIVE:
	case LWS_CALLBACK_SERVER_WRITEABLE:
	case LWS_CALLBACK_CLOSED:
		return sim_ws_callback(s, wsi, reason, c, in, len);
	default:
		break;
	}
	return 0;
}

/* libwebsockets makes its tables as large as the limit allows, and looks
 * connections up quickly only if it may. */
static void set_fd_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = SIM_CONNECTIONS_MAX + SPARE_FDS;
	if (r.rlim_max < r.rlim_cur)
		r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &r))
		log_warn("server", "setrlimit: %s", strerror(errno));
}

static int open_socket(struct sim_server *s, struct error *err)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof(a);
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_set_errno(err, errno, "socket");
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons(s->port);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) ||
	    listen(fd, SOMAXCONN) ||
	    getsockname(fd, (struct sockaddr *)&a, &len)) {
		(void)error_set_errno(err, errno, "cannot listen on port %u",
		                      s->port);
		(void)close(fd);
		return -1;
	}
	s->port = ntohs(a.sin_port);
	return fd;
}

int sim_server_listen(struct sim_server *s, bool on, struct error *err)
{
	lws_sock_file_fd_type u;

	if (!on) {
		if (s->listener)
			lws_set_timeout(s->listener, PENDING_TIMEOUT_CLOSE_ACK,
			                LWS_TO_KILL_SYNC);
		return 0;
	}
	if (s->listener)
		return 0;
	s->listen_fd = open_socket(s, err);
	if (s->listen_fd < 0)
		return -1;
	u.filefd = s->listen_fd;
	s->listener =
		lws_adopt_descriptor_vhost(s->vhost, LWS_ADOPT_RAW_FILE_DESC, u,
	                                   s->protocols[1].name, NULL);
	if (!s->listener)
		return error_set(err, ERR_SYSTEM, "cannot watch the socket");
	return 0;
}

static void on_lws_log(int level, const char *line)
{
	log_debug("lws", "%.*s", (int)strcspn(line, "\n"), line);
}

static int make_context(struct sim_server *s, struct error *err)
{
	struct lws_context_creation_info info = {0};

	lws_set_log_level(LLL_ERR, on_lws_log);
	s->protocols[0] = (struct lws_protocols){
		.name = "comfyui",
		.callback = on_conn,
		.per_session_data_size = sizeof(struct sim_conn),
		.rx_buffer_size = 65536,
	};
	s->protocols[1] = (struct lws_protocols){
		.name = "listener",
		.callback = on_listener,
	};
	s->protocols[2] = (struct lws_protocols){
		.name = "timer",
		.callback = on_timer,
	};
	info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
	info.protocols = s->protocols;
	info.user = s;
	info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
	info.max_http_header_data2 = 2 * SIM_HEADER_MAX;
	info.max_http_header_pool2 = SIM_CONNECTIONS_MAX;
	info.pt_serv_buf_size = 65536;
	info.keepalive_timeout = KEEPALIVE_S;
	/* All zero: no pings of our own, ComfyUI sends none. */
	info.retry_and_idle_policy = &s->no_pings;
	s->context = lws_create_context(&info);
	if (!s->context)
		return error_set(err, ERR_SYSTEM, "libwebsockets: no context");
	s->vhost = lws_create_vhost(s->context, &info);
	if (!s->vhost)
		return error_set(err, ERR_SYSTEM, "libwebsockets: no vhost");
	return 0;
}

/* The descriptor is the context's once it was adopted. */
static int make_timer(struct sim_server *s, struct error *err)
{
	lws_sock_file_fd_type u;

	s->armed_us = -1;
	s->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (s->timer_fd < 0)
		return error_set(err, ERR_SYSTEM, "timerfd: %s",
		                 strerror(errno));
	u.filefd = s->timer_fd;
	if (!lws_adopt_descriptor_vhost(s->vhost, LWS_ADOPT_RAW_FILE_DESC, u,
	                                s->protocols[2].name, NULL))
		return error_set(err, ERR_SYSTEM, "cannot watch the timer");
	return 0;
}

int sim_server_new(struct sim_server **sp, uint16_t port,
                   const struct sim_server_ops *ops, void *arg,
                   struct error *err)
{
	struct sim_server *s = sim_calloc(1, sizeof(*s));

	s->port = port;
	s->ops = ops;
	s->arg = arg;
	s->listen_fd = -1;
	list_init(&s->sockets);
	list_init(&s->conns);
	set_fd_limit();
	if (make_context(s, err) || make_timer(s, err) ||
	    sim_server_listen(s, true, err)) {
		sim_server_free(s);
		return -1;
	}
	*sp = s;
	return 0;
}

void sim_server_free(struct sim_server *s)
{
	if (!s)
		return;
	/* No close frames: ComfyUI sends none when it is stopped. */
	if (s->context)
		lws_context_destroy(s->context);
	free(s);
}

uint16_t sim_server_port(const struct sim_server *s)
{
	return s->port;
}

const struct sim_server_stats *sim_server_stats(const struct sim_server *s)
{
	return &s->stats;
}

void sim_server_reset_stats(struct sim_server *s)
{
	struct sim_server_stats fresh = {
		.tcp_open = s->stats.tcp_open,
		.ws_open = s->stats.ws_open,
	};

	s->stats = fresh;
}

void sim_server_run(struct sim_server *s)
{
	while (!s->stop) {
		/* What has been due for a while goes before new requests. */
		sim_loop_run_due();
		arm(s);
		if (lws_service(s->context, 0) < 0)
			break;
	}
}

void sim_server_stop(struct sim_server *s)
{
	s->stop = 1;
	lws_cancel_service(s->context);
}

void sim_server_drop_all(struct sim_server *s)
{
	const struct sim_socket *socket;
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &s->sockets) {
		socket = list_entry(it, struct sim_socket, link);
		/* Between two requests nobody is called for it any more. */
		if (socket->conn && (socket->conn->ws || socket->conn->reply))
			sim_conn_drop(socket->conn, false);
		else
			(void)shutdown(lws_get_socket_fd(socket->wsi),
			               SHUT_RDWR);
	}
}

struct sim_conn *sim_conn_next(struct sim_server *s, struct sim_conn *after)
{
	struct list *it = after ? after->link.next : s->conns.next;

	for (; it != &s->conns; it = it->next) {
		struct sim_conn *c = list_entry(it, struct sim_conn, link);

		if (c->ws && c->data)
			return c;
	}
	return NULL;
}
