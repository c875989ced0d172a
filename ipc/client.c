/*
 * client.c - see client.h.
 *
 * Any callback may free the client or drop its connection. So every entry from
 * the loop is bracketed by enter() and leave(), everything that runs callbacks
 * looks at is_open() after each, and the memory goes with the last leave().
 * Finding the server is in client_connect.c.
 */
#include "ipc/client.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/macros.h"
#include "common/map.h"
#include "ipc/conn.h"

enum client_state {
	CLIENT_HELLO, /* its reply is awaited, requests are held back */
	CLIENT_READY,
	CLIENT_CLOSED,
};

struct pending {
	struct list link; /* in client.requests or client.due */
	uint64_t id;      /* key of client.by_id */
	int64_t deadline_ms;
	client_reply_cb *cb;
	void *user;
	struct frame *held; /* the request, until it may be sent; else NULL */
};

struct client {
	struct ev_loop *loop;
	struct client_handlers handlers;
	void *user;
	enum client_state state;
	struct conn conn;
	ev_io reader, writer;
	ev_timer timer;
	int64_t timer_due_ms; /* while the timer is active */
	uint64_t last_id;
	struct map by_id;
	struct list requests; /* oldest first */
	struct list due;      /* timed out, their callbacks are running */
	size_t held_bytes;
	int line_fd;    /* that came with the line in hand; -1: none */
	unsigned depth; /* of entries from the loop */
	bool freed;
};

static bool is_open(const struct client *c)
{
	return !c->freed && c->state != CLIENT_CLOSED;
}

/* ---- pending requests ---- */

static struct pending *find_pending(const struct client *c, uint64_t id)
{
	return map_get(&c->by_id, (const char *)&id, sizeof(id));
}

/* Takes it out of every list; the caller frees it. */
static void unlink_pending(struct client *c, struct pending *p)
{
	(void)map_remove(&c->by_id, (const char *)&p->id, sizeof(p->id));
	list_del(&p->link);
	if (p->held) {
		c->held_bytes -= p->held->len;
		p->held = frame_unref(p->held);
	}
}

static void forget_all(struct client *c, struct list *l)
{
	struct pending *p;

	while (!list_empty(l)) {
		p = list_first(l, struct pending, link);
		unlink_pending(c, p);
		free(p);
	}
}

/* The one callback of a request; it is gone from the client before. */
static void answer(struct client *c, struct pending *p,
                   const struct incoming *in, const struct error *err)
{
	client_reply_cb *cb = p->cb;
	void *user = p->user;

	unlink_pending(c, p);
	free(p);
	if (cb)
		cb(user, in, err);
}

static void answer_all(struct client *c, struct list *l,
                       const struct error *err)
{
	while (!c->freed && !list_empty(l))
		answer(c, list_first(l, struct pending, link), NULL, err);
}

/* ---- life ---- */

static void enter(struct client *c)
{
	c->depth++;
}

static void stop(struct client *c)
{
	ev_io_stop(c->loop, &c->reader);
	ev_io_stop(c->loop, &c->writer);
	ev_timer_stop(c->loop, &c->timer);
}

static void destroy(struct client *c)
{
	forget_all(c, &c->requests);
	forget_all(c, &c->due);
	conn_deinit(&c->conn);
	map_deinit(&c->by_id);
	free(c);
}

static void leave(struct client *c)
{
	if (--c->depth == 0 && c->freed)
		destroy(c);
}

struct client *client_free(struct client *c)
{
	if (!c || c->freed)
		return NULL;
	/* The connection stays until the callback that this may come from has
	 * returned: it was promised that what it got is valid until then. */
	stop(c);
	c->freed = true;
	if (c->depth == 0)
		destroy(c);
	return NULL;
}

/* Ends the connection and tells everybody. */
static void hang_up(struct client *c, const struct error *why)
{
	struct error err = {.code = ERR_UNREACHABLE};

	if (!is_open(c))
		return;
	c->state = CLIENT_CLOSED;
	stop(c);
	conn_deinit(&c->conn);
	memcpy(err.text, why->text, sizeof(err.text));
	answer_all(c, &c->due, &err);
	answer_all(c, &c->requests, &err);
	if (!c->freed && c->handlers.on_close)
		c->handlers.on_close(c->user, why);
}

static void hang_up_errno(struct client *c, int errnum, const char *what)
{
	struct error err;

	(void)error_set_errno(&err, errnum, "%s", what);
	err.code = ERR_UNREACHABLE;
	hang_up(c, &err);
}

int client_expect_fds(struct client *c)
{
	return is_open(c) ? conn_expect_fds(&c->conn) : -ENOTCONN;
}

