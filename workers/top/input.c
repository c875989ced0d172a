/*
 * input.c - see input.h.
 */
#include "workers/top/input.h"

#include <stdio.h>
#include <string.h>

const struct top_key_help top_key_help[] = {
	{"Up, Down, k, j", "select a row"},
	{"Page Up, Page Down", "a screen up or down"},
	{"Home, g; End, G", "the first, the last row"},
	{"Tab", "go to the sessions, or back to the prompts"},
	{"s", "sort by the next column"},
	{"S", "turn the order round"},
	{"/", "show only rows with a text; Enter keeps it, Escape ends it"},
	{"c", "cancel the selected prompt (y confirms)"},
	{"r", "replace the worker of the selected session; nothing is lost"},
	{"Ctrl-L", "draw everything again"},
	{"h, ?", "this help"},
	{"q", "quit"},
	{NULL, NULL},
};

static void select_row(struct top_view *v, const struct top_rows *r, size_t i)
{
	if (i >= r->count)
		i = r->count > 0 ? r->count - 1 : 0;
	(void)snprintf(v->selected[v->pane], sizeof(v->selected[v->pane]), "%s",
	               top_row_id(r, i));
}

/* Where a key leads from row `at`. */
static size_t moved(int key, size_t at, size_t count, size_t page)
{
	switch (key) {
	case TOP_KEY_UP:
	case 'k':
		return at > 0 ? at - 1 : 0;
	case TOP_KEY_DOWN:
	case 'j':
		return at + 1;
	case TOP_KEY_PAGE_UP:
		return at > page ? at - page : 0;
	case TOP_KEY_PAGE_DOWN:
		return at + page;
	case TOP_KEY_HOME:
	case 'g':
		return 0;
	default: /* TOP_KEY_END, 'G' */
		return count;
	}
}

static void on_move(struct top_view *v, const struct top_model *m, int key,
                    size_t page)
{
	struct top_rows r;

	if (top_rows(m, v, v->pane, &r) == 0)
		select_row(v, &r, moved(key, r.selected, r.count, page));
	top_rows_deinit(&r);
}

/* The selected row's id becomes the target; false if there is none. */
static bool aim(struct top_view *v, const struct top_model *m,
                enum top_pane pane, const char *what, int64_t now_ms)
{
	struct top_rows r;
	bool found;

	if (v->pane != pane) {
		top_note(v, now_ms, "Tab goes to the %s, which this key is for",
		         what);
		return false;
	}
	found = top_rows(m, v, pane, &r) == 0 && r.count > 0;
	if (found)
		(void)snprintf(v->target, sizeof(v->target), "%s",
		               top_row_id(&r, r.selected));
	else
		top_note(v, now_ms, "there are no %s here", what);
	top_rows_deinit(&r);
	return found;
}

static enum top_action on_cancel(struct top_view *v, const struct top_model *m,
                                 int64_t now_ms)
{
	const struct top_prompt *p;

	if (!aim(v, m, TOP_PROMPTS, "prompts", now_ms))
		return TOP_NOTHING;
	p = top_model_prompt(m, v->target);
	if (p && p->ended_ms != 0)
		top_note(v, now_ms, "that prompt is over already");
	else
		v->mode = TOP_CONFIRM;
	return TOP_NOTHING;
}

static void next_sort(struct top_view *v)
{
	unsigned *sort = &v->sort[v->pane];

	if (!top_sort_name(v->pane, ++*sort))
		*sort = 0;
}

static enum top_action browse(struct top_view *v, const struct top_model *m,
                              int key, size_t page, int64_t now_ms)
{
	switch (key) {
	case 'q':
		return TOP_QUIT;
	case TOP_KEY_TAB:
		v->pane = v->pane == TOP_PROMPTS ? TOP_SESSIONS : TOP_PROMPTS;
		return TOP_NOTHING;
	case 's':
		next_sort(v);
		return TOP_NOTHING;
	case 'S':
		v->reverse[v->pane] = !v->reverse[v->pane];
		return TOP_NOTHING;
	case '/':
		v->mode = TOP_FILTER;
		return TOP_NOTHING;
	case TOP_KEY_ESCAPE:
		v->filter[0] = '\0';
		return TOP_NOTHING;
	case 'h':
	case '?':
		v->mode = TOP_HELP;
		return TOP_NOTHING;
	case 'c':
		return on_cancel(v, m, now_ms);
	case 'r':
		return aim(v, m, TOP_SESSIONS, "sessions", now_ms)
		               ? TOP_RESTART
		               : TOP_NOTHING;
	case TOP_KEY_UP:
	case TOP_KEY_DOWN:
	case TOP_KEY_PAGE_UP:
	case TOP_KEY_PAGE_DOWN:
	case TOP_KEY_HOME:
	case TOP_KEY_END:
	case 'k':
	case 'j':
	case 'g':
	case 'G':
		on_move(v, m, key, page);
		return TOP_NOTHING;
	default:
		return TOP_NOTHING;
	}
}

static void filter_back(char *filter)
{
	size_t n = strlen(filter);

	/* A whole character: its last bytes are 10xxxxxx. */
	while (n > 0 && ((unsigned char)filter[n - 1] & 0xc0) == 0x80)
		n--;
	filter[n > 0 ? n - 1 : 0] = '\0';
}

static void filter_key(struct top_view *v, int key)
{
	size_t n = strlen(v->filter);

	if (key == TOP_KEY_ENTER || key == TOP_KEY_ESCAPE)
		v->mode = TOP_BROWSE;
	if (key == TOP_KEY_ESCAPE)
		v->filter[0] = '\0';
	else if (key == TOP_KEY_BACKSPACE)
		filter_back(v->filter);
	else if (key >= ' ' && key < 256 && key != 127 && n < TOP_FILTER_MAX) {
		v->filter[n] = (char)key;
		v->filter[n + 1] = '\0';
	}
}

enum top_action top_input(struct top_view *v, const struct top_model *m,
                          int key, size_t page, int64_t now_ms)
{
	if (key == TOP_KEY_REDRAW)
		return TOP_REDRAW;
	v->note[0] = '\0';
	switch (v->mode) {
	case TOP_FILTER:
		filter_key(v, key);
		return TOP_NOTHING;
	case TOP_CONFIRM:
		v->mode = TOP_BROWSE;
		return key == 'y' || key == 'Y' ? TOP_CANCEL : TOP_NOTHING;
	case TOP_HELP:
		v->mode = TOP_BROWSE;
		return TOP_NOTHING;
	case TOP_BROWSE:
		break;
	}
	return browse(v, m, key, page, now_ms);
}
