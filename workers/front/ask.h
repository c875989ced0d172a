/*
 * ask.h - one question, one answer: an op asked of the supervisor, or of a
 * worker of one's own when there is none.
 */
#ifndef WORKERS_FRONT_ASK_H
#define WORKERS_FRONT_ASK_H

#include "common/json_span.h"
#include "ipc/message.h"
#include "workers/front/cli.h"

enum ask_without {
	ASK_FAIL,      /* no supervisor: ERR_UNREACHABLE */
	ASK_WORKER,    /* no supervisor: a worker asks ComfyUI itself */
	ASK_AUTOSTART, /* start one if that is wanted, else a worker */
	ASK_RESTART,   /* start one if that is wanted, else ERR_UNREACHABLE */
};

/* Asks and waits. `params` is JSON object text. `reply` owns the text of the
 * answer; `*result` points into it. On failure `*result` is the error object
 * where there was one (JSON_NONE else), and `err` is set. */
int ask(const struct cli *cli, enum op op, struct span params,
        enum ask_without without, struct buf *reply, struct json *result,
        struct error *err);

#define ASK_AGAIN_MS     10000 /* for a supervisor that went away */
#define ASK_AGAIN_GAP_MS 100

/* ask() for a submit whose `params` name the prompt by `prompt_id`. When the
 * supervisor goes away before its reply nobody knows whether it has taken the
 * prompt: whoever is there within ASK_AGAIN_MS is asked again, which does no
 * harm. After that `err` says so, and `*result` has the prompt_id. One that
 * went away before it was asked has taken nothing, and the next is asked. */
int ask_submit(const struct cli *cli, struct span params, const char *prompt_id,
               struct buf *reply, struct json *result, struct error *err);

/* ask() for a command that takes its answer and prints it: with --json the
 * result on a line, else through `text`. Returns the exit status. */
int ask_and_print(const struct cli *cli, enum op op, struct span params,
                  enum ask_without without,
                  int (*text)(const struct cli *cli, struct json result));
/* The second half of that: what ask() returned. */
int ask_print(const struct cli *cli, int r, struct json result,
              const struct error *err,
              int (*text)(const struct cli *cli, struct json result));

/* Appends "key":"value" for a request's params. */
void ask_param(struct buf *params, const char *key, const char *value);

#endif
