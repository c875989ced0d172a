/*
 * check_mcp_resources.c - outputs as resources: their URIs, the list, its
 * pages, reading; from a supervisor and from ComfyUI itself; and nothing of
 * anybody else's.
 */
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/jsonrpc.h"
#include "workers/mcp_outputs.h"
#include "workers/mcp_session.h"

#define ID         "7d14cb6a-62d8-5253-b6d1-14f4e81b3876" /* in recording 13 */
#define FILE_OF_ID "comfy://output/rec13/sub/multi_00002_.png?prompt_id=" ID
#define INLINE_MAX ((RPC_REPLY_MAX - (64u << 10)) / 4 * 3)

/* No tools are needed here. */
const struct tool tool_table[] = {{.name = ""}};
const size_t tool_count = 0;

const struct tool *tool_find(struct span name)
{
	return NULL;
}

/* --- URIs ---------------------------------------------------------------- */

static const struct {
	const char *prompt, *type, *subfolder, *filename;
	const char *uri;
} files[] = {
	{"p-1", "output", "", "a.png", "comfy://output/a.png?prompt_id=p-1"},
	{"p", "temp", "rec13/sub", "b c.png",
         "comfy://temp/rec13/sub/b%20c.png?prompt_id=p"},
	{"p", "input", "x", "100%?#.png",
         "comfy://input/x/100%25%3F%23.png?prompt_id=p"},
	{"p", "output", "", "\xc3\xa4\xe4\xb8\x96.png",
         "comfy://output/%C3%A4%E4%B8%96.png?prompt_id=p"},
	{"p", "output", "", "..png", "comfy://output/..png?prompt_id=p"},
	{"p", "output", "", "...", "comfy://output/...?prompt_id=p"},
};

START_TEST(uris_of_files_lead_back)
{
	struct buf b = BUF_INIT(4096);
	struct mcp_uri u;

	ck_assert_int_eq(tool_output_uri(&b, files[_i].prompt, files[_i].type,
	                                 files[_i].subfolder,
	                                 files[_i].filename),
	                 0);
	ck_assert_str_eq(buf_cstr(&b), files[_i].uri);
	ck_assert_int_eq(mcp_uri_parse(&u, span_make(b.data, b.len)), 0);
	ck_assert(!u.is_text);
	ck_assert_str_eq(u.prompt_id, files[_i].prompt);
	ck_assert_str_eq(u.type, files[_i].type);
	ck_assert_str_eq(u.subfolder, files[_i].subfolder);
	ck_assert_str_eq(u.filename, files[_i].filename);
	mcp_uri_deinit(&u);
	mcp_uri_deinit(&u);
	buf_deinit(&b);
}
END_TEST

START_TEST(uris_of_texts_lead_back)
{
	struct buf b = BUF_INIT(4096);
	struct mcp_uri u;

	ck_assert_int_eq(mcp_uri_text(&b, "p", "4.0.0.3", "te xt", 12), 0);
	ck_assert_str_eq(buf_cstr(&b),
	                 "comfy://text/4.0.0.3/te%20xt/12?prompt_id=p");
	ck_assert_int_eq(mcp_uri_parse(&u, span_make(b.data, b.len)), 0);
	ck_assert(u.is_text);
	ck_assert_str_eq(u.node, "4.0.0.3");
	ck_assert_str_eq(u.key, "te xt");
	ck_assert_uint_eq(u.index, 12);
	mcp_uri_deinit(&u);
	buf_deinit(&b);
}
END_TEST

