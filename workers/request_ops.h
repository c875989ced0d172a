/*
 * request_ops.h - a command in hand, for the files that carry them out:
 * request_run.c (run, submit, watch), request_query.c (progress, cancel, queue,
 * history, comfy) and request_view.c (view).
 */
#ifndef WORKERS_REQUEST_OPS_H
#define WORKERS_REQUEST_OPS_H

#include "common/buf.h"
#include "common/json_span.h"
#include "common/list.h"
#include "workers/link.h"
#include "workers/request.h"

struct command;
struct commands;

struct command_op {
	const char *name;
	/* -1 with `err`: the command failed with that. */
	int (*start)(struct command *c, struct error *err);
	/* NULL: it is answered with the error cancelled. */
	void (*cancel)(struct command *c);
	/* An output was refused and would be taken now. May be NULL. */
	void (*room)(struct command *c);
	/* Releases c->job; nothing may call back afterwards. */
	void (*drop)(struct command *c);
};

extern const struct command_op command_run, command_submit, command_watch,
	command_progress, command_cancel_op, command_queue, command_history,
	command_comfy, command_view, command_batch, command_chain;

/* What a predecessor recorded, in its order. */
struct command_record {
	struct list node;
	uint64_t line;
	char *prompt_id; /* NULL: it names none */
	bool chosen;     /* by the user */
	char *text;      /* JSON */
	size_t len;
};

struct command {
	struct list node;
	struct commands *all;
	uint64_t line;
	struct buf text; /* the request; params points into it */
	struct json params;
	const struct command_op *op;
	char *recorded; /* prompt_id of a predecessor's record, or NULL */
	bool recorded_chosen;
	struct list records; /* all of them: struct command_record */
	struct buf told;     /* a predecessor's last output, or empty */
	int64_t received_ms;
	bool started;
	bool cancelled;
	void *job;
	/* Helpers' own. */
	uint64_t ask_id;
	int (*alone)(struct command *c, struct error *err);
	struct comfy_call *call;
	bool holds_api;
};

struct worker *command_worker(const struct command *c);
struct link *command_link(const struct command *c);
/* As worker_output and worker_record, for the command's line. */
bool command_output(const struct command *c, struct span bytes);
/* As command_sink.preview. */
bool command_preview(const struct command *c, struct preview *p, bool last);
int command_record(const struct command *c, struct span record,
                   struct worker_record *r, struct error *err);

/* The answers; `c` is gone afterwards. */
void command_ok(struct command *c, struct span result);
/* `extra`: further members of error, as in reply_error; may be SPAN_NULL. */
void command_fail(struct command *c, const struct error *err,
                  struct span extra);
/* The error of a supervisor's reply, as it is. */
void command_pass_error(struct command *c, const struct incoming *in);

/* A string parameter: 0 and *outp NULL if there is none; -1 with `err` if it
 * isn't a string or is longer than `max`. The caller frees it. */
int command_string(const struct command *c, const char *key, size_t max,
                   char **outp, struct error *err);
/* The same for one that has to be there. */
int command_need_string(const struct command *c, const char *key, size_t max,
                        char **outp, struct error *err);
/* 0 to `max`; `def` if there is none. */
int command_int(const struct command *c, const char *key, int64_t max,
                int64_t def, int64_t *outp, struct error *err);

/* {"prompt_id": id} */
int command_prompt_params(struct buf *b, const char *prompt_id,
                          struct error *err);
/* Asks the supervisor and passes its reply on; `alone` does it without, when
 * there is none, or it went before it answered. */
int command_ask(struct command *c, enum op op, struct span params,
                int (*alone)(struct command *c, struct error *err),
                struct error *err);
/* ComfyUI's interface, held until the command ends. */
struct comfy_api *command_api(struct command *c, struct error *err);
/* Without a supervisor only what this session submitted may be looked at,
 * unless it is the user's own machine. */
int command_check_sight(struct command *c, const char *prompt_id,
                        struct error *err);

#endif
