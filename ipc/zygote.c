/*
 * zygote.c - see zygote.h. Little-endian throughout:
 *
 *   0  4  "zyg" and the version
 *   4  2  type
 *   6  2  zero
 *   8  8  generation
 *  16  4  pid
 *  20  4  value
 *
 * A fork request goes on with ZYGOTE_NUMBERS numbers of 4 bytes and
 * ZYGOTE_STRINGS strings: 2 bytes length, the bytes, a NUL.
 */
#include "ipc/zygote.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/macros.h"

#define FLAG_TENANT 1u
#define FLAG_JOB    2u
#define FLAGS_ALL   (FLAG_TENANT | FLAG_JOB)

static const char magic[4] = {'z', 'y', 'g', ZYGOTE_VERSION};

/* What each type has. */
static const struct {
	const char *name;
	bool has_pid;
	int value_min, value_max;
} types[] = {
	[ZYGOTE_NONE] = {"none", false, 0, 0},
	[ZYGOTE_FORK] = {"fork", false, 0, 0},
	[ZYGOTE_KILL] = {"kill", false, 1, ZYGOTE_SIGNAL_MAX},
	[ZYGOTE_FORKED] = {"forked", true, 0, 0},
	[ZYGOTE_FAILED] = {"failed", false, 1, ZYGOTE_ERRNO_MAX},
	[ZYGOTE_EXITED] = {"exited", true, 0, UINT16_MAX},
};
STATIC_ASSERT_ARRAY_SIZE(types, ZYGOTE_TYPE_COUNT);

const char *zygote_type_name(enum zygote_type type)
{
	return (unsigned)type < ZYGOTE_TYPE_COUNT ? types[type].name : "?";
}

/* Within the ranges of its type? */
static bool fits(const struct zygote_message *m)
{
	return m->type > ZYGOTE_NONE && m->type < ZYGOTE_TYPE_COUNT &&
	       m->generation != 0 && m->pid >= 0 &&
	       (m->pid > 0) == types[m->type].has_pid &&
	       m->value >= types[m->type].value_min &&
	       m->value <= types[m->type].value_max;
}

/* --- bytes ---------------------------------------------------------------- */

static char *put(char *p, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		*p++ = (char)(v >> 8 * i & 0xff);
	return p;
}

static uint64_t get(const char *p, int bytes)
{
	uint64_t v = 0;

	for (int i = bytes - 1; i >= 0; i--)
		v = v << 8 | (unsigned char)p[i];
	return v;
}

/* What is left of a packet. */
struct rest {
	const char *p, *end;
};

static bool take(struct rest *r, int bytes, uint64_t *vp)
{
	if (r->end - r->p < bytes)
		return false;
	*vp = get(r->p, bytes);
	r->p += bytes;
	return true;
}

static bool take_number(struct rest *r, uint32_t *vp)
{
	uint64_t v;

	if (!take(r, 4, &v))
		return false;
	*vp = (uint32_t)v;
	return true;
}

static bool take_string(struct rest *r, const char **sp)
{
	uint64_t n;

	if (!take(r, 2, &n) || n > ZYGOTE_STRING_MAX ||
	    (uint64_t)(r->end - r->p) < n + 1 || r->p[n] != '\0' ||
	    memchr(r->p, '\0', n))
		return false;
	*sp = r->p;
	r->p += n + 1;
	return true;
}

/* --- the tail of a fork request ------------------------------------------- */

static ssize_t put_told(char *out, const struct zygote_told *t)
{
	const uint32_t numbers[ZYGOTE_NUMBERS] = {
		t->connect_timeout_ms,
		t->request_timeout_ms,
		t->poll_interval_ms,
		t->sessions,
		(uint32_t)t->log_level,
		(uint32_t)t->log_sink,
		(uint32_t)t->log_format,
		(t->tenant ? FLAG_TENANT : 0) | (t->job ? FLAG_JOB : 0),
		/* Where every fork request has it, so that none stays behind in
	         * a buffer of the zygote for somebody else's worker. */
		t->record_key[0],
		t->record_key[1],
		t->record_key[2],
		t->record_key[3],
	};
	const char *const strings[ZYGOTE_STRINGS] = {
		t->comfyui, t->address, t->client_id, t->ca_file, t->proxy};
	char *p = out;
	size_t n;

	if ((unsigned)t->log_level >= LOG_LEVEL_COUNT ||
	    (unsigned)t->log_sink > LOG_TO_JOURNAL ||
	    (unsigned)t->log_format >= LOG_FORMAT_COUNT)
		return -EINVAL;
	for (int i = 0; i < ZYGOTE_NUMBERS; i++)
		p = put(p, numbers[i], 4);
	for (int i = 0; i < ZYGOTE_STRINGS; i++) {
		n = strlen(strings[i]);
		if (n > ZYGOTE_STRING_MAX)
			return -EMSGSIZE;
		p = put(p, n, 2);
		memcpy(p, strings[i], n + 1);
		p += n + 1;
	}
	return p - out;
}

