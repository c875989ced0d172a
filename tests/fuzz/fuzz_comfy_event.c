/*
 * fuzz_comfy_event.c - any frame: what an event points at lies inside it, what
 * is said of it is consistent, and a text frame without its white space is the
 * same event.
 *
 * The input: a byte that tells text (even) from binary (odd), the frame.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/comfy_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

static const char *frame, *frame_end;

static void inside(struct span s)
{
	REQUIRE(s.p || s.n == 0);
	if (s.p)
		REQUIRE(s.p >= frame && s.n <= (size_t)(frame_end - s.p));
}

static void check_details(const struct comfy_event *ev)
{
	struct comfy_node_state s;
	struct json_iter it;

	switch (ev->type) {
	case COMFY_EV_STATUS:
		inside(ev->u.status.sid);
		break;
	case COMFY_EV_EXECUTION_CACHED:
		REQUIRE(ev->u.cached.nodes.type == JSON_ARRAY);
		inside(ev->u.cached.nodes.text);
		break;
	case COMFY_EV_PROGRESS_STATE:
		json_iter_init(&it, ev->u.state.nodes);
		while (comfy_node_state_next(&it, &s)) {
			inside(s.id);
			inside(s.display_id);
			inside(s.real_id);
			REQUIRE(s.id.p);
			REQUIRE(isfinite(s.value) && isfinite(s.max));
			REQUIRE(s.running + s.finished + s.error <= 1);
		}
		break;
	case COMFY_EV_EXECUTING:
		REQUIRE(ev->node_is_null == !ev->node.p);
		break;
	case COMFY_EV_PROGRESS:
		REQUIRE(isfinite(ev->u.progress.value) &&
		        isfinite(ev->u.progress.max));
		break;
	case COMFY_EV_EXECUTED:
		REQUIRE(ev->node.p);
		inside(ev->u.executed.output.text);
		break;
	case COMFY_EV_EXECUTION_ERROR:
	case COMFY_EV_EXECUTION_INTERRUPTED:
		inside(ev->u.error.message.text);
		inside(ev->u.error.executed.text);
		break;
	case COMFY_EV_PREVIEW:
	case COMFY_EV_PREVIEW_META:
		inside(ev->u.preview.image);
		break;
	case COMFY_EV_TEXT:
		inside(ev->u.text.text);
		break;
	default:
		break;
	}
}

static void check_event(const struct comfy_event *ev)
{
	REQUIRE(ev->type < COMFY_EV_TYPE_COUNT);
	REQUIRE(ev->type_name.p);
	inside(ev->data.text);
	inside(ev->prompt_id);
	inside(ev->node);
	inside(ev->display_node);
	REQUIRE(!ev->node_is_null || ev->type == COMFY_EV_EXECUTING);
	check_details(ev);
}

static void same(struct span a, struct span b)
{
	REQUIRE(!a.p == !b.p && span_eq(a, b));
}

static void check_compacted(const struct comfy_event *ev)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 24);
	struct comfy_event again;
	struct json j;

	REQUIRE(json_parse(&j, frame, (size_t)(frame_end - frame),
	                   JSON_NONFINITE, NULL) == JSON_OK);
	REQUIRE(json_compact(&b, j) == 0);
	REQUIRE(comfy_event_parse_text(&again, b.data, b.len) ==
	        COMFY_EVENT_OK);
	REQUIRE(again.type == ev->type);
	REQUIRE(again.node_is_null == ev->node_is_null);
	same(again.type_name, ev->type_name);
	same(again.prompt_id, ev->prompt_id);
	same(again.node, ev->node);
	same(again.display_node, ev->display_node);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct comfy_event ev;
	char *copy;

	if (size < 1 || size > 1u << 20)
		return 0;
	size--;
	copy = malloc(size > 0 ? size : 1);
	REQUIRE(copy);
	memcpy(copy, data + 1, size);
	frame = copy;
	frame_end = copy + size;
	if (data[0] % 2 == 0) {
		if (comfy_event_parse_text(&ev, copy, size) == COMFY_EVENT_OK) {
			inside(ev.type_name);
			REQUIRE(ev.type <= COMFY_EV_FEATURE_FLAGS);
			check_event(&ev);
			check_compacted(&ev);
		}
	} else if (comfy_event_parse_binary(&ev, copy, size) ==
	           COMFY_EVENT_OK) {
		REQUIRE(ev.type > COMFY_EV_FEATURE_FLAGS);
		check_event(&ev);
	}
	free(copy);
	return 0;
}
