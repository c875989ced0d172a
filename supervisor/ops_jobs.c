/*
 * ops_jobs.c - the ops about detached jobs: those of users, and those of the
 * jobs' workers, which may speak of their own job alone.
 */
#include <string.h>

#include "common/batch_plan.h"
#include "common/chain_spec.h"
#include "common/cleanup.h"
#include "common/workflow.h"
#include "supervisor/ops.h"
#include "supervisor/tell.h"

#define LABEL_MAX 1024

static int64_t integer(const struct request *req, const char *name,
                       int64_t otherwise)
{
	int64_t n = otherwise;

	(void)json_int64(request_field(req, name), &n);
	return n;
}

static void put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static struct job *find(struct supervisor *sv, const struct peer *peer,
                        const struct request *req, struct error *err)
{
	cleanup_free char *id =
		json_string_dup(request_field(req, "job"), JOBS_ID_MAX);

	return jobs_find(&sv->jobs, peer, id ? id : "", err);
}

/* --- users ---------------------------------------------------------------- */

int ops_job_create(struct supervisor *sv, struct peer *peer,
                   const struct request *req, struct error *err)
{
	struct json kind = request_field(req, "kind");
	struct json options = request_field(req, "options");
	struct jobs_wish wish = {.total = integer(req, "total", 0)};
	struct buf out = BUF_INIT(128);
	int64_t max = BATCH_ITEMS_MAX;
	struct job *job;

	if (json_string_eq(kind, "batch"))
		wish.kind = "batch";
	else if (json_string_eq(kind, "chain"))
		wish.kind = "chain";
	else
		return error_set(err, ERR_INVALID,
		                 "\"kind\" must be batch or chain");
	if (strcmp(wish.kind, "chain") == 0)
		max = CHAIN_STEPS_MAX;
	if (wish.total < 1 || wish.total > max)
		return error_set(err, ERR_INVALID,
		                 "\"total\" must be from 1 to %lld",
		                 (long long)max);
	wish.options =
		json_is(options, JSON_OBJECT) ? options.text : SPAN("{}");
	if (sv->stopping)
		return error_set(err, ERR_BUSY, "the supervisor is stopping");
	job = jobs_create(&sv->jobs, peer, &wish, err);
	if (!job)
		return -1;
	(void)buf_putc(&out, '{');
	put_string(&out, "job", job->id);
	(void)buf_putc(&out, '}');
	return ops_answer(peer, req, &out, err);
}

