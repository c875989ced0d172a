/*
 * check_json_span.c - JSON text as it stands: what is accepted and refused,
 * and that reading and splicing bend no byte.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_plain.h"
#include "common/json_span.h"
#include "tests/runner.h"

static struct json parse(const char *text, unsigned flags)
{
	struct json j;
	size_t at;
	enum json_outcome r = json_parse(&j, text, strlen(text), flags, &at);

	ck_assert_msg(r == JSON_OK, "%s: %s at %zu", text, json_outcome_text(r),
	              at);
	ck_assert_uint_eq(at, 0);
	return j;
}

static void assert_span(struct span s, const char *want)
{
	ck_assert_msg(span_eq_str(s, want), "\"%.*s\" is not \"%s\"", (int)s.n,
	              s.p, want);
}

static void assert_buf(struct buf *b, const char *want)
{
	ck_assert_str_eq(buf_cstr(b), want);
	buf_deinit(b);
}

/* ---- validation ---- */

static const struct {
	const char *text;
	enum json_type type;
} accepted[] = {
	{"{}", JSON_OBJECT},
	{" [ ] ", JSON_ARRAY},
	{"\t\r\n1", JSON_NUMBER},
	{"-0", JSON_NUMBER},
	{"0.5", JSON_NUMBER},
	{"1E+2", JSON_NUMBER},
	{"1e-2", JSON_NUMBER},
	{"18446744073709551615", JSON_NUMBER},
	{"true", JSON_TRUE},
	{"false", JSON_FALSE},
	{"null", JSON_NULL},
	{"\"\"", JSON_STRING},
	{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\uFfFf\"", JSON_STRING},
	{"\"\\ud83d\\ude00\"", JSON_STRING},
	{"\"\x7f\"", JSON_STRING},
	{"\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\"",
         JSON_STRING},
	{"\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"", JSON_STRING},
	{"[1,\"a\",{\"b\":[null]},[[]],{}]", JSON_ARRAY},
	{"{\"a\":1,\"a\":2}", JSON_OBJECT},
	{"{\"\":{\"\":\"\"}}", JSON_OBJECT},
};

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* Each pair of bytes at each two places of a word: what one does to the test
 * of the next must not hide or move the first special one. */
START_TEST(test_plain_end)
{
	char text[12];

	for (unsigned pair = 0; pair < 0x10000; pair++) {
		for (size_t at = 0; at < 9; at++) {
			const char *end = text + sizeof(text), *want = text;

			memset(text, 'a', sizeof(text));
			text[at] = (char)(pair & 0xff);
			text[at + 1 + pair % 2] = (char)(pair >> 8);
			while (want < end && is_plain((unsigned char)*want))
				want++;
			if (json_plain_end(text, end) != want)
				ck_abort_msg("%04x at %zu", pair, at);
		}
	}
}
END_TEST

START_TEST(test_accepted)
{
	struct json j = parse(accepted[_i].text, 0);

	ck_assert_int_eq(j.type, accepted[_i].type);
	ck_assert_uint_le(j.text.n, strlen(accepted[_i].text));
	ck_assert(strchr(" \t\r\n", j.text.p[0]) == NULL);
	ck_assert(strchr(" \t\r\n", j.text.p[j.text.n - 1]) == NULL);
}
END_TEST

static const struct {
	const char *text;
	enum json_outcome r;
	size_t at;
} refused[] = {
	{"", JSON_E_EMPTY, 0},
	{" \n\t ", JSON_E_EMPTY, 4},
	{"\xef\xbb\xbf{}", JSON_E_SYNTAX, 0},
	{"{", JSON_E_SYNTAX, 1},
	{"[", JSON_E_SYNTAX, 1},
	{"[1", JSON_E_SYNTAX, 2},
	{"[1,", JSON_E_SYNTAX, 3},
	{"[1,]", JSON_E_SYNTAX, 3},
	{"[,1]", JSON_E_SYNTAX, 1},
	{"[1 2]", JSON_E_SYNTAX, 3},
	{"[1}", JSON_E_SYNTAX, 2},
	{"{\"a\":1]", JSON_E_SYNTAX, 6},
	{"{\"a\"}", JSON_E_SYNTAX, 4},
	{"{\"a\":}", JSON_E_SYNTAX, 5},
	{"{\"a\":1,}", JSON_E_SYNTAX, 7},
	{"{a:1}", JSON_E_SYNTAX, 1},
	{"{1:1}", JSON_E_SYNTAX, 1},
	{"{\"a\" 1}", JSON_E_SYNTAX, 5},
	{"]", JSON_E_SYNTAX, 0},
	{"01", JSON_E_TRAILING, 1},
	{"-", JSON_E_SYNTAX, 1},
	{"+1", JSON_E_SYNTAX, 0},
	{".5", JSON_E_SYNTAX, 0},
	{"1.", JSON_E_SYNTAX, 2},
	{"1.e1", JSON_E_SYNTAX, 2},
	{"1e", JSON_E_SYNTAX, 2},
	{"1e+", JSON_E_SYNTAX, 3},
	{"0x10", JSON_E_TRAILING, 1},
	{"-a", JSON_E_SYNTAX, 1},
	{"tru", JSON_E_SYNTAX, 3},
	{"trux", JSON_E_SYNTAX, 3},
	{"True", JSON_E_SYNTAX, 0},
	{"nulll", JSON_E_TRAILING, 4},
	{"NaN", JSON_E_SYNTAX, 0},
	{"-Infinity", JSON_E_SYNTAX, 1},
	{"[Infinity]", JSON_E_SYNTAX, 1},
	{"1 2", JSON_E_TRAILING, 2},
	{"{} x", JSON_E_TRAILING, 3},
	{"\"", JSON_E_SYNTAX, 1},
	{"\"abc", JSON_E_SYNTAX, 4},
	{"\"a\nb\"", JSON_E_SYNTAX, 2},
	{"\"12345678\x1f\"", JSON_E_SYNTAX, 9},
	{"\"\\", JSON_E_SYNTAX, 2},
	{"\"\\x\"", JSON_E_SYNTAX, 1},
	{"\"\\u12\"", JSON_E_SYNTAX, 1},
	{"\"\\u12g4\"", JSON_E_SYNTAX, 1},
	{"\"\\ud800\"", JSON_E_UTF8, 1},
	{"\"\\ud800\\u0041\"", JSON_E_UTF8, 1},
	{"\"\\ud800\\ud800\"", JSON_E_UTF8, 1},
	{"\"a\\udc00\"", JSON_E_UTF8, 2},
	{"\"\x80\"", JSON_E_UTF8, 1},
	{"\"\xc0\xaf\"", JSON_E_UTF8, 1},
	{"\"\xc1\xbf\"", JSON_E_UTF8, 1},
	{"\"\xe0\x9f\xbf\"", JSON_E_UTF8, 1},
	{"\"\xed\xa0\x80\"", JSON_E_UTF8, 1},
	{"\"\xed\xbf\xbf\"", JSON_E_UTF8, 1},
	{"\"\xf0\x8f\xbf\xbf\"", JSON_E_UTF8, 1},
	{"\"\xf4\x90\x80\x80\"", JSON_E_UTF8, 1},
	{"\"\xf5\x80\x80\x80\"", JSON_E_UTF8, 1},
	{"\"1234567\xff\"", JSON_E_UTF8, 8},
	{"\"\xe2\x82\"", JSON_E_UTF8, 1},
	{"\"\xc3", JSON_E_UTF8, 1},
};

START_TEST(test_refused)
{
	struct json j;
	size_t at = 99, len = strlen(refused[_i].text);
	/* Bytes behind the text must not be looked at. */
	char *copy = malloc(len + 1);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, refused[_i].text, len);
	copy[len] = '"';
	ck_assert_int_eq(json_parse(&j, copy, len, 0, &at), refused[_i].r);
	ck_assert_uint_eq(at, refused[_i].at);
	ck_assert_int_eq(j.type, JSON_NONE);
	ck_assert_ptr_null(j.text.p);
	free(copy);
}
END_TEST

