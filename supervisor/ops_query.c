/*
 * ops_query.c - the ops that only read: progress, queue, history, status.
 */
#include <ctype.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/version.h"
#include "supervisor/life.h"
#include "supervisor/metrics.h"
#include "supervisor/ops.h"
#include "supervisor/position.h"
#include "supervisor/tell.h"

int ops_answer(struct peer *peer, const struct request *req, struct buf *out,
               struct error *err)
{
	int r = 0;

	if (buf_ok(out))
		peer_reply(peer, req->id, span_make(out->data, out->len));
	else
		r = error_set_nomem(err, "reply");
	buf_deinit(out);
	return r;
}

static void put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static bool sees(const struct peer *peer, const struct tenant *t)
{
	return may_see(peer->creds.uid, peer->is_operator, t->uid);
}

/* --- progress ------------------------------------------------------------- */

struct lookup {
	struct peer *peer;
	const struct request *req;
	bool answered;
};

static bool on_ended(void *user, const struct store_ended *e)
{
	struct lookup *l = user;

	if (!may_see(l->peer->creds.uid, l->peer->is_operator, e->uid))
		return false;
	peer_reply(l->peer, l->req->id, e->result);
	l->answered = true;
	return false;
}

int ops_progress(struct supervisor *sv, struct peer *peer,
                 const struct request *req, struct error *err)
{
	struct lookup l = {.peer = peer, .req = req};
	struct prompt *p = ops_find(sv, peer, req, err);
	char id[UUID_LEN + 1];
	bool found;

	if (p) {
		life_told(p);
		peer_reply(peer, req->id, tell_progress(sv, p, 0));
		return 0;
	}
	if (ops_prompt_id(req, id, err) < 0)
		return -1;
	if (store_find_ended(sv->store, id, on_ended, &l, &found, err) < 0)
		return -1;
	return l.answered ? 0
	                  : error_set(err, ERR_NOT_FOUND,
	                              "there is no such prompt");
}

/* --- queue ---------------------------------------------------------------- */

struct queue_list {
	struct supervisor *sv;
	const struct peer *peer;
	struct buf *out;
	size_t mine, named;
	bool running; /* those that run, else those that wait */
};

static void put_queued(struct queue_list *l, const struct prompt *p)
{
	const struct cmx_progress *c = progress_get(p->progress);

	if (!sees(l->peer, p->tenant) ||
	    (p->fsm.state == PROMPT_EXECUTING) != l->running)
		return;
	l->mine++;
	if (l->named >= OPS_QUEUE_MAX)
		return;
	if (l->named++ > 0)
		(void)buf_putc(l->out, ',');
	(void)buf_printf(l->out, "{\"prompt_id\":\"%s\",\"status\":\"%s\"",
	                 p->id, cmx_status_name(c->status));
	if (c->queue_position >= 0)
		(void)buf_printf(l->out, ",\"queue_position\":%lld",
		                 (long long)c->queue_position);
	(void)buf_printf(l->out, ",\"submitted_at\":%lld}",
	                 (long long)p->submitted_at);
}

static void put_outstanding(struct queue_list *l)
{
	struct list *it;

	list_for_each (it, &l->sv->tracker.outstanding) {
		put_queued(l, list_entry(it, struct prompt, by_post));
	}
}

static bool put_waiting(void *user, struct queue_entry *e)
{
	put_queued(user, container_of(e, struct prompt, turn));
	return true;
}

int ops_queue(struct supervisor *sv, struct peer *peer,
              const struct request *req, struct error *err)
{
	struct buf out = BUF_INIT(LINE_MAX_BYTES);
	struct queue_list l = {
		.sv = sv, .peer = peer, .out = &out, .running = true};

	(void)buf_puts(&out, "{\"running\":[");
	put_outstanding(&l);
	(void)buf_puts(&out, "],\"pending\":[");
	l.running = false;
	l.named = 0;
	put_outstanding(&l);
	queue_walk(&sv->tracker.queue, put_waiting, &l);
	(void)buf_printf(&out, "],\"others\":%zu}",
	                 positions_foreign(sv) + sv->tracker.active - l.mine);
	return ops_answer(peer, req, &out, err);
}

/* --- history -------------------------------------------------------------- */

struct history_list {
	struct supervisor *sv;
	const struct peer *peer;
	struct buf *out;
	size_t count, limit;
	/* Only what mentions this; {NULL,0}: everything. */
	struct span needle;
	size_t looked; /* at ended ones, for it */
};

/* The letters and digits at one place of a file's name, as many as there are:
 * what is never escaped, however the name was written. */
static struct span plain_part(struct span name)
{
	struct span best = SPAN_NULL;
	size_t start = 0;

