/*
 * execute_submit.c - giving the prompt away: by op submit over the bus, or by
 * POST to ComfyUI.
 *
 * What both have in common is the answer that doesn't come. A supervisor is
 * simply asked again; ComfyUI is first asked whether it has the id, and not
 * only once, for the POST that broke off may still be under validation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/comfy_marker.h"
#include "common/comfy_reply.h"
#include "common/workflow.h"
#include "workers/execute_private.h"

#define SUBMIT_FIELDS_MAX 1024 /* bytes around the workflow */

/* --- over the bus -------------------------------------------------------- */

/* Since when the supervisor has been away decides, not how often a new bus came
 * and broke. */
void execute_go_away(struct execute *e)
{
	const struct link_patience *p = link_patience(e->link);
	int64_t patience = e->cancelled ? p->away_cancel_ms : p->away_ms;
	int64_t left;

	e->asks = 0;
	if (e->away_since == 0)
		e->away_since = clock_ms();
	left = e->away_since + patience - clock_ms();
	if (left < 0)
		left = 0;
	/* The timer tells; execute_on_bus, if a bus is quicker. */
	execute_enter(e, EXECUTE_AWAY);
	execute_wait(e, (unsigned)left);
}

/* It is stopping, and took nothing: the end of the bus leads on. */
static void execute_wait_for_its_end(struct execute *e)
{
	if (e->asked_in_vain) {
		execute_go_away(e);
		return;
	}
	e->open = false;
	execute_enter(e, EXECUTE_CHOOSE);
	execute_wait(e, EXECUTE_BUSY_MS);
}

static void execute_refused_by_bus(struct execute *e, const struct incoming *in,
                                   const struct error *err)
{
	if (err->code == ERR_BUSY && ++e->busy <= EXECUTE_BUSY_MAX) {
		execute_wait_for_its_end(e);
		return;
	}
	switch (err->code) {
	case ERR_REJECTED:
		execute_finish_refused(e, err,
		                       json_get(in->error, "node_errors"));
		return;
	case ERR_UNREACHABLE:
		(void)progress_fail(e->own, "unreachable", err->text, NULL);
		e->open = false;
		execute_finish(e, EXECUTE_UNREACHABLE, err);
		return;
	default:
		e->open = false;
		execute_finish(e, EXECUTE_ERROR, err);
		return;
	}
}

static void on_submit_reply(void *user, const struct incoming *in,
                            const struct error *err)
{
	struct execute *e = user;
	cleanup_free char *id = NULL;
	struct error bad;

	e->ask_id = 0;
	if (err && in) {
		execute_refused_by_bus(e, in, err);
		return;
	}
	if (err && err->code == ERR_TIMEOUT && e->asks >= EXECUTE_ASKS_MAX) {
		bad = *err;
		bad.code = ERR_UNREACHABLE; /* it is not his time that is up */
		execute_finish(e, EXECUTE_ERROR, &bad);
		return;
	}
	if (err) {
		/* Perhaps taken, perhaps not; asking again does no harm. */
		e->asked_in_vain = true;
		if (err->code == ERR_TIMEOUT)
			execute_choose(e);
		else
			execute_go_away(e);
		return;
	}
	id = json_string_dup(json_get(in->result, "prompt_id"),
	                     PROGRESS_ID_MAX);
	if (!id || execute_prove(e) || execute_take_id(e, id)) {
		error_set(&bad, ERR_PROTOCOL,
		          "the supervisor's reply to submit is not usable");
		execute_finish(e, EXECUTE_ERROR, &bad);
		return;
	}
	e->on_bus = true;
	e->has_number = json_double(json_get(in->result, "number"), &e->number);
	(void)progress_fold_snapshot(e->own, in->result);
	if (execute_tell_submitted(e, json_get(in->result, "node_errors")))
		execute_start_follow(e, true, e->has_number);
}

