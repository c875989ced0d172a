/*
 * progress.c - the course of one prompt folded from events, the queue and our
 * own verdicts; see progress.h. History is in progress_history.c, JSON in
 * progress_json.c, nodes in progress_nodes.c.
 *
 * How nodes end differs with the server. One that sends progress_state says
 * so; `executed` alone says so earlier for nodes with output. An older one
 * says nothing, but runs one node after the other, so the start of the next is
 * the end of the one before.
 */
#include "common/progress.h"

#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "common/progress_impl.h"

static const char *const status_names[] = {
	[CMX_QUEUED] = "queued",
	[CMX_EXECUTING] = "executing",
	[CMX_COMPLETED] = "completed",
	[CMX_FAILED] = "failed",
};

static const char *const method_names[] = {
	[CMX_WEBSOCKET] = "websocket",
	[CMX_POLLING] = "polling",
};

const char *cmx_status_name(enum cmx_status s)
{
	return (size_t)s < ARRAY_SIZE(status_names) ? status_names[s]
	                                            : "unknown";
}

const char *cmx_method_name(enum cmx_method m)
{
	return (size_t)m < ARRAY_SIZE(method_names) ? method_names[m]
	                                            : "unknown";
}

struct progress *progress_new(const char *prompt_id)
{
	struct progress *p;

	if (strlen(prompt_id) > PROGRESS_ID_MAX)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->prompt_id = strdup(prompt_id);
	if (!p->prompt_id) {
		free(p);
		return NULL;
	}
	p->pub.prompt_id = p->prompt_id;
	p->pub.queue_position = -1;
	progress_nodes_init(p);
	return p;
}

struct progress *progress_free(struct progress *p)
{
	if (!p)
		return NULL;
	progress_nodes_deinit(p);
	free(p->error_text);
	free(p->prompt_id);
	free(p);
	return NULL;
}

const struct cmx_progress *progress_get(const struct progress *p)
{
	return &p->pub;
}

/* ---- errors ---- */

/* As much of the text as is kept: no white space behind it, at most `max`
 * bytes of whole characters, up to a NUL. */
static struct span error_part(struct span s, size_t max)
{
	const char *nul = s.n > 0 ? memchr(s.p, '\0', s.n) : NULL;

	if (nul)
		s.n = (size_t)(nul - s.p);
	if (s.n > max) {
		s.n = max;
		while (s.n > 0 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
			s.n--;
	}
	while (s.n > 0 && strchr(" \t\r\n", s.p[s.n - 1]))
		s.n--;
	return s;
}

static char *put_part(char **atp, struct span s)
{
	char *start = *atp;

	if (s.n > 0)
		memcpy(start, s.p, s.n);
	start[s.n] = '\0';
	*atp = start + s.n + 1;
	return start;
}

static bool same_part(const char *have, struct span want)
{
	if (!have || !want.p)
		return !have && !want.p;
	return span_eq_str(want, have);
}

bool progress_set_error(struct progress *p, struct span type,
                        struct span message, struct span node_id)
{
	/* What is left to say when there is no memory to say more. */
	static char no_memory_type[] = PROGRESS_TYPE_UNKNOWN;
	static char no_memory_message[] = "out of memory";
	struct cmx_error *e = &p->pub.error;
	char *text, *at;

	type = error_part(type, PROGRESS_ID_MAX);
	message = error_part(message, PROGRESS_ERROR_MAX);
	node_id = error_part(node_id, PROGRESS_NODE_ID_MAX);
	if (type.n == 0)
		type = SPAN(PROGRESS_TYPE_UNKNOWN);
	if (!message.p)
		message = SPAN("");
	if (same_part(e->type, type) && same_part(e->message, message) &&
	    same_part(e->node_id, node_id))
		return false;
	p->error_fatal = !span_eq_str(type, PROGRESS_TYPE_BLOCKED);
	text = malloc(type.n + message.n + node_id.n + 3);
	if (!text) {
		*e = (struct cmx_error){.type = no_memory_type,
		                        .message = no_memory_message};
		free(p->error_text);
		p->error_text = NULL;
		return true;
	}
	at = text;
	*e = (struct cmx_error){.type = put_part(&at, type),
	                        .message = put_part(&at, message)};
	if (node_id.p)
		e->node_id = put_part(&at, node_id);
	free(p->error_text);
	p->error_text = text;
	return true;
}

bool progress_clear_error(struct progress *p)
{
	bool had = p->pub.error.type != NULL;

	p->pub.error = (struct cmx_error){NULL, NULL, NULL};
	p->error_fatal = false;
	free(p->error_text);
	p->error_text = NULL;
	return had;
}

/* Decodes a string, if it is one; empty when there is no memory for it. */
static struct span decode_part(struct json j, struct buf *b)
{
	if (j.type != JSON_STRING)
		return SPAN_NULL;
	buf_init(b, j.text.n);
	if (json_string_decode(j, b) < 0 || b->len == 0)
		return SPAN("");
	return span_make(b->data, b->len);
}

bool progress_set_error_json(struct progress *p, struct json type,
                             struct json message, struct json node_id)
{
	cleanup_buf struct buf t = BUF_INIT(0), m = BUF_INIT(0),
			       n = BUF_INIT(0);

