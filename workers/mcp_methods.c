/*
 * mcp_methods.c - which rules a message is under, and the methods that need
 * neither tools nor ComfyUI.
 *
 * The era is chosen per message: whoever names the modern version in _meta gets
 * the modern rules, whatever came before; initialize, and what follows it, gets
 * the legacy ones.
 */
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "workers/mcp_describe.h"
#include "workers/mcp_private.h"

#define META_PREFIX "io.modelcontextprotocol/"
#define ANSWER_MAX  (64u << 10)
#define REFUSAL_MAX (RPC_ID_MAX + 512) /* bytes of an error's data */
#define REASON_MAX  1024 /* bytes of a cancel's reason that are looked at */
#define NEEDS_ENVELOPE                                                         \
	"This request needs params._meta with " META_PREFIX                    \
	"protocolVersion and " META_PREFIX "clientCapabilities, or an "        \
	"initialize before it"

/* --- legacy -------------------------------------------------------------- */

static void start_ping(struct mcp_request *r)
{
	mcp_answer(r, SPAN("{}"));
}

/* Known: as asked for; else our newest of this era, and the client decides. */
static enum mcp_version negotiate(struct json asked)
{
	enum mcp_version v = mcp_version_from_name(json_raw_string(asked));

	return v < MCP_2025_11_25 ? v : MCP_2025_11_25;
}

static void start_initialize(struct mcp_request *r)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct json asked = json_get(r->params, "protocolVersion");
	struct mcp_session *s = r->session;

	if (r->line->is_batch) {
		mcp_refuse(r, RPC_INVALID_REQUEST, SPAN_NULL,
		           "initialize must not be part of a batch");
		return;
	}
	if (!json_is(asked, JSON_STRING)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL,
		           "protocolVersion must be a string");
		return;
	}
	s->negotiated = negotiate(asked);
	if (mcp_record_session(s) < 0) {
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL,
		           "The session could not be set up");
		return;
	}
	(void)mcp_describe_initialize(&b, s->negotiated);
	mcp_answer_buf(r, &b);
}

/* --- both eras ----------------------------------------------------------- */

static void start_discover(struct mcp_request *r)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);

	(void)mcp_describe_discover(&b);
	mcp_answer_buf(r, &b);
}

static void start_tools_list(struct mcp_request *r)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);

	/* All tools are on one page, so there is no cursor of ours. */
	if (!json_is(json_get(r->params, "cursor"), JSON_NONE)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL, "Unknown cursor");
		return;
	}
	(void)mcp_describe_tools(&b, r->version);
	mcp_answer_buf(r, &b);
}

/* --- subscriptions/listen: nothing of ours changes, so nobody is told ------
 */

static void put_subscription(struct buf *b, const struct mcp_request *r)
{
	(void)buf_puts(b, "\"_meta\":{\"" META_PREFIX "subscriptionId\":");
	(void)buf_append(b, r->id.p, r->id.n);
	(void)buf_putc(b, '}');
}

/* r->job is set once it is on its way. */
static void acknowledge(struct mcp_request *r)
{
	struct mcp_session *s = r->session;
	cleanup_buf struct buf params = BUF_INIT(ANSWER_MAX);
	cleanup_buf struct buf line = BUF_INIT(ANSWER_MAX);

	if (r->job)
		return;
	(void)buf_putc(&params, '{');
	put_subscription(&params, r);
	(void)buf_puts(&params, ",\"notifications\":{}}");
	(void)rpc_notification(&line,
	                       "notifications/subscriptions/acknowledged",
	                       span_make(params.data, params.len));
	if (buf_ok(&params) && buf_ok(&line) &&
	    s->io->output(s->user, r->line->number,
	                  span_make(line.data, line.len)))
		r->job = r;
	else
		s->behind = true;
}

static void start_listen(struct mcp_request *r)
{
	if (!json_is(json_get(r->params, "notifications"), JSON_OBJECT)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL,
		           "notifications must be an object");
		return;
	}
	r->waiting = true;
	acknowledge(r);
}

static void end_listen(struct mcp_request *r)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);

	(void)buf_puts(&b, "{\"resultType\":\"complete\",");
	put_subscription(&b, r);
	(void)buf_putc(&b, '}');
	mcp_answer_buf(r, &b);
}

