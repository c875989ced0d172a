/*
 * execute_private.h - struct execute, for the two files that make it up:
 * execute.c (which way, following, cancelling) and execute_submit.c (giving
 * the prompt to the supervisor, or to ComfyUI).
 */
#ifndef WORKERS_EXECUTE_PRIVATE_H
#define WORKERS_EXECUTE_PRIVATE_H

#include <ev.h>

#include "workers/execute.h"
#include "workers/poller.h"

enum execute_state {
	EXECUTE_CHOOSE, /* waits for its start, or for the link to decide */
	EXECUTE_ASK,    /* resume: the supervisor is asked for the id */
	EXECUTE_SUBMIT, /* the supervisor has the submission, no answer yet */
	EXECUTE_AWAY,   /* it broke off: waits for a new bus */
	EXECUTE_TURN,   /* waits for its turn to post directly */
	EXECUTE_LOOKUP, /* ComfyUI is asked for the id */
	EXECUTE_RECALL, /* ... for what has our marker and is over */
	EXECUTE_POST,
	EXECUTE_FOLLOW,
	EXECUTE_CANCEL, /* nothing to follow, but perhaps something to cancel */
	EXECUTE_DONE,
	EXECUTE_STATE_COUNT
};

struct execute {
	struct link *link;
	const struct execute_handlers *handlers;
	void *user;
	enum execute_state state;
	char *prompt_id;
	struct buf workflow; /* dropped once ComfyUI has it */
	bool submit_only, hold, every_event;
	bool open;          /* somebody may have the prompt: never forget it */
	bool look_first;    /* before a POST */
	bool asked_in_vain; /* a supervisor may have it, and never said so */
	bool on_bus;        /* the supervisor has taken it */
	bool posted;        /* we gave it to ComfyUI ourselves, at least once */
	/* With the service's rights, and the id may be that of somebody else's
	 * prompt: until the supervisor has said that it is ours, ComfyUI is not
	 * asked about it, and gets nothing under it. */
	bool unproven;
	bool forged; /* ... and what names it, nobody vouches for */
	bool told_submitted;
	bool cancelled;
	bool has_number;
	double number;
	unsigned unknowns; /* POSTs without a reply */
	unsigned asks, lookups, busy;
	int64_t away_since;   /* clock_ms; 0: not */
	struct progress *own; /* until there is a follow */
	struct follow *follow;
	struct buf told; /* of a predecessor's progress, or empty */
	struct buf node_errors;
	struct error trouble; /* why ComfyUI was last out of reach */
	ev_timer timeout;
	ev_timer step; /* start, patience, gap: whatever the state waits for */
	struct link_watch bus;
	struct link_turn turn;
	struct poller_watch lookup;
	uint64_t ask_id;
	struct comfy_call *post; /* or the recall */
	bool holds_api;
	struct cancel *cancel;
	bool cancel_took; /* it was found and asked to stop */
};

void execute_enter(struct execute *e, enum execute_state s);
/* on_step comes after `ms`; what it does depends on the state. */
void execute_wait(struct execute *e, unsigned ms);

/* Each may free `e`. */
void execute_finish(struct execute *e, enum execute_end end,
                    const struct error *err);
void execute_finish_cancelled(struct execute *e, const char *message);
void execute_finish_refused(struct execute *e, const struct error *err,
                            struct json node_errors);
/* The supervisor said that the id is ours. 0 or -ENOMEM. */
int execute_prove(struct execute *e);
void execute_finish_unproven(struct execute *e);
/* Waits for a bus that broke, as long as patience lasts. */
void execute_go_away(struct execute *e);
/* Somebody has the prompt. */
void execute_start_follow(struct execute *e, bool subscribed, bool taken);
/* Bus or HTTP, by what the link offers now. */
void execute_choose(struct execute *e);

/* An old ComfyUI chooses the id itself. */
int execute_take_id(struct execute *e, const char *id);
/* The prompt was taken. False when that was the end: `e` may be gone. */
bool execute_tell_submitted(struct execute *e, struct json node_errors);

/* execute_submit.c */
void execute_submit(struct execute *e);
/* Resume: does the supervisor know the id? */
void execute_ask(struct execute *e);
/* In line for a POST, or a look-up before it. */
void execute_take_turn(struct execute *e);
void execute_look_up(struct execute *e, bool soon);
/* Sets up e->turn and e->lookup. */
void execute_submit_init(struct execute *e);

#endif
