/*
 * worker_hello.c - the keeper's first frame: where ComfyUI is and as whom it is
 * asked, the sandbox, and which kind of session this is.
 */
#include <errno.h>
#include <ev.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/http.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "common/url.h"
#include "ipc/zygote.h"
#include "workers/link.h"
#include "workers/mcp.h"
#include "workers/request.h"
#include "workers/worker_private.h"

#define HELLO_STRING_MAX 4096 /* bytes of a string in hello */

/* The kinds of session there are; the last serves whatever the others don't. */
static const struct worker_kind *const kinds[] = {&request_kind, &mcp_kind};

static void on_bus_lost(void *user)
{
	if (worker_send(user, CHANNEL_WANT_BUS, 0, SPAN_NULL) < 0)
		log_warn("worker", "the keeper was not told of a lost bus");
}

static void on_notice(void *user, const char *text)
{
	worker_log(user, 0, "%s", text);
}

void worker_set_bus(struct worker *w, int fd)
{
	struct error err;

	if (link_set_bus(w->link, fd, &err))
		log_warn("worker", "the bus cannot be used: %s", err.text);
}

static unsigned hello_unsigned(struct json hello, const char *key, unsigned def)
{
	int64_t v;

	return json_int64(json_get(hello, key), &v) && v > 0 && v <= INT32_MAX
	               ? (unsigned)v
	               : def;
}

/* Where a service's worker goes, and as whom, is not for its keeper to say. */
static void worker_obey(const struct worker *w, struct link_config *cfg)
{
	const struct zygote_told *t = w->told;

	if (!t)
		return;
	cfg->comfyui = NULL;
	cfg->default_url = t->comfyui;
	cfg->address = t->address;
	cfg->client_id = t->client_id;
	cfg->ca_file = t->ca_file;
	cfg->proxy = t->proxy;
	cfg->credentials = w->told_credentials;
	cfg->credentials_url = t->comfyui;
	cfg->credentials_error = NULL;
	cfg->connect_timeout_ms = t->connect_timeout_ms;
	cfg->request_timeout_ms = t->request_timeout_ms;
	cfg->poll_interval_ms = t->poll_interval_ms;
	cfg->sessions = t->sessions;
}

/* As the user, whose worker this is. The files are read now: later it can't
 * open any. */
static void worker_load_credentials(struct worker *w, struct json hello,
                                    struct link_config *cfg, struct error *err)
{
	static const char *const keys[] = {"client_cert", "client_key",
	                                   "token_file", "header_file"};
	char *s[ARRAY_SIZE(keys)] = {NULL};
	struct credentials_files files = {.ca_file = cfg->ca_file};
	struct url url;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		s[i] = json_string_dup(json_get(hello, keys[i]),
		                       HELLO_STRING_MAX);
	files.client_cert = s[0];
	files.client_key = s[1];
	files.token_file = s[2];
	files.header_file = s[3];
	files.with_system_ca =
		cfg->credentials_url &&
		url_parse(&url, cfg->credentials_url, NULL) == 0 && url.tls;
	if (credentials_load(&w->credentials, &files, err) == 0)
		cfg->credentials = &w->credentials;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		free(s[i]);
}

/* Of a worker without a supervisor, once it knows where ComfyUI is: who looks
 * names up needs files and threads for it. */
static void worker_shut_in(const struct worker *w, struct json hello)
{
	struct error err = ERROR_NULL;
	bool wanted = true;
	struct url url;

	(void)json_bool(json_get(hello, "sandbox"), &wanted);
	if (w->told || !wanted)
		return;
	/* The TLS library reads its configuration. */
	if (http_global_init(&err) < 0)
		log_warn("worker", "%s", err.text);
	sandbox_enter(url_parse(&url, link_url(w->link), NULL) == 0 &&
	                              url_is_numeric(&url)
	                      ? SANDBOX_WORKER
	                      : SANDBOX_WORKER_RESOLVING);
}

static int worker_make_link(struct worker *w, struct json hello,
                            struct error *err)
{
	static const char *const keys[] = {
		"kind",    "comfyui", "address", "client_id",
		"ca_file", "proxy",   "no_bus",  "configured_url"};
	char *s[ARRAY_SIZE(keys)] = {NULL};
	struct link_config cfg;
	struct error why = ERROR_NULL;
	bool named = false;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		s[i] = json_string_dup(json_get(hello, keys[i]),
		                       HELLO_STRING_MAX);
	(void)json_bool(json_get(hello, "comfyui_named"), &named);
	cfg = (struct link_config){
		.kind = s[0] ? s[0] : "run",
		.comfyui = named ? s[1] : NULL,
		.default_url = s[1],
		.address = s[2],
		.client_id = s[3],
		.ca_file = s[4],
		.proxy = s[5],
		.bus_error = s[6],
		.credentials_url = s[7],
		.connect_timeout_ms =
			hello_unsigned(hello, "connect_timeout_ms", 5000),
		.request_timeout_ms =
			hello_unsigned(hello, "request_timeout_ms", 30000),
		.poll_interval_ms =
			hello_unsigned(hello, "poll_interval_ms", 1500),
		.sessions = hello_unsigned(hello, "sessions", 1),
		/* A supervisor told it to the keeper. */
		.had_bus = w->told ||
	                   !json_is(json_get(hello, "sessions"), JSON_NONE),
		.tenant = w->tenant,
	};
	if (!w->told) {
		worker_load_credentials(w, hello, &cfg, &why);
		cfg.credentials_error = why.text;
	}
	worker_obey(w, &cfg);
	w->link = link_new(w->loop, &cfg, err);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		free(s[i]);
	return w->link ? 0 : -1;
}

static int worker_start_kind(struct worker *w, struct json hello,
                             struct error *err)
{
	struct json name = json_get(hello, "kind");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!kinds[i]->serves(name))
			continue;
		w->kind = kinds[i];
		w->state = w->kind->start(w, hello, err);
		return w->state ? 0 : -1;
	}
	return error_set(err, ERR_INVALID, "no such kind of session: %s",
	                 log_safe(name.text.p, name.text.n));
}

int worker_hello(struct worker *w, struct span payload, struct error *err)
{
	cleanup_free char *level = NULL;
	struct json hello;

	if (w->link)
		return error_set(err, ERR_PROTOCOL, "hello came twice");
	if (json_parse(&hello, payload.p, payload.n, 0, NULL) ||
	    !json_is(hello, JSON_OBJECT))
		return error_set(err, ERR_PROTOCOL,
		                 "hello is not a JSON object");
	level = json_string_dup(json_get(hello, "log_level"), 16);
	if (!w->told && level && log_level_from_name(level) >= 0)
		log_set_level((enum log_level)log_level_from_name(level));
	if (worker_make_link(w, hello, err))
		return -1;
	worker_shut_in(w, hello);
	link_on_bus_lost(w->link, on_bus_lost, w);
	link_on_notice(w->link, on_notice, w);
	if (worker_start_kind(w, hello, err))
		return -1;
	if (w->early_bus >= 0)
		worker_set_bus(w, steal_fd(&w->early_bus));
	ev_timer_stop(w->loop, &w->hello);
	return worker_send(w, CHANNEL_READY, 0, SPAN_NULL);
}
