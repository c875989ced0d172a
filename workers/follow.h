/*
 * follow.h - one prompt's progress, by events or by polling; the caller can't
 * tell but for `method`.
 *
 * On the bus: subscribe, snapshot, events. Without it: queue and history every
 * link_poll_ms(). It changes over by itself when the bus comes or goes;
 * progress never runs backwards and no event is told twice.
 */
#ifndef WORKERS_FOLLOW_H
#define WORKERS_FOLLOW_H

#include "common/progress.h"
#include "ipc/message.h"
#include "workers/link.h"

struct follow;

/* Rounds of polling in which a prompt that ComfyUI had is nowhere, before it
 * counts as lost: one more than logic asks for, against a proxy that answers
 * from a cache. */
#define FOLLOW_MISSING_MAX 2

/* What came: the event that was folded (EVENT_COUNT when the news is from
 * polling), its data, and what it changed (progress_change). Valid during the
 * call. */
struct follow_news {
	enum event event;
	struct json data;
	unsigned change;
	const struct progress *progress;
};

struct follow_handlers {
	/* May free the follow. Not called for news that changed nothing. */
	void (*on_news)(void *user, const struct follow_news *news);
	/* The end: progress has status completed or failed. Last call; the
	 * follow may be freed in it. There is no on_news for it. */
	void (*on_end)(void *user, const struct progress *p);
	/* The prompt is not known (not on the bus, not in queue or history) and
	 * never was: nothing to follow. Last call. */
	void (*on_unknown)(void *user, const struct error *err);
	/* A picture of what is being made: asks for them where it is set, while
	 * there is a bus. `fd` is closed afterwards, see preview_take(). */
	void (*on_preview)(void *user, struct json data, int fd);
	/* ComfyUI doesn't answer while it is polled; that goes on. Not news of
	 * the prompt. May be NULL. */
	void (*on_trouble)(void *user, const struct error *err);
};

/* Follows a prompt; never calls back from inside. `submitted` says that it
 * certainly was accepted, by the supervisor or by ComfyUI: then one that is in
 * neither queue nor history never ends with on_unknown, but as failed, type
 * lost, once ComfyUI is known to have had it (follow_taken). `subscribed` says
 * that the bus sends its events already.
 *
 * While there is a bus, its word counts: a prompt that it doesn't know, and
 * that wasn't submitted here, is unknown, whatever ComfyUI may hold. */
struct follow *follow_new(struct link *l, const char *prompt_id, bool submitted,
                          bool subscribed, const struct follow_handlers *h,
                          void *user, struct error *err);
/* Goes on from a progress that a predecessor has told (an ExecutionProgress):
 * nothing told later falls behind it, and the prompt counts as known. False if
 * there is none, or it says that the prompt has ended, which is to be found out
 * anew. */
bool follow_resume(struct follow *f, struct json told);
/* Stops following; the prompt runs on. NULL is fine; returns NULL. */
struct follow *follow_free(struct follow *f);

const struct progress *follow_progress(const struct follow *f);
/* From now on on_news also tells events that changed nothing. */
void follow_every_event(struct follow *f);

/* Whether ComfyUI is known to have taken the prompt. Until then its absence
 * there proves nothing: a supervisor may still hold it. */
bool follow_taken(const struct follow *f);
void follow_set_taken(struct follow *f);
/* Ends the progress as failed for a reason the caller knows (see
 * progress_fail). No handler is called any more; free it then. */
void follow_conclude(struct follow *f, const char *type, const char *message);
/* ComfyUI's node_errors, when a late refusal ended it; else JSON_NONE. Valid as
 * long as the follow. */
struct json follow_node_errors(const struct follow *f);

#endif
