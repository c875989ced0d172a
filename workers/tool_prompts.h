/*
 * tool_prompts.h - one's own prompts, for tools that list or search them: those
 * that the supervisor knows, and, on a supervisor of one's own, those of the
 * web page, which only ComfyUI knows.
 */
#ifndef WORKERS_TOOL_PROMPTS_H
#define WORKERS_TOOL_PROMPTS_H

#include "workers/tool_ask.h"

/* The state of a tool that uses this must begin with it, zeroed. */
struct tool_prompts {
	struct tool_ask *ask;
	tool_answer_cb *cb;
	const char *op;
	int64_t limit;
	struct buf own, merged; /* answers */
};

/* `op` is "history" (at most `limit` prompts) or "queue"; calls back with what
 * the op of that name answers. Not from inside, except when the call fails. */
void tool_prompts_get(struct tool_call *c, const char *op, int64_t limit,
                      tool_answer_cb *cb);
void tool_prompts_deinit(struct tool_prompts *p);

#endif