static const char *const no_uris[] = {
	"",
	"comfy://",
	"comfy://output",
	"comfy://output/",
	"comfy://output//a.png",
	"comfy:///output/a.png",
	"comfy:output/a.png",
	"COMFY://output/a.png",
	"file:///etc/passwd",
	"http://127.0.0.1/output/a.png",
	"comfy://etc/passwd",
	"comfy://models/a.png",
	"comfy://output/../a.png",
	"comfy://output/..",
	"comfy://output/x/..",
	"comfy://output/./a.png",
	"comfy://output/%2e%2e/a.png",
	"comfy://output/%2E%2E",
	"comfy://output/..%2fetc%2fpasswd",
	"comfy://output/x%5c..%5ca.png",
	"comfy://output/x\\a.png",
	"comfy://output/a%00.png",
	"comfy://output/a%0a.png",
	"comfy://output/a%7f.png",
	"comfy://output/a%ff.png",
	"comfy://output/a%c0%80.png",
	"comfy://output/a%",
	"comfy://output/a%2",
	"comfy://output/a%zz",
	"comfy://output/a%+1",
	"comfy://output/a.png#x",
	"comfy://output/a.png?",
	"comfy://output/a.png?x=1",
	"comfy://output/a.png?prompt_id=",
	"comfy://output/a.png?prompt_id=..",
	"comfy://output/a.png?prompt_id=a/b",
	"comfy://output/a.png?prompt_id=a%2fb",
	"comfy://output/a.png?prompt_id=a&x=1&y=/",
	"comfy://text/4/text/0",
	"comfy://text/4/text?prompt_id=p",
	"comfy://text/4/text/?prompt_id=p",
	"comfy://text/4/text/-1?prompt_id=p",
	"comfy://text/4/text/x?prompt_id=p",
	"comfy://text/4/text/9999999999?prompt_id=p",
	"comfy://text/4/text/0/1?prompt_id=p",
};

START_TEST(others_are_refused)
{
	struct mcp_uri u;

	ck_assert_msg(mcp_uri_parse(&u, SPAN(no_uris[_i])) < 0, "%s",
	              no_uris[_i]);
	ck_assert_ptr_null(u.filename);
	mcp_uri_deinit(&u);
}
END_TEST

START_TEST(uris_are_bounded)
{
	char text[MCP_URI_MAX + 2];
	struct mcp_uri u;

	memset(text, 'a', sizeof(text));
	memcpy(text, "comfy://output/", 15);
	ck_assert_int_eq(mcp_uri_parse(&u, span_make(text, MCP_URI_MAX)), 0);
	mcp_uri_deinit(&u);
	ck_assert_int_lt(mcp_uri_parse(&u, span_make(text, MCP_URI_MAX + 1)),
	                 0);
	/* As many parts as one likes. */
	for (size_t i = 15; i < sizeof(text); i += 2)
		text[i] = '/';
	text[15] = 'a';
	ck_assert_int_lt(mcp_uri_parse(&u, span_make(text, MCP_URI_MAX)), 0);
}
END_TEST

START_TEST(types_by_extension)
{
	ck_assert_str_eq(tool_mime_of("a.PNG"), "image/png");
	ck_assert_str_eq(tool_mime_of("a.tar.webp"), "image/webp");
	ck_assert_str_eq(tool_mime_of("png"), "application/octet-stream");
	ck_assert_str_eq(tool_mime_of("a."), "application/octet-stream");
	ck_assert_str_eq(tool_mime_of(""), "application/octet-stream");
}
END_TEST

/* --- the list ------------------------------------------------------------ */

/* The body of a recorded GET /history/{id}. */
static char *recorded_history(void)
{
	size_t len;
	char *all = runner_read_data(
		"comfyui/13-multi-output-and-expansion/http.jsonl", &len);
	char *line = strstr(all, "\"path\": \"/history/" ID), *end, *body;
	struct json j;

	ck_assert_ptr_nonnull(line);
	while (line > all && line[-1] != '\n')
		line--;
	end = strchr(line, '\n');
	ck_assert_int_eq(json_parse(&j, line, (size_t)(end - line), 0, NULL),
	                 JSON_OK);
	j = json_get(j, "response_body");
	body = strndup(j.text.p, j.text.n);
	free(all);
	return body;
}

static struct json parse(const char *text)
{
	struct json j;

	ck_assert_msg(json_parse(&j, text, strlen(text), JSON_NONFINITE,
	                         NULL) == JSON_OK,
	              "%s", text);
	return j;
}

static struct mcp_prompts prompts;

