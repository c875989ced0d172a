/*
 * life_end.c - how prompts end: the verdict, telling it, storing it.
 */
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/life_impl.h"
#include "supervisor/tell.h"

static const char cancelled_text[] = "Cancelled on request";
static const char deleted_text[] =
	"Removed from ComfyUI's queue by someone else; it did not run";
static const char lost_text[] =
	"ComfyUI no longer knows this prompt: it is neither in its queue nor "
	"in its history. It was restarted, or somebody cleared both, while "
	"there was no connection";
static const char unreadable_text[] =
	"ComfyUI's history entry of this prompt can't be read";

/* --- the verdict ---------------------------------------------------------- */

/* History tells an interrupt as an error with such a message. */
static bool entry_interrupted(struct json entry)
{
	struct json messages = json_get(json_get(entry, "status"), "messages");
	struct json_iter it;
	struct json message;

	json_iter_init(&it, messages);
	while (json_iter_next(&it, NULL, &message)) {
		if (json_string_eq(json_at(message, 0),
		                   "execution_interrupted"))
			return true;
	}
	return false;
}

static void by_history(struct prompt *p, const struct life_news *news)
{
	/* It was ours: whatever outputs the entry has are still taken. */
	if (p->fsm.cancelled && entry_interrupted(news->entry))
		(void)progress_fail(p->progress, "cancelled", cancelled_text,
		                    NULL);
	(void)progress_fold_history(p->progress, news->entry, news->method);
	if (!progress_ended(p->progress))
		(void)progress_fail(p->progress, "lost", unreadable_text, NULL);
}

static void by_events(struct prompt *p)
{
	const struct cmx_error *e = &progress_get(p->progress)->error;
	struct comfy_event over = {.type = COMFY_EV_EXECUTING,
	                           .prompt_id = SPAN(p->id),
	                           .node_is_null = true};

	if (p->fsm.cancelled && e->type && strcmp(e->type, "interrupted") == 0)
		(void)progress_fail(p->progress, "cancelled", cancelled_text,
		                    NULL);
	else
		(void)progress_fold_event(p->progress, &over);
}

/* That it is gone was found by looking. */
static void tell_method(struct prompt *p, const struct life_news *news)
{
	if (news)
		progress_set_method(p->progress, news->method);
}

static void verdict(struct prompt *p, const struct life_news *news)
{
	const char *text = news->err && news->err->text[0] != '\0'
	                           ? news->err->text
	                           : NULL;

	switch (p->fsm.why) {
	case PROMPT_END_EVENTS:
		by_events(p);
		break;
	case PROMPT_END_HISTORY:
		by_history(p, news);
		break;
	case PROMPT_END_REJECTED:
		(void)progress_fail(p->progress, "rejected",
		                    text ? text : "Refused by ComfyUI", NULL);
		break;
	case PROMPT_END_CANCELLED:
		(void)progress_fail(p->progress, "cancelled", cancelled_text,
		                    NULL);
		break;
	case PROMPT_END_DELETED:
		tell_method(p, news);
		(void)progress_fail(p->progress, "deleted", deleted_text, NULL);
		break;
	case PROMPT_END_NONE:
	case PROMPT_END_LOST:
		tell_method(p, news);
		(void)progress_fail(p->progress, "lost",
		                    text ? text : lost_text, NULL);
		break;
	}
}

/* --- telling it ----------------------------------------------------------- */

static const char *cancel_outcome(const struct prompt *p)
{
	const struct cmx_progress *c = progress_get(p->progress);

	if (p->fsm.why == PROMPT_END_CANCELLED)
		return "dequeued";
	if (c->error.type && strcmp(c->error.type, "cancelled") == 0)
		return "interrupted";
	return "ended";
}

static void count_end(struct supervisor *sv, const struct prompt *p)
{
	if (progress_get(p->progress)->status == CMX_COMPLETED)
		sv->counters.completed++;
	else
		sv->counters.failed++;
	if (p->fsm.why == PROMPT_END_REJECTED)
		sv->counters.rejected++;
}

