/*
 * execute.c - one submission, from the choice of a way to its end.
 *
 *     choose -> submit (bus) -> follow -> end
 *        |         | bus broke: away, at most away_ms
 *        v         v
 *       turn -> look up -> post -> follow -> end
 *                  ^         | reply missing
 *                  '---------'
 *
 * One that is resumed without a bus is looked up at once, but posted only when
 * a supervisor that may have it has been away for away_ms.
 *
 * Rules that keep a prompt from running twice: its id never changes; the
 * supervisor answers the same id like the first time; before a second POST
 * ComfyUI is asked whether it has the id, or our marker of it. Both ways of
 * submitting are in execute_submit.c.
 */
#include "workers/execute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/uuid.h"
#include "workers/execute_private.h"

#define NODE_ERRORS_MAX (4u << 20)

static const char *const state_names[] = {
	[EXECUTE_CHOOSE] = "choose", [EXECUTE_ASK] = "ask",
	[EXECUTE_SUBMIT] = "submit", [EXECUTE_AWAY] = "away",
	[EXECUTE_TURN] = "turn",     [EXECUTE_LOOKUP] = "lookup",
	[EXECUTE_RECALL] = "recall", [EXECUTE_POST] = "post",
	[EXECUTE_FOLLOW] = "follow", [EXECUTE_CANCEL] = "cancel",
	[EXECUTE_DONE] = "done",
};
STATIC_ASSERT_ARRAY_SIZE(state_names, EXECUTE_STATE_COUNT);

static void execute_start_cancel(struct execute *e);

void execute_enter(struct execute *e, enum execute_state s)
{
	if (e->state != s)
		log_debug("execute", "%s -> %s (prompt_id=%s)",
		          state_names[e->state], state_names[s], e->prompt_id);
	e->state = s;
}

void execute_wait(struct execute *e, unsigned ms)
{
	struct ev_loop *loop = link_loop(e->link);

	ev_timer_stop(loop, &e->step);
	ev_timer_set(&e->step, ms / 1000.0, 0.);
	ev_timer_start(loop, &e->step);
}

/* Ends whatever is under way, so that nothing calls back. */
static void execute_stop(struct execute *e)
{
	struct ev_loop *loop = link_loop(e->link);

	ev_timer_stop(loop, &e->timeout);
	ev_timer_stop(loop, &e->step);
	link_watch_remove(e->link, &e->bus);
	link_turn_done(e->link, &e->turn);
	poller_remove(&e->lookup);
	link_forget(e->link, e->ask_id);
	e->ask_id = 0;
	e->cancel = cancel_free(e->cancel);
	if (e->post)
		comfy_call_cancel(e->post);
	e->post = NULL;
	if (e->holds_api)
		link_api_release(e->link);
	e->holds_api = false;
}

/* May free `e`. */
void execute_finish(struct execute *e, enum execute_end end,
                    const struct error *err)
{
	struct json ne = JSON_MISSING;
	struct execute_result r = {
		.end = end,
		.submitted = e->open,
		.error = err,
		.number = e->number,
		.has_number = e->has_number,
	};

	execute_enter(e, EXECUTE_DONE);
	execute_stop(e);
	if (e->node_errors.len > 0 &&
	    json_parse(&ne, e->node_errors.data, e->node_errors.len, 0, NULL))
		ne = JSON_MISSING;
	r.node_errors = ne;
	r.progress = execute_progress(e);
	e->handlers->on_end(e->user, &r);
}

void execute_finish_cancelled(struct execute *e, const char *message)
{
	if (e->follow)
		follow_conclude(e->follow, "cancelled", message);
	else
		(void)progress_fail(e->own, "cancelled", message, NULL);
	execute_finish(e, EXECUTE_CANCELLED, NULL);
}

static void execute_keep_node_errors(struct execute *e, struct json ne)
{
	buf_reset(&e->node_errors);
	if (!json_is(ne, JSON_OBJECT) || json_count(ne) == 0)
		return;
	if (json_compact(&e->node_errors, ne)) {
		buf_reset(&e->node_errors);
		log_warn("execute", "node_errors too long, left out");
	}
}

void execute_finish_refused(struct execute *e, const struct error *err,
                            struct json node_errors)
{
	struct error refused = *err;

	refused.code = ERR_REJECTED;
	execute_keep_node_errors(e, node_errors);
	(void)progress_fail(e->own, "rejected", refused.text, NULL);
	e->open = false;
	execute_finish(e, EXECUTE_REJECTED, &refused);
}

int execute_prove(struct execute *e)
{
	if (!e->unproven)
		return 0;
	e->unproven = e->forged = false;
	return link_claim(e->link, e->prompt_id);
}

