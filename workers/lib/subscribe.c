/*
 * subscribe.c - libcomfymux: prompts that are watched. A subscription is a
 * follow that is kept beyond its end.
 */
#include <stdlib.h>
#include <string.h>

#include "workers/follow.h"
#include "workers/lib/lib.h"

struct cmx_subscription {
	struct lib_thing thing;
	struct cmx *client;
	struct follow *follow;
	cmx_progress_fn *on_progress;
	cmx_error_fn *on_error;
	void *user;
	bool told; /* on_progress was called */
};

static void sub_tell_progress(struct cmx_subscription *s)
{
	struct cmx *c = s->client;

	s->told = true;
	if (s->thing.dead || !s->on_progress || !lib_tell_begin(c))
		return;
	s->on_progress(s->user, progress_get(follow_progress(s->follow)));
	lib_tell_end(c);
}

static void sub_tell_error(struct cmx_subscription *s)
{
	const struct cmx_progress *p = progress_get(follow_progress(s->follow));
	struct cmx *c = s->client;

	if (p->status != CMX_FAILED || s->thing.dead || !s->on_error ||
	    !lib_tell_begin(c))
		return;
	s->on_error(s->user, &p->error);
	lib_tell_end(c);
}

static void on_news(void *user, const struct follow_news *news)
{
	struct cmx_subscription *s = user;

	/* The first is told in any case: it is the present state. */
	if (news->change != PROGRESS_SAME || !s->told)
		sub_tell_progress(s);
}

static void on_end(void *user, const struct progress *p)
{
	sub_tell_progress(user);
	sub_tell_error(user);
}

static void on_unknown(void *user, const struct error *err)
{
	struct cmx_subscription *s = user;

	follow_conclude(s->follow, "lost", err->text);
	sub_tell_error(s);
}

static const struct follow_handlers handlers = {
	.on_news = on_news,
	.on_end = on_end,
	.on_unknown = on_unknown,
};

static void sub_free(struct lib_thing *t)
{
	struct cmx_subscription *s =
		container_of(t, struct cmx_subscription, thing);

	s->follow = follow_free(s->follow);
	free(s);
}

static int sub_new(struct cmx *c, const char *prompt_id,
                   struct cmx_subscription **subp)
{
	struct cmx_subscription *s = calloc(1, sizeof(*s));
	struct error err;

	if (!s)
		return lib_fail(CMX_E_NOMEM, "out of memory: a subscription");
	s->client = c;
	s->follow = follow_new(c->link, prompt_id, false, false, &handlers, s,
	                       &err);
	if (!s->follow) {
		free(s);
		return lib_fail_with(&err);
	}
	follow_every_event(s->follow);
	lib_thing_add(&c->subscriptions, &s->thing, sub_free);
	*subp = s;
	return 0;
}

int cmx_subscribe(struct cmx *c, const char *prompt_id,
                  cmx_progress_fn *on_progress, cmx_error_fn *on_error,
                  void *user, struct cmx_subscription **subp)
{
	int r;

	if (!subp)
		return lib_fail(CMX_E_INVALID, "no place for the subscription");
	*subp = NULL;
	r = lib_check_prompt_id(prompt_id);
	if (r == 0)
		r = lib_enter(c, LIB_QUICK);
	if (r < 0)
		return r;
	r = lib_begin(c);
	if (r == 0)
		r = sub_new(c, prompt_id, subp);
	if (r == 0) {
		(*subp)->on_progress = on_progress;
		(*subp)->on_error = on_error;
		(*subp)->user = user;
	}
	return lib_leave(c, r);
}

void cmx_unsubscribe(struct cmx_subscription *s)
{
	struct cmx *c = s ? s->client : NULL;

	if (!s || lib_enter(c, LIB_QUICK) < 0)
		return;
	lib_thing_drop(c, &s->thing);
	(void)lib_leave(c, 0);
}

static const struct cmx_progress *find_subscribed(struct cmx *c,
                                                  const char *prompt_id)
{
	const struct cmx_progress *p;
	struct list *it;

	list_for_each (it, &c->subscriptions) {
		p = progress_get(follow_progress(
			list_entry(it, struct cmx_subscription, thing.node)
				->follow));
		if (strcmp(p->prompt_id, prompt_id) == 0)
			return p;
	}
	return NULL;
}

static const struct cmx_progress *find_run(struct cmx *c, const char *prompt_id)
{
	const struct cmx_progress *p = NULL;
	struct cmx_task *t;
	struct list *it;

	list_for_each (it, &c->tasks) {
		t = list_entry(it, struct cmx_task, thing.node);
		p = t->kind->progress(t, prompt_id);
		if (p)
			break;
	}
	return p;
}

const struct cmx_progress *cmx_progress(struct cmx *c, const char *prompt_id)
{
	const struct cmx_progress *p = NULL;

	if (lib_check_prompt_id(prompt_id) < 0 || lib_enter(c, LIB_QUICK) < 0)
		return NULL;
	p = find_run(c, prompt_id);
	if (!p)
		p = find_subscribed(c, prompt_id);
	if (!p)
		(void)lib_fail(CMX_E_NOT_FOUND,
		               "this client neither runs the prompt %s nor is "
		               "subscribed to it",
		               prompt_id);
	(void)lib_leave(c, 0);
	return p;
}
