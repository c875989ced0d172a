/*
 * cmd_jobs.c - detached jobs: handing one over to the supervisor (batch and
 * chain with --detach), `jobs`, `attach JOB`, and `cancel JOB`.
 *
 * A job is sent piece by piece over one connection; what is not started when
 * that ends is dropped, so a command that dies leaves nothing half.
 */
#include "workers/front/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/workflow.h"
#include "workers/front/ask.h"
#include "workers/front/job.h"
#include "workers/front/job_fetch.h"
#include "workers/front/talk.h"

#define OPTIONS_BYTES 1024
#define REPLY_BYTES   LINE_MAX_BYTES
#define LOOK_S        0.2 /* between two looks at a job that works, at least */
#define RETRY_S       0.5 /* for a supervisor that is restarting */

/* --- handing over --------------------------------------------------------- */

static void put_options(const struct cli *cli, bool chain, struct buf *b)
{
	(void)buf_puts(b, "{");
	if (cli->concurrency > 0)
		(void)buf_printf(b, "\"concurrency\":%u,", cli->concurrency);
	if (cli->timeout_ms > 0)
		(void)buf_printf(b, "\"timeout_ms\":%" PRId64 ",",
		                 cli->timeout_ms);
	(void)buf_printf(b, "\"stop_on_error\":%s}",
	                 (chain ? !cli->keep_going : cli->stop_on_error)
	                         ? "true"
	                         : "false");
}

static int jobs_create(struct talk *t, const struct cli *cli, const char *kind,
                       size_t total, char **idp, struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(OPTIONS_BYTES);
	cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
	struct json result;

	(void)buf_printf(&params,
	                 "{\"kind\":\"%s\",\"total\":%zu,\"options\":", kind,
	                 total);
	put_options(cli, strcmp(kind, "chain") == 0, &params);
	(void)buf_putc(&params, '}');
	if (talk_ask(t, OP_JOB_CREATE, span_make(params.data, params.len),
	             &reply, &result, err))
		return -1;
	*idp = json_string_dup(json_get(result, "job"), 64);
	return *idp ? 0
	            : error_set(err, ERR_PROTOCOL,
	                        "the supervisor named no job");
}

static int jobs_add(struct talk *t, const char *job, size_t index,
                    const char *label, struct span item, struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(LINE_MAX_BYTES);
	cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
	struct json result;

	(void)buf_printf(&params,
	                 "{\"job\":\"%s\",\"index\":%zu,\"label\":", job,
	                 index);
	(void)buf_json_string(&params, label, strlen(label));
	(void)buf_puts(&params, ",\"item\":");
	(void)buf_append(&params, item.p, item.n);
	(void)buf_putc(&params, '}');
	if (!buf_ok(&params))
		return error_set(err, ERR_LIMIT, "%s is too large", label);
	return talk_ask(t, OP_JOB_ADD, span_make(params.data, params.len),
	                &reply, &result, err);
}

static int jobs_start(struct talk *t, const char *job, struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(OPTIONS_BYTES);
	cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
	struct json result;

	(void)buf_printf(&params, "{\"job\":\"%s\"}", job);
	return talk_ask(t, OP_JOB_START, span_make(params.data, params.len),
	                &reply, &result, err);
}

static int say_detached(const struct cli *cli, const char *job, size_t total)
{
	if (cli->json)
		return cli_printf("{\"job\":\"%s\",\"total\":%zu}\n", job,
		                  total);
	return cli_printf("%s\n", job);
}

/* One that can't be read fails when its turn comes, as it would with us there;
 * but that is said now, too. */
static int detach_item(struct talk *t, struct batch_source *source,
                       const char *job, size_t index, size_t *unreadp,
                       struct error *err)
{
	cleanup_buf struct buf text = BUF_INIT(WORKFLOW_SIZE_MAX);
	cleanup_free char *id = NULL;
	const char *label = batch_source_label(source, index);

	if (batch_source_read(source, index, &text, &id, err)) {
		(void)fprintf(stderr, "comfymux: %s will fail: %s\n", label,
		              err->text);
		++*unreadp;
		buf_reset(&text);
		(void)buf_putc(&text, '{');
		cli_put_unreadable(&text, err);
		(void)buf_putc(&text, '}');
	}
	return jobs_add(t, job, index, label, span_make(text.data, text.len),
	                err);
}