int ops_job_add(struct supervisor *sv, struct peer *peer,
                const struct request *req, struct error *err)
{
	struct job *job = find(sv, peer, req, err);
	struct json item = request_field(req, "item");
	cleanup_free char *label =
		json_string_dup(request_field(req, "label"), LABEL_MAX);

	if (!job)
		return -1;
	if (jobs_add(&sv->jobs, job, integer(req, "index", -1),
	             label ? label : "", item.text, err))
		return -1;
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

int ops_job_start(struct supervisor *sv, struct peer *peer,
                  const struct request *req, struct error *err)
{
	struct job *job = find(sv, peer, req, err);

	if (!job || jobs_start(&sv->jobs, job, err))
		return -1;
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

int ops_jobs(struct supervisor *sv, struct peer *peer,
             const struct request *req, struct error *err)
{
	struct buf out = BUF_INIT(LINE_MAX_BYTES);
	bool first = true;

	(void)buf_puts(&out, "{\"jobs\":[");
	for (struct list *it = sv->jobs.all.prev; it != &sv->jobs.all;
	     it = it->prev) {
		const struct job *job = list_entry(it, struct job, link);

		if (!may_see(peer->creds.uid, peer->is_operator, job->uid))
			continue;
		(void)buf_puts(&out, first ? "{" : ",{");
		job_to_json(job, &out);
		(void)buf_putc(&out, '}');
		first = false;
	}
	(void)buf_puts(&out, "]}");
	return ops_answer(peer, req, &out, err);
}

/* Items told in one reply: as many as fit, and where to go on. */
struct telling {
	struct buf *out;
	bool labels, touched_only, first;
	int64_t next; /* -1: all were told */
};

static bool on_item(void *user, const struct store_item *it)
{
	struct telling *t = user;

	if (t->touched_only && !it->prompt_id && !it->ended)
		return true;
	if (!t->first && t->out->len + it->result.n > JOBS_REPLY_MAX) {
		t->next = it->index;
		return false;
	}
	(void)buf_printf(t->out, "%s{\"index\":%lld", t->first ? "" : ",",
	                 (long long)it->index);
	if (t->labels)
		put_string(t->out, "label", it->label);
	if (it->prompt_id)
		put_string(t->out, "prompt_id", it->prompt_id);
	if (it->resubmits > 0)
		(void)buf_printf(t->out, ",\"resubmits\":%lld",
		                 (long long)it->resubmits);
	if (it->ended) {
		(void)buf_json_key(t->out, "result");
		(void)buf_append(t->out, it->result.p, it->result.n);
	}
	(void)buf_putc(t->out, '}');
	t->first = false;
	return true;
}

static int put_items(struct supervisor *sv, const struct job *job, int64_t from,
                     struct telling *t, struct error *err)
{
	t->first = true;
	t->next = -1;
	(void)buf_puts(t->out, ",\"items\":[");
	if (store_each_item(sv->store, job->row, from, on_item, t, err))
		return -1;
	(void)buf_putc(t->out, ']');
	if (t->next >= 0)
		(void)buf_printf(t->out, ",\"next\":%lld", (long long)t->next);
	(void)buf_putc(t->out, '}');
	return 0;
}

int ops_job(struct supervisor *sv, struct peer *peer, const struct request *req,
            struct error *err)
{
	struct job *job = find(sv, peer, req, err);
	struct buf out = BUF_INIT(LINE_MAX_BYTES);
	struct telling t = {.out = &out, .labels = true};

	if (!job)
		return -1;
	(void)buf_putc(&out, '{');
	job_to_json(job, &out);
	if (put_items(sv, job, integer(req, "from", 0), &t, err)) {
		buf_deinit(&out);
		return -1;
	}
	return ops_answer(peer, req, &out, err);
}

int ops_job_cancel(struct supervisor *sv, struct peer *peer,
                   const struct request *req, struct error *err)
{
	struct job *job = find(sv, peer, req, err);
	struct buf out = BUF_INIT(128);

	if (!job || jobs_cancel(&sv->jobs, job, err))
		return -1;
	(void)buf_putc(&out, '{');
	put_string(&out, "state", job_state_name(job->state));
	(void)buf_putc(&out, '}');
	return ops_answer(peer, req, &out, err);
}

/* --- workers -------------------------------------------------------------- */

static struct job *own(const struct peer *peer, struct error *err)
{
	struct session *s = peer->is_bus ? peer->session : NULL;

	if (s && s->job && s->bus == peer)
		return s->job;
	(void)error_set(err, ERR_DENIED,
	                "this is for the worker of a detached job");
	return NULL;
}

int ops_job_take(struct supervisor *sv, struct peer *peer,
                 const struct request *req, struct error *err)
{
	struct job *job = own(peer, err);
	struct buf out = BUF_INIT(LINE_MAX_BYTES);
	struct telling t = {.out = &out, .touched_only = true};

	if (!job)
		return -1;
	(void)buf_putc(&out, '{');
	put_string(&out, "kind", job->kind);
	(void)buf_printf(&out, ",\"total\":%lld,\"cancelled\":%s,\"options\":",
	                 (long long)job->total,
	                 job->state == JOB_CANCELLING ? "true" : "false");
	if (store_job_options(sv->store, job->row, &out, err) ||
	    put_items(sv, job, integer(req, "from", 0), &t, err)) {
		buf_deinit(&out);
		return -1;
	}
	return ops_answer(peer, req, &out, err);
}

int ops_job_item(struct supervisor *sv, struct peer *peer,
                 const struct request *req, struct error *err)
{
	struct job *job = own(peer, err);
	struct buf out = BUF_INIT(LINE_MAX_BYTES);

	if (!job)
		return -1;
	(void)buf_puts(&out, "{\"item\":");
	if (store_item_text(sv->store, job->row, integer(req, "index", -1),
	                    &out, err)) {
		buf_deinit(&out);
		return -1;
	}
	(void)buf_putc(&out, '}');
	return ops_answer(peer, req, &out, err);
}

int ops_job_intent(struct supervisor *sv, struct peer *peer,
                   const struct request *req, struct error *err)
{
	struct job *job = own(peer, err);
	char id[UUID_LEN + 1];

	if (!job || ops_prompt_id(req, id, err) ||
	    store_item_intent(sv->store, job->row, integer(req, "index", -1),
	                      id, integer(req, "resubmits", 0), err))
		return -1;
	tell_job(sv, job);
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

int ops_job_result(struct supervisor *sv, struct peer *peer,
                   const struct request *req, struct error *err)
{
	struct job *job = own(peer, err);
	struct json result = request_field(req, "result");

	if (!job ||
	    jobs_result(&sv->jobs, job, integer(req, "index", -1),
	                json_string_eq(json_get(result, "status"), "completed"),
	                result.text, err))
		return -1;
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

int ops_job_progress(struct supervisor *sv, struct peer *peer,
                     const struct request *req, struct error *err)
{
	struct job *job = own(peer, err);
	double fraction;

	if (!job)
		return -1;
	if (!json_double(request_field(req, "fraction"), &fraction))
		return error_set(err, ERR_INVALID,
		                 "\"fraction\" must be a number");
	jobs_progress(&sv->jobs, job, fraction);
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

int ops_job_end(struct supervisor *sv, struct peer *peer,
                const struct request *req, struct error *err)
{
	struct job *job = own(peer, err);

	if (!job || jobs_end(&sv->jobs, job, err))
		return -1;
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}
