/*
 * cmd_chain.c - `comfymux chain FILE`: workflows one after the other; the
 * worker hands the images on. Here the file is read, with the workflows that
 * it names by path, and the course is shown.
 */
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/job_result.h"
#include "common/log.h"
#include "common/workflow.h"
#include "ipc/message.h"
#include "workers/front/chain_file.h"
#include "workers/front/job.h"
#include "workers/front/job_fetch.h"
#include "workers/front/jobs.h"

struct chain_run {
	struct job job;
	struct job_fetch *fetch; /* NULL: no --download */
	char **results;          /* while their files are fetched */
	bool *seen;              /* a step's end was heard */
	bool *started;
	bool answered;
};

static const char *label_of(void *user, size_t index)
{
	static char label[32];

	(void)snprintf(label, sizeof(label), "step %zu", index);
	return label;
}

static void chain_try_end(struct chain_run *c)
{
	struct job_view *v = &c->job.view;

	if (c->answered && v->completed + v->failed == v->count)
		job_end(&c->job,
		        c->job.cancelled ? EXIT_CANCELLED : job_view_status(v));
}

static void on_fetched(struct job *j, size_t index, struct span files)
{
	struct chain_run *c = container_of(j, struct chain_run, job);

	job_view_fetched(&j->view, index, &c->results[index], files);
	chain_try_end(c);
}

static void step_ended(struct chain_run *c, struct json result)
{
	struct job_view *v = &c->job.view;
	uint64_t index;

	if (!json_uint64(json_get(result, "index"), &index) ||
	    index >= v->count || c->seen[index])
		return;
	c->seen[index] = true;
	if (c->fetch && json_string_eq(json_get(result, "status"), "completed"))
		c->results[index] = strndup(result.text.p, result.text.n);
	if (c->results[index])
		job_fetch_outputs(c->fetch, (size_t)index,
		                  json_get(result, "outputs"));
	else
		job_view_ended(v, (size_t)index, result.text);
}

static void on_output(struct job *j, void *what, struct json line)
{
	struct chain_run *c = what;
	struct json result = json_get(line, "result");
	uint64_t index;

	if (json_is(result, JSON_OBJECT)) {
		step_ended(c, result);
		return;
	}
	if (!json_uint64(json_get(line, "index"), &index) ||
	    index >= j->view.count)
		return;
	if (!c->started[index]) {
		c->started[index] = true;
		job_view_started(&j->view, (size_t)index);
	}
	job_view_news(&j->view, (size_t)index, line);
}

static void step_failed(struct chain_run *c, size_t index,
                        const struct error *err)
{
	cleanup_buf struct buf text = BUF_INIT((size_t)8 * ERROR_TEXT_MAX);
	struct job_result r = {.index = index,
	                       .end = err->code == ERR_CANCELLED ? JOB_CANCELLED
	                                                         : JOB_FAILED,
	                       .progress = JSON_MISSING,
	                       .node_errors = JSON_MISSING,
	                       .error = err};

	job_result_json(&r, &text);
	c->seen[index] = true;
	job_view_ended(&c->job.view, index, span_make(text.data, text.len));
}

/* Nobody will tell of the steps that are left: the first of them failed of what
 * ended the request, those behind it never began. */
static void broke_off(struct chain_run *c, const struct error *why)
{
	struct error behind = ERROR_NULL;

	(void)error_set(&behind, ERR_CANCELLED,
	                "not started: the chain broke off");
	for (size_t i = 0; i < c->job.view.count; i++) {
		if (c->seen[i])
			continue;
		step_failed(c, i, why);
		why = &behind;
	}
}

static void on_answer(struct job *j, void *what, bool ok, struct json body)
{
	struct chain_run *c = what;
	struct error err = ERROR_NULL;
	struct json_iter it;
	struct json result;

	c->answered = true;
	if (!ok) {
		job_refusal(body, &err);
		broke_off(c, &err);
	}
	/* Those whose end was left out while we were behind; none if !ok. */
	json_iter_init(&it, json_get(body, "results"));
	while (json_iter_next(&it, NULL, &result))
		step_ended(c, result);
	chain_try_end(c);
}

