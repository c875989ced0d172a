/*
 * jsonrpc.c - see jsonrpc.h.
 */
#include "workers/jsonrpc.h"

/* --- taking apart -------------------------------------------------------- */

static void refuse(struct rpc_message *m, enum rpc_code code, const char *why)
{
	m->kind = RPC_INVALID;
	m->code = code;
	m->why = why;
}

static bool is_integer(struct json id)
{
	struct span t = id.text;
	int64_t whole;
	size_t i = t.n > 0 && t.p[0] == '-';

	for (; i < t.n; i++)
		if (t.p[i] < '0' || t.p[i] > '9')
			/* 1.0 and 1e3 are whole as well. */
			return json_int64(id, &whole);
	return true;
}

/* A string or an integer that is short enough to be echoed. */
static bool id_is_valid(struct json id)
{
	if (id.text.n > RPC_ID_MAX)
		return false;
	return json_is(id, JSON_STRING) ||
	       (json_is(id, JSON_NUMBER) && is_integer(id));
}

void rpc_parse_value(struct rpc_message *m, struct json value)
{
	enum { JSONRPC, ID, METHOD, PARAMS, RESULT, ERROR_, KEYS };
	static const char *const keys[KEYS] = {"jsonrpc", "id",     "method",
	                                       "params",  "result", "error"};
	struct json got[KEYS];

	*m = (struct rpc_message){.whole = value};
	if (json_is(value, JSON_ARRAY)) {
		m->kind = RPC_BATCH;
		return;
	}
	if (!json_is(value, JSON_OBJECT)) {
		refuse(m, RPC_INVALID_REQUEST, "a message is a JSON object");
		return;
	}
	json_get_many(value, keys, got, KEYS);
	m->method = got[METHOD];
	m->params = got[PARAMS];
	/* Whatever is wrong with a response: answering one with an error would
	 * pass for the answer to a request of that id. */
	if (json_is(got[METHOD], JSON_NONE) &&
	    (!json_is(got[RESULT], JSON_NONE) ||
	     !json_is(got[ERROR_], JSON_NONE))) {
		m->kind = RPC_RESPONSE;
		return;
	}
	if (id_is_valid(got[ID]))
		m->id = got[ID].text;
	if (!json_string_eq(got[JSONRPC], "2.0"))
		refuse(m, RPC_INVALID_REQUEST, "jsonrpc must be \"2.0\"");
	else if (!json_is(got[METHOD], JSON_STRING))
		refuse(m, RPC_INVALID_REQUEST, "method must be a string");
	else if (json_is(got[ID], JSON_NONE))
		m->kind = RPC_NOTIFICATION;
	else if (m->id.n == 0)
		refuse(m, RPC_INVALID_REQUEST,
		       "id must be a string or an integer of at most 1024 "
		       "bytes");
	else
		m->kind = RPC_REQUEST;
}

void rpc_parse(struct rpc_message *m, const char *line, size_t len)
{
	struct json value;
	enum json_outcome r =
		json_parse(&value, line, len, JSON_UNIQUE_KEYS, NULL);

	if (r == JSON_OK) {
		rpc_parse_value(m, value);
		return;
	}
	*m = (struct rpc_message){.kind = RPC_INVALID};
	refuse(m, r == JSON_E_NOMEM ? RPC_INTERNAL_ERROR : RPC_PARSE_ERROR,
	       json_outcome_text(r));
}

/* --- putting together ---------------------------------------------------- */

static void open_message(struct buf *out, struct span id)
{
	(void)buf_puts(out, "{\"jsonrpc\":\"2.0\"");
	if (id.n > 0) {
		(void)buf_puts(out, ",\"id\":");
		(void)buf_append(out, id.p, id.n);
	}
}

int rpc_result(struct buf *out, struct span id, struct span result)
{
	open_message(out, id);
	(void)buf_puts(out, ",\"result\":");
	(void)buf_append(out, result.p, result.n);
	return buf_putc(out, '}');
}

/* At most `max` bytes, without half a character at the end. */
static size_t cut_utf8(const char *s, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && ((unsigned char)s[max] & 0xc0) == 0x80)
		max--;
	return max;
}

int rpc_error(struct buf *out, struct span id, enum rpc_code code,
              const char *message, struct span data)
{
	size_t len = cut_utf8(message, strlen(message), RPC_MESSAGE_MAX);

	open_message(out, id);
	(void)buf_printf(out,
	                 ",\"error\":{\"code\":%d,\"message\":", (int)code);
	(void)buf_json_string(out, message, len);
	if (data.n > 0) {
		(void)buf_puts(out, ",\"data\":");
		(void)buf_append(out, data.p, data.n);
	}
	return buf_puts(out, "}}");
}

int rpc_notification(struct buf *out, const char *method, struct span params)
{
	open_message(out, SPAN_NULL);
	(void)buf_puts(out, ",\"method\":");
	(void)buf_json_string(out, method, strlen(method));
	if (params.n > 0) {
		(void)buf_puts(out, ",\"params\":");
		(void)buf_append(out, params.p, params.n);
	}
	return buf_putc(out, '}');
}
