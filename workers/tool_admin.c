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
#define WORDS_MAX     8           /* of a query; the rest is ignored */
#define HAY_BYTES     (64u << 10) /* of a node's texts that are searched */

/* What a word is worth, by where it is found; a query's exact class name is
 * worth SCORES - 1. */
enum {
	SCORE_DOC = 1,
	SCORE_CATEGORY = 2,
	SCORE_NAME = 4,
	SCORES = SCORE_NAME * WORDS_MAX + 2,
};

struct look {
	struct comfy_call *call;
	bool holds_api;
	char *text; /* class_type, or query */
	/* search_nodes */
	int64_t limit;
	char *split; /* what words point into */
	char *words[WORDS_MAX];
	size_t word_count;
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
	free(k->split);
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

static void put_without(struct buf *out, struct json object, const char *left)
{
	struct json_iter it;
	struct json key, value;
	bool first = true;

	(void)buf_putc(out, '{');
	json_iter_init(&it, object);
	while (json_iter_next(&it, &key, &value)) {
		if (json_string_eq(key, left))
			continue;
		(void)buf_puts(out, first ? "" : ",");
		first = false;
		(void)json_compact(out, key);
		(void)buf_putc(out, ':');
		(void)json_compact(out, value);
	}
	(void)buf_putc(out, '}');
}

static void on_stats(void *user, const struct comfy_result *r)
{
	struct tool_call *c = user;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);

