/*
 * check_mcp_session.c - conversations: lines in, lines out, in five protocol
 * versions; a table of tools of the test's own; no worker, no ComfyUI.
 *
 * Rows have apostrophes for quotes. An expected text that starts with '~' is
 * to be found in the answer, others are the whole of it.
 */
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/macros.h"
#include "tests/runner.h"
#include "workers/jsonrpc.h"
#include "workers/mcp_session.h"

#define KEPT_MAX 512

#define META                                                                   \
	"'_meta':{'io.modelcontextprotocol/protocolVersion':'2026-07-28',"     \
	"'io.modelcontextprotocol/clientCapabilities':{}}"
#define SERVER                                                                 \
	"'_meta':{'io.modelcontextprotocol/serverInfo':{'name':'comfymux',"    \
	"'title':'comfymux: ComfyUI workflows','version':'" COMFYMUX_VERSION   \
	"'}}"
#define RPC(id, method, params)                                                \
	"{'jsonrpc':'2.0','id':" id ",'method':'" method "','params':{" params \
	"}}"
#define NOTE(method, params)                                                   \
	"{'jsonrpc':'2.0','method':'" method "','params':{" params "}}"
#define INIT(id, version)                                                      \
	RPC(id, "initialize",                                                  \
	    "'protocolVersion':'" version "','capabilities':{'extensions':{}}" \
	    ",'clientInfo':{'name':'c','version':'1'}")
#define CALL(id, tool, args)                                                   \
	RPC(id, "tools/call", "'name':'" tool "','arguments':{" args "}")
#define MODERN_CALL(id, tool, args)                                            \
	RPC(id, "tools/call", "'name':'" tool "','arguments':{" args "}," META)
#define ERROR_OF(id, code) "~'id':" id ",'error':{'code':" code ","

/* --- tools --------------------------------------------------------------- */

static struct tool_call *slow; /* the latest that runs */
static unsigned cancels, stops, destroys;

static void done_text(struct tool_call *c, const char *structured)
{
	const struct tool_result r = {.structured = SPAN(structured)};

	tool_done(c, &r);
}

static void start_echo(struct tool_call *c)
{
	const struct tool_result r = {.structured = c->args.text};

	tool_done(c, &r);
}

static void start_slow(struct tool_call *c)
{
	slow = c;
}

static void cancel_slow(struct tool_call *c, bool stop)
{
	cancels++;
	stops += stop;
	slow = NULL;
}

static void destroy(struct tool_call *c)
{
	destroys++;
}

/* {"bytes": of each of two images, "text": of structured text} */
static void start_media(struct tool_call *c)
{
	int64_t bytes = 3, text = 0;
	struct tool_content content[3];
	struct tool_result r = {.content = content, .content_count = 3};
	char *data, *json;

	(void)json_int64(json_get(c->args, "bytes"), &bytes);
	(void)json_int64(json_get(c->args, "text"), &text);
	data = calloc(1, (size_t)bytes + 1);
	json = malloc((size_t)text + 16);
	ck_assert(data && json);
	memset(json, 'x', (size_t)text + 8);
	memcpy(json, "{\"t\":\"", 6);
	memcpy(json + 6 + text, "\"}", 3);
	r.structured = SPAN(json);
	content[0] = (struct tool_content){.type = TOOL_IMAGE,
	                                   .data = {data, (size_t)bytes},
	                                   .mime = "image/png",
	                                   .uri = "comfy://output/a.png",
	                                   .name = "a.png"};
	content[1] = content[0];
	content[2] = (struct tool_content){.type = TOOL_RESOURCE_LINK,
	                                   .mime = "image/png",
	                                   .uri = "comfy://output/a.png",
	                                   .name = "a.png"};
	tool_done(c, &r);
	free(data);
	free(json);
}

static void start_fail(struct tool_call *c)
{
	bool known = json_is(json_get(c->args, "prompt_id"), JSON_STRING);

	tool_fail(c, "rejected", "no such node", known ? NULL : "p-1");
}

static void start_record(struct tool_call *c)
{
	struct json first = tool_replayed(c, 0), second = tool_replayed(c, 1);
	struct json third = tool_replayed(c, 2);
	char text[256];

	if (json_is(first, JSON_NONE)) {
		tool_record(c, SPAN("{\"prompt_id\":\"p-1\"}"));
		slow = c;
		return;
	}
	(void)snprintf(text, sizeof(text), "{\"a\":%.*s,\"b\":%.*s,\"c\":%d}",
	               (int)first.text.n, first.text.p, (int)second.text.n,
	               second.text.p, third.type == JSON_NONE);
	done_text(c, text);
}

/* Not an object: a fault of the tool's. */
static void start_broken(struct tool_call *c)
{
	done_text(c, "[1]");
}

/* What ComfyUI sends, newline and bare NaN included. */
static void start_nan(struct tool_call *c)
{
	done_text(c, "{\n \"a\": NaN, \"b\": [Infinity,\n 1]}");
}

#define ANY_ARGS "{\"type\":\"object\"}"

const struct tool tool_table[] = {
	{.name = "echo",
         .title = "Echo",
         .description = "Says it again.",
         .input_schema = "{\"type\":\"object\", \"properties\": {\"text\":"
                         "{\"type\":\"string\"}},\n \"required\":[\"text\"],"
                         "\"additionalProperties\":false}",
         .output_schema = ANY_ARGS,
         .annotations = TOOL_READ_ONLY | TOOL_IDEMPOTENT,
         .start = start_echo,
         .destroy = destroy},
	{.name = "slow",
         .title = "Slow",
         .description = "Waits.",
         .input_schema = ANY_ARGS,
         .annotations = TOOL_DESTRUCTIVE | TOOL_OPEN_WORLD | TOOL_SUBMITS,
         .start = start_slow,
         .cancel = cancel_slow,
         .destroy = destroy},
	{.name = "media",
         .title = "Media",
         .description = "Images.",
         .input_schema = ANY_ARGS,
         .start = start_media},
	{.name = "fail",
         .title = "Fail",
         .description = "Fails.",
         .input_schema = ANY_ARGS,
         .start = start_fail},
	{.name = "record",
         .title = "Record",
         .description = "Records.",
         .input_schema = ANY_ARGS,
         .start = start_record,
         .cancel = cancel_slow},
	{.name = "broken",
         .title = "Broken",
         .description = "Broken.",
         .input_schema = ANY_ARGS,
         .start = start_broken},
	{.name = "nan",
         .title = "NaN",
         .description = "NaN.",
         .input_schema = ANY_ARGS,
         .start = start_nan},
};
const size_t tool_count = ARRAY_SIZE(tool_table);

const struct tool *tool_find(struct span name)
{
	for (size_t i = 0; i < tool_count; i++)
		if (span_eq_str(name, tool_table[i].name))
			return &tool_table[i];
	return NULL;
}

/* --- the world ----------------------------------------------------------- */