int client_take_fd(struct client *c)
{
	int fd = c->line_fd;

	c->line_fd = -1;
	return fd;
}

int client_fd(const struct client *c)
{
	return c->conn.fd;
}

/* ---- deadlines ---- */

/* The timer is set for the nearest deadline or earlier: an answered request
 * doesn't set it back, it then wakes up once for nothing. */
static void arm(struct client *c, int64_t deadline_ms)
{
	int64_t left_ms = deadline_ms - clock_ms();

	if (ev_is_active(&c->timer) && c->timer_due_ms <= deadline_ms)
		return;
	if (left_ms < 1)
		left_ms = 1;
	ev_timer_stop(c->loop, &c->timer);
	ev_now_update(c->loop);
	ev_timer_set(&c->timer, (double)left_ms / 1e3, 0.);
	ev_timer_start(c->loop, &c->timer);
	c->timer_due_ms = deadline_ms;
}

/* Moves the overdue to c->due and arms the timer for the next of the others. */
static void collect_due(struct client *c)
{
	int64_t now_ms = clock_ms(), next_ms = INT64_MAX;
	struct list *it, *tmp;
	struct pending *p;

	list_for_each_safe (it, tmp, &c->requests) {
		p = list_entry(it, struct pending, link);
		if (p->deadline_ms <= now_ms) {
			list_del(it);
			list_append(&c->due, it);
		} else if (p->deadline_ms < next_ms) {
			next_ms = p->deadline_ms;
		}
	}
	if (next_ms < INT64_MAX)
		arm(c, next_ms);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct client *c = w->data;
	struct error err;

	enter(c);
	collect_due(c);
	(void)error_set(&err, ERR_TIMEOUT,
	                "the supervisor did not answer in time");
	answer_all(c, &c->due, &err);
	leave(c);
}

/* ---- what comes in ---- */

/* A refusal that belongs to no request of ours is the server's last word: too
 * many clients, a line that it could not read. */
static void take_unasked(struct client *c, const struct incoming *in)
{
	struct error err;

	if (in->id > 0 && in->id <= c->last_id)
		return; /* late: timed out, or forgotten */
	if (in->ok)
		(void)error_set(&err, ERR_PROTOCOL,
		                "the supervisor answered a request that was "
		                "never made");
	else
		incoming_error(in, &err);
	hang_up(c, &err);
}

static void take_reply(struct client *c, const struct incoming *in)
{
	struct pending *p = find_pending(c, in->id);
	struct error err;

	/* One that is held back has not been asked. */
	if (!p || p->held) {
		take_unasked(c, in);
	} else if (in->ok) {
		answer(c, p, in, NULL);
	} else {
		incoming_error(in, &err);
		answer(c, p, in, &err);
	}
}

/* Lines and descriptors pair up in order, wanted or not. */
static int pair_fd(struct client *c, const struct incoming *in,
                   struct error *err)
{
	if (!in->has_fd || !c->conn.expect_fds)
		return 0;
	c->line_fd = conn_take_fd(&c->conn);
	return c->line_fd >= 0 ? 0
	                       : error_set(err, ERR_PROTOCOL,
	                                   "the supervisor sent a line "
	                                   "without its descriptor");
}

static void take_line(struct client *c, struct span line)
{
	struct incoming in;
	struct error err;
	int fd;

	if (incoming_parse(&in, line.p, line.n, &err) < 0 ||
	    pair_fd(c, &in, &err) < 0)
		hang_up(c, &err);
	else if (!in.is_event)
		take_reply(c, &in);
	else if (in.event != EVENT_COUNT && c->handlers.on_event)
		c->handlers.on_event(c->user, &in);
	fd = client_take_fd(c);
	if (fd >= 0)
		(void)close(fd);
}

static void take_lines(struct client *c)
{
	enum lines_result r;
	struct span line;
	struct error err;

	while (is_open(c)) {
		r = conn_next(&c->conn, &line);
		if (r == LINES_NONE)
			return;
		if (r == LINES_LINE) {
			take_line(c, line);
			continue;
		}
		(void)error_set(&err, ERR_PROTOCOL,
		                "the supervisor sent a line of more than %u "
		                "bytes",
		                LINE_MAX_BYTES);
		hang_up(c, &err);
	}
}

/* Everything that came is handled before an end of the connection is. */
static void read_all(struct client *c)
{
	struct error err;
	int r = conn_read(&c->conn);

	take_lines(c);
	if (!is_open(c))
		return;
	if (c->conn.eof) {
		(void)error_set(&err, ERR_UNREACHABLE,
		                "the supervisor closed the connection");
		hang_up(c, &err);
	} else if (r < 0) {
		hang_up_errno(c, -r, "the connection to the supervisor broke");
	}
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct client *c = w->data;

	enter(c);
	read_all(c);
	leave(c);
}