	if (look_failed(c, r))
		return;
	/* The server's command line may hold what is nobody's business. */
	(void)buf_puts(&out, "{\"system\":");
	put_without(&out, json_get(r->body, "system"), "argv");
	tool_put_typed(&out, "devices", json_get(r->body, "devices"),
	               JSON_ARRAY);
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

void tool_resources_start(struct tool_call *c)
{
	if (look_new(c, NULL))
		look_get(c, "/system_stats", on_stats);
}

/* --- get_node_info ------------------------------------------------------- */

/* [a, b, ...] with at most OPTIONS_SHOWN of them; how many there are. */
static size_t put_choices(struct buf *out, struct json choices)
{
	struct json_iter it;
	struct json item;
	size_t n = 0;

	(void)buf_putc(out, '[');
	json_iter_init(&it, choices);
	while (n < OPTIONS_SHOWN && json_iter_next(&it, NULL, &item)) {
		(void)buf_puts(out, n++ > 0 ? "," : "");
		(void)json_compact(out, item);
	}
	(void)buf_putc(out, ']');
	return json_count(choices);
}

/* An input's options, with "options" (the newer form of choices) cut, and
 * `total` told if choices were left out. */
static void put_options(struct buf *out, struct json options, size_t total)
{
	struct json_iter it;
	struct json key, value;
	bool first = true;

	(void)buf_putc(out, '{');
	json_iter_init(&it, options);
	while (json_iter_next(&it, &key, &value)) {
		(void)buf_puts(out, first ? "" : ",");
		first = false;
		(void)json_compact(out, key);
		(void)buf_putc(out, ':');
		if (json_string_eq(key, "options") &&
		    json_is(value, JSON_ARRAY))
			total = put_choices(out, value);
		else
			(void)json_compact(out, value);
	}
	if (total > OPTIONS_SHOWN)
		(void)buf_printf(out, "%s\"choices_in_all\":%zu",
		                 first ? "" : ",", total);
	(void)buf_putc(out, '}');
}

/* An input is [type or choices, options]; long lists of choices (files of a
 * folder) are cut. */
static void put_input(struct buf *out, struct json input)
{
	struct json type = json_at(input, 0), options = json_at(input, 1);
	size_t total = 0;

	if (!json_is(input, JSON_ARRAY) || json_is(type, JSON_NONE)) {
		(void)json_compact(out, input);
		return;
	}
	(void)buf_putc(out, '[');
	if (json_is(type, JSON_ARRAY))
		total = put_choices(out, type);
	else
		(void)json_compact(out, type);
	if (json_is(options, JSON_OBJECT) || total > OPTIONS_SHOWN) {
		(void)buf_putc(out, ',');
		put_options(out, options, total);
	}
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
	static const struct {
		const char *key;
		enum json_type type;
	} members[] = {
		{"display_name", JSON_STRING}, {"description", JSON_STRING},
		{"category", JSON_STRING},     {"output", JSON_ARRAY},
		{"output_name", JSON_ARRAY},   {"output_node", JSON_TRUE},
		{"deprecated", JSON_TRUE},     {"experimental", JSON_TRUE},
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
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		tool_put_typed(&out, members[i].key,
		               json_get(node, members[i].key), members[i].type);
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

static bool contains(const struct buf *text, const char *word)
{
	return text->len > 0 && strstr(text->data, word) != NULL;
}

/* What can be found of a node, in lower case. */
struct haystack {
	struct buf name, category, doc;
};

static void add_lower(struct buf *to, struct json text)
{
	size_t from = to->len;

	/* What is no string, or too long, can't be found. */
	if (json_string_decode(text, to) < 0)
		return;
	(void)buf_putc(to, '\n');
	for (size_t i = from; i < to->len; i++)
		to->data[i] = (char)tolower((unsigned char)to->data[i]);
}

/* How well a node fits: a name counts more than what is said of it, and every
 * word has to be somewhere. 0: it doesn't. */
static unsigned score_of(const struct look *k, struct json key,
                         struct json node)
{
	struct haystack h = {BUF_INIT(HAY_BYTES), BUF_INIT(HAY_BYTES),
	                     BUF_INIT(HAY_BYTES)};
	unsigned score = 0;

	add_lower(&h.name, key);
	add_lower(&h.name, json_get(node, "display_name"));
	add_lower(&h.category, json_get(node, "category"));
	add_lower(&h.doc, json_get(node, "description"));
	(void)buf_cstr(&h.name);
	(void)buf_cstr(&h.category);
	(void)buf_cstr(&h.doc);
	for (size_t i = 0; i < k->word_count; i++) {
		const char *word = k->words[i];
		unsigned fits = contains(&h.name, word)       ? SCORE_NAME
		                : contains(&h.category, word) ? SCORE_CATEGORY
		                : contains(&h.doc, word)      ? SCORE_DOC
		                                              : 0;

		score = fits && (i == 0 || score) ? score + fits : 0;
	}
	if (score && json_string_eq(key, k->text))
		score = SCORES - 1;
	buf_deinit(&h.name);
	buf_deinit(&h.category);
	buf_deinit(&h.doc);
	return score;
}

static void put_found(struct buf *out, struct json key, struct json node)
{
	cleanup_buf struct buf doc = BUF_INIT(65536);
	struct json text = json_get(node, "description");

	(void)buf_putc(out, '{');
	(void)buf_json_key(out, "class_type");
	(void)json_compact(out, key);
	tool_put_typed(out, "display_name", json_get(node, "display_name"),
	               JSON_STRING);
	tool_put_typed(out, "category", json_get(node, "category"),
	               JSON_STRING);
	if (json_string_decode(text, &doc) == 0 && doc.len > 0) {
		size_t n = doc.len < DOC_BYTES ? doc.len : DOC_BYTES;

		/* Cut at a character's edge. */
		while (n < doc.len && n > 0 &&
		       ((unsigned char)doc.data[n] & 0xc0) == 0x80)
			n--;
		(void)buf_json_key(out, "description");
		(void)buf_json_string(out, doc.data, n);
	}
	(void)buf_putc(out, '}');
}

static void put_best(const struct look *k, struct json nodes,
                     const unsigned char *scores, struct buf *out)
{
	struct json_iter it;
	struct json key, node;
	int64_t shown = 0;

	for (unsigned score = SCORES - 1; score > 0; score--) {
		json_iter_init(&it, nodes);
		for (size_t i = 0;
		     shown < k->limit && json_iter_next(&it, &key, &node);
		     i++) {
			if (scores[i] != score)
				continue;
			(void)buf_puts(out, shown++ > 0 ? "," : "");
			put_found(out, key, node);
		}
	}
}

static void finish_search(struct tool_call *c, struct json nodes,
                          unsigned char *scores)
{
	const struct look *k = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	struct json_iter it;
	struct json key, node;
	size_t n = 0, found = 0;

	json_iter_init(&it, nodes);
	while (json_iter_next(&it, &key, &node)) {
		scores[n] = (unsigned char)score_of(k, key, node);
		found += scores[n++] > 0;
	}
	(void)buf_puts(&out, "{\"nodes\":[");
	put_best(k, nodes, scores, &out);
	(void)buf_printf(&out, "],\"found\":%zu", found);
	tool_put_next(&out,
	              found == 0 ? "try one shorter word, or an English one"
	              : (int64_t)found > k->limit
	                      ? "narrow the query or raise limit for the rest; "
	                        "get_node_info tells a class's inputs"
	                      : "get_node_info tells a class's inputs");
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

static void on_nodes(void *user, const struct comfy_result *r)
{
	struct tool_call *c = user;
	unsigned char *scores;

	if (look_failed(c, r))
		return;
	scores = calloc(json_count(r->body) + 1, 1);
	if (scores)
		finish_search(c, r->body, scores);
	else
		tool_fail(c, "internal", "out of memory", NULL);
	free(scores);
}

/* At white space; the words point into k->text's copy. */
static bool split_words(struct look *k)
{
	char *rest, *word;

	k->split = strdup(k->text);
	if (!k->split)
		return false;
	for (char *p = k->split; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	for (word = strtok_r(k->split, " \t\r\n", &rest);
	     word && k->word_count < WORDS_MAX;
	     word = strtok_r(NULL, " \t\r\n", &rest))
		k->words[k->word_count++] = word;
	return true;
}

void tool_search_start(struct tool_call *c)
{
	struct look *k = look_new(c, "query");

	if (!k)
		return;
	k->limit = tool_arg_int(c, "limit", 20);
	if (!split_words(k))
		tool_fail(c, "internal", "out of memory", NULL);
	else if (k->word_count == 0)
		tool_fail(c, "invalid", "query: give a word to look for", NULL);
	else
		look_get(c, "/object_info", on_nodes);
}
