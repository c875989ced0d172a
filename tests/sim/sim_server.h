/*
 * sim_server.h - the network side: listening socket, HTTP exchanges and
 * WebSocket connections on libwebsockets, one loop, one thread.
 *
 * It knows nothing of ComfyUI: requests go to one callback that fills a reply,
 * WebSocket connections to three. What a fault does to a connection is done
 * here, on orders of the faults module.
 */
#ifndef TESTS_SIM_SERVER_H
#define TESTS_SIM_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"

#define SIM_BODY_MAX        104857600  /* bytes of a request body */
#define SIM_REPLY_MAX       1073741824 /* bytes of a reply */
#define SIM_CONNECTIONS_MAX 4096       /* TCP connections at a time */
#define SIM_FRAME_MAX       268435456  /* bytes of one WebSocket frame */
#define SIM_BACKLOG_MAX     536870912  /* bytes queued on one WebSocket */
#define SIM_MESSAGE_MAX     1048576 /* bytes of a client's WebSocket message */
#define SIM_ARGS_MAX        32      /* parameters in a query string */
#define SIM_HEADER_MAX      4096    /* bytes of path or of one header value */

struct sim_server;
struct sim_conn; /* one TCP connection */

enum sim_method {
	SIM_GET,
	SIM_POST,
	SIM_PUT,
	SIM_DELETE,
	SIM_PATCH,
	SIM_HEAD,
	SIM_OPTIONS,
	SIM_METHOD_COUNT
};

struct sim_request {
	enum sim_method method;
	char path[SIM_HEADER_MAX]; /* decoded, without the query */
	char *args[SIM_ARGS_MAX];  /* "name=value", decoded */
	size_t nargs;
	char host[SIM_HEADER_MAX], origin[SIM_HEADER_MAX];
	char content_type[SIM_HEADER_MAX], range[SIM_HEADER_MAX];
	struct buf body;
};

/* What becomes of a reply on its way out. */
enum sim_reply_fate {
	SIM_REPLY_SEND,
	SIM_REPLY_CUT,      /* nothing is sent, the connection ends (FIN) */
	SIM_REPLY_RESET,    /* the same with RST */
	SIM_REPLY_TRUNCATE, /* header and the first keep_bytes of the body */
};

struct sim_reply {
	int status;
	const char *content_type; /* NULL: application/octet-stream */
	struct buf headers;       /* further ones, each ended by CR LF */
	struct buf body;
	enum sim_reply_fate fate;
	size_t keep_bytes;
	int64_t delay_us;
};

/* One frame for any number of connections. */
struct sim_frame;
struct sim_frame *sim_frame_new(const void *data, size_t len, bool text);
struct sim_frame *sim_frame_ref(struct sim_frame *f);
void sim_frame_unref(struct sim_frame *f);

struct sim_server_ops {
	void (*on_request)(void *arg, const struct sim_request *req,
	                   struct sim_reply *reply);
	/* An upgrade is asked for: 0 to accept, else the reply is sent. */
	int (*on_upgrade)(void *arg, const struct sim_request *req,
	                  struct sim_reply *reply);
	/* The request lives for this call only. Returns what the connection is
	 * to carry (never NULL), see sim_conn_data(). */
	void *(*on_open)(void *arg, struct sim_conn *conn,
	                 const struct sim_request *req);
	void (*on_message)(void *arg, struct sim_conn *conn, const char *text,
	                   size_t len);
	void (*on_close)(void *arg, struct sim_conn *conn);
};

struct sim_server_stats {
	uint64_t tcp_total, tcp_open, tcp_refused;
	uint64_t ws_total, ws_open;
	uint64_t frames, frame_bytes; /* sent on WebSockets */
};

/* Listens on 127.0.0.1:`port` (0: any). */
int sim_server_new(struct sim_server **sp, uint16_t port,
                   const struct sim_server_ops *ops, void *arg,
                   struct error *err);
void sim_server_free(struct sim_server *s);
uint16_t sim_server_port(const struct sim_server *s);
const struct sim_server_stats *sim_server_stats(const struct sim_server *s);
void sim_server_reset_stats(struct sim_server *s);
/* Serves until sim_server_stop(), which a signal handler may call. */
void sim_server_run(struct sim_server *s);
void sim_server_stop(struct sim_server *s);

/* Stops or resumes listening; connections live on. */
int sim_server_listen(struct sim_server *s, bool on, struct error *err);
/* Every connection ends without a WebSocket close frame. */
void sim_server_drop_all(struct sim_server *s);

/* WebSocket connections, oldest first: NULL starts, NULL ends. */
struct sim_conn *sim_conn_next(struct sim_server *s, struct sim_conn *after);
void *sim_conn_data(const struct sim_conn *c);
/* Queues a frame. On a connection that drowns (SIM_BACKLOG_MAX) it is closed
 * instead. */
void sim_conn_send(struct sim_conn *c, struct sim_frame *f);
size_t sim_conn_backlog(const struct sim_conn *c);
/* Ends the TCP connection without a close frame. */
void sim_conn_drop(struct sim_conn *c, bool reset);
/* Half open: nothing is read or written any more, no pings are answered. */
void sim_conn_freeze(struct sim_conn *c, bool frozen);

#endif
