/*
 * fuzz_jsonrpc.c - a client's line taken apart, and what is answered to it: an
 * answer is always one line of valid JSON with the very id, and a line that the
 * keeper refuses is refused once per request.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/front/mcp_lines.h"
#include "workers/jsonrpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

/* A reply of ours is no request, whatever is in it. */
static struct json parse_reply(const struct buf *b)
{
	struct rpc_message m;

	REQUIRE(buf_ok(b));
	REQUIRE(memchr(b->data, '\n', b->len) == NULL);
	rpc_parse(&m, b->data, b->len);
	REQUIRE(m.kind == RPC_RESPONSE);
	return m.whole;
}

static void check_reply(const struct rpc_message *m)
{
	struct buf b = BUF_INIT(1 << 20);
	struct json id;

	REQUIRE(rpc_error(&b, m->id, RPC_INVALID_PARAMS, "x\n\xff",
	                  SPAN_NULL) == 0);
	id = json_get(parse_reply(&b), "id");
	REQUIRE(span_eq(id.text, m->id));
	REQUIRE(m->id.n <= RPC_ID_MAX);
	buf_reset(&b);
	REQUIRE(rpc_result(&b, m->id, SPAN("{}")) == 0);
	REQUIRE(span_eq(json_get(parse_reply(&b), "id").text, m->id));
	buf_deinit(&b);
}

static size_t requests_in(const struct rpc_message *m)
{
	size_t count = 0;
	struct rpc_message one;
	struct json_iter it;
	struct json element;

	if (m->kind != RPC_BATCH)
		return m->kind == RPC_REQUEST || m->kind == RPC_INVALID;
	json_iter_init(&it, m->whole);
	while (json_iter_next(&it, NULL, &element)) {
		rpc_parse_value(&one, element);
		count += one.kind == RPC_REQUEST || one.kind == RPC_INVALID;
	}
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf b = BUF_INIT(64u << 20);
	struct span line = span_make((const char *)data, size);
	struct rpc_message m;
	size_t count;

	rpc_parse(&m, line.p, line.n);
	count = requests_in(&m);
	if (m.kind == RPC_REQUEST)
		check_reply(&m);
	if (m.kind == RPC_INVALID)
		REQUIRE(m.why && m.code != 0);
	if (m.kind == RPC_NOTIFICATION || m.kind == RPC_RESPONSE)
		REQUIRE(m.id.n == 0);

	REQUIRE(mcp_line_refuse(&b, line, RPC_INTERNAL_ERROR, "no worker") ==
	        0);
	if (count == 0) {
		REQUIRE(b.len == 0);
	} else if (m.kind == RPC_BATCH) {
		struct json all;

		REQUIRE(json_parse(&all, b.data, b.len, 0, NULL) == JSON_OK);
		REQUIRE(json_is(all, JSON_ARRAY) && json_count(all) == count);
	} else {
		(void)parse_reply(&b);
	}
	(void)mcp_line_names(line, "/tmp/x");
	(void)mcp_line_is_blank(line);
	buf_deinit(&b);
	return 0;
}
