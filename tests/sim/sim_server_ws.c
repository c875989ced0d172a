/*
 * sim_server_ws.c - WebSocket connections of the server module: the outgoing
 * queue, incoming messages, and ends without a farewell.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "tests/sim/sim_server_conn.h"
#include "tests/sim/sim_text.h"

/* Frames written per turn of the loop to one connection. */
#define FRAMES_PER_TURN 64

/* Server frames are not masked, so one copy with room for the header in front
 * serves every connection. */
struct sim_frame {
	unsigned refs;
	bool text;
	size_t len;
	unsigned char data[];
};

struct sim_frame *sim_frame_new(const void *data, size_t len, bool text)
{
	struct sim_frame *f = sim_calloc(1, sizeof(*f) + LWS_PRE + len);

	f->refs = 1;
	f->text = text;
	f->len = len;
	if (len)
		memcpy(f->data + LWS_PRE, data, len);
	return f;
}

struct sim_frame *sim_frame_ref(struct sim_frame *f)
{
	f->refs++;
	return f;
}

void sim_frame_unref(struct sim_frame *f)
{
	if (f && --f->refs == 0)
		free(f);
}

void *sim_conn_data(const struct sim_conn *c)
{
	return c->data;
}

size_t sim_conn_backlog(const struct sim_conn *c)
{
	return c->backlog;
}

void sim_conn_send(struct sim_conn *c, struct sim_frame *f)
{
	struct sim_queued *q;

	if (c->dropping)
		return;
	if (c->backlog + f->len > SIM_BACKLOG_MAX) {
		log_warn("server", "a WebSocket does not read, dropped");
		sim_conn_drop(c, true);
		return;
	}
	q = sim_calloc(1, sizeof(*q));
	q->frame = sim_frame_ref(f);
	if (c->last)
		c->last->next = q;
	else
		c->first = q;
	c->last = q;
	c->backlog += f->len;
	if (!c->frozen)
		lws_callback_on_writable(c->wsi);
}

void sim_conn_drop(struct sim_conn *c, bool reset)
{
	c->dropping = true;
	c->reset = reset;
	/* A frozen connection would never become writable. */
	if (c->frozen)
		sim_conn_freeze(c, false);
	lws_callback_on_writable(c->wsi);
}

void sim_conn_freeze(struct sim_conn *c, bool frozen)
{
	c->frozen = frozen;
	(void)lws_rx_flow_control(c->wsi, !frozen);
	if (!frozen)
		lws_callback_on_writable(c->wsi);
}

struct sim_frame *sim_conn_take(struct sim_conn *c)
{
	struct sim_queued *q = c->first;
	struct sim_frame *f = q->frame;

	c->first = q->next;
	if (!c->first)
		c->last = NULL;
	c->backlog -= f->len;
	free(q);
	return f;
}

/* One frame out; false when the connection is to end. */
static bool write_one(struct sim_conn *c)
{
	struct sim_frame *f = sim_conn_take(c);
	int n = lws_write(c->wsi, f->data + LWS_PRE, f->len,
	                  f->text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY);

	c->server->stats.frames++;
	c->server->stats.frame_bytes += f->len;
	sim_frame_unref(f);
	return n >= 0;
}

static int on_writeable(struct sim_conn *c)
{
	if (c->dropping) {
		struct sockaddr a = {.sa_family = AF_UNSPEC};

		if (c->reset &&
		    connect(lws_get_socket_fd(c->wsi), &a, sizeof(a)))
			log_warn("server", "reset: %s", strerror(errno));
		return -1;
	}
	if (c->frozen)
		return 0;
	for (int i = 0; i < FRAMES_PER_TURN && c->first; i++) {
		if (i && lws_send_pipe_choked(c->wsi))
			break;
		if (!write_one(c))
			return -1;
	}
	if (c->first)
		lws_callback_on_writable(c->wsi);
	return 0;
}

static int on_receive(struct sim_server *s, struct sim_conn *c, const void *in,
                      size_t len)
{
	if (lws_is_first_fragment(c->wsi))
		buf_reset(&c->message);
	if (buf_append(&c->message, in, len))
		return -1;
	if (!lws_is_final_fragment(c->wsi) ||
	    lws_remaining_packet_payload(c->wsi))
		return 0;
	if (!lws_frame_is_binary(c->wsi))
		s->ops->on_message(s->arg, c, c->message.data, c->message.len);
	buf_reset(&c->message);
	return 0;
}

int sim_ws_callback(struct sim_server *s, struct lws *wsi,
                    enum lws_callback_reasons reason, struct sim_conn *c,
                    const void *in, size_t len)
{
	struct sim_request *req;

	switch (reason) {
	case LWS_CALLBACK_ESTABLISHED:
		sim_conn_init(c, s, wsi);
		c->wsi = wsi;
		c->ws = true;
		s->stats.ws_total++;
		s->stats.ws_open++;
		req = sim_request_new(wsi);
		c->data = s->ops->on_open(s->arg, c, req);
		sim_request_free(req);
		return 0;
	case LWS_CALLBACK_RECEIVE:
		return on_receive(s, c, in, len);
	case LWS_CALLBACK_SERVER_WRITEABLE:
		return on_writeable(c);
	case LWS_CALLBACK_CLOSED:
		if (!c->server)
			return 0;
		s->stats.ws_open--;
		s->ops->on_close(s->arg, c);
		c->data = NULL;
		sim_conn_deinit(c);
		return 0;
	default:
		return 0;
	}
}
