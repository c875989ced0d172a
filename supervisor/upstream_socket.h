/*
 * upstream_socket.h - one WebSocket at a time, by libwebsockets on the libev
 * loop: opens it, puts fragments together, closes or kills it, and tells when
 * it has ended. When to do which is upstream_fsm's business.
 */
#ifndef SUPERVISOR_UPSTREAM_SOCKET_H
#define SUPERVISOR_UPSTREAM_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/url.h"

struct credentials;
struct ev_loop;
struct upstream_socket;

struct upstream_socket_handlers {
	/* The handshake is over; `hello` is the first frame out. */
	void (*on_open)(void *user);
	/* Some bytes of a frame came. */
	void (*on_data)(void *user);
	void (*on_pong)(void *user);
	void (*on_frame)(void *user, bool binary, const char *frame, size_t len,
	                 int64_t received_us);
	/* The connection stands but is unfit; no frame comes any more. */
	void (*on_unfit)(void *user);
	/* It has ended: its descriptor is closed. From the loop, never from
	 * inside a function below; here the next one may be opened. */
	void (*on_end)(void *user);
};

struct upstream_socket_config {
	const struct url *url;   /* of ComfyUI; kept by the caller */
	const struct url *proxy; /* NULL: none; kept by the caller */
	const char *ca_file;     /* "": the system's authorities */
	/* To be shown, NULL: nothing; kept by the caller. */
	const struct credentials *credentials;
	const char *hello; /* static */
	size_t frame_max;  /* bytes */
};

struct upstream_socket *
upstream_socket_new(struct ev_loop *loop,
                    const struct upstream_socket_config *cfg,
                    const struct upstream_socket_handlers *h, void *user,
                    struct error *err);
/* Drops the connection; nothing stays in the loop. Not from inside a handler.
 * NULL is fine; returns NULL. */
struct upstream_socket *upstream_socket_free(struct upstream_socket *s);

/* Starts to connect to numeric `address` (the proxy's, if there is one). The
 * one before must have ended. A failure comes as on_end. */
void upstream_socket_open(struct upstream_socket *s, const char *address,
                          const char *client_id, uint32_t connect_timeout_ms);
void upstream_socket_ping(struct upstream_socket *s);
/* A close frame, then the server's, then on_end; or never, if the server is
 * stuck. */
void upstream_socket_close(struct upstream_socket *s);
/* on_end follows at once. */
void upstream_socket_kill(struct upstream_socket *s);

/* The last one opened got as far as a TCP connection. */
bool upstream_socket_reached(const struct upstream_socket *s);
/* What befell the last one opened; "" if nothing did. */
const char *upstream_socket_reason(const struct upstream_socket *s);

#endif
