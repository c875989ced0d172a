/*
 * jobs.c - see jobs.h.
 */
#include "supervisor/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/supervisor.h"
#include "supervisor/tell.h"

static const char *const state_names[] = {
	[JOB_RECEIVING] = "receiving",
	[JOB_WORKING] = "working",
	[JOB_CANCELLING] = "cancelling",
	[JOB_OVER] = "over",
};
STATIC_ASSERT_ARRAY_SIZE(state_names, JOB_STATE_COUNT);

const char *job_state_name(enum job_state s)
{
	return state_names[s];
}

void job_to_json(const struct job *job, struct buf *out)
{
	(void)buf_printf(out,
	                 "\"job\":\"%s\",\"kind\":\"%s\",\"state\":\"%s\","
	                 "\"uid\":%u,\"total\":%lld,\"completed\":%lld,"
	                 "\"failed\":%lld,\"fraction\":%.4f,"
	                 "\"created_at\":%lld",
	                 job->id, job->kind, state_names[job->state],
	                 (unsigned)job->uid, (long long)job->total,
	                 (long long)job->completed, (long long)job->failed,
	                 job->fraction, (long long)job->created_at);
	if (job->ended_at > 0)
		(void)buf_printf(out, ",\"ended_at\":%lld",
		                 (long long)job->ended_at);
}

/* What has ended is done, whatever its worker has told. */
static void job_count_ended(struct job *job)
{
	double done =
		(double)(job->completed + job->failed) / (double)job->total;

	if (done > job->fraction)
		job->fraction = done;
}

static bool is_active(const struct job *job)
{
	return job->state == JOB_WORKING || job->state == JOB_CANCELLING;
}

/* What is over takes no part of its user's limit. */
static void job_uncount(struct jobs *j, struct job *job)
{
	if (!job->tenant)
		return;
	job->tenant->job_count--;
	tracker_release_tenant(&j->sv->tracker, job->tenant);
	job->tenant = NULL;
}

static void job_free(struct jobs *j, struct job *job)
{
	job_uncount(j, job);
	subject_clear(&job->subject);
	list_del(&job->link);
	if (job->session)
		job->session->job = NULL;
	free(job);
}

/* In the store first; what can't be kept isn't so. */
static int job_enter(struct jobs *j, struct job *job, enum job_state state,
                     struct error *err)
{
	int64_t now_ms = clock_epoch_ms();

	if (store_job_set_state(j->sv->store, job->row, state, now_ms, err))
		return -1;
	log_info("jobs", "job %s -> %s (job=%s kind=%s uid=%u)",
	         state_names[job->state], state_names[state], job->id,
	         job->kind, (unsigned)job->uid);
	j->active -= is_active(job);
	job->state = state;
	j->active += is_active(job);
	if (state == JOB_OVER) {
		job->ended_at = now_ms;
		job_uncount(j, job);
	}
	tell_job(j->sv, job);
	/* Nothing is told any more. */
	if (state == JOB_OVER)
		subject_clear(&job->subject);
	return 0;
}

static int job_drop(struct jobs *j, struct job *job, struct error *err)
{
	int r = store_job_delete(j->sv->store, job->row, err);

	j->active -= is_active(job);
	job_free(j, job);
	return r;
}

/* --- workers -------------------------------------------------------------- */

static void jobs_wake(struct jobs *j)
{
	if (!ev_is_active(&j->start))
		ev_timer_start(j->sv->loop, &j->start);
}

static void on_start(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct jobs *j = w->data;
	struct error err = ERROR_NULL;
	size_t working = 0;
	struct list *it;
	struct job *job;

	ev_timer_stop(loop, w);
	ev_timer_set(w, 0., 0.);
	if (j->sv->stopping)
		return;
	list_for_each (it, &j->all) {
		job = list_entry(it, struct job, link);
		if (!is_active(job))
			continue;
		if (working++ >= JOBS_WORKERS)
			return;
		if (!job->session &&
		    nursery_begin_job(&j->sv->nursery, job, &err) < 0)
			log_error("jobs", "no worker: %s (job=%s)", err.text,
			          job->id);
	}
}

