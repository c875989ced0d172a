/*
 * store_open.c - opening, making and checking the database; the errors of
 * SQLite in words that help.
 */
#include "supervisor/store_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"

#define APPLICATION_ID 0x434d5558 /* "CMUX" */
#define SCHEMA_VERSION 3
#define WAL_PAGES      256     /* pages in the log before a checkpoint */
#define WAL_KEEP_BYTES 4194304 /* size that the log shrinks back to */

#define STR_(x) #x
#define STR(x)  STR_(x)

/* States are those of enum store_state; partial indices want literals. */
static const char schema[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE prompt("
	" row INTEGER PRIMARY KEY AUTOINCREMENT,"
	" id TEXT NOT NULL UNIQUE,"
	" uid INTEGER NOT NULL,"
	" session TEXT NOT NULL,"
	" state INTEGER NOT NULL,"
	" remote_id TEXT,"
	" number REAL,"
	" submitted_at INTEGER NOT NULL,"
	" ended_at INTEGER,"
	" result TEXT,"
	" cancelled INTEGER NOT NULL DEFAULT 0);"
	"CREATE INDEX prompt_active ON prompt(row) WHERE state < 3;"
	"CREATE INDEX prompt_ended ON prompt(ended_at) WHERE state = 3;"
	"CREATE INDEX prompt_ended_of ON prompt(uid, ended_at)"
	" WHERE state = 3;"
	"CREATE TABLE workflow("
	" row INTEGER PRIMARY KEY,"
	" workflow BLOB NOT NULL,"
	" extra_data BLOB);"
	"PRAGMA application_id = " STR(
		APPLICATION_ID) ";"
				"PRAGMA user_version = " STR(
					SCHEMA_VERSION) ";"
							"COMMIT;";
_Static_assert(STORE_ENDED == 3, "the schema's literals");

const char *const store_sql[STMT_COUNT] = {
	[STMT_BEGIN] = "BEGIN IMMEDIATE",
	[STMT_COMMIT] = "COMMIT",
	[STMT_ROLLBACK] = "ROLLBACK",
	[STMT_ACCEPT] = "INSERT INTO prompt(id, uid, session, state,"
			" submitted_at) VALUES(?1, ?2, ?3, 0, ?4)",
	[STMT_KEEP_WORKFLOW] = "INSERT INTO workflow(row, workflow, extra_data)"
			       " VALUES(?1, ?2, ?3)",
	[STMT_DROP_WORKFLOW] = "DELETE FROM workflow WHERE row = ?1",
	[STMT_LOAD_WORKFLOW] = "SELECT workflow, extra_data FROM workflow"
			       " WHERE row = ?1",
	[STMT_SET_STATE] = "UPDATE prompt SET state = ?2,"
			   " remote_id = coalesce(?3, remote_id),"
			   " number = coalesce(?4, number) WHERE row = ?1",
	[STMT_SET_CANCELLED] = "UPDATE prompt SET cancelled = ?2"
			       " WHERE row = ?1",
	[STMT_FORGET] = "DELETE FROM prompt WHERE row = ?1",
	[STMT_END] = "UPDATE prompt SET state = 3, ended_at = ?2, result = ?3"
		     " WHERE row = ?1 AND state < 3",
	[STMT_ACTIVE] = "SELECT row, id, uid, state, remote_id, number,"
			" submitted_at, cancelled FROM prompt WHERE state < 3"
			" ORDER BY row",
	[STMT_ENDED] = "SELECT id, uid, result, submitted_at, ended_at"
		       " FROM prompt WHERE state = 3"
		       " ORDER BY ended_at DESC, row DESC LIMIT ?1 OFFSET ?3",
	[STMT_ENDED_OF] =
		"SELECT id, uid, result, submitted_at, ended_at"
		" FROM prompt WHERE state = 3 AND uid = ?2"
		" ORDER BY ended_at DESC, row DESC LIMIT ?1 OFFSET ?3",
	[STMT_FIND_ENDED] = "SELECT id, uid, result, submitted_at, ended_at"
			    " FROM prompt WHERE id = ?1 AND state = 3",
	[STMT_COUNT_OF] = "SELECT count(*) FROM prompt WHERE state = 3"
			  " AND uid = ?1",
	[STMT_PRUNE] = "DELETE FROM prompt WHERE row IN (SELECT row FROM prompt"
		       " WHERE state = 3 AND ended_at < ?1"
		       " ORDER BY ended_at, row LIMIT ?2)",
	[STMT_JOB_NEW] = "INSERT INTO job(uid, kind, options, total, state,"
			 " created_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
	[STMT_JOB_STATE] = "UPDATE job SET state = ?2,"
			   " ended_at = coalesce(?3, ended_at) WHERE row = ?1",
	[STMT_JOB_TEXTS_DROP] = "UPDATE job_item SET text = NULL"
				" WHERE job = ?1",
	[STMT_JOB_DELETE] = "DELETE FROM job WHERE row = ?1",
	[STMT_JOB_ITEMS_DELETE] = "DELETE FROM job_item WHERE job = ?1",
	[STMT_JOB_EACH] = "SELECT row, uid, kind, total, state, created_at,"
			  " ended_at,"
			  " (SELECT count(*) FROM job_item WHERE job = row"
			  "  AND ok = 1),"
			  " (SELECT count(*) FROM job_item WHERE job = row"
			  "  AND ok = 0),"
			  " (SELECT total(bytes) FROM job_item WHERE job = row)"
			  " FROM job ORDER BY row",
	[STMT_JOB_OPTIONS] = "SELECT options FROM job WHERE row = ?1",
	[STMT_ITEM_ADD] = "INSERT INTO job_item(job, idx, label, text, bytes)"
			  " VALUES(?1, ?2, ?3, ?4, ?5)",
	[STMT_ITEM_TEXT] = "SELECT text FROM job_item WHERE job = ?1"
			   " AND idx = ?2",
	[STMT_ITEM_INTENT] = "UPDATE job_item SET prompt_id = ?3,"
			     " resubmits = ?4 WHERE job = ?1 AND idx = ?2"
			     " AND ok IS NULL",
	[STMT_ITEM_RESULT] = "UPDATE job_item SET ok = ?3, result = ?4"
			     " WHERE job = ?1 AND idx = ?2 AND ok IS NULL",
	[STMT_ITEM_EACH] = "SELECT idx, label, prompt_id, resubmits, ok, result"
			   " FROM job_item WHERE job = ?1 AND idx >= ?2"
			   " ORDER BY idx",
};

static const char *advice(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return "; the file is damaged or not ours: move it away and "
		       "start again (waiting prompts and the history in it are "
		       "lost then, the client id is not)";
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return "; make the file and its directory writable for this "
		       "user, or name another with --state-dir";
	case SQLITE_CANTOPEN:
		return "; check that the directory exists and is writable, or "
		       "name another with --state-dir";
	case SQLITE_FULL:
		return "; the disk is full";
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return "; another program holds the database";
	default:
		return "";
	}
}

int store_error(const char *path, sqlite3 *db, int rc, const char *doing,
                struct error *err)
{
	/* After a rollback the connection speaks of that. */
	const char *what = db && sqlite3_extended_errcode(db) == rc
	                           ? sqlite3_errmsg(db)
	                           : sqlite3_errstr(rc);

	if ((rc & 0xff) == SQLITE_NOMEM)
		return error_set_nomem(err, "database");
	return error_set(err, ERR_SYSTEM,
	                 "cannot %s the state database %s: %s%s", doing, path,
	                 what, advice(rc));
}

/* One number from a PRAGMA. */
static int pragma_int(struct store *s, const char *sql, int64_t *out)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK) {
		rc = sqlite3_step(st);
		if (rc == SQLITE_ROW) {
			*out = sqlite3_column_int64(st, 0);
			rc = SQLITE_OK;
		}
	}
	(void)sqlite3_finalize(st);
	return rc;
}

