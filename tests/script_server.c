/*
 * script_server.c - see script_server.h.
 */
#include "tests/script_server.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/list.h"

#define BYTES_MAX (256u << 20)

struct script_server {
	struct ev_loop *loop;
	script_handler *handler;
	void *user;
	ev_io listen;
	struct list conns;
	unsigned port, connections, requests, open;
	char url[64];
};

struct script_conn {
	struct list link;
	struct script_server *server;
	ev_io io;
	unsigned number;
	struct buf in, out;
	int closing, reset, handling;
};

static void free_conn(struct script_conn *c)
{
	struct linger linger = {.l_onoff = 1};

	ev_io_stop(c->server->loop, &c->io);
	if (c->reset)
		ck_assert_int_eq(setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER,
		                            &linger, sizeof(linger)),
		                 0);
	ck_assert_int_eq(close(c->io.fd), 0);
	c->server->open--;
	list_del(&c->link);
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	free(c);
}

static void watch(struct script_conn *c)
{
	int events = EV_READ | (c->out.len > 0 || c->closing ? EV_WRITE : 0);

	ev_io_stop(c->server->loop, &c->io);
	ev_io_set(&c->io, c->io.fd, events);
	ev_io_start(c->server->loop, &c->io);
}

const char *script_header(const struct script_request *req, const char *name)
{
	static char value[1024];
	size_t n = strlen(name);
	const char *p = req->head.p, *end = p + req->head.n;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));

		nl = nl ? nl : end;
		if ((size_t)(nl - p) > n && p[n] == ':' &&
		    strncasecmp(p, name, n) == 0) {
			p += n + 1;
			p += strspn(p, " ");
			(void)snprintf(value, sizeof(value), "%.*s",
			               (int)strcspn(p, "\r\n"), p);
			return value;
		}
		p = nl + 1;
	}
	return "";
}

/* One request off the front of what came; 0 if it isn't whole yet. */
static int take_request(struct script_conn *c)
{
	struct script_request req = {.connection = c->number};
	char line[sizeof(req.method) + sizeof(req.path) + 2];
	const char *end;
	size_t total, line_len;

	if (c->in.len == 0)
		return 0;
	end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
	if (!end)
		return 0;
	req.head = span_make(c->in.data, (size_t)(end - c->in.data) + 2);
	total = req.head.n + 2 +
	        strtoul(script_header(&req, "Content-Length"), NULL, 10);
	if (c->in.len < total)
		return 0;
	/* sscanf() wants a terminator. */
	line_len = req.head.n < sizeof(line) ? req.head.n : sizeof(line) - 1;
	memcpy(line, req.head.p, line_len);
	line[line_len] = '\0';
	ck_assert_int_eq(sscanf(line, "%15s %2047s", req.method, req.path), 2);
	req.body =
		span_make(c->in.data + req.head.n + 2, total - req.head.n - 2);
	req.number = ++c->server->requests;
	c->handling = 1;
	c->server->handler(c->server->user, c, &req);
	c->handling = 0;
	buf_consume(&c->in, total);
	return 1;
}

static void on_conn(struct ev_loop *loop, ev_io *io, int revents)
{
	struct script_conn *c = container_of(io, struct script_conn, io);
	ssize_t n;

	if (revents & EV_READ) {
		char *room = buf_reserve(&c->in, 65536);

		ck_assert_ptr_nonnull(room);
		n = recv(io->fd, room, 65536, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			free_conn(c);
			return;
		}
		buf_commit(&c->in, n > 0 ? (size_t)n : 0);
		while (!c->closing && take_request(c))
			;
	}
	if (c->out.len > 0) {
		n = send(io->fd, c->out.data, c->out.len,
		         MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN) {
			free_conn(c);
			return;
		}
		buf_consume(&c->out, n > 0 ? (size_t)n : 0);
	}
	if (c->closing && c->out.len == 0)
		free_conn(c);
	else
		watch(c);
}

static void on_listen(struct ev_loop *loop, ev_io *io, int revents)
{
	struct script_server *s =
		container_of(io, struct script_server, listen);
	struct script_conn *c;
	int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	c = calloc(1, sizeof(*c));
	ck_assert_ptr_nonnull(c);
	c->server = s;
	c->number = ++s->connections;
	s->open++;
	buf_init(&c->in, BYTES_MAX);
	buf_init(&c->out, BYTES_MAX);
	list_append(&s->conns, &c->link);
	ev_io_init(&c->io, on_conn, fd, EV_READ);
	ev_io_start(loop, &c->io);
}

struct script_server *script_server_new(struct ev_loop *loop,
                                        script_handler *handler, void *user)
{
	struct script_server *s = calloc(1, sizeof(*s));
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_ptr_nonnull(s);
	ck_assert_int_ge(fd, 0);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	s->loop = loop;
	s->handler = handler;
	s->user = user;
	s->port = ntohs(addr.sin_port);
	(void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", s->port);
	list_init(&s->conns);
	ev_io_init(&s->listen, on_listen, fd, EV_READ);
	ev_io_start(loop, &s->listen);
	return s;
}

struct script_server *script_server_free(struct script_server *s)
{
	if (!s)
		return NULL;
	script_close_all(s);
	ev_io_stop(s->loop, &s->listen);
	ck_assert_int_eq(close(s->listen.fd), 0);
	free(s);
	return NULL;
}

const char *script_server_url(const struct script_server *s)
{
	return s->url;
}

unsigned script_server_port(const struct script_server *s)
{
	return s->port;
}

unsigned script_server_connections(const struct script_server *s)
{
	return s->connections;
}

unsigned script_server_requests(const struct script_server *s)
{
	return s->requests;
}

unsigned script_server_open(const struct script_server *s)
{
	return s->open;
}

void script_write(struct script_conn *c, const void *data, size_t len)
{
	ck_assert_int_eq(buf_append(&c->out, data, len), 0);
	if (!c->handling)
		watch(c);
}

void script_puts(struct script_conn *c, const char *text)
{
	script_write(c, text, strlen(text));
}

void script_reply(struct script_conn *c, int status, const char *content_type,
                  const void *body, size_t len)
{
	char head[512];

	(void)snprintf(head, sizeof(head),
	               "HTTP/1.1 %d Scripted\r\n"
	               "Content-Type: %s\r\n"
	               "Content-Length: %zu\r\n"
	               "\r\n",
	               status, content_type, len);
	script_puts(c, head);
	if (len > 0)
		script_write(c, body, len);
}

void script_close(struct script_conn *c, int reset)
{
	c->closing = 1;
	c->reset = reset;
	if (!c->handling)
		watch(c);
}

void script_close_all(struct script_server *s)
{
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &s->conns)
		free_conn(list_entry(it, struct script_conn, link));
}
