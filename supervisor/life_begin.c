/*
 * life_begin.c - how prompts come to be: submitted by a client, or left in the
 * store by an earlier process.
 */
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/json_span.h"
#include "common/log.h"
#include "common/uuid.h"
#include "supervisor/life_impl.h"
#include "supervisor/position.h"
#include "supervisor/poster.h"
#include "supervisor/tell.h"

static void put_reply(struct buf *out, const char *id, struct span status)
{
	(void)buf_printf(out, "{\"prompt_id\":\"%s\",\"status\":\"%.*s\"}", id,
	                 (int)status.n, status.p);
}

/* --- the same prompt again ------------------------------------------------ */

static int taken(struct error *err)
{
	return error_set(err, ERR_INVALID, LIFE_BAD_ID);
}

static int again_active(struct supervisor *sv, struct peer *peer,
                        struct span id, struct prompt *p,
                        const struct life_submission *s, struct error *err)
{
	struct life_news none = {0};
	struct wait *w;

	if (p->tenant->uid != peer->creds.uid)
		return taken(err);
	w = wait_new(peer, id, p, &p->waiters);
	if (!w)
		return error_set_nomem(err, "request");
	if (s->subscribe)
		tell_hold(sv, w, s->previews);
	/* Else it waits for the same POST as the first request. */
	if (list_empty(&p->unanswered))
		life_reply(sv, p, &none);
	return 0;
}

struct again {
	uid_t uid;
	bool mine;
	struct buf reply;
};

static bool on_ended(void *user, const struct store_ended *e)
{
	struct again *a = user;
	struct json result;

	a->mine = e->uid == a->uid;
	if (a->mine &&
	    json_parse(&result, e->result.p, e->result.n, 0, NULL) == JSON_OK)
		put_reply(&a->reply, e->id,
		          json_raw_string(json_get(result, "status")));
	return false;
}

/* 1: it has ended before, and the request is answered; 0: it is new. */
static int again_ended(struct supervisor *sv, struct peer *peer, struct span id,
                       const struct life_submission *s, struct error *err)
{
	struct again a = {.uid = peer->creds.uid, .reply = BUF_INIT(1024)};
	bool found = false;
	int r;

	r = store_find_ended(sv->store, s->prompt_id, on_ended, &a, &found,
	                     err);
	if (r == 0 && found) {
		r = 1;
		if (!a.mine)
			r = taken(err);
		else if (!buf_ok(&a.reply) || a.reply.len == 0)
			r = error_set(err, ERR_INTERNAL,
			              "the stored result of %s can't be read",
			              s->prompt_id);
	}
	if (r == 1) {
		peer_reply(peer, id, span_make(a.reply.data, a.reply.len));
		if (s->subscribe)
			tell_snapshot_soon(sv, peer, s->prompt_id);
	}
	buf_deinit(&a.reply);
	return r;
}

/* --- a new one ------------------------------------------------------------ */

static int check_bounds(struct supervisor *sv, struct peer *peer,
                        const struct life_submission *s, struct error *err)
{
	size_t all = (size_t)sv->cfg.max_prompts;
	size_t max =
		peer->is_operator ? all : limit_less_reserve(&sv->cfg, all);

	if (sv->tracker.active >= max)
		return error_set(err, ERR_LIMIT,
		                 "%zu prompts are waiting or running "
		                 "(max_prompts); try again when some have "
		                 "ended",
		                 sv->tracker.active);
	if (peer_check_limit(peer, LIMIT_WORKFLOW, s->workflow.n, err) < 0 ||
	    peer_check_limit(peer, LIMIT_QUEUED, 1, err) < 0)
		return -1;
	if (s->subscribe &&
	    peer_check_limit(peer, LIMIT_SUBSCRIPTIONS, 1, err) < 0)
		return -1;
	/* One tenant's flood leaves room for the others. */
	if (!peer->is_operator &&
	    peer->tenant->prompt_count >= all / HUB_TENANT_SHARE)
		return error_set(err, ERR_LIMIT,
		                 "%zu prompts of yours are waiting or running, "
		                 "which is your share of max_prompts; try "
		                 "again when some have ended",
		                 peer->tenant->prompt_count);
	return 0;
}

/* A worker's successor may be here before its predecessor's bus is closed. */
static bool is_predecessor(const struct peer *old, const struct peer *peer)
{
	return peer->session &&
	       (!old->session || old->session == peer->session);
}

void life_count(struct prompt *p, struct peer *peer)
{
	struct peer *old;

	if (p->in_flight) {
		old = container_of(p->in_flight, struct peer, in_flight);
		if (old == peer || !is_predecessor(old, peer))
			return;
		old->in_flight--;
		list_del(&p->by_session);
	}
	p->in_flight = &peer->in_flight;
	peer->in_flight++;
	list_append(&peer->prompts, &p->by_session);
}

