/*
 * mcp_outputs.h - the outputs of prompts as resources: walking them, listing
 * them page by page, finding the one that a URI names. Pure.
 */
#ifndef WORKERS_MCP_OUTPUTS_H
#define WORKERS_MCP_OUTPUTS_H

#include <stdint.h>

#include "common/json_span.h"
#include "workers/mcp_uri.h"
#include "workers/mcp_version.h"

#define MCP_PAGE_MAX    100 /* resources on a page */
#define MCP_PROMPTS_MAX 200 /* newest prompts whose outputs are listed */
#define MCP_CURSOR_MAX  256 /* bytes of a cursor */

/* One prompt's outputs. */
struct mcp_prompt {
	struct json id;      /* string */
	struct json outputs; /* {node: {key: [element...]}} */
	int64_t ended_ms;    /* since the epoch; 0: not known */
};

/* Newest first. */
struct mcp_prompts {
	size_t count;
	struct mcp_prompt list[MCP_PROMPTS_MAX];
};

/* From the result of op history. */
void mcp_prompts_from_bus(struct mcp_prompts *ps, struct json result);
/* From ComfyUI's own /history: the oldest first. */
void mcp_prompts_from_comfy(struct mcp_prompts *ps, struct json body);

/* Appends the members "resources" and, if there are more, "nextCursor". 0;
 * -ENOENT for a cursor that isn't ours or names a prompt that is gone; or what
 * buf_append says. `cursor` is raw string bytes, empty for the first page. */
int mcp_outputs_page(struct buf *out, enum mcp_version v,
                     const struct mcp_prompts *ps, struct span cursor);

/* The element that `u` names, JSON_MISSING if there is none: an object for a
 * file, a string for a text. */
struct json mcp_outputs_find(const struct mcp_prompts *ps,
                             const struct mcp_uri *u);

/* The same in one prompt, whatever its id. */
struct json mcp_outputs_find_in(const struct mcp_prompt *p,
                                const struct mcp_uri *u);

#endif
