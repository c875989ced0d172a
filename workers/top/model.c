/*
 * model.c - see model.h.
 */
#include "workers/top/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

/* Copies the string, cut to what there is room for; "" if it is none. A cut
 * may go through a character: text.h shows such bytes as a question mark. */
static void take_text(char *to, size_t room, struct json j)
{
	struct buf text = BUF_INIT(16u << 10);
	size_t n = 0;

	if (json_is(j, JSON_STRING) && json_string_decode(j, &text) == 0) {
		n = text.len < room - 1 ? text.len : room - 1;
		if (n > 0)
			memcpy(to, text.data, n);
	}
	to[n] = '\0';
	buf_deinit(&text);
}

#define TAKE_TEXT(to, j) take_text((to), sizeof(to), (j))

static int64_t number_or(struct json obj, const char *key, int64_t otherwise)
{
	int64_t n;

	return json_int64(json_get(obj, key), &n) ? n : otherwise;
}

static int64_t number(struct json obj, const char *key)
{
	return number_or(obj, key, 0);
}

void top_model_init(struct top_model *m)
{
	*m = (struct top_model){
		.link = TOP_LINK_COMING, .frames = -1, .frames_rate = -1};
	list_init(&m->prompts);
}

static void drop(struct top_model *m, struct top_prompt *p)
{
	(void)map_remove(&m->by_id, p->id, strlen(p->id));
	list_del(&p->link);
	m->prompt_count--;
	free(p);
}

static void drop_if(struct top_model *m,
                    bool (*wanted)(const struct top_prompt *, int64_t),
                    int64_t arg)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &m->prompts) {
		struct top_prompt *p = list_entry(it, struct top_prompt, link);

		if (wanted(p, arg))
			drop(m, p);
	}
}

static bool always(const struct top_prompt *p, int64_t unused)
{
	return true;
}

static bool goes_on(const struct top_prompt *p, int64_t unused)
{
	return p->ended_ms == 0;
}

static bool long_over(const struct top_prompt *p, int64_t now)
{
	return p->ended_ms != 0 && now - p->ended_ms > TOP_ENDED_KEEP_MS;
}

void top_model_deinit(struct top_model *m)
{
	drop_if(m, always, 0);
	map_deinit(&m->by_id);
	free(m->sessions);
	m->sessions = NULL;
	m->session_count = 0;
}

void top_model_connected(struct top_model *m, const char *version, pid_t pid,
                         bool is_operator)
{
	m->link = TOP_LINK_UP;
	m->link_error[0] = '\0';
	(void)snprintf(m->version, sizeof(m->version), "%s", version);
	m->pid = pid;
	m->is_operator = is_operator;
	m->status_ms = 0;
	m->latency = m->latency_then = (struct top_latency){0};
	m->frames = -1;
	m->frames_rate = -1;
	m->heard_rate = 0;
	m->prompts_left_out = false;
	/* Those that still go on come as snapshots. */
	drop_if(m, goes_on, 0);
}

void top_model_away(struct top_model *m, const char *why)
{
	m->link = TOP_LINK_AWAY;
	(void)snprintf(m->link_error, sizeof(m->link_error), "%s", why);
}

/* --- status --------------------------------------------------------------- */

static void read_session(const struct top_model *m, struct top_session *s,
                         struct json j)
{
	const char *name;

	TAKE_TEXT(s->id, json_get(j, "id"));
	TAKE_TEXT(s->kind, json_get(j, "kind"));
	s->pid = number(j, "pid");
	s->keeper_pid = number(j, "keeper_pid");
	s->uid = number_or(j, "uid", -1);
	s->in_flight = number(j, "in_flight");
	s->restarts = number(j, "restarts");
	name = m->user_name ? m->user_name(s->uid) : NULL;
	if (name)
		(void)snprintf(s->user, sizeof(s->user), "%s", name);
	else
		(void)snprintf(s->user, sizeof(s->user), "%" PRId64, s->uid);
}

static void read_sessions(struct top_model *m, struct json list)
{
	size_t all = json_count(list);
	size_t n = all < TOP_SESSIONS_MAX ? all : TOP_SESSIONS_MAX;
	struct top_session *sessions = calloc(n + 1, sizeof(*sessions));
	struct json_iter it;
	struct json j;

	if (!sessions)
		return;
	free(m->sessions);
	m->sessions = sessions;
	m->session_count = 0;
	m->sessions_left_out = all - n;
	json_iter_init(&it, list);
	while (m->session_count < n && json_iter_next(&it, NULL, &j))
		read_session(m, &sessions[m->session_count++], j);
}

