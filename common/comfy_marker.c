/*
 * comfy_marker.c - see comfy_marker.h. An item of the queue, and `prompt` of a
 * history entry, is [number, prompt_id, prompt, extra_data, ...] (recordings
 * 15 and 29).
 */
#include "common/comfy_marker.h"

#include <errno.h>
#include <string.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/uuid.h"

#define MARKER      "comfymux"
#define EXTRA_DATA  3                /* its place in such an array */
#define MARKER_SIZE (UUID_LEN + 256) /* bytes of the marker's value */

int comfy_marker_put(struct buf *out, struct span extra_data,
                     const char *prompt_id)
{
	cleanup_buf struct buf value = BUF_INIT(MARKER_SIZE);
	struct json extra;

	(void)buf_puts(&value, "{\"prompt_id\":");
	(void)buf_json_string(&value, prompt_id, strlen(prompt_id));
	(void)buf_putc(&value, '}');
	if (!buf_ok(&value))
		return -ENOMEM;
	if (extra_data.n == 0)
		extra_data = SPAN("{}");
	if (json_parse(&extra, extra_data.p, extra_data.n, JSON_NONFINITE,
	               NULL) != JSON_OK)
		return -EINVAL;
	return json_object_set(out, extra, SPAN(MARKER),
	                       span_make(value.data, value.len));
}

struct span comfy_marker_of(struct json extra_data)
{
	return json_raw_string(
		json_get(json_get(extra_data, MARKER), "prompt_id"));
}

static bool is_marked(struct json prompt, const char *prompt_id)
{
	struct span id = comfy_marker_of(json_at(prompt, EXTRA_DATA));

	return id.p && span_eq(id, SPAN(prompt_id));
}

static const struct comfy_queue_item *
find_marked(const struct comfy_queue_item *items, size_t n,
            const char *prompt_id)
{
	for (size_t i = 0; i < n; i++) {
		if (is_marked(items[i].item, prompt_id))
			return &items[i];
	}
	return NULL;
}

const struct comfy_queue_item *comfy_queue_marked(const struct comfy_queue *q,
                                                  const char *prompt_id)
{
	const struct comfy_queue_item *item =
		find_marked(q->running, q->running_count, prompt_id);

	return item ? item
	            : find_marked(q->pending, q->pending_count, prompt_id);
}

struct json comfy_history_marked(struct json body, const char *prompt_id,
                                 struct span *idp)
{
	struct json id, entry, found = JSON_MISSING;
	struct json_iter it;

	json_iter_init(&it, body);
	while (json_iter_next(&it, &id, &entry)) {
		if (!is_marked(json_get(entry, "prompt"), prompt_id))
			continue;
		*idp = json_raw_string(id);
		found = entry;
	}
	return found;
}
