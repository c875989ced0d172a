/*
 * check_replay.c - every recording of a real server, replayed through
 * comfy_event and progress, must come to what its meta.json expects: by events
 * alone where the owner's stream is whole, by history alone, and by both.
 *
 * What must hold at each step is checked on the way: no progress outside 0 to
 * 1 or backwards, no node completed twice, no change by the same event again
 * or after the end, a snapshot that says it all.
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/comfy_event.h"
#include "common/progress.h"
#include "tests/runner.h"

#define RECORDINGS 31
#define JSON_MAX   (16u << 20)

struct line {
	double t;
	size_t order; /* keeps lines of the same moment as they were */
	bool http;
	struct json j;
};

struct recording {
	char name[256];
	char *ws, *http, *meta_text;
	struct json meta;
	struct line *lines;
	size_t count;
};

enum by {
	BY_EVENTS = 1,
	BY_HISTORY = 2,
	BY_BOTH = 3,
};

/* One prompt's replay. */
struct replay {
	const struct recording *r;
	struct json expect;
	struct span id;
	struct span owner; /* client_id, or {NULL, 0} */
	double number;     /* ComfyUI's, of the latest submission */
	enum by by;
	struct progress *p;
	struct buf before, after; /* JSON of the state around a step */
	double fraction[1000];    /* last told of each node */
	char nodes[1000][64];
	size_t node_count;
	struct buf executed; /* list of the error or interrupt, as told */
	struct buf frame;
	bool started, over; /* on one socket, without a gap */
	bool gap, any_event, history_seen, deleted_by_us;
	size_t omitted;
};

/* ---- reading ---- */

static char *read_part(const char *name, const char *file, size_t *lenp)
{
	char path[512];

	ck_assert_int_lt(
		snprintf(path, sizeof(path), "comfyui/%s/%s", name, file),
		(int)sizeof(path));
	return runner_read_data(path, lenp);
}

static struct json parse(const char *text, size_t len)
{
	struct json j;
	enum json_outcome o = json_parse(&j, text, len, JSON_NONFINITE, NULL);

	ck_assert_msg(o == JSON_OK, "%s: %.100s", json_outcome_text(o), text);
	return j;
}

static void add_lines(struct recording *r, char *text, bool http)
{
	char *save = NULL, *s;
	struct line *l;

	for (s = strtok_r(text, "\n", &save); s;
	     s = strtok_r(NULL, "\n", &save)) {
		r->lines =
			realloc(r->lines, (r->count + 1) * sizeof(*r->lines));
		ck_assert_ptr_nonnull(r->lines);
		l = &r->lines[r->count];
		*l = (struct line){.order = r->count++, .http = http};
		l->j = parse(s, strlen(s));
		if (!http || !json_double(json_get(l->j, "t_end"), &l->t))
			ck_assert(json_double(json_get(l->j, "t"), &l->t));
	}
}

static int compare_lines(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	if (x->t < y->t || x->t > y->t)
		return x->t < y->t ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

static void recording_load(struct recording *r, const char *name)
{
	size_t len;

	*r = (struct recording){.count = 0};
	(void)snprintf(r->name, sizeof(r->name), "%s", name);
	r->ws = read_part(name, "ws.jsonl", NULL);
	r->http = read_part(name, "http.jsonl", NULL);
	r->meta_text = read_part(name, "meta.json", &len);
	r->meta = parse(r->meta_text, len);
	add_lines(r, r->ws, false);
	add_lines(r, r->http, true);
	qsort(r->lines, r->count, sizeof(*r->lines), compare_lines);
}

static void recording_release(struct recording *r)
{
	free(r->ws);
	free(r->http);
	free(r->meta_text);
	free(r->lines);
}

static char *dup(struct json j)
{
	char *s = json_string_dup(j, JSON_MAX);

	ck_assert_ptr_nonnull(s);
	return s;
}

static bool list_has(const struct cmx_nodes *l, const char *id)
{
	for (size_t i = 0; i < l->count; i++) {
		if (strcmp(l->ids[i], id) == 0)
			return true;
	}
	return false;
}

static bool json_list_has(struct json list, const char *id)
{
	struct json_iter it;
	struct json v;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &v)) {
		if (json_string_eq(v, id))
			return true;
	}
	return false;
}