static size_t read_numbers(struct json list, int64_t *to, size_t max)
{
	struct json_iter it;
	struct json j;
	size_t n = 0;

	json_iter_init(&it, list);
	while (n < max && json_iter_next(&it, NULL, &j) &&
	       json_int64(j, &to[n]))
		n++;
	return n;
}

static void read_latency(struct top_model *m, struct json j)
{
	struct top_latency now = {0};
	size_t buckets;

	now.count = read_numbers(json_get(j, "bounds_us"), now.bounds_us,
	                         TOP_BUCKETS_MAX);
	buckets = read_numbers(json_get(j, "counts"), now.buckets,
	                       TOP_BUCKETS_MAX + 1);
	if (buckets != now.count + 1)
		now = (struct top_latency){0};
	m->latency_then = m->latency;
	m->latency = now;
}

/* `seconds` since the last answer; 0 if this is the first. */
static void read_counters(struct top_model *m, struct json counters,
                          double seconds)
{
	int64_t frames = number_or(counters, "frames", -1);

	m->heard_rate =
		seconds > 0 ? (double)(m->heard - m->heard_then) / seconds : 0;
	m->heard_then = m->heard;
	m->frames_rate = seconds > 0 && frames >= 0 && m->frames >= 0
	                         ? (double)(frames - m->frames) / seconds
	                         : -1;
	m->frames = frames;
	m->missed = number_or(counters, "missed", -1);
	read_latency(m, json_get(counters, "latency"));
}

void top_model_status(struct top_model *m, struct json result, int64_t now_ms)
{
	struct json upstream = json_get(result, "upstream");
	struct json prompts = json_get(result, "prompts");
	double seconds =
		m->status_ms > 0 ? (double)(now_ms - m->status_ms) / 1e3 : 0;

	TAKE_TEXT(m->version, json_get(result, "version"));
	m->pid = number(result, "pid");
	TAKE_TEXT(m->url, json_get(upstream, "url"));
	TAKE_TEXT(m->upstream, json_get(upstream, "state"));
	TAKE_TEXT(m->upstream_error, json_get(upstream, "last_error"));
	m->reconnects = number(upstream, "reconnects");
	m->subscribers = number(result, "subscribers");
	m->running = number(prompts, "active");
	m->waiting = number(prompts, "queued");
	m->retained = number(prompts, "retained");
	m->paused = false;
	(void)json_bool(json_get(result, "paused"), &m->paused);
	read_sessions(m, json_get(result, "sessions"));
	read_counters(m, json_get(result, "counters"), seconds);
	m->status_ms = now_ms;
}

int64_t top_model_latency_us(const struct top_model *m, double share)
{
	const struct top_latency *now = &m->latency, *then = &m->latency_then;
	int64_t total = 0, sum = 0;

	if (now->count == 0 || now->count != then->count)
		return -1;
	for (size_t i = 0; i <= now->count; i++)
		total += now->buckets[i] - then->buckets[i];
	if (total <= 0)
		return -1;
	for (size_t i = 0; i < now->count; i++) {
		sum += now->buckets[i] - then->buckets[i];
		if ((double)sum >= share * (double)total)
			return now->bounds_us[i];
	}
	return INT64_MAX;
}

/* --- prompts -------------------------------------------------------------- */

static struct top_prompt *find(const struct top_model *m, struct json id)
{
	char text[TOP_ID_MAX + 1];

	TAKE_TEXT(text, id);
	return map_get(&m->by_id, text, strlen(text));
}

/* Room for one more, at the cost of the one that ended first. */
static bool make_room(struct top_model *m)
{
	struct top_prompt *oldest = NULL;
	struct list *it;

	if (m->prompt_count < TOP_PROMPTS_MAX)
		return true;
	list_for_each (it, &m->prompts) {
		struct top_prompt *p = list_entry(it, struct top_prompt, link);

		if (p->ended_ms != 0 &&
		    (!oldest || p->ended_ms < oldest->ended_ms))
			oldest = p;
	}
	if (oldest)
		drop(m, oldest);
	return oldest != NULL;
}

