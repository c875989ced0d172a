/*
 * request.h - the kind of session that serves the command line: every REQUEST
 * is {"op": name, "params": {...}}, every answer {"ok": true, "result": {...}}
 * or {"ok": false, "error": {"type", "message", ...}}.
 *
 * | op       | params                               | result               |
 * |----------|--------------------------------------|----------------------|
 * | run      | workflow, timeout_ms, prompt_id,     | ExecutionProgress    |
 * |          | previews                             |                      |
 * | submit   | workflow, prompt_id, hold            | as op submit         |
 * | watch    | prompt_id, timeout_ms, previews      | ExecutionProgress    |
 * | progress | prompt_id                            | ExecutionProgress    |
 * | cancel   | prompt_id                            | how                  |
 * | queue    | comfyui                              | as op queue          |
 * | history  | limit, comfyui                       | as op history        |
 * | view     | filename, subfolder, type, preview,  | path, bytes,         |
 * |          | path, overwrite; or prompt_id        | content_type; files  |
 * | comfy    | path                                 | ComfyUI's reply      |
 * | batch    | workflows, concurrency, timeout_ms,  | results, completed,  |
 * |          | stop_on_error                        | failed, elapsed_ms   |
 * | chain    | steps, timeout_ms, stop_on_error     | the same             |
 *
 * With comfyui true ComfyUI is asked, not the supervisor: where all of it
 * counts as one's own.
 *
 * run and watch send an output with every change: {"event", "progress",
 * "elapsed_ms", and where known "class", "value", "max", "total_nodes"}. Their
 * results have progress_method, progress_log, elapsed_ms and, where there are
 * any, node_errors. A prompt that failed or was cancelled is a result; one that
 * was refused, couldn't be submitted or didn't end in time is an error, with
 * its prompt_id and last progress.
 *
 * batch and chain send {"index", "fraction", ...} with every change of one of
 * theirs, {"index", "fraction", "result"} at its end, {"index", "lost",
 * "resubmits"} when ComfyUI lost one that is submitted again; they record each
 * prompt's id before it is submitted, and each end.
 *
 * run and submit send the record {"prompt_id"} before anything else, and go on
 * with a prompt that such a record names.
 */
#ifndef WORKERS_REQUEST_H
#define WORKERS_REQUEST_H

#include "workers/preview.h"
#include "workers/worker.h"

#define REQUEST_COMMANDS_MAX 1024 /* in hand at once */
#define REQUEST_RECORDS_MAX  2048 /* of a predecessor, not asked for yet */
#define REQUEST_HISTORY_MAX  1000
#define REQUEST_HISTORY      20   /* limit unless told */
#define REQUEST_LOG_LINES    2000 /* of progress_log */

extern const struct worker_kind request_kind;

/* The same commands for somebody else in this process: MCP's tools. */
struct commands;

struct command_sink {
	/* The answer to a line: {"ok": ...}. False if it is too long to be
	 * passed on. Must not free the commands. */
	bool (*respond)(void *user, uint64_t line, struct span answer);
	/* As worker_output and worker_record. */
	bool (*output)(void *user, uint64_t line, struct span bytes);
	int (*record)(void *user, uint64_t line, struct span record,
	              struct worker_record *r, struct error *err);
	/* A preview, if run or watch was asked for them. True: it is done with,
	 * or was moved away; false: later, when there is room for outputs.
	 * `last`: the answer comes next. */
	bool (*preview)(void *user, uint64_t line, struct preview *p,
	                bool last);
};
/* `w` is for commands that have files written; NULL if there are none. */
struct commands *commands_new(struct link *l, struct worker *w,
                              const struct command_sink *sink, void *user,
                              struct error *err);
/* Drops what is in hand, without answers. NULL is fine; returns NULL. */
struct commands *commands_free(struct commands *all);
void commands_request(struct commands *all, uint64_t line, struct span request);
void commands_cancel(struct commands *all, uint64_t line);
/* What a predecessor recorded for a line that comes next. */
void commands_recorded(struct commands *all, uint64_t line, struct span record);
/* The output that it sent last. */
void commands_told(struct commands *all, uint64_t line, struct span output);

#endif