static void on_cancel(struct job *j)
{
	/* The request is cancelled; its answer comes. */
}

static const struct job_waiter waiter = {.on_output = on_output,
                                         .on_answer = on_answer};

static int chain_ask(struct chain_run *c, const struct buf *steps,
                     struct error *err)
{
	const struct cli *cli = c->job.cli;
	cleanup_buf struct buf request = BUF_INIT(LINE_MAX_BYTES);

	(void)buf_puts(&request, "{\"op\":\"chain\",\"params\":{");
	if (cli->timeout_ms > 0)
		(void)buf_printf(&request, "\"timeout_ms\":%lld,",
		                 (long long)cli->timeout_ms);
	(void)buf_append(&request, steps->data, steps->len);
	(void)buf_puts(&request, "}}");
	if (!buf_ok(&request))
		return error_set(err, ERR_INVALID,
		                 "the chain is larger than %u bytes",
		                 LINE_MAX_BYTES);
	return job_ask(&c->job, span_make(request.data, request.len), NULL, c,
	               &waiter, err);
}

static int chain_open(struct chain_run *c, struct cli *cli, struct error *err)
{
	cleanup_buf struct buf steps = BUF_INIT(LINE_MAX_BYTES);
	size_t count;

	if (chain_file_read(cli, cli->argv[0], &steps, &count, err))
		return -1;
	c->results = calloc(count, sizeof(*c->results));
	c->seen = calloc(count, sizeof(*c->seen));
	c->started = calloc(count, sizeof(*c->started));
	if (!c->results || !c->seen || !c->started)
		return error_set_nomem(err, "the chain");
	if (cli->download) {
		c->fetch = job_fetch_new(&c->job, cli->download, cli->overwrite,
		                         on_fetched, err);
		if (!c->fetch)
			return -1;
	}
	if (job_view_init(&c->job.view, c->job.loop, cli, "step", count,
	                  label_of, c, err) ||
	    job_open(&c->job, "chain", err))
		return -1;
	return chain_ask(c, &steps, err);
}

static void chain_close(struct chain_run *c)
{
	size_t count = c->job.view.count;

	job_close(&c->job);
	c->fetch = job_fetch_free(c->fetch);
	for (size_t i = 0; c->results && i < count; i++)
		free(c->results[i]);
	free(c->results);
	free(c->seen);
	free(c->started);
}

static int chain_detach(struct cli *cli)
{
	cleanup_buf struct buf text = BUF_INIT(LINE_MAX_BYTES);
	struct error err = ERROR_NULL;
	struct json whole;
	size_t count;

	(void)buf_putc(&text, '{');
	if (chain_file_read(cli, cli->argv[0], &text, &count, &err))
		return cli_fail(&err);
	(void)buf_putc(&text, '}');
	if (!buf_ok(&text) ||
	    json_parse(&whole, text.data, text.len, JSON_NONFINITE, NULL)) {
		(void)error_set(&err, ERR_INVALID, "the chain is too large");
		return cli_fail(&err);
	}
	if (json_is(json_get(whole, "stop_on_error"), JSON_FALSE))
		cli->keep_going = true;
	return jobs_detach_chain(cli, json_get(whole, "steps"));
}

int cmd_chain(struct cli *cli)
{
	struct chain_run c = {.job = {.cli = cli,
	                              .loop = ev_default_loop(0),
	                              .on_cancel = on_cancel}};
	struct error err = ERROR_NULL;
	int status;

	if (cli->detach)
		return chain_detach(cli);
	if (!c.job.loop) {
		(void)error_set(&err, ERR_SYSTEM, "no event loop");
		return cli_fail(&err);
	}
	if (chain_open(&c, cli, &err)) {
		status = cli_fail(&err);
	} else {
		job_run(&c.job);
		job_view_finish(&c.job.view);
		status = c.job.status;
	}
	chain_close(&c);
	return status;
}
