/*
 * feed.h - the supervisor's side of `comfymux top`: connects, and again when
 * the supervisor went away; asks for the state once a second, hears events, and
 * passes on what the user wants done. Everything goes into the model.
 */
#ifndef WORKERS_TOP_FEED_H
#define WORKERS_TOP_FEED_H

#include <ev.h>

#include "common/config.h"
#include "ipc/client.h"
#include "workers/top/model.h"

#define FEED_EVERY_S 1.0 /* status and queue, and attempts to connect */

struct feed_handlers {
	/* The model has changed. */
	void (*on_change)(void *user);
	/* What became of a wish, for the user. */
	void (*on_note)(void *user, const char *text);
	/* This won't get better by itself (ERR_DENIED, ERR_CONFIG). */
	void (*on_hopeless)(void *user, const struct error *err);
};

struct feed {
	struct ev_loop *loop;
	const struct config *cfg;
	struct top_model *model;
	const struct feed_handlers *handlers;
	void *user;
	struct client *client; /* NULL: none now */
	ev_timer tick;
	bool status_asked, queue_asked; /* and not answered yet */
	char wish[TOP_TEXT_MAX + 1];    /* "cancel 1234abcd"; "" none */
};

/* Everything is borrowed, and stays for as long as the feed. */
void feed_start(struct feed *f, struct ev_loop *loop, const struct config *cfg,
                struct top_model *model, const struct feed_handlers *h,
                void *user);
void feed_stop(struct feed *f);

void feed_cancel(struct feed *f, const char *prompt_id);
void feed_restart(struct feed *f, const char *session);

#endif