START_TEST(test_nul_and_null)
{
	struct json j;
	size_t at;

	ck_assert_int_eq(json_parse(&j, NULL, 0, 0, &at), JSON_E_EMPTY);
	ck_assert_int_eq(json_parse(&j, "1\0", 2, 0, &at), JSON_E_TRAILING);
	ck_assert_int_eq(json_parse(&j, "\"\0\"", 3, 0, NULL), JSON_E_SYNTAX);
	ck_assert_int_eq(json_parse(&j, "\"\\\0\"", 4, 0, NULL), JSON_E_SYNTAX);
	ck_assert_int_eq(json_parse(&j, "\0", 1, 0, NULL), JSON_E_SYNTAX);
}
END_TEST

START_TEST(test_nonfinite)
{
	struct json j = parse("[NaN, Infinity,-Infinity]", JSON_NONFINITE);
	struct buf b = BUF_INIT(100);
	double d;

	for (size_t i = 0; i < 3; i++) {
		ck_assert_int_eq(json_at(j, i).type, JSON_NULL);
		ck_assert(!json_double(json_at(j, i), &d));
	}
	ck_assert_int_eq(json_compact(&b, j), 0);
	assert_buf(&b, "[null,null,null]");
	ck_assert_int_eq(json_parse(&j, "NaNx", 4, JSON_NONFINITE, NULL),
	                 JSON_E_TRAILING);
	ck_assert_int_eq(json_parse(&j, "-NaN", 4, JSON_NONFINITE, NULL),
	                 JSON_E_SYNTAX);
	ck_assert_int_eq(json_parse(&j, "Infinit", 7, JSON_NONFINITE, NULL),
	                 JSON_E_SYNTAX);
	ck_assert_int_eq(parse("-Infinity", JSON_NONFINITE).type, JSON_NULL);
}
END_TEST

