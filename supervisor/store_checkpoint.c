/*
 * store_checkpoint.c - the thread that moves the write-ahead log into the
 * database file, on a connection of its own: it waits for the disk, so that
 * the loop needn't.
 */
#include "supervisor/store_impl.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

struct checkpointer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool wanted, stop; /* under lock */
	sqlite3 *db;
	char *path;
};

static bool wait_for_work(struct checkpointer *c)
{
	bool stop;

	pthread_mutex_lock(&c->lock);
	while (!c->wanted && !c->stop)
		pthread_cond_wait(&c->wake, &c->lock);
	c->wanted = false;
	stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return !stop;
}

/* Under steady writing a passive checkpoint never quite catches up, and the log
 * would grow without end. When it is large the rest, which is little by then,
 * is done with writers locked out. */
static void checkpoint(struct checkpointer *c)
{
	int left = 0;

	if (sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE,
	                              &left, NULL) == SQLITE_OK &&
	    left > STORE_LOG_PAGES_MAX)
		(void)sqlite3_wal_checkpoint_v2(
			c->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

/* The log module is the loop's alone: a checkpoint that fails is tried again
 * after the next commits, and the commits themselves tell of a full disk. */
static void *run(void *arg)
{
	struct checkpointer *c = arg;

	while (wait_for_work(c))
		checkpoint(c);
	return NULL;
}

static int start_thread(struct checkpointer *c)
{
	sigset_t all, old;
	int r;

	/* Signals are the loop's. */
	sigfillset(&all);
	r = pthread_sigmask(SIG_SETMASK, &all, &old);
	if (r != 0)
		return r;
	r = pthread_create(&c->thread, NULL, run, c);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

struct checkpointer *checkpointer_new(const char *path, struct error *err)
{
	struct checkpointer *c = calloc(1, sizeof(*c));
	int rc;

	if (!c || !(c->path = strdup(path))) {
		free(c);
		error_set_nomem(err, "checkpoint thread");
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->wake, NULL);
	rc = sqlite3_open_v2(path, &c->db, SQLITE_OPEN_READWRITE, NULL);
	if (rc != SQLITE_OK) {
		store_error(path, c->db, rc, "open", err);
		goto fail;
	}
	/* Closing the last connection checkpoints too: that is the other
	 * one's, after the thread has ended. */
	(void)sqlite3_wal_autocheckpoint(c->db, 0);
	(void)sqlite3_busy_timeout(c->db, STORE_BUSY_MS);
	/* A connection finds out that there is a log when it reads. */
	rc = sqlite3_exec(c->db, "SELECT 1 FROM prompt LIMIT 1", NULL, NULL,
	                  NULL);
	if (rc != SQLITE_OK) {
		store_error(path, c->db, rc, "read", err);
		goto fail;
	}
	rc = start_thread(c);
	if (rc != 0) {
		error_set_errno(err, rc, "cannot start the checkpoint thread");
		goto fail;
	}
	return c;
fail:
	(void)sqlite3_close(c->db);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
	free(c->path);
	free(c);
	return NULL;
}

struct checkpointer *checkpointer_free(struct checkpointer *c)
{
	if (!c)
		return NULL;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
	(void)pthread_join(c->thread, NULL);
	(void)sqlite3_close(c->db);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
	free(c->path);
	free(c);
	return NULL;
}

void checkpointer_wake(struct checkpointer *c)
{
	pthread_mutex_lock(&c->lock);
	c->wanted = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
}
