/*
 * creds.h - who is at the other end of a Unix socket, by the kernel's word, and
 * what it may push at us.
 */
#ifndef IPC_CREDS_H
#define IPC_CREDS_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/error.h"

#define CREDS_GROUPS_MAX 65536 /* NGROUPS_MAX of Linux */

struct creds {
	pid_t pid; /* who connected; 0: in a pid namespace we don't see */
	uid_t uid;
	gid_t gid;
	size_t group_count;
	gid_t *groups; /* owned */
};

/* SO_PEERCRED and SO_PEERGROUPS of a connected socket. 0, or -1 with `err`;
 * `c` is as creds_deinit leaves it then. */
int creds_get(struct creds *c, int sock, struct error *err);
/* 0, or -ENOMEM with `to` as creds_deinit leaves it. */
int creds_copy(struct creds *to, const struct creds *from);
/* Safe twice. */
void creds_deinit(struct creds *c);
/* Primary group included. */
bool creds_in_group(const struct creds *c, gid_t gid);

/* Whether peers may send descriptors to this socket at all (SO_PASSRIGHTS,
 * Linux 6.16); connections accepted from a listener inherit it. A sender that
 * may not gets EPERM. 0 too where the kernel doesn't know it: they come then,
 * and have to be thrown away. Else a negative errno. */
int creds_allow_fds(int sock, bool allow);

#endif
