/*
 * tool_files_of.c - see tool_files_of.h.
 */
#include "workers/tool_files_of.h"

#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "workers/preview.h"
#include "workers/tool_ask.h"

_Static_assert(PREVIEW_MIME_LEN < 64, "struct shown has room for it");

#define NAME_MAX_BYTES 4096
#define URI_MAX_BYTES  16384
#define OUTPUTS_COPY   (16u << 20)

/* One file to link to, or to show. */
struct shown {
	char *filename, *subfolder, *type, *uri;
	struct buf bytes; /* of the image; empty: not fetched */
	char mime[64];
};

struct tool_images {
	struct tool_call *call;
	struct buf structured;
	bool is_error;
	struct shown files[TOOL_FILES_MAX];
	size_t count;
	size_t next; /* to be fetched */
	size_t fetched, inlined_bytes;
	char note[96]; /* for a person; "": none */
	bool preview;  /* the one under way is asked for as a preview */
	struct comfy_call *fetch;
	bool holds_api;
};

/* --- walking ------------------------------------------------------------- */

void tool_files_each(struct json outputs, tool_file_of_cb *cb, void *user)
{
	struct json_iter nodes, keys, items;
	struct json node, output, list, item;

	json_iter_init(&nodes, outputs);
	while (json_iter_next(&nodes, &node, &output)) {
		json_iter_init(&keys, output);
		while (json_iter_next(&keys, NULL, &list)) {
			json_iter_init(&items, list);
			while (json_iter_next(&items, NULL, &item))
				if (json_is(json_get(item, "filename"),
				            JSON_STRING) &&
				    !cb(user, node, item))
					return;
		}
	}
}

bool tool_is_image(struct json file)
{
	cleanup_free char *name =
		json_string_dup(json_get(file, "filename"), NAME_MAX_BYTES);

	return name && strncmp(tool_mime_of(name), "image/", 6) == 0;
}

struct listing {
	struct buf *out;
	const struct tool_call *call;
	size_t count;
};

static void put_member(struct buf *out, const char *key, struct json value)
{
	(void)buf_json_key(out, key);
	if (json_is(value, JSON_STRING))
		(void)buf_append(out, value.text.p, value.text.n);
	else
		(void)buf_puts(out, "\"\"");
}

static bool list_file(void *user, struct json node, struct json file)
{
	struct listing *l = user;

	if (l->count++ > 0)
		(void)buf_putc(l->out, ',');
	(void)buf_putc(l->out, '{');
	put_member(l->out, "node", node);
	put_member(l->out, "filename", json_get(file, "filename"));
	put_member(l->out, "subfolder", json_get(file, "subfolder"));
	put_member(l->out, "type", json_get(file, "type"));
	(void)buf_json_key(l->out, "view_url");
	tool_put_view_url(l->out, l->call, file);
	(void)buf_putc(l->out, '}');
	return l->count < TOOL_FILES_MAX;
}

size_t tool_put_files(struct buf *out, const struct tool_call *c,
                      struct json outputs)
{
	struct listing l = {.out = out, .call = c};

	(void)buf_putc(out, '[');
	tool_files_each(outputs, list_file, &l);
	(void)buf_putc(out, ']');
	return l.count;
}

/* --- showing ------------------------------------------------------------- */

struct tool_images *tool_images_free(struct tool_images *t)
{
	if (!t)
		return NULL;
	if (t->fetch)
		comfy_call_cancel(t->fetch);
	if (t->holds_api)
		link_api_release(t->call->host->link);
	for (size_t i = 0; i < t->count; i++) {
		struct shown *s = &t->files[i];

		free(s->filename);
		free(s->subfolder);
		free(s->type);
		free(s->uri);
		buf_deinit(&s->bytes);
	}
	buf_deinit(&t->structured);
	free(t);
	return NULL;
}

/* Everything is here: images first, then the links. The tool's destroy() frees
 * us, after the result was built. */
static void finish(struct tool_images *t)
{
	struct tool_content content[TOOL_FILES_MAX + TOOL_IMAGES_MAX + 2];
	size_t n = 0;

	if (t->note[0])
		content[n++] = (struct tool_content){.type = TOOL_TEXT,
		                                     .data = SPAN(t->note)};

	for (size_t i = 0; i < t->count; i++)
		if (t->files[i].bytes.len > 0)
			content[n++] = (struct tool_content){
				.type = TOOL_IMAGE,
				.data = span_make(t->files[i].bytes.data,
			                          t->files[i].bytes.len),
				.mime = t->files[i].mime};
	for (size_t i = 0; i < t->count; i++)
		if (t->files[i].uri)
			content[n++] = (struct tool_content){
				.type = TOOL_RESOURCE_LINK,
				.uri = t->files[i].uri,
				.name = t->files[i].filename,
				.mime = tool_mime_of(t->files[i].filename)};
	tool_finish(t->call, &t->structured, t->is_error, content, n);
}

static void fetch_next(struct tool_images *t);

