/*
 * follow.c - one prompt's progress from whichever source there is.
 *
 * On the bus the supervisor has folded the events already, and `progress` of
 * each is its whole state: so that is what is taken over, by
 * progress_fold_snapshot, which never runs backwards. Alone, the poller tells.
 */
#include "workers/follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "workers/poller.h"

#define NODE_ERRORS_MAX (1u << 20) /* bytes kept of a late refusal */

struct follow {
	struct link *link;
	char *prompt_id;
	struct progress *progress;
	const struct follow_handlers *handlers;
	void *user;
	struct link_watch bus;
	struct poller_watch poll;
	uint64_t subscribe_id; /* question under way, 0: none */
	bool subscribed;       /* events come */
	bool every_event;      /* those that change nothing, too */
	bool polling;
	bool submitted, taken;
	bool known;        /* somebody has told something of it */
	unsigned missing;  /* rounds in a row */
	bool deleted;      /* in the first of them it was found to be */
	uint64_t next_seq; /* events counted lower are old */
	char epoch[64];    /* of next_seq */
	struct buf node_errors;
};

/* With `soon` for the first answer; when a supervisor dies all its workers
 * come here at once, and spread out. */
static void follow_poll(struct follow *f, bool soon)
{
	/* Another tenant's prompt is not to be looked at with our rights. */
	if (f->polling || !link_may_see(f->link, f->prompt_id))
		return;
	f->polling = true;
	f->missing = 0;
	progress_set_method(f->progress, CMX_POLLING);
	poller_add(link_poller(f->link), &f->poll, soon);
}

static void follow_stop_polling(struct follow *f)
{
	f->polling = false;
	poller_remove(&f->poll);
}

/* No callback comes after this. */
static void follow_stop(struct follow *f)
{
	follow_stop_polling(f);
	link_forget(f->link, f->subscribe_id);
	f->subscribe_id = 0;
	link_watch_remove(f->link, &f->bus);
}

static void follow_end(struct follow *f)
{
	follow_stop(f);
	f->subscribed = false;
	f->handlers->on_end(f->user, f->progress);
}

static void follow_end_unknown(struct follow *f, const struct error *err)
{
	follow_stop(f);
	f->handlers->on_unknown(f->user, err);
}

static void follow_tell(struct follow *f, enum event event, struct json data,
                        unsigned change)
{
	struct follow_news n = {
		.event = event,
		.data = data,
		.change = change,
		.progress = f->progress,
	};

	if (change != PROGRESS_SAME || f->every_event)
		f->handlers->on_news(f->user, &n);
}

/* Ids come from a peer: one with a NUL in it is none. */
static void follow_keep_node_errors(struct follow *f, struct json data)
{
	struct json ne = json_get(data, "node_errors");

	if (!json_is(ne, JSON_OBJECT))
		return;
	buf_reset(&f->node_errors);
	if (json_compact(&f->node_errors, ne))
		log_warn("follow", "node_errors of a refused prompt left out");
}

/* What makes certain that ComfyUI has, or had, the prompt. */
static bool event_proves_taken(enum event e)
{
	switch (e) {
	case EVENT_SUBMITTED:
	case EVENT_EXECUTION_START:
	case EVENT_EXECUTION_CACHED:
	case EVENT_EXECUTING:
	case EVENT_PROGRESS:
	case EVENT_PROGRESS_STATE:
	case EVENT_EXECUTED:
	case EVENT_EXECUTION_SUCCESS:
	case EVENT_EXECUTION_ERROR:
	case EVENT_EXECUTION_INTERRUPTED:
		return true;
	default:
		return false;
	}
}

/* An event that was counted before is old news; a snapshot is always taken,
 * for what it repeats changes nothing. */
static bool follow_is_old(struct follow *f, const struct incoming *ev)
{
	const char *epoch = link_epoch(f->link);

	if (strcmp(f->epoch, epoch) != 0) {
		(void)snprintf(f->epoch, sizeof(f->epoch), "%s", epoch);
		f->next_seq = 0;
	}
	if (ev->event != EVENT_SNAPSHOT && ev->seq < f->next_seq)
		return true;
	if (ev->seq >= f->next_seq)
		f->next_seq = ev->seq + 1;
	return false;
}

/* The step within a node is in the event alone: `progress` has its fraction. */
static unsigned follow_fold_step(struct follow *f, const struct incoming *ev)
{
	struct comfy_event step;

	if ((ev->event != EVENT_PROGRESS &&
	     ev->event != EVENT_PROGRESS_STATE) ||
	    comfy_event_from(&step, event_table[ev->event].name, ev->data) !=
	            COMFY_EVENT_OK)
		return PROGRESS_SAME;
	return progress_fold_event(f->progress, &step);
}

