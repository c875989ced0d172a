/*
 * comfy_api.h - ComfyUI's HTTP interface as typed requests and replies.
 *
 * Fits the recorded 0.3.64 and the later versions that the recordings' README
 * describes in section 6 (queue items with a sixth element, /api/jobs, strict
 * prompt ids). Errors that the framework raises come as plain text and are
 * told from JSON by content type.
 */
#ifndef COMMON_COMFY_API_H
#define COMMON_COMFY_API_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/http.h"
#include "common/json_span.h"
#include "common/url.h"

struct comfy_api;
struct comfy_call;

enum comfy_outcome {
	COMFY_OK = 0,
	COMFY_E_REJECTED,    /* POST /prompt: 400 with error and node_errors */
	COMFY_E_UNREACHABLE, /* certainly not seen by the server */
	COMFY_E_UNKNOWN,   /* the reply is missing: it may have been done; also
	                      502, 503 and 504, by which a proxy says so */
	COMFY_E_STATUS,    /* another status than 200 */
	COMFY_E_REPLY,     /* not the JSON that belongs there */
	COMFY_E_NOT_FOUND, /* 404 */
	COMFY_E_LOCAL,     /* our side: out of memory, bound, sink; the server
	                      has not changed anything for it */
};

/* What every callback gets first. `body` is the parsed reply (JSON_NONE when
 * it wasn't JSON); all is valid during the callback only. */
struct comfy_result {
	enum comfy_outcome outcome;
	int status; /* HTTP, 0 if none */
	struct json body;
	const char *content_type;
	struct span raw;    /* the body's bytes */
	struct error error; /* text for a person unless COMFY_OK */
};

/* A new prompt. Everything is copied. */
struct comfy_submission {
	struct span workflow; /* JSON text, sent digit for digit */
	const char *prompt_id;
	const char *client_id;
	struct span extra_data; /* JSON object text, or {NULL,0}; with prompt_id
	                           the marker is added (comfy_marker.h) */
};

struct comfy_submitted {
	struct comfy_result r;
	/* With COMFY_OK: the id that the server uses, which is not ours on
	 * servers before 0.3.45. */
	const char *prompt_id;
	double number;
	struct json node_errors; /* object; not empty when valid in part */
};

/* One prompt in the queue. */
struct comfy_queue_item {
	struct span prompt_id; /* raw string bytes */
	double number;
	struct json item; /* the whole array */
};
struct comfy_queue {
	struct comfy_result r;
	size_t running_count, pending_count;
	/* pending is sorted by number: the order in which they will run */
	const struct comfy_queue_item *running, *pending;
};
/* Prompts before `prompt_id` (running and pending): 0 if it runs itself, -1 if
 * it is not in the queue. `runningp` may be NULL. */
int64_t comfy_queue_ahead(const struct comfy_queue *q, const char *prompt_id,
                          bool *runningp);

struct comfy_history {
	struct comfy_result r;
	struct json entry; /* JSON_NONE: no such entry (yet) */
};

enum comfy_cancel_how {
	COMFY_CANCEL_NONE, /* it was neither pending nor running */
	COMFY_CANCEL_DEQUEUED,
	COMFY_CANCEL_INTERRUPTED, /* asked to stop; the end event tells */
	COMFY_CANCEL_DONE,        /* by /api/jobs: one or the other */
};
struct comfy_cancelled {
	struct comfy_result r;
	enum comfy_cancel_how how;
};

/* Each callback is called exactly once and never from inside the request. It
 * may start and cancel other calls, and free the API and the struct http;
 * cancelling the very call does nothing. */
typedef void comfy_submit_cb(void *user, const struct comfy_submitted *s);
typedef void comfy_queue_cb(void *user, const struct comfy_queue *q);
typedef void comfy_history_cb(void *user, const struct comfy_history *h);
typedef void comfy_cancel_cb(void *user, const struct comfy_cancelled *c);
typedef void comfy_cb(void *user, const struct comfy_result *r);

/* `http` and `loop` stay the caller's and must outlive it. */
struct comfy_api *comfy_api_new(struct ev_loop *loop, struct http *http,
                                const struct url *url, struct error *err);
/* Ends all calls without callbacks. NULL is fine; returns NULL. */
struct comfy_api *comfy_api_free(struct comfy_api *a);

/* Each starts a request; NULL with `err` set and no callback on failure. */
struct comfy_call *comfy_submit(struct comfy_api *a,
                                const struct comfy_submission *s,
                                comfy_submit_cb *cb, void *user,
                                struct error *err);
struct comfy_call *comfy_get_queue(struct comfy_api *a, comfy_queue_cb *cb,
                                   void *user, struct error *err);
/* GET /history/{id}. */
struct comfy_call *comfy_get_history(struct comfy_api *a, const char *prompt_id,
                                     comfy_history_cb *cb, void *user,
                                     struct error *err);
/* GET /history?max_items=n; the body is {id: entry}, oldest first. */
struct comfy_call *comfy_list_history(struct comfy_api *a, unsigned max_items,
                                      comfy_cb *cb, void *user,
                                      struct error *err);
/* Cancels a pending or running prompt: POST /api/jobs/{id}/cancel where the
 * server has it (remembered after a 404 or 405), else look at /queue, delete
 * it there and look again if it is pending, interrupt if it runs (the README's
 * section 5, "To cancel"). Servers before 0.3.57 interrupt whatever runs when
 * the interrupt arrives. With an error, `how` is COMFY_CANCEL_NONE. */
struct comfy_call *comfy_cancel(struct comfy_api *a, const char *prompt_id,
                                comfy_cancel_cb *cb, void *user,
                                struct error *err);
/* GET of any path below the base path, such as "/system_stats", encoded as it
 * goes into a URL; JSON. */
struct comfy_call *comfy_get_json(struct comfy_api *a, const char *path,
                                  comfy_cb *cb, void *user, struct error *err);

/* GET /view. `preview` is NULL or such as "webp;75"; `subfolder` and `type` may
 * be NULL. With `on_data` the bytes go there, else they are in `raw` (bounded
 * by reply_max). It must not call into this module. The time-out is for a pause
 * between bytes, not for the whole. */
struct comfy_view {
	const char *filename, *subfolder, *type, *preview;
	size_t reply_max;
	bool (*on_data)(void *user, const char *data, size_t len);
};
struct comfy_call *comfy_get_view(struct comfy_api *a,
                                  const struct comfy_view *v, comfy_cb *cb,
                                  void *user, struct error *err);

/* POST /upload/image; the body is {"name","subfolder","type"}. The time-out is
 * as with comfy_get_view. */
struct comfy_upload {
	const char *filename, *subfolder; /* subfolder NULL: none */
	bool overwrite;
	struct span data;
};
struct comfy_call *comfy_upload(struct comfy_api *a,
                                const struct comfy_upload *u, comfy_cb *cb,
                                void *user, struct error *err);

/* Ends it without a callback. */
void comfy_call_cancel(struct comfy_call *c);

#endif
