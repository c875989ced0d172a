/*
 * ops.c - see ops.h: dispatch, and the ops that change something. Those that
 * only read are in ops_query.c.
 */
#include "supervisor/ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/version.h"
#include "common/workflow.h"
#include "supervisor/life.h"
#include "supervisor/poster.h"
#include "supervisor/tell.h"

/* --- helpers -------------------------------------------------------------- */

static void reply_buf(struct peer *peer, const struct request *req,
                      struct buf *result)
{
	struct error err = ERROR_NULL;

	if (buf_ok(result)) {
		peer_reply(peer, req->id, span_make(result->data, result->len));
	} else {
		error_set_nomem(&err, "reply");
		peer_refuse(peer, req->id, &err, SPAN_NULL);
	}
	buf_deinit(result);
}

static void put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static int not_found(struct error *err)
{
	return error_set(err, ERR_NOT_FOUND, "there is no such prompt");
}

int ops_prompt_id(const struct request *req, char id[UUID_LEN + 1],
                  struct error *err)
{
	struct json j = request_field(req, "prompt_id");
	struct span raw = json_raw_string(j);

	/* All ids are UUIDs, whose letters nobody needs to escape. */
	if (!raw.p || !uuid_valid(raw.p, raw.n))
		return not_found(err);
	memcpy(id, raw.p, raw.n);
	id[raw.n] = '\0';
	return 0;
}

struct prompt *ops_find(struct supervisor *sv, const struct peer *peer,
                        const struct request *req, struct error *err)
{
	char id[UUID_LEN + 1];
	struct prompt *p;

	if (ops_prompt_id(req, id, err) < 0)
		return NULL;
	p = tracker_find(&sv->tracker, id, UUID_LEN);
	if (p && may_see(peer->creds.uid, peer->is_operator, p->tenant->uid))
		return p;
	not_found(err);
	return NULL;
}

/* Found in the store: it has ended. */
struct ended_lookup {
	const struct peer *peer;
	bool visible;
};

static bool on_ended(void *user, const struct store_ended *e)
{
	struct ended_lookup *l = user;

	l->visible = may_see(l->peer->creds.uid, l->peer->is_operator, e->uid);
	return false;
}

/* 0 if the client may see an ended prompt of that id. */
static int find_ended(struct supervisor *sv, const struct peer *peer,
                      const char *id, struct error *err)
{
	struct ended_lookup l = {.peer = peer};
	bool found;

	if (store_find_ended(sv->store, id, on_ended, &l, &found, err) < 0)
		return -1;
	return l.visible ? 0 : not_found(err);
}

/* --- the conversation ----------------------------------------------------- */

static void put_comfyui(struct supervisor *sv, struct buf *out)
{
	(void)buf_json_key(out, "comfyui");
	(void)buf_puts(out, "{\"url\":");
	(void)buf_json_string(out, sv->url_text.data, sv->url_text.len);
	put_string(out, "state",
	           upstream_state_name(upstream_state(sv->upstream)));
	(void)buf_putc(out, '}');
}

static int op_hello(struct supervisor *sv, struct peer *peer,
                    const struct request *req, struct error *err)
{
	struct json name = request_field(req, "client");
	struct buf out = BUF_INIT(LINE_MAX_BYTES);
	char *text = json_string_dup(name, HUB_NAME_MAX);

	if (text) {
		memcpy(peer->name, text, strlen(text) + 1);
		log_debug("ops", "hello (client=%llu name=%s)",
		          (unsigned long long)peer->number,
		          log_safe(text, strlen(text)));
	}
	free(text);
	peer->greeted = true;
	(void)buf_putc(&out, '{');
	put_string(&out, "version", comfymux_version);
	(void)buf_printf(&out, ",\"protocol\":%d", MESSAGE_PROTOCOL);
	put_string(&out, "epoch", sv->epoch);
	(void)buf_printf(&out, ",\"pid\":%d,\"uid\":%u,\"operator\":%s",
	                 (int)getpid(), (unsigned)peer->creds.uid,
	                 peer->is_operator ? "true" : "false");
	put_comfyui(sv, &out);
	(void)buf_printf(&out, ",\"line_max\":%u}", LINE_MAX_BYTES);
	reply_buf(peer, req, &out);
	return 0;
}

