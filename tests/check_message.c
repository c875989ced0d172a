/*
 * check_message.c - the vocabulary: tables that hold together, requests good
 * and bad, builders, and what comes back from the supervisor.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "ipc/message.h"
#include "tests/runner.h"

/* ---- tables ---- */

START_TEST(op_names)
{
	for (enum op op = 0; op < OP_COUNT; op++) {
		struct span name = SPAN(op_table[op].name);

		ck_assert_int_eq(op_from_name(name), op);
		name.n--;
		ck_assert_int_ne(op_from_name(name), op);
		ck_assert_uint_le(op_table[op].request_max, LINE_MAX_BYTES);
		ck_assert_uint_ge(op_table[op].request_max, 4096);
		ck_assert_str_ne(op_table[op].doc, "");
	}
	ck_assert_int_eq(op_from_name(SPAN_NULL), OP_COUNT);
	ck_assert_int_eq(op_from_name(SPAN("submits")), OP_COUNT);
	ck_assert_int_eq(op_table[OP_HELLO].permit, PERMIT_ANY);
	ck_assert_int_eq(op_table[OP_RECONNECT].permit, PERMIT_OPERATOR);
}
END_TEST

START_TEST(event_names)
{
	for (enum event ev = 0; ev < EVENT_COUNT; ev++) {
		ck_assert_int_eq(event_from_name(SPAN(event_table[ev].name)),
		                 ev);
		ck_assert_str_ne(event_table[ev].doc, "");
	}
	ck_assert_int_eq(event_from_name(SPAN("b_preview")), EVENT_COUNT);
	/* What a client must not miss is never folded away. */
	ck_assert_int_eq(event_table[EVENT_FINISHED].fold, FOLD_KEEP);
	ck_assert_int_eq(event_table[EVENT_PROGRESS].fold, FOLD_STEP);
}
END_TEST

static bool one_of(const char *s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(s, list[i]) == 0)
			return true;
	}
	return false;
}

START_TEST(fields_are_declared_well)
{
	static const char *const types[] = {"string",  "integer", "number",
	                                    "boolean", "object",  "array"};
	static const char *const in_needs[] = {"REQUIRED", "OPTIONAL"};
	static const char *const out_needs[] = {"ALWAYS", "SOMETIMES"};
	size_t in[OP_COUNT] = {0};

	for (size_t i = 0; i < field_count; i++) {
		const struct field_info *f = &field_table[i];

		ck_assert_msg(one_of(f->type, types, ARRAY_SIZE(types)), "%s",
		              f->type);
		ck_assert_msg(one_of(f->need, f->in ? in_needs : out_needs, 2),
		              "%s of %s", f->need, f->name);
		in[f->op] += f->in;
		for (size_t k = 0; k < i; k++)
			ck_assert(field_table[k].op != f->op ||
			          field_table[k].in != f->in ||
			          strcmp(field_table[k].name, f->name) != 0);
	}
	for (enum op op = 0; op < OP_COUNT; op++)
		ck_assert_uint_le(in[op], REQUEST_FIELDS_MAX);
}
END_TEST

START_TEST(every_error_is_explained)
{
	ck_assert_ptr_null(error_docs[ERR_NONE]);
	for (enum error_code c = ERR_NONE + 1; c < ERR_CODE_COUNT; c++)
		ck_assert_msg(error_docs[c] && *error_docs[c], "%s",
		              error_code_name(c));
}
END_TEST

/* ---- requests ---- */

static int parse(struct request *req, const char *line, struct error *err)
{
	*err = (struct error)ERROR_NULL;
	return request_parse(req, line, strlen(line), err);
}