START_TEST(test_depth)
{
	enum { FAR = 10000 };
	static char text[2 * FAR];
	struct json j;
	size_t at;

	for (size_t n = JSON_DEPTH_MAX - 1; n <= JSON_DEPTH_MAX; n++) {
		memset(text, '[', n);
		memset(text + n, ']', n);
		ck_assert_int_eq(json_parse(&j, text, 2 * n, 0, &at), JSON_OK);
		for (size_t i = 1; i < n; i++)
			j = json_at(j, 0);
		assert_span(j.text, "[]");
	}
	memset(text, '[', FAR);
	memset(text + FAR, ']', FAR);
	ck_assert_int_eq(json_parse(&j, text, sizeof(text), 0, &at),
	                 JSON_E_DEPTH);
	ck_assert_uint_eq(at, JSON_DEPTH_MAX);
	for (size_t i = 0; i + 5 <= FAR; i += 5)
		memcpy(text + i, "{\"a\":", 5);
	ck_assert_int_eq(json_parse(&j, text, FAR, JSON_UNIQUE_KEYS, &at),
	                 JSON_E_DEPTH);
	ck_assert_uint_eq(at, JSON_DEPTH_MAX * 5);
	/* Only what is open counts. */
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX - 1);
	memcpy(text + 2 * JSON_DEPTH_MAX - 1, ",[{}]]", 6);
	ck_assert_int_eq(json_parse(&j, text, 2 * JSON_DEPTH_MAX + 5, 0, &at),
	                 JSON_OK);
	ck_assert_uint_eq(json_count(j), 2);
}
END_TEST

