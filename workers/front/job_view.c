/*
 * job_view.c - see job_view.h.
 */
#include "workers/front/job_view.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"

#define TICK_S          1.0
#define QUEUE_BYTES     (64u << 20) /* waiting for a slow reader of stdout */
#define FINISH_MS       30000       /* for a slow reader of the last lines */
#define CLASS_BYTES_MAX 256
#define LABELS_BYTES    (64u << 10)
#define LINE_BYTES      (32u << 20)
#define RESULT_BYTES    (32u << 20) /* of one, files included */

/* --- totals -------------------------------------------------------------- */

static double item_fraction(const struct job_view_item *it)
{
	return it->progress ? bar_fraction(progress_get(it->progress),
	                                   it->total_nodes)
	                    : 0;
}

/* Of the whole; a workflow that is sent again doesn't take it back. */
static double view_fraction(struct job_view *v)
{
	double done = (double)(v->completed + v->failed);

	if (v->fraction_told)
		return v->fraction;
	for (size_t i = 0; i < v->count; i++)
		done += item_fraction(&v->items[i]);
	done /= (double)v->count;
	if (done > v->fraction)
		v->fraction = done < 1 ? done : 1;
	return v->fraction;
}

struct totals {
	double fraction, per_minute, left_s; /* left_s < 0: not known */
	size_t waiting;
};

static struct totals view_totals(struct job_view *v)
{
	double minutes = (double)(clock_ms() - v->started_ms) / 60000;
	struct totals t = {.fraction = view_fraction(v), .left_s = -1};

	t.waiting = v->count - v->completed - v->failed - v->running;
	if (minutes > 0)
		t.per_minute = (double)(v->completed + v->failed) / minutes;
	if (t.fraction > 0.01)
		t.left_s = minutes * 60 / t.fraction * (1 - t.fraction);
	return t;
}

/* --- on a terminal ------------------------------------------------------- */

static void totals_text(struct job_view *v, char *text, size_t size)
{
	struct totals t = view_totals(v);
	int n = snprintf(text, size,
	                 "%zu of %zu %ss, %zu failed, %zu running  %3d%%  "
	                 "%.1f/min",
	                 v->completed + v->failed, v->count, v->noun, v->failed,
	                 v->running, (int)(t.fraction * 100), t.per_minute);

	if (n > 0 && (size_t)n < size && t.left_s >= 0)
		(void)snprintf(text + n, size - (size_t)n, "  left %d:%02d",
		               (int)t.left_s / 60, (int)t.left_s % 60);
}

static void view_paint(struct job_view *v)
{
	struct bar_row rows[JOB_VIEW_ROWS + 1];
	cleanup_buf struct buf labels = BUF_INIT(LABELS_BYTES);
	size_t starts[JOB_VIEW_ROWS], n = 0;
	char totals[160];

	for (size_t i = 0; i < v->count && n < JOB_VIEW_ROWS; i++) {
		const struct job_view_item *it = &v->items[i];

		if (!it->progress)
			continue;
		rows[n] = (struct bar_row){
			.p = progress_get(it->progress),
			.node_class = it->node_class ? it->node_class : "",
			.total_nodes = it->total_nodes,
			.started_ms = it->started_ms,
			.executing_ms = it->executing_ms,
			.now_ms = clock_ms(),
		};
		starts[n++] = labels.len;
		(void)buf_puts(&labels, v->label(v->user, i));
		(void)buf_putc(&labels, '\0');
	}
	if (!buf_ok(&labels))
		return;
	for (size_t i = 0; i < n; i++)
		rows[i].label = labels.data + starts[i];
	totals_text(v, totals, sizeof(totals));
	rows[n] = (struct bar_row){.label = totals, .plain = true};
	bars_paint(&v->bars, rows, n + 1);
}

/* --- lines --------------------------------------------------------------- */

static void put_line(struct job_view *v, const struct buf *line)
{
	if (!buf_ok(line) || out_write_line(&v->out, line->data, line->len))
		log_error("job",
		          "a line of output (%zu bytes) is left out: "
		          "stdout takes nothing",
		          line->len);
}

