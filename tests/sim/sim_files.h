/*
 * sim_files.h - the output, temp and input folders, in memory.
 */
#ifndef TESTS_SIM_FILES_H
#define TESTS_SIM_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/map.h"

#define SIM_NAME_MAX        4096      /* bytes of a path */
#define SIM_FILES_MAX       100000    /* files */
#define SIM_FILES_BYTES_MAX 536870912 /* bytes of all of them, shared once */

enum sim_folder { SIM_OUTPUT_FOLDER, SIM_TEMP, SIM_INPUT, SIM_FOLDER_COUNT };

/* Bytes that several files may share. */
struct sim_blob {
	unsigned refs;
	size_t len;
	size_t *counted_in; /* the sum that it is part of, or NULL */
	unsigned char data[];
};

struct sim_blob *sim_blob_new(const void *data, size_t len);
struct sim_blob *sim_blob_ref(struct sim_blob *b);
void sim_blob_unref(struct sim_blob *b);

struct sim_files {
	struct map files;    /* struct sim_file by "folder/subfolder/name" */
	struct map counters; /* latest number by "folder/subfolder/prefix" */
	size_t bytes;
};

void sim_files_init(struct sim_files *f);
void sim_files_clear(struct sim_files *f);
/* "output", "temp", "input"; false for others. */
bool sim_folder_parse(const char *name, enum sim_folder *out);
const char *sim_folder_name(enum sim_folder folder);
/* Takes a reference of its own; -ENOSPC when a bound is reached. */
int sim_files_put(struct sim_files *f, enum sim_folder folder,
                  const char *subfolder, const char *name,
                  struct sim_blob *blob);
const struct sim_blob *sim_files_get(const struct sim_files *f,
                                     enum sim_folder folder,
                                     const char *subfolder, const char *name);
/* "sub/name.png [output]": the folder may be named behind the path. */
const struct sim_blob *sim_files_annotated(const struct sim_files *f,
                                           const char *text,
                                           enum sim_folder otherwise);
/* The next number for files called subfolder/prefix_NNNNN_. */
unsigned sim_files_next(struct sim_files *f, enum sim_folder folder,
                        const char *subfolder, const char *prefix);
/* By the ending of its name. */
const char *sim_mime_of(const char *name);

#endif
