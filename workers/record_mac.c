/*
 * record_mac.c - see record_mac.h.
 */
#include "workers/record_mac.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/siphash.h"

/* What stands between the record's last member and its brace. */
#define MAC_FORMAT ",\"mac\":\"%016" PRIx64 "\"}"

/* Of `body`, the record without its closing brace. 0 or -1. */
static int make_mac(const uint32_t key[4], uint64_t line, struct span body,
                    char text[RECORD_MAC_LEN + 2])
{
	cleanup_buf struct buf b = BUF_INIT(sizeof(line) + body.n + 1);
	uint64_t k[2];

	memcpy(k, key, sizeof(k));
	/* A record of one line says nothing about another. */
	(void)buf_append(&b, (const char *)&line, sizeof(line));
	(void)buf_append(&b, body.p, body.n);
	if (!buf_ok(&b))
		return -1;
	(void)snprintf(text, RECORD_MAC_LEN + 2, MAC_FORMAT,
	               siphash(k, 2, 4, b.data, b.len));
	return 0;
}

int record_mac_add(struct buf *out, const uint32_t key[4], uint64_t line,
                   struct span record)
{
	char mac[RECORD_MAC_LEN + 2];
	struct span body = span_make(record.p, record.n > 0 ? record.n - 1 : 0);

	/* Not an object with members: nothing of ours is. */
	if (record.n < 3 || record.p[body.n] != '}' ||
	    make_mac(key, line, body, mac))
		return -1;
	(void)buf_append(out, body.p, body.n);
	(void)buf_puts(out, mac);
	return buf_ok(out) ? 0 : -1;
}

bool record_mac_good(const uint32_t key[4], uint64_t line, struct span record)
{
	char mac[RECORD_MAC_LEN + 2];
	unsigned char differ = 0;
	size_t n = RECORD_MAC_LEN + 1;

	if (record.n < n ||
	    make_mac(key, line, span_make(record.p, record.n - n), mac))
		return false;
	/* In the same time wherever they differ. */
	for (size_t i = 0; i < n; i++)
		differ |= (unsigned char)(mac[i] ^ record.p[record.n - n + i]);
	return differ == 0;
}
