/*
 * client_queue.h - what waits to be written to one client: bounded, with
 * superseded progress folded. Pure.
 *
 * Replies are always taken (whoever reads requests stops while the queue is
 * full). Events are taken up to the quota; past it the prompt of the event is
 * noted as due: its events are left out and counted until a snapshot has been
 * queued, which tells the state and the number. So a client that reads slowly
 * costs its quota and a note per prompt, nothing else, and nobody waits for it.
 */
#ifndef SUPERVISOR_CLIENT_QUEUE_H
#define SUPERVISOR_CLIENT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "common/map.h"
#include "common/uuid.h"
#include "ipc/frame.h"
#include "ipc/message.h"

#define CLIENT_QUEUE_DUE_MAX 100000 /* prompts whose snapshot is due */
/* Entries kept for reuse, so that a busy queue doesn't allocate. */
#define CLIENT_QUEUE_SPARE_MAX 64

struct client_queue {
	struct list entries;
	size_t count, bytes;
	size_t quota;
	struct map steps; /* prompt id -> its STEP that waits */
	struct list due;  /* in order of their first miss */
	struct map due_by_id;
	struct list spare;
	size_t spare_count;
	/* What the queues of one user hold together, and may; NULL: his own
	 * quota is all that counts. */
	size_t *total, total_max;
	/* in all */
	uint64_t folded, missed;
};

void client_queue_init(struct client_queue *q, size_t quota);
/* Safe twice. */
void client_queue_deinit(struct client_queue *q);

/* Takes a reference of its own. 0 or -ENOMEM. */
int client_queue_reply(struct client_queue *q, struct frame *f);
/* An event of `prompt_id` (NULL: of none). 0 when it was queued, folded or
 * noted as missed; -ENOBUFS when CLIENT_QUEUE_DUE_MAX was
 * reached, -ENOMEM: the client can't be served any longer. */
int client_queue_event(struct client_queue *q, struct frame *f,
                       enum event_fold fold, const char *prompt_id);
/* Notes that a snapshot of the prompt is to be sent. As above. */
int client_queue_want(struct client_queue *q, const char *prompt_id);
/* No snapshot is due for it any more; safe if there wasn't. */
void client_queue_unwant(struct client_queue *q, const char *prompt_id);

/* No snapshot is due at all. */
void client_queue_forget_due(struct client_queue *q);

/* The prompt whose snapshot is due next, if there is room for one; `*missedp`
 * events of it were left out, the last of them was number `*seqp`. The note is
 * gone then: the caller queues the snapshot at once. */
bool client_queue_due(struct client_queue *q, char id[UUID_LEN + 1],
                      uint64_t *missedp, uint64_t *seqp);

/* The next frame, its reference the caller's then; NULL if none waits. */
struct frame *client_queue_pop(struct client_queue *q);

/* More than the user may have waiting: whatever waits here is enough. */
static inline bool client_queue_over(const struct client_queue *q)
{
	return q->total && q->count > 0 && *q->total >= q->total_max;
}
static inline bool client_queue_full(const struct client_queue *q)
{
	return q->bytes >= q->quota || client_queue_over(q);
}
static inline bool client_queue_idle(const struct client_queue *q)
{
	return q->count == 0 && list_empty(&q->due);
}

#endif
