/*
 * session.h - a command that has a worker do one thing and waits for it: the
 * keeper, its signals, its end. What run, watch and download share.
 */
#ifndef WORKERS_FRONT_SESSION_H
#define WORKERS_FRONT_SESSION_H

#include "common/json_span.h"
#include "workers/front/cli.h"
#include "workers/front/show.h"

struct session_job {
	const char *label;   /* of the progress shown */
	struct span request; /* JSON text for the worker */
	const char *path;    /* a file that it may write, or NULL */
	const char *preview; /* a file for the current preview, or NULL */
	bool autostart;      /* start a supervisor if there is none */
	bool cancel;         /* Ctrl-C cancels the prompt; else it just ends
	                        the command, with status `interrupted` */
	int interrupted;
	/* Prints the answer ({"ok":..., "result" or "error"}); returns the
	 * exit status. `elapsed_ms` since the start. */
	int (*print)(const struct cli *cli, bool ok, struct json body,
	             int64_t elapsed_ms);
};

/* Runs it to its end; the exit status. */
int session_run(const struct cli *cli, const struct session_job *job);

#endif
