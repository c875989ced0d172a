/*
 * talk.h - several questions to the supervisor over one connection, each waited
 * for. On a loop of its own: nothing else goes on meanwhile. Events between
 * two questions wake the loop of whoever wants them.
 */
#ifndef WORKERS_FRONT_TALK_H
#define WORKERS_FRONT_TALK_H

#include "common/json_span.h"
#include "ipc/message.h"
#include "workers/front/cli.h"

struct ev_loop;
struct talk;

/* Connects, and starts a supervisor if there is none and that is wanted. NULL
 * with `err` set. */
struct talk *talk_open(const struct cli *cli, struct error *err);
/* NULL is fine; returns NULL. */
struct talk *talk_close(struct talk *t);
/* From now on events, and with NULL the end of the connection, are told from
 * `loop`, which must outlive it; also while a question waits for its answer. */
void talk_listen(struct talk *t, struct ev_loop *loop,
                 void (*cb)(void *user, const struct incoming *ev), void *user);
/* As ask(): `reply` owns the text of the answer. ERR_UNREACHABLE: the
 * connection is of no use any more. */
int talk_ask(struct talk *t, enum op op, struct span params, struct buf *reply,
             struct json *result, struct error *err);

#endif
