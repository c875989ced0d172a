/*
 * siphash.c - see siphash.h.
 */
#include "common/siphash.h"

#include <string.h>

static uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

uint64_t siphash(const uint64_t key[2], int c_rounds, int d_rounds,
                 const char *text, size_t len)
{
	uint64_t v[4] = {
		key[0] ^ 0x736f6d6570736575U, key[1] ^ 0x646f72616e646f6dU,
		key[0] ^ 0x6c7967656e657261U, key[1] ^ 0x7465646279746573U};
	uint64_t word;
	size_t left = len;

	for (; left >= sizeof(word); left -= sizeof(word)) {
		memcpy(&word, text, sizeof(word));
		text += sizeof(word);
		v[3] ^= word;
		for (int i = 0; i < c_rounds; i++)
			sip_round(v);
		v[0] ^= word;
	}
	word = (uint64_t)len << 56;
	for (size_t i = 0; i < left; i++)
		word |= (uint64_t)(unsigned char)text[i] << 8 * i;
	v[3] ^= word;
	for (int i = 0; i < c_rounds; i++)
		sip_round(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	for (int i = 0; i < d_rounds; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
