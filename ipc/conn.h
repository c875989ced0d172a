/*
 * conn.h - one end of a stream of lines: reader, writer queue with a byte
 * quota, descriptors. Knows no event loop: the owner watches the descriptor
 * and calls conn_read() and conn_flush() when it is ready.
 *
 * Descriptors that arrive unasked are thrown away (fd_discard); where they are
 * expected (conn_expect_fds) they wait in order for the lines that name them.
 */
#ifndef IPC_CONN_H
#define IPC_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "ipc/frame_queue.h"
#include "ipc/lines.h"

#define CONN_READ_MAX                                                          \
	(256u << 10)          /* bytes taken per conn_read(): one peer         \
	                         cannot starve the others */
#define CONN_FRAMES_MAX 65536 /* frames queued to one peer */
#define CONN_FDS_MAX    16    /* expected descriptors that may wait */

_Static_assert(CONN_READ_MAX <= LINES_AHEAD_BYTES,
               "lines has room for one conn_read()");

struct conn {
	int fd;
	struct lines lines;
	bool eof;
	pid_t sender; /* who wrote last, by SCM_CREDENTIALS; 0 unknown */
	struct frame_queue out;
	size_t quota; /* bytes queued in `out` */
	/* reader's descriptors */
	bool expect_fds;
	int fds[CONN_FDS_MAX];
	size_t fd_count;
	size_t fds_discarded; /* pushed at us unasked, in all */
};

#define CONN_NULL                                                              \
	{                                                                      \
		.fd = -1                                                       \
	}

/* Takes over `fd` (made non-blocking and close-on-exec; SO_PASSCRED set).
 * `line_max` bounds lines read, `quota` bytes queued for writing. 0 or a
 * negative errno, `fd` is then still the caller's. */
int conn_init(struct conn *c, int fd, size_t line_max, size_t quota,
              struct lines_budget *budget);
/* Closes and releases; safe twice. Drains pushed descriptors first, for which
 * the connection is shut down: not for a copy inherited by fork. */
void conn_deinit(struct conn *c);

/* Reads what is there, at most CONN_READ_MAX. 1: something came (or eof was
 * set); 0: nothing; negative errno: the peer is gone or broke a bound
 * (-ENOBUFS), drop it. Buffered lines stay readable. Take them all before the
 * next call: it returns 1 at once while they fill the buffer. */
int conn_read(struct conn *c);
/* Next line; see lines_next. */
enum lines_result conn_next(struct conn *c, struct span *line);
/* From now on descriptors are kept, in order, for conn_take_fd. 0 or a negative
 * errno. */
int conn_expect_fds(struct conn *c);
/* The next descriptor, the caller's then; -1 if none came. */
int conn_take_fd(struct conn *c);

/* Queues a reference to the frame (the caller keeps his). 0; -ENOBUFS when the
 * quota or CONN_FRAMES_MAX would be passed, nothing is queued then; -ENOMEM.
 * A single frame larger than the quota is taken when the queue is empty. An
 * empty frame is nothing to send; -EINVAL if it has a descriptor. */
int conn_send(struct conn *c, struct frame *f);
/* Copies the bytes into a frame and queues it. */
int conn_send_bytes(struct conn *c, const void *data, size_t len);
/* Writes what the peer takes. 0, or a negative errno: the peer is gone, or does
 * not take descriptors (-EPERM), or too many are under way (-ETOOMANYREFS); it
 * is to be dropped, since lines would be missing. */
int conn_flush(struct conn *c);
static inline bool conn_wants_write(const struct conn *c)
{
	return c->out.count > 0;
}

#endif
