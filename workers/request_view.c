/*
 * request_view.c - view: files of ComfyUI's into files of the user's.
 *
 * The keeper opens each file and puts it in place when it is complete; what
 * breaks off is dropped, so a half file never lies under its name.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/progress.h"
#include "workers/own_files.h"
#include "workers/poller.h"
#include "workers/remote_file.h"
#include "workers/request_ops.h"
#include "workers/tool_files_of.h"

#define NAME_BYTES_MAX 1024
#define PATH_BYTES_MAX 4096
#define FILES_MAX      1000 /* of one prompt */
#define ANSWER_MAX     (8u << 20)

struct view_target {
	char *filename, *subfolder, *type;
};

struct view_job {
	struct command *command;
	char *prompt_id, *path, *preview;
	bool overwrite;
	bool several; /* all of a prompt's */
	struct view_target *targets;
	size_t target_count, next;
	struct poller_watch poll;
	struct own_files *own; /* whose it is, is being asked */
	/* the file under way */
	struct remote_file *file;
	int fd;
	uint64_t bytes;
	char content_type[128];
	struct error io;  /* why it couldn't be written */
	struct buf files; /* elements of the array of those done */
};

static void view_next(struct view_job *j);

static void view_drop(struct command *c)
{
	struct view_job *j = c->job;

	if (!j)
		return;
	poller_remove(&j->poll);
	j->own = own_files_free(j->own);
	/* The call writes to the file's descriptor: it goes first. */
	if (c->call)
		comfy_call_cancel(c->call);
	c->call = NULL;
	j->file = remote_file_free(j->file);
	for (size_t i = 0; i < j->target_count; i++) {
		free(j->targets[i].filename);
		free(j->targets[i].subfolder);
		free(j->targets[i].type);
	}
	free(j->targets);
	buf_deinit(&j->files);
	free(j->prompt_id);
	free(j->path);
	free(j->preview);
	free(j);
	c->job = NULL;
}

/* What was saved before the failure stays, and is told. */
static void view_fail(struct view_job *j, const struct error *err)
{
	cleanup_buf struct buf extra = BUF_INIT(ANSWER_MAX);

	if (j->several) {
		buf_puts(&extra, "\"files\":[");
		if (j->files.len > 0)
			buf_append(&extra, j->files.data, j->files.len);
		buf_putc(&extra, ']');
	}
	command_fail(j->command, err,
	             buf_ok(&extra) ? span_make(extra.data, extra.len)
	                            : SPAN_NULL);
}

static void view_put_file(struct view_job *j, const char *path, struct buf *b)
{
	buf_puts(b, "{\"path\":");
	buf_json_string(b, path, strlen(path));
	buf_printf(b, ",\"bytes\":%" PRIu64 ",\"content_type\":", j->bytes);
	buf_json_string(b, j->content_type, strlen(j->content_type));
	buf_putc(b, '}');
}

static void view_finish(struct view_job *j)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct error err;

	if (j->several)
		buf_puts(&b, "{\"files\":[");
	if (j->files.len > 0)
		buf_append(&b, j->files.data, j->files.len);
	if (j->several)
		buf_puts(&b, "]}");
	if (buf_ok(&j->files) && buf_ok(&b)) {
		command_ok(j->command, span_make(b.data, b.len));
		return;
	}
	error_set_nomem(&err, "answer");
	view_fail(j, &err);
}

/* --- one file ------------------------------------------------------------ */

static bool on_data(void *user, const char *data, size_t len)
{
	struct view_job *j = user;
	ssize_t n;

	while (len > 0) {
		n = write(j->fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			error_set_errno(&j->io, n < 0 ? errno : ENOSPC,
			                "cannot write the file");
			return false;
		}
		data += n;
		len -= (size_t)n;
		j->bytes += (uint64_t)n;
	}
	return true;
}

