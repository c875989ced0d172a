/*
 * fdutil.h - descriptors: flags, passing over Unix sockets, throwing away.
 */
#ifndef COMMON_FDUTIL_H
#define COMMON_FDUTIL_H

#include <stddef.h>
#include <sys/types.h>

#define FD_PASS_MAX 253 /* SCM_MAX_FD: what one message can carry */

/* Each 0 or a negative errno. */
int fd_set_nonblock(int fd);
int fd_set_cloexec(int fd);
/* A SOCK_STREAM pair, close-on-exec; non-blocking if asked. */
int fd_socketpair(int sv[2], int nonblock);

/* sendmsg of `len` bytes with descriptor `fd` (-1: none) on the first byte.
 * MSG_NOSIGNAL | MSG_DONTWAIT. Bytes sent or a negative errno. `fd` stays the
 * caller's. */
ssize_t fd_send(int sock, const void *data, size_t len, int fd);
/* recvmsg (MSG_DONTWAIT, MSG_CMSG_CLOEXEC) with room for FD_PASS_MAX
 * descriptors, so that none is lost in a short control buffer. Those that came
 * are in `fds`, `*nfds` of them; the caller closes them. Bytes, 0 at EOF, or a
 * negative errno. */
ssize_t fd_recv(int sock, void *data, size_t len, int fds[FD_PASS_MAX],
                size_t *nfds);

/* Closes descriptors that a stranger pushed at us. A close may block for as
 * long as its SO_LINGER says, so a throw-away child does it; only if none can
 * be forked are they closed here. */
void fd_discard(const int *fds, size_t n);

/* A file in memory with these bytes that nobody can change any more, close-on-
 * exec; its offset is at the start. The descriptor or a negative errno. */
int fd_sealed(const char *name, const void *data, size_t len);

/* Whole file read, at most `max` bytes; *datap is the caller's to free and
 * NUL-terminated. 0, -EFBIG past max, or a negative errno. */
int fd_read_file(const char *path, size_t max, char **datap, size_t *lenp);
/* The same of an open one, from where it stands. */
int fd_read_all(int fd, size_t max, char **datap, size_t *lenp);
/* Writes `path` atomically: temporary name in the same directory, fsync,
 * rename. 0 or a negative errno. */
int fd_write_file(const char *path, const void *data, size_t len, mode_t mode);

#endif
