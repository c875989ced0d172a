/*
 * sim_exec_node.c - what happens to one node: answered from the cache, started,
 * waiting, expanded into others, finished, failed.
 */
#include "tests/sim/sim_exec_node.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_events.h"
#include "tests/sim/sim_run.h"
#include "tests/sim/sim_text.h"

#define DETAILS_MAX 67108864 /* bytes of an error's description */

void sim_exec_file_key(void *arg, struct sim_node *n, struct sim_key *k)
{
	struct sim_exec *x = arg;
	struct sim_input *in = sim_node_input(n, "image");
	char *name = in && !in->link
	                     ? json_string_dup(sim_value_as_json(in->value),
	                                       SIM_NAME_MAX)
	                     : NULL;
	const struct sim_blob *blob =
		name ? sim_files_annotated(&x->sim->files, name, SIM_INPUT)
		     : NULL;

	if (blob)
		sim_key_add(k, blob->data, blob->len);
	free(name);
}

/* --- failure ----------------------------------------------------------------
 */

static void put_pair(struct buf *b, const char *key, const char *value)
{
	if (b->len)
		(void)buf_puts(b, ", ");
	(void)buf_printf(b, "\"%s\": ", key);
	(void)sim_put_string(b, value);
}

static void put_inputs(struct buf *b, const struct sim_node *n)
{
	bool first = true;

	(void)buf_putc(b, '{');
	for (size_t i = 0; i < n->ninputs; i++) {
		if (!n->run->args[i])
			continue;
		if (!first)
			(void)buf_puts(b, ", ");
		first = false;
		(void)sim_put_string(b, n->inputs[i].name);
		(void)buf_puts(b, ": [");
		sim_value_format(b, n->run->args[i]);
		(void)buf_putc(b, ']');
	}
	(void)buf_putc(b, '}');
}

/* Nodes of the workflow, whatever has become of them. */
static void put_current_outputs(struct buf *b, const struct sim_graph *g)
{
	bool first = true;

	(void)buf_puts(b, ", \"current_outputs\": [");
	for (size_t i = 0; i < g->nnodes; i++) {
		if (g->nodes[i]->parent)
			continue;
		if (!first)
			(void)buf_puts(b, ", ");
		first = false;
		(void)sim_put_string(b, g->nodes[i]->id);
	}
	(void)buf_putc(b, ']');
}

static void put_traceback(struct buf *b, const struct sim_class *cls)
{
	(void)buf_printf(
		b,
		", \"traceback\": [\"  File \\\"/opt/ComfyUI/execution.py\\\", "
		"line 496, in execute\\n    ...\\n\", \"  File "
		"\\\"/opt/ComfyUI/nodes.py\\\", line 1, in %s\\n    ...\\n\"]",
		cls->row->name);
}

static void journal_executed(struct sim_exec *x, const struct sim_node *n)
{
	struct buf b = BUF_INIT(65536);

	(void)buf_puts(&b, "\"prompt_id\":");
	(void)sim_put_string(&b, x->prompt->id);
	(void)buf_puts(&b, ",\"node\":");
	(void)sim_put_string(&b, n->id);
	sim_journal_add(&x->sim->journal, "executed", &b);
	buf_deinit(&b);
}

static void interrupted(struct sim_exec *x, const struct sim_node *n)
{
	const struct sim_node *real = sim_node_real(n);
	struct buf b = BUF_INIT(DETAILS_MAX);

	put_pair(&b, "node_id", real->id);
	put_pair(&b, "node_type", real->cls->row->name);
	(void)buf_puts(&b, ", ");
	sim_put_executed(&b, &x->graph);
	x->success = false;
	x->interrupted = true;
	sim_event_message(x, "execution_interrupted", &b, true);
	buf_deinit(&b);
	sim_exec_end(x);
}

