/*
 * mcp_describe.c - see mcp_describe.h.
 */
#include "workers/mcp_describe.h"

#include <errno.h>
#include <string.h>

#include "common/json_span.h"
#include "common/version.h"
#include "workers/mcp_tools.h"

static const char instructions[] =
	"Runs ComfyUI workflows in API format and fetches what they make.\n"
	"Run: execute_workflow_sync submits and waits until timeout_ms (default "
	"45 s). For longer work call submit_workflow, then wait_for_execution "
	"with the prompt_id as often as needed; get_execution_progress looks "
	"without waiting. execute_batch runs several workflows, execute_chain "
	"hands an output of one to the next.\n"
	"A wait that ends early (timeout, cancelled call, lost answer) leaves "
	"the prompt running: get_last_output or get_history finds it again. "
	"Don't submit it twice.\n"
	"Results: outputs name files on the server. get_last_output shows the "
	"newest image; download_by_filename saves a file to a local path; "
	"resource links can be read.\n"
	"Before building a workflow: search_nodes and get_node_info tell node "
	"classes and inputs; upload_image brings an input image.\n"
	"When it fails: get_error_details names the node and what to change. "
	"cancel_execution stops a prompt.";

int mcp_result_open(struct buf *out, enum mcp_version v)
{
	return buf_puts(out, mcp_is_modern(v) ? "{\"resultType\":\"complete\""
	                                      : "{");
}

int mcp_result_ttl(struct buf *out, enum mcp_version v, int ttl_ms)
{
	if (!mcp_is_modern(v))
		return 0;
	return buf_printf(out, ",\"ttlMs\":%d,\"cacheScope\":\"%s\"", ttl_ms,
	                  ttl_ms > 0 ? "public" : "private");
}

static void put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static void put_server_info(struct buf *out, enum mcp_version v)
{
	(void)buf_putc(out, '{');
	put_string(out, "name", "comfymux");
	if (mcp_has_structured(v))
		put_string(out, "title", "comfymux: ComfyUI workflows");
	put_string(out, "version", comfymux_version);
	(void)buf_putc(out, '}');
}

int mcp_result_close(struct buf *out, enum mcp_version v)
{
	if (mcp_is_modern(v)) {
		(void)buf_puts(out, ",\"_meta\":{"
		                    "\"io.modelcontextprotocol/serverInfo\":");
		put_server_info(out, v);
		(void)buf_putc(out, '}');
	}
	return buf_putc(out, '}');
}

/* Only what is served: the list of tools never changes while a session lasts,
 * and nobody is told of new resources. */
static void put_capabilities(struct buf *out)
{
	(void)buf_json_key(out, "capabilities");
	(void)buf_puts(out, "{\"tools\":{},\"resources\":{}}");
}

int mcp_describe_initialize(struct buf *out, enum mcp_version v)
{
	(void)mcp_result_open(out, v);
	put_string(out, "protocolVersion", mcp_version_name(v));
	put_capabilities(out);
	(void)buf_json_key(out, "serverInfo");
	put_server_info(out, v);
	put_string(out, "instructions", instructions);
	return mcp_result_close(out, v);
}

int mcp_describe_versions(struct buf *out)
{
	(void)buf_putc(out, '[');
	for (int v = 0; v < MCP_VERSION_COUNT; v++) {
		const char *name = mcp_version_name((enum mcp_version)v);

		if (!mcp_is_modern((enum mcp_version)v))
			continue;
		if (out->len > 0 && out->data[out->len - 1] != '[')
			(void)buf_putc(out, ',');
		(void)buf_json_string(out, name, strlen(name));
	}
	return buf_putc(out, ']');
}

int mcp_describe_discover(struct buf *out)
{
	const enum mcp_version v = MCP_2026_07_28;

	(void)mcp_result_open(out, v);
	(void)buf_json_key(out, "supportedVersions");
	(void)mcp_describe_versions(out);
	put_capabilities(out);
	put_string(out, "instructions", instructions);
	(void)mcp_result_ttl(out, v, MCP_STATIC_TTL_MS);
	return mcp_result_close(out, v);
}

/* --- tools --------------------------------------------------------------- */

/* Schemas are constants of ours, written for people. */
static void put_schema(struct buf *out, const char *key, const char *text)
{
	struct json schema;

	(void)buf_json_key(out, key);
	if (json_parse(&schema, text, strlen(text), 0, NULL) != JSON_OK) {
		out->failed = true;
		return;
	}
	(void)json_compact(out, schema);
}

static void put_hint(struct buf *out, const char *key, unsigned set)
{
	(void)buf_json_key(out, key);
	(void)buf_puts(out, set ? "true" : "false");
}

/* All four, since the defaults are the worst case. */
static void put_annotations(struct buf *out, const struct tool *t,
                            enum mcp_version v)
{
	(void)buf_json_key(out, "annotations");
	(void)buf_putc(out, '{');
	/* Later versions have it one level up. */
	if (!mcp_has_structured(v))
		put_string(out, "title", t->title);
	put_hint(out, "readOnlyHint", t->annotations & TOOL_READ_ONLY);
	put_hint(out, "destructiveHint", t->annotations & TOOL_DESTRUCTIVE);
	put_hint(out, "idempotentHint", t->annotations & TOOL_IDEMPOTENT);
	put_hint(out, "openWorldHint", t->annotations & TOOL_OPEN_WORLD);
	(void)buf_putc(out, '}');
}

static void put_tool(struct buf *out, const struct tool *t, enum mcp_version v)
{
	(void)buf_putc(out, '{');
	put_string(out, "name", t->name);
	if (mcp_has_structured(v))
		put_string(out, "title", t->title);
	put_string(out, "description", t->description);
	put_schema(out, "inputSchema", t->input_schema);
	if (mcp_has_structured(v) && t->output_schema)
		put_schema(out, "outputSchema", t->output_schema);
	if (mcp_has_annotations(v))
		put_annotations(out, t, v);
	(void)buf_putc(out, '}');
}

int mcp_describe_tools(struct buf *out, enum mcp_version v)
{
	(void)mcp_result_open(out, v);
	(void)buf_json_key(out, "tools");
	(void)buf_putc(out, '[');
	for (size_t i = 0; i < tool_count; i++) {
		if (i > 0)
			(void)buf_putc(out, ',');
		put_tool(out, &tool_table[i], v);
	}
	(void)buf_putc(out, ']');
	(void)mcp_result_ttl(out, v, MCP_STATIC_TTL_MS);
	if (mcp_result_close(out, v) < 0 || !buf_ok(out))
		return -EMSGSIZE;
	return 0;
}
