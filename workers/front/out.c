/*
 * out.c - see out.h.
 */
#include "workers/front/out.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

#define KEEP_BYTES 65536 /* of memory, while nothing is queued */

static void on_writable(struct ev_loop *loop, ev_io *w, int revents);

/* A terminal's O_NONBLOCK is its open file's, which the shell shares: a file
 * of our own may have it. */
static int reopen_terminal(int fd)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

void out_init(struct out *o, struct ev_loop *loop, int fd, size_t max)
{
	struct stat st;

	*o = (struct out){.loop = loop, .fd = fd};
	buf_init(&o->queue, max);
	if (isatty(fd)) {
		int own = reopen_terminal(fd);

		if (own >= 0) {
			o->fd = own;
			o->own_fd = true;
		}
	} else if (fstat(fd, &st) == 0) {
		o->is_socket = S_ISSOCK(st.st_mode);
		o->is_file = S_ISREG(st.st_mode);
	}
	ev_io_init(&o->io, on_writable, o->fd, EV_WRITE);
}

void out_deinit(struct out *o)
{
	if (!o->loop)
		return;
	ev_io_stop(o->loop, &o->io);
	buf_deinit(&o->queue);
	if (o->own_fd)
		(void)close(o->fd);
	*o = (struct out){.fd = -1};
}

static bool writable_now(const struct out *o)
{
	struct pollfd p = {.fd = o->fd, .events = POLLOUT};

	return poll(&p, 1, 0) > 0;
}

/* One write that cannot block. */
static ssize_t write_some(struct out *o)
{
	const char *data = o->queue.data + o->written;
	size_t n = out_queued(o);

	if (o->is_socket)
		return send(o->fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!o->is_file && !o->own_fd) {
		/* POLLOUT on a pipe promises room for PIPE_BUF bytes. */
		if (!writable_now(o)) {
			errno = EAGAIN;
			return -1;
		}
		if (n > PIPE_BUF)
			n = PIPE_BUF;
	}
	return write(o->fd, data, n);
}

static void drop_queue(struct out *o)
{
	/* A large answer's memory is not kept for the next small one. */
	if (o->queue.cap > KEEP_BYTES)
		buf_deinit(&o->queue);
	else
		buf_reset(&o->queue);
	o->written = 0;
}

static void break_off(struct out *o, int error)
{
	o->broken = true;
	o->error = error;
	drop_queue(o);
	ev_io_stop(o->loop, &o->io);
	if (o->on_broken)
		o->on_broken(o->user);
}

static void flush(struct out *o)
{
	while (out_queued(o) > 0) {
		ssize_t n = write_some(o);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			ev_io_start(o->loop, &o->io);
			return;
		}
		if (n < 0) {
			break_off(o, errno);
			return;
		}
		o->written += (size_t)n;
	}
	drop_queue(o);
	ev_io_stop(o->loop, &o->io);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct out *o = container_of(w, struct out, io);

	flush(o);
	if (!o->broken && out_queued(o) == 0 && o->on_drained)
		o->on_drained(o->user);
}

/* Queues both, or neither: what is queued already is whole and stays. */
static int append(struct out *o, const void *data, size_t len, const char *end)
{
	size_t before, end_len = strlen(end);
	int r;

	/* Moved up once what is out is the larger part, so each byte is moved
	 * about once however small the pieces are that the reader takes. */
	if (o->written > out_queued(o) ||
	    len + end_len > o->queue.max - o->queue.len) {
		buf_consume(&o->queue, o->written);
		o->written = 0;
	}
	before = o->queue.len;
	r = buf_append(&o->queue, data, len);
	if (r == 0)
		r = buf_append(&o->queue, end, end_len);
	if (r < 0) {
		o->queue.failed = false;
		o->queue.len = before;
	}
	return r;
}

static int write_now(struct out *o, const void *data, size_t len,
                     const char *end)
{
	int r;

	if (o->broken)
		return -EPIPE;
	r = append(o, data, len, end);
	if (r < 0)
		return r;
	if (!ev_is_active(&o->io))
		flush(o);
	return o->broken ? -EPIPE : 0;
}

int out_write(struct out *o, const void *data, size_t len)
{
	return write_now(o, data, len, "");
}

int out_write_line(struct out *o, const void *data, size_t len)
{
	return write_now(o, data, len, "\n");
}

void out_finish(struct out *o, int timeout_ms)
{
	int64_t until = clock_ms() + timeout_ms;

	while (!o->broken && out_queued(o) > 0) {
		struct pollfd p = {.fd = o->fd, .events = POLLOUT};
		int64_t left = until - clock_ms();

		if (left <= 0)
			return;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return;
		flush(o);
	}
}