int jobs_detach_batch(const struct cli *cli, struct batch_source *source)
{
	struct talk *t;
	struct error err = ERROR_NULL;
	cleanup_free char *job = NULL;
	size_t total = batch_source_count(source), unread = 0;
	int r;

	t = talk_open(cli, &err);
	r = t ? jobs_create(t, cli, "batch", total, &job, &err) : -1;
	for (size_t i = 0; r == 0 && i < total; i++)
		r = detach_item(t, source, job, i, &unread, &err);
	if (r == 0 && unread == total)
		r = error_set(&err, ERR_INVALID,
		              "none of the workflows can be read");
	if (r == 0)
		r = jobs_start(t, job, &err);
	(void)talk_close(t);
	if (r)
		return cli_fail(&err);
	return say_detached(cli, job, total);
}

int jobs_detach_chain(const struct cli *cli, struct json steps)
{
	struct talk *t;
	struct error err = ERROR_NULL;
	cleanup_free char *job = NULL;
	size_t total = json_count(steps), i = 0;
	struct json_iter it;
	struct json step;
	int r;

	t = talk_open(cli, &err);
	r = t ? jobs_create(t, cli, "chain", total, &job, &err) : -1;
	json_iter_init(&it, steps);
	while (r == 0 && json_iter_next(&it, NULL, &step)) {
		char label[32];

		(void)snprintf(label, sizeof(label), "step %zu", i);
		r = jobs_add(t, job, i++, label, step.text, &err);
	}
	if (r == 0)
		r = jobs_start(t, job, &err);
	(void)talk_close(t);
	if (r)
		return cli_fail(&err);
	return say_detached(cli, job, total);
}

/* --- jobs ----------------------------------------------------------------- */

static int print_jobs(const struct cli *cli, struct json result)
{
	struct json_iter it;
	struct json j;
	int r = cli_printf("%-8s %-6s %-11s %7s %7s %7s %4s\n", "JOB", "KIND",
	                   "STATE", "TOTAL", "DONE", "FAILED", "%");

	json_iter_init(&it, json_get(result, "jobs"));
	while (r == 0 && json_iter_next(&it, NULL, &j)) {
		struct span job = json_raw_string(json_get(j, "job"));
		struct span kind = json_raw_string(json_get(j, "kind"));
		struct span state = json_raw_string(json_get(j, "state"));
		int64_t total = 0, done = 0, failed = 0;
		double fraction = 0;

		(void)json_double(json_get(j, "fraction"), &fraction);
		(void)json_int64(json_get(j, "total"), &total);
		(void)json_int64(json_get(j, "completed"), &done);
		(void)json_int64(json_get(j, "failed"), &failed);
		r = cli_printf("%-8.*s %-6.*s %-11.*s %7" PRId64 " %7" PRId64
		               " %7" PRId64 " %4d\n",
		               (int)job.n, job.p, (int)kind.n, kind.p,
		               (int)state.n, state.p, total, done, failed,
		               (int)(fraction * 100));
	}
	return r;
}

int cmd_jobs(struct cli *cli)
{
	return ask_and_print(cli, OP_JOBS, SPAN("{}"), ASK_FAIL, print_jobs);
}

bool jobs_is_id(const char *text)
{
	return text[0] == 'j' && text[1] != '\0' &&
	       strspn(text + 1, "0123456789") == strlen(text + 1);
}

static int print_cancelled(const struct cli *cli, struct json result)
{
	struct span state = json_raw_string(json_get(result, "state"));

	return cli_printf("%.*s\n", (int)state.n, state.p);
}

int jobs_cancel(struct cli *cli)
{
	cleanup_buf struct buf params = BUF_INIT(OPTIONS_BYTES);

	(void)buf_putc(&params, '{');
	ask_param(&params, "job", cli->argv[0]);
	(void)buf_putc(&params, '}');
	return ask_and_print(cli, OP_JOB_CANCEL,
	                     span_make(params.data, params.len), ASK_FAIL,
	                     print_cancelled);
}

/* --- attach --------------------------------------------------------------- */

struct attach {
	struct job job;
	struct talk *talk;
	struct job_fetch *fetch; /* NULL: no --download */
	char **labels, **results;
	bool *started, *seen;
	size_t total;
	ev_timer look; /* due; no look is while nothing changes */
	ev_tstamp looked;
	bool over, lost; /* lost: the connection, another is due */
};

