/*
 * link_private.h - struct link, for the two files that make it up: link.c (the
 * bus and who watches it) and link_http.c (what a worker does on its own).
 */
#ifndef WORKERS_LINK_PRIVATE_H
#define WORKERS_LINK_PRIVATE_H

#include <ev.h>

#include "common/credentials.h"
#include "common/http.h"
#include "common/map.h"
#include "common/url.h"
#include "workers/link.h"

enum link_state {
	LINK_ALONE,
	LINK_HELLO,  /* hello is not answered yet */
	LINK_ATTACH, /* attach is not answered yet */
	LINK_UP,
};

/* A prompt of this session; the key of `claims` points at `id`. */
struct link_claimed {
	struct list node;
	char id[];
};

struct link {
	struct ev_loop *loop;
	char *kind, *comfyui, *default_url, *ca_file, *proxy;
	const struct credentials *credentials;
	char *credentials_url, *credentials_error;
	struct credentials trust; /* the authorities of `credentials`, alone */
	char *address, *client_id, *session;
	char epoch[64];
	uid_t uid;
	unsigned connect_timeout_ms, request_timeout_ms, poll_interval_ms;
	unsigned sessions;
	bool tenant;
	bool doubts_records;
	bool guest; /* the supervisor serves others too, we are no operator */
	struct link_patience patience;
	uint64_t rng;

	/* bus */
	enum link_state state;
	struct client *client; /* NULL when LINK_ALONE */
	struct error bus_error;
	bool had_bus;      /* at some time, in a predecessor perhaps */
	bool refused;      /* the last supervisor doesn't want this session */
	ev_timer deadline; /* of hello and attach */
	ev_timer quiet;    /* runs while LINK_UP and something is awaited */
	struct list asks;
	struct list watches;
	size_t listeners; /* watches that want events */
	uint64_t serial;
	struct link_cursor *cursors; /* walks of `watches` under way */
	void (*on_lost)(void *user);
	void *on_lost_user;

	/* alone */
	struct http *http;
	struct comfy_api *api;
	struct url url;
	bool http_stale; /* made for another address */
	unsigned api_users;
	ev_timer close_idle;
	struct poller *poller;
	struct map claims;
	struct list claimed; /* oldest first */
	size_t claimed_count;
	struct list owed; /* cancels: struct link_claimed, oldest first */
	size_t owed_count;
	void (*on_claim)(void *user);
	void *on_claim_user;
	struct list turns;
	ev_timer turn;
	bool told_polling;
	void (*on_notice)(void *user, const char *text);
	void *on_notice_user;
};

void link_http_init(struct link *l);
void link_http_deinit(struct link *l);
/* There is a bus again: asks for the cancels that are owed. */
void link_pay_cancels(struct link *l);
/* The supervisor told where ComfyUI is: connections made for another address
 * are not used any more. */
void link_http_moved(struct link *l);

#endif
