/*
 * comfy_event.c - see comfy_event.h.
 *
 * One validating pass over the frame, then one walk over its top level and one
 * over `data`, that pick out what the event's type calls for. A field that is
 * null counts as absent. A field of the wrong type makes the event unusable
 * only where folding it would mislead: ids, and the containers of node ids.
 */
#include "common/comfy_event.h"

#include "common/macros.h"

/* Binary frames: type, then a length or format, each 32 bits, big-endian. */
#define BINARY_HEADER_LEN 8

enum binary_type {
	BINARY_PREVIEW = 1,
	BINARY_TEXT = 3,
	BINARY_PREVIEW_META = 4,
};

enum preview_format {
	FORMAT_JPEG = 1,
	FORMAT_PNG = 2,
};

/* Members of `data` that some type of event needs. */
enum field {
	F_PROMPT_ID,
	F_NODE,
	F_NODE_ID,
	F_DISPLAY_NODE,
	F_DISPLAY_NODE_ID,
	F_STATUS,
	F_SID,
	F_VALUE,
	F_MAX,
	F_NODES,
	F_OUTPUT,
	F_MESSAGE,
	F_EXCEPTION,
	F_NODE_TYPE,
	F_TRACEBACK,
	F_EXECUTED,
	F_IMAGE_TYPE,
	F_COUNT
};

static const char *const field_names[] = {
	[F_PROMPT_ID] = "prompt_id",
	[F_NODE] = "node",
	[F_NODE_ID] = "node_id",
	[F_DISPLAY_NODE] = "display_node",
	[F_DISPLAY_NODE_ID] = "display_node_id",
	[F_STATUS] = "status",
	[F_SID] = "sid",
	[F_VALUE] = "value",
	[F_MAX] = "max",
	[F_NODES] = "nodes",
	[F_OUTPUT] = "output",
	[F_MESSAGE] = "exception_message",
	[F_EXCEPTION] = "exception_type",
	[F_NODE_TYPE] = "node_type",
	[F_TRACEBACK] = "traceback",
	[F_EXECUTED] = "executed",
	[F_IMAGE_TYPE] = "image_type",
};
STATIC_ASSERT_ARRAY_SIZE(field_names, F_COUNT);

static const char *const type_names[] = {
	[COMFY_EV_UNKNOWN] = "unknown",
	[COMFY_EV_STATUS] = "status",
	[COMFY_EV_EXECUTION_START] = "execution_start",
	[COMFY_EV_EXECUTION_CACHED] = "execution_cached",
	[COMFY_EV_PROGRESS_STATE] = "progress_state",
	[COMFY_EV_EXECUTING] = "executing",
	[COMFY_EV_PROGRESS] = "progress",
	[COMFY_EV_EXECUTED] = "executed",
	[COMFY_EV_EXECUTION_SUCCESS] = "execution_success",
	[COMFY_EV_EXECUTION_ERROR] = "execution_error",
	[COMFY_EV_EXECUTION_INTERRUPTED] = "execution_interrupted",
	[COMFY_EV_FEATURE_FLAGS] = "feature_flags",
	[COMFY_EV_PREVIEW] = "preview",
	[COMFY_EV_TEXT] = "text",
	[COMFY_EV_PREVIEW_META] = "preview_meta",
};
STATIC_ASSERT_ARRAY_SIZE(type_names, COMFY_EV_TYPE_COUNT);

const char *comfy_event_type_name(enum comfy_event_type type)
{
	return (size_t)type < ARRAY_SIZE(type_names) ? type_names[type]
	                                             : "unknown";
}

const char *comfy_event_outcome_text(enum comfy_event_outcome o)
{
	static const char *const texts[] = {
		[COMFY_EVENT_OK] = "no error",
		[COMFY_EVENT_E_JSON] = "not valid JSON",
		[COMFY_EVENT_E_SHAPE] = "not an event",
		[COMFY_EVENT_E_SHORT] = "binary frame is cut short",
		[COMFY_EVENT_E_TYPE] = "binary frame of an unknown type",
	};

	return (size_t)o < ARRAY_SIZE(texts) ? texts[o] : "unknown error";
}

/* Only text types: a text frame named "preview" is nobody's preview. */
static enum comfy_event_type type_from_name(struct span name)
{
	for (int t = COMFY_EV_STATUS; t <= COMFY_EV_FEATURE_FLAGS; t++) {
		if (span_eq_str(name, type_names[t]))
			return (enum comfy_event_type)t;
	}
	return COMFY_EV_UNKNOWN;
}

/* An id: a string, or null or absent ({NULL, 0}). False for anything else. */
static bool take_id(struct json j, struct span *out)
{
	*out = json_raw_string(j);
	return j.type == JSON_STRING || j.type == JSON_NULL ||
	       j.type == JSON_NONE;
}

static struct json take_typed(struct json j, enum json_type type)
{
	return j.type == type ? j : JSON_MISSING;
}

