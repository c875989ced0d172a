/*
 * json_span.h - JSON text as it stands: strict validation, byte spans,
 * splicing.
 *
 * Numbers keep their digits and strings their escapes, because nothing is
 * decoded until it is asked for: a seed of 18446744073709551615 goes through
 * unbent. RFC 8259, with the extensions named at the flags. Pure: no I/O, no
 * allocation but in the functions that take a struct buf, and for
 * JSON_UNIQUE_KEYS once there are more than a few keys.
 *
 * json_parse() validates a whole text once; everything else works on spans
 * that came out of a validated text and may assume so. Where an object has a
 * key twice the last one counts, as in ComfyUI's own parser, unless the text
 * was parsed with JSON_UNIQUE_KEYS.
 */
#ifndef COMMON_JSON_SPAN_H
#define COMMON_JSON_SPAN_H

#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

#define JSON_DEPTH_MAX 128 /* levels of nesting that json_parse() accepts */
/* Keys of the objects open at one place of the text, with JSON_UNIQUE_KEYS. */
#define JSON_KEYS_MAX (1u << 20)

enum json_type {
	JSON_NONE, /* nothing there: a failed look-up */
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
};

/* One value: its type and its bytes (a string with its quotes). */
struct json {
	enum json_type type;
	struct span text;
};

#define JSON_MISSING ((struct json){JSON_NONE, {NULL, 0}})

enum json_flags {
	/* Accept bare NaN, Infinity and -Infinity, as Python writes them; their
	 * type is JSON_NULL. */
	JSON_NONFINITE = 1 << 0,
	/* Refuse an object that has the same key twice (compared decoded). */
	JSON_UNIQUE_KEYS = 1 << 1,
};

enum json_outcome {
	JSON_OK = 0,
	JSON_E_SYNTAX,    /* not JSON */
	JSON_E_UTF8,      /* invalid UTF-8, or a lone surrogate escape */
	JSON_E_DEPTH,     /* nested deeper than JSON_DEPTH_MAX */
	JSON_E_TRAILING,  /* something behind the value */
	JSON_E_EMPTY,     /* nothing but white space */
	JSON_E_DUPLICATE, /* JSON_UNIQUE_KEYS */
	JSON_E_KEYS,      /* JSON_UNIQUE_KEYS: more than JSON_KEYS_MAX */
	JSON_E_NOMEM,     /* JSON_UNIQUE_KEYS: no memory, or no randomness */
};

/* Validates the whole text and yields its value. `*atp` (may be NULL) gets
 * the offset of the first offending byte. Surrounding white space is fine.
 * A lone surrogate escape (\ud800 without its partner) is JSON_E_UTF8. */
enum json_outcome json_parse(struct json *out, const char *text, size_t len,
                             unsigned flags, size_t *atp);
/* "invalid UTF-8" and so on; never NULL. */
const char *json_outcome_text(enum json_outcome o);

/* Members of an object or elements of an array, in order. */
struct json_iter {
	const char *p, *end;
	bool object;
};
/* A container to walk; on any other type the walk is empty. */
void json_iter_init(struct json_iter *it, struct json container);
/* Next element; `key` (may be NULL) gets the member's name as a JSON_STRING.
 * False at the end. */
bool json_iter_next(struct json_iter *it, struct json *key, struct json *value);
/* Number of elements or members; 0 for other types. */
size_t json_count(struct json container);

/* Member `key` (plain bytes, compared decoded); JSON_MISSING if there is none
 * or `obj` is not an object. */
struct json json_get(struct json obj, const char *key);
struct json json_get_span(struct json obj, struct span key);
/* Several members in one walk: `keys` and `out` have `n` entries each. */
void json_get_many(struct json obj, const char *const *keys, struct json *out,
                   size_t n);
/* Element `index` of an array; JSON_MISSING past the end. */
struct json json_at(struct json array, size_t index);

static inline bool json_is(struct json j, enum json_type t)
{
	return j.type == t;
}

/* The bytes between a string's quotes, still escaped; {NULL,0} if no string. */
struct span json_raw_string(struct json j);
/* True if a string's raw bytes hold no escape, so that they are its value. */
bool json_string_is_plain(struct json j);
/* Appends the decoded UTF-8 bytes. 0, or what buf_append says; -EINVAL if `j`
 * is not a string. U+0000 is decoded to a NUL byte. */
int json_string_decode(struct json j, struct buf *out);
/* A fresh NUL-terminated copy of the decoded string, freed by the caller.
 * NULL if not a string, longer than `max` bytes decoded, out of memory, or if
 * it holds a NUL. */
char *json_string_dup(struct json j, size_t max);
/* Compared decoded. */
bool json_string_eq(struct json j, const char *s);

/* Each false when `j` is not such a number, or it does not fit. A fraction or
 * an exponent is no integer, but "1.0" and "1e3" count as integers too when
 * their value is whole and exact. */
bool json_int64(struct json j, int64_t *out);
bool json_uint64(struct json j, uint64_t *out);
/* Finite only. */
bool json_double(struct json j, double *out);
/* true or false only. */
bool json_bool(struct json j, bool *out);

/* Copies `whole` to `out` with the bytes of `part` (a span inside `whole`)
 * replaced by `with`. */
int json_splice(struct buf *out, struct span whole, struct span part,
                struct span with);
/* Copies object `obj` to `out` with member `key` (plain bytes) set to the JSON
 * text `value`: replaced in place (all of its duplicates by one), or added at
 * the end. -EINVAL if `obj` is no object. */
int json_object_set(struct buf *out, struct json obj, struct span key,
                    struct span value);
/* Copies `j` to `out` without insignificant white space, and bare NaN and
 * Infinity as null: safe to put on a line of its own. -EINVAL if `j` is
 * JSON_NONE. */
int json_compact(struct buf *out, struct json j);

#endif