/* ---- what goes out ---- */

/* Never fails: a broken connection shows in on_writable, outside of calls. */
static void flush(struct client *c)
{
	if (conn_flush(&c->conn) < 0 || conn_wants_write(&c->conn))
		ev_io_start(c->loop, &c->writer);
	else
		ev_io_stop(c->loop, &c->writer);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct client *c = w->data;
	int r = conn_flush(&c->conn);
	/* Answers to earlier requests may still be there: the reader takes
	 * them, and then finds the end. */
	bool gone = r == -EPIPE || r == -ECONNRESET;

	enter(c);
	if (r < 0 && !gone)
		hang_up_errno(c, -r, "the connection to the supervisor broke");
	else if (gone || !conn_wants_write(&c->conn))
		ev_io_stop(loop, w);
	leave(c);
}

/* The request as one line; NULL with `err`. */
static struct frame *encode_request(enum op op, uint64_t id, struct span params,
                                    struct error *err)
{
	cleanup_buf struct buf line = BUF_INIT(LINE_MAX_BYTES + 1);
	struct frame *f;

	if (request_build(&line, op, id, params, err) < 0)
		return NULL;
	f = frame_new(line.data, line.len, -1);
	if (!f)
		(void)error_set_nomem(err, "a request");
	return f;
}

static int check_room(const struct client *c, const struct frame *f,
                      struct error *err)
{
	/* hello doesn't count. */
	size_t max = CLIENT_REQUESTS_MAX + (c->state == CLIENT_HELLO);

	if (c->by_id.count >= max)
		return error_set(err, ERR_LIMIT,
		                 "%d requests wait for the supervisor's reply; "
		                 "wait for some of them",
		                 CLIENT_REQUESTS_MAX);
	if (c->conn.out.bytes + c->held_bytes + f->len > CLIENT_QUOTA)
		return error_set(err, ERR_LIMIT,
		                 "%zu bytes wait to be taken by the "
		                 "supervisor; wait for replies",
		                 c->conn.out.bytes + c->held_bytes);
	return 0;
}

/* Sends the frame, or holds it back until hello is answered. */
static int dispatch(struct client *c, struct pending *p, struct frame *f,
                    struct error *err)
{
	if (c->state == CLIENT_HELLO && c->last_id > 1) {
		p->held = frame_ref(f);
		c->held_bytes += f->len;
		return 0;
	}
	if (conn_send(&c->conn, f) < 0)
		return error_set_nomem(err, "a request");
	flush(c);
	return 0;
}

static uint64_t request(struct client *c, struct frame *f, unsigned timeout_ms,
                        client_reply_cb *cb, void *user, struct error *err)
{
	struct pending *p;

	if (check_room(c, f, err) < 0)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p) {
		(void)error_set_nomem(err, "a request");
		return 0;
	}
	p->id = ++c->last_id;
	p->deadline_ms = clock_ms() + timeout_ms;
	p->cb = cb;
	p->user = user;
	list_append(&c->requests, &p->link);
	if (map_add(&c->by_id, (const char *)&p->id, sizeof(p->id), p) < 0) {
		(void)error_set_nomem(err, "a request");
		list_del(&p->link);
		free(p);
		return 0;
	}
	if (dispatch(c, p, f, err) < 0) {
		unlink_pending(c, p);
		free(p);
		return 0;
	}
	arm(c, p->deadline_ms);
	return p->id;
}

uint64_t client_request(struct client *c, enum op op, struct span params,
                        unsigned timeout_ms, client_reply_cb *cb, void *user,
                        struct error *err)
{
	struct frame *f;
	uint64_t id;

	if (!is_open(c)) {
		(void)error_set(err, ERR_UNREACHABLE,
		                "the connection to the supervisor is closed");
		return 0;
	}
	f = encode_request(op, c->last_id + 1, params, err);
	if (!f)
		return 0;
	id = request(c, f, timeout_ms ? timeout_ms : CLIENT_TIMEOUT_MS, cb,
	             user, err);
	(void)frame_unref(f);
	return id;
}

void client_forget(struct client *c, uint64_t id)
{
	struct pending *p = find_pending(c, id);

	/* The first one is hello's, and our own. */
	if (!p || id == 1)
		return;
	unlink_pending(c, p);
	free(p);
}

/* ---- hello ---- */

static bool copy_string(struct json j, char *to, size_t size)
{
	cleanup_free char *s = NULL;

	if (j.type == JSON_STRING)
		s = json_string_dup(j, size - 1);
	if (s)
		memcpy(to, s, strlen(s) + 1);
	return s != NULL;
}

