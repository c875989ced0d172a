/*
 * comfy_event.h - one frame of ComfyUI's WebSocket, text or binary, parsed.
 *
 * Pure and allocation-free: the event points into the frame's own bytes. What
 * a real server sends is recorded in tests/data/comfyui; section numbers below
 * are those of the recordings' README.
 */
#ifndef COMMON_COMFY_EVENT_H
#define COMMON_COMFY_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/json_span.h"

enum comfy_event_type {
	COMFY_EV_UNKNOWN, /* a well-formed event of a type we don't know */
	COMFY_EV_STATUS,
	COMFY_EV_EXECUTION_START,
	COMFY_EV_EXECUTION_CACHED,
	COMFY_EV_PROGRESS_STATE,
	COMFY_EV_EXECUTING,
	COMFY_EV_PROGRESS,
	COMFY_EV_EXECUTED,
	COMFY_EV_EXECUTION_SUCCESS,
	COMFY_EV_EXECUTION_ERROR,
	COMFY_EV_EXECUTION_INTERRUPTED,
	COMFY_EV_FEATURE_FLAGS,
	COMFY_EV_PREVIEW,      /* binary 1: image, names no prompt */
	COMFY_EV_TEXT,         /* binary 3: text of a node, names no prompt */
	COMFY_EV_PREVIEW_META, /* binary 4: image with metadata */
	COMFY_EV_TYPE_COUNT
};

/* Where an event has no such field its span is {NULL, 0} and its JSON has type
 * JSON_NONE. Ids are raw bytes between the quotes, still escaped; in binary 3
 * alone they are plain bytes, perhaps not UTF-8. */
struct comfy_event {
	enum comfy_event_type type;
	struct span type_name; /* as sent, raw */
	struct json data; /* of a text frame, or the metadata of binary 4 */
	struct span prompt_id;
	/* `node` of executing, progress, executed; `node_id` of errors,
	 * interrupts, binary 3 and 4. */
	struct span node;
	struct span display_node; /* display_node or display_node_id */
	bool node_is_null;        /* executing: the prompt has ended */
	union {
		struct {
			int64_t queue_remaining; /* -1 if absent */
			struct span sid;
		} status;
		struct {
			double value, max; /* max 0 if absent or not finite */
		} progress;
		struct {
			struct json nodes; /* array */
		} cached;
		struct {
			struct json nodes; /* object: id -> state */
		} state;
		struct {
			struct json output; /* object, JSON_NULL */
		} executed;
		struct {
			struct json message, type, node_type, traceback;
			struct json executed; /* array */
		} error; /* also interrupted: node_type, executed */
		struct {
			const char *mime; /* "image/jpeg", "image/png", or
			                     NULL when not known */
			struct span image;
		} preview;
		struct {
			struct span text; /* as sent; may be invalid UTF-8 */
		} text;
	} u;
};

enum comfy_event_outcome {
	COMFY_EVENT_OK = 0,
	COMFY_EVENT_E_JSON,  /* not JSON, not UTF-8, too deep */
	COMFY_EVENT_E_SHAPE, /* JSON, but not {"type": string, "data": object},
	                        or a field of the wrong type where it matters;
	                        `data` of an unknown type may be anything */
	COMFY_EVENT_E_SHORT, /* binary frame shorter than it says */
	COMFY_EVENT_E_TYPE,  /* binary frame of an unknown type */
};

/* `frame` must outlive `ev`. NaN and Infinity are read as null (recording 25).
 * An unknown text type is COMFY_EVENT_OK with COMFY_EV_UNKNOWN. */
enum comfy_event_outcome comfy_event_parse_text(struct comfy_event *ev,
                                                const char *frame, size_t len);
enum comfy_event_outcome
comfy_event_parse_binary(struct comfy_event *ev, const char *frame, size_t len);

/* What a binary frame is, by its first bytes alone: for whoever wants to know
 * no more of it. COMFY_EV_UNKNOWN if it is too short or of an unknown type. */
enum comfy_event_type comfy_event_binary_type(const char *frame, size_t len);

/* As comfy_event_parse_text, from a type and data that were told apart: an
 * event that a supervisor passed on. COMFY_EVENT_E_SHAPE for a type that is not
 * known. */
enum comfy_event_outcome comfy_event_from(struct comfy_event *ev,
                                          const char *type, struct json data);

/* "execution_start" ...; for the binary ones "preview", "text",
 * "preview_meta"; "unknown". */
const char *comfy_event_type_name(enum comfy_event_type type);
const char *comfy_event_outcome_text(enum comfy_event_outcome o);

/* One entry of a progress_state's `nodes`. */
struct comfy_node_state {
	struct span id; /* raw key */
	struct span display_id, real_id;
	double value, max;
	bool running, finished, error; /* none set: pending or unknown */
};
/* Walks u.state.nodes; entries of a wrong shape are passed over. */
bool comfy_node_state_next(struct json_iter *it, struct comfy_node_state *out);

#endif