START_TEST(lists_what_was_recorded)
{
	static const char *const want[] = {
		"{\"uri\":\"comfy://temp/ComfyUI_temp_txqot_00001_.png?"
		"prompt_id=" ID "\",\"name\":\"ComfyUI_temp_txqot_00001_.png\","
		"\"mimeType\":\"image/png\"}",
		"{\"uri\":\"comfy://output/rec13anim_00001_.webp?prompt_id=" ID
		"\",\"name\":\"rec13anim_00001_.webp\",\"mimeType\":"
		"\"image/webp\"}",
		"\"" FILE_OF_ID "\"",
		"{\"uri\":\"comfy://text/4/text/0?prompt_id=" ID
		"\",\"name\":\"text of node 4\",\"mimeType\":\"text/plain\"}",
	};
	char *body = recorded_history();
	struct buf b = BUF_INIT(1 << 20);
	struct json page;

	mcp_prompts_from_comfy(&prompts, parse(body));
	ck_assert_uint_eq(prompts.count, 1);
	(void)buf_putc(&b, '{');
	ck_assert_int_eq(
		mcp_outputs_page(&b, MCP_2025_11_25, &prompts, SPAN_NULL), 0);
	(void)buf_putc(&b, '}');
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		ck_assert_msg(strstr(buf_cstr(&b), want[i]) != NULL,
		              "%s is not in\n%s", want[i], buf_cstr(&b));
	page = parse(buf_cstr(&b));
	/* "animated": [true] is none. */
	ck_assert_uint_eq(json_count(json_get(page, "resources")), 6);
	ck_assert(json_is(json_get(page, "nextCursor"), JSON_NONE));
	free(body);
	buf_deinit(&b);
}
END_TEST

/* `count` prompts, "p0" the newest, with `each` files. */
static char *many(size_t count, size_t each, bool as_comfy)
{
	struct buf b = BUF_INIT(64 << 20);

	(void)buf_puts(&b, as_comfy ? "{" : "{\"prompts\":[");
	for (size_t i = 0; i < count; i++) {
		size_t number = as_comfy ? count - 1 - i : i;

		(void)buf_puts(&b, i ? "," : "");
		if (as_comfy)
			(void)buf_printf(&b, "\"p%zu\":{", number);
		else
			(void)buf_printf(&b,
			                 "{\"prompt_id\":\"p%zu\",\"ended_at\":"
			                 "1763841600123,",
			                 number);
		(void)buf_puts(&b, "\"outputs\":{\"9\":{\"images\":[");
		for (size_t k = 0; k < each; k++)
			(void)buf_printf(&b,
			                 "%s{\"filename\":\"%zu-%zu.png\","
			                 "\"subfolder\":\"\",\"type\":"
			                 "\"output\"}",
			                 k ? "," : "", number, k);
		(void)buf_puts(&b, "]}}}");
	}
	(void)buf_puts(&b, as_comfy ? "}" : "]}");
	ck_assert(buf_ok(&b));
	return buf_steal(&b, NULL);
}

/* Reads a page; returns its names as "0-0.png 0-1.png " and sets the cursor. */
static void read_page(struct span cursor, struct buf *names, char *next)
{
	struct buf b = BUF_INIT(4 << 20);
	struct json page, item, c;
	struct json_iter it;

	(void)buf_putc(&b, '{');
	ck_assert_int_eq(mcp_outputs_page(&b, MCP_2025_06_18, &prompts, cursor),
	                 0);
	(void)buf_putc(&b, '}');
	page = parse(buf_cstr(&b));
	ck_assert_uint_le(json_count(json_get(page, "resources")),
	                  MCP_PAGE_MAX);
	json_iter_init(&it, json_get(page, "resources"));
	while (json_iter_next(&it, NULL, &item)) {
		(void)json_string_decode(json_get(item, "name"), names);
		(void)buf_putc(names, ' ');
	}
	c = json_get(page, "nextCursor");
	(void)snprintf(next, MCP_CURSOR_MAX, "%.*s", (int)json_raw_string(c).n,
	               json_raw_string(c).p ? json_raw_string(c).p : "");
	buf_deinit(&b);
}

static const struct {
	size_t count, each;
} shapes[] = {{1, 1},
              {1, MCP_PAGE_MAX},
              {1, MCP_PAGE_MAX + 1},
              {7, 40},
              {MCP_PROMPTS_MAX, 3},
              {MCP_PAGE_MAX, 1},
              {MCP_PAGE_MAX + 1, 1},
              {2, 3 * MCP_PAGE_MAX}};

START_TEST(pages_miss_nothing)
{
	bool as_comfy = _i % 2;
	size_t count = shapes[_i / 2].count, each = shapes[_i / 2].each;
	char *text = many(count, each, as_comfy), next[MCP_CURSOR_MAX] = "";
	struct buf names = BUF_INIT(1 << 20), want = BUF_INIT(1 << 20);
	size_t pages = 0;

	if (as_comfy)
		mcp_prompts_from_comfy(&prompts, parse(text));
	else
		mcp_prompts_from_bus(&prompts, parse(text));
	do {
		char cursor[MCP_CURSOR_MAX];

		memcpy(cursor, next, sizeof(cursor));
		read_page(SPAN(cursor), &names, next);
		pages++;
	} while (*next);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < each; k++)
			(void)buf_printf(&want, "%zu-%zu.png ", i, k);
	ck_assert_str_eq(buf_cstr(&names), buf_cstr(&want));
	ck_assert_uint_eq(pages,
	                  (count * each + MCP_PAGE_MAX - 1) / MCP_PAGE_MAX);
	free(text);
	buf_deinit(&names);
	buf_deinit(&want);
}
END_TEST

