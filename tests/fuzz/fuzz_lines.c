/*
 * fuzz_lines.c - the line splitter against the plainest one: whatever the cuts
 * and whenever lines are taken, the same lines come out.
 *
 * The input: a byte for the bound, a byte for the cuts, the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

/* What the plain splitter has not yet said. */
struct plain {
	const char *p, *end;
	size_t max;
};

static enum lines_result plain_next(struct plain *s, struct span *line)
{
	const char *at = memchr(s->p, '\n', (size_t)(s->end - s->p));
	size_t n = (size_t)((at ? at : s->end) - s->p);

	*line = span_make(s->p, n);
	if (n > s->max || at)
		s->p += at ? n + 1 : n;
	if (n > s->max)
		return LINES_TOO_LONG;
	if (!at)
		return LINES_NONE;
	if (n > 0 && line->p[n - 1] == '\r')
		line->n--;
	return LINES_LINE;
}

/* Takes everything that is whole. The plain splitter sees the whole stream at
 * once, so it may know more. */
static void take(struct lines *l, struct plain *s)
{
	struct span got, expected;
	enum lines_result r;

	while ((r = lines_next(l, &got)) != LINES_NONE) {
		REQUIRE(plain_next(s, &expected) == r);
		if (r == LINES_LINE)
			REQUIRE(span_eq(got, expected));
		else
			REQUIRE(got.p == NULL);
	}
	REQUIRE(!lines_full(l));
	REQUIRE(l->cap <= l->max + 1 + LINES_AHEAD_BYTES);
}

/* As much as goes in at once, by one way or the other. */
static size_t put(struct lines *l, const char *p, size_t n, unsigned how)
{
	size_t room;
	char *to;

	if (how & 1) {
		REQUIRE(lines_feed(l, p, n) == 0);
		return n;
	}
	to = lines_reserve(l, &room);
	if (!to) {
		REQUIRE(lines_full(l));
		return 0;
	}
	REQUIRE(room > 0);
	n = n < room ? n : room;
	memcpy(to, p, n);
	lines_commit(l, n);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t bounds[] = {0, 1, 2, 7, 64, 4095, 4096, 70000};
	struct lines_budget budget = {.max = 64u << 20};
	struct plain s;
	struct lines l;
	struct span got;
	unsigned cuts;
	size_t done, n;

	if (size < 2)
		return 0;
	cuts = data[1];
	s.p = (const char *)data + 2;
	s.end = (const char *)data + size;
	s.max = bounds[data[0] % (sizeof(bounds) / sizeof(*bounds))];
	lines_init(&l, s.max, &budget);
	for (const char *p = s.p; p < s.end; p += done) {
		n = (size_t)(s.end - p);
		if (cuts & 2)
			n = n < 1 + cuts % 61 ? n : 1 + cuts % 61;
		cuts = cuts * 5 + 3;
		done = put(&l, p, n, cuts >> 3);
		REQUIRE(budget.used + LINES_FREE_BYTES == l.cap ||
		        (budget.used == 0 && l.cap <= LINES_FREE_BYTES));
		if (done == 0 || cuts & 16)
			take(&l, &s);
	}
	take(&l, &s);
	n = (size_t)(s.end - s.p);
	if (n == 0 || l.skipping) {
		REQUIRE(lines_rest(&l, &got) == LINES_NONE);
	} else {
		REQUIRE(lines_rest(&l, &got) == LINES_LINE);
		n -= s.p[n - 1] == '\r';
		REQUIRE(got.n == n && memcmp(got.p, s.p, n) == 0);
	}
	lines_deinit(&l);
	REQUIRE(budget.used == 0);
	return 0;
}
