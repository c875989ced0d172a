/*
 * upstream.h - the one WebSocket to ComfyUI: transport by libwebsockets on the
 * libev loop, driven by upstream_fsm. Hands whole frames to its owner, knows
 * nothing of prompts.
 */
#ifndef SUPERVISOR_UPSTREAM_H
#define SUPERVISOR_UPSTREAM_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/error.h"
#include "common/resolve.h"
#include "common/url.h"
#include "supervisor/upstream_fsm.h"

#define UPSTREAM_FRAME_MAX                                                     \
	(64u << 20) /* bytes of one frame; a larger one ends                   \
	               the connection */

struct ev_loop;
struct credentials;
struct upstream;

struct upstream_handlers {
	/* A whole text or binary frame; valid during the call. `received_us`
	 * is clock_us() of its last byte. */
	void (*on_text)(void *user, const char *frame, size_t len,
	                int64_t received_us);
	void (*on_binary)(void *user, const char *frame, size_t len,
	                  int64_t received_us);
	/* After each change of state (those of one turn of the loop are told
	 * as one; UPSTREAM_CONNECTED is always told, before the first frame).
	 * On UPSTREAM_CONNECTED the feature_flags frame is on its way and
	 * everything in flight wants reconciling. */
	void (*on_state)(void *user, enum upstream_state state);
};

/* Limits of libwebsockets' request, in bytes: beyond them it would send a
 * request that is cut off. */
#define UPSTREAM_AUTHORITY_MAX    119  /* "host:port" */
#define UPSTREAM_PROXIED_HOST_MAX 90   /* host, when a proxy is used */
#define UPSTREAM_PATH_MAX         2032 /* base path with the client id */

/* `url`, `cfg`, `client_id` are copied. Handlers are called from the loop,
 * on_state never from inside a function below. They may call these functions,
 * upstream_free excepted. SIGPIPE is ignored from now on. */
/* `credentials`, NULL for none, stay the caller's. */
struct upstream *upstream_new(struct ev_loop *loop, struct resolver *resolver,
                              const struct url *url, const struct config *cfg,
                              const struct credentials *credentials,
                              const char *client_id,
                              const struct upstream_handlers *h, void *user,
                              struct error *err);
/* Drops the connection; nothing stays in the loop. NULL is fine; returns
 * NULL. */
struct upstream *upstream_free(struct upstream *u);

void upstream_start(struct upstream *u);
/* Close, await the end, open anew; `why` goes to the log. */
void upstream_reconnect(struct upstream *u, const char *why);
/* Orderly end: on_state(UPSTREAM_DOWN) follows, at the latest after
 * UPSTREAM_CLOSE_GRACE_MS. */
void upstream_stop(struct upstream *u);
/* Takes over the reloadable timings. */
void upstream_reconfigure(struct upstream *u, const struct config *cfg);
/* In milliseconds, for tests: the configuration counts in seconds. */
void upstream_set_timing(struct upstream *u, const struct upstream_timing *t);
/* The next connection uses this client id (nothing is in flight). 0, or
 * -EINVAL for one that is no UUID. */
int upstream_set_client_id(struct upstream *u, const char *client_id);

enum upstream_state upstream_state(const struct upstream *u);
/* Connections made after the first. */
uint64_t upstream_reconnects(const struct upstream *u);
/* Numeric address of ComfyUI last connected to, "" if none or by a proxy. */
const char *upstream_address(const struct upstream *u);
/* Why the last attempt failed, "" if it didn't. */
const char *upstream_last_error(const struct upstream *u);

#endif