void jobs_session_gone(struct jobs *j, struct session *s)
{
	if (!s->job)
		return;
	s->job->session = NULL;
	s->job = NULL;
	jobs_wake(j);
}

/* --- who sees what -------------------------------------------------------- */

struct job *jobs_find(struct jobs *j, const struct peer *peer, const char *id,
                      struct error *err)
{
	struct list *it;
	struct job *job;

	list_for_each (it, &j->all) {
		job = list_entry(it, struct job, link);
		if (strcmp(job->id, id) == 0 &&
		    may_see(peer->creds.uid, peer->is_operator, job->uid))
			return job;
	}
	(void)error_set(err, ERR_NOT_FOUND, "there is no such job");
	return NULL;
}

/* --- beginning ------------------------------------------------------------ */

static size_t count_over(const struct jobs *j, uid_t uid)
{
	size_t n = 0;
	struct list *it;

	list_for_each (it, &j->all) {
		const struct job *job = list_entry(it, struct job, link);

		n += job->uid == uid && job->state == JOB_OVER;
	}
	return n;
}

/* The oldest ended ones of a uid beyond the bound. */
static void jobs_prune(struct jobs *j, uid_t uid)
{
	size_t kept = count_over(j, uid);
	struct list *it, *next;
	struct error err = ERROR_NULL;

	list_for_each_safe (it, next, &j->all) {
		struct job *job = list_entry(it, struct job, link);

		if (kept <= JOBS_KEPT_MAX)
			return;
		if (job->uid != uid || job->state != JOB_OVER)
			continue;
		kept--;
		if (job_drop(j, job, &err))
			log_error("jobs", "%s", err.text);
	}
}

static struct job *job_new(struct jobs *j, const struct store_job *s)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job && s->state != JOB_OVER) {
		job->tenant = tracker_tenant(&j->sv->tracker, s->uid);
		if (!job->tenant) {
			free(job);
			return NULL;
		}
		job->tenant->job_count++;
	}
	if (!job)
		return NULL;
	job->row = s->row;
	(void)snprintf(job->id, sizeof(job->id), "j%lld", (long long)s->row);
	job->uid = s->uid;
	job->kind = strcmp(s->kind, "chain") == 0 ? "chain" : "batch";
	job->state = s->state;
	job->total = s->total;
	job->bytes = s->bytes;
	job->completed = s->completed;
	job->failed = s->failed;
	job->created_at = s->created_at;
	job->ended_at = s->ended_at;
	subject_init(&job->subject);
	job_count_ended(job);
	list_append(&j->all, &job->link);
	j->active += is_active(job);
	return job;
}

struct job *jobs_create(struct jobs *j, struct peer *by,
                        const struct jobs_wish *wish, struct error *err)
{
	struct store_job s = {.uid = by->creds.uid,
	                      .kind = wish->kind,
	                      .options = wish->options,
	                      .total = wish->total,
	                      .state = JOB_RECEIVING,
	                      .created_at = clock_epoch_ms()};
	struct job *job;

	if (peer_check_limit(by, LIMIT_JOBS, 1, err) < 0)
		return NULL;
	if (store_job_new(j->sv->store, &s, err))
		return NULL;
	job = job_new(j, &s);
	if (!job) {
		(void)store_job_delete(j->sv->store, s.row, NULL);
		(void)error_set_nomem(err, "job");
		return NULL;
	}
	job->receiving = by;
	return job;
}

static int check_receiving(const struct job *job, struct error *err)
{
	return job->state == JOB_RECEIVING
	               ? 0
	               : error_set(err, ERR_INVALID,
	                           "job %s is started already", job->id);
}

int jobs_add(struct jobs *j, struct job *job, int64_t index, const char *label,
             struct span item, struct error *err)
{
	if (check_receiving(job, err))
		return -1;
	if (index < 0 || index >= job->total)
		return error_set(err, ERR_INVALID,
		                 "\"index\" must be from 0 to %lld",
		                 (long long)job->total - 1);
	if (job->bytes + (int64_t)item.n > JOBS_BYTES_MAX)
		return error_set(err, ERR_LIMIT,
		                 "the items of a job have at most %u bytes",
		                 JOBS_BYTES_MAX);
	if (store_item_add(j->sv->store, job->row, index, label, item, err))
		return -1;
	job->bytes += (int64_t)item.n;
	job->added++;
	return 0;
}

