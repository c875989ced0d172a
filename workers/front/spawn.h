/*
 * spawn.h - starting our other programs: a worker of one's own, a supervisor
 * of one's own.
 */
#ifndef WORKERS_FRONT_SPAWN_H
#define WORKERS_FRONT_SPAWN_H

#include <sys/types.h>

#include "common/error.h"

/* Execs comfymux-worker with the session channel on CHANNEL_SESSION_FD and
 * the bus (-1: none) on CHANNEL_BUS_FD. Neither descriptor is consumed. The
 * child's pid, or -1. An exec that fails is told here, not by a dead worker. */
pid_t spawn_worker(int session_fd, int bus_fd, struct error *err);

/* Execs `argv[0]` detached: a session of its own, stdio on /dev/null, `fd`
 * (-1: none) as descriptor 3. Does not wait for it. 0 or -1. */
int spawn_detached(char *const argv[], int fd, struct error *err);

#endif
