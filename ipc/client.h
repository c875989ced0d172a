/*
 * client.h - the near end of the Unix socket: find the supervisor, connect,
 * hello, requests with replies by callback, events. On the libev loop.
 *
 * Used by the command line, the workers and the library.
 */
#ifndef IPC_CLIENT_H
#define IPC_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/error.h"
#include "common/json_span.h"
#include "ipc/message.h"

struct ev_loop;
struct client;

#define CLIENT_REQUESTS_MAX 4096        /* without a reply, at once */
#define CLIENT_QUOTA        (64u << 20) /* bytes queued towards the server */
#define CLIENT_TIMEOUT_MS   60000       /* default patience for a reply */
#define CLIENT_HELLO_MS     10000       /* patience for the reply to hello */
#define CLIENT_CONNECT_MS   2000        /* for a server too busy to accept */

/* What the server said in reply to hello. */
struct client_server {
	char version[64];
	char epoch[64];
	pid_t pid;
	uid_t uid; /* who we are to it; our own where it doesn't say */
	bool is_operator;
	char comfyui_url[2048];
	char comfyui_state[32];
};

struct client_handlers { /* each may be NULL */
	/* An event; everything is valid during the call only. */
	void (*on_event)(void *user, const struct incoming *ev);
	/* hello was answered. Requests made before were held back until now
	 * and are on their way, in order. */
	void (*on_ready)(void *user, const struct client_server *server);
	/* The connection is gone; all requests without a reply were answered
	 * with ERR_UNREACHABLE just before. `err` tells why: ERR_UNREACHABLE
	 * (it broke), ERR_TIMEOUT (no reply to hello), ERR_PROTOCOL (what came
	 * is not this protocol), or the server's own reason. The client may be
	 * freed in here. */
	void (*on_close)(void *user, const struct error *err);
};

/* With `err` set the request failed: refused by the server (error text and
 * type from the reply, `in` is the reply), timed out, or the connection broke
 * (`in` NULL). Else `in->result` is the result. Valid during the call. */
typedef void client_reply_cb(void *user, const struct incoming *in,
                             const struct error *err);

/* Connects to the supervisor that the configuration leads to
 * (config_socket_candidate). Doesn't block, unless a server has as many
 * connections waiting as it takes (it is stopped, or very busy): that is tried
 * again for CLIENT_CONNECT_MS. Returns a descriptor, or -1: ERR_UNREACHABLE if
 * none answers (names every path tried), ERR_CONFIG for a path that is too
 * long, ERR_DENIED for a permission problem or a server that is neither root,
 * nor oneself, nor the service's user (key user). `pathp` (may be NULL) gets a
 * copy of the path that answered, the caller's to free. */
int client_connect(const struct config *cfg, char **pathp, struct error *err);
/* The same without waiting: a server that has no room just now is
 * ERR_UNREACHABLE, too. */
int client_connect_now(const struct config *cfg, struct error *err);

/* A client on a connected descriptor, which it consumes; sends hello with
 * `name` ("comfymux run/0.1.0"). NULL on failure (fd is closed then). */
struct client *client_new(struct ev_loop *loop, int fd, const char *name,
                          const struct client_handlers *h, void *user,
                          struct error *err);
/* Closes, without callbacks. Allowed inside any of its callbacks. NULL is
 * fine; returns NULL. */
struct client *client_free(struct client *c);

/* Sends op with `params`: JSON object text of its fields ("{}" or {NULL,0} for
 * none); it may be spread over lines. The reply comes by callback exactly once,
 * never from inside this call. `timeout_ms` 0: CLIENT_TIMEOUT_MS; it runs from
 * now on. A request id, or 0 on failure with `err` set and no callback:
 * ERR_UNREACHABLE (closed), ERR_LIMIT (CLIENT_REQUESTS_MAX, CLIENT_QUOTA, the
 * op's own bound), ERR_INVALID (params). */
uint64_t client_request(struct client *c, enum op op, struct span params,
                        unsigned timeout_ms, client_reply_cb *cb, void *user,
                        struct error *err);
/* From now on lines may come with descriptors, for client_take_fd(). 0 or a
 * negative errno. */
int client_expect_fds(struct client *c);
/* Inside a callback: the descriptor of the line that it is called for, the
 * caller's then; -1 if there is none. One that nobody takes is closed. */
int client_take_fd(struct client *c);
/* No callback will come for this request. */
void client_forget(struct client *c, uint64_t id);

/* The descriptor, -1 once the connection is gone. The client's watchers keep
 * the loop alive; a caller that doesn't want that uses ev_unref(). */
int client_fd(const struct client *c);

#endif
