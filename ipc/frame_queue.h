/*
 * frame_queue.h - frames that wait to be written to one socket: the writer half
 * of a conn and of a channel.
 */
#ifndef IPC_FRAME_QUEUE_H
#define IPC_FRAME_QUEUE_H

#include "ipc/frame.h"

#define FRAME_QUEUE_KEEP 64 /* slots kept while nothing is queued */

struct frame_queue {
	struct frame **ring;
	size_t cap, head, count;
	size_t sent;  /* bytes of the first frame that are gone */
	size_t bytes; /* not yet sent, all frames */
};

/* Drops what waits. Safe twice, and zeroed. */
void frame_queue_deinit(struct frame_queue *q);
/* Appends; the reference goes over to the queue on success. 0 or -ENOMEM. */
int frame_queue_push(struct frame_queue *q, struct frame *f);
/* Writes what the peer takes. 0, or a negative errno: the peer is gone. */
int frame_queue_flush(struct frame_queue *q, int sock);

#endif
