/*
 * zygote_proc.h - the supervisor's end of a zygote: starting it, asking it,
 * hearing of its workers, and its own end.
 *
 * There may be several: one that takes fork requests, and retired ones that
 * are about to leave. A zygote's end is complete when everything it had to say
 * is read and it has been reaped; from then on its workers are the
 * supervisor's own children (PR_SET_CHILD_SUBREAPER).
 */
#ifndef SUPERVISOR_ZYGOTE_PROC_H
#define SUPERVISOR_ZYGOTE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/list.h"
#include "ipc/zygote.h"

#define ZYGOTE_NEWS_PER_TURN 64 /* messages of one taken at once */

struct ev_loop;
struct zygote_proc;

struct zygote_handlers {
	void (*on_forked)(void *user, uint64_t generation, pid_t pid);
	void (*on_failed)(void *user, uint64_t generation, int errnum);
	/* `status` as wait() gives it. */
	void (*on_exited)(void *user, uint64_t generation, int status);
	/* Its end is complete; it is freed when this returns. Requests that it
	 * had not answered are lost. */
	void (*on_gone)(void *user, struct zygote_proc *z, int status);
};

struct zygote_setup {
	char *program; /* as sandbox_allow_program gave it; NULL: look for it */
	/* What its workers show to ComfyUI, packed, in a file that is sealed;
	 * -1: nothing. The caller's. */
	int credentials_fd;
	bool sandbox;
};

/* Execs one. Doesn't wait for it: requests may be made at once. NULL with
 * `err`. */
struct zygote_proc *zygote_proc_start(struct ev_loop *loop,
                                      const struct zygote_setup *setup,
                                      const struct zygote_handlers *h,
                                      void *user, struct error *err);
/* Lets it go, without callbacks: it does what it was asked, sees the end of its
 * channel and leaves. NULL is fine; returns NULL. */
struct zygote_proc *zygote_proc_free(struct zygote_proc *z);

pid_t zygote_proc_pid(const struct zygote_proc *z);
/* Takes requests, as far as we know. */
bool zygote_proc_serves(const struct zygote_proc *z);
/* It has forked at least one worker: it is not the zygote that is wrong. */
bool zygote_proc_proven(const struct zygote_proc *z);

/* Asks for a worker; consumes both descriptors, on failure too. Every request
 * is answered by on_forked or on_failed, or on_gone. 0 or a negative errno:
 * -EPIPE if it takes none any more. */
int zygote_proc_fork(struct zygote_proc *z, uint64_t generation,
                     const struct zygote_told *told, int session_fd,
                     int bus_fd);
/* Signals the worker of that generation, in order with fork requests. 0 or a
 * negative errno: -EPIPE once it takes nothing any more. */
int zygote_proc_kill(struct zygote_proc *z, uint64_t generation, int sig);

/* No more forks: it says what it has to say and leaves, made to if need be. Its
 * workers live on. Safe twice. */
void zygote_proc_retire(struct zygote_proc *z);
/* SIGKILL: it is stuck. on_gone follows. */
void zygote_proc_kill_itself(struct zygote_proc *z);
/* The supervisor has reaped it. It may be freed in here. */
void zygote_proc_reaped(struct zygote_proc *z, int status);

#endif
