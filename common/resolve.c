/*
 * resolve.c - see resolve.h.
 *
 * A c-ares channel lives from the first open query to the last: so changes to
 * resolv.conf are seen by the next query, and a process that resolves nothing
 * holds no sockets. c-ares cannot end one query; a query that was cancelled or
 * timed out stays in its hands, without an owner, until it answers or the
 * channel goes.
 *
 * c-ares must not be re-entered from its own callbacks, and may call them from
 * inside ares_getaddrinfo(). So every answer is stored first and told from a
 * timer.
 */
#include "common/resolve.h"

#include <ares.h>
#include <arpa/inet.h>
#include <ev.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/select.h>

#include "common/list.h"
#include "common/log.h"

struct resolver {
	struct ev_loop *loop;
	ares_channel channel; /* valid while channel_open */
	bool channel_open;
	const char *server;  /* for tests */
	struct list queries; /* those that owe a callback */
	struct list sockets;
	ev_timer timer; /* c-ares' next timeout */
};

struct resolve_socket {
	struct list link;
	ev_io io;
	struct resolver *resolver;
};

struct resolve_query {
	struct list link; /* in resolver->queries */
	struct resolver *resolver;
	resolve_cb *cb;
	void *user;
	ev_timer deadline; /* at once when the answer is there */
	unsigned timeout_ms;
	bool asked;    /* c-ares owes us on_answer() */
	bool orphan;   /* nobody waits; c-ares' answer frees it */
	bool answered; /* `result` or `error` holds the answer */
	struct resolve_result result;
	struct error error;
	char host[];
};

static void schedule_timeout(struct resolver *r);

/* --- sockets and timers of c-ares ---------------------------------------- */

static void on_socket(struct ev_loop *loop, ev_io *io, int revents)
{
	struct resolve_socket *s = container_of(io, struct resolve_socket, io);
	struct resolver *r = s->resolver;
	int fd = io->fd;

	/* This can free `s`, not `r`: see the top. */
	ares_process_fd(r->channel, revents & EV_READ ? fd : ARES_SOCKET_BAD,
	                revents & EV_WRITE ? fd : ARES_SOCKET_BAD);
	schedule_timeout(r);
}

static void on_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct resolver *r = container_of(timer, struct resolver, timer);

	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	schedule_timeout(r);
}

static void schedule_timeout(struct resolver *r)
{
	struct timeval tv, *next = ares_timeout(r->channel, NULL, &tv);

	ev_timer_stop(r->loop, &r->timer);
	if (!next)
		return;
	ev_timer_set(&r->timer,
	             (double)next->tv_sec + (double)next->tv_usec / 1e6, 0.);
	ev_timer_start(r->loop, &r->timer);
}

static struct resolve_socket *find_socket(struct resolver *r, int fd)
{
	struct list *it;

	list_for_each (it, &r->sockets) {
		struct resolve_socket *s =
			list_entry(it, struct resolve_socket, link);

		if (s->io.fd == fd)
			return s;
	}
	return NULL;
}

/* c-ares says what it waits for on a socket; nothing: the socket is going to
 * be closed. */
static void on_socket_state(void *user, ares_socket_t fd, int readable,
                            int writable)
{
	struct resolver *r = user;
	struct resolve_socket *s = find_socket(r, fd);
	int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);

	if (s) {
		ev_io_stop(r->loop, &s->io);
		if (events == 0) {
			list_del(&s->link);
			free(s);
			return;
		}
	} else {
		if (events == 0)
			return;
		s = calloc(1, sizeof(*s));
		if (!s) {
			/* The query's deadline tells. */
			log_error("resolve", "out of memory");
			return;
		}
		s->resolver = r;
		list_append(&r->sockets, &s->link);
		ev_init(&s->io, on_socket);
	}
	ev_io_set(&s->io, fd, events);
	ev_io_start(r->loop, &s->io);
}

static int open_channel(struct resolver *r, struct error *err)
{
	struct ares_options options = {
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = r,
	};
	int rc;

	if (r->channel_open)
		return 0;
	rc = ares_init_options(&r->channel, &options, ARES_OPT_SOCK_STATE_CB);
	if (rc == ARES_SUCCESS && r->server) {
		rc = ares_set_servers_ports_csv(r->channel, r->server);
		if (rc != ARES_SUCCESS)
			ares_destroy(r->channel);
	}
	if (rc != ARES_SUCCESS)
		return error_set(err, ERR_SYSTEM,
		                 "cannot start the resolver: %s",
		                 ares_strerror(rc));
	r->channel_open = true;
	return 0;
}

/* Frees the queries without an owner, too: c-ares calls them back. */
static void close_channel(struct resolver *r)
{
	if (!r->channel_open)
		return;
	ev_timer_stop(r->loop, &r->timer);
	ares_destroy(r->channel);
	r->channel_open = false;
}

/* --- queries ------------------------------------------------------------- */

/* Takes it from its owner. Frees it unless c-ares still has it. */
static void drop_query(struct resolve_query *q)
{
	ev_timer_stop(q->resolver->loop, &q->deadline);
	list_del(&q->link);
	if (q->asked)
		q->orphan = true;
	else
		free(q);
}

static void close_channel_if_unused(struct resolver *r)
{
	struct list *it;

	list_for_each (it, &r->queries) {
		if (list_entry(it, struct resolve_query, link)->asked)
			return;
	}
	close_channel(r);
}

