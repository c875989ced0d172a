/*
 * zygote.h - the process that workers are forked from: everything they share
 * is set up once, before the first of them.
 *
 * One thread, no loop, no TLS, one descriptor beside the standard ones; in a
 * sandbox of its own before the first request. It
 * knows no session: it forks when the supervisor asks, reaps by itself, and
 * says what became of each generation. Only it signals its children, and only
 * by generation, so no pid is reused under anybody.
 */
#ifndef WORKERS_ZYGOTE_H
#define WORKERS_ZYGOTE_H

#include "workers/worker.h"

enum zygote_outcome {
	ZYGOTE_OVER,   /* the supervisor is gone; workers live on */
	ZYGOTE_BROKEN, /* what it said made no sense, or the system fails us */
	ZYGOTE_WORKER, /* this process is a worker now: `start` is filled in,
	                  worker_begin() done, in its sandbox */
};

struct zygote_options {
	/* For workers to show to ComfyUI; NULL: nothing. */
	const struct credentials *credentials;
	bool sandbox; /* for itself and its workers */
};

/* Serves the supervisor at the other end of `channel` (consumed). In each
 * forked process it returns, too. What `start` points at stays valid. */
enum zygote_outcome zygote_run(int channel, const struct zygote_options *setup,
                               struct worker_start *start);

#endif