static const struct {
	const char *text;
	enum json_outcome r;
	size_t at;
} duplicates[] = {
	{"{\"a\":1,\"b\":2}", JSON_OK, 0},
	{"{\"a\":1,\"a\":2}", JSON_E_DUPLICATE, 7},
	{"{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":2}]}", JSON_OK, 0},
	{"{\"a\":{\"b\":1},\"b\":2,\"a\":3}", JSON_E_DUPLICATE, 19},
	{"{\"a\\nb\":1,\"a\\u000ab\":2}", JSON_E_DUPLICATE, 10},
	{"{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", JSON_E_DUPLICATE, 18},
	{"{\"\xf0\x9f\x98\x80\":1,\"\\uD83D\\uDE00\":2}", JSON_E_DUPLICATE, 10},
	{"{\"\\n\":1,\"\\\\n\":2,\"n\":3}", JSON_OK, 0},
	{"{\"\":1,\"\":2}", JSON_E_DUPLICATE, 6},
	{"[{\"x\":{\"y\":1,\"y\":1}}]", JSON_E_DUPLICATE, 13},
};

START_TEST(test_unique_keys)
{
	struct json j;
	size_t at;

	ck_assert_int_eq(json_parse(&j, duplicates[_i].text,
	                            strlen(duplicates[_i].text),
	                            JSON_UNIQUE_KEYS, &at),
	                 duplicates[_i].r);
	ck_assert_uint_eq(at, duplicates[_i].at);
	parse(duplicates[_i].text, 0);
}
END_TEST

/* Appends n members k0, k1 ... to an object that is left open. */
static void many_keys(struct buf *b, size_t n)
{
	int r = buf_putc(b, '{');

	for (size_t i = 0; i < n && r == 0; i++)
		r = buf_printf(b, "%s\"k%zu\":0", i > 0 ? "," : "", i);
	ck_assert_int_eq(r, 0);
}

START_TEST(test_unique_keys_many)
{
	struct buf b = BUF_INIT(64u << 20);
	size_t at, dup, second;
	struct json j;

	/* An outer object with many keys, inner ones with the same names. */
	many_keys(&b, 5000);
	ck_assert_int_eq(buf_puts(&b, ",\"in\":"), 0);
	many_keys(&b, 3000);
	ck_assert_int_eq(buf_puts(&b, "},\"in2\":"), 0);
	many_keys(&b, 3000);
	ck_assert_int_eq(buf_puts(&b, "}"), 0);
	dup = b.len + 1;
	ck_assert_int_eq(buf_puts(&b, ",\"\\u006b4999\":1"), 0);
	ck_assert_int_eq(buf_puts(&b, "}"), 0);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, JSON_UNIQUE_KEYS, &at),
	                 JSON_E_DUPLICATE);
	ck_assert_uint_eq(at, dup);
	b.data[dup + 1 + strlen("\\u006b499")] = 'x';
	ck_assert_int_eq(json_parse(&j, b.data, b.len, JSON_UNIQUE_KEYS, &at),
	                 JSON_OK);
	ck_assert_uint_eq(json_count(j), 5003);

	/* A duplicate far in, after inner objects came and went. */
	buf_reset(&b);
	ck_assert_int_eq(buf_putc(&b, '['), 0);
	for (int i = 0; i < 100; i++) {
		many_keys(&b, 100);
		ck_assert_int_eq(buf_puts(&b, "},"), 0);
	}
	many_keys(&b, 17);
	second = b.len + 1;
	ck_assert_int_eq(buf_puts(&b, ",\"k3\":1}]"), 0);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, JSON_UNIQUE_KEYS, &at),
	                 JSON_E_DUPLICATE);
	ck_assert_uint_eq(at, second);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_unique_keys_max)
{
	struct buf b = BUF_INIT(64u << 20);
	struct json j;
	size_t at;

	/* Three million keys show no more about memory than a thousand. */
	if (runner_times(1) == 0)
		return;
	many_keys(&b, JSON_KEYS_MAX);
	ck_assert_int_eq(buf_putc(&b, '}'), 0);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, JSON_UNIQUE_KEYS, &at),
	                 JSON_OK);
	buf_reset(&b);
	many_keys(&b, JSON_KEYS_MAX + 1);
	ck_assert_int_eq(buf_putc(&b, '}'), 0);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, JSON_UNIQUE_KEYS, &at),
	                 JSON_E_KEYS);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, 0, &at), JSON_OK);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_outcome_text)
{
	for (int i = JSON_OK; i <= JSON_E_NOMEM; i++)
		ck_assert_str_ne(json_outcome_text((enum json_outcome)i),
		                 "unknown error");
	ck_assert_str_eq(json_outcome_text((enum json_outcome)99),
	                 "unknown error");
}
END_TEST

