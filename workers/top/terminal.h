/*
 * terminal.h - whether stdin and stdout are a terminal that can be drawn on. A
 * file of its own, since <term.h> has macros named `columns` and `lines`.
 */
#ifndef WORKERS_TOP_TERMINAL_H
#define WORKERS_TOP_TERMINAL_H

#include "common/error.h"

/* ERR_INVALID, with what to do. Changes nothing on the terminal. */
int terminal_check(struct error *err);

#endif