static int execute_submit_text(const struct execute *e, struct buf *b)
{
	struct json workflow;

	buf_init(b, e->workflow.len + SUBMIT_FIELDS_MAX);
	if (json_parse(&workflow, e->workflow.data, e->workflow.len,
	               JSON_NONFINITE, NULL))
		return -1;
	buf_putc(b, '{');
	buf_json_key(b, "prompt_id");
	buf_json_string(b, e->prompt_id, strlen(e->prompt_id));
	if (!e->submit_only)
		buf_puts(b, ",\"subscribe\":true");
	if (!e->submit_only && e->handlers->on_preview)
		buf_puts(b, ",\"previews\":true");
	if (e->hold)
		buf_puts(b, ",\"hold\":true");
	buf_json_key(b, "workflow");
	/* One line, and no NaN: the bus carries JSON. */
	json_compact(b, workflow);
	buf_putc(b, '}');
	return buf_ok(b) ? 0 : -1;
}

void execute_submit(struct execute *e)
{
	cleanup_buf struct buf b = BUF_INIT(1);
	struct error err;

	if (execute_submit_text(e, &b)) {
		error_set_nomem(&err, "submission");
		execute_finish(e, EXECUTE_ERROR, &err);
		return;
	}
	execute_enter(e, EXECUTE_SUBMIT);
	progress_set_method(e->own, CMX_WEBSOCKET);
	e->asks++;
	e->ask_id = link_ask(e->link, OP_SUBMIT, span_make(b.data, b.len), 0,
	                     on_submit_reply, e, &err);
	if (e->ask_id)
		e->open = true;
	else
		execute_finish(e, EXECUTE_ERROR, &err);
}

void execute_take_turn(struct execute *e)
{
	if (e->unproven) {
		execute_finish_unproven(e);
		return;
	}
	execute_enter(e, EXECUTE_TURN);
	progress_set_method(e->own, CMX_POLLING);
	link_turn_done(e->link, &e->turn);
	link_turn_ask(e->link, &e->turn);
}

static void on_ask_reply(void *user, const struct incoming *in,
                         const struct error *err)
{
	struct execute *e = user;
	struct error bad;

	e->ask_id = 0;
	if (!err && execute_prove(e)) {
		error_set_nomem(&bad, "prompt id");
		execute_finish(e, EXECUTE_ERROR, &bad);
	} else if (!err) {
		e->on_bus = true;
		(void)progress_fold_snapshot(e->own, in->result);
		if (execute_tell_submitted(e, JSON_MISSING))
			execute_start_follow(e, false, false);
	} else if (in && err->code == ERR_NOT_FOUND && e->unproven &&
	           !e->forged) {
		/* A tenant's worker gave it to nobody else. */
		execute_submit(e);
	} else if (in && err->code == ERR_NOT_FOUND) {
		/* A predecessor may have posted it past the supervisor. */
		execute_take_turn(e);
	} else if (!in) {
		execute_go_away(e);
	} else {
		execute_finish(e, EXECUTE_ERROR, err);
	}
}

void execute_ask(struct execute *e)
{
	cleanup_buf struct buf b = BUF_INIT(SUBMIT_FIELDS_MAX);
	struct error err;

	buf_putc(&b, '{');
	buf_json_key(&b, "prompt_id");
	buf_json_string(&b, e->prompt_id, strlen(e->prompt_id));
	buf_putc(&b, '}');
	execute_enter(e, EXECUTE_ASK);
	e->ask_id = link_ask(e->link, OP_PROGRESS, span_make(b.data, b.len), 0,
	                     on_ask_reply, e, &err);
	if (!e->ask_id)
		execute_finish(e, EXECUTE_ERROR, &err);
}

/* --- directly ------------------------------------------------------------ */

static void execute_post(struct execute *e);

void execute_look_up(struct execute *e, bool soon)
{
	execute_enter(e, EXECUTE_LOOKUP);
	e->lookup.prompt_id = e->prompt_id;
	poller_add(link_poller(e->link), &e->lookup, soon);
}

/* Nobody answered. What was never handed over is over; what may have been
 * taken by somebody is tried again for as long as the caller waits. */