START_TEST(a_submit)
{
	static const char line[] =
		" {\"workflow\": {\"1\": {\"seed\": 18446744073709551615}},"
		"\"id\": \"a-1\", \"unknown\": [1, {\"op\": \"ping\"}],"
		"\"prompt_id\": \"x\", \"o\\u0070\": \"submit\","
		"\"subscribe\": true, \"hold\": false} ";
	struct request req;
	struct error err;

	ck_assert_int_eq(parse(&req, line, &err), 0);
	ck_assert_int_eq(req.op, OP_SUBMIT);
	ck_assert(span_eq_str(req.id, "\"a-1\""));
	ck_assert_int_eq(req.body.type, JSON_OBJECT);
	ck_assert(span_eq_str(request_field(&req, "workflow").text,
	                      "{\"1\": {\"seed\": 18446744073709551615}}"));
	ck_assert(json_string_eq(request_field(&req, "prompt_id"), "x"));
	ck_assert_int_eq(request_field(&req, "subscribe").type, JSON_TRUE);
	ck_assert_int_eq(request_field(&req, "hold").type, JSON_FALSE);
	ck_assert_int_eq(request_field(&req, "extra_data").type, JSON_NONE);
}
END_TEST

/* Another op's field of the same name is another field. */
START_TEST(fields_belong_to_their_op)
{
	struct request req;
	struct error err;

	ck_assert_int_eq(
		parse(&req, "{\"op\":\"ping\",\"limit\":\"no number\"}", &err),
		0);
	ck_assert_int_eq(parse(&req, "{\"op\":\"history\",\"limit\":7}", &err),
	                 0);
	ck_assert(span_eq_str(request_field(&req, "limit").text, "7"));
	ck_assert_int_eq(parse(&req,
	                       "{\"op\":\"attach\",\"kind\":\"mcp\","
	                       "\"comfyui\":\"http://a/\"}",
	                       &err),
	                 0);
	ck_assert(json_string_eq(request_field(&req, "comfyui"), "http://a/"));
	ck_assert(json_string_eq(request_field(&req, "kind"), "mcp"));
}
END_TEST

/* The last of duplicates counts, as everywhere. */
START_TEST(duplicates)
{
	struct request req;
	struct error err;

	ck_assert_int_eq(
		parse(&req,
	              "{\"op\":\"submit\",\"id\":1,\"prompt_id\":3,"
	              "\"op\":\"cancel\",\"id\":2,\"prompt_id\":\"y\"}",
	              &err),
		0);
	ck_assert_int_eq(req.op, OP_CANCEL);
	ck_assert(span_eq_str(req.id, "2"));
	ck_assert(json_string_eq(request_field(&req, "prompt_id"), "y"));
}
END_TEST

struct refusal {
	const char *line, *id, *text;
	enum error_code code;
};

static const struct refusal refusals[] = {
	{"", NULL, "not JSON", ERR_INVALID},
	{"hello", NULL, "not JSON: ", ERR_INVALID},
	{"{\"op\":\"ping\"", NULL, "at byte 13", ERR_INVALID},
	{"{\"op\":\"ping\"} x", NULL, "not JSON", ERR_INVALID},
	{"{\"op\":\"ping\",\"x\":\"\xff\"}", NULL, "UTF-8", ERR_INVALID},
	{"{\"op\":\"ping\",\"x\":NaN}", NULL, "not JSON", ERR_INVALID},
	{"[]", NULL, "not a JSON object", ERR_INVALID},
	{"{}", NULL, "no \"op\"", ERR_INVALID},
	{"{\"id\":1}", "1", "no \"op\"", ERR_INVALID},
	{"{\"id\":1,\"op\":5}", "1", "must be a string", ERR_INVALID},
	{"{\"id\":1,\"op\":null}", "1", "must be a string", ERR_INVALID},
	{"{\"id\":1,\"op\":\"fly\"}", "1", "no op \"fly\"", ERR_NOT_FOUND},
	{"{\"id\":1,\"op\":\"\\n\"}", "1", "no op", ERR_NOT_FOUND},
	{"{\"id\":true,\"op\":\"ping\"}", NULL, "\"id\"", ERR_INVALID},
	{"{\"id\":null,\"op\":\"ping\"}", NULL, "\"id\"", ERR_INVALID},
	{"{\"id\":1.5,\"op\":\"ping\"}", NULL, "\"id\"", ERR_INVALID},
	{"{\"id\":{},\"op\":\"ping\"}", NULL, "\"id\"", ERR_INVALID},
	{"{\"id\":1,\"op\":\"cancel\"}", "1", "cancel needs \"prompt_id\"",
         ERR_INVALID},
	{"{\"id\":1,\"op\":\"cancel\",\"prompt_id\":7}", "1",
         "must be of type string", ERR_INVALID},
	{"{\"id\":1,\"op\":\"cancel\",\"prompt_id\":null}", "1",
         "must be of type string", ERR_INVALID},
	{"{\"op\":\"submit\",\"workflow\":[]}", NULL, "type object",
         ERR_INVALID},
	{"{\"op\":\"submit\",\"workflow\":\"{}\"}", NULL, "type object",
         ERR_INVALID},
	{"{\"op\":\"submit\",\"workflow\":{},\"hold\":1}", NULL, "type boolean",
         ERR_INVALID},
	{"{\"op\":\"history\",\"limit\":1.5}", NULL, "type integer",
         ERR_INVALID},
	{"{\"op\":\"history\",\"limit\":null}", NULL, "type integer",
         ERR_INVALID},
	{"{\"op\":\"hello\",\"client\":{}}", NULL, "\"client\" of hello",
         ERR_INVALID},
};

