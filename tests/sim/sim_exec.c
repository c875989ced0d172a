/*
 * sim_exec.c - see sim_exec.h: the course of a prompt. What happens to a single
 * node is in sim_exec_node.c.
 */
#include "tests/sim/sim_exec.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_events.h"
#include "tests/sim/sim_exec_node.h"
#include "tests/sim/sim_run.h"
#include "tests/sim/sim_text.h"

#define MESSAGES_MAX  67108864 /* bytes of a history entry's messages */
#define PAUSE_POLL_US 2000     /* how often a paused node looks again */

static void on_turn(struct sim_timer *t);

void sim_exec_init(struct sim_exec *x, struct sim *sim)
{
	memset(x, 0, sizeof(*x));
	x->sim = sim;
	x->cache = sim_cache_new();
	sim_graph_init(&x->graph);
	buf_init(&x->messages, MESSAGES_MAX);
	sim_timer_init(&x->turn, on_turn);
}

static void drop_graph(struct sim_exec *x)
{
	for (size_t i = 0; i < x->graph.nnodes; i++)
		sim_run_free(x->graph.nodes[i]->run);
	sim_graph_deinit(&x->graph);
	x->busy = NULL;
}

void sim_exec_deinit(struct sim_exec *x)
{
	drop_graph(x);
	sim_timer_stop(&x->turn);
	sim_cache_free(x->cache);
	x->cache = NULL;
	buf_deinit(&x->messages);
	free(x->client_id);
	free(x->last_node);
	x->client_id = x->last_node = NULL;
}

void sim_exec_forget(struct sim_exec *x)
{
	bool paused = x->paused;
	int64_t pause_after = x->pause_after;
	int64_t pause_starts = x->pause_starts;

	sim_exec_deinit(x);
	sim_exec_init(x, x->sim);
	x->paused = paused;
	x->pause_after = pause_after;
	x->pause_starts = pause_starts;
}

void sim_exec_wake(struct sim_exec *x)
{
	if (x->state == SIM_EXEC_IDLE && !sim_timer_armed(&x->turn))
		sim_timer_start(&x->turn, 0);
}

static void next_turn(struct sim_exec *x)
{
	if (!sim_timer_armed(&x->turn))
		sim_timer_start(&x->turn, 0);
}

void sim_exec_pause(struct sim_exec *x, bool paused)
{
	x->paused = paused;
	x->pause_after = x->pause_starts = 0;
	if (!paused)
		next_turn(x);
}

void sim_exec_pause_after(struct sim_exec *x, int64_t steps, int64_t starts)
{
	sim_exec_pause(x, false);
	x->pause_after = steps;
	x->pause_starts = starts;
}

static void count_down(struct sim_exec *x, int64_t *left)
{
	if (*left > 0 && --*left == 0)
		sim_exec_pause(x, true);
}

void sim_exec_count_step(struct sim_exec *x)
{
	count_down(x, &x->pause_after);
}

bool sim_exec_take_interrupt(struct sim_exec *x)
{
	bool was = x->interrupt;

	x->interrupt = false;
	return was;
}

static void journal(struct sim_exec *x, const char *fact)
{
	struct buf b = BUF_INIT(65536);

	(void)buf_puts(&b, "\"prompt_id\":");
	(void)sim_put_string(&b, x->prompt->id);
	if (strcmp(fact, "end") == 0)
		(void)buf_printf(&b, ",\"verdict\":\"%s\"",
		                 x->success       ? "success"
		                 : x->interrupted ? "interrupted"
		                                  : "error");
	sim_journal_add(&x->sim->journal, fact, &b);
	buf_deinit(&b);
}

/* --- beginning ------------------------------------------------------------ */

static void add_static_node(struct sim_exec *x, struct json id,
                            struct json node)
{
	char *name = json_string_dup(id, x->prompt->workflow_len);
	char *class_name = json_string_dup(json_get(node, "class_type"),
	                                   x->prompt->workflow_len);
	const struct sim_class *cls =
		class_name ? sim_nodes_find(class_name) : NULL;
	struct sim_node *n = NULL;
	struct json_iter it;
	struct json key, value;

