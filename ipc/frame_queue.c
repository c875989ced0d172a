/*
 * frame_queue.c - see frame_queue.h.
 */
#include "ipc/frame_queue.h"

#include <errno.h>
#include <stdlib.h>

static void drop_first(struct frame_queue *q)
{
	(void)frame_unref(q->ring[q->head]);
	q->head = (q->head + 1) & (q->cap - 1);
	q->count--;
	q->sent = 0;
}

void frame_queue_deinit(struct frame_queue *q)
{
	while (q->count > 0)
		drop_first(q);
	free(q->ring);
	*q = (struct frame_queue){0};
}

int frame_queue_push(struct frame_queue *q, struct frame *f)
{
	int r;

	if (q->count == q->cap) {
		r = frame_ring_grow(&q->ring, &q->cap, &q->head, q->count);
		if (r < 0)
			return r;
	}
	q->ring[(q->head + q->count) & (q->cap - 1)] = f;
	q->count++;
	q->bytes += f->len;
	return 0;
}

static void mark_sent(struct frame_queue *q, size_t n)
{
	size_t left;

	q->bytes -= n;
	while (n > 0) {
		left = q->ring[q->head]->len - q->sent;
		if (n < left) {
			q->sent += n;
			return;
		}
		n -= left;
		drop_first(q);
	}
}

int frame_queue_flush(struct frame_queue *q, int sock)
{
	ssize_t n;

	while (q->count > 0) {
		n = frame_ring_send(sock, q->ring, q->cap, q->head, q->count,
		                    q->sent);
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		mark_sent(q, (size_t)n);
	}
	/* What a burst has grown is given back. */
	if (q->cap > FRAME_QUEUE_KEEP)
		frame_queue_deinit(q);
	return 0;
}
