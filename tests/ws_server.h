/*
 * ws_server.h - a WebSocket server inside the test, on the loop under test: as
 * much of RFC 6455 as a client can be tried with, and as much misbehaviour.
 *
 * It counts the connections that are open at the same moment, after looking
 * whether those from before have ended.
 */
#ifndef TESTS_WS_SERVER_H
#define TESTS_WS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

struct ev_loop;
struct ws_server;

#define WS_TEXT   0x81 /* first byte of a whole frame */
#define WS_BINARY 0x82
#define WS_CLOSE  0x88
#define WS_PING   0x89
#define WS_PONG   0x8a
#define WS_FIN    0x80

enum ws_answer {
	WS_UPGRADE, /* the handshake as it should be */
	WS_RAW,     /* `raw`, and the connection stays open */
	WS_RAW_END, /* `raw`, and the end */
	WS_SILENCE, /* nothing */
	WS_BAD_KEY, /* a handshake with a wrong key */
};

/* What the test sets. */
struct ws_script {
	enum ws_answer answer;
	const char *raw;
	bool no_pong;  /* pings are not answered */
	bool no_close; /* close frames neither */
	/* Frames in the same segment as the handshake. */
	struct buf first;
	/* After a ping was answered, or would have been. */
	void (*on_ping)(void);
};

/* What the test looks at. */
struct ws_seen {
	unsigned connections, open, most_open;
	unsigned requests;
	char head[8192];  /* of the last request */
	char tunnel[512]; /* the first line of a CONNECT */
	unsigned texts, pings, pongs, closes, resets;
	char text[512]; /* of the last text frame */
	char pong[128]; /* of the last pong */
	int close_code; /* of the last close frame; 0: it had none */
	bool unmasked;  /* a frame came without a mask */
};

/* On 127.0.0.1, or ::1; NULL if there is no IPv6. */
struct ws_server *ws_server_new(struct ev_loop *loop, bool ipv6);
struct ws_server *ws_server_free(struct ws_server *s);

unsigned ws_server_port(const struct ws_server *s);
struct ws_script *ws_script(struct ws_server *s);
const struct ws_seen *ws_seen(const struct ws_server *s);

/* To the newest connection. */
void ws_server_write(struct ws_server *s, const void *data, size_t len);
void ws_server_send(struct ws_server *s, int first_byte, const void *data,
                    size_t len);
/* Ends it, by a TCP reset if asked. */
void ws_server_drop(struct ws_server *s, bool reset);
/* Accepts no more. */
void ws_server_close_port(struct ws_server *s);

/* A frame as a server sends it; `declared` is the length in its header. */
void ws_frame(struct buf *out, int first_byte, const void *data, size_t len,
              size_t declared);

#endif
