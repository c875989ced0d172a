/*
 * mcp_describe.h - what a session says of itself: initialize, discover, the
 * list of tools, and the frame around every result. Each for the version in
 * force. Pure: appends JSON text.
 */
#ifndef WORKERS_MCP_DESCRIBE_H
#define WORKERS_MCP_DESCRIBE_H

#include "common/buf.h"
#include "workers/mcp_version.h"

/* How long a client may believe what only a new release changes. */
#define MCP_STATIC_TTL_MS 3600000

/* A result object: resultType first where the version has it ... */
int mcp_result_open(struct buf *out, enum mcp_version v);
/* ... how long it is true, in the modern era; 0 for what ComfyUI may change
 * at any time, which then is for this user alone ... */
int mcp_result_ttl(struct buf *out, enum mcp_version v, int ttl_ms);
/* ... and who speaks, in the modern era. */
int mcp_result_close(struct buf *out, enum mcp_version v);

/* `v` is the version agreed on. */
int mcp_describe_initialize(struct buf *out, enum mcp_version v);
int mcp_describe_discover(struct buf *out);
/* tools/list: all of tool_table on one page. */
int mcp_describe_tools(struct buf *out, enum mcp_version v);
/* ["2026-07-28"]: the modern ones only. A client that put another into _meta
 * would be refused. */
int mcp_describe_versions(struct buf *out);

#endif
