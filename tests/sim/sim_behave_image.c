/*
 * sim_behave_image.c - nodes that make, change, show and save images.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_behave.h"
#include "tests/sim/sim_image.h"
#include "tests/sim/sim_run.h"
#include "tests/sim/sim_text.h"

/* What one frame of an animation takes to encode, by `method`. */
#define WEBP_FRAME_MS      2
#define WEBP_SLOW_FRAME_MS 4

static const struct sim_value *image_arg(struct sim_run *r, const char *name)
{
	const struct sim_value *v = sim_arg(r, name);

	return v && v->kind == SIM_V_IMAGE ? v : NULL;
}

static enum sim_step no_image(struct sim_run *r)
{
	return sim_fail(r, "AttributeError",
	                "'NoneType' object has no attribute 'shape'");
}

enum sim_step sim_run_empty_image(struct sim_run *r)
{
	sim_out(r, 0,
	        sim_value_image((uint32_t)sim_arg_int(r, "width", 512),
	                        (uint32_t)sim_arg_int(r, "height", 512),
	                        (uint32_t)sim_arg_int(r, "batch_size", 1),
	                        (uint64_t)sim_arg_int(r, "color", 0)));
	return SIM_STEP_DONE;
}

static struct sim_value *image_like(const struct sim_value *v)
{
	struct sim_value *copy =
		sim_value_image(v->width, v->height, v->batch, v->seed);

	copy->patterned = v->patterned;
	return copy;
}

enum sim_step sim_run_image_invert(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "image");
	struct sim_value *out;

	if (!v)
		return no_image(r);
	out = image_like(v);
	out->seed = ~v->seed & 0xffffff;
	sim_out(r, 0, out);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_image_scale(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "image");
	int64_t w = sim_arg_int(r, "width", 0), h = sim_arg_int(r, "height", 0);
	struct sim_value *out;

	if (!v)
		return no_image(r);
	out = image_like(v);
	/* 0 keeps the proportions, or the size if both are. */
	if (w && !h)
		h = (int64_t)v->height * w / v->width;
	else if (h && !w)
		w = (int64_t)v->width * h / v->height;
	if (w && h) {
		out->width = (uint32_t)w;
		out->height = (uint32_t)h;
	}
	sim_out(r, 0, out);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_image_from_batch(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "image");
	int64_t at = sim_arg_int(r, "batch_index", 0);
	int64_t len = sim_arg_int(r, "length", 1);
	struct sim_value *out;

	if (!v)
		return no_image(r);
	out = image_like(v);
	if (at > (int64_t)v->batch - 1)
		at = (int64_t)v->batch - 1;
	if (len > (int64_t)v->batch - at)
		len = (int64_t)v->batch - at;
	out->batch = (uint32_t)len;
	sim_out(r, 0, out);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_get_image_size(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "image");
	char text[96];

	if (!v)
		return no_image(r);
	(void)snprintf(text, sizeof(text),
	               "width: %u, height: %u\n batch size: %u", v->width,
	               v->height, v->batch);
	sim_run_say(r, text);
	sim_out(r, 0, sim_value_int(v->width));
	sim_out(r, 1, sim_value_int(v->height));
	sim_out(r, 2, sim_value_int(v->batch));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_load_image(struct sim_run *r)
{
	char *name = sim_arg_text(r, "image");
	const struct sim_blob *blob =
		sim_files_annotated(&r->exec->sim->files, name, SIM_INPUT);
	struct sim_value *mask = sim_value_new(SIM_V_MASK);
	uint32_t w = 64, h = 64;

	free(name);
	if (!blob) {
		sim_value_unref(mask);
		return sim_fail(r, "FileNotFoundError",
		                "[Errno 2] No such file or directory");
	}
	(void)sim_png_size(blob, &w, &h);
	mask->width = w;
	mask->height = h;
	mask->batch = 1;
	sim_out(r, 0, sim_value_image(w, h, 1, blob->len));
	sim_out(r, 1, mask);
	return SIM_STEP_DONE;
}

/* --- saving -----------------------------------------------------------------
 */

