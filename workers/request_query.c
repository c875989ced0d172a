/*
 * request_query.c - progress, cancel, queue, history and comfy: questions that
 * the supervisor answers, or ComfyUI when there is none.
 *
 * Without a supervisor everything in ComfyUI counts as one's own, on a machine
 * of one's own; command_check_sight refuses anywhere else.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/progress.h"
#include "workers/cancel.h"
#include "workers/poller.h"
#include "workers/request_ops.h"

#define ANSWER_MAX     (64u << 20)
#define COMFY_PATH_MAX 1024

struct query {
	struct command *command;
	char *prompt_id;
	int64_t limit;
	struct poller_watch poll;
	struct cancel *cancel;
	struct buf out; /* elements of the array under way */
	size_t count;
};

static void query_drop(struct command *c)
{
	struct query *q = c->job;

	if (!q)
		return;
	poller_remove(&q->poll);
	q->cancel = cancel_free(q->cancel);
	buf_deinit(&q->out);
	free(q->prompt_id);
	free(q);
	c->job = NULL;
}

static struct query *query_new(struct command *c, struct error *err)
{
	struct query *q = calloc(1, sizeof(*q));

	if (!q) {
		error_set_nomem(err, "request");
		return NULL;
	}
	q->command = c;
	buf_init(&q->out, ANSWER_MAX);
	c->job = q;
	return q;
}

static void query_fail(struct command *c, const struct error *err)
{
	command_fail(c, err, SPAN_NULL);
}

/* Sends what was built, or says that it couldn't be. */
static void query_answer(struct command *c, struct buf *b)
{
	struct error err;

	if (buf_ok(b)) {
		command_ok(c, span_make(b->data, b->len));
		return;
	}
	error_set(&err, ERR_LIMIT, "the result is too long; ask for less");
	query_fail(c, &err);
}

/* --- progress ------------------------------------------------------------ */

static unsigned query_fold(struct progress *p, const struct poller_news *n)
{
	switch (n->found) {
	case POLLER_PENDING:
		return progress_fold_queued(p, n->ahead, CMX_POLLING);
	case POLLER_RUNNING:
		return progress_fold_running(p, CMX_POLLING);
	case POLLER_ENDED:
		return progress_fold_history(p, n->entry, CMX_POLLING);
	case POLLER_MISSING:
		break;
	}
	return PROGRESS_SAME;
}

static void on_polled(void *user, const struct poller_news *n)
{
	struct query *q = user;
	struct command *c = q->command;
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct progress *p;
	struct error err;

	if (n->found == POLLER_MISSING) {
		error_set(&err, ERR_NOT_FOUND,
		          "no such prompt: %s is neither in the queue nor in "
		          "the history of ComfyUI",
		          q->prompt_id);
		query_fail(c, &err);
		return;
	}
	p = progress_new(q->prompt_id);
	if (!p) {
		error_set_nomem(&err, "progress");
		query_fail(c, &err);
		return;
	}
	(void)query_fold(p, n);
	progress_to_json(p, 0, &b);
	progress_free(p);
	query_answer(c, &b);
}

static void on_trouble(void *user, const struct error *err)
{
	struct query *q = user;

	query_fail(q->command, err);
}

static int progress_alone(struct command *c, struct error *err)
{
	struct query *q = c->job;

	if (command_check_sight(c, q->prompt_id, err))
		return -1;
	q->poll = (struct poller_watch){
		.prompt_id = q->prompt_id,
		.on_polled = on_polled,
		.on_trouble = on_trouble,
		.user = q,
	};
	poller_add(link_poller(command_link(c)), &q->poll, true);
	return 0;
}

static int progress_start(struct command *c, struct error *err)
{
	struct query *q = query_new(c, err);
	cleanup_buf struct buf b = BUF_INIT(4096);

	if (!q || command_need_string(c, "prompt_id", PROGRESS_ID_MAX,
	                              &q->prompt_id, err))
		return -1;
	if (command_prompt_params(&b, q->prompt_id, err))
		return -1;
	return command_ask(c, OP_PROGRESS, span_make(b.data, b.len),
	                   progress_alone, err);
}

const struct command_op command_progress = {
	.name = "progress",
	.start = progress_start,
	.drop = query_drop,
};

/* --- cancel -------------------------------------------------------------- */

static void on_cancel(void *user, const char *how, const struct error *err)
{
	struct query *q = user;
	cleanup_buf struct buf b = BUF_INIT(128);

	q->cancel = NULL;
	if (err) {
		query_fail(q->command, err);
		return;
	}
	buf_printf(&b, "{\"how\":\"%s\"}", how);
	query_answer(q->command, &b);
}