	for (size_t i = 0; i <= name.n; i++) {
		if (i < name.n && isalnum((unsigned char)name.p[i]) &&
		    (unsigned char)name.p[i] < 0x80)
			continue;
		if (i - start > best.n)
			best = span_make(name.p + start, i - start);
		start = i + 1;
	}
	return best;
}

static bool mentions(const struct history_list *l, struct span text)
{
	return l->needle.n == 0 ||
	       memmem(text.p, text.n, l->needle.p, l->needle.n);
}

/* An ExecutionProgress with its times. */
static void put_past(struct history_list *l, struct span progress,
                     int64_t submitted_at, int64_t ended_at)
{
	if (progress.n < 2 || l->count >= l->limit || !mentions(l, progress))
		return;
	if (l->count++ > 0)
		(void)buf_putc(l->out, ',');
	(void)buf_append(l->out, progress.p, progress.n - 1);
	(void)buf_printf(l->out, ",\"submitted_at\":%lld",
	                 (long long)submitted_at);
	if (ended_at > 0)
		(void)buf_printf(l->out, ",\"ended_at\":%lld",
		                 (long long)ended_at);
	(void)buf_putc(l->out, '}');
}

static bool roomy(const struct history_list *l)
{
	return l->out->len < OPS_HISTORY_BYTES;
}

static void put_present(struct history_list *l, const struct prompt *p)
{
	put_past(l,
	         tell_progress(l->sv, p,
	                       roomy(l) ? 0 : PROGRESS_JSON_NO_OUTPUTS),
	         p->submitted_at, p->ended_at);
}

/* Of those that ComfyUI has, the ones in `state`. */
static void put_in_state(struct history_list *l, enum prompt_state state)
{
	struct list *it;
	struct prompt *p;

	list_for_each (it, &l->sv->tracker.outstanding) {
		p = list_entry(it, struct prompt, by_post);
		if (p->fsm.state == state && sees(l->peer, p->tenant))
			put_present(l, p);
		if (l->count >= l->limit)
			return;
	}
}

static bool put_turn(void *user, struct queue_entry *e)
{
	struct prompt *p = container_of(e, struct prompt, turn);
	struct history_list *l = user;

	if (sees(l->peer, p->tenant))
		put_present(l, p);
	return l->count < l->limit;
}

/* Running first, then what waits. */
static void put_active(struct history_list *l)
{
	static const enum prompt_state order[] = {
		PROMPT_EXECUTING, PROMPT_SUBMITTED, PROMPT_CHECKING,
		PROMPT_POSTING};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		put_in_state(l, order[i]);
	if (l->count < l->limit)
		queue_walk(&l->sv->tracker.queue, put_turn, l);
}

/* Ended, and the store could not take them yet; the newest first. */
static void put_unsaved(struct history_list *l)
{
	struct list *it;
	struct prompt *p;

	for (it = l->sv->unsaved.prev; it != &l->sv->unsaved; it = it->prev) {
		p = list_entry(it, struct prompt, unsaved);
		if (sees(l->peer, p->tenant))
			put_present(l, p);
	}
}

/* The stored text without its outputs. */
static void put_stored_lean(struct history_list *l, const struct store_ended *e)
{
	struct buf lean = BUF_INIT(LINE_MAX_BYTES);
	struct json j;

	if (json_parse(&j, e->result.p, e->result.n, 0, NULL) == JSON_OK &&
	    json_object_set(&lean, j, SPAN("outputs"), SPAN("{}")) == 0)
		put_past(l, span_make(lean.data, lean.len), e->submitted_at,
		         e->ended_at);
	buf_deinit(&lean);
}

static bool on_past(void *user, const struct store_ended *e)
{
	struct history_list *l = user;

	if (roomy(l) && e->result.n < OPS_HISTORY_BYTES)
		put_past(l, e->result, e->submitted_at, e->ended_at);
	else
		put_stored_lean(l, e);
	return buf_ok(l->out) && l->count < l->limit;
}

/* Looks for a name: stops, to be asked on, when it has looked at enough or
 * told enough. */
static bool on_searched(void *user, const struct store_ended *e)
{
	struct history_list *l = user;

	l->looked++;
	put_past(l, e->result, e->submitted_at, e->ended_at);
	return buf_ok(l->out) && l->count < l->limit && roomy(l);
}

