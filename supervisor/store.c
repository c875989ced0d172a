/*
 * store.c - see store.h; opening is in store_open.c.
 */
#include "supervisor/store.h"

#include <limits.h>

#include "supervisor/store_impl.h"

static int fail(struct store *s, int rc, const char *doing, struct error *err)
{
	if (rc == SQLITE_CONSTRAINT_UNIQUE)
		return error_set(err, ERR_BUSY, "this prompt_id is taken");
	return store_error(s->path, s->db, rc, doing, err);
}

/* Runs a statement that gives no rows, and makes it ready for the next use. */
static int run(struct store *s, enum store_stmt id)
{
	int rc = sqlite3_step(s->stmt[id]);

	(void)sqlite3_reset(s->stmt[id]);
	(void)sqlite3_clear_bindings(s->stmt[id]);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int bind_text(sqlite3_stmt *st, int at, const char *text)
{
	return sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

/* The bytes need to live until the statement has run only. */
static int bind_blob(sqlite3_stmt *st, int at, struct span s)
{
	if (!s.p)
		return sqlite3_bind_null(st, at);
	return sqlite3_bind_blob64(st, at, s.p, s.n, SQLITE_STATIC);
}

static int begin(struct store *s)
{
	return s->in_group ? SQLITE_OK : run(s, STMT_BEGIN);
}

static void undo(struct store *s)
{
	/* Some errors have rolled back already. */
	if (!sqlite3_get_autocommit(s->db))
		(void)run(s, STMT_ROLLBACK);
	s->ended_pending = 0;
}

/* Ends what begin() began: commits if `rc` is fine, else undoes. Inside a group
 * that is left to the group. */
static int finish(struct store *s, int rc)
{
	if (s->in_group)
		return rc;
	if (rc == SQLITE_OK)
		rc = run(s, STMT_COMMIT);
	if (rc != SQLITE_OK) {
		undo(s);
		return rc;
	}
	s->ended = (uint64_t)((int64_t)s->ended + s->ended_pending);
	s->ended_pending = 0;
	return rc;
}

int store_begin(struct store *s, struct error *err)
{
	int rc = begin(s);

	if (rc != SQLITE_OK)
		return fail(s, rc, "write to", err);
	s->in_group = true;
	return 0;
}

int store_commit(struct store *s, struct error *err)
{
	int rc;

	s->in_group = false;
	rc = finish(s, SQLITE_OK);
	return rc == SQLITE_OK ? 0 : fail(s, rc, "write to", err);
}

void store_rollback(struct store *s)
{
	s->in_group = false;
	undo(s);
}

int store_accept(struct store *s, const struct store_accept *a, int64_t *rowp,
                 struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_ACCEPT];
	int rc = begin(s);

	if (rc == SQLITE_OK) {
		(void)bind_text(st, 1, a->id);
		(void)sqlite3_bind_int64(st, 2, (int64_t)a->uid);
		(void)bind_text(st, 3, a->session);
		(void)sqlite3_bind_int64(st, 4, a->submitted_at);
		rc = run(s, STMT_ACCEPT);
	}
	if (rc == SQLITE_OK) {
		*rowp = sqlite3_last_insert_rowid(s->db);
		st = s->stmt[STMT_KEEP_WORKFLOW];
		(void)sqlite3_bind_int64(st, 1, *rowp);
		rc = bind_blob(st, 2, a->workflow);
		if (rc == SQLITE_OK)
			rc = bind_blob(st, 3, a->extra_data);
		if (rc == SQLITE_OK)
			rc = run(s, STMT_KEEP_WORKFLOW);
	}
	rc = finish(s, rc);
	return rc == SQLITE_OK ? 0 : fail(s, rc, "write to", err);
}

static int drop_workflow(struct store *s, int64_t row)
{
	(void)sqlite3_bind_int64(s->stmt[STMT_DROP_WORKFLOW], 1, row);
	return run(s, STMT_DROP_WORKFLOW);
}

int store_set_state(struct store *s, int64_t row, enum store_state state,
                    const char *remote_id, const double *number,
                    struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_SET_STATE];
	int rc = begin(s);

	if (rc == SQLITE_OK) {
		(void)sqlite3_bind_int64(st, 1, row);
		(void)sqlite3_bind_int(st, 2, (int)state);
		if (remote_id)
			(void)bind_text(st, 3, remote_id);
		if (number)
			(void)sqlite3_bind_double(st, 4, *number);
		rc = run(s, STMT_SET_STATE);
	}
	if (rc == SQLITE_OK && state >= STORE_SUBMITTED)
		rc = drop_workflow(s, row);
	rc = finish(s, rc);
	return rc == SQLITE_OK ? 0 : fail(s, rc, "write to", err);
}

