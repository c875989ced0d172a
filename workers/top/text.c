/*
 * text.c - see text.h.
 */
#include "workers/top/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include "common/utf8.h"
#include "workers/top/input.h"

#define BAR_CELLS 20
#define WIDE      72 /* columns from which on rows have a bar */
#define HALF      44 /* from which on they have more than the essential */
#define SILENT_MS 3000
#define SHORT_ID  8 /* of a prompt: enough to tell UUIDs apart */
#define DAY_S     INT64_C(86400)

/* --- characters ----------------------------------------------------------- */

static wchar_t decode(const unsigned char *s, size_t n)
{
	uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		c = c << 6 | (s[i] & 0x3f);
	return (wchar_t)c;
}

unsigned top_fit(struct buf *out, const char *s, unsigned columns, bool utf8)
{
	size_t len = strlen(s);
	unsigned used = 0;

	for (size_t i = 0, n; i < len; i += n) {
		const unsigned char *c = (const unsigned char *)s + i;
		bool shown;
		int width = 1;

		n = utf8_char_len(c, len - i);
		shown = n == 1 ? *c >= ' ' && *c < 0x7f : n > 1 && utf8;
		if (shown && n > 1) {
			width = wcwidth(decode(c, n));
			if (width == 0)
				continue;
			shown = width > 0;
		}
		if (!shown) {
			width = 1;
			n = n > 0 ? n : 1;
		}
		if (used + (unsigned)width > columns)
			break;
		(void)buf_append(out, shown ? s + i : "?", shown ? n : 1);
		used += (unsigned)width;
	}
	return used;
}

/* A line in the making. */
struct line {
	struct buf *out;
	const struct top_screen *s;
	unsigned left; /* columns */
};

static void put(struct line *l, const char *text)
{
	l->left -= top_fit(l->out, text, l->left, l->s->utf8);
}

static void putf(struct line *l, const char *fmt, ...) ATTR_PRINTF(2, 3);
static void putf(struct line *l, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	put(l, text);
}

/* A column and the gap behind it. */
static void column(struct line *l, const char *text, unsigned width)
{
	unsigned want = width < l->left ? width : l->left;
	unsigned used = top_fit(l->out, text, want, l->s->utf8);

	for (; used < width + 1 && used < l->left; used++)
		(void)buf_putc(l->out, ' ');
	l->left -= used;
}

/* ASCII alone. */
static void column_right(struct line *l, const char *text, unsigned width)
{
	unsigned n = (unsigned)strlen(text);

	for (unsigned pad = n; pad < width && l->left > 0; pad++, l->left--)
		(void)buf_putc(l->out, ' ');
	column(l, text, n < width ? n : width);
}

static struct line line_of(struct buf *out, const struct top_screen *s)
{
	unsigned columns =
		s->columns < TOP_COLUMNS_MAX ? s->columns : TOP_COLUMNS_MAX;

	return (struct line){.out = out, .s = s, .left = columns};
}

