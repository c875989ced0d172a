/*
 * lines.c - see lines.h.
 *
 * Every byte is looked at once (memchr from `scanned` on) and moved a bounded
 * number of times: the buffer doubles, and is compacted when at least half of
 * it has been read, or when it can't grow and LINES_AHEAD_BYTES are won.
 */
#include "ipc/lines.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void lines_init(struct lines *l, size_t max, struct lines_budget *budget)
{
	*l = (struct lines){.max = max, .budget = budget};
}

/* What a budget is charged for a buffer of `cap` bytes. */
static size_t price(size_t cap)
{
	return cap > LINES_FREE_BYTES ? cap - LINES_FREE_BYTES : 0;
}

static void charge(struct lines *l, size_t cap)
{
	for (struct lines_budget *b = l->budget; b; b = b->whole)
		b->used += price(cap) - price(l->cap);
	l->cap = cap;
}

static bool affordable(const struct lines *l, size_t cap)
{
	if (price(cap) <= price(l->cap))
		return true;
	for (const struct lines_budget *b = l->budget; b; b = b->whole) {
		if (b->used > b->max ||
		    price(cap) - price(l->cap) > b->max - b->used)
			return false;
	}
	return true;
}

void lines_deinit(struct lines *l)
{
	free(l->data);
	charge(l, 0);
	lines_init(l, l->max, l->budget);
}

static void compact(struct lines *l)
{
	if (l->data && l->start > 0 && l->len > 0)
		memmove(l->data, l->data + l->start, l->len);
	l->start = 0;
}

static int resize(struct lines *l, size_t cap)
{
	char *data;

	if (!affordable(l, cap))
		return -ENOBUFS;
	data = realloc(l->data, cap);
	if (!data)
		return -ENOMEM;
	l->data = data;
	charge(l, cap);
	return 0;
}

/* Gives back what a long line needed. Unread bytes fit. */
static void shrink(struct lines *l, size_t cap)
{
	if (l->cap <= cap || l->len > cap)
		return;
	compact(l);
	/* Keeping the larger buffer is all that a failure means. */
	(void)resize(l, cap);
}

/* Most connections are idle most of the time, and there are thousands. */
static void give_back(struct lines *l)
{
	if (l->len > 0 || l->skipping) {
		shrink(l, LINES_KEEP_BYTES);
		return;
	}
	free(l->data);
	l->data = NULL;
	l->start = 0;
	charge(l, 0);
}

static void drop_all(struct lines *l)
{
	l->start = l->len = l->scanned = 0;
	l->skipping = true;
	shrink(l, LINES_AHEAD_BYTES);
}

/* Offset of the next newline, or SIZE_MAX; what was looked at isn't looked at
 * again. */
static size_t find_newline(struct lines *l)
{
	const char *from, *at;

	if (l->scanned == l->len)
		return SIZE_MAX;
	from = l->data + l->start;
	at = memchr(from + l->scanned, '\n', l->len - l->scanned);
	l->scanned = at ? (size_t)(at - from) : l->len;
	return at ? l->scanned : SIZE_MAX;
}

static size_t cap_max(const struct lines *l)
{
	return l->max < SIZE_MAX - LINES_AHEAD_BYTES
	               ? l->max + 1 + LINES_AHEAD_BYTES
	               : SIZE_MAX;
}

static size_t doubled(const struct lines *l)
{
	size_t cap = l->cap < LINES_KEEP_BYTES ? LINES_KEEP_BYTES : l->cap * 2;

	return cap < cap_max(l) ? cap : cap_max(l);
}

/* An unfinished line within the bound always leaves LINES_AHEAD_BYTES before or
 * behind it, so what fills the buffer is whole lines. */
bool lines_full(const struct lines *l)
{
	return l->start + l->len == l->cap && l->cap >= cap_max(l) &&
	       l->start < LINES_AHEAD_BYTES;
}

char *lines_reserve(struct lines *l, size_t *roomp)
{
	if (l->len == 0)
		l->start = 0;
	/* Nobody may have called lines_next since the line grew too long. */
	if (l->len > l->max && !l->too_long && find_newline(l) == SIZE_MAX) {
		l->too_long = true;
		drop_all(l);
	}
	if (lines_full(l))
		return NULL;
	if (l->start + l->len == l->cap) {
		if (l->start >= l->len || l->cap >= cap_max(l))
			compact(l);
		if (l->start + l->len == l->cap && resize(l, doubled(l)) < 0)
			return NULL;
	}
	*roomp = l->cap - l->start - l->len;
	return l->data + l->start + l->len;
}

void lines_commit(struct lines *l, size_t n)
{
	const char *at;
	size_t skipped;

	if (!l->skipping) {
		l->len += n;
		return;
	}
	/* Nothing is kept while skipping, so these are the first bytes. */
	at = n > 0 ? memchr(l->data, '\n', n) : NULL;
	if (!at)
		return;
	skipped = (size_t)(at - l->data) + 1;
	l->skipping = false;
	l->start = skipped;
	l->len = n - skipped;
}

/* Room beyond cap_max(), for bytes behind lines that are not taken. */
static int grow_for(struct lines *l, size_t n)
{
	if (n > SIZE_MAX - l->len)
		return -ENOMEM;
	compact(l);
	return resize(l, l->len + n);
}

int lines_feed(struct lines *l, const char *data, size_t n)
{
	size_t room = 0;
	char *to;
	int r;

	while (n > 0) {
		to = lines_reserve(l, &room);
		if (!to && lines_full(l)) {
			r = grow_for(l, n);
			if (r < 0)
				return r;
			continue;
		}
		if (!to)
			return affordable(l, doubled(l)) ? -ENOMEM : -ENOBUFS;
		if (room > n)
			room = n;
		memcpy(to, data, room);
		lines_commit(l, room);
		data += room;
		n -= room;
	}
	return 0;
}

/* Hands out the first `len` bytes and passes over `skip` more. */
static void take(struct lines *l, size_t len, size_t skip, struct span *line)
{
	line->p = l->data + l->start;
	line->n = len;
	if (len > 0 && line->p[len - 1] == '\r')
		line->n--;
	l->start += len + skip;
	l->len -= len + skip;
	l->scanned = 0;
}

enum lines_result lines_next(struct lines *l, struct span *line)
{
	size_t at;

	*line = SPAN_NULL;
	if (l->too_long) {
		l->too_long = false;
		return LINES_TOO_LONG;
	}
	at = find_newline(l);
	if (at != SIZE_MAX) {
		take(l, at, 1, line);
		if (at <= l->max)
			return LINES_LINE;
		*line = SPAN_NULL;
		return LINES_TOO_LONG;
	}
	if (l->len > l->max) {
		drop_all(l);
		return LINES_TOO_LONG;
	}
	give_back(l);
	return LINES_NONE;
}

enum lines_result lines_rest(struct lines *l, struct span *line)
{
	enum lines_result r = lines_next(l, line);

	if (r != LINES_NONE || l->len == 0)
		return r;
	take(l, l->len, 0, line);
	return LINES_LINE;
}