static int op_ping(struct supervisor *sv, struct peer *peer,
                   const struct request *req, struct error *err)
{
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

static const char *kind_of(struct json j)
{
	static const char *const kinds[] = {"mcp", "batch", "chain", "run"};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (json_string_eq(j, kinds[i]))
			return kinds[i];
	}
	return NULL;
}

/* A session that means another ComfyUI would be served by the wrong one. */
static int check_comfyui(struct supervisor *sv, const struct request *req,
                         struct error *err)
{
	struct json j = request_field(req, "comfyui");
	struct error why = ERROR_NULL;
	struct url url;
	char *text;
	int r = 0;

	if (json_is(j, JSON_NONE))
		return 0;
	text = json_string_dup(j, URL_TEXT_MAX);
	if (!text || url_parse(&url, text, &why) < 0)
		r = error_set(err, ERR_INVALID, "\"comfyui\": %s",
		              text ? why.text : "not a URL");
	else if (!url_eq(&url, &sv->url))
		r = error_set(err, ERR_CONFIG,
		              "this supervisor serves %.*s, the session wants "
		              "%s",
		              (int)sv->url_text.len, sv->url_text.data, text);
	free(text);
	return r;
}

static int put_attached(struct supervisor *sv, const struct peer *peer,
                        struct buf *out)
{
	(void)buf_putc(out, '{');
	put_string(out, "session", peer->session->id);
	(void)buf_puts(out, ",\"comfyui\":{\"url\":");
	(void)buf_json_string(out, sv->url_text.data, sv->url_text.len);
	put_string(out, "address", upstream_address(sv->upstream));
	/* Who connects with it takes everybody's events: on a shared
	 * supervisor a tenant goes on alone with one of his own. */
	put_string(out, "client_id",
	           session_is_operator(peer->session) ? sv->state_dir.client_id
	                                              : "");
	return buf_printf(out, "},\"sessions\":%zu,\"poll_interval_ms\":%lld}",
	                  sv->nursery.attached,
	                  (long long)sv->cfg.poll_interval_ms);
}

void ops_attached(struct supervisor *sv, struct peer *peer, struct span id,
                  int fd_)
{
	struct buf result = BUF_INIT(LINE_MAX_BYTES);
	struct buf line = BUF_INIT(LINE_MAX_BYTES);
	cleanup_close int fd = fd_;
	struct span text;
	struct frame *f = NULL;

	if (put_attached(sv, peer, &result) == 0 && buf_ok(&result)) {
		text = span_make(result.data, result.len);
		if ((fd >= 0 ? reply_ok_fd(&line, id, text)
		             : reply_ok(&line, id, text)) == 0)
			f = frame_new(line.data, line.len, fd);
	}
	if (f) {
		(void)steal_fd(&fd); /* the frame's now */
		peer_send(peer, f);
	} else {
		peer->closing = true; /* an answer would be missing */
		peer_touch(peer);
	}
	frame_unref(f);
	buf_deinit(&result);
	buf_deinit(&line);
}

/* Who is to work for the session. */
static int read_host(const struct request *req, enum session_host *hostp,
                     struct error *err)
{
	struct json j = request_field(req, "worker");

	if (json_is(j, JSON_NONE))
		*hostp = SESSION_SELF;
	else if (json_string_eq(j, "fork"))
		*hostp = SESSION_FORKED;
	else if (json_string_eq(j, "keep"))
		*hostp = SESSION_ADOPTED;
	else
		return error_set(err, ERR_INVALID,
		                 "\"worker\" must be fork or keep");
	return 0;
}