/* --- the table ----------------------------------------------------------- */

/* clang-format off */
static const struct mcp_method methods[] = {
	{.name = "initialize", .legacy = true, .start = start_initialize},
	{.name = "ping", .legacy = true, .start = start_ping},
	{.name = "server/discover", .modern = true, .start = start_discover},
	{.name = "tools/list", .legacy = true, .modern = true,
	 .start = start_tools_list},
	{.name = "tools/call", .legacy = true, .modern = true,
	 .uses_link = true, .start = mcp_call_start, .drop = mcp_call_drop},
	{.name = "resources/list", .legacy = true, .modern = true,
	 .uses_link = true, .start = mcp_resources_list,
	 .drop = mcp_resources_drop},
	{.name = "resources/templates/list", .legacy = true, .modern = true,
	 .start = mcp_templates_list},
	{.name = "resources/read", .legacy = true, .modern = true,
	 .uses_link = true, .start = mcp_resources_read,
	 .drop = mcp_resources_drop},
	{.name = "subscriptions/listen", .modern = true, .start = start_listen,
	 .room = acknowledge, .end = end_listen},
};
/* clang-format on */

static const struct mcp_method *find_method(struct json name,
                                            enum mcp_version v)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (json_string_eq(name, methods[i].name) &&
		    (mcp_is_modern(v) ? methods[i].modern : methods[i].legacy))
			return &methods[i];
	return NULL;
}

/* --- eras ---------------------------------------------------------------- */

/* Why a message is refused before anybody looks at its method. */
struct refusal {
	enum rpc_code code;
	const char *message;
	struct buf data;
};

static enum mcp_version refuse_as(struct refusal *why, enum rpc_code code,
                                  const char *message)
{
	why->code = code;
	why->message = message;
	return MCP_VERSION_COUNT;
}

static enum mcp_version refuse_version(struct refusal *why, struct json asked)
{
	(void)buf_puts(&why->data, "{\"supported\":");
	(void)mcp_describe_versions(&why->data);
	(void)buf_puts(&why->data, ",\"requested\":");
	if (asked.text.n <= RPC_ID_MAX)
		(void)buf_append(&why->data, asked.text.p, asked.text.n);
	else
		(void)buf_puts(&why->data, "\"(too long)\"");
	(void)buf_putc(&why->data, '}');
	return refuse_as(why, RPC_UNSUPPORTED_VERSION,
	                 "Unsupported protocol version");
}

static bool is_log_level(struct json level)
{
	static const char *const levels[] = {"debug",   "info",     "notice",
	                                     "warning", "error",    "critical",
	                                     "alert",   "emergency"};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (json_string_eq(level, levels[i]))
			return true;
	return false;
}

/* The envelope of a modern request, in the order in which clients rely on the
 * answers. */
static enum mcp_version check_envelope(struct json meta, struct json asked,
                                       struct refusal *why)
{
	struct json level = json_get(meta, META_PREFIX "logLevel");
	enum mcp_version v = mcp_version_from_name(json_raw_string(asked));

	if (!json_is(asked, JSON_STRING))
		return refuse_as(why, RPC_INVALID_PARAMS,
		                 META_PREFIX
		                 "protocolVersion must be a string");
	if (v == MCP_VERSION_COUNT || !mcp_is_modern(v))
		return refuse_version(why, asked);
	if (!json_is(json_get(meta, META_PREFIX "clientCapabilities"),
	             JSON_OBJECT))
		return refuse_as(why, RPC_INVALID_PARAMS,
		                 META_PREFIX
		                 "clientCapabilities must be an object");
	if (!json_is(level, JSON_NONE) && !is_log_level(level))
		return refuse_as(why, RPC_INVALID_PARAMS,
		                 META_PREFIX
		                 "logLevel must be one of debug, info, "
		                 "notice, warning, error, critical, alert, "
		                 "emergency");
	return v;
}

/* The version whose rules the message is under; MCP_VERSION_COUNT if it is
 * refused. */