static void execute_out_of_reach(struct execute *e, const struct error *err)
{
	e->trouble = *err;
	if (!e->open) {
		(void)progress_fail(e->own, "unreachable", err->text, NULL);
		execute_finish(e, EXECUTE_UNREACHABLE, err);
		return;
	}
	e->look_first = true;
	e->lookups = 0;
	execute_look_up(e, false);
}

/* A supervisor that was there may have the prompt in its queue, and is going to
 * post it when it is back. */
static bool execute_is_held(struct execute *e)
{
	if (e->posted || !link_had_bus(e->link))
		return false;
	if (e->away_since == 0)
		e->away_since = clock_ms();
	return clock_ms() - e->away_since <
	       (int64_t)link_patience(e->link)->away_ms;
}

/* ComfyUI has it, under `id` if that isn't NULL. */
static void execute_found(struct execute *e, const char *id)
{
	struct error err;

	if (id && execute_take_id(e, id)) {
		error_set_nomem(&err, "prompt id");
		execute_finish(e, EXECUTE_ERROR, &err);
	} else if (execute_tell_submitted(e, JSON_MISSING)) {
		execute_start_follow(e, false, true);
	}
}

static void on_recalled(void *user, const struct comfy_result *r)
{
	struct execute *e = user;
	struct span id = SPAN_NULL;
	struct json entry;
	char copy[COMFY_PROMPT_ID_MAX + 1];

	e->post = NULL;
	if (r->outcome != COMFY_OK) {
		/* Not before that is known. */
		e->trouble = r->error;
		e->lookups = 0;
		execute_look_up(e, false);
		return;
	}
	entry = comfy_history_marked(r->body, e->prompt_id, &id);
	if (json_is(entry, JSON_OBJECT) && id.n <= COMFY_PROMPT_ID_MAX) {
		memcpy(copy, id.p, id.n);
		copy[id.n] = '\0';
		execute_found(e, copy);
	} else if (e->cancelled) {
		execute_finish_cancelled(e,
		                         "cancelled before it was submitted");
	} else {
		execute_post(e);
	}
}

/* A server that chooses ids itself (before 0.3.45) may have got it from us, or
 * from a supervisor, and be through with it. */
static void execute_recall(struct execute *e)
{
	struct error err = ERROR_NULL;
	struct comfy_api *api = link_api(e->link, &err);

	execute_enter(e, EXECUTE_RECALL);
	if (api && !e->holds_api) {
		link_api_hold(e->link);
		e->holds_api = true;
	}
	e->post = api ? comfy_list_history(api, COMFY_MARKED_MAX, on_recalled,
	                                   e, &err)
	              : NULL;
	if (!e->post)
		execute_finish(e, EXECUTE_ERROR, &err);
}

static void on_looked_up(void *user, const struct poller_news *n)
{
	struct execute *e = user;

	poller_remove(&e->lookup);
	if (n->found != POLLER_MISSING) {
		execute_found(e, n->remote_id);
		return;
	}
	if (++e->lookups < EXECUTE_LOOKUPS_MAX) {
		execute_wait(e, link_patience(e->link)->lookup_gap_ms);
		return;
	}
	if (e->cancelled) {
		execute_finish_cancelled(e,
		                         "cancelled before it was submitted");
		return;
	}
	/* A supervisor that came meanwhile gives the turns; what was posted
	 * past it stays there. */
	if (link_on_bus(e->link) && !e->posted) {
		link_turn_done(e->link, &e->turn);
		execute_submit(e);
	} else if (execute_is_held(e)) {
		/* Others need not wait for that. */
		link_turn_done(e->link, &e->turn);
		execute_wait(e, link_poll_ms(e->link));
	} else if (!e->turn.held) {
		execute_take_turn(e);
	} else {
		execute_recall(e);
	}
}

static void on_lookup_trouble(void *user, const struct error *err)
{
	struct execute *e = user;

	/* The poller goes on trying. */
	e->trouble = *err;
	if (e->cancelled)
		execute_finish_cancelled(
			e, "cancelled; ComfyUI does not answer, so it is not "
			   "known whether it has the prompt");
}