static const char *label_of(void *user, size_t index)
{
	const struct attach *a = user;

	return a->labels[index] ? a->labels[index] : "?";
}

static void attach_try_end(struct attach *a)
{
	const struct job_view *v = &a->job.view;

	if (a->over && v->completed + v->failed == v->count)
		job_end(&a->job, job_view_status(v));
}

static void on_fetched(struct job *j, size_t index, struct span files)
{
	struct attach *a = container_of(j, struct attach, job);

	job_view_fetched(&j->view, index, &a->results[index], files);
	attach_try_end(a);
}

static void attach_result(struct attach *a, size_t index, struct json result)
{
	if (a->seen[index])
		return;
	a->seen[index] = true;
	if (a->fetch && json_string_eq(json_get(result, "status"), "completed"))
		a->results[index] = strndup(result.text.p, result.text.n);
	if (a->results[index])
		job_fetch_outputs(a->fetch, index, json_get(result, "outputs"));
	else
		job_view_ended(&a->job.view, index, result.text);
}

/* What runs now: its progress is asked for. */
static void attach_progress(struct attach *a, size_t index, struct json item)
{
	cleanup_buf struct buf params = BUF_INIT(OPTIONS_BYTES);
	cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
	cleanup_buf struct buf line = BUF_INIT(REPLY_BYTES);
	struct json id = json_get(item, "prompt_id"), result, out;
	struct error err;

	if (!a->started[index]) {
		a->started[index] = true;
		job_view_started(&a->job.view, index);
	}
	(void)buf_printf(&params, "{\"prompt_id\":%.*s}", (int)id.text.n,
	                 id.text.p);
	/* One that the supervisor has not got yet is none. */
	if (talk_ask(a->talk, OP_PROGRESS, span_make(params.data, params.len),
	             &reply, &result, &err))
		return;
	(void)buf_puts(&line, "{\"progress\":");
	(void)buf_append(&line, result.text.p, result.text.n);
	(void)buf_putc(&line, '}');
	if (buf_ok(&line) && json_parse(&out, line.data, line.len,
	                                JSON_NONFINITE, NULL) == JSON_OK)
		job_view_news(&a->job.view, index, out);
}

static void attach_item(struct attach *a, struct json item)
{
	struct json result = json_get(item, "result");
	uint64_t index;

	if (!json_uint64(json_get(item, "index"), &index) || index >= a->total)
		return;
	if (!a->labels[index])
		a->labels[index] =
			json_string_dup(json_get(item, "label"), 1024);
	if (json_is(result, JSON_OBJECT))
		attach_result(a, (size_t)index, result);
	else if (json_is(json_get(item, "prompt_id"), JSON_STRING))
		attach_progress(a, (size_t)index, item);
}

static int attach_ask(struct attach *a, int64_t from, struct buf *reply,
                      struct json *result, struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(OPTIONS_BYTES);

	(void)buf_putc(&params, '{');
	ask_param(&params, "job", a->job.cli->argv[0]);
	(void)buf_printf(&params, ",\"from\":%" PRId64 "}", from);
	return talk_ask(a->talk, OP_JOB, span_make(params.data, params.len),
	                reply, result, err);
}

static void attach_wake(struct attach *a, double wait_s)
{
	if (ev_is_active(&a->look))
		return;
	ev_timer_set(&a->look, wait_s > 0 ? wait_s : 0., 0.);
	ev_timer_start(a->job.loop, &a->look);
}

static void on_event(void *user, const struct incoming *ev)
{
	struct attach *a = user;
	double fraction;

	if (!ev) {
		a->lost = true;
		attach_wake(a, RETRY_S);
		return;
	}
	if (ev->event != EVENT_JOB)
		return;
	if (json_double(json_get(ev->data, "fraction"), &fraction))
		job_view_fraction(&a->job.view, fraction);
	attach_wake(a, a->looked + LOOK_S - ev_time());
}

/* The supervisor tells when there is something to look at. */
static int attach_subscribe(struct attach *a, struct error *err)
{
	cleanup_buf struct buf params = BUF_INIT(OPTIONS_BYTES);
	cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
	struct json result;

	talk_listen(a->talk, a->job.loop, on_event, a);
	(void)buf_putc(&params, '{');
	ask_param(&params, "job", a->job.cli->argv[0]);
	(void)buf_putc(&params, '}');
	return talk_ask(a->talk, OP_SUBSCRIBE,
	                span_make(params.data, params.len), &reply, &result,
	                err);
}