/* ---- walking ---- */

START_TEST(test_iter)
{
	struct json j = parse(" { \"a\" : 1 , \"b\\\"{\":[1, {\"x\":\"]}\"} ] ,"
	                      "\"c\":\"\\\\\",\"d\" :null\n} ",
	                      0);
	static const char *const keys[] = {"\"a\"", "\"b\\\"{\"", "\"c\"",
	                                   "\"d\""};
	static const char *const values[] = {"1", "[1, {\"x\":\"]}\"} ]",
	                                     "\"\\\\\"", "null"};
	struct json key, value;
	struct json_iter it;
	size_t n = 0;

	json_iter_init(&it, j);
	for (; json_iter_next(&it, &key, &value); n++) {
		ck_assert_uint_lt(n, 4);
		ck_assert_int_eq(key.type, JSON_STRING);
		assert_span(key.text, keys[n]);
		assert_span(value.text, values[n]);
	}
	ck_assert_uint_eq(n, 4);
	ck_assert(!json_iter_next(&it, &key, &value));
	ck_assert_uint_eq(json_count(j), 4);
	json_iter_init(&it, json_get(j, "b\"{"));
	ck_assert(json_iter_next(&it, &key, &value));
	ck_assert_int_eq(key.type, JSON_NONE);
	assert_span(value.text, "1");
	json_iter_init(&it, json_get(j, "a"));
	ck_assert(!json_iter_next(&it, NULL, &value));
	json_iter_init(&it, JSON_MISSING);
	ck_assert(!json_iter_next(&it, NULL, &value));
	ck_assert_uint_eq(json_count(parse("[ ]", 0)), 0);
	ck_assert_uint_eq(json_count(parse("\"[1,2]\"", 0)), 0);
}
END_TEST

START_TEST(test_get)
{
	struct json j = parse("{\"a\":1,\"A\":2,\"a\":3,\"e\\u006e\\/\":[10,20,"
	                      "[30]],\"\":4}",
	                      0);
	static const char *const keys[] = {"A", "none", "en/", "a"};
	struct json out[4];
	const char *nul = "a\0b";

	assert_span(json_get(j, "a").text, "3");
	assert_span(json_get(j, "A").text, "2");
	assert_span(json_get(j, "").text, "4");
	ck_assert_int_eq(json_get(j, "x").type, JSON_NONE);
	ck_assert_int_eq(json_get(json_get(j, "a"), "x").type, JSON_NONE);
	ck_assert_int_eq(json_get(JSON_MISSING, "x").type, JSON_NONE);
	assert_span(json_at(json_get(j, "en/"), 2).text, "[30]");
	ck_assert_int_eq(json_at(json_get(j, "en/"), 3).type, JSON_NONE);
	ck_assert_int_eq(json_at(j, 0).type, JSON_NONE);
	json_get_many(j, keys, out, 4);
	assert_span(out[0].text, "2");
	ck_assert_int_eq(out[1].type, JSON_NONE);
	ck_assert_int_eq(out[2].type, JSON_ARRAY);
	assert_span(out[3].text, "3");
	json_get_many(parse("[1]", 0), keys, out, 4);
	ck_assert_int_eq(out[0].type, JSON_NONE);
	/* The raw bytes of an escape are not its value. */
	ck_assert_int_eq(json_get(parse("{\"\\n\":1}", 0), "\\n").type,
	                 JSON_NONE);
	assert_span(json_get(parse("{\"\\n\":1}", 0), "\n").text, "1");
	assert_span(json_get_span(parse("{\"a\":0,\"a\\u0000b\":1}", 0),
	                          span_make(nul, 3))
	                    .text,
	            "1");
}
END_TEST

