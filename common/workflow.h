/*
 * workflow.h - a workflow in ComfyUI's API format, as text.
 *
 * A workflow is never re-printed: overrides are spliced in, so that a seed of
 * 2^64-1 stays what it is. Pure.
 */
#ifndef COMMON_WORKFLOW_H
#define COMMON_WORKFLOW_H

#include "common/error.h"
#include "common/json_span.h"

#define WORKFLOW_SIZE_MAX                                                      \
	(15u << 20) /* bytes of its text: fits a 16 MiB line */
#define WORKFLOW_NODES_MAX 20000

/* Parses and checks the text: an object that maps node ids to objects with a
 * string `class_type`. Bare NaN is accepted (recording 25). A file saved in
 * the web page's own format is recognised and the error says how to export it
 * in API format; so is {"prompt": {...}}, whose inner object is taken.
 * `what` names the source in messages ("workflow.json", "workflow"). */
int workflow_parse(struct json *out, const char *text, size_t len,
                   const char *what, struct error *err);

/* Applies "NODE.INPUT=VALUE": VALUE is JSON if it parses as JSON, else a
 * string. NODE is the text up to the first dot for which such a node exists
 * (ids may hold dots). Appends the changed workflow to `out`. The node must
 * exist; an input that does not exist yet is added. */
int workflow_set(struct buf *out, struct json workflow, const char *assignment,
                 struct error *err);

/* As workflow_set with the halves given apart: `target` is "NODE.INPUT",
 * `value` is JSON text. */
int workflow_set_value(struct buf *out, struct json workflow,
                       struct span target, struct span value,
                       struct error *err);

/* Number of nodes. */
size_t workflow_node_count(struct json workflow);
/* class_type of a node (raw string bytes), {NULL,0} if there is none. A node
 * that appeared at run time ("4.0.0.1") has none here. */
struct span workflow_class_of(struct json workflow, const char *node_id);

/* ComfyUI's refusal (the 400 reply of POST /prompt), made readable, one line
 * per fault: "node 3 (KSampler): Value not in list: sampler_name: ...".
 * Appends to `out`; bounded. */
void workflow_refusal_text(struct json reply, struct buf *out);

#endif
