/*
 * tool_table.c - the tools: names, texts, schemas, in the order in which they
 * are listed. The reference in README.md is made from this table.
 *
 * Texts say when to use a tool, how long it takes, and what to call next. The
 * whole list stays below TOOL_LIST_MAX.
 */
#include "workers/tool_code.h"

#include "common/macros.h"

/* clang-format off */
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
#define WORKFLOW                                                               \
	"\"workflow\":{\"anyOf\":[{\"type\":\"object\"},"                   \
	"{\"type\":\"string\"}],\"description\":"                            \
	"\"in ComfyUI's API format: node id -> {class_type, inputs}; an "      \
	"object or its JSON text\"},"                                       \
	"\"workflow_path\":{\"type\":\"string\",\"description\":\"instead of " \
	"workflow: a file on the user's machine\"},"                           \
	"\"set\":{\"type\":\"object\","                                       \
	"\"description\":\"inputs to change, NODE.INPUT: value, such as "      \
	"{\\\"3.seed\\\": 5, \\\"6.text\\\": \\\"a fox\\\"}; exact for any "   \
	"integer\"}"
#define TIMEOUT                                                                \
	"\"timeout_ms\":{\"type\":\"integer\",\"minimum\":1,"                  \
	"\"maximum\":86400000,\"description\":\"wait this long, in full "      \
	"(45 s). Then the prompt goes on and its id is returned\"}"
#define IMAGES                                                                 \
	BOOL_OF("return_images", "show the images too, large ones scaled "     \
	                         "down (default: links)")
#define PREVIEW                                                                \
	BOOL_OF("return_preview", "unless completed, show a preview")
#define LOG_WANTED                                                             \
	BOOL_OF("stream_progress", "include progress_log (default true)")

#define STATUS                                                                 \
	"\"status\":{\"type\":\"string\",\"enum\":[\"queued\",\"executing\"," \
	"\"completed\",\"failed\"]}"
#define METHOD(name)                                                           \
	"\"" name "\":{\"type\":\"string\",\"enum\":[\"websocket\","           \
	"\"polling\"]}"
#define STRINGS(name)                                                          \
	"\"" name "\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}"
#define OBJECTS(name)                                                          \
	"\"" name "\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}"
#define NODES                                                                  \
	STRING("current_node") "," NUMBER("current_node_progress") ","         \
	INTEGER("queue_position") "," BOOL("paused") "," STRINGS("completed_nodes") ","           \
	STRINGS("cached_nodes") ","                                            \
	"\"outputs\":{\"type\":\"object\",\"description\":\"node id -> "       \
	"output, as ComfyUI gave it\"},"                                       \
	"\"outputs_left_out\":{\"type\":\"integer\",\"description\":\"bytes "  \
	"of outputs too large for a message\"},"                      \
	"\"error\":{\"type\":\"object\",\"description\":\"node_id, message, "  \
	"type\"}"
#define EXECUTION                                                              \
	STRING("prompt_id") "," STATUS "," METHOD("progress_method") "," NODES \
	"," ANY("node_errors") "," INTEGER("elapsed_ms") ","                   \
	BOOL("timed_out") "," STRING("next")
#define FILE_NAMES                                                             \
	STRING("filename") "," STRING("subfolder") "," STRING("type")

#define JOB  STRING("job_id") "," STRING("status") "," OBJECTS("results")
#define WAIT "\"timeout_ms\":{\"type\":\"integer\",\"minimum\":1,"            \
	"\"maximum\":86400000}"

#define LOOKS   (TOOL_READ_ONLY | TOOL_IDEMPOTENT)
#define SUBMITS (TOOL_OPEN_WORLD | TOOL_SUBMITS)

