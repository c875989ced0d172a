/*
 * listener.h - the Unix socket that clients connect to.
 */
#ifndef IPC_LISTENER_H
#define IPC_LISTENER_H

#include <sys/types.h>

#include "common/error.h"

#define LISTENER_BACKLOG  512
#define LISTENER_PATH_MAX 107 /* bytes; what sockaddr_un has room for */
/* How long another process may be busy with sockets of the same directory. */
#define LISTENER_LOCK_MS 2000

struct listener {
	int fd;
	char *path; /* owned; unlinked at the end if it is still ours */
	dev_t dev;  /* of the socket file that we made */
	ino_t ino;
};

#define LISTENER_NULL                                                          \
	{                                                                      \
		.fd = -1                                                       \
	}

/* Binds and listens. A stale socket file (nobody answers, checked by
 * connecting) is replaced; a live one is ERR_BUSY and names the path; anything
 * that is not a socket is left alone, ERR_INVALID. Path too long, directory
 * missing or not writable: errors that say so and what to do. The file appears
 * under its name only when it listens already (bind under a temporary name,
 * then rename), with `mode` and nothing wider in between. Of several processes
 * that replace the same stale file at once one wins, the others get ERR_BUSY:
 * they take turns by flock() on the directory. */
int listener_init(struct listener *l, const char *path, mode_t mode,
                  struct error *err);
/* The file is the user's from now on; as root, in a directory of root's. */
int listener_give(struct listener *l, uid_t uid, gid_t gid, struct error *err);
/* Clients are told who the process was when it last said that it listens; for
 * one that has become somebody else. */
int listener_renew(struct listener *l, struct error *err);
/* Takes over a listening descriptor (socket activation); never unlinked. 0 or
 * a negative errno; `fd` is taken in any case. */
int listener_adopt(struct listener *l, int fd);
/* Accepts one connection, close-on-exec and non-blocking: descriptor, -EAGAIN,
 * or another negative errno (-EMFILE, -ENFILE: pause accepting). */
int listener_accept(struct listener *l);
/* Closes, and unlinks the file if it is the one made here. Safe twice. */
void listener_deinit(struct listener *l);

#endif
