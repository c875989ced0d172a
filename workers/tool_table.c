/*
 * tool_table.c - the tools: names, texts, schemas, in the order in which they
 * are listed. The reference in README.md is made from this table.
 *
 * Texts say when to use a tool, how long it takes, and what to call next. The
 * whole list stays below TOOL_LIST_MAX.
 */
#include "workers/tool_code.h"

#include "common/macros.h"

/* --- pieces of schemas ---------------------------------------------------- */

#define OBJECT(properties, required)                                           \
	"{\"type\":\"object\",\"properties\":{" properties                     \
	"},\"required\":[" required "],\"additionalProperties\":false}"
#define RESULT(properties, required)                                           \
	"{\"type\":\"object\",\"properties\":{" properties                     \
	"},\"required\":[" required "]}"
#define TEXT_OF(name, doc)                                                     \
	"\"" name "\":{\"type\":\"string\",\"description\":\"" doc "\"}"
#define BOOL_OF(name, doc)                                                     \
	"\"" name "\":{\"type\":\"boolean\",\"description\":\"" doc "\"}"
#define STRING(name)  "\"" name "\":{\"type\":\"string\"}"
#define BOOL(name)    "\"" name "\":{\"type\":\"boolean\"}"
#define NUMBER(name)  "\"" name "\":{\"type\":\"number\"}"
#define INTEGER(name) "\"" name "\":{\"type\":\"integer\"}"
#define ANY(name)     "\"" name "\":{\"type\":\"object\"}"
#define LIST(name)    "\"" name "\":{\"type\":\"array\"}"

#define PROMPT_ID                                                              \
	"\"prompt_id\":{\"type\":\"string\",\"minLength\":1,"                  \
	"\"maxLength\":200}"
#define WORKFLOW                                                                                         \
	"\"workflow\":{\"type\":[\"object\",\"string\"],\"description\":"                                \
	"\"in ComfyUI's API format: node id -> {class_type, inputs}\"}," TEXT_OF(                        \
		"workflow_path",                                                                         \
		"or: a file that holds it") ","                                                          \
					    "\"set\":{\"type\":\"object\",\"description\":\"overrides, " \
					    "{\\\"3.seed\\\": 5}; exact for any integer\"}"
#define TIMEOUT                                                                \
	"\"timeout_ms\":{\"type\":\"integer\",\"minimum\":1,"                  \
	"\"maximum\":86400000,\"description\":\"wait this long; default 45 s," \
	" then the prompt goes on and its id is returned\"}"
#define IMAGES                                                                 \
	BOOL_OF("return_images", "show the images in the result (default "     \
	                         "false: links only)")
#define EXECUTION                                                                                \
	STRING("prompt_id")                                                                      \
	"," STRING("status") "," STRING("progress_method") "," LIST("completed_nodes") "," LIST( \
		"cached_nodes") "," ANY("outputs") "," ANY("error") "," BOOL("timed_out") "," STRING("next")

#define LOOKS   (TOOL_READ_ONLY | TOOL_IDEMPOTENT)
#define SUBMITS (TOOL_OPEN_WORLD | TOOL_SUBMITS)

