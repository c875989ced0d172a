/*
 * job.h - a command whose session has many requests: the keeper, Ctrl-C, and
 * who waits for which answer. What batch and chain share.
 */
#ifndef WORKERS_FRONT_JOB_H
#define WORKERS_FRONT_JOB_H

#include <ev.h>

#include "common/json_span.h"
#include "common/list.h"
#include "workers/front/job_view.h"
#include "workers/front/keeper.h"

struct job;

/* Who waits for the answer to a request about `what`. */
struct job_waiter {
	/* May be NULL. */
	void (*on_output)(struct job *j, void *what, struct json line);
	/* `body` is the result or the error. */
	void (*on_answer)(struct job *j, void *what, bool ok, struct json body);
};

struct job {
	const struct cli *cli;
	struct ev_loop *loop;
	struct keeper *keeper;
	struct job_view view;
	struct list asks;
	size_t ask_count;
	ev_signal interrupt, terminate;
	unsigned interrupts;
	bool cancelled; /* by the user: nothing more is begun */
	bool done;
	int status;
	/* The first Ctrl-C: what isn't begun won't be; requests under way are
	 * cancelled already. */
	void (*on_cancel)(struct job *j);
};

/* Starts the session; `kind` as the supervisor calls it, NULL: no session, only
 * the signals. `j->cli`, `j->view`
 * and on_cancel are set. */
int job_open(struct job *j, const char *kind, struct error *err);
/* Runs until job_end(). */
void job_run(struct job *j);
void job_end(struct job *j, int status);
/* Safe twice. */
void job_close(struct job *j);

/* 0, or -1 with `err`. ERR_LIMIT: too much is unanswered, try again after the
 * next answer. */
int job_ask(struct job *j, struct span request, const char *path, void *what,
            const struct job_waiter *w, struct error *err);

/* What the `body` of an answer that is not ok says. */
void job_refusal(struct json body, struct error *err);

#endif
