/*
 * out.h - writing to the user's stdout or stderr without ever blocking on it
 * and without setting O_NONBLOCK: that flag belongs to the open file, which is
 * shared with whoever started us and outlives us.
 *
 * Sockets are written with MSG_DONTWAIT, pipes when poll() says so and at most
 * PIPE_BUF at a time (which then fits), terminals through a descriptor of our
 * own, regular files directly.
 */
#ifndef WORKERS_FRONT_OUT_H
#define WORKERS_FRONT_OUT_H

#include <ev.h>
#include <stdbool.h>

#include "common/buf.h"

struct out {
	struct ev_loop *loop;
	ev_io io;
	int fd;
	bool own_fd; /* a terminal that was reopened */
	bool is_socket, is_file;
	bool broken; /* EPIPE or another error: nothing is written any more */
	int error;   /* that errno */
	struct buf queue;
	size_t written;                 /* bytes at its front that are out */
	void (*on_drained)(void *user); /* may be NULL */
	void (*on_broken)(void *user);  /* may be NULL */
	void *user;
};

/* `max` bounds the bytes queued. `fd` stays the caller's. */
void out_init(struct out *o, struct ev_loop *loop, int fd, size_t max);
/* Drops what is queued. Safe twice. */
void out_deinit(struct out *o);
/* Queues and writes what goes. 0, -EMSGSIZE past `max` (nothing is queued
 * then), -ENOMEM, -EPIPE once broken. */
int out_write(struct out *o, const void *data, size_t len);
/* The same for a line, with its newline: both or nothing. */
int out_write_line(struct out *o, const void *data, size_t len);
/* Bytes that wait. */
static inline size_t out_queued(const struct out *o)
{
	return o->queue.len - o->written;
}
/* Runs nothing but this output until all is written, it breaks, or
 * `timeout_ms` have passed: for the last words before the exit. */
void out_finish(struct out *o, int timeout_ms);

#endif