int store_set_cancelled(struct store *s, int64_t row, bool cancelled,
                        struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_SET_CANCELLED];
	int rc = begin(s);

	if (rc == SQLITE_OK) {
		(void)sqlite3_bind_int64(st, 1, row);
		(void)sqlite3_bind_int(st, 2, cancelled);
		rc = run(s, STMT_SET_CANCELLED);
	}
	rc = finish(s, rc);
	return rc == SQLITE_OK ? 0 : fail(s, rc, "write to", err);
}

int store_forget(struct store *s, int64_t row, struct error *err)
{
	int rc = begin(s);

	if (rc == SQLITE_OK)
		rc = drop_workflow(s, row);
	if (rc == SQLITE_OK) {
		(void)sqlite3_bind_int64(s->stmt[STMT_FORGET], 1, row);
		rc = run(s, STMT_FORGET);
	}
	rc = finish(s, rc);
	return rc == SQLITE_OK ? 0 : fail(s, rc, "write to", err);
}

int store_end(struct store *s, int64_t row, struct span result,
              int64_t ended_at, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_END];
	int rc = begin(s);

	if (rc == SQLITE_OK) {
		(void)sqlite3_bind_int64(st, 1, row);
		(void)sqlite3_bind_int64(st, 2, ended_at);
		rc = sqlite3_bind_text64(st, 3, result.p, result.n,
		                         SQLITE_STATIC, SQLITE_UTF8);
		if (rc == SQLITE_OK)
			rc = run(s, STMT_END);
	}
	if (rc == SQLITE_OK)
		s->ended_pending += sqlite3_changes(s->db);
	if (rc == SQLITE_OK)
		rc = drop_workflow(s, row);
	rc = finish(s, rc);
	return rc == SQLITE_OK ? 0 : fail(s, rc, "write to", err);
}

static int append_column(struct buf *out, sqlite3_stmt *st, int at)
{
	const void *p = sqlite3_column_blob(st, at);
	int n = sqlite3_column_bytes(st, at);

	return n > 0 ? buf_append(out, p, (size_t)n) : 0;
}

int store_load_workflow(struct store *s, int64_t row, struct buf *workflow,
                        struct buf *extra_data, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_LOAD_WORKFLOW];
	int rc, r = 0;

	(void)sqlite3_bind_int64(st, 1, row);
	rc = sqlite3_step(st);
	if (rc == SQLITE_DONE)
		r = error_set(err, ERR_NOT_FOUND,
		              "the state database %s has no workflow for this "
		              "prompt",
		              s->path);
	else if (rc != SQLITE_ROW)
		r = fail(s, rc, "read", err);
	else if (append_column(workflow, st, 0) != 0 ||
	         append_column(extra_data, st, 1) != 0)
		r = error_set_nomem(err, "workflow");
	(void)sqlite3_reset(st);
	return r;
}

int store_each_active(struct store *s, store_active_cb *cb, void *user,
                      struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_ACTIVE];
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_active a = {
			.row = sqlite3_column_int64(st, 0),
			.id = (const char *)sqlite3_column_text(st, 1),
			.uid = (uid_t)sqlite3_column_int64(st, 2),
			.state = (enum store_state)sqlite3_column_int(st, 3),
			.remote_id = (const char *)sqlite3_column_text(st, 4),
			.has_number = sqlite3_column_type(st, 5) != SQLITE_NULL,
			.number = sqlite3_column_double(st, 5),
			.submitted_at = sqlite3_column_int64(st, 6),
			.cancelled = sqlite3_column_int(st, 7) != 0,
		};

		if (!cb(user, &a))
			break;
	}
	(void)sqlite3_reset(st);
	if (rc == SQLITE_DONE || rc == SQLITE_ROW)
		return 0;
	return fail(s, rc, "read", err);
}