struct said {
	uint64_t line;
	char *text;
};

static struct ev_loop *loop;
static struct link *net;
static struct mcp_session *session;
static struct said answers[KEPT_MAX], outputs[KEPT_MAX], records[KEPT_MAX];
static size_t answer_count, output_count, record_count;
static bool full;     /* outputs are refused */
static size_t unread; /* bytes that the client hasn't read */
static int want_bus;  /* what want_bus returns */
static unsigned wanted_look, wanted_start;
static bool ended;
static uint64_t next_line;

static void keep(struct said *list, size_t *count, uint64_t line,
                 struct span text)
{
	ck_assert_uint_lt(*count, KEPT_MAX);
	list[*count] = (struct said){
		.line = line, .text = strndup(text.n ? text.p : "", text.n)};
	ck_assert_ptr_nonnull(list[*count].text);
	/* One message is one line. */
	ck_assert_ptr_null(strchr(list[*count].text, '\n'));
	(*count)++;
}

static bool io_respond(void *user, uint64_t line, struct span answer)
{
	ck_assert_uint_le(answer.n, RPC_REPLY_MAX - 1);
	for (size_t i = 0; i < answer_count; i++)
		ck_assert_msg(answers[i].line != line, "line %d twice: %s",
		              (int)line, answers[i].text);
	keep(answers, &answer_count, line, answer);
	return true;
}

static bool io_output(void *user, uint64_t line, struct span bytes)
{
	if (!full)
		keep(outputs, &output_count, line, bytes);
	return !full;
}

static int io_record(void *user, uint64_t line, struct span record,
                     struct worker_record *r, struct error *err)
{
	keep(records, &record_count, line, record);
	return 0;
}

static size_t io_queued(void *user)
{
	return unread;
}

static int io_want_bus(void *user, bool start)
{
	if (start)
		wanted_start++;
	else
		wanted_look++;
	return want_bus;
}

static void io_ended(void *user)
{
	ended = true;
}

static void open_session(void)
{
	static const struct mcp_io io = {
		.respond = io_respond,
		.output = io_output,
		.record = io_record,
		.queued = io_queued,
		.want_bus = io_want_bus,
		.ended = io_ended,
	};
	const struct mcp_session_config cfg = {
		.loop = loop, .link = net, .io = &io};

	session = mcp_session_new(&cfg, NULL);
	ck_assert_ptr_nonnull(session);
}

/* What a test without a process of its own leaves to the next. */
static void forget(struct said *list, size_t *count)
{
	while (*count > 0)
		free(list[--*count].text);
}

static void setup(void)
{
	const struct link_config cfg = {.kind = "mcp",
	                                .comfyui = "http://127.0.0.1:1"};

	want_bus = -1;
	next_line = 1;
	loop = ev_loop_new(0);
	net = link_new(loop, &cfg, NULL);
	ck_assert(loop && net);
	open_session();
}

static void teardown(void)
{
	session = mcp_session_free(session);
	net = link_free(net);
	ev_loop_destroy(loop);
	clock_fake(-1);
	forget(answers, &answer_count);
	forget(outputs, &output_count);
	forget(records, &record_count);
	full = ended = false;
	unread = 0;
	wanted_look = wanted_start = 0;
	cancels = stops = destroys = 0;
	slow = NULL;
}

static char *quoted(const char *text)
{
	char *s = strdup(text);

	ck_assert_ptr_nonnull(s);
	for (char *p = s; *p; p++)
		if (*p == '\'')
			*p = '"';
	return s;
}

static uint64_t say(const char *text)
{
	char *s = quoted(text);

	mcp_session_line(session, next_line, SPAN(s));
	free(s);
	return next_line++;
}

static const char *answer_to(uint64_t line)
{
	for (size_t i = 0; i < answer_count; i++)
		if (answers[i].line == line)
			return answers[i].text;
	return NULL;
}

static void matches(const char *got, const char *want, const char *what)
{
	char *s = quoted(want);

	ck_assert_msg(got != NULL, "%s: not answered", what);
	if (s[0] == '~')
		ck_assert_msg(strstr(got, s + 1) != NULL,
		              "%s\n got %s\nwant %s", what, got, s);
	else
		ck_assert_msg(strcmp(got, s) == 0, "%s\n got %s\nwant %s", what,
		              got, s);
	free(s);
}

/* Says it and checks the answer that comes at once. */
static void ask(const char *text, const char *want)
{
	matches(answer_to(say(text)), want, text);
}

static void lacks(const char *text, const char *what)
{
	char *s = quoted(what);

	ck_assert_msg(strstr(text, s) == NULL, "%s is in %s", s, text);
	free(s);
}

/* --- eras ---------------------------------------------------------------- */

struct step {
	const char *in, *out;
};

static const struct step before_initialize[] = {
	{RPC("'early'", "tools/list", ""), ERROR_OF("'early'", "-32602")},
	{RPC("1", "no/such", ""), ERROR_OF("1", "-32602")},
	{RPC("2", "server/discover", ""), ERROR_OF("2", "-32602")},
	{RPC("3", "ping", ""), "{'jsonrpc':'2.0','id':3,'result':{}}"},
	{"{'jsonrpc':'2.0','id':4,'method':'ping'}",
         "{'jsonrpc':'2.0','id':4,'result':{}}"},
	{NOTE("notifications/initialized", ""), ""},
	{NOTE("notifications/whatever", ""), ""},
	{NOTE("notifications/cancelled", "'requestId':999"), ""},
	{NOTE("notifications/cancelled", "'requestId':{}"), ""},
	{NOTE("notifications/cancelled", ""), ""},
	{"{'jsonrpc':'2.0','method':'notifications/cancelled','params':7}", ""},
	{"{'jsonrpc':'2.0','id':'zz','result':{}}", ""},
	{"{'jsonrpc':'2.0','id':'zz','error':{'code':1,'message':''}}", ""},
	{"{'jsonrpc':'2.0','id':2,'method':'ping'", "~'error':{'code':-32700,"},
	{"[]", "~'error':{'code':-32600,"},
	{"[" RPC("3", "ping", "") "]",
         "{'jsonrpc':'2.0','error':{'code':-32600,'message':'Batches exist in "
         "protocol version 2025-03-26 only'}}"},
	{"{'jsonrpc':'2.0','id':null,'method':'ping'}",
         "~{'jsonrpc':'2.0','error':{'code':-32600,"},
	{"{'jsonrpc':'2.0','id':1.5,'method':'ping'}",
         "~{'jsonrpc':'2.0','error':{'code':-32600,"},
	{"{'id':4,'method':'ping'}", ERROR_OF("4", "-32600")},
	{"42", "~{'jsonrpc':'2.0','error':{'code':-32600,"},
	{RPC("5", "initialize", ""), ERROR_OF("5", "-32602")},
	{RPC("6", "initialize", "'protocolVersion':7"),
         ERROR_OF("6", "-32602")},
	{"{'jsonrpc':'2.0','id':7,'method':'initialize','params':[]}",
         ERROR_OF("7", "-32602")},
	{INIT("0", "2025-11-25"),
         "~{'jsonrpc':'2.0','id':0,'result':{'protocolVersion':'2025-11-25',"
         "'capabilities':{'tools':{},'resources':{}},'serverInfo':{'name':"
         "'comfymux','title':'comfymux: ComfyUI workflows','version':"
         "'" COMFYMUX_VERSION "'},'instructions':'"},
	/* Once more, with the least that is allowed: that counts from now on.
         */
	{RPC("8", "initialize", "'protocolVersion':'2024-11-05'"),
         "~'result':{'protocolVersion':'2024-11-05','capabilities':"
         "{'tools':{},'resources':{}},'serverInfo':{'name':'comfymux',"
         "'version':'" COMFYMUX_VERSION "'},"},
	{INIT("9", "2025-03-26"), "~'protocolVersion':'2025-03-26'"},
	{INIT("10", "2025-06-18"), "~'protocolVersion':'2025-06-18'"},
	/* Unknown ones, ours of the other era among them: the newest legacy. */
	{INIT("11", "2099-01-01"), "~'protocolVersion':'2025-11-25'"},
	{INIT("12", "2026-07-28"), "~'protocolVersion':'2025-11-25'"},
	{INIT("13", "2024-10-07"), "~'protocolVersion':'2025-11-25'"},
	{INIT("14", ""), "~'protocolVersion':'2025-11-25'"},
};