static void put_running(const struct job_view *v, struct buf *b)
{
	bool first = true;

	for (size_t i = 0; i < v->count; i++) {
		const struct job_view_item *it = &v->items[i];
		const struct cmx_progress *p;
		const char *label;

		if (!it->progress)
			continue;
		p = progress_get(it->progress);
		label = v->label(v->user, i);
		(void)buf_printf(
			b, "%s{\"index\":%zu,\"label\":", first ? "" : ",", i);
		(void)buf_json_string(b, label, strlen(label));
		(void)buf_json_key(b, "prompt_id");
		(void)buf_json_string(b, p->prompt_id, strlen(p->prompt_id));
		(void)buf_printf(b, ",\"status\":\"%s\",\"fraction\":%.4f}",
		                 cmx_status_name(p->status), item_fraction(it));
		first = false;
	}
}

static void put_progress(struct job_view *v)
{
	cleanup_buf struct buf b = BUF_INIT(LINE_BYTES);
	struct totals t = view_totals(v);

	(void)buf_printf(&b,
	                 "{\"event\":\"progress\",\"total\":%zu,\"completed\":"
	                 "%zu,\"failed\":%zu,\"waiting\":%zu,\"fraction\":%.4f,"
	                 "\"per_minute\":%.2f",
	                 v->count, v->completed, v->failed, t.waiting,
	                 t.fraction, t.per_minute);
	if (t.left_s >= 0)
		(void)buf_printf(&b, ",\"left_s\":%.0f", t.left_s);
	(void)buf_puts(&b, ",\"running\":[");
	put_running(v, &b);
	(void)buf_puts(&b, "]}");
	put_line(v, &b);
}

static void put_result_json(struct job_view *v, size_t index)
{
	cleanup_buf struct buf b = BUF_INIT(LINE_BYTES);
	const struct job_view_item *it = &v->items[index];
	const char *label = v->label(v->user, index);

	(void)buf_puts(&b, "{\"event\":\"result\",\"label\":");
	(void)buf_json_string(&b, label, strlen(label));
	(void)buf_putc(&b, ',');
	(void)buf_append(&b, it->result + 1, it->result_len - 1);
	put_line(v, &b);
}

/* What became of one, for a person: "a.json: completed in 1.2 s (prompt ...)"
 * and its files. */
static void result_text(struct json r, const char *label, struct buf *b)
{
	cleanup_free char *id = json_string_dup(json_get(r, "prompt_id"), 256);
	cleanup_free char *handed =
		json_string_dup(json_get(r, "handed"), 4096);
	struct json error = json_get(r, "error"), file;
	cleanup_free char *type = json_string_dup(json_get(error, "type"), 256);
	cleanup_free char *text =
		json_string_dup(json_get(error, "message"), 65536);
	struct json_iter files;
	int64_t ms = 0;

	(void)json_int64(json_get(r, "elapsed_ms"), &ms);
	(void)buf_puts(b, label);
	if (json_string_eq(json_get(r, "status"), "completed"))
		(void)buf_printf(b, ": completed in %.1f s", (double)ms / 1000);
	else
		(void)buf_printf(b, ": %s: %s", type ? type : "failed",
		                 text ? log_safe(text, strlen(text)) : "");
	(void)buf_printf(b, "%s%s%s\n", id ? " (prompt " : "", id ? id : "",
	                 id ? ")" : "");
	if (handed)
		(void)buf_printf(b, "  took %s\n",
		                 log_safe(handed, strlen(handed)));
	cli_outputs_text(json_get(r, "outputs"), b);
	json_iter_init(&files, json_get(r, "files"));
	while (json_iter_next(&files, NULL, &file)) {
		cleanup_free char *path =
			json_string_dup(json_get(file, "path"), 8192);
		cleanup_free char *why = json_string_dup(
			json_get(json_get(file, "error"), "message"), 4096);

		if (path)
			(void)buf_printf(b, "  saved %s\n",
			                 log_safe(path, strlen(path)));
		else if (why)
			(void)buf_printf(b, "  not saved: %s\n",
			                 log_safe(why, strlen(why)));
	}
}

/* Without the newline at its end, which out_write_line() adds. */
static void put_result_text(struct job_view *v, size_t index)
{
	cleanup_buf struct buf b = BUF_INIT(LINE_BYTES);
	const struct job_view_item *it = &v->items[index];
	struct json r;

	if (json_parse(&r, it->result, it->result_len, JSON_NONFINITE, NULL))
		return;
	(void)buf_printf(&b, "[%zu/%zu] ", index + 1, v->count);
	result_text(r, v->label(v->user, index), &b);
	if (b.len > 0 && b.data[b.len - 1] == '\n')
		b.len--;
	put_line(v, &b);
}

