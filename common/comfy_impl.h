/*
 * comfy_impl.h - what comfy_api.c and comfy_cancel.c share with each other and
 * nobody else.
 */
#ifndef COMMON_COMFY_IMPL_H
#define COMMON_COMFY_IMPL_H

#include "common/buf.h"
#include "common/comfy_api.h"
#include "common/list.h"

enum comfy_support {
	COMFY_SUPPORT_UNKNOWN,
	COMFY_SUPPORT_NO,
};

struct comfy_api {
	struct http *http;
	struct list calls;
	enum comfy_support job_cancel; /* POST /api/jobs/{id}/cancel */
	char *base;                    /* "http://host:port/base" */
};

/* One request, or the several of a comfy_cancel(), one after the other. */
struct comfy_call {
	struct list link;
	struct comfy_api *api;
	struct http_call *http; /* NULL between requests */
	bool telling;           /* its callback runs */
	/* Decodes the reply; then tells, or sends the next request. */
	void (*on_reply)(struct comfy_call *c, const struct http_reply *reply);
	union {
		comfy_submit_cb *submit;
		comfy_queue_cb *queue;
		comfy_history_cb *history;
		comfy_cancel_cb *cancel;
		comfy_cb *plain;
	} cb;
	void *user;
	bool (*on_data)(void *user, const char *data, size_t len);
	unsigned deletes; /* that comfy_cancel() has sent */
	char prompt_id[]; /* where the reply is about one */
};

/* A call that has not been sent. NULL with `err` set on failure. */
struct comfy_call *comfy_call_new(struct comfy_api *a, const char *prompt_id,
                                  void *user, struct error *err);
void comfy_call_free(struct comfy_call *c);

/* Sends a request whose url is `path` (base path added); req->url is ignored.
 * On failure the call is as before, `err` is set, and -1 is returned. */
int comfy_call_send(struct comfy_call *c, struct http_request *req,
                    struct buf *path, struct error *err);

/* Around the callback: afterwards only `c` itself may be touched, since the
 * callback may have freed the rest. */
void comfy_call_begin_telling(struct comfy_call *c);

#endif