static const struct step legacy[] = {
	{INIT("0", "2025-11-25"), "~'id':0,'result'"},
	{RPC("1", "no/such", ""),
         "{'jsonrpc':'2.0','id':1,'error':{'code':-32601,'message':"
         "'Method not found: no/such'}}"},
	{RPC("2", "prompts/list", ""), ERROR_OF("2", "-32601")},
	{RPC("3", "logging/setLevel", "'level':'debug'"),
         ERROR_OF("3", "-32601")},
	{RPC("4", "resources/subscribe", "'uri':'x'"), ERROR_OF("4", "-32601")},
	{RPC("5", "subscriptions/listen", "'notifications':{}"),
         ERROR_OF("5", "-32601")},
	{RPC("6", "notifications/initialized", ""), ERROR_OF("6", "-32601")},
	/* never legacy, whatever came before */
	{RPC("7", "server/discover", ""), ERROR_OF("7", "-32602")},
	{"{'jsonrpc':'2.0','id':8,'method':'tools/list','params':[]}",
         ERROR_OF("8", "-32602")},
	{"{'jsonrpc':'2.0','id':9,'method':'tools/list','params':null}",
         ERROR_OF("9", "-32602")},
	{RPC("10", "tools/list", "'cursor':'bogus'"), ERROR_OF("10", "-32602")},
	{RPC("11", "tools/call", ""), ERROR_OF("11", "-32602")},
	{RPC("12", "tools/call", "'arguments':{}"), ERROR_OF("12", "-32602")},
	{RPC("13", "tools/call", "'name':7"), ERROR_OF("13", "-32602")},
	{RPC("14", "tools/call", "'name':'nope'"),
         "{'jsonrpc':'2.0','id':14,'error':{'code':-32602,'message':"
         "'Unknown tool: nope'}}"},
	{RPC("15", "tools/call", "'name':'echo','arguments':[]"),
         ERROR_OF("15", "-32602")},
	{RPC("16", "tools/call", "'name':'echo','arguments':null"),
         ERROR_OF("16", "-32602")},
	/* Arguments that don't fit are the model's to mend. */
	{RPC("17", "tools/call", "'name':'echo'"),
         "~'result':{'content':[{'type':'text','text':'{\\'error\\':{\\'type\\'"
         ":\\'invalid\\',\\'message\\':\\'echo: text is missing\\'}}'}],"
         "'isError':true}}"},
	{CALL("18", "echo", "'text':5"),
         "~echo: text must be string, not integer"},
	{CALL("'a b'", "echo", "'text':'hi'"),
         "{'jsonrpc':'2.0','id':'a b','result':{'content':[{'type':'text',"
         "'text':'{\\'text\\':\\'hi\\'}'}],'structuredContent':{'text':'hi'},"
         "'isError':false}}"},
	{RPC("19", "resources/templates/list", ""),
         "~'resourceTemplates':[{'uriTemplate':'comfy://{type}/{+path}"
         "{?prompt_id}','name':'output','title':'"},
	{RPC("20", "resources/read", "'uri':'file:///etc/passwd'"),
         "{'jsonrpc':'2.0','id':20,'error':{'code':-32002,'message':"
         "'Resource not found','data':{'uri':'file:///etc/passwd'}}}"},
	{RPC("21", "resources/read", ""), ERROR_OF("21", "-32602")},
	{RPC("22", "resources/list", "'cursor':5"), ERROR_OF("22", "-32602")},
	{RPC("123456789012345678901234567890", "ping", ""),
         "{'jsonrpc':'2.0','id':123456789012345678901234567890,'result':{}}"},
	{RPC("''", "ping", ""), "{'jsonrpc':'2.0','id':'','result':{}}"},
	{CALL("23", "fail", ""),
         "~'text':'{\\'error\\':{\\'type\\':\\'rejected\\',\\'message\\':"
         "\\'no such node\\'},\\'prompt_id\\':\\'p-1\\'}'}],'isError':true}"},
	{CALL("24", "broken", ""), ERROR_OF("24", "-32603")},
	{CALL("25", "nan", ""),
         "~'structuredContent':{'a':null,'b':[null,1]},'isError':false}"},
	/* The modern era next to it. */
	{RPC("26", "tools/list", META), "~'resultType':'complete'"},
	{RPC("27", "ping", META), ERROR_OF("27", "-32601")},
	{RPC("28", "ping", ""), "{'jsonrpc':'2.0','id':28,'result':{}}"},
};

#define ENVELOPE(version, more)                                                \
	"'_meta':{'io.modelcontextprotocol/protocolVersion':" version more "}"
#define CAPABILITIES ",'io.modelcontextprotocol/clientCapabilities':{}"

