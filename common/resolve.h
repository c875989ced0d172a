/*
 * resolve.h - names to addresses without blocking, by c-ares on the libev
 * loop.
 */
#ifndef COMMON_RESOLVE_H
#define COMMON_RESOLVE_H

#include <sys/socket.h>

#include "common/error.h"

struct ev_loop;
struct resolver;
struct resolve_query;

#define RESOLVE_ADDRESSES_MAX 8

struct resolve_result {
	size_t count;
	/* Numeric text of each address, as inet_ntop writes it, in the order in
	 * which to try them (RFC 6724); of "localhost" 127.0.0.1 first, since
	 * that is where ComfyUI listens unless told otherwise. */
	char address[RESOLVE_ADDRESSES_MAX][46];
};

typedef void resolve_cb(void *user, const struct resolve_result *result,
                        const struct error *err);

struct resolver *resolver_new(struct ev_loop *loop, struct error *err);
/* Drops open queries without a callback. Returns NULL. */
struct resolver *resolver_free(struct resolver *r);

/* Tests: asks this server ("127.0.0.1:5353") and not those of the system. NULL
 * goes back. The text must stay. */
void resolver_set_server(struct resolver *r, const char *server);

/* Calls back exactly once, never from inside this call: with a result, or
 * with an error that names the host. Numeric addresses and "localhost" are
 * answered without asking anybody. NULL on failure, with `err` set and no
 * callback. */
struct resolve_query *resolve_start(struct resolver *r, const char *host,
                                    unsigned timeout_ms, resolve_cb *cb,
                                    void *user, struct error *err);
/* No callback will come. The query is gone; so it is when the callback has
 * begun, which may start queries, cancel others and free the resolver. */
void resolve_cancel(struct resolve_query *q);

#endif
