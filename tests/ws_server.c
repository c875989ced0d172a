/*
 * ws_server.c - see ws_server.h.
 */
#include "tests/ws_server.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <ev.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/list.h"

#define GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455, 1.3 */
#define BYTES_MAX (256u << 20)
#define READ_SIZE 65536

struct ws_server {
	struct ev_loop *loop;
	struct ev_io listen;
	unsigned port;
	struct list conns; /* newest first */
	struct ws_script script;
	struct ws_seen seen;
};

struct ws_conn {
	struct list link;
	struct ws_server *server;
	struct ev_io io;
	struct buf in, out;
	bool upgraded, ending;
};

/* --- bytes out ------------------------------------------------------------ */

static void end_conn(struct ws_conn *c, bool reset)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	if (reset)
		ck_assert_int_eq(setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER,
		                            &hard, sizeof(hard)),
		                 0);
	ev_io_stop(c->server->loop, &c->io);
	ck_assert_int_eq(close(c->io.fd), 0);
	list_del(&c->link);
	c->server->seen.open--;
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	free(c);
}

static void watch(struct ws_conn *c)
{
	int events = EV_READ | (c->out.len > 0 || c->ending ? EV_WRITE : 0);

	if (c->io.events == events && ev_is_active(&c->io))
		return;
	ev_io_stop(c->server->loop, &c->io);
	ev_io_set(&c->io, c->io.fd, events);
	ev_io_start(c->server->loop, &c->io);
}

/* False: the connection has gone. */
static bool flush_conn(struct ws_conn *c)
{
	ssize_t n;

	while (c->out.len > 0) {
		n = send(c->io.fd, c->out.data, c->out.len,
		         MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			end_conn(c, false);
			return false;
		}
		buf_consume(&c->out, (size_t)n);
	}
	if (c->ending && c->out.len == 0) {
		end_conn(c, false);
		return false;
	}
	watch(c);
	return true;
}

void ws_frame(struct buf *out, int first_byte, const void *data, size_t len,
              size_t declared)
{
	ck_assert_int_eq(buf_putc(out, (char)first_byte), 0);
	if (declared < 126) {
		(void)buf_putc(out, (char)declared);
	} else if (declared < 65536) {
		(void)buf_putc(out, 126);
		(void)buf_putc(out, (char)(declared >> 8));
		(void)buf_putc(out, (char)declared);
	} else {
		(void)buf_putc(out, 127);
		for (int shift = 56; shift >= 0; shift -= 8)
			(void)buf_putc(out, (char)(declared >> shift));
	}
	(void)buf_append(out, data, len);
	ck_assert(buf_ok(out));
}

/* --- bytes in ------------------------------------------------------------- */

static void header(const char *head, const char *name, char *value, size_t max)
{
	const char *p = strcasestr(head, name);
	size_t len;

	*value = '\0';
	if (!p)
		return;
	p += strlen(name);
	p += strspn(p, ": ");
	len = strcspn(p, "\r");
	ck_assert_uint_lt(len, max);
	memcpy(value, p, len);
	value[len] = '\0';
}

static void upgrade(struct ws_conn *c)
{
	struct ws_script *script = &c->server->script;
	unsigned char hash[EVP_MAX_MD_SIZE], accept[64];
	unsigned int hash_len;
	char key[64], text[128];

	header(c->server->seen.head, "\r\nSec-WebSocket-Key", key, sizeof(key));
	ck_assert_uint_eq(strlen(key), 24);
	(void)snprintf(text, sizeof(text), "%s%s", key,
	               script->answer == WS_BAD_KEY ? "nonsense" : GUID);
	ck_assert_int_eq(EVP_Digest(text, strlen(text), hash, &hash_len,
	                            EVP_sha1(), NULL),
	                 1);
	ck_assert_int_gt(EVP_EncodeBlock(accept, hash, (int)hash_len), 0);
	/* As aiohttp writes it: `upgrade` in lower case. */
	ck_assert_int_eq(buf_printf(&c->out,
	                            "HTTP/1.1 101 Switching Protocols\r\n"
	                            "Upgrade: websocket\r\n"
	                            "Connection: upgrade\r\n"
	                            "Sec-WebSocket-Accept: %s\r\n"
	                            "Server: Python/3.11 aiohttp/3.8.4\r\n"
	                            "\r\n",
	                            accept),
	                 0);
	(void)buf_append(&c->out, script->first.data, script->first.len);
	c->upgraded = true;
}

