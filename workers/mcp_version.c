/*
 * mcp_version.c - see mcp_version.h.
 */
#include "workers/mcp_version.h"

#include "common/macros.h"

static const char *const names[] = {
	[MCP_2024_11_05] = "2024-11-05", [MCP_2025_03_26] = "2025-03-26",
	[MCP_2025_06_18] = "2025-06-18", [MCP_2025_11_25] = "2025-11-25",
	[MCP_2026_07_28] = "2026-07-28",
};
STATIC_ASSERT_ARRAY_SIZE(names, MCP_VERSION_COUNT);

enum mcp_version mcp_version_from_name(struct span name)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (span_eq_str(name, names[i]))
			return (enum mcp_version)i;
	return MCP_VERSION_COUNT;
}

const char *mcp_version_name(enum mcp_version v)
{
	return v < MCP_VERSION_COUNT ? names[v] : "none";
}
