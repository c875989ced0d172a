/*
 * chain_image.c - the image that a chain hands over: found among the outputs
 * of a step, and named for the node that takes it. See chain_spec.h.
 */
#include <stdlib.h>
#include <string.h>

#include "common/chain_spec.h"
#include "common/log.h"

#define LISTED_MAX 8 /* nodes named in a message */

static bool is_file(struct json j)
{
	return json_is(json_get(j, "filename"), JSON_STRING);
}

/* The array of a node's output that holds files: "images" where there is one,
 * else the first (gifs, audio ...). */
static struct json files_of(struct json output)
{
	struct json images = json_get(output, "images"), value;
	struct json_iter it;

	if (is_file(json_at(images, 0)))
		return images;
	json_iter_init(&it, output);
	while (json_iter_next(&it, NULL, &value)) {
		if (json_is(value, JSON_ARRAY) && is_file(json_at(value, 0)))
			return value;
	}
	return JSON_MISSING;
}

/* "9, 12" */
static size_t list_nodes(struct json outputs, struct buf *text,
                         struct json *onlyp)
{
	struct json_iter it;
	struct json id, output;
	size_t n = 0;

	json_iter_init(&it, outputs);
	while (json_iter_next(&it, &id, &output)) {
		struct json files = files_of(output);

		if (json_is(files, JSON_NONE))
			continue;
		*onlyp = files;
		if (n++ < LISTED_MAX) {
			(void)buf_puts(text, n > 1 ? ", " : "");
			(void)json_string_decode(id, text);
		}
	}
	if (n > LISTED_MAX)
		(void)buf_puts(text, ", ...");
	return n;
}

static int find_files(const struct chain_step *step, struct json outputs,
                      struct json *filesp, struct error *err)
{
	cleanup_buf struct buf text = BUF_INIT(2048);
	const char *node = step->output_node;
	struct json only = JSON_MISSING;
	size_t n = list_nodes(outputs, &text, &only);
	const char *listed = text.len > 0 ? buf_cstr(&text) : "none";

	if (!node && n == 1) {
		*filesp = only;
		return 0;
	}
	if (!node)
		return error_set(err, n ? ERR_INVALID : ERR_NOT_FOUND,
		                 n ? "step %zu has several nodes with images "
		                     "(%s): say which by outputNode"
		                   : "step %zu gave no image (nodes with "
		                     "images: %s)",
		                 step->from, log_safe(listed, strlen(listed)));
	*filesp = files_of(json_get(outputs, node));
	if (json_is(*filesp, JSON_NONE))
		return error_set(
			err, ERR_NOT_FOUND,
			"node %s of step %zu gave no image (nodes with "
			"images: %s)",
			log_safe(node, strlen(node)), step->from,
			log_safe(listed, strlen(listed)));
	return 0;
}

int chain_image_pick(struct chain_image *image, const struct chain_step *step,
                     struct json outputs, struct error *err)
{
	struct json files = JSON_MISSING, file;

	memset(image, 0, sizeof(*image));
	if (find_files(step, outputs, &files, err))
		return -1;
	file = json_at(files, step->output_index);
	if (json_is(file, JSON_NONE))
		return error_set(err, ERR_NOT_FOUND,
		                 "outputIndex %zu, and step %zu gave %zu "
		                 "image(s) there",
		                 step->output_index, step->from,
		                 json_count(files));
	image->filename =
		json_string_dup(json_get(file, "filename"), CHAIN_NAME_MAX);
	image->subfolder =
		json_string_dup(json_get(file, "subfolder"), CHAIN_NAME_MAX);
	image->type = json_string_dup(json_get(file, "type"), CHAIN_NAME_MAX);
	if (!image->subfolder)
		image->subfolder = strdup("");
	if (!image->type)
		image->type = strdup("output");
	if (!image->filename || !*image->filename || !image->subfolder ||
	    !image->type)
		return error_set(
			err, ERR_NOT_FOUND,
			"output %zu of step %zu is no image: it has no "
			"file name",
			step->output_index, step->from);
	return 0;
}

void chain_image_deinit(struct chain_image *image)
{
	free(image->filename);
	free(image->subfolder);
	free(image->type);
	memset(image, 0, sizeof(*image));
}

bool chain_class_loads(struct span class)
{
	static const char *const loaders[] = {"LoadImage", "LoadImageMask",
	                                      "LoadImageOutput"};

	for (size_t i = 0; i < ARRAY_SIZE(loaders); i++) {
		if (span_eq_str(class, loaders[i]))
			return true;
	}
	return false;
}

bool chain_can_refer(const char *class, const struct chain_image *image)
{
	static const char *const folders[] = {"output", "temp", "input"};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (strcmp(image->type, folders[i]) == 0)
			return chain_class_loads(SPAN(class));
	}
	return false;
}

void chain_reference(const struct chain_image *image, struct buf *out)
{
	(void)buf_printf(out, "%s%s%s [%s]", image->subfolder,
	                 *image->subfolder ? "/" : "", image->filename,
	                 image->type);
}
