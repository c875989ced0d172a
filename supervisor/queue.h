/*
 * queue.h - turns: prompts that wait to be posted, in a line per tenant, and
 * the tenants that have somebody waiting, in a ring. Pure; entries and lines
 * are embedded in prompts and tenants.
 *
 * Within a tenant first come, first served; between tenants whoever was served
 * longest ago. Among those who always have something waiting that is round
 * robin; one who comes to the queue after a while, or for the first time, goes
 * to its head, so that a flood of another's delays him by no more than what
 * was granted already.
 */
#ifndef SUPERVISOR_QUEUE_H
#define SUPERVISOR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"

struct queue_line;

struct queue_entry {
	struct list link;
	struct queue_line *line; /* NULL: in no line */
};

struct queue_line {
	struct list entries;
	struct list turn; /* in the ring while `entries` isn't empty */
	uint64_t served;  /* when it had a turn, by queue.clock; 0: not yet */
	/* queue_walk's: */
	struct list walk;
	struct list *next;
};

struct queue {
	struct list turns; /* the first line is next: by `served`, upwards */
	size_t waiting;    /* entries, all lines */
	uint64_t clock;    /* turns taken */
};

void queue_init(struct queue *q);
void queue_line_init(struct queue_line *l);
void queue_entry_init(struct queue_entry *e);

/* At the end of its line. A line that was empty goes to the place in the ring
 * that its last turn gives it. */
void queue_append(struct queue *q, struct queue_line *l, struct queue_entry *e);
/* At the front of its line, and the line's turn is next: for one whose turn
 * came to nothing. */
void queue_return(struct queue *q, struct queue_line *l, struct queue_entry *e);
/* Out of its line; safe twice. */
void queue_remove(struct queue *q, struct queue_entry *e);
/* The entry whose turn it is, NULL if none waits. It stays. */
struct queue_entry *queue_peek(const struct queue *q);
/* Takes it out, and its line to the end of the ring. */
struct queue_entry *queue_take(struct queue *q);

/* Visits all in the order in which they would be taken. The queue must not
 * change meanwhile; false stops. */
typedef bool queue_walk_cb(void *user, struct queue_entry *e);
void queue_walk(struct queue *q, queue_walk_cb *cb, void *user);

#endif