	return progress_set_error(p, decode_part(type, &t),
	                          decode_part(message, &m),
	                          decode_part(node_id, &n));
}

bool progress_set_interrupted(struct progress *p, struct json node_id)
{
	cleanup_buf struct buf n = BUF_INIT(0);

	return progress_set_error(p, SPAN(PROGRESS_TYPE_INTERRUPTED),
	                          SPAN("Execution was interrupted"),
	                          decode_part(node_id, &n));
}

/* ---- status ---- */

unsigned progress_set_executing(struct progress *p)
{
	unsigned change = PROGRESS_STATUS;

	if (p->pub.status != CMX_QUEUED)
		return PROGRESS_SAME;
	p->pub.status = CMX_EXECUTING;
	if (p->pub.queue_position != 0)
		change |= PROGRESS_QUEUE;
	p->pub.queue_position = 0;
	p->pub.paused = false;
	return change;
}

unsigned progress_end(struct progress *p)
{
	unsigned change = PROGRESS_END;

	if (p->error_fatal) {
		p->pub.status = CMX_FAILED;
		progress_drop_running(p);
	} else {
		p->pub.status = CMX_COMPLETED;
		change |= progress_complete_running(p);
		(void)progress_clear_error(p);
	}
	p->pub.queue_position = 0;
	p->pub.paused = false;
	(void)progress_refresh_current(p);
	return change;
}

unsigned progress_fold_queued(struct progress *p, int64_t ahead,
                              enum cmx_method method)
{
	if (p->pub.status != CMX_QUEUED || ahead < 0 ||
	    ahead == p->pub.queue_position)
		return PROGRESS_SAME;
	p->pub.queue_position = ahead;
	p->pub.method = method;
	return PROGRESS_QUEUE;
}

unsigned progress_fold_running(struct progress *p, enum cmx_method method)
{
	unsigned change = progress_set_executing(p);

	if (change != PROGRESS_SAME)
		p->pub.method = method;
	return change;
}

unsigned progress_fold_paused(struct progress *p, bool paused)
{
	if (p->pub.status != CMX_QUEUED || p->pub.paused == paused)
		return PROGRESS_SAME;
	p->pub.paused = paused;
	return PROGRESS_QUEUE;
}

void progress_set_method(struct progress *p, enum cmx_method method)
{
	p->pub.method = method;
}

unsigned progress_fail(struct progress *p, const char *type,
                       const char *message, const char *node_id)
{
	if (progress_ended(p))
		return PROGRESS_SAME;
	(void)progress_set_error(p, SPAN(type), SPAN(message),
	                         node_id ? SPAN(node_id) : SPAN_NULL);
	p->error_fatal = true;
	return progress_end(p);
}

/* ---- events ---- */

unsigned progress_fold_cached(struct progress *p, struct json ids)
{
	unsigned change = PROGRESS_SAME;
	struct json_iter it;
	struct json id;
	struct node *n;

	json_iter_init(&it, ids);
	while (json_iter_next(&it, NULL, &id)) {
		n = progress_node(p, json_raw_string(id));
		if (n)
			change |= progress_node_cache(p, n);
	}
	return change;
}

static unsigned fold_state(struct progress *p, struct json nodes)
{
	unsigned change = PROGRESS_SAME;
	struct comfy_node_state state;
	struct json_iter it;
	struct node *n;

	p->saw_state = true;
	json_iter_init(&it, nodes);
	while (comfy_node_state_next(&it, &state)) {
		if (!state.running && !state.finished)
			continue;
		n = progress_node(p, state.id);
		if (!n)
			continue;
		if (state.finished) {
			change |= progress_node_complete(p, n);
			continue;
		}
		n->confirmed = true;
		if (n->state == NODE_IDLE)
			change |= progress_node_start(p, n);
		change |= progress_node_step(p, n, state.value, state.max);
	}
	return change;
}

static unsigned fold_executing(struct progress *p, const struct comfy_event *ev)
{
	struct node *n = progress_node(p, ev->node);
	unsigned change = PROGRESS_SAME;

	/* Named upon a reconnect: the display id of the node that started
	 * last, which may have ended, or may be another's (31). */
	if (!ev->prompt_id.p)
		p->partial = true;
	if (!n)
		return PROGRESS_SAME;
	if (ev->prompt_id.p) {
		if (n->state == NODE_IDLE && !p->saw_state)
			change |= progress_complete_running(p);
		n->confirmed = true;
	}
	return change | progress_node_start(p, n);
}

static unsigned fold_step(struct progress *p, const struct comfy_event *ev)
{
	unsigned change = PROGRESS_SAME;
	struct node *n;

	if (ev->node.p)
		n = progress_node(p, ev->node);
	else if (!list_empty(&p->running))
		/* Servers before 2024 left it to be guessed. */
		n = list_first(&p->running, struct node, running);
	else
		n = NULL;
	if (!n)
		return PROGRESS_SAME;
	n->confirmed = true;
	if (n->state == NODE_IDLE)
		change = progress_node_start(p, n);
	return change | progress_node_step(p, n, ev->u.progress.value,
	                                   ev->u.progress.max);
}

static unsigned fold_executed(struct progress *p, const struct comfy_event *ev)
{
	bool output = ev->u.executed.output.type == JSON_OBJECT;
	struct node *n = progress_node(p, ev->node);
	unsigned change = PROGRESS_SAME;

	if (!n)
		return PROGRESS_SAME;
	/* One that was not seen to start was answered by an equal node (27),
	 * unless its start may have been missed. */
	if (n->state == NODE_IDLE && !(output && (p->partial || !p->saw_start)))
		n->state = NODE_ANSWERED;
	else
		change |= progress_node_complete(p, n);
	if (output)
		change |=
			progress_set_output(p, n, ev->u.executed.output, true);
	return change;
}

static unsigned fold_success(struct progress *p)
{
	unsigned change = progress_complete_running(p);

	if (!p->pub.error.type ||
	    strcmp(p->pub.error.type, PROGRESS_TYPE_INTERRUPTED) == 0)
		return change;
	(void)progress_clear_error(p);
	return change | PROGRESS_ERROR;
}

unsigned progress_complete_executed(struct progress *p, struct json ids)
{
	unsigned change = PROGRESS_SAME;
	struct json_iter it;
	struct json id;
	struct node *n;

	json_iter_init(&it, ids);
	while (json_iter_next(&it, NULL, &id)) {
		n = progress_node(p, json_raw_string(id));
		if (n && (!p->pub.error.node_id ||
		          strcmp(n->id, p->pub.error.node_id) != 0))
			change |= progress_node_complete(p, n);
	}
	return change;
}

static unsigned fold_error(struct progress *p, const struct comfy_event *ev)
{
	struct json node = json_get(ev->data, "node_id");
	bool news;

	if (ev->type == COMFY_EV_EXECUTION_INTERRUPTED)
		news = progress_set_interrupted(p, node);
	else
		news = progress_set_error_json(p, ev->u.error.type,
		                               ev->u.error.message, node);
	return progress_complete_executed(p, ev->u.error.executed) |
	       (news ? PROGRESS_ERROR : PROGRESS_SAME);
}

/* What the event says of nodes and errors. */
static unsigned fold_details(struct progress *p, const struct comfy_event *ev)
{
	switch (ev->type) {
	case COMFY_EV_EXECUTION_START:
		p->saw_start = true;
		return PROGRESS_SAME;
	case COMFY_EV_EXECUTION_CACHED:
		return progress_fold_cached(p, ev->u.cached.nodes);
	case COMFY_EV_PROGRESS_STATE:
		return fold_state(p, ev->u.state.nodes);
	case COMFY_EV_EXECUTING:
		return fold_executing(p, ev);
	case COMFY_EV_PROGRESS:
		return fold_step(p, ev);
	case COMFY_EV_EXECUTED:
		return fold_executed(p, ev);
	case COMFY_EV_EXECUTION_SUCCESS:
		return fold_success(p);
	case COMFY_EV_EXECUTION_ERROR:
	case COMFY_EV_EXECUTION_INTERRUPTED:
		return fold_error(p, ev);
	default:
		return PROGRESS_SAME;
	}
}

static bool event_tells_of_run(const struct comfy_event *ev)
{
	switch (ev->type) {
	case COMFY_EV_EXECUTION_START:
	case COMFY_EV_EXECUTION_CACHED:
	case COMFY_EV_PROGRESS_STATE:
	case COMFY_EV_PROGRESS:
	case COMFY_EV_EXECUTED:
	case COMFY_EV_EXECUTION_SUCCESS:
	case COMFY_EV_EXECUTION_ERROR:
	case COMFY_EV_EXECUTION_INTERRUPTED:
		return true;
	case COMFY_EV_EXECUTING:
		return !ev->node_is_null;
	default:
		return false;
	}
}

unsigned progress_fold_event(struct progress *p, const struct comfy_event *ev)
{
	unsigned change;

	if (progress_ended(p))
		return PROGRESS_SAME;
	if (event_tells_of_run(ev)) {
		change = progress_set_executing(p);
		change |= fold_details(p, ev);
		change |= progress_refresh_current(p);
	} else if (ev->type == COMFY_EV_EXECUTING && ev->prompt_id.p) {
		change = progress_end(p) | PROGRESS_EXECUTION_OVER;
	} else {
		return PROGRESS_SAME;
	}
	if (change != PROGRESS_SAME)
		p->pub.method = CMX_WEBSOCKET;
	return change;
}
