/*
 * tool_workflow.h - the workflow that a tool's arguments mean: given as an
 * object, as its JSON text, or as a path that the keeper opens; with the
 * overrides of `set` spliced in.
 */
#ifndef WORKERS_TOOL_WORKFLOW_H
#define WORKERS_TOOL_WORKFLOW_H

#include "workers/mcp_tools.h"

/* `workflow` is checked API-format text, valid during the call; NULL with `err`
 * set when there is none. */
typedef void tool_workflow_cb(struct tool_call *c, const struct buf *workflow,
                              const struct error *err);

/* Calls back exactly once, possibly from inside; not any more when the call is
 * gone. */
void tool_workflow_get(struct tool_call *c, tool_workflow_cb *cb);

/* One callback a call may be waiting for: kept by the tool's state, which must
 * begin with it. */
struct tool_workflow {
	tool_workflow_cb *cb;
};

#endif
