/*
 * eventlog.h - what is told of a prompt's events: which event of the socket an
 * event of ComfyUI is, its number, and its data, bounded and made small. Pure.
 *
 * progress_state goes on as changes: ComfyUI sends every node touched so far
 * with each step, which grows with the square of the number of nodes (recording
 * 16). Tracebacks are cut, tensors and inputs of a failed node left out.
 */
#ifndef SUPERVISOR_EVENTLOG_H
#define SUPERVISOR_EVENTLOG_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/comfy_event.h"
#include "common/map.h"
#include "ipc/message.h"

#define EVENTLOG_DATA_MAX      (1u << 20)  /* bytes of an event's data */
#define EVENTLOG_TRACEBACK_MAX (16u << 10) /* of a traceback, all its lines */
#define EVENTLOG_MESSAGE_MAX   (16u << 10) /* of an exception's message */
#define EVENTLOG_NODES_MAX     20000       /* nodes whose state is remembered */

struct eventlog {
	uint64_t seq;     /* of the event told last; 0: none */
	struct map nodes; /* raw node id -> struct told */
};

void eventlog_init(struct eventlog *l);
/* Safe twice. */
void eventlog_deinit(struct eventlog *l);

/* EVENT_COUNT for what is not told (status, previews ...). */
enum event eventlog_event(enum comfy_event_type type);

enum eventlog_outcome {
	EVENTLOG_OK = 0,
	EVENTLOG_E_SAME, /* nothing that was not told before */
};
/* Appends the event's data as JSON text. A negative errno when memory is
 * short. */
int eventlog_data(struct eventlog *l, const struct comfy_event *ev,
                  struct buf *out);

#endif
