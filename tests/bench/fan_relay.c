/*
 * fan_relay.c - the baseline: a bare relay. One WebSocket to comfysim, one
 * read, one write for each reader concerned, on socketpairs; nothing is parsed
 * but the frames' headers.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/fan.h"

struct relay {
	struct fan fan;
	size_t turn; /* of the reader that gets the next frame */
	int ws;
	int broadcast;
	size_t len;
	unsigned char *buf;
};

static int connect_ws(const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
	                         .sin_port =
	                                 htons((uint16_t)strtol(port, 0, 10)),
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;
	char text[512];
	size_t n = 0;

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fan_die("connect to comfysim");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	n = (size_t)snprintf(text, sizeof(text),
	                     "GET /ws?clientId=relay HTTP/1.1\r\n"
	                     "Host: 127.0.0.1:%s\r\nUpgrade: websocket\r\n"
	                     "Connection: Upgrade\r\n"
	                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	                     "Sec-WebSocket-Version: 13\r\n\r\n",
	                     port);
	fan_write(fd, text, n);
	/* Byte by byte, so that no frame is taken along. */
	for (n = 0; n < 4 || memcmp(text + n - 4, "\r\n\r\n", 4) != 0; n++) {
		if (n == sizeof(text) || read(fd, text + n, 1) != 1)
			fan_die("comfysim's handshake");
	}
	return fd;
}

static void pass_on(struct relay *r, unsigned char *data, size_t len)
{
	if (r->broadcast) {
		for (size_t i = 0; i < r->fan.count; i++)
			fan_write(r->fan.readers[i].fd, data, len);
		return;
	}
	fan_write(r->fan.readers[r->turn].fd, data, len);
	r->turn = (r->turn + 1) % r->fan.count;
}

/* The bytes of the first frame in the buffer, 0: not all there. */
static size_t frame_at(const unsigned char *p, size_t len, size_t *headp)
{
	size_t head = 2, n;

	if (len < 2)
		return 0;
	n = p[1] & 127u;
	if (n == 126)
		head = 4;
	else if (n == 127)
		head = 10;
	if (len < head)
		return 0;
	if (n >= 126) {
		n = 0;
		for (size_t i = 2; i < head; i++)
			n = n << 8 | p[i];
	}
	*headp = head;
	return len >= head + n ? head + n : 0;
}

static void relay_turn(struct relay *r)
{
	unsigned char *p = r->buf;
	ssize_t n = read(r->ws, r->buf + r->len, FAN_READ_BYTES - r->len);
	size_t size, head;

	if (n <= 0)
		fan_die("comfysim has gone");
	r->len += (size_t)n;
	while ((size = frame_at(p, r->len, &head))) {
		unsigned char after = p[size];

		/* Only stamped frames are passed on, with a newline. */
		if (memmem(p + head, size - head, "t_ns", 4)) {
			p[size] = '\n';
			pass_on(r, p + head, size - head + 1);
			p[size] = after;
		}
		p += size;
		r->len -= size;
	}
	memmove(r->buf, p, r->len);
}

static _Noreturn void body(struct fan_reader *r, size_t i, void *arg)
{
	int *ends = arg;

	(void)close(ends[0]);
	atomic_store(&r->ready, 1);
	fan_read_all(r, ends[1], "\"t_ns\"");
}

int fan_relay(int argc, char **argv)
{
	struct relay r = {.ws = -1};
	fd_set set;

	if (argc != 3)
		fan_die("relay takes PORT N targeted|broadcast");
	fan_init(&r.fan, (size_t)strtoul(argv[1], 0, 10));
	r.broadcast = strcmp(argv[2], "broadcast") == 0;
	r.fan.spread = r.broadcast;
	r.buf = malloc(FAN_READ_BYTES + 1);
	if (!r.buf)
		fan_die("memory");
	for (size_t i = 0; i < r.fan.count; i++) {
		int ends[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
			fan_die("socketpair");
		fan_start(&r.fan, i, body, ends);
		(void)close(ends[1]);
		r.fan.readers[i].fd = ends[0];
	}
	r.ws = connect_ws(argv[0]);
	fan_wait_ready(&r.fan);
	for (;;) {
		FD_ZERO(&set);
		FD_SET(STDIN_FILENO, &set);
		FD_SET(r.ws, &set);
		if (r.ws >= FD_SETSIZE)
			fan_die("descriptor %d is too high for select", r.ws);
		if (select(r.ws + 1, &set, NULL, NULL, NULL) < 0)
			fan_die("select");
		if (FD_ISSET(r.ws, &set))
			relay_turn(&r);
		else if (FD_ISSET(STDIN_FILENO, &set))
			break;
	}
	fan_finish(&r.fan);
	free(r.buf);
	return 0;
}