static int cancel_start(struct command *c, struct error *err)
{
	struct query *q = query_new(c, err);

	if (!q || command_need_string(c, "prompt_id", PROGRESS_ID_MAX,
	                              &q->prompt_id, err))
		return -1;
	q->cancel =
		cancel_new(command_link(c), q->prompt_id, on_cancel, q, err);
	return q->cancel ? 0 : -1;
}

const struct command_op command_cancel_op = {
	.name = "cancel",
	.start = cancel_start,
	.drop = query_drop,
};

/* --- queue --------------------------------------------------------------- */

/* create_time of a queue item's extra_data, in newer versions: epoch ms. */
static bool item_created(struct json item, int64_t *msp)
{
	return json_int64(json_get(json_at(item, 3), "create_time"), msp);
}

/* {"prompt_id","status","queue_position"[,"submitted_at"]} */
static void put_item(struct buf *b, const struct comfy_queue_item *item,
                     const char *status, size_t position)
{
	int64_t ms;

	/* Raw bytes of a JSON string: quoted again as they stand. */
	buf_puts(b, "{\"prompt_id\":\"");
	buf_append(b, item->prompt_id.p, item->prompt_id.n);
	buf_printf(b, "\",\"status\":\"%s\",\"queue_position\":%zu", status,
	           position);
	if (item_created(item->item, &ms))
		buf_printf(b, ",\"submitted_at\":%" PRId64, ms);
	buf_putc(b, '}');
}

static void on_queue(void *user, const struct comfy_queue *queue)
{
	struct command *c = user;
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);

	c->call = NULL;
	if (queue->r.outcome != COMFY_OK) {
		query_fail(c, &queue->r.error);
		return;
	}
	buf_puts(&b, "{\"running\":[");
	for (size_t i = 0; i < queue->running_count; i++) {
		buf_puts(&b, i ? "," : "");
		put_item(&b, &queue->running[i], "executing", 0);
	}
	buf_puts(&b, "],\"pending\":[");
	for (size_t i = 0; i < queue->pending_count; i++) {
		buf_puts(&b, i ? "," : "");
		put_item(&b, &queue->pending[i], "queued",
		         queue->running_count + i);
	}
	buf_puts(&b, "],\"others\":0}");
	query_answer(c, &b);
}

static int queue_alone(struct command *c, struct error *err)
{
	struct comfy_api *api;

	if (command_check_sight(c, NULL, err))
		return -1;
	api = command_api(c, err);
	c->call = api ? comfy_get_queue(api, on_queue, c, err) : NULL;
	return c->call ? 0 : -1;
}

/* Not the supervisor's word is wanted, but ComfyUI's. */
static bool wants_comfyui(const struct command *c)
{
	bool wanted = false;

	(void)json_bool(json_get(c->params, "comfyui"), &wanted);
	return wanted;
}

static int queue_start(struct command *c, struct error *err)
{
	if (wants_comfyui(c))
		return queue_alone(c, err);
	return command_ask(c, OP_QUEUE, SPAN_NULL, queue_alone, err);
}

const struct command_op command_queue = {
	.name = "queue",
	.start = queue_start,
};

/* --- history ------------------------------------------------------------- */

/* When the last of the entry's messages was sent: epoch ms. */
static bool entry_ended(struct json entry, int64_t *msp)
{
	struct json messages = json_get(json_get(entry, "status"), "messages");
	struct json_iter it;
	struct json m;
	bool found = false;
	int64_t ms;

	json_iter_init(&it, messages);
	while (json_iter_next(&it, NULL, &m)) {
		if (json_int64(json_get(json_at(m, 1), "timestamp"), &ms) &&
		    (!found || ms > *msp)) {
			*msp = ms;
			found = true;
		}
	}
	return found;
}

static void put_entry(struct buf *b, const char *id, struct json entry)
{
	struct progress *p = progress_new(id);
	int64_t ms;

	if (!p) {
		b->failed = true;
		return;
	}
	(void)progress_fold_history(p, entry, CMX_POLLING);
	progress_to_json(p, PROGRESS_JSON_RESULT, b);
	progress_free(p);
	if (!buf_ok(b))
		return;
	b->len--; /* the brace */
	if (item_created(json_get(entry, "prompt"), &ms))
		buf_printf(b, ",\"submitted_at\":%" PRId64, ms);
	if (entry_ended(entry, &ms))
		buf_printf(b, ",\"ended_at\":%" PRId64, ms);
	buf_putc(b, '}');
}

