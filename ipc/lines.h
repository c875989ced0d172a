/*
 * lines.h - a bounded splitter of a byte stream into lines. Pure.
 *
 * A line longer than the bound is reported once, and its rest is thrown away
 * without being stored. Memory grows with the longest line in progress and is
 * given back after it: between lines there is none.
 */
#ifndef IPC_LINES_H
#define IPC_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/span.h"

#define LINES_KEEP_BYTES 4096 /* the least that is had for a beginning */
/* Of each splitter, charged to no budget: however much others hold, a short
 * line gets through. */
#define LINES_FREE_BYTES LINES_KEEP_BYTES
/* What may be read ahead of the line in progress: the buffer never holds more
 * than the bound, a newline, and this. */
#define LINES_AHEAD_BYTES (256u << 10)

/* Bytes that all splitters of one budget may hold together, LINES_FREE_BYTES of
 * each apart; it may be part of a larger one, from which it takes them. */
struct lines_budget {
	size_t used, max;
	struct lines_budget *whole; /* NULL: none */
};

struct lines {
	char *data;
	size_t start, len, cap; /* bytes from start to start+len are unread */
	size_t scanned;         /* of them, known to hold no newline */
	size_t max;             /* of one line, newline not counted */
	bool skipping;          /* inside a line that was too long */
	bool too_long;          /* and that is not yet reported */
	struct lines_budget *budget; /* NULL: none */
};

enum lines_result {
	LINES_NONE, /* no whole line yet */
	LINES_LINE,
	LINES_TOO_LONG, /* a line passed the bound; it is being dropped */
};

/* `max` bounds what stands before a newline, a carriage return included. */
void lines_init(struct lines *l, size_t max, struct lines_budget *budget);
/* Safe twice. */
void lines_deinit(struct lines *l);
/* Room for at least one more byte: where to read into and how much. NULL if
 * out of memory or budget: the peer is to be dropped. NULL too while the
 * buffer is full of lines that nobody has taken, see lines_full. */
char *lines_reserve(struct lines *l, size_t *roomp);
void lines_commit(struct lines *l, size_t n);
/* After lines_reserve gave NULL: true if taking lines makes room again. */
bool lines_full(const struct lines *l);
/* As reserve, copy, commit; 0 or -ENOMEM / -ENOBUFS (budget). Takes any
 * amount: LINES_AHEAD_BYTES does not hold for what the caller had in memory
 * anyway. */
int lines_feed(struct lines *l, const char *data, size_t n);
/* The next line, without its newline and a carriage return before it. Valid
 * until the next call on `l`. */
enum lines_result lines_next(struct lines *l, struct span *line);
/* At EOF: what lines_next has left, then an unfinished last line, if any. */
enum lines_result lines_rest(struct lines *l, struct span *line);

#endif