START_TEST(a_page_goes_on_where_the_last_ended)
{
	char *text = many(3, 60, false), next[MCP_CURSOR_MAX];
	struct buf names = BUF_INIT(1 << 20);
	char *more;

	mcp_prompts_from_bus(&prompts, parse(text));
	read_page(SPAN_NULL, &names, next);
	/* A new prompt came meanwhile, before all others. */
	more = strdup(text);
	ck_assert_ptr_nonnull(more);
	memcpy(strstr(more, "\"p0\""), "\"n0\"", 4);
	mcp_prompts_from_bus(&prompts, parse(more));
	buf_reset(&names);
	read_page(SPAN(next), &names, next);
	ck_assert_int_eq(strncmp(buf_cstr(&names), "1-40.png ", 9), 0);
	free(more);
	free(text);
	buf_deinit(&names);
}
END_TEST

static const char *const no_cursors[] = {
	"x",        "v1",
	"v1.",      "v1.p0",
	"v1..p0",   "v1.0.",
	"v1.0.q",   "v2.0.p0",
	"v1.-1.p0", "v1.99999999999999999999999999.p0",
};

START_TEST(strange_cursors_are_refused)
{
	char *text = many(1, 1, false);
	struct buf b = BUF_INIT(4096);

	mcp_prompts_from_bus(&prompts, parse(text));
	ck_assert_int_lt(mcp_outputs_page(&b, MCP_2025_11_25, &prompts,
	                                  SPAN(no_cursors[_i])),
	                 0);
	free(text);
	buf_deinit(&b);
}
END_TEST

/* What nodes put among their outputs, and what would lead nowhere. */
START_TEST(odd_outputs)
{
	static const char text[] =
		"{\"prompts\":[{\"prompt_id\":\"p\",\"outputs\":{"
		"\"1\":{\"images\":[{\"filename\":\"..\",\"type\":\"output\"},"
		"{\"filename\":\"a/b.png\",\"type\":\"output\"},"
		"{\"filename\":\"x.png\",\"subfolder\":\"..\","
		"\"type\":\"output\"},"
		"{\"filename\":\"y.png\",\"type\":\"secret\"},"
		"{\"filename\":\"\",\"type\":\"output\"},{\"filename\":7},"
		"null,7,[],\"\",{\"filename\":\"ok.png\"}]},"
		"\"2\":{\"text\":\"not a list\",\"x\":{},\"y\":[[\"deep\"]]},"
		"\"3\":[],\"4\":null}},7,{\"prompt_id\":7,\"outputs\":{}},"
		"{\"prompt_id\":\"q\"}]}";
	struct buf b = BUF_INIT(4096);

	mcp_prompts_from_bus(&prompts, parse(text));
	ck_assert_int_eq(
		mcp_outputs_page(&b, MCP_2025_11_25, &prompts, SPAN_NULL), 0);
	ck_assert_str_eq(buf_cstr(&b),
	                 "\"resources\":[{\"uri\":\"comfy://output/"
	                 "ok.png?prompt_id=p\",\"name\":\"ok.png\","
	                 "\"mimeType\":\"image/png\"}]");
	buf_deinit(&b);
}
END_TEST

START_TEST(modified_is_for_versions_that_know_it)
{
	char *text = many(1, 1, false);
	struct buf b = BUF_INIT(4096);

	mcp_prompts_from_bus(&prompts, parse(text));
	(void)mcp_outputs_page(&b, MCP_2025_06_18, &prompts, SPAN_NULL);
	ck_assert_ptr_nonnull(strstr(
		buf_cstr(&b),
		"\"annotations\":{\"lastModified\":\"2025-11-22T20:00:00Z\"}"));
	buf_reset(&b);
	(void)mcp_outputs_page(&b, MCP_2025_03_26, &prompts, SPAN_NULL);
	ck_assert_ptr_null(strstr(buf_cstr(&b), "lastModified"));
	free(text);
	buf_deinit(&b);
}
END_TEST