/* ---- what must hold at each step ---- */

#define CHECK(rp, cond)                                                        \
	ck_assert_msg((cond), "%s, prompt %.*s, by %d: " #cond, (rp)->r->name, \
	              (int)(rp)->id.n, (rp)->id.p, (int)(rp)->by)

static void state_text(struct replay *rp, struct buf *b)
{
	buf_reset(b);
	ck_assert_int_eq(progress_to_json(rp->p, 0, b), 0);
}

static bool states_equal(const struct replay *rp)
{
	return rp->before.len == rp->after.len &&
	       memcmp(rp->before.data, rp->after.data, rp->after.len) == 0;
}

static void check_fraction(struct replay *rp, const struct cmx_progress *c)
{
	size_t i = 0;

	CHECK(rp, c->current_node_progress >= 0);
	CHECK(rp, c->current_node_progress <= 1);
	if (!c->current_node)
		return;
	while (i < rp->node_count && strcmp(rp->nodes[i], c->current_node) != 0)
		i++;
	if (i == rp->node_count) {
		CHECK(rp, i < 1000 && strlen(c->current_node) < 64);
		(void)strcpy(rp->nodes[rp->node_count++], c->current_node);
		rp->fraction[i] = 0;
	}
	CHECK(rp, c->current_node_progress >= rp->fraction[i]);
	rp->fraction[i] = c->current_node_progress;
	CHECK(rp, !list_has(&c->completed_nodes, c->current_node));
}

static void check_lists(struct replay *rp, const struct cmx_progress *c)
{
	const struct cmx_nodes *l = &c->completed_nodes;

	/* Each step adds few, so the last few against all are enough. */
	for (size_t i = l->count > 3 ? l->count - 3 : 0; i < l->count; i++) {
		CHECK(rp, !list_has(&c->cached_nodes, l->ids[i]));
		for (size_t k = 0; k < i; k++)
			CHECK(rp, strcmp(l->ids[k], l->ids[i]) != 0);
	}
}

/* A client that is told the state by its JSON knows as much. */
static void check_snapshot(struct replay *rp)
{
	struct progress *p = progress_new(progress_get(rp->p)->prompt_id);

	ck_assert_ptr_nonnull(p);
	(void)progress_fold_snapshot(p, parse(rp->after.data, rp->after.len));
	buf_reset(&rp->before);
	ck_assert_int_eq(progress_to_json(p, 0, &rp->before), 0);
	CHECK(rp, states_equal(rp));
	CHECK(rp,
	      progress_fold_snapshot(p, parse(rp->after.data, rp->after.len)) ==
	              PROGRESS_SAME);
	(void)progress_free(p);
}

static void fold_event(struct replay *rp, const struct comfy_event *ev)
{
	bool ended = progress_ended(rp->p);
	unsigned change;

	state_text(rp, &rp->before);
	change = progress_fold_event(rp->p, ev);
	state_text(rp, &rp->after);
	if (ended)
		CHECK(rp, change == PROGRESS_SAME && states_equal(rp));
	if (change == PROGRESS_SAME)
		CHECK(rp, states_equal(rp));
	check_fraction(rp, progress_get(rp->p));
	check_lists(rp, progress_get(rp->p));
	check_snapshot(rp);

	state_text(rp, &rp->before);
	change = progress_fold_event(rp->p, ev);
	state_text(rp, &rp->after);
	CHECK(rp, change == PROGRESS_SAME && states_equal(rp));
}

/* ---- playing ---- */

static void renew(struct replay *rp)
{
	char *id =
		dup((struct json){JSON_STRING, {rp->id.p - 1, rp->id.n + 2}});

	rp->p = progress_free(rp->p);
	rp->p = progress_new(id);
	ck_assert_ptr_nonnull(rp->p);
	free(id);
	rp->node_count = 0;
	rp->started = rp->over = false;
}

