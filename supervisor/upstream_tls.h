/*
 * upstream_tls.h - the TLS settings of the link: what is trusted, what name
 * the certificate must bear, why a handshake failed.
 */
#ifndef SUPERVISOR_UPSTREAM_TLS_H
#define SUPERVISOR_UPSTREAM_TLS_H

#include "common/error.h"
#include "common/url.h"

struct upstream_tls;
struct credentials;
struct ssl_ctx_st;

/* Trusts the authorities in `ca_file`, or the system's if that is "". Reads
 * the file now: one that can't be read, or holds no certificate, is an
 * error. NULL with `err` set on failure. */
struct upstream_tls *upstream_tls_new(const struct url *url,
                                      const char *ca_file, struct error *err);
/* Shows the client certificate in it, if there is one. Copies. */
int upstream_tls_show(struct upstream_tls *t, const struct credentials *c,
                      struct error *err);
/* NULL is fine; returns NULL. */
struct upstream_tls *upstream_tls_free(struct upstream_tls *t);

/* Stays the object's. */
struct ssl_ctx_st *upstream_tls_context(const struct upstream_tls *t);
/* Why the last handshake failed, "" if it didn't or nothing is known. */
const char *upstream_tls_reason(const struct upstream_tls *t);
/* Forgets the reason, before a new attempt. */
void upstream_tls_clear_reason(struct upstream_tls *t);

#endif
