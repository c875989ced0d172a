/*
 * sim_files.c - see sim_files.h.
 */
#include "tests/sim/sim_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/macros.h"
#include "tests/sim/sim_text.h"

struct sim_file {
	char *path;
	struct sim_blob *blob;
};

struct counter {
	char *path;
	unsigned latest;
};

static const char *const folder_names[] = {
	[SIM_OUTPUT_FOLDER] = "output",
	[SIM_TEMP] = "temp",
	[SIM_INPUT] = "input",
};
STATIC_ASSERT_ARRAY_SIZE(folder_names, SIM_FOLDER_COUNT);

struct sim_blob *sim_blob_new(const void *data, size_t len)
{
	struct sim_blob *b = sim_calloc(1, sizeof(*b) + len);

	b->refs = 1;
	b->len = len;
	if (len)
		memcpy(b->data, data, len);
	return b;
}

struct sim_blob *sim_blob_ref(struct sim_blob *b)
{
	b->refs++;
	return b;
}

void sim_blob_unref(struct sim_blob *b)
{
	if (!b || --b->refs)
		return;
	if (b->counted_in)
		*b->counted_in -= b->len;
	free(b);
}

void sim_files_init(struct sim_files *f)
{
	memset(f, 0, sizeof(*f));
}

static void file_free(struct sim_file *file)
{
	sim_blob_unref(file->blob);
	free(file->path);
	free(file);
}

void sim_files_clear(struct sim_files *f)
{
	size_t i;

	map_for_each (i, &f->files)
		file_free(f->files.slots[i].value);
	map_for_each (i, &f->counters) {
		struct counter *c = f->counters.slots[i].value;

		free(c->path);
		free(c);
	}
	map_deinit(&f->files);
	map_deinit(&f->counters);
	sim_files_init(f);
}

bool sim_folder_parse(const char *name, enum sim_folder *out)
{
	for (int i = 0; i < SIM_FOLDER_COUNT; i++) {
		if (strcmp(folder_names[i], name) == 0) {
			*out = (enum sim_folder)i;
			return true;
		}
	}
	return false;
}

const char *sim_folder_name(enum sim_folder folder)
{
	return folder_names[folder];
}

/* Without empty components and ".": "a//b" is "a/b". */
static char *path_of(enum sim_folder folder, const char *subfolder,
                     const char *name)
{
	char *path = sim_calloc(1, strlen(subfolder) + strlen(name) + 16);
	const char *parts[] = {folder_names[folder], subfolder, name};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const char *p = parts[i];

		while (*p) {
			size_t len = strcspn(p, "/");

			if (len && !(len == 1 && *p == '.')) {
				if (n)
					path[n++] = '/';
				memcpy(path + n, p, len);
				n += len;
			}
			p += len + (p[len] == '/');
		}
	}
	return path;
}

int sim_files_put(struct sim_files *f, enum sim_folder folder,
                  const char *subfolder, const char *name,
                  struct sim_blob *blob)
{
	char *path = path_of(folder, subfolder, name);
	struct sim_file *file = map_get(&f->files, path, strlen(path));

	if (!blob->counted_in && f->bytes + blob->len > SIM_FILES_BYTES_MAX) {
		free(path);
		return -ENOSPC;
	}
	if (!blob->counted_in) {
		blob->counted_in = &f->bytes;
		f->bytes += blob->len;
	}
	(void)sim_blob_ref(blob);
	if (file) {
		free(path);
		sim_blob_unref(file->blob);
		file->blob = blob;
		return 0;
	}
	file = sim_calloc(1, sizeof(*file));
	file->path = path;
	file->blob = blob;
	if (f->files.count >= SIM_FILES_MAX ||
	    map_add(&f->files, path, strlen(path), file)) {
		file_free(file);
		return -ENOSPC;
	}
	return 0;
}

const struct sim_blob *sim_files_get(const struct sim_files *f,
                                     enum sim_folder folder,
                                     const char *subfolder, const char *name)
{
	char *path = path_of(folder, subfolder, name);
	struct sim_file *file = map_get(&f->files, path, strlen(path));

	free(path);
	return file ? file->blob : NULL;
}

const struct sim_blob *sim_files_annotated(const struct sim_files *f,
                                           const char *text,
                                           enum sim_folder otherwise)
{
	const struct sim_blob *blob;
	char *copy = sim_strdup(text);
	size_t len = strlen(copy);

	for (int i = 0; i < SIM_FOLDER_COUNT; i++) {
		size_t n = strlen(folder_names[i]) + 3; /* " [", "]" */
		char ending[16];

		(void)snprintf(ending, sizeof(ending), " [%s]",
		               folder_names[i]);
		if (len > n && strcmp(copy + len - n, ending) == 0) {
			copy[len - n] = '\0';
			otherwise = (enum sim_folder)i;
			break;
		}
	}
	blob = sim_files_get(f, otherwise, "", copy);
	free(copy);
	return blob;
}

unsigned sim_files_next(struct sim_files *f, enum sim_folder folder,
                        const char *subfolder, const char *prefix)
{
	char *path = path_of(folder, subfolder, prefix);
	struct counter *c = map_get(&f->counters, path, strlen(path));

	if (c) {
		free(path);
		return ++c->latest;
	}
	c = sim_calloc(1, sizeof(*c));
	c->path = path;
	c->latest = 1;
	if (map_add(&f->counters, path, strlen(path), c))
		abort();
	return 1;
}

const char *sim_mime_of(const char *name)
{
	static const struct {
		const char *ending, *mime;
	} types[] = {
		{".png", "image/png"},         {".jpg", "image/jpeg"},
		{".jpeg", "image/jpeg"},       {".webp", "image/webp"},
		{".gif", "image/gif"},         {".txt", "text/plain"},
		{".json", "application/json"},
	};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(types); i++) {
		if (strcasecmp(dot, types[i].ending) == 0)
			return types[i].mime;
	}
	return "application/octet-stream";
}
