/*
 * channel.h - the session channel between keeper and worker: frames over a
 * SOCK_STREAM socketpair. Knows no event loop.
 *
 * A frame is a 16-byte header (4 bytes length of the payload, 2 type, 2 flags,
 * 8 line number; all little-endian) and the payload. A torn frame at EOF is
 * dropped: what was sent whole counts, what was not never happened. Descriptors
 * travel from keeper to worker only, one per frame, on the frame's first byte;
 * a flag of the header announces it.
 */
#ifndef IPC_CHANNEL_H
#define IPC_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/span.h"
#include "ipc/frame_queue.h"

/* Descriptor numbers in an exec'd worker ... */
#define CHANNEL_SESSION_FD 3
#define CHANNEL_BUS_FD     4 /* absent when there is no supervisor */
/* ... and in the zygote, which is the same program with this argument. A forked
 * worker's have no fixed numbers. */
#define CHANNEL_ZYGOTE_FD       3
#define CHANNEL_ZYGOTE_ARGUMENT "--zygote"
/* A zygote's: what its workers show to ComfyUI, packed (common/credentials). */
#define CHANNEL_CREDENTIALS_FD       4
#define CHANNEL_CREDENTIALS_ARGUMENT "--credentials"
#define CHANNEL_NO_SANDBOX_ARGUMENT  "--no-sandbox"

#define CHANNEL_PAYLOAD_MAX (16u << 20)
#define CHANNEL_HEADER_LEN  16
#define CHANNEL_TYPE_LAST   255          /* later releases go so far; skipped */
#define CHANNEL_QUOTA       (64u << 20)  /* bytes queued for writing */
#define CHANNEL_FDS_MAX     16           /* received and not yet taken */
#define CHANNEL_READ_MAX    (256u << 10) /* bytes taken per channel_read() */

/* Flag of a header: a descriptor comes with the frame. */
#define CHANNEL_FLAG_FD 1u

enum channel_type {
	CHANNEL_NONE, /* 0 is no frame */
#define FRAME(e, name, dir, doc) CHANNEL_##e,
#include "ipc/messages.def"
	CHANNEL_TYPE_COUNT
};

struct channel_frame {
	enum channel_type type;
	uint64_t line;       /* 0 where no line is meant */
	struct span payload; /* valid until the next call on the channel */
	int fd;              /* -1: none; the caller's to close */
};

struct channel {
	int fd;
	bool is_worker; /* accepts frames to the worker, and descriptors */
	struct buf in;
	size_t in_start;
	bool eof;
	int fds[CHANNEL_FDS_MAX];
	size_t fd_count;
	struct frame_queue out;
};

#define CHANNEL_NULL                                                           \
	{                                                                      \
		.fd = -1                                                       \
	}

/* Takes over `fd` (made non-blocking, close-on-exec). 0 or a negative errno. */
int channel_init(struct channel *c, int fd, bool is_worker);
/* Safe twice. */
void channel_deinit(struct channel *c);

/* Queues a frame; `fd` (-1: none) is duplicated. 0, -ENOBUFS past
 * CHANNEL_QUOTA, -EMSGSIZE past CHANNEL_PAYLOAD_MAX, -ENOMEM, -EINVAL for a
 * type that this end does not send or a descriptor that has no place there, or
 * why the descriptor could not be duplicated. Nothing is queued on failure. */
int channel_send(struct channel *c, enum channel_type type, uint64_t line,
                 struct span payload, int fd);
/* Writes what the peer takes. 0 or a negative errno: the peer is gone. */
int channel_flush(struct channel *c);
static inline bool channel_wants_write(const struct channel *c)
{
	return c->out.count > 0;
}
/* Bytes queued and not yet written: callers with more to say wait. */
static inline size_t channel_queued(const struct channel *c)
{
	return c->out.bytes;
}

/* Reads what is there, at most CHANNEL_READ_MAX. 1: something came or eof is
 * set; 0: nothing; negative errno: the peer is gone or pushed descriptors that
 * it must not (-EPROTO, -ENOBUFS past CHANNEL_FDS_MAX). Frames that came whole
 * stay readable. Take them all before the next call: it returns 1 at once while
 * they fill the buffer. */
int channel_read(struct channel *c);
/* 1: a frame; 0: none yet; -1: the peer broke the framing (ERR_PROTOCOL): an
 * type that there can't be, the wrong direction, a length over the bound, a
 * descriptor where none belongs. Types of a later release are skipped. */
int channel_next(struct channel *c, struct channel_frame *f, struct error *err);

const char *channel_type_name(enum channel_type t);

#endif