/* ---- strings ---- */

START_TEST(test_strings)
{
	struct json j = parse("[\"plain\",\"\\u00e4\\ud83d\\ude00\\n\\\"\\/"
	                      "\\\\\\b\\f\\r\\t\",\"a\\u0000b\",7]",
	                      0);
	const char *want = "\xc3\xa4\xf0\x9f\x98\x80\n\"/\\\b\f\r\t";
	struct buf b = BUF_INIT(100);
	char *s;

	ck_assert(json_string_is_plain(json_at(j, 0)));
	ck_assert(!json_string_is_plain(json_at(j, 1)));
	ck_assert(!json_string_is_plain(json_at(j, 3)));
	assert_span(json_raw_string(json_at(j, 0)), "plain");
	ck_assert_ptr_null(json_raw_string(json_at(j, 3)).p);

	ck_assert_int_eq(json_string_decode(json_at(j, 1), &b), 0);
	ck_assert_str_eq(buf_cstr(&b), want);
	ck_assert(json_string_eq(json_at(j, 1), want));
	ck_assert(!json_string_eq(json_at(j, 1), "x"));
	ck_assert(!json_string_eq(json_at(j, 3), "7"));
	ck_assert_int_eq(json_string_decode(json_at(j, 3), &b), -EINVAL);
	buf_reset(&b);
	ck_assert_int_eq(json_string_decode(json_at(j, 2), &b), 0);
	ck_assert_uint_eq(b.len, 3);
	ck_assert_mem_eq(b.data, "a\0b", 3);
	ck_assert_ptr_null(json_string_dup(json_at(j, 2), 100));
	ck_assert_ptr_null(json_string_dup(json_at(j, 3), 100));
	ck_assert(!json_string_eq(json_at(j, 2), "a"));

	s = json_string_dup(json_at(j, 0), 5);
	ck_assert_str_eq(s, "plain");
	free(s);
	ck_assert_ptr_null(json_string_dup(json_at(j, 0), 4));
	s = json_string_dup(json_at(j, 1), strlen(want));
	ck_assert_str_eq(s, want);
	free(s);
	ck_assert_ptr_null(json_string_dup(json_at(j, 1), strlen(want) - 1));
	s = json_string_dup(parse("\"\"", 0), 0);
	ck_assert_str_eq(s, "");
	free(s);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_decode_is_whole_or_not)
{
	struct buf text = BUF_INIT(10000), b = BUF_INIT(1001);
	struct json j;

	ck_assert_int_eq(buf_putc(&text, '"'), 0);
	for (int i = 0; i < 1001; i++)
		ck_assert_int_eq(buf_puts(&text, "\\u0078"), 0);
	ck_assert_int_eq(buf_putc(&text, '"'), 0);
	j = parse(buf_cstr(&text), 0);
	ck_assert_int_eq(json_string_decode(j, &b), 0);
	ck_assert_uint_eq(b.len, 1001);
	ck_assert_uint_eq(strspn(buf_cstr(&b), "x"), 1001);
	buf_reset(&b);
	ck_assert_int_eq(buf_putc(&b, '>'), 0);
	ck_assert_int_eq(json_string_decode(j, &b), -EMSGSIZE);
	ck_assert_uint_eq(b.len, 1);
	buf_deinit(&b);
	buf_deinit(&text);
}
END_TEST

START_TEST(test_bool)
{
	bool b = false;

	ck_assert(json_bool(parse("true", 0), &b) && b);
	ck_assert(json_bool(parse("false", 0), &b) && !b);
	ck_assert(!json_bool(parse("1", 0), &b));
	ck_assert(!json_bool(JSON_MISSING, &b));
}
END_TEST

