/*
 * tool_admin.c - the tools that tell of the server: get_node_info,
 * search_nodes, get_system_resources. Nothing of anybody's prompts.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/url.h"
#include "workers/tool_ask.h"
#include "workers/tool_code.h"

#define RESULT_BYTES  (9u << 20)
#define OPTIONS_SHOWN 50  /* of an input's choices */
#define DOC_BYTES     400 /* of a node's description */
#define INFO_BYTES    (256u << 10)

struct look {
	struct comfy_call *call;
	bool holds_api;
	char *text;    /* class_type, or query in lower case */
	int64_t limit; /* search_nodes */
};

void tool_look_destroy(struct tool_call *c)
{
	struct look *k = c->state;

	if (!k)
		return;
	if (k->call)
		comfy_call_cancel(k->call);
	if (k->holds_api)
		link_api_release(c->host->link);
	free(k->text);
	free(k);
}

static struct look *look_new(struct tool_call *c, const char *key)
{
	struct look *k = calloc(1, sizeof(*k));

	c->state = k;
	if (k && key)
		k->text = tool_arg_string(c, key);
	if (!k || (key && !k->text)) {
		tool_fail(c, "internal", "out of memory", NULL);
		return NULL;
	}
	return k;
}

static void look_get(struct tool_call *c, const char *path, comfy_cb *cb)
{
	struct look *k = c->state;
	struct error err = ERROR_NULL;
	struct comfy_api *api = link_api(c->host->link, &err);

	if (api) {
		link_api_hold(c->host->link);
		k->holds_api = true;
		k->call = comfy_get_json(api, path, cb, c, &err);
	}
	if (!k->call)
		tool_fail(c, error_code_name(err.code), err.text, NULL);
}

static bool look_failed(struct tool_call *c, const struct comfy_result *r)
{
	struct look *k = c->state;

	k->call = NULL;
	if (r->outcome == COMFY_OK)
		return false;
	tool_fail(c, error_code_name(r->error.code), r->error.text, NULL);
	return true;
}

/* --- get_system_resources ------------------------------------------------ */

static void on_stats(void *user, const struct comfy_result *r)
{
	struct tool_call *c = user;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	if (look_failed(c, r))
		return;
	(void)json_compact(&out, r->body);
	tool_finish(c, &out, false, NULL, 0);
}

void tool_resources_start(struct tool_call *c)
{
	if (look_new(c, NULL))
		look_get(c, "/system_stats", on_stats);
}

/* --- get_node_info ------------------------------------------------------- */

/* An input is [type or choices, options]; long lists of choices (files of a
 * folder) are cut. */
static void put_input(struct buf *out, struct json input)
{
	struct json choices = json_at(input, 0), item;
	struct json_iter it;
	size_t n = 0;

	if (!json_is(choices, JSON_ARRAY)) {
		(void)json_compact(out, input);
		return;
	}
	(void)buf_puts(out, "[[");
	json_iter_init(&it, choices);
	while (n < OPTIONS_SHOWN && json_iter_next(&it, NULL, &item)) {
		if (n++ > 0)
			(void)buf_putc(out, ',');
		(void)json_compact(out, item);
	}
	(void)buf_putc(out, ']');
	item = json_at(input, 1);
	if (json_is(item, JSON_OBJECT)) {
		(void)buf_putc(out, ',');
		(void)json_compact(out, item);
	}
	if (json_count(choices) > n)
		(void)buf_printf(out, ",{\"choices_in_all\":%zu}",
		                 json_count(choices));
	(void)buf_putc(out, ']');
}

/* {"required": {...}, "optional": {...}} */
static void put_inputs(struct buf *out, struct json input)
{
	struct json_iter groups, inputs;
	struct json group, members, key, value;
	bool first = true;

	(void)buf_json_key(out, "input");
	(void)buf_putc(out, '{');
	json_iter_init(&groups, input);
	while (json_iter_next(&groups, &group, &members)) {
		bool first_input = true;

		(void)buf_puts(out, first ? "" : ",");
		first = false;
		(void)json_compact(out, group);
		(void)buf_puts(out, ":{");
		json_iter_init(&inputs, members);
		while (json_iter_next(&inputs, &key, &value)) {
			(void)buf_puts(out, first_input ? "" : ",");
			first_input = false;
			(void)json_compact(out, key);
			(void)buf_putc(out, ':');
			put_input(out, value);
		}
		(void)buf_putc(out, '}');
	}
	(void)buf_putc(out, '}');
}

