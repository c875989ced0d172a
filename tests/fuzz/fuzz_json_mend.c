/*
 * fuzz_json_mend.c - mending changes no length, makes no text worse, and leaves
 * no lone surrogate in one that is JSON but for those.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_mend.h"
#include "common/json_span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = span_make((const char *)data, size);
	struct buf once = BUF_INIT(1 << 20), twice = BUF_INIT(1 << 20);
	struct json j;

	if (size == 0 || size > 65536)
		return 0;
	REQUIRE(json_mend(&once, in) == 0 && once.len == size);
	REQUIRE(json_may_need_mending(in) ||
	        memcmp(once.data, data, size) == 0);
	if (json_parse(&j, in.p, in.n, JSON_NONFINITE, NULL) == JSON_OK)
		REQUIRE(memcmp(once.data, data, size) == 0);
	REQUIRE(json_mend(&twice, span_make(once.data, once.len)) == 0);
	REQUIRE(memcmp(once.data, twice.data, size) == 0);
	buf_deinit(&once);
	buf_deinit(&twice);
	return 0;
}
