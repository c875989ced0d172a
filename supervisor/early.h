/*
 * early.h - events that came before their prompt was known: frames kept for a
 * moment, to be read again. Pure.
 *
 * Only servers that choose ids themselves (before 0.3.45) need it: events of a
 * prompt travel on another connection than the answer that tells its id.
 */
#ifndef SUPERVISOR_EARLY_H
#define SUPERVISOR_EARLY_H

#include <stddef.h>
#include <stdint.h>

#include "common/span.h"

#define EARLY_FRAMES_MAX 64
#define EARLY_BYTES_MAX  (256u << 10)

struct early {
	struct early_frame *frames[EARLY_FRAMES_MAX]; /* oldest first */
	size_t count, bytes;
};

/* Zeroed is empty. Safe twice. */
void early_clear(struct early *e);
/* Keeps a frame of `prompt_id`; the oldest give way. What doesn't fit is left
 * out. */
void early_keep(struct early *e, struct span prompt_id, const char *frame,
                size_t len);
/* Hands out those of `prompt_id`, in order, and forgets all. */
typedef void early_cb(void *user, const char *frame, size_t len);
void early_replay(struct early *e, struct span prompt_id, early_cb *cb,
                  void *user);

#endif
