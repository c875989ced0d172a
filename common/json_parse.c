/*
 * json_parse.c - json_parse() of json_span.h: the one validating pass.
 *
 * The nesting is kept in a bit set instead of on the call stack, so that depth
 * costs nothing and is bounded by JSON_DEPTH_MAX. The keys of the objects that
 * are open are kept for JSON_UNIQUE_KEYS alone: a few are compared one by one,
 * more through a hash table with a random base, since keys come from strangers.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/json_chars.h"
#include "common/json_span.h"
#include "common/macros.h"

#define KEYS_FEW 16 /* keys compared one by one, without a table */

/* Prime modulus 2^61 - 1 of the polynomial hash. */
#define HASH_PRIME ((UINT64_C(1) << 61) - 1)

struct open_key {
	struct span raw; /* between the quotes */
	uint64_t hash;   /* 0 while there is no table */
};

/* The keys of all open objects, innermost last. They leave in the reverse
 * order of their coming, so a slot can be freed without disturbing a probe
 * sequence of a key that stays. */
struct open_keys {
	struct open_key few[KEYS_FEW];
	struct open_key *keys; /* few, or allocated with `slots` */
	size_t count, cap;
	uint32_t *slots;   /* index + 1 into keys, 0: free; NULL: no table */
	size_t slot_count; /* power of two, twice cap */
	uint64_t base;     /* of the hash */
};

struct parser {
	const char *p, *end;
	unsigned flags;
	unsigned depth;
	uint64_t is_object[JSON_DEPTH_MAX / 64];
	struct open_keys open;
	size_t first_key[JSON_DEPTH_MAX]; /* of each open object */
};

_Static_assert(JSON_DEPTH_MAX % 64 == 0, "is_object has whole words");
_Static_assert(JSON_KEYS_MAX <= UINT32_MAX / 4, "slots are 32 bits wide");

/* ---- keys of open objects ---- */

/* Polynomial in a random base modulo 2^61 - 1: two given keys collide for few
 * bases only, so nobody can choose keys that do. */
static uint64_t hash_key(struct span raw, uint64_t base)
{
	struct json_reader r = JSON_READER(raw);
	uint64_t h = 1;
	unsigned __int128 m;
	int c;

	while ((c = json_reader_next(&r)) >= 0) {
		m = (unsigned __int128)h * base;
		h = (uint64_t)(m & HASH_PRIME) + (uint64_t)(m >> 61) +
		    (uint64_t)c + 1;
		if (h >= HASH_PRIME)
			h -= HASH_PRIME;
	}
	return h;
}

static bool keys_equal(struct span a, struct span b)
{
	if (span_eq(a, b))
		return true;
	/* Different bytes can only mean the same where one is escaped. */
	if (!memchr(a.p, '\\', a.n) && !memchr(b.p, '\\', b.n))
		return false;
	return json_raw_eq(a, b);
}

/* The slot of a key of the innermost object, or the free one where it would
 * go. Outer objects' keys lie below `first`. */
static uint32_t *open_keys_slot(const struct open_keys *o,
                                const struct open_key *k, size_t first)
{
	size_t mask = o->slot_count - 1, i = (size_t)k->hash & mask;
	const struct open_key *other;

	for (; o->slots[i] != 0; i = (i + 1) & mask) {
		other = &o->keys[o->slots[i] - 1];
		if (o->slots[i] > first && other->hash == k->hash &&
		    keys_equal(other->raw, k->raw))
			break;
	}
	return &o->slots[i];
}

/* Gives every key there is a slot in the (new, empty) table. */
static void open_keys_index(struct open_keys *o)
{
	size_t mask = o->slot_count - 1, at;

	for (size_t i = 0; i < o->count; i++) {
		at = (size_t)o->keys[i].hash & mask;
		while (o->slots[at] != 0)
			at = (at + 1) & mask;
		o->slots[at] = (uint32_t)i + 1;
	}
}

static enum json_outcome open_keys_grow(struct open_keys *o)
{
	size_t cap = o->cap * 4;
	struct open_key *keys;
	uint32_t *slots;

