/*
 * subscription.c - see subscription.h.
 */
#include "supervisor/subscription.h"

#include <errno.h>
#include <stdlib.h>

struct subscription {
	struct list by_subject, by_subscriber;
	struct subject *subject;
	struct subscriber *subscriber;
	bool previews;
};

void subject_init(struct subject *s)
{
	list_init(&s->subs);
	s->count = 0;
	s->previews = 0;
}

void subscriber_init(struct subscriber *s)
{
	list_init(&s->subs);
	s->count = 0;
	s->total = NULL;
	s->previews = NULL;
	s->stamp = 0;
}

static void set_previews(struct subscription *s, bool wanted)
{
	size_t *total = s->subscriber->previews;

	if (s->previews == wanted)
		return;
	s->previews = wanted;
	s->subject->previews += wanted ? 1 : (size_t)-1;
	if (total)
		*total += wanted ? 1 : (size_t)-1;
}

static void end(struct subscription *s)
{
	set_previews(s, false);
	list_del(&s->by_subject);
	list_del(&s->by_subscriber);
	s->subject->count--;
	s->subscriber->count--;
	if (s->subscriber->total)
		--*s->subscriber->total;
	free(s);
}

void subject_clear(struct subject *s)
{
	struct list *n;

	while ((n = list_pop(&s->subs)))
		end(list_entry(n, struct subscription, by_subject));
}

void subscriber_clear(struct subscriber *s)
{
	struct list *n;

	while ((n = list_pop(&s->subs)))
		end(list_entry(n, struct subscription, by_subscriber));
}

/* Walks the shorter of the two lists: a prompt has few subscribers, though a
 * subscriber may have thousands of prompts. */
static struct subscription *find(const struct subject *subject,
                                 const struct subscriber *subscriber)
{
	struct subscription *s;
	struct list *it;

	if (subject->count <= subscriber->count) {
		list_for_each (it, &subject->subs) {
			s = list_entry(it, struct subscription, by_subject);
			if (s->subscriber == subscriber)
				return s;
		}
	} else {
		list_for_each (it, &subscriber->subs) {
			s = list_entry(it, struct subscription, by_subscriber);
			if (s->subject == subject)
				return s;
		}
	}
	return NULL;
}

int subscription_add(struct subject *subject, struct subscriber *subscriber)
{
	struct subscription *s;

	if (find(subject, subscriber))
		return 0;
	if (subscriber->count >= SUBSCRIPTIONS_MAX)
		return -ENOBUFS;
	s = malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->subject = subject;
	s->subscriber = subscriber;
	s->previews = false;
	list_append(&subject->subs, &s->by_subject);
	list_append(&subscriber->subs, &s->by_subscriber);
	subject->count++;
	subscriber->count++;
	if (subscriber->total)
		++*subscriber->total;
	return 0;
}

bool subscription_remove(struct subject *subject, struct subscriber *subscriber)
{
	struct subscription *s = find(subject, subscriber);

	if (!s)
		return false;
	end(s);
	return true;
}

bool subscription_stands(const struct subject *subject,
                         const struct subscriber *subscriber)
{
	return find(subject, subscriber) != NULL;
}

void subscription_set_previews(struct subject *subject,
                               struct subscriber *subscriber, bool wanted)
{
	struct subscription *s = find(subject, subscriber);

	if (s)
		set_previews(s, wanted);
}

bool subscription_has_previews(const struct subject *subject,
                               const struct subscriber *subscriber)
{
	const struct subscription *s = find(subject, subscriber);

	return s && s->previews;
}

static void tell(struct subject *s, uint64_t stamp, bool previews,
                 subject_cb *cb, void *user)
{
	struct subscription *sub;
	struct list *it;

	list_for_each (it, &s->subs) {
		sub = list_entry(it, struct subscription, by_subject);
		if (sub->subscriber->stamp == stamp ||
		    (previews && !sub->previews))
			continue;
		sub->subscriber->stamp = stamp;
		cb(user, sub->subscriber);
	}
}

void subject_tell(struct subject *s, uint64_t stamp, subject_cb *cb, void *user)
{
	tell(s, stamp, false, cb, user);
}

void subject_tell_previews(struct subject *s, uint64_t stamp, subject_cb *cb,
                           void *user)
{
	if (s->previews > 0)
		tell(s, stamp, true, cb, user);
}
