/*
 * notify.h - what systemd is told and what it hands over; without it each of
 * these does nothing.
 *
 * The only file that knows libsystemd. A message that can't be sent is logged
 * and costs nothing else.
 */
#ifndef SUPERVISOR_NOTIFY_H
#define SUPERVISOR_NOTIFY_H

#include <ev.h>
#include <stdbool.h>

#include "common/error.h"

/* The watchdog is fed so often in the time that systemd gives. */
#define NOTIFY_WATCHDOG_SHARE 2

struct notify {
	struct ev_loop *loop;
	ev_timer watchdog; /* not active if systemd watches nobody */
};

/* Whether one was handed over; it is taken when it is needed. */
bool notify_has_socket(void);
/* The listening socket that was handed over (LISTEN_FDS): *fdp is the caller's
 * then, else -1. It must be the one that `path` names; any other, or more than
 * one, is ERR_CONFIG. The environment is cleaned of it. */
int notify_take_socket(const char *path, int *fdp, struct error *err);

/* Ready; from now on the watchdog is fed from the loop, so that a loop that
 * hangs is noticed. */
void notify_ready(struct notify *n, struct ev_loop *loop);
/* Around a reload. */
void notify_reloading(void);
void notify_reloaded(void);
void notify_stopping(const char *why);
/* A sentence for `systemctl status`. */
void notify_status(const char *fmt, ...) ATTR_PRINTF(1, 2);
/* Safe twice, and on one that is zeroed. */
void notify_deinit(struct notify *n);

#endif
