/*
 * lib.h - what the files of libcomfymux share: the client, how control comes
 * into it and goes back, tasks.
 *
 * The engines (workers/execute, follow, batch, chain) call back from the loop.
 * Nothing of theirs is freed while the loop is in a turn: what the program lets
 * go of in a callback is buried, and gone when the turn is over.
 */
#ifndef WORKERS_LIB_LIB_H
#define WORKERS_LIB_LIB_H

#include <ev.h>
#include <signal.h>
#include <sys/types.h>

#include "common/backoff.h"
#include "common/comfymux.h"
#include "common/config.h"
#include "common/error.h"
#include "common/json_span.h"
#include "common/list.h"
#include "common/progress_log.h"
#include "workers/execute.h"
#include "workers/link.h"

#define LIB_STATUS_MS 5000 /* patience for the supervisor's status */

/* What may be let go of inside a turn: subscriptions and tasks. */
struct lib_thing {
	struct list node; /* in the client's list of its kind, or of the dead */
	bool dead;        /* tells nothing any more */
	void (*free)(struct lib_thing *t);
};

struct cmx {
	pid_t pid; /* who made it */
	struct ev_loop *loop;
	struct config cfg;
	char *comfyui, *socket, *config; /* the options, for a reset */
	bool no_events;
	struct link *link;
	/* Connecting: the first time when something is asked. */
	bool begun;
	ev_timer reconnect;
	struct backoff backoff;
	struct link_watch bus;
	struct list subscriptions, tasks, dead;
	unsigned entered; /* calls of the program's that are on the stack */
	bool in_turn;     /* the loop is */
	bool telling;     /* a callback of the program's is */
	bool freed;       /* in a callback; gone when the last call returns */
	sigset_t mask;    /* the program's, while we are in */
	bool sigpipe_was_pending;
};

/* --- errors (api.c) ------------------------------------------------------- */

void lib_set_error(const char *fmt, ...) ATTR_PRINTF(1, 2);
/* Sets the thread's text; is `code`. */
#define lib_fail(code, ...) (lib_set_error(__VA_ARGS__), (code))
int lib_code(enum error_code code);
static inline int lib_fail_with(const struct error *err)
{
	int code = lib_code(err->code);

	return lib_fail(code < 0 ? code : CMX_E_INTERNAL, "%s", err->text);
}

/* --- in and out (api.c) --------------------------------------------------- */

enum lib_entry {
	LIB_QUICK,  /* allowed in callbacks */
	LIB_BLOCKS, /* not */
};
/* First thing in each function that is given a client: 0, or the code to fail
 * with, and then no lib_leave. */
int lib_enter(struct cmx *c, enum lib_entry how);
/* Last thing: the client may be gone. Returns `r`, or CMX_E_CANCELLED if it
 * is. */
int lib_leave(struct cmx *c, int r);

/* One turn of the loop. False with a code when that can't go on. */
bool lib_turn(struct cmx *c, bool wait, int *rp);
/* Until *donep, or the client's end. 0 or a code. */
int lib_run_until(struct cmx *c, const bool *donep);

/* Around each callback of the program's. False: don't call it. */
bool lib_tell_begin(struct cmx *c);
void lib_tell_end(struct cmx *c);

void lib_thing_add(struct list *kind, struct lib_thing *t,
                   void (*free_it)(struct lib_thing *t));
/* Now, or when the turn is over. */
void lib_thing_drop(struct cmx *c, struct lib_thing *t);

/* --- connecting (connect.c) ----------------------------------------------- */

/* Makes a link by `cfg` in place of the one there is, which nobody uses. 0, or
 * -1 and the old one stays. */
int lib_link_renew(struct cmx *c, const struct config *cfg, struct error *err);
void lib_link_free(struct cmx *c);
/* Connects, if that was never tried. 0, or CMX_E_DENIED and the like; that no
 * supervisor is there is no failure. */
int lib_begin(struct cmx *c);

/* --- arguments (api.c) ---------------------------------------------------- */

/* A struct that begins with its size, into one of ours, the rest of which is
 * zero. Refuses one of a newer header that uses what we don't know. */
int lib_read_struct(void *to, size_t size, const void *from);

/* NULL, empty, too long, not UTF-8, control characters. */
int lib_check_prompt_id(const char *id);
/* 0 becomes the default. */
int lib_check_timeout(int64_t *timeout_msp);

/* --- results (result.c) --------------------------------------------------- */

/* A prompt's course in words. Zeroed: empty. */
struct lib_log {
	struct progress_log told;
	bool begun, full;
	size_t count;
	char **lines;
};
void lib_log_update(struct lib_log *l, const struct cmx_progress *p);
void lib_log_deinit(struct lib_log *l);

/* What a result is made of; all of it is copied. */
struct lib_ending {
	int code;
	bool submitted;
	size_t index;
	const struct error *error;           /* or NULL */
	const struct cmx_progress *progress; /* or NULL */
	struct json node_errors;             /* or NONE */
	const struct lib_log *log;           /* or NULL */
	const char *handed;                  /* or NULL */
};
/* NULL: out of memory. */
struct cmx_result *lib_result_new(const struct lib_ending *e);
/* Takes over the items, of which all must be there. NULL, and the items freed,
 * when out of memory. */
struct cmx_results *lib_results_new(struct cmx_result **items, size_t count);

/* --- tasks (task.c) ------------------------------------------------------- */

struct cmx_task {
	struct lib_thing thing;
	struct cmx *client;
	const struct lib_task_kind *kind;
};

struct lib_task_kind {
	const char *(*prompt_id)(struct cmx_task *t);
	/* Of a prompt that it runs now; NULL: it doesn't. */
	const struct cmx_progress *(*progress)(struct cmx_task *t,
	                                       const char *prompt_id);
	void (*cancel)(struct cmx_task *t);
	/* Cancels one prompt, if that is possible apart. */
	bool (*cancel_prompt)(struct cmx_task *t, const char *prompt_id);
	void (*free)(struct cmx_task *t);
};

/* Adds it to the client's. */
void lib_task_init(struct cmx_task *t, struct cmx *c,
                   const struct lib_task_kind *kind);
/* What each function that starts a task begins with: 0, between lib_enter and
 * lib_leave then; `*taskp` (may be NULL) is NULL. */
int lib_task_enter(struct cmx *c, bool has_on_end, struct cmx_task **taskp);
/* For those that wait: until `*done`. Else what ended the waiting; the task is
 * gone then. */
int lib_task_wait(struct cmx *c, struct cmx_task *t, const bool *done);
/* One that could not be started after all. */
void lib_task_discard(struct cmx_task *t);
/* The code of an end. `err` may be NULL. */
int lib_end_code(enum execute_end end, const struct error *err);
/* Why it ended so: `err` if there is one, else what the progress says (`p` may
 * be NULL), written into `space`; NULL: nothing to say. */
const struct error *lib_end_words(enum execute_end end, const struct error *err,
                                  const struct progress *p,
                                  struct error *space);

#endif
