/*
 * tool_files.c - the tools that move files: download_by_filename and
 * upload_image. The keeper opens the user's files; what may be fetched is what
 * the user's own prompts have made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/cleanup.h"
#include "workers/own_files.h"
#include "workers/tool_ask.h"
#include "workers/tool_code.h"
#include "workers/tool_files_of.h"
#include "workers/tool_prompts.h"

#define RESULT_BYTES  (9u << 20)
#define REQUEST_BYTES 65536
#define OWN_LIMIT                                                              \
	1000 /* prompts looked through, where others' count as well            \
	      */
#define UPLOAD_BYTES (64u << 20) /* of one image */
#define INLINE_BYTES TOOL_INLINE_MAX
#define READ_CHUNK   65536
#define NAME_BYTES   1024
#define NAME_LEN_MAX                                                           \
	200 /* of an upload: what file systems take, and " (1)"                \
	     */

struct transfer {
	struct tool_prompts prompts; /* first: see tool_prompts.h */
	struct tool_ask *ask;
	struct own_files *own;
	struct comfy_call *call;
	bool holds_api;
	char *filename, *subfolder, *type; /* of the file on ComfyUI */
	bool named_folder; /* the caller said in which subfolder it lies */
};

void tool_transfer_destroy(struct tool_call *c)
{
	struct transfer *t = c->state;

	if (!t)
		return;
	tool_prompts_deinit(&t->prompts);
	t->ask = tool_ask_free(t->ask);
	t->own = own_files_free(t->own);
	if (t->call)
		comfy_call_cancel(t->call);
	if (t->holds_api)
		link_api_release(c->host->link);
	free(t->filename);
	free(t->subfolder);
	free(t->type);
	free(t);
}

static void fail(struct tool_call *c, const struct error *err)
{
	tool_fail(c, error_code_name(err->code), err->text, NULL);
}

static struct comfy_api *take_api(struct tool_call *c, struct error *err)
{
	struct transfer *t = c->state;
	struct comfy_api *api = link_api(c->host->link, err);

	if (api && !t->holds_api) {
		link_api_hold(c->host->link);
		t->holds_api = true;
	}
	return api;
}

static void put_file(struct buf *out, const struct transfer *t)
{
	tool_put_string(out, "filename", t->filename);
	tool_put_string(out, "subfolder", t->subfolder);
	tool_put_string(out, "type", t->type);
}

/* --- download_by_filename ------------------------------------------------ */

