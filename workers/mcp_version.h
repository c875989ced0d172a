/*
 * mcp_version.h - the five protocol versions and what each allows.
 */
#ifndef WORKERS_MCP_VERSION_H
#define WORKERS_MCP_VERSION_H

#include <stdbool.h>

#include "common/span.h"

enum mcp_version {
	MCP_2024_11_05,
	MCP_2025_03_26,
	MCP_2025_06_18,
	MCP_2025_11_25,   /* newest of the legacy era */
	MCP_2026_07_28,   /* the modern era */
	MCP_VERSION_COUNT /* also: none */
};

/* MCP_VERSION_COUNT for one that is not known. */
enum mcp_version mcp_version_from_name(struct span name);
const char *mcp_version_name(enum mcp_version v);

static inline bool mcp_is_modern(enum mcp_version v)
{
	return v >= MCP_2026_07_28 && v < MCP_VERSION_COUNT;
}
/* tool annotations, progress `message`, audio; batches only in that one */
static inline bool mcp_has_annotations(enum mcp_version v)
{
	return v >= MCP_2025_03_26;
}
static inline bool mcp_has_progress_message(enum mcp_version v)
{
	return v >= MCP_2025_03_26;
}
static inline bool mcp_has_batches(enum mcp_version v)
{
	return v == MCP_2025_03_26;
}
/* resource_link, structuredContent, outputSchema, title */
static inline bool mcp_has_structured(enum mcp_version v)
{
	return v >= MCP_2025_06_18;
}

#endif