	if (o->cap >= JSON_KEYS_MAX)
		return JSON_E_KEYS;
	if (cap > JSON_KEYS_MAX)
		cap = JSON_KEYS_MAX;
	if (!o->slots &&
	    getrandom(&o->base, sizeof(o->base), 0) != (ssize_t)sizeof(o->base))
		return JSON_E_NOMEM;
	o->base = o->base % (HASH_PRIME - 1) + 1;
	slots = calloc(cap * 2, sizeof(*slots));
	keys = malloc(cap * sizeof(*keys));
	if (!slots || !keys) {
		free(slots);
		free(keys);
		return JSON_E_NOMEM;
	}
	memcpy(keys, o->keys, o->count * sizeof(*keys));
	for (size_t i = 0; !o->slots && i < o->count; i++)
		keys[i].hash = hash_key(keys[i].raw, o->base);
	if (o->slots) {
		free(o->slots);
		free(o->keys);
	}
	o->keys = keys;
	o->slots = slots;
	o->cap = cap;
	o->slot_count = cap * 2;
	open_keys_index(o);
	return JSON_OK;
}

static enum json_outcome open_keys_add(struct open_keys *o, struct span raw,
                                       size_t first)
{
	struct open_key key = {.raw = raw};
	enum json_outcome r;
	uint32_t *slot;

	if (o->count == o->cap) {
		r = open_keys_grow(o);
		if (r != JSON_OK)
			return r;
	}
	if (o->slots) {
		key.hash = hash_key(raw, o->base);
		slot = open_keys_slot(o, &key, first);
		if (*slot != 0)
			return JSON_E_DUPLICATE;
		*slot = (uint32_t)o->count + 1;
	} else {
		for (size_t i = first; i < o->count; i++) {
			if (keys_equal(o->keys[i].raw, raw))
				return JSON_E_DUPLICATE;
		}
	}
	o->keys[o->count++] = key;
	return JSON_OK;
}

/* Forgets the keys from `first` on, newest first. */
static void open_keys_drop(struct open_keys *o, size_t first)
{
	size_t mask = o->slot_count - 1, at;

	while (o->count > first) {
		if (o->slots) {
			at = (size_t)o->keys[o->count - 1].hash & mask;
			while (o->slots[at] != o->count)
				at = (at + 1) & mask;
			o->slots[at] = 0;
		}
		o->count--;
	}
}

static void open_keys_init(struct open_keys *o)
{
	o->keys = o->few;
	o->count = 0;
	o->cap = KEYS_FEW;
	o->slots = NULL;
	o->slot_count = 0;
}

static void open_keys_deinit(struct open_keys *o)
{
	if (o->slots) {
		free(o->slots);
		free(o->keys);
	}
}

/* ---- scalars ---- */

static void skip_space(struct parser *ps)
{
	while (ps->p < ps->end && json_is_space(*ps->p))
		ps->p++;
}

/* At a backslash; leaves p there on failure. */
static enum json_outcome parse_escape(struct parser *ps)
{
	const char *p = ps->p;
	int32_t c, low;

	if (ps->end - p < 2) {
		ps->p = ps->end;
		return JSON_E_SYNTAX;
	}
	if (p[1] != 'u') {
		if (p[1] == '\0' || !strchr("\"\\/bfnrt", p[1]))
			return JSON_E_SYNTAX;
		ps->p = p + 2;
		return JSON_OK;
	}
	c = ps->end - p < 6 ? -1 : json_hex4(p + 2);
	if (c < 0)
		return JSON_E_SYNTAX;
	ps->p = p + 6;
	if (c < (int32_t)JSON_SURROGATE_HIGH ||
	    c >= (int32_t)JSON_SURROGATE_END)
		return JSON_OK;
	low = ps->end - p < 12 || p[6] != '\\' || p[7] != 'u'
	              ? -1
	              : json_hex4(p + 8);
	if (c >= (int32_t)JSON_SURROGATE_LOW ||
	    low < (int32_t)JSON_SURROGATE_LOW ||
	    low >= (int32_t)JSON_SURROGATE_END) {
		ps->p = p;
		return JSON_E_UTF8;
	}
	ps->p = p + 12;
	return JSON_OK;
}