static void failed(struct sim_exec *x, const struct sim_node *n)
{
	const struct sim_node *real = sim_node_real(n);
	struct buf b = BUF_INIT(DETAILS_MAX), message = BUF_INIT(DETAILS_MAX);

	/* The line feed parts the message from tips, of which there are
	 * none. */
	(void)buf_printf(&message, "%s\n", n->run->error_message);
	put_pair(&b, "node_id", real->id);
	put_pair(&b, "node_type", real->cls->row->name);
	(void)buf_puts(&b, ", ");
	sim_put_executed(&b, &x->graph);
	put_pair(&b, "exception_message",
	         buf_ok(&message) ? buf_cstr(&message) : "");
	put_pair(&b, "exception_type", n->run->error_type);
	put_traceback(&b, n->cls);
	(void)buf_puts(&b, ", \"current_inputs\": ");
	/* A coroutine's are gone when its failure is noticed. */
	if (n->run->was_async)
		(void)buf_puts(&b, "{}");
	else
		put_inputs(&b, n);
	put_current_outputs(&b, &x->graph);
	x->success = false;
	sim_event_message(x, "execution_error", &b, false);
	buf_deinit(&message);
	buf_deinit(&b);
	sim_exec_end(x);
}

void sim_exec_cycle(struct sim_exec *x)
{
	const char *blamed = sim_graph_blame(&x->graph);
	struct sim_node *n = sim_graph_find(&x->graph, blamed ? blamed : "");
	struct buf b = BUF_INIT(DETAILS_MAX);

	put_pair(&b, "node_id", n ? n->id : "");
	put_pair(&b, "node_type", n ? n->cls->row->name : "");
	(void)buf_puts(&b, ", ");
	sim_put_executed(&b, &x->graph);
	put_pair(&b, "exception_message", "Dependency cycle detected");
	put_pair(&b, "exception_type", "graph.DependencyCycleError");
	(void)buf_puts(&b, ", \"traceback\": [], \"current_inputs\": []");
	put_current_outputs(&b, &x->graph);
	/* x->success stays what the latest node left: recording 19. */
	sim_event_message(x, "execution_error", &b, false);
	buf_deinit(&b);
	sim_exec_end(x);
}

/* --- success ----------------------------------------------------------------
 */

static void finish_progress(struct sim_exec *x, struct sim_node *n)
{
	if (!n->is_touched) {
		/* Never started: what the registry begins with. */
		n->max = 1;
		n->max_int = true;
	}
	n->value = n->max;
	n->value_int = n->max_int;
	n->finished = true;
	sim_event_progress_state(x, n);
}

static void show_output(struct sim_exec *x, struct sim_node *n)
{
	struct sim_entry *e = sim_cache_put(n->cache, &n->key);
	struct buf meta = BUF_INIT(65536);

	(void)buf_puts(&meta, "{");
	(void)buf_puts(&meta, "\"node_id\": ");
	(void)sim_put_string(&meta, n->id);
	(void)buf_puts(&meta, ", \"display_node\": ");
	(void)sim_put_string(&meta, n->display);
	(void)buf_puts(&meta, ", \"parent_node\": ");
	if (n->parent)
		(void)sim_put_string(&meta, n->parent->id);
	else
		(void)buf_puts(&meta, "null");
	(void)buf_puts(&meta, ", \"real_node_id\": ");
	(void)sim_put_string(&meta, sim_node_real(n)->id);
	(void)buf_putc(&meta, '}');
	free(e->ui);
	free(e->meta);
	e->ui = sim_strdup(buf_cstr(&n->run->ui));
	e->meta = buf_steal(&meta, NULL);
	sim_event_executed(x, n, e->ui);
}

static void succeed(struct sim_exec *x, struct sim_node *n)
{
	struct sim_entry *e = sim_cache_put(n->cache, &n->key);
	size_t nout = n->cls->noutputs;

	sim_entry_set_outputs(e, n->run->out, nout);
	for (size_t i = 0; i < nout; i++)
		n->run->out[i] = NULL;
	x->success = true;
	finish_progress(x, n);
	n->executed = true;
	journal_executed(x, n);
	sim_run_free(n->run);
	sim_graph_pop(&x->graph, n);
}