static const struct step modern[] = {
	{RPC("'d'", "server/discover", META),
         "~{'jsonrpc':'2.0','id':'d','result':{'resultType':'complete',"
         "'supportedVersions':['2026-07-28'],'capabilities':{'tools':{},"
         "'resources':{}},'instructions':'"},
	{RPC("'d'", "server/discover", META),
         "~','ttlMs':3600000,'cacheScope':'public'," SERVER "}}"},
	{RPC("1", "tools/list", META),
         "~],'ttlMs':3600000,'cacheScope':'public'," SERVER "}}"},
	{RPC("'a'", "server/discover", ENVELOPE("'2099-01-01'", CAPABILITIES)),
         "{'jsonrpc':'2.0','id':'a','error':{'code':-32022,'message':"
         "'Unsupported protocol version','data':{'supported':['2026-07-28'],"
         "'requested':'2099-01-01'}}}"},
	{RPC("2", "tools/list", ENVELOPE("'2025-11-25'", CAPABILITIES)),
         ERROR_OF("2", "-32022")},
	/* The version is looked at before anything else. */
	{RPC("3", "no/such", ENVELOPE("'2025-11-25'", "")),
         ERROR_OF("3", "-32022")},
	{RPC("4", "no/such", ENVELOPE("'2026-07-28'", "")),
         ERROR_OF("4", "-32602")},
	{RPC("5", "no/such", META), ERROR_OF("5", "-32601")},
	{RPC("6", "tools/list", ENVELOPE("7", CAPABILITIES)),
         ERROR_OF("6", "-32602")},
	{RPC("7", "tools/list", ENVELOPE("null", CAPABILITIES)),
         ERROR_OF("7", "-32602")},
	{RPC("8", "tools/list",
             ENVELOPE("'2026-07-28'",
                      ",'io.modelcontextprotocol/clientCapabilities':[]")),
         ERROR_OF("8", "-32602")},
	{RPC("9", "tools/list",
             ENVELOPE("'2026-07-28'", CAPABILITIES
                      ",'io.modelcontextprotocol/logLevel':'bogus'")),
         ERROR_OF("9", "-32602")},
	{RPC("10", "resources/templates/list",
             ENVELOPE("'2026-07-28'", CAPABILITIES
                      ",'io.modelcontextprotocol/logLevel':'notice',"
                      "'traceparent':'00-1','x.y/z':[1]")),
         "~'ttlMs':3600000,'cacheScope':'public'," SERVER "}}"},
	/* What the era has not. */
	{RPC("11", "initialize",
             "'protocolVersion':'2025-11-25','capabilities':{}," META),
         ERROR_OF("11", "-32601")},
	{RPC("12", "logging/setLevel", "'level':'info'," META),
         ERROR_OF("12", "-32601")},
	{RPC("13", "resources/subscribe", "'uri':'x'," META),
         ERROR_OF("13", "-32601")},
	{RPC("14", "tasks/get", "'taskId':'x'," META),
         ERROR_OF("14", "-32601")},
	{RPC("15", "completion/complete", META), ERROR_OF("15", "-32601")},
	{RPC("16", "prompts/list", META), ERROR_OF("16", "-32601")},
	/* Claims nothing: no memory of what came before. */
	{RPC("17", "tools/list", ""), ERROR_OF("17", "-32602")},
	{MODERN_CALL("18", "echo", "'text':'x'"),
         "{'jsonrpc':'2.0','id':18,'result':{'resultType':'complete',"
         "'content':[{'type':'text','text':'{\\'text\\':\\'x\\'}'}],"
         "'structuredContent':{'text':'x'},'isError':false," SERVER "}}"},
	{MODERN_CALL("19", "echo", ""), "~'isError':true," SERVER "}}"},
	{MODERN_CALL("20", "nope", ""), ERROR_OF("20", "-32602")},
	{RPC("21", "resources/read", "'uri':'comfy://nope'," META),
         "{'jsonrpc':'2.0','id':21,'error':{'code':-32602,'message':"
         "'Resource not found','data':{'uri':'comfy://nope'}}}"},
	{"[" RPC("22", "tools/list", META) "]",
         "~{'jsonrpc':'2.0','error':{'code':-32600,"},
	{RPC("23", "subscriptions/listen", META), ERROR_OF("23", "-32602")},
	{RPC("24", "subscriptions/listen", "'notifications':[]," META),
         ERROR_OF("24", "-32602")},
	{RPC("25", "resources/list", "'cursor':''," META),
         ERROR_OF("25", "-32602")},
	/* initialize still works in the same process. */
	{INIT("26", "2025-11-25"), "~'protocolVersion':'2025-11-25'"},
	{RPC("27", "tools/list", ""), "~'tools':["},
};

static void converse(const struct step *steps, size_t count)
{
	for (size_t i = 0; i < count; i++)
		ask(steps[i].in, steps[i].out);
}

START_TEST(speaks_before_initialize)
{
	converse(before_initialize, ARRAY_SIZE(before_initialize));
}
END_TEST

START_TEST(speaks_legacy)
{
	converse(legacy, ARRAY_SIZE(legacy));
}
END_TEST

START_TEST(speaks_modern)
{
	converse(modern, ARRAY_SIZE(modern));
	ck_assert_ptr_nonnull(strstr(answers[answer_count - 1].text, "tools"));
	lacks(answers[answer_count - 1].text, "resultType");
	lacks(answers[answer_count - 1].text, "ttlMs");
	lacks(answers[answer_count - 1].text, "serverInfo");
}
END_TEST

/* What each version may see. */
START_TEST(gates_by_version)
{
	static const char *const versions[] = {"2024-11-05", "2025-03-26",
	                                       "2025-06-18", "2025-11-25"};
	char line[512];
	const char *list, *media;
	uint64_t n;

	(void)snprintf(line, sizeof(line),
	               RPC("0", "initialize", "'protocolVersion':'%s'"),
	               versions[_i]);
	ask(line, "~result");
	n = say(RPC("1", "tools/list", ""));
	list = answer_to(n);
	/* Compact, though the table isn't. */
	matches(list,
	        "~{'type':'object','properties':{'text':{'type':'string'}},",
	        "tools/list");
	lacks(list, "resultType");
	lacks(list, "TOOL_SUBMITS");
	if (_i < 1)
		lacks(list, "annotations");
	else
		matches(list,
		        "~'readOnlyHint':true,'destructiveHint':false,"
		        "'idempotentHint':true,'openWorldHint':false}",
		        "annotations");
	if (_i < 2)
		lacks(list, "outputSchema");
	else
		matches(list, "~'name':'echo','title':'Echo',", "title");
	media = answer_to(say(CALL("2", "media", "")));
	matches(media, "~{'type':'image','data':'AAAA','mimeType':'image/png'}",
	        "media");
	if (_i < 2) {
		lacks(media, "resource_link");
		lacks(media, "structuredContent");
	} else {
		matches(media,
		        "~{'type':'resource_link','uri':'comfy://output/a.png',"
		        "'name':'a.png','mimeType':'image/png'}",
		        "media");
	}
}
END_TEST

/* --- requests in flight -------------------------------------------------- */

static void legacy_session(void)
{
	ask(INIT("'init'", "2025-11-25"), "~result");
}

