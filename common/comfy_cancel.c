/*
 * comfy_cancel.c - cancelling one prompt, which older servers make a matter of
 * several requests.
 *
 *     POST /api/jobs/{id}/cancel     done, where the server has it
 *       404, 405 -> GET /queue
 *     GET /queue
 *       pending  -> POST /queue {"delete"} -> GET /queue
 *       running  -> POST /interrupt
 *       neither  -> done
 *
 * It is looked at before it is deleted, since the server answers 200 whether
 * or not there was something to delete, and looked at afterwards, since it may
 * have begun to run in between. A pending prompt can't be interrupted and a
 * running one can't be deleted.
 */
#include <string.h>

#include "common/comfy_api.h"
#include "common/comfy_impl.h"
#include "common/comfy_reply.h"

/* Ids are not unique to the server, and each deletion takes one item away. */
#define DELETES_MAX 8
#define PATH_BYTES  4096
#define BODY_BYTES  4096

static void on_queue(struct comfy_call *c, const struct http_reply *reply);
static void on_deleted(struct comfy_call *c, const struct http_reply *reply);

static void tell(struct comfy_call *c, const struct comfy_result *r,
                 enum comfy_cancel_how how)
{
	struct comfy_cancelled done = {.r = *r, .how = how};

	comfy_call_begin_telling(c);
	c->cb.cancel(c->user, &done);
	comfy_call_free(c);
}

/* The next request could not be sent: what the ones before found out is no
 * answer. */
static void tell_local(struct comfy_call *c, const struct error *err)
{
	struct comfy_result r = {.outcome = COMFY_E_LOCAL,
	                         .body = JSON_MISSING,
	                         .content_type = "",
	                         .error = *err};

	tell(c, &r, COMFY_CANCEL_NONE);
}

/* POSTs {key: value}, where value is the id, in an array if asked. */
static int post_id(struct comfy_call *c, const char *to, const char *key,
                   bool array, struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_BYTES);
	struct buf cleanup_buf body = BUF_INIT(BODY_BYTES);
	struct http_request req = {.method = "POST",
	                           .content_type = "application/json"};

	(void)buf_puts(&path, to);
	(void)buf_putc(&body, '{');
	(void)buf_json_key(&body, key);
	(void)buf_puts(&body, array ? "[" : "");
	(void)buf_json_string(&body, c->prompt_id, strlen(c->prompt_id));
	(void)buf_puts(&body, array ? "]}" : "}");
	if (!buf_ok(&body))
		return error_set(err, ERR_LIMIT,
		                 "prompt_id is too long, or memory is out");
	req.body = span_make(body.data, body.len);
	return comfy_call_send(c, &req, &path, err);
}

static int look(struct comfy_call *c, struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_BYTES);
	struct http_request req = {.method = "GET"};

	c->on_reply = on_queue;
	(void)buf_puts(&path, "/queue");
	return comfy_call_send(c, &req, &path, err);
}

static void on_interrupted(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_result r;

	comfy_decode(&r, reply, COMFY_EXPECT_NOTHING, true);
	tell(c, &r,
	     r.outcome == COMFY_OK ? COMFY_CANCEL_INTERRUPTED
	                           : COMFY_CANCEL_NONE);
}

static void on_queue(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_queue q;
	struct error err = ERROR_NULL;
	bool pending, running;
	int sent = 0;

	comfy_decode_queue(&q, reply);
	pending = comfy_queue_has(q.pending, q.pending_count, c->prompt_id);
	running = comfy_queue_has(q.running, q.running_count, c->prompt_id);
	comfy_queue_deinit(&q);
	if (q.r.outcome != COMFY_OK) {
		tell(c, &q.r, COMFY_CANCEL_NONE);
	} else if (pending && c->deletes < DELETES_MAX) {
		c->deletes++;
		c->on_reply = on_deleted;
		sent = post_id(c, "/queue", "delete", true, &err);
	} else if (pending) {
		q.r.outcome = COMFY_E_REPLY;
		(void)error_set(&q.r.error, ERR_PROTOCOL,
		                "ComfyUI does not take the prompt out of its "
		                "queue");
		tell(c, &q.r, COMFY_CANCEL_NONE);
	} else if (running) {
		c->on_reply = on_interrupted;
		sent = post_id(c, "/interrupt", "prompt_id", false, &err);
	} else {
		tell(c, &q.r,
		     c->deletes > 0 ? COMFY_CANCEL_DEQUEUED
		                    : COMFY_CANCEL_NONE);
	}
	if (sent < 0)
		tell_local(c, &err);
}

static void on_deleted(struct comfy_call *c, const struct http_reply *reply)
{
	struct comfy_result r;
	struct error err = ERROR_NULL;

	comfy_decode(&r, reply, COMFY_EXPECT_NOTHING, true);
	if (r.outcome != COMFY_OK)
		tell(c, &r, COMFY_CANCEL_NONE);
	else if (look(c, &err) < 0)
		tell_local(c, &err);
}

/* Servers without it answer 404, or 405 where a handler of files catches the
 * path; a proxy may have its own way to refuse what it doesn't know. */
static void on_job_cancelled(struct comfy_call *c,
                             const struct http_reply *reply)
{
	struct comfy_result r;
	struct error err = ERROR_NULL;
	bool cancelled;

	comfy_decode_job_cancel(&r, reply, &cancelled);
	switch (r.outcome) {
	case COMFY_OK:
		tell(c, &r, cancelled ? COMFY_CANCEL_DONE : COMFY_CANCEL_NONE);
		return;
	case COMFY_E_UNREACHABLE:
	case COMFY_E_UNKNOWN:
	case COMFY_E_LOCAL:
		tell(c, &r, COMFY_CANCEL_NONE);
		return;
	default:
		break;
	}
	if (r.status == 404 || r.status == 405)
		c->api->job_cancel = COMFY_SUPPORT_NO;
	if (look(c, &err) < 0)
		tell_local(c, &err);
}

static int post_job_cancel(struct comfy_call *c, struct error *err)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_BYTES);
	struct http_request req = {.method = "POST",
	                           .content_type = "application/json",
	                           .body = SPAN("{}")};

	c->on_reply = on_job_cancelled;
	(void)buf_puts(&path, "/api/jobs/");
	(void)url_encode(&path, c->prompt_id, strlen(c->prompt_id));
	(void)buf_puts(&path, "/cancel");
	return comfy_call_send(c, &req, &path, err);
}

struct comfy_call *comfy_cancel(struct comfy_api *a, const char *prompt_id,
                                comfy_cancel_cb *cb, void *user,
                                struct error *err)
{
	struct comfy_call *c;
	int r;

	if (!*prompt_id) {
		(void)error_set(err, ERR_INVALID, "prompt_id is empty");
		return NULL;
	}
	c = comfy_call_new(a, prompt_id, user, err);
	if (!c)
		return NULL;
	c->cb.cancel = cb;
	r = a->job_cancel == COMFY_SUPPORT_NO ? look(c, err)
	                                      : post_job_cancel(c, err);
	if (r == 0)
		return c;
	comfy_call_free(c);
	return NULL;
}
