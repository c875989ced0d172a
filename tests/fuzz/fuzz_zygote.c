/*
 * fuzz_zygote.c - any packet at either end of the zygote's wire: what decodes
 * encodes to the very same bytes, so nothing has two forms.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/zygote.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char again[ZYGOTE_MESSAGE_MAX];
	struct zygote_message m;
	/* A copy of its own, so that a read past the end is seen. */
	char *packet = calloc(1, size ? size : 1);

	REQUIRE(packet);
	if (size > 0)
		memcpy(packet, data, size);
	if (zygote_decode(&m, packet, size) == 0) {
		REQUIRE(size <= ZYGOTE_MESSAGE_MAX);
		REQUIRE(zygote_encode(&m, again) == (ssize_t)size);
		REQUIRE(memcmp(again, packet, size) == 0);
		REQUIRE(*zygote_type_name(m.type) != '?');
	}
	free(packet);
	return 0;
}
