/*
 * tool_files_of.h - the files in a prompt's outputs, and the small images among
 * them fetched for a result that shows them.
 */
#ifndef WORKERS_TOOL_FILES_OF_H
#define WORKERS_TOOL_FILES_OF_H

#include "workers/mcp_tools.h"

#define TOOL_FILES_MAX  200 /* listed in one result */
#define TOOL_IMAGES_MAX 8   /* shown in one result */

struct preview;
struct tool_images;

/* Walks outputs {node: {key: [element]}}: every element that names a file.
 * `node` is the node's id (a JSON string). False from the callback stops. */
typedef bool tool_file_of_cb(void *user, struct json node, struct json file);
void tool_files_each(struct json outputs, tool_file_of_cb *cb, void *user);

/* Appends the JSON array of the files: {node, filename, subfolder, type,
 * view_url}. Returns how many there are. */
size_t tool_put_files(struct buf *out, const struct tool_call *c,
                      struct json outputs);

/* By the name's extension. */
bool tool_is_image(struct json file);

/* Ends the call with `structured` (taken over; see tool_finish) and, behind it,
 * resource links to the files of `outputs`; with `images`, also the images
 * themselves: whole up to TOOL_IMAGE_MAX, as webp preview above,
 * TOOL_INLINE_MAX in all. What cannot be fetched is left out, its link stays.
 * First of all comes `preview`, if it isn't NULL or empty.
 * While images are fetched, `*slot` is what the tool's destroy() frees. */
void tool_finish_files(struct tool_call *c, struct tool_images **slot,
                       struct buf *structured, bool is_error,
                       struct json prompt_id, struct json outputs, bool images,
                       const struct preview *preview);
struct tool_images *tool_images_free(struct tool_images *t);

#endif
