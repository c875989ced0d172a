/*
 * frame.h - an immutable, reference-counted message, encoded once and queued
 * for many. May carry a descriptor, which it owns.
 *
 * The functions of the second half work on a ring of references, the queue of
 * a conn or a channel.
 */
#ifndef IPC_FRAME_H
#define IPC_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FRAME_BATCH_MAX 64 /* frames written with one system call */

struct frame {
	unsigned refs;
	int fd; /* -1: none; sent on the first byte */
	/* NULL, or where it is counted while it lives, set after frame_new. */
	size_t *counted;
	/* Of the event that it tells, set after frame_new; 0: it has none. */
	uint64_t seq;
	size_t len;
	char data[];
};

/* A frame with a copy of the bytes and one reference. NULL if out of memory;
 * `fd` is consumed on success only. */
struct frame *frame_new(const void *data, size_t len, int fd);
/* The same from two pieces, a header and what follows it. */
struct frame *frame_new_pair(const void *head, size_t head_len,
                             const void *data, size_t len, int fd);
struct frame *frame_ref(struct frame *f);
/* Frees with the last reference, closing fd. NULL is fine; returns NULL. */
struct frame *frame_unref(struct frame *f);

/* Makes room for one more frame in a full ring of `count` frames from `*headp`
 * on; the capacity is a power of two. 0 or -ENOMEM. */
int frame_ring_grow(struct frame ***ringp, size_t *capp, size_t *headp,
                    size_t count);
/* One system call for as many of the ring's frames as go together, the first
 * from its byte `sent` on: a frame with a descriptor goes alone. There is at
 * least one frame. Bytes sent or a negative errno. */
ssize_t frame_ring_send(int sock, struct frame *const *ring, size_t cap,
                        size_t head, size_t count, size_t sent);

#endif
