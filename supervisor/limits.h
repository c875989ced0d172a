/*
 * limits.h - what one user may take of the supervisor, so that the others have
 * theirs. Operators are not held to it; what all take together has bounds of
 * its own (max_clients, max_prompts), of which a part is left for operators.
 *
 * Each limit is a key of the configuration. Whoever hits one is told its name,
 * his number and what to do, and `status` counts it.
 */
#ifndef SUPERVISOR_LIMITS_H
#define SUPERVISOR_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/error.h"

enum limit {
	LIMIT_SESSIONS,
	LIMIT_JOBS, /* detached, not over */
	LIMIT_CONNECTIONS,
	LIMIT_SUBSCRIPTIONS,
	LIMIT_QUEUED,   /* prompts that wait or run */
	LIMIT_WORKFLOW, /* bytes of one; nothing adds up */
	LIMIT_BUFFERED, /* bytes */
	LIMIT_COUNT
};

/* Of one user. Whoever makes or ends one of a kind keeps `used` right. */
struct limit_usage {
	size_t used[LIMIT_COUNT];
	uint64_t hit[LIMIT_COUNT];
};

/* As configured; bytes for those that are bytes. */
size_t limit_max(const struct config *cfg, enum limit which);
/* "sessions" */
const char *limit_name(enum limit which);
/* May a user take `more` of it? 0, or -1 with ERR_LIMIT, counted. */
int limit_check(struct limit_usage *u, const struct config *cfg,
                enum limit which, size_t more, struct error *err);
/* One that is felt without being told: counted alone. */
static inline void limit_note(struct limit_usage *u, enum limit which)
{
	u->hit[which]++;
}
/* {"sessions":{"used":1,"max":100,"hit":0},...} */
void limits_to_json(const struct limit_usage *u, const struct config *cfg,
                    struct buf *out);

/* What is left of `max` for those who are no operators. */
size_t limit_less_reserve(const struct config *cfg, size_t max);

#endif
