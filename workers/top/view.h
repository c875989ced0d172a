/*
 * view.h - which rows of the model are shown, in which order, and which one is
 * selected; how the screen is shared out. Pure.
 */
#ifndef WORKERS_TOP_VIEW_H
#define WORKERS_TOP_VIEW_H

#include "workers/top/model.h"

#define TOP_FILTER_MAX 63 /* bytes */
#define TOP_NOTE_MAX   255
#define TOP_NOTE_MS    8000

enum top_pane { TOP_PROMPTS, TOP_SESSIONS, TOP_PANE_COUNT };

/* What keys do. */
enum top_mode {
	TOP_BROWSE,
	TOP_FILTER,  /* they are the filter's text */
	TOP_CONFIRM, /* y cancels the prompt `target`, all else doesn't */
	TOP_HELP,
};

struct top_view {
	enum top_pane pane; /* the one that keys mean */
	enum top_mode mode;
	unsigned sort[TOP_PANE_COUNT]; /* index of top_sort_name() */
	bool reverse[TOP_PANE_COUNT];
	char filter[TOP_FILTER_MAX + 1]; /* of both */
	/* The selection stays with its row as rows move; "" or one that isn't
	 * there: the first. */
	char selected[TOP_PANE_COUNT][TOP_ID_MAX + 1];
	size_t first[TOP_PANE_COUNT]; /* row at the upper edge */
	char target[TOP_ID_MAX + 1];
	char note[TOP_NOTE_MAX + 1]; /* for the user; "" none */
	int64_t note_ms;             /* monotonic, when it was told */
};

/* Pointers into the model, valid until that changes. */
struct top_rows {
	enum top_pane pane;
	size_t count;
	size_t selected; /* index; 0 if there are none */
	union {
		const struct top_prompt *prompt;
		const struct top_session *session;
	} * rows;
};

/* 0 or -ENOMEM. The rows are freed by top_rows_deinit(). */
int top_rows(const struct top_model *m, const struct top_view *v,
             enum top_pane pane, struct top_rows *out);
void top_rows_deinit(struct top_rows *r);
/* Id of row `i`; "" past the end. */
const char *top_row_id(const struct top_rows *r, size_t i);

/* What a pane can be sorted by; NULL past the last. */
const char *top_sort_name(enum top_pane pane, unsigned sort);

/* Shows a sentence for a while. */
void top_note(struct top_view *v, int64_t now_ms, const char *fmt, ...)
	ATTR_PRINTF(3, 4);

/* Lines of the screen, from above; a pane that isn't shown has no rows. */
struct top_layout {
	unsigned header; /* lines of it, at the top */
	struct {
		unsigned title;      /* line of its title */
		unsigned row, count; /* first line and number of its rows */
	} pane[TOP_PANE_COUNT];
	unsigned bottom; /* the line for note, filter or help */
};

#define TOP_HEADER_MAX 3
#define TOP_LINES_MIN  2 /* smaller screens are treated as this high */
void top_layout(struct top_layout *l, unsigned lines, enum top_pane pane,
                size_t session_count);

/* The first row shown, such that the selected one is among `shown`. */
size_t top_scroll(size_t first, size_t selected, size_t count, size_t shown);

#endif