/* From the timer: the answer is there, or it took too long. */
static void on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct resolve_query *q =
		container_of(timer, struct resolve_query, deadline);
	struct resolver *r = q->resolver;
	struct resolve_result result = q->result;
	struct error error = q->error;
	bool ok = q->answered && error.code == ERR_NONE;
	resolve_cb *cb = q->cb;
	void *user = q->user;

	if (!q->answered)
		(void)error_set(&error, ERR_UNREACHABLE,
		                "cannot resolve %s: no answer within %u ms",
		                log_safe(q->host, strlen(q->host)),
		                q->timeout_ms);
	/* The callback may free the resolver. */
	drop_query(q);
	close_channel_if_unused(r);
	cb(user, ok ? &result : NULL, ok ? NULL : &error);
}

/* Has the answer that is stored told from the loop. */
static void answer_soon(struct resolve_query *q)
{
	struct ev_loop *loop = q->resolver->loop;

	q->answered = true;
	ev_timer_stop(loop, &q->deadline);
	ev_timer_set(&q->deadline, 0., 0.);
	ev_timer_start(loop, &q->deadline);
}

static void add_address(struct resolve_result *result, int family,
                        const void *addr)
{
	char *text = result->address[result->count];

	if (result->count < RESOLVE_ADDRESSES_MAX &&
	    inet_ntop(family, addr, text, sizeof(result->address[0])))
		result->count++;
}

static void collect(struct resolve_result *result,
                    const struct ares_addrinfo *info)
{
	for (const struct ares_addrinfo_node *n = info->nodes; n;
	     n = n->ai_next) {
		const void *addr = n->ai_addr;

		if (n->ai_family == AF_INET)
			add_address(
				result, AF_INET,
				&((const struct sockaddr_in *)addr)->sin_addr);
		else if (n->ai_family == AF_INET6)
			add_address(result, AF_INET6,
			            &((const struct sockaddr_in6 *)addr)
			                     ->sin6_addr);
	}
}

static void on_answer(void *user, int status, int timeouts,
                      struct ares_addrinfo *info)
{
	struct resolve_query *q = user;

	q->asked = false;
	if (info && !q->orphan)
		collect(&q->result, info);
	if (info)
		ares_freeaddrinfo(info);
	if (q->orphan) {
		free(q);
		return;
	}
	if (q->result.count == 0)
		(void)error_set(&q->error, ERR_UNREACHABLE,
		                "cannot resolve %s: %s",
		                log_safe(q->host, strlen(q->host)),
		                status == ARES_SUCCESS ? "it has no address"
		                                       : ares_strerror(status));
	answer_soon(q);
}

/* Numeric addresses, and "localhost" (RFC 6761, section 6.3). */
static bool answer_locally(struct resolve_query *q)
{
	static const char *const loopback[] = {"127.0.0.1", "::1"};
	unsigned char addr[sizeof(struct in6_addr)];
	size_t len = strlen(q->host);

	if (inet_pton(AF_INET, q->host, addr) == 1) {
		add_address(&q->result, AF_INET, addr);
	} else if (inet_pton(AF_INET6, q->host, addr) == 1) {
		add_address(&q->result, AF_INET6, addr);
	} else if (len - (len > 0 && q->host[len - 1] == '.') ==
	                   strlen("localhost") &&
	           strncasecmp(q->host, "localhost", strlen("localhost")) ==
	                   0) {
		for (size_t i = 0; i < ARRAY_SIZE(loopback); i++)
			(void)snprintf(q->result.address[q->result.count++],
			               sizeof(q->result.address[0]), "%s",
			               loopback[i]);
	} else {
		return false;
	}
	answer_soon(q);
	return true;
}

struct resolve_query *resolve_start(struct resolver *r, const char *host,
                                    unsigned timeout_ms, resolve_cb *cb,
                                    void *user, struct error *err)
{
	static const struct ares_addrinfo_hints hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	size_t len = strlen(host);
	struct resolve_query *q = calloc(1, sizeof(*q) + len + 1);

	if (!q) {
		(void)error_set_nomem(err, "name query");
		return NULL;
	}
	memcpy(q->host, host, len + 1);
	q->resolver = r;
	q->cb = cb;
	q->user = user;
	q->timeout_ms = timeout_ms;
	/* The loop's time may be as old as the callback that we are in. */
	ev_now_update(r->loop);
	ev_timer_init(&q->deadline, on_deadline, timeout_ms / 1e3, 0.);
	ev_timer_start(r->loop, &q->deadline);
	list_append(&r->queries, &q->link);
	if (answer_locally(q))
		return q;
	if (open_channel(r, err) < 0) {
		drop_query(q);
		return NULL;
	}
	q->asked = true;
	ares_getaddrinfo(r->channel, q->host, NULL, &hints, on_answer, q);
	schedule_timeout(r);
	return q;
}

void resolve_cancel(struct resolve_query *q)
{
	struct resolver *r = q->resolver;

	drop_query(q);
	close_channel_if_unused(r);
}

/* --- the resolver -------------------------------------------------------- */

struct resolver *resolver_new(struct ev_loop *loop, struct error *err)
{
	struct resolver *r;
	int rc = ares_library_init(ARES_LIB_INIT_ALL);

	if (rc != ARES_SUCCESS) {
		(void)error_set(err, ERR_SYSTEM, "cannot start c-ares: %s",
		                ares_strerror(rc));
		return NULL;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		ares_library_cleanup();
		(void)error_set_nomem(err, "resolver");
		return NULL;
	}
	r->loop = loop;
	list_init(&r->queries);
	list_init(&r->sockets);
	ev_init(&r->timer, on_timeout);
	return r;
}

struct resolver *resolver_free(struct resolver *r)
{
	struct list *it, *tmp;

	if (!r)
		return NULL;
	list_for_each_safe (it, tmp, &r->queries)
		drop_query(list_entry(it, struct resolve_query, link));
	close_channel(r);
	free(r);
	ares_library_cleanup();
	return NULL;
}

void resolver_set_server(struct resolver *r, const char *server)
{
	close_channel_if_unused(r);
	r->server = server;
}
