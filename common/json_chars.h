/*
 * json_chars.h - the characters of JSON text one by one, shared by the
 * json_*.c files; nobody else needs it.
 *
 * Everything here reads text that json_parse() has accepted, or, in
 * json_hex4(), is about to judge.
 */
#ifndef COMMON_JSON_CHARS_H
#define COMMON_JSON_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/json_plain.h"
#include "common/json_span.h"
#include "common/utf8.h"

#define JSON_SURROGATE_HIGH 0xd800u /* first of the high ones */
#define JSON_SURROGATE_LOW  0xdc00u /* first of the low ones */
#define JSON_SURROGATE_END  0xe000u

static inline bool json_is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline bool json_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The value of four hexadecimal digits, -1 if they are none. */
static inline int32_t json_hex4(const char *p)
{
	int32_t v = 0;
	char c;

	for (size_t i = 0; i < 4; i++) {
		c = p[i];
		if (json_is_digit(c))
			v = v << 4 | (c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			v = v << 4 | (c - 'A' + 10);
		else
			return -1;
	}
	return v;
}

/* Reads a string's value byte by byte, so that the same text compares equal
 * whether it was escaped or not. */
struct json_reader {
	const char *p, *end; /* between the quotes */
	unsigned char out[4];
	unsigned at, have; /* bytes of `out` given away, and in it */
};

#define JSON_READER(raw)                                                       \
	{                                                                      \
		.p = (raw).p, .end = (raw).p + (raw).n                         \
	}

static inline void json_reader_escape(struct json_reader *r)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *at;
	uint32_t c;

	if (r->p[1] != 'u') {
		at = strchr(from, r->p[1]);
		r->out[0] = (unsigned char)(at ? to[at - from] : r->p[1]);
		r->have = 1;
		r->p += 2;
		return;
	}
	c = (uint32_t)json_hex4(r->p + 2);
	r->p += 6;
	if (c >= JSON_SURROGATE_HIGH && c < JSON_SURROGATE_LOW) {
		c = 0x10000 + ((c - JSON_SURROGATE_HIGH) << 10) +
		    ((uint32_t)json_hex4(r->p + 2) - JSON_SURROGATE_LOW);
		r->p += 6;
	}
	r->have = (unsigned)utf8_encode((char *)r->out, c);
}

/* The next byte, or -1 at the end. */
static inline int json_reader_next(struct json_reader *r)
{
	if (r->at < r->have)
		return r->out[r->at++];
	if (r->p >= r->end)
		return -1;
	if (*r->p != '\\')
		return (unsigned char)*r->p++;
	json_reader_escape(r);
	r->at = 1;
	return r->out[0];
}

/* Two strings compared decoded. */
static inline bool json_raw_eq(struct span a, struct span b)
{
	struct json_reader ra = JSON_READER(a), rb = JSON_READER(b);
	int c;

	do {
		c = json_reader_next(&ra);
		if (c != json_reader_next(&rb))
			return false;
	} while (c >= 0);
	return true;
}

/* The value in [p, end), its type told by its first bytes. */
static inline struct json json_make(const char *p, const char *end)
{
	struct json j = {JSON_NUMBER, {p, (size_t)(end - p)}};

	switch (*p) {
	case '{':
		j.type = JSON_OBJECT;
		break;
	case '[':
		j.type = JSON_ARRAY;
		break;
	case '"':
		j.type = JSON_STRING;
		break;
	case 't':
		j.type = JSON_TRUE;
		break;
	case 'f':
		j.type = JSON_FALSE;
		break;
	case 'n':
	case 'N':
	case 'I':
		j.type = JSON_NULL;
		break;
	case '-':
		if (j.text.n > 1 && p[1] == 'I')
			j.type = JSON_NULL;
		break;
	}
	return j;
}

#endif