static int read_server(struct client_server *s, struct json result,
                       struct error *err)
{
	static const char *const keys[] = {"version", "epoch",    "pid",
	                                   "comfyui", "operator", "protocol"};
	struct json v[ARRAY_SIZE(keys)];
	int64_t pid, protocol, uid;

	memset(s, 0, sizeof(*s));
	json_get_many(result, keys, v, ARRAY_SIZE(keys));
	if (v[5].type != JSON_NUMBER || !json_int64(v[5], &protocol))
		return error_set(err, ERR_PROTOCOL,
		                 "the supervisor does not say which protocol "
		                 "it speaks");
	if (protocol != MESSAGE_PROTOCOL)
		return error_set(err, ERR_PROTOCOL,
		                 "the supervisor speaks protocol %lld, this "
		                 "program %d; use the same release for both",
		                 (long long)protocol, MESSAGE_PROTOCOL);
	if (!copy_string(v[0], s->version, sizeof(s->version)) ||
	    !copy_string(v[1], s->epoch, sizeof(s->epoch)) ||
	    v[2].type != JSON_NUMBER || !json_int64(v[2], &pid) || pid < 0 ||
	    pid > INT32_MAX || !json_bool(v[4], &s->is_operator) ||
	    !copy_string(json_get(v[3], "url"), s->comfyui_url,
	                 sizeof(s->comfyui_url)) ||
	    !copy_string(json_get(v[3], "state"), s->comfyui_state,
	                 sizeof(s->comfyui_state)))
		return error_set(err, ERR_PROTOCOL,
		                 "the supervisor's reply to hello lacks a "
		                 "field, or has a wrong one");
	s->pid = (pid_t)pid;
	s->uid = json_int64(json_get(result, "uid"), &uid) && uid >= 0 &&
	                         uid < UINT32_MAX
	                 ? (uid_t)uid
	                 : geteuid();
	return 0;
}

static int release_held(struct client *c)
{
	struct list *it;
	struct pending *p;
	int r;

	list_for_each (it, &c->requests) {
		p = list_entry(it, struct pending, link);
		if (!p->held)
			continue;
		r = conn_send(&c->conn, p->held);
		if (r < 0)
			return r;
		c->held_bytes -= p->held->len;
		p->held = frame_unref(p->held);
	}
	flush(c);
	return 0;
}

static void on_hello(void *user, const struct incoming *in,
                     const struct error *refused)
{
	struct client *c = user;
	struct client_server server;
	struct error err;
	int r;

	if (refused) {
		hang_up(c, refused);
		return;
	}
	if (read_server(&server, in->result, &err) < 0) {
		hang_up(c, &err);
		return;
	}
	c->state = CLIENT_READY;
	r = release_held(c);
	if (r < 0)
		hang_up_errno(c, -r, "cannot send to the supervisor");
	else if (c->handlers.on_ready)
		c->handlers.on_ready(c->user, &server);
}

static int say_hello(struct client *c, const char *name, struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(LINE_MAX_BYTES);

	(void)buf_putc(&params, '{');
	(void)buf_json_key(&params, "client");
	(void)buf_json_string(&params, name, strlen(name));
	if (buf_putc(&params, '}') < 0)
		return error_set_nomem(err, "a request");
	return client_request(c, OP_HELLO, span_make(params.data, params.len),
	                      CLIENT_HELLO_MS, on_hello, c, err) > 0
	               ? 0
	               : -1;
}

struct client *client_new(struct ev_loop *loop, int fd, const char *name,
                          const struct client_handlers *h, void *user,
                          struct error *err)
{
	struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		(void)close(fd);
		(void)error_set_nomem(err, "a connection");
		return NULL;
	}
	r = conn_init(&c->conn, fd, LINE_MAX_BYTES, CLIENT_QUOTA, NULL);
	if (r < 0) {
		(void)close(fd);
		free(c);
		(void)error_set_errno(err, -r,
		                      "cannot use the connection to "
		                      "the supervisor");
		return NULL;
	}
	c->loop = loop;
	c->line_fd = -1;
	c->handlers = *h;
	c->user = user;
	list_init(&c->requests);
	list_init(&c->due);
	ev_io_init(&c->reader, on_readable, fd, EV_READ);
	ev_io_init(&c->writer, on_writable, fd, EV_WRITE);
	ev_timer_init(&c->timer, on_timer, 0., 0.);
	c->reader.data = c->writer.data = c->timer.data = c;
	ev_io_start(loop, &c->reader);
	if (say_hello(c, name, err) < 0)
		return client_free(c);
	return c;
}