/* ---- writing ---- */

START_TEST(test_splice)
{
	const char *text = "{\"seed\": 18446744073709551615, \"x\":1}";
	struct json j = parse(text, 0), x = json_get(j, "x");
	struct buf b = BUF_INIT(100);

	ck_assert_int_eq(json_splice(&b, j.text, x.text, SPAN("\"new\"")), 0);
	assert_buf(&b, "{\"seed\": 18446744073709551615, \"x\":\"new\"}");
	ck_assert_int_eq(json_splice(&b, j.text, x.text, x.text), 0);
	assert_buf(&b, text);
	buf_init(&b, strlen(text));
	ck_assert_int_eq(json_splice(&b, j.text, x.text, SPAN("22")),
	                 -EMSGSIZE);
	ck_assert_uint_eq(b.len, 0);
	buf_deinit(&b);
}
END_TEST

static const struct {
	const char *text, *key, *value, *want;
} sets[] = {
	{"{}", "a", "1", "{\"a\":1}"},
	{"{ }", "a", "1", "{\"a\":1 }"},
	{"{\"b\":0}", "a", "1", "{\"b\":0,\"a\":1}"},
	{"{\"b\" : [0] }", "a", "1", "{\"b\" : [0],\"a\":1 }"},
	{"{ \"a\" : 9007199254740993 , \"b\":2}", "a", "null",
         "{ \"a\" : null , \"b\":2}"},
	{"{\"a\":1,\"b\":2,\"a\":3,\"c\":4}", "a", "{}",
         "{\"a\":{},\"b\":2,\"c\":4}"},
	{"{\"a\":1,\"a\":2,\"a\":3}", "a", "0", "{\"a\":0}"},
	{"{\"x\":1, \"\\u0061\":2 ,\"a\":3 }", "a", "0",
         "{\"x\":1, \"\\u0061\":0 }"},
	{"{}", "q\"\n", "1", "{\"q\\\"\\n\":1}"},
};

START_TEST(test_object_set)
{
	struct buf b = BUF_INIT(100), again = BUF_INIT(100);
	struct json j = parse(sets[_i].text, 0);

	ck_assert_int_eq(json_object_set(&b, j, SPAN(sets[_i].key),
	                                 SPAN(sets[_i].value)),
	                 0);
	ck_assert_str_eq(buf_cstr(&b), sets[_i].want);
	/* Setting what is set changes nothing. */
	ck_assert_int_eq(json_object_set(&again, parse(buf_cstr(&b), 0),
	                                 SPAN(sets[_i].key),
	                                 SPAN(sets[_i].value)),
	                 0);
	assert_buf(&again, sets[_i].want);
	buf_deinit(&b);
	buf_init(&b, strlen(sets[_i].want) - 1);
	ck_assert_int_eq(json_object_set(&b, j, SPAN(sets[_i].key),
	                                 SPAN(sets[_i].value)),
	                 -EMSGSIZE);
	ck_assert_uint_eq(b.len, 0);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_object_set_refused)
{
	struct buf b = BUF_INIT(100);

	ck_assert_int_eq(
		json_object_set(&b, parse("[]", 0), SPAN("a"), SPAN("1")),
		-EINVAL);
	ck_assert_int_eq(
		json_object_set(&b, JSON_MISSING, SPAN("a"), SPAN("1")),
		-EINVAL);
	ck_assert_uint_eq(b.len, 0);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_compact)
{
	struct buf b = BUF_INIT(100);
	struct json j;

	j = parse(" { \"a b\" : [ 1 , 2.50 ,\r\n\tNaN, -Infinity,true ] , "
	          "\"\\\" , \": \" : NaN \" } ",
	          JSON_NONFINITE);
	ck_assert_int_eq(json_compact(&b, j), 0);
	assert_buf(&b, "{\"a b\":[1,2.50,null,null,true],\"\\\" , \":"
	               "\" : NaN \"}");
	ck_assert_int_eq(json_compact(&b, parse(" -0 ", 0)), 0);
	assert_buf(&b, "-0");
	ck_assert_int_eq(json_compact(&b, parse("Infinity", JSON_NONFINITE)),
	                 0);
	assert_buf(&b, "null");
	buf_init(&b, 3);
	ck_assert_int_eq(json_compact(&b, parse("[1, 2]", 0)), -EMSGSIZE);
	ck_assert_uint_eq(b.len, 0);
	buf_deinit(&b);
}
END_TEST