void execute_finish_unproven(struct execute *e)
{
	struct error err;

	if (link_on_bus(e->link))
		error_set(&err, ERR_NOT_FOUND,
		          "no prompt %s of yours is known; it was not "
		          "submitted again",
		          e->prompt_id);
	else
		error_set(&err, ERR_UNREACHABLE,
		          "no supervisor (%s) that could tell whether %s is "
		          "yours",
		          link_bus_error(e->link), e->prompt_id);
	e->open = e->open && !e->forged;
	execute_finish(e, EXECUTE_ERROR, &err);
}

int execute_take_id(struct execute *e, const char *id)
{
	struct progress *p;
	char *copy;

	if (strcmp(id, e->prompt_id) == 0)
		return 0;
	copy = strdup(id);
	p = progress_new(id);
	if (!copy || !p) {
		free(copy);
		progress_free(p);
		return -1;
	}
	progress_free(e->own);
	e->own = p;
	free(e->prompt_id);
	e->prompt_id = copy;
	return link_claim(e->link, copy);
}

bool execute_tell_submitted(struct execute *e, struct json node_errors)
{
	bool told = e->told_submitted;

	e->open = e->told_submitted = true;
	execute_keep_node_errors(e, node_errors);
	if (e->submit_only) {
		if (!told && e->handlers->on_submitted)
			e->handlers->on_submitted(e->user, e->prompt_id,
			                          node_errors);
		execute_finish(e, EXECUTE_COMPLETED, NULL);
		return false;
	}
	if (!told && e->handlers->on_submitted)
		e->handlers->on_submitted(e->user, e->prompt_id, node_errors);
	return true;
}

/* --- following ----------------------------------------------------------- */

static bool type_is(const struct cmx_progress *c, const char *type)
{
	return c->error.type && strcmp(c->error.type, type) == 0;
}

static void on_follow_news(void *user, const struct follow_news *news)
{
	struct execute *e = user;

	if (follow_taken(e->follow) && e->workflow.len > 0)
		buf_deinit(&e->workflow);
	if (e->handlers->on_news)
		e->handlers->on_news(e->user, news);
}

static void on_follow_end(void *user, const struct progress *p)
{
	struct execute *e = user;
	const struct cmx_progress *c = progress_get(p);
	struct error err;

	if (c->status == CMX_COMPLETED) {
		execute_finish(e, EXECUTE_COMPLETED, NULL);
	} else if ((e->cancel_took || e->cancel) &&
	           (type_is(c, "cancelled") || type_is(c, "interrupted") ||
	            type_is(c, "deleted") || type_is(c, "lost"))) {
		execute_finish(e, EXECUTE_CANCELLED, NULL);
	} else if (type_is(c, "rejected") || type_is(c, "unreachable")) {
		execute_keep_node_errors(e, follow_node_errors(e->follow));
		error_set(&err,
		          type_is(c, "rejected") ? ERR_REJECTED
		                                 : ERR_UNREACHABLE,
		          "%s", c->error.message ? c->error.message : "");
		execute_finish(e,
		               type_is(c, "rejected") ? EXECUTE_REJECTED
		                                      : EXECUTE_UNREACHABLE,
		               &err);
	} else {
		execute_finish(e, EXECUTE_FAILED, NULL);
	}
}

static void on_follow_unknown(void *user, const struct error *err)
{
	/* A submitted prompt never is. */
	execute_finish(user, EXECUTE_ERROR, err);
}

static void on_follow_preview(void *user, struct json data, int fd)
{
	struct execute *e = user;

	e->handlers->on_preview(e->user, data, fd);
}

static const struct follow_handlers follow_handlers = {
	.on_news = on_follow_news,
	.on_end = on_follow_end,
	.on_unknown = on_follow_unknown,
};

static const struct follow_handlers follow_handlers_previews = {
	.on_news = on_follow_news,
	.on_end = on_follow_end,
	.on_unknown = on_follow_unknown,
	.on_preview = on_follow_preview,
};

void execute_start_follow(struct execute *e, bool subscribed, bool taken)
{
	struct error err;
	struct json told;

	execute_enter(e, EXECUTE_FOLLOW);
	e->away_since = 0;
	ev_timer_stop(link_loop(e->link), &e->step);
	if (!e->follow)
		e->follow = follow_new(e->link, e->prompt_id, true, subscribed,
		                       e->handlers->on_preview
		                               ? &follow_handlers_previews
		                               : &follow_handlers,
		                       e, &err);
	if (!e->follow) {
		execute_finish(e, EXECUTE_ERROR, &err);
		return;
	}
	if (e->every_event)
		follow_every_event(e->follow);
	if (e->told.len > 0 &&
	    json_parse(&told, e->told.data, e->told.len, 0, NULL) == JSON_OK)
		(void)follow_resume(e->follow, told);
	buf_deinit(&e->told);
	if (taken) {
		follow_set_taken(e->follow);
		buf_deinit(&e->workflow);
	}
	if (e->cancelled)
		execute_start_cancel(e);
}

