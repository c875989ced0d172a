/*
 * json_span.c - walking, reading and splicing of validated JSON text; see
 * json_span.h. json_parse() is in json_parse.c, numbers in json_number.c.
 *
 * A value is passed over by looking for its end alone, which needs no more
 * than telling strings and brackets from the rest.
 */
#include "common/json_span.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_chars.h"

#define BUF_RUN_MAX 256 /* decoded bytes handed to the buffer at once */

/* ---- walking ---- */

static const char *skip_space(const char *p, const char *end)
{
	while (p < end && json_is_space(*p))
		p++;
	return p;
}

/* At the opening quote; the byte behind the closing one. */
static const char *skip_string(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		p = json_plain_end(p, end);
		if (p == end || *p == '"')
			break;
		if (*p == '\\')
			p++;
	}
	return p < end ? p + 1 : end;
}

static const char *skip_container(const char *p, const char *end)
{
	size_t depth = 0;

	while (p < end) {
		switch (*p) {
		case '"':
			p = skip_string(p, end);
			continue;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			if (--depth == 0)
				return p + 1;
			break;
		}
		p++;
	}
	return end;
}

static const char *skip_value(const char *p, const char *end)
{
	if (*p == '"')
		return skip_string(p, end);
	if (*p == '{' || *p == '[')
		return skip_container(p, end);
	while (p < end && *p != ',' && *p != '}' && *p != ']' &&
	       !json_is_space(*p))
		p++;
	return p;
}

void json_iter_init(struct json_iter *it, struct json container)
{
	it->object = container.type == JSON_OBJECT;
	it->p = it->end = NULL;
	if (!it->object && container.type != JSON_ARRAY)
		return;
	it->p = container.text.p + 1;
	it->end = container.text.p + container.text.n - 1;
}

bool json_iter_next(struct json_iter *it, struct json *key, struct json *value)
{
	const char *p = it->p, *end = it->end, *start;

	while (p < end && (*p == ',' || json_is_space(*p)))
		p++;
	it->p = p;
	if (p >= end)
		return false;
	if (key)
		*key = JSON_MISSING;
	if (it->object) {
		start = p;
		p = skip_string(p, end);
		if (key)
			*key = json_make(start, p);
		p = skip_space(p, end);
		p = skip_space(p + 1, end);
		if (p >= end) {
			it->p = end;
			return false;
		}
	}
	start = p;
	it->p = skip_value(p, end);
	*value = json_make(start, it->p);
	return true;
}

size_t json_count(struct json container)
{
	struct json_iter it;
	struct json value;
	size_t n = 0;

	json_iter_init(&it, container);
	while (json_iter_next(&it, NULL, &value))
		n++;
	return n;
}

/* Compares a key, decoded, with plain bytes. */
static bool string_is(struct json j, struct span plain)
{
	struct span raw = json_raw_string(j);
	struct json_reader r = JSON_READER(raw);
	size_t i = 0;
	int c;

	if (!raw.p)
		return false;
	/* An escape is longer than what it stands for. */
	if (raw.n == plain.n)
		return span_eq(raw, plain) && !memchr(raw.p, '\\', raw.n);
	if (raw.n < plain.n || !memchr(raw.p, '\\', raw.n))
		return false;
	while ((c = json_reader_next(&r)) >= 0) {
		if (i == plain.n || (unsigned char)plain.p[i++] != c)
			return false;
	}
	return i == plain.n;
}

struct json json_get_span(struct json obj, struct span key)
{
	struct json found = JSON_MISSING, name, value;
	struct json_iter it;

	if (obj.type != JSON_OBJECT)
		return found;
	json_iter_init(&it, obj);
	while (json_iter_next(&it, &name, &value)) {
		if (string_is(name, key))
			found = value;
	}
	return found;
}

struct json json_get(struct json obj, const char *key)
{
	return json_get_span(obj, SPAN(key));
}

/* As string_is(), with most keys told apart by their first byte. */
static bool key_is(struct json name, const char *key)
{
	char first = name.text.p[1]; /* the closing quote if it is empty */

	if (first != *key && first != '\\' && first != '"')
		return false;
	return string_is(name, SPAN(key));
}

void json_get_many(struct json obj, const char *const *keys, struct json *out,
                   size_t n)
{
	struct json name, value;
	struct json_iter it;

	for (size_t i = 0; i < n; i++)
		out[i] = JSON_MISSING;
	if (obj.type != JSON_OBJECT)
		return;
	json_iter_init(&it, obj);
	while (json_iter_next(&it, &name, &value)) {
		for (size_t i = 0; i < n; i++) {
			if (key_is(name, keys[i]))
				out[i] = value;
		}
	}
}

struct json json_at(struct json array, size_t index)
{
	struct json_iter it;
	struct json value;

	if (array.type != JSON_ARRAY)
		return JSON_MISSING;
	json_iter_init(&it, array);
	while (json_iter_next(&it, NULL, &value)) {
		if (index-- == 0)
			return value;
	}
	return JSON_MISSING;
}

/* ---- strings ---- */

struct span json_raw_string(struct json j)
{
	if (j.type != JSON_STRING)
		return SPAN_NULL;
	return span_make(j.text.p + 1, j.text.n - 2);
}

