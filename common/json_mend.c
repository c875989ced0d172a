/*
 * json_mend.c - see json_mend.h.
 */
#include "common/json_mend.h"

#include <string.h>

#include "common/json_chars.h"

#define ESCAPE 6 /* bytes of \uXXXX */

static bool is_high(int32_t c)
{
	return c >= (int32_t)JSON_SURROGATE_HIGH &&
	       c < (int32_t)JSON_SURROGATE_LOW;
}

static bool is_low(int32_t c)
{
	return c >= (int32_t)JSON_SURROGATE_LOW &&
	       c < (int32_t)JSON_SURROGATE_END;
}

/* The value of the escape at `p`, -1 if there is none. */
static int32_t escape_at(const char *p, const char *end)
{
	return end - p >= ESCAPE && p[0] == '\\' && p[1] == 'u'
	               ? json_hex4(p + 2)
	               : -1;
}

bool json_may_need_mending(struct span text)
{
	return text.n > 0 && (memmem(text.p, text.n, "\\ud", 3) ||
	                      memmem(text.p, text.n, "\\uD", 3));
}

int json_mend(struct buf *out, struct span text)
{
	size_t at = out->len;
	int r = buf_append(out, text.p, text.n);
	char *p, *end;
	int32_t c;

	if (r < 0 || text.n == 0)
		return r;
	p = out->data + at;
	end = p + text.n;
	/* Outside of strings there are no backslashes, unless it is no JSON
	 * anyhow. One that is escaped begins no escape. */
	while ((p = memchr(p, '\\', (size_t)(end - p)))) {
		c = escape_at(p, end);
		if (c < 0)
			p += end - p < 2 ? 1 : 2;
		else if (is_high(c) && is_low(escape_at(p + ESCAPE, end)))
			p += (ptrdiff_t)2 * ESCAPE;
		else {
			if (is_high(c) || is_low(c))
				memcpy(p, "\\ufffd", ESCAPE);
			p += ESCAPE;
		}
	}
	return 0;
}
