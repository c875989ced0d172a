/*
 * position.h - how many prompts are before each of ours.
 *
 * As long as ComfyUI's queue holds ours alone that follows from `status`
 * events and our own books. When others are in front /queue is looked at, once
 * for all, when the queue moves.
 */
#ifndef SUPERVISOR_POSITION_H
#define SUPERVISOR_POSITION_H

#include "supervisor/supervisor.h"

/* Positions told at once; those further back are known, but told when they
 * come nearer. */
#define POSITION_TOLD_MAX 1000
/* Up to so many positions are worked out at once, more at intervals. */
#define POSITION_SMALL  64
#define POSITION_PASS_S 0.25
/* Between two looks at /queue. */
#define POSITION_LOOK_MS 250
/* ComfyUI's count may lag behind by an answer or an event, not longer. */
#define POSITION_FEWER_S 1.0

void positions_init(struct supervisor *sv);
void positions_deinit(struct supervisor *sv);
/* A `status` event. */
void positions_status(struct supervisor *sv, int64_t queue_remaining);
/* What of ours is outstanding has changed. */
void positions_changed(struct supervisor *sv);
/* The prompt has just been taken: it is behind everything that is known. */
void positions_enter(struct supervisor *sv, struct prompt *p);
/* GET /queue said so. */
void positions_others(struct supervisor *sv, const struct reconcile_others *o);
/* The link broke: counts are not known any more. */
void positions_forget(struct supervisor *sv);
/* Notes and tells one prompt's place. */
void positions_place(struct supervisor *sv, struct prompt *p, int64_t ahead,
                     enum cmx_method method);
/* Prompts on ComfyUI that are not ours, as far as is known. */
size_t positions_foreign(const struct supervisor *sv);

#endif
