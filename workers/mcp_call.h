/*
 * mcp_call.h - a tools/call in hand, for the two files that offer things to
 * tools: mcp_call.c (results, progress, records) and mcp_files.c.
 */
#ifndef WORKERS_MCP_CALL_H
#define WORKERS_MCP_CALL_H

#include "workers/mcp_private.h"

struct call_file;

struct mcp_call {
	struct tool_call c;
	struct mcp_request *r;
	struct list records;   /* on their way to the keeper */
	struct list files;     /* struct call_file */
	struct call_file *out; /* the one that is written, or NULL */
	bool started;          /* the tool's own state may exist */
};

static inline struct mcp_call *mcp_call_of(struct tool_call *c)
{
	return container_of(c, struct mcp_call, c);
}

/* Lets go of all files: no callback comes any more. */
void mcp_call_close_files(struct mcp_call *call);

#endif
