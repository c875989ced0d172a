/*
 * url.h - where ComfyUI is: COMFYUI_HOST taken apart and put together.
 */
#ifndef COMMON_URL_H
#define COMMON_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"

#define URL_TEXT_MAX 2048 /* bytes of a URL */
#define URL_HOST_MAX 255  /* RFC 1035, section 2.3.4 */

struct url {
	bool tls;                    /* https, wss */
	char host[URL_HOST_MAX + 1]; /* without brackets, lower case */
	bool host_is_ipv6;           /* needs brackets when written */
	uint16_t port;               /* default filled in */
	char path[URL_TEXT_MAX];     /* base path, "" or "/comfy": no slash at
	                                the end */
};

/* Accepts http, https, ws, wss, and a bare host[:port] (taken as http). Refuses
 * user:password@ (say where credentials belong), a query, a fragment, control
 * characters and spaces, port 0. The message names the text and what is wrong
 * with it. */
int url_parse(struct url *u, const char *text, struct error *err);

/* "http://host:port/base" (default ports left out), no slash at the end. */
int url_http(const struct url *u, struct buf *out);
/* "host:port" as the Host header has it (brackets around IPv6, default port
 * left out). */
int url_authority(const struct url *u, struct buf *out);
/* Base path + "/ws?clientId=" + id, percent-encoded. */
int url_ws_path(const struct url *u, const char *client_id, struct buf *out);
/* Percent-encodes everything but unreserved characters (RFC 3986, 2.3). */
int url_encode(struct buf *out, const char *s, size_t len);
/* An address of this machine's own, or "localhost". */
bool url_is_loopback(const struct url *u);
/* A numeric address, or "localhost": nothing to be looked up. */
bool url_is_numeric(const struct url *u);
/* Same server and base path. */
bool url_eq(const struct url *a, const struct url *b);

#endif
