/*
 * mcp_resources.c - resources/list, resources/templates/list, resources/read.
 *
 * Only outputs of the caller's own prompts are resources. The supervisor knows
 * which those are; without one it is what ComfyUI's history has, as far as this
 * session may look at it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/utf8.h"
#include "workers/mcp_describe.h"
#include "workers/mcp_outputs.h"
#include "workers/mcp_private.h"
#include "workers/mcp_result.h"

/* Bytes of a file that a reply holds: base64 makes four of three. */
#define FILE_MAX ((size_t)(RPC_REPLY_MAX - (64u << 10)) / 4 * 3)
#define DATA_MAX (MCP_URI_MAX + 64)

struct job {
	struct mcp_request *r;
	bool is_read;
	struct mcp_uri uri;   /* of a read */
	struct span uri_text; /* its JSON text */
	uint64_t ask;
	struct comfy_call *call;
	bool holds_api;
};

/* --- ends ---------------------------------------------------------------- */

static void job_free(struct job *j)
{
	struct link *l = j->r->session->link;

	link_forget(l, j->ask);
	if (j->call)
		comfy_call_cancel(j->call);
	if (j->holds_api)
		link_api_release(l);
	mcp_uri_deinit(&j->uri);
	j->r->job = NULL;
	free(j);
}

void mcp_resources_drop(struct mcp_request *r, bool stop)
{
	job_free(r->job);
}

static void fail(struct job *j, const char *text)
{
	struct mcp_request *r = j->r;

	job_free(j);
	mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL, "%s", text);
}

static void not_found(struct mcp_request *r, struct span uri)
{
	cleanup_buf struct buf data = BUF_INIT(DATA_MAX);

	/* One that is too long to be ours is not repeated. */
	(void)buf_puts(&data, "{\"uri\":");
	if (uri.n <= MCP_URI_MAX)
		(void)buf_append(&data, uri.p, uri.n);
	else
		(void)buf_puts(&data, "\"\"");
	(void)buf_putc(&data, '}');
	if (r->job)
		job_free(r->job);
	mcp_refuse(r,
	           mcp_is_modern(r->version) ? RPC_INVALID_PARAMS
	                                     : RPC_RESOURCE_NOT_FOUND,
	           span_make(data.data, data.len), "Resource not found");
}

static struct job *job_new(struct mcp_request *r)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j) {
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL, "Out of memory");
		return NULL;
	}
	j->r = r;
	r->job = j;
	return j;
}

static struct comfy_api *api_of(struct job *j, struct error *err)
{
	struct link *l = j->r->session->link;
	struct comfy_api *api = link_api(l, err);

	if (api && !j->holds_api) {
		link_api_hold(l);
		j->holds_api = true;
	}
	return api;
}

/* --- contents ------------------------------------------------------------ */

static void open_content(struct buf *b, const struct job *j, const char *mime)
{
	(void)mcp_result_open(b, j->r->version);
	(void)buf_json_key(b, "contents");
	(void)buf_puts(b, "[{\"uri\":");
	(void)buf_append(b, j->uri_text.p, j->uri_text.n);
	(void)buf_json_key(b, "mimeType");
	(void)buf_json_string(b, mime, strlen(mime));
}

static void close_content(struct buf *b, const struct job *j)
{
	(void)buf_puts(b, "}]");
	(void)mcp_result_ttl(b, j->r->version, 0);
	(void)mcp_result_close(b, j->r->version);
}