START_TEST(slow_calls_hold_nothing_up)
{
	uint64_t first, second;
	struct tool_call *a, *b;

	legacy_session();
	first = say(CALL("1", "slow", ""));
	a = slow;
	second = say(CALL("'1'", "slow", "")); /* another id */
	b = slow;
	ck_assert_ptr_ne(a, b);
	ask(RPC("2", "ping", ""), "~'id':2,'result':{}");
	ask(CALL("3", "echo", "'text':''"), "~'id':3,");
	ck_assert_ptr_null(answer_to(first));
	done_text(b, "{}");
	matches(answer_to(second), "~'id':'1',", "second");
	done_text(a, "{}");
	matches(answer_to(first), "~'id':1,", "first");
}
END_TEST

START_TEST(an_id_twice_in_flight)
{
	uint64_t first;

	legacy_session();
	first = say(CALL("'a'", "slow", ""));
	ask(RPC("'\\u0061'", "ping", ""), ERROR_OF("'\\u0061'", "-32600"));
	ck_assert_ptr_null(answer_to(first));
	done_text(slow, "{}");
	matches(answer_to(first), "~'id':'a','result'", "first");
	/* It is free again. */
	ask(RPC("'a'", "ping", ""), "~'id':'a','result'");
}
END_TEST

START_TEST(requests_are_bounded)
{
	char line[256];

	legacy_session();
	for (int i = 0; i < MCP_REQUESTS_MAX; i++) {
		(void)snprintf(line, sizeof(line), CALL("%d", "slow", ""), i);
		(void)say(line);
	}
	ck_assert_uint_eq(answer_count, 1);
	ask(RPC("'x'", "ping", ""), ERROR_OF("'x'", "-32603"));
	ask(NOTE("notifications/cancelled", "'requestId':5"), "");
	ask(RPC("'x'", "ping", ""), "~'id':'x','result'");
}
END_TEST

/* --- cancelling ---------------------------------------------------------- */

static const struct {
	const char *reason; /* members of the cancel */
	bool stop;
} reasons[] = {
	{"", false},
	{",'reason':''", false},
	{",'reason':7", false},
	{",'reason':'SdkError: Request timed out'", false},
	{",'reason':'McpError: MCP error -32001: Request timeout'", false},
	{",'reason':'Deadline exceeded'", false},
	{",'reason':'AbortError: This operation was aborted'", true},
	{",'reason':'user'", true},
	{",'reason':'\\u0074imeout'", false},
	{",'reason':'x'," META, true},
};

START_TEST(cancels_by_reason)
{
	char line[512];
	uint64_t call, cancel;

	legacy_session();
	call = say(CALL("1", "slow", ""));
	(void)snprintf(line, sizeof(line),
	               NOTE("notifications/cancelled", "'requestId':1%s"),
	               reasons[_i].reason);
	cancel = say(line);
	ck_assert_uint_eq(cancels, 1);
	ck_assert_uint_eq(stops, reasons[_i].stop);
	ck_assert_uint_eq(destroys, 1);
	/* Both lines are done, and nothing is sent for them. */
	matches(answer_to(call), "", "the call");
	matches(answer_to(cancel), "", "the cancel");
	ask(CALL("1", "echo", "'text':''"), "~'id':1,'result'");
}
END_TEST

START_TEST(cancels_only_the_id_of_that_type)
{
	legacy_session();
	(void)say(CALL("1", "slow", ""));
	ask(NOTE("notifications/cancelled", "'requestId':'1'"), "");
	ck_assert_uint_eq(cancels, 0);
	ask(NOTE("notifications/cancelled", "'requestId':1"), "");
	ck_assert_uint_eq(cancels, 1);
	/* Again, and after the end: nothing. */
	ask(NOTE("notifications/cancelled", "'requestId':1"), "");
	ck_assert_uint_eq(cancels, 1);
}
END_TEST

/* --- progress ------------------------------------------------------------ */

#define TOKEN_CALL(token)                                                      \
	RPC("1", "tools/call",                                                 \
	    "'name':'slow','arguments':{},'_meta':{'progressToken':" token     \
	    "}")

START_TEST(progress_is_told)
{
	clock_fake(1000000);
	legacy_session();
	(void)say(TOKEN_CALL("0"));
	ck_assert(slow->has_progress);
	tool_progress(slow, 0.35, "step 7 of 20", true);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 0);
	clock_fake(1000300);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 1);
	matches(outputs[0].text,
	        "{'jsonrpc':'2.0','method':'notifications/progress','params':"
	        "{'progressToken':0,'progress':0.35,'total':1,'message':"
	        "'step 7 of 20'}}",
	        "progress");
	/* Repeated while nothing happens, before a client's patience ends. */
	clock_fake(1015300);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 2);
	/* News right before the result stays untold. */
	tool_progress(slow, 0.9, "x", true);
	done_text(slow, "{}");
	clock_fake(1099999);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 2);
}
END_TEST

/* A successor goes on above what was told; the requests of a batch together,
 * since it hears of the last one only. */
START_TEST(progress_goes_on_rising)
{
	clock_fake(1000000);
	legacy_session();
	mcp_session_told(session, next_line,
	                 SPAN("{\"jsonrpc\":\"2.0\",\"method\":"
	                      "\"notifications/progress\",\"params\":{"
	                      "\"progressToken\":0,\"progress\":0.35}}"));
	(void)say(TOKEN_CALL("0"));
	tool_progress(slow, 0.1, "again from the start", true);
	clock_fake(1000300);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 1);
	ck_assert_ptr_nonnull(strstr(outputs[0].text, "\"progress\":0.350"));
	/* Garbage, and another line, say nothing. */
	mcp_session_told(session, next_line + 1, SPAN("{\"params\":[]}"));
	mcp_session_told(session, next_line + 1, SPAN("{"));
	done_text(slow, "{}");
	(void)say(TOKEN_CALL("0"));
	tool_progress(slow, 0.1, "new", true);
	clock_fake(1000900);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 2);
	ck_assert_ptr_nonnull(strstr(outputs[1].text, "\"progress\":0.1,"));
}
END_TEST

START_TEST(progress_without_message)
{
	clock_fake(1000000);
	ask(INIT("0", "2024-11-05"), "~result");
	(void)say(TOKEN_CALL("'t\\u00e4'"));
	tool_progress(slow, 0.5, "words", true);
	clock_fake(1000300);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 1);
	matches(outputs[0].text,
	        "{'jsonrpc':'2.0','method':'notifications/progress','params':"
	        "{'progressToken':'t\\u00e4','progress':0.5,'total':1}}",
	        "progress");
}
END_TEST

static const char *const no_tokens[] = {"null", "1.5", "true", "{}", "[1]"};

START_TEST(no_progress_unless_asked_for)
{
	char line[512];

	clock_fake(1000000);
	legacy_session();
	(void)snprintf(line, sizeof(line), TOKEN_CALL("%s"), no_tokens[_i]);
	(void)say(line);
	ck_assert(!slow->has_progress);
	tool_progress(slow, 0.5, "words", true);
	clock_fake(1900000);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 0);
}
END_TEST

