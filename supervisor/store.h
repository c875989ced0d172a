/*
 * store.h - what survives the process: prompts, their workflows until ComfyUI
 * has taken them, and their results. The only file that knows SQLite.
 *
 * WAL with synchronous=NORMAL: what was written survives a crash of the
 * process at once, and a power failure after the next checkpoint; checkpoints
 * are made by a thread of its own, so that no call here waits for a disk.
 */
#ifndef SUPERVISOR_STORE_H
#define SUPERVISOR_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/span.h"
#include "common/uuid.h"

#define STORE_FILE "comfymux.db"
/* Up to this size the whole file is checked at the start. */
#define STORE_CHECK_MAX (64u << 20)
/* Whoever else is at the database, sqlite3 on the command line or the end of a
 * checkpoint, may hold us up so long. */
#define STORE_BUSY_MS 1000
/* Pages of 4 KiB in the log before writers are locked out to shorten it. */
#define STORE_LOG_PAGES_MAX 2048
/* Rows deleted at once by store_prune. */
#define STORE_PRUNE_BATCH 200

enum store_state {
	STORE_ACCEPTED, /* to be posted */
	STORE_POSTING,  /* the POST may have been made */
	STORE_SUBMITTED,
	STORE_ENDED,
};

struct store;

/* Opens or makes the database. A damaged one, one of another program or of a
 * later version, one that can't be written: an error that names the file and
 * says what to do; nothing is changed then. */
struct store *store_open(const char *path, struct error *err);
/* NULL is fine; returns NULL. */
struct store *store_close(struct store *s);

/* Each 0, or -1 with `err` (may be NULL) set. */

struct store_accept {
	const char *id;
	uid_t uid;
	const char *session; /* "" if of none */
	struct span workflow, extra_data;
	int64_t submitted_at;
};
/* ERR_BUSY if the id is taken. */
int store_accept(struct store *s, const struct store_accept *a, int64_t *rowp,
                 struct error *err);
/* The workflow is given up with SUBMITTED. `remote_id` may be NULL. */
int store_set_state(struct store *s, int64_t row, enum store_state state,
                    const char *remote_id, const double *number,
                    struct error *err);
/* Somebody wants it cancelled, or not after all. */
int store_set_cancelled(struct store *s, int64_t row, bool cancelled,
                        struct error *err);
/* Appends the texts; ERR_NOT_FOUND if they were given up. */
int store_load_workflow(struct store *s, int64_t row, struct buf *workflow,
                        struct buf *extra_data, struct error *err);
int store_forget(struct store *s, int64_t row, struct error *err);
/* `result` is an ExecutionProgress. */
int store_end(struct store *s, int64_t row, struct span result,
              int64_t ended_at, struct error *err);

/* Around several of the above: all or nothing. */
int store_begin(struct store *s, struct error *err);
int store_commit(struct store *s, struct error *err);
void store_rollback(struct store *s);

/* A prompt that has not ended. Valid during the call. */
struct store_active {
	int64_t row;
	const char *id;
	uid_t uid;
	enum store_state state;
	const char *remote_id; /* NULL: as id */
	bool has_number;
	double number;
	int64_t submitted_at;
	bool cancelled; /* its end was asked for, and may not have come */
};
/* In order of acceptance; false stops. */
typedef bool store_active_cb(void *user, const struct store_active *a);
int store_each_active(struct store *s, store_active_cb *cb, void *user,
                      struct error *err);

/* One that has. */
struct store_ended {
	const char *id;
	uid_t uid;
	struct span result;
	int64_t submitted_at, ended_at;
};
typedef bool store_ended_cb(void *user, const struct store_ended *e);
/* The newest first, but for the first `from` of them; of one tenant, or of all
 * if `uidp` is NULL. */
int store_each_ended(struct store *s, const uid_t *uidp, uint64_t from,
                     unsigned limit, store_ended_cb *cb, void *user,
                     struct error *err);
/* Calls back once if there is such an ended prompt; `*foundp` says so. */
int store_find_ended(struct store *s, const char *id, store_ended_cb *cb,
                     void *user, bool *foundp, struct error *err);
/* How many have ended; of one tenant, or of all if `uidp` is NULL. */
uint64_t store_count_ended(struct store *s, const uid_t *uidp);

/* Deletes the oldest ended ones beyond `keep`, and those that ended before
 * `before` (epoch ms); at most STORE_PRUNE_BATCH a call. Returns how many, or
 * -1. */
int store_prune(struct store *s, uint64_t keep, int64_t before,
                struct error *err);

#endif
