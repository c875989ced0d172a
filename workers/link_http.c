/*
 * link_http.c - what a worker does without a supervisor: HTTP of its own, how
 * often to poll, whose prompts it may look at, and taking turns.
 */
#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "workers/link_private.h"
#include "workers/poller.h"

/* N lone workers ask 20 times a second in all. */
#define POLL_PER_SESSION_MS 50
#define POLL_JITTER         10 /* a tenth, either way: 1/10 */
#define NOTICE_MAX          1400

/* splitmix64 (public domain, Sebastiano Vigna): spreads polls, no secrets. */
static uint64_t link_random(struct link *l)
{
	uint64_t z = l->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned link_poll_ms(struct link *l)
{
	uint64_t ms = (uint64_t)l->sessions * POLL_PER_SESSION_MS;
	uint64_t spread;

	if (ms < l->poll_interval_ms)
		ms = l->poll_interval_ms;
	spread = ms / POLL_JITTER;
	ms = ms - spread + link_random(l) % (2 * spread + 1);
	return ms > UINT32_MAX ? UINT32_MAX : (unsigned)ms;
}

unsigned link_spread_ms(struct link *l)
{
	return (unsigned)(link_random(l) % ((uint64_t)link_poll_ms(l) + 1));
}

const char *link_url(const struct link *l)
{
	return l->comfyui[0]       ? l->comfyui
	       : l->default_url[0] ? l->default_url
	                           : LINK_DEFAULT_URL;
}

const char *link_client_id(const struct link *l)
{
	return l->client_id;
}

struct poller *link_poller(struct link *l)
{
	return l->poller;
}

static void link_http_drop(struct link *l)
{
	l->api = comfy_api_free(l->api);
	l->http = http_free(l->http);
	l->http_stale = false;
}

void link_http_moved(struct link *l)
{
	if (!l->http)
		return;
	l->http_stale = true;
	if (l->api_users == 0)
		link_http_drop(l);
}

/* Another server than the one they are for may have been named since. */
static bool may_show(const struct link *l)
{
	struct url url;

	return l->credentials &&
	       url_parse(&url, l->credentials_url, NULL) == 0 &&
	       url_eq(&url, &l->url);
}

static struct http *link_http_new(struct link *l, struct error *err)
{
	struct http_config cfg = {
		.ca_file = l->ca_file,
		.proxy = l->proxy,
		.connect_timeout_ms = l->connect_timeout_ms,
		.timeout_ms = l->request_timeout_ms,
	};

	if (url_parse(&l->url, link_url(l), err) || http_global_init(err))
		return NULL;
	if (l->credentials_error[0]) {
		error_set(err, ERR_CONFIG, "%s", l->credentials_error);
		return NULL;
	}
	if (may_show(l)) {
		cfg.credentials = l->credentials;
	} else if (l->credentials) {
		l->trust = (struct credentials){.ca = l->credentials->ca};
		cfg.credentials = &l->trust;
	}
	if (l->address[0]) {
		cfg.resolve_host = l->url.host;
		cfg.resolve_port = l->url.port;
		cfg.resolve_address = l->address;
	}
	return http_new(l->loop, &cfg, err);
}

struct comfy_api *link_api(struct link *l, struct error *err)
{
	if (l->api)
		return l->api;
	l->http = link_http_new(l, err);
	if (!l->http)
		return NULL;
	l->api = comfy_api_new(l->loop, l->http, &l->url, err);
	if (!l->api)
		link_http_drop(l);
	return l->api;
}

void link_api_hold(struct link *l)
{
	l->api_users++;
	ev_timer_stop(l->loop, &l->close_idle);
}

void link_api_release(struct link *l)
{
	if (--l->api_users > 0)
		return;
	/* Later: we may be inside the callback of the very call whose
	 * connection is to be closed. */
	ev_timer_set(&l->close_idle, 0., 0.);
	ev_timer_start(l->loop, &l->close_idle);
}

/* Idle workers are many; what free() keeps for the next request would be
 * several times what one needs. */
static void give_memory_back(void)
{
#ifdef __GLIBC__
	(void)malloc_trim(0);
#endif
}

static void on_close_idle(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct link *l = container_of(w, struct link, close_idle);

	if (l->http_stale)
		link_http_drop(l);
	else if (l->http)
		http_close_idle(l->http);
	give_memory_back();
}

void link_on_notice(struct link *l, void (*cb)(void *user, const char *text),
                    void *user)
{
	l->on_notice = cb;
	l->on_notice_user = user;
}

void link_notice(struct link *l, const char *fmt, ...)
{
	char text[NOTICE_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (l->on_notice)
		l->on_notice(l->on_notice_user, text);
	else
		log_info("link", "%s", text);
}

void link_tell_polling(struct link *l)
{
	uint64_t ms = (uint64_t)l->sessions * POLL_PER_SESSION_MS;

	if (l->told_polling || l->state == LINK_UP)
		return;
	l->told_polling = true;
	if (ms < l->poll_interval_ms)
		ms = l->poll_interval_ms;
	link_notice(l, "no supervisor (%s): polling ComfyUI every %.1f s",
	            l->bus_error.text, (double)ms / 1000.0);
	if (l->on_lost && !l->refused && l->state == LINK_ALONE)
		l->on_lost(l->on_lost_user);
}

static void claim_drop(struct link *l, struct link_claimed *c)
{
	map_remove(&l->claims, c->id, strlen(c->id));
	list_del(&c->node);
	l->claimed_count--;
	free(c);
}

int link_claim(struct link *l, const char *prompt_id)
{
	size_t len = strlen(prompt_id);
	struct link_claimed *c;
	int r;

	if (map_get(&l->claims, prompt_id, len))
		return 0;
	c = malloc(sizeof(*c) + len + 1);
	if (!c)
		return -ENOMEM;
	memcpy(c->id, prompt_id, len + 1);
	r = map_add(&l->claims, c->id, len, c);
	if (r) {
		free(c);
		return r;
	}
	list_append(&l->claimed, &c->node);
	if (++l->claimed_count > LINK_CLAIMS_MAX)
		claim_drop(l,
		           list_first(&l->claimed, struct link_claimed, node));
	if (l->on_claim)
		l->on_claim(l->on_claim_user);
	return 0;
}

void link_on_claim(struct link *l, void (*cb)(void *user), void *user)
{
	l->on_claim = cb;
	l->on_claim_user = user;
}

void link_put_claims(const struct link *l, size_t max, struct buf *out)
{
	size_t skip = l->claimed_count > max ? l->claimed_count - max : 0;
	const char *comma = "";
	struct list *it;

	(void)buf_putc(out, '[');
	list_for_each (it, &l->claimed) {
		const struct link_claimed *c =
			list_entry(it, struct link_claimed, node);

		if (skip > 0) {
			skip--;
			continue;
		}
		(void)buf_puts(out, comma);
		(void)buf_json_string(out, c->id, strlen(c->id));
		comma = ",";
	}
	(void)buf_putc(out, ']');
}

bool link_claimed(const struct link *l, const char *prompt_id)
{
	return map_get(&l->claims, prompt_id, strlen(prompt_id)) != NULL;
}

/* --- cancels that are owed ----------------------------------------------- */

static void owed_drop(struct link *l, struct link_claimed *o)
{
	list_del(&o->node);
	l->owed_count--;
	free(o);
}

bool link_owes_cancel(const struct link *l, const char *prompt_id)
{
	struct list *it;

	list_for_each (it, &l->owed) {
		if (strcmp(list_entry(it, struct link_claimed, node)->id,
		           prompt_id) == 0)
			return true;
	}
	return false;
}

int link_owe_cancel(struct link *l, const char *prompt_id)
{
	size_t len = strlen(prompt_id);
	struct link_claimed *o;

	if (link_owes_cancel(l, prompt_id))
		return 0;
	o = malloc(sizeof(*o) + len + 1);
	if (!o)
		return -ENOMEM;
	memcpy(o->id, prompt_id, len + 1);
	list_append(&l->owed, &o->node);
	if (++l->owed_count > LINK_OWED_MAX)
		owed_drop(l, list_first(&l->owed, struct link_claimed, node));
	return 0;
}

/* Whoever wanted it was answered long ago. */
static void on_paid(void *user, const struct incoming *in,
                    const struct error *err)
{
	if (err)
		log_info("link", "a cancel that was owed: %s", err->text);
}

void link_pay_cancels(struct link *l)
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	struct list *it, *tmp;
	struct link_claimed *o;
	struct error err;

	list_for_each_safe (it, tmp, &l->owed) {
		o = list_entry(it, struct link_claimed, node);
		buf_reset(&b);
		(void)buf_puts(&b, "{\"prompt_id\":");
		(void)buf_json_string(&b, o->id, strlen(o->id));
		(void)buf_putc(&b, '}');
		if (!buf_ok(&b) ||
		    !link_ask(l, OP_CANCEL, span_make(b.data, b.len), 0,
		              on_paid, NULL, &err))
			log_warn("link", "a cancel that is owed can't be sent");
		owed_drop(l, o);
	}
}

void link_doubt_records(struct link *l)
{
	l->doubts_records = true;
}

bool link_doubts_records(const struct link *l)
{
	return l->doubts_records;
}

bool link_may_see(const struct link *l, const char *prompt_id)
{
	return !l->tenant || link_claimed(l, prompt_id);
}

bool link_may_see_all(const struct link *l)
{
	return !l->tenant;
}

bool link_owns_rest(const struct link *l)
{
	return !l->tenant && !l->guest;
}

/* Whoever is first in line has the turn. */
static void on_turn(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct link *l = container_of(w, struct link, turn);
	struct link_turn *t;

	if (list_empty(&l->turns))
		return;
	t = list_first(&l->turns, struct link_turn, node);
	if (t->held)
		return;
	t->held = true;
	t->on_turn(t->user);
}

static void link_next_turn(struct link *l)
{
	if (!list_empty(&l->turns) && !ev_is_active(&l->turn)) {
		ev_timer_set(&l->turn, 0., 0.);
		ev_timer_start(l->loop, &l->turn);
	}
}

void link_turn_ask(struct link *l, struct link_turn *t)
{
	t->held = false;
	list_append(&l->turns, &t->node);
	link_next_turn(l);
}

void link_turn_done(struct link *l, struct link_turn *t)
{
	if (!t->node.next)
		return;
	list_del(&t->node);
	t->held = false;
	link_next_turn(l);
}

void link_http_init(struct link *l)
{
	list_init(&l->claimed);
	list_init(&l->owed);
	list_init(&l->turns);
	ev_timer_init(&l->close_idle, on_close_idle, 0., 0.);
	ev_timer_init(&l->turn, on_turn, 0., 0.);
}

void link_http_deinit(struct link *l)
{
	struct list *it, *tmp;

	link_http_drop(l);
	ev_timer_stop(l->loop, &l->close_idle);
	ev_timer_stop(l->loop, &l->turn);
	while (!list_empty(&l->claimed))
		claim_drop(l,
		           list_first(&l->claimed, struct link_claimed, node));
	list_for_each_safe (it, tmp, &l->owed)
		owed_drop(l, list_entry(it, struct link_claimed, node));
	map_deinit(&l->claims);
}