static void note_executed(struct replay *rp, struct json list)
{
	if (list.type != JSON_ARRAY)
		return;
	buf_reset(&rp->executed);
	ck_assert_int_eq(json_compact(&rp->executed, list), 0);
}

static void note_stream(struct replay *rp, const struct comfy_event *ev)
{
	rp->any_event = true;
	if (ev->type == COMFY_EV_EXECUTION_START) {
		/* Used twice (20): what comes is another run. */
		if (progress_ended(rp->p))
			renew(rp);
		rp->started = true;
	}
	if (ev->type == COMFY_EV_EXECUTION_ERROR ||
	    ev->type == COMFY_EV_EXECUTION_INTERRUPTED)
		note_executed(rp, ev->u.error.executed);
	if (ev->node_is_null && rp->started)
		rp->over = true;
}

/* Events are for us if they name the prompt, or come to our socket without
 * naming any while it runs. */
static bool is_ours(struct replay *rp, struct json sock,
                    const struct comfy_event *ev)
{
	struct json ids = json_get(rp->r->meta, "client_ids");

	if (ev->prompt_id.p)
		return span_eq(ev->prompt_id, rp->id);
	return ev->type == COMFY_EV_EXECUTING && rp->owner.p &&
	       span_eq(json_raw_string(
			       json_get_span(ids, json_raw_string(sock))),
	               rp->owner) &&
	       progress_get(rp->p)->status == CMX_EXECUTING;
}

static void play_frame(struct replay *rp, struct json j)
{
	struct json text = json_get(j, "text"), sock = json_get(j, "sock");
	struct comfy_event ev;
	struct span frame;

	if (json_string_eq(json_get(j, "event"), "close") && rp->started &&
	    !rp->over)
		rp->gap = true;
	rp->omitted += json_get(j, "text_omitted").type != JSON_NONE;
	if (!json_string_eq(json_get(j, "dir"), "in") ||
	    text.type != JSON_STRING)
		return;
	buf_reset(&rp->frame);
	ck_assert_int_eq(json_string_decode(text, &rp->frame), 0);
	frame = span_make(rp->frame.data, rp->frame.len);
	ck_assert_int_eq(comfy_event_parse_text(&ev, frame.p, frame.n),
	                 COMFY_EVENT_OK);
	if (!is_ours(rp, sock, &ev))
		return;
	note_stream(rp, &ev);
	fold_event(rp, &ev);
}

/* Position in the queue: the pending list is not sorted (26). */
static void fold_queue(struct replay *rp, struct json body)
{
	struct json item, pending = json_get(body, "queue_pending");
	struct json running = json_get(body, "queue_running");
	int64_t ahead = (int64_t)json_count(running);
	enum cmx_status before = progress_get(rp->p)->status;
	double mine = 0, other;
	struct json_iter it;
	bool found = false;

	json_iter_init(&it, running);
	while (json_iter_next(&it, NULL, &item)) {
		if (span_eq(json_raw_string(json_at(item, 1)), rp->id))
			(void)progress_fold_running(rp->p, CMX_POLLING);
	}
	json_iter_init(&it, pending);
	while (json_iter_next(&it, NULL, &item)) {
		if (!span_eq(json_raw_string(json_at(item, 1)), rp->id))
			continue;
		found = json_double(json_at(item, 0), &mine);
	}
	if (!found)
		return;
	json_iter_init(&it, pending);
	while (json_iter_next(&it, NULL, &item))
		ahead += json_double(json_at(item, 0), &other) && other < mine;
	(void)progress_fold_queued(rp->p, ahead, CMX_POLLING);
	if (before == CMX_QUEUED)
		CHECK(rp, progress_get(rp->p)->queue_position == ahead);
	else
		CHECK(rp, progress_get(rp->p)->status == before);
}

static void fold_history(struct replay *rp, struct json entry)
{
	struct json messages = json_get(json_get(entry, "status"), "messages");
	struct json_iter it;
	struct json m;

	rp->history_seen = true;
	json_iter_init(&it, messages);
	while (json_iter_next(&it, NULL, &m))
		note_executed(rp, json_get(json_at(m, 1), "executed"));
	(void)progress_fold_history(rp->p, entry, CMX_POLLING);
	CHECK(rp, progress_ended(rp->p));
	check_lists(rp, progress_get(rp->p));
	state_text(rp, &rp->after);
	check_snapshot(rp);
	CHECK(rp, progress_fold_history(rp->p, entry, CMX_POLLING) ==
	                  PROGRESS_SAME);
}