/* At the opening quote. `raw` gets what is between the quotes. */
static enum json_outcome parse_string(struct parser *ps, struct span *raw)
{
	const char *start = ++ps->p;
	enum json_outcome r;
	size_t n;

	for (;;) {
		ps->p = json_plain_end(ps->p, ps->end);
		if (ps->p == ps->end)
			return JSON_E_SYNTAX;
		if (*ps->p == '"')
			break;
		if (*ps->p == '\\') {
			r = parse_escape(ps);
			if (r != JSON_OK)
				return r;
			continue;
		}
		if ((unsigned char)*ps->p < 0x20)
			return JSON_E_SYNTAX;
		n = utf8_char_len((const unsigned char *)ps->p,
		                  (size_t)(ps->end - ps->p));
		if (n == 0)
			return JSON_E_UTF8;
		ps->p += n;
	}
	*raw = span_make(start, (size_t)(ps->p - start));
	ps->p++;
	return JSON_OK;
}

static enum json_outcome parse_digits(struct parser *ps)
{
	if (ps->p == ps->end || !json_is_digit(*ps->p))
		return JSON_E_SYNTAX;
	while (ps->p < ps->end && json_is_digit(*ps->p))
		ps->p++;
	return JSON_OK;
}

static enum json_outcome parse_word(struct parser *ps, const char *word)
{
	for (; *word; word++, ps->p++) {
		if (ps->p == ps->end || *ps->p != *word)
			return JSON_E_SYNTAX;
	}
	return JSON_OK;
}

static enum json_outcome parse_number(struct parser *ps)
{
	enum json_outcome r;

	if (*ps->p == '-') {
		ps->p++;
		if ((ps->flags & JSON_NONFINITE) && ps->p < ps->end &&
		    *ps->p == 'I')
			return parse_word(ps, "Infinity");
	}
	if (ps->p < ps->end && *ps->p == '0') {
		ps->p++;
	} else {
		r = parse_digits(ps);
		if (r != JSON_OK)
			return r;
	}
	if (ps->p < ps->end && *ps->p == '.') {
		ps->p++;
		r = parse_digits(ps);
		if (r != JSON_OK)
			return r;
	}
	if (ps->p < ps->end && (*ps->p == 'e' || *ps->p == 'E')) {
		ps->p++;
		if (ps->p < ps->end && (*ps->p == '+' || *ps->p == '-'))
			ps->p++;
		return parse_digits(ps);
	}
	return JSON_OK;
}

/* ---- structure ---- */

static bool in_object(const struct parser *ps)
{
	unsigned top = ps->depth - 1;

	return (ps->is_object[top / 64] >> top % 64 & 1) != 0;
}

static enum json_outcome enter(struct parser *ps)
{
	uint64_t bit = UINT64_C(1) << ps->depth % 64;

	if (ps->depth == JSON_DEPTH_MAX)
		return JSON_E_DEPTH;
	if (*ps->p == '{')
		ps->is_object[ps->depth / 64] |= bit;
	else
		ps->is_object[ps->depth / 64] &= ~bit;
	ps->first_key[ps->depth] = ps->open.count;
	ps->depth++;
	ps->p++;
	return JSON_OK;
}

static void leave(struct parser *ps)
{
	ps->depth--;
	ps->p++;
	if (ps->open.count > ps->first_key[ps->depth])
		open_keys_drop(&ps->open, ps->first_key[ps->depth]);
}

/* A member's name and colon. */
static enum json_outcome parse_key(struct parser *ps)
{
	const char *start;
	enum json_outcome r;
	struct span raw;

	skip_space(ps);
	if (ps->p == ps->end || *ps->p != '"')
		return JSON_E_SYNTAX;
	start = ps->p;
	r = parse_string(ps, &raw);
	if (r == JSON_OK && (ps->flags & JSON_UNIQUE_KEYS)) {
		r = open_keys_add(&ps->open, raw, ps->first_key[ps->depth - 1]);
		if (r != JSON_OK)
			ps->p = start;
	}
	if (r != JSON_OK)
		return r;
	skip_space(ps);
	if (ps->p == ps->end || *ps->p != ':')
		return JSON_E_SYNTAX;
	ps->p++;
	return JSON_OK;
}

