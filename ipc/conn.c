/*
 * conn.c - see conn.h.
 *
 * The hot path of the broadcast: a frame is encoded once, conn_send() takes a
 * reference, conn_flush() hands up to FRAME_BATCH_MAX of them to the kernel at
 * once.
 */
#include "ipc/conn.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/creds.h"

#define DRAIN_BYTES (16u << 10) /* read at once before a close */

/* Room for everything the kernel may attach, so that nothing is cut: a cut
 * descriptor is closed by the kernel in our own time. 512: credentials and a
 * security label. */
union control {
	char space[CMSG_SPACE(FD_PASS_MAX * sizeof(int)) +
	           CMSG_SPACE(sizeof(struct ucred)) + 512];
	struct cmsghdr align;
};

int conn_init(struct conn *c, int fd, size_t line_max, size_t quota,
              struct lines_budget *budget)
{
	const int on = 1;
	int r;

	*c = (struct conn)CONN_NULL;
	r = fd_set_nonblock(fd);
	if (r == 0)
		r = fd_set_cloexec(fd);
	if (r == 0)
		r = creds_allow_fds(fd, false);
	if (r == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		r = -errno;
	if (r < 0)
		return r;
	lines_init(&c->lines, line_max, budget);
	c->quota = quota;
	c->fd = fd; /* consumes fd */
	return 0;
}

/* The close would else release what was pushed and not yet read; a descriptor
 * with SO_LINGER then blocks us. Shut down, the queue can't grow meanwhile. */
static void drain(int fd)
{
	char data[DRAIN_BYTES];
	int fds[FD_PASS_MAX];
	size_t n;
	ssize_t r;

	(void)shutdown(fd, SHUT_RDWR);
	do {
		r = fd_recv(fd, data, sizeof(data), fds, &n);
		if (n > 0)
			fd_discard(fds, n);
	} while (r > 0);
}

void conn_deinit(struct conn *c)
{
	frame_queue_deinit(&c->out);
	lines_deinit(&c->lines);
	if (c->fd_count > 0)
		fd_discard(c->fds, c->fd_count);
	if (c->fd >= 0) {
		drain(c->fd);
		(void)close(c->fd);
	}
	*c = (struct conn)CONN_NULL;
}

/* ---- reading ---- */

static int keep_fds(struct conn *c, const int *fds, size_t n)
{
	size_t room = CONN_FDS_MAX - c->fd_count;
	size_t kept = !c->expect_fds ? 0 : n < room ? n : room;

	memcpy(c->fds + c->fd_count, fds, kept * sizeof(*fds));
	c->fd_count += kept;
	if (kept == n)
		return 0;
	fd_discard(fds + kept, n - kept);
	c->fds_discarded += n - kept;
	return c->expect_fds ? -ENOBUFS : 0;
}

static int take_control(struct conn *c, struct msghdr *msg)
{
	struct cmsghdr *h;
	struct ucred cred;
	int fds[FD_PASS_MAX];
	size_t n;
	int r = 0;

	for (h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		if (h->cmsg_level != SOL_SOCKET)
			continue;
		if (h->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&cred, CMSG_DATA(h), sizeof(cred));
			c->sender = cred.pid;
		} else if (h->cmsg_type == SCM_RIGHTS) {
			n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			n = n < FD_PASS_MAX ? n : FD_PASS_MAX;
			memcpy(fds, CMSG_DATA(h), n * sizeof(int));
			if (keep_fds(c, fds, n) < 0)
				r = -ENOBUFS;
		}
	}
	/* One that is missing would give its line another's. */
	if (r == 0 && c->expect_fds && (msg->msg_flags & MSG_CTRUNC))
		r = -EPROTO;
	return r;
}

/* Bytes, 0 at EOF, or a negative errno; *broken gets what was wrong with the
 * descriptors that came along. */
static ssize_t receive(struct conn *c, char *to, size_t room, int *broken)
{
	union control control;
	struct iovec iov = {to, room};
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.space,
	                     .msg_controllen = sizeof(control.space)};
	ssize_t n;

	do
		n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*broken = take_control(c, &msg);
	return n;
}

int conn_read(struct conn *c)
{
	size_t total = 0, room;
	int broken = 0;
	char *to;
	ssize_t n;

	while (total < CONN_READ_MAX) {
		to = lines_reserve(&c->lines, &room);
		if (!to)
			return lines_full(&c->lines) ? 1 : -ENOBUFS;
		if (room > CONN_READ_MAX - total)
			room = CONN_READ_MAX - total;
		n = receive(c, to, room, &broken);
		if (n == -EAGAIN)
			break;
		/* A peer that closed without reading all that we had sent. */
		if (n == 0 || n == -ECONNRESET) {
			c->eof = true;
			return 1;
		}
		if (n < 0)
			return (int)n;
		lines_commit(&c->lines, (size_t)n);
		if (broken < 0)
			return broken;
		total += (size_t)n;
		/* Nothing more was there: saves the call that says so. */
		if ((size_t)n < room)
			break;
	}
	return total > 0;
}

enum lines_result conn_next(struct conn *c, struct span *line)
{
	return lines_next(&c->lines, line);
}

int conn_expect_fds(struct conn *c)
{
	c->expect_fds = true;
	return creds_allow_fds(c->fd, true);
}

int conn_take_fd(struct conn *c)
{
	int fd;

	if (c->fd_count == 0)
		return -1;
	fd = c->fds[0];
	c->fd_count--;
	memmove(c->fds, c->fds + 1, c->fd_count * sizeof(*c->fds));
	return fd;
}

/* ---- writing ---- */

int conn_send(struct conn *c, struct frame *f)
{
	int r;

	if (f->len == 0)
		return f->fd < 0 ? 0 : -EINVAL;
	if (c->out.count >= CONN_FRAMES_MAX)
		return -ENOBUFS;
	if (c->out.count > 0 &&
	    (c->out.bytes > c->quota || f->len > c->quota - c->out.bytes))
		return -ENOBUFS;
	r = frame_queue_push(&c->out, f);
	if (r < 0)
		return r;
	(void)frame_ref(f);
	return 0;
}

int conn_send_bytes(struct conn *c, const void *data, size_t len)
{
	struct frame *f = frame_new(data, len, -1);
	int r;

	if (!f)
		return -ENOMEM;
	r = conn_send(c, f);
	(void)frame_unref(f);
	return r;
}

int conn_flush(struct conn *c)
{
	return frame_queue_flush(&c->out, c->fd);
}