	/* A key that comes twice: the first one's place, the last one's
	 * value. */
	if (name && cls)
		n = sim_graph_find(&x->graph, name);
	if (n)
		sim_node_reset(n, cls);
	else if (name && cls)
		n = sim_graph_add(&x->graph, name, cls, NULL, name);
	json_iter_init(&it, json_get(node, "inputs"));
	while (n && json_iter_next(&it, &key, &value)) {
		char *input = json_string_dup(key, x->prompt->workflow_len);

		if (input)
			sim_node_set_input(
				n, input,
				sim_value_json(value.text.p, value.text.n));
		free(input);
	}
	free(class_name);
	free(name);
}

static void build_graph(struct sim_exec *x)
{
	struct json workflow, id, node;
	struct json_iter it;

	if (json_parse(&workflow, x->prompt->workflow, x->prompt->workflow_len,
	               JSON_NONFINITE, NULL) != JSON_OK)
		return;
	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node))
		add_static_node(x, id, node);
}

static void key_graph(struct sim_exec *x)
{
	sim_cache_begin(x->cache);
	for (size_t i = 0; i < x->graph.nnodes; i++) {
		struct sim_node *n = x->graph.nodes[i];

		n->cache = x->cache;
		sim_graph_key(&x->graph, n, sim_exec_file_key, x);
		sim_cache_use(x->cache, &n->key, n->id, n->cls->row->name);
	}
	sim_cache_clean(x->cache);
}

static void tell_cached(struct sim_exec *x)
{
	struct buf b = BUF_INIT(MESSAGES_MAX);
	bool first = true;

	(void)buf_puts(&b, "\"nodes\": [");
	for (size_t i = 0; i < x->graph.nnodes; i++) {
		if (!sim_node_cached(x->graph.nodes[i]))
			continue;
		if (!first)
			(void)buf_puts(&b, ", ");
		first = false;
		(void)sim_put_string(&b, x->graph.nodes[i]->id);
	}
	(void)buf_putc(&b, ']');
	sim_event_message(x, "execution_cached", &b, false);
	buf_deinit(&b);
}

static void begin(struct sim_exec *x)
{
	x->prompt = sim_queue_take(&x->sim->queue);
	if (!x->prompt)
		return;
	x->state = SIM_EXEC_RUNNING;
	x->interrupt = x->interrupted = false;
	/* What it is before any node has run; a cycle leaves it at that. */
	x->success = true;
	free(x->client_id);
	x->client_id =
		x->prompt->client_id ? sim_strdup(x->prompt->client_id) : NULL;
	buf_reset(&x->messages);
	journal(x, "start");
	sim_event_message(x, "execution_start", NULL, false);
	build_graph(x);
	key_graph(x);
	tell_cached(x);
	for (size_t i = 0; i < x->prompt->noutputs; i++) {
		struct sim_node *n =
			sim_graph_find(&x->graph, x->prompt->outputs[i]);

		if (n)
			sim_graph_want(&x->graph, n);
	}
	next_turn(x);
	count_down(x, &x->pause_starts);
}

/* --- end --------------------------------------------------------------------
 */

/* Of every node with something to show, the inner ones of expansions too. */
static void put_outputs(struct sim_exec *x, struct buf *b, bool meta)
{
	bool first = true;

	for (size_t i = 0; i < x->graph.nnodes; i++) {
		struct sim_node *n = x->graph.nodes[i];
		struct sim_entry *e = sim_node_entry(n);

		if (!e || !e->ui)
			continue;
		if (!first)
			(void)buf_puts(b, ", ");
		first = false;
		(void)sim_put_string(b, n->id);
		(void)buf_puts(b, ": ");
		(void)buf_puts(b, meta ? e->meta : e->ui);
	}
}