/* NULL with `err` set on failure. */
static struct prompt *create(struct supervisor *sv, struct peer *peer,
                             const struct life_submission *s,
                             const char *prompt_id, struct error *err)
{
	struct store_accept a = {
		.id = prompt_id,
		.uid = peer->creds.uid,
		.session = peer->session ? peer->session->id : "",
		.workflow = s->workflow,
		.extra_data = s->extra_data,
		.submitted_at = clock_epoch_ms(),
	};
	struct prompt *p =
		tracker_add(&sv->tracker, prompt_id, peer->creds.uid);

	if (!p) {
		error_set_nomem(err, "prompt");
		return NULL;
	}
	if (store_accept(sv->store, &a, &p->row, err) < 0) {
		sv->counters.store_errors++;
		log_error("life", "prompt not accepted: %s (prompt_id=%s)",
		          err->text, prompt_id);
		tracker_drop(&sv->tracker, p);
		return NULL;
	}
	p->submitted_at = a.submitted_at;
	life_count(p, peer);
	return p;
}

int life_submit(struct supervisor *sv, struct peer *peer, struct span id,
                const struct life_submission *s, struct error *err)
{
	const char *prompt_id = s->prompt_id;
	bool at_once = poster_has_room(sv);
	struct life_news none = {0};
	char fresh[UUID_LEN + 1];
	struct prompt *p;
	struct wait *w;
	int r;

	if (prompt_id) {
		p = tracker_find(&sv->tracker, prompt_id, UUID_LEN);
		if (p)
			return again_active(sv, peer, id, p, s, err);
		r = again_ended(sv, peer, id, s, err);
		if (r != 0)
			return r < 0 ? -1 : 0;
	} else {
		r = uuid_new(fresh);
		if (r < 0)
			return error_set_errno(err, r, "cannot make an id");
		prompt_id = fresh;
	}
	if (check_bounds(sv, peer, s, err) < 0)
		return -1;
	p = create(sv, peer, s, prompt_id, err);
	if (!p)
		return -1;
	sv->counters.accepted++;
	log_info("life", "prompt accepted (prompt_id=%s uid=%u client=%llu)",
	         prompt_id, (unsigned)peer->creds.uid,
	         (unsigned long long)peer->number);
	p->fsm.hold = s->hold;
	w = wait_new(peer, id, p, &p->waiters);
	if (w) {
		if (s->subscribe)
			tell_hold(sv, w, s->previews);
		list_append(&sv->poster.unanswered, &p->unanswered);
	} else {
		/* It is stored: it will run, even if nobody is told. */
		p->fsm.hold = true;
	}
	if (!at_once)
		life_reply(sv, p, &none);
	poster_kick_now(sv);
	positions_changed(sv);
	return 0;
}

/* --- left by an earlier process ------------------------------------------- */

struct restore {
	struct supervisor *sv;
	size_t count;
	bool failed;
};

static enum prompt_state prompt_state_of(enum store_state s)
{
	switch (s) {
	case STORE_POSTING:
		return PROMPT_POSTING;
	case STORE_SUBMITTED:
		return PROMPT_SUBMITTED;
	case STORE_ACCEPTED:
	case STORE_ENDED:
		break;
	}
	return PROMPT_ACCEPTED;
}

static bool on_active(void *user, const struct store_active *a)
{
	struct restore *r = user;
	enum prompt_state state = prompt_state_of(a->state);
	struct prompt *p;

	if (!a->id || !uuid_valid(a->id, strlen(a->id))) {
		log_warn("life", "the database has a prompt without a valid "
		                 "id, which is passed over");
		return true;
	}
	/* Its turn need not come, and whether ComfyUI has it all the same is
	 * found out at once. */
	if (a->cancelled && state == PROMPT_ACCEPTED)
		state = PROMPT_POSTING;
	p = tracker_restore(&r->sv->tracker, a->id, a->uid, state);
	if (!p) {
		r->failed = true;
		return false;
	}
	p->row = a->row;
	p->submitted_at = a->submitted_at;
	p->has_number = a->has_number;
	p->number = a->number;
	p->cancel_wanted = p->fsm.cancelled = a->cancelled;
	if (a->remote_id && strcmp(a->remote_id, a->id) != 0 &&
	    tracker_alias(&r->sv->tracker, p, a->remote_id) == -ENOMEM)
		r->failed = true;
	r->count++;
	return !r->failed;
}

int life_restore(struct supervisor *sv, struct error *err)
{
	struct restore r = {.sv = sv};

	if (store_each_active(sv->store, on_active, &r, err) < 0)
		return -1;
	if (r.failed)
		return error_set_nomem(err, "prompts of the database");
	if (r.count > 0)
		log_info("life",
		         "taken over from an earlier process "
		         "(prompts=%zu waiting=%zu)",
		         r.count, sv->tracker.queue.waiting);
	return 0;
}
