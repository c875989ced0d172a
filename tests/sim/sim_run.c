/*
 * sim_run.c - see sim_run.h.
 */
#include "tests/sim/sim_run.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_events.h"
#include "tests/sim/sim_text.h"

#define UI_MAX 67108864 /* bytes of a node's output object */

static void on_timer(struct sim_timer *t)
{
	struct sim_run *r = container_of(t, struct sim_run, timer);

	sim_exec_resume(r->exec, r->node);
}

struct sim_run *sim_run_new(struct sim_exec *x, struct sim_node *n)
{
	struct sim_run *r = sim_calloc(1, sizeof(*r));

	r->exec = x;
	r->node = n;
	r->next_id = 1;
	r->started_us = clock_us();
	r->args = sim_calloc(n->ninputs, sizeof(struct sim_value *));
	r->out = sim_calloc(n->cls->noutputs, sizeof(struct sim_value *));
	buf_init(&r->ui, UI_MAX);
	sim_timer_init(&r->timer, on_timer);
	return r;
}

static void fresh_deinit(struct sim_new_node *f)
{
	for (size_t i = 0; i < f->ninputs; i++) {
		free(f->inputs[i].name);
		free(f->inputs[i].link);
		sim_value_unref(f->inputs[i].value);
	}
	free(f->inputs);
	free(f->id);
	free(f->display);
}

void sim_run_free(struct sim_run *r)
{
	if (!r)
		return;
	sim_timer_stop(&r->timer);
	for (size_t i = 0; i < r->node->ninputs; i++)
		sim_value_unref(r->args[i]);
	for (size_t i = 0; i < r->node->cls->noutputs; i++)
		sim_value_unref(r->out[i]);
	for (size_t i = 0; i < r->nfresh; i++)
		fresh_deinit(&r->fresh[i]);
	free(r->fresh);
	free(r->args);
	free(r->out);
	buf_deinit(&r->ui);
	sim_value_unref(r->preview_of);
	free(r->error_type);
	free(r->error_message);
	r->node->run = NULL;
	free(r);
}

struct sim_value *sim_arg(const struct sim_run *r, const char *name)
{
	for (size_t i = 0; i < r->node->ninputs; i++) {
		if (strcmp(r->node->inputs[i].name, name) == 0)
			return r->args[i];
	}
	return NULL;
}

double sim_arg_number(const struct sim_run *r, const char *name,
                      double otherwise)
{
	return sim_value_number(sim_arg(r, name), otherwise);
}

int64_t sim_arg_int(const struct sim_run *r, const char *name,
                    int64_t otherwise)
{
	int64_t n;

	if (json_int64(sim_value_as_json(sim_arg(r, name)), &n))
		return n;
	return (int64_t)sim_arg_number(r, name, (double)otherwise);
}

uint64_t sim_arg_uint64(const struct sim_run *r, const char *name)
{
	uint64_t n;

	if (json_uint64(sim_value_as_json(sim_arg(r, name)), &n))
		return n;
	return 0;
}

bool sim_arg_bool(const struct sim_run *r, const char *name, bool otherwise)
{
	struct sim_value *v = sim_arg(r, name);

	return v ? sim_value_truth(v) : otherwise;
}

char *sim_arg_text(const struct sim_run *r, const char *name)
{
	char *s = json_string_dup(sim_value_as_json(sim_arg(r, name)), UI_MAX);

	return s ? s : sim_strdup("");
}

void sim_out(struct sim_run *r, size_t slot, struct sim_value *v)
{
	sim_value_unref(r->out[slot]);
	r->out[slot] = v;
}

enum sim_step sim_wait_ms(struct sim_run *r, double simulated_ms)
{
	r->wait_us = sim_loop_scale(simulated_ms);
	return SIM_STEP_WAIT;
}

enum sim_step sim_fail(struct sim_run *r, const char *type, const char *message)
{
	free(r->error_type);
	free(r->error_message);
	r->error_type = sim_strdup(type);
	r->error_message = sim_strdup(message);
	return SIM_STEP_FAIL;
}

double sim_run_elapsed_ms(const struct sim_run *r)
{
	return (double)(clock_us() - r->started_us) / 1000.0 * sim_loop_speed();
}

bool sim_run_progress(struct sim_run *r, double value, double max,
                      unsigned flags, const struct sim_blob *preview,
                      const char *mime)
{
	struct sim_exec *x = r->exec;
	struct sim_node *n = r->node;
	bool metadata =
		sim_clients_want_metadata(&x->sim->clients, x->client_id);

	if (sim_exec_take_interrupt(x))
		return false;
	n->value = value;
	n->max = max;
	n->value_int = n->max_int = !(flags & SIM_PROGRESS_FLOATS);
	sim_exec_count_step(x);
	sim_event_progress_state(x, n);
	if (preview && metadata)
		sim_event_preview_metadata(x, n, preview, mime);
	if (flags & SIM_PROGRESS_NEW_STYLE)
		return true;
	sim_event_progress(x, n);
	if (preview && !metadata)
		sim_event_preview(x, preview, mime);
	return true;
}

void sim_run_say(struct sim_run *r, const char *text)
{
	sim_event_text(r->exec, r->node, text);
}

struct sim_new_node *sim_fresh(struct sim_run *r, const char *class_name,
                               const char *name)
{
	struct sim_new_node *f;
	char number[16];
	struct buf id = BUF_INIT(65536);

	if (!name) {
		(void)snprintf(number, sizeof(number), "%u", r->next_id++);
		name = number;
	}
	r->fresh = sim_realloc(r->fresh, r->nfresh + 1, sizeof(*r->fresh));
	f = &r->fresh[r->nfresh++];
	/* Prefix: the node, the call within it, the graph within that. */
	(void)buf_printf(&id, "%s.0.0.%s", r->node->id, name);
	*f = (struct sim_new_node){
		.id = buf_steal(&id, NULL),
		.class_name = class_name,
	};
	if (!f->id)
		abort();
	return f;
}

static struct sim_input *fresh_input(struct sim_new_node *f, const char *name)
{
	f->inputs = sim_realloc(f->inputs, f->ninputs + 1, sizeof(*f->inputs));
	f->inputs[f->ninputs] = (struct sim_input){.name = sim_strdup(name)};
	return &f->inputs[f->ninputs++];
}

void sim_fresh_value(struct sim_new_node *f, const char *input,
                     struct sim_value *v)
{
	if (v)
		fresh_input(f, input)->value = v;
}

void sim_fresh_link(struct sim_new_node *f, const char *input,
                    const char *from_id, long slot)
{
	struct sim_input *in = fresh_input(f, input);

	in->link = sim_strdup(from_id);
	in->slot = slot;
}

struct sim_value *sim_link_value(const char *id, long slot)
{
	struct buf b = BUF_INIT(65536);
	struct sim_value *v;

	(void)buf_putc(&b, '[');
	(void)sim_put_string(&b, id);
	(void)buf_printf(&b, ", %ld]", slot);
	if (!buf_ok(&b))
		abort();
	v = sim_value_json(b.data, b.len);
	buf_deinit(&b);
	return v;
}