/* --- reading ------------------------------------------------------------- */

static struct ev_loop *loop;
static struct link *net;
static struct mcp_session *session;
static struct script_server *server;
static struct fake_bus bus;
static char *answer;
static char *history; /* body of /history and /history/{id} */
static const char *view_type;
static char *view_body;
static size_t view_len;
static int view_status;
static char paths[4096]; /* requested, a line each */
static char asked[1024]; /* of the supervisor */

static bool io_respond(void *user, uint64_t line, struct span text)
{
	ck_assert_ptr_null(answer);
	ck_assert_uint_lt(text.n, RPC_REPLY_MAX);
	answer = strndup(text.n ? text.p : "", text.n);
	return true;
}

static bool io_output(void *user, uint64_t line, struct span bytes)
{
	return true;
}

static int io_record(void *user, uint64_t line, struct span record,
                     struct worker_record *r, struct error *err)
{
	return 0;
}

static size_t io_queued(void *user)
{
	return 0;
}

static int io_want_bus(void *user, bool start)
{
	return -1;
}

static void io_ended(void *user)
{
}

static void on_http(void *user, struct script_conn *conn,
                    const struct script_request *req)
{
	size_t n = strlen(paths);

	(void)snprintf(paths + n, sizeof(paths) - n, "%s\n", req->path);
	if (strncmp(req->path, "/history", 8) == 0)
		script_reply(conn, 200, "application/json", history,
		             strlen(history));
	else if (strncmp(req->path, "/view?", 6) == 0)
		script_reply(conn, view_status, view_type, view_body, view_len);
	else
		script_reply(conn, 500, "text/plain", "?", 1);
}

static void open_session(bool tenant)
{
	static const struct mcp_io io = {
		.respond = io_respond,
		.output = io_output,
		.record = io_record,
		.queued = io_queued,
		.want_bus = io_want_bus,
		.ended = io_ended,
	};
	const struct link_config cfg = {.kind = "mcp",
	                                .comfyui = script_server_url(server),
	                                .connect_timeout_ms = 5000,
	                                .request_timeout_ms = 5000,
	                                .poll_interval_ms = 1500,
	                                .tenant = tenant};
	struct mcp_session_config sc = {.loop = loop, .io = &io};

	net = link_new(loop, &cfg, NULL);
	ck_assert_ptr_nonnull(net);
	sc.link = net;
	session = mcp_session_new(&sc, NULL);
	ck_assert_ptr_nonnull(session);
}

static void close_session(void)
{
	session = mcp_session_free(session);
	net = link_free(net);
}

static void setup(void)
{
	loop = ev_loop_new(0);
	server = script_server_new(loop, on_http, NULL);
	ck_assert(loop && server);
	history = recorded_history();
	view_type = "image/png";
	view_body = strdup("\x89PNG\r\n");
	view_len = 6;
	view_status = 200;
	bus.fd = -1;
	open_session(false);
}

static void teardown(void)
{
	close_session();
	fake_bus_close(&bus);
	server = script_server_free(server);
	ev_loop_destroy(loop);
	free(history);
	free(view_body);
	free(answer);
	history = view_body = answer = NULL;
	paths[0] = asked[0] = '\0';
}

/* Method and members of params, modern if `modern`. */
static const char *ask(bool modern, const char *method, const char *params)
{
	static uint64_t line;
	char text[8192];

	free(answer);
	answer = NULL;
	if (!modern) {
		mcp_session_line(session, ++line,
		                 SPAN("{\"jsonrpc\":\"2.0\",\"id\":0,"
		                      "\"method\":\"initialize\",\"params\":{"
		                      "\"protocolVersion\":\"2025-11-25\"}}"));
		free(answer);
		answer = NULL;
	}
	(void)snprintf(text, sizeof(text),
	               "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\","
	               "\"params\":{%s%s\"_meta\":{%s}}}",
	               method, params, *params ? "," : "",
	               modern ? "\"io.modelcontextprotocol/protocolVersion\":"
	                        "\"2026-07-28\",\"io.modelcontextprotocol/"
	                        "clientCapabilities\":{}"
	                      : "");
	mcp_session_line(session, ++line, SPAN(text));
	run_until(loop, answer);
	return answer;
}

static void has(const char *text, const char *what)
{
	ck_assert_msg(strstr(text, what) != NULL, "%s is not in\n%.2000s", what,
	              text);
}

