/*
 * autostart.h - finding a supervisor, or starting one of one's own.
 */
#ifndef WORKERS_FRONT_AUTOSTART_H
#define WORKERS_FRONT_AUTOSTART_H

#include "common/config.h"
#include "common/error.h"

#define AUTOSTART_WAIT_MS 5000 /* for the new supervisor to listen */

/* Connects to the supervisor. If there is none, and this is a personal machine
 * (no /etc/comfymux/comfymux.conf, autostart not switched off, socket not named
 * by flag or environment: a named supervisor is somebody's to start), starts
 * one that leaves when idle. The connected descriptor, or -1: ERR_UNREACHABLE
 * means that one goes on without. */
int autostart_connect(const struct config *cfg, struct error *err);

#endif
