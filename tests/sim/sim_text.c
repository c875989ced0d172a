/*
 * sim_text.c - see sim_text.h.
 */
#include "tests/sim/sim_text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits that tell every double apart. */
#define DOUBLE_DIGITS 17

/* One code point out of valid UTF-8; a stray byte becomes U+FFFD. */
static uint32_t next_code_point(const char *s, size_t len, size_t *atp)
{
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
	const unsigned char *p = (const unsigned char *)s + *atp;
	size_t left = len - *atp, more;
	uint32_t cp;

	if (p[0] < 0x80) {
		*atp += 1;
		return p[0];
	}
	if (p[0] >= 0xf0 && p[0] < 0xf5)
		more = 3;
	else if (p[0] >= 0xe0)
		more = 2;
	else
		more = 1;
	if (p[0] < 0xc2 || p[0] > 0xf4 || left <= more) {
		*atp += 1;
		return 0xfffd;
	}
	cp = p[0] & (0x3fU >> more);
	for (size_t i = 1; i <= more; i++) {
		if ((p[i] & 0xc0) != 0x80) {
			*atp += 1;
			return 0xfffd;
		}
		cp = cp << 6 | (p[i] & 0x3fU);
	}
	*atp += more + 1;
	return cp < least[more] ? 0xfffd : cp;
}

static void put_escaped(struct buf *b, uint32_t cp)
{
	static const char *const shorts[0x20] = {
		['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n",
		['\f'] = "\\f", ['\r'] = "\\r",
	};

	if (cp == '"')
		(void)buf_puts(b, "\\\"");
	else if (cp == '\\')
		(void)buf_puts(b, "\\\\");
	else if (cp < 0x20 && shorts[cp])
		(void)buf_puts(b, shorts[cp]);
	else if (cp >= 0x20 && cp < 0x7f)
		(void)buf_putc(b, (char)cp);
	else if (cp < 0x10000)
		(void)buf_printf(b, "\\u%04x", cp);
	else
		(void)buf_printf(b, "\\u%04x\\u%04x",
		                 0xd800 + ((cp - 0x10000) >> 10),
		                 0xdc00 + ((cp - 0x10000) & 0x3ff));
}

int sim_put_string_n(struct buf *b, const char *s, size_t len)
{
	size_t at = 0;

	(void)buf_putc(b, '"');
	while (at < len)
		put_escaped(b, next_code_point(s, len, &at));
	return buf_putc(b, '"');
}

int sim_put_string(struct buf *b, const char *s)
{
	return sim_put_string_n(b, s, strlen(s));
}

int sim_put_strings(struct buf *b, char *const *list, size_t n)
{
	(void)buf_putc(b, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)buf_puts(b, ", ");
		(void)sim_put_string(b, list[i]);
	}
	return buf_putc(b, ']');
}

/* Digits and decimal exponent into Python's layout: fixed between 1e-4 and
 * 1e16, else with an exponent of at least two digits. */
static int put_digits(struct buf *b, const char *sci)
{
	char digits[DOUBLE_DIGITS + 1] = "";
	const char *e = strchr(sci, 'e');
	int exponent = e ? atoi(e + 1) : 0;
	size_t n = 0;

	if (*sci == '-') {
		(void)buf_putc(b, '-');
		sci++;
	}
	for (; *sci && *sci != 'e'; sci++) {
		if (*sci != '.' && n < DOUBLE_DIGITS)
			digits[n++] = *sci;
	}
	while (n > 1 && digits[n - 1] == '0')
		n--;
	digits[n] = '\0';
	if (exponent < -4 || exponent >= 16) {
		(void)buf_putc(b, digits[0]);
		if (n > 1)
			(void)buf_printf(b, ".%s", digits + 1);
		return buf_printf(b, "e%c%02d", exponent < 0 ? '-' : '+',
		                  abs(exponent));
	}
	if (exponent < 0) {
		(void)buf_puts(b, "0.");
		for (int i = -1; i > exponent; i--)
			(void)buf_putc(b, '0');
		return buf_puts(b, digits);
	}
	for (int i = 0; i <= exponent; i++)
		(void)buf_putc(b, (size_t)i < n ? digits[i] : '0');
	(void)buf_putc(b, '.');
	return buf_puts(b,
	                n > (size_t)exponent + 1 ? digits + exponent + 1 : "0");
}

int sim_put_float(struct buf *b, double v)
{
	char text[40];

	if (isnan(v))
		return buf_puts(b, "NaN");
	if (isinf(v))
		return buf_puts(b, v < 0 ? "-Infinity" : "Infinity");
	/* The shortest text that reads back as the same number. */
	for (int digits = 0; digits < DOUBLE_DIGITS; digits++) {
		(void)snprintf(text, sizeof(text), "%.*e", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	return put_digits(b, text);
}

int sim_put_number(struct buf *b, double v, bool integer)
{
	if (integer)
		return buf_printf(b, "%.0f", v);
	return sim_put_float(b, v);
}

int sim_put_json(struct buf *b, struct json j)
{
	return buf_append(b, j.text.p, j.text.n);
}

static int put_python_string(struct buf *b, struct json j, bool repr)
{
	struct buf text = BUF_INIT(b->max);
	int r = json_string_decode(j, &text);

	if (r == 0 && repr)
		(void)buf_putc(b, '\'');
	if (r == 0 && text.len)
		(void)buf_append(b, text.data, text.len);
	if (r == 0 && repr)
		(void)buf_putc(b, '\'');
	buf_deinit(&text);
	return r;
}

static int put_python_list(struct buf *b, struct json j)
{
	bool object = json_is(j, JSON_OBJECT), first = true;
	struct json_iter it;
	struct json key, value;

	(void)buf_putc(b, object ? '{' : '[');
	json_iter_init(&it, j);
	while (json_iter_next(&it, &key, &value)) {
		if (!first)
			(void)buf_puts(b, ", ");
		first = false;
		if (object) {
			(void)sim_put_python(b, key, true);
			(void)buf_puts(b, ": ");
		}
		(void)sim_put_python(b, value, true);
	}
	return buf_putc(b, object ? '}' : ']');
}

int sim_put_python(struct buf *b, struct json j, bool repr)
{
	switch (j.type) {
	case JSON_NONE:
		return buf_puts(b, "None");
	case JSON_NULL:
		/* Bare NaN and Infinity are of this type too. */
		if (span_eq_str(j.text, "null"))
			return buf_puts(b, "None");
		return buf_puts(b, *j.text.p == 'N'   ? "nan"
		                   : *j.text.p == '-' ? "-inf"
		                                      : "inf");
	case JSON_TRUE:
		return buf_puts(b, "True");
	case JSON_FALSE:
		return buf_puts(b, "False");
	case JSON_STRING:
		return put_python_string(b, j, repr);
	case JSON_ARRAY:
	case JSON_OBJECT:
		return put_python_list(b, j);
	case JSON_NUMBER:
		break;
	}
	return sim_put_json(b, j);
}

static void *need(void *p)
{
	if (!p) {
		(void)fputs("comfysim: out of memory\n", stderr);
		abort();
	}
	return p;
}

char *sim_strdup(const char *s)
{
	return need(strdup(s));
}

char *sim_strndup(const char *s, size_t n)
{
	return need(strndup(s, n));
}

void *sim_calloc(size_t n, size_t size)
{
	return need(calloc(n ? n : 1, size));
}

void *sim_realloc(void *p, size_t n, size_t size)
{
	return need(reallocarray(p, n ? n : 1, size));
}