static void answer(struct ws_conn *c)
{
	struct ws_script *script = &c->server->script;

	switch (script->answer) {
	case WS_UPGRADE:
	case WS_BAD_KEY:
		upgrade(c);
		break;
	case WS_RAW:
	case WS_RAW_END:
		(void)buf_puts(&c->out, script->raw);
		c->ending = script->answer == WS_RAW_END;
		break;
	case WS_SILENCE:
		break;
	}
}

static bool take_request(struct ws_conn *c)
{
	struct ws_seen *seen = &c->server->seen;
	char *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
	size_t len;

	if (!end)
		return false;
	len = (size_t)(end - c->in.data) + 4;
	ck_assert_uint_lt(len, sizeof(seen->head));
	if (len > 8 && memcmp(c->in.data, "CONNECT ", 8) == 0) {
		(void)snprintf(seen->tunnel, sizeof(seen->tunnel), "%.*s",
		               (int)strcspn(c->in.data, "\r"), c->in.data);
		(void)buf_puts(&c->out, "HTTP/1.1 200 Established\r\n\r\n");
	} else {
		memcpy(seen->head, c->in.data, len);
		seen->head[len] = '\0';
		seen->requests++;
		answer(c);
	}
	buf_consume(&c->in, len);
	return true;
}

static void keep_text(char *out, size_t max, const char *data, size_t len)
{
	ck_assert_uint_lt(len, max);
	memcpy(out, data, len);
	out[len] = '\0';
}

static void on_frame(struct ws_conn *c, int first, char *data, size_t len)
{
	struct ws_script *script = &c->server->script;
	struct ws_seen *seen = &c->server->seen;

	switch (first) {
	case WS_TEXT:
		seen->texts++;
		keep_text(seen->text, sizeof(seen->text), data, len);
		break;
	case WS_PING:
		seen->pings++;
		if (!script->no_pong)
			ws_frame(&c->out, WS_PONG, data, len, len);
		break;
	case WS_PONG:
		seen->pongs++;
		keep_text(seen->pong, sizeof(seen->pong), data, len);
		break;
	case WS_CLOSE:
		seen->closes++;
		seen->close_code = len < 2 ? 0
		                           : (unsigned char)data[0] << 8 |
		                                     (unsigned char)data[1];
		if (!script->no_close) {
			ws_frame(&c->out, WS_CLOSE, data, len, len);
			c->ending = true;
		}
		break;
	default:
		ck_abort_msg("frame of type 0x%02x from the client", first);
	}
}

/* Clients send short frames only here. */
static bool take_frame(struct ws_conn *c)
{
	unsigned char *p = (unsigned char *)c->in.data;
	size_t at = 2, len, mask_len;
	int first;

	if (c->in.len < 2)
		return false;
	mask_len = p[1] & 0x80 ? 4 : 0;
	len = p[1] & 0x7f;
	ck_assert_uint_lt(len, 126);
	if (c->in.len < at + mask_len + len)
		return false;
	if (mask_len == 0)
		c->server->seen.unmasked = true;
	at += mask_len;
	for (size_t i = 0; i < len && mask_len; i++)
		p[at + i] ^= p[2 + i % 4];
	first = p[0];
	on_frame(c, first, c->in.data + at, len);
	buf_consume(&c->in, at + len);
	return true;
}

