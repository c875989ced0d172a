/*
 * tool_prompts.c - see tool_prompts.h.
 *
 * The supervisor is asked first; ComfyUI only where its other prompts count as
 * one's own. If it doesn't answer, what the supervisor knows has to do.
 */
#include "workers/tool_prompts.h"

#include <inttypes.h>

#include "common/cleanup.h"

#define PROMPTS_BYTES (64u << 20)

void tool_prompts_deinit(struct tool_prompts *p)
{
	p->ask = tool_ask_free(p->ask);
	buf_deinit(&p->own);
	buf_deinit(&p->merged);
}

static bool is_active(struct json prompt)
{
	struct json status = json_get(prompt, "status");

	return json_string_eq(status, "queued") ||
	       json_string_eq(status, "executing");
}

static bool has_prompt(struct json list, struct json prompt)
{
	struct span id = json_raw_string(json_get(prompt, "prompt_id"));
	struct json_iter it;
	struct json p;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &p))
		if (span_eq(json_raw_string(json_get(p, "prompt_id")), id))
			return true;
	return false;
}

/* The elements of an array under way. */
struct elements {
	struct buf *out;
	int64_t count, max;
};

static void put_element(struct elements *e, struct json prompt)
{
	if (e->count >= e->max)
		return;
	(void)buf_puts(e->out, e->count++ > 0 ? "," : "");
	(void)buf_append(e->out, prompt.text.p, prompt.text.n);
}

/* --- history -------------------------------------------------------------- */

/* The next ended prompt; of ComfyUI's, one that isn't in `but`. */
static struct json next_ended(struct json_iter *it, struct json but)
{
	struct json p;

	while (json_iter_next(it, NULL, &p))
		if (!is_active(p) &&
		    (json_is(but, JSON_NONE) || !has_prompt(but, p)))
			return p;
	return JSON_MISSING;
}

static int64_t ended_at(struct json prompt)
{
	int64_t ms = 0;

	(void)json_int64(json_get(prompt, "ended_at"), &ms);
	return ms;
}

/* Both lists have the newest first. */
static void merge_ended(struct elements *e, struct json own, struct json web)
{
	struct json_iter own_it, web_it;
	struct json a, b;

	json_iter_init(&own_it, own);
	json_iter_init(&web_it, web);
	a = next_ended(&own_it, JSON_MISSING);
	b = next_ended(&web_it, own);
	while (!json_is(a, JSON_NONE) || !json_is(b, JSON_NONE)) {
		if (json_is(b, JSON_NONE) ||
		    (!json_is(a, JSON_NONE) && ended_at(a) >= ended_at(b))) {
			put_element(e, a);
			a = next_ended(&own_it, JSON_MISSING);
		} else {
			put_element(e, b);
			b = next_ended(&web_it, own);
		}
	}
}

static void merge_history(struct buf *out, struct json own, struct json web,
                          int64_t limit)
{
	struct elements e = {.out = out, .max = limit};
	struct json_iter it;
	struct json p;

	own = json_get(own, "prompts");
	web = json_get(web, "prompts");
	(void)buf_puts(out, "{\"prompts\":[");
	json_iter_init(&it, own);
	while (json_iter_next(&it, NULL, &p))
		if (is_active(p))
			put_element(&e, p);
	json_iter_init(&it, web);
	while (json_iter_next(&it, NULL, &p))
		if (is_active(p) && !has_prompt(own, p))
			put_element(&e, p);
	merge_ended(&e, own, web);
	(void)buf_puts(out, "]}");
}

/* --- queue ---------------------------------------------------------------- */

/* ComfyUI knows the order; what only the supervisor knows comes later. */
static void merge_queue_list(struct buf *out, const char *key, struct json own,
                             struct json web)
{
	struct elements e = {.out = out, .max = INT64_MAX};
	struct json all_running = json_get(web, "running");
	struct json all_pending = json_get(web, "pending");
	struct json_iter it;
	struct json p;

	(void)buf_json_key(out, key);
	(void)buf_putc(out, '[');
	json_iter_init(&it, json_get(web, key));
	while (json_iter_next(&it, NULL, &p))
		put_element(&e, p);
	json_iter_init(&it, json_get(own, key));
	while (json_iter_next(&it, NULL, &p))
		if (!has_prompt(all_running, p) && !has_prompt(all_pending, p))
			put_element(&e, p);
	(void)buf_putc(out, ']');
}

static void merge_queue(struct buf *out, struct json own, struct json web)
{
	(void)buf_putc(out, '{');
	merge_queue_list(out, "running", own, web);
	merge_queue_list(out, "pending", own, web);
	(void)buf_puts(out, ",\"others\":0}");
}

/* --- asking --------------------------------------------------------------- */

static void on_web(struct tool_call *c, bool ok, struct json body)
{
	struct tool_prompts *p = c->state;
	struct json own, merged;

	if (json_parse(&own, p->own.data, p->own.len, JSON_NONFINITE, NULL) !=
	    JSON_OK) {
		tool_fail(c, "internal", "out of memory", NULL);
		return;
	}
	if (!ok) {
		p->cb(c, true, own);
		return;
	}
	if (strcmp(p->op, "queue") == 0)
		merge_queue(&p->merged, own, body);
	else
		merge_history(&p->merged, own, body, p->limit);
	if (!buf_ok(&p->merged) ||
	    json_parse(&merged, p->merged.data, p->merged.len, JSON_NONFINITE,
	               NULL) != JSON_OK)
		merged = own;
	p->cb(c, true, merged);
}

static void ask(struct tool_call *c, bool comfyui, tool_answer_cb *cb)
{
	struct tool_prompts *p = c->state;
	cleanup_buf struct buf params = BUF_INIT(128);
	struct tool_ask *a;

	(void)buf_putc(&params, '{');
	if (p->limit > 0)
		(void)buf_printf(&params, "\"limit\":%" PRId64 ",", p->limit);
	(void)buf_printf(&params, "\"comfyui\":%s}",
	                 comfyui ? "true" : "false");
	a = tool_ask_new(c, p->op, span_make(params.data, params.len), cb,
	                 NULL);
	/* Without it the call has failed, and `p` is gone. */
	if (a)
		p->ask = a;
}

/* Whether ComfyUI may know of more that is one's own. */
static bool is_all(const struct tool_call *c, struct json body)
{
	const struct tool_prompts *p = c->state;
	struct link *l = c->host->link;
	uint64_t others;

	if (!link_on_bus(l) || !link_owns_rest(l))
		return true;
	return strcmp(p->op, "queue") == 0 &&
	       json_uint64(json_get(body, "others"), &others) && others == 0;
}

static void on_own(struct tool_call *c, bool ok, struct json body)
{
	struct tool_prompts *p = c->state;

	if (!ok || is_all(c, body)) {
		p->cb(c, ok, body);
		return;
	}
	(void)buf_append(&p->own, body.text.p, body.text.n);
	p->ask = tool_ask_free(p->ask);
	ask(c, true, on_web);
}

void tool_prompts_get(struct tool_call *c, const char *op, int64_t limit,
                      tool_answer_cb *cb)
{
	struct tool_prompts *p = c->state;

	p->cb = cb;
	p->op = op;
	p->limit = limit;
	buf_init(&p->own, PROMPTS_BYTES);
	buf_init(&p->merged, PROMPTS_BYTES);
	ask(c, false, on_own);
}
