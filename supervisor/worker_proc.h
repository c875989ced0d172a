/*
 * worker_proc.h - one forked worker's life: pid, generation, state and the
 * deadline that goes with it. Pure: what is to be done is the caller's.
 *
 * A generation is a fork that was asked for; news of another one are late news
 * of somebody dead, and nobody's here.
 */
#ifndef SUPERVISOR_WORKER_PROC_H
#define SUPERVISOR_WORKER_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum worker_state {
	WORKER_GONE,     /* none, or its end is known */
	WORKER_STARTING, /* asked for, or forked; not ready */
	WORKER_READY,    /* it has said so, on the bus */
	WORKER_LEAVING,  /* its session is over; it should see that itself */
	WORKER_STOPPING, /* SIGTERM was sent */
	WORKER_KILLED,   /* SIGKILL was sent */
	WORKER_STATE_COUNT
};

enum worker_event {
	WORKER_EV_FORK,     /* the zygote was asked for it */
	WORKER_EV_FAILED,   /* it couldn't be forked */
	WORKER_EV_ATTACHED, /* it is there, by its bus */
	WORKER_EV_LEAVE,    /* its keeper went */
	WORKER_EV_RETURN,   /* ... and came back in time */
	WORKER_EV_STOP,     /* another is to take its place, or none */
	WORKER_EV_DEADLINE, /* the state's time is up */
	WORKER_EV_EXITED,
	WORKER_EVENT_COUNT
};

/* To be done after an event. */
enum worker_action {
	WORKER_DO_NOTHING = 0,
	WORKER_DO_ARM = 1 << 0,      /* deadline: worker_proc_patience_ms() */
	WORKER_DO_DISARM = 1 << 1,   /* no deadline */
	WORKER_DO_TERM = 1 << 2,     /* send SIGTERM */
	WORKER_DO_KILL = 1 << 3,     /* send SIGKILL */
	WORKER_DO_PARENT = 1 << 4,   /* SIGKILL doesn't get there: whoever is
	                                to send it is stuck */
	WORKER_DO_OBITUARY = 1 << 5, /* it is gone */
};

struct worker_proc { /* zeroed: none */
	enum worker_state state;
	uint64_t generation; /* 0: none yet */
	pid_t pid;           /* 0: not told yet */
	bool unwanted;       /* it was signalled to end: nobody's failure */
	bool late;           /* ... but because it didn't get ready */
	int64_t ready_ms;    /* since when it is of use; -1: never was */
};

/* Changes the state: what is to be done now. */
unsigned worker_proc_event(struct worker_proc *w, enum worker_event ev,
                           int64_t now_ms);
/* How long the state may last; 0: for ever. */
unsigned worker_proc_patience_ms(const struct worker_proc *w);
/* It ended of itself (which is as it should be, with status 0), or was killed
 * for not getting ready. */
static inline bool worker_proc_failed(const struct worker_proc *w)
{
	return !w->unwanted || w->late;
}
/* There is one, or was one asked for. */
static inline bool worker_proc_exists(const struct worker_proc *w)
{
	return w->state != WORKER_GONE;
}

const char *worker_state_name(enum worker_state s);

#endif