/* --- expansion --------------------------------------------------------------
 */

/* Puts the new nodes into the graph. An id that is taken, or a class that
 * doesn't exist, is a fault of the table. */
static bool add_fresh(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;
	struct sim_cache *sub =
		sim_cache_sub(n->cache, n->id, n->cls->row->name);

	for (size_t i = 0; i < r->nfresh; i++) {
		struct sim_new_node *f = &r->fresh[i];
		const struct sim_class *cls = sim_nodes_find(f->class_name);
		struct sim_node *inner =
			cls ? sim_graph_add(&x->graph, f->id, cls, n,
		                            f->display ? f->display : n->id)
			    : NULL;

		if (!inner)
			return false;
		inner->cache = sub;
		for (size_t k = 0; k < f->ninputs; k++) {
			struct sim_input *in = &f->inputs[k];

			if (in->link)
				sim_node_set_link(inner, in->name, in->link,
				                  in->slot);
			else
				sim_node_set_input(inner, in->name,
				                   sim_value_ref(in->value));
		}
	}
	return true;
}

static void key_fresh(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;
	struct sim_cache *sub =
		sim_cache_sub(n->cache, n->id, n->cls->row->name);

	sim_cache_begin(sub);
	for (size_t i = 0; i < r->nfresh; i++) {
		struct sim_node *inner =
			sim_graph_find(&x->graph, r->fresh[i].id);

		sim_graph_key(&x->graph, inner, sim_exec_file_key, x);
		sim_cache_use(sub, &inner->key, inner->id,
		              inner->cls->row->name);
	}
	sim_cache_clean(sub);
}

static void expand(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;

	if (!add_fresh(x, n)) {
		(void)sim_fail(r, "execution.DuplicateNodeError",
		               "Attempt to add duplicate node");
		failed(x, n);
		return;
	}
	key_fresh(x, n);
	r->expanded = true;
	for (size_t i = 0; i < r->nfresh; i++) {
		struct sim_node *inner =
			sim_graph_find(&x->graph, r->fresh[i].id);

		if (inner->cls->row->flags & SIM_OUTPUT)
			sim_graph_want(&x->graph, inner);
	}
	for (size_t i = 0; i < n->cls->noutputs; i++) {
		struct sim_value *v = r->out[i];
		struct sim_node *from;
		char *id;

		if (!v || !sim_value_is_link(v))
			continue;
		id = json_string_dup(json_at(sim_value_as_json(v), 0), v->len);
		from = id ? sim_graph_find(&x->graph, id) : NULL;
		if (from)
			sim_graph_wait(&x->graph, from, n);
		free(id);
	}
}

static struct sim_value *output_of(struct sim_exec *x, const char *id,
                                   long slot)
{
	struct sim_node *from = sim_graph_find(&x->graph, id);
	struct sim_entry *e = from ? sim_node_entry(from) : NULL;

	if (!e || !e->done || slot < 0 || (size_t)slot >= e->nout)
		return NULL;
	return e->out[slot];
}

/* Everything inside has run: links become what they led to. */
static void collect(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;

	for (size_t i = 0; i < n->cls->noutputs; i++) {
		struct sim_value *v = r->out[i];
		double slot = 0;
		char *id;

		if (!v || !sim_value_is_link(v))
			continue;
		id = json_string_dup(json_at(sim_value_as_json(v), 0), v->len);
		(void)json_double(json_at(sim_value_as_json(v), 1), &slot);
		sim_out(r, i,
		        id ? sim_value_ref(output_of(x, id, (long)slot))
		           : NULL);
		free(id);
	}
}

/* --- start and course -------------------------------------------------------
 */

static void settle(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;

	switch (r->step) {
	case SIM_STEP_DONE:
		if (r->ui.len)
			show_output(x, n);
		succeed(x, n);
		break;
	case SIM_STEP_EXPAND:
		expand(x, n);
		break;
	case SIM_STEP_FAIL:
		failed(x, n);
		break;
	case SIM_STEP_INTERRUPTED:
		interrupted(x, n);
		break;
	case SIM_STEP_WAIT:
		break;
	}
}