static int op_attach(struct supervisor *sv, struct peer *peer,
                     const struct request *req, struct error *err)
{
	struct nursery_wish wish = {
		.kind = kind_of(request_field(req, "kind"))};
	char *session;
	int r;

	if (!wish.kind)
		return error_set(err, ERR_INVALID,
		                 "\"kind\" must be mcp, batch, chain or run");
	if (check_comfyui(sv, req, err) < 0 ||
	    read_host(req, &wish.host, err) < 0)
		return -1;
	if (peer->is_bus) {
		if (nursery_bus_attached(&sv->nursery, peer, err) < 0)
			return -1;
		ops_attached(sv, peer, req->id, -1);
		return 0;
	}
	session =
		json_string_dup(request_field(req, "session"), NURSERY_ID_MAX);
	wish.session = session ? session : "";
	r = nursery_attach(&sv->nursery, peer, req->id, &wish, err);
	free(session);
	return r;
}

static int op_restart_workers(struct supervisor *sv, struct peer *peer,
                              const struct request *req, struct error *err)
{
	struct json j = request_field(req, "session");
	cleanup_free char *id = json_string_dup(j, NURSERY_ID_MAX);
	struct session *s = id ? nursery_find(&sv->nursery, id) : NULL;
	struct buf out = BUF_INIT(64);

	if (!json_is(j, JSON_NONE) &&
	    (!s || !may_see(peer->creds.uid, peer->is_operator, s->uid)))
		return error_set(err, ERR_NOT_FOUND,
		                 "there is no such session");
	(void)buf_printf(&out, "{\"workers\":%zu}",
	                 nursery_restart(&sv->nursery, peer, s));
	reply_buf(peer, req, &out);
	return 0;
}

/* --- prompts -------------------------------------------------------------- */

static bool flag(const struct request *req, const char *name)
{
	bool value = false;

	(void)json_bool(request_field(req, name), &value);
	return value;
}

static int op_submit(struct supervisor *sv, struct peer *peer,
                     const struct request *req, struct error *err)
{
	struct json workflow = request_field(req, "workflow"), checked;
	struct json extra = request_field(req, "extra_data");
	struct json given = request_field(req, "prompt_id");
	struct life_submission s = {0};
	char id[UUID_LEN + 1];

	if (!json_is(given, JSON_NONE)) {
		if (ops_prompt_id(req, id, NULL) < 0)
			return error_set(err, ERR_INVALID, LIFE_BAD_ID);
		s.prompt_id = id;
	}
	if (sv->stopping)
		return error_set(err, ERR_BUSY, "the supervisor is stopping");
	if (workflow_parse(&checked, workflow.text.p, workflow.text.n,
	                   "workflow", err) < 0)
		return -1;
	s.workflow = checked.text;
	s.extra_data = extra.text;
	s.hold = flag(req, "hold");
	s.subscribe = flag(req, "subscribe");
	s.previews = flag(req, "previews");
	return life_submit(sv, peer, req->id, &s, err);
}

static int op_cancel(struct supervisor *sv, struct peer *peer,
                     const struct request *req, struct error *err)
{
	struct prompt *p = ops_find(sv, peer, req, err);
	char id[UUID_LEN + 1];

	if (p)
		return life_cancel(sv, peer, req->id, p, err);
	if (ops_prompt_id(req, id, err) < 0 ||
	    find_ended(sv, peer, id, err) < 0)
		return -1;
	peer_reply(peer, req->id, SPAN("{\"how\":\"ended\"}"));
	return 0;
}

/* --- subscriptions -------------------------------------------------------- */

static int too_many(int r, struct error *err)
{
	if (r == -ENOBUFS)
		return error_set(err, ERR_LIMIT,
		                 "a connection has at most %d subscriptions; "
		                 "subscribe without prompt_id to all at once",
		                 SUBSCRIPTIONS_MAX);
	return error_set_nomem(err, "subscription");
}

