/*
 * remote_file.c - the worker's side of OPEN, FILE, CLOSE, CLOSED.
 *
 * A token names a file in both directions. One that we don't know (any more)
 * belonged to a request that was given up: its descriptor is closed, and the
 * keeper drops the file at CLOSE, which was sent when it was given up.
 */
#include "workers/remote_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/json_span.h"
#include "common/log.h"
#include "workers/worker_private.h"

#define OPEN_MAX       (16u << 10) /* bytes of an OPEN's payload */
#define PATH_BYTES_MAX (8u << 10)

enum remote_file_state {
	REMOTE_FILE_OPENING,
	REMOTE_FILE_OPEN,
	REMOTE_FILE_CLOSING,
};

struct remote_file {
	struct list node;
	struct remote_files *all;
	struct worker *worker;
	uint64_t line, token;
	enum remote_file_state state;
	int fd;
	const struct remote_file_handlers *handlers;
	void *user;
};

static int remote_file_send_open(struct remote_file *f,
                                 const struct remote_file_wish *wish)
{
	cleanup_buf struct buf b = BUF_INIT(OPEN_MAX);

	buf_printf(&b, "{\"token\":%" PRIu64, f->token);
	buf_json_key(&b, "path");
	buf_json_string(&b, wish->path, strlen(wish->path));
	if (wish->name) {
		buf_json_key(&b, "name");
		buf_json_string(&b, wish->name, strlen(wish->name));
	}
	buf_printf(&b, ",\"write\":%s,\"overwrite\":%s}",
	           wish->write ? "true" : "false",
	           wish->overwrite ? "true" : "false");
	if (!buf_ok(&b))
		return -1;
	return worker_send(f->worker, CHANNEL_OPEN, f->line,
	                   span_make(b.data, b.len));
}

static int remote_file_send_close(struct remote_file *f, bool keep)
{
	cleanup_buf struct buf b = BUF_INIT(64);

	buf_printf(&b, "{\"token\":%" PRIu64 ",\"keep\":%s}", f->token,
	           keep ? "true" : "false");
	return buf_ok(&b) ? worker_send(f->worker, CHANNEL_CLOSE, f->line,
	                                span_make(b.data, b.len))
	                  : -1;
}

static void remote_file_release(struct remote_file *f)
{
	if (f->fd >= 0)
		(void)close(f->fd);
	list_del(&f->node);
	f->all->count--;
	free(f);
}

struct remote_file *remote_file_open(struct worker *w, uint64_t line,
                                     const struct remote_file_wish *wish,
                                     const struct remote_file_handlers *h,
                                     void *user, struct error *err)
{
	struct remote_files *fs = worker_remote_files(w);
	struct remote_file *f;

	if (fs->count >= REMOTE_FILES_MAX) {
		error_set(err, ERR_LIMIT, "more than %d files open at once",
		          REMOTE_FILES_MAX);
		return NULL;
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		error_set_nomem(err, "file");
		return NULL;
	}
	f->all = fs;
	f->worker = w;
	f->line = line;
	f->token = ++fs->last_token;
	f->fd = -1;
	f->handlers = h;
	f->user = user;
	list_append(&fs->open, &f->node);
	fs->count++;
	if (remote_file_send_open(f, wish)) {
		error_set(err, ERR_LIMIT,
		          "%s: the request to open it could not be sent",
		          wish->path);
		remote_file_release(f);
		return NULL;
	}
	return f;
}

void remote_file_close(struct remote_file *f, bool keep)
{
	/* Ours goes first, so that the keeper renames a file that nobody
	 * writes to. */
	if (f->fd >= 0)
		(void)close(f->fd);
	f->fd = -1;
	f->state = REMOTE_FILE_CLOSING;
	if (remote_file_send_close(f, keep))
		log_warn("file", "close not sent");
}

struct remote_file *remote_file_free(struct remote_file *f)
{
	if (!f)
		return NULL;
	if (f->state != REMOTE_FILE_CLOSING && remote_file_send_close(f, false))
		log_warn("file", "close not sent");
	remote_file_release(f);
	return NULL;
}

static void remote_file_end(struct remote_file *f, const char *path,
                            const struct error *err)
{
	const struct remote_file_handlers *h = f->handlers;
	void *user = f->user;

	remote_file_release(f);
	h->on_closed(user, path, err);
}

/* "error" is text, or {type, message} as in a reply. */
static void remote_file_error(struct json j, struct error *err)
{
	struct json message =
		json_is(j, JSON_OBJECT) ? json_get(j, "message") : j;
	cleanup_free char *type = json_string_dup(json_get(j, "type"), 64);
	cleanup_free char *text = json_string_dup(message, ERROR_TEXT_MAX);

	error_set(err, type ? error_code_from_name(type) : ERR_SYSTEM, "%s",
	          text ? text : "the file could not be opened");
}

static void remote_file_opened(struct remote_file *f, struct json msg, int fd)
{
	struct error err;

	if (fd >= 0) {
		f->fd = fd;
		f->state = REMOTE_FILE_OPEN;
		f->handlers->on_open(f->user, fd);
		return;
	}
	remote_file_error(json_get(msg, "error"), &err);
	remote_file_end(f, NULL, &err);
}

static void remote_file_closed(struct remote_file *f, struct json msg)
{
	cleanup_free char *path =
		json_string_dup(json_get(msg, "path"), PATH_BYTES_MAX);
	struct error err;

	if (path) {
		remote_file_end(f, path, NULL);
		return;
	}
	remote_file_error(json_get(msg, "error"), &err);
	remote_file_end(f, NULL, &err);
}

static struct remote_file *remote_files_find(struct remote_files *fs,
                                             struct json token)
{
	struct remote_file *f;
	struct list *it;
	uint64_t t;

	if (!json_uint64(token, &t))
		return NULL;
	list_for_each (it, &fs->open) {
		f = list_entry(it, struct remote_file, node);
		if (f->token == t)
			return f;
	}
	return NULL;
}

void remote_files_on_frame(struct remote_files *fs,
                           const struct channel_frame *frame)
{
	struct remote_file *f = NULL;
	struct json msg = JSON_MISSING;
	bool opened = frame->type == CHANNEL_FILE;

	if (json_parse(&msg, frame->payload.p, frame->payload.n, 0, NULL) ==
	    JSON_OK)
		f = remote_files_find(fs, json_get(msg, "token"));
	if (f && opened && f->state == REMOTE_FILE_OPENING) {
		remote_file_opened(f, msg, frame->fd);
	} else if (f && !opened && f->state == REMOTE_FILE_CLOSING) {
		remote_file_closed(f, msg);
	} else if (frame->fd >= 0) {
		(void)close(frame->fd);
	}
}

void remote_files_init(struct remote_files *fs)
{
	list_init(&fs->open);
	fs->count = 0;
	fs->last_token = 0;
}

void remote_files_deinit(struct remote_files *fs)
{
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &fs->open)
		remote_file_release(list_entry(it, struct remote_file, node));
}
