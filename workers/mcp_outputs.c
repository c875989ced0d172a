/*
 * mcp_outputs.c - see mcp_outputs.h.
 *
 * A cursor is where the next page starts, "v1.ORDINAL.PROMPT": new prompts come
 * in front of it, so nothing is listed twice or left out.
 */
#include "workers/mcp_outputs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/macros.h"
#include "workers/mcp_tools.h"

#define CURSOR_PREFIX "v1."
#define STRING_MAX    4096 /* bytes of a name in an output */

/* --- prompts ------------------------------------------------------------- */

static void add_prompt(struct mcp_prompts *ps, struct json id,
                       struct json outputs, int64_t ended_ms)
{
	if (ps->count < MCP_PROMPTS_MAX && json_is(id, JSON_STRING) &&
	    json_is(outputs, JSON_OBJECT))
		ps->list[ps->count++] = (struct mcp_prompt){
			.id = id, .outputs = outputs, .ended_ms = ended_ms};
}

void mcp_prompts_from_bus(struct mcp_prompts *ps, struct json result)
{
	struct json_iter it;
	struct json p;

	ps->count = 0;
	json_iter_init(&it, json_get(result, "prompts"));
	while (json_iter_next(&it, NULL, &p)) {
		int64_t ended_ms = 0;

		(void)json_int64(json_get(p, "ended_at"), &ended_ms);
		add_prompt(ps, json_get(p, "prompt_id"), json_get(p, "outputs"),
		           ended_ms);
	}
}

void mcp_prompts_from_comfy(struct mcp_prompts *ps, struct json body)
{
	size_t count = json_count(body), skip;
	struct json_iter it;
	struct json id, entry;

	/* The newest are last; of more than we take, the first are left out. */
	skip = count > MCP_PROMPTS_MAX ? count - MCP_PROMPTS_MAX : 0;
	ps->count = 0;
	json_iter_init(&it, body);
	while (json_iter_next(&it, &id, &entry)) {
		if (skip > 0)
			skip--;
		else
			add_prompt(ps, id, json_get(entry, "outputs"), 0);
	}
	for (size_t i = 0; i < ps->count / 2; i++) {
		struct mcp_prompt swap = ps->list[i];

		ps->list[i] = ps->list[ps->count - 1 - i];
		ps->list[ps->count - 1 - i] = swap;
	}
}

/* --- walking ------------------------------------------------------------- */

/* A place in a prompt's outputs; starts zeroed but for the prompt. */
struct walk {
	const struct mcp_prompt *prompt;
	struct json_iter nodes, keys, elements;
	bool begun;
	/* what next_output() found */
	struct json node, key, element;
	size_t index;
};

static bool is_output(struct json element)
{
	if (json_is(element, JSON_STRING))
		return json_raw_string(element).n > 0;
	return json_is(json_get(element, "filename"), JSON_STRING) &&
	       json_raw_string(json_get(element, "filename")).n > 0;
}

/* The next file or text; false at the end. Other things that nodes put among
 * their outputs ("animated": [true]) are passed over. */
static bool next_output(struct walk *w)
{
	struct json value;

	if (!w->begun) {
		w->begun = true;
		json_iter_init(&w->nodes, w->prompt->outputs);
		json_iter_init(&w->keys, JSON_MISSING);
		json_iter_init(&w->elements, JSON_MISSING);
	}
	for (;;) {
		while (json_iter_next(&w->elements, NULL, &w->element)) {
			w->index++;
			if (is_output(w->element))
				return true;
		}
		if (json_iter_next(&w->keys, &w->key, &value)) {
			json_iter_init(&w->elements, json_is(value, JSON_ARRAY)
			                                     ? value
			                                     : JSON_MISSING);
			w->index = 0;
		} else if (json_iter_next(&w->nodes, &w->node, &value)) {
			json_iter_init(&w->keys, value);
		} else {
			return false;
		}
	}
}