static int search(struct history_list *l, const uid_t *who,
                  const struct request *req, struct error *err)
{
	struct json name = request_field(req, "filename");
	cleanup_buf struct buf text = BUF_INIT(LINE_MAX_BYTES);
	uint64_t from = 0;
	int r;

	if (json_string_decode(name, &text) < 0)
		return error_set_nomem(err, "a file's name");
	l->needle = plain_part(span_make(text.data, text.len));
	if (!json_uint64(request_field(req, "from"), &from))
		from = 0;
	if (from == 0) {
		put_in_state(l, PROMPT_EXECUTING);
		put_unsaved(l);
	}
	if (l->count >= l->limit) {
		(void)buf_puts(l->out, "]}");
		return 0;
	}
	r = store_each_ended(l->sv->store, who, from, OPS_SEARCH_MAX,
	                     on_searched, l, err);
	(void)buf_putc(l->out, ']');
	if (l->looked > 0 &&
	    (l->looked == OPS_SEARCH_MAX || l->count >= l->limit || !roomy(l)))
		(void)buf_printf(l->out, ",\"next\":%llu",
		                 (unsigned long long)from + l->looked);
	(void)buf_putc(l->out, '}');
	return r;
}

int ops_history(struct supervisor *sv, struct peer *peer,
                const struct request *req, struct error *err)
{
	struct json j = request_field(req, "limit");
	struct buf out = BUF_INIT(2 * (size_t)LINE_MAX_BYTES);
	const uid_t *who = peer->is_operator ? NULL : &peer->creds.uid;
	int64_t limit = OPS_HISTORY_DEFAULT;
	struct history_list l = {.sv = sv, .peer = peer, .out = &out};

	if (!json_is(j, JSON_NONE) &&
	    (!json_int64(j, &limit) || limit < 1 || limit > OPS_HISTORY_MAX))
		return error_set(err, ERR_INVALID, "\"limit\" must be 1 to %d",
		                 OPS_HISTORY_MAX);
	l.limit = (size_t)limit;
	(void)buf_puts(&out, "{\"prompts\":[");
	if (!json_is(request_field(req, "filename"), JSON_NONE)) {
		if (search(&l, who, req, err) == 0)
			return ops_answer(peer, req, &out, err);
		buf_deinit(&out);
		return -1;
	}
	put_active(&l);
	put_unsaved(&l);
	if (l.count < l.limit &&
	    store_each_ended(sv->store, who, 0, (unsigned)(l.limit - l.count),
	                     on_past, &l, err) < 0) {
		buf_deinit(&out);
		return -1;
	}
	(void)buf_puts(&out, "]}");
	return ops_answer(peer, req, &out, err);
}

/* --- status --------------------------------------------------------------- */

static void put_upstream(struct supervisor *sv, const struct peer *peer,
                         struct buf *out)
{
	const char *why = upstream_last_error(sv->upstream);

	(void)buf_json_key(out, "upstream");
	(void)buf_puts(out, "{\"url\":");
	(void)buf_json_string(out, sv->url_text.data, sv->url_text.len);
	put_string(out, "state",
	           upstream_state_name(upstream_state(sv->upstream)));
	if (peer->is_operator)
		put_string(out, "client_id", sv->state_dir.client_id);
	(void)buf_printf(out, ",\"reconnects\":%llu",
	                 (unsigned long long)upstream_reconnects(sv->upstream));
	if (why[0] != '\0' && !supervisor_link_up(sv))
		put_string(out, "last_error", why);
	(void)buf_putc(out, '}');
}

static void put_session(const struct session *s, struct buf *out)
{
	(void)buf_putc(out, '{');
	put_string(out, "id", s->id);
	put_string(out, "kind", s->kind);
	(void)buf_printf(
		out,
		",\"pid\":%d,\"keeper_pid\":%d,\"uid\":%u,"
		"\"in_flight\":%zu,\"restarts\":%u}",
		(int)session_pid(s), s->keeper ? (int)s->keeper->creds.pid : 0,
		(unsigned)s->uid, s->bus ? s->bus->in_flight : 0, s->restarts);
}

/* Those whose keeper is gone are over; only their workers are still about to
 * leave. */
static void put_sessions(struct supervisor *sv, const struct peer *peer,
                         struct buf *out)
{
	struct session *s;
	struct list *it;
	size_t n = 0;

	(void)buf_json_key(out, "sessions");
	(void)buf_putc(out, '[');
	list_for_each (it, &sv->nursery.sessions) {
		s = list_entry(it, struct session, link);
		if ((!s->keeper && !s->job) ||
		    !may_see(peer->creds.uid, peer->is_operator, s->uid))
			continue;
		if (n++ > 0)
			(void)buf_putc(out, ',');
		put_session(s, out);
	}
	(void)buf_putc(out, ']');
}

/* Connections with a subscription. */
static size_t count_subscribers(struct supervisor *sv, const struct peer *peer)
{
	size_t subscribers = 0;
	struct list *it;
	struct peer *p;

	list_for_each (it, &sv->hub.peers) {
		p = list_entry(it, struct peer, link);
		subscribers += p->subscriber.count > 0 &&
		               may_see(peer->creds.uid, peer->is_operator,
		                       p->creds.uid);
	}
	return subscribers;
}