static void on_fetched(void *user, const struct comfy_result *r)
{
	struct tool_images *t = user;
	struct shown *s = &t->files[t->next];

	t->fetch = NULL;
	if (r->outcome != COMFY_OK && !t->preview) {
		/* Larger than may be shown as it is, or not to be had. */
		t->preview = r->outcome == COMFY_E_LOCAL;
		if (t->preview) {
			fetch_next(t);
			return;
		}
	}
	if (r->outcome != COMFY_OK) {
		log_info("tool", "an image is left out: %s", r->error.text);
	} else if (t->inlined_bytes + r->raw.n <= TOOL_INLINE_MAX &&
	           strncmp(r->content_type, "image/", 6) == 0 &&
	           buf_append(&s->bytes, r->raw.p, r->raw.n) == 0) {
		(void)snprintf(s->mime, sizeof(s->mime), "%s", r->content_type);
		t->inlined_bytes += r->raw.n;
		t->fetched++;
	}
	t->preview = false;
	t->next++;
	fetch_next(t);
}

static bool start_fetch(struct tool_images *t, const struct shown *s)
{
	struct link *l = t->call->host->link;
	struct error err = ERROR_NULL;
	struct comfy_view v = {.filename = s->filename,
	                       .subfolder = s->subfolder,
	                       .type = s->type,
	                       .preview = t->preview ? "webp;75" : NULL,
	                       .reply_max = TOOL_IMAGE_MAX};
	struct comfy_api *api = link_api(l, &err);

	if (api && !t->holds_api) {
		link_api_hold(l);
		t->holds_api = true;
	}
	t->fetch = api ? comfy_get_view(api, &v, on_fetched, t, &err) : NULL;
	if (!t->fetch)
		log_info("tool", "an image is left out: %s", err.text);
	return t->fetch != NULL;
}

static void fetch_next(struct tool_images *t)
{
	for (; t->next < t->count && t->fetched < TOOL_IMAGES_MAX; t->next++) {
		struct shown *s = &t->files[t->next];

		if (s->filename &&
		    strncmp(tool_mime_of(s->filename), "image/", 6) == 0 &&
		    start_fetch(t, s))
			return;
	}
	finish(t);
}

struct gathering {
	struct tool_images *images;
	const char *prompt_id;
};

static bool gather(void *user, struct json node, struct json file)
{
	struct gathering *g = user;
	struct tool_images *t = g->images;
	struct shown *s = &t->files[t->count];
	cleanup_buf struct buf uri = BUF_INIT(URI_MAX_BYTES);

	*s = (struct shown){0};
	buf_init(&s->bytes, TOOL_IMAGE_MAX);
	s->filename =
		json_string_dup(json_get(file, "filename"), NAME_MAX_BYTES);
	s->subfolder =
		json_string_dup(json_get(file, "subfolder"), NAME_MAX_BYTES);
	s->type = json_string_dup(json_get(file, "type"), 64);
	if (!s->filename) {
		free(s->subfolder);
		free(s->type);
		return true;
	}
	t->count++;
	if (tool_output_uri(&uri, g->prompt_id, s->type ? s->type : "output",
	                    s->subfolder ? s->subfolder : "", s->filename) == 0)
		s->uri = buf_steal(&uri, NULL);
	return t->count < TOOL_FILES_MAX;
}

/* Takes the place of a file. */
static void add_preview(struct tool_images *t, const struct preview *p)
{
	struct shown *s = &t->files[t->count];
	int r = -EFBIG;

	*s = (struct shown){0};
	buf_init(&s->bytes, TOOL_INLINE_MAX);
	t->count++;
	if (p->bytes <= TOOL_INLINE_MAX)
		r = preview_read(p, &s->bytes);
	if (r == 0) {
		memcpy(s->mime, p->mime, sizeof(s->mime));
		t->inlined_bytes += p->bytes;
		return;
	}
	buf_deinit(&s->bytes);
	(void)snprintf(t->note, sizeof(t->note),
	               "The preview of %zu bytes can't be shown: %s", p->bytes,
	               strerror(-r));
}

void tool_finish_files(struct tool_call *c, struct tool_images **slot,
                       struct buf *structured, bool is_error,
                       struct json prompt_id, struct json outputs, bool images,
                       const struct preview *preview)
{
	cleanup_free char *id = json_string_dup(prompt_id, 256);
	struct tool_images *t = calloc(1, sizeof(*t));
	struct gathering g = {.images = t, .prompt_id = id};

	if (!t || !id || !buf_ok(structured)) {
		free(t);
		tool_finish(c, structured, is_error, NULL, 0);
		return;
	}
	t->call = c;
	t->is_error = is_error;
	if (preview && preview_is(preview))
		add_preview(t, preview);
	tool_files_each(outputs, gather, &g);
	t->structured = *structured;
	buf_init(structured, structured->max);
	*slot = t;
	if (images)
		fetch_next(t);
	else
		finish(t);
}
