/*
 * fuzz_json_span.c - whatever text is accepted can be walked, and comes back
 * unchanged from each round trip: compact, splice, decode and escape, set and
 * get; numbers are those that the C library reads.
 *
 * The input: a byte for the flags, the text.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

#define TEXT_MAX   (1u << 20)
#define NUMBER_MAX 2000
#define TRIPS_MAX  200 /* round trips of the whole text in one run */

static unsigned trips;

static struct json parse(struct span text, unsigned flags)
{
	struct json j;
	size_t at;

	REQUIRE(json_parse(&j, text.p, text.n, flags, &at) == JSON_OK);
	return j;
}

static void check_string(struct json j)
{
	cleanup_buf struct buf value = BUF_INIT(TEXT_MAX);
	cleanup_buf struct buf text = BUF_INIT(TEXT_MAX * 6);
	cleanup_buf struct buf again = BUF_INIT(TEXT_MAX);
	struct json k;
	char *s;

	REQUIRE(json_string_decode(j, &value) == 0);
	REQUIRE(value.len <= json_raw_string(j).n);
	REQUIRE(buf_json_string(&text, value.data, value.len) == 0);
	k = parse(span_make(text.data, text.len), 0);
	REQUIRE(json_string_decode(k, &again) == 0);
	REQUIRE(span_eq(span_make(value.data, value.len),
	                span_make(again.data, again.len)));
	if (json_string_is_plain(j))
		REQUIRE(span_eq(json_raw_string(j),
		                span_make(value.data, value.len)));
	s = json_string_dup(j, value.len);
	if (value.len > 0 && memchr(value.data, '\0', value.len)) {
		REQUIRE(!s);
		return;
	}
	REQUIRE(s && json_string_eq(j, s) && json_string_eq(k, s));
	REQUIRE(strlen(s) == value.len);
	free(s);
	if (value.len > 0)
		REQUIRE(!json_string_dup(j, value.len - 1));
}

static void check_number(struct json j)
{
	char text[NUMBER_MAX + 1];
	double d, want;
	bool finite;
	int64_t i;
	uint64_t u;

	if (j.text.n > NUMBER_MAX)
		return;
	memcpy(text, j.text.p, j.text.n);
	text[j.text.n] = '\0';
	want = strtod(text, NULL);
	finite = json_double(j, &d);
	REQUIRE(finite == (isfinite(want) != 0));
	if (finite)
		REQUIRE(memcmp(&d, &want, sizeof(d)) == 0);
	if (json_int64(j, &i)) {
		REQUIRE(finite && !(d < (double)i) && !(d > (double)i));
		if (i >= 0)
			REQUIRE(json_uint64(j, &u) && u == (uint64_t)i);
	}
	if (json_uint64(j, &u))
		REQUIRE(finite && !(d < (double)u) && !(d > (double)u));
}

static void check_splice(struct json whole, struct json part)
{
	cleanup_buf struct buf b = BUF_INIT(TEXT_MAX);

	if (trips++ > TRIPS_MAX)
		return;
	REQUIRE(json_splice(&b, whole.text, part.text, part.text) == 0);
	REQUIRE(span_eq(span_make(b.data, b.len), whole.text));
	buf_reset(&b);
	/* A scalar: the text may be as deep as it can be already. */
	REQUIRE(json_splice(&b, whole.text, part.text, SPAN("\"\"")) == 0);
	(void)parse(span_make(b.data, b.len), JSON_NONFINITE);
}

