/*
 * script_server.h - an HTTP server inside the test, on the loop under test,
 * that answers as the test says: whole replies, halves, none.
 *
 * It listens on a free port of 127.0.0.1, reads requests with Content-Length,
 * and hands each to the test's handler, which writes raw bytes.
 */
#ifndef TESTS_SCRIPT_SERVER_H
#define TESTS_SCRIPT_SERVER_H

#include <stddef.h>

#include "common/macros.h"
#include "common/span.h"

struct ev_loop;
struct script_server;
struct script_conn;

struct script_request {
	unsigned connection; /* number of its connection, from 1 */
	unsigned number;     /* of the request, from 1 */
	char method[16];
	char path[2048];  /* with its query */
	struct span head; /* request line and headers */
	struct span body;
};

typedef void script_handler(void *user, struct script_conn *conn,
                            const struct script_request *req);

struct script_server *script_server_new(struct ev_loop *loop,
                                        script_handler *handler, void *user);
struct script_server *script_server_free(struct script_server *s);

/* "http://127.0.0.1:PORT" */
const char *script_server_url(const struct script_server *s);
unsigned script_server_port(const struct script_server *s);
/* How many there were. */
unsigned script_server_connections(const struct script_server *s);
unsigned script_server_requests(const struct script_server *s);
/* Connections open now. */
unsigned script_server_open(const struct script_server *s);

/* Value of a header (NUL-terminated, static buffer), "" if there is none. */
const char *script_header(const struct script_request *req, const char *name);

/* Raw bytes. */
void script_write(struct script_conn *c, const void *data, size_t len);
void script_puts(struct script_conn *c, const char *text);
/* A whole reply with Content-Length. */
void script_reply(struct script_conn *c, int status, const char *content_type,
                  const void *body, size_t len);
/* Ends the connection when all is written; by a TCP reset if `reset`. */
void script_close(struct script_conn *c, int reset);
/* Ends all connections that are open. */
void script_close_all(struct script_server *s);

#endif
