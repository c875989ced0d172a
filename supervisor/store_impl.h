/*
 * store_impl.h - what the files of the store share with each other and nobody
 * else.
 */
#ifndef SUPERVISOR_STORE_IMPL_H
#define SUPERVISOR_STORE_IMPL_H

#include <sqlite3.h>

#include "supervisor/store.h"

enum store_stmt {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_ACCEPT,
	STMT_KEEP_WORKFLOW,
	STMT_DROP_WORKFLOW,
	STMT_LOAD_WORKFLOW,
	STMT_SET_STATE,
	STMT_SET_CANCELLED,
	STMT_FORGET,
	STMT_END,
	STMT_ACTIVE,
	STMT_ENDED,
	STMT_ENDED_OF,
	STMT_FIND_ENDED,
	STMT_COUNT_OF,
	STMT_PRUNE,
	STMT_JOB_NEW,
	STMT_JOB_STATE,
	STMT_JOB_TEXTS_DROP,
	STMT_JOB_DELETE,
	STMT_JOB_ITEMS_DELETE,
	STMT_JOB_EACH,
	STMT_JOB_OPTIONS,
	STMT_ITEM_ADD,
	STMT_ITEM_TEXT,
	STMT_ITEM_INTENT,
	STMT_ITEM_RESULT,
	STMT_ITEM_EACH,
	STMT_COUNT
};

struct checkpointer;

struct store {
	sqlite3 *db;
	char *path;
	sqlite3_stmt *stmt[STMT_COUNT];
	uint64_t ended; /* rows of that state */
	/* Change of `ended` by the transaction that is open. */
	int64_t ended_pending;
	bool in_group; /* between store_begin and store_commit */
	struct checkpointer *checkpointer;
};

extern const char *const store_sql[STMT_COUNT];
/* The tables of jobs, made where they are missing: version 1 had none. */
extern const char store_jobs_schema[];

/* store_open.c: the error for an SQLite result, with advice. Returns -1. */
int store_error(const char *path, sqlite3 *db, int rc, const char *doing,
                struct error *err);

/* store_checkpoint.c */
struct checkpointer *checkpointer_new(const char *path, struct error *err);
/* Waits for the thread. NULL is fine; returns NULL. */
struct checkpointer *checkpointer_free(struct checkpointer *c);
/* Asks for a checkpoint; returns at once. */
void checkpointer_wake(struct checkpointer *c);

#endif