struct target {
	enum sim_folder folder;
	char subfolder[SIM_NAME_MAX], name[SIM_NAME_MAX];
};

/* "a/b/c": subfolder "a/b", names that begin with "c". */
static bool split_prefix(struct target *t, const char *prefix)
{
	const char *slash = strrchr(prefix, '/');
	size_t n = slash ? (size_t)(slash - prefix) : 0;

	if (strlen(prefix) >= SIM_NAME_MAX - 32 || *prefix == '/' ||
	    strstr(prefix, "../") || strcmp(prefix, "..") == 0)
		return false;
	memcpy(t->subfolder, prefix, n);
	t->subfolder[n] = '\0';
	(void)snprintf(t->name, sizeof(t->name), "%s",
	               slash ? slash + 1 : prefix);
	return true;
}

static void put_file(struct buf *b, const struct target *t, const char *name)
{
	if (b->data[b->len - 1] != '[')
		(void)buf_puts(b, ", ");
	(void)buf_puts(b, "{\"filename\": ");
	(void)sim_put_string(b, name);
	(void)buf_puts(b, ", \"subfolder\": ");
	(void)sim_put_string(b, t->subfolder);
	(void)buf_printf(b, ", \"type\": \"%s\"}", sim_folder_name(t->folder));
}

/* Numbers `count` files that share `blob` and lists them in the node's
 * output. */
static enum sim_step save_files(struct sim_run *r, const struct target *t,
                                struct sim_blob *blob, uint32_t count,
                                const char *ending)
{
	struct sim_files *files = &r->exec->sim->files;
	char name[SIM_NAME_MAX + 32];

	(void)buf_puts(&r->ui, "{\"images\": [");
	for (uint32_t i = 0; i < count; i++) {
		unsigned n =
			sim_files_next(files, t->folder, t->subfolder, t->name);

		(void)snprintf(name, sizeof(name), "%s_%05u_.%s", t->name, n,
		               ending);
		if (sim_files_put(files, t->folder, t->subfolder, name, blob)) {
			buf_reset(&r->ui);
			return sim_fail(r, "OSError",
			                "[Errno 28] No space left on device");
		}
		put_file(&r->ui, t, name);
	}
	(void)buf_putc(&r->ui, ']');
	return SIM_STEP_DONE;
}

/* A node's prompt and workflow, as the original puts them into its files. */
static struct sim_blob *png_with_metadata(struct sim_run *r,
                                          const struct sim_value *v)
{
	const struct sim_prompt *p = r->exec->prompt;
	struct json extra, workflow;
	char *text = NULL;
	const char *pairs[] = {"prompt", p->workflow, "workflow", NULL, NULL};
	struct sim_blob *blob;

	if (json_parse(&extra, p->extra_data, p->extra_len, JSON_NONFINITE,
	               NULL) == JSON_OK) {
		workflow =
			json_get(json_get(extra, "extra_pnginfo"), "workflow");
		if (!json_is(workflow, JSON_NONE))
			text = sim_strndup(workflow.text.p, workflow.text.n);
	}
	pairs[3] = text;
	blob = sim_png(v, pairs);
	free(text);
	return blob;
}

static enum sim_step save_pngs(struct sim_run *r, const struct target *t)
{
	const struct sim_value *v = image_arg(r, "images");
	struct sim_blob *blob;
	enum sim_step step;

	if (!v)
		return no_image(r);
	blob = png_with_metadata(r, v);
	if (!blob)
		return sim_fail(r, "MemoryError",
		                "the picture is too large for this server");
	step = save_files(r, t, blob, v->batch, "png");
	if (step == SIM_STEP_DONE)
		(void)buf_putc(&r->ui, '}');
	sim_blob_unref(blob);
	return step;
}

static enum sim_step outside(struct sim_run *r)
{
	return sim_fail(r, "Exception",
	                "**** ERROR: Saving image outside the output folder "
	                "is not allowed.");
}

enum sim_step sim_run_save_image(struct sim_run *r)
{
	struct target t = {.folder = SIM_OUTPUT_FOLDER};
	char *prefix = sim_arg_text(r, "filename_prefix");
	bool inside = split_prefix(&t, prefix);