static int check_whole(struct store *s, struct error *err)
{
	sqlite3_stmt *st = NULL;
	struct stat sb;
	const char *text = NULL;
	int rc, r = 0;

	if (stat(s->path, &sb) != 0 || sb.st_size > STORE_CHECK_MAX)
		return 0;
	rc = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &st, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		text = (const char *)sqlite3_column_text(st, 0);
	if (rc != SQLITE_ROW)
		r = store_error(s->path, s->db, rc, "check", err);
	else if (!text || strcmp(text, "ok") != 0)
		r = error_set(err, ERR_SYSTEM,
		              "cannot use the state database %s: %.200s%s",
		              s->path, text ? text : "no answer",
		              advice(SQLITE_CORRUPT));
	(void)sqlite3_finalize(st);
	return r;
}

static int check_version(struct store *s, int64_t *versionp, struct error *err)
{
	int64_t app = 0, tables = 0;
	int rc = pragma_int(s, "PRAGMA application_id", &app);

	if (rc == SQLITE_OK)
		rc = pragma_int(s, "PRAGMA user_version", versionp);
	if (rc == SQLITE_OK)
		rc = pragma_int(s, "SELECT count(*) FROM sqlite_master",
		                &tables);
	if (rc != SQLITE_OK)
		return store_error(s->path, s->db, rc, "read", err);
	if (tables > 0 && app != APPLICATION_ID)
		return error_set(err, ERR_CONFIG,
		                 "%s is a database of another program; move it "
		                 "away, or name another directory with "
		                 "--state-dir",
		                 s->path);
	if (*versionp > SCHEMA_VERSION)
		return error_set(err, ERR_CONFIG,
		                 "%s was written by a later comfymuxd (format "
		                 "%lld, this one knows %d); run that one, or "
		                 "move the file away",
		                 s->path, (long long)*versionp, SCHEMA_VERSION);
	return 0;
}

