/*
 * screen.c - see screen.h.
 */
#include "workers/top/screen.h"

#include <curses.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "workers/top/input.h"
#include "workers/top/terminal.h"
#include "workers/top/text.h"

#define ESCAPE_MS 25 /* how long the rest of a key's sequence may take */

enum color {
	COLOR_PAIR_GOOD = 1,
	COLOR_PAIR_BAD,
	COLOR_PAIR_BUSY,
};

static struct {
	SCREEN *terminal;
	bool utf8, colors;
	size_t page;
} screen;

static void use_colors(void)
{
	screen.colors = has_colors() && start_color() == OK &&
	                use_default_colors() == OK;
	if (!screen.colors)
		return;
	(void)init_pair(COLOR_PAIR_GOOD, COLOR_GREEN, -1);
	(void)init_pair(COLOR_PAIR_BAD, COLOR_RED, -1);
	(void)init_pair(COLOR_PAIR_BUSY, COLOR_CYAN, -1);
}

int screen_open(struct error *err)
{
	if (terminal_check(err) < 0)
		return -1;
	screen.terminal = newterm(NULL, stdout, stdin);
	if (!screen.terminal)
		return error_set(err, ERR_INVALID,
		                 "cannot draw on a terminal of the kind "
		                 "TERM=%s",
		                 getenv("TERM"));
	screen.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	(void)cbreak();
	(void)noecho();
	(void)nonl();
	(void)intrflush(stdscr, FALSE);
	(void)keypad(stdscr, TRUE);
	(void)nodelay(stdscr, TRUE);
	(void)set_escdelay(ESCAPE_MS);
	(void)curs_set(0);
	use_colors();
	return 0;
}

void screen_close(void)
{
	if (!screen.terminal)
		return;
	(void)endwin();
	delscreen(screen.terminal);
	screen.terminal = NULL;
}

void screen_suspend(void)
{
	(void)endwin();
}

void screen_resized(void)
{
	struct winsize ws;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row > 0 &&
	    ws.ws_col > 0)
		(void)resizeterm(ws.ws_row, ws.ws_col);
	screen_spoilt();
}

void screen_spoilt(void)
{
	(void)clearok(stdscr, TRUE);
}

/* --- keys ----------------------------------------------------------------- */

int screen_key(void)
{
	int c = getch();

	switch (c) {
	case ERR:
		return SCREEN_NONE;
	case KEY_UP:
		return TOP_KEY_UP;
	case KEY_DOWN:
		return TOP_KEY_DOWN;
	case KEY_PPAGE:
		return TOP_KEY_PAGE_UP;
	case KEY_NPAGE:
		return TOP_KEY_PAGE_DOWN;
	case KEY_HOME:
		return TOP_KEY_HOME;
	case KEY_END:
		return TOP_KEY_END;
	case KEY_BACKSPACE:
	case 127:
	case '\b':
		return TOP_KEY_BACKSPACE;
	case KEY_ENTER:
	case '\r':
	case '\n':
		return TOP_KEY_ENTER;
	case '\t':
		return TOP_KEY_TAB;
	case 033:
		return TOP_KEY_ESCAPE;
	case 'L' & 037:
		return TOP_KEY_REDRAW;
	default:
		/* Other special keys mean nothing here. */
		return c < 256 ? c : 0;
	}
}

bool screen_there(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	int waiting = 0;

	if (poll(&p, 1, 0) <= 0)
		return true;
	/* Readable without anything to read: its end. */
	return !(p.revents & (POLLHUP | POLLERR | POLLNVAL)) &&
	       ioctl(STDIN_FILENO, FIONREAD, &waiting) == 0 && waiting > 0;
}

/* --- drawing -------------------------------------------------------------- */

static void put_line(unsigned y, const struct buf *text, attr_t look)
{
	(void)attrset((int)look);
	(void)mvaddnstr((int)y, 0, text->data ? text->data : "",
	                (int)text->len);
	/* Reverse goes on to the edge. */
	if (look & A_REVERSE)
		for (int x = getcurx(stdscr);
		     x < COLS && getcury(stdscr) == (int)y; x++)
			(void)addch(' ');
	(void)attrset(A_NORMAL);
}