/* value and max; 0 and 0 unless both are finite numbers. */
static void take_steps(struct json value, struct json max, double *valuep,
                       double *maxp)
{
	if (!json_double(value, valuep) || !json_double(max, maxp))
		*valuep = *maxp = 0;
}

static void take_status(struct comfy_event *ev, const struct json *f)
{
	struct json info = json_get(f[F_STATUS], "exec_info");

	if (!json_int64(json_get(info, "queue_remaining"),
	                &ev->u.status.queue_remaining))
		ev->u.status.queue_remaining = -1;
	ev->u.status.sid = json_raw_string(f[F_SID]);
}

static void take_error(struct comfy_event *ev, const struct json *f)
{
	ev->u.error.message = f[F_MESSAGE];
	ev->u.error.type = f[F_EXCEPTION];
	ev->u.error.node_type = f[F_NODE_TYPE];
	ev->u.error.traceback = f[F_TRACEBACK];
	ev->u.error.executed = take_typed(f[F_EXECUTED], JSON_ARRAY);
}

/* What belongs to the type alone; false if the event is unusable. */
static bool take_details(struct comfy_event *ev, const struct json *f)
{
	switch (ev->type) {
	case COMFY_EV_STATUS:
		take_status(ev, f);
		return true;
	case COMFY_EV_EXECUTION_CACHED:
		ev->u.cached.nodes = f[F_NODES];
		return f[F_NODES].type == JSON_ARRAY;
	case COMFY_EV_PROGRESS_STATE:
		ev->u.state.nodes = f[F_NODES];
		return f[F_NODES].type == JSON_OBJECT;
	case COMFY_EV_EXECUTING:
		ev->node_is_null = f[F_NODE].type == JSON_NULL;
		return f[F_NODE].type == JSON_STRING || ev->node_is_null;
	case COMFY_EV_PROGRESS:
		take_steps(f[F_VALUE], f[F_MAX], &ev->u.progress.value,
		           &ev->u.progress.max);
		return true;
	case COMFY_EV_EXECUTED:
		ev->u.executed.output = f[F_OUTPUT];
		return f[F_NODE].type == JSON_STRING &&
		       (f[F_OUTPUT].type == JSON_OBJECT ||
		        f[F_OUTPUT].type == JSON_NULL ||
		        f[F_OUTPUT].type == JSON_NONE);
	case COMFY_EV_EXECUTION_ERROR:
	case COMFY_EV_EXECUTION_INTERRUPTED:
		take_error(ev, f);
		return true;
	default:
		return true;
	}
}

/* The ids that `data` or the metadata of a preview names. */
static bool take_ids(struct comfy_event *ev, const struct json *f)
{
	bool by_node_id = ev->type == COMFY_EV_EXECUTION_ERROR ||
	                  ev->type == COMFY_EV_EXECUTION_INTERRUPTED ||
	                  ev->type == COMFY_EV_PREVIEW_META;

	ev->display_node = json_raw_string(
		f[by_node_id ? F_DISPLAY_NODE_ID : F_DISPLAY_NODE]);
	return take_id(f[F_PROMPT_ID], &ev->prompt_id) &&
	       take_id(f[by_node_id ? F_NODE_ID : F_NODE], &ev->node);
}

static enum comfy_event_outcome take_data(struct comfy_event *ev)
{
	struct json f[F_COUNT];

	json_get_many(ev->data, field_names, f, F_COUNT);
	return take_ids(ev, f) && take_details(ev, f) ? COMFY_EVENT_OK
	                                              : COMFY_EVENT_E_SHAPE;
}

enum comfy_event_outcome comfy_event_parse_text(struct comfy_event *ev,
                                                const char *frame, size_t len)
{
	static const char *const keys[] = {"type", "data"};
	struct json text, top[ARRAY_SIZE(keys)];

	*ev = (struct comfy_event){.type = COMFY_EV_UNKNOWN};
	if (json_parse(&text, frame, len, JSON_NONFINITE, NULL) != JSON_OK)
		return COMFY_EVENT_E_JSON;
	json_get_many(text, keys, top, ARRAY_SIZE(keys));
	if (top[0].type != JSON_STRING)
		return COMFY_EVENT_E_SHAPE;
	ev->type_name = json_raw_string(top[0]);
	ev->data = top[1];
	ev->type = type_from_name(ev->type_name);
	if (ev->type == COMFY_EV_UNKNOWN) {
		/* Only its prompt is of interest, if it has one. */
		(void)take_id(json_get(ev->data, "prompt_id"), &ev->prompt_id);
		return COMFY_EVENT_OK;
	}
	return ev->data.type == JSON_OBJECT ? take_data(ev)
	                                    : COMFY_EVENT_E_SHAPE;
}

enum comfy_event_outcome comfy_event_from(struct comfy_event *ev,
                                          const char *type, struct json data)
{
	*ev = (struct comfy_event){.type_name = SPAN(type), .data = data};
	ev->type = type_from_name(ev->type_name);
	return ev->type != COMFY_EV_UNKNOWN && data.type == JSON_OBJECT
	               ? take_data(ev)
	               : COMFY_EVENT_E_SHAPE;
}

