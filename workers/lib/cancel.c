/*
 * cancel.c - libcomfymux: cancelling a prompt, be it this client's or not.
 */
#include <stdlib.h>

#include "workers/cancel.h"
#include "workers/lib/lib.h"

/* That of a prompt which is not run here. */
struct cancelling {
	struct cmx_task task;
	struct cancel *cancel;
};

static struct cancelling *cancelling_of(struct cmx_task *t)
{
	return container_of(t, struct cancelling, task);
}

static const char *cancelling_prompt_id(struct cmx_task *t)
{
	return "";
}

static const struct cmx_progress *cancelling_progress(struct cmx_task *t,
                                                      const char *prompt_id)
{
	return NULL;
}

static void cancelling_cancel(struct cmx_task *t)
{
}

static bool cancelling_cancel_prompt(struct cmx_task *t, const char *prompt_id)
{
	return false;
}

static void cancelling_free(struct cmx_task *t)
{
	struct cancelling *x = cancelling_of(t);

	x->cancel = cancel_free(x->cancel);
	free(x);
}

static const struct lib_task_kind cancelling_kind = {
	.prompt_id = cancelling_prompt_id,
	.progress = cancelling_progress,
	.cancel = cancelling_cancel,
	.cancel_prompt = cancelling_cancel_prompt,
	.free = cancelling_free,
};

static void on_cancel(void *user, const char *how, const struct error *err)
{
	struct cancelling *x = user;

	x->cancel = NULL;
	if (err)
		link_notice(x->task.client->link, "could not cancel: %s",
		            err->text);
	lib_thing_drop(x->task.client, &x->task.thing);
}

static int cancel_other(struct cmx *c, const char *prompt_id)
{
	struct cancelling *x = calloc(1, sizeof(*x));
	struct error err;
	int r;

	if (!x)
		return lib_fail(CMX_E_NOMEM, "out of memory: a request");
	r = lib_begin(c);
	if (r == 0) {
		x->cancel = cancel_new(c->link, prompt_id, on_cancel, x, &err);
		if (!x->cancel)
			r = lib_fail_with(&err);
	}
	if (r < 0)
		free(x);
	else
		lib_task_init(&x->task, c, &cancelling_kind);
	return r;
}

int cmx_cancel(struct cmx *c, const char *prompt_id)
{
	struct cmx_task *t;
	struct list *it;
	int r = lib_check_prompt_id(prompt_id);

	if (r == 0)
		r = lib_enter(c, LIB_QUICK);
	if (r < 0)
		return r;
	list_for_each (it, &c->tasks) {
		t = list_entry(it, struct cmx_task, thing.node);
		if (t->kind->cancel_prompt(t, prompt_id))
			return lib_leave(c, 0);
	}
	return lib_leave(c, cancel_other(c, prompt_id));
}
