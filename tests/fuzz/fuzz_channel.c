/*
 * fuzz_channel.c - the session channel fed with any bytes in any pieces, with
 * or without descriptors: frames that come out are the bytes that went in, in
 * order, and what is broken stays broken.
 *
 * The input: a byte for the end and whether descriptors come, a byte for the
 * cuts, the stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

/* Bytes of the stream that no frame has accounted for. */
struct rest {
	const uint8_t *p, *end;
};

/* The frame is what stands at the front of the stream. */
static void account(struct rest *rest, const struct channel_frame *f)
{
	const uint8_t *p = rest->p;
	uint64_t line = 0, len = 0;

	REQUIRE((size_t)(rest->end - p) >= CHANNEL_HEADER_LEN + f->payload.n);
	for (int i = 7; i >= 0; i--)
		line = line << 8 | p[8 + i];
	for (int i = 3; i >= 0; i--)
		len = len << 8 | p[i];
	REQUIRE(len == f->payload.n && f->line == line);
	REQUIRE((enum channel_type)p[4] == f->type && p[5] == 0);
	REQUIRE(p[6] == (f->fd >= 0) && p[7] == 0);
	REQUIRE(len == 0 ||
	        memcmp(p + CHANNEL_HEADER_LEN, f->payload.p, len) == 0);
	rest->p += CHANNEL_HEADER_LEN + len;
}

/* 0, or -1 once the framing is broken. */
static int take(struct channel *c, struct rest *rest)
{
	struct error err = ERROR_NULL;
	struct channel_frame f;
	int r;

	while ((r = channel_next(c, &f, &err)) == 1) {
		account(rest, &f);
		REQUIRE(*channel_type_name(f.type) != '\0');
		if (f.fd >= 0)
			REQUIRE(close(f.fd) == 0);
	}
	if (r < 0) {
		REQUIRE(err.code == ERR_PROTOCOL);
		REQUIRE(channel_next(c, &f, NULL) == -1);
	}
	return r;
}

/* Length of the next piece: a whole frame if the bytes are one, anything, or
 * all. */
static size_t cut(const uint8_t *p, size_t n, unsigned cuts)
{
	size_t piece = n;

	if (cuts & 1)
		piece = 1 + cuts % 97;
	else if (cuts & 8 && n >= CHANNEL_HEADER_LEN)
		piece = CHANNEL_HEADER_LEN + p[0] + ((size_t)p[1] << 8);
	return piece < n ? piece : n;
}

/* One that nobody announces has to be thrown away, which takes a process: that
 * is left to chance. */
static bool announces_fd(const uint8_t *p, size_t n)
{
	return n >= CHANNEL_HEADER_LEN && p[6] == 1;
}

static void feed(struct channel *c, int sock, const uint8_t *data, size_t size,
                 unsigned cuts, int fd)
{
	struct rest rest = {data, data + size};
	ssize_t sent;
	size_t n;

	for (size_t at = 0; at < size; at += (size_t)sent) {
		n = cut(data + at, size - at, cuts);
		cuts = cuts * 13 + 7;
		sent = fd_send(sock, data + at, n,
		               announces_fd(data + at, n) ? fd : -1);
		/* A kernel where the keeper's end refuses them. */
		if (sent == -EPERM)
			return;
		REQUIRE(sent > 0);
		if (channel_read(c) < 0)
			return;
		if (cuts & 2 && take(c, &rest) < 0)
			return;
	}
	REQUIRE(shutdown(sock, SHUT_WR) == 0);
	while (!c->eof) {
		if (channel_read(c) < 0)
			return;
		if (take(c, &rest) < 0)
			return;
	}
	if (take(c, &rest) == 0)
		REQUIRE(rest.end - rest.p <
		        CHANNEL_HEADER_LEN + CHANNEL_PAYLOAD_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int null = -1;
	struct channel c;
	int sv[2];

	if (size < 2 || size > 60000)
		return 0;
	if (null < 0)
		null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	REQUIRE(fd_socketpair(sv, 1) == 0);
	REQUIRE(channel_init(&c, sv[1], data[0] & 1) == 0);
	feed(&c, sv[0], data + 2, size - 2, data[1], data[0] & 2 ? null : -1);
	REQUIRE(close(sv[0]) == 0);
	channel_deinit(&c);
	return 0;
}
