/*
 * screen.h - the terminal: ncurses, and nothing else of this program knows it.
 */
#ifndef WORKERS_TOP_SCREEN_H
#define WORKERS_TOP_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "workers/top/view.h"

#define SCREEN_NONE (-1) /* no key is waiting */

/* Takes the terminal over. ERR_INVALID: stdin or stdout is none, or of a kind
 * that can't be drawn on; it is left as it was then. */
int screen_open(struct error *err);
/* Gives it back as it was; safe twice. */
void screen_close(void);
/* Gives it back for a while, for the shell; screen_draw() takes it again. */
void screen_suspend(void);
/* The terminal has another size now, or something else was drawn on it. */
void screen_resized(void);
void screen_spoilt(void);

/* A byte or an enum top_key, SCREEN_NONE when all are read. Doesn't block. */
int screen_key(void);
/* False once the terminal is gone. */
bool screen_there(void);

void screen_draw(const struct top_model *m, struct top_view *v);
/* Rows of the pane that keys mean, as drawn last. */
size_t screen_page(void);

#endif
