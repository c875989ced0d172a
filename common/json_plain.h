/*
 * json_plain.h - the bytes that stand for themselves in a JSON string, eight at
 * a time: for those that read strings and for those that write them.
 */
#ifndef COMMON_JSON_PLAIN_H
#define COMMON_JSON_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* True if one of the eight bytes of `w` is a quote, a backslash, a control
 * character or not ASCII: each term has the top bit of such a byte set. */
static inline bool json_word_is_special(uint64_t w)
{
	const uint64_t ones = 0x0101010101010101u, tops = ones * 0x80;
	uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';

	return ((w | ((w - ones * 0x20) & ~w) | ((quote - ones) & ~quote) |
	         ((slash - ones) & ~slash)) &
	        tops) != 0;
}

/* The first byte in [p, end) that needs a closer look inside a string: quote,
 * backslash, control character, not ASCII. `end` if there is none. */
static inline const char *json_plain_end(const char *p, const char *end)
{
	uint64_t w;

	while (end - p >= (ptrdiff_t)sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		if (json_word_is_special(w))
			break;
		p += sizeof(w);
	}
	while (p < end && (unsigned char)*p >= 0x20 &&
	       (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
		p++;
	return p;
}

#endif
