/*
 * life.h - the prompts' lives: what prompt_fsm decides is done here. Clients
 * are told and answered, the store is written, requests are made.
 */
#ifndef SUPERVISOR_LIFE_H
#define SUPERVISOR_LIFE_H

#include "supervisor/supervisor.h"

/* What came with an event. */
struct life_news {
	struct json entry;       /* HISTORY */
	struct json node_errors; /* TAKEN, REFUSED */
	const struct error *err; /* REFUSED, UNREACHED, UNANSWERED */
	enum cmx_method method;  /* how it came to be known */
};

/* Something happened to the prompt. It may be gone afterwards: true if not. */
bool life_event(struct supervisor *sv, struct prompt *p, enum prompt_event ev,
                const struct life_news *news);

/* A workflow for ComfyUI. */
/* One that somebody else uses is answered as one that nobody may use: so it
 * isn't told that it is in use. */
#define LIFE_BAD_ID                                                             \
	"this \"prompt_id\" can't be used; choose a fresh UUID, random and in " \
	"canonical lower case"

struct life_submission {
	const char *prompt_id;
	struct span workflow, extra_data;
	bool hold, subscribe;
	bool previews; /* with subscribe */
};
/* Accepts it and answers the request, now or later. -1 with `err` set: it was
 * not accepted, the request is not answered. */
int life_submit(struct supervisor *sv, struct peer *peer, struct span id,
                const struct life_submission *s, struct error *err);
/* One more in flight of this connection, unless it is another session's. */
void life_count(struct prompt *p, struct peer *peer);
/* Cancels the prompt and answers the request, now or later. */
int life_cancel(struct supervisor *sv, struct peer *peer, struct span id,
                struct prompt *p, struct error *err);
/* ComfyUI was seen to have the prompt: stops it, if that is still wanted since
 * an earlier process died or ComfyUI couldn't be asked. */
void life_go_on_cancelling(struct supervisor *sv, struct prompt *p);
/* ComfyUI doesn't answer: whoever waits for a POST's result is told what can
 * be told. */
void life_unreachable(struct supervisor *sv, const struct error *err);
/* Nothing is posted for now: whoever waits for a POST's result is told that
 * his prompt is queued. */
void life_announce(struct supervisor *sv);
/* Somebody else than the submitter was told of it, such as his successor, and
 * may rely on it: from now on it doesn't vanish without an end. */
void life_told(struct prompt *p);
/* A request that waited is gone, unanswered: its client left. */
void life_abandoned(struct prompt *p);

/* Takes over what an earlier process left in the store. */
int life_restore(struct supervisor *sv, struct error *err);
/* Stores the results that wait for it. 0, or -1 if some still wait. */
int life_save(struct supervisor *sv);
/* Deletes what is beyond the bounds of retention, a bit at a time. */
void life_prune(struct supervisor *sv, int64_t now_ms);

#endif
