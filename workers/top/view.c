/*
 * view.c - see view.h.
 */
#include "workers/top/view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LAYOUT_BOTH 14 /* lines from which on both panes are shown */

/* --- order ---------------------------------------------------------------- */

#define BY(a, b) (((a) > (b)) - ((a) < (b)))

typedef int compare_fn(const void *, const void *);
#define PROMPTS(a, b)                                                          \
	const struct top_prompt *p = *(const struct top_prompt *const *)(a);   \
	const struct top_prompt *q = *(const struct top_prompt *const *)(b)
#define SESSIONS(a, b)                                                         \
	const struct top_session *p = *(const struct top_session *const *)(a); \
	const struct top_session *q = *(const struct top_session *const *)(b)

/* What runs, what waits, what is over. */
static int stage(const struct top_prompt *p)
{
	return p->status == CMX_EXECUTING ? 0 : p->status == CMX_QUEUED ? 1 : 2;
}

static int64_t position(const struct top_prompt *p)
{
	return p->position < 0 ? INT64_MAX : p->position;
}

static int by_age(const void *a, const void *b)
{
	PROMPTS(a, b);
	int r = BY(p->since_ms, q->since_ms);

	return r ? r : strcmp(p->id, q->id);
}

static int by_stage(const void *a, const void *b)
{
	PROMPTS(a, b);
	int r = BY(stage(p), stage(q));

	if (r == 0 && stage(p) == 1)
		r = BY(position(p), position(q));
	if (r == 0 && stage(p) == 2)
		r = BY(q->ended_ms, p->ended_ms);
	return r ? r : by_age(a, b);
}

static int by_progress(const void *a, const void *b)
{
	PROMPTS(a, b);
	int r = BY(q->nodes_done, p->nodes_done);

	if (r == 0)
		r = BY(q->fraction, p->fraction);
	return r ? r : by_age(a, b);
}

static int by_prompt_id(const void *a, const void *b)
{
	PROMPTS(a, b);

	return strcmp(p->id, q->id);
}

/* s2 before s10. */
static int by_session(const void *a, const void *b)
{
	SESSIONS(a, b);
	int r = BY(strlen(p->id), strlen(q->id));

	return r ? r : strcmp(p->id, q->id);
}

static int by_kind(const void *a, const void *b)
{
	SESSIONS(a, b);
	int r = strcmp(p->kind, q->kind);

	return r ? r : by_session(a, b);
}

static int by_user(const void *a, const void *b)
{
	SESSIONS(a, b);
	int r = strcmp(p->user, q->user);

	return r ? r : by_session(a, b);
}

static int by_in_flight(const void *a, const void *b)
{
	SESSIONS(a, b);
	int r = BY(q->in_flight, p->in_flight);

	return r ? r : by_session(a, b);
}

static int by_restarts(const void *a, const void *b)
{
	SESSIONS(a, b);
	int r = BY(q->restarts, p->restarts);

	return r ? r : by_session(a, b);
}

#define SORTS_MAX 5
static const struct {
	const char *name;
	compare_fn *compare;
} sorts[TOP_PANE_COUNT][SORTS_MAX] = {
	[TOP_PROMPTS] = {{"state", by_stage},
                         {"age", by_age},
                         {"progress", by_progress},
                         {"id", by_prompt_id}},
	[TOP_SESSIONS] = {{"id", by_session},
                          {"kind", by_kind},
                          {"user", by_user},
                          {"in flight", by_in_flight},
                          {"restarts", by_restarts}},
};

const char *top_sort_name(enum top_pane pane, unsigned sort)
{
	return sort < SORTS_MAX ? sorts[pane][sort].name : NULL;
}

/* --- filter --------------------------------------------------------------- */

static bool matches(const struct top_view *v, const char *text)
{
	return strcasestr(text, v->filter) != NULL;
}

static bool prompt_wanted(const struct top_view *v, const struct top_prompt *p)
{
	return matches(v, p->id) || matches(v, p->node) ||
	       matches(v, p->error) || matches(v, cmx_status_name(p->status)) ||
	       (p->paused && matches(v, "paused"));
}

static bool session_wanted(const struct top_view *v,
                           const struct top_session *s)
{
	char pids[64];

	(void)snprintf(pids, sizeof(pids), "%" PRId64 " %" PRId64, s->pid,
	               s->keeper_pid);
	return matches(v, s->id) || matches(v, s->kind) ||
	       matches(v, s->user) || matches(v, pids);
}