static void on_node(void *user, const struct comfy_result *r)
{
	static const char *const keys[] = {
		"display_name", "description", "category",   "output",
		"output_name",  "output_node", "deprecated", "experimental",
	};
	struct tool_call *c = user;
	const struct look *k = c->state;
	cleanup_buf struct buf out = BUF_INIT(INFO_BYTES);
	struct json node;

	if (look_failed(c, r))
		return;
	node = json_get(r->body, k->text);
	if (!json_is(node, JSON_OBJECT)) {
		tool_fail(c, "not_found",
		          "this ComfyUI has no node class of that name; "
		          "search_nodes finds the ones it has (names are "
		          "case-sensitive)",
		          NULL);
		return;
	}
	(void)buf_putc(&out, '{');
	(void)buf_json_key(&out, "class_type");
	(void)buf_json_string(&out, k->text, strlen(k->text));
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		tool_put_member(&out, keys[i], json_get(node, keys[i]));
	put_inputs(&out, json_get(node, "input"));
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

void tool_node_start(struct tool_call *c)
{
	cleanup_buf struct buf path = BUF_INIT(4096);
	struct look *k = look_new(c, "class_type");

	if (!k)
		return;
	(void)buf_puts(&path, "/object_info/");
	(void)url_encode(&path, k->text, strlen(k->text));
	if (!buf_cstr(&path)) {
		tool_fail(c, "invalid", "that is too long for a class", NULL);
		return;
	}
	look_get(c, path.data, on_node);
}

/* --- search_nodes -------------------------------------------------------- */

static bool contains(struct json text, const char *word)
{
	cleanup_buf struct buf b = BUF_INIT(65536);

	if (json_string_decode(text, &b) < 0 || !buf_cstr(&b))
		return false;
	for (size_t i = 0; i < b.len; i++)
		b.data[i] = (char)tolower((unsigned char)b.data[i]);
	return strstr(b.data, word) != NULL;
}

/* How well a node fits: the name counts more than what is said of it. */
static int score_of(struct json key, struct json node, const char *word)
{
	if (json_string_eq(key, word))
		return 4;
	if (contains(key, word) ||
	    contains(json_get(node, "display_name"), word))
		return 3;
	if (contains(json_get(node, "category"), word))
		return 2;
	return contains(json_get(node, "description"), word) ? 1 : 0;
}

static void put_found(struct buf *out, struct json key, struct json node)
{
	cleanup_buf struct buf doc = BUF_INIT(65536);
	struct json text = json_get(node, "description");

	(void)buf_putc(out, '{');
	(void)buf_json_key(out, "class_type");
	(void)json_compact(out, key);
	tool_put_member(out, "display_name", json_get(node, "display_name"));
	tool_put_member(out, "category", json_get(node, "category"));
	if (json_string_decode(text, &doc) == 0 && doc.len > 0) {
		(void)buf_json_key(out, "description");
		(void)buf_json_string(out, doc.data,
		                      doc.len < DOC_BYTES ? doc.len
		                                          : DOC_BYTES);
	}
	(void)buf_putc(out, '}');
}

static void on_nodes(void *user, const struct comfy_result *r)
{
	struct tool_call *c = user;
	const struct look *k = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	struct json_iter it;
	struct json key, node;
	int64_t shown = 0, found = 0;

	if (look_failed(c, r))
		return;
	(void)buf_puts(&out, "{\"nodes\":[");
	/* Best first; a pass per score is cheaper than a sort is long. */
	for (int score = 4; score > 0; score--) {
		json_iter_init(&it, r->body);
		while (json_iter_next(&it, &key, &node)) {
			if (score_of(key, node, k->text) != score)
				continue;
			found++;
			if (shown >= k->limit)
				continue;
			(void)buf_puts(&out, shown++ > 0 ? "," : "");
			put_found(&out, key, node);
		}
	}
	(void)buf_printf(&out, "],\"found\":%lld}", (long long)found);
	tool_finish(c, &out, false, NULL, 0);
}

void tool_search_start(struct tool_call *c)
{
	struct look *k = look_new(c, "query");

	if (!k)
		return;
	for (char *p = k->text; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	k->limit = tool_arg_int(c, "limit", 20);
	look_get(c, "/object_info", on_nodes);
}
