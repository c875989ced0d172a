/*
 * mcp_uri.h - the URIs of our resources. Pure.
 *
 *     comfy://output/sub/fox_00001_.png?prompt_id=0b0c...   a file
 *     comfy://text/9/text/0?prompt_id=0b0c...               a text output:
 * node, key, index
 *
 * A URI is a name, not a right: whoever reads looks the file up among the
 * outputs of the caller's own prompts. Without prompt_id a file is looked for
 * in the newest of them.
 */
#ifndef WORKERS_MCP_URI_H
#define WORKERS_MCP_URI_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/span.h"

#define MCP_URI_MAX        4096 /* bytes of a URI */
#define MCP_URI_PROMPT_MAX 128  /* of a prompt's id in one */

#define MCP_URI_TEMPLATE "comfy://{type}/{+path}{?prompt_id}"

/* Decoded; all strings are the struct's own. */
struct mcp_uri {
	bool is_text;
	char *prompt_id; /* NULL: not said */
	/* a file */
	char *type, *subfolder, *filename; /* subfolder "" if none */
	/* a text */
	char *node, *key;
	size_t index;
};

/* 0, -EINVAL if it isn't one of ours (another scheme, "..", an empty part, an
 * unknown type or query), -ENOMEM. */
int mcp_uri_parse(struct mcp_uri *u, struct span text);
/* Safe twice, and on a zeroed struct. */
void mcp_uri_deinit(struct mcp_uri *u);

/* The counterpart of tool_output_uri (mcp_tools.h) for a text. */
int mcp_uri_text(struct buf *out, const char *prompt_id, const char *node,
                 const char *key, size_t index);

#endif
