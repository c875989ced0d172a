/*
 * http.h - HTTP requests by libcurl's multi interface on the libev loop.
 *
 * Never blocks; every reply is bounded in size and time. What matters to
 * callers that must not do a thing twice: whether a request that failed can
 * have reached the server (HTTP_E_CONNECT: no; HTTP_E_BROKEN: perhaps). A POST
 * is written to the wire at most once; a GET may be repeated where a kept-alive
 * connection turns out to be dead.
 *
 * The process must ignore SIGPIPE: libcurl's TLS library raises it.
 */
#ifndef COMMON_HTTP_H
#define COMMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "common/span.h"

struct ev_loop;
struct http;
struct http_call;
struct credentials;

#define HTTP_REPLY_MAX   (64u << 20) /* default bound of a reply's body */
#define HTTP_CALLS_MAX   256         /* calls under way in one struct http */
#define HTTP_CONNECTIONS 8           /* default of max_connections */
#define HTTP_CONNECT_MS  5000        /* default of connect_timeout_ms */
#define HTTP_TIMEOUT_MS  30000       /* default of timeout_ms */

struct http_config {
	const char *ca_file; /* "" or NULL: the system's */
	/* Shown to the server; NULL: nothing. Authorities in it are trusted
	 * instead of ca_file's. The caller's; outlives the struct http. Never
	 * follows a redirect, since none is followed. */
	const struct credentials *credentials;
	const char *proxy;        /* "" or NULL: none, whatever the environment
	                             says */
	const char *resolve_host; /* with resolve_address: connect there for */
	unsigned resolve_port;    /* this host and port, ask no resolver */
	const char *resolve_address;
	/* 0 in each: the default above. */
	unsigned connect_timeout_ms;
	unsigned timeout_ms;      /* of one request, if it names none */
	unsigned max_connections; /* to the server at once; calls past that
	                             wait, in their timeout_ms */
};

enum http_outcome {
	HTTP_OK = 0,    /* a whole reply with some status came */
	HTTP_E_CONNECT, /* not connected: the server has not seen it */
	HTTP_E_TLS,     /* handshake or certificate: not seen either */
	HTTP_E_BROKEN,  /* the connection ended or erred before the whole
	                   reply was there: it may have been seen */
	HTTP_E_TIMEOUT, /* likewise, after timeout_ms (a connect that timed out
	                   is HTTP_E_CONNECT) */
	HTTP_E_TOO_LARGE, /* reply over reply_max */
	HTTP_E_SINK,      /* on_data asked to stop */
	HTTP_E_INTERNAL,  /* out of memory, a bug */
};

struct http_reply {
	enum http_outcome outcome;
	int status; /* 0 without a status line */
	bool sent;  /* something of it may have reached the server;
	               tells what HTTP_E_SINK, HTTP_E_TOO_LARGE and
	               HTTP_E_INTERNAL leave open */
	const char *content_type; /* "" if none; lower case, parameters cut */
	struct span body;         /* empty when on_data took it, and unless
	                             outcome is HTTP_OK */
	struct error error;       /* set unless outcome is HTTP_OK: names URL
	                             and cause */
};

/* One part of a multipart/form-data body. */
struct http_part {
	const char *name;
	const char *filename;     /* NULL: a plain field */
	const char *content_type; /* NULL: none */
	struct span data;
};

struct http_request {
	const char *method; /* "GET", "POST" */
	const char *url;
	const char *content_type;      /* of the body; NULL: none */
	struct span body;              /* copied */
	const struct http_part *parts; /* instead of body; copied */
	size_t part_count;
	size_t reply_max;    /* 0: HTTP_REPLY_MAX, with on_data no bound */
	unsigned timeout_ms; /* 0: the default */
	/* timeout_ms counts anew whenever bytes come or go: for files, whose
	 * time depends on their size. */
	bool timeout_is_idle;
	/* If set, called with each piece of a 2xx reply's body instead of
	 * collecting it; returns false to stop the transfer. It must not call
	 * into this module. */
	bool (*on_data)(void *user, const char *data, size_t len);
};

/* The reply is valid during the call only. The call is gone when it returns.
 * It may start and cancel other calls, and free the struct http; cancelling
 * the very call does nothing. */
typedef void http_cb(void *user, const struct http_reply *reply);

/* curl_global_init must have been called (http_global_init). */
struct http *http_new(struct ev_loop *loop, const struct http_config *cfg,
                      struct error *err);
/* Cancels what is under way, without callbacks. NULL is fine; returns NULL. */
struct http *http_free(struct http *h);

/* Starts a request. Calls back exactly once, never from inside this call. NULL
 * with `err` set (ERR_LIMIT past HTTP_CALLS_MAX) and no callback on failure. */
struct http_call *http_start(struct http *h, const struct http_request *req,
                             http_cb *cb, void *user, struct error *err);
/* Ends it without a callback. */
void http_cancel(struct http_call *call);

/* Closes kept-alive connections; called when nothing more is expected soon, so
 * that idle processes hold no half-dead connections. With calls under way it
 * happens when the last of them ends, unless another is started before. */
void http_close_idle(struct http *h);

/* Once per process, before any http_new and before fork in a zygote. */
int http_global_init(struct error *err);

#endif