static bool is_utf8(struct span s)
{
	for (size_t i = 0; i < s.n;) {
		size_t n =
			utf8_char_len((const unsigned char *)s.p + i, s.n - i);

		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

static bool is_text_type(const char *mime)
{
	return strncmp(mime, "text/", 5) == 0 ||
	       strcmp(mime, "application/json") == 0;
}

static void answer_bytes(struct job *j, const char *mime, struct span bytes)
{
	cleanup_buf struct buf b = BUF_INIT(MCP_RESULT_MAX);
	struct mcp_request *r = j->r;

	if (is_text_type(mime) && is_utf8(bytes)) {
		open_content(&b, j, mime);
		(void)buf_json_key(&b, "text");
		(void)buf_json_string(&b, bytes.p, bytes.n);
		close_content(&b, j);
	}
	/* Not a text, or one with too many escapes in it. */
	if (b.len == 0 || !buf_ok(&b)) {
		buf_reset(&b);
		open_content(&b, j, mime);
		(void)buf_puts(&b, ",\"blob\":\"");
		(void)buf_base64(&b, bytes.p, bytes.n);
		(void)buf_putc(&b, '"');
		close_content(&b, j);
	}
	job_free(j);
	mcp_answer_buf(r, &b);
}

static void on_view(void *user, const struct comfy_result *v)
{
	struct job *j = user;

	j->call = NULL;
	if (v->outcome == COMFY_OK) {
		/* The server's word, but for files it has no name for. */
		const char *mime =
			v->content_type && v->content_type[0] &&
					strcmp(v->content_type,
		                               "application/octet-stream") != 0
				? v->content_type
				: tool_mime_of(j->uri.filename);

		answer_bytes(j, mime, v->raw);
	} else if (v->outcome == COMFY_E_NOT_FOUND) {
		not_found(j->r, j->uri_text);
	} else if (v->error.code == ERR_LIMIT) {
		char text[256];

		(void)snprintf(text, sizeof(text),
		               "The file is larger than the %zu bytes that "
		               "fit; save it with download_by_filename",
		               FILE_MAX);
		fail(j, text);
	} else {
		fail(j, v->error.text);
	}
}

/* `element` is what the prompt's outputs have of it. */
static void read_element(struct job *j, struct json element)
{
	struct error err = ERROR_NULL;
	const struct comfy_view view = {.filename = j->uri.filename,
	                                .subfolder = j->uri.subfolder,
	                                .type = j->uri.type,
	                                .reply_max = FILE_MAX};
	struct comfy_api *api;

	if (json_is(element, JSON_NONE)) {
		not_found(j->r, j->uri_text);
		return;
	}
	if (json_is(element, JSON_STRING)) {
		cleanup_buf struct buf text = BUF_INIT(FILE_MAX);

		if (json_string_decode(element, &text) < 0)
			fail(j, "The text is too long");
		else
			answer_bytes(j, "text/plain",
			             span_make(text.data, text.len));
		return;
	}
	api = api_of(j, &err);
	j->call = api ? comfy_get_view(api, &view, on_view, j, &err) : NULL;
	if (!j->call)
		fail(j, err.text);
}

/* --- where the outputs come from ----------------------------------------- */

static void take_prompts(struct job *j, const struct mcp_prompts *ps)
{
	cleanup_buf struct buf b = BUF_INIT(MCP_RESULT_MAX);
	struct mcp_request *r = j->r;
	struct span cursor;
	int e;

	if (j->is_read) {
		read_element(j, mcp_outputs_find(ps, &j->uri));
		return;
	}
	cursor = json_raw_string(json_get(r->params, "cursor"));
	(void)mcp_result_open(&b, r->version);
	e = mcp_outputs_page(&b, r->version, ps, cursor);
	(void)mcp_result_ttl(&b, r->version, 0);
	(void)mcp_result_close(&b, r->version);
	job_free(j);
	if (e == -ENOENT)
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL, "Unknown cursor");
	else
		mcp_answer_buf(r, &b);
}

/* Of several tenants' prompts, only those of this session. */
static void keep_visible(const struct link *l, struct mcp_prompts *ps)
{
	size_t kept = 0;

	for (size_t i = 0; i < ps->count; i++) {
		cleanup_free char *id =
			json_string_dup(ps->list[i].id, MCP_URI_PROMPT_MAX);

		if (id && link_may_see(l, id))
			ps->list[kept++] = ps->list[i];
	}
	ps->count = kept;
}

static void on_comfy_history(void *user, const struct comfy_result *h)
{
	struct job *j = user;
	struct mcp_prompts *ps;

	j->call = NULL;
	if (h->outcome != COMFY_OK) {
		fail(j, h->error.text);
		return;
	}
	ps = malloc(sizeof(*ps));
	if (!ps) {
		fail(j, "Out of memory");
		return;
	}
	mcp_prompts_from_comfy(ps, h->body);
	keep_visible(j->r->session->link, ps);
	take_prompts(j, ps);
	free(ps);
}

static void on_comfy_entry(void *user, const struct comfy_history *h)
{
	struct job *j = user;
	const struct mcp_prompt one = {.outputs =
	                                       json_get(h->entry, "outputs")};

	j->call = NULL;
	if (h->r.outcome != COMFY_OK)
		fail(j, h->r.error.text);
	else
		read_element(j, mcp_outputs_find_in(&one, &j->uri));
}

static void ask_comfy(struct job *j)
{
	struct link *l = j->r->session->link;
	const char *id = j->uri.prompt_id;
	struct error err = ERROR_NULL;
	struct comfy_api *api;

	if (id && !link_may_see(l, id)) {
		not_found(j->r, j->uri_text);
		return;
	}
	api = api_of(j, &err);
	if (api)
		j->call =
			id ? comfy_get_history(api, id, on_comfy_entry, j, &err)
			   : comfy_list_history(api, MCP_PROMPTS_MAX,
		                                on_comfy_history, j, &err);
	if (!j->call)
		fail(j, err.text);
}

static void on_bus_answer(void *user, const struct incoming *in,
                          const struct error *err)
{
	struct job *j = user;

	j->ask = 0;
	if (!in) {
		if (err && err->code != ERR_UNREACHABLE)
			fail(j, err->text);
		else
			ask_comfy(j);
	} else if (err && err->code == ERR_NOT_FOUND && j->is_read) {
		not_found(j->r, j->uri_text);
	} else if (err) {
		fail(j, err->text);
	} else if (j->uri.prompt_id) {
		const struct mcp_prompt one = {
			.outputs = json_get(in->result, "outputs")};

		read_element(j, mcp_outputs_find_in(&one, &j->uri));
	} else {
		struct mcp_prompts *ps = malloc(sizeof(*ps));

		if (!ps) {
			fail(j, "Out of memory");
			return;
		}
		mcp_prompts_from_bus(ps, in->result);
		take_prompts(j, ps);
		free(ps);
	}
}

static void ask(struct job *j)
{
	struct link *l = j->r->session->link;
	cleanup_buf struct buf params = BUF_INIT(1024);
	const char *id = j->uri.prompt_id;
	struct error err = ERROR_NULL;

	if (!link_on_bus(l)) {
		ask_comfy(j);
		return;
	}
	if (id) {
		(void)buf_puts(&params, "{\"prompt_id\":");
		(void)buf_json_string(&params, id, strlen(id));
		(void)buf_putc(&params, '}');
	} else {
		(void)buf_printf(&params, "{\"limit\":%d}", MCP_PROMPTS_MAX);
	}
	j->ask = link_ask(l, id ? OP_PROGRESS : OP_HISTORY,
	                  span_make(params.data, params.len), 0, on_bus_answer,
	                  j, &err);
	if (!j->ask)
		fail(j, err.text);
}

/* --- methods ------------------------------------------------------------- */

void mcp_resources_list(struct mcp_request *r)
{
	struct json cursor = json_get(r->params, "cursor");
	struct job *j;

	if (!json_is(cursor, JSON_NONE) &&
	    (!json_is(cursor, JSON_STRING) || json_raw_string(cursor).n == 0)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL, "Unknown cursor");
		return;
	}
	j = job_new(r);
	if (j)
		ask(j);
}

