/*
 * counters.h - what `status` counts, since the supervisor's start.
 */
#ifndef SUPERVISOR_COUNTERS_H
#define SUPERVISOR_COUNTERS_H

#include <stdint.h>

#include "common/comfy_event.h"

/* X(name) each; the names are those of the JSON. */
#define COUNTERS(X)                                                            \
	X(frames)        /* from ComfyUI, text and binary */                   \
	X(bytes)         /* in them */                                         \
	X(parse_errors)  /* frames that were not understood */                 \
	X(foreign)       /* events of prompts that are not ours */             \
	X(nameless)      /* events that name no prompt */                      \
	X(gaps)          /* times the event stream broke */                    \
	X(posts)         /* POST /prompt */                                    \
	X(http_requests) /* all, POST /prompt included */                      \
	X(http_errors)   /* of them without a usable answer */                 \
	X(accepted)      /* prompts taken over from clients */                 \
	X(completed)                                                           \
	X(failed)     /* all reasons */                                        \
	X(rejected)   /* refused by ComfyUI */                                 \
	X(lines)      /* event lines built */                                  \
	X(deliveries) /* of them, queued for a client */                       \
	X(folded)     /* superseded while they waited for a client */          \
	X(missed)     /* left out for a client that read too slowly */         \
	X(snapshots)                                                           \
	X(requests)        /* lines from clients */                            \
	X(bad_requests)    /* of them, refused as not understood */            \
	X(clients)         /* connections accepted */                          \
	X(clients_refused) /* turned away at the door */                       \
	X(clients_shed)    /* disconnected: broke a bound, or took nothing */  \
	X(limits_hit)      /* by users, see limits.h */                        \
	X(descriptors)     /* pushed at us and thrown away */                  \
	X(workers)         /* forked */                                        \
	X(workers_failed)  /* of them, died or killed unasked */               \
	X(zygotes)         /* started */                                       \
	X(store_errors)

struct counters {
#define COUNTER_MEMBER(name) uint64_t name;
	COUNTERS(COUNTER_MEMBER)
#undef COUNTER_MEMBER
	uint64_t events[COMFY_EV_TYPE_COUNT]; /* by type */
};

#endif
