/*
 * text.h - the lines of the screen as text, cut to a width in columns. Pure,
 * but for the locale, which says how wide a character is.
 *
 * Nothing that a terminal would obey gets through: control characters, bytes
 * that are no UTF-8 and what the locale can't show become question marks,
 * what has no width is left out.
 */
#ifndef WORKERS_TOP_TEXT_H
#define WORKERS_TOP_TEXT_H

#include "common/buf.h"
#include "workers/top/view.h"

#define TOP_LINE_BYTES  4096 /* of a line; wider screens stay empty beyond */
#define TOP_COLUMNS_MAX 500

/* Appends `s`, at most `columns` wide; returns how wide it is. `utf8`: the
 * locale takes more than ASCII. */
unsigned top_fit(struct buf *out, const char *s, unsigned columns, bool utf8);
/* "0:07", "1:02:03", "2d 03h". */
void top_duration(char to[16], int64_t ms);
/* "0.25 ms", as top_model_latency_us() has it; "-" if not known. */
void top_latency_text(char to[24], int64_t us);

struct top_screen {
	unsigned columns;
	bool utf8;
	int64_t now_ms; /* monotonic */
	int64_t epoch_ms;
};

/* Each appends one line. `line` counts from 0 to the layout's header. */
void top_header(struct buf *out, const struct top_screen *s,
                const struct top_model *m, unsigned line);
void top_title(struct buf *out, const struct top_screen *s,
               const struct top_model *m, const struct top_view *v,
               const struct top_rows *r);
void top_row(struct buf *out, const struct top_screen *s,
             const struct top_rows *r, size_t i);
/* The question, the filter as it is typed, the note, or the keys. */
void top_bottom(struct buf *out, const struct top_screen *s,
                const struct top_view *v);
/* Line `i` of the help; false past the end. */
bool top_help(struct buf *out, const struct top_screen *s, size_t i);

#endif
