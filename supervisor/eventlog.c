/*
 * eventlog.c - see eventlog.h.
 */
#include "supervisor/eventlog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* What was told of a node last: a digest of its text. */
struct told {
	uint64_t digest;
	size_t id_len;
	char id[];
};

void eventlog_init(struct eventlog *l)
{
	*l = (struct eventlog){0};
}

void eventlog_deinit(struct eventlog *l)
{
	size_t i;

	map_for_each (i, &l->nodes) {
		free(l->nodes.slots[i].value);
	}
	map_deinit(&l->nodes);
}

enum event eventlog_event(enum comfy_event_type type)
{
	switch (type) {
	case COMFY_EV_EXECUTION_START:
		return EVENT_EXECUTION_START;
	case COMFY_EV_EXECUTION_CACHED:
		return EVENT_EXECUTION_CACHED;
	case COMFY_EV_PROGRESS_STATE:
		return EVENT_PROGRESS_STATE;
	case COMFY_EV_EXECUTING:
		return EVENT_EXECUTING;
	case COMFY_EV_PROGRESS:
		return EVENT_PROGRESS;
	case COMFY_EV_EXECUTED:
		return EVENT_EXECUTED;
	case COMFY_EV_EXECUTION_SUCCESS:
		return EVENT_EXECUTION_SUCCESS;
	case COMFY_EV_EXECUTION_ERROR:
		return EVENT_EXECUTION_ERROR;
	case COMFY_EV_EXECUTION_INTERRUPTED:
		return EVENT_EXECUTION_INTERRUPTED;
	case COMFY_EV_UNKNOWN:
	case COMFY_EV_STATUS:
	case COMFY_EV_FEATURE_FLAGS:
	case COMFY_EV_PREVIEW:
	case COMFY_EV_TEXT:
	case COMFY_EV_PREVIEW_META:
	case COMFY_EV_TYPE_COUNT:
		break;
	}
	return EVENT_COUNT;
}

/* FNV-1a, 64 bits: a chance match would leave one step of one node untold, so
 * it need not resist an enemy. */
static uint64_t digest(struct span s)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < s.n; i++) {
		h ^= (unsigned char)s.p[i];
		h *= 0x100000001b3u;
	}
	return h;
}

/* True if the node's state is news; it is noted as told then. */
static bool node_changed(struct eventlog *l, struct span id, struct span state)
{
	uint64_t now = digest(state);
	struct told *t = map_get(&l->nodes, id.p, id.n);

	if (t) {
		if (t->digest == now)
			return false;
		t->digest = now;
		return true;
	}
	if (l->nodes.count >= EVENTLOG_NODES_MAX)
		return true;
	t = malloc(sizeof(*t) + id.n);
	if (!t)
		return true;
	t->digest = now;
	t->id_len = id.n;
	memcpy(t->id, id.p, id.n);
	if (map_add(&l->nodes, t->id, t->id_len, t) != 0)
		free(t);
	return true;
}

static int put_key(struct buf *out, struct json key)
{
	(void)buf_append(out, key.text.p, key.text.n);
	return buf_putc(out, ':');
}

/* The changed nodes, as an object. Returns how many there are. */
static size_t put_changes(struct eventlog *l, struct json nodes,
                          struct buf *out)
{
	struct json_iter it;
	struct json key, state;
	size_t n = 0;

	(void)buf_putc(out, '{');
	json_iter_init(&it, nodes);
	while (json_iter_next(&it, &key, &state)) {
		if (!node_changed(l, json_raw_string(key), state.text))
			continue;
		if (n++ > 0)
			(void)buf_putc(out, ',');
		(void)put_key(out, key);
		(void)json_compact(out, state);
	}
	(void)buf_putc(out, '}');
	return n;
}

static int progress_state_data(struct eventlog *l, const struct comfy_event *ev,
                               struct buf *out)
{
	struct json_iter it;
	struct json key, value;
	size_t changes = 0, members = 0;

	(void)buf_putc(out, '{');
	json_iter_init(&it, ev->data);
	while (json_iter_next(&it, &key, &value)) {
		if (members++ > 0)
			(void)buf_putc(out, ',');
		(void)put_key(out, key);
		if (json_string_eq(key, "nodes"))
			changes += put_changes(l, value, out);
		else
			(void)json_compact(out, value);
	}
	(void)buf_putc(out, '}');
	return changes > 0 ? EVENTLOG_OK : EVENTLOG_E_SAME;
}

/* A JSON string cut to `max` bytes of what it stands for. */
static int put_cut_string(struct buf *out, struct json s, size_t max)
{
	struct buf text = BUF_INIT(max + 4);
	size_t n, cut = 0;
	char *plain;
	int r;

	if (s.text.n <= max)
		return json_compact(out, s);
	/* Decoded text is never longer than its JSON form. */
	text.max = s.text.n;
	r = json_string_decode(s, &text);
	if (r == 0) {
		plain = text.data;
		while (cut < text.len) {
			n = utf8_char_len((const unsigned char *)plain + cut,
			                  text.len - cut);
			if (n == 0 || cut + n > max)
				break;
			cut += n;
		}
		r = buf_json_string(out, plain, cut);
	}
	buf_deinit(&text);
	return r;
}

/* The last lines of a traceback name the fault, the first the way there: the
 * end is kept. */
static int put_traceback(struct buf *out, struct json lines)
{
	struct json_iter it;
	struct json line;
	size_t total = 0, skip = 0, n = 0;

	json_iter_init(&it, lines);
	while (json_iter_next(&it, NULL, &line))
		total += line.text.n;
	(void)buf_putc(out, '[');
	json_iter_init(&it, lines);
	while (json_iter_next(&it, NULL, &line)) {
		if (total - skip > EVENTLOG_TRACEBACK_MAX) {
			skip += line.text.n;
			continue;
		}
		if (n++ > 0)
			(void)buf_putc(out, ',');
		(void)json_compact(out, line);
	}
	return buf_putc(out, ']');
}

static int error_data(const struct comfy_event *ev, struct buf *out)
{
	struct json_iter it;
	struct json key, value;
	size_t members = 0;

	(void)buf_putc(out, '{');
	json_iter_init(&it, ev->data);
	while (json_iter_next(&it, &key, &value)) {
		if (json_string_eq(key, "current_inputs") ||
		    json_string_eq(key, "current_outputs"))
			continue;
		if (members++ > 0)
			(void)buf_putc(out, ',');
		(void)put_key(out, key);
		if (json_string_eq(key, "traceback"))
			(void)put_traceback(out, value);
		else if (json_is(value, JSON_STRING))
			(void)put_cut_string(out, value, EVENTLOG_MESSAGE_MAX);
		else
			(void)json_compact(out, value);
	}
	return buf_putc(out, '}');
}

int eventlog_data(struct eventlog *l, const struct comfy_event *ev,
                  struct buf *out)
{
	size_t start = out->len;
	int r = EVENTLOG_OK;

	if (ev->type == COMFY_EV_PROGRESS_STATE)
		r = progress_state_data(l, ev, out);
	else if (ev->type == COMFY_EV_EXECUTION_ERROR)
		(void)error_data(ev, out);
	else
		(void)json_compact(out, ev->data);
	if (!buf_ok(out))
		return -ENOMEM;
	if (out->len - start > EVENTLOG_DATA_MAX) {
		/* Whoever wants all of it asks for the outputs. */
		out->len = start;
		if (buf_puts(out, "{\"truncated\":true}") != 0)
			return -ENOMEM;
	}
	return r;
}
