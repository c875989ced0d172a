/*
 * input.h - what a key does. Changes the view; what has to be asked of the
 * supervisor comes back as an action. Pure.
 */
#ifndef WORKERS_TOP_INPUT_H
#define WORKERS_TOP_INPUT_H

#include "workers/top/view.h"

/* Keys are bytes (text in UTF-8 comes byte by byte), or these. */
enum top_key {
	TOP_KEY_UP = 256,
	TOP_KEY_DOWN,
	TOP_KEY_PAGE_UP,
	TOP_KEY_PAGE_DOWN,
	TOP_KEY_HOME,
	TOP_KEY_END,
	TOP_KEY_BACKSPACE,
	TOP_KEY_ESCAPE,
	TOP_KEY_ENTER,
	TOP_KEY_TAB,
	TOP_KEY_REDRAW, /* Ctrl-L */
};

enum top_action {
	TOP_NOTHING, /* but the view may have changed */
	TOP_QUIT,
	TOP_CANCEL,  /* the prompt view.target */
	TOP_RESTART, /* the worker of the session view.target */
	TOP_REDRAW,  /* all of the screen, something has spoilt it */
};

/* What the help shows and the manual page lists. */
struct top_key_help {
	const char *keys, *text;
};
extern const struct top_key_help top_key_help[]; /* ended by a NULL */

/* `page`: rows of the pane on the screen; `now_ms` for notes. */
enum top_action top_input(struct top_view *v, const struct top_model *m,
                          int key, size_t page, int64_t now_ms);

#endif