/* --- rows ----------------------------------------------------------------- */

static void put_prompts(const struct top_model *m, const struct top_view *v,
                        struct top_rows *r)
{
	struct list *it;

	list_for_each (it, &m->prompts) {
		const struct top_prompt *p =
			list_entry(it, struct top_prompt, link);

		if (prompt_wanted(v, p))
			r->rows[r->count++].prompt = p;
	}
}

static void put_sessions(const struct top_model *m, const struct top_view *v,
                         struct top_rows *r)
{
	for (size_t i = 0; i < m->session_count; i++)
		if (session_wanted(v, &m->sessions[i]))
			r->rows[r->count++].session = &m->sessions[i];
}

static void turn_round(struct top_rows *r)
{
	for (size_t i = 0, j = r->count; i + 1 < j; i++) {
		__typeof__(*r->rows) swap = r->rows[i];

		r->rows[i] = r->rows[--j];
		r->rows[j] = swap;
	}
}

int top_rows(const struct top_model *m, const struct top_view *v,
             enum top_pane pane, struct top_rows *out)
{
	size_t room = pane == TOP_PROMPTS ? m->prompt_count : m->session_count;

	*out = (struct top_rows){.pane = pane};
	out->rows = calloc(room + 1, sizeof(*out->rows));
	if (!out->rows)
		return -ENOMEM;
	if (pane == TOP_PROMPTS)
		put_prompts(m, v, out);
	else
		put_sessions(m, v, out);
	qsort(out->rows, out->count, sizeof(*out->rows),
	      sorts[pane][v->sort[pane]].compare);
	if (v->reverse[pane])
		turn_round(out);
	for (size_t i = 0; i < out->count; i++)
		if (strcmp(top_row_id(out, i), v->selected[pane]) == 0)
			out->selected = i;
	return 0;
}

void top_rows_deinit(struct top_rows *r)
{
	free(r->rows);
	r->rows = NULL;
	r->count = 0;
}

const char *top_row_id(const struct top_rows *r, size_t i)
{
	if (i >= r->count)
		return "";
	return r->pane == TOP_PROMPTS ? r->rows[i].prompt->id
	                              : r->rows[i].session->id;
}

void top_note(struct top_view *v, int64_t now_ms, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(v->note, sizeof(v->note), fmt, ap);
	va_end(ap);
	v->note_ms = now_ms;
}

/* --- the screen ----------------------------------------------------------- */

static unsigned less(unsigned n, unsigned least)
{
	return n > least ? n - least : 0;
}

/* One pane in the lines from `from` to the last but one. */
static void layout_one(struct top_layout *l, unsigned from, enum top_pane pane)
{
	l->pane[pane].title = from;
	l->pane[pane].row = from + 1;
	l->pane[pane].count = less(l->bottom, from + 1);
}

void top_layout(struct top_layout *l, unsigned lines, enum top_pane pane,
                size_t session_count)
{
	unsigned body, sessions;

	if (lines < TOP_LINES_MIN)
		lines = TOP_LINES_MIN;
	*l = (struct top_layout){
		.header = lines < 8             ? 1
	                  : lines < LAYOUT_BOTH ? 2
	                                        : 3,
		.bottom = lines - 1,
	};
	if (lines < LAYOUT_BOTH) {
		layout_one(l, l->header, pane);
		return;
	}
	/* Both, each with a title: sessions get what they need, up to half
	 * when keys mean them, a third else. */
	body = l->bottom - l->header - 2;
	sessions = pane == TOP_SESSIONS ? body / 2 : body / 3;
	if (session_count + 1 < sessions)
		sessions = (unsigned)session_count + 1;
	layout_one(l, l->header, TOP_PROMPTS);
	l->pane[TOP_PROMPTS].count = body - sessions;
	layout_one(l, l->header + 1 + l->pane[TOP_PROMPTS].count, TOP_SESSIONS);
}

size_t top_scroll(size_t first, size_t selected, size_t count, size_t shown)
{
	if (shown == 0)
		return 0;
	if (selected < first)
		first = selected;
	if (selected >= first + shown)
		first = selected - shown + 1;
	/* No empty lines below while there are rows above. */
	if (count <= shown)
		return 0;
	return first + shown > count ? count - shown : first;
}