/* All there is; false: the connection has gone. */
static bool read_conn(struct ws_conn *c)
{
	struct ws_server *s = c->server;
	unsigned int pings = s->seen.pings;
	bool alive, ended = false;
	ssize_t n;
	char *p;

	while (!ended) {
		p = buf_reserve(&c->in, READ_SIZE);
		ck_assert_ptr_nonnull(p);
		n = recv(c->io.fd, p, READ_SIZE, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			break;
		ended = n <= 0;
		if (n > 0)
			buf_commit(&c->in, (size_t)n);
		else
			s->seen.resets += n < 0 && errno == ECONNRESET;
	}
	while (c->upgraded ? take_frame(c) : take_request(c))
		;
	c->ending |= ended;
	if (ended)
		buf_reset(&c->out);
	alive = flush_conn(c);
	if (s->seen.pings != pings && s->script.on_ping)
		s->script.on_ping();
	return alive;
}

static void on_conn(struct ev_loop *loop, struct ev_io *w, int revents)
{
	struct ws_conn *c = w->data;

	if ((revents & EV_READ) && !read_conn(c))
		return;
	if (revents & EV_WRITE)
		(void)flush_conn(c);
}

static struct ws_conn *conn_of(struct list *l)
{
	return container_of(l, struct ws_conn, link);
}

static void on_accept(struct ev_loop *loop, struct ev_io *w, int revents)
{
	struct ws_server *s = w->data;
	struct list *l, *next;
	struct ws_conn *c;
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	list_for_each_safe (l, next, &s->conns)
		(void)read_conn(conn_of(l));
	c = calloc(1, sizeof(*c));
	ck_assert_ptr_nonnull(c);
	c->server = s;
	buf_init(&c->in, BYTES_MAX);
	buf_init(&c->out, BYTES_MAX);
	ev_io_init(&c->io, on_conn, fd, EV_READ);
	c->io.data = c;
	ev_io_start(loop, &c->io);
	list_prepend(&s->conns, &c->link);
	s->seen.connections++;
	if (++s->seen.open > s->seen.most_open)
		s->seen.most_open = s->seen.open;
}

/* --- interface ------------------------------------------------------------ */

static int listen_on(bool ipv6, unsigned *portp)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6,
	                          .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in a4 = {.sin_family = AF_INET};
	struct sockaddr *a = ipv6 ? (void *)&a6 : (void *)&a4;
	socklen_t len = ipv6 ? sizeof(a6) : sizeof(a4);
	int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, a, len) < 0 || listen(fd, 16) < 0) {
		if (fd >= 0)
			(void)close(fd);
		return -1;
	}
	ck_assert_int_eq(getsockname(fd, a, &len), 0);
	*portp = ntohs(ipv6 ? a6.sin6_port : a4.sin_port);
	return fd;
}

struct ws_server *ws_server_new(struct ev_loop *loop, bool ipv6)
{
	struct ws_server *s = calloc(1, sizeof(*s));
	int fd;

	ck_assert_ptr_nonnull(s);
	fd = listen_on(ipv6, &s->port);
	if (fd < 0) {
		ck_assert(ipv6);
		free(s);
		return NULL;
	}
	s->loop = loop;
	list_init(&s->conns);
	buf_init(&s->script.first, BYTES_MAX);
	ev_io_init(&s->listen, on_accept, fd, EV_READ);
	s->listen.data = s;
	ev_io_start(loop, &s->listen);
	return s;
}

struct ws_server *ws_server_free(struct ws_server *s)
{
	struct list *l, *next;

	if (!s)
		return NULL;
	list_for_each_safe (l, next, &s->conns)
		end_conn(conn_of(l), false);
	ws_server_close_port(s);
	buf_deinit(&s->script.first);
	free(s);
	return NULL;
}

void ws_server_close_port(struct ws_server *s)
{
	if (!ev_is_active(&s->listen))
		return;
	ev_io_stop(s->loop, &s->listen);
	(void)close(s->listen.fd);
}

unsigned ws_server_port(const struct ws_server *s)
{
	return s->port;
}

struct ws_script *ws_script(struct ws_server *s)
{
	return &s->script;
}

const struct ws_seen *ws_seen(const struct ws_server *s)
{
	return &s->seen;
}

static struct ws_conn *newest(struct ws_server *s)
{
	ck_assert_msg(s->conns.next != &s->conns, "no connection");
	return conn_of(s->conns.next);
}

void ws_server_write(struct ws_server *s, const void *data, size_t len)
{
	struct ws_conn *c = newest(s);

	ck_assert_int_eq(buf_append(&c->out, data, len), 0);
	(void)flush_conn(c);
}

void ws_server_send(struct ws_server *s, int first_byte, const void *data,
                    size_t len)
{
	struct ws_conn *c = newest(s);

	ws_frame(&c->out, first_byte, data, len, len);
	(void)flush_conn(c);
}

void ws_server_drop(struct ws_server *s, bool reset)
{
	end_conn(newest(s), reset);
}