START_TEST(refused)
{
	const struct refusal *r = &refusals[_i];
	struct request req;
	struct error err;

	ck_assert_int_eq(parse(&req, r->line, &err), -1);
	ck_assert_msg(err.code == r->code && strstr(err.text, r->text),
	              "%s: %d %s", r->line, (int)err.code, err.text);
	if (r->id)
		ck_assert(span_eq_str(req.id, r->id));
	else
		ck_assert_ptr_null(req.id.p);
}
END_TEST

START_TEST(id_at_its_edge)
{
	char line[400], id[MESSAGE_ID_MAX + 2];
	struct request req;
	struct error err;

	memset(id, 'i', sizeof(id));
	id[0] = '"';
	id[MESSAGE_ID_MAX - 1] = '"';
	(void)snprintf(line, sizeof(line), "{\"op\":\"ping\",\"id\":%.*s}",
	               MESSAGE_ID_MAX, id);
	ck_assert_int_eq(parse(&req, line, &err), 0);
	ck_assert_uint_eq(req.id.n, MESSAGE_ID_MAX);
	id[MESSAGE_ID_MAX - 1] = 'i';
	id[MESSAGE_ID_MAX] = '"';
	(void)snprintf(line, sizeof(line), "{\"op\":\"ping\",\"id\":%.*s}",
	               MESSAGE_ID_MAX + 1, id);
	ck_assert_int_eq(parse(&req, line, &err), -1);
	ck_assert_ptr_null(req.id.p);
	ck_assert_int_eq(parse(&req,
	                       "{\"op\":\"ping\",\"id\":18446744073709551615}",
	                       &err),
	                 0);
	ck_assert(span_eq_str(req.id, "18446744073709551615"));
	ck_assert_int_eq(parse(&req, "{\"op\":\"ping\",\"id\":-3}", &err), 0);
}
END_TEST

/* Padded with white space to `len` bytes. */
static int parse_padded(const char *head, size_t len, struct error *err)
{
	char *line = malloc(len);
	struct request req;
	int r;

	ck_assert_ptr_nonnull(line);
	memset(line, ' ', len);
	memcpy(line, head, strlen(head));
	line[len - 1] = '}';
	r = request_parse(&req, line, len, err);
	if (r < 0 && len <= LINE_MAX_BYTES)
		ck_assert(span_eq_str(req.id, "1"));
	free(line);
	return r;
}

