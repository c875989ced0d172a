/*
 * sim_emit.c - see sim_emit.h.
 */
#include "tests/sim/sim_emit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_events.h"
#include "tests/sim/sim_image.h"
#include "tests/sim/sim_text.h"

#define TICK_US       500
#define BURST_MAX     2048    /* frames made in one turn */
#define BACKLOG_BYTES 4194304 /* at rate 0: queued on a socket at most */
#define STATE_NODES   300
#define PREVIEW_BYTES 204800

struct state_text;

static void on_tick(struct sim_timer *t);
static void state_text_free(struct state_text *t);

void sim_emit_init(struct sim_emit *e, struct sim *sim)
{
	memset(e, 0, sizeof(*e));
	e->sim = sim;
	sim_timer_init(&e->timer, on_tick);
}

void sim_emit_stop(struct sim_emit *e)
{
	struct sim *sim = e->sim;

	sim_timer_stop(&e->timer);
	for (size_t i = 0; i < SIM_EMIT_TEXTS; i++)
		state_text_free(e->texts[i]);
	for (size_t i = 0; i < e->nprompts; i++)
		free(e->prompts[i]);
	free(e->prompts);
	free(e->to);
	free(e->template_text);
	sim_blob_unref(e->image);
	sim_emit_init(e, sim);
}

static long long now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void put_small(struct buf *b, struct sim_emit *e, const char *prompt)
{
	(void)buf_printf(b,
	                 "{\"type\": \"progress\", \"data\": {\"value\": %llu, "
	                 "\"max\": %llu, \"prompt_id\": \"%s\", \"node\": "
	                 "\"1\", \"t_ns\": %lld}}",
	                 (unsigned long long)e->sent + 1,
	                 (unsigned long long)e->count, prompt, now_ns());
}

/* A large frame is cut together out of two texts that are made once: all nodes
 * finished, all running, with every node at the same place in both. */
struct state_text {
	struct buf finished, running;
	size_t at[STATE_NODES + 1];
};

static void put_node(struct buf *b, unsigned i, bool finished,
                     const char *prompt)
{
	/* A blank makes up for the shorter word. */
	(void)buf_printf(b,
	                 "%s\"%u\": {\"value\": %s, \"max\": 1.0, \"state\": "
	                 "%s, \"node_id\": \"%u\", \"prompt_id\": \"%s\", "
	                 "\"display_node_id\": \"%u\", \"parent_node_id\": "
	                 "null, \"real_node_id\": \"%u\"}",
	                 i ? ", " : "", i + 1, finished ? "1.0" : "0.0",
	                 finished ? "\"finished\"" : "\"running\" ", i + 1,
	                 prompt, i + 1, i + 1);
}

static struct state_text *state_text_new(const char *prompt)
{
	struct state_text *t = sim_calloc(1, sizeof(*t));

	buf_init(&t->finished, SIM_FRAME_MAX);
	buf_init(&t->running, SIM_FRAME_MAX);
	for (unsigned i = 0; i < STATE_NODES; i++) {
		t->at[i] = t->running.len;
		put_node(&t->finished, i, true, prompt);
		put_node(&t->running, i, false, prompt);
	}
	t->at[STATE_NODES] = t->running.len;
	return t;
}

static void state_text_free(struct state_text *t)
{
	if (!t)
		return;
	buf_deinit(&t->finished);
	buf_deinit(&t->running);
	free(t);
}

static void put_state(struct buf *b, struct sim_emit *e, const char *prompt)
{
	size_t slot = e->nprompts ? e->sent % e->nprompts : 0;
	size_t cut;
	struct state_text *t;

	slot %= SIM_EMIT_TEXTS;
	t = e->texts[slot];
	if (!t || e->text_of[slot] != prompt) {
		state_text_free(t);
		t = e->texts[slot] = state_text_new(prompt);
		e->text_of[slot] = prompt;
	}
	cut = t->at[e->sent % STATE_NODES];
	(void)buf_printf(b,
	                 "{\"type\": \"progress_state\", \"data\": "
	                 "{\"prompt_id\": \"%s\", \"nodes\": {",
	                 prompt);
	(void)buf_append(b, t->finished.data, cut);
	(void)buf_append(b, t->running.data + cut, t->running.len - cut);
	(void)buf_printf(b, "}, \"t_ns\": %lld}}", now_ns());
}

static void put_preview(struct buf *b, struct sim_emit *e, const char *prompt)
{
	struct buf meta = BUF_INIT(65536);

	(void)buf_printf(&meta,
	                 "{\"node_id\": \"1\", \"prompt_id\": \"%s\", "
	                 "\"display_node_id\": \"1\", \"parent_node_id\": "
	                 "null, \"real_node_id\": \"1\", \"image_type\": "
	                 "\"image/jpeg\", \"t_ns\": %lld}",
	                 prompt, now_ns());
	sim_put_u32(b, 4);
	sim_put_u32(b, (uint32_t)meta.len);
	(void)buf_append(b, meta.data, meta.len);
	(void)buf_append(b, e->image->data, e->image->len);
	buf_deinit(&meta);
}