static attr_t color(enum color c, attr_t otherwise)
{
	return screen.colors ? (attr_t)COLOR_PAIR(c) : otherwise;
}

static attr_t look_of_link(const struct top_model *m)
{
	return m->link == TOP_LINK_UP && strcmp(m->upstream, "connected") == 0
	               ? color(COLOR_PAIR_GOOD, A_NORMAL)
	               : color(COLOR_PAIR_BAD, A_BOLD);
}

static attr_t look_of_row(const struct top_rows *r, size_t i)
{
	if (r->pane != TOP_PROMPTS)
		return A_NORMAL;
	switch (r->rows[i].prompt->status) {
	case CMX_EXECUTING:
		return color(COLOR_PAIR_BUSY, A_BOLD);
	case CMX_FAILED:
		return color(COLOR_PAIR_BAD, A_NORMAL);
	default:
		return A_NORMAL;
	}
}

static void draw_rows(const struct top_screen *s, struct top_view *v,
                      const struct top_rows *r, unsigned from, unsigned count)
{
	size_t first =
		top_scroll(v->first[r->pane], r->selected, r->count, count);

	v->first[r->pane] = first;
	for (unsigned i = 0; i < count && first + i < r->count; i++) {
		cleanup_buf struct buf text = BUF_INIT(TOP_LINE_BYTES);
		attr_t look = look_of_row(r, first + i);

		if (r->pane == v->pane && first + i == r->selected)
			look |= A_REVERSE;
		top_row(&text, s, r, first + i);
		put_line(from + i, &text, look);
	}
}

static void draw_pane(const struct top_screen *s, const struct top_model *m,
                      struct top_view *v, const struct top_layout *l,
                      enum top_pane pane)
{
	cleanup_buf struct buf title = BUF_INIT(TOP_LINE_BYTES);
	struct top_rows r;

	if (l->pane[pane].count == 0)
		return;
	if (top_rows(m, v, pane, &r) == 0) {
		top_title(&title, s, m, v, &r);
		put_line(l->pane[pane].title, &title,
		         pane == v->pane ? A_BOLD | A_UNDERLINE : A_UNDERLINE);
		draw_rows(s, v, &r, l->pane[pane].row, l->pane[pane].count);
	}
	top_rows_deinit(&r);
}

static void draw_help(const struct top_screen *s, const struct top_layout *l)
{
	for (unsigned i = 0; i < l->bottom; i++) {
		cleanup_buf struct buf text = BUF_INIT(TOP_LINE_BYTES);

		if (!top_help(&text, s, i))
			return;
		put_line(i, &text, A_NORMAL);
	}
}

static void draw_state(const struct top_screen *s, const struct top_model *m,
                       struct top_view *v, const struct top_layout *l)
{
	for (unsigned i = 0; i < l->header; i++) {
		cleanup_buf struct buf text = BUF_INIT(TOP_LINE_BYTES);

		top_header(&text, s, m, i);
		put_line(i, &text, i == 0 ? look_of_link(m) : A_NORMAL);
	}
	for (int pane = 0; pane < TOP_PANE_COUNT; pane++)
		draw_pane(s, m, v, l, (enum top_pane)pane);
}

void screen_draw(const struct top_model *m, struct top_view *v)
{
	cleanup_buf struct buf text = BUF_INIT(TOP_LINE_BYTES);
	struct top_screen s = {.columns = (unsigned)COLS,
	                       .utf8 = screen.utf8,
	                       .now_ms = clock_ms(),
	                       .epoch_ms = clock_epoch_ms()};
	struct top_layout l;

	top_layout(&l, (unsigned)LINES, v->pane, m->session_count);
	screen.page = l.pane[v->pane].count;
	(void)erase();
	if (v->mode == TOP_HELP)
		draw_help(&s, &l);
	else
		draw_state(&s, m, v, &l);
	top_bottom(&text, &s, v);
	put_line(l.bottom, &text, A_REVERSE);
	(void)refresh();
}

size_t screen_page(void)
{
	return screen.page;
}
