/*
 * sim_behave_model.c - nodes that would need a model, and our own simulated
 * ones: they take their time, report progress, and produce what follows from
 * their inputs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_behave.h"
#include "tests/sim/sim_image.h"
#include "tests/sim/sim_run.h"
#include "tests/sim/sim_text.h"

/* Durations in simulated milliseconds, after a middling graphics card. */
#define CHECKPOINT_MS 300
#define LORA_MS       60
#define VAE_LOAD_MS   40
#define ENCODE_MS     30
#define DECODE_MS     120
#define FAKE_STEP_MS  20

enum sim_step sim_run_checkpoint_loader(struct sim_run *r)
{
	if (r->phase == 0)
		return sim_wait_ms(r, CHECKPOINT_MS);
	sim_out(r, 0, sim_value_token("ModelPatcher"));
	sim_out(r, 1, sim_value_token("CLIP"));
	sim_out(r, 2, sim_value_token("VAE"));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_lora_loader(struct sim_run *r)
{
	if (r->phase == 0)
		return sim_wait_ms(r, LORA_MS);
	sim_out(r, 0, sim_value_token("ModelPatcher"));
	sim_out(r, 1, sim_value_token("CLIP"));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_vae_loader(struct sim_run *r)
{
	if (r->phase == 0)
		return sim_wait_ms(r, VAE_LOAD_MS);
	sim_out(r, 0, sim_value_token("VAE"));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_clip_text_encode(struct sim_run *r)
{
	if (r->phase == 0)
		return sim_wait_ms(r, ENCODE_MS);
	sim_out(r, 0, sim_value_token("Conditioning"));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_empty_latent(struct sim_run *r)
{
	struct sim_value *v = sim_value_new(SIM_V_LATENT);

	v->width = (uint32_t)sim_arg_int(r, "width", 512);
	v->height = (uint32_t)sim_arg_int(r, "height", 512);
	v->batch = (uint32_t)sim_arg_int(r, "batch_size", 1);
	sim_out(r, 0, v);
	return SIM_STEP_DONE;
}

/* A step for each call after the first; `previews` JPEGs spread over them. */
static enum sim_step sample(struct sim_run *r, double step_ms, int64_t steps,
                            int64_t previews, size_t bytes, unsigned flags)
{
	int64_t at = r->phase;
	struct sim_blob *preview = NULL;
	bool go_on;

	if (at == 0)
		return sim_wait_ms(r, step_ms);
	if (previews > 0 &&
	    at * previews / steps != (at - 1) * previews / steps)
		preview = sim_jpeg(bytes, (unsigned)at);
	go_on = sim_run_progress(r, (double)at, (double)steps, flags, preview,
	                         "image/jpeg");
	sim_blob_unref(preview);
	if (!go_on)
		return SIM_STEP_INTERRUPTED;
	return at < steps ? sim_wait_ms(r, step_ms) : SIM_STEP_DONE;
}

/* Seeds spread over all bits, so that neighbours look different. */
static uint64_t mix(uint64_t seed)
{
	seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9ULL;
	seed = (seed ^ seed >> 27) * 0x94d049bb133111ebULL;
	return seed ^ seed >> 31;
}

enum sim_step sim_run_ksampler(struct sim_run *r)
{
	const struct sim_value *latent = sim_arg(r, "latent_image");
	int64_t steps = sim_arg_int(r, "steps", 20);
	enum sim_step step = sample(r, SIM_STEP_MS, steps, steps, 0, 0);
	struct sim_value *v;

	if (step != SIM_STEP_DONE)
		return step;
	if (!latent || latent->kind != SIM_V_LATENT)
		return sim_fail(r, "TypeError",
		                "'NoneType' object is not subscriptable");
	v = sim_value_new(SIM_V_LATENT);
	v->width = latent->width;
	v->height = latent->height;
	v->batch = latent->batch;
	v->seed = mix(sim_arg_uint64(r, "seed"));
	sim_out(r, 0, v);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_vae_decode(struct sim_run *r)
{
	const struct sim_value *latent = sim_arg(r, "samples");
	struct sim_value *v;

	if (r->phase == 0)
		return sim_wait_ms(r, DECODE_MS);
	if (!latent || latent->kind != SIM_V_LATENT)
		return sim_fail(r, "TypeError",
		                "'NoneType' object is not subscriptable");
	v = sim_value_image(latent->width, latent->height, latent->batch,
	                    latent->seed);
	v->patterned = true;
	sim_out(r, 0, v);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_vae_encode(struct sim_run *r)
{
	const struct sim_value *pixels = sim_arg(r, "pixels");
	struct sim_value *v;

	if (r->phase == 0)
		return sim_wait_ms(r, DECODE_MS);
	if (!pixels || pixels->kind != SIM_V_IMAGE)
		return sim_fail(r, "AttributeError",
		                "'NoneType' object has no attribute 'shape'");
	v = sim_value_new(SIM_V_LATENT);
	v->width = pixels->width;
	v->height = pixels->height;
	v->batch = pixels->batch;
	v->seed = pixels->seed;
	sim_out(r, 0, v);
	return SIM_STEP_DONE;
}

static enum sim_step pass_image(struct sim_run *r, enum sim_step step)
{
	if (step == SIM_STEP_DONE)
		sim_out(r, 0, sim_value_ref(sim_arg(r, "image")));
	return step;
}

enum sim_step sim_run_fake_sampler(struct sim_run *r)
{
	int64_t steps = sim_arg_int(r, "steps", 5);

	return pass_image(r, sample(r, FAKE_STEP_MS, steps, steps, 0, 0));
}

enum sim_step sim_run_new_style(struct sim_run *r)
{
	int64_t steps = sim_arg_int(r, "steps", 4);

	return pass_image(r,
	                  sample(r, FAKE_STEP_MS, steps, steps, 0,
	                         SIM_PROGRESS_NEW_STYLE | SIM_PROGRESS_FLOATS));
}

enum sim_step sim_run_sim_sampler(struct sim_run *r)
{
	bool new_style = sim_arg_bool(r, "new_style", false);
	enum sim_step step = sample(
		r, sim_arg_number(r, "step_ms", 50),
		sim_arg_int(r, "steps", 20), sim_arg_int(r, "previews", 0),
		(size_t)sim_arg_int(r, "preview_bytes", 0),
		new_style ? SIM_PROGRESS_NEW_STYLE | SIM_PROGRESS_FLOATS : 0);
	struct sim_value *v;

	if (step != SIM_STEP_DONE)
		return step;
	v = sim_value_image((uint32_t)sim_arg_int(r, "width", 64),
	                    (uint32_t)sim_arg_int(r, "height", 64),
	                    (uint32_t)sim_arg_int(r, "batch_size", 1),
	                    mix(sim_arg_uint64(r, "seed")));
	v->patterned = true;
	sim_out(r, 0, v);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_sim_load(struct sim_run *r)
{
	struct sim_value *after = sim_arg(r, "after");

	if (r->phase == 0)
		return sim_wait_ms(r, sim_arg_number(r, "ms", 100));
	sim_out(r, 0, after ? sim_value_ref(after) : sim_value_json("null", 4));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_sim_error(struct sim_run *r)
{
	char *message, *type;
	enum sim_step step;
	double ms = sim_arg_number(r, "after_ms", 0);

	if (r->phase == 0 && ms > 0)
		return sim_wait_ms(r, ms);
	message = sim_arg_text(r, "message");
	type = sim_arg_text(r, "type");
	step = sim_fail(r, *type ? type : "RuntimeError", message);
	free(message);
	free(type);
	return step;
}

enum sim_step sim_run_sim_text(struct sim_run *r)
{
	struct sim_value *v = sim_arg(r, "text");
	char *text = sim_arg_text(r, "text");

	if (sim_arg_bool(r, "broadcast", false))
		sim_run_say(r, text);
	(void)buf_puts(&r->ui, "{\"text\": [");
	(void)sim_put_string(&r->ui, text);
	(void)buf_puts(&r->ui, "]}");
	sim_out(r, 0, sim_value_ref(v));
	free(text);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_sim_nan(struct sim_run *r)
{
	sim_out(r, 0, sim_value_json("NaN", 3));
	return SIM_STEP_DONE;
}
