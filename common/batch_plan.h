/*
 * batch_plan.h - which workflow of a batch is to be started next, when one is
 * to be submitted again, and when all is over. Pure: no text, no ids, no I/O.
 *
 * The keeper of `comfymux batch` plans with it, and so does workers/batch.c
 * for everybody else.
 */
#ifndef COMMON_BATCH_PLAN_H
#define COMMON_BATCH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define BATCH_ITEMS_MAX       10000 /* workflows of one batch */
#define BATCH_CONCURRENCY     3     /* unless told */
#define BATCH_CONCURRENCY_MAX 64
#define BATCH_RESUBMITS_MAX   2 /* of one workflow that ComfyUI lost */

struct batch_options {
	unsigned concurrency; /* submitted at a time, 1 to the above */
	/* After the first failure nothing more is started; what was started
	 * goes on to its end. */
	bool stop_on_error;
	int64_t timeout_ms; /* of each workflow, from its start; 0: none */
	unsigned resubmits; /* of each lost one, 0 to BATCH_RESUBMITS_MAX */
};

enum batch_state {
	BATCH_WAITING,
	BATCH_RUNNING, /* from being chosen to its end */
	BATCH_COMPLETED,
	BATCH_FAILED,
	BATCH_SKIPPED, /* never started: stop_on_error, or cancelled */
	BATCH_STATE_COUNT
};

enum batch_outcome {
	BATCH_OUTCOME_OK,
	BATCH_OUTCOME_FAILED,
	BATCH_OUTCOME_LOST, /* ComfyUI forgot it */
};

struct batch_plan_item {
	unsigned char state; /* enum batch_state */
	unsigned char resubmits;
	float fraction; /* while it runs, 0 to 1 */
};

/* Read-only for everybody but batch_plan.c. */
struct batch_plan {
	struct batch_options options;
	struct batch_plan_item *items;
	size_t count;
	size_t in_state[BATCH_STATE_COUNT];
	size_t resubmitted; /* in all */
	size_t next;        /* nothing before it waits */
	double running;     /* sum of the fractions */
	bool stopped;       /* nothing more is started */
};

/* Checks the options and the number: ERR_INVALID or ERR_LIMIT in words. Safe
 * to deinit whatever it says. */
int batch_plan_init(struct batch_plan *p, size_t count,
                    const struct batch_options *o, struct error *err);
void batch_plan_deinit(struct batch_plan *p);

/* The next one to be started, which counts as running from now on; false when
 * none is to be started now. */
bool batch_plan_next(struct batch_plan *p, size_t *indexp);
/* How far a running one is. Never runs backwards. */
void batch_plan_advance(struct batch_plan *p, size_t index, double fraction);
/* A running one ended. True: it is to be submitted again, under another
 * prompt_id, and still counts as running. */
bool batch_plan_ended(struct batch_plan *p, size_t index, enum batch_outcome o);
/* Nothing more is started, nothing submitted again. */
void batch_plan_stop(struct batch_plan *p);
/* One that will never be started, once it is clear that it won't; it is
 * skipped then. False when there is none. */
bool batch_plan_skip(struct batch_plan *p, size_t *indexp);
bool batch_plan_over(const struct batch_plan *p);

/* From a predecessor, before the first batch_plan_next: one that had ended,
 * and one that was submitted, for which this stands for batch_plan_next. */
void batch_plan_restore_ended(struct batch_plan *p, size_t index, bool ok);
void batch_plan_restore_running(struct batch_plan *p, size_t index,
                                unsigned resubmits);

/* Of the whole: 0 to 1, never runs backwards. */
double batch_plan_fraction(const struct batch_plan *p);

#endif
