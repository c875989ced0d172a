/*
 * sim_http_jobs.c - /api/jobs, as servers after 0.3.64 have it.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_http.h"
#include "tests/sim/sim_text.h"

#define JOBS_LIMIT 200 /* jobs in one answer if none is asked for */

struct job {
	const struct sim_prompt *prompt;
	const char *status;
};

/* What only the answer about a single job has. */
static void put_details(struct buf *b, const struct sim_prompt *p)
{
	char *text = NULL;
	struct json entry, outputs, status;

	if (asprintf(&text, "{%s}", p->result) < 0)
		abort();
	if (json_parse(&entry, text, strlen(text), JSON_NONFINITE, NULL) ==
	    JSON_OK) {
		outputs = json_get(entry, "outputs");
		status = json_get(entry, "status");
		(void)buf_printf(b, ", \"outputs_count\": %zu, \"outputs\": ",
		                 json_count(outputs));
		(void)sim_put_json(b, outputs);
		(void)buf_puts(b, ", \"execution_status\": ");
		(void)sim_put_json(b, status);
	}
	free(text);
}

static void put_job(struct buf *b, const struct job *job, bool details)
{
	const struct sim_prompt *p = job->prompt;
	struct json extra, workflow_id = JSON_MISSING;

	if (json_parse(&extra, p->extra_data, p->extra_len, JSON_NONFINITE,
	               NULL) == JSON_OK)
		workflow_id = json_get(
			json_get(json_get(extra, "extra_pnginfo"), "workflow"),
			"id");
	(void)buf_puts(b, "{\"id\": ");
	(void)sim_put_string(b, p->id);
	(void)buf_printf(b,
	                 ", \"status\": \"%s\", \"priority\": ", job->status);
	(void)sim_put_number(b, p->number, p->number_int);
	(void)buf_printf(b, ", \"create_time\": %lld",
	                 (long long)p->created_ms);
	if (p->started_ms)
		(void)buf_printf(b, ", \"execution_start_time\": %lld",
		                 (long long)p->started_ms);
	if (p->ended_ms)
		(void)buf_printf(b, ", \"execution_end_time\": %lld",
		                 (long long)p->ended_ms);
	(void)buf_puts(b, ", \"workflow_id\": ");
	if (json_is(workflow_id, JSON_NONE))
		(void)buf_puts(b, "null");
	else
		(void)sim_put_json(b, workflow_id);
	if (p->result && details)
		put_details(b, p);
	(void)buf_putc(b, '}');
}

static const char *ended_as(const struct sim_prompt *p)
{
	return p->success ? "completed" : "failed";
}

/* The index-th job: pending, running, history newest first. */
static bool job_at(const struct sim_queue *q, size_t index, struct job *job)
{
	if (index < q->npending) {
		*job = (struct job){q->pending[index], "pending"};
		return true;
	}
	index -= q->npending;
	if (q->running && index-- == 0) {
		*job = (struct job){q->running, "in_progress"};
		return true;
	}
	if (index >= q->nhistory)
		return false;
	job->prompt = q->history[q->nhistory - 1 - index];
	job->status = ended_as(job->prompt);
	return true;
}

/* `list` has names with commas between; NULL: all. */
static bool is_wanted(const char *list, const char *status)
{
	size_t len = strlen(status);

	for (const char *p = list; p && *p;) {
		size_t n = strcspn(p, ",");

		if (n == len && strncmp(p, status, n) == 0)
			return true;
		p += n + (p[n] == ',');
	}
	return !list || !*list;
}

static long query_long(const struct sim_request *req, const char *name,
                       long otherwise)
{
	const char *text = sim_query(req, name);
	char *end;
	long n = text ? strtol(text, &end, 10) : otherwise;

	return text && (end == text || *end || n < 0) ? -1 : n;
}

void sim_get_jobs(struct sim *sim, const struct sim_request *req,
                  struct sim_reply *reply, const char *tail)
{
	const char *status = sim_query(req, "status");
	long limit = query_long(req, "limit", JOBS_LIMIT);
	long offset = query_long(req, "offset", 0), total = 0, put = 0;
	struct buf *b = &reply->body;
	struct job job;

	sim_reply_json(reply);
	if (limit < 0 || offset < 0) {
		reply->status = 400;
		(void)buf_puts(b, "{\"error\": \"limit and offset must be "
		                  "whole numbers\"}");
		return;
	}
	(void)buf_puts(b, "{\"jobs\": [");
	for (size_t i = 0; job_at(&sim->queue, i, &job); i++) {
		if (!is_wanted(status, job.status))
			continue;
		if (total++ < offset || put >= limit)
			continue;
		if (put++)
			(void)buf_puts(b, ", ");
		put_job(b, &job, false);
	}
	(void)buf_printf(b,
	                 "], \"pagination\": {\"offset\": %ld, \"limit\": %ld, "
	                 "\"total\": %ld, \"has_more\": %s}}",
	                 offset, limit, total,
	                 offset + put < total ? "true" : "false");
}

void sim_get_job(struct sim *sim, const struct sim_request *req,
                 struct sim_reply *reply, const char *tail)
{
	const struct sim_prompt *p = sim_queue_find(&sim->queue, tail);
	struct job job = {p, "pending"};

	sim_reply_json(reply);
	if (p && p == sim->queue.running) {
		job.status = "in_progress";
	} else if (!p) {
		p = sim_history_find(&sim->queue, tail);
		if (!p) {
			reply->status = 404;
			(void)buf_puts(&reply->body,
			               "{\"error\": \"Job not found\"}");
			return;
		}
		job = (struct job){p, ended_as(p)};
	}
	put_job(&reply->body, &job, true);
}

/* Pending or running alike; the running one can't be mistaken for its
 * successor, since nothing happens in between. */
static bool cancel(struct sim *sim, const char *id)
{
	const struct sim_prompt *running = sim->queue.running;
	struct buf b = BUF_INIT(65536);
	bool was_running = running && strcmp(running->id, id) == 0 &&
	                   sim->exec.state == SIM_EXEC_RUNNING;
	bool done = was_running || sim_queue_delete(&sim->queue, id);

	if (was_running)
		sim->exec.interrupt = true;
	if (done) {
		(void)buf_puts(&b, "\"prompt_id\":");
		(void)sim_put_string(&b, id);
		sim_journal_add(&sim->journal,
		                was_running ? "interrupt" : "deleted", &b);
	}
	buf_deinit(&b);
	return done;
}

void sim_post_job_cancel(struct sim *sim, const struct sim_request *req,
                         struct sim_reply *reply, const char *tail)
{
	sim_reply_json(reply);
	(void)buf_printf(&reply->body, "{\"cancelled\": %s}",
	                 cancel(sim, tail) ? "true" : "false");
}

void sim_post_jobs_cancel(struct sim *sim, const struct sim_request *req,
                          struct sim_reply *reply, const char *tail)
{
	struct json body, item;
	struct json_iter it;
	bool any = false;

	if (json_parse(&body, req->body.data, req->body.len, 0, NULL) !=
	    JSON_OK) {
		sim_reply_crash(reply);
		return;
	}
	json_iter_init(&it, json_get(body, "job_ids"));
	while (json_iter_next(&it, NULL, &item)) {
		char *id = json_string_dup(item, 65536);

		if (id && cancel(sim, id))
			any = true;
		free(id);
	}
	sim_reply_json(reply);
	(void)buf_printf(&reply->body, "{\"cancelled\": %s}",
	                 any ? "true" : "false");
}