static struct json response_of(struct json j, char **textp)
{
	struct json text = json_get(j, "response_text");

	*textp = NULL;
	if (text.type != JSON_STRING)
		return json_get(j, "response_body");
	*textp = dup(text);
	if (**textp != '{')
		return JSON_MISSING;
	return parse(*textp, strlen(*textp));
}

static void play_post(struct replay *rp, struct json j, struct json response)
{
	struct json body = json_get(j, "request_body"), path;
	struct json owner = json_get(body, "client_id");

	path = json_get(j, "path");
	if (json_string_eq(path, "/queue") &&
	    (json_get(body, "clear").type == JSON_TRUE ||
	     json_list_has(json_get(body, "delete"),
	                   progress_get(rp->p)->prompt_id)))
		rp->deleted_by_us = true;
	if (!json_string_eq(path, "/prompt") ||
	    !span_eq(json_raw_string(json_get(response, "prompt_id")), rp->id))
		return;
	if (owner.type != JSON_STRING)
		owner = json_get(json_get(body, "extra_data"), "client_id");
	rp->owner = json_raw_string(owner);
	CHECK(rp, json_double(json_get(response, "number"), &rp->number));
}

/* An id used twice (20): the entry may still be that of the run before. */
static bool is_latest(struct replay *rp, struct json entry)
{
	double number;

	return !json_double(json_at(json_get(entry, "prompt"), 0), &number) ||
	       number >= rp->number;
}

static bool path_starts(struct json j, const char *start)
{
	struct span path = json_raw_string(json_get(j, "path"));

	return path.n >= strlen(start) &&
	       memcmp(path.p, start, strlen(start)) == 0;
}

static void play_exchange(struct replay *rp, struct json j)
{
	char *text;
	struct json response = response_of(j, &text), entry;

	if (json_string_eq(json_get(j, "method"), "POST")) {
		play_post(rp, j, response);
	} else if (rp->by & BY_HISTORY) {
		entry = json_get_span(response, rp->id);
		if (path_starts(j, "/history") && entry.type == JSON_OBJECT) {
			if (is_latest(rp, entry))
				fold_history(rp, entry);
		} else if (path_starts(j, "/queue")) {
			fold_queue(rp, response);
		}
	}
	free(text);
}

static void play(struct replay *rp)
{
	for (size_t i = 0; i < rp->r->count; i++) {
		const struct line *l = &rp->r->lines[i];

		if (l->http)
			play_exchange(rp, l->j);
		else if (rp->by & BY_EVENTS)
			play_frame(rp, l->j);
	}
}

/* ---- the end ---- */

static bool expects(const struct replay *rp, const char *status)
{
	return json_string_eq(json_get(rp->expect, "final_status"), status);
}

/* Section 4 of the recordings' README, third rule. */
static void conclude(struct replay *rp)
{
	const char *type = rp->deleted_by_us ? "deleted" : "lost";

	if (progress_ended(rp->p))
		return;
	CHECK(rp, expects(rp, type));
	CHECK(rp, progress_fail(rp->p, type, "gone", NULL) == PROGRESS_END);
	CHECK(rp, progress_fail(rp->p, "timeout", "x", "1") == PROGRESS_SAME);
}

static void check_error(struct replay *rp)
{
	const struct cmx_error *e = &progress_get(rp->p)->error;
	struct json want = json_get(rp->expect, "error"), message;
	char *text;

	if (expects(rp, "success")) {
		CHECK(rp, !e->type && !e->message && !e->node_id);
		return;
	}
	CHECK(rp, e->type != NULL);
	if (expects(rp, "error"))
		CHECK(rp, json_string_eq(json_get(want, "exception_type"),
		                         e->type));
	else
		CHECK(rp, expects(rp, e->type));
	if (want.type != JSON_OBJECT)
		return;
	CHECK(rp, json_string_eq(json_get(want, "node_id"), e->node_id));
	message = json_get(want, "exception_message");
	if (message.type != JSON_STRING)
		return;
	text = dup(message);
	text[strcspn(text, "\n")] = '\0';
	CHECK(rp, strcmp(text, e->message) == 0);
	free(text);
}

