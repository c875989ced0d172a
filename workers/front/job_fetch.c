/*
 * job_fetch.c - see job_fetch.h.
 */
#include "workers/front/job_fetch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/map.h"
#include "workers/front/ask.h"

#define REQUEST_BYTES 65536
#define FILES_BYTES   (4u << 20) /* told of one workflow */
#define NAME_BYTES    4096

/* One workflow's files. */
struct wanted_files {
	struct list node;
	struct job_fetch *fetch;
	size_t index;
	struct buf files; /* elements of the array */
	size_t open;      /* files not done yet */
};

struct wanted_file {
	struct list node;
	struct wanted_files *of;
	char *filename, *subfolder, *type;
};

/* A file that is there: workflows that ComfyUI had cached name it again. */
struct saved_file {
	char *key, *answer;
};

struct job_fetch {
	struct job *job;
	char *directory;
	bool overwrite;
	job_fetched_cb *cb;
	struct list waiting; /* struct wanted_file */
	struct list running; /* the same */
	struct list jobs;    /* struct wanted_files */
	struct map saved;    /* struct saved_file, by file_key() */
	size_t running_count;
};

static void file_free(struct wanted_file *w)
{
	list_del(&w->node);
	free(w->filename);
	free(w->subfolder);
	free(w->type);
	free(w);
}

static void files_done(struct job_fetch *f, struct wanted_files *w)
{
	list_del(&w->node);
	f->cb(f->job, w->index, span_make(w->files.data, w->files.len));
	buf_deinit(&w->files);
	free(w);
}

static void fetch_pump(struct job_fetch *f);

static void put_file(struct wanted_file *w, bool ok, struct json body)
{
	struct buf *b = &w->of->files;
	struct json path = json_get(body, "path");
	size_t before = b->len;

	(void)buf_printf(b, "%s{\"filename\":", b->len > 0 ? "," : "");
	(void)buf_json_string(b, w->filename, strlen(w->filename));
	if (ok && json_is(path, JSON_STRING)) {
		(void)buf_json_key(b, "path");
		(void)buf_append(b, path.text.p, path.text.n);
		(void)buf_json_key(b, "bytes");
		(void)buf_append(b, json_get(body, "bytes").text.p,
		                 json_get(body, "bytes").text.n);
	} else {
		(void)buf_json_key(b, "error");
		if (json_is(body, JSON_OBJECT))
			(void)json_compact(b, body);
		else
			(void)buf_puts(b, "{\"type\":\"internal\"}");
	}
	(void)buf_putc(b, '}');
	if (!buf_ok(b)) { /* what is there stays well-formed */
		b->failed = false;
		b->len = before;
	}
}

static void file_done(struct job_fetch *f, struct wanted_file *w, bool ok,
                      struct json body)
{
	struct wanted_files *of = w->of;

	put_file(w, ok, body);
	file_free(w);
	if (--of->open == 0)
		files_done(f, of);
}

static void file_fail(struct job_fetch *f, struct wanted_file *w,
                      const struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(REQUEST_BYTES);
	const char *type = error_code_name(err->code);
	struct json body = JSON_MISSING;

	(void)buf_puts(&b, "{\"type\":");
	(void)buf_json_string(&b, type, strlen(type));
	(void)buf_json_key(&b, "message");
	(void)buf_json_string(&b, err->text, strlen(err->text));
	(void)buf_putc(&b, '}');
	if (buf_ok(&b))
		(void)json_parse(&body, b.data, b.len, 0, NULL);
	file_done(f, w, false, body);
}

/* What ComfyUI calls it, with the lengths that keep the parts apart; the
 * caller's to free, NULL: no memory. */
static char *file_key(const struct wanted_file *w)
{
	char *key;

	if (asprintf(&key, "%zu %zu %s%s%s", strlen(w->type),
	             strlen(w->subfolder), w->type, w->subfolder,
	             w->filename) < 0)
		return NULL;
	return key;
}

static struct saved_file *fetch_saved(const struct job_fetch *f,
                                      const struct wanted_file *w)
{
	cleanup_free char *key = file_key(w);

	return key ? map_get(&f->saved, key, strlen(key)) : NULL;
}

static void saved_free(struct saved_file *s)
{
	free(s->key);
	free(s->answer);
	free(s);
}

/* Without memory for it the file is fetched once more. */
static void fetch_remember(struct job_fetch *f, const struct wanted_file *w,
                           struct json body)
{
	struct saved_file *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->key = file_key(w);
	s->answer = strndup(body.text.p, body.text.n);
	if (!s->key || !s->answer ||
	    map_add(&f->saved, s->key, strlen(s->key), s) != 0)
		saved_free(s);
}

static void on_answer(struct job *j, void *what, bool ok, struct json body)
{
	struct wanted_file *w = what;
	struct job_fetch *f = w->of->fetch;

	f->running_count--;
	if (ok)
		fetch_remember(f, w, body);
	file_done(f, w, ok, body);
	fetch_pump(f);
}

static const struct job_waiter waiter = {.on_answer = on_answer};

static int file_ask(struct job_fetch *f, struct wanted_file *w,
                    struct error *err)
{
	cleanup_buf struct buf request = BUF_INIT(REQUEST_BYTES);

	(void)buf_puts(&request, "{\"op\":\"view\",\"params\":{");
	ask_param(&request, "filename", w->filename);
	ask_param(&request, "subfolder", w->subfolder);
	ask_param(&request, "type", w->type);
	ask_param(&request, "path", f->directory);
	(void)buf_printf(&request, ",\"overwrite\":%s}}",
	                 f->overwrite ? "true" : "false");
	if (!buf_ok(&request))
		return error_set(err, ERR_LIMIT, "a file's name is too long");
	return job_ask(f->job, span_make(request.data, request.len),
	               f->directory, w, &waiter, err);
}

