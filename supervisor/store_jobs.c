/*
 * store_jobs.c - see store_jobs.h.
 */
#include "supervisor/store_jobs.h"

#include "supervisor/store_impl.h"

/* The texts of chain steps are wanted until the end; those of a batch could go
 * earlier, but one rule is simpler. */
const char store_jobs_schema[] = "CREATE TABLE IF NOT EXISTS job("
				 " row INTEGER PRIMARY KEY AUTOINCREMENT,"
				 " uid INTEGER NOT NULL,"
				 " kind TEXT NOT NULL,"
				 " options TEXT NOT NULL,"
				 " total INTEGER NOT NULL,"
				 " state INTEGER NOT NULL,"
				 " created_at INTEGER NOT NULL,"
				 " ended_at INTEGER);"
				 "CREATE TABLE IF NOT EXISTS job_item("
				 " job INTEGER NOT NULL,"
				 " idx INTEGER NOT NULL,"
				 " label TEXT NOT NULL,"
				 " text BLOB,"
				 " bytes INTEGER NOT NULL,"
				 " prompt_id TEXT,"
				 " resubmits INTEGER NOT NULL DEFAULT 0,"
				 " ok INTEGER,"
				 " result TEXT,"
				 " PRIMARY KEY(job, idx));";

static int fail(struct store *s, int rc, struct error *err)
{
	if (rc == SQLITE_CONSTRAINT_PRIMARYKEY ||
	    rc == SQLITE_CONSTRAINT_UNIQUE)
		return error_set(err, ERR_BUSY, "this item is there already");
	return store_error(s->path, s->db, rc, "use", err);
}

/* Runs a bound statement that gives no rows. */
static int run(struct store *s, enum store_stmt id, struct error *err)
{
	int rc = sqlite3_step(s->stmt[id]);

	(void)sqlite3_reset(s->stmt[id]);
	(void)sqlite3_clear_bindings(s->stmt[id]);
	return rc == SQLITE_DONE ? 0 : fail(s, rc, err);
}

static struct span column_span(sqlite3_stmt *st, int at)
{
	const void *p = sqlite3_column_blob(st, at);
	int n = sqlite3_column_bytes(st, at);

	return span_make(p, p && n > 0 ? (size_t)n : 0);
}

int store_job_new(struct store *s, struct store_job *j, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_JOB_NEW];

	(void)sqlite3_bind_int64(st, 1, (int64_t)j->uid);
	(void)sqlite3_bind_text(st, 2, j->kind, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text64(st, 3, j->options.p, j->options.n,
	                          SQLITE_STATIC, SQLITE_UTF8);
	(void)sqlite3_bind_int64(st, 4, j->total);
	(void)sqlite3_bind_int(st, 5, (int)j->state);
	(void)sqlite3_bind_int64(st, 6, j->created_at);
	if (run(s, STMT_JOB_NEW, err))
		return -1;
	j->row = sqlite3_last_insert_rowid(s->db);
	return 0;
}

int store_job_set_state(struct store *s, int64_t row, enum job_state state,
                        int64_t now_ms, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_JOB_STATE];

	(void)sqlite3_bind_int64(st, 1, row);
	(void)sqlite3_bind_int(st, 2, (int)state);
	if (state == JOB_OVER)
		(void)sqlite3_bind_int64(st, 3, now_ms);
	if (run(s, STMT_JOB_STATE, err))
		return -1;
	if (state != JOB_OVER)
		return 0;
	(void)sqlite3_bind_int64(s->stmt[STMT_JOB_TEXTS_DROP], 1, row);
	return run(s, STMT_JOB_TEXTS_DROP, err);
}

int store_job_delete(struct store *s, int64_t row, struct error *err)
{
	(void)sqlite3_bind_int64(s->stmt[STMT_JOB_ITEMS_DELETE], 1, row);
	if (run(s, STMT_JOB_ITEMS_DELETE, err))
		return -1;
	(void)sqlite3_bind_int64(s->stmt[STMT_JOB_DELETE], 1, row);
	return run(s, STMT_JOB_DELETE, err);
}