static void follow_on_event(void *user, const struct incoming *ev)
{
	struct follow *f = user;
	unsigned change;

	if (ev->event == EVENT_COUNT || follow_is_old(f, ev))
		return;
	f->known = f->subscribed = true;
	change = follow_fold_step(f, ev);
	change |= progress_fold_snapshot(f->progress, ev->progress);
	if (event_proves_taken(ev->event) ||
	    progress_get(f->progress)->status == CMX_EXECUTING)
		f->taken = true;
	if (ev->event == EVENT_FINISHED)
		follow_keep_node_errors(f, ev->data);
	/* `executing` null may bring the final status along, but the outputs
	 * and the verdict come with finished. */
	if (progress_ended(f->progress) &&
	    (ev->event == EVENT_FINISHED || ev->event == EVENT_SNAPSHOT ||
	     ev->event == EVENT_POLLED))
		follow_end(f);
	else
		follow_tell(f, ev->event, ev->data, change);
}

static void follow_on_preview(void *user, struct json data, int fd)
{
	struct follow *f = user;

	f->handlers->on_preview(f->user, data, fd);
}

static void on_subscribed(void *user, const struct incoming *in,
                          const struct error *err)
{
	struct follow *f = user;

	f->subscribe_id = 0;
	if (!err) {
		f->subscribed = f->known = true;
		if (link_claim(f->link, f->prompt_id))
			log_warn("follow", "no memory to note a prompt");
		follow_stop_polling(f);
		return;
	}
	if (!in) {
		/* If the bus broke follow_on_bus is called next; if the answer
		 * is only late, polling fills in. */
		if (err->code != ERR_UNREACHABLE)
			follow_poll(f, true);
		return;
	}
	if (f->submitted || f->known ||
	    (err->code == ERR_NOT_FOUND && link_owns_rest(f->link))) {
		log_debug(
			"follow",
			"the supervisor doesn't know it: polling (prompt_id=%s)",
			f->prompt_id);
		/* Then ComfyUI has it, or nobody. */
		if (err->code == ERR_NOT_FOUND && (f->submitted || f->known))
			f->taken = true;
		follow_poll(f, true);
		return;
	}
	follow_end_unknown(f, err);
}

static int follow_subscribe(struct follow *f, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(4096);

	buf_putc(&b, '{');
	buf_json_key(&b, "prompt_id");
	buf_json_string(&b, f->prompt_id, strlen(f->prompt_id));
	if (f->handlers->on_preview)
		buf_puts(&b, ",\"previews\":true");
	buf_putc(&b, '}');
	if (!buf_ok(&b))
		return error_set_nomem(err, "subscribe");
	f->subscribe_id =
		link_ask(f->link, OP_SUBSCRIBE, span_make(b.data, b.len), 0,
	                 on_subscribed, f, err);
	return f->subscribe_id ? 0 : -1;
}

/* Starts whatever the link offers now. While hello and attach are open neither
 * is begun: follow_on_bus comes with the answer. */
static void follow_start(struct follow *f, bool soon)
{
	struct error err;

	if (link_on_bus(f->link)) {
		if (follow_subscribe(f, &err)) {
			log_warn("follow", "%s; polling (prompt_id=%s)",
			         err.text, f->prompt_id);
			follow_poll(f, true);
		}
	} else if (!link_bus_pending(f->link)) {
		follow_poll(f, soon);
	}
}

static void follow_on_bus(void *user, bool up)
{
	struct follow *f = user;
	bool had_events = f->subscribed;

	link_forget(f->link, f->subscribe_id);
	f->subscribe_id = 0;
	f->subscribed = false;
	/* Polling goes on until the subscription stands. */
	follow_start(f, !had_events);
}

static void follow_on_missing(struct follow *f, bool deleted)
{
	struct error err;

	f->missing++;
	f->deleted |= deleted;
	if (f->taken) {
		if (f->missing < FOLLOW_MISSING_MAX)
			return;
		if (f->deleted)
			progress_fail(f->progress, "deleted",
			              "Removed from ComfyUI's queue by someone "
			              "else; it did not run",
			              NULL);
		progress_fail(f->progress, "lost",
		              "ComfyUI does not know the prompt any more: it "
		              "was deleted from the queue, the history was "
		              "cleared, or ComfyUI was restarted",
		              NULL);
		follow_end(f);
	} else if (!f->submitted && !f->known) {
		error_set(&err, ERR_NOT_FOUND,
		          "no such prompt: %s is neither in the queue nor in "
		          "the history of ComfyUI",
		          f->prompt_id);
		follow_end_unknown(f, &err);
	}
}