static int exec(struct store *s, const char *sql, const char *doing,
                struct error *err)
{
	int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		return store_error(s->path, s->db, rc, doing, err);
	return 0;
}

/* What earlier formats lack; one and the same transaction says so. Tables of
 * jobs, which version 1 had not, are made below. */
static const char upgrade[] =
	"BEGIN IMMEDIATE;"
	"ALTER TABLE prompt ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;"
	"PRAGMA user_version = " STR(SCHEMA_VERSION) ";"
						     "COMMIT;";

/* After each commit: `pages` are in the log. */
static int on_commit(void *user, sqlite3 *db, const char *name, int pages)
{
	struct store *s = user;

	if (pages >= WAL_PAGES && s->checkpointer)
		checkpointer_wake(s->checkpointer);
	return SQLITE_OK;
}

static int set_up(struct store *s, struct error *err)
{
	int64_t version = 0, ended = 0;
	int rc;

	if (check_version(s, &version, err) < 0 || check_whole(s, err) < 0)
		return -1;
	if (exec(s,
	         "PRAGMA journal_mode = WAL;"
	         "PRAGMA synchronous = NORMAL;"
	         "PRAGMA wal_autocheckpoint = 0;"
	         "PRAGMA journal_size_limit = " STR(WAL_KEEP_BYTES) ";",
	         "set up", err) < 0)
		return -1;
	if ((version == 0 && exec(s, schema, "make", err) < 0) ||
	    (version > 0 && version < SCHEMA_VERSION &&
	     exec(s, upgrade, "upgrade", err) < 0) ||
	    exec(s, store_jobs_schema, "make", err) < 0)
		return -1;
	for (int i = 0; i < STMT_COUNT; i++) {
		rc = sqlite3_prepare_v3(s->db, store_sql[i], -1,
		                        SQLITE_PREPARE_PERSISTENT, &s->stmt[i],
		                        NULL);
		if (rc != SQLITE_OK)
			return store_error(s->path, s->db, rc, "use", err);
	}
	rc = pragma_int(s, "SELECT count(*) FROM prompt WHERE state = 3",
	                &ended);
	if (rc != SQLITE_OK)
		return store_error(s->path, s->db, rc, "read", err);
	s->ended = (uint64_t)ended;
	/* Says now, not at the first submission, that it can't be written. */
	return exec(s,
	            "BEGIN IMMEDIATE; PRAGMA user_version = " STR(
			    SCHEMA_VERSION) "; COMMIT",
	            "write", err);
}

struct store *store_open(const char *path, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int rc;

	if (!s || !(s->path = strdup(path))) {
		free(s);
		error_set_nomem(err, "state database");
		return NULL;
	}
	rc = sqlite3_open_v2(path, &s->db,
	                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
	if (rc != SQLITE_OK) {
		store_error(path, s->db, rc, "open", err);
		return store_close(s);
	}
	(void)sqlite3_extended_result_codes(s->db, 1);
	(void)sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
	if (set_up(s, err) < 0)
		return store_close(s);
	s->checkpointer = checkpointer_new(path, err);
	if (!s->checkpointer)
		return store_close(s);
	(void)sqlite3_wal_hook(s->db, on_commit, s);
	return s;
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	s->checkpointer = checkpointer_free(s->checkpointer);
	for (int i = 0; i < STMT_COUNT; i++)
		(void)sqlite3_finalize(s->stmt[i]);
	if (sqlite3_close(s->db) != SQLITE_OK)
		log_warn("store", "database not closed cleanly (path=%s): %s",
		         s->path, sqlite3_errmsg(s->db));
	free(s->path);
	free(s);
	return NULL;
}
