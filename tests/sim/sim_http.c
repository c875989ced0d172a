/*
 * sim_http.c - see sim_http.h: the route table, and the answers that take a few
 * lines each.
 */
#include "tests/sim/sim_http.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_nodes.h"
#include "tests/sim/sim_text.h"

#define JSON_TYPE "application/json; charset=utf-8"
#define TEXT_TYPE "text/plain; charset=utf-8"

static const char *const method_names[] = {
	[SIM_GET] = "GET",         [SIM_POST] = "POST",   [SIM_PUT] = "PUT",
	[SIM_DELETE] = "DELETE",   [SIM_PATCH] = "PATCH", [SIM_HEAD] = "HEAD",
	[SIM_OPTIONS] = "OPTIONS",
};
STATIC_ASSERT_ARRAY_SIZE(method_names, SIM_METHOD_COUNT);

const char *sim_query(const struct sim_request *req, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < req->nargs; i++) {
		if (strncmp(req->args[i], name, len) != 0)
			continue;
		if (req->args[i][len] == '=')
			return req->args[i] + len + 1;
		if (req->args[i][len] == '\0')
			return "";
	}
	return NULL;
}

void sim_reply_json(struct sim_reply *reply)
{
	reply->content_type = JSON_TYPE;
}

void sim_reply_text(struct sim_reply *reply, int status, const char *text)
{
	reply->status = status;
	reply->content_type = TEXT_TYPE;
	buf_reset(&reply->body);
	(void)buf_puts(&reply->body, text);
}

void sim_reply_crash(struct sim_reply *reply)
{
	sim_reply_text(reply, 500,
	               "500 Internal Server Error\n\n"
	               "Server got itself in trouble");
}

static bool parse_body(const struct sim_request *req, struct json *j)
{
	return json_parse(j, req->body.data, req->body.len, JSON_NONFINITE,
	                  NULL) == JSON_OK;
}

static void get_prompt(struct sim *sim, const struct sim_request *req,
                       struct sim_reply *reply, const char *tail)
{
	sim_reply_json(reply);
	(void)buf_printf(&reply->body,
	                 "{\"exec_info\": {\"queue_remaining\": %zu}}",
	                 sim_queue_remaining(&sim->queue));
}

static void get_queue(struct sim *sim, const struct sim_request *req,
                      struct sim_reply *reply, const char *tail)
{
	sim_reply_json(reply);
	sim_queue_put_json(&sim->queue, &reply->body);
}

static void journal_id(struct sim *sim, const char *fact, const char *id)
{
	struct buf b = BUF_INIT(65536);

	(void)buf_puts(&b, "\"prompt_id\":");
	(void)sim_put_string(&b, id);
	sim_journal_add(&sim->journal, fact, &b);
	buf_deinit(&b);
}

static void post_queue(struct sim *sim, const struct sim_request *req,
                       struct sim_reply *reply, const char *tail)
{
	struct json body, item;
	struct json_iter it;

	if (!parse_body(req, &body)) {
		sim_reply_crash(reply);
		return;
	}
	if (json_is(json_get(body, "clear"), JSON_TRUE)) {
		sim_queue_wipe(&sim->queue);
		sim_journal_add(&sim->journal, "cleared", NULL);
	}
	json_iter_init(&it, json_get(body, "delete"));
	while (json_iter_next(&it, NULL, &item)) {
		char *id = json_string_dup(item, 65536);

		if (id && sim_queue_delete(&sim->queue, id))
			journal_id(sim, "deleted", id);
		free(id);
	}
}

static void post_interrupt(struct sim *sim, const struct sim_request *req,
                           struct sim_reply *reply, const char *tail)
{
	const struct sim_prompt *running = sim->queue.running;
	struct json body = JSON_MISSING, id;
	char *text;

	/* A body that is no JSON counts as none. */
	(void)parse_body(req, &body);
	id = json_get(body, "prompt_id");
	text = json_string_dup(id, 65536);
	if (sim->options.no_interrupt_id || !text || !*text ||
	    (running && strcmp(running->id, text) == 0)) {
		sim->exec.interrupt = true;
		journal_id(sim, "interrupt", running ? running->id : "");
	}
	free(text);
}

/* False: not an integer. */
static bool query_int(const struct sim_request *req, const char *name,
                      int64_t *out)
{
	const char *text = sim_query(req, name);
	char *end;

	*out = -1;
	if (!text)
		return true;
	*out = strtoll(text, &end, 10);
	return end != text && !*end;
}

static void get_history(struct sim *sim, const struct sim_request *req,
                        struct sim_reply *reply, const char *tail)
{
	int64_t max_items, offset;