START_TEST(progress_that_found_no_room_comes_later)
{
	clock_fake(1000000);
	legacy_session();
	(void)say(TOKEN_CALL("7"));
	tool_progress(slow, 0.2, "a", true);
	clock_fake(1000300);
	full = true;
	mcp_session_tick(session);
	tool_progress(slow, 0.4, "b", true);
	clock_fake(1002000);
	full = false;
	mcp_session_room(session);
	ck_assert_uint_eq(output_count, 1);
	matches(outputs[0].text, "~'progress':0.4,'total':1,'message':'b'",
	        "the latest");
}
END_TEST

START_TEST(no_progress_after_a_cancel)
{
	clock_fake(1000000);
	legacy_session();
	(void)say(TOKEN_CALL("7"));
	tool_progress(slow, 0.2, "a", true);
	ask(NOTE("notifications/cancelled", "'requestId':1"), "");
	clock_fake(1100000);
	mcp_session_tick(session);
	ck_assert_uint_eq(output_count, 0);
}
END_TEST

/* --- batches ------------------------------------------------------------- */

START_TEST(a_batch_is_answered_as_one)
{
	uint64_t line;

	ask(INIT("0", "2025-03-26"), "~result");
	line = say("[" RPC("1", "ping", "") "," CALL("2", "slow", "") "," NOTE(
		"notifications/x", "") "," CALL("3", "fail", "") "]");
	ck_assert_ptr_null(answer_to(line));
	ask(RPC("4", "ping", ""), "~'id':4");
	done_text(slow, "{\"a\":1}");
	matches(answer_to(line), "~[{'jsonrpc':'2.0','id':1,'result':{}},{",
	        "batch");
	matches(answer_to(line), "~'isError':true}},{'jsonrpc':'2.0','id':2,",
	        "batch");
	matches(answer_to(line), "~'isError':false}}]", "batch");
}
END_TEST

static const struct step batches[] = {
	{INIT("0", "2025-03-26"), "~result"},
	{"[]", "~{'jsonrpc':'2.0','error':{'code':-32600,"},
	{"[" NOTE("notifications/x", "") "]", ""},
	{"[{'jsonrpc':'2.0','id':1,'result':{}}]", ""},
	{"[1,[],{}," INIT("5", "2025-06-18") "," RPC("6", "ping", "") "]",
         "[{'jsonrpc':'2.0','error':{'code':-32600,'message':'a message is a "
         "JSON object'}},{'jsonrpc':'2.0','error':{'code':-32600,'message':"
         "'A batch inside a batch'}},{'jsonrpc':'2.0','error':{'code':-32600,"
         "'message':'jsonrpc must be \\'2.0\\''}},{'jsonrpc':'2.0','id':5,"
         "'error':{'code':-32600,'message':'initialize must not be part of a "
         "batch'}},{'jsonrpc':'2.0','id':6,'result':{}}]"},
	{"[" RPC("7", "ping", "") "," RPC("7", "ping", "") "]",
         "[{'jsonrpc':'2.0','id':7,'result':{}},"
         "{'jsonrpc':'2.0','id':7,'result':{}}]"},
	/* Still the version that was agreed on. */
	{"[" RPC("8", "ping", "") "]",
         "[{'jsonrpc':'2.0','id':8,'result':{}}]"},
	{INIT("9", "2025-06-18"), "~result"},
	{"[" RPC("10", "ping", "") "]",
         "~{'jsonrpc':'2.0','error':{'code':-32600,"},
};

START_TEST(batches_have_rules)
{
	converse(batches, ARRAY_SIZE(batches));
}
END_TEST

START_TEST(a_batch_may_be_cancelled_in_part_or_whole)
{
	uint64_t line;

	ask(INIT("0", "2025-03-26"), "~result");
	line = say("[" CALL("1", "slow", "") "," RPC("2", "ping", "") "]");
	ask(NOTE("notifications/cancelled", "'requestId':1"), "");
	matches(answer_to(line), "[{'jsonrpc':'2.0','id':2,'result':{}}]",
	        "what is left");
	line = say("[" CALL("1", "slow", "") "]");
	ask(NOTE("notifications/cancelled", "'requestId':1"), "");
	matches(answer_to(line), "", "nothing is left");
	/* From within. */
	line = say("[" CALL("1", "slow", "") "," NOTE("notifications/cancelled",
	                                              "'requestId':1") "]");
	matches(answer_to(line), "", "nothing is left");
}
END_TEST

static char *batch_of(size_t count)
{
	char *s = malloc(count * 64 + 3), *p = s;

	ck_assert_ptr_nonnull(s);
	*p++ = '[';
	for (size_t i = 0; i < count; i++)
		p += snprintf(p, 64, "%s" RPC("%zu", "ping", ""), i ? "," : "",
		              i);
	memcpy(p, "]", 2);
	return s;
}

START_TEST(batches_are_bounded)
{
	char *at = batch_of(RPC_BATCH_MAX), *over = batch_of(RPC_BATCH_MAX + 1);

	ask(INIT("0", "2025-03-26"), "~result");
	ask(at, "~{'jsonrpc':'2.0','id':255,'result':{}}]");
	ask(over, "~{'jsonrpc':'2.0','error':{'code':-32600,");
	free(at);
	free(over);
}
END_TEST

/* The replies of a batch share one line. */
START_TEST(a_batch_reply_fits_into_a_line)
{
	const char *got;

	ask(INIT("0", "2025-03-26"), "~result");
	got = answer_to(say("[" CALL("1", "media", "'bytes':2000000") "," CALL(
		"2", "media", "'bytes':2000000") "]"));
	ck_assert_ptr_nonnull(got);
	ck_assert_uint_lt(strlen(got), RPC_REPLY_MAX);
	matches(got, "~'id':1,'result'", "the first");
	matches(got, ERROR_OF("2", "-32603"), "the second");
}
END_TEST

/* --- sizes --------------------------------------------------------------- */

START_TEST(images_are_bounded)
{
	const char *got;

	legacy_session();
	got = answer_to(say(CALL("1", "media", "'bytes':2097152")));
	ck_assert_uint_gt(strlen(got), 2 * 2097152 / 3 * 4);
	/* Together more than TOOL_INLINE_MAX: the second is left out. */
	got = answer_to(say(CALL("2", "media", "'bytes':2097153")));
	ck_assert_uint_lt(strlen(got), 2 * 2097152);
	matches(got,
	        "~a.png (2097153 bytes) is too large to be shown here; use "
	        "download_by_filename, or read comfy://output/a.png",
	        "words instead");
	matches(got, "~'type':'image'", "the first");
}
END_TEST

START_TEST(text_makes_images_yield)
{
	const char *got;

	legacy_session();
	/* Twice in the result, text and structured: 8 MB, and 3 MB of image. */
	got = answer_to(
		say(CALL("1", "media", "'bytes':1200000,'text':4000000")));
	ck_assert_uint_lt(strlen(got), RPC_REPLY_MAX);
	lacks(got, "'type':'image'");
	matches(got, "~'isError':false", "still a result");
}
END_TEST