static void follow_on_polled(void *user, const struct poller_news *n)
{
	struct follow *f = user;
	unsigned change = PROGRESS_SAME;

	switch (n->found) {
	case POLLER_MISSING:
		follow_on_missing(f, n->deleted);
		return;
	case POLLER_PENDING:
		change = progress_fold_queued(f->progress, n->ahead,
		                              CMX_POLLING);
		break;
	case POLLER_RUNNING:
		change = progress_fold_running(f->progress, CMX_POLLING);
		break;
	case POLLER_ENDED:
		(void)progress_fold_history(f->progress, n->entry, CMX_POLLING);
		if (!progress_ended(f->progress))
			progress_fail(f->progress, "lost",
			              "ComfyUI's history of the prompt cannot "
			              "be read",
			              NULL);
		break;
	}
	f->missing = 0;
	f->deleted = false;
	f->known = f->taken = true;
	if (progress_ended(f->progress))
		follow_end(f);
	else
		follow_tell(f, EVENT_COUNT, JSON_MISSING, change);
}

static void follow_on_trouble(void *user, const struct error *err)
{
	struct follow *f = user;

	if (f->handlers->on_trouble)
		f->handlers->on_trouble(f->user, err);
}

struct follow *follow_new(struct link *l, const char *prompt_id, bool submitted,
                          bool subscribed, const struct follow_handlers *h,
                          void *user, struct error *err)
{
	struct follow *f = calloc(1, sizeof(*f));

	if (!f) {
		error_set_nomem(err, "follow");
		return NULL;
	}
	f->link = l;
	f->handlers = h;
	f->user = user;
	f->submitted = submitted;
	/* No supervisor can hold it. */
	f->taken = submitted && !link_had_bus(l);
	buf_init(&f->node_errors, NODE_ERRORS_MAX);
	f->prompt_id = strdup(prompt_id);
	f->progress = progress_new(prompt_id);
	if (!f->prompt_id || !f->progress ||
	    (submitted && link_claim(l, prompt_id))) {
		error_set(err, ERR_INVALID,
		          "prompt id longer than %d bytes, or out of memory",
		          PROGRESS_ID_MAX);
		return follow_free(f);
	}
	f->bus = (struct link_watch){
		.prompt_id = f->prompt_id,
		.on_event = follow_on_event,
		.on_preview = h->on_preview ? follow_on_preview : NULL,
		.on_bus = follow_on_bus,
		.user = f,
	};
	f->poll = (struct poller_watch){
		.prompt_id = f->prompt_id,
		.on_polled = follow_on_polled,
		.on_trouble = follow_on_trouble,
		.user = f,
	};
	link_watch_add(l, &f->bus);
	f->subscribed = subscribed && link_on_bus(l);
	if (!f->subscribed)
		follow_start(f, true);
	return f;
}

bool follow_resume(struct follow *f, struct json told)
{
	struct json status = json_get(told, "status");

	if (json_string_eq(status, "executing"))
		f->taken = true;
	else if (!json_string_eq(status, "queued"))
		return false;
	(void)progress_fold_snapshot(f->progress, told);
	f->known = true;
	return true;
}

static void on_unsubscribed(void *user, const struct incoming *in,
                            const struct error *err)
{
	/* The prompt ended, or the bus did: nothing left to do either way. */
}

/* The supervisor would go on sending; unless somebody else here listens. */
static void follow_unsubscribe(struct follow *f)
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	struct error err;

	if (link_watched(f->link, f->prompt_id))
		return;
	buf_putc(&b, '{');
	buf_json_key(&b, "prompt_id");
	buf_json_string(&b, f->prompt_id, strlen(f->prompt_id));
	buf_putc(&b, '}');
	if (!buf_ok(&b) ||
	    !link_ask(f->link, OP_UNSUBSCRIBE, span_make(b.data, b.len), 0,
	              on_unsubscribed, NULL, &err))
		log_debug("follow", "unsubscribe not sent");
}

struct follow *follow_free(struct follow *f)
{
	if (!f)
		return NULL;
	follow_stop(f);
	if (f->subscribed && link_on_bus(f->link))
		follow_unsubscribe(f);
	f->progress = progress_free(f->progress);
	buf_deinit(&f->node_errors);
	free(f->prompt_id);
	free(f);
	return NULL;
}

void follow_every_event(struct follow *f)
{
	f->every_event = true;
}

const struct progress *follow_progress(const struct follow *f)
{
	return f->progress;
}

bool follow_taken(const struct follow *f)
{
	return f->taken;
}

void follow_set_taken(struct follow *f)
{
	f->taken = true;
}

void follow_conclude(struct follow *f, const char *type, const char *message)
{
	follow_stop(f);
	(void)progress_fail(f->progress, type, message, NULL);
}

struct json follow_node_errors(const struct follow *f)
{
	struct json ne = JSON_MISSING;

	if (f->node_errors.len == 0 ||
	    json_parse(&ne, f->node_errors.data, f->node_errors.len, 0, NULL))
		return JSON_MISSING;
	return ne;
}
