/*
 * sim_behave.h - the functions of the node table: what each class of node does
 * when it is its turn, and how long it takes (simulated milliseconds).
 */
#ifndef TESTS_SIM_BEHAVE_H
#define TESTS_SIM_BEHAVE_H

#include "tests/sim/sim_nodes.h"

#define SIM_STEP_MS 50 /* KSampler: one step */

/* sim_behave_image.c */
enum sim_step sim_run_empty_image(struct sim_run *r);
enum sim_step sim_run_image_invert(struct sim_run *r);
enum sim_step sim_run_image_scale(struct sim_run *r);
enum sim_step sim_run_image_from_batch(struct sim_run *r);
enum sim_step sim_run_get_image_size(struct sim_run *r);
enum sim_step sim_run_load_image(struct sim_run *r);
enum sim_step sim_run_save_image(struct sim_run *r);
enum sim_step sim_run_preview_image(struct sim_run *r);
enum sim_step sim_run_save_image_websocket(struct sim_run *r);
enum sim_step sim_run_save_animated_webp(struct sim_run *r);
enum sim_step sim_run_preview_any(struct sim_run *r);
enum sim_step sim_run_average(struct sim_run *r);
enum sim_step sim_run_sim_output(struct sim_run *r);

/* sim_behave_model.c */
enum sim_step sim_run_checkpoint_loader(struct sim_run *r);
enum sim_step sim_run_lora_loader(struct sim_run *r);
enum sim_step sim_run_vae_loader(struct sim_run *r);
enum sim_step sim_run_clip_text_encode(struct sim_run *r);
enum sim_step sim_run_empty_latent(struct sim_run *r);
enum sim_step sim_run_ksampler(struct sim_run *r);
enum sim_step sim_run_vae_decode(struct sim_run *r);
enum sim_step sim_run_vae_encode(struct sim_run *r);
enum sim_step sim_run_fake_sampler(struct sim_run *r);
enum sim_step sim_run_new_style(struct sim_run *r);
enum sim_step sim_run_sim_sampler(struct sim_run *r);
enum sim_step sim_run_sim_load(struct sim_run *r);
enum sim_step sim_run_sim_error(struct sim_run *r);
enum sim_step sim_run_sim_text(struct sim_run *r);
enum sim_step sim_run_sim_nan(struct sim_run *r);

/* sim_behave_test.c */
enum sim_step sim_run_test_sleep(struct sim_run *r);
enum sim_step sim_run_async_timeout(struct sim_run *r);
enum sim_step sim_run_async_batch(struct sim_run *r);
enum sim_step sim_run_sync_error(struct sim_run *r);
enum sim_step sim_run_async_error(struct sim_run *r);
enum sim_step sim_run_for_open(struct sim_run *r);
enum sim_step sim_run_for_close(struct sim_run *r);
enum sim_step sim_run_while_open(struct sim_run *r);
enum sim_step sim_run_while_close(struct sim_run *r);
enum sim_step sim_run_int_math(struct sim_run *r);
enum sim_step sim_run_to_bool(struct sim_run *r);
enum sim_step sim_run_parallel_sleep(struct sim_run *r);
enum sim_step sim_run_blocker(struct sim_run *r);
enum sim_step sim_run_dynamic_cycle(struct sim_run *r);
enum sim_step sim_run_lazy_mix(struct sim_run *r);
enum sim_step sim_run_custom_validation(struct sim_run *r);
enum sim_step sim_run_stub_value(struct sim_run *r);
enum sim_step sim_run_stub_mask(struct sim_run *r);
enum sim_step sim_run_expand_preview(struct sim_run *r);
enum sim_step sim_run_expand_error(struct sim_run *r);

#endif