START_TEST(what_does_not_fit_says_so)
{
	legacy_session();
	ask(CALL("1", "media", "'text':6000000"),
	    "~does not fit into one MCP message; ask for less");
	ask(CALL("2", "media", "'text':6000000"), "~'isError':true");
}
END_TEST

/* Whatever goes wrong, the prompt can be found again. */
START_TEST(an_error_names_the_prompt)
{
	legacy_session();
	ask(CALL("1", "media", "'text':6000000,'prompt_id':'p\\u00e9'"),
	    "~download_by_filename\\\"},\\\"prompt_id\\\":\\\"p\xc3\xa9\\\"}");
	unread = MCP_UNREAD_MAX + 1;
	ask(CALL("2", "media", "'bytes':100000,'prompt_id':'p2'"),
	    "~ask again\\\"},\\\"prompt_id\\\":\\\"p2\\\"}");
	unread = 0;
	ask(CALL("3", "fail", "'prompt_id':'p3'"), "~\\\"p3\\\"");
	ask(CALL("4", "media", "'bytes':0,'prompt_id':'p4'"),
	    "~'isError':false");
	lacks(answer_to(say(CALL("5", "media", "'bytes':0,'prompt_id':'p5'"))),
	      "p5");
}
END_TEST

START_TEST(large_results_are_for_readers)
{
	legacy_session();
	unread = MCP_UNREAD_MAX + 1;
	ask(CALL("1", "media", "'bytes':100000"),
	    "~too many results wait to be read");
	ask(CALL("2", "media", ""), "~'type':'image'");
	unread = MCP_UNREAD_MAX;
	ask(CALL("3", "media", "'bytes':100000"), "~'type':'image'");
}
END_TEST

/* --- listen -------------------------------------------------------------- */

START_TEST(listens_to_nothing)
{
	uint64_t first, second;

	first = say(RPC("'L'", "subscriptions/listen",
	                "'notifications':{'toolsListChanged':true}," META));
	ck_assert_ptr_null(answer_to(first));
	ck_assert_uint_eq(output_count, 1);
	matches(outputs[0].text,
	        "{'jsonrpc':'2.0','method':'notifications/subscriptions/"
	        "acknowledged','params':{'_meta':{'io.modelcontextprotocol/"
	        "subscriptionId':'L'},'notifications':{}}}",
	        "ack");
	full = true;
	second = say(
		RPC("7", "subscriptions/listen", "'notifications':{}," META));
	full = false;
	mcp_session_room(session);
	ck_assert_uint_eq(output_count, 2);
	matches(outputs[1].text, "~subscriptionId':7}", "ack");
	ask(NOTE("notifications/cancelled", "'requestId':'L'"), "");
	matches(answer_to(first), "", "cancelled");
	mcp_session_end(session);
	matches(answer_to(second),
	        "{'jsonrpc':'2.0','id':7,'result':{'resultType':'complete',"
	        "'_meta':{'io.modelcontextprotocol/subscriptionId':7}}}",
	        "the end");
	ev_run(loop, EVRUN_ONCE);
	ck_assert(ended);
}
END_TEST

/* --- successors ---------------------------------------------------------- */

START_TEST(a_successor_knows_the_version)
{
	ask(INIT("0", "2025-03-26"), "~result");
	ck_assert_uint_eq(record_count, 1);
	ck_assert_uint_eq(records[0].line, 0);
	matches(records[0].text,
	        "{'version':'2025-03-26','recall':[],'prompts':[]}", "record");
	session = mcp_session_free(session);
	open_session();
	mcp_session_record(session, 0, SPAN(records[0].text));
	ask("[" RPC("1", "ping", "") "]",
	    "[{'jsonrpc':'2.0','id':1,'result':{}}]");
}
END_TEST

/* But a tenant's keeper could name anybody's. */
START_TEST(a_successor_knows_its_prompts)
{
	struct link_config cfg = {.kind = "mcp", .tenant = _i == 1};
	static const char id[] = "22222222-2222-4222-8222-222222222222";

	ask(INIT("0", "2025-03-26"), "~result");
	ck_assert_int_eq(link_claim(net, id), 0);
	ck_assert_uint_eq(record_count, 2);
	ck_assert_ptr_nonnull(strstr(records[1].text, id));
	session = mcp_session_free(session);
	net = link_free(net);
	net = link_new(loop, &cfg, NULL);
	open_session();
	ck_assert(!link_claimed(net, id));
	mcp_session_record(session, 0, SPAN(records[1].text));
	ck_assert(link_claimed(net, id) == (_i == 0));
	ck_assert_uint_eq(record_count, 2); /* not recorded again */
}
END_TEST

START_TEST(a_successor_has_the_records)
{
	uint64_t line;
	char *first, *second;

	ask(INIT("0", "2025-03-26"), "~result");
	line = say("[" RPC("1", "ping", "") "," CALL("2", "record", "") "]");
	ck_assert_uint_eq(record_count, 2);
	ck_assert_uint_eq(records[1].line, line);
	first = strdup(records[1].text);
	tool_record(slow, SPAN("{\"step\":2}"));
	second = strdup(records[2].text);
	/* Dropped without an answer: whoever follows gives it. */
	session = mcp_session_free(session);
	ck_assert_ptr_null(answer_to(line));
	open_session();
	mcp_session_record(session, 0, SPAN(records[0].text));
	mcp_session_record(session, line, SPAN(first));
	mcp_session_record(session, line, SPAN("nonsense"));
	mcp_session_record(session, line, SPAN("{\"i\":0,\"r\":1}"));
	mcp_session_record(session, line + 7, SPAN(first));
	mcp_session_record(session, line, SPAN(second));
	next_line = line;
	ask("[" RPC("1", "ping", "") "," CALL("2", "record", "") "]",
	    "~'text':'{\\'a\\':{\\'prompt_id\\':\\'p-1\\'},\\'b\\':{\\'step\\':2},"
	    "\\'c\\':1}'");
	free(first);
	free(second);
}
END_TEST

/* --- the bus ------------------------------------------------------------- */

START_TEST(a_missing_bus_is_asked_for_first)
{
	uint64_t line, other;

	legacy_session();
	want_bus = 0;
	line = say(CALL("1", "echo", "'text':'x'"));
	ck_assert_uint_eq(wanted_look, 1);
	other = say(CALL("2", "echo", "'text':'x'"));
	ask(RPC("3", "ping", ""), "~'id':3");
	ck_assert_uint_eq(wanted_look, 1);
	ck_assert_ptr_null(answer_to(line));
	mcp_session_bus(session);
	matches(answer_to(line), "~'id':1,'result'", "then");
	matches(answer_to(other), "~'id':2,'result'", "then");
	ck_assert_uint_eq(wanted_start, 0);
}
END_TEST

