/*
 * tool_ask.h - what the tools share: a command of request.h carried out for a
 * tool, arguments, and results.
 *
 * The command line and the tools so do the same things by the same code, with
 * and without a supervisor.
 */
#ifndef WORKERS_TOOL_ASK_H
#define WORKERS_TOOL_ASK_H

#include "workers/mcp_tools.h"

struct preview;
struct tool_ask;

/* The command's answer: `body` is the result, or the error object when `ok` is
 * false; valid during the call. */
typedef void tool_answer_cb(struct tool_call *c, bool ok, struct json body);
/* One output of run or watch. May be NULL. */
typedef void tool_output_cb(struct tool_call *c, struct json output);

/* Starts op with `params` (JSON object text). Calls back exactly once, unless
 * freed before, possibly from inside. NULL when out of memory: the call was
 * failed and is gone. */
struct tool_ask *tool_ask_new(struct tool_call *c, const char *op,
                              struct span params, tool_answer_cb *on_answer,
                              tool_output_cb *on_output);
/* The latest preview that it was told of, if `params` asked for them; else
 * empty. */
const struct preview *tool_ask_preview(const struct tool_ask *a);
/* Asks the command to cancel what it runs; its answer still comes. */
void tool_ask_cancel(struct tool_ask *a);
/* No callback will come. NULL is fine; returns NULL. Allowed in callbacks. */
struct tool_ask *tool_ask_free(struct tool_ask *a);
/* Carries out op for a call that is being cancelled: nobody hears how it went.
 */
void tool_ask_apart(struct tool_call *c, const char *op, struct span params);
/* Lets it live on without its call, until its answer: a cancellation that goes
 * on after the call is gone. */
void tool_ask_orphan(struct tool_ask *a);

/* An argument as a fresh string; NULL if absent (or out of memory). */
char *tool_arg_string(const struct tool_call *c, const char *key);
bool tool_arg_bool(const struct tool_call *c, const char *key, bool otherwise);
int64_t tool_arg_int(const struct tool_call *c, const char *key,
                     int64_t otherwise);

/* Ends the call with a JSON object and further content; what could not be built
 * (`structured` failed) ends it with an error that says so. */
void tool_finish(struct tool_call *c, struct buf *structured, bool is_error,
                 const struct tool_content *content, size_t count);
/* Ends the call with the error object of a command: {"error": {...}}, the
 * prompt_id it carries, and what to do about it. */
void tool_finish_error(struct tool_call *c, struct json error);
/* What to do about a failure of that type; NULL for one that says it all. */
const char *tool_advice(struct json type);
/* Appends "next": what to call or do now. NULL: nothing. */
void tool_put_next(struct buf *out, const char *text);

/* {"prompt_id": ...} of the arguments as params; the call is failed and false
 * returned when that cannot be built. */
bool tool_prompt_params(struct tool_call *c, struct buf *params);

/* Appends "key":value; nothing for a value that is missing. */
void tool_put_member(struct buf *out, const char *key, struct json value);
/* The same for a value of ComfyUI's that the output schema says to be of a
 * type: nothing for one that isn't. */
void tool_put_typed(struct buf *out, const char *key, struct json value,
                    enum json_type type);
void tool_put_string(struct buf *out, const char *key, const char *value);
/* The same for what may be too large for a message (outputs hold whatever nodes
 * put there): past `max` bytes "key_left_out": bytes stands instead. Returns
 * whether it is there in full. */
bool tool_put_bounded(struct buf *out, const char *key, struct json value,
                      size_t max);
#define TOOL_OUTPUTS_BYTES                                                     \
	(2u << 20) /* goes out twice, once escaped, in 10 MiB */
/* A whole ExecutionProgress, its outputs bounded by `max`. */
void tool_put_progress(struct buf *out, struct json p, size_t max);
/* Reads a file that the keeper opened, at most `max` bytes; `what` is the
 * argument that named it. Regular files only. `out` needs room for a chunk of
 * 64 KiB more than `max`. */
int tool_read_file(int fd, size_t max, const char *what, struct buf *out,
                   struct error *err);
/* Appends the members of object `j` without its braces; nothing for others. */
void tool_put_members(struct buf *out, struct json j);
/* "?filename=...&subfolder=...&type=..." behind the server's /view. */
void tool_put_view_url(struct buf *out, const struct tool_call *c,
                       struct json file);

#endif