const struct tool tool_table[] = {
{
	.name = "execute_workflow_sync",
	.title = "Run a workflow",
	.description = "Run a ComfyUI workflow and wait for its outputs. The "
	"usual way to make an image. Takes seconds to minutes; after 45 s (or "
	"timeout_ms) it returns with timed_out true and the prompt_id while "
	"the prompt goes on: then call wait_for_execution, don't run it again. "
	"Reports progress. A refused workflow names the nodes to mend.",
	.input_schema = OBJECT(WORKFLOW "," TIMEOUT "," LOG_WANTED "," IMAGES
		"," PREVIEW, ""),
	.output_schema = RESULT(EXECUTION "," STRINGS("progress_log"),
		"\"prompt_id\",\"status\""),
	.annotations = SUBMITS,
	.start = tool_sync_start,
	.cancel = tool_execute_cancel,
	.destroy = tool_execute_destroy},
{
	.name = "execute_workflow_stream",
	.title = "Run a workflow, with its events",
	.description = "As execute_workflow_sync, and returns ComfyUI's events "
	"in order as {type, data}; where there are very many, single steps are "
	"left out and counted in events_folded. Needs the WebSocket. To see "
	"what a workflow does in detail; else prefer execute_workflow_sync.",
	.input_schema = OBJECT(WORKFLOW "," TIMEOUT "," IMAGES, ""),
	.output_schema = RESULT(EXECUTION ","
		"\"events\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
		"\"properties\":{\"type\":{\"type\":\"string\"},\"data\":{\"type\":\"object\"}},"
		"\"required\":[\"type\",\"data\"]}},"
		INTEGER("events_folded"),
		"\"prompt_id\",\"status\",\"events\",\"events_folded\""),
	.annotations = SUBMITS,
	.start = tool_stream_start,
	.cancel = tool_execute_cancel,
	.destroy = tool_execute_destroy},
{
	.name = "submit_workflow",
	.title = "Queue a workflow",
	.description = "Queue a workflow and return its prompt_id at once, "
	"without waiting. For long or many generations; then "
	"wait_for_execution or get_execution_progress. The prompt lives on "
	"when this session ends.",
	.input_schema = OBJECT(WORKFLOW, ""),
	.output_schema = RESULT(STRING("prompt_id") "," STATUS ","
		NUMBER("number") "," ANY("node_errors") "," STRING("next"),
		"\"prompt_id\",\"status\""),
	.annotations = SUBMITS,
	.start = tool_submit_start,
	.destroy = tool_execute_destroy},
{
	.name = "execute_batch",
	.title = "Run many workflows",
	.description = "Run several workflows and return "
	"their results in order; one that fails spares the others. After 45 s (or timeout_ms) it returns a job_id while "
	"the job goes on: give it to wait_for_execution as prompt_id.",
	.input_schema = OBJECT("\"workflows\":{\"type\":\"array\","
		"\"description\":\"in API format\"},\"concurrency\":{\"type\":\"integer\",\"minimum\":1,"
		"\"maximum\":64,\"default\":3},"
		WAIT "," BOOL("stop_on_error"), "\"workflows\""),
	.output_schema = RESULT(JOB, "\"status\",\"results\""),
	.annotations = SUBMITS,
	.start = tool_batch_start,
	.cancel = tool_job_cancel,
	.destroy = tool_job_destroy},
{
	.name = "execute_chain",
	.title = "Run workflows that pass images on",
	.description = "Run workflows in turn; a step may take an "
	"image of an earlier one: inputFrom {step (from 0), outputNode, "
	"outputIndex} and outputTo, the input that gets it (image or "
	"node.input). stop_on_error is true unless told. Waits and returns as "
	"execute_batch.",
	.input_schema = OBJECT("\"steps\":{\"type\":\"array\","
		"\"items\":{\"type\":\"object\"},\"description\":\"{workflow, "
		"params {NODE.INPUT: value}, inputFrom, outputTo}\"},"
		WAIT "," BOOL("stop_on_error"), "\"steps\""),
	.output_schema = RESULT(JOB, "\"status\",\"results\""),
	.annotations = SUBMITS,
	.start = tool_chain_start,
	.cancel = tool_job_cancel,
	.destroy = tool_job_destroy},
{
	.name = "wait_for_execution",
	.title = "Wait for a prompt",
	.description = "Wait until a prompt ends and return its outputs, as "
	"execute_workflow_sync does. Returns after 45 s (or timeout_ms) with "
	"timed_out true if it still runs: call it again. Reports progress.",
	.input_schema = OBJECT(PROMPT_ID "," TIMEOUT "," LOG_WANTED ","
		IMAGES "," PREVIEW, "\"prompt_id\""),
	.output_schema = RESULT(EXECUTION "," STRINGS("progress_log"),
		"\"prompt_id\",\"status\""),
	.annotations = LOOKS,
	.start = tool_await_start,
	.cancel = tool_await_cancel,
	.destroy = tool_await_destroy},
{
	.name = "get_execution_progress",
	.title = "Progress of a prompt",
	.description = "How far a prompt is now, without waiting: status, "
	"current node and its progress (0 to 1), how many prompts are ahead "
	"of it, nodes done, outputs so far.",
	.input_schema = OBJECT(PROMPT_ID, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STATUS "," NODES ","
		METHOD("method"), "\"prompt_id\",\"status\""),
	.annotations = LOOKS,
	.start = tool_advance_start,
	.destroy = tool_either_destroy},
{
	.name = "cancel_execution",
	.title = "Cancel a prompt",
	.description = "Take one of your prompts out of the queue, or "
	"interrupt it if it runs; never anyone else's. `how` tells what was "
	"done: dequeued, interrupted, cancelled (one of both), ended (it was "
	"over already).",
	.input_schema = OBJECT(PROMPT_ID, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") ","
		"\"how\":{\"type\":\"string\",\"enum\":[\"dequeued\","
		"\"interrupted\",\"cancelled\",\"ended\"]}",
		"\"prompt_id\",\"how\""),
	.annotations = TOOL_DESTRUCTIVE | TOOL_IDEMPOTENT,
	.start = tool_abort_start,
	.destroy = tool_either_destroy},
{
	.name = "get_queue",
	.title = "The queue",
	.description = "Your running and waiting prompts with their positions, "
	"and how many of other users there are.",
	.input_schema = OBJECT("", ""),
	.output_schema = RESULT(OBJECTS("running") "," OBJECTS("pending") ","
		INTEGER("others"), "\"running\",\"pending\",\"others\""),
	.annotations = LOOKS,
	.start = tool_queue_start,
	.destroy = tool_query_destroy},
{
	.name = "get_history",
	.title = "Recent prompts",
	.description = "Your prompts with status, outputs and errors: queued "
	"and running first, then the newest. Use it to find a prompt_id again, "
	"such as after a timeout of the client.",
	.input_schema = OBJECT("\"limit\":{\"type\":\"integer\",\"minimum\":1,"
		"\"maximum\":100,\"description\":\"default 10\"}", ""),
	.output_schema = RESULT(
		"\"prompts\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
		"\"properties\":{" STRING("prompt_id") "," STATUS "},"
		"\"required\":[\"prompt_id\",\"status\"]}}", "\"prompts\""),
	.annotations = LOOKS,
	.start = tool_history_start,
	.destroy = tool_query_destroy},
{
	.name = "get_last_output",
	.title = "Newest image",
	.description = "The newest image that one of your prompts has made, "
	"when no prompt_id is at hand. in_flight names a newer prompt that "
	"still runs: wait_for_execution gets that one's. "
	"download_by_filename saves the image.",
	.input_schema = OBJECT(IMAGES, ""),
	.output_schema = RESULT(STRING("prompt_id") "," STRING("node") ","
		FILE_NAMES "," STRING("view_url") "," STRING("in_flight"),
		"\"prompt_id\",\"filename\",\"view_url\""),
	.annotations = LOOKS,
	.start = tool_last_start,
	.destroy = tool_query_destroy},
{
	.name = "list_outputs",
	.title = "Files of a prompt",
	.description = "The files that a prompt has made so far, with their "
	"URLs. download_by_filename saves one.",
	.input_schema = OBJECT(PROMPT_ID "," IMAGES, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STATUS ","
		"\"files\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
		"\"properties\":{" STRING("node") "," FILE_NAMES ","
		STRING("view_url") "},\"required\":[\"filename\",\"view_url\"]}"
		"}," ANY("outputs") "," INTEGER("outputs_left_out"), "\"prompt_id\",\"status\",\"files\""),
	.annotations = LOOKS,
	.start = tool_outputs_start,
	.destroy = tool_query_destroy},
{
	.name = "get_error_details",
	.title = "Why a prompt failed",
	.description = "Why a prompt failed: node, its class, exception, "
	"message, and the end of the traceback. Then change the workflow and "
	"run it again.",
	.input_schema = OBJECT(PROMPT_ID, "\"prompt_id\""),
	.output_schema = RESULT(STRING("prompt_id") "," STATUS ","
		"\"error\":{\"type\":\"object\",\"properties\":{"
		STRING("node_id") "," STRING("message") "," STRING("type") "}},"
		STRING("node_type") "," ANY("node_errors") ","
		STRINGS("traceback") "," INTEGER("traceback_lines_left_out")
		"," STRING("next"), "\"prompt_id\",\"status\""),
	.annotations = LOOKS,
	.start = tool_details_start,
	.destroy = tool_query_destroy},
{
	.name = "download_by_filename",
	.title = "Save an output file",
	.description = "Save a file that one of your prompts has made to "
	"dest_path on the user's machine, or return it as base64 (up to "
	"4 MiB). An existing file is replaced only with overwrite true. "
	"Without subfolder and type the newest of that name is meant.",
	.input_schema = OBJECT(
		"\"filename\":{\"type\":\"string\",\"minLength\":1,"
		"\"maxLength\":1000},"
		TEXT_OF("dest_path", "file to write, or a directory, where it "
		"keeps its name; relative to the session's directory") ","
		STRING("subfolder") ","
		"\"type\":{\"type\":\"string\",\"enum\":[\"output\",\"temp\","
		"\"input\"]},"
		BOOL_OF("overwrite", "replace a file that exists (default "
		"false)") ","
		BOOL_OF("return_base64", "return the file instead of saving "
		"it"), "\"filename\""),
	.output_schema = RESULT(FILE_NAMES "," STRING("path") ","
		INTEGER("bytes") "," STRING("content_type") ","
		STRING("base64"), "\"filename\",\"bytes\""),
	.annotations = TOOL_DESTRUCTIVE | TOOL_IDEMPOTENT,
	.start = tool_download_start,
	.destroy = tool_transfer_destroy},
{
	.name = "upload_image",
	.title = "Upload an image",
	.description = "Upload an image for a workflow to work on, from a "
	"local path (preferred) or base64; up to 64 MiB. Put the returned "
	"`image` into the image input of a LoadImage node. A name that is "
	"taken gets a number, unless overwrite is true.",
	.input_schema = OBJECT(TEXT_OF("path", "file on the user's machine")
		"," TEXT_OF("base64", "instead of path: the image itself") ","
		TEXT_OF("filename", "plain name, such as photo.png; needed "
		"with base64") "," BOOL_OF("overwrite", "replace your earlier "
		"upload of that name (default false)"), ""),
	.output_schema = RESULT(STRING("name") "," STRING("subfolder") ","
		STRING("type") "," STRING("image") "," STRING("next"),
		"\"name\",\"image\""),
	.annotations = TOOL_DESTRUCTIVE | TOOL_OPEN_WORLD,
	.start = tool_upload_start,
	.destroy = tool_transfer_destroy},
{
	.name = "get_node_info",
	.title = "A node class",
	.description = "Inputs (types, defaults, ranges, choices such as model "
	"files) and outputs of a node class, to write or mend a workflow. Of "
	"long lists of choices the first 50.",
	.input_schema = OBJECT("\"class_type\":{\"type\":\"string\","
		"\"minLength\":1,\"maxLength\":200,\"description\":\"exact, "
		"case matters\"}", "\"class_type\""),
	.output_schema = RESULT(STRING("class_type") ","
		STRING("display_name") "," STRING("description") ","
		STRING("category") "," ANY("input") "," LIST("output") ","
		LIST("output_name"), "\"class_type\",\"input\""),
	.annotations = LOOKS,
	.start = tool_node_start,
	.destroy = tool_look_destroy},
{
	.name = "search_nodes",
	.title = "Find node classes",
	.description = "Find node classes by words in name, category or "
	"description, best first; all words must fit. Then get_node_info.",
	.input_schema = OBJECT("\"query\":{\"type\":\"string\",\"minLength\":1,"
		"\"maxLength\":100},\"limit\":{\"type\":\"integer\","
		"\"minimum\":1,\"maximum\":100,\"description\":\"default "
		"20\"}", "\"query\""),
	.output_schema = RESULT(
		"\"nodes\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
		"\"properties\":{" STRING("class_type") "," STRING("display_name")
		"," STRING("category") "," STRING("description") "},"
		"\"required\":[\"class_type\"]}}," INTEGER("found") ","
		STRING("next"), "\"nodes\",\"found\""),
	.annotations = LOOKS,
	.start = tool_search_start,
	.destroy = tool_look_destroy},
{
	.name = "get_system_resources",
	.title = "The server's resources",
	.description = "ComfyUI's version and system, and its devices with "
	"total and free memory. Also a quick check that ComfyUI answers.",
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
