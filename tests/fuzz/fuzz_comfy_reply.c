/*
 * fuzz_comfy_reply.c - any bytes as a reply of ComfyUI's. The first three say
 * which decoder, which status and which content type, the rest is the body.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "common/macros.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static bool is_inside(struct span part, struct span whole)
{
	return part.n == 0 ||
	       (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static void check_result(const struct comfy_result *r,
                         const struct http_reply *reply)
{
	bool ok = r->outcome == COMFY_OK;

	require(ok == (r->error.code == ERR_NONE) &&
	                ok == (*r->error.text == '\0'),
	        "an error is there unless all is well");
	require(!ok || r->status == 200, "only 200 is success");
	require((r->outcome == COMFY_E_NOT_FOUND) == (r->status == 404),
	        "404 is \"not found\"");
	for (const char *p = r->error.text; *p; p++)
		require((unsigned char)*p >= ' ' || *p == '\n',
		        "an error is printable");
	require(is_inside(r->body.text, reply->body),
	        "the body is the reply's");
}

static void decode_submitted(const struct http_reply *reply)
{
	char id[COMFY_PROMPT_ID_MAX + 1];
	struct comfy_submitted s;

	comfy_decode_submitted(&s, reply, id);
	check_result(&s.r, reply);
	require((*s.prompt_id != '\0') == (s.r.outcome == COMFY_OK),
	        "an id goes with success");
	require(s.r.outcome != COMFY_E_REJECTED || s.r.status == 400,
	        "a refusal is a 400");
}

/* Whoever is found by a marker has it. */
static void check_marker(const struct comfy_queue *q, struct json item)
{
	struct span mark = comfy_marker_of(json_at(item, 3));
	const struct comfy_queue_item *found;
	char *id = mark.p ? strndup(mark.p, mark.n) : NULL;

	/* Raw bytes: a NUL is an escape there. */
	if (!id)
		return;
	found = comfy_queue_marked(q, id);
	require(found &&
	                span_eq(comfy_marker_of(json_at(found->item, 3)), mark),
	        "what is marked is found");
	free(id);
}

static void check_items(const struct comfy_queue *q,
                        const struct http_reply *reply)
{
	for (size_t i = 0; i < q->pending_count; i++) {
		char *id = json_string_dup(json_at(q->pending[i].item, 1),
		                           reply->body.n);
		int64_t ahead;

		check_marker(q, q->pending[i].item);
		require(is_inside(q->pending[i].prompt_id, reply->body),
		        "an id points into the reply");
		require(i == 0 || q->pending[i - 1].number <=
		                          q->pending[i].number,
		        "pending is sorted");
		if (!id)
			continue; /* it holds a NUL */
		ahead = comfy_queue_ahead(q, id, NULL);
		require(ahead >= 0 && ahead <= (int64_t)(q->running_count + i),
		        "what is in the queue is found there");
		free(id);
	}
}

static void decode_queue(const struct http_reply *reply)
{
	struct comfy_queue q;

	comfy_decode_queue(&q, reply);
	check_result(&q.r, reply);
	require(q.r.outcome == COMFY_OK ||
	                q.running_count + q.pending_count == 0,
	        "items go with success");
	/* The look-ups below are quadratic. */
	if (q.pending_count < 200)
		check_items(&q, reply);
	comfy_queue_deinit(&q);
}

static void decode_history(const struct http_reply *reply)
{
	struct comfy_history h;

	comfy_decode_history(&h, reply, "p");
	check_result(&h.r, reply);
	require(json_is(h.entry, JSON_NONE) || json_is(h.entry, JSON_OBJECT),
	        "an entry is an object");
	require(is_inside(h.entry.text, reply->body), "and the reply's");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int statuses[] = {200, 400, 404, 403, 500, 502, 302, 200};
	static const char *const types[] = {"application/json", "text/plain",
	                                    "", "text/html"};
	struct http_reply reply = {.outcome = HTTP_OK, .sent = true};
	struct comfy_result r;
	bool cancelled;

	if (size < 3)
		return 0;
	reply.status = statuses[data[1] % ARRAY_SIZE(statuses)];
	reply.content_type = types[data[2] % ARRAY_SIZE(types)];
	reply.body = span_make((const char *)data + 3, size - 3);
	switch (data[0] % 6) {
	case 0:
		decode_submitted(&reply);
		break;
	case 1:
		decode_queue(&reply);
		break;
	case 2:
		decode_history(&reply);
		break;
	case 3:
		comfy_decode_job_cancel(&r, &reply, &cancelled);
		check_result(&r, &reply);
		require(!cancelled || r.outcome == COMFY_OK,
		        "cancelled goes with success");
		break;
	case 4:
		comfy_decode(&r, &reply, COMFY_EXPECT_NOTHING, true);
		check_result(&r, &reply);
		break;
	default:
		comfy_decode(&r, &reply, COMFY_EXPECT_JSON, false);
		check_result(&r, &reply);
		break;
	}
	return 0;
}
