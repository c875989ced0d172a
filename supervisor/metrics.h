/*
 * metrics.h - the supervisor's figures in Prometheus' text format, for the op
 * `metrics` and, where the key metrics_listen names a loopback address, for an
 * HTTP server of its own.
 *
 * Names follow Prometheus' conventions: comfymux_ before, base units, _total
 * behind what only grows. Nothing here names a user, a prompt or a file.
 */
#ifndef SUPERVISOR_METRICS_H
#define SUPERVISOR_METRICS_H

#include "common/buf.h"
#include "common/error.h"

struct supervisor;
struct metrics_http;

#define METRICS_TEXT_MAX    (256u << 10)
#define METRICS_TYPE        "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_SOCKETS_MAX 16 /* of the HTTP server, its own included */

/* Appends the whole page. 0 or what buf_append says. */
int metrics_write(struct supervisor *sv, struct buf *out);

/* "127.0.0.1:9123", "[::1]:9123" or "localhost:9123" into address and port;
 * ERR_CONFIG for what isn't on the loopback. */
int metrics_parse_listen(const char *text, char address[64], int *portp,
                         struct error *err);
/* Serves GET /metrics there. NULL with `err`. */
struct metrics_http *metrics_http_new(struct supervisor *sv, const char *listen,
                                      struct error *err);
/* Returns NULL; NULL is fine. */
struct metrics_http *metrics_http_free(struct metrics_http *m);

#endif