static enum mcp_version choose_version(const struct mcp_session *s,
                                       const struct rpc_message *m,
                                       struct refusal *why)
{
	struct json meta = json_get(m->params, "_meta");
	struct json asked = json_get(meta, META_PREFIX "protocolVersion");

	if (!json_is(asked, JSON_NONE))
		return check_envelope(meta, asked, why);
	if (json_string_eq(m->method, "initialize"))
		return MCP_2025_11_25;
	if (json_string_eq(m->method, "server/discover"))
		return refuse_as(why, RPC_INVALID_PARAMS, NEEDS_ENVELOPE);
	if (s->negotiated < MCP_VERSION_COUNT)
		return s->negotiated;
	/* Any version would do for it. */
	if (json_string_eq(m->method, "ping"))
		return MCP_2025_11_25;
	return refuse_as(why, RPC_INVALID_PARAMS, NEEDS_ENVELOPE);
}

static void handle_request(struct mcp_session *s, struct mcp_line *l,
                           const struct rpc_message *m, unsigned index)
{
	struct refusal why = {.data = BUF_INIT(REFUSAL_MAX)};
	enum mcp_version v = choose_version(s, m, &why);
	const struct mcp_method *method = NULL;
	struct mcp_request *r = NULL;

	if (v == MCP_VERSION_COUNT) {
		mcp_reply_error(s, l, m->id, why.code,
		                span_make(why.data.data, why.data.len),
		                why.message);
		buf_deinit(&why.data);
		return;
	}
	method = find_method(m->method, v);
	if (!method) {
		char text[256];

		(void)snprintf(
			text, sizeof(text), "Method not found: %s",
			log_safe(m->method.text.p + 1, m->method.text.n - 2));
		mcp_reply_error(s, l, m->id, RPC_METHOD_NOT_FOUND, SPAN_NULL,
		                text);
		return;
	}
	if (!json_is(m->params, JSON_NONE) &&
	    !json_is(m->params, JSON_OBJECT)) {
		mcp_reply_error(s, l, m->id, RPC_INVALID_PARAMS, SPAN_NULL,
		                "params must be an object");
		return;
	}
	r = mcp_request_new(s, l, m, index);
	if (!r)
		return;
	r->version = v;
	r->method = method;
	mcp_begin(r);
}

/* --- notifications ------------------------------------------------------- */

/* A client's own timeout looks like a user's cancel but for the words, and a
 * long generation must survive it. */
static bool speaks_of_time(const char *reason)
{
	static const char *const words[] = {"timeout", "timed out", "time out",
	                                    "deadline"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasestr(reason, words[i]))
			return true;
	return false;
}

static bool cancel_stops(const struct mcp_session *s, struct json reason)
{
	cleanup_buf struct buf text = BUF_INIT(REASON_MAX);

	switch (s->host.cancel_policy) {
	case CANCEL_DETACH:
		return false;
	case CANCEL_INTERRUPT:
		return true;
	case CANCEL_AUTO:
		break;
	}
	if (json_raw_string(reason).n == 0)
		return false;
	/* One that is too long to be looked at is no timeout's. */
	return json_string_decode(reason, &text) < 0 || !buf_cstr(&text) ||
	       !speaks_of_time(text.data);
}

static void handle_cancelled(struct mcp_session *s, struct json params)
{
	struct mcp_request *r = mcp_find(s, json_get(params, "requestId"));

	if (r)
		mcp_drop(r, cancel_stops(s, json_get(params, "reason")));
}

void mcp_handle(struct mcp_session *s, struct mcp_line *l,
                const struct rpc_message *m, unsigned index)
{
	switch (m->kind) {
	case RPC_REQUEST:
		handle_request(s, l, m, index);
		return;
	case RPC_NOTIFICATION:
		if (json_string_eq(m->method, "notifications/cancelled"))
			handle_cancelled(s, m->params);
		return;
	case RPC_RESPONSE:
		/* We ask nothing, so it answers nothing. */
		return;
	case RPC_BATCH:
		mcp_reply_error(s, l, SPAN_NULL, RPC_INVALID_REQUEST, SPAN_NULL,
		                "A batch inside a batch");
		return;
	case RPC_INVALID:
		mcp_reply_error(s, l, m->id, m->code, SPAN_NULL, m->why);
		return;
	}
}
