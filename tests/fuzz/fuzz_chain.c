/*
 * fuzz_chain.c - any text as a chain, any text as the outputs that its steps
 * take of: what is said to work can be filled in and stays JSON.
 *
 * The input: chain, a NUL, outputs (or none).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/chain_spec.h"
#include "common/workflow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

static void check_taken(const struct chain_step *s, struct json outputs)
{
	cleanup_buf struct buf name = BUF_INIT(8 * CHAIN_NAME_MAX);
	cleanup_buf struct buf filled = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct chain_image image;
	struct error err;
	struct json j;

	REQUIRE(s->target && s->node && s->class);
	if (chain_image_pick(&image, s, outputs, &err) == 0) {
		REQUIRE(*image.filename);
		(void)chain_can_refer(s->class, &image);
		chain_reference(&image, &name);
		REQUIRE(chain_step_fill(s, buf_cstr(&name), &filled, &err) ==
		        0);
		REQUIRE(json_parse(&j, filled.data, filled.len, JSON_NONFINITE,
		                   NULL) == JSON_OK);
	}
	chain_image_deinit(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t n = size ? strnlen(text, size) : 0;
	struct json chain, outputs = JSON_MISSING;
	struct chain_spec *spec;
	struct error err;

	if (json_parse(&chain, text, n, JSON_NONFINITE, NULL))
		return 0;
	if (n < size && json_parse(&outputs, text + n + 1, size - n - 1,
	                           JSON_NONFINITE, NULL))
		outputs = JSON_MISSING;
	spec = chain_spec_parse(chain, &err);
	for (size_t i = 0; spec && i < spec->count; i++) {
		const struct chain_step *s = &spec->steps[i];

		REQUIRE(s->fault.code == ERR_NONE || !s->takes);
		REQUIRE(!s->takes || s->from < i);
		if (s->takes)
			check_taken(s, outputs);
	}
	(void)chain_spec_free(spec);
	return 0;
}
