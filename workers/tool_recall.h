/*
 * tool_recall.h - what a session remembers of the workflows that it submitted:
 * how many nodes there are, and their classes.
 *
 * A later wait knows the prompt only by its id; with this its progress is on
 * the same scale, and in the same words, as that of the call that submitted it.
 * Of what is not remembered (another session's, long ago) less is said.
 */
#ifndef WORKERS_TOOL_RECALL_H
#define WORKERS_TOOL_RECALL_H

#include <stddef.h>

#include "common/json_span.h"
#include "workers/mcp_tools.h"

#define TOOL_RECALL_MAX   32          /* workflows; the oldest goes */
#define TOOL_RECALL_BYTES (16u << 10) /* of ids and classes of one */

#define TOOL_RECALL_SAVED (16u << 10) /* of the record for a successor */

struct tool_facts;

/* NULL when out of memory: then it is not remembered. */
struct tool_facts *tool_facts_new(struct json workflow);
/* NULL is fine; returns NULL. */
struct tool_facts *tool_facts_free(struct tool_facts *f);

/* Remembers `f`, which is taken over, under the prompt's id (a JSON string). */
void tool_recall_put(struct tool_host *h, struct json prompt_id,
                     struct tool_facts *f);
/* NULL: nothing is known. Valid until the next put. */
const struct tool_facts *tool_recall_find(const struct tool_host *h,
                                          struct json prompt_id);
/* What is remembered, for a successor: appends a JSON array, the newest first,
 * the names left out past TOOL_RECALL_SAVED bytes. */
void tool_recall_save(const struct tool_host *h, struct buf *out);
/* Instead of what is remembered; other things than what was saved are taken as
 * far as they make sense. */
void tool_recall_load(struct tool_host *h, struct json saved);
void tool_recall_clear(struct tool_host *h);

size_t tool_facts_nodes(const struct tool_facts *f);
/* NULL: not known. */
const char *tool_facts_class(const struct tool_facts *f, const char *node);

#endif
