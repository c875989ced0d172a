/*
 * hand_over.c - see hand_over.h.
 *
 * The upload never overwrites: of another image with the same name ComfyUI
 * makes "x (1).png" and says so, and that name is what goes on.
 */
#include "workers/hand_over.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"

#define NAME_BYTES (2 * CHAIN_NAME_MAX + 2)

struct hand_over {
	struct link *link;
	hand_over_cb *cb;
	void *user;
	char *filename;
	struct comfy_call *call;
};

static void hand_over_end(struct hand_over *h, const char *name,
                          const struct error *err)
{
	hand_over_cb *cb = h->cb;
	void *user = h->user;

	h->call = NULL;
	(void)hand_over_free(h);
	cb(user, name, err);
}

static void hand_over_fail(struct hand_over *h, const struct error *why,
                           const char *what)
{
	struct error err = *why;

	(void)error_prefix(&err, "%s %s", what, h->filename);
	hand_over_end(h, NULL, &err);
}

static void on_uploaded(void *user, const struct comfy_result *r)
{
	struct hand_over *h = user;
	cleanup_free char *name = NULL, *folder = NULL;
	char whole[NAME_BYTES];
	struct error err;

	if (r->outcome != COMFY_OK) {
		hand_over_fail(h, &r->error, "uploading");
		return;
	}
	name = json_string_dup(json_get(r->body, "name"), CHAIN_NAME_MAX);
	folder =
		json_string_dup(json_get(r->body, "subfolder"), CHAIN_NAME_MAX);
	if (!name || !*name) {
		error_set(&err, ERR_PROTOCOL,
		          "ComfyUI took %s and did not say under which name",
		          h->filename);
		hand_over_end(h, NULL, &err);
		return;
	}
	(void)snprintf(whole, sizeof(whole), "%s%s%s", folder ? folder : "",
	               folder && *folder ? "/" : "", name);
	hand_over_end(h, whole, NULL);
}

static void on_viewed(void *user, const struct comfy_result *r)
{
	struct hand_over *h = user;
	struct comfy_upload u = {.filename = h->filename, .data = r->raw};
	struct error err = ERROR_NULL;
	struct comfy_api *api;

	if (r->outcome != COMFY_OK) {
		hand_over_fail(h, &r->error, "fetching");
		return;
	}
	api = link_api(h->link, &err);
	h->call = api ? comfy_upload(api, &u, on_uploaded, h, &err) : NULL;
	if (!h->call)
		hand_over_end(h, NULL, &err);
}

struct hand_over *hand_over_new(struct link *l, const struct chain_image *image,
                                hand_over_cb *cb, void *user, struct error *err)
{
	struct comfy_view v = {
		.filename = image->filename,
		.subfolder = image->subfolder,
		.type = image->type,
		.reply_max = HAND_OVER_MAX,
	};
	struct comfy_api *api = link_api(l, err);
	struct hand_over *h = api ? calloc(1, sizeof(*h)) : NULL;

	if (!h) {
		if (api)
			error_set_nomem(err, "hand-over");
		return NULL;
	}
	h->link = l;
	h->cb = cb;
	h->user = user;
	link_api_hold(l);
	h->filename = strdup(image->filename);
	if (h->filename)
		h->call = comfy_get_view(api, &v, on_viewed, h, err);
	else
		error_set_nomem(err, "hand-over");
	return h->call ? h : hand_over_free(h);
}

struct hand_over *hand_over_free(struct hand_over *h)
{
	if (!h)
		return NULL;
	if (h->call)
		comfy_call_cancel(h->call);
	link_api_release(h->link);
	free(h->filename);
	free(h);
	return NULL;
}
