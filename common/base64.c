/*
 * base64.c - see base64.h.
 */
#include "common/base64.h"

#include <errno.h>
#include <string.h>

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Where the data begins behind "data:image/png;base64,". */
static size_t skip_prefix(const char *text, size_t len)
{
	static const char mark[] = ";base64,";
	const char *at;

	if (len < 5 || memcmp(text, "data:", 5) != 0)
		return 0;
	at = memmem(text, len, mark, sizeof(mark) - 1);
	return at ? (size_t)(at - text) + sizeof(mark) - 1 : 0;
}

int base64_decode(struct buf *out, const char *text, size_t len)
{
	size_t i = skip_prefix(text, len), digits = 0;
	unsigned bits = 0;

	for (; i < len && text[i] != '='; i++) {
		int v = value_of(text[i]);

		if (v < 0 && is_space(text[i]))
			continue;
		if (v < 0)
			return -EINVAL;
		bits = (bits << 6 | (unsigned)v) & 0xffffff;
		/* The second, third and fourth digit of a group end a byte,
		 * with 4, 2 and 0 bits left over. */
		if (++digits % 4 != 1) {
			unsigned left = digits % 4 == 2   ? 4
			                : digits % 4 == 3 ? 2
			                                  : 0;
			int r = buf_putc(out, (char)(bits >> left & 0xff));

			if (r < 0)
				return r;
		}
	}
	for (; i < len; i++)
		if (text[i] != '=' && !is_space(text[i]))
			return -EINVAL;
	return digits % 4 == 1 ? -EINVAL : 0;
}
