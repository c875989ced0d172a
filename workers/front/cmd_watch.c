/*
 * cmd_watch.c - `comfymux watch [PROMPT_ID]`: follow one prompt to its end, or
 * all of one's own until Ctrl-C.
 */
#include <ev.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/list.h"
#include "common/progress_log.h"
#include "common/version.h"
#include "ipc/client.h"
#include "workers/front/ask.h"
#include "workers/front/out.h"
#include "workers/front/result.h"
#include "workers/front/session.h"

#define WATCH_PROMPTS_MAX 1000 /* remembered at once; then the oldest go */
#define WATCH_OUT_BYTES   (4u << 20)
#define SHORT_ID          8 /* digits of the id before each line */
#define FINISH_MS         5000

/* One prompt among all: what was told of it. */
struct seen {
	struct list node;
	struct progress *progress;
	struct progress_log log;
	struct watch *watch; /* for the line callback */
};

struct watch {
	const struct cli *cli;
	struct ev_loop *loop;
	struct client *client;
	struct out out;
	ev_signal interrupt, terminate;
	struct list seen; /* newest first */
	size_t seen_count;
	int status;
	bool done;
};

static void finish(struct watch *w, int status)
{
	if (w->done)
		return;
	w->status = status;
	w->done = true;
	ev_break(w->loop, EVBREAK_ALL);
}

static void seen_free(struct watch *w, struct seen *s)
{
	list_del(&s->node);
	w->seen_count--;
	s->progress = progress_free(s->progress);
	progress_log_deinit(&s->log);
	free(s);
}

static struct seen *seen_get(struct watch *w, struct json prompt_id)
{
	cleanup_free char *id = json_string_dup(prompt_id, PROGRESS_ID_MAX);
	struct list *it;
	struct seen *s;

	if (!id)
		return NULL;
	list_for_each (it, &w->seen) {
		s = list_entry(it, struct seen, node);
		if (strcmp(progress_get(s->progress)->prompt_id, id) == 0)
			return s;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->progress = progress_new(id);
	if (!s->progress) {
		free(s);
		return NULL;
	}
	s->watch = w;
	progress_log_init(&s->log);
	if (w->seen_count == WATCH_PROMPTS_MAX)
		seen_free(w, list_entry(w->seen.prev, struct seen, node));
	list_prepend(&w->seen, &s->node);
	w->seen_count++;
	return s;
}

static void put_line(struct watch *w, struct buf *line)
{
	if (buf_putc(line, '\n') == 0)
		(void)out_write(&w->out, line->data, line->len);
}

static bool on_line(void *user, const char *text)
{
	struct seen *s = user;
	cleanup_buf struct buf line = BUF_INIT(WATCH_OUT_BYTES);

	(void)buf_printf(&line, "%.*s  %s", SHORT_ID,
	                 progress_get(s->progress)->prompt_id, text);
	put_line(s->watch, &line);
	return true;
}

static void on_event(void *user, const struct incoming *ev)
{
	struct watch *w = user;
	struct seen *s;

	if (!json_is(ev->progress, JSON_OBJECT))
		return;
	if (w->cli->json) {
		cleanup_buf struct buf line = BUF_INIT(WATCH_OUT_BYTES);

		(void)json_compact(&line, ev->progress);
		put_line(w, &line);
		return;
	}
	s = seen_get(w, ev->prompt_id);
	if (!s)
		return;
	(void)progress_fold_snapshot(s->progress, ev->progress);
	if (progress_log_update(&s->log, progress_get(s->progress), on_line,
	                        s) < 0)
		(void)fprintf(stderr, "comfymux: out of memory\n");
}

static void on_ready(void *user, const struct client_server *server)
{
}

static void on_close(void *user, const struct error *err)
{
	struct watch *w = user;

	(void)cli_fail(err);
	finish(w, EXIT_UNREACHABLE);
}

static void on_subscribed(void *user, const struct incoming *in,
                          const struct error *err)
{
	if (err)
		finish(user, cli_fail(err));
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
	finish(w->data, EXIT_COMPLETED);
}

static int watch_start(struct watch *w, struct error *err)
{
	static const struct client_handlers handlers = {
		.on_event = on_event,
		.on_ready = on_ready,
		.on_close = on_close,
	};
	int fd = client_connect(&w->cli->cfg, NULL, err);
	char name[64];

	if (fd < 0)
		return -1;
	(void)snprintf(name, sizeof(name), "comfymux watch/%s",
	               comfymux_version);
	w->client = client_new(w->loop, fd, name, &handlers, w, err);
	if (!w->client)
		return -1;
	return client_request(w->client, OP_SUBSCRIBE, SPAN("{}"), 0,
	                      on_subscribed, w, err) == 0
	               ? -1
	               : 0;
}

static int watch_all(const struct cli *cli)
{
	struct watch w = {.cli = cli, .loop = ev_default_loop(0)};
	struct error err = ERROR_NULL;
	struct list *it, *next;

	if (!w.loop) {
		(void)error_set(&err, ERR_SYSTEM, "no event loop");
		return cli_fail(&err);
	}
	list_init(&w.seen);
	out_init(&w.out, w.loop, STDOUT_FILENO, WATCH_OUT_BYTES);
	ev_signal_init(&w.interrupt, on_signal, SIGINT);
	ev_signal_init(&w.terminate, on_signal, SIGTERM);
	w.interrupt.data = w.terminate.data = &w;
	ev_signal_start(w.loop, &w.interrupt);
	ev_signal_start(w.loop, &w.terminate);
	if (watch_start(&w, &err) < 0)
		finish(&w, cli_fail(&err));
	while (!w.done)
		(void)ev_run(w.loop, 0);
	w.client = client_free(w.client);
	list_for_each_safe (it, next, &w.seen)
		seen_free(&w, list_entry(it, struct seen, node));
	ev_signal_stop(w.loop, &w.interrupt);
	ev_signal_stop(w.loop, &w.terminate);
	out_finish(&w.out, FINISH_MS);
	out_deinit(&w.out);
	return w.status;
}

static int watch_one(const struct cli *cli, const char *prompt_id)
{
	cleanup_buf struct buf request = BUF_INIT(4096);
	struct session_job job = {.label = prompt_id,
	                          .interrupted = EXIT_COMPLETED,
	                          .print = result_print};
	struct error err = ERROR_NULL;

	(void)buf_puts(&request, "{\"op\":\"watch\",\"params\":{");
	ask_param(&request, "prompt_id", prompt_id);
	if (cli->timeout_ms > 0)
		(void)buf_printf(&request, ",\"timeout_ms\":%" PRId64,
		                 cli->timeout_ms);
	(void)buf_puts(&request, "}}");
	if (!buf_ok(&request)) {
		(void)error_set(&err, ERR_INVALID,
		                "that is too long for a prompt id");
		return cli_fail(&err);
	}
	job.request = span_make(request.data, request.len);
	return session_run(cli, &job);
}

int cmd_watch(struct cli *cli)
{
	return cli->argc > 0 ? watch_one(cli, cli->argv[0]) : watch_all(cli);
}