static const char not_found[] =
	"\"error\":{\"code\":-32002,\"message\":\"Resource not found\"";

START_TEST(lists_without_a_supervisor)
{
	has(ask(false, "resources/list", ""), "\"" FILE_OF_ID "\"");
	has(paths, "/history?max_items=200\n");
	ck_assert_ptr_null(strstr(answer, "ttlMs"));
	/* What changes with every prompt is not to be kept. */
	has(ask(true, "resources/list", ""),
	    "\"ttlMs\":0,\"cacheScope\":\"private\"");
	has(ask(false, "resources/list", "\"cursor\":\"bogus\""),
	    "\"code\":-32602");
}
END_TEST

START_TEST(reads_a_file)
{
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"result\":{\"contents\":[{\"uri\":\"" FILE_OF_ID
	    "\",\"mimeType\":\"image/png\",\"blob\":\"iVBORw0K\"}]}}");
	has(paths, "/history/" ID "\n");
	has(paths, "filename=multi_00002_.png");
	has(paths, "type=output");
	has(ask(true, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"blob\":\"iVBORw0K\"}],\"ttlMs\":0,\"cacheScope\":\"private\","
	    "\"_meta\":");
	has(answer, "\"result\":{\"resultType\":\"complete\",");
}
END_TEST

START_TEST(reads_without_a_prompt)
{
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://output/rec13anim_00001_.webp\""),
	    "\"blob\":");
	has(paths, "/history?max_items=200\n");
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://output/rec13anim_00002_.webp\""),
	    not_found);
}
END_TEST

START_TEST(reads_a_text)
{
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://text/4/text/0?prompt_id=" ID "\""),
	    "\"mimeType\":\"text/plain\",\"text\":\"h\xc3\xa9llo "
	    "\xe4\xb8\x96\xe7\x95\x8c \xf0\x9f\x98\x80 \\\"quoted\\\"\\nline2\"");
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://text/4/text/1?prompt_id=" ID "\""),
	    not_found);
}
END_TEST

START_TEST(reads_text_files_as_text)
{
	view_type = "text/plain; charset=utf-8";
	free(view_body);
	view_body = strdup("a\n\xc3\xa4");
	view_len = 4;
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"mimeType\":\"text/plain\",\"text\":\"a\\n\xc3\xa4\"");
	/* Says it is text, and isn't. */
	view_body[2] = '\xff';
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"mimeType\":\"text/plain\",\"blob\":\"YQr/pA==\"");
	/* A server that doesn't know. */
	view_type = "application/octet-stream";
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"mimeType\":\"image/png\"");
}
END_TEST

/* Another prompt's file, though ComfyUI would give it away. */
START_TEST(only_outputs_of_the_prompt)
{
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://output/secret.png?prompt_id=" ID "\""),
	    not_found);
	has(answer,
	    "\"data\":{\"uri\":\"comfy://output/secret.png?prompt_id=" ID
	    "\"}");
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://temp/rec13/sub/multi_00002_.png?prompt_id=" ID
	        "\""),
	    not_found);
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://output/multi_00002_.png?prompt_id=" ID "\""),
	    not_found);
	ck_assert_ptr_null(strstr(paths, "/view"));
	free(history);
	history = strdup("{}");
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    not_found);
	view_status = 404;
	free(history);
	history = recorded_history();
	has(ask(true, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"error\":{\"code\":-32602,\"message\":\"Resource not found\","
	    "\"data\":{\"uri\":\"" FILE_OF_ID "\"}}");
}
END_TEST

START_TEST(sizes_at_the_bound)
{
	free(view_body);
	view_len = INLINE_MAX;
	view_body = calloc(1, view_len + 1);
	ck_assert_ptr_nonnull(view_body);
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"blob\":\"AAAA");
	view_len++;
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "save it with download_by_filename");
	has(answer, "\"code\":-32603");
}
END_TEST

START_TEST(comfyui_is_away)
{
	script_server_free(server);
	server = NULL;
	has(ask(false, "resources/list", ""), "\"error\":{\"code\":-32603,");
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"error\":{\"code\":-32603,");
	has(ask(false, "resources/read", "\"uri\":\"comfy://output/..\""),
	    not_found);
}
END_TEST

