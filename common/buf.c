/*
 * buf.c - see buf.h.
 *
 * The allocation is always at least one byte larger than the content, so that
 * buf_cstr() and buf_steal() can terminate it even when `max` is reached.
 */
#include "common/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_plain.h"
#include "common/utf8.h"

#define BUF_CAP_MIN 64 /* bytes of the first allocation */

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf)BUF_INIT(max);
}

void buf_deinit(struct buf *b)
{
	free(b->data);
	buf_init(b, b->max);
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

static int buf_fail(struct buf *b, int r)
{
	b->failed = true;
	return r;
}

/* Makes room for `len` more bytes and a terminator. */
static int buf_grow(struct buf *b, size_t len)
{
	size_t need, cap;
	char *data;

	if (b->failed || len > b->max - b->len)
		return buf_fail(b, -EMSGSIZE);
	need = b->len + len;
	if (need < b->cap)
		return 0;
	if (need == SIZE_MAX)
		return buf_fail(b, -ENOMEM);
	cap = b->cap > SIZE_MAX / 2 ? SIZE_MAX : b->cap * 2;
	if (cap < BUF_CAP_MIN)
		cap = BUF_CAP_MIN;
	if (cap > b->max && b->max < SIZE_MAX)
		cap = b->max + 1;
	if (cap <= need)
		cap = need + 1;
	data = realloc(b->data, cap);
	if (!data)
		return buf_fail(b, -ENOMEM);
	b->data = data;
	b->cap = cap;
	return 0;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
	int r = buf_grow(b, len);

	if (r < 0)
		return r;
	if (len > 0)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

int buf_puts(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}

int buf_putc(struct buf *b, char c)
{
	return buf_append(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return buf_fail(b, -ENOMEM);
	r = buf_grow(b, (size_t)n);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	/* The terminator lands in the byte that is always kept free. */
	(void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}

/* What stands behind the backslash for a byte that can't stand as itself. */
static size_t escape_byte(char out[6], unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	static const char letters[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	out[0] = '\\';
	for (size_t i = 0; i + 1 < sizeof(letters); i += 2) {
		if ((unsigned char)letters[i] == c) {
			out[1] = letters[i + 1];
			return 2;
		}
	}
	memcpy(out + 1, "u00", 3);
	out[4] = hex[c >> 4];
	out[5] = hex[c & 15];
	return 6;
}

int buf_json_string(struct buf *b, const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t start = b->len, run = 0, i = 0, n;
	char esc[6];
	int r = buf_putc(b, '"');

	while (r == 0 && i < len) {
		i = (size_t)(json_plain_end(s + i, s + len) - s);
		if (i == len)
			break;
		n = u[i] >= 0x80 ? utf8_char_len(u + i, len - i) : 0;
		if (n > 0) {
			i += n;
			continue;
		}
		r = buf_append(b, s + run, i - run);
		if (r == 0 && u[i] >= 0x80)
			r = buf_puts(b, UTF8_REPLACEMENT);
		else if (r == 0)
			r = buf_append(b, esc, escape_byte(esc, u[i]));
		run = ++i;
	}
	if (r == 0)
		r = buf_append(b, s + run, len - run);
	if (r == 0)
		r = buf_putc(b, '"');
	if (r < 0)
		b->len = start;
	return r;
}

int buf_json_key(struct buf *b, const char *key)
{
	size_t start = b->len;
	int r = 0;

	if (b->len > 0 && !strchr("{[,:", b->data[b->len - 1]))
		r = buf_putc(b, ',');
	if (r == 0)
		r = buf_json_string(b, key, strlen(key));
	if (r == 0)
		r = buf_putc(b, ':');
	if (r < 0)
		b->len = start;
	return r;
}

int buf_base64(struct buf *b, const void *data, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = data;
	size_t groups = len / 3 + (len % 3 != 0), left = len;
	uint32_t v;
	char *out;
	int r;

	if (groups > SIZE_MAX / 4)
		return buf_fail(b, -EMSGSIZE);
	r = buf_grow(b, groups * 4);
	if (r < 0)
		return r;
	out = b->data + b->len;
	for (; left > 0; in += 3, out += 4) {
		v = (uint32_t)in[0] << 16;
		if (left > 1)
			v |= (uint32_t)in[1] << 8;
		if (left > 2)
			v |= in[2];
		out[0] = digits[v >> 18];
		out[1] = digits[v >> 12 & 63];
		out[2] = left > 1 ? digits[v >> 6 & 63] : '=';
		out[3] = left > 2 ? digits[v & 63] : '=';
		if (left <= 3)
			break;
		left -= 3;
	}
	b->len += groups * 4;
	return 0;
}

char *buf_reserve(struct buf *b, size_t len)
{
	return buf_grow(b, len) < 0 ? NULL : b->data + b->len;
}

void buf_commit(struct buf *b, size_t len)
{
	b->len += len;
}

void buf_consume(struct buf *b, size_t len)
{
	if (len >= b->len) {
		b->len = 0;
		return;
	}
	if (len > 0) {
		memmove(b->data, b->data + len, b->len - len);
		b->len -= len;
	}
}

const char *buf_cstr(struct buf *b)
{
	if (buf_grow(b, 0) < 0)
		return NULL;
	b->data[b->len] = '\0';
	return b->data;
}

char *buf_steal(struct buf *b, size_t *lenp)
{
	size_t len = b->len;
	char *data;

	if (!buf_cstr(b))
		return NULL;
	data = b->data;
	buf_init(b, b->max);
	if (lenp)
		*lenp = len;
	return data;
}
