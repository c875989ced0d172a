/*
 * fuzz_workflow.c - any text as a workflow, any assignment to it, any reply as
 * a refusal: a change touches what it names and nothing else, and what is said
 * is bounded UTF-8.
 *
 * The input: text, a NUL, an assignment (or none).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "common/workflow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

#define OUT_MAX     (4u << 20)
#define REFUSAL_MAX 100000 /* 50 lines of a few strings of 400 bytes */

static void check_utf8(struct span s)
{
	const unsigned char *u = (const unsigned char *)s.p;
	size_t n;

	for (size_t i = 0; i < s.n; i += n) {
		n = utf8_char_len(u + i, s.n - i);
		REQUIRE(n > 0);
	}
}

static void check_refusal(struct json reply)
{
	cleanup_buf struct buf b = BUF_INIT(REFUSAL_MAX);

	workflow_refusal_text(reply, &b);
	REQUIRE(buf_ok(&b) && b.len > 0);
	check_utf8(span_make(b.data, b.len));
	for (size_t i = 0; i < b.len; i++)
		REQUIRE((unsigned char)b.data[i] >= 0x20 || b.data[i] == '\n');
}

/* All nodes but one keep their bytes. */
static void check_change(struct json before, struct json after)
{
	struct json key, value, new_key, new_value;
	struct json_iter a, b;
	int changed = 0;

	json_iter_init(&a, before);
	json_iter_init(&b, after);
	while (json_iter_next(&a, &key, &value)) {
		REQUIRE(json_iter_next(&b, &new_key, &new_value));
		REQUIRE(span_eq(key.text, new_key.text));
		changed += !span_eq(value.text, new_value.text);
	}
	REQUIRE(!json_iter_next(&b, &new_key, &new_value));
	REQUIRE(changed <= 1);
}

static void check_set(struct json workflow, const char *assignment)
{
	cleanup_buf struct buf out = BUF_INIT(OUT_MAX);
	cleanup_buf struct buf again = BUF_INIT(OUT_MAX);
	struct error err = ERROR_NULL;
	struct json changed;
	enum json_outcome r;

	if (workflow_set(&out, workflow, assignment, &err) < 0) {
		REQUIRE(err.code != ERR_NONE && err.text[0] != '\0');
		REQUIRE(out.len == 0);
		return;
	}
	r = json_parse(&changed, out.data, out.len, JSON_NONFINITE, NULL);
	if (r == JSON_E_DEPTH)
		return; /* the value was nearly too deep by itself */
	REQUIRE(r == JSON_OK);
	check_change(workflow, changed);
	/* Once more changes nothing. */
	REQUIRE(workflow_set(&again, changed, assignment, &err) == 0);
	REQUIRE(span_eq(span_make(again.data, again.len), changed.text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_NULL;
	char *text, *assignment;
	struct json j, any;
	size_t len;

	if (size > OUT_MAX / 8)
		return 0;
	text = malloc(size + 1);
	REQUIRE(text);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	len = strlen(text);
	assignment = len < size ? text + len + 1 : NULL;
	if (json_parse(&any, text, len, 0, NULL) == JSON_OK)
		check_refusal(any);
	if (workflow_parse(&j, text, len, "w", &err) == 0) {
		REQUIRE(j.type == JSON_OBJECT && workflow_node_count(j) > 0);
		(void)workflow_class_of(j, "1");
		if (assignment)
			check_set(j, assignment);
	} else {
		REQUIRE(err.code != ERR_NONE && err.text[0] != '\0');
	}
	free(text);
	return 0;
}
