/*
 * show.c - see show.h.
 */
#include "workers/front/show.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define TICK_S          1.0
#define FINISH_MS       5000 /* for a slow reader of the last lines */
#define CLASS_BYTES_MAX 256

static void paint(struct show *s)
{
	struct bar_row row = {.label = s->label,
	                      .p = progress_get(s->progress),
	                      .node_class = s->node_class ? s->node_class : "",
	                      .total_nodes = s->total_nodes,
	                      .started_ms = s->started_ms,
	                      .executing_ms = s->executing_ms,
	                      .now_ms = clock_ms()};

	bars_paint(&s->bars, &row, 1);
}

static void on_resized(struct ev_loop *loop, ev_signal *w, int revents)
{
	struct show *s = container_of(w, struct show, resized);

	if (s->progress)
		paint(s);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct show *s = container_of(w, struct show, tick);

	if (s->progress)
		paint(s);
}

void show_init(struct show *s, struct ev_loop *loop, const struct cli *cli,
               const char *label)
{
	*s = (struct show){.loop = loop,
	                   .cli = cli,
	                   .label = label,
	                   .started_ms = clock_ms()};
	out_init(&s->out, loop, STDOUT_FILENO, SHOW_QUEUE_BYTES);
	progress_log_init(&s->log);
	s->use_bars = !cli->json && isatty(STDOUT_FILENO);
	ev_signal_init(&s->resized, on_resized, SIGWINCH);
	ev_timer_init(&s->tick, on_tick, TICK_S, TICK_S);
	if (s->use_bars) {
		bars_init(&s->bars, &s->out, STDOUT_FILENO);
		ev_signal_start(loop, &s->resized);
		ev_timer_start(loop, &s->tick);
	}
}

void show_deinit(struct show *s)
{
	if (!s->loop)
		return;
	ev_signal_stop(s->loop, &s->resized);
	ev_timer_stop(s->loop, &s->tick);
	out_deinit(&s->out);
	progress_log_deinit(&s->log);
	s->progress = progress_free(s->progress);
	free(s->node_class);
	*s = (struct show){0};
}

static void put_line(struct show *s, const char *text, size_t len)
{
	cleanup_buf struct buf line = BUF_INIT(SHOW_QUEUE_BYTES);

	(void)buf_append(&line, text, len);
	if (buf_putc(&line, '\n') < 0)
		return;
	/* A reader that is a whole queue behind loses progress lines; the
	 * result is printed after out_finish() and cannot be lost. */
	(void)out_write(&s->out, line.data, line.len);
}

static bool on_log_line(void *user, const char *line)
{
	const char *safe = line;

	put_line(user, safe, strlen(safe));
	return true;
}

static void update_json(struct show *s, struct json progress)
{
	cleanup_buf struct buf text = BUF_INIT(SHOW_QUEUE_BYTES);

	if (json_compact(&text, progress) == 0)
		put_line(s, text.data, text.len);
}

/* The fold wants an id from the start; the first line has it. */
static bool ensure_progress(struct show *s, struct json progress)
{
	char *id;

	if (s->progress)
		return true;
	id = json_string_dup(json_get(progress, "prompt_id"), PROGRESS_ID_MAX);
	if (id)
		s->progress = progress_new(id);
	free(id);
	return s->progress != NULL;
}

static void take_extras(struct show *s, struct json line)
{
	struct json name = json_get(line, "class");
	uint64_t total;

	if (json_is(name, JSON_STRING)) {
		free(s->node_class);
		s->node_class = json_string_dup(name, CLASS_BYTES_MAX);
	}
	if (json_uint64(json_get(line, "total_nodes"), &total))
		s->total_nodes = (size_t)total;
}

static void fold(struct show *s, struct json progress)
{
	if (!ensure_progress(s, progress))
		return;
	(void)progress_fold_snapshot(s->progress, progress);
	if (s->executing_ms == 0 &&
	    progress_get(s->progress)->status == CMX_EXECUTING)
		s->executing_ms = clock_ms();
	if (s->use_bars)
		paint(s);
	else if (progress_log_update(&s->log, progress_get(s->progress),
	                             on_log_line, s) < 0)
		log_error("show", "out of memory for a line of progress");
}

void show_update(struct show *s, struct json line)
{
	struct json progress = json_get(line, "progress");

	if (!json_is(progress, JSON_OBJECT))
		return;
	if (s->cli->json) {
		update_json(s, progress);
		return;
	}
	take_extras(s, line);
	fold(s, progress);
}

void show_result(struct show *s, struct json result)
{
	/* With --json the result is a line of its own. */
	if (!s->cli->json && json_is(result, JSON_OBJECT))
		fold(s, result);
}

void show_note(struct show *s, struct span text)
{
	if (s->use_bars)
		bars_clear(&s->bars);
	(void)fprintf(stderr, "comfymux: %.*s\n", (int)text.n, text.p);
	if (s->use_bars && s->progress)
		paint(s);
}

void show_finish(struct show *s)
{
	if (s->use_bars) {
		ev_timer_stop(s->loop, &s->tick);
		if (s->progress)
			paint(s);
		bars_done(&s->bars);
	}
	out_finish(&s->out, FINISH_MS);
}
