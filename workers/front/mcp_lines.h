/*
 * mcp_lines.h - the little that the keeper has to know of an MCP client's
 * lines: how to refuse one when no worker can, and which files it names. Pure.
 */
#ifndef WORKERS_FRONT_MCP_LINES_H
#define WORKERS_FRONT_MCP_LINES_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/span.h"
#include "workers/jsonrpc.h"

/* Appends the reply that refuses every request in `line`, without a newline;
 * nothing if it holds none. 0 or what buf_append says. */
int mcp_line_refuse(struct buf *out, struct span line, enum rpc_code code,
                    const char *message);

/* Whether a request in `line` has `path` as a string somewhere in its
 * arguments. */
bool mcp_line_names(struct span line, const char *path);

/* Nothing but white space. */
bool mcp_line_is_blank(struct span line);

#endif