START_TEST(length_at_its_edge)
{
	static const char submit[] = "{\"op\":\"submit\",\"workflow\":{},"
				     "\"id\":1";
	struct error err;

	for (enum op op = 0; op < OP_COUNT; op++) {
		char head[200];

		if (op == OP_SUBMIT)
			continue;
		(void)snprintf(head, sizeof(head),
		               "{\"op\":\"%s\",\"id\":1,\"prompt_id\":\"\","
		               "\"kind\":\"\",\"job\":\"\",\"index\":0,"
		               "\"total\":1,\"item\":{},\"result\":{},"
		               "\"fraction\":0",
		               op_table[op].name);
		ck_assert_int_eq(
			parse_padded(head, op_table[op].request_max, &err), 0);
		ck_assert_int_eq(
			parse_padded(head, op_table[op].request_max + 1, &err),
			-1);
		ck_assert_int_eq(err.code, ERR_LIMIT);
	}
	ck_assert_int_eq(parse_padded(submit, LINE_MAX_BYTES, &err), 0);
	ck_assert_int_eq(parse_padded(submit, LINE_MAX_BYTES + 1, &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
}
END_TEST

START_TEST(members_at_their_edge)
{
	cleanup_buf struct buf line = BUF_INIT(10000);
	struct request req;
	struct error err;

	(void)buf_puts(&line, "{\"id\":1,\"op\":\"ping\"");
	for (int i = 2; i < REQUEST_MEMBERS_MAX; i++)
		(void)buf_printf(&line, ",\"m%d\":[1,2]", i);
	(void)buf_putc(&line, '}');
	ck_assert_int_eq(request_parse(&req, line.data, line.len, &err), 0);
	line.len--;
	ck_assert_int_eq(buf_puts(&line, ",\"one\":0}"), 0);
	ck_assert_int_eq(request_parse(&req, line.data, line.len, &err), -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert(span_eq_str(req.id, "1"));
}
END_TEST

/* ---- builders ---- */

static void expect_text(struct buf *b, const char *text)
{
	ck_assert_str_eq(buf_cstr(b), text);
	buf_reset(b);
}

START_TEST(replies)
{
	struct buf b = BUF_INIT(1000);
	struct error err = {.code = ERR_NOT_FOUND, .text = "no \"x\"\n"};

	ck_assert_int_eq(reply_ok(&b, SPAN("7"), SPAN("{\"a\":1}")), 0);
	expect_text(&b, "{\"id\":7,\"ok\":true,\"result\":{\"a\":1}}\n");
	ck_assert_int_eq(reply_ok(&b, SPAN_NULL, SPAN_NULL), 0);
	expect_text(&b, "{\"id\":null,\"ok\":true,\"result\":{}}\n");
	ck_assert_int_eq(reply_ok_fd(&b, SPAN("7"), SPAN_NULL), 0);
	expect_text(&b, "{\"id\":7,\"ok\":true,\"fds\":1,\"result\":{}}\n");
	ck_assert_int_eq(reply_error(&b, SPAN("\"q\""), &err, SPAN_NULL), 0);
	expect_text(&b, "{\"id\":\"q\",\"ok\":false,\"error\":{\"type\":"
	                "\"not_found\",\"message\":\"no \\\"x\\\"\\n\"}}\n");
	ck_assert_int_eq(
		reply_error(&b, SPAN("1"), &err, SPAN("\"node_errors\":{\n}")),
		0);
	expect_text(&b, "{\"id\":1,\"ok\":false,\"error\":{\"type\":"
	                "\"not_found\",\"message\":\"no \\\"x\\\"\\n\","
	                "\"node_errors\":{ }}}\n");
	buf_deinit(&b);
}
END_TEST

START_TEST(events)
{
	struct buf b = BUF_INIT(1000);
	struct event_line ev = {.event = EVENT_PROGRESS,
	                        .seq = UINT64_MAX,
	                        .prompt_id = "a\"b",
	                        .t_ms = 1785000000000,
	                        .data = SPAN("{\"value\":\n1}"),
	                        .progress = SPAN("{}")};

	ck_assert_int_eq(event_build(&b, &ev), 0);
	expect_text(&b, "{\"event\":\"progress\",\"seq\":18446744073709551615,"
	                "\"prompt_id\":\"a\\\"b\",\"t\":1785000000000,"
	                "\"data\":{\"value\": 1},\"progress\":{}}\n");
	ev = (struct event_line){.event = EVENT_UPSTREAM,
	                         .seq = 5,
	                         .t_ms = INT64_MIN,
	                         .data = SPAN("{\"state\":\"down\"}")};
	ck_assert_int_eq(event_build(&b, &ev), 0);
	expect_text(&b, "{\"event\":\"upstream\",\"t\":-9223372036854775808,"
	                "\"data\":{\"state\":\"down\"}}\n");
	ev = (struct event_line){.event = EVENT_PREVIEW,
	                         .seq = 5,
	                         .prompt_id = "p",
	                         .t_ms = 1,
	                         .data = SPAN("{\"bytes\":2}"),
	                         .fd = true};
	ck_assert_int_eq(event_build(&b, &ev), 0);
	expect_text(&b, "{\"event\":\"preview\",\"seq\":5,\"prompt_id\":\"p\","
	                "\"t\":1,\"fds\":1,\"data\":{\"bytes\":2}}\n");
	buf_deinit(&b);
}
END_TEST

/* Whatever runs out, either the whole line is there or nothing of it. */
START_TEST(no_half_lines)
{
	struct event_line ev = {
		.event = EVENT_FINISHED, .prompt_id = "id", .data = SPAN("{}")};
	struct error err = {.code = ERR_LIMIT, .text = "full"};
	struct buf b;
	size_t whole = 0;

	for (size_t max = 0; max < 200; max++) {
		buf_init(&b, max);
		if (event_build(&b, &ev) == 0)
			whole++;
		else
			ck_assert_uint_eq(b.len, 0);
		buf_deinit(&b);
		buf_init(&b, max);
		(void)buf_puts(&b, "x");
		if (reply_error(&b, SPAN("1"), &err, SPAN_NULL) < 0)
			ck_assert_uint_le(b.len, 1);
		buf_deinit(&b);
		buf_init(&b, max);
		if (reply_ok(&b, SPAN("1"), SPAN_NULL) < 0)
			ck_assert_uint_eq(b.len, 0);
		buf_deinit(&b);
	}
	ck_assert_uint_gt(whole, 100);
}
END_TEST

START_TEST(requests_of_ours)
{
	struct buf b = BUF_INIT(LINE_MAX_BYTES);
	struct error err;
	char *big;

	ck_assert_int_eq(request_build(&b, OP_PING, 1, SPAN_NULL, NULL), 0);
	expect_text(&b, "{\"op\":\"ping\",\"id\":1}\n");
	ck_assert_int_eq(request_build(&b, OP_PING, 2, SPAN(" { } "), NULL), 0);
	expect_text(&b, "{\"op\":\"ping\",\"id\":2}\n");
	ck_assert_int_eq(
		request_build(&b, OP_SUBMIT, 3,
	                      SPAN("{\"workflow\":{\n\"a\\n\":1\n}}\n"), NULL),
		0);
	expect_text(&b, "{\"op\":\"submit\",\"id\":3,\"workflow\":"
	                "{ \"a\\n\":1 }}\n");
	ck_assert_int_eq(request_build(&b, OP_PING, 4, SPAN("{"), &err), -1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_int_eq(request_build(&b, OP_PING, 4, SPAN("[1]"), &err), -1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_int_eq(
		request_build(&b, OP_PING, 4, SPAN("{\"i\\u0064\":1}"), &err),
		-1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_uint_eq(b.len, 0);

	big = malloc(4096);
	memset(big, ' ', 4096);
	big[0] = '{';
	memcpy(big + 1, "\"a\":1", 5);
	big[4096 - 20] = '}';
	ck_assert_int_eq(
		request_build(&b, OP_PING, 1, span_make(big, 4096 - 19), &err),
		0);
	ck_assert_uint_eq(b.len, 4096 + 1);
	buf_reset(&b);
	big[4096 - 20] = ' ';
	big[4096 - 19] = '}';
	ck_assert_int_eq(
		request_build(&b, OP_PING, 1, span_make(big, 4096 - 18), &err),
		-1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_uint_eq(b.len, 0);
	free(big);
	buf_deinit(&b);
}
END_TEST

/* ---- what comes in ---- */

static int incoming(struct incoming *in, const char *line, struct error *err)
{
	*err = (struct error)ERROR_NULL;
	return incoming_parse(in, line, strlen(line), err);
}

START_TEST(incoming_events)
{
	struct incoming in;
	struct error err;

	ck_assert_int_eq(incoming(&in,
	                          "{\"event\":\"progress\",\"seq\":3,\"t\":-5,"
	                          "\"prompt_id\":\"p\",\"data\":{\"v\":NaN},"
	                          "\"progress\":{\"status\":\"executing\"}}",
	                          &err),
	                 0);
	ck_assert(in.is_event);
	ck_assert_int_eq(in.event, EVENT_PROGRESS);
	ck_assert_uint_eq(in.seq, 3);
	ck_assert_int_eq(in.t_ms, -5);
	ck_assert(json_string_eq(in.prompt_id, "p"));
	ck_assert_int_eq(json_get(in.data, "v").type, JSON_NULL);
	ck_assert(json_string_eq(json_get(in.progress, "status"), "executing"));
	ck_assert_int_eq(incoming(&in, "{\"event\":\"of the future\"}", &err),
	                 0);
	ck_assert(in.is_event);
	ck_assert_int_eq(in.event, EVENT_COUNT);
}
END_TEST

START_TEST(incoming_replies)
{
	struct incoming in;
	struct error err;

	ck_assert_int_eq(incoming(&in,
	                          "{\"id\":9,\"ok\":true,\"result\":{\"a\":1}}",
	                          &err),
	                 0);
	ck_assert(!in.is_event && in.ok);
	ck_assert_uint_eq(in.id, 9);
	ck_assert(span_eq_str(in.result.text, "{\"a\":1}"));
	ck_assert_int_eq(in.error.type, JSON_NONE);
	ck_assert_int_eq(incoming(&in,
	                          "{\"id\":\"9\",\"ok\":false,\"error\":"
	                          "{\"type\":\"limit\",\"message\":"
	                          "\"too \\u0041 many\"}}",
	                          &err),
	                 0);
	ck_assert_uint_eq(in.id, 0);
	ck_assert(!in.ok);
	incoming_error(&in, &err);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	ck_assert_str_eq(err.text, "too A many");
}
END_TEST

START_TEST(incoming_errors)
{
	static const struct {
		const char *error, *text;
		enum error_code code;
	} rows[] = {
		{"{}", "without saying why", ERR_INTERNAL},
		{"{\"type\":\"busy\"}", "without saying why", ERR_BUSY},
		{"{\"type\":7,\"message\":[]}", "without saying", ERR_INTERNAL},
		{"{\"type\":\"none\",\"message\":\"m\"}", "m", ERR_INTERNAL},
		{"{\"type\":\"newer\",\"message\":\"m\"}", "m", ERR_INTERNAL},
		{"{\"type\":\"timeout\",\"message\":\"\"}", "", ERR_TIMEOUT},
		{"{\"type\":\"lost\",\"message\":\"100%s\"}", "100%s",
	         ERR_LOST},
	};
	struct incoming in;
	struct error err;
	char line[200];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		(void)snprintf(line, sizeof(line),
		               "{\"id\":1,\"ok\":false,\"error\":%s}",
		               rows[i].error);
		ck_assert_int_eq(incoming(&in, line, &err), 0);
		incoming_error(&in, &err);
		ck_assert_int_eq(err.code, rows[i].code);
		ck_assert_msg(strstr(err.text, rows[i].text), "%s", err.text);
	}
}
END_TEST

static const char *const garbage[] = {
	"",
	"hello",
	"[]",
	"{}",
	"{\"id\":1}",
	"{\"id\":1,\"ok\":1,\"result\":{}}",
	"{\"id\":1,\"ok\":true}",
	"{\"id\":1,\"ok\":true,\"result\":[]}",
	"{\"id\":1,\"ok\":false}",
	"{\"id\":1,\"ok\":false,\"error\":\"no\"}",
	"{\"id\":1,\"ok\":true,\"result\":{},\"fds\":2}",
	"{\"id\":1,\"ok\":true,\"result\":{},\"fds\":-1}",
	"{\"id\":1,\"ok\":true,\"result\":{},\"fds\":true}",
	"{\"event\":7}",
	"{\"event\":\"progress\",\"seq\":-1}",
	"{\"event\":\"progress\",\"seq\":\"1\"}",
	"{\"event\":\"progress\",\"t\":1.5}",
	"{\"event\":\"progress\",\"prompt_id\":1}",
	"{\"event\":\"progress\",\"progress\":[]}",
};

START_TEST(incoming_descriptors)
{
	struct incoming in;
	struct error err;

	ck_assert_int_eq(
		incoming(&in, "{\"id\":1,\"ok\":true,\"result\":{}}", &err), 0);
	ck_assert(!in.has_fd);
	ck_assert_int_eq(
		incoming(&in, "{\"id\":1,\"ok\":true,\"fds\":1,\"result\":{}}",
	                 &err),
		0);
	ck_assert(in.has_fd);
	ck_assert_int_eq(
		incoming(&in, "{\"id\":1,\"ok\":true,\"fds\":0,\"result\":{}}",
	                 &err),
		0);
	ck_assert(!in.has_fd);
}
END_TEST

START_TEST(incoming_garbage)
{
	struct incoming in;
	struct error err;

	ck_assert_int_eq(incoming(&in, garbage[_i], &err), -1);
	ck_assert_int_eq(err.code, ERR_PROTOCOL);
}
END_TEST

/* What one end builds the other understands. */
START_TEST(round_trips)
{
	struct buf b = BUF_INIT(10000);
	struct incoming in;
	struct error err = {.code = ERR_BUSY, .text = "taken"}, back;

	for (enum event e = 0; e < EVENT_COUNT; e++) {
		struct event_line ev = {.event = e,
		                        .seq = 42,
		                        .prompt_id = "p",
		                        .t_ms = 7,
		                        .data = SPAN("{\"a\":2}")};

		ck_assert_int_eq(event_build(&b, &ev), 0);
		ck_assert_int_eq(incoming_parse(&in, b.data, b.len - 1, NULL),
		                 0);
		ck_assert_int_eq(in.event, e);
		ck_assert_uint_eq(in.seq, 42);
		ck_assert(span_eq(in.data.text, ev.data));
		buf_reset(&b);
	}
	for (enum error_code c = ERR_NONE + 1; c < ERR_CODE_COUNT; c++) {
		err.code = c;
		ck_assert_int_eq(reply_error(&b, SPAN("6"), &err, SPAN_NULL),
		                 0);
		ck_assert_int_eq(incoming_parse(&in, b.data, b.len - 1, NULL),
		                 0);
		ck_assert_uint_eq(in.id, 6);
		incoming_error(&in, &back);
		ck_assert_int_eq(back.code, c);
		ck_assert_str_eq(back.text, "taken");
		buf_reset(&b);
	}
	buf_deinit(&b);
}
END_TEST

static Suite *message_suite(void)
{
	Suite *s = suite_create("message");
	TCase *t = tcase_create("message");

	tcase_add_test(t, op_names);
	tcase_add_test(t, event_names);
	tcase_add_test(t, fields_are_declared_well);
	tcase_add_test(t, every_error_is_explained);
	tcase_add_test(t, a_submit);
	tcase_add_test(t, fields_belong_to_their_op);
	tcase_add_test(t, duplicates);
	tcase_add_loop_test(t, refused, 0, (int)ARRAY_SIZE(refusals));
	tcase_add_test(t, id_at_its_edge);
	tcase_add_test(t, length_at_its_edge);
	tcase_add_test(t, members_at_their_edge);
	tcase_add_test(t, replies);
	tcase_add_test(t, events);
	tcase_add_test(t, no_half_lines);
	tcase_add_test(t, requests_of_ours);
	tcase_add_test(t, incoming_events);
	tcase_add_test(t, incoming_replies);
	tcase_add_test(t, incoming_errors);
	tcase_add_test(t, incoming_descriptors);
	tcase_add_loop_test(t, incoming_garbage, 0, (int)ARRAY_SIZE(garbage));
	tcase_add_test(t, round_trips);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(message_suite());
}