/* Why the file couldn't be had, in words that name it. */
static void view_why(const struct view_job *j, const struct comfy_result *r,
                     struct error *err)
{
	const struct view_target *t = &j->targets[j->next];
	bool folder = t->subfolder && *t->subfolder;

	if (j->io.code == ERR_NONE && r->outcome == COMFY_E_NOT_FOUND) {
		error_set(err, ERR_NOT_FOUND,
		          "ComfyUI has no file %s%s%s (type %s)",
		          folder ? t->subfolder : "", folder ? "/" : "",
		          t->filename, t->type ? t->type : "output");
		return;
	}
	*err = j->io.code != ERR_NONE ? j->io : r->error;
	error_prefix(err, "%s", t->filename);
}

static void on_viewed(void *user, const struct comfy_result *r)
{
	struct view_job *j = user;
	struct error err;

	j->command->call = NULL;
	if (j->io.code != ERR_NONE || r->outcome != COMFY_OK) {
		view_why(j, r, &err);
		view_fail(j, &err);
		return;
	}
	(void)snprintf(j->content_type, sizeof(j->content_type), "%s",
	               r->content_type ? r->content_type : "");
	remote_file_close(j->file, true);
}

static void on_open(void *user, int fd)
{
	struct view_job *j = user;
	const struct view_target *t = &j->targets[j->next];
	struct comfy_view v = {
		.filename = t->filename,
		.subfolder = t->subfolder ? t->subfolder : "",
		.type = t->type ? t->type : "output",
		.preview = j->preview,
		.on_data = on_data,
	};
	struct error err = ERROR_NULL;
	struct comfy_api *api = command_api(j->command, &err);

	j->fd = fd;
	j->bytes = 0;
	j->command->call =
		api ? comfy_get_view(api, &v, on_viewed, j, &err) : NULL;
	if (!j->command->call)
		view_fail(j, &err);
}

static void on_closed(void *user, const char *path, const struct error *err)
{
	struct view_job *j = user;

	j->file = NULL; /* it is gone */
	if (err) {
		view_fail(j, err);
		return;
	}
	if (j->next > 0)
		buf_putc(&j->files, ',');
	view_put_file(j, path, &j->files);
	j->next++;
	view_next(j);
}

static const struct remote_file_handlers file_handlers = {
	.on_open = on_open,
	.on_closed = on_closed,
};

/* A name of ComfyUI's that is safe as one of the user's: its last component,
 * if that is a plain one. NULL if not. */
static const char *safe_name(const char *filename)
{
	const char *base = strrchr(filename, '/');

	base = base ? base + 1 : filename;
	if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0 ||
	    strchr(base, '\\') || strlen(base) > 255)
		return NULL;
	for (const char *p = base; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return NULL;
	}
	return base;
}

static void view_next(struct view_job *j)
{
	const char *filename, *name;
	struct error err = ERROR_NULL;

	if (j->next == j->target_count) {
		view_finish(j);
		return;
	}
	filename = j->targets[j->next].filename;
	name = safe_name(filename);
	if (name)
		j->file = remote_file_open(
			command_worker(j->command), j->command->line,
			&(struct remote_file_wish){
				.path = j->path ? j->path : ".",
				.name = name,
				.write = true,
				.overwrite = j->overwrite,
			},
			&file_handlers, j, &err);
	else
		error_set(&err, ERR_DENIED,
		          "ComfyUI's file name is not a safe one: %s",
		          log_safe(filename, strlen(filename)));
	if (!j->file)
		view_fail(j, &err);
}

/* --- which files --------------------------------------------------------- */

static int view_add(struct view_job *j, char *filename, char *subfolder,
                    char *type)
{
	struct view_target *grown;

	grown = filename && j->target_count < FILES_MAX
	                ? realloc(j->targets,
	                          (j->target_count + 1) * sizeof(*grown))
	                : NULL;
	if (!grown) {
		free(filename);
		free(subfolder);
		free(type);
		return -1;
	}
	j->targets = grown;
	grown[j->target_count++] = (struct view_target){
		.filename = filename,
		.subfolder = subfolder,
		.type = type,
	};
	return 0;
}

