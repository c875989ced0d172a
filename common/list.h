/*
 * list.h - intrusive doubly linked list, circular, with a head of its own.
 *
 * A node that is in no list points at itself (list_init), so list_del() is
 * safe twice.
 */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include <stdbool.h>

#include "common/macros.h"

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_(struct list *n, struct list *prev,
                                struct list *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

static inline void list_append(struct list *head, struct list *n)
{
	list_insert_(n, head->prev, head);
}

static inline void list_prepend(struct list *head, struct list *n)
{
	list_insert_(n, head, head->next);
}

static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

/* Takes the first node out; NULL if there is none. */
static inline struct list *list_pop(struct list *head)
{
	struct list *n = head->next;

	if (n == head)
		return NULL;
	head->next = n->next;
	n->next->prev = head;
	list_init(n);
	return n;
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)

/* First entry of a list that is not empty. */
#define list_first(head, type, member) list_entry((head)->next, type, member)

#define list_for_each(it, head)                                                \
	for ((it) = (head)->next; (it) != (head); (it) = (it)->next)

/* Survives removal of `it` in the body. */
#define list_for_each_safe(it, tmp, head)                                      \
	for ((it) = (head)->next, (tmp) = (it)->next; (it) != (head);          \
	     (it) = (tmp), (tmp) = (it)->next)

#endif