/* Those whose predecessors are all told. */
static void tell_results(struct job_view *v)
{
	while (v->told < v->count && v->items[v->told].result) {
		struct job_view_item *it = &v->items[v->told];

		if (v->use_bars)
			bars_clear(&v->bars);
		if (v->cli->json)
			put_result_json(v, v->told);
		else
			put_result_text(v, v->told);
		it->told = true;
		v->told++;
	}
}

/* --- what comes ---------------------------------------------------------- */

static void view_changed(struct job_view *v)
{
	if (v->use_bars)
		view_paint(v);
	else
		v->dirty = true;
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct job_view *v = container_of(w, struct job_view, tick);

	if (v->use_bars)
		view_paint(v);
	else if (v->cli->json && v->dirty)
		put_progress(v);
	v->dirty = false;
}

static void on_resized(struct ev_loop *loop, ev_signal *w, int revents)
{
	view_paint(container_of(w, struct job_view, resized));
}

int job_view_init(struct job_view *v, struct ev_loop *loop,
                  const struct cli *cli, const char *noun, size_t count,
                  const char *(*label)(void *user, size_t index), void *user,
                  struct error *err)
{
	*v = (struct job_view){.loop = loop,
	                       .cli = cli,
	                       .noun = noun,
	                       .count = count,
	                       .label = label,
	                       .user = user,
	                       .started_ms = clock_ms()};
	out_init(&v->out, loop, STDOUT_FILENO, QUEUE_BYTES);
	ev_timer_init(&v->tick, on_tick, TICK_S, TICK_S);
	ev_signal_init(&v->resized, on_resized, SIGWINCH);
	v->items = calloc(count, sizeof(*v->items));
	if (!v->items)
		return error_set_nomem(err, "the job");
	v->use_bars = !cli->json && isatty(STDOUT_FILENO);
	if (v->use_bars) {
		bars_init(&v->bars, &v->out, STDOUT_FILENO);
		ev_signal_start(loop, &v->resized);
	}
	ev_timer_start(loop, &v->tick);
	return 0;
}

static void item_stop(struct job_view_item *it)
{
	it->progress = progress_free(it->progress);
	free(it->node_class);
	it->node_class = NULL;
}

void job_view_deinit(struct job_view *v)
{
	if (!v->loop)
		return;
	ev_timer_stop(v->loop, &v->tick);
	ev_signal_stop(v->loop, &v->resized);
	out_deinit(&v->out);
	for (size_t i = 0; v->items && i < v->count; i++) {
		item_stop(&v->items[i]);
		free(v->items[i].result);
	}
	free(v->items);
	*v = (struct job_view){0};
}

void job_view_started(struct job_view *v, size_t index)
{
	v->items[index].started_ms = clock_ms();
	v->running++;
	view_changed(v);
}

void job_view_news(struct job_view *v, size_t index, struct json line)
{
	struct job_view_item *it = &v->items[index];
	struct json p = json_get(line, "progress");
	struct json class = json_get(line, "class");
	cleanup_free char *id =
		json_string_dup(json_get(p, "prompt_id"), PROGRESS_ID_MAX);
	uint64_t total;

	if (!id || it->result)
		return;
	/* Sent again under another id, or an old ComfyUI's own. */
	if (it->progress &&
	    strcmp(progress_get(it->progress)->prompt_id, id) != 0) {
		item_stop(it);
		it->executing_ms = 0;
	}
	if (!it->progress)
		it->progress = progress_new(id);
	if (!it->progress)
		return;
	(void)progress_fold_snapshot(it->progress, p);
	if (json_is(class, JSON_STRING)) {
		free(it->node_class);
		it->node_class = json_string_dup(class, CLASS_BYTES_MAX);
	}
	if (json_uint64(json_get(line, "total_nodes"), &total))
		it->total_nodes = (size_t)total;
	if (it->executing_ms == 0 &&
	    progress_get(it->progress)->status == CMX_EXECUTING)
		it->executing_ms = clock_ms();
	view_changed(v);
}