static void view_collect_array(struct view_job *j, struct json array,
                               const char *type)
{
	struct json_iter it;
	struct json e;

	if (!json_is(array, JSON_ARRAY))
		return;
	json_iter_init(&it, array);
	while (json_iter_next(&it, NULL, &e)) {
		if (!json_string_eq(json_get(e, "type"), type))
			continue;
		if (view_add(j,
		             json_string_dup(json_get(e, "filename"),
		                             NAME_BYTES_MAX),
		             json_string_dup(json_get(e, "subfolder"),
		                             NAME_BYTES_MAX),
		             strdup(type)))
			log_warn("view", "a file without a name, or too many");
	}
}

/* The files of one type in a prompt's outputs: node -> key -> array. */
static void view_collect(struct view_job *j, struct json outputs,
                         const char *type)
{
	struct json_iter nodes, keys;
	struct json node, array;

	json_iter_init(&nodes, outputs);
	while (json_iter_next(&nodes, NULL, &node)) {
		json_iter_init(&keys, node);
		while (json_iter_next(&keys, NULL, &array))
			view_collect_array(j, array, type);
	}
}

/* Previews (type temp) count only where nothing was saved. */
static void view_outputs(struct view_job *j, struct json outputs)
{
	struct error err;

	view_collect(j, outputs, "output");
	if (j->target_count == 0)
		view_collect(j, outputs, "temp");
	if (j->target_count > 0) {
		view_next(j);
		return;
	}
	error_set(&err, ERR_NOT_FOUND, "prompt %s has no files", j->prompt_id);
	view_fail(j, &err);
}

static void on_polled(void *user, const struct poller_news *n)
{
	struct view_job *j = user;
	struct error err;

	poller_remove(&j->poll);
	if (n->found == POLLER_ENDED) {
		view_outputs(j, json_get(n->entry, "outputs"));
		return;
	}
	error_set(&err, ERR_NOT_FOUND,
	          n->found == POLLER_MISSING ? "no such prompt: %s"
	                                     : "prompt %s has not ended yet",
	          j->prompt_id);
	view_fail(j, &err);
}

static void on_trouble(void *user, const struct error *err)
{
	view_fail(user, err);
}

static int view_ask_alone(struct view_job *j, struct error *err)
{
	if (command_check_sight(j->command, j->prompt_id, err))
		return -1;
	j->poll = (struct poller_watch){
		.prompt_id = j->prompt_id,
		.on_polled = on_polled,
		.on_trouble = on_trouble,
		.user = j,
	};
	poller_add(link_poller(command_link(j->command)), &j->poll, true);
	return 0;
}

static void on_progress(void *user, const struct incoming *in,
                        const struct error *err)
{
	struct view_job *j = user;
	struct error bad = ERROR_NULL;

	j->command->ask_id = 0;
	if (!err)
		view_outputs(j, json_get(in->result, "outputs"));
	else if (in || err->code != ERR_UNREACHABLE)
		view_fail(j, err);
	else if (view_ask_alone(j, &bad))
		view_fail(j, &bad);
}

static int view_ask(struct view_job *j, struct error *err)
{
	struct link *l = command_link(j->command);
	cleanup_buf struct buf b = BUF_INIT(4096);

	if (!link_on_bus(l))
		return view_ask_alone(j, err);
	if (command_prompt_params(&b, j->prompt_id, err))
		return -1;
	j->command->ask_id = link_ask(l, OP_PROGRESS, span_make(b.data, b.len),
	                              0, on_progress, j, err);
	return j->command->ask_id ? 0 : -1;
}

/* --- whose file ----------------------------------------------------------- */

/* What one's own prompts have made, by the supervisor's books, and what one has
 * uploaded oneself: upload puts it into a folder of the user's own. */
