/*
 * mcp_tools.h - the tools that an MCP client can call: the table, and what a
 * tool and the session that calls it expect of each other.
 *
 * A session (mcp_session) looks a tool up, checks the arguments against its
 * input schema, and starts it; the tool reports progress and ends with
 * tool_done() exactly once, unless it is cancelled before. Tools know nothing
 * of JSON-RPC, ids or versions beyond what is here.
 */
#ifndef WORKERS_MCP_TOOLS_H
#define WORKERS_MCP_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/json_span.h"
#include "workers/link.h"
#include "workers/mcp_version.h"

#define TOOL_DEFAULT_WAIT_MS                                                   \
	45000 /* a call without timeout_ms returns by then:                    \
	         clients give up at 60 s */
#define TOOL_TIMEOUT_MAX_MS 86400000
#define TOOL_INLINE_MAX                                                        \
	(4u << 20)                 /* bytes of images in one result, before    \
	                              base64 */
#define TOOL_IMAGE_MAX (1u << 20)  /* larger ones come as webp preview */
#define TOOL_LIST_MAX  (25u << 10) /* bytes of the whole tools/list */

enum tool_annotation {
	TOOL_READ_ONLY = 1 << 0,
	TOOL_DESTRUCTIVE = 1 << 1,
	TOOL_IDEMPOTENT = 1 << 2,
	TOOL_OPEN_WORLD = 1 << 3,
	/* Not an annotation: it may submit a prompt. While there is no
	 * supervisor, a call of it first has the keeper look for one, and start
	 * one where that is wanted. */
	TOOL_SUBMITS = 1 << 8,
};

enum cancel_policy {
	CANCEL_AUTO, /* a cancel without reason, or for a timeout, detaches;
	                another one interrupts */
	CANCEL_DETACH,
	CANCEL_INTERRUPT,
};

struct tool_call;

struct tool {
	const char *name, *title;
	const char *description; /* when to use it, how long it takes, what to
	                            call next */
	const char *input_schema, *output_schema; /* JSON text */
	unsigned annotations;
	/* Leads to tool_done(), now or later. */
	void (*start)(struct tool_call *c);
	/* The client doesn't wait any more. `stop` tells whether the prompt is
	 * to be cancelled too, or left running and findable. The call is
	 * freed right after; a cancellation goes on by itself. NULL: nothing
	 * to do. */
	void (*cancel)(struct tool_call *c, bool stop);
	/* Releases c->state; called once, after tool_done or cancel. */
	void (*destroy)(struct tool_call *c);
};

/* In the order in which they are listed. */
extern const struct tool tool_table[];
extern const size_t tool_count;
const struct tool *tool_find(struct span name);

/* What a session lends to its tools. */
struct tool_host {
	struct ev_loop *loop;
	struct link *link;
	unsigned default_wait_ms;
	enum cancel_policy cancel_policy;
	struct list orphans;  /* cancellations that outlive their calls */
	struct list recalled; /* tool_recall.c's own */
	size_t recalled_count;
	/* Something more is recalled, which a successor should know of. May be
	 * NULL. */
	void (*on_recall)(struct tool_host *h);
};
/* Before the first call, and after the last: drops what still goes on. */
void tool_host_init(struct tool_host *h);
void tool_host_deinit(struct tool_host *h);

struct tool_call {
	const struct tool *tool;
	struct tool_host *host;
	struct json args; /* object; checked against the input schema */
	enum mcp_version version;
	bool has_progress;          /* the client wants to hear of it */
	void *state;                /* the tool's own */
	struct tool_ask *recording; /* tool_ask.c's own */
	char *prompt_id;            /* see tool_know_prompt; NULL: none yet */
};

/* The process's worker (NULL: none, there are no files) and the number of the
 * line that this call came on. */
struct worker *tool_worker(struct tool_call *c);
uint64_t tool_line(struct tool_call *c);

/* --- what the session offers --------------------------------------------- */

