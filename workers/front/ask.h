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
};

/* Asks and waits. `params` is JSON object text. `reply` owns the text of the
 * answer; `*result` points into it. On failure `*result` is the error object
 * where there was one (JSON_NONE else), and `err` is set. */
int ask(const struct cli *cli, enum op op, struct span params,
        enum ask_without without, struct buf *reply, struct json *result,
        struct error *err);

/* ask() for a command that takes its answer and prints it: with --json the
 * result on a line, else through `text`. Returns the exit status. */
int ask_and_print(const struct cli *cli, enum op op, struct span params,
                  enum ask_without without,
                  int (*text)(const struct cli *cli, struct json result));

/* Appends "key":"value" for a request's params. */
void ask_param(struct buf *params, const char *key, const char *value);

#endif