/* --- which way ----------------------------------------------------------- */

/* Nothing was found to follow, but somebody may have the prompt. */
static void on_blind_cancel(void *user, const char *how,
                            const struct error *err)
{
	struct execute *e = user;

	e->cancel = NULL;
	if (err && link_owes_cancel(e->link, e->prompt_id))
		execute_finish_cancelled(e, err->text);
	else
		execute_finish_cancelled(
			e, how ? "cancelled"
			       : "cancelled before it was known to ComfyUI");
}

static void execute_cancel_blindly(struct execute *e)
{
	struct error err;

	execute_enter(e, EXECUTE_CANCEL);
	cancel_free(e->cancel);
	e->cancel = cancel_new(e->link, e->prompt_id, on_blind_cancel, e, &err);
	if (!e->cancel)
		execute_finish_cancelled(e, err.text);
}

void execute_choose(struct execute *e)
{
	execute_enter(e, EXECUTE_CHOOSE);
	ev_timer_stop(link_loop(e->link), &e->step);
	if (e->cancelled && !e->open) {
		execute_finish_cancelled(e,
		                         "cancelled before it was submitted");
	} else if (link_on_bus(e->link)) {
		e->away_since = 0;
		link_turn_done(e->link, &e->turn);
		if (e->cancelled)
			execute_cancel_blindly(e);
		else if (e->look_first)
			execute_ask(e);
		else
			execute_submit(e);
	} else if (link_bus_pending(e->link)) {
		return; /* execute_on_bus comes */
	} else if (e->cancelled) {
		execute_cancel_blindly(e);
	} else if (e->unproven) {
		execute_go_away(e);
	} else if (e->look_first && !e->turn.held) {
		e->lookups = 0;
		execute_look_up(e, true);
	} else {
		execute_take_turn(e);
	}
}

static void execute_on_bus(void *user, bool up)
{
	struct execute *e = user;

	switch (e->state) {
	case EXECUTE_CHOOSE:
		execute_choose(e);
		return;
	case EXECUTE_LOOKUP:
		if (!up || e->posted)
			return;
		poller_remove(&e->lookup);
		execute_choose(e);
		return;
	case EXECUTE_AWAY:
	case EXECUTE_TURN: /* a supervisor gives turns of its own */
		if (up)
			execute_choose(e);
		return;
	case EXECUTE_FOLLOW:
		/* The supervisor took it, ComfyUI hasn't yet: it may be gone
		 * with what it took. */
		if (up)
			e->away_since = 0;
		if (!up && e->on_bus && !follow_taken(e->follow)) {
			e->away_since = clock_ms();
			execute_wait(e, link_patience(e->link)->away_ms);
		}
		return;
	default:
		return;
	}
}

/* Away for too long: under the same id, directly. */
static void execute_leave_bus(struct execute *e)
{
	e->follow = follow_free(e->follow);
	e->look_first = true;
	e->lookups = 0;
	e->on_bus = false;
	e->cancel = cancel_free(e->cancel);
	if (e->cancelled)
		execute_cancel_blindly(e);
	else
		execute_take_turn(e);
}

static void on_step(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct execute *e = container_of(t, struct execute, step);

	switch (e->state) {
	case EXECUTE_CHOOSE:
	case EXECUTE_TURN:
		execute_choose(e);
		return;
	case EXECUTE_LOOKUP:
		execute_look_up(e, true);
		return;
	case EXECUTE_AWAY:
		if (link_on_bus(e->link))
			execute_choose(e);
		else if (link_bus_pending(e->link))
			execute_enter(e, EXECUTE_CHOOSE);
		else
			execute_leave_bus(e);
		return;
	case EXECUTE_FOLLOW:
		if (e->away_since == 0 || follow_taken(e->follow))
			return;
		if (!link_bus_pending(e->link) && !link_on_bus(e->link))
			execute_leave_bus(e);
		return;
	default:
		return;
	}
}

static void on_timeout(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct execute *e = container_of(t, struct execute, timeout);
	struct error err;

	error_set(&err, ERR_TIMEOUT, "%s%s%s",
	          e->open ? "not finished in time; the prompt runs on"
	                  : "not submitted in time",
	          e->trouble.code != ERR_NONE && !e->told_submitted ? ": " : "",
	          e->trouble.code != ERR_NONE && !e->told_submitted
	                  ? e->trouble.text
	                  : "");
	execute_finish(e, EXECUTE_TIMED_OUT, &err);
}

/* --- cancelling ---------------------------------------------------------- */