int jobs_start(struct jobs *j, struct job *job, struct error *err)
{
	if (check_receiving(job, err))
		return -1;
	if (job->added != job->total)
		return error_set(err, ERR_INVALID,
		                 "%lld of the job's %lld items have come",
		                 (long long)job->added, (long long)job->total);
	if (job_enter(j, job, JOB_WORKING, err))
		return -1;
	job->receiving = NULL;
	jobs_wake(j);
	return 0;
}

/* --- the end -------------------------------------------------------------- */

int jobs_cancel(struct jobs *j, struct job *job, struct error *err)
{
	if (job->state == JOB_RECEIVING)
		return error_set(err, ERR_INVALID, "job %s is not started",
		                 job->id);
	if (job->state != JOB_WORKING)
		return 0;
	if (job_enter(j, job, JOB_CANCELLING, err))
		return -1;
	/* Its successor takes the job up as cancelled. */
	if (job->session)
		nursery_stop_job(job->session);
	else
		jobs_wake(j);
	return 0;
}

int jobs_result(struct jobs *j, struct job *job, int64_t index, bool ok,
                struct span result, struct error *err)
{
	bool fresh = false;

	if (store_item_result(j->sv->store, job->row, index, ok, result, &fresh,
	                      err))
		return -1;
	if (!fresh)
		return 0;
	*(ok ? &job->completed : &job->failed) += 1;
	job_count_ended(job);
	tell_job(j->sv, job);
	return 0;
}

void jobs_progress(struct jobs *j, struct job *job, double fraction)
{
	/* Written so that NaN changes nothing. */
	if (!(fraction > job->fraction))
		return;
	job->fraction = fraction < 1 ? fraction : 1;
	tell_job(j->sv, job);
}

int jobs_end(struct jobs *j, struct job *job, struct error *err)
{
	if (!is_active(job))
		return 0;
	if (job_enter(j, job, JOB_OVER, err))
		return -1;
	jobs_prune(j, job->uid);
	return 0;
}

void jobs_peer_gone(struct jobs *j, const struct peer *p)
{
	struct list *it, *next;
	struct error err = ERROR_NULL;

	if (!j->sv)
		return;
	list_for_each_safe (it, next, &j->all) {
		struct job *job = list_entry(it, struct job, link);

		if (job->receiving == p && job_drop(j, job, &err))
			log_error("jobs", "%s", err.text);
	}
}

/* --- life ----------------------------------------------------------------- */

struct restore {
	struct jobs *jobs;
	bool nomem;
};

static bool on_stored(void *user, const struct store_job *s)
{
	struct restore *r = user;

	r->nomem = job_new(r->jobs, s) == NULL;
	return !r->nomem;
}

int jobs_init(struct jobs *j, struct supervisor *sv, struct error *err)
{
	struct restore r = {.jobs = j};
	struct list *it, *next;

	*j = (struct jobs){.sv = sv};
	list_init(&j->all);
	ev_timer_init(&j->start, on_start, 0., 0.);
	j->start.data = j;
	if (store_each_job(sv->store, on_stored, &r, err))
		return -1;
	if (r.nomem)
		return error_set_nomem(err, "jobs");
	/* Whoever was sending it is gone. */
	list_for_each_safe (it, next, &j->all) {
		struct job *job = list_entry(it, struct job, link);

		if (job->state == JOB_RECEIVING && job_drop(j, job, err))
			return -1;
	}
	if (j->active > 0) {
		log_info("jobs", "jobs are taken up (count=%zu)", j->active);
		jobs_wake(j);
	}
	return 0;
}

void jobs_deinit(struct jobs *j)
{
	struct list *it;

	if (!j->sv)
		return;
	ev_timer_stop(j->sv->loop, &j->start);
	while ((it = list_pop(&j->all)))
		job_free(j, list_entry(it, struct job, link));
	j->sv = NULL;
}
