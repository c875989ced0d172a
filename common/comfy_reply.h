/*
 * comfy_reply.h - what ComfyUI answers, from bytes to types. Pure: no I/O, no
 * state; comfy_api.c calls these, fuzzing and tests do, too.
 *
 * Everything that a decoder hands out points into the reply.
 */
#ifndef COMMON_COMFY_REPLY_H
#define COMMON_COMFY_REPLY_H

#include "common/comfy_api.h"

#define COMFY_PROMPT_ID_MAX 256 /* bytes of an id that a server chose */
#define COMFY_REASON_MAX    200 /* bytes shown of a reply that is text */

/* What a request wants of a reply with status 200. */
enum comfy_expect {
	COMFY_EXPECT_NOTHING, /* anything will do, an empty body too */
	COMFY_EXPECT_BYTES,   /* likewise, but it isn't looked at */
	COMFY_EXPECT_JSON,
	COMFY_EXPECT_OBJECT,
};

/* The common part. `changes` says that the request, if it was seen, has changed
 * something on the server: then a failure on our side that came after the
 * sending is COMFY_E_UNKNOWN. So are 502, 503 and 504, by which a proxy says
 * that it has no answer. */
void comfy_decode(struct comfy_result *r, const struct http_reply *reply,
                  enum comfy_expect expect, bool changes);

/* POST /prompt. `id` is where s->prompt_id will be. */
void comfy_decode_submitted(struct comfy_submitted *s,
                            const struct http_reply *reply,
                            char id[COMFY_PROMPT_ID_MAX + 1]);
/* GET /queue. Allocates the items: comfy_queue_deinit(). */
void comfy_decode_queue(struct comfy_queue *q, const struct http_reply *reply);
/* Safe twice. */
void comfy_queue_deinit(struct comfy_queue *q);
/* GET /history/{prompt_id}. */
void comfy_decode_history(struct comfy_history *h,
                          const struct http_reply *reply,
                          const char *prompt_id);
/* POST /api/jobs/{id}/cancel. `*cancelledp` is meant with COMFY_OK only. */
void comfy_decode_job_cancel(struct comfy_result *r,
                             const struct http_reply *reply, bool *cancelledp);

/* Whether `prompt_id` is among the items. */
bool comfy_queue_has(const struct comfy_queue_item *items, size_t n,
                     const char *prompt_id);

#endif