/* From the first that was not seen to end. */
static int attach_look(struct attach *a, struct error *err)
{
	int64_t from = 0;

	while (from < (int64_t)a->total && a->seen[from])
		from++;
	for (;;) {
		cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
		struct json result, item;
		struct json_iter it;

		if (attach_ask(a, from, &reply, &result, err))
			return -1;
		a->over = json_string_eq(json_get(result, "state"), "over");
		json_iter_init(&it, json_get(result, "items"));
		while (json_iter_next(&it, NULL, &item))
			attach_item(a, item);
		if (!json_int64(json_get(result, "next"), &from))
			return 0;
	}
}

/* It may be restarting; the job waits for that as we do. */
static int attach_again(struct attach *a, struct error *err)
{
	a->lost = false;
	(void)talk_close(a->talk);
	a->talk = talk_open(a->job.cli, err);
	return a->talk ? attach_subscribe(a, err) : -1;
}

static void on_look(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct attach *a = container_of(w, struct attach, look);
	struct error err = ERROR_NULL;
	int r = a->lost ? attach_again(a, &err) : 0;

	if (r == 0)
		r = attach_look(a, &err);
	a->looked = ev_time();
	if (r == 0) {
		attach_try_end(a);
	} else if (!a->lost) {
		job_view_note(&a->job.view, "%s", err.text);
		job_end(&a->job, cli_exit_of(err.code));
	}
}

/* The job goes on without us. */
static void on_cancel(struct job *j)
{
	job_view_note(&j->view, "the job goes on; comfymux cancel %s ends it",
	              j->cli->argv[0]);
	job_end(j, EXIT_CANCELLED);
}

static int attach_open(struct attach *a, struct cli *cli, struct error *err)
{
	cleanup_buf struct buf reply = BUF_INIT(REPLY_BYTES);
	struct json result;
	uint64_t total;

	a->talk = talk_open(cli, err);
	if (!a->talk || attach_ask(a, 0, &reply, &result, err))
		return -1;
	if (!json_uint64(json_get(result, "total"), &total) || total < 1)
		return error_set(err, ERR_PROTOCOL, "the job has no items");
	a->total = (size_t)total;
	a->labels = calloc(a->total, sizeof(*a->labels));
	a->results = calloc(a->total, sizeof(*a->results));
	a->started = calloc(a->total, sizeof(*a->started));
	a->seen = calloc(a->total, sizeof(*a->seen));
	if (!a->labels || !a->results || !a->started || !a->seen)
		return error_set_nomem(err, "the job");
	if (cli->download) {
		a->fetch = job_fetch_new(&a->job, cli->download, cli->overwrite,
		                         on_fetched, err);
		if (!a->fetch)
			return -1;
	}
	if (job_view_init(&a->job.view, a->job.loop, cli, "workflow", a->total,
	                  label_of, a, err))
		return -1;
	attach_wake(a, 0);
	return job_open(&a->job, cli->download ? "batch" : NULL, err)
	               ? -1
	               : attach_subscribe(a, err);
}

static void attach_close(struct attach *a)
{
	ev_timer_stop(a->job.loop, &a->look);
	job_close(&a->job);
	a->fetch = job_fetch_free(a->fetch);
	(void)talk_close(a->talk);
	for (size_t i = 0; i < a->total; i++) {
		if (a->labels)
			free(a->labels[i]);
		if (a->results)
			free(a->results[i]);
	}
	free(a->labels);
	free(a->results);
	free(a->started);
	free(a->seen);
}

int cmd_attach(struct cli *cli)
{
	struct attach a = {.job = {.cli = cli,
	                           .loop = ev_default_loop(0),
	                           .on_cancel = on_cancel}};
	struct error err = ERROR_NULL;
	int status;

	if (!a.job.loop) {
		(void)error_set(&err, ERR_SYSTEM, "no event loop");
		return cli_fail(&err);
	}
	ev_timer_init(&a.look, on_look, 0., 0.);
	if (attach_open(&a, cli, &err)) {
		status = cli_fail(&err);
	} else {
		job_run(&a.job);
		job_view_finish(&a.job.view);
		status = a.job.status;
	}
	attach_close(&a);
	return status;
}