static void call(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;
	bool is_async = n->cls->row->flags & SIM_ASYNC;

	r->step = n->cls->row->run(r);
	r->phase++;
	if (r->step == SIM_STEP_WAIT) {
		sim_timer_start(&r->timer, r->wait_us);
		if (is_async && !r->waiting) {
			r->waiting = r->was_async = true;
			n->blocked_by++;
			x->graph.external++;
		} else if (!is_async) {
			x->busy = n;
		}
		return;
	}
	if (r->waiting) {
		/* Its result is looked at when it is picked again. */
		r->waiting = false;
		n->blocked_by--;
		x->graph.external--;
		return;
	}
	x->busy = NULL;
	settle(x, n);
}

void sim_exec_continue(struct sim_exec *x, struct sim_node *n)
{
	call(x, n);
}

static void resolve_args(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = n->run;

	for (size_t i = 0; i < n->ninputs; i++) {
		struct sim_input *in = &n->inputs[i];
		const struct sim_class_input *decl =
			sim_class_input(n->cls, in->name);

		if (!decl)
			continue;
		if (in->link && decl->raw)
			r->args[i] = sim_link_value(in->link, in->slot);
		else if (in->link)
			r->args[i] =
				sim_value_ref(output_of(x, in->link, in->slot));
		else
			r->args[i] = sim_value_ref(in->value);
	}
}

/* True if the node has to wait for lazy inputs first. */
static bool ask_for_lazy(struct sim_exec *x, struct sim_node *n)
{
	bool asked = false;

	if (!(n->cls->row->flags & SIM_LAZY))
		return false;
	for (size_t i = 0; i < n->ninputs; i++) {
		struct sim_node *from =
			n->inputs[i].link
				? sim_graph_find(&x->graph, n->inputs[i].link)
				: NULL;

		if (n->run->args[i] || !from)
			continue;
		sim_graph_wait(&x->graph, from, n);
		asked = true;
	}
	return asked;
}

/* An ExecutionBlocker among the arguments: the node doesn't run, its outputs
 * are blockers. */
static bool is_blocked(struct sim_exec *x, struct sim_node *n)
{
	struct sim_value *blocker = NULL;

	for (size_t i = 0; i < n->ninputs && !blocker; i++) {
		struct sim_value *v = n->run->args[i];

		if (v && v->kind == SIM_V_BLOCKER)
			blocker = v;
	}
	if (!blocker)
		return false;
	if (blocker->text)
		sim_event_blocked(x, n, blocker->text);
	for (size_t i = 0; i < n->cls->noutputs; i++)
		sim_out(n->run, i, sim_value_blocker(NULL));
	return true;
}

static void start(struct sim_exec *x, struct sim_node *n)
{
	n->run = sim_run_new(x, n);
	n->value = 0;
	n->max = 1;
	n->value_int = n->max_int = false;
	sim_event_progress_state(x, n);
	resolve_args(x, n);
	sim_event_executing(x, n);
	if (ask_for_lazy(x, n)) {
		sim_run_free(n->run);
		return;
	}
	if (sim_exec_take_interrupt(x)) {
		interrupted(x, n);
		return;
	}
	if (is_blocked(x, n)) {
		succeed(x, n);
		return;
	}
	call(x, n);
}

void sim_exec_node(struct sim_exec *x, struct sim_node *n)
{
	struct sim_entry *e = sim_node_entry(n);

	if (e && e->done) {
		sim_event_executed(x, n, e->ui ? e->ui : "null");
		finish_progress(x, n);
		sim_graph_pop(&x->graph, n);
	} else if (!n->run) {
		start(x, n);
	} else if (n->run->expanded) {
		collect(x, n);
		succeed(x, n);
	} else {
		settle(x, n);
	}
}
