/*
 * store_jobs.h - detached jobs in the database: a job, and an item for each of
 * its workflows or steps, with the prompt that it was given and how it ended.
 */
#ifndef SUPERVISOR_STORE_JOBS_H
#define SUPERVISOR_STORE_JOBS_H

#include "supervisor/store.h"

enum job_state {
	JOB_RECEIVING, /* its items come still */
	JOB_WORKING,
	JOB_CANCELLING,
	JOB_OVER,
	JOB_STATE_COUNT
};

/* Each 0, or -1 with `err` (may be NULL) set. `row` names a job. */

struct store_job {
	int64_t row;
	uid_t uid;
	const char *kind; /* "batch", "chain" */
	struct span options;
	int64_t total, bytes, completed, failed;
	enum job_state state;
	int64_t created_at, ended_at; /* epoch ms */
};
/* Fills in `row`. */
int store_job_new(struct store *s, struct store_job *j, struct error *err);
/* JOB_OVER gives the texts of its items up. */
int store_job_set_state(struct store *s, int64_t row, enum job_state state,
                        int64_t now_ms, struct error *err);
int store_job_delete(struct store *s, int64_t row, struct error *err);
/* All, the oldest first; valid during the call; false stops. */
typedef bool store_job_cb(void *user, const struct store_job *j);
int store_each_job(struct store *s, store_job_cb *cb, void *user,
                   struct error *err);
/* Appends the options. */
int store_job_options(struct store *s, int64_t row, struct buf *out,
                      struct error *err);

/* ERR_BUSY if there is one of that index. */
int store_item_add(struct store *s, int64_t row, int64_t index,
                   const char *label, struct span text, struct error *err);
/* Appends it; ERR_NOT_FOUND if there is none. */
int store_item_text(struct store *s, int64_t row, int64_t index,
                    struct buf *out, struct error *err);
int store_item_intent(struct store *s, int64_t row, int64_t index,
                      const char *prompt_id, int64_t resubmits,
                      struct error *err);
/* `*newp`: it had none before. */
int store_item_result(struct store *s, int64_t row, int64_t index, bool ok,
                      struct span result, bool *newp, struct error *err);

struct store_item {
	int64_t index;
	const char *label;
	const char *prompt_id; /* NULL: none yet */
	int64_t resubmits;
	bool ended, ok;
	struct span result; /* of one that has ended */
};
typedef bool store_item_cb(void *user, const struct store_item *it);
/* In order, from `from` on; false stops. */
int store_each_item(struct store *s, int64_t row, int64_t from,
                    store_item_cb *cb, void *user, struct error *err);

#endif
