/*
 * sim_node_table.c - the rows of the node class table.
 *
 * Inputs are written as GET /object_info writes them. Classes named Test...,
 * Stub..., FakeSampler, ExpandWithPreview, ErrorInExpansion and
 * NewStyleProgress are those of the recordings; Sim... are ours (README.md);
 * the others are those of everyday workflows.
 */
#include "common/macros.h"
#include "tests/sim/sim_behave.h"
#include "tests/sim/sim_nodes.h"

/* JSON as it stands; white space is of no account. stdbool.h's macros would be
 * expanded within. */
#undef true
#undef false
#define J(...) #__VA_ARGS__

/* clang-format off */
#define NONE   J([])
#define IMAGE  J(["IMAGE"])
#define ANY    J(["*"])
#define HIDDEN_PROMPT "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
#define UPSCALE ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
#define SAMPLERS \
	["euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", \
	 "heun", "heunpp2", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", \
	 "dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", \
	 "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", \
	 "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", \
	 "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", \
	 "lcm", "ipndm", "ipndm_v", "deis", "res_multistep", \
	 "res_multistep_cfg_pp", "res_multistep_ancestral", \
	 "res_multistep_ancestral_cfg_pp", "gradient_estimation", \
	 "gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", \
	 "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2"]
#define SCHEDULERS \
	["simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", \
	 "beta", "normal", "linear_quadratic", "kl_optimal"]
#define CHECKPOINTS \
	["v1-5-pruned-emaonly.safetensors", \
	 "v1-5-pruned-emaonly-fp16.safetensors", \
	 "sd_xl_base_1.0.safetensors", "sim.safetensors"]
#define SEED_INFO {"default": 0, "min": 0, "max": 18446744073709551615, "control_after_generate": true}
#define FLOW "initial_value1": ["*"], "initial_value2": ["*"], "initial_value3": ["*"], "initial_value4": ["*"]
#define RAW_FLOW \
	"initial_value1": ["*", {"rawLink": true}], \
	"initial_value2": ["*", {"rawLink": true}], \
	"initial_value3": ["*", {"rawLink": true}], \
	"initial_value4": ["*", {"rawLink": true}]
/* A second level, so that the macros above are expanded before J. */
#define JX(...) J(__VA_ARGS__)

const struct sim_class_row sim_class_rows[] = {
	/* ----- everyday nodes ----- */
	{"EmptyImage", NULL, "image",
	 JX({"required": {
		"width": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
		"height": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
		"batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
		"color": ["INT", {"default": 0, "min": 0, "max": 16777215, "step": 1, "display": "color"}]}}),
	 IMAGE, NULL, sim_run_empty_image, 0},
	{"ImageInvert", "Invert Image", "image",
	 JX({"required": {"image": ["IMAGE"]}}),
	 IMAGE, NULL, sim_run_image_invert, 0},
	{"ImageScale", "Upscale Image", "image/upscaling",
	 JX({"required": {
		"image": ["IMAGE"],
		"upscale_method": [UPSCALE],
		"width": ["INT", {"default": 512, "min": 0, "max": 16384, "step": 1}],
		"height": ["INT", {"default": 512, "min": 0, "max": 16384, "step": 1}],
		"crop": [["disabled", "center"]]}}),
	 IMAGE, NULL, sim_run_image_scale, 0},
	{"ImageFromBatch", NULL, "image/batch",
	 JX({"required": {
		"image": ["IMAGE"],
		"batch_index": ["INT", {"default": 0, "min": 0, "max": 4095}],
		"length": ["INT", {"default": 1, "min": 1, "max": 4096}]}}),
	 IMAGE, NULL, sim_run_image_from_batch, 0},
	{"GetImageSize", "Get Image Size", "image",
	 JX({"required": {"image": ["IMAGE"]}, "hidden": {"unique_id": "UNIQUE_ID"}}),
	 J(["INT", "INT", "INT"]), J(["width", "height", "batch_size"]),
	 sim_run_get_image_size, SIM_UNIQUE},
	{"LoadImage", "Load Image", "image",
	 JX({"required": {"image": [["example.png"], {"image_upload": true}]}}),
	 J(["IMAGE", "MASK"]), NULL, sim_run_load_image,
	 SIM_OWN_RULES | SIM_READS_FILE},
	{"SaveImage", "Save Image", "image",
	 JX({"required": {
		"images": ["IMAGE", {"tooltip": "The images to save."}],
		"filename_prefix": ["STRING", {"default": "ComfyUI", "tooltip": "The prefix for the file to save."}]},
	     HIDDEN_PROMPT}),
	 NONE, NULL, sim_run_save_image, SIM_OUTPUT},
	{"PreviewImage", "Preview Image", "image",
	 JX({"required": {"images": ["IMAGE"]}, HIDDEN_PROMPT}),
	 NONE, NULL, sim_run_preview_image, SIM_OUTPUT},
	{"SaveImageWebsocket", NULL, "api/image",
	 JX({"required": {"images": ["IMAGE"]}}),
	 NONE, NULL, sim_run_save_image_websocket, SIM_OUTPUT | SIM_VOLATILE},
	{"SaveAnimatedWEBP", NULL, "image/animation",
	 JX({"required": {
		"images": ["IMAGE"],
		"filename_prefix": ["STRING", {"default": "ComfyUI"}],
		"fps": ["FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}],
		"lossless": ["BOOLEAN", {"default": true}],
		"quality": ["INT", {"default": 80, "min": 0, "max": 100}],
		"method": [["default", "fastest", "slowest"]]},
	     HIDDEN_PROMPT}),
	 NONE, NULL, sim_run_save_animated_webp, SIM_OUTPUT},
	{"PreviewAny", "Preview Any", "utils",
	 JX({"required": {"source": ["*", {}]}}),
	 NONE, NULL, sim_run_preview_any, SIM_OUTPUT},
	{"CheckpointLoaderSimple", "Load Checkpoint", "loaders",
	 JX({"required": {"ckpt_name": [CHECKPOINTS, {"tooltip": "The name of the checkpoint (model) to load."}]}}),
	 J(["MODEL", "CLIP", "VAE"]), NULL, sim_run_checkpoint_loader, 0},
	{"CLIPTextEncode", "CLIP Text Encode (Prompt)", "conditioning",
	 JX({"required": {
		"text": ["STRING", {"multiline": true, "dynamicPrompts": true}],
		"clip": ["CLIP", {}]}}),
	 J(["CONDITIONING"]), NULL, sim_run_clip_text_encode, 0},
	{"EmptyLatentImage", "Empty Latent Image", "latent",
	 JX({"required": {
		"width": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
		"height": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
		"batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}]}}),
	 J(["LATENT"]), NULL, sim_run_empty_latent, 0},
	{"KSampler", "KSampler", "sampling",
	 JX({"required": {
		"model": ["MODEL", {}],
		"seed": ["INT", SEED_INFO],
		"steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
		"cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}],
		"sampler_name": [SAMPLERS, {}],
		"scheduler": [SCHEDULERS, {}],
		"positive": ["CONDITIONING", {}],
		"negative": ["CONDITIONING", {}],
		"latent_image": ["LATENT", {}],
		"denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}]}}),
	 J(["LATENT"]), NULL, sim_run_ksampler, 0},
	{"VAEDecode", "VAE Decode", "latent",
	 JX({"required": {"samples": ["LATENT", {}], "vae": ["VAE", {}]}}),
	 IMAGE, NULL, sim_run_vae_decode, 0},
	{"VAEEncode", "VAE Encode", "latent",
	 JX({"required": {"pixels": ["IMAGE"], "vae": ["VAE"]}}),
	 J(["LATENT"]), NULL, sim_run_vae_encode, 0},
	{"LoraLoader", "Load LoRA", "loaders",
	 JX({"required": {
		"model": ["MODEL", {}],
		"clip": ["CLIP", {}],
		"lora_name": [["sim-style.safetensors", "sim-detail.safetensors"], {}],
		"strength_model": ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}],
		"strength_clip": ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}]}}),
	 J(["MODEL", "CLIP"]), NULL, sim_run_lora_loader, 0},
	{"VAELoader", "Load VAE", "loaders",
	 JX({"required": {"vae_name": [["vae-ft-mse-840000-ema-pruned.safetensors", "sim-vae.safetensors"]]}}),
	 J(["VAE"]), NULL, sim_run_vae_loader, 0},

	/* ----- nodes of the recordings ----- */
	{"TestSleep", "Test Sleep", "Testing/Async",
	 JX({"required": {
		"value": ["*", {}],
		"seconds": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 9999.0, "step": 0.01}]},
	     "hidden": {"unique_id": "UNIQUE_ID"}}),
	 ANY, NULL, sim_run_test_sleep, SIM_ASYNC | SIM_UNIQUE},
	{"TestAsyncTimeout", NULL, "Testing/Async",
	 JX({"required": {
		"value": ["*", {}],
		"timeout": ["FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}],
		"operation_time": ["FLOAT", {"default": 0.5, "min": 0.1, "max": 10.0, "step": 0.1}]}}),
	 ANY, NULL, sim_run_async_timeout, SIM_ASYNC},
	{"TestAsyncBatchProcessing", NULL, "Testing/Async",
	 JX({"required": {
		"images": ["IMAGE"],
		"process_time_per_item": ["FLOAT", {"default": 0.1, "min": 0.01, "max": 1.0, "step": 0.01}]},
	     "hidden": {"unique_id": "UNIQUE_ID"}}),
	 IMAGE, NULL, sim_run_async_batch, SIM_ASYNC | SIM_UNIQUE},
	{"TestSyncError", NULL, "Testing/Async",
	 JX({"required": {"value": ["*", {}]}}),
	 ANY, NULL, sim_run_sync_error, 0},
	{"TestAsyncError", NULL, "Testing/Async",
	 JX({"required": {
		"value": ["*", {}],
		"error_after": ["FLOAT", {"default": 0.1, "min": 0.0, "max": 10.0, "step": 0.01}]}}),
	 ANY, NULL, sim_run_async_error, SIM_ASYNC},
	{"TestVariadicAverage", NULL, "Testing/Nodes",
	 JX({"required": {"input1": ["IMAGE"]},
	     "optional": {"input2": ["IMAGE"], "input3": ["IMAGE"], "input4": ["IMAGE"], "input5": ["IMAGE"]}}),
	 IMAGE, NULL, sim_run_average, 0},
	{"TestForLoopOpen", NULL, "Testing/Flow",
	 JX({"required": {"remaining": ["INT", {"default": 1, "min": 0, "max": 100000, "step": 1}]},
	     "optional": {"initial_value0": ["*"], FLOW}}),
	 J(["FLOW_CONTROL", "INT", "*", "*", "*", "*"]), NULL,
	 sim_run_for_open, 0},
	{"TestForLoopClose", NULL, "Testing/Flow",
	 JX({"required": {"flow_control": ["FLOW_CONTROL", {"rawLink": true}]},
	     "optional": {RAW_FLOW}}),
	 J(["*", "*", "*", "*"]), NULL, sim_run_for_close, SIM_RAW},
	{"TestWhileLoopOpen", NULL, "Testing/Flow",
	 JX({"required": {"condition": ["BOOLEAN", {"default": true}]},
	     "optional": {"initial_value0": ["*"], FLOW}}),
	 J(["FLOW_CONTROL", "*", "*", "*", "*", "*"]), NULL,
	 sim_run_while_open, 0},
	{"TestWhileLoopClose", NULL, "Testing/Flow",
	 JX({"required": {
		"flow_control": ["FLOW_CONTROL", {"rawLink": true}],
		"condition": ["BOOLEAN", {"forceInput": true}]},
	     "optional": {"initial_value0": ["*"], FLOW},
	     "hidden": {"dynprompt": "DYNPROMPT", "unique_id": "UNIQUE_ID"}}),
	 J(["*", "*", "*", "*", "*"]), NULL, sim_run_while_close,
	 SIM_RAW | SIM_UNIQUE},
	{"TestIntMathOperation", NULL, "Testing/Logic",
	 JX({"required": {
		"a": ["INT", {"default": 0, "min": -18446744073709551615, "max": 18446744073709551615, "step": 1}],
		"b": ["INT", {"default": 0, "min": -18446744073709551615, "max": 18446744073709551615, "step": 1}],
		"operation": [["add", "subtract", "multiply", "divide", "modulo"]]}}),
	 J(["INT"]), NULL, sim_run_int_math, 0},
	{"TestToBoolNode", NULL, "Testing/Logic",
	 JX({"required": {"value": ["*"]},
	     "optional": {"invert": ["BOOLEAN", {"default": false}]}}),
	 J(["BOOLEAN"]), NULL, sim_run_to_bool, 0},
	{"TestParallelSleep", NULL, "Testing/Async",
	 JX({"required": {
		"image1": ["IMAGE"], "image2": ["IMAGE"], "image3": ["IMAGE"],
		"sleep1": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 9999.0, "step": 0.01}],
		"sleep2": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 9999.0, "step": 0.01}],
		"sleep3": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 9999.0, "step": 0.01}]},
	     "hidden": {"unique_id": "UNIQUE_ID"}}),
	 IMAGE, NULL, sim_run_parallel_sleep, SIM_UNIQUE | SIM_OUTPUT},
	{"TestExecutionBlocker", NULL, "Testing/Nodes",
	 JX({"required": {
		"input": ["*"],
		"block": ["BOOLEAN"],
		"verbose": ["BOOLEAN", {"default": false}]}}),
	 ANY, NULL, sim_run_blocker, 0},
	{"TestDynamicDependencyCycle", NULL, "Testing/Nodes",
	 JX({"required": {"input1": ["IMAGE"], "input2": ["IMAGE"]}}),
	 IMAGE, NULL, sim_run_dynamic_cycle, 0},
	{"TestLazyMixImages", NULL, "Testing/Nodes",
	 JX({"required": {
		"image1": ["IMAGE", {"lazy": true}],
		"image2": ["IMAGE", {"lazy": true}],
		"mask": ["MASK"]}}),
	 IMAGE, NULL, sim_run_lazy_mix, SIM_LAZY},
	{"TestCustomValidation5", NULL, "Testing/Nodes",
	 JX({"required": {
		"input1": ["FLOAT", {"min": 0.0, "max": 1.0}],
		"input2": ["FLOAT", {"min": 0.0, "max": 1.0}]}}),
	 IMAGE, NULL, sim_run_custom_validation, SIM_OWN_RULES},
	{"StubInt", NULL, "Testing/Stub Nodes",
	 JX({"required": {"value": ["INT", {"default": 0, "min": -4294967295, "max": 4294967295, "step": 1}]}}),
	 J(["INT"]), NULL, sim_run_stub_value, 0},
	{"StubFloat", NULL, "Testing/Stub Nodes",
	 JX({"required": {"value": ["FLOAT", {"default": 0.0, "min": -1e38, "max": 1e38, "step": 0.01}]}}),
	 J(["FLOAT"]), NULL, sim_run_stub_value, 0},
	{"StubMask", NULL, "Testing/Stub Nodes",
	 JX({"required": {
		"value": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}],
		"height": ["INT", {"default": 512, "min": 1, "max": 8192, "step": 1}],
		"width": ["INT", {"default": 512, "min": 1, "max": 8192, "step": 1}],
		"batch_size": ["INT", {"default": 1, "min": 1, "max": 1024, "step": 1}]}}),
	 J(["MASK"]), NULL, sim_run_stub_mask, 0},
	{"FakeSampler", NULL, "Testing",
	 JX({"required": {
		"image": ["IMAGE"],
		"steps": ["INT", {"default": 5, "min": 1, "max": 10000}]}}),
	 IMAGE, NULL, sim_run_fake_sampler, SIM_UNIQUE},
	{"NewStyleProgress", NULL, "Testing",
	 JX({"required": {
		"image": ["IMAGE"],
		"steps": ["INT", {"default": 4, "min": 1, "max": 10000}]}}),
	 IMAGE, NULL, sim_run_new_style, SIM_UNIQUE},
	{"ExpandWithPreview", NULL, "Testing",
	 JX({"required": {
		"image": ["IMAGE"],
		"copies": ["INT", {"default": 2, "min": 1, "max": 100}]}}),
	 IMAGE, NULL, sim_run_expand_preview, 0},
	{"ErrorInExpansion", NULL, "Testing",
	 JX({"required": {"image": ["IMAGE"]}}),
	 IMAGE, NULL, sim_run_expand_error, 0},

	/* ----- ours, see README.md ----- */
	{"SimSampler", "Simulated sampler", "sim",
	 JX({"required": {
		"seed": ["INT", SEED_INFO],
		"steps": ["INT", {"default": 20, "min": 1, "max": 100000}],
		"step_ms": ["FLOAT", {"default": 50.0, "min": 0.0, "max": 3600000.0}]},
	     "optional": {
		"previews": ["INT", {"default": 0, "min": 0, "max": 100000}],
		"preview_bytes": ["INT", {"default": 0, "min": 0, "max": 16777216}],
		"new_style": ["BOOLEAN", {"default": false}],
		"width": ["INT", {"default": 64, "min": 1, "max": 4096}],
		"height": ["INT", {"default": 64, "min": 1, "max": 4096}],
		"batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
		"after": ["*"]}}),
	 IMAGE, NULL, sim_run_sim_sampler, 0},
	{"SimLoad", "Simulated load", "sim",
	 JX({"required": {"ms": ["FLOAT", {"default": 100.0, "min": 0.0, "max": 3600000.0}]},
	     "optional": {"after": ["*"]}}),
	 ANY, NULL, sim_run_sim_load, 0},
	{"SimError", "Simulated error", "sim",
	 JX({"required": {"message": ["STRING", {"default": "simulated failure"}]},
	     "optional": {
		"type": ["STRING", {"default": "RuntimeError"}],
		"after_ms": ["FLOAT", {"default": 0.0, "min": 0.0, "max": 3600000.0}],
		"after": ["*"]}}),
	 ANY, NULL, sim_run_sim_error, 0},
	{"SimText", "Simulated text", "sim",
	 JX({"required": {"text": ["STRING", {"default": "", "multiline": true}]},
	     "optional": {
		"broadcast": ["BOOLEAN", {"default": false}],
		"after": ["*"]}}),
	 J(["STRING"]), NULL, sim_run_sim_text, SIM_OUTPUT},
	{"SimNan", "Simulated NaN", "sim",
	 JX({"optional": {"after": ["*"]}}),
	 J(["FLOAT"]), NULL, sim_run_sim_nan, 0},
	{"SimOutput", "Simulated output", "sim",
	 JX({"required": {"images": ["IMAGE"]},
	     "optional": {
		"json": ["STRING", {"default": "{}", "multiline": true}],
		"key": ["STRING", {"default": "audio"}]}}),
	 NONE, NULL, sim_run_sim_output, SIM_OUTPUT},
};
/* clang-format on */

const size_t sim_class_row_count = ARRAY_SIZE(sim_class_rows);
