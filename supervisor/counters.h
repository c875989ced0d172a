/*
 * counters.h - what `status` counts, since the supervisor's start.
 */
#ifndef SUPERVISOR_COUNTERS_H
#define SUPERVISOR_COUNTERS_H

#include <stdint.h>

#include "common/comfy_event.h"

/* Statuses of HTTP by their first digit; 0: no answer came. */
#define COUNTERS_HTTP_CLASSES 6

/* How long things took; the last count is of what took longer than any bound.
 */
#define HISTOGRAM_BOUNDS 14
struct histogram {
	uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* each bound's own */
	uint64_t sum_us;
};
static const uint64_t histogram_bounds_us[HISTOGRAM_BOUNDS] = {
	50,    100,   250,    500,    1000,   2500,    5000,
	10000, 25000, 100000, 250000, 500000, 1000000, 5000000};
static inline void histogram_add(struct histogram *h, uint64_t us)
{
	unsigned i = 0;

	while (i < HISTOGRAM_BOUNDS && us > histogram_bounds_us[i])
		i++;
	h->counts[i]++;
	h->sum_us += us;
}

/* X(name) each; the names are those of the JSON. */
#define COUNTERS(X)                                                            \
	X(frames)        /* from ComfyUI, text and binary */                   \
	X(bytes)         /* in them */                                         \
	X(parse_errors)  /* frames that were not understood */                 \
	X(foreign)       /* events of prompts that are not ours */             \
	X(nameless)      /* events that name no prompt */                      \
	X(deaf)          /* links closed since they heard nothing */           \
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
	X(previews)         /* put into a file, for those who asked */         \
	X(previews_sent)    /* of them, each time to a client */               \
	X(previews_folded)  /* superseded before they went to a client */      \
	X(previews_dropped) /* asked for, but nobody's, too large, too many */ \
	X(requests)         /* lines from clients */                           \
	X(bad_requests)     /* of them, refused as not understood */           \
	X(clients)          /* connections accepted */                         \
	X(clients_refused)  /* turned away at the door */                      \
	X(clients_shed)     /* disconnected: broke a bound, or took nothing */ \
	X(limits_hit)       /* by users, see limits.h */                       \
	X(descriptors)      /* pushed at us and thrown away */                 \
	X(workers)          /* forked */                                       \
	X(workers_failed)   /* of them, died or killed unasked */              \
	X(worker_restarts)  /* forked after one that was gone */               \
	X(zygotes)          /* started */                                      \
	X(store_errors)

struct counters {
#define COUNTER_MEMBER(name) uint64_t name;
	COUNTERS(COUNTER_MEMBER)
#undef COUNTER_MEMBER
	uint64_t events[COMFY_EV_TYPE_COUNT]; /* by type */
	uint64_t http_status[COUNTERS_HTTP_CLASSES];
	struct histogram
		latency; /* from frame to write, once a client and write */
};

#endif
