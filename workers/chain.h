/*
 * chain.h - workflows one after the other, each of which may take an image of
 * an earlier one as its input: what `comfymux chain`, the MCP tool, detached
 * jobs and cmx_chain are made of.
 *
 * The image is handed over by reference ("name [output]", which LoadImage and
 * LoadImageMask read from ComfyUI's own folders) where the taking node can,
 * else fetched and uploaded. A hand-over that can't be done fails the step:
 * nothing else is ever put in its place.
 */
#ifndef WORKERS_CHAIN_H
#define WORKERS_CHAIN_H

#include "common/chain_spec.h"
#include "workers/execute.h"

struct chain;

/* How a step ended. Valid during the call. */
struct chain_result {
	size_t index;
	enum execute_end end; /* EXECUTE_ERROR: nothing was submitted */
	bool skipped;         /* an earlier one failed; EXECUTE_CANCELLED */
	bool submitted;
	/* As in batch_result. */
	const struct progress *progress;
	struct json node_errors;
	const struct error *error;
	/* What was put into the workflow in place of the input: "a.png
	 * [output]", or an uploaded file's name; NULL if nothing was. */
	const char *handed;
	int64_t elapsed_ms;
};

struct chain_options {
	/* After a failure the steps that follow are skipped; without it those
	 * run that don't take anything of one that failed. */
	bool stop_on_error;
	int64_t timeout_ms; /* of each step, from its start; 0: none */
};

struct chain_handlers {
	/* As in batch_handlers. */
	void (*on_intent)(void *user, size_t index, const char *prompt_id);
	void (*on_submitted)(void *user, size_t index, const char *prompt_id);
	void (*on_news)(void *user, size_t index,
	                const struct follow_news *news);
	void (*on_step)(void *user, const struct chain_result *r);
	/* Of the whole, 0 to 1; never runs backwards. May be NULL. */
	void (*on_progress)(void *user, double fraction);
	/* Once, last: `failed` of all did not complete. The chain may be freed
	 * in it, and in no other. */
	void (*on_done)(void *user, size_t failed);
};

/* Takes over `spec` (also on failure). Never calls back from inside; `h` must
 * outlive it. */
struct chain *chain_new(struct link *l, struct chain_spec *spec,
                        const struct chain_options *o,
                        const struct chain_handlers *h, void *user,
                        struct error *err);
/* Stops waiting; what was submitted runs on. NULL is fine; returns NULL. */
struct chain *chain_free(struct chain *c);

/* From a predecessor's records, before the loop runs again: a step that ended,
 * with its outputs as ComfyUI sent them (JSON text, copied), and one that was
 * about to be submitted. */
int chain_restore_ended(struct chain *c, size_t index, bool ok,
                        struct span outputs, struct error *err);
int chain_restore_intent(struct chain *c, size_t index, const char *prompt_id,
                         struct error *err);
/* The intent of `index` is on record. */
void chain_go(struct chain *c, size_t index);

/* Cancels the step that runs, skips the rest; on_step and on_done follow. */
void chain_cancel(struct chain *c);

const struct chain_spec *chain_spec_of(const struct chain *c);
/* The step in hand, and its progress: NULL before it is submitted. */
size_t chain_current(const struct chain *c);
const struct progress *chain_progress(const struct chain *c);

/* One element of a chain's results as JSON, as common/job_result has it. */
void chain_result_json(const struct chain_result *r, struct buf *out);

#endif