bool json_string_is_plain(struct json j)
{
	struct span raw = json_raw_string(j);

	return raw.p && !memchr(raw.p, '\\', raw.n);
}

/* Decodes what holds an escape. */
static int decode_escaped(struct span raw, struct buf *out)
{
	struct json_reader r = JSON_READER(raw);
	size_t start = out->len, n = 0;
	char run[BUF_RUN_MAX];
	int c, ret = 0;

	do {
		c = json_reader_next(&r);
		if (c >= 0)
			run[n++] = (char)c;
		if (c < 0 || n == sizeof(run)) {
			ret = buf_append(out, run, n);
			n = 0;
		}
	} while (c >= 0 && ret == 0);
	if (ret < 0)
		out->len = start;
	return ret;
}

int json_string_decode(struct json j, struct buf *out)
{
	struct span raw = json_raw_string(j);

	if (j.type != JSON_STRING)
		return -EINVAL;
	if (json_string_is_plain(j))
		return buf_append(out, raw.p, raw.n);
	return decode_escaped(raw, out);
}

static char *dup_raw(struct span raw, size_t max)
{
	struct json_reader r = JSON_READER(raw);
	char *s = malloc((raw.n < max ? raw.n : max) + 1);
	size_t n = 0;
	int c;

	if (!s)
		return NULL;
	while ((c = json_reader_next(&r)) > 0 && n < max)
		s[n++] = (char)c;
	if (c >= 0) {
		free(s);
		return NULL;
	}
	s[n] = '\0';
	return s;
}

char *json_string_dup(struct json j, size_t max)
{
	struct span raw = json_raw_string(j);

	if (j.type != JSON_STRING || (raw.n > max && json_string_is_plain(j)))
		return NULL;
	return dup_raw(raw, max);
}

bool json_string_eq(struct json j, const char *s)
{
	return j.type == JSON_STRING && string_is(j, SPAN(s));
}

bool json_bool(struct json j, bool *out)
{
	if (j.type != JSON_TRUE && j.type != JSON_FALSE)
		return false;
	*out = j.type == JSON_TRUE;
	return true;
}

/* ---- writing ---- */

static int append_range(struct buf *out, const char *p, const char *end)
{
	return buf_append(out, p, (size_t)(end - p));
}

int json_splice(struct buf *out, struct span whole, struct span part,
                struct span with)
{
	size_t start = out->len;
	int r = append_range(out, whole.p, part.p);

	if (r == 0)
		r = buf_append(out, with.p, with.n);
	if (r == 0)
		r = append_range(out, part.p + part.n, whole.p + whole.n);
	if (r < 0)
		out->len = start;
	return r;
}

/* Adds a member behind the last one, which ends at `last` (the opening brace
 * if there is none), and copies the rest. */
static int object_add(struct buf *out, struct json obj, const char *last,
                      struct span key, struct span value)
{
	int r = append_range(out, obj.text.p, last);

	if (r == 0 && last != obj.text.p + 1)
		r = buf_putc(out, ',');
	if (r == 0)
		r = buf_json_string(out, key.p, key.n);
	if (r == 0)
		r = buf_putc(out, ':');
	if (r == 0)
		r = buf_append(out, value.p, value.n);
	if (r == 0)
		r = append_range(out, last, obj.text.p + obj.text.n);
	return r;
}

int json_object_set(struct buf *out, struct json obj, struct span key,
                    struct span value)
{
	const char *copied = obj.text.p, *last;
	size_t start = out->len;
	struct json name, old;
	struct json_iter it;
	int r = 0;

	if (obj.type != JSON_OBJECT)
		return -EINVAL;
	last = copied + 1;
	json_iter_init(&it, obj);
	while (r == 0 && json_iter_next(&it, &name, &old)) {
		if (string_is(name, key)) {
			/* A second member of that name goes, comma and all. */
			bool first = copied == obj.text.p;

			r = append_range(out, copied,
			                 first ? old.text.p : last);
			if (r == 0 && first)
				r = buf_append(out, value.p, value.n);
			copied = old.text.p + old.text.n;
		}
		last = old.text.p + old.text.n;
	}
	if (r == 0 && copied == obj.text.p)
		r = object_add(out, obj, last, key, value);
	else if (r == 0)
		r = append_range(out, copied, obj.text.p + obj.text.n);
	if (r < 0)
		out->len = start;
	return r;
}

/* A scalar that is no string. */
static int compact_scalar(struct buf *out, const char *p, const char *end)
{
	if (json_make(p, end).type == JSON_NULL)
		return buf_append(out, "null", 4);
	return append_range(out, p, end);
}

int json_compact(struct buf *out, struct json j)
{
	const char *p = j.text.p, *end, *next;
	size_t start = out->len;
	int r = 0;

	if (j.type == JSON_NONE)
		return -EINVAL;
	end = p + j.text.n;
	while (p < end && r == 0) {
		next = p + 1;
		if (json_is_space(*p)) {
			p = next;
			continue;
		}
		if (strchr("{}[],:", *p)) {
			r = buf_putc(out, *p);
		} else if (*p == '"') {
			next = skip_string(p, end);
			r = append_range(out, p, next);
		} else {
			next = skip_value(p, end);
			r = compact_scalar(out, p, next);
		}
		p = next;
	}
	if (r < 0)
		out->len = start;
	return r;
}