START_TEST(only_a_submission_starts_a_supervisor)
{
	uint64_t line;

	legacy_session();
	want_bus = 0;
	line = say(CALL("1", "echo", "'text':'x'"));
	(void)say(CALL("2", "slow", ""));
	ck_assert_uint_eq(wanted_start, 0);
	mcp_session_bus(session);
	matches(answer_to(line), "~'id':1,'result'", "the look was enough");
	ck_assert_uint_eq(wanted_start, 1);
	ck_assert_ptr_null(slow);
	/* A cancel of what has not begun. */
	ask(NOTE("notifications/cancelled", "'requestId':2"), "");
	ck_assert_uint_eq(cancels, 0);
	mcp_session_bus(session);
	(void)say(CALL("3", "slow", ""));
	ck_assert_uint_eq(wanted_start, 2);
	mcp_session_bus(session);
	ck_assert_ptr_nonnull(slow);
}
END_TEST

/* --- the end ------------------------------------------------------------- */

START_TEST(ends_at_once_when_nothing_is_open)
{
	legacy_session();
	mcp_session_end(session);
	ck_assert(!ended);
	ev_run(loop, EVRUN_ONCE);
	ck_assert(ended);
}
END_TEST

START_TEST(waits_are_dropped_at_the_end)
{
	uint64_t line;

	legacy_session();
	line = say(CALL("1", "slow", ""));
	tool_progress(slow, 0.1, "waiting for ComfyUI", true);
	mcp_session_end(session);
	ev_run(loop, EVRUN_ONCE);
	ck_assert(ended);
	ck_assert_uint_eq(cancels, 1);
	ck_assert_uint_eq(stops, 0);
	matches(answer_to(line), "", "dropped");
}
END_TEST

START_TEST(quick_calls_are_finished_at_the_end)
{
	uint64_t line;
	struct tool_call *quick;

	clock_fake(1000000);
	legacy_session();
	line = say(CALL("1", "slow", ""));
	quick = slow;
	mcp_session_end(session);
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert(!ended);
	done_text(quick, "{}");
	matches(answer_to(line), "~'id':1,'result'", "finished");
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert(ended);
}
END_TEST

/* A call that waits for its prompt: what it tells has the end looked at, by the
 * clock that is faked. */
static struct tool_call *a_wait(void)
{
	struct tool_call *c;

	(void)say(CALL("9", "slow", ""));
	c = slow;
	tool_progress(c, 0.1, "it waits", true);
	return c;
}

static void look_at_the_end(struct tool_call *wait)
{
	tool_progress(wait, 0.1, "it waits", true);
	ev_run(loop, EVRUN_NOWAIT);
}

START_TEST(patience_at_the_end_has_an_end)
{
	struct tool_call *wait;
	uint64_t line;

	clock_fake(1000000);
	legacy_session();
	wait = a_wait();
	line = say(CALL("1", "slow", ""));
	mcp_session_end(session);
	clock_fake(1000000 + MCP_END_MS - 1);
	look_at_the_end(wait);
	ck_assert(!ended);
	clock_fake(1000000 + MCP_END_MS);
	look_at_the_end(wait);
	ck_assert(ended);
	ck_assert_uint_eq(cancels, 2);
	ck_assert_uint_eq(stops, 0);
	matches(answer_to(line), "~'id':1,'error'", "refused");
}
END_TEST

START_TEST(patience_at_the_end_starts_anew_with_each_answer)
{
	uint64_t line;
	struct tool_call *first, *wait;

	clock_fake(1000000);
	legacy_session();
	wait = a_wait();
	(void)say(CALL("1", "slow", ""));
	first = slow;
	line = say(CALL("2", "slow", ""));
	mcp_session_end(session);
	clock_fake(1000000 + MCP_END_MS - 1);
	done_text(first, "{}");
	clock_fake(1000000 + 2 * MCP_END_MS - 2);
	look_at_the_end(wait);
	ck_assert(!ended);
	done_text(slow, "{}");
	matches(answer_to(line), "~'id':2,'result'", "finished");
	ev_run(loop, EVRUN_NOWAIT);
	ck_assert(ended);
}
END_TEST

static TCase *new_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return t;
}

static Suite *mcp_session_suite(void)
{
	Suite *s = suite_create("mcp_session");
	TCase *t = new_case(s, "eras");

	tcase_add_test(t, speaks_before_initialize);
	tcase_add_test(t, speaks_legacy);
	tcase_add_test(t, speaks_modern);
	tcase_add_loop_test(t, gates_by_version, 0, 4);
	t = new_case(s, "in flight");
	tcase_add_test(t, slow_calls_hold_nothing_up);
	tcase_add_test(t, an_id_twice_in_flight);
	tcase_add_test(t, requests_are_bounded);
	tcase_add_loop_test(t, cancels_by_reason, 0, (int)ARRAY_SIZE(reasons));
	tcase_add_test(t, cancels_only_the_id_of_that_type);
	t = new_case(s, "progress");
	tcase_add_test(t, progress_is_told);
	tcase_add_test(t, progress_goes_on_rising);
	tcase_add_test(t, progress_without_message);
	tcase_add_loop_test(t, no_progress_unless_asked_for, 0,
	                    (int)ARRAY_SIZE(no_tokens));
	tcase_add_test(t, progress_that_found_no_room_comes_later);
	tcase_add_test(t, no_progress_after_a_cancel);
	t = new_case(s, "batches");
	tcase_add_test(t, a_batch_is_answered_as_one);
	tcase_add_test(t, batches_have_rules);
	tcase_add_test(t, a_batch_may_be_cancelled_in_part_or_whole);
	tcase_add_test(t, batches_are_bounded);
	tcase_add_test(t, a_batch_reply_fits_into_a_line);
	t = new_case(s, "sizes");
	tcase_add_test(t, images_are_bounded);
	tcase_add_test(t, text_makes_images_yield);
	tcase_add_test(t, what_does_not_fit_says_so);
	tcase_add_test(t, an_error_names_the_prompt);
	tcase_add_test(t, large_results_are_for_readers);
	t = new_case(s, "life");
	tcase_add_test(t, listens_to_nothing);
	tcase_add_test(t, a_successor_knows_the_version);
	tcase_add_loop_test(t, a_successor_knows_its_prompts, 0, 2);
	tcase_add_test(t, a_successor_has_the_records);
	tcase_add_test(t, a_missing_bus_is_asked_for_first);
	tcase_add_test(t, only_a_submission_starts_a_supervisor);
	tcase_add_test(t, ends_at_once_when_nothing_is_open);
	tcase_add_test(t, waits_are_dropped_at_the_end);
	tcase_add_test(t, quick_calls_are_finished_at_the_end);
	tcase_add_test(t, patience_at_the_end_has_an_end);
	tcase_add_test(t, patience_at_the_end_starts_anew_with_each_answer);
	return s;
}

int main(void)
{
	return runner_run(mcp_session_suite());
}
