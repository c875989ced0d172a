/*
 * cancel.c - one cancellation, from the question to the answer.
 *
 * Asking twice does no harm, so when the bus breaks in between ComfyUI is
 * asked as well. What ComfyUI doesn't have a supervisor that is away may hold,
 * to post it when it is back: so it is waited for, for a while, and told even
 * after we gave up waiting.
 */
#include "workers/cancel.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

struct cancel {
	struct link *link;
	char *prompt_id;
	cancel_cb *cb;
	void *user;
	uint64_t ask_id; /* on the bus, 0: none */
	struct comfy_call *call;
	bool holds_api;
	bool denied; /* a supervisor said that it doesn't know the prompt */
	struct link_watch bus; /* while a supervisor is waited for */
	ev_timer patience;
};

static int cancel_by_bus(struct cancel *c, struct error *err);

struct cancel *cancel_free(struct cancel *c)
{
	if (!c)
		return NULL;
	link_forget(c->link, c->ask_id);
	link_watch_remove(c->link, &c->bus);
	ev_timer_stop(link_loop(c->link), &c->patience);
	if (c->call)
		comfy_call_cancel(c->call);
	if (c->holds_api)
		link_api_release(c->link);
	free(c->prompt_id);
	free(c);
	return NULL;
}

static void cancel_end(struct cancel *c, const char *how,
                       const struct error *err)
{
	cancel_cb *cb = c->cb;
	void *user = c->user;

	c->ask_id = 0;
	c->call = NULL;
	cancel_free(c);
	cb(user, how, err);
}

static void on_bus(void *user, bool up)
{
	struct cancel *c = user;
	struct error err;

	if (!up)
		return;
	link_watch_remove(c->link, &c->bus);
	ev_timer_stop(link_loop(c->link), &c->patience);
	if (cancel_by_bus(c, &err))
		cancel_end(c, NULL, &err);
}

static void on_patience(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct cancel *c = container_of(t, struct cancel, patience);
	struct error err;

	error_set(&err, ERR_UNREACHABLE,
	          "ComfyUI does not have %s, but the supervisor may, which is "
	          "away (%s): it is told to drop it if it is back before this "
	          "session ends; else the prompt may still run",
	          c->prompt_id, link_bus_error(c->link));
	if (link_owe_cancel(c->link, c->prompt_id))
		error_set_nomem(&err, "cancel");
	cancel_end(c, NULL, &err);
}

/* In neither queue nor history of ComfyUI. */
static void cancel_absent(struct cancel *c)
{
	struct error err;

	if (c->denied || !link_had_bus(c->link)) {
		error_set(&err, ERR_NOT_FOUND, "no such prompt: %s",
		          c->prompt_id);
		cancel_end(c, NULL, &err);
		return;
	}
	if (link_on_bus(c->link)) {
		on_bus(c, true);
		return;
	}
	link_watch_add(c->link, &c->bus);
	ev_timer_start(link_loop(c->link), &c->patience);
}

static void on_history(void *user, const struct comfy_history *h)
{
	struct cancel *c = user;

	c->call = NULL;
	if (h->r.outcome != COMFY_OK)
		cancel_end(c, NULL, &h->r.error);
	else if (json_is(h->entry, JSON_OBJECT))
		cancel_end(c, "ended", NULL);
	else
		cancel_absent(c);
}

/* Neither pending nor running: it has ended, or it never was. */
static void cancel_ask_history(struct cancel *c)
{
	struct error err = ERROR_NULL;
	struct comfy_api *api = link_api(c->link, &err);

	c->call =
		api ? comfy_get_history(api, c->prompt_id, on_history, c, &err)
		    : NULL;
	if (!c->call)
		cancel_end(c, NULL, &err);
}