void top_duration(char to[16], int64_t ms)
{
	int64_t s = ms < 0 ? 0 : ms / 1000;

	if (s >= DAY_S * 1000)
		(void)snprintf(to, 16, "%" PRId64 "d", s / DAY_S % 1000000);
	else if (s >= DAY_S)
		(void)snprintf(to, 16, "%dd %02dh", (int)(s / DAY_S),
		               (int)(s / 3600 % 24));
	else if (s >= 3600)
		(void)snprintf(to, 16, "%d:%02d:%02d", (int)(s / 3600),
		               (int)(s / 60 % 60), (int)(s % 60));
	else
		(void)snprintf(to, 16, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

void top_latency_text(char to[24], int64_t us)
{
	if (us < 0)
		(void)snprintf(to, 24, "-");
	else if (us == INT64_MAX)
		(void)snprintf(to, 24, "seconds");
	else
		(void)snprintf(to, 24, "<%g ms", (double)us / 1e3);
}

/* --- header --------------------------------------------------------------- */

/* The supervisor, or why there is none. */
static void put_supervisor(struct line *l, const struct top_model *m)
{
	int64_t silent = l->s->now_ms - m->status_ms;

	if (m->link == TOP_LINK_AWAY) {
		putf(l, "no supervisor: %s; trying again", m->link_error);
		return;
	}
	if (m->link == TOP_LINK_COMING || m->status_ms == 0) {
		put(l, "connecting to the supervisor");
		return;
	}
	if (silent > SILENT_MS)
		putf(l, "no answer from the supervisor for %d s; ",
		     (int)(silent / 1000));
	put(l, m->upstream);
	if (m->upstream_error[0] != '\0')
		putf(l, " (%s)", m->upstream_error);
	if (m->paused)
		put(l, ", PAUSED");
	if (m->reconnects > 0)
		putf(l, ", %" PRId64 " reconnects", m->reconnects);
	putf(l, "   ComfyUI %s   comfymuxd %s, pid %" PRId64, m->url,
	     m->version, m->pid);
}

static void put_counts(struct line *l, const struct top_model *m)
{
	putf(l, "%" PRId64 " running, %" PRId64 " waiting", m->running,
	     m->waiting);
	putf(l, ", %zu sessions, %" PRId64 " subscribers, %" PRId64 " ended",
	     m->session_count + m->sessions_left_out, m->subscribers,
	     m->retained);
}

static void put_rates(struct line *l, const struct top_model *m)
{
	char half[24], most[24];

	if (m->frames_rate >= 0)
		putf(l, "events %.0f/s from ComfyUI, %.0f/s told here",
		     m->frames_rate, m->heard_rate);
	else
		putf(l, "events %.0f/s", m->heard_rate);
	top_latency_text(half, top_model_latency_us(m, 0.5));
	top_latency_text(most, top_model_latency_us(m, 0.99));
	if (m->is_operator)
		putf(l, "   latency p50 %s, p99 %s", half, most);
	if (m->missed > 0)
		putf(l, "   %" PRId64 " left out for slow readers", m->missed);
}

void top_header(struct buf *out, const struct top_screen *s,
                const struct top_model *m, unsigned line)
{
	struct line l = line_of(out, s);

	if (line == 0)
		put_supervisor(&l, m);
	else if (line == 1)
		put_counts(&l, m);
	else
		put_rates(&l, m);
}

/* --- titles --------------------------------------------------------------- */

static void put_prompt_columns(struct line *l)
{
	bool half = l->left >= HALF, wide = l->left >= WIDE;

	column(l, "PROMPT", SHORT_ID);
	column(l, "STATE", half ? 9 : 4);
	if (half)
		column_right(l, "POS", 4);
	if (half)
		column_right(l, "AGE", 8);
	if (wide)
		column(l, "NODE'S PROGRESS", BAR_CELLS + 2);
	column(l, wide ? "" : "%", 4);
	if (half)
		column_right(l, "NODES", 5);
	column(l, "NODE, STEP", 10);
}

static void put_session_columns(struct line *l)
{
	bool half = l->left >= HALF;

	column(l, "SESSION", 7);
	column(l, "KIND", 5);
	if (half)
		column_right(l, "WORKER", 8);
	if (half)
		column_right(l, "KEEPER", 8);
	column(l, "USER", 10);
	column_right(l, half ? "IN FLIGHT" : "FLY", half ? 9 : 3);
	column_right(l, half ? "RESTARTS" : "RES", half ? 8 : 3);
}

/* How many there are, and by what they are chosen and sorted. */
static void put_extent(struct line *l, const struct top_model *m,
                       const struct top_view *v, const struct top_rows *r)
{
	size_t all =
		r->pane == TOP_PROMPTS ? m->prompt_count : m->session_count;
	bool more = r->pane == TOP_PROMPTS ? m->prompts_left_out
	                                   : m->sessions_left_out > 0;

	putf(l, " %zu of %zu%s by %s%s", r->count, all, more ? "+" : "",
	     v->reverse[r->pane] ? "-" : "",
	     top_sort_name(r->pane, v->sort[r->pane]));
	if (v->filter[0] != '\0')
		putf(l, " with \"%s\"", v->filter);
}

void top_title(struct buf *out, const struct top_screen *s,
               const struct top_model *m, const struct top_view *v,
               const struct top_rows *r)
{
	struct line l = line_of(out, s);

	/* The columns depend on the width of the whole line. */
	if (r->pane == TOP_PROMPTS)
		put_prompt_columns(&l);
	else
		put_session_columns(&l);
	put_extent(&l, m, v, r);
}

/* --- rows ----------------------------------------------------------------- */

static const char *state_of(const struct top_prompt *p)
{
	switch (p->status) {
	case CMX_QUEUED:
		return p->paused ? "paused" : "queued";
	case CMX_EXECUTING:
		return "running";
	case CMX_COMPLETED:
		return "done";
	default:
		return "failed";
	}
}

static void put_bar(struct line *l, double fraction)
{
	char bar[BAR_CELLS + 3] = {'['};
	int done = (int)(fraction * BAR_CELLS);

	for (int i = 0; i < BAR_CELLS; i++)
		bar[i + 1] = i < done ? '#' : '.';
	bar[BAR_CELLS + 1] = ']';
	column(l, bar, BAR_CELLS + 2);
}

static void put_node(struct line *l, const struct top_prompt *p)
{
	put(l, p->status == CMX_FAILED ? p->error : p->node);
	if (p->status == CMX_EXECUTING && p->max > 0)
		putf(l, "  %.0f/%.0f", p->value, p->max);
}

static void put_prompt(struct line *l, const struct top_prompt *p)
{
	bool half = l->left >= HALF, wide = l->left >= WIDE;
	double fraction = p->status == CMX_COMPLETED ? 1 : p->fraction;
	int64_t until = p->ended_ms ? p->ended_ms : l->s->epoch_ms;
	char text[32];

	column(l, p->id, SHORT_ID);
	column(l, state_of(p), half ? 9 : 4);
	if (half) {
		text[0] = '\0';
		if (p->status == CMX_QUEUED && p->position >= 0)
			(void)snprintf(text, sizeof(text), "%" PRId64,
			               p->position);
		column_right(l, text, 4);
		top_duration(text, until - p->since_ms);
		column_right(l, text, 8);
	}
	if (wide)
		put_bar(l, fraction);
	(void)snprintf(text, sizeof(text), "%3d%%", (int)(fraction * 100));
	column(l, text, 4);
	if (half) {
		(void)snprintf(text, sizeof(text), "%zu", p->nodes_done);
		column_right(l, text, 5);
	}
	put_node(l, p);
}

static void put_number(struct line *l, int64_t n, unsigned width)
{
	char text[32] = "-";

	if (n >= 0)
		(void)snprintf(text, sizeof(text), "%" PRId64, n);
	column_right(l, text, width);
}

static void put_session(struct line *l, const struct top_session *p)
{
	bool half = l->left >= HALF;

	column(l, p->id, 7);
	column(l, p->kind, 5);
	if (half) {
		put_number(l, p->pid, 8);
		put_number(l, p->keeper_pid, 8);
	}
	column(l, p->user, 10);
	put_number(l, p->in_flight, half ? 9 : 3);
	put_number(l, p->restarts, half ? 8 : 3);
}

void top_row(struct buf *out, const struct top_screen *s,
             const struct top_rows *r, size_t i)
{
	struct line l = line_of(out, s);

	if (i >= r->count)
		return;
	if (r->pane == TOP_PROMPTS)
		put_prompt(&l, r->rows[i].prompt);
	else
		put_session(&l, r->rows[i].session);
}

/* --- below ---------------------------------------------------------------- */

void top_bottom(struct buf *out, const struct top_screen *s,
                const struct top_view *v)
{
	struct line l = line_of(out, s);
	bool noted = v->note[0] != '\0' && s->now_ms - v->note_ms < TOP_NOTE_MS;

	if (v->mode == TOP_CONFIRM)
		putf(&l, "cancel %.*s? y/n  (%s)", SHORT_ID, v->target,
		     v->target);
	else if (v->mode == TOP_FILTER)
		putf(&l, "/%s_", v->filter);
	else if (noted)
		put(&l, v->note);
	else if (s->columns < HALF)
		put(&l, "q quit  h help  c r s /");
	else
		putf(&l, "q quit  h help  Tab %s  s sort  / filter  %s",
		     v->pane == TOP_PROMPTS ? "sessions" : "prompts",
		     v->pane == TOP_PROMPTS ? "c cancel" : "r restart worker");
}

bool top_help(struct buf *out, const struct top_screen *s, size_t i)
{
	struct line l = line_of(out, s);

	if (!top_key_help[i].keys)
		return false;
	column(&l, top_key_help[i].keys, s->columns < HALF ? 8 : 20);
	put(&l, top_key_help[i].text);
	return true;
}