void job_view_fraction(struct job_view *v, double fraction)
{
	v->fraction_told = true;
	if (!(fraction > v->fraction))
		return;
	v->fraction = fraction < 1 ? fraction : 1;
	view_changed(v);
}

void job_view_note(struct job_view *v, const char *fmt, ...)
{
	va_list ap;

	if (v->use_bars)
		bars_clear(&v->bars);
	(void)fputs("comfymux: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	if (v->use_bars)
		view_paint(v);
}

void job_view_ended(struct job_view *v, size_t index, struct span result)
{
	struct job_view_item *it = &v->items[index];
	struct json r;

	if (it->result)
		return;
	if (it->started_ms != 0)
		v->running--;
	item_stop(it);
	it->ok = json_parse(&r, result.p, result.n, JSON_NONFINITE, NULL) ==
	                 JSON_OK &&
	         json_string_eq(json_get(r, "status"), "completed");
	*(it->ok ? &v->completed : &v->failed) += 1;
	it->result = strndup(result.p, result.n);
	it->result_len = it->result ? result.n : 0;
	tell_results(v);
	view_changed(v);
}

void job_view_fetched(struct job_view *v, size_t index, char **resultp,
                      struct span files)
{
	cleanup_buf struct buf r = BUF_INIT(RESULT_BYTES);
	char *result = *resultp;

	(void)buf_append(&r, result, strlen(result) - 1);
	(void)buf_puts(&r, ",\"files\":[");
	(void)buf_append(&r, files.p, files.n);
	(void)buf_puts(&r, "]}");
	job_view_ended(v, index,
	               buf_ok(&r) ? span_make(r.data, r.len) : SPAN(result));
	free(result);
	*resultp = NULL;
}

void job_view_finish(struct job_view *v)
{
	cleanup_buf struct buf b = BUF_INIT(1024);
	int64_t ms = clock_ms() - v->started_ms;

	ev_timer_stop(v->loop, &v->tick);
	if (v->use_bars)
		bars_clear(&v->bars);
	if (v->cli->json)
		(void)buf_printf(&b,
		                 "{\"event\":\"done\",\"total\":%zu,"
		                 "\"completed\":%zu,\"failed\":%zu,"
		                 "\"elapsed_ms\":%" PRId64 "}",
		                 v->count, v->completed, v->failed, ms);
	else
		(void)buf_printf(&b, "%zu of %zu %ss completed in %.1f s",
		                 v->completed, v->count, v->noun,
		                 (double)ms / 1000);
	put_line(v, &b);
	out_finish(&v->out, FINISH_MS);
}

/* --- the exit status ----------------------------------------------------- */

static int status_of(const struct job_view_item *it)
{
	cleanup_free char *type = NULL;
	struct json r;

	if (it->ok)
		return EXIT_COMPLETED;
	if (!it->result ||
	    json_parse(&r, it->result, it->result_len, JSON_NONFINITE, NULL))
		return EXIT_FAILED;
	type = json_string_dup(json_get(json_get(r, "error"), "type"), 256);
	return type ? cli_exit_of_type(type) : EXIT_FAILED;
}

static bool files_missing(const struct job_view *v)
{
	for (size_t i = 0; i < v->count; i++) {
		const struct job_view_item *it = &v->items[i];
		struct json_iter files;
		struct json r, file;

		if (!it->result || json_parse(&r, it->result, it->result_len,
		                              JSON_NONFINITE, NULL))
			continue;
		json_iter_init(&files, json_get(r, "files"));
		while (json_iter_next(&files, NULL, &file)) {
			if (json_is(json_get(file, "error"), JSON_OBJECT))
				return true;
		}
	}
	return false;
}

int job_view_status(const struct job_view *v)
{
	int status = -1;

	if (v->completed == v->count)
		return files_missing(v) ? EXIT_IN_PART : EXIT_COMPLETED;
	if (v->completed > 0)
		return EXIT_IN_PART;
	for (size_t i = 0; i < v->count; i++) {
		int s = status_of(&v->items[i]);

		/* What was skipped says nothing. */
		if (s == EXIT_CANCELLED)
			continue;
		if (status >= 0 && s != status)
			return EXIT_FAILED;
		status = s;
	}
	return status < 0 ? EXIT_CANCELLED : status;
}
