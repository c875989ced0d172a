/*
 * autostart.h - finding a supervisor, or starting one of one's own.
 */
#ifndef WORKERS_FRONT_AUTOSTART_H
#define WORKERS_FRONT_AUTOSTART_H

#include <stdbool.h>

#include "common/config.h"
#include "common/error.h"

#define AUTOSTART_WAIT_MS 5000 /* for the new supervisor to listen */

/* Connects to the supervisor. If there is none, and this is a personal machine
 * (no /etc/comfymux/comfymux.conf, autostart not switched off, socket not named
 * by flag or environment: a named supervisor is somebody's to start), starts
 * one that leaves when idle. The connected descriptor, or -1: ERR_UNREACHABLE
 * means that one goes on without. */
int autostart_connect(const struct config *cfg, struct error *err);

/* The same for somebody who must not wait: a process of its own starts the
 * supervisor. A descriptor that becomes readable when that is over, for
 * autostart_finish(); -1 with `err` set if none is to be started here. */
int autostart_begin(const struct config *cfg, struct error *err);
/* Closes `fd`. False with `err` set: it didn't come up. */
bool autostart_finish(int fd, struct error *err);

#endif