/* %PROMPT_ID%, %T_NS% and %SEQ% are filled in. */
static void put_template(struct buf *b, struct sim_emit *e, const char *prompt)
{
	for (const char *p = e->template_text; *p;) {
		size_t n = strcspn(p, "%");

		(void)buf_append(b, p, n);
		p += n;
		if (strncmp(p, "%PROMPT_ID%", 11) == 0) {
			(void)buf_puts(b, prompt);
			p += 11;
		} else if (strncmp(p, "%T_NS%", 6) == 0) {
			(void)buf_printf(b, "%lld", now_ns());
			p += 6;
		} else if (strncmp(p, "%SEQ%", 5) == 0) {
			(void)buf_printf(b, "%llu",
			                 (unsigned long long)e->sent);
			p += 5;
		} else if (*p) {
			(void)buf_putc(b, *p++);
		}
	}
}

typedef void put_frame(struct buf *b, struct sim_emit *e, const char *prompt);

static void emit_one(struct sim_emit *e)
{
	static put_frame *const put[] = {
		[SIM_EMIT_SMALL] = put_small,
		[SIM_EMIT_STATE300] = put_state,
		[SIM_EMIT_PREVIEW200K] = put_preview,
		[SIM_EMIT_TEMPLATE] = put_template,
	};
	const char *prompt =
		e->nprompts ? e->prompts[e->sent % e->nprompts] : "sim";
	struct buf b = BUF_INIT(SIM_FRAME_MAX);
	struct sim_frame *f;

	put[e->kind](&b, e, prompt);
	if (buf_ok(&b)) {
		f = sim_frame_new(b.data ? b.data : "", b.len,
		                  e->kind != SIM_EMIT_PREVIEW200K);
		sim_clients_send(&e->sim->clients, e->to, f);
		sim_frame_unref(f);
	}
	buf_deinit(&b);
	e->sent++;
}

static bool drowning(const struct sim_emit *e)
{
	struct sim_conn *c = NULL;

	while ((c = sim_conn_next(e->sim->server, c))) {
		if (sim_conn_backlog(c) > BACKLOG_BYTES)
			return true;
	}
	return false;
}

static void on_tick(struct sim_timer *t)
{
	struct sim_emit *e = container_of(t, struct sim_emit, timer);
	double elapsed_s = (double)(clock_us() - e->started_us) / 1e6;
	uint64_t due = e->count;

	if (e->rate > 0 && elapsed_s * e->rate < (double)e->count)
		due = (uint64_t)(elapsed_s * e->rate);
	for (int i = 0; i < BURST_MAX && e->sent < due; i++) {
		if (e->rate <= 0 && drowning(e))
			break;
		emit_one(e);
	}
	if (e->sent < e->count)
		sim_timer_start(&e->timer, TICK_US);
	else
		sim_emit_stop(e);
}

static int read_kind(struct sim_emit *e, struct json order, struct error *err)
{
	static const char *const names[] = {
		[SIM_EMIT_SMALL] = "small",
		[SIM_EMIT_STATE300] = "state300",
		[SIM_EMIT_PREVIEW200K] = "preview200k",
	};
	struct json kind = json_get(order, "kind");
	struct json template_text = json_get(order, "template");

	if (json_is(template_text, JSON_STRING)) {
		e->kind = SIM_EMIT_TEMPLATE;
		e->template_text =
			json_string_dup(template_text, SIM_FRAME_MAX);
		return e->template_text
		               ? 0
		               : error_set(err, ERR_INVALID, "bad template");
	}
	if (json_is(template_text, JSON_OBJECT)) {
		e->kind = SIM_EMIT_TEMPLATE;
		e->template_text =
			sim_strndup(template_text.text.p, template_text.text.n);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (json_string_eq(kind, names[i])) {
			e->kind = (enum sim_emit_kind)i;
			return 0;
		}
	}
	return error_set(err, ERR_INVALID,
	                 "kind must be small, state300 or preview200k, or "
	                 "give a template");
}

static int read_prompts(struct sim_emit *e, struct json list, struct error *err)
{
	struct json_iter it;
	struct json j;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &j)) {
		char *id = json_string_dup(j, 1024);

		if (!id || e->nprompts == SIM_EMIT_PROMPTS_MAX) {
			free(id);
			return error_set(err, ERR_INVALID,
			                 "prompt_ids must be strings, at most "
			                 "%d",
			                 SIM_EMIT_PROMPTS_MAX);
		}
		e->prompts = sim_realloc(e->prompts, e->nprompts + 1,
		                         sizeof(*e->prompts));
		e->prompts[e->nprompts++] = id;
	}
	return 0;
}

int sim_emit_start(struct sim_emit *e, struct json order, struct error *err)
{
	struct json to = json_get(order, "client_id");
	struct json count = json_get(order, "count");
	struct json rate = json_get(order, "rate_per_s");

	sim_emit_stop(e);
	if (read_kind(e, order, err) ||
	    read_prompts(e, json_get(order, "prompt_ids"), err)) {
		sim_emit_stop(e);
		return -1;
	}
	if (!json_uint64(count, &e->count) || !e->count ||
	    e->count > SIM_EMIT_COUNT_MAX ||
	    (!json_is(rate, JSON_NONE) &&
	     (!json_double(rate, &e->rate) || e->rate < 0))) {
		sim_emit_stop(e);
		return error_set(err, ERR_INVALID,
		                 "count must be from 1 to %d, rate_per_s not "
		                 "negative",
		                 SIM_EMIT_COUNT_MAX);
	}
	if (json_is(to, JSON_STRING) && !json_string_eq(to, "all"))
		e->to = json_string_dup(to, 65536);
	if (e->kind == SIM_EMIT_PREVIEW200K)
		e->image = sim_jpeg(PREVIEW_BYTES, 0);
	e->started_us = clock_us();
	sim_timer_start(&e->timer, 0);
	return 0;
}