static bool status_means_gateway(int status)
{
	return status == 502 || status == 503 || status == 504;
}

/* The reply is missing or says nothing about the prompt. */
static void execute_post_unknown(struct execute *e, const struct error *err)
{
	e->trouble = *err;
	e->open = true;
	if (++e->unknowns >= EXECUTE_POSTS_MAX) {
		(void)progress_fail(e->own, "unreachable", err->text, NULL);
		execute_finish(e, EXECUTE_UNREACHABLE, err);
		return;
	}
	e->lookups = 0;
	e->look_first = true;
	execute_look_up(e, true);
}

static void execute_refused(struct execute *e, const struct comfy_result *r)
{
	cleanup_buf struct buf text = BUF_INIT(ERROR_TEXT_MAX - 1);
	struct error err = r->error;

	err.code = ERR_REJECTED;
	if (json_is(r->body, JSON_OBJECT)) {
		workflow_refusal_text(r->body, &text);
		while (text.len > 0 && text.data[text.len - 1] == '\n')
			text.len--;
		if (text.len > 0)
			error_set(&err, ERR_REJECTED, "%.*s", (int)text.len,
			          text.data);
	}
	execute_finish_refused(e, &err, json_get(r->body, "node_errors"));
}

static void execute_posted(struct execute *e, const struct comfy_submitted *s)
{
	struct error err;

	if (execute_take_id(e, s->prompt_id)) {
		error_set(&err, ERR_INTERNAL,
		          "ComfyUI's prompt id is longer than %d bytes",
		          PROGRESS_ID_MAX);
		execute_finish(e, EXECUTE_ERROR, &err);
		return;
	}
	e->number = s->number;
	e->has_number = true;
	if (execute_tell_submitted(e, s->node_errors))
		execute_start_follow(e, false, true);
}

static void on_posted(void *user, const struct comfy_submitted *s)
{
	struct execute *e = user;
	const struct comfy_result *r = &s->r;

	e->post = NULL;
	switch (r->outcome) {
	case COMFY_OK:
		execute_posted(e, s);
		return;
	case COMFY_E_REJECTED:
		execute_refused(e, r);
		return;
	case COMFY_E_UNREACHABLE:
		execute_out_of_reach(e, &r->error);
		return;
	case COMFY_E_UNKNOWN:
		execute_post_unknown(e, &r->error);
		return;
	case COMFY_E_STATUS:
		if (status_means_gateway(r->status))
			execute_post_unknown(e, &r->error);
		else
			execute_refused(e, r);
		return;
	case COMFY_E_REPLY:
	case COMFY_E_NOT_FOUND:
	case COMFY_E_LOCAL:
		execute_finish(e, EXECUTE_ERROR, &r->error);
		return;
	}
}

static void execute_post(struct execute *e)
{
	struct error err = ERROR_NULL;
	struct comfy_api *api = link_api(e->link, &err);
	struct comfy_submission s = {
		.workflow = {e->workflow.data, e->workflow.len},
		.prompt_id = e->prompt_id,
		.client_id = link_client_id(e->link),
	};

	execute_enter(e, EXECUTE_POST);
	e->posted = true;
	if (api && !e->holds_api) {
		link_api_hold(e->link);
		e->holds_api = true;
	}
	e->post = api ? comfy_submit(api, &s, on_posted, e, &err) : NULL;
	if (!e->post)
		execute_finish(e, EXECUTE_ERROR, &err);
}

static void on_turn(void *user)
{
	struct execute *e = user;

	link_tell_polling(e->link);
	if (e->look_first)
		execute_look_up(e, true);
	else
		execute_post(e);
}

void execute_submit_init(struct execute *e)
{
	e->turn = (struct link_turn){.on_turn = on_turn, .user = e};
	e->lookup = (struct poller_watch){
		.prompt_id = e->prompt_id,
		.on_polled = on_looked_up,
		.on_trouble = on_lookup_trouble,
		.marked = true,
		.user = e,
	};
}
