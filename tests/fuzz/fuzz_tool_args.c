/*
 * fuzz_tool_args.c - arguments against a schema that has everything in it: the
 * answer is the same with and without a place for the reason, a reason is valid
 * UTF-8 and bounded, and what is let through fits by a plainer reading.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "workers/mcp_tools.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

static const char schema[] =
	"{\"type\":\"object\",\"properties\":{"
	"\"workflow\":{\"anyOf\":[{\"type\":\"object\"},"
	"{\"type\":\"string\",\"minLength\":1}]},"
	"\"timeout_ms\":{\"type\":\"integer\",\"minimum\":0,"
	"\"maximum\":86400000},"
	"\"scale\":{\"type\":\"number\",\"minimum\":-0.5},"
	"\"type\":{\"type\":\"string\",\"enum\":[\"output\",\"temp\"]},"
	"\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":4},"
	"\"set\":{\"type\":\"object\",\"additionalProperties\":{\"anyOf\":["
	"{\"type\":\"string\"},{\"type\":\"number\"},{\"type\":\"boolean\"}]}},"
	"\"steps\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":3,"
	"\"items\":{\"type\":\"object\",\"properties\":{\"node\":{\"type\":"
	"\"string\"}},\"required\":[\"node\"],"
	"\"additionalProperties\":false}}},"
	"\"required\":[\"workflow\"],\"additionalProperties\":false}";

static void check_reason(const struct error *err)
{
	size_t n = strlen(err->text);

	REQUIRE(err->code == ERR_INVALID && n > 0 && n < ERROR_TEXT_MAX);
	for (size_t i = 0; i < n;) {
		size_t len = utf8_char_len((const unsigned char *)err->text + i,
		                           n - i);

		REQUIRE(len > 0);
		i += len;
	}
}

static void check_fits(struct json args)
{
	struct json workflow = json_get(args, "workflow");
	struct json timeout = json_get(args, "timeout_ms");
	struct json name = json_get(args, "name"), steps, step;
	struct buf text = BUF_INIT(64);
	struct json_iter it;
	int64_t ms;

	REQUIRE(json_is(args, JSON_OBJECT));
	REQUIRE(json_is(workflow, JSON_OBJECT) ||
	        json_raw_string(workflow).n > 0);
	if (!json_is(timeout, JSON_NONE))
		REQUIRE(json_int64(timeout, &ms) && ms >= 0 && ms <= 86400000);
	/* Four characters of at most four bytes. */
	if (!json_is(name, JSON_NONE))
		REQUIRE(json_string_decode(name, &text) == 0 && text.len > 0 &&
		        text.len <= 16);
	buf_deinit(&text);
	steps = json_get(args, "steps");
	if (!json_is(steps, JSON_NONE))
		REQUIRE(json_count(steps) >= 1 && json_count(steps) <= 3);
	json_iter_init(&it, steps);
	while (json_iter_next(&it, NULL, &step))
		REQUIRE(json_is(json_get(step, "node"), JSON_STRING));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_NULL;
	struct json args;
	int r;

	if (json_parse(&args, (const char *)data, size, JSON_UNIQUE_KEYS,
	               NULL) != JSON_OK)
		return 0;
	r = tool_check_args(args, schema, &err);
	REQUIRE(tool_check_args(args, schema, NULL) == r);
	if (r < 0)
		check_reason(&err);
	else
		check_fits(args);
	return 0;
}