static bool take_told(struct rest *r, struct zygote_told *t)
{
	uint32_t level, sink, format, flags;

	if (!take_number(r, &t->connect_timeout_ms) ||
	    !take_number(r, &t->request_timeout_ms) ||
	    !take_number(r, &t->poll_interval_ms) ||
	    !take_number(r, &t->sessions) || !take_number(r, &level) ||
	    !take_number(r, &sink) || !take_number(r, &format) ||
	    !take_number(r, &flags))
		return false;
	for (int i = 0; i < ZYGOTE_KEY_WORDS; i++) {
		if (!take_number(r, &t->record_key[i]))
			return false;
	}
	if (!take_string(r, &t->comfyui) || !take_string(r, &t->address) ||
	    !take_string(r, &t->client_id) || !take_string(r, &t->ca_file) ||
	    !take_string(r, &t->proxy))
		return false;
	t->log_level = (enum log_level)level;
	t->log_sink = (enum log_sink)sink;
	t->log_format = (enum log_format)format;
	t->tenant = (flags & FLAG_TENANT) != 0;
	t->job = (flags & FLAG_JOB) != 0;
	return level < LOG_LEVEL_COUNT && sink <= LOG_TO_JOURNAL &&
	       format < LOG_FORMAT_COUNT && (flags & ~FLAGS_ALL) == 0;
}

/* --- messages ------------------------------------------------------------- */

ssize_t zygote_encode(const struct zygote_message *m,
                      char out[ZYGOTE_MESSAGE_MAX])
{
	char *p = out;
	ssize_t tail = 0;

	if (!fits(m))
		return -EINVAL;
	memcpy(p, magic, sizeof(magic));
	p = put(p + sizeof(magic), m->type, 2);
	p = put(p, 0, 2);
	p = put(p, m->generation, 8);
	p = put(p, (uint32_t)m->pid, 4);
	p = put(p, (uint32_t)m->value, 4);
	if (m->type == ZYGOTE_FORK)
		tail = put_told(p, &m->told);
	return tail < 0 ? tail : ZYGOTE_HEADER_LEN + tail;
}

int zygote_decode(struct zygote_message *m, const char *packet, size_t len)
{
	struct rest r = {packet + ZYGOTE_HEADER_LEN, packet + len};

	*m = (struct zygote_message){0};
	if (len < ZYGOTE_HEADER_LEN ||
	    memcmp(packet, magic, sizeof(magic)) != 0 ||
	    get(packet + 4, 2) >= ZYGOTE_TYPE_COUNT || get(packet + 6, 2) != 0)
		return -EPROTO;
	m->type = (enum zygote_type)get(packet + 4, 2);
	m->generation = get(packet + 8, 8);
	m->pid = (pid_t)get(packet + 16, 4);
	m->value = (int)get(packet + 20, 4);
	if (!fits(m) || (m->type == ZYGOTE_FORK && !take_told(&r, &m->told)) ||
	    r.p != r.end)
		return -EPROTO;
	return 0;
}

/* --- the socket ----------------------------------------------------------- */

union control {
	char space[CMSG_SPACE(ZYGOTE_FD_COUNT * sizeof(int))];
	struct cmsghdr align;
};

int zygote_send(int sock, const char *packet, size_t len,
                const int fds[ZYGOTE_FD_COUNT])
{
	struct iovec iov = {(void *)(uintptr_t)packet, len};
	union control control = {{0}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (fds) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(ZYGOTE_FD_COUNT * sizeof(int));
		memcpy(CMSG_DATA(c), fds, ZYGOTE_FD_COUNT * sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Closes what should not have come. False if that was so. */
static bool take_fds(struct msghdr *msg, int fds[ZYGOTE_FD_COUNT])
{
	int got[ZYGOTE_FD_COUNT];
	bool all = true;
	size_t n;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c;
	     c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		n = n < ZYGOTE_FD_COUNT ? n : ZYGOTE_FD_COUNT;
		memcpy(got, CMSG_DATA(c), n * sizeof(int));
		if (n == ZYGOTE_FD_COUNT && fds[0] < 0) {
			memcpy(fds, got, sizeof(got));
			continue;
		}
		for (size_t i = 0; i < n; i++)
			(void)close(got[i]);
		all = false;
	}
	return all;
}

static void drop_fds(int fds[ZYGOTE_FD_COUNT])
{
	for (int i = 0; i < ZYGOTE_FD_COUNT; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
		fds[i] = -1;
	}
}

int zygote_recv(int sock, char packet[ZYGOTE_MESSAGE_MAX],
                struct zygote_message *m, int fds[ZYGOTE_FD_COUNT])
{
	struct iovec iov = {packet, ZYGOTE_MESSAGE_MAX};
	union control control;
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.space,
	                     .msg_controllen = sizeof(control.space)};
	ssize_t n;
	bool ok;

	fds[ZYGOTE_FD_SESSION] = fds[ZYGOTE_FD_BUS] = -1;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ok = take_fds(&msg, fds) && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
	if (n == 0 && fds[0] < 0)
		return 0;
	if (ok && zygote_decode(m, packet, (size_t)n) == 0 &&
	    (m->type == ZYGOTE_FORK) == (fds[0] >= 0))
		return 1;
	drop_fds(fds);
	return -EPROTO;
}