/* One more, unless it stands already. */
static int check_subscriptions(struct peer *peer, const struct subject *s,
                               struct error *err)
{
	return subscription_stands(s, &peer->subscriber)
	               ? 0
	               : peer_check_limit(peer, LIMIT_SUBSCRIPTIONS, 1, err);
}

static void reply_count(struct peer *peer, const struct request *req, size_t n)
{
	struct buf out = BUF_INIT(64);

	(void)buf_printf(&out, "{\"prompts\":%zu}", n);
	reply_buf(peer, req, &out);
}

static struct subject *all_of(struct supervisor *sv, struct peer *peer)
{
	return peer->is_operator ? &sv->tracker.everything : &peer->tenant->all;
}

/* What the request says of previews; nothing leaves it as it was. `id` is
 * NULL: of all prompts. */
static void take_previews(struct supervisor *sv, struct peer *peer,
                          struct subject *s, const char *id,
                          const struct request *req)
{
	bool wanted;

	if (!json_bool(request_field(req, "previews"), &wanted))
		return;
	subscription_set_previews(s, &peer->subscriber, wanted);
	if (!subscription_has_previews(all_of(sv, peer), &peer->subscriber) &&
	    !wanted)
		previews_forget(peer, id);
}

static int subscribe_one(struct supervisor *sv, struct peer *peer,
                         const struct request *req, struct error *err)
{
	struct prompt *p = ops_find(sv, peer, req, err);
	char id[UUID_LEN + 1];
	int r;

	if (!p) {
		if (ops_prompt_id(req, id, err) < 0 ||
		    find_ended(sv, peer, id, err) < 0)
			return -1;
		reply_count(peer, req, 1);
		tell_snapshot_soon(sv, peer, id);
		return 0;
	}
	/* Before the reply, which can't be taken back. */
	if (!p->finished) {
		if (check_subscriptions(peer, &p->subject, err) < 0)
			return -1;
		r = subscription_add(&p->subject, &peer->subscriber);
		if (r != 0)
			return too_many(r, err);
		take_previews(sv, peer, &p->subject, p->id, req);
		/* A worker comes back to what it, or its predecessor, had
		 * submitted. */
		if (peer->session)
			life_count(p, peer);
	}
	life_told(p);
	reply_count(peer, req, 1);
	tell_snapshot_soon(sv, peer, p->id);
	return 0;
}

static struct job *named_job(struct supervisor *sv, struct peer *peer,
                             const struct request *req, struct error *err)
{
	cleanup_free char *id =
		json_string_dup(request_field(req, "job"), JOBS_ID_MAX);

	return jobs_find(&sv->jobs, peer, id ? id : "", err);
}

static int subscribe_job(struct supervisor *sv, struct peer *peer,
                         const struct request *req, struct error *err)
{
	struct job *job = named_job(sv, peer, req, err);
	int r = 0;

	if (!job)
		return -1;
	if (job->state != JOB_OVER) {
		if (check_subscriptions(peer, &job->subject, err) < 0)
			return -1;
		r = subscription_add(&job->subject, &peer->subscriber);
	}
	if (r != 0)
		return too_many(r, err);
	reply_count(peer, req, 0);
	(void)tell_job_state(sv, peer, job->id);
	return 0;
}

