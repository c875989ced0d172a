/*
 * batch.h - many workflows, so many at a time, each submitted once and
 * followed to its end: what the MCP tool, detached jobs and cmx_batch are made
 * of. (The keeper of `comfymux batch` plans with common/batch_plan itself.)
 *
 * The texts stay with the owner, who is asked for one when its turn has come:
 * a batch of ten thousand needs room for as many as run at a time. A workflow
 * that ComfyUI lost is submitted again, as often as the options allow; nothing
 * else ever is.
 */
#ifndef WORKERS_BATCH_H
#define WORKERS_BATCH_H

#include "common/batch_plan.h"
#include "workers/execute.h"

struct batch;

/* How one ended. Valid during the call. */
struct batch_result {
	size_t index;
	enum execute_end end; /* EXECUTE_ERROR: nothing was submitted */
	bool skipped;         /* never started; end is EXECUTE_CANCELLED */
	bool submitted;       /* ComfyUI may have seen it */
	/* NULL if nothing was submitted: then `error` says why. Its error is
	 * filled in unless it completed or timed out. */
	const struct progress *progress;
	struct json node_errors;   /* ComfyUI's, or NONE */
	const struct error *error; /* as in execute_result */
	unsigned resubmits;        /* how often it was lost and sent again */
	int64_t elapsed_ms;        /* since its start; over all submissions */
};

struct batch_handlers {
	/* The text of `index` is wanted: batch_supply() or batch_fail_item()
	 * follows, from inside or later. */
	void (*on_want)(void *user, size_t index);
	/* It is about to be submitted under this id, for the time number
	 * `resubmits`: batch_go() says that this is on record (from inside or
	 * later). NULL: it goes at once. */
	void (*on_intent)(void *user, size_t index, const char *prompt_id,
	                  unsigned resubmits);
	/* It was taken (an old ComfyUI chooses its own id). May be NULL. */
	void (*on_submitted)(void *user, size_t index, const char *prompt_id);
	/* May be NULL. */
	void (*on_news)(void *user, size_t index,
	                const struct follow_news *news);
	/* ComfyUI lost it; it is submitted again. May be NULL. */
	void (*on_lost)(void *user, size_t index, const char *prompt_id,
	                unsigned resubmits);
	/* Once for each that had not ended before. */
	void (*on_item)(void *user, const struct batch_result *r);
	/* Something changed in the whole: plan->in_state, the fraction. After
	 * the news or the end that changed it. May be NULL. */
	void (*on_progress)(void *user, const struct batch_plan *plan);
	/* Once, last: all have ended. The batch may be freed in it, and in no
	 * other. */
	void (*on_done)(void *user, const struct batch_plan *plan);
};

/* Never calls back from inside. `h` must outlive it. NULL with `err` set, in
 * words fit for the user: an empty batch, a bad concurrency. */
struct batch *batch_new(struct link *l, size_t count,
                        const struct batch_options *o,
                        const struct batch_handlers *h, void *user,
                        struct error *err);
/* Stops waiting; what was submitted runs on. NULL is fine; returns NULL. */
struct batch *batch_free(struct batch *b);

/* From a predecessor's records, before the loop runs again: one that ended
 * (its on_item was heard, there is none), and one that was on record as about
 * to be submitted: it is looked up, and submitted only if it is nowhere. */
void batch_restore_ended(struct batch *b, size_t index, bool ok);
int batch_restore_intent(struct batch *b, size_t index, const char *prompt_id,
                         unsigned resubmits, struct error *err);

/* `workflow`: the text in API format, checked by whoever read it (common/
 * workflow); copied. `prompt_id` (may be NULL: a fresh one) is that of the
 * first submission. */
void batch_supply(struct batch *b, size_t index, struct span workflow,
                  const char *prompt_id);
/* There is none, or none that can be used. */
void batch_fail_item(struct batch *b, size_t index, const struct error *err);
void batch_go(struct batch *b, size_t index);

/* Starts nothing more, cancels what runs; on_item for each and on_done
 * follow. */
void batch_cancel(struct batch *b);

const struct batch_plan *batch_plan_of(const struct batch *b);
/* The state of one that runs, NULL if it doesn't. */
const struct progress *batch_item_progress(const struct batch *b, size_t index);

/* One element of a batch's results as JSON, as common/job_result has it. */
void batch_result_json(const struct batch_result *r, struct buf *out);

#endif