int store_each_job(struct store *s, store_job_cb *cb, void *user,
                   struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_JOB_EACH];
	struct store_job j;
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		j = (struct store_job){
			.row = sqlite3_column_int64(st, 0),
			.uid = (uid_t)sqlite3_column_int64(st, 1),
			.kind = (const char *)sqlite3_column_text(st, 2),
			.total = sqlite3_column_int64(st, 3),
			.state = (enum job_state)sqlite3_column_int(st, 4),
			.created_at = sqlite3_column_int64(st, 5),
			.ended_at = sqlite3_column_int64(st, 6),
			.completed = sqlite3_column_int64(st, 7),
			.failed = sqlite3_column_int64(st, 8),
			.bytes = sqlite3_column_int64(st, 9),
		};
		if (!cb(user, &j)) {
			rc = SQLITE_DONE;
			break;
		}
	}
	(void)sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : fail(s, rc, err);
}

/* One row of one column. */
static int load(struct store *s, enum store_stmt id, struct buf *out,
                struct error *err)
{
	sqlite3_stmt *st = s->stmt[id];
	int rc = sqlite3_step(st), r = 0;
	struct span text;

	if (rc == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL) {
		text = column_span(st, 0);
		r = buf_append(out, text.p, text.n)
		            ? error_set_nomem(err, "job")
		            : 0;
	} else if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
		r = error_set(err, ERR_NOT_FOUND, "there is no such item");
	} else {
		r = fail(s, rc, err);
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return r;
}

int store_job_options(struct store *s, int64_t row, struct buf *out,
                      struct error *err)
{
	(void)sqlite3_bind_int64(s->stmt[STMT_JOB_OPTIONS], 1, row);
	return load(s, STMT_JOB_OPTIONS, out, err);
}

int store_item_add(struct store *s, int64_t row, int64_t index,
                   const char *label, struct span text, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_ITEM_ADD];

	(void)sqlite3_bind_int64(st, 1, row);
	(void)sqlite3_bind_int64(st, 2, index);
	(void)sqlite3_bind_text(st, 3, label, -1, SQLITE_STATIC);
	(void)sqlite3_bind_blob64(st, 4, text.p, text.n, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 5, (int64_t)text.n);
	return run(s, STMT_ITEM_ADD, err);
}

int store_item_text(struct store *s, int64_t row, int64_t index,
                    struct buf *out, struct error *err)
{
	(void)sqlite3_bind_int64(s->stmt[STMT_ITEM_TEXT], 1, row);
	(void)sqlite3_bind_int64(s->stmt[STMT_ITEM_TEXT], 2, index);
	return load(s, STMT_ITEM_TEXT, out, err);
}

int store_item_intent(struct store *s, int64_t row, int64_t index,
                      const char *prompt_id, int64_t resubmits,
                      struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_ITEM_INTENT];

	(void)sqlite3_bind_int64(st, 1, row);
	(void)sqlite3_bind_int64(st, 2, index);
	(void)sqlite3_bind_text(st, 3, prompt_id, -1, SQLITE_STATIC);
	(void)sqlite3_bind_int64(st, 4, resubmits);
	return run(s, STMT_ITEM_INTENT, err);
}

int store_item_result(struct store *s, int64_t row, int64_t index, bool ok,
                      struct span result, bool *newp, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_ITEM_RESULT];

	(void)sqlite3_bind_int64(st, 1, row);
	(void)sqlite3_bind_int64(st, 2, index);
	(void)sqlite3_bind_int(st, 3, ok);
	(void)sqlite3_bind_text64(st, 4, result.p, result.n, SQLITE_STATIC,
	                          SQLITE_UTF8);
	if (run(s, STMT_ITEM_RESULT, err))
		return -1;
	*newp = sqlite3_changes(s->db) > 0;
	return 0;
}

int store_each_item(struct store *s, int64_t row, int64_t from,
                    store_item_cb *cb, void *user, struct error *err)
{
	sqlite3_stmt *st = s->stmt[STMT_ITEM_EACH];
	struct store_item it;
	int rc;

	(void)sqlite3_bind_int64(st, 1, row);
	(void)sqlite3_bind_int64(st, 2, from);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		it = (struct store_item){
			.index = sqlite3_column_int64(st, 0),
			.label = (const char *)sqlite3_column_text(st, 1),
			.prompt_id = (const char *)sqlite3_column_text(st, 2),
			.resubmits = sqlite3_column_int64(st, 3),
			.ended = sqlite3_column_type(st, 4) != SQLITE_NULL,
			.ok = sqlite3_column_int(st, 4) != 0,
			.result = column_span(st, 5),
		};
		if (!cb(user, &it)) {
			rc = SQLITE_DONE;
			break;
		}
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return rc == SQLITE_DONE ? 0 : fail(s, rc, err);
}
