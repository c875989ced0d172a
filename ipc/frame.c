/*
 * frame.c - see frame.h.
 */
#include "ipc/frame.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fdutil.h"

#define RING_CAP_MIN 16

struct frame *frame_new_pair(const void *head, size_t head_len,
                             const void *data, size_t len, int fd)
{
	struct frame *f;

	if (head_len > SIZE_MAX - sizeof(*f) ||
	    len > SIZE_MAX - sizeof(*f) - head_len)
		return NULL;
	f = malloc(sizeof(*f) + head_len + len);
	if (!f)
		return NULL;
	f->refs = 1;
	f->fd = fd;
	f->counted = NULL;
	f->seq = 0;
	f->len = head_len + len;
	if (head_len > 0)
		memcpy(f->data, head, head_len);
	if (len > 0)
		memcpy(f->data + head_len, data, len);
	return f;
}

struct frame *frame_new(const void *data, size_t len, int fd)
{
	return frame_new_pair(NULL, 0, data, len, fd);
}

struct frame *frame_ref(struct frame *f)
{
	f->refs++;
	return f;
}

struct frame *frame_unref(struct frame *f)
{
	if (!f || --f->refs > 0)
		return NULL;
	if (f->fd >= 0)
		(void)close(f->fd);
	if (f->counted)
		--*f->counted;
	free(f);
	return NULL;
}

int frame_ring_grow(struct frame ***ringp, size_t *capp, size_t *headp,
                    size_t count)
{
	size_t cap = *capp > 0 ? *capp * 2 : RING_CAP_MIN;
	size_t before_wrap = *capp - *headp;
	const size_t slot = sizeof(struct frame *);
	struct frame **ring;

	ring = malloc(cap * slot);
	if (!ring)
		return -ENOMEM;
	if (before_wrap > count)
		before_wrap = count;
	if (count > 0) {
		memcpy(ring, *ringp + *headp, before_wrap * slot);
		memcpy(ring + before_wrap, *ringp,
		       (count - before_wrap) * slot);
	}
	free(*ringp);
	*ringp = ring;
	*capp = cap;
	*headp = 0;
	return 0;
}

/* Most often there is one, and the same to hundreds of clients: send() spares
 * the kernel the copying of a msghdr. */
static ssize_t send_one(int sock, const struct frame *f, size_t sent)
{
	ssize_t r;

	do
		r = send(sock, f->data + sent, f->len - sent,
		         MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static ssize_t send_many(int sock, struct iovec *iov, size_t n)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r;

	do
		r = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

ssize_t frame_ring_send(int sock, struct frame *const *ring, size_t cap,
                        size_t head, size_t count, size_t sent)
{
	struct iovec iov[FRAME_BATCH_MAX];
	struct frame *f = ring[head];
	size_t n = 0;

	if (f->fd >= 0 && sent == 0)
		return fd_send(sock, f->data, f->len, f->fd);
	if (count == 1)
		return send_one(sock, f, sent);
	while (n < count && n < FRAME_BATCH_MAX) {
		f = ring[(head + n) & (cap - 1)];
		if (n > 0 && f->fd >= 0)
			break;
		iov[n].iov_base = f->data + (n == 0 ? sent : 0);
		iov[n].iov_len = f->len - (n == 0 ? sent : 0);
		n++;
	}
	return send_many(sock, iov, n);
}