	if (!query_int(req, "max_items", &max_items) ||
	    !query_int(req, "offset", &offset)) {
		sim_reply_crash(reply);
		return;
	}
	sim_reply_json(reply);
	sim_history_put_json(&sim->queue, &reply->body, max_items, offset);
}

static void get_history_one(struct sim *sim, const struct sim_request *req,
                            struct sim_reply *reply, const char *tail)
{
	const struct sim_prompt *p = sim_history_find(&sim->queue, tail);

	sim_reply_json(reply);
	(void)buf_putc(&reply->body, '{');
	if (p)
		sim_history_put_entry(&reply->body, p);
	(void)buf_putc(&reply->body, '}');
}

static void post_history(struct sim *sim, const struct sim_request *req,
                         struct sim_reply *reply, const char *tail)
{
	struct json body, item;
	struct json_iter it;

	if (!parse_body(req, &body)) {
		sim_reply_crash(reply);
		return;
	}
	if (json_is(json_get(body, "clear"), JSON_TRUE))
		sim_history_wipe(&sim->queue);
	json_iter_init(&it, json_get(body, "delete"));
	while (json_iter_next(&it, NULL, &item)) {
		char *id = json_string_dup(item, 65536);

		if (id)
			(void)sim_history_delete(&sim->queue, id);
		free(id);
	}
}

static void get_object_info(struct sim *sim, const struct sim_request *req,
                            struct sim_reply *reply, const char *tail)
{
	const struct sim_class *c = *tail ? sim_nodes_find(tail) : NULL;

	sim_reply_json(reply);
	if (*tail && !c)
		(void)buf_puts(&reply->body, "{}");
	else
		sim_nodes_info(&reply->body, c);
}

static void get_system_stats(struct sim *sim, const struct sim_request *req,
                             struct sim_reply *reply, const char *tail)
{
	sim_reply_json(reply);
	(void)buf_puts(&reply->body,
	               "{\"system\": {\"os\": \"posix\", "
	               "\"ram_total\": 25276510208, "
	               "\"ram_free\": 23842349056, \"comfyui_version\": ");
	(void)sim_put_string(&reply->body, sim->options.comfyui_version);
	(void)buf_puts(
		&reply->body,
		", \"required_frontend_version\": \"1.27.10\", "
		"\"installed_templates_version\": null, "
		"\"required_templates_version\": \"0.1.95\", "
		"\"python_version\": \"3.11.2 (comfysim)\", "
		"\"pytorch_version\": \"none\", \"embedded_python\": false, "
		"\"argv\": [\"comfysim\"]}, \"devices\": [{\"name\": \"cpu\", "
		"\"type\": \"cpu\", \"index\": null, "
		"\"vram_total\": 25276510208, \"vram_free\": 23842349056, "
		"\"torch_vram_total\": 25276510208, "
		"\"torch_vram_free\": 23842349056}]}");
}

static void get_features(struct sim *sim, const struct sim_request *req,
                         struct sim_reply *reply, const char *tail)
{
	if (sim->options.no_progress_state) {
		sim_reply_text(reply, 404, "404: Not Found");
		return;
	}
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"supports_preview_metadata\": true, "
	                             "\"max_upload_size\": 104857600}");
}

static void get_empty_list(struct sim *sim, const struct sim_request *req,
                           struct sim_reply *reply, const char *tail)
{
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "[]");
}

static const char *const model_folders[] = {
	"checkpoints",   "configs",          "loras",         "vae",
	"text_encoders", "diffusion_models", "clip_vision",   "style_models",
	"embeddings",    "diffusers",        "vae_approx",    "controlnet",
	"gligen",        "upscale_models",   "custom_nodes",  "hypernetworks",
	"photomaker",    "classifiers",      "model_patches", "audio_encoders",
};

static void get_models(struct sim *sim, const struct sim_request *req,
                       struct sim_reply *reply, const char *tail)
{
	sim_reply_json(reply);
	(void)buf_putc(&reply->body, '[');
	for (size_t i = 0; i < ARRAY_SIZE(model_folders); i++)
		(void)buf_printf(&reply->body, "%s\"%s\"", i ? ", " : "",
		                 model_folders[i]);
	(void)buf_putc(&reply->body, ']');
}

/* Those that the node table offers as a choice. */
static void put_models(struct buf *b, const char *class_name, const char *input)
{
	const struct sim_class *c = sim_nodes_find(class_name);
	const struct sim_class_input *in = c ? sim_class_input(c, input) : NULL;

	if (in)
		(void)sim_put_json(b, in->type);
	else
		(void)buf_puts(b, "[]");
}