static struct top_prompt *find_or_add(struct top_model *m, struct json id,
                                      int64_t epoch_ms)
{
	struct top_prompt *p = find(m, id);

	if (p)
		return p;
	m->prompts_left_out = !make_room(m);
	if (m->prompts_left_out)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	TAKE_TEXT(p->id, id);
	p->since_ms = epoch_ms;
	p->position = -1;
	if (p->id[0] == '\0' ||
	    map_add(&m->by_id, p->id, strlen(p->id), p) != 0) {
		free(p);
		return NULL;
	}
	list_append(&m->prompts, &p->link);
	m->prompt_count++;
	return p;
}

static bool read_status_name(enum cmx_status *to, struct json j)
{
	for (int s = CMX_QUEUED; s <= CMX_FAILED; s++) {
		if (!json_string_eq(j, cmx_status_name((enum cmx_status)s)))
			continue;
		*to = (enum cmx_status)s;
		return true;
	}
	return false;
}

static void read_progress(struct top_prompt *p, struct json j)
{
	char node[TOP_TEXT_MAX + 1];

	(void)read_status_name(&p->status, json_get(j, "status"));
	TAKE_TEXT(node, json_get(j, "current_node"));
	if (strcmp(node, p->node) != 0)
		p->value = p->max = 0;
	memcpy(p->node, node, sizeof(node));
	p->fraction = 0;
	(void)json_double(json_get(j, "current_node_progress"), &p->fraction);
	p->position = number_or(j, "queue_position", -1);
	p->paused = false;
	(void)json_bool(json_get(j, "paused"), &p->paused);
	p->nodes_done = json_count(json_get(j, "completed_nodes")) +
	                json_count(json_get(j, "cached_nodes"));
	TAKE_TEXT(p->error, json_get(json_get(j, "error"), "type"));
}

/* Steps are in what ComfyUI sent: of the node itself, or of each by its id. */
static void read_steps(struct top_prompt *p, enum event event, struct json data)
{
	struct json node = JSON_MISSING;
	double value, max;

	if (event == EVENT_PROGRESS)
		node = data;
	else if (event == EVENT_PROGRESS_STATE)
		node = json_get(json_get(data, "nodes"), p->node);
	if (json_double(json_get(node, "value"), &value) &&
	    json_double(json_get(node, "max"), &max)) {
		p->value = value;
		p->max = max;
	}
}

void top_model_event(struct top_model *m, const struct incoming *ev,
                     int64_t epoch_ms)
{
	struct top_prompt *p;

	m->heard++;
	if (ev->event == EVENT_UPSTREAM) {
		TAKE_TEXT(m->upstream, json_get(ev->data, "state"));
		return;
	}
	if (!json_is(ev->prompt_id, JSON_STRING) ||
	    !json_is(ev->progress, JSON_OBJECT))
		return;
	p = find_or_add(m, ev->prompt_id, epoch_ms);
	if (!p)
		return;
	read_progress(p, ev->progress);
	read_steps(p, ev->event, ev->data);
	if (!p->since_known && p->status <= CMX_EXECUTING)
		m->ages_wanted = true;
	if (p->ended_ms == 0 && p->status > CMX_EXECUTING)
		p->ended_ms = epoch_ms;
}

static void read_ages(struct top_model *m, struct json list)
{
	struct json_iter it;
	struct json j;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &j)) {
		struct top_prompt *p = find(m, json_get(j, "prompt_id"));
		int64_t at = number(j, "submitted_at");

		if (p && at > 0) {
			p->since_ms = at;
			p->since_known = true;
		}
	}
}

void top_model_queue(struct top_model *m, struct json result)
{
	/* Whom it doesn't name (too many, or over by now) stays as it is. */
	m->ages_wanted = false;
	read_ages(m, json_get(result, "running"));
	read_ages(m, json_get(result, "pending"));
}

void top_model_age(struct top_model *m, int64_t epoch_ms)
{
	drop_if(m, long_over, epoch_ms);
}

const struct top_prompt *top_model_prompt(const struct top_model *m,
                                          const char *id)
{
	return map_get(&m->by_id, id, strlen(id));
}

const struct top_session *top_model_session(const struct top_model *m,
                                            const char *id)
{
	for (size_t i = 0; i < m->session_count; i++)
		if (strcmp(m->sessions[i].id, id) == 0)
			return &m->sessions[i];
	return NULL;
}
