/*
 * queue.c - see queue.h.
 */
#include "supervisor/queue.h"

#include <assert.h>

void queue_init(struct queue *q)
{
	list_init(&q->turns);
	q->waiting = 0;
	q->clock = 0;
}

void queue_line_init(struct queue_line *l)
{
	list_init(&l->entries);
	list_init(&l->turn);
	list_init(&l->walk);
	l->next = NULL;
	l->served = 0;
}

void queue_entry_init(struct queue_entry *e)
{
	list_init(&e->link);
	e->line = NULL;
}

/* Behind all that were served before it, and those that came before it. The
 * search starts at the end, where a line that is served often belongs. */
static void join_ring(struct queue *q, struct queue_line *l)
{
	struct list *after = q->turns.prev;

	while (after != &q->turns &&
	       list_entry(after, struct queue_line, turn)->served > l->served)
		after = after->prev;
	list_prepend(after, &l->turn);
}

void queue_append(struct queue *q, struct queue_line *l, struct queue_entry *e)
{
	assert(!e->line);
	if (list_empty(&l->entries))
		join_ring(q, l);
	list_append(&l->entries, &e->link);
	e->line = l;
	q->waiting++;
}

void queue_return(struct queue *q, struct queue_line *l, struct queue_entry *e)
{
	assert(!e->line);
	list_del(&l->turn);
	l->served = 0;
	list_prepend(&q->turns, &l->turn);
	list_prepend(&l->entries, &e->link);
	e->line = l;
	q->waiting++;
}

void queue_remove(struct queue *q, struct queue_entry *e)
{
	if (!e->line)
		return;
	list_del(&e->link);
	if (list_empty(&e->line->entries))
		list_del(&e->line->turn);
	e->line = NULL;
	q->waiting--;
}

struct queue_entry *queue_peek(const struct queue *q)
{
	struct queue_line *l;

	if (list_empty(&q->turns))
		return NULL;
	l = list_first(&q->turns, struct queue_line, turn);
	return list_first(&l->entries, struct queue_entry, link);
}

struct queue_entry *queue_take(struct queue *q)
{
	struct queue_entry *e = queue_peek(q);
	struct queue_line *l;

	if (!e)
		return NULL;
	l = e->line;
	l->served = ++q->clock;
	queue_remove(q, e);
	if (!list_empty(&l->entries)) {
		list_del(&l->turn);
		list_append(&q->turns, &l->turn);
	}
	return e;
}

/* One round of all lines that have somebody left. False if it was stopped. */
static bool walk_round(struct list *lines, queue_walk_cb *cb, void *user)
{
	struct list *it, *after;
	struct queue_line *l;
	struct queue_entry *e;

	list_for_each_safe (it, after, lines) {
		l = list_entry(it, struct queue_line, walk);
		e = list_entry(l->next, struct queue_entry, link);
		l->next = l->next->next;
		if (l->next == &l->entries)
			list_del(&l->walk);
		if (!cb(user, e))
			return false;
	}
	return true;
}

void queue_walk(struct queue *q, queue_walk_cb *cb, void *user)
{
	struct queue_line *l;
	struct list lines, *it;

	list_init(&lines);
	list_for_each (it, &q->turns) {
		l = list_entry(it, struct queue_line, turn);
		l->next = l->entries.next;
		list_append(&lines, &l->walk);
	}
	while (!list_empty(&lines) && walk_round(&lines, cb, user))
		continue;
	while (!list_empty(&lines))
		list_del(lines.next);
}
