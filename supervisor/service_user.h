/*
 * service_user.h - what a supervisor started as root does with it: makes the
 * places that the service needs, then becomes the service's user for good.
 *
 * Nothing else runs as root: not the database, not the link, no worker. Only
 * the configuration is read before, from a file that nobody but root could
 * have written (config.h, `trusted`).
 */
#ifndef SUPERVISOR_SERVICE_USER_H
#define SUPERVISOR_SERVICE_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/error.h"

struct service_user {
	uid_t uid;
	gid_t gid;
	char *name;  /* owned; NULL: known by number only */
	bool drop;   /* we are root and shall be somebody else */
	bool shared; /* the system's service, for everybody by default */
};

#define SERVICE_USER_NULL                                                      \
	{                                                                      \
		.uid = (uid_t)-1                                               \
	}

/* Whom this process shall be: itself, unless it was started as root as the
 * system's service (`own`: it is somebody's own, root's too). A user that
 * doesn't exist is an error that says how to make him; only one whose socket
 * and state directory were both named on the command line runs as root then. A
 * supervisor that stays root is for root alone, unless told otherwise. */
int service_user_find(struct service_user *u, const struct config *cfg,
                      bool own, struct error *err);
/* Safe twice. */
void service_user_deinit(struct service_user *u);

/* As root: the state directory (0700) and the socket's (0755), where they are
 * missing, for the service's user. Nothing if he isn't to be become. */
int service_user_make_places(const struct service_user *u,
                             const struct config *cfg, struct error *err);
/* True if the socket has to be made before: only root can make one there. */
bool service_user_needs_socket(const struct service_user *u,
                               const struct config *cfg);
/* Groups, gid, uid, capabilities and no_new_privs, then a look whether it is
 * so and can't be undone. */
int service_user_become(const struct service_user *u, struct error *err);

#endif
