/*
 * cancel.h - cancelling one prompt: by the supervisor, or with ComfyUI itself
 * when there is none.
 */
#ifndef WORKERS_CANCEL_H
#define WORKERS_CANCEL_H

#include "workers/link.h"

struct cancel;

/* `how` is "dequeued", "interrupted", "cancelled" or "ended"; with `err` set
 * (ERR_NOT_FOUND: nobody knows the prompt; ERR_UNREACHABLE: nobody could be
 * asked who knows, see link_owes_cancel) it is NULL. */
typedef void cancel_cb(void *user, const char *how, const struct error *err);

/* Calls back exactly once, never from inside; it is gone when the callback
 * returns. A bus that breaks before it has answered is made up for by asking
 * ComfyUI, and a prompt that ComfyUI doesn't have by asking a supervisor that
 * comes back within patience. NULL with `err` set and no callback on failure.
 */
struct cancel *cancel_new(struct link *l, const char *prompt_id, cancel_cb *cb,
                          void *user, struct error *err);
/* No callback will come; what was asked may still take effect. NULL is fine;
 * returns NULL. */
struct cancel *cancel_free(struct cancel *c);

#endif
