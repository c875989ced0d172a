/*
 * upstream_tls.c - see upstream_tls.h.
 *
 * libwebsockets could make the context itself, but then (4.1.6) it also trusts
 * a directory "../share" of wherever the process stands, goes on without a
 * ca_file that can't be read, takes "[" for the host of "[::1]:8188", sends
 * addresses as server names, and throws the reason of a failure away.
 */
#include "supervisor/upstream_tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/credentials.h"

#define REASON_MAX 160 /* bytes of the text kept */

struct upstream_tls {
	SSL_CTX *ctx;
	bool host_is_address;
	char reason[REASON_MAX];
};

static bool is_address(const char *host)
{
	unsigned char a[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, a) == 1 ||
	       inet_pton(AF_INET6, host, a) == 1;
}

/* NULL for none. */
static const char *text_of(unsigned long code)
{
	if (code != 0 && ERR_SYSTEM_ERROR(code))
		return strerror(ERR_GET_REASON(code));
	return code ? ERR_reason_error_string(code) : NULL;
}

/* The oldest entry of OpenSSL's queue names the cause, later ones where it
 * was noticed. Empties the queue. */
static const char *take_openssl_error(void)
{
	const char *text = text_of(ERR_get_error());

	ERR_clear_error();
	return text ? text : "no reason given";
}

static void keep_reason(struct upstream_tls *t, const SSL *ssl)
{
	long verified = SSL_get_verify_result(ssl);
	const char *text = text_of(ERR_peek_error());

	if (verified != X509_V_OK)
		(void)snprintf(t->reason, sizeof(t->reason),
		               "certificate not accepted: %s",
		               X509_verify_cert_error_string(verified));
	else if (text)
		(void)snprintf(t->reason, sizeof(t->reason),
		               "TLS handshake failed: %s", text);
}

static void on_info(const SSL *ssl, int where, int ret)
{
	struct upstream_tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	/* RFC 6066 knows no addresses as server names, and some servers refuse
	 * them. OpenSSL hands out the connection as const here, yet this is
	 * the one place between libwebsockets setting the name and it being
	 * sent. */
	if ((where & SSL_CB_HANDSHAKE_START) && t->host_is_address)
		(void)SSL_set_tlsext_host_name((SSL *)(uintptr_t)ssl, NULL);
	if ((where & SSL_CB_EXIT) && ret <= 0)
		keep_reason(t, ssl);
	/* In TLS 1.3 that comes when the handshake is over already. */
	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT &&
	    ret >> 8 == SSL3_AL_FATAL)
		(void)snprintf(t->reason, sizeof(t->reason),
		               "the server ended TLS: %s (client_cert names a "
		               "certificate to show)",
		               SSL_alert_desc_string_long(ret));
}

static int set_host(struct upstream_tls *t, const char *host)
{
	X509_VERIFY_PARAM *p = SSL_CTX_get0_param(t->ctx);

	if (t->host_is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(p, host);
	X509_VERIFY_PARAM_set_hostflags(p,
	                                X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(p, host, 0);
}

static int set_trust(struct upstream_tls *t, const char *ca_file,
                     struct error *err)
{
	if (*ca_file == '\0') {
		if (SSL_CTX_set_default_verify_paths(t->ctx) != 1)
			return error_set(err, ERR_CONFIG,
			                 "cannot use the system's certificate "
			                 "authorities: %s",
			                 take_openssl_error());
		return 0;
	}
	if (SSL_CTX_load_verify_locations(t->ctx, ca_file, NULL) != 1)
		return error_set(err, ERR_CONFIG,
		                 "cannot read certificate authorities from "
		                 "ca_file %s: %s",
		                 ca_file, take_openssl_error());
	return 0;
}

static int set_up(struct upstream_tls *t, const struct url *url,
                  const char *ca_file, struct error *err)
{
	t->host_is_address = is_address(url->host);
	t->ctx = SSL_CTX_new(TLS_client_method());
	if (!t->ctx)
		return error_set(err, ERR_INTERNAL, "cannot set up TLS: %s",
		                 take_openssl_error());
	if (SSL_CTX_set_app_data(t->ctx, t) != 1 ||
	    SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION) != 1 ||
	    set_host(t, url->host) != 1)
		return error_set(err, ERR_INTERNAL,
		                 "cannot set up TLS for %s: %s", url->host,
		                 take_openssl_error());
	SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_info_callback(t->ctx, on_info);
	return set_trust(t, ca_file, err);
}

struct upstream_tls *upstream_tls_new(const struct url *url,
                                      const char *ca_file, struct error *err)
{
	struct upstream_tls *t = calloc(1, sizeof(*t));

	if (!t) {
		(void)error_set_nomem(err, "TLS settings");
		return NULL;
	}
	ERR_clear_error();
	if (set_up(t, url, ca_file, err) < 0)
		return upstream_tls_free(t);
	return t;
}

static void *from_pem(const struct buf *b, bool key)
{
	BIO *bio = BIO_new_mem_buf(b->data, (int)b->len);
	void *p = NULL;

	if (bio)
		p = key ? (void *)PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL)
		        : (void *)PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
	(void)BIO_free(bio);
	return p;
}

/* What follows the first certificate in the file: its issuers. */
static bool add_chain(struct upstream_tls *t, const struct buf *b)
{
	BIO *bio = BIO_new_mem_buf(b->data, (int)b->len);
	X509 *x = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;
	bool ok = x != NULL;

	X509_free(x);
	while (ok && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		ok = SSL_CTX_add0_chain_cert(t->ctx, x) == 1;
		if (!ok)
			X509_free(x);
	}
	(void)BIO_free(bio);
	ERR_clear_error(); /* the end of the file */
	return ok;
}

int upstream_tls_show(struct upstream_tls *t, const struct credentials *c,
                      struct error *err)
{
	X509 *cert;
	EVP_PKEY *key;
	bool ok;

	if (!c || c->cert.len == 0)
		return 0;
	ERR_clear_error();
	cert = from_pem(&c->cert, false);
	key = from_pem(&c->key, true);
	ok = cert && key && SSL_CTX_use_certificate(t->ctx, cert) == 1 &&
	     SSL_CTX_use_PrivateKey(t->ctx, key) == 1 &&
	     SSL_CTX_check_private_key(t->ctx) == 1;
	X509_free(cert);
	EVP_PKEY_free(key);
	if (!ok)
		return error_set(err, ERR_CONFIG,
		                 "client_cert and client_key can't be used: %s",
		                 take_openssl_error());
	return add_chain(t, &c->cert) ? 0
	                              : error_set_nomem(err, "TLS settings");
}

struct upstream_tls *upstream_tls_free(struct upstream_tls *t)
{
	if (t) {
		SSL_CTX_free(t->ctx);
		free(t);
	}
	return NULL;
}

struct ssl_ctx_st *upstream_tls_context(const struct upstream_tls *t)
{
	return t->ctx;
}

const char *upstream_tls_reason(const struct upstream_tls *t)
{
	return t->reason;
}

void upstream_tls_clear_reason(struct upstream_tls *t)
{
	t->reason[0] = '\0';
}
