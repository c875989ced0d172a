/*
 * chain_spec.h - a chain as the user wrote it, checked: workflows in order,
 * what each takes of an earlier one, and where that goes. Pure.
 *
 *     {"steps": [{"workflow": {...}, "params": {...},
 *                 "inputFrom": {"step": 0, "outputNode": "9",
 *                               "outputIndex": 0},
 *                 "outputTo": "image"}, ...]}
 *
 * or the array alone. params are overrides: {"3.seed": 5} or {"3": {"seed":
 * 5}}. outputNode may be left out where the step has one node with images,
 * outputIndex counts that node's images and is 0 unless told, outputTo is
 * "node.input" or the name of an input that only one node has. input_from,
 * output_node, output_index and output_to are understood as well. Whoever puts
 * files in the place of their paths says "unreadable": why, where one couldn't
 * be read.
 */
#ifndef COMMON_CHAIN_SPEC_H
#define COMMON_CHAIN_SPEC_H

#include "common/error.h"
#include "common/json_span.h"

#define CHAIN_STEPS_MAX 64
#define CHAIN_INDEX_MAX 100000 /* largest outputIndex */
#define CHAIN_NAME_MAX  1024   /* bytes of a node's id or of outputTo */

struct chain_step {
	/* Why it can't work, whatever the others do; code ERR_NONE: it can. */
	struct error fault;
	bool unread; /* the fault: its workflow's file was not to be read */
	struct buf workflow; /* with params put in */
	size_t nodes;
	bool takes;        /* there is an inputFrom */
	size_t from;       /* an earlier step */
	char *output_node; /* NULL: the only one with images */
	size_t output_index;
	char *target; /* "node.input"; NULL unless takes */
	char *node;   /* the id of that node */
	char *class;  /* its class_type */
};

struct chain_spec {
	size_t count;
	struct chain_step *steps;
	bool has_stop; /* "stop_on_error" beside "steps" */
	bool stop_on_error;
};

/* NULL with `err` set when it isn't a chain at all: no array, empty, too many
 * steps. A step that can't work is a fault of that step. */
struct chain_spec *chain_spec_parse(struct json chain, struct error *err);
/* NULL is fine; returns NULL. */
struct chain_spec *chain_spec_free(struct chain_spec *s);

/* One image of ComfyUI's, as /view names it. */
struct chain_image {
	char *filename, *subfolder, *type;
};
/* The image that `step` wants out of the `outputs` of the step it takes from
 * (node id -> output). Copies; chain_image_deinit() in any case. ERR_NOT_FOUND
 * in words that say what there was. */
int chain_image_pick(struct chain_image *image, const struct chain_step *step,
                     struct json outputs, struct error *err);
void chain_image_deinit(struct chain_image *image);

/* Whether nodes of this class load an image by a name with its folder,
 * "sub/a.png [output]" (those that call ComfyUI's get_annotated_filepath). */
bool chain_class_loads(struct span class);
/* The same, and this image can be named so. */
bool chain_can_refer(const char *class, const struct chain_image *image);
/* Appends that name. */
void chain_reference(const struct chain_image *image, struct buf *out);
/* Appends the workflow with `value` at the target. */
int chain_step_fill(const struct chain_step *step, const char *value,
                    struct buf *out, struct error *err);

#endif
