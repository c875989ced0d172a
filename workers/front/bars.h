/*
 * bars.h - progress on a terminal: one row a prompt, repainted in place.
 *
 * bars_row_text is pure; the rest knows how many rows are on the screen and how
 * wide they were, so that a resize repaints cleanly: rows that the terminal
 * has wrapped meanwhile are counted as the rows they have become.
 */
#ifndef WORKERS_FRONT_BARS_H
#define WORKERS_FRONT_BARS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/progress.h"
#include "workers/front/out.h"

#define BARS_ROWS_MAX  64 /* prompts shown at once */
#define BARS_WIDTH_MIN 20 /* narrower terminals are treated as this wide */
#define BARS_WIDTH_MAX 500

/* What one row shows. The strings are borrowed. */
struct bar_row {
	const char *label; /* "workflow.json" */
	bool plain;        /* the label is the whole row */
	const struct cmx_progress *p;
	const char *node_class; /* of the current node, "" if not known */
	size_t total_nodes;     /* of the workflow; 0: not known */
	int64_t started_ms;     /* clock_ms when it was asked for */
	int64_t executing_ms;   /* clock_ms when it began to run; 0: not */
	int64_t now_ms;
};

/* Share of the whole workflow that is done, 0 to 1: nodes completed and cached
 * plus the fraction of the current one. */
double bar_fraction(const struct cmx_progress *p, size_t total_nodes);

/* Appends one row, at most `width` columns, no newline. */
void bars_row_text(const struct bar_row *row, unsigned width, struct buf *out);

struct bars {
	struct out *out;
	int fd;                          /* of the terminal, for its width */
	unsigned lengths[BARS_ROWS_MAX]; /* columns of the rows painted */
	size_t painted;
};

void bars_init(struct bars *b, struct out *out, int fd);
/* Paints all rows over the former ones. */
void bars_paint(struct bars *b, const struct bar_row *rows, size_t count);
/* Takes the rows off the screen: something else is printed there. */
void bars_clear(struct bars *b);
/* Leaves them as they are and goes on below. */
void bars_done(struct bars *b);
/* Columns of the terminal. */
unsigned bars_width(int fd);

#endif