static void check_set(struct json obj, struct json key)
{
	cleanup_buf struct buf name = BUF_INIT(TEXT_MAX),
			       b = BUF_INIT(TEXT_MAX);
	cleanup_buf struct buf again = BUF_INIT(TEXT_MAX);
	struct span k;
	struct json j;

	if (trips++ > TRIPS_MAX)
		return;
	if (key.type == JSON_STRING)
		REQUIRE(json_string_decode(key, &name) == 0);
	else
		REQUIRE(buf_puts(&name, "a key") == 0);
	k = span_make(name.data, name.len);
	REQUIRE(json_object_set(&b, obj, k, SPAN("[18446744073709551615]")) ==
	        0);
	j = parse(span_make(b.data, b.len), JSON_NONFINITE);
	REQUIRE(span_eq_str(json_get_span(j, k).text,
	                    "[18446744073709551615]"));
	REQUIRE(json_object_set(&again, j, k, SPAN("[18446744073709551615]")) ==
	        0);
	REQUIRE(span_eq(span_make(again.data, again.len), j.text));
}

static void check_value(struct json whole, struct json j);

static void check_container(struct json whole, struct json j)
{
	struct json key = JSON_MISSING, last = JSON_MISSING, value;
	const char *end = j.text.p + j.text.n;
	struct json_iter it;
	size_t n = 0;

	json_iter_init(&it, j);
	while (json_iter_next(&it, &key, &value)) {
		REQUIRE(value.text.p > j.text.p && value.text.n > 0 &&
		        value.text.p + value.text.n < end);
		REQUIRE((key.type == JSON_STRING) == (j.type == JSON_OBJECT));
		if (n < 3 && j.type == JSON_ARRAY)
			REQUIRE(json_at(j, n).text.p == value.text.p);
		if (key.type == JSON_STRING)
			check_string(key);
		check_splice(whole, value);
		check_value(whole, value);
		last = key;
		n++;
	}
	REQUIRE(json_count(j) == n);
	if (j.type == JSON_OBJECT) {
		check_set(j, last);
		check_set(j, JSON_MISSING);
	}
}

static void check_value(struct json whole, struct json j)
{
	struct json k = parse(j.text, JSON_NONFINITE);

	REQUIRE(k.type == j.type && k.text.p == j.text.p &&
	        k.text.n == j.text.n);
	if (j.type == JSON_STRING)
		check_string(j);
	else if (j.type == JSON_NUMBER)
		check_number(j);
	else if (j.type == JSON_ARRAY || j.type == JSON_OBJECT)
		check_container(whole, j);
}

static void check_compact(struct json j)
{
	cleanup_buf struct buf b = BUF_INIT(TEXT_MAX * 2);
	cleanup_buf struct buf again = BUF_INIT(TEXT_MAX * 2);
	struct json k;

	REQUIRE(json_compact(&b, j) == 0);
	/* One line, and JSON to everybody. */
	REQUIRE(!memchr(b.data, '\n', b.len));
	k = parse(span_make(b.data, b.len), 0);
	REQUIRE(k.type == j.type && k.text.n == b.len);
	REQUIRE(json_compact(&again, k) == 0);
	REQUIRE(span_eq(k.text, span_make(again.data, again.len)));
	REQUIRE(json_count(k) == json_count(j));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum json_outcome r, unique;
	struct json j, k;
	unsigned flags;
	size_t at = 0;
	char *text;

	if (size < 1 || size > TEXT_MAX / 8)
		return 0;
	flags = data[0] & (JSON_NONFINITE | JSON_UNIQUE_KEYS);
	size--;
	/* A copy of exactly that size, so that reading past it is noticed. */
	text = malloc(size > 0 ? size : 1);
	REQUIRE(text);
	memcpy(text, data + 1, size);
	r = json_parse(&j, text, size, flags, &at);
	REQUIRE(at <= size && (r != JSON_OK || at == 0));
	unique = json_parse(&k, text, size, flags | JSON_UNIQUE_KEYS, &at);
	if (r == JSON_OK && !(flags & JSON_UNIQUE_KEYS))
		REQUIRE(unique == JSON_OK || unique == JSON_E_DUPLICATE);
	else
		REQUIRE(unique == r || unique == JSON_E_DUPLICATE);
	trips = 0;
	if (r == JSON_OK) {
		check_value(j, j);
		check_compact(j);
	} else {
		REQUIRE(j.type == JSON_NONE);
	}
	free(text);
	return 0;
}
