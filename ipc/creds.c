/*
 * creds.c - see creds.h.
 */
#include "ipc/creds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Younger than many C libraries' headers. */
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

static int get_groups(struct creds *c, int sock, struct error *err)
{
	gid_t *groups = NULL, *bigger;
	socklen_t len = 0;

	/* The first call tells the size; the set of a connected peer never
	 * changes, so a second is enough. */
	while (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0) {
		if (errno != ERANGE || groups ||
		    len > CREDS_GROUPS_MAX * sizeof(*groups)) {
			free(groups);
			return error_set_errno(err, errno,
			                       "cannot read the groups of the "
			                       "process at the other end");
		}
		bigger = malloc(len);
		if (!bigger)
			return error_set_nomem(err, "the peer's groups");
		groups = bigger;
	}
	c->groups = groups;
	c->group_count = groups ? len / sizeof(*groups) : 0;
	return 0;
}

int creds_get(struct creds *c, int sock, struct error *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	*c = (struct creds){0};
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return error_set_errno(err, errno,
		                       "cannot read the credentials of the "
		                       "process at the other end");
	/* Not connected, or a user that our namespace has no number for: both
	 * must not pass for somebody. */
	if (cred.uid == (uid_t)-1)
		return error_set(err, ERR_DENIED,
		                 "the process at the other end has no user "
		                 "that is known here");
	c->pid = cred.pid;
	c->uid = cred.uid;
	c->gid = cred.gid;
	return get_groups(c, sock, err);
}

int creds_copy(struct creds *to, const struct creds *from)
{
	*to = *from;
	to->groups = NULL;
	to->group_count = 0;
	if (from->group_count == 0)
		return 0;
	to->groups = malloc(from->group_count * sizeof(*to->groups));
	if (!to->groups)
		return -ENOMEM;
	memcpy(to->groups, from->groups,
	       from->group_count * sizeof(*to->groups));
	to->group_count = from->group_count;
	return 0;
}

void creds_deinit(struct creds *c)
{
	free(c->groups);
	c->groups = NULL;
	c->group_count = 0;
}

bool creds_in_group(const struct creds *c, gid_t gid)
{
	if (c->gid == gid)
		return true;
	for (size_t i = 0; i < c->group_count; i++) {
		if (c->groups[i] == gid)
			return true;
	}
	return false;
}

int creds_allow_fds(int sock, bool allow)
{
	int value = allow;

	if (setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &value, sizeof(value)) <
	            0 &&
	    errno != ENOPROTOOPT)
		return -errno;
	return 0;
}
