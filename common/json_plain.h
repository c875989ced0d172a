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

/* Those of the eight bytes of `w` that are a quote, a backslash, a control
 * character or not ASCII have their top bit set in the result. What borrows may
 * set besides is further up than one of these. */
static inline uint64_t json_word_specials(uint64_t w)
{
	const uint64_t ones = 0x0101010101010101u, tops = ones * 0x80;
	uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';

	return (w | ((w - ones * 0x20) & ~w) | ((quote - ones) & ~quote) |
	        ((slash - ones) & ~slash)) &
	       tops;
}

/* The first byte in [p, end) that needs a closer look inside a string: quote,
 * backslash, control character, not ASCII. `end` if there is none. */
static inline const char *json_plain_end(const char *p, const char *end)
{
	uint64_t w;

	while (end - p >= (ptrdiff_t)sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		w = json_word_specials(w);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		if (w != 0)
			return p + __builtin_ctzll(w) / 8;
#else
		if (w != 0)
			break;
#endif
		p += sizeof(w);
	}
	while (p < end && (unsigned char)*p >= 0x20 &&
	       (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
		p++;
	return p;
}

#endif
