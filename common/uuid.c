/*
 * uuid.c - see uuid.h.
 */
#include "common/uuid.h"

#include <errno.h>
#include <sys/random.h>

#define UUID_BYTES 16

/* True for the positions of the four hyphens in the text form. */
static bool is_hyphen_at(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

int uuid_new(char out[UUID_LEN + 1])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char b[UUID_BYTES];
	size_t have = 0, nibble = 0;
	ssize_t n;

	while (have < sizeof(b)) {
		n = getrandom(b + have, sizeof(b) - have, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		have += (size_t)n;
	}
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); /* version 4 */
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80); /* RFC variant */
	for (size_t i = 0; i < UUID_LEN; i++) {
		if (is_hyphen_at(i)) {
			out[i] = '-';
			continue;
		}
		out[i] = hex[b[nibble / 2] >> (nibble % 2 ? 0 : 4) & 15];
		nibble++;
	}
	out[UUID_LEN] = '\0';
	return 0;
}

bool uuid_valid(const char *s, size_t len)
{
	if (len != UUID_LEN)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (is_hyphen_at(i)) {
			if (s[i] != '-')
				return false;
		} else if (!(s[i] >= '0' && s[i] <= '9') &&
		           !(s[i] >= 'a' && s[i] <= 'f')) {
			return false;
		}
	}
	return true;
}