START_TEST(a_tenant_sees_its_own_session_only)
{
	close_session();
	open_session(true);
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    not_found);
	ck_assert_str_eq(paths, "");
	has(ask(false, "resources/list", ""), "\"resources\":[]");
	ck_assert_int_eq(link_claim(net, ID), 0);
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    "\"blob\":");
	has(ask(false, "resources/list", ""), FILE_OF_ID);
}
END_TEST

/* --- with a supervisor --------------------------------------------------- */

static void on_bus_request(struct fake_bus *b, const char *op, struct json req)
{
	struct json id = json_get(req, "prompt_id");

	(void)snprintf(asked, sizeof(asked), "%s %.*s", op, (int)req.text.n,
	               req.text.p);
	if (strcmp(op, "history") == 0) {
		fake_bus_reply(b, req,
		               "{\"prompts\":[{\"prompt_id\":\"mine\","
		               "\"outputs\":{\"9\":{\"images\":[{"
		               "\"filename\":\"m.png\",\"subfolder\":\"\","
		               "\"type\":\"output\"}]}}}]}");
	} else if (json_string_eq(id, "mine")) {
		fake_bus_reply(b, req,
		               "{\"prompt_id\":\"mine\",\"outputs\":{\"9\":{"
		               "\"images\":[{\"filename\":\"m.png\","
		               "\"subfolder\":\"\",\"type\":\"output\"}]}}}");
	} else {
		fake_bus_refuse(b, req, "not_found", NULL);
	}
}

START_TEST(the_supervisor_says_whose_it_is)
{
	bus.on_request = on_bus_request;
	fake_bus_connect(&bus, loop, net);
	has(ask(false, "resources/list", ""),
	    "\"comfy://output/m.png?prompt_id=mine\"");
	has(asked, "history ");
	has(asked, "\"limit\":200");
	has(ask(false, "resources/read",
	        "\"uri\":\"comfy://output/m.png?prompt_id=mine\""),
	    "\"blob\":");
	has(asked, "progress ");
	/* In ComfyUI's history, and somebody else's. */
	has(ask(false, "resources/read", "\"uri\":\"" FILE_OF_ID "\""),
	    not_found);
	ck_assert_ptr_null(strstr(paths, "/history"));
}
END_TEST

static void on_bus_break(struct fake_bus *b, const char *op, struct json req)
{
	fake_bus_close(b);
}

START_TEST(a_bus_that_breaks_is_made_up_for)
{
	bus.on_request = on_bus_break;
	fake_bus_connect(&bus, loop, net);
	has(ask(false, "resources/list", ""), FILE_OF_ID);
	has(paths, "/history?max_items=200\n");
}
END_TEST

static Suite *mcp_resources_suite(void)
{
	Suite *s = suite_create("mcp_resources");
	TCase *t = tcase_create("uris");

	tcase_add_loop_test(t, uris_of_files_lead_back, 0,
	                    (int)ARRAY_SIZE(files));
	tcase_add_test(t, uris_of_texts_lead_back);
	tcase_add_loop_test(t, others_are_refused, 0, (int)ARRAY_SIZE(no_uris));
	tcase_add_test(t, uris_are_bounded);
	tcase_add_test(t, types_by_extension);
	suite_add_tcase(s, t);
	t = tcase_create("list");
	tcase_add_test(t, lists_what_was_recorded);
	tcase_add_loop_test(t, pages_miss_nothing, 0,
	                    2 * (int)ARRAY_SIZE(shapes));
	tcase_add_test(t, a_page_goes_on_where_the_last_ended);
	tcase_add_loop_test(t, strange_cursors_are_refused, 0,
	                    (int)ARRAY_SIZE(no_cursors));
	tcase_add_test(t, odd_outputs);
	tcase_add_test(t, modified_is_for_versions_that_know_it);
	suite_add_tcase(s, t);
	t = tcase_create("read");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, lists_without_a_supervisor);
	tcase_add_test(t, reads_a_file);
	tcase_add_test(t, reads_without_a_prompt);
	tcase_add_test(t, reads_a_text);
	tcase_add_test(t, reads_text_files_as_text);
	tcase_add_test(t, only_outputs_of_the_prompt);
	tcase_add_test(t, sizes_at_the_bound);
	tcase_add_test(t, comfyui_is_away);
	tcase_add_test(t, a_tenant_sees_its_own_session_only);
	tcase_add_test(t, the_supervisor_says_whose_it_is);
	tcase_add_test(t, a_bus_that_breaks_is_made_up_for);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(mcp_resources_suite());
}
