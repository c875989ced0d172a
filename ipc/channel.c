/*
 * channel.c - see channel.h.
 *
 * Descriptors and frames are paired in order. A descriptor arrives together
 * with the first byte of its frame, so when all frames read are taken none may
 * be left over: that is how one that nobody announced shows.
 */
#include "ipc/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/log.h"
#include "common/macros.h"
#include "ipc/creds.h"

#define READ_MIN   4096 /* first read of a channel_read(), then doubled */
#define KEEP_BYTES (16u << 10) /* of the buffer, while little is in it */

enum direction {
	TO_WORKER = 1,
	TO_KEEPER = 2,
	BOTH = TO_WORKER | TO_KEEPER,
};

static const struct {
	const char *name;
	enum direction direction;
} types[CHANNEL_TYPE_COUNT] = {
#define FRAME(e, name_, dir, doc)                                              \
	[CHANNEL_##e] = {.name = name_, .direction = dir},
#include "ipc/messages.def"
};

/* The two that carry descriptors. */
static bool carries_fd(enum channel_type t)
{
	return t == CHANNEL_FILE || t == CHANNEL_BUS;
}

const char *channel_type_name(enum channel_type t)
{
	return t > CHANNEL_NONE && t < CHANNEL_TYPE_COUNT ? types[t].name
	                                                  : "none";
}

int channel_init(struct channel *c, int fd, bool is_worker)
{
	int r;

	*c = (struct channel)CHANNEL_NULL;
	r = fd_set_nonblock(fd);
	if (r == 0)
		r = fd_set_cloexec(fd);
	if (r == 0)
		r = creds_allow_fds(fd, is_worker);
	if (r < 0)
		return r;
	c->is_worker = is_worker;
	buf_init(&c->in,
	         CHANNEL_HEADER_LEN + CHANNEL_PAYLOAD_MAX + CHANNEL_READ_MAX);
	c->fd = fd; /* consumes fd */
	return 0;
}

void channel_deinit(struct channel *c)
{
	frame_queue_deinit(&c->out);
	if (c->fd_count > 0)
		fd_discard(c->fds, c->fd_count);
	buf_deinit(&c->in);
	if (c->fd >= 0)
		(void)close(c->fd);
	*c = (struct channel)CHANNEL_NULL;
}

/* ---- headers ---- */

struct header {
	uint32_t len;
	uint16_t type, flags;
	uint64_t line;
};

static void put_le(unsigned char *p, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_le(const char *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = n; i > 0; i--)
		v = v << 8 | (unsigned char)p[i - 1];
	return v;
}

static void header_encode(const struct header *h,
                          unsigned char p[CHANNEL_HEADER_LEN])
{
	put_le(p, h->len, 4);
	put_le(p + 4, h->type, 2);
	put_le(p + 6, h->flags, 2);
	put_le(p + 8, h->line, 8);
}

static struct header header_decode(const char p[CHANNEL_HEADER_LEN])
{
	return (struct header){
		.len = (uint32_t)get_le(p, 4),
		.type = (uint16_t)get_le(p + 4, 2),
		.flags = (uint16_t)get_le(p + 6, 2),
		.line = get_le(p + 8, 8),
	};
}

/* ---- writing ---- */

static int check_send(const struct channel *c, enum channel_type type,
                      struct span payload, int fd)
{
	enum direction out = c->is_worker ? TO_KEEPER : TO_WORKER;

	if (type <= CHANNEL_NONE || type >= CHANNEL_TYPE_COUNT ||
	    !(types[type].direction & out))
		return -EINVAL;
	if (fd >= 0 && (c->is_worker || !carries_fd(type)))
		return -EINVAL;
	if (payload.n > CHANNEL_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (c->out.bytes + CHANNEL_HEADER_LEN + payload.n > CHANNEL_QUOTA)
		return -ENOBUFS;
	return 0;
}

int channel_send(struct channel *c, enum channel_type type, uint64_t line,
                 struct span payload, int fd)
{
	struct header h = {.len = (uint32_t)payload.n,
	                   .type = (uint16_t)type,
	                   .flags = fd >= 0 ? CHANNEL_FLAG_FD : 0,
	                   .line = line};
	unsigned char head[CHANNEL_HEADER_LEN];
	struct frame *f;
	int copy = -1, r;

	r = check_send(c, type, payload, fd);
	if (r < 0)
		return r;
	if (fd >= 0) {
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (copy < 0)
			return -errno;
	}
	header_encode(&h, head);
	f = frame_new_pair(head, sizeof(head), payload.p, payload.n, copy);
	if (!f) {
		if (copy >= 0)
			(void)close(copy);
		return -ENOMEM;
	}
	r = frame_queue_push(&c->out, f);
	if (r < 0)
		(void)frame_unref(f);
	return r;
}

int channel_flush(struct channel *c)
{
	return frame_queue_flush(&c->out, c->fd);
}

/* ---- reading ---- */

static size_t unread(const struct channel *c)
{
	return c->in.len - c->in_start;
}

/* Gives back what a large frame needed; idle workers are many. */
static void shrink(struct channel *c)
{
	struct buf small = BUF_INIT(c->in.max);

	if (unread(c) > 0 &&
	    buf_append(&small, c->in.data + c->in_start, unread(c)) < 0) {
		/* Keeping the larger buffer is all that this means. */
		buf_deinit(&small);
		return;
	}
	buf_deinit(&c->in);
	c->in = small;
	c->in_start = 0;
}

/* Forgets what was taken; moves the rest only when that is cheap or needed. */
static void tidy(struct channel *c)
{
	if (unread(c) == 0 ||
	    (c->in.cap > KEEP_BYTES && unread(c) < KEEP_BYTES / 2)) {
		shrink(c);
	} else if (c->in_start >= unread(c) || c->in.len == c->in.max) {
		buf_consume(&c->in, c->in_start);
		c->in_start = 0;
	}
}

static int keep_fds(struct channel *c, const int *fds, size_t n)
{
	size_t room = CHANNEL_FDS_MAX - c->fd_count;
	size_t kept = !c->is_worker ? 0 : n < room ? n : room;

	memcpy(c->fds + c->fd_count, fds, kept * sizeof(*fds));
	c->fd_count += kept;
	if (kept == n)
		return 0;
	fd_discard(fds + kept, n - kept);
	return c->is_worker ? -ENOBUFS : -EPROTO;
}

/* One recvmsg; bytes, 0 at EOF, or a negative errno. */
static ssize_t receive(struct channel *c, size_t room, int *broken)
{
	int fds[FD_PASS_MAX];
	char *to = buf_reserve(&c->in, room);
	size_t n = 0;
	ssize_t r;

	if (!to)
		return -ENOMEM;
	r = fd_recv(c->fd, to, room, fds, &n);
	if (r > 0)
		buf_commit(&c->in, (size_t)r);
	if (n > 0)
		*broken = keep_fds(c, fds, n);
	return r;
}

int channel_read(struct channel *c)
{
	size_t total = 0, chunk = READ_MIN, room;
	int broken = 0;
	ssize_t n;

	tidy(c);
	while (total < CHANNEL_READ_MAX) {
		room = c->in.max - c->in.len;
		/* Full: more than the largest frame, so one is whole. */
		if (room == 0)
			return 1;
		if (room > CHANNEL_READ_MAX - total)
			room = CHANNEL_READ_MAX - total;
		if (room > chunk)
			room = chunk;
		n = receive(c, room, &broken);
		if (broken < 0)
			return broken;
		if (n == -EAGAIN)
			break;
		/* A peer that died before it read all that we had sent. */
		if (n == 0 || n == -ECONNRESET) {
			c->eof = true;
			return 1;
		}
		if (n < 0)
			return (int)n;
		total += (size_t)n;
		if ((size_t)n < room)
			break;
		chunk *= 2;
	}
	return total > 0;
}

/* The other end may be of a later release. */
static bool is_later(const struct header *h)
{
	return h->type >= CHANNEL_TYPE_COUNT && h->type <= CHANNEL_TYPE_LAST;
}

static int check_header(const struct channel *c, const struct header *h,
                        struct error *err)
{
	enum direction in = c->is_worker ? TO_WORKER : TO_KEEPER;
	const char *name = channel_type_name((enum channel_type)h->type);
	bool fd_allowed = is_later(h) || carries_fd((enum channel_type)h->type);

	if (h->type == CHANNEL_NONE || h->type > CHANNEL_TYPE_LAST)
		return error_set(err, ERR_PROTOCOL,
		                 "session channel: unknown frame type %u",
		                 h->type);
	if (!is_later(h) && !(types[h->type].direction & in))
		return error_set(err, ERR_PROTOCOL,
		                 "session channel: a %s frame in the wrong "
		                 "direction",
		                 name);
	if (h->len > CHANNEL_PAYLOAD_MAX)
		return error_set(err, ERR_PROTOCOL,
		                 "session channel: a %s frame of %u bytes, the "
		                 "bound is %u",
		                 name, h->len, CHANNEL_PAYLOAD_MAX);
	if ((h->flags & ~CHANNEL_FLAG_FD) ||
	    (h->flags && (!c->is_worker || !fd_allowed)))
		return error_set(err, ERR_PROTOCOL,
		                 "session channel: a %s frame with flags 0x%x",
		                 name, h->flags);
	if (h->flags && c->fd_count == 0)
		return error_set(err, ERR_PROTOCOL,
		                 "session channel: a %s frame without the "
		                 "descriptor that it announces",
		                 name);
	return 0;
}

static int take_fd(struct channel *c)
{
	int fd = c->fds[0];

	c->fd_count--;
	memmove(c->fds, c->fds + 1, c->fd_count * sizeof(*c->fds));
	return fd;
}

/* 1, 0 or -1 as channel_next(); *laterp: it is to be skipped. */
static int take_frame(struct channel *c, struct channel_frame *f, bool *laterp,
                      struct error *err)
{
	struct header h;

	*f = (struct channel_frame){.fd = -1};
	if (unread(c) == 0 && c->fd_count > 0)
		return error_set(err, ERR_PROTOCOL,
		                 "session channel: a descriptor that no frame "
		                 "announced");
	if (unread(c) < CHANNEL_HEADER_LEN) {
		tidy(c);
		return 0;
	}
	h = header_decode(c->in.data + c->in_start);
	if (check_header(c, &h, err) < 0)
		return -1;
	if (unread(c) - CHANNEL_HEADER_LEN < h.len)
		return 0;
	f->type = (enum channel_type)h.type;
	f->line = h.line;
	f->payload =
		span_make(c->in.data + c->in_start + CHANNEL_HEADER_LEN, h.len);
	if (h.flags)
		f->fd = take_fd(c);
	c->in_start += CHANNEL_HEADER_LEN + h.len;
	*laterp = is_later(&h);
	return 1;
}

int channel_next(struct channel *c, struct channel_frame *f, struct error *err)
{
	bool later = false;
	int r;

	while ((r = take_frame(c, f, &later, err)) > 0 && later) {
		log_debug("channel", "a frame of unknown type %u was skipped",
		          (unsigned)f->type);
		if (f->fd >= 0)
			(void)close(f->fd);
	}
	return r;
}