static void on_saved(struct tool_call *c, bool ok, struct json body)
{
	const struct transfer *t = c->state;
	cleanup_buf struct buf out = BUF_INIT(REQUEST_BYTES);

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	(void)buf_putc(&out, '{');
	put_file(&out, t);
	(void)buf_putc(&out, ',');
	tool_put_members(&out, body);
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

static void save(struct tool_call *c)
{
	struct transfer *t = c->state;
	struct json dest = json_get(c->args, "dest_path");
	cleanup_buf struct buf params = BUF_INIT(REQUEST_BYTES);

	(void)buf_putc(&params, '{');
	put_file(&params, t);
	(void)buf_json_key(&params, "path");
	(void)buf_append(&params, dest.text.p, dest.text.n);
	(void)buf_printf(&params, ",\"overwrite\":%s}",
	                 tool_arg_bool(c, "overwrite", false) ? "true"
	                                                      : "false");
	if (!buf_ok(&params)) {
		tool_fail(c, "invalid", "these names are too long for a file",
		          NULL);
		return;
	}
	t->ask = tool_ask_new(c, "view", span_make(params.data, params.len),
	                      on_saved, NULL);
}

static void on_inline(void *user, const struct comfy_result *r)
{
	struct tool_call *c = user;
	struct transfer *t = c->state;
	cleanup_buf struct buf out = BUF_INIT(RESULT_BYTES);
	struct error err;

	t->call = NULL;
	if (r->outcome == COMFY_E_LOCAL) {
		(void)error_set(&err, ERR_LIMIT,
		                "%s is larger than the %u bytes that fit in a "
		                "message: give dest_path, and it is written "
		                "there",
		                t->filename, INLINE_BYTES);
		fail(c, &err);
		return;
	}
	if (r->outcome == COMFY_E_NOT_FOUND) {
		(void)error_set(&err, ERR_NOT_FOUND,
		                "ComfyUI has no file %s%s%s (type %s) any more",
		                t->subfolder, *t->subfolder ? "/" : "",
		                t->filename, t->type);
		fail(c, &err);
		return;
	}
	if (r->outcome != COMFY_OK) {
		err = r->error;
		(void)error_prefix(&err, "%s", t->filename);
		fail(c, &err);
		return;
	}
	(void)buf_putc(&out, '{');
	put_file(&out, t);
	(void)buf_printf(&out, ",\"bytes\":%zu", r->raw.n);
	tool_put_string(&out, "content_type", r->content_type);
	(void)buf_json_key(&out, "base64");
	(void)buf_putc(&out, '"');
	(void)buf_base64(&out, r->raw.p, r->raw.n);
	(void)buf_puts(&out, "\"}");
	tool_finish(c, &out, false, NULL, 0);
}

static void fetch_inline(struct tool_call *c)
{
	struct transfer *t = c->state;
	struct comfy_view v = {.filename = t->filename,
	                       .subfolder = t->subfolder,
	                       .type = t->type,
	                       .reply_max = INLINE_BYTES};
	struct error err = ERROR_NULL;
	struct comfy_api *api = take_api(c, &err);

	t->call = api ? comfy_get_view(api, &v, on_inline, c, &err) : NULL;
	if (!t->call)
		fail(c, &err);
}

/* Looks for the file among the user's own, newest first. */
struct search {
	struct transfer *t;
	bool found;
};

static bool same(struct json j, const char *s)
{
	return json_is(j, JSON_STRING) ? json_string_eq(j, s) : *s == '\0';
}

static bool is_it(void *user, struct json node, struct json file)
{
	struct search *s = user;
	struct transfer *t = s->t;
	char *folder, *type;

	if (!json_string_eq(json_get(file, "filename"), t->filename) ||
	    (t->named_folder &&
	     !same(json_get(file, "subfolder"), t->subfolder)) ||
	    (t->type && !json_string_eq(json_get(file, "type"), t->type)))
		return true;
	folder = json_string_dup(json_get(file, "subfolder"), NAME_BYTES);
	type = json_string_dup(json_get(file, "type"), 64);
	if (type) {
		free(t->subfolder);
		free(t->type);
		t->subfolder = folder ? folder : strdup("");
		t->type = type;
		s->found = t->subfolder != NULL;
		return false;
	}
	free(folder);
	return true;
}

static void go_on(struct tool_call *c, bool found)
{
	struct transfer *t = c->state;
	struct error err;

	/* What else lies there may be the web page's. */
	if (!found && !link_owns_rest(c->host->link)) {
		(void)error_set(&err, ERR_NOT_FOUND,
		                "none of your prompts has made a file %s; "
		                "get_history lists their outputs",
		                t->filename);
		fail(c, &err);
		return;
	}
	if (!t->type)
		t->type = strdup("output");
	if (!t->type || !t->subfolder)
		tool_fail(c, "internal", "out of memory", NULL);
	else if (json_is(json_get(c->args, "dest_path"), JSON_STRING))
		save(c);
	else
		fetch_inline(c);
}

static void on_history(struct tool_call *c, bool ok, struct json body)
{
	struct transfer *t = c->state;
	struct search s = {.t = t};
	struct json_iter it;
	struct json prompt;

	if (!ok) {
		tool_finish_error(c, body);
		return;
	}
	json_iter_init(&it, json_get(body, "prompts"));
	while (!s.found && json_iter_next(&it, NULL, &prompt))
		tool_files_each(json_get(prompt, "outputs"), is_it, &s);
	/* `body` is its. */
	t->ask = tool_ask_free(t->ask);
	go_on(c, s.found);
}

static bool is_own(void *user, struct json node, struct json file)
{
	const struct tool_call *c = user;
	struct search s = {.t = c->state};

	return is_it(&s, node, file);
}

static void on_owned(void *user, bool found, const struct error *err)
{
	struct tool_call *c = user;
	struct transfer *t = c->state;

	t->own = NULL;
	if (err)
		fail(c, err);
	else
		go_on(c, found);
}

/* Among others' files every prompt of one's own counts; where all that lies
 * there is one's own, the newest that fits is what is meant. */
static void look_for_it(struct tool_call *c)
{
	struct transfer *t = c->state;
	struct link *l = c->host->link;
	struct error err = ERROR_NULL;

	if (link_owns_rest(l) || !link_on_bus(l)) {
		tool_prompts_get(c, "history", OWN_LIMIT, on_history);
		return;
	}
	t->own = own_files_find(l, t->filename, is_own, on_owned, c, &err);
	if (!t->own)
		fail(c, &err);
}

/* "sub/x.png" without a subfolder argument means x.png in sub. */
static void split_name(struct transfer *t)
{
	char *slash = strrchr(t->filename, '/');
	char *name;

	if (!slash || t->named_folder || slash == t->filename)
		return;
	name = strdup(slash + 1);
	if (!name)
		return;
	*slash = '\0';
	free(t->subfolder);
	t->subfolder = t->filename;
	t->filename = name;
	t->named_folder = true;
}

void tool_download_start(struct tool_call *c)
{
	struct transfer *t = calloc(1, sizeof(*t));

	c->state = t;
	if (t) {
		t->filename = tool_arg_string(c, "filename");
		t->subfolder = tool_arg_string(c, "subfolder");
		t->type = tool_arg_string(c, "type");
		t->named_folder = t->subfolder != NULL;
		if (!t->subfolder)
			t->subfolder = strdup("");
	}
	if (!t || !t->filename || !t->subfolder) {
		tool_fail(c, "internal", "out of memory", NULL);
		return;
	}
	if (!json_is(json_get(c->args, "dest_path"), JSON_STRING) &&
	    !tool_arg_bool(c, "return_base64", false)) {
		tool_fail(c, "invalid",
		          "give dest_path (a file or directory to write to) or "
		          "return_base64",
		          NULL);
		return;
	}
	split_name(t);
	look_for_it(c);
}

/* --- upload_image -------------------------------------------------------- */

static void on_uploaded(void *user, const struct comfy_result *r)
{
	struct tool_call *c = user;
	struct transfer *t = c->state;
	cleanup_buf struct buf out = BUF_INIT(REQUEST_BYTES);
	cleanup_free char *name = NULL, *folder = NULL;
	char input[2 * NAME_BYTES];

	t->call = NULL;
	if (r->outcome != COMFY_OK) {
		fail(c, &r->error);
		return;
	}
	name = json_string_dup(json_get(r->body, "name"), NAME_BYTES);
	folder = json_string_dup(json_get(r->body, "subfolder"), NAME_BYTES);
	if (!name) {
		tool_fail(c, "protocol",
		          "ComfyUI took the image and did not say under which "
		          "name",
		          NULL);
		return;
	}
	(void)snprintf(input, sizeof(input), "%s%s%s", folder ? folder : "",
	               folder && *folder ? "/" : "", name);
	(void)buf_putc(&out, '{');
	tool_put_string(&out, "name", name);
	tool_put_string(&out, "subfolder", folder ? folder : "");
	tool_put_string(&out, "type", "input");
	tool_put_string(&out, "image", input);
	tool_put_string(
		&out, "next",
		"use the value of image as the `image` input of a LoadImage "
		"node");
	(void)buf_putc(&out, '}');
	tool_finish(c, &out, false, NULL, 0);
}

static void upload(struct tool_call *c, const struct buf *data)
{
	struct transfer *t = c->state;
	char folder[64];
	struct comfy_upload u = {.filename = t->filename,
	                         .subfolder = folder,
	                         .overwrite =
	                                 tool_arg_bool(c, "overwrite", false),
	                         .data = span_make(data->data, data->len)};
	struct error err = ERROR_NULL;
	struct comfy_api *api = take_api(c, &err);

	/* Users with one name for different images don't meet. */
	(void)snprintf(folder, sizeof(folder), "comfymux-%lu",
	               (unsigned long)link_uid(c->host->link));
	t->call = api ? comfy_upload(api, &u, on_uploaded, c, &err) : NULL;
	if (!t->call)
		fail(c, &err);
}

static void on_image(struct tool_call *c, int fd, const struct error *err)
{
	cleanup_buf struct buf data = BUF_INIT(UPLOAD_BYTES + READ_CHUNK);
	cleanup_close int file = fd;
	struct error bad = ERROR_NULL;

	if (err)
		fail(c, err);
	else if (tool_read_file(file, UPLOAD_BYTES, "path", &data, &bad) < 0)
		fail(c, &bad);
	else if (data.len == 0)
		tool_fail(c, "invalid", "path: the file is empty", NULL);
	else
		upload(c, &data);
}

static void upload_base64(struct tool_call *c, struct json base64)
{
	cleanup_buf struct buf text = BUF_INIT(UPLOAD_BYTES);
	cleanup_buf struct buf data = BUF_INIT(UPLOAD_BYTES);

	if (json_string_decode(base64, &text) < 0) {
		tool_fail(c, "limit", "base64 is too long: give path", NULL);
		return;
	}
	if (base64_decode(&data, text.data ? text.data : "", text.len) < 0 ||
	    data.len == 0)
		tool_fail(
			c, "invalid",
			"base64 must hold an image as base64 text; path takes "
			"a file as it is",
			NULL);
	else
		upload(c, &data);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_plain_name(const char *name)
{
	if (!*name || strlen(name) > NAME_LEN_MAX || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0 || strpbrk(name, "/\\"))
		return false;
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	return true;
}

void tool_upload_start(struct tool_call *c)
{
	struct transfer *t = calloc(1, sizeof(*t));
	cleanup_free char *path = tool_arg_string(c, "path");
	struct json base64 = json_get(c->args, "base64");
	struct error err = ERROR_NULL;

	c->state = t;
	if (!t) {
		tool_fail(c, "internal", "out of memory", NULL);
		return;
	}
	t->filename = tool_arg_string(c, "filename");
	if (!t->filename && path)
		t->filename = strdup(base_name(path));
	if (!t->filename || !is_plain_name(t->filename)) {
		tool_fail(c, "invalid",
		          "filename must be a plain file name, such as "
		          "photo.png",
		          NULL);
	} else if (json_is(base64, JSON_STRING)) {
		upload_base64(c, base64);
	} else if (!path) {
		tool_fail(c, "invalid", "give path or base64", NULL);
	} else if (tool_open_read(c, path, on_image, &err) < 0) {
		fail(c, &err);
	}
}
