/*
 * mcp_result.h - a tool's result as the result object of tools/call, with what
 * the version in force knows and within what a line may hold. Pure.
 */
#ifndef WORKERS_MCP_RESULT_H
#define WORKERS_MCP_RESULT_H

#include "workers/jsonrpc.h"
#include "workers/mcp_tools.h"

/* Bytes of a result object: what else stands on the line has room beside. */
#define MCP_RESULT_MAX (RPC_REPLY_MAX - RPC_ID_MAX - 1024)

/* Appends it. Images that don't fit (TOOL_INLINE_MAX, MCP_RESULT_MAX) are
 * replaced by where they are; what still doesn't fit becomes an error that
 * says what to do. An error carries `prompt_id`, unless that is NULL. 0, or
 * -ENOMEM. */
int mcp_build_result(struct buf *out, enum mcp_version v,
                     const struct tool_result *r, const char *prompt_id);

#endif