static struct store_ended ended_row(sqlite3_stmt *st)
{
	struct store_ended e = {
		.id = (const char *)sqlite3_column_text(st, 0),
		.uid = (uid_t)sqlite3_column_int64(st, 1),
		.submitted_at = sqlite3_column_int64(st, 3),
		.ended_at = sqlite3_column_int64(st, 4),
	};

	e.result.p = (const char *)sqlite3_column_text(st, 2);
	e.result.n = (size_t)sqlite3_column_bytes(st, 2);
	return e;
}

/* Steps through the ended ones that a prepared and bound statement gives. */
static int walk_ended(struct store *s, sqlite3_stmt *st, store_ended_cb *cb,
                      void *user, bool *anyp, struct error *err)
{
	bool any = false;
	int rc, r = 0;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_ended e = ended_row(st);

		/* Only out of memory, or a hand at the file, makes these. */
		if (!e.id || !e.result.p)
			continue;
		any = true;
		if (!cb(user, &e))
			break;
	}
	if (rc != SQLITE_DONE && rc != SQLITE_ROW)
		r = fail(s, rc, "read", err);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	if (anyp)
		*anyp = any;
	return r;
}

int store_each_ended(struct store *s, const uid_t *uidp, uint64_t from,
                     unsigned limit, store_ended_cb *cb, void *user,
                     struct error *err)
{
	sqlite3_stmt *st = s->stmt[uidp ? STMT_ENDED_OF : STMT_ENDED];

	(void)sqlite3_bind_int64(st, 1, (int64_t)limit);
	if (uidp)
		(void)sqlite3_bind_int64(st, 2, (int64_t)*uidp);
	(void)sqlite3_bind_int64(st, 3,
	                         from < INT64_MAX ? (int64_t)from : INT64_MAX);
	return walk_ended(s, st, cb, user, NULL, err);
}

int store_find_ended(struct store *s, const char *id, store_ended_cb *cb,
                     void *user, bool *foundp, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_FIND_ENDED];

	(void)bind_text(st, 1, id);
	return walk_ended(s, st, cb, user, foundp, err);
}

uint64_t store_count_ended(struct store *s, const uid_t *uidp)
{
	sqlite3_stmt *st = s->stmt[STMT_COUNT_OF];
	uint64_t n = 0;

	if (!uidp)
		return s->ended;
	(void)sqlite3_bind_int64(st, 1, (int64_t)*uidp);
	if (sqlite3_step(st) == SQLITE_ROW)
		n = (uint64_t)sqlite3_column_int64(st, 0);
	(void)sqlite3_reset(st);
	return n;
}

/* Deletes the oldest `n` that ended before `before`; how many, or -1. */
static int prune(struct store *s, int64_t before, uint64_t n, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_PRUNE];
	int rc, gone;

	if (n > STORE_PRUNE_BATCH)
		n = STORE_PRUNE_BATCH;
	rc = begin(s);
	if (rc == SQLITE_OK) {
		(void)sqlite3_bind_int64(st, 1, before);
		(void)sqlite3_bind_int64(st, 2, (int64_t)n);
		rc = run(s, STMT_PRUNE);
	}
	gone = rc == SQLITE_OK ? sqlite3_changes(s->db) : 0;
	s->ended_pending -= gone;
	rc = finish(s, rc);
	return rc == SQLITE_OK ? gone : fail(s, rc, "write to", err);
}

int store_prune(struct store *s, uint64_t keep, int64_t before,
                struct error *err)
{
	if (s->ended > keep)
		return prune(s, INT64_MAX, s->ended - keep, err);
	return prune(s, before, STORE_PRUNE_BATCH, err);
}