static void log_end(const struct prompt *p)
{
	const struct cmx_progress *c = progress_get(p->progress);

	log_info("life",
	         "prompt ended (prompt_id=%s uid=%u status=%s%s%s ms=%lld)",
	         p->id, (unsigned)p->tenant->uid, cmx_status_name(c->status),
	         c->error.type ? " error=" : "",
	         c->error.type ? log_safe(c->error.type, strlen(c->error.type))
	                       : "",
	         (long long)(p->ended_at - p->submitted_at));
}

void life_end(struct supervisor *sv, struct prompt *p,
              const struct life_news *news)
{
	verdict(p, news);
	p->ended_at = clock_epoch_ms();
	count_end(sv, p);
	log_end(p);
	/* Whoever still waits for the POST hears first that it was accepted. */
	if (!list_empty(&p->waiters))
		life_reply(sv, p, news);
	list_del(&p->unanswered);
	previews_end(sv, p);
	tell_event(sv, p, EVENT_FINISHED, SPAN_NULL);
	p->finished = true;
	subject_clear(&p->subject);
	life_answer_cancels(p, cancel_outcome(p));
	list_append(&sv->unsaved, &p->unsaved);
	sv->unsaved_count++;
	if (!ev_is_active(&sv->save)) {
		ev_timer_set(&sv->save, SUPERVISOR_SAVE_S, 0.);
		ev_timer_start(sv->loop, &sv->save);
	}
}

/* --- storing it ----------------------------------------------------------- */

static void release(struct supervisor *sv, struct prompt *p)
{
	list_del(&p->unsaved);
	sv->unsaved_count--;
	tracker_drop(&sv->tracker, p);
}

static int save_all(struct supervisor *sv, struct error *err)
{
	struct list *it;
	struct prompt *p;

	if (store_begin(sv->store, err) < 0)
		return -1;
	list_for_each (it, &sv->unsaved) {
		p = list_entry(it, struct prompt, unsaved);
		if (store_end(sv->store, p->row, tell_progress(sv, p, 0),
		              p->ended_at, err) < 0) {
			store_rollback(sv->store);
			return -1;
		}
	}
	return store_commit(sv->store, err);
}

/* The store is full or out of order: the newest results stay in memory. */
static void keep_trying(struct supervisor *sv, const struct error *err)
{
	struct prompt *p;

	sv->counters.store_errors++;
	if (!sv->save_failing)
		log_error("life", "results can't be stored: %s", err->text);
	sv->save_failing = true;
	while (sv->unsaved_count > SUPERVISOR_UNSAVED_MAX) {
		p = list_first(&sv->unsaved, struct prompt, unsaved);
		log_warn("life", "a result is given up (prompt_id=%s)", p->id);
		release(sv, p);
	}
	ev_timer_stop(sv->loop, &sv->save);
	ev_timer_set(&sv->save, SUPERVISOR_SWEEP_S, 0.);
	ev_timer_start(sv->loop, &sv->save);
}

int life_save(struct supervisor *sv)
{
	struct error err = ERROR_NULL;

	if (list_empty(&sv->unsaved))
		return 0;
	if (save_all(sv, &err) < 0) {
		keep_trying(sv, &err);
		return -1;
	}
	if (sv->save_failing)
		log_info("life", "results are stored again");
	sv->save_failing = false;
	while (!list_empty(&sv->unsaved))
		release(sv, list_first(&sv->unsaved, struct prompt, unsaved));
	life_prune(sv, clock_ms());
	return 0;
}

void life_prune(struct supervisor *sv, int64_t now_ms)
{
	uint64_t keep = (uint64_t)sv->cfg.retain_prompts;
	uint64_t max = (uint64_t)sv->cfg.max_prompts;
	uint64_t active = sv->tracker.active;
	struct error err = ERROR_NULL;
	int gone;

	if (active >= max)
		keep = 0;
	else if (keep > max - active)
		keep = max - active;
	if (store_count_ended(sv->store, NULL) <= keep &&
	    now_ms - sv->pruned_ms < SUPERVISOR_PRUNE_MS)
		return;
	gone = store_prune(sv->store, keep,
	                   clock_epoch_ms() - sv->cfg.retain_s * 1000, &err);
	/* A full batch: the next round goes on where this one stopped. */
	if (gone < STORE_PRUNE_BATCH)
		sv->pruned_ms = now_ms;
	if (gone < 0) {
		sv->counters.store_errors++;
		log_error("life", "old results can't be deleted: %s", err.text);
	}
}
