/*
 * progress_log.c - see progress_log.h.
 */
#include "common/progress_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ids and messages are bounded by progress.h; what is longer is cut. */
#define LINE_BYTES (PROGRESS_ID_MAX + PROGRESS_ERROR_MAX + 128)

void progress_log_init(struct progress_log *l)
{
	*l = (struct progress_log){.position = -1};
}

void progress_log_deinit(struct progress_log *l)
{
	free(l->node);
	progress_log_init(l);
}

static bool say(progress_log_cb *cb, void *user, const char *fmt, ...)
	ATTR_PRINTF(3, 4);

static bool say(progress_log_cb *cb, void *user, const char *fmt, ...)
{
	char line[LINE_BYTES];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return cb(user, line);
}

static bool tell_queue(struct progress_log *l, const struct cmx_progress *p,
                       progress_log_cb *cb, void *user)
{
	if (p->status != CMX_QUEUED)
		return true;
	if (p->paused != l->paused) {
		l->paused = p->paused;
		if (!say(cb, user,
		         p->paused ? "The service is paused"
		                   : "The service goes on"))
			return false;
	}
	if (p->queue_position < 0 || p->queue_position == l->position)
		return true;
	l->position = p->queue_position;
	return say(cb, user, "Queued (position: %" PRId64 ")", l->position);
}

static bool tell_lists(struct progress_log *l, const struct cmx_progress *p,
                       progress_log_cb *cb, void *user)
{
	while (l->cached < p->cached_nodes.count)
		if (!say(cb, user, "Node %s cached",
		         p->cached_nodes.ids[l->cached++]))
			return false;
	while (l->completed < p->completed_nodes.count) {
		const char *id = p->completed_nodes.ids[l->completed++];

		if (l->node && strcmp(l->node, id) == 0) {
			free(l->node);
			l->node = NULL;
		}
		if (!say(cb, user, "Node %s completed", id))
			return false;
	}
	return true;
}

static int tell_current(struct progress_log *l, const struct cmx_progress *p,
                        progress_log_cb *cb, void *user)
{
	int percent;

	if (!p->current_node)
		return 0;
	if (!l->node || strcmp(l->node, p->current_node) != 0) {
		free(l->node);
		l->node = strdup(p->current_node);
		if (!l->node)
			return -ENOMEM;
		l->step = 0;
		if (!say(cb, user, "Node %s started", l->node))
			return 0;
	}
	percent = (int)(p->current_node_progress * 100 + 1e-9);
	percent -= percent % PROGRESS_LOG_STEP;
	/* 100 % is told by "completed". */
	if (percent > l->step && percent < 100) {
		l->step = percent;
		(void)say(cb, user, "Node %s progress: %d%%", l->node, percent);
	}
	return 0;
}

static void tell_end(struct progress_log *l, const struct cmx_progress *p,
                     progress_log_cb *cb, void *user)
{
	const struct cmx_error *e = &p->error;

	if (p->status == CMX_COMPLETED) {
		l->ended = true;
		(void)say(cb, user, "Execution finished");
	} else if (p->status == CMX_FAILED) {
		l->ended = true;
		(void)say(cb, user, "Execution failed%s%s: %s: %s",
		          e->node_id && *e->node_id ? " at node " : "",
		          e->node_id ? e->node_id : "",
		          e->type ? e->type : "error",
		          e->message ? e->message : "no message");
	}
}

int progress_log_update(struct progress_log *l, const struct cmx_progress *p,
                        progress_log_cb *cb, void *user)
{
	int r;

	if (l->ended)
		return 0;
	if (!tell_queue(l, p, cb, user) || !tell_lists(l, p, cb, user))
		return 0;
	r = tell_current(l, p, cb, user);
	if (r == 0)
		tell_end(l, p, cb, user);
	return r;
}
