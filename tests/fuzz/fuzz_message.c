/*
 * fuzz_message.c - the Unix socket's lines: parsers on anything, and what one
 * end builds the other understands.
 *
 * The input: a byte that chooses, the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

static bool inside(struct span part, struct span whole)
{
	return part.n == 0 ||
	       (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

/* One line, and the newline is at its end. */
static void require_line(const struct buf *b)
{
	REQUIRE(b->len > 0);
	REQUIRE(memchr(b->data, '\n', b->len) == b->data + b->len - 1);
}

static void check_fields(const struct request *req, struct span text)
{
	const struct field_info *f;
	struct json value;

	for (size_t i = 0; i < field_count; i++) {
		f = &field_table[i];
		if (f->op != req->op || !f->in)
			continue;
		value = request_field(req, f->name);
		REQUIRE(inside(value.text, text));
		REQUIRE(value.type != JSON_NULL);
		if (f->need[0] == 'R')
			REQUIRE(value.type != JSON_NONE);
		if (strcmp(f->type, "string") == 0)
			REQUIRE(value.type == JSON_STRING ||
			        value.type == JSON_NONE);
	}
}

/* The replies that a request gets. */
static void reply(const struct request *req, const struct error *refused)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 20);
	struct error back = ERROR_NULL;
	struct incoming in;

	if (refused->code != ERR_NONE) {
		REQUIRE(reply_error(&b, req->id, refused, SPAN("\"x\":[]")) ==
		        0);
	} else {
		REQUIRE(reply_ok(&b, req->id, req->body.text) == 0);
	}
	require_line(&b);
	REQUIRE(incoming_parse(&in, b.data, b.len - 1, NULL) == 0);
	REQUIRE(!in.is_event);
	REQUIRE(in.ok == (refused->code == ERR_NONE));
	if (in.ok) {
		REQUIRE(in.result.text.n == req->body.text.n);
	} else {
		incoming_error(&in, &back);
		REQUIRE(back.code == refused->code);
	}
}

static void try_request(struct span text)
{
	struct error err = ERROR_NULL;
	struct request req;

	if (request_parse(&req, text.p, text.n, &err) == 0) {
		REQUIRE(req.op < OP_COUNT);
		REQUIRE(text.n <= op_table[req.op].request_max);
		REQUIRE(req.body.type == JSON_OBJECT);
		check_fields(&req, text);
	} else {
		REQUIRE(err.code == ERR_INVALID || err.code == ERR_LIMIT ||
		        err.code == ERR_NOT_FOUND);
	}
	REQUIRE(inside(req.id, text) && req.id.n <= MESSAGE_ID_MAX);
	reply(&req, &err);
}

static void try_incoming(struct span text)
{
	struct error err = ERROR_NULL;
	struct incoming in;

	if (incoming_parse(&in, text.p, text.n, &err) < 0) {
		REQUIRE(err.code == ERR_PROTOCOL);
		return;
	}
	REQUIRE(inside(in.prompt_id.text, text));
	REQUIRE(inside(in.data.text, text));
	REQUIRE(inside(in.progress.text, text));
	if (in.is_event || in.ok)
		return;
	incoming_error(&in, &err);
	REQUIRE(err.code != ERR_NONE);
}

static void try_build_request(struct span params, unsigned choice)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 20);
	struct error err = ERROR_NULL;
	struct request req;
	enum op op = choice % OP_COUNT;

	if (request_build(&b, op, choice, params, &err) < 0) {
		REQUIRE(err.code == ERR_INVALID || err.code == ERR_LIMIT);
		REQUIRE(b.len == 0);
		return;
	}
	require_line(&b);
	if (request_parse(&req, b.data, b.len - 1, &err) < 0)
		REQUIRE(err.code == ERR_INVALID); /* a field's type */
	REQUIRE(req.op == op);
	REQUIRE(req.id.n > 0);
}

static void try_event(struct span text, unsigned choice)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 20);
	struct event_line ev = {.event = choice % EVENT_COUNT,
	                        .seq = UINT64_MAX - choice,
	                        .prompt_id = "an id",
	                        .t_ms = INT64_MIN + choice,
	                        .data = text};
	struct incoming in;
	struct json value;

	if (json_parse(&value, text.p, text.n, 0, NULL) != JSON_OK)
		return;
	REQUIRE(event_build(&b, &ev) == 0);
	require_line(&b);
	REQUIRE(incoming_parse(&in, b.data, b.len - 1, NULL) == 0);
	REQUIRE(in.is_event && in.event == ev.event);
	REQUIRE(in.seq == ev.seq && in.t_ms == ev.t_ms);
	REQUIRE(in.data.type == value.type);
	REQUIRE(in.data.text.n == value.text.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text;

	if (size < 1 || size > 100000)
		return 0;
	text = span_make((const char *)data + 1, size - 1);
	switch (data[0] & 3) {
	case 0:
		try_request(text);
		break;
	case 1:
		try_incoming(text);
		break;
	case 2:
		try_build_request(text, data[0] >> 2);
		break;
	default:
		try_event(text, data[0] >> 2);
	}
	return 0;
}