/* Prompts on ComfyUI and running, waiting anywhere, ended. */
static void put_prompts(struct supervisor *sv, const struct peer *peer,
                        struct buf *out)
{
	const uid_t *who = peer->is_operator ? NULL : &peer->creds.uid;
	uint64_t running = 0, waiting = 0;
	uint64_t ended = store_count_ended(sv->store, who);
	struct list *it;
	struct prompt *p;

	if (peer->is_operator) {
		running = sv->tracker.executing_count;
		waiting = sv->tracker.active - running;
		ended += sv->unsaved_count;
	} else {
		list_for_each (it, &peer->tenant->prompts) {
			p = list_entry(it, struct prompt, by_tenant);
			running += p->fsm.state == PROMPT_EXECUTING;
			waiting += p->fsm.state < PROMPT_EXECUTING;
			ended += p->fsm.state == PROMPT_ENDED;
		}
	}
	(void)buf_json_key(out, "prompts");
	(void)buf_printf(
		out, "{\"active\":%llu,\"queued\":%llu,\"retained\":%llu}",
		(unsigned long long)running, (unsigned long long)waiting,
		(unsigned long long)ended);
}

/* From a frame of ComfyUI's to its line's writing: how often within each bound,
 * and above all of them. */
static void put_latency(const struct histogram *h, struct buf *out)
{
	(void)buf_json_key(out, "latency");
	(void)buf_puts(out, "{\"bounds_us\":[");
	for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++)
		(void)buf_printf(out, "%s%llu", i > 0 ? "," : "",
		                 (unsigned long long)histogram_bounds_us[i]);
	(void)buf_puts(out, "],\"counts\":[");
	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
		(void)buf_printf(out, "%s%llu", i > 0 ? "," : "",
		                 (unsigned long long)h->counts[i]);
	(void)buf_printf(out, "],\"sum_us\":%llu}",
	                 (unsigned long long)h->sum_us);
}

/* They tell what everybody does: operators see them, tenants an empty
 * object. */
static void put_counters(struct supervisor *sv, const struct peer *peer,
                         struct buf *out)
{
	const struct counters *c = &sv->counters;
	bool first = true;

	(void)buf_json_key(out, "counters");
	(void)buf_putc(out, '{');
	if (peer->is_operator) {
#define PUT(name)                                                              \
	(void)buf_json_key(out, #name);                                        \
	(void)buf_printf(out, "%llu", (unsigned long long)c->name);
		COUNTERS(PUT)
#undef PUT
		(void)buf_printf(out, ",\"connections\":%zu",
		                 sv->hub.peer_count);
		(void)buf_puts(out, ",\"events\":{");
		for (unsigned i = 0; i < COMFY_EV_TYPE_COUNT; i++) {
			if (c->events[i] == 0)
				continue;
			(void)buf_printf(
				out, "%s\"%s\":%llu", first ? "" : ",",
				comfy_event_type_name((enum comfy_event_type)i),
				(unsigned long long)c->events[i]);
			first = false;
		}
		(void)buf_putc(out, '}');
		put_latency(&c->latency, out);
	}
	(void)buf_putc(out, '}');
}

int ops_status(struct supervisor *sv, struct peer *peer,
               const struct request *req, struct error *err)
{
	struct buf out = BUF_INIT(LINE_MAX_BYTES);

	(void)buf_putc(&out, '{');
	put_string(&out, "version", comfymux_version);
	(void)buf_printf(&out, ",\"pid\":%d", (int)getpid());
	put_upstream(sv, peer, &out);
	(void)buf_printf(&out, ",\"paused\":%s", sv->paused ? "true" : "false");
	put_sessions(sv, peer, &out);
	put_prompts(sv, peer, &out);
	(void)buf_printf(&out, ",\"subscribers\":%zu",
	                 count_subscribers(sv, peer));
	(void)buf_json_key(&out, "limits");
	limits_to_json(tenant_usage(peer->tenant), &sv->cfg, &out);
	put_counters(sv, peer, &out);
	(void)buf_putc(&out, '}');
	return ops_answer(peer, req, &out, err);
}

/* --- metrics -------------------------------------------------------------- */

int ops_metrics(struct supervisor *sv, struct peer *peer,
                const struct request *req, struct error *err)
{
	struct buf text = BUF_INIT(METRICS_TEXT_MAX);
	struct buf out = BUF_INIT(LINE_MAX_BYTES);
	int r = metrics_write(sv, &text);

	(void)buf_puts(&out, "{\"text\":");
	if (r == 0)
		(void)buf_json_string(&out, text.data, text.len);
	(void)buf_putc(&out, '}');
	buf_deinit(&text);
	if (r == 0)
		return ops_answer(peer, req, &out, err);
	buf_deinit(&out);
	return error_set_nomem(err, "metrics");
}