static void get_model_folder(struct sim *sim, const struct sim_request *req,
                             struct sim_reply *reply, const char *tail)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(model_folders) &&
	       strcmp(model_folders[i], tail) != 0)
		i++;
	if (i == ARRAY_SIZE(model_folders)) {
		reply->status = 404;
		return;
	}
	sim_reply_json(reply);
	if (strcmp(tail, "checkpoints") == 0)
		put_models(&reply->body, "CheckpointLoaderSimple", "ckpt_name");
	else if (strcmp(tail, "loras") == 0)
		put_models(&reply->body, "LoraLoader", "lora_name");
	else if (strcmp(tail, "vae") == 0)
		put_models(&reply->body, "VAELoader", "vae_name");
	else
		(void)buf_puts(&reply->body, "[]");
}

static void post_free(struct sim *sim, const struct sim_request *req,
                      struct sim_reply *reply, const char *tail)
{
	struct json body;

	if (!parse_body(req, &body))
		sim_reply_crash(reply);
}

static void not_found(struct sim *sim, const struct sim_request *req,
                      struct sim_reply *reply, const char *tail)
{
	reply->status = 404;
}

static void get_ws(struct sim *sim, const struct sim_request *req,
                   struct sim_reply *reply, const char *tail)
{
	sim_reply_text(reply, 400,
	               "No WebSocket UPGRADE hdr: None\n Can \"Upgrade\" only "
	               "to \"WebSocket\".");
}

static void get_root(struct sim *sim, const struct sim_request *req,
                     struct sim_reply *reply, const char *tail)
{
	reply->content_type = "text/html";
	(void)buf_puts(&reply->body, "<!doctype html><title>comfysim</title>"
	                             "<p>A stand-in for a ComfyUI server.\n");
}

/* --- routes
 * ------------------------------------------------------------------- */

enum route_flags {
	ROUTE_API_ONLY = 1 << 0, /* exists with the /api prefix only */
	ROUTE_JOBS = 1 << 1,     /* --no-jobs-api takes it away */
	ROUTE_CONTROL = 1 << 2,  /* ours: neither counted nor disturbed */
};

/* A pattern may end with "{}", any text without a slash, or have it in the
 * middle. */
static const struct route {
	enum sim_method method;
	const char *pattern;
	sim_handler *handler;
	unsigned flags;
} routes[] = {
	{SIM_GET, "/ws", get_ws, 0},
	{SIM_GET, "/prompt", get_prompt, 0},
	{SIM_POST, "/prompt", sim_post_prompt, 0},
	{SIM_GET, "/queue", get_queue, 0},
	{SIM_POST, "/queue", post_queue, 0},
	{SIM_POST, "/interrupt", post_interrupt, 0},
	{SIM_GET, "/history", get_history, 0},
	{SIM_POST, "/history", post_history, 0},
	{SIM_GET, "/history/{}", get_history_one, 0},
	{SIM_GET, "/view", sim_get_view, 0},
	{SIM_POST, "/upload/image", sim_post_upload, 0},
	{SIM_GET, "/object_info", get_object_info, 0},
	{SIM_GET, "/object_info/{}", get_object_info, 0},
	{SIM_GET, "/system_stats", get_system_stats, 0},
	{SIM_GET, "/features", get_features, 0},
	{SIM_GET, "/embeddings", get_empty_list, 0},
	{SIM_GET, "/extensions", get_empty_list, 0},
	{SIM_GET, "/models", get_models, 0},
	{SIM_GET, "/models/{}", get_model_folder, 0},
	{SIM_GET, "/view_metadata/{}", not_found, 0},
	{SIM_POST, "/free", post_free, 0},
	{SIM_GET, "/", get_root, 0},
	{SIM_GET, "/jobs", sim_get_jobs, ROUTE_API_ONLY | ROUTE_JOBS},
	{SIM_POST, "/jobs/cancel", sim_post_jobs_cancel,
         ROUTE_API_ONLY | ROUTE_JOBS},
	{SIM_POST, "/jobs/{}/cancel", sim_post_job_cancel,
         ROUTE_API_ONLY | ROUTE_JOBS},
	{SIM_GET, "/jobs/{}", sim_get_job, ROUTE_API_ONLY | ROUTE_JOBS},
	{SIM_POST, "/sim/fault", sim_control_fault, ROUTE_CONTROL},
	{SIM_POST, "/sim/emit", sim_control_emit, ROUTE_CONTROL},
	{SIM_GET, "/sim/journal", sim_control_journal, ROUTE_CONTROL},
	{SIM_GET, "/sim/stats", sim_control_stats, ROUTE_CONTROL},
	{SIM_POST, "/sim/reset", sim_control_reset, ROUTE_CONTROL},
};