static void on_cancelled(void *user, const struct comfy_cancelled *r)
{
	struct cancel *c = user;

	c->call = NULL;
	if (r->r.outcome != COMFY_OK) {
		cancel_end(c, NULL, &r->r.error);
		return;
	}
	switch (r->how) {
	case COMFY_CANCEL_NONE:
		cancel_ask_history(c);
		return;
	case COMFY_CANCEL_DEQUEUED:
		cancel_end(c, "dequeued", NULL);
		return;
	case COMFY_CANCEL_INTERRUPTED:
		cancel_end(c, "interrupted", NULL);
		return;
	case COMFY_CANCEL_DONE:
		cancel_end(c, "cancelled", NULL);
		return;
	}
}

static int cancel_by_http(struct cancel *c, struct error *err)
{
	struct comfy_api *api = link_api(c->link, err);

	if (!api)
		return -1;
	if (!c->holds_api) {
		link_api_hold(c->link);
		c->holds_api = true;
	}
	c->call = comfy_cancel(api, c->prompt_id, on_cancelled, c, err);
	return c->call ? 0 : -1;
}

/* The bus broke, or it doesn't know what this session submitted past it, or
 * what the web page did. */
static bool answer_leaves_http(const struct cancel *c,
                               const struct incoming *in,
                               const struct error *err)
{
	if (!err)
		return false;
	if (in)
		return err->code == ERR_NOT_FOUND &&
		       (link_claimed(c->link, c->prompt_id) ||
		        link_owns_rest(c->link));
	return err->code == ERR_UNREACHABLE &&
	       link_may_see(c->link, c->prompt_id);
}

static void on_answer(void *user, const struct incoming *in,
                      const struct error *err)
{
	static const char *const hows[] = {"dequeued", "interrupted",
	                                   "cancelled", "ended"};
	struct cancel *c = user;
	struct json how;
	struct error bad = ERROR_NULL;

	c->ask_id = 0;
	c->denied = err && err->code == ERR_NOT_FOUND && in;
	if (answer_leaves_http(c, in, err)) {
		if (cancel_by_http(c, &bad))
			cancel_end(c, NULL, &bad);
		return;
	}
	if (err) {
		cancel_end(c, NULL, err);
		return;
	}
	how = json_get(in->result, "how");
	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		if (json_string_eq(how, hows[i])) {
			cancel_end(c, hows[i], NULL);
			return;
		}
	}
	error_set(&bad, ERR_PROTOCOL,
	          "the supervisor's reply to cancel is not usable");
	cancel_end(c, NULL, &bad);
}

static int cancel_by_bus(struct cancel *c, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(4096);

	buf_putc(&b, '{');
	buf_json_key(&b, "prompt_id");
	buf_json_string(&b, c->prompt_id, strlen(c->prompt_id));
	buf_putc(&b, '}');
	if (!buf_ok(&b))
		return error_set(err, ERR_INVALID, "prompt id too long");
	c->ask_id = link_ask(c->link, OP_CANCEL, span_make(b.data, b.len), 0,
	                     on_answer, c, err);
	return c->ask_id ? 0 : -1;
}

struct cancel *cancel_new(struct link *l, const char *prompt_id, cancel_cb *cb,
                          void *user, struct error *err)
{
	struct cancel *c;
	int r;

	if (!link_on_bus(l) && !link_may_see(l, prompt_id)) {
		error_set(err, ERR_UNREACHABLE,
		          "no supervisor (%s) to cancel the prompt",
		          link_bus_error(l));
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		error_set_nomem(err, "cancel");
		return NULL;
	}
	c->link = l;
	c->cb = cb;
	c->user = user;
	c->bus = (struct link_watch){
		.prompt_id = "", .on_bus = on_bus, .user = c};
	ev_timer_init(&c->patience, on_patience,
	              link_patience(l)->away_cancel_ms / 1e3, 0.);
	c->prompt_id = strdup(prompt_id);
	if (!c->prompt_id) {
		error_set_nomem(err, "cancel");
		return cancel_free(c);
	}
	r = link_on_bus(l) ? cancel_by_bus(c, err) : cancel_by_http(c, err);
	return r ? cancel_free(c) : c;
}