void mcp_resources_read(struct mcp_request *r)
{
	cleanup_buf struct buf text = BUF_INIT(MCP_URI_MAX);
	struct json uri = json_get(r->params, "uri");
	struct job *j;

	if (!json_is(uri, JSON_STRING)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL,
		           "uri must be a string");
		return;
	}
	j = job_new(r);
	if (!j)
		return;
	j->is_read = true;
	j->uri_text = uri.text;
	if (json_string_decode(uri, &text) < 0 ||
	    mcp_uri_parse(&j->uri, span_make(text.data, text.len)) < 0)
		not_found(r, uri.text);
	else
		ask(j);
}

void mcp_templates_list(struct mcp_request *r)
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	enum mcp_version v = r->version;

	/* No page of ours ends with a cursor here. */
	if (!json_is(json_get(r->params, "cursor"), JSON_NONE)) {
		mcp_refuse(r, RPC_INVALID_PARAMS, SPAN_NULL, "Unknown cursor");
		return;
	}
	(void)mcp_result_open(&b, v);
	(void)buf_json_key(&b, "resourceTemplates");
	(void)buf_puts(&b, "[{\"uriTemplate\":\"" MCP_URI_TEMPLATE
	                   "\",\"name\":\"output\"");
	if (mcp_has_structured(v))
		(void)buf_puts(&b, ",\"title\":\"File made by a workflow\"");
	(void)buf_puts(&b, ",\"description\":\"An output file of one of your "
	                   "prompts: type is output or temp, path its "
	                   "subfolder and filename as a result names them.\""
	                   "}]");
	(void)mcp_result_ttl(&b, v, MCP_STATIC_TTL_MS);
	(void)mcp_result_close(&b, v);
	mcp_answer_buf(r, &b);
}