START_TEST(test_large)
{
	const int nodes = runner_times(100000);
	char name[16];
	struct buf b = BUF_INIT(64u << 20), c = BUF_INIT(64u << 20);
	struct json j, last;
	uint64_t seed;

	/* A walk that started over for each member would not end. */
	ck_assert_int_eq(buf_putc(&b, '{'), 0);
	for (int i = 0; i < nodes; i++)
		ck_assert_int_eq(
			buf_printf(&b,
		                   "%s\"n%d\": {\"class_type\": \"K\", "
		                   "\"inputs\": {\"seed\": "
		                   "18446744073709551615, \"t\": \"%0100d "
		                   "\\u00e4\"}}",
		                   i > 0 ? ", " : "", i, i),
			0);
	ck_assert_int_eq(buf_putc(&b, '}'), 0);
	ck_assert_int_eq(json_parse(&j, b.data, b.len, JSON_UNIQUE_KEYS, NULL),
	                 JSON_OK);
	ck_assert_uint_eq(json_count(j), (size_t)nodes);
	(void)snprintf(name, sizeof(name), "n%d", nodes - 1);
	last = json_get(json_get(json_get(j, name), "inputs"), "seed");
	ck_assert(json_uint64(last, &seed));
	ck_assert_uint_eq(seed, UINT64_MAX);
	ck_assert_int_eq(json_splice(&c, j.text, last.text, last.text), 0);
	ck_assert_uint_eq(c.len, b.len);
	ck_assert_mem_eq(c.data, b.data, b.len);
	buf_reset(&c);
	ck_assert_int_eq(json_compact(&c, j), 0);
	ck_assert_uint_lt(c.len, b.len);
	buf_deinit(&b);
	buf_deinit(&c);
}
END_TEST

static void add_writing(Suite *s)
{
	TCase *t = tcase_create("writing");

	tcase_add_test(t, test_splice);
	tcase_add_loop_test(t, test_object_set, 0, ARRAY_SIZE(sets));
	tcase_add_test(t, test_object_set_refused);
	tcase_add_test(t, test_compact);
	tcase_add_test(t, test_large);
	suite_add_tcase(s, t);
}

static void add_reading(Suite *s)
{
	TCase *t = tcase_create("reading");

	tcase_add_test(t, test_iter);
	tcase_add_test(t, test_get);
	tcase_add_test(t, test_strings);
	tcase_add_test(t, test_decode_is_whole_or_not);
	tcase_add_test(t, test_bool);
	suite_add_tcase(s, t);
}

static Suite *json_span_suite(void)
{
	Suite *s = suite_create("json_span");
	TCase *t = tcase_create("validation");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_accepted, 0, ARRAY_SIZE(accepted));
	tcase_add_loop_test(t, test_refused, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, test_plain_end);
	tcase_add_test(t, test_nul_and_null);
	tcase_add_test(t, test_nonfinite);
	tcase_add_test(t, test_depth);
	tcase_add_loop_test(t, test_unique_keys, 0, ARRAY_SIZE(duplicates));
	tcase_add_test(t, test_unique_keys_many);
	tcase_add_test(t, test_unique_keys_max);
	tcase_add_test(t, test_outcome_text);
	suite_add_tcase(s, t);
	add_reading(s);
	add_writing(s);
	return s;
}

int main(void)
{
	return runner_run(json_span_suite());
}
