/*
 * mcp_lines.c - see mcp_lines.h.
 */
#include "workers/front/mcp_lines.h"

/* --- refusing ------------------------------------------------------------ */

static void refuse_message(struct buf *out, const struct rpc_message *m,
                           enum rpc_code code, const char *message)
{
	if (m->kind == RPC_REQUEST)
		(void)rpc_error(out, m->id, code, message, SPAN_NULL);
	else if (m->kind == RPC_INVALID)
		(void)rpc_error(out, m->id, m->code, m->why, SPAN_NULL);
}

int mcp_line_refuse(struct buf *out, struct span line, enum rpc_code code,
                    const char *message)
{
	struct rpc_message m;
	struct json_iter it;
	struct json element;
	size_t start = out->len;

	rpc_parse(&m, line.p, line.n);
	if (m.kind != RPC_BATCH) {
		refuse_message(out, &m, code, message);
		return buf_ok(out) ? 0 : -1;
	}
	json_iter_init(&it, m.whole);
	while (json_iter_next(&it, NULL, &element)) {
		size_t before = out->len;

		(void)buf_putc(out, before == start ? '[' : ',');
		rpc_parse_value(&m, element);
		refuse_message(out, &m, code, message);
		/* Nothing for a notification, not even a comma. */
		if (buf_ok(out) && out->len == before + 1)
			out->len = before;
	}
	if (out->len > start)
		(void)buf_putc(out, ']');
	return buf_ok(out) ? 0 : -1;
}

/* --- files --------------------------------------------------------------- */

/* The text was validated, so its depth is bounded. */
static bool names(struct json value, const char *path)
{
	struct json_iter it;
	struct json element;

	if (json_is(value, JSON_STRING))
		return json_string_eq(value, path);
	json_iter_init(&it, value);
	while (json_iter_next(&it, NULL, &element))
		if (names(element, path))
			return true;
	return false;
}

static bool message_names(const struct rpc_message *m, const char *path)
{
	return m->kind == RPC_REQUEST &&
	       json_string_eq(m->method, "tools/call") &&
	       names(json_get(m->params, "arguments"), path);
}

bool mcp_line_names(struct span line, const char *path)
{
	struct rpc_message m;
	struct json_iter it;
	struct json element;

	rpc_parse(&m, line.p, line.n);
	if (m.kind != RPC_BATCH)
		return message_names(&m, path);
	json_iter_init(&it, m.whole);
	while (json_iter_next(&it, NULL, &element)) {
		rpc_parse_value(&m, element);
		if (message_names(&m, path))
			return true;
	}
	return false;
}

bool mcp_line_is_blank(struct span line)
{
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] != ' ' && line.p[i] != '\t' && line.p[i] != '\r')
			return false;
	return true;
}