/* What stands for "{}" is copied to `tail`. */
static bool matches(const char *pattern, const char *path, char *tail)
{
	const char *hole = strstr(pattern, "{}");
	size_t before, after, len = strlen(path);

	tail[0] = '\0';
	if (!hole)
		return strcmp(pattern, path) == 0;
	before = (size_t)(hole - pattern);
	after = strlen(hole + 2);
	if (len <= before + after || strncmp(pattern, path, before) != 0 ||
	    strcmp(path + len - after, hole + 2) != 0)
		return false;
	len -= before + after;
	memcpy(tail, path + before, len);
	tail[len] = '\0';
	return strchr(tail, '/') == NULL;
}

static const struct route *find_route(const struct sim *sim,
                                      const struct sim_request *req, char *tail,
                                      bool *other_method)
{
	bool api = strncmp(req->path, "/api/", 5) == 0;
	const char *path = api ? req->path + 4 : req->path;
	enum sim_method method =
		req->method == SIM_HEAD ? SIM_GET : req->method;

	*other_method = false;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct route *r = &routes[i];

		if ((r->flags & ROUTE_API_ONLY && !api) ||
		    (r->flags & ROUTE_JOBS && sim->options.no_jobs_api) ||
		    !matches(r->pattern, path, tail))
			continue;
		if (r->method == method)
			return r;
		*other_method = true;
	}
	return NULL;
}

/* --- Origin
 * -------------------------------------------------------------------- */

/* "host" or "host:port" of "scheme://host:port/...", lower case. */
static void origin_host(const char *origin, char *out, size_t size)
{
	const char *p = strstr(origin, "://");
	size_t n;

	p = p ? p + 3 : origin;
	n = strcspn(p, "/?#");
	if (n >= size)
		n = size - 1;
	for (size_t i = 0; i < n; i++)
		out[i] = (char)tolower((unsigned char)p[i]);
	out[n] = '\0';
}

static bool has_port(const char *host)
{
	const char *bracket = strrchr(host, ']');

	return strchr(bracket ? bracket : host, ':') != NULL;
}

static void strip_port(char *host)
{
	char *bracket = strrchr(host, ']');
	char *colon = strchr(bracket ? bracket : host, ':');

	if (colon)
		*colon = '\0';
}

static bool is_loopback(const char *host)
{
	char name[SIM_HEADER_MAX];

	(void)snprintf(name, sizeof(name), "%s", host);
	strip_port(name);
	return strcmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0 ||
	       strncmp(name, "127.", 4) == 0;
}

static bool foreign_origin(const struct sim_request *req)
{
	char host[SIM_HEADER_MAX], origin[SIM_HEADER_MAX];

	if (!*req->host || !*req->origin)
		return false;
	origin_host(req->host, host, sizeof(host));
	origin_host(req->origin, origin, sizeof(origin));
	if (!is_loopback(host))
		return false;
	if (!has_port(origin))
		strip_port(host);
	else if (!has_port(host))
		strip_port(origin);
	return *host && *origin && strcmp(host, origin) != 0;
}

/* --- entry
 * --------------------------------------------------------------------- */

void sim_http_request(void *arg, const struct sim_request *req,
                      struct sim_reply *reply)
{
	struct sim *sim = arg;
	char tail[SIM_HEADER_MAX];
	bool other_method;
	const struct route *r = find_route(sim, req, tail, &other_method);
	const char *method = method_names[req->method];

	if (r && r->flags & ROUTE_CONTROL) {
		r->handler(sim, req, reply, tail);
		return;
	}
	sim_stats_count(&sim->stats, method, r ? r->pattern : "other");
	if (sim_fault_before(&sim->faults, method, req->path, reply))
		return;
	if (foreign_origin(req))
		reply->status = 403;
	else if (req->method == SIM_OPTIONS)
		reply->status = 200;
	else if (r)
		r->handler(sim, req, reply, tail);
	else if (other_method)
		sim_reply_text(reply, 405, "405: Method Not Allowed");
	else
		sim_reply_text(reply, 404, "404: Not Found");
	if (!buf_ok(&reply->body))
		sim_reply_crash(reply);
	sim_fault_after(&sim->faults, method, req->path, reply);
}

int sim_http_upgrade(void *arg, const struct sim_request *req,
                     struct sim_reply *reply)
{
	struct sim *sim = arg;

	sim_stats_count(&sim->stats, method_names[SIM_GET], "/ws");
	if (sim_fault_before(&sim->faults, "GET", req->path, reply))
		return -1;
	if (foreign_origin(req)) {
		reply->status = 403;
		return -1;
	}
	if (strcmp(req->path, "/ws") != 0 &&
	    strcmp(req->path, "/api/ws") != 0) {
		sim_reply_text(reply, 404, "404: Not Found");
		return -1;
	}
	return 0;
}