static void check_cached(struct replay *rp)
{
	const struct cmx_nodes *l = &progress_get(rp->p)->cached_nodes;
	struct json want = json_get(rp->expect, "cached_nodes");

	CHECK(rp, l->count == json_count(want));
	for (size_t i = 0; i < l->count; i++)
		CHECK(rp, json_list_has(want, l->ids[i]));
}

/* Members of a list of ids that are not cached. */
static size_t count_run(struct replay *rp, struct json list, bool assert_done)
{
	const struct cmx_progress *c = progress_get(rp->p);
	struct json_iter it;
	struct json v;
	size_t n = 0;
	char *id;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &v)) {
		id = dup(v);
		if (!list_has(&c->cached_nodes, id)) {
			n++;
			if (assert_done)
				CHECK(rp, list_has(&c->completed_nodes, id));
		}
		free(id);
	}
	return n;
}

static void check_completed(struct replay *rp)
{
	const struct cmx_progress *c = progress_get(rp->p);
	struct json executed = json_get(rp->expect, "executed_nodes");
	size_t n = json_count(executed);

	for (size_t i = 0; i < c->completed_nodes.count; i++) {
		const char *id = c->completed_nodes.ids[i];

		CHECK(rp, json_list_has(executed, id));
		if (expects(rp, "success"))
			continue;
		/* The last that started did not finish, nor did the one to
		 * blame. */
		CHECK(rp, !json_string_eq(json_at(executed, n - 1), id));
		CHECK(rp,
		      !c->error.node_id || strcmp(id, c->error.node_id) != 0);
	}
	if (expects(rp, "error") || expects(rp, "interrupted"))
		CHECK(rp,
		      count_run(rp, parse(rp->executed.data, rp->executed.len),
		                true) == c->completed_nodes.count);
	/* History knows only those that had output. */
	if (expects(rp, "success") && rp->any_event)
		CHECK(rp, count_run(rp, executed, true) ==
		                  c->completed_nodes.count);
}

static void check_outputs(struct replay *rp)
{
	const struct cmx_progress *c = progress_get(rp->p);
	struct json want = json_get(rp->expect, "outputs"), key, value;
	cJSON *a, *b;
	struct json_iter it;

	/* Empty where they are not to be had any more (14, 26). */
	if (want.type != JSON_OBJECT ||
	    (expects(rp, "success") && json_count(want) == 0))
		return;
	a = cJSON_ParseWithLength(want.text.p, want.text.n);
	b = cJSON_ParseWithLength(c->outputs, c->outputs_len);
	ck_assert_ptr_nonnull(a);
	ck_assert_ptr_nonnull(b);
	CHECK(rp, cJSON_Compare(a, b, true));
	cJSON_Delete(a);
	cJSON_Delete(b);
	if (rp->any_event)
		return;
	/* By history alone: who had output and is not cached has run. */
	json_iter_init(&it, want);
	while (json_iter_next(&it, &key, &value)) {
		char *id = dup(key);

		CHECK(rp, list_has(&c->completed_nodes, id) !=
		                  list_has(&c->cached_nodes, id));
		free(id);
	}
}

static void check_end(struct replay *rp)
{
	const struct cmx_progress *c = progress_get(rp->p);

	CHECK(rp, progress_ended(rp->p));
	CHECK(rp, (c->status == CMX_COMPLETED) == expects(rp, "success"));
	CHECK(rp, c->queue_position == 0 && !c->current_node);
	CHECK(rp, !c->outputs_truncated && !c->nodes_truncated);
	check_error(rp);
	check_cached(rp);
	check_completed(rp);
	check_outputs(rp);
}

/* Replays one prompt; returns whether its end could be checked. */
static bool replay_prompt(const struct recording *r, struct json expect,
                          enum by by)
{
	struct replay *rp = calloc(1, sizeof(*rp));
	bool checked;

