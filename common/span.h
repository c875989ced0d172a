/*
 * span.h - a view of bytes that somebody else owns.
 */
#ifndef COMMON_SPAN_H
#define COMMON_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
	const char *p; /* not terminated */
	size_t n;
};

#define SPAN_NULL ((struct span){NULL, 0})
#define SPAN(s)   ((struct span){(s), strlen(s)})

static inline struct span span_make(const char *p, size_t n)
{
	struct span s = {p, n};

	return s;
}

static inline bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool span_eq_str(struct span a, const char *s)
{
	return a.n == strlen(s) && (a.n == 0 || memcmp(a.p, s, a.n) == 0);
}

#endif