/* Progress of the whole call: `fraction` from 0 to below 1, message for a
 * person. The session makes it rise strictly, keeps it to a few per second,
 * repeats it at least every 15 s, and drops it where nobody asked. `near_end`:
 * the result may follow at once. */
void tool_progress(struct tool_call *c, double fraction, const char *message,
                   bool near_end);

/* Tells the keeper what a successor must know (JSON text): intent before a
 * submission, checkpoints after it. */
void tool_record(struct tool_call *c, struct span record);
/* The same for an intent: what must not happen before the record is safe with
 * the keeper waits for the callback, which never comes from inside, and not any
 * more after cancel. */
typedef void tool_recorded_cb(struct tool_call *c);
int tool_record_then(struct tool_call *c, struct span record,
                     tool_recorded_cb *cb, struct error *err);
/* What a predecessor recorded for this call: the `i`-th record, JSON_NONE past
 * the last. */
struct json tool_replayed(struct tool_call *c, size_t i);

enum tool_content_type {
	TOOL_TEXT,
	TOOL_IMAGE,         /* data: bytes, mime */
	TOOL_RESOURCE_LINK, /* uri, name, mime; left out for versions that
	                       don't know it */
};
struct tool_content {
	enum tool_content_type type;
	struct span data; /* text or bytes */
	const char *mime, *uri, *name;
};
struct tool_result {
	bool is_error;
	/* JSON object text that fits the output schema; goes out as
	 * structuredContent and, repeated, as a first text block. */
	struct span structured;
	const struct tool_content *content; /* further blocks */
	size_t content_count;
};
/* Ends the call; it is freed when this returns (destroy included). Also allowed
 * from inside start(). */
void tool_done(struct tool_call *c, const struct tool_result *r);
/* isError with {"error":{"type","message"},...}: `prompt_id` may be NULL. */
void tool_fail(struct tool_call *c, const char *type, const char *message,
               const char *prompt_id);

/* The prompt that this call is about, as soon as it is known: an error of the
 * call carries it. The first one counts; what is no string is ignored. */
void tool_know_prompt(struct tool_call *c, struct json prompt_id);

/* Files of the user, by the keeper. The callback comes once, not from inside;
 * not any more after cancel. */
typedef void tool_file_cb(struct tool_call *c, int fd, const struct error *err);
/* Opens a file named in the arguments for reading. `fd` is the tool's to close,
 * here and below. */
int tool_open_read(struct tool_call *c, const char *path, tool_file_cb *cb,
                   struct error *err);
/* Opens a temporary file for `path` (a directory keeps `name`). */
int tool_open_write(struct tool_call *c, const char *path, const char *name,
                    bool overwrite, tool_file_cb *cb, struct error *err);
/* Ends the file of tool_open_write, once the tool has closed its descriptor:
 * into place, or dropped. One such file at a time per call. `path` in the
 * callback is where it lies. */
typedef void tool_closed_cb(struct tool_call *c, const char *path,
                            const struct error *err);
int tool_close_write(struct tool_call *c, bool keep, tool_closed_cb *cb,
                     struct error *err);

/* The URI under which resources/read serves an output file: what a resource
 * link needs. Appends to `out`; 0 or what buf_append says. `type` is "output",
 * "temp" or "input", `subfolder` may be "". */
int tool_output_uri(struct buf *out, const char *prompt_id, const char *type,
                    const char *subfolder, const char *filename);
/* By the name's extension; "application/octet-stream" for others. */
const char *tool_mime_of(const char *filename);

/* --- argument helpers (tool_args.c) --------------------------------------- */

/* Checks `args` against a schema of the subset that our tools use (type, also a
 * list of them, properties, required, additionalProperties, enum, minimum,
 * maximum, minLength, maxLength, items, anyOf of types). The message names the
 * argument and what is expected, for a model to act on. */
int tool_check_args(struct json args, const char *schema, struct error *err);

#endif
