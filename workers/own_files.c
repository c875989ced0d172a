/*
 * own_files.c - see own_files.h.
 */
#include "workers/own_files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_LIMIT    1000 /* prompts named in one answer */
#define REQUEST_BYTES 65536

struct own_files {
	struct link *link;
	char *filename;
	tool_file_of_cb *is_it;
	own_files_cb *on_end;
	void *user;
	uint64_t from; /* ended prompts looked at before */
	uint64_t ask_id;
	bool found;
};

static int ask(struct own_files *o, struct error *err);

static void end(struct own_files *o, bool found, const struct error *err)
{
	own_files_cb *on_end = o->on_end;
	void *user = o->user;

	(void)own_files_free(o);
	on_end(user, found, err);
}

static bool on_file(void *user, struct json node, struct json file)
{
	struct own_files *o = user;

	o->found = !o->is_it(o->user, node, file);
	return !o->found;
}

static void on_history(void *user, const struct incoming *in,
                       const struct error *err)
{
	struct own_files *o = user;
	struct json prompt, next;
	struct error bad = ERROR_NULL;
	struct json_iter it;
	uint64_t from;

	o->ask_id = 0;
	if (err) {
		end(o, false, err);
		return;
	}
	json_iter_init(&it, json_get(in->result, "prompts"));
	while (!o->found && json_iter_next(&it, NULL, &prompt))
		tool_files_each(json_get(prompt, "outputs"), on_file, o);
	next = json_get(in->result, "next");
	if (o->found || !json_uint64(next, &from) || from <= o->from) {
		end(o, o->found, NULL);
		return;
	}
	o->from = from;
	if (ask(o, &bad) < 0)
		end(o, false, &bad);
}

static int ask(struct own_files *o, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(REQUEST_BYTES);

	(void)buf_printf(&b, "{\"limit\":%d,\"from\":%" PRIu64 ",\"filename\":",
	                 LOOK_LIMIT, o->from);
	(void)buf_json_string(&b, o->filename, strlen(o->filename));
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b))
		return error_set_nomem(err, "request");
	o->ask_id = link_ask(o->link, OP_HISTORY, span_make(b.data, b.len), 0,
	                     on_history, o, err);
	return o->ask_id ? 0 : -1;
}

struct own_files *own_files_find(struct link *l, const char *filename,
                                 tool_file_of_cb *is_it, own_files_cb *on_end,
                                 void *user, struct error *err)
{
	struct own_files *o = calloc(1, sizeof(*o));

	if (!o) {
		(void)error_set_nomem(err, "a search");
		return NULL;
	}
	o->link = l;
	o->is_it = is_it;
	o->on_end = on_end;
	o->user = user;
	o->filename = strdup(filename);
	if (!o->filename)
		(void)error_set_nomem(err, "a search");
	if (!o->filename || ask(o, err) < 0)
		return own_files_free(o);
	return o;
}

struct own_files *own_files_free(struct own_files *o)
{
	if (!o)
		return NULL;
	link_forget(o->link, o->ask_id);
	free(o->filename);
	free(o);
	return NULL;
}