/* clang-format off */
const struct tool tool_table[] = {
{
	.name = "execute_workflow_sync",
	.title = "Run a workflow",
	.description = "Run a ComfyUI workflow and wait for its images. Use "
	"this first. Takes seconds to minutes; after 45 s (or timeout_ms) it "
	"returns with timed_out true and the prompt_id, and the prompt goes "
	"on: call wait_for_execution then. Reports progress.",
	.input_schema = OBJECT(WORKFLOW "," TIMEOUT ","
		BOOL_OF("stream_progress", "include progress_log (default true)")
		"," IMAGES, ""),
	.output_schema = RESULT(EXECUTION "," LIST("progress_log"),
		"\"prompt_id\",\"status\""),
	.annotations = SUBMITS,
	.start = tool_sync_start,
	.cancel = tool_execute_cancel,
	.destroy = tool_execute_destroy},
{
	.name = "execute_workflow_stream",
	.title = "Run a workflow, with its events",
	.description = "As execute_workflow_sync, and returns ComfyUI's events "
	"in order as {type, data}. Needs the WebSocket; use it to see what a "
	"workflow does, else prefer execute_workflow_sync.",
	.input_schema = OBJECT(WORKFLOW "," TIMEOUT "," IMAGES, ""),
	.output_schema = RESULT(EXECUTION "," LIST("events") ","
		INTEGER("events_folded"), "\"prompt_id\",\"status\",\"events\""),
	.annotations = SUBMITS,
	.start = tool_stream_start,
	.cancel = tool_execute_cancel,
	.destroy = tool_execute_destroy},
{
	.name = "submit_workflow",
	.title = "Queue a workflow",
	.description = "Queue a workflow and return its prompt_id at once. For "
	"long or many generations; then wait_for_execution or "
	"get_execution_progress.",
	.input_schema = OBJECT(WORKFLOW, ""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("status") ","
		NUMBER("number") "," ANY("node_errors") "," STRING("next"),
		"\"prompt_id\",\"status\""),
	.annotations = SUBMITS,
	.start = tool_submit_start,
	.destroy = tool_execute_destroy},
{
	.name = "wait_for_execution",
	.title = "Wait for a prompt",
	.description = "Wait until a submitted prompt ends and return its "
	"outputs. Returns after 45 s (or timeout_ms) with timed_out true if "
	"it still runs: call it again. Cancelling the wait leaves the prompt "
	"running.",
	.input_schema = OBJECT(PROMPT_ID "," TIMEOUT "," IMAGES,
		"\"prompt_id\""),
	.output_schema = RESULT(EXECUTION "," LIST("progress_log"),
		"\"prompt_id\",\"status\""),
	.annotations = LOOKS,
	.start = tool_wait_start,
	.destroy = tool_execute_destroy},
{
	.name = "get_execution_progress",
	.title = "Progress of a prompt",
	.description = "State of a prompt now: status, current node and its "
	"progress (0-1), prompts ahead of it, nodes done. Answers at once.",
	.input_schema = OBJECT(PROMPT_ID, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("status") ","
		STRING("current_node") "," NUMBER("current_node_progress") ","
		INTEGER("queue_position") "," LIST("completed_nodes") ","
		LIST("cached_nodes") "," ANY("outputs") "," ANY("error") ","
		STRING("method"), "\"prompt_id\",\"status\""),
	.annotations = LOOKS,
	.start = tool_progress_start,
	.destroy = tool_query_destroy},
{
	.name = "cancel_execution",
	.title = "Cancel a prompt",
	.description = "Take one of your prompts out of the queue, or "
	"interrupt it if it runs. Never touches anyone else's. `how` tells "
	"what was done.",
	.input_schema = OBJECT(PROMPT_ID, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("how"),
		"\"prompt_id\",\"how\""),
	.annotations = TOOL_DESTRUCTIVE | TOOL_IDEMPOTENT,
	.start = tool_cancel_start,
	.destroy = tool_query_destroy},
{
	.name = "get_queue",
	.title = "The queue",
	.description = "Your running and waiting prompts, and how many others "
	"there are.",
	.input_schema = OBJECT("", ""),
	.output_schema = RESULT(LIST("running") "," LIST("pending") ","
		INTEGER("others"), "\"running\",\"pending\",\"others\""),
	.annotations = LOOKS,
	.start = tool_queue_start,
	.destroy = tool_query_destroy},
{
	.name = "get_history",
	.title = "Recent prompts",
	.description = "Your prompts with status and outputs: queued and "
	"running first, then the newest. Use it to find a prompt_id again, "
	"e.g. after a client-side timeout.",
	.input_schema = OBJECT("\"limit\":{\"type\":\"integer\",\"minimum\":1,"
		"\"maximum\":100,\"description\":\"default 10\"}", ""),
	.output_schema = RESULT(LIST("prompts"), "\"prompts\""),
	.annotations = LOOKS,
	.start = tool_history_start,
	.destroy = tool_query_destroy},
{
	.name = "get_last_output",
	.title = "Newest image",
	.description = "The newest image that one of your prompts has made: "
	"prompt_id, filename, view_url; in_flight names a newer prompt that "
	"still runs. Then download_by_filename saves it.",
	.input_schema = OBJECT(IMAGES, ""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("filename") ","
		STRING("subfolder") "," STRING("type") "," STRING("view_url")
		"," STRING("in_flight"),
		"\"prompt_id\",\"filename\",\"view_url\""),
	.annotations = LOOKS,
	.start = tool_last_start,
	.destroy = tool_query_destroy},
{
	.name = "list_outputs",
	.title = "Files of a prompt",
	.description = "The files that a prompt has made so far, with their "
	"URLs.",
	.input_schema = OBJECT(PROMPT_ID "," IMAGES, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("status") ","
		LIST("files") "," ANY("outputs"), "\"prompt_id\",\"files\""),
	.annotations = LOOKS,
	.start = tool_outputs_start,
	.destroy = tool_query_destroy},
{
	.name = "get_error_details",
	.title = "Why a prompt failed",
	.description = "Node, class, exception and traceback of a failed "
	"prompt. Then change the workflow and run it again.",
	.input_schema = OBJECT(PROMPT_ID, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("status") ","
		ANY("error") "," STRING("node_type") "," LIST("traceback"),
		"\"prompt_id\",\"status\""),
	.annotations = LOOKS,
	.start = tool_details_start,
	.destroy = tool_query_destroy},
{
	.name = "download_by_filename",
	.title = "Save an output file",
	.description = "Save a file that one of your prompts has made to "
	"dest_path (a file or directory on the user's machine), or return it "
	"as base64 up to 4 MiB. No prompt_id needed.",
	.input_schema = OBJECT(
		"\"filename\":{\"type\":\"string\",\"minLength\":1},"
		TEXT_OF("dest_path", "file, or directory that keeps the name") ","
		STRING("subfolder") ","
		"\"type\":{\"type\":\"string\",\"enum\":[\"output\",\"temp\","
		"\"input\"]},"
		BOOL_OF("overwrite", "replace a file that exists") ","
		BOOL("return_base64"), "\"filename\""),
	.output_schema = RESULT(STRING("filename") "," STRING("subfolder") ","
		STRING("type") "," STRING("path") "," INTEGER("bytes") ","
		STRING("content_type") "," STRING("base64"), "\"filename\""),
	.annotations = TOOL_DESTRUCTIVE | TOOL_IDEMPOTENT,
	.start = tool_download_start,
	.destroy = tool_transfer_destroy},
{
	.name = "upload_image",
	.title = "Upload an image",
	.description = "Upload an image from a local path (preferred) or "
	"base64 for a workflow to use; put the returned `image` into a "
	"LoadImage node.",
	.input_schema = OBJECT(TEXT_OF("path", "file on the user's machine")
		"," STRING("base64") "," TEXT_OF("filename", "plain name; "
		"needed with base64") "," BOOL("overwrite"), ""),
	.output_schema = RESULT(STRING("name") "," STRING("subfolder") ","
		STRING("type") "," STRING("image") "," STRING("next"),
		"\"name\",\"image\""),
	.annotations = TOOL_OPEN_WORLD,
	.start = tool_upload_start,
	.destroy = tool_transfer_destroy},
{
	.name = "get_node_info",
	.title = "A node class",
	.description = "Inputs (types, ranges, choices) and outputs of a node "
	"class, to write or mend a workflow.",
	.input_schema = OBJECT("\"class_type\":{\"type\":\"string\","
		"\"minLength\":1,\"maxLength\":200}", "\"class_type\""),
	.output_schema = RESULT(STRING("class_type") "," ANY("input"),
		"\"class_type\",\"input\""),
	.annotations = LOOKS,
	.start = tool_node_start,
	.destroy = tool_look_destroy},
{
	.name = "search_nodes",
	.title = "Find node classes",
	.description = "Find node classes by a word in name, category or "
	"description. Then get_node_info.",
	.input_schema = OBJECT("\"query\":{\"type\":\"string\",\"minLength\":1,"
		"\"maxLength\":100},\"limit\":{\"type\":\"integer\","
		"\"minimum\":1,\"maximum\":100}", "\"query\""),
	.output_schema = RESULT(LIST("nodes") "," INTEGER("found"),
		"\"nodes\",\"found\""),
	.annotations = LOOKS,
	.start = tool_search_start,
	.destroy = tool_look_destroy},
{
	.name = "get_system_resources",
	.title = "The server's resources",
	.description = "ComfyUI's version, memory and devices with their free "
	"memory.",
	.input_schema = OBJECT("", ""),
	.output_schema = RESULT(ANY("system") "," LIST("devices"),
		"\"system\""),
	.annotations = LOOKS,
	.start = tool_resources_start,
	.destroy = tool_look_destroy},
};
/* clang-format on */

const size_t tool_count = ARRAY_SIZE(tool_table);

const struct tool *tool_find(struct span name)
{
	for (size_t i = 0; i < tool_count; i++)
		if (span_eq_str(name, tool_table[i].name))
			return &tool_table[i];
	return NULL;
}