static bool is_running(const struct job_fetch *f, const struct wanted_file *w)
{
	struct list *it;

	list_for_each (it, &f->running) {
		const struct wanted_file *r =
			list_entry(it, struct wanted_file, node);

		if (strcmp(r->filename, w->filename) == 0 &&
		    strcmp(r->subfolder, w->subfolder) == 0 &&
		    strcmp(r->type, w->type) == 0)
			return true;
	}
	return false;
}

/* The first that isn't on its way for another workflow. */
static struct wanted_file *fetch_next(const struct job_fetch *f)
{
	struct list *it;

	list_for_each (it, &f->waiting) {
		struct wanted_file *w =
			list_entry(it, struct wanted_file, node);

		/* The analyser does not see that what is freed has left the
		 * list. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		if (!is_running(f, w))
			return w;
	}
	return NULL;
}

static void fetch_pump(struct job_fetch *f)
{
	struct error err = ERROR_NULL;
	struct wanted_file *w;

	while (f->running_count < JOB_FETCHES_MAX && (w = fetch_next(f))) {
		const struct saved_file *saved = fetch_saved(f, w);
		struct json body;

		list_del(&w->node);
		list_append(&f->running, &w->node);
		if (saved &&
		    json_parse(&body, saved->answer, strlen(saved->answer), 0,
		               NULL) == JSON_OK) {
			file_done(f, w, true, body);
			continue;
		}
		if (f->job->cancelled)
			(void)error_set(&err, ERR_CANCELLED, "cancelled");
		if (f->job->cancelled || file_ask(f, w, &err))
			file_fail(f, w, &err);
		else
			f->running_count++;
	}
}

static bool add_file(struct job_fetch *f, struct wanted_files *of,
                     struct json item)
{
	struct wanted_file *w;
	struct json type = json_get(item, "type");

	if (!json_is(json_get(item, "filename"), JSON_STRING) ||
	    json_string_eq(type, "input") || of->open >= JOB_FILES_MAX)
		return true;
	w = calloc(1, sizeof(*w));
	if (!w)
		return false;
	list_init(&w->node);
	w->of = of;
	w->filename = json_string_dup(json_get(item, "filename"), NAME_BYTES);
	w->subfolder = json_string_dup(json_get(item, "subfolder"), NAME_BYTES);
	w->type = json_string_dup(type, 64);
	if (!w->subfolder)
		w->subfolder = strdup("");
	if (!w->type)
		w->type = strdup("output");
	if (!w->filename || !w->subfolder || !w->type) {
		file_free(w);
		return false;
	}
	list_append(&f->waiting, &w->node);
	of->open++;
	return true;
}

static bool add_outputs(struct job_fetch *f, struct wanted_files *of,
                        struct json outputs)
{
	struct json_iter nodes, keys, items;
	struct json output, list, item;

	json_iter_init(&nodes, outputs);
	while (json_iter_next(&nodes, NULL, &output)) {
		json_iter_init(&keys, output);
		while (json_iter_next(&keys, NULL, &list)) {
			json_iter_init(&items, list);
			while (json_is(list, JSON_ARRAY) &&
			       json_iter_next(&items, NULL, &item)) {
				if (!add_file(f, of, item))
					return false;
			}
		}
	}
	return true;
}

void job_fetch_outputs(struct job_fetch *f, size_t index, struct json outputs)
{
	struct wanted_files *of = calloc(1, sizeof(*of));

	if (!of) {
		f->cb(f->job, index,
		      SPAN("{\"error\":{\"type\":\"internal\",\"message\":"
		           "\"out of memory\"}}"));
		return;
	}
	of->fetch = f;
	of->index = index;
	buf_init(&of->files, FILES_BYTES);
	list_append(&f->jobs, &of->node);
	if (!add_outputs(f, of, outputs))
		(void)buf_puts(&of->files,
		               "{\"error\":{\"type\":\"internal\",\"message\":"
		               "\"out of memory\"}}");
	if (of->open == 0)
		files_done(f, of);
	else
		fetch_pump(f);
}

struct job_fetch *job_fetch_new(struct job *j, const char *directory,
                                bool overwrite, job_fetched_cb *cb,
                                struct error *err)
{
	struct job_fetch *f;
	struct stat st;

	if (mkdir(directory, 0777) < 0 && errno != EEXIST) {
		(void)error_set_errno(err, errno, "--download %s", directory);
		return NULL;
	}
	if (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
		(void)error_set(err, ERR_INVALID,
		                "--download %s: not a directory", directory);
		return NULL;
	}
	f = calloc(1, sizeof(*f));
	if (f)
		f->directory = strdup(directory);
	if (!f || !f->directory) {
		free(f);
		(void)error_set_nomem(err, "--download");
		return NULL;
	}
	f->job = j;
	f->overwrite = overwrite;
	f->cb = cb;
	list_init(&f->waiting);
	list_init(&f->running);
	list_init(&f->jobs);
	return f;
}

struct job_fetch *job_fetch_free(struct job_fetch *f)
{
	struct list *it, *tmp;
	size_t i;

	if (!f)
		return NULL;
	list_for_each_safe (it, tmp, &f->waiting)
		file_free(list_entry(it, struct wanted_file, node));
	list_for_each_safe (it, tmp, &f->running)
		file_free(list_entry(it, struct wanted_file, node));
	map_for_each (i, &f->saved) {
		saved_free(f->saved.slots[i].value);
	}
	map_deinit(&f->saved);
	while ((it = list_pop(&f->jobs))) {
		struct wanted_files *w =
			list_entry(it, struct wanted_files, node);

		buf_deinit(&w->files);
		free(w);
	}
	free(f->directory);
	free(f);
	return NULL;
}