static bool same_or_empty(struct json j, const char *s)
{
	return json_is(j, JSON_STRING) ? json_string_eq(j, s ? s : "")
	                               : !s || !*s;
}

static bool is_it(void *user, struct json node, struct json file)
{
	const struct view_job *j = user;
	const struct view_target *t = &j->targets[0];

	return !(json_string_eq(json_get(file, "filename"), t->filename) &&
	         same_or_empty(json_get(file, "subfolder"), t->subfolder) &&
	         json_string_eq(json_get(file, "type"),
	                        t->type ? t->type : "output"));
}

static bool is_uploaded(const struct view_job *j, const struct view_target *t)
{
	char folder[64];

	(void)snprintf(folder, sizeof(folder), "comfymux-%lu",
	               (unsigned long)link_uid(command_link(j->command)));
	return t->type && strcmp(t->type, "input") == 0 && t->subfolder &&
	       strcmp(t->subfolder, folder) == 0 && !strchr(t->filename, '/');
}

static void on_owned(void *user, bool found, const struct error *failed)
{
	struct view_job *j = user;
	const struct view_target *t = &j->targets[0];
	struct error err;

	j->own = NULL;
	if (failed) {
		view_fail(j, failed);
		return;
	}
	if (found) {
		view_next(j);
		return;
	}
	/* No word about whether ComfyUI has it. */
	error_set(&err, ERR_NOT_FOUND,
	          "none of your prompts has made a file %s%s%s (type %s)",
	          t->subfolder ? t->subfolder : "",
	          t->subfolder && *t->subfolder ? "/" : "",
	          log_safe(t->filename, strlen(t->filename)),
	          t->type ? t->type : "output");
	view_fail(j, &err);
}

/* Where all that ComfyUI has is one's own, nothing is asked. */
static int view_named(struct view_job *j, struct error *err)
{
	struct link *l = command_link(j->command);

	if (link_owns_rest(l) || is_uploaded(j, &j->targets[0])) {
		view_next(j);
		return 0;
	}
	if (!link_on_bus(l)) {
		if (command_check_sight(j->command, NULL, err))
			return -1;
		view_next(j);
		return 0;
	}
	j->own = own_files_find(l, j->targets[0].filename, is_it, on_owned, j,
	                        err);
	return j->own ? 0 : -1;
}

/* One file by name, if the request has one. */
static int view_take_name(struct view_job *j, struct error *err)
{
	struct command *c = j->command;
	char *filename = NULL, *subfolder = NULL, *type = NULL;

	if (command_string(c, "filename", NAME_BYTES_MAX, &filename, err) ||
	    command_string(c, "subfolder", NAME_BYTES_MAX, &subfolder, err) ||
	    command_string(c, "type", 16, &type, err) || !filename) {
		free(filename);
		free(subfolder);
		free(type);
		return err->code == ERR_NONE ? 0 : -1;
	}
	if (view_add(j, filename, subfolder, type))
		return error_set_nomem(err, "file name");
	return 0;
}

static int view_start(struct command *c, struct error *err)
{
	struct view_job *j = calloc(1, sizeof(*j));

	if (!j)
		return error_set_nomem(err, "request");
	j->command = c;
	buf_init(&j->files, ANSWER_MAX);
	c->job = j;
	(void)json_bool(json_get(c->params, "overwrite"), &j->overwrite);
	if (command_string(c, "path", PATH_BYTES_MAX, &j->path, err) ||
	    command_string(c, "preview", 64, &j->preview, err) ||
	    command_string(c, "prompt_id", PROGRESS_ID_MAX, &j->prompt_id,
	                   err) ||
	    view_take_name(j, err))
		return -1;
	if (j->target_count > 0)
		return view_named(j, err);
	if (!j->prompt_id)
		return error_set(err, ERR_INVALID,
		                 "view needs filename or prompt_id");
	j->several = true;
	return view_ask(j, err);
}

const struct command_op command_view = {
	.name = "view",
	.start = view_start,
	.drop = view_drop,
};