	ck_assert_ptr_nonnull(rp);
	rp->r = r;
	rp->expect = expect;
	rp->by = by;
	rp->id = json_raw_string(json_get(expect, "prompt_id"));
	buf_init(&rp->before, JSON_MAX);
	buf_init(&rp->after, JSON_MAX);
	buf_init(&rp->frame, JSON_MAX);
	buf_init(&rp->executed, JSON_MAX);
	renew(rp);
	play(rp);
	if (by == BY_EVENTS)
		checked = rp->over && !rp->gap;
	else
		checked = rp->history_seen || progress_ended(rp->p) ||
		          expects(rp, "deleted") || expects(rp, "lost");
	if (by != BY_EVENTS && checked)
		conclude(rp);
	if (checked)
		check_end(rp);
	if (rp->omitted > 0 && by == BY_EVENTS)
		printf("%s: %zu frames were not kept, replayed without\n",
		       r->name, rp->omitted);
	rp->p = progress_free(rp->p);
	buf_deinit(&rp->before);
	buf_deinit(&rp->after);
	buf_deinit(&rp->frame);
	buf_deinit(&rp->executed);
	free(rp);
	return checked;
}

static int is_recording(const struct dirent *e)
{
	return e->d_name[0] >= '0' && e->d_name[0] <= '9';
}

/* How many prompts of each recording could be checked by events alone, by
 * history alone and by both: the rest has gaps, or its history was not kept. */
static const int checked[RECORDINGS][3] = {
	{1, 1, 1}, /* 01 */
	{2, 2, 2}, /* 02 */
	{2, 2, 2}, /* 03 */
	{3, 3, 3}, /* 04 */
	{2, 2, 2}, /* 05 */
	{0, 0, 0}, /* 06 */
	{5, 5, 5}, /* 07 */
	{4, 5, 5}, /* 08 */
	{2, 2, 2}, /* 09 */
	{0, 3, 3}, /* 10 */
	{0, 1, 1}, /* 11 */
	{1, 3, 3}, /* 12 */
	{3, 3, 3}, /* 13 */
	{2, 4, 4}, /* 14 */
	{1, 1, 1}, /* 15 */
	{1, 0, 1}, /* 16 */
	{1, 1, 1}, /* 17 */
	{1, 1, 1}, /* 18 */
	{1, 1, 1}, /* 19 */
	{1, 1, 1}, /* 20 */
	{3, 3, 3}, /* 21 */
	{0, 1, 1}, /* 22 */
	{7, 3, 7}, /* 23 */
	{2, 2, 2}, /* 24 */
	{1, 1, 1}, /* 25 */
	{7, 2, 9}, /* 26 */
	{1, 1, 1}, /* 27 */
	{1, 1, 1}, /* 28 */
	{2, 2, 2}, /* 29 */
	{0, 1, 1}, /* 30 */
	{0, 1, 1}, /* 31 */
};

START_TEST(test_replay)
{
	int n, count[3] = {0};
	struct json expect;
	struct recording r;
	struct json_iter it;
	struct dirent **e;

	n = scandir(runner_data_path("comfyui"), &e, is_recording, alphasort);
	ck_assert_int_eq(n, RECORDINGS);
	recording_load(&r, e[_i]->d_name);
	json_iter_init(&it, json_get(r.meta, "expect"));
	while (json_iter_next(&it, NULL, &expect)) {
		for (int by = BY_EVENTS; by <= BY_BOTH; by++)
			count[by - 1] += replay_prompt(&r, expect, (enum by)by);
	}
	for (int i = 0; i < 3; i++)
		ck_assert_msg(count[i] == checked[_i][i],
		              "%s: %d %d %d prompts were checked", r.name,
		              count[0], count[1], count[2]);
	recording_release(&r);
	while (n-- > 0)
		free(e[n]);
	free(e);
}
END_TEST

static Suite *replay_suite(void)
{
	Suite *s = suite_create("replay");
	TCase *t = tcase_create("replay");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, test_replay, 0, RECORDINGS);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(replay_suite());
}
