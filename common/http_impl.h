/*
 * http_impl.h - what http.c and http_request.c share with each other and
 * nobody else.
 */
#ifndef COMMON_HTTP_IMPL_H
#define COMMON_HTTP_IMPL_H

#include <curl/curl.h>
#include <ev.h>

#include "common/buf.h"
#include "common/http.h"
#include "common/list.h"

#define HTTP_CONTENT_TYPE_MAX 128 /* bytes kept of one */
#define HTTP_URL_SHOWN_MAX    400 /* bytes of a URL in messages */

struct http {
	struct ev_loop *loop;
	CURLM *multi;
	ev_timer timer;    /* curl's */
	struct list calls; /* in the multi handle */
	struct list done;  /* ended, not told yet */
	struct list sockets;
	size_t call_count; /* in both lists */
	bool in_curl;      /* curl is on the stack, with on_data perhaps */
	bool close_when_idle;
	unsigned telling;      /* callbacks run, so many deep */
	bool freed;            /* meanwhile; who tells has the rest to free */
	char *ca_file, *proxy; /* NULL if not set */
	const struct credentials *credentials;
	struct curl_slist *resolve;
	unsigned connect_timeout_ms, timeout_ms, max_connections;
};

struct http_call {
	struct list link;
	struct http *http;
	http_cb *cb;
	void *user;
	bool (*on_data)(void *user, const char *data, size_t len);
	CURL *easy;
	curl_mime *mime;
	struct curl_slist *headers;
	ev_timer deadline;
	unsigned timeout_ms;
	curl_off_t moved; /* bytes that came and went when last looked */
	size_t reply_max;
	size_t sunk;     /* bytes given to on_data */
	bool head_ended; /* the blank line behind the headers came */
	bool sink_stopped, too_large, no_memory;
	bool telling; /* its callback runs */
	struct buf body;
	struct http_reply reply;
	char content_type[HTTP_CONTENT_TYPE_MAX];
	char curl_error[CURL_ERROR_SIZE];
	const char *method;
	char url[]; /* for messages */
};

/* http_request.c */

/* A call in no list and no multi handle, ready to be added; its deadline is
 * not started. NULL with `err` set on failure. */
struct http_call *http_call_new(struct http *h, const struct http_request *req,
                                http_cb *cb, void *user, struct error *err);
/* Releases what curl has of it; safe twice. */
void http_call_free_easy(struct http_call *c);
void http_call_free(struct http_call *c);

/* http.c */

/* Deadlines are ours, not CURLOPT_TIMEOUT_MS: curl's does not run while a
 * request waits for one of max_connections. */
void http_call_on_deadline(struct ev_loop *loop, ev_timer *timer, int revents);

#endif