static char *history_result(struct sim_exec *x)
{
	struct buf b = BUF_INIT(SIM_REPLY_MAX);
	char *text;

	(void)buf_puts(&b, "\"outputs\": {");
	put_outputs(x, &b, false);
	(void)buf_printf(&b,
	                 "}, \"status\": {\"status_str\": \"%s\", "
	                 "\"completed\": %s, \"messages\": [",
	                 x->success ? "success" : "error",
	                 x->success ? "true" : "false");
	(void)buf_append(&b, x->messages.data, x->messages.len);
	(void)buf_puts(&b, "]}, \"meta\": {");
	put_outputs(x, &b, true);
	(void)buf_putc(&b, '}');
	text = buf_steal(&b, NULL);
	return text ? text : sim_strdup("\"outputs\": {}");
}

/* The keys of others that history must not show. */
static void drop_secrets(struct sim_prompt *p)
{
	struct buf b = BUF_INIT(p->extra_len + 64);
	struct json extra, key, value;
	struct json_iter it;

	if (json_parse(&extra, p->extra_data, p->extra_len, JSON_NONFINITE,
	               NULL) != JSON_OK)
		return;
	(void)buf_putc(&b, '{');
	json_iter_init(&it, extra);
	while (json_iter_next(&it, &key, &value)) {
		if (json_string_eq(key, "auth_token_comfy_org") ||
		    json_string_eq(key, "api_key_comfy_org"))
			continue;
		if (b.len > 1)
			(void)buf_puts(&b, ", ");
		(void)sim_put_json(&b, key);
		(void)buf_puts(&b, ": ");
		(void)sim_put_json(&b, value);
	}
	(void)buf_putc(&b, '}');
	if (buf_ok(&b)) {
		free(p->extra_data);
		p->extra_data = buf_steal(&b, &p->extra_len);
	}
	buf_deinit(&b);
}

void sim_exec_end(struct sim_exec *x)
{
	x->state = SIM_EXEC_ENDING;
	x->prompt->result = history_result(x);
	x->prompt->success = x->success;
	free(x->last_node);
	x->last_node = NULL;
	drop_graph(x);
	sim_timer_stop(&x->turn);
	/* Between the last event and the history entry other requests are
	 * answered (recording 28), so this takes another turn at least. */
	sim_timer_start(&x->turn,
	                (int64_t)(x->sim->options.history_lag_ms * 1000));
}

static void write_history(struct sim_exec *x)
{
	drop_secrets(x->prompt);
	journal(x, "end");
	sim_queue_done(&x->sim->queue);
	sim_event_end(x);
	x->prompt = NULL;
	x->state = SIM_EXEC_IDLE;
	next_turn(x);
}

/* --- turns ------------------------------------------------------------------
 */

static void run_next(struct sim_exec *x)
{
	struct sim_node *n;

	if (x->busy)
		return;
	if (sim_graph_empty(&x->graph)) {
		if (!x->sim->options.no_execution_success)
			sim_event_message(x, "execution_success", NULL, false);
		sim_exec_end(x);
		return;
	}
	n = sim_graph_pick(&x->graph);
	if (n)
		sim_exec_node(x, n);
	else if (!x->graph.external)
		sim_exec_cycle(x);
	if (x->state == SIM_EXEC_RUNNING && n && !x->busy)
		next_turn(x);
}

static void on_turn(struct sim_timer *t)
{
	struct sim_exec *x = container_of(t, struct sim_exec, turn);

	if (x->paused && x->state != SIM_EXEC_ENDING)
		return;
	switch (x->state) {
	case SIM_EXEC_IDLE:
		begin(x);
		break;
	case SIM_EXEC_RUNNING:
		run_next(x);
		break;
	case SIM_EXEC_ENDING:
		write_history(x);
		break;
	}
}

void sim_exec_resume(struct sim_exec *x, struct sim_node *n)
{
	/* A coroutine gets no turn while a plain function runs. */
	if (x->paused || (x->busy && x->busy != n)) {
		sim_timer_start(&n->run->timer, PAUSE_POLL_US);
		return;
	}
	sim_exec_continue(x, n);
	if (x->state == SIM_EXEC_RUNNING && !x->busy)
		next_turn(x);
}