static int unsubscribe_job(struct supervisor *sv, struct peer *peer,
                           const struct request *req, struct error *err)
{
	struct job *job = named_job(sv, peer, req, err);

	if (!job)
		return -1;
	(void)subscription_remove(&job->subject, &peer->subscriber);
	client_queue_unwant(&peer->queue, job->id);
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

/* The snapshots of a tenant's prompts, or (tenant NULL) their number. */
static size_t snapshots_of(struct supervisor *sv, struct peer *peer,
                           struct tenant *tenant, bool send)
{
	struct list *it;
	struct prompt *p;

	if (!send)
		return tenant->prompt_count;
	list_for_each (it, &tenant->prompts) {
		p = list_entry(it, struct prompt, by_tenant);
		tell_snapshot_soon(sv, peer, p->id);
	}
	return tenant->prompt_count;
}

/* Over all tenants that the client may see. */
static size_t visible(struct supervisor *sv, struct peer *peer, bool send)
{
	size_t i, n = 0;

	if (!peer->is_operator)
		return snapshots_of(sv, peer, peer->tenant, send);
	map_for_each (i, &sv->tracker.tenants) {
		n += snapshots_of(sv, peer, sv->tracker.tenants.slots[i].value,
		                  send);
	}
	return n;
}

static int op_subscribe(struct supervisor *sv, struct peer *peer,
                        const struct request *req, struct error *err)
{
	size_t n;
	int r;

	if (!json_is(request_field(req, "job"), JSON_NONE))
		return subscribe_job(sv, peer, req, err);
	if (!json_is(request_field(req, "prompt_id"), JSON_NONE))
		return subscribe_one(sv, peer, req, err);
	n = visible(sv, peer, false);
	if (n > CLIENT_QUEUE_DUE_MAX)
		return error_set(err, ERR_LIMIT,
		                 "%zu prompts are too many to subscribe to at "
		                 "once (%d); subscribe to single ones",
		                 n, CLIENT_QUEUE_DUE_MAX);
	if (check_subscriptions(peer, all_of(sv, peer), err) < 0)
		return -1;
	r = subscription_add(all_of(sv, peer), &peer->subscriber);
	if (r != 0)
		return too_many(r, err);
	take_previews(sv, peer, all_of(sv, peer), NULL, req);
	reply_count(peer, req, n);
	(void)visible(sv, peer, true);
	return 0;
}

static int op_unsubscribe(struct supervisor *sv, struct peer *peer,
                          const struct request *req, struct error *err)
{
	char id[UUID_LEN + 1];
	struct prompt *p;

	if (!json_is(request_field(req, "job"), JSON_NONE))
		return unsubscribe_job(sv, peer, req, err);
	if (json_is(request_field(req, "prompt_id"), JSON_NONE)) {
		subscriber_clear(&peer->subscriber);
		client_queue_forget_due(&peer->queue);
		previews_forget(peer, NULL);
		peer_reply(peer, req->id, SPAN_NULL);
		return 0;
	}
	if (ops_prompt_id(req, id, err) < 0)
		return -1;
	p = ops_find(sv, peer, req, err);
	/* One that is over has no subscriptions any more. */
	if (!p && find_ended(sv, peer, id, err) < 0)
		return -1;
	if (p)
		(void)subscription_remove(&p->subject, &peer->subscriber);
	if (!subscription_stands(all_of(sv, peer), &peer->subscriber))
		client_queue_unwant(&peer->queue, id);
	if (!subscription_has_previews(all_of(sv, peer), &peer->subscriber))
		previews_forget(peer, id);
	peer_reply(peer, req->id, SPAN_NULL);
	return 0;
}

static int op_preview_ack(struct supervisor *sv, struct peer *peer,
                          const struct request *req, struct error *err)
{
	peer_reply(peer, req->id, SPAN_NULL);
	previews_ack(peer);
	return 0;
}

/* --- the link ------------------------------------------------------------- */

static int op_reconnect(struct supervisor *sv, struct peer *peer,
                        const struct request *req, struct error *err)
{
	struct buf out = BUF_INIT(128);

	log_info("ops", "reconnect asked (uid=%u)", (unsigned)peer->creds.uid);
	upstream_reconnect(sv->upstream, "asked for by an operator");
	(void)buf_putc(&out, '{');
	put_string(&out, "state",
	           upstream_state_name(upstream_state(sv->upstream)));
	(void)buf_putc(&out, '}');
	reply_buf(peer, req, &out);
	return 0;
}

/* --- pausing -------------------------------------------------------------- */

static int set_paused(struct supervisor *sv, struct peer *peer,
                      const struct request *req, bool paused, struct error *err)
{
	size_t waiting = sv->tracker.queue.waiting;
	struct buf out = BUF_INIT(64);

	log_info("ops", "%s asked (uid=%u)", op_table[req->op].name,
	         (unsigned)peer->creds.uid);
	if (poster_set_paused(sv, paused, err) < 0)
		return -1;
	(void)buf_printf(&out, "{\"paused\":%s,\"waiting\":%zu}",
	                 sv->paused ? "true" : "false", waiting);
	reply_buf(peer, req, &out);
	return 0;
}

static int op_pause(struct supervisor *sv, struct peer *peer,
                    const struct request *req, struct error *err)
{
	return set_paused(sv, peer, req, true, err);
}

static int op_resume(struct supervisor *sv, struct peer *peer,
                     const struct request *req, struct error *err)
{
	return set_paused(sv, peer, req, false, err);
}

/* --- dispatch ------------------------------------------------------------- */

static op_handler *const handlers[] = {
	[OP_HELLO] = op_hello,
	[OP_ATTACH] = op_attach,
	[OP_SUBMIT] = op_submit,
	[OP_SUBSCRIBE] = op_subscribe,
	[OP_UNSUBSCRIBE] = op_unsubscribe,
	[OP_PREVIEW_ACK] = op_preview_ack,
	[OP_PROGRESS] = ops_progress,
	[OP_QUEUE] = ops_queue,
	[OP_HISTORY] = ops_history,
	[OP_STATUS] = ops_status,
	[OP_METRICS] = ops_metrics,
	[OP_CANCEL] = op_cancel,
	[OP_RECONNECT] = op_reconnect,
	[OP_PAUSE] = op_pause,
	[OP_RESUME] = op_resume,
	[OP_RESTART_WORKERS] = op_restart_workers,
	[OP_JOB_CREATE] = ops_job_create,
	[OP_JOB_ADD] = ops_job_add,
	[OP_JOB_START] = ops_job_start,
	[OP_JOBS] = ops_jobs,
	[OP_JOB] = ops_job,
	[OP_JOB_CANCEL] = ops_job_cancel,
	[OP_JOB_TAKE] = ops_job_take,
	[OP_JOB_ITEM] = ops_job_item,
	[OP_JOB_INTENT] = ops_job_intent,
	[OP_JOB_RESULT] = ops_job_result,
	[OP_JOB_PROGRESS] = ops_job_progress,
	[OP_JOB_END] = ops_job_end,
	[OP_PING] = op_ping,
};
STATIC_ASSERT_ARRAY_SIZE(handlers, OP_COUNT);

static int check_permit(const struct peer *peer, enum op op, struct error *err)
{
	switch (op_table[op].permit) {
	case PERMIT_ANY:
		return 0;
	case PERMIT_OPERATOR:
	case PERMIT_USER:
		break;
	}
	if (!peer->greeted)
		return error_set(err, ERR_DENIED,
		                 "say hello first: {\"op\":\"hello\"}");
	if (op_table[op].permit == PERMIT_OPERATOR && !peer->is_operator)
		return error_set(err, ERR_DENIED,
		                 "%s is for operators: root, the supervisor's "
		                 "own user, members of operator_group",
		                 op_table[op].name);
	return 0;
}

void ops_line(struct supervisor *sv, struct peer *peer, struct span line)
{
	struct error err = ERROR_NULL;
	struct request req;

	sv->counters.requests++;
	if (request_parse(&req, line.p, line.n, &err) < 0) {
		sv->counters.bad_requests++;
		peer_refuse(peer, req.id, &err, SPAN_NULL);
		return;
	}
	if (check_permit(peer, req.op, &err) < 0 ||
	    handlers[req.op](sv, peer, &req, &err) < 0)
		peer_refuse(peer, req.id, &err, SPAN_NULL);
}
