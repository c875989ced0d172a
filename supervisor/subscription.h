/*
 * subscription.h - who is told of what. Pure.
 *
 * A subject is something to be told of (a prompt, all prompts of a tenant, all
 * there are); a subscriber is a connection. Both are embedded in what they
 * stand for. A subscriber that hears of one event by several subjects is told
 * once.
 */
#ifndef SUPERVISOR_SUBSCRIPTION_H
#define SUPERVISOR_SUBSCRIPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/list.h"

#define SUBSCRIPTIONS_MAX 10000 /* per subscriber */

struct subject {
	struct list subs;
	size_t count;
	size_t previews; /* of them, those that want previews too */
};

struct subscriber {
	struct list subs;
	size_t count;
	size_t *total; /* of several subscribers together; NULL: not counted */
	size_t *previews; /* likewise, subscriptions that want them */
	uint64_t stamp;   /* of the event told last */
};

void subject_init(struct subject *s);
void subscriber_init(struct subscriber *s);
/* Ends all subscriptions of the one; safe twice. */
void subject_clear(struct subject *s);
void subscriber_clear(struct subscriber *s);

/* 0, also when it stands already; -ENOBUFS past SUBSCRIPTIONS_MAX; -ENOMEM. */
int subscription_add(struct subject *subject, struct subscriber *subscriber);
/* False if there was none. */
bool subscription_remove(struct subject *subject,
                         struct subscriber *subscriber);
bool subscription_stands(const struct subject *subject,
                         const struct subscriber *subscriber);

/* Whether a subscription, if it stands, brings previews too. */
void subscription_set_previews(struct subject *subject,
                               struct subscriber *subscriber, bool wanted);
/* Whether one that stands does. */
bool subscription_has_previews(const struct subject *subject,
                               const struct subscriber *subscriber);

static inline bool subject_watched(const struct subject *s)
{
	return s->count > 0;
}

/* Calls back for each subscriber of the subject that has not been told of
 * event `stamp` yet. Subscriptions must not change meanwhile. */
typedef void subject_cb(void *user, struct subscriber *s);
void subject_tell(struct subject *s, uint64_t stamp, subject_cb *cb,
                  void *user);
/* Likewise for those that want previews. */
void subject_tell_previews(struct subject *s, uint64_t stamp, subject_cb *cb,
                           void *user);

/* Whether `viewer` may see what belongs to `owner`. */
static inline bool may_see(uid_t viewer, bool is_operator, uid_t owner)
{
	return is_operator || viewer == owner;
}

#endif
