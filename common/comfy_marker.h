/*
 * comfy_marker.h - our id of a prompt, in the extra_data of its POST.
 *
 * ComfyUI before 0.3.45 ignores the prompt_id of a POST and chooses its own,
 * so when the answer is lost nothing in queue and history would tell which of
 * them is ours. Both show extra_data, which nodes don't look at. It is a hint
 * for finding what we may have posted ourselves; whose a prompt is, it doesn't
 * tell: anybody can write one.
 */
#ifndef COMMON_COMFY_MARKER_H
#define COMMON_COMFY_MARKER_H

#include "common/comfy_api.h"

/* Of the newest prompts in the history this many are looked through: the answer
 * to a POST is missed within seconds. */
#define COMFY_MARKED_MAX 64

/* Appends `extra_data` (object text, or {NULL, 0}) with the marker in it, digit
 * for digit. 0, -ENOMEM, or -EINVAL if it is no object. */
int comfy_marker_put(struct buf *out, struct span extra_data,
                     const char *prompt_id);
/* The raw id; {NULL, 0} if there is none. */
struct span comfy_marker_of(struct json extra_data);

/* What waits or runs with our marker of this id, under whatever id; NULL: none.
 */
const struct comfy_queue_item *comfy_queue_marked(const struct comfy_queue *q,
                                                  const char *prompt_id);
/* Likewise in the body of comfy_list_history: the entry, and the raw id that it
 * has there. JSON_MISSING: none. */
struct json comfy_history_marked(struct json body, const char *prompt_id,
                                 struct span *idp);

#endif