static void on_cancel(void *user, const char *how, const struct error *err)
{
	struct execute *e = user;

	e->cancel = NULL;
	if (err && link_owes_cancel(e->link, e->prompt_id)) {
		execute_finish_cancelled(e, err->text);
		return;
	}
	if (err) {
		/* Gone, or out of reach: the follow tells how it ends. */
		if (err->code == ERR_NOT_FOUND)
			e->cancel_took = true;
		else
			link_notice(e->link, "could not cancel %s: %s",
			            e->prompt_id, err->text);
		return;
	}
	/* Over, perhaps, by a cancel before this one. */
	if (strcmp(how, "ended") != 0)
		e->cancel_took = true;
	if (strcmp(how, "dequeued") == 0)
		execute_finish_cancelled(e, "cancelled while it was queued");
}

static void execute_start_cancel(struct execute *e)
{
	struct error err;

	if (e->cancel)
		return;
	e->cancel = cancel_new(e->link, e->prompt_id, on_cancel, e, &err);
	if (!e->cancel)
		link_notice(e->link, "could not cancel %s: %s", e->prompt_id,
		            err.text);
}

void execute_cancel(struct execute *e)
{
	e->cancelled = true;
	switch (e->state) {
	case EXECUTE_CHOOSE:
	case EXECUTE_TURN:
		execute_wait(e, 0);
		return;
	case EXECUTE_AWAY:
		execute_wait(e, link_patience(e->link)->away_cancel_ms);
		return;
	case EXECUTE_FOLLOW:
		execute_start_cancel(e);
		return;
	default:
		/* The next answer leads on. */
		return;
	}
}

/* --- life ---------------------------------------------------------------- */

static int execute_copy(struct execute *e, const struct execute_options *o,
                        struct error *err)
{
	char id[UUID_LEN + 1];

	if (!o->prompt_id && uuid_new(id))
		return error_set(err, ERR_SYSTEM, "no random bytes");
	e->prompt_id = strdup(o->prompt_id ? o->prompt_id : id);
	if (!e->prompt_id)
		return error_set_nomem(err, "prompt");
	e->own = progress_new(e->prompt_id);
	if (!e->own)
		return error_set(err, ERR_INVALID,
		                 "prompt_id is longer than %d bytes",
		                 PROGRESS_ID_MAX);
	buf_init(&e->workflow, o->workflow.n + 1);
	buf_init(&e->told, o->told.text.n + 1);
	if (json_is(o->told, JSON_OBJECT) &&
	    buf_append(&e->told, o->told.text.p, o->told.text.n))
		return error_set_nomem(err, "progress");
	if (buf_append(&e->workflow, o->workflow.p, o->workflow.n) ||
	    (!e->unproven && link_claim(e->link, e->prompt_id)))
		return error_set_nomem(err, "workflow");
	return 0;
}

struct execute *execute_new(struct link *l, const struct execute_options *o,
                            const struct execute_handlers *h, void *user,
                            struct error *err)
{
	struct execute *e = calloc(1, sizeof(*e));

	if (!e) {
		error_set_nomem(err, "execute");
		return NULL;
	}
	e->link = l;
	e->handlers = h;
	e->user = user;
	e->submit_only = o->submit_only;
	e->hold = o->hold;
	e->every_event = o->every_event;
	e->open = e->look_first = o->resume;
	e->forged = o->resume && link_doubts_records(l);
	e->unproven = e->forged || (o->chosen && !link_may_see_all(l));
	e->trouble.code = ERR_NONE;
	buf_init(&e->node_errors, NODE_ERRORS_MAX);
	ev_timer_init(&e->timeout, on_timeout, 0., 0.);
	ev_timer_init(&e->step, on_step, 0., 0.);
	if (execute_copy(e, o, err))
		return execute_free(e);
	execute_submit_init(e);
	e->bus = (struct link_watch){
		.prompt_id = "", /* no events, the follow has them */
		.on_bus = execute_on_bus,
		.user = e,
	};
	link_watch_add(l, &e->bus);
	if (o->timeout_ms > 0) {
		ev_timer_set(&e->timeout, (double)o->timeout_ms / 1000.0, 0.);
		ev_timer_start(link_loop(l), &e->timeout);
	}
	execute_wait(e, 0);
	return e;
}

struct execute *execute_free(struct execute *e)
{
	if (!e)
		return NULL;
	execute_stop(e);
	e->follow = follow_free(e->follow);
	e->own = progress_free(e->own);
	buf_deinit(&e->workflow);
	buf_deinit(&e->told);
	buf_deinit(&e->node_errors);
	free(e->prompt_id);
	free(e);
	return NULL;
}

const char *execute_prompt_id(const struct execute *e)
{
	return e->prompt_id;
}

const struct progress *execute_progress(const struct execute *e)
{
	return e->follow ? follow_progress(e->follow) : e->own;
}