/* ---- binary frames ---- */

static uint32_t read_be32(const char *p)
{
	const unsigned char *u = (const unsigned char *)p;

	return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 |
	       (uint32_t)u[2] << 8 | u[3];
}

static enum comfy_event_outcome parse_preview(struct comfy_event *ev,
                                              uint32_t format, struct span rest)
{
	ev->type = COMFY_EV_PREVIEW;
	if (format == FORMAT_JPEG)
		ev->u.preview.mime = "image/jpeg";
	else if (format == FORMAT_PNG)
		ev->u.preview.mime = "image/png";
	ev->u.preview.image = rest;
	return COMFY_EVENT_OK;
}

static enum comfy_event_outcome
parse_node_text(struct comfy_event *ev, uint32_t id_len, struct span rest)
{
	if (id_len > rest.n)
		return COMFY_EVENT_E_SHORT;
	ev->type = COMFY_EV_TEXT;
	ev->node = span_make(rest.p, id_len);
	ev->u.text.text = span_make(rest.p + id_len, rest.n - id_len);
	return COMFY_EVENT_OK;
}

static enum comfy_event_outcome
parse_preview_meta(struct comfy_event *ev, uint32_t meta_len, struct span rest)
{
	struct json f[F_COUNT];

	if (meta_len > rest.n)
		return COMFY_EVENT_E_SHORT;
	ev->type = COMFY_EV_PREVIEW_META;
	if (json_parse(&ev->data, rest.p, meta_len, JSON_NONFINITE, NULL) !=
	    JSON_OK)
		return COMFY_EVENT_E_JSON;
	if (ev->data.type != JSON_OBJECT)
		return COMFY_EVENT_E_SHAPE;
	json_get_many(ev->data, field_names, f, F_COUNT);
	if (json_string_eq(f[F_IMAGE_TYPE], "image/jpeg"))
		ev->u.preview.mime = "image/jpeg";
	else if (json_string_eq(f[F_IMAGE_TYPE], "image/png"))
		ev->u.preview.mime = "image/png";
	ev->u.preview.image = span_make(rest.p + meta_len, rest.n - meta_len);
	return take_ids(ev, f) ? COMFY_EVENT_OK : COMFY_EVENT_E_SHAPE;
}

enum comfy_event_type comfy_event_binary_type(const char *frame, size_t len)
{
	if (len < BINARY_HEADER_LEN)
		return COMFY_EV_UNKNOWN;
	switch (read_be32(frame)) {
	case BINARY_PREVIEW:
		return COMFY_EV_PREVIEW;
	case BINARY_TEXT:
		return COMFY_EV_TEXT;
	case BINARY_PREVIEW_META:
		return COMFY_EV_PREVIEW_META;
	default:
		return COMFY_EV_UNKNOWN;
	}
}

enum comfy_event_outcome comfy_event_parse_binary(struct comfy_event *ev,
                                                  const char *frame, size_t len)
{
	enum comfy_event_outcome r;
	uint32_t type, second;
	struct span rest;

	*ev = (struct comfy_event){.type = COMFY_EV_UNKNOWN};
	if (len < BINARY_HEADER_LEN)
		return COMFY_EVENT_E_SHORT;
	type = read_be32(frame);
	second = read_be32(frame + 4);
	rest = span_make(frame + BINARY_HEADER_LEN, len - BINARY_HEADER_LEN);
	switch (type) {
	case BINARY_PREVIEW:
		r = parse_preview(ev, second, rest);
		break;
	case BINARY_TEXT:
		r = parse_node_text(ev, second, rest);
		break;
	case BINARY_PREVIEW_META:
		r = parse_preview_meta(ev, second, rest);
		break;
	default:
		return COMFY_EVENT_E_TYPE;
	}
	if (r == COMFY_EVENT_OK)
		ev->type_name = SPAN(type_names[ev->type]);
	return r;
}

/* ---- progress_state ---- */

static void take_node_state(struct comfy_node_state *out, struct json state)
{
	static const char *const keys[] = {"value", "max", "state",
	                                   "display_node_id", "real_node_id"};
	struct json f[ARRAY_SIZE(keys)];

	json_get_many(state, keys, f, ARRAY_SIZE(keys));
	take_steps(f[0], f[1], &out->value, &out->max);
	out->running = json_string_eq(f[2], "running");
	out->finished = json_string_eq(f[2], "finished");
	out->error = json_string_eq(f[2], "error");
	out->display_id = json_raw_string(f[3]);
	out->real_id = json_raw_string(f[4]);
}

bool comfy_node_state_next(struct json_iter *it, struct comfy_node_state *out)
{
	struct json key, state;

	while (it->object && json_iter_next(it, &key, &state)) {
		if (state.type != JSON_OBJECT)
			continue;
		*out = (struct comfy_node_state){.id = json_raw_string(key)};
		take_node_state(out, state);
		return true;
	}
	return false;
}