/* ComfyUI lists the oldest first; what is wanted is the newest. */
static void put_entries(struct query *q, struct json body)
{
	struct {
		struct json id, entry;
	} * list;
	size_t n = 0;
	struct json_iter it;

	list = calloc(json_count(body) + 1, sizeof(*list));
	if (!list) {
		q->out.failed = true;
		return;
	}
	json_iter_init(&it, body);
	while (json_iter_next(&it, &list[n].id, &list[n].entry))
		n++;
	while (n-- > 0 && (int64_t)q->count < q->limit) {
		cleanup_free char *id =
			json_string_dup(list[n].id, PROGRESS_ID_MAX);

		if (!id || !json_is(list[n].entry, JSON_OBJECT))
			continue;
		buf_puts(&q->out, q->count++ ? "," : "");
		put_entry(&q->out, id, list[n].entry);
	}
	free(list);
}

static void on_history(void *user, const struct comfy_result *r)
{
	struct command *c = user;
	struct query *q = c->job;

	c->call = NULL;
	if (r->outcome != COMFY_OK) {
		query_fail(c, &r->error);
		return;
	}
	put_entries(q, r->body);
	buf_puts(&q->out, "]}");
	query_answer(c, &q->out);
}

static void put_queued(struct query *q, const struct comfy_queue_item *item,
                       const char *status, size_t position)
{
	if ((int64_t)q->count >= q->limit)
		return;
	buf_puts(&q->out, q->count++ ? "," : "");
	put_item(&q->out, item, status, position);
}

static void on_history_queue(void *user, const struct comfy_queue *queue)
{
	struct command *c = user;
	struct query *q = c->job;
	struct error err = ERROR_NULL;
	struct comfy_api *api;

	c->call = NULL;
	if (queue->r.outcome != COMFY_OK) {
		query_fail(c, &queue->r.error);
		return;
	}
	buf_puts(&q->out, "{\"prompts\":[");
	for (size_t i = 0; i < queue->running_count; i++)
		put_queued(q, &queue->running[i], "executing", 0);
	for (size_t i = 0; i < queue->pending_count; i++)
		put_queued(q, &queue->pending[i], "queued",
		           queue->running_count + i);
	api = command_api(c, &err);
	c->call = api ? comfy_list_history(api, (unsigned)q->limit, on_history,
	                                   c, &err)
	              : NULL;
	if (!c->call)
		query_fail(c, &err);
}

static int history_alone(struct command *c, struct error *err)
{
	struct comfy_api *api;

	if (command_check_sight(c, NULL, err))
		return -1;
	api = command_api(c, err);
	c->call = api ? comfy_get_queue(api, on_history_queue, c, err) : NULL;
	return c->call ? 0 : -1;
}

static int history_start(struct command *c, struct error *err)
{
	struct query *q = query_new(c, err);
	cleanup_buf struct buf b = BUF_INIT(64);

	if (!q || command_int(c, "limit", REQUEST_HISTORY_MAX, REQUEST_HISTORY,
	                      &q->limit, err))
		return -1;
	if (q->limit == 0)
		return error_set(err, ERR_INVALID,
		                 "history: limit must be from 1 to %d",
		                 REQUEST_HISTORY_MAX);
	if (wants_comfyui(c))
		return history_alone(c, err);
	buf_printf(&b, "{\"limit\":%" PRId64 "}", q->limit);
	return command_ask(c, OP_HISTORY, span_make(b.data, b.len),
	                   history_alone, err);
}

const struct command_op command_history = {
	.name = "history",
	.start = history_start,
	.drop = query_drop,
};

/* --- comfy --------------------------------------------------------------- */

/* What tells of the server, not of anybody's prompts. */
static bool comfy_path_allowed(const char *path)
{
	static const char *const whole[] = {"/system_stats", "/features",
	                                    "/embeddings", "/models",
	                                    "/object_info"};
	static const char *const below[] = {"/object_info/", "/models/"};

	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		if (strcmp(path, whole[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
		size_t n = strlen(below[i]);

		if (strncmp(path, below[i], n) == 0)
			return path[n] && !strstr(path, "..") &&
			       strpbrk(path, "?#\\ \r\n\t") == NULL;
	}
	return false;
}

static void on_comfy(void *user, const struct comfy_result *r)
{
	struct command *c = user;
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);

	c->call = NULL;
	if (r->outcome != COMFY_OK) {
		query_fail(c, &r->error);
		return;
	}
	(void)json_compact(&b, r->body);
	query_answer(c, &b);
}

static int comfy_start(struct command *c, struct error *err)
{
	cleanup_free char *path = NULL;
	struct comfy_api *api;

	if (command_need_string(c, "path", COMFY_PATH_MAX, &path, err))
		return -1;
	if (!comfy_path_allowed(path))
		return error_set(err, ERR_DENIED,
		                 "comfy: %s is not among the paths that may be "
		                 "asked for",
		                 log_safe(path, strlen(path)));
	api = command_api(c, err);
	c->call = api ? comfy_get_json(api, path, on_comfy, c, err) : NULL;
	return c->call ? 0 : -1;
}

const struct command_op command_comfy = {
	.name = "comfy",
	.start = comfy_start,
};
