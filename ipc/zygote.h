/*
 * zygote.h - the wire between the supervisor and its zygote: one
 * SOCK_SEQPACKET socketpair, one message a packet.
 *
 * Every message is a header of ZYGOTE_HEADER_LEN bytes; only a fork request
 * has a tail, and the two descriptors of its worker. A program that was
 * replaced below a running supervisor may be of another release: a header of
 * another version is refused, never guessed at, and the zygote leaves.
 */
#ifndef IPC_ZYGOTE_H
#define IPC_ZYGOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/log.h"

#define ZYGOTE_VERSION    2
#define ZYGOTE_HEADER_LEN 24
#define ZYGOTE_STRING_MAX 4096 /* bytes of a string in a fork request */
#define ZYGOTE_STRINGS    5
#define ZYGOTE_NUMBERS    12
#define ZYGOTE_KEY_WORDS  4 /* 128 bits */
#define ZYGOTE_SIGNAL_MAX 64
#define ZYGOTE_ERRNO_MAX  4095 /* the kernel's own bound */
#define ZYGOTE_MESSAGE_MAX                                                     \
	(ZYGOTE_HEADER_LEN + ZYGOTE_NUMBERS * 4 +                              \
	 ZYGOTE_STRINGS * (2 + ZYGOTE_STRING_MAX + 1))

enum zygote_type {
	ZYGOTE_NONE, /* 0 is no message */
	/* to the zygote */
	ZYGOTE_FORK, /* with two descriptors: session, bus */
	ZYGOTE_KILL, /* value: the signal. A generation that is gone is no
	                error: its end is on its way. */
	/* to the supervisor */
	ZYGOTE_FORKED, /* pid */
	ZYGOTE_FAILED, /* value: the errno; there is no such worker */
	ZYGOTE_EXITED, /* pid, value: what wait() said; the last word about
	                  this generation */
	ZYGOTE_TYPE_COUNT
};

/* Which of a fork request's descriptors is which. */
enum { ZYGOTE_FD_SESSION, ZYGOTE_FD_BUS, ZYGOTE_FD_COUNT };

/* What a worker must know and its keeper, who may be anybody, must not choose.
 * Strings are never NULL; "" where there is none. */
struct zygote_told {
	const char *comfyui;   /* URL */
	const char *address;   /* numeric, of the URL's host; "": unknown */
	const char *client_id; /* to submit with when alone */
	const char *ca_file, *proxy;
	uint32_t connect_timeout_ms, request_timeout_ms, poll_interval_ms;
	uint32_t sessions; /* there are now; for the polling rate */
	enum log_level log_level;
	/* stderr is what it inherits; a file is not handed on. */
	enum log_sink log_sink;
	enum log_format log_format;
	bool tenant; /* the supervisor serves several users */
	/* The worker of a detached job: its session channel has no other end
	 * and is to be closed. */
	bool job;
	/* Of the session's user: what the worker leaves with its keeper, who
	 * may be anybody, is signed with it. Nobody else may learn it. */
	uint32_t record_key[ZYGOTE_KEY_WORDS];
};

struct zygote_message {
	enum zygote_type type;
	uint64_t generation;     /* never 0 */
	pid_t pid;               /* ZYGOTE_FORKED, ZYGOTE_EXITED; else 0 */
	int value;               /* ZYGOTE_KILL, _FAILED, _EXITED; else 0 */
	struct zygote_told told; /* ZYGOTE_FORK */
};

/* Encodes into `out`: the length, or -EMSGSIZE if a string is too long,
 * -EINVAL if a value is out of its range. */
ssize_t zygote_encode(const struct zygote_message *m,
                      char out[ZYGOTE_MESSAGE_MAX]);
/* Decodes a whole packet; strings point into it. 0, or -EPROTO for whatever
 * zygote_encode() would not have made. */
int zygote_decode(struct zygote_message *m, const char *packet, size_t len);

/* One packet out. Blocks as the socket does. The descriptors stay the
 * caller's; NULL: none. 0 or a negative errno. */
int zygote_send(int sock, const char *packet, size_t len,
                const int fds[ZYGOTE_FD_COUNT]);
/* One packet in. 1: a message, with both descriptors in `fds` if it is a fork
 * request, else -1 in each; 0: the other end is gone; or a negative errno:
 * -EAGAIN if there is none, -EPROTO for what is no message. */
int zygote_recv(int sock, char packet[ZYGOTE_MESSAGE_MAX],
                struct zygote_message *m, int fds[ZYGOTE_FD_COUNT]);

const char *zygote_type_name(enum zygote_type type);

#endif