/* Decoded strings of a file's element; "" where one is missing. */
struct file_names {
	char *type, *subfolder, *filename;
};

static char *dup_or_empty(struct json j, const char *other)
{
	char *s = json_string_dup(j, STRING_MAX);

	return s ? s : strdup(other);
}

static bool file_names_get(struct file_names *f, struct json element)
{
	f->type = dup_or_empty(json_get(element, "type"), "output");
	f->subfolder = dup_or_empty(json_get(element, "subfolder"), "");
	f->filename = dup_or_empty(json_get(element, "filename"), "");
	return f->type && f->subfolder && f->filename;
}

static void file_names_free(struct file_names *f)
{
	free(f->type);
	free(f->subfolder);
	free(f->filename);
}

/* --- listing ------------------------------------------------------------- */

static void put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static void put_modified(struct buf *out, int64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	char text[32];
	struct tm tm;

	if (ms <= 0 || !gmtime_r(&seconds, &tm) ||
	    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return;
	(void)buf_printf(out, ",\"annotations\":{\"lastModified\":\"%s\"}",
	                 text);
}

/* False: it has no URI that would lead back to it, so it isn't listed. */
static bool put_uri(struct buf *uri, const char *prompt_id,
                    const struct file_names *f, const struct walk *w)
{
	struct mcp_uri parsed;

	if (json_is(w->element, JSON_STRING)) {
		cleanup_free char *node = json_string_dup(w->node, STRING_MAX);
		cleanup_free char *key = json_string_dup(w->key, STRING_MAX);

		if (!node || !key)
			return false;
		(void)mcp_uri_text(uri, prompt_id, node, key, w->index - 1);
	} else {
		(void)tool_output_uri(uri, prompt_id, f->type, f->subfolder,
		                      f->filename);
	}
	if (!buf_ok(uri) ||
	    mcp_uri_parse(&parsed, span_make(uri->data, uri->len)) < 0)
		return false;
	mcp_uri_deinit(&parsed);
	return true;
}

static bool put_resource(struct buf *out, enum mcp_version v,
                         const char *prompt_id, const struct walk *w)
{
	cleanup_buf struct buf uri = BUF_INIT(MCP_URI_MAX);
	struct span node = json_raw_string(w->node);
	bool is_text = json_is(w->element, JSON_STRING);
	struct file_names f = {NULL, NULL, NULL};
	bool ok = file_names_get(&f, w->element) &&
	          put_uri(&uri, prompt_id, &f, w);

	if (ok) {
		if (out->data[out->len - 1] == '}')
			(void)buf_putc(out, ',');
		(void)buf_putc(out, '{');
		(void)buf_json_key(out, "uri");
		(void)buf_json_string(out, uri.data, uri.len);
		(void)buf_json_key(out, "name");
		if (is_text)
			(void)buf_printf(out, "\"text of node %.*s\"",
			                 (int)node.n, node.p);
		else
			(void)buf_json_string(out, f.filename,
			                      strlen(f.filename));
		put_string(out, "mimeType",
		           is_text ? "text/plain" : tool_mime_of(f.filename));
		if (mcp_has_structured(v))
			put_modified(out, w->prompt->ended_ms);
		(void)buf_putc(out, '}');
	}
	file_names_free(&f);
	return ok;
}

static int parse_cursor(const struct mcp_prompts *ps, struct span cursor,
                        size_t *promptp, size_t *ordinalp)
{
	size_t prefix = strlen(CURSOR_PREFIX), i = prefix, n = 0;

	if (cursor.n <= prefix || cursor.n > MCP_CURSOR_MAX ||
	    memcmp(cursor.p, CURSOR_PREFIX, prefix) != 0)
		return -ENOENT;
	for (; i < cursor.n && cursor.p[i] >= '0' && cursor.p[i] <= '9' &&
	       n < SIZE_MAX / 100;
	     i++)
		n = n * 10 + (size_t)(cursor.p[i] - '0');
	if (i == prefix || i >= cursor.n || cursor.p[i] != '.')
		return -ENOENT;
	cursor = span_make(cursor.p + i + 1, cursor.n - i - 1);
	for (size_t p = 0; p < ps->count; p++)
		if (span_eq(json_raw_string(ps->list[p].id), cursor)) {
			*promptp = p;
			*ordinalp = n;
			return 0;
		}
	return -ENOENT;
}

/* Lists outputs of one prompt from the `*ordinalp`-th on. True: the page is
 * full, and `*ordinalp` is where the next one starts. */
static bool put_prompt(struct buf *out, enum mcp_version v,
                       const struct mcp_prompt *p, size_t *ordinalp,
                       size_t *on_page)
{
	cleanup_free char *id = json_string_dup(p->id, MCP_URI_PROMPT_MAX);
	struct walk w = {.prompt = p};
	size_t ordinal = 0;

	while (id && next_output(&w)) {
		if (ordinal++ < *ordinalp)
			continue;
		if (*on_page == MCP_PAGE_MAX) {
			*ordinalp = ordinal - 1;
			return true;
		}
		if (put_resource(out, v, id, &w))
			(*on_page)++;
	}
	*ordinalp = 0;
	return false;
}

int mcp_outputs_page(struct buf *out, enum mcp_version v,
                     const struct mcp_prompts *ps, struct span cursor)
{
	size_t i = 0, ordinal = 0, on_page = 0;
	bool full = false;

	if (cursor.n > 0 && parse_cursor(ps, cursor, &i, &ordinal) < 0)
		return -ENOENT;
	(void)buf_json_key(out, "resources");
	(void)buf_putc(out, '[');
	for (; i < ps->count && buf_ok(out); i++) {
		full = put_prompt(out, v, &ps->list[i], &ordinal, &on_page);
		if (full)
			break;
	}
	(void)buf_putc(out, ']');
	if (full) {
		struct span id = json_raw_string(ps->list[i].id);

		(void)buf_json_key(out, "nextCursor");
		(void)buf_printf(out, "\"" CURSOR_PREFIX "%zu.%.*s\"", ordinal,
		                 (int)id.n, id.p);
	}
	return buf_ok(out) ? 0 : -EMSGSIZE;
}

/* --- finding ------------------------------------------------------------- */

static bool is_meant(const struct walk *w, const struct mcp_uri *u)
{
	struct json folder = json_get(w->element, "subfolder");
	struct json type = json_get(w->element, "type");

	if (u->is_text)
		return json_is(w->element, JSON_STRING) &&
		       w->index - 1 == u->index &&
		       json_string_eq(w->node, u->node) &&
		       json_string_eq(w->key, u->key);
	return json_is(w->element, JSON_OBJECT) &&
	       json_string_eq(json_get(w->element, "filename"), u->filename) &&
	       (json_is(type, JSON_STRING) ? json_string_eq(type, u->type)
	                                   : strcmp(u->type, "output") == 0) &&
	       (json_is(folder, JSON_STRING)
	                ? json_string_eq(folder, u->subfolder)
	                : *u->subfolder == '\0');
}

struct json mcp_outputs_find_in(const struct mcp_prompt *p,
                                const struct mcp_uri *u)
{
	struct walk w = {.prompt = p};

	while (next_output(&w))
		if (is_meant(&w, u))
			return w.element;
	return JSON_MISSING;
}

struct json mcp_outputs_find(const struct mcp_prompts *ps,
                             const struct mcp_uri *u)
{
	for (size_t i = 0; i < ps->count; i++) {
		struct json found;

		if (u->prompt_id &&
		    !json_string_eq(ps->list[i].id, u->prompt_id))
			continue;
		found = mcp_outputs_find_in(&ps->list[i], u);
		if (!json_is(found, JSON_NONE))
			return found;
	}
	return JSON_MISSING;
}
