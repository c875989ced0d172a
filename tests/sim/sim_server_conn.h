/*
 * sim_server_conn.h - shared by the files of the server module and nobody
 * else: the structs behind sim_server.h.
 */
#ifndef TESTS_SIM_SERVER_CONN_H
#define TESTS_SIM_SERVER_CONN_H

#include <libwebsockets.h>
#include <signal.h>

#include "common/list.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_server.h"

struct sim_server {
	struct lws_context *context;
	struct lws_vhost *vhost;
	/* Connection, listener, timer, end. */
	struct lws_protocols protocols[4];
	lws_retry_bo_t no_pings;
	int timer_fd;
	int64_t armed_us; /* clock_us() when it goes off; -1: it doesn't */
	struct lws *listener;
	int listen_fd;
	uint16_t port;
	const struct sim_server_ops *ops;
	void *arg;
	struct sim_server_stats stats;
	struct list sockets; /* struct sim_socket.link */
	struct list conns;   /* struct sim_conn.link */
	volatile sig_atomic_t stop;
};

struct sim_queued {
	struct sim_queued *next;
	struct sim_frame *frame;
};

/* A connection, idle ones between two requests included. */
struct sim_socket {
	struct list link;
	struct lws *wsi;
	struct sim_conn *conn; /* NULL: idle */
};

/* Per-session data of libwebsockets: zeroed by it, and freed by it. */
struct sim_conn {
	struct sim_server *server; /* NULL: not initialised */
	struct lws *wsi;
	struct list link;
	bool ws, frozen, dropping, reset;
	void *data;                      /* of the WebSocket's owner */
	struct sim_queued *first, *last; /* frames to send */
	size_t backlog;
	struct buf message; /* pieces of a fragmented message */
	/* the HTTP exchange at hand */
	struct sim_request *req; /* NULL: none */
	struct sim_reply *reply; /* waits to be sent */
	struct sim_timer delay;
	bool too_large;
};

void sim_conn_init(struct sim_conn *c, struct sim_server *s, struct lws *wsi);
void sim_conn_deinit(struct sim_conn *c);
/* The next frame to send, with its reference; there must be one. */
struct sim_frame *sim_conn_take(struct sim_conn *c);
/* The request line and the headers that matter. */
struct sim_request *sim_request_new(struct lws *wsi);
void sim_request_free(struct sim_request *r);
void sim_reply_free(struct sim_reply *r);

int sim_http_callback(struct sim_server *s, struct lws *wsi,
                      enum lws_callback_reasons reason, struct sim_conn *c,
                      const void *in, size_t len);
int sim_ws_callback(struct sim_server *s, struct lws *wsi,
                    enum lws_callback_reasons reason, struct sim_conn *c,
                    const void *in, size_t len);

#endif
