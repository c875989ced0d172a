/*
 * mcp.h - the kind of session that `comfymux mcp` has: every REQUEST is a line
 * that an MCP client wrote, every answer and output a line for it.
 *
 * A record of line 0 is the session's own: {"version"} as negotiated and
 * {"recall"} of workflows (tool_recall.h), so that a successor goes on in the
 * same era and on the same scale. Records of other lines are the tools'.
 */
#ifndef WORKERS_MCP_H
#define WORKERS_MCP_H

#include "workers/worker.h"

extern const struct worker_kind mcp_kind;

#endif
