/*
 * guardian.h - `comfymuxd --daemon`: a small parent that goes into the
 * background, starts the supervisor, and starts it again after a crash.
 *
 * The supervisor itself is the program exec'd anew, in the foreground's way
 * (--guarded), so that an upgraded program is picked up. TERM, INT, HUP and
 * USR2 are passed on to it. An orderly end of the supervisor is the guardian's
 * own.
 */
#ifndef SUPERVISOR_GUARDIAN_H
#define SUPERVISOR_GUARDIAN_H

#include "common/error.h"
#include "supervisor/options.h"

/* A supervisor that has served for so long is started again at once; else the
 * delays grow as in backoff.h. */
#define GUARDIAN_STABLE_MS     60000
#define GUARDIAN_ARGUMENTS_MAX 64 /* of the supervisor's command line */
/* What the foreground waits for readiness. */
#define GUARDIAN_READY_MS 60000

/* Returns in two processes: in the foreground with the status to exit with, 0
 * once the supervisor serves; in the guardian when it is over. -1 with `err`:
 * nothing was started.
 *
 * Started as root it makes the service's places and becomes the service's user
 * before it starts anything, unless that user is another than the usual one or
 * only root can make the socket: then the supervisor does that, each time, and
 * the guardian stays root. The pid file is opened before.
 *
 * The pid file has two lines, the guardian's pid and the supervisor's, and is
 * locked as long as the guardian lives: a second one is refused (ERR_BUSY). */
int guardian_run(const struct options *o, const struct config *cfg, char **argv,
                 struct error *err);

#endif