	free(prefix);
	return inside ? save_pngs(r, &t) : outside(r);
}

enum sim_step sim_run_preview_image(struct sim_run *r)
{
	struct target t = {.folder = SIM_TEMP};

	(void)snprintf(t.name, sizeof(t.name), "ComfyUI_temp_%s",
	               sim_cache_suffix(r->node->cache, r->node->id,
	                                r->node->cls->row->name));
	return save_pngs(r, &t);
}

enum sim_step sim_run_save_image_websocket(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "images");
	struct sim_blob *blob;
	bool go_on = true;

	if (!v)
		return no_image(r);
	blob = sim_png(v, NULL);
	if (!blob)
		return sim_fail(r, "MemoryError",
		                "the picture is too large for this server");
	for (uint32_t i = 0; go_on && i < v->batch; i++)
		go_on = sim_run_progress(r, i, v->batch, 0, blob, "image/png");
	sim_blob_unref(blob);
	return go_on ? SIM_STEP_DONE : SIM_STEP_INTERRUPTED;
}

enum sim_step sim_run_save_animated_webp(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "images");
	struct target t = {.folder = SIM_OUTPUT_FOLDER};
	char *prefix, *method;
	struct sim_blob *blob;
	enum sim_step step;
	bool slow;

	if (!v)
		return no_image(r);
	if (r->phase == 0) {
		method = sim_arg_text(r, "method");
		slow = strcmp(method, "slowest") == 0;
		free(method);
		return sim_wait_ms(r,
		                   (slow ? WEBP_SLOW_FRAME_MS : WEBP_FRAME_MS) *
		                           (double)v->batch);
	}
	prefix = sim_arg_text(r, "filename_prefix");
	if (!split_prefix(&t, prefix)) {
		free(prefix);
		return outside(r);
	}
	free(prefix);
	blob = sim_webp();
	step = save_files(r, &t, blob, 1, "webp");
	if (step == SIM_STEP_DONE)
		(void)buf_puts(&r->ui, v->batch > 1 ? ", \"animated\": [true]}"
		                                    : ", \"animated\": "
		                                      "[false]}");
	sim_blob_unref(blob);
	return step;
}

enum sim_step sim_run_preview_any(struct sim_run *r)
{
	const struct sim_value *v = sim_arg(r, "source");
	struct json j = sim_value_as_json(v);
	struct buf text = BUF_INIT(SIM_FRAME_MAX);

	if (v && v->kind != SIM_V_JSON)
		(void)buf_puts(&text, "source exists, but could not be "
		                      "serialized.");
	else if (json_is(j, JSON_ARRAY) || json_is(j, JSON_OBJECT))
		(void)sim_put_json(&text, j);
	else
		(void)sim_put_python(&text, j, false);
	(void)buf_puts(&r->ui, "{\"text\": [");
	(void)sim_put_string_n(&r->ui, text.data, text.len);
	(void)buf_puts(&r->ui, "]}");
	buf_deinit(&text);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_average(struct sim_run *r)
{
	const struct sim_value *v = image_arg(r, "input1");

	if (!v)
		return no_image(r);
	sim_out(r, 0, image_like(v));
	return SIM_STEP_DONE;
}

/* An output under any key, e.g. audio, with any JSON object beside it. */
enum sim_step sim_run_sim_output(struct sim_run *r)
{
	char *text = sim_arg_text(r, "json"), *key = sim_arg_text(r, "key");
	struct json j;

	if (json_parse(&j, text, strlen(text), 0, NULL) != JSON_OK ||
	    !json_is(j, JSON_OBJECT)) {
		free(text);
		free(key);
		return sim_fail(r, "ValueError", "json is not a JSON object");
	}
	(void)buf_putc(&r->ui, '{');
	(void)sim_put_string(&r->ui, *key ? key : "audio");
	(void)buf_puts(&r->ui, ": [");
	(void)sim_put_json(&r->ui, j);
	(void)buf_puts(&r->ui, "]}");
	free(text);
	free(key);
	return SIM_STEP_DONE;
}
