/*
 * execute.h - submit a workflow and follow it to its end, or to a timeout:
 * what `run`, the MCP tools, batch and chain are made of.
 *
 * Submission goes through the supervisor when there is a bus, else straight to
 * ComfyUI; either way under a prompt_id of ours that is known before anything
 * is sent, so that a submission whose answer is missing is looked up instead
 * of repeated.
 */
#ifndef WORKERS_EXECUTE_H
#define WORKERS_EXECUTE_H

#include "workers/cancel.h"
#include "workers/follow.h"

struct execute;

/* Patience is link_patience's. */
/* A supervisor that is stopping is asked again so often, so far apart. */
#define EXECUTE_BUSY_MAX    30
#define EXECUTE_BUSY_MS     1000
#define EXECUTE_POSTS_MAX   3 /* POSTs of one prompt without a reply */
#define EXECUTE_ASKS_MAX    3 /* submits to a supervisor that stays silent */
#define EXECUTE_LOOKUPS_MAX 3 /* before a POST counts as never seen */

enum execute_end {
	EXECUTE_COMPLETED,
	EXECUTE_FAILED,      /* the node's error, lost, deleted, interrupted */
	EXECUTE_REJECTED,    /* refused by ComfyUI: node_errors */
	EXECUTE_UNREACHABLE, /* not submitted: nobody answered */
	EXECUTE_TIMED_OUT,   /* the prompt runs on */
	EXECUTE_CANCELLED,   /* by execute_cancel */
	EXECUTE_ERROR,       /* anything else: nothing was submitted */
};

struct execute_result {
	enum execute_end end;
	/* The latest state, never NULL. Its error is filled in for FAILED and
	 * CANCELLED (whose error.type may be interrupted or lost: somebody
	 * else was quicker to say why). */
	const struct progress *progress;
	bool submitted;          /* it may be known to ComfyUI */
	struct json node_errors; /* REJECTED, or valid in part; else NONE */
	/* Text for a person; NULL for COMPLETED, FAILED and CANCELLED, where
	 * progress has it. */
	const struct error *error;
	double number; /* ComfyUI's, when has_number */
	bool has_number;
};

struct execute_handlers {
	/* The prompt was taken: its id is final (an old ComfyUI chooses its
	 * own). May be NULL. */
	void (*on_submitted)(void *user, const char *prompt_id,
	                     struct json node_errors);
	void (*on_news)(void *user, const struct follow_news *news);
	/* As follow_handlers'. May be NULL. */
	void (*on_preview)(void *user, struct json data, int fd);
	/* Exactly once, last; the execute may be freed in it. */
	void (*on_end)(void *user, const struct execute_result *r);
};

struct execute_options {
	struct span workflow;  /* checked API-format text; copied */
	const char *prompt_id; /* NULL: a fresh UUID */
	int64_t timeout_ms;    /* from now; 0: none */
	bool submit_only;      /* end with on_submitted; on_end follows with
	                          COMPLETED meaning: taken */
	bool hold;             /* see op submit */
	bool every_event;      /* see follow_every_event */
	/* The id was given to ComfyUI or the supervisor before (by a
	 * predecessor): look it up, submit only if it is nowhere. */
	bool resume;
	/* The id is the user's choice. Where others' prompts could be meant by
	 * it (link_may_see_all says no), only the supervisor takes it. */
	bool chosen;
	/* What a predecessor has told of its progress; may be JSON_MISSING. */
	struct json told;
};

/* Never calls back from inside. NULL with `err` set on failure. */
struct execute *execute_new(struct link *l, const struct execute_options *o,
                            const struct execute_handlers *h, void *user,
                            struct error *err);
/* Stops waiting; the prompt runs on. NULL is fine; returns NULL. */
struct execute *execute_free(struct execute *e);
/* Takes the prompt out of the queue or interrupts it; on_end follows with
 * CANCELLED once that is known (or with the end that came first). */
void execute_cancel(struct execute *e);

/* The id it runs under, known from the start. */
const char *execute_prompt_id(const struct execute *e);
const struct progress *execute_progress(const struct execute *e);

#endif