/* One scalar, or the opening bracket of a container and, where that has
 * content, what comes before its first value; then *openedp is true. */
static enum json_outcome parse_value(struct parser *ps, bool *openedp)
{
	enum json_outcome r;
	struct span raw;

	*openedp = false;
	skip_space(ps);
	if (ps->p == ps->end)
		return JSON_E_SYNTAX;
	switch (*ps->p) {
	case '"':
		return parse_string(ps, &raw);
	case '{':
	case '[':
		r = enter(ps);
		if (r != JSON_OK)
			return r;
		skip_space(ps);
		if (ps->p < ps->end && *ps->p == (in_object(ps) ? '}' : ']')) {
			leave(ps);
			return JSON_OK;
		}
		*openedp = true;
		return in_object(ps) ? parse_key(ps) : JSON_OK;
	case 't':
		return parse_word(ps, "true");
	case 'f':
		return parse_word(ps, "false");
	case 'n':
		return parse_word(ps, "null");
	case 'N':
	case 'I':
		if (!(ps->flags & JSON_NONFINITE))
			return JSON_E_SYNTAX;
		return parse_word(ps, *ps->p == 'N' ? "NaN" : "Infinity");
	default:
		if (*ps->p != '-' && !json_is_digit(*ps->p))
			return JSON_E_SYNTAX;
		return parse_number(ps);
	}
}

/* Behind a value: closes what ends here, up to the comma (and the key) that
 * lead to the next value, or to the end of the outermost one. */
static enum json_outcome parse_after(struct parser *ps)
{
	while (ps->depth > 0) {
		skip_space(ps);
		if (ps->p == ps->end)
			return JSON_E_SYNTAX;
		if (*ps->p == ',') {
			ps->p++;
			return in_object(ps) ? parse_key(ps) : JSON_OK;
		}
		if (*ps->p != (in_object(ps) ? '}' : ']'))
			return JSON_E_SYNTAX;
		leave(ps);
	}
	return JSON_OK;
}

static enum json_outcome parse_text(struct parser *ps, struct json *out)
{
	const char *start;
	enum json_outcome r;
	bool opened;

	skip_space(ps);
	if (ps->p == ps->end)
		return JSON_E_EMPTY;
	start = ps->p;
	do {
		r = parse_value(ps, &opened);
		if (r == JSON_OK && !opened)
			r = parse_after(ps);
		if (r != JSON_OK)
			return r;
	} while (ps->depth > 0);
	*out = json_make(start, ps->p);
	skip_space(ps);
	return ps->p == ps->end ? JSON_OK : JSON_E_TRAILING;
}

enum json_outcome json_parse(struct json *out, const char *text, size_t len,
                             unsigned flags, size_t *atp)
{
	struct parser ps;
	enum json_outcome r;

	/* Not zeroed as a whole: most of it is used in deep texts only. */
	ps.p = len > 0 ? text : "";
	ps.end = ps.p + len;
	ps.flags = flags;
	ps.depth = 0;
	memset(ps.is_object, 0, sizeof(ps.is_object));
	open_keys_init(&ps.open);
	*out = JSON_MISSING;
	r = parse_text(&ps, out);
	open_keys_deinit(&ps.open);
	if (r != JSON_OK)
		*out = JSON_MISSING;
	if (atp)
		*atp = r == JSON_OK || len == 0 ? 0 : (size_t)(ps.p - text);
	return r;
}

const char *json_outcome_text(enum json_outcome o)
{
	static const char *const texts[] = {
		[JSON_OK] = "no error",
		[JSON_E_SYNTAX] = "not valid JSON",
		[JSON_E_UTF8] = "invalid UTF-8",
		[JSON_E_DEPTH] = "nested too deeply",
		[JSON_E_TRAILING] = "something follows the JSON value",
		[JSON_E_EMPTY] = "no JSON value",
		[JSON_E_DUPLICATE] = "the same key twice in an object",
		[JSON_E_KEYS] = "too many keys",
		[JSON_E_NOMEM] = "out of memory",
	};

	if ((size_t)o >= ARRAY_SIZE(texts) || !texts[o])
		return "unknown error";
	return texts[o];
}
