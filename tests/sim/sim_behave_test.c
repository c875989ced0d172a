/*
 * sim_behave_test.c - the nodes of ComfyUI's own test suite that occur in the
 * recordings: coroutines, errors, loops, expansions.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_behave.h"
#include "tests/sim/sim_run.h"
#include "tests/sim/sim_text.h"

#define SLEEP_STEP_MS 10 /* TestSleep: between two reports */
#define LOOP_VALUES   5  /* initial_value0 ... */

static const char *const loop_value[LOOP_VALUES] = {
	"initial_value0", "initial_value1", "initial_value2",
	"initial_value3", "initial_value4",
};

static enum sim_step pass(struct sim_run *r, const char *name)
{
	sim_out(r, 0, sim_value_ref(sim_arg(r, name)));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_test_sleep(struct sim_run *r)
{
	double seconds = sim_arg_number(r, "seconds", 1);
	double now = sim_run_elapsed_ms(r) / 1000;

	/* A real clock never shows exactly nothing. */
	if (r->phase == 0)
		now = 2.384185791015625e-07;
	else if (r->node->value >= seconds)
		return pass(r, "value");
	if (!sim_run_progress(r, now < seconds ? now : seconds, seconds,
	                      SIM_PROGRESS_FLOATS, NULL, NULL))
		return SIM_STEP_INTERRUPTED;
	return sim_wait_ms(r, SLEEP_STEP_MS);
}

enum sim_step sim_run_async_timeout(struct sim_run *r)
{
	double timeout = sim_arg_number(r, "timeout", 1);
	double needed = sim_arg_number(r, "operation_time", 0.5);

	if (r->phase == 0)
		return sim_wait_ms(r, (needed < timeout ? needed : timeout) *
		                              1000);
	if (needed > timeout) {
		char text[64];

		(void)snprintf(text, sizeof(text),
		               "Operation timed out after %g seconds", timeout);
		return sim_fail(r, "RuntimeError", text);
	}
	return pass(r, "value");
}

enum sim_step sim_run_async_batch(struct sim_run *r)
{
	const struct sim_value *v = sim_arg(r, "images");
	double ms = sim_arg_number(r, "process_time_per_item", 0.1) * 1000;

	if (!v || v->kind != SIM_V_IMAGE)
		return sim_fail(r, "AttributeError",
		                "'NoneType' object has no attribute 'shape'");
	if (r->phase == 0)
		return sim_wait_ms(r, ms);
	if (!sim_run_progress(r, r->phase, v->batch, 0, NULL, NULL))
		return SIM_STEP_INTERRUPTED;
	if (r->phase < v->batch)
		return sim_wait_ms(r, ms);
	return pass(r, "images");
}

enum sim_step sim_run_sync_error(struct sim_run *r)
{
	return sim_fail(r, "RuntimeError",
	                "Intentional sync execution error for testing");
}

enum sim_step sim_run_async_error(struct sim_run *r)
{
	if (r->phase == 0)
		return sim_wait_ms(r, sim_arg_number(r, "error_after", 0.1) *
		                              1000);
	return sim_fail(r, "RuntimeError",
	                "Intentional async execution error for testing");
}

/* --- values ------------------------------------------------------------------
 */

enum sim_step sim_run_stub_value(struct sim_run *r)
{
	return pass(r, "value");
}

enum sim_step sim_run_stub_mask(struct sim_run *r)
{
	struct sim_value *v = sim_value_new(SIM_V_MASK);

	v->width = (uint32_t)sim_arg_int(r, "width", 512);
	v->height = (uint32_t)sim_arg_int(r, "height", 512);
	v->batch = (uint32_t)sim_arg_int(r, "batch_size", 1);
	sim_out(r, 0, v);
	return SIM_STEP_DONE;
}

enum sim_step sim_run_int_math(struct sim_run *r)
{
	int64_t a = sim_arg_int(r, "a", 0), b = sim_arg_int(r, "b", 0), n = 0;
	char *op = sim_arg_text(r, "operation");
	bool zero = b == 0;

	if (strcmp(op, "add") == 0)
		n = (int64_t)((uint64_t)a + (uint64_t)b);
	else if (strcmp(op, "subtract") == 0)
		n = (int64_t)((uint64_t)a - (uint64_t)b);
	else if (strcmp(op, "multiply") == 0)
		n = (int64_t)((uint64_t)a * (uint64_t)b);
	else if (!zero && b != -1)
		n = strcmp(op, "divide") == 0 ? a / b : a % b;
	zero = zero && (strcmp(op, "divide") == 0 || strcmp(op, "modulo") == 0);
	free(op);
	if (zero)
		return sim_fail(r, "ZeroDivisionError", "division by zero");
	sim_out(r, 0, sim_value_int(n));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_to_bool(struct sim_run *r)
{
	bool truth = sim_value_truth(sim_arg(r, "value"));

	if (sim_arg_bool(r, "invert", false))
		truth = !truth;
	sim_out(r, 0, sim_value_json(truth ? "true" : "false", truth ? 4 : 5));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_custom_validation(struct sim_run *r)
{
	sim_out(r, 0, sim_value_image(512, 512, 1, 0x808080));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_blocker(struct sim_run *r)
{
	if (!sim_arg_bool(r, "block", false))
		return pass(r, "input");
	sim_out(r, 0,
	        sim_value_blocker(sim_arg_bool(r, "verbose", false)
	                                  ? "Blocked Execution"
	                                  : NULL));
	return SIM_STEP_DONE;
}

enum sim_step sim_run_lazy_mix(struct sim_run *r)
{
	return pass(r, "image1");
}

/* --- expansions --------------------------------------------------------------
 */

static char *fresh_id(const struct sim_run *r)
{
	return sim_strdup(r->fresh[r->nfresh - 1].id);
}

static void fresh_arg(struct sim_run *r, struct sim_new_node *f,
                      const char *input, const char *arg)
{
	sim_fresh_value(f, input, sim_value_ref(sim_arg(r, arg)));
}

enum sim_step sim_run_expand_preview(struct sim_run *r)
{
	int64_t copies = sim_arg_int(r, "copies", 2);

	for (int64_t i = 0; i < copies; i++) {
		char *id;

		fresh_arg(r, sim_fresh(r, "ImageInvert", NULL), "image",
		          "image");
		id = fresh_id(r);
		sim_fresh_link(sim_fresh(r, "PreviewImage", NULL), "images", id,
		               0);
		sim_out(r, 0, sim_link_value(id, 0));
		free(id);
	}
	return SIM_STEP_EXPAND;
}

enum sim_step sim_run_expand_error(struct sim_run *r)
{
	char *id;

	fresh_arg(r, sim_fresh(r, "ImageInvert", NULL), "image", "image");
	id = fresh_id(r);
	sim_fresh_link(sim_fresh(r, "TestSyncError", NULL), "value", id, 0);
	free(id);
	id = fresh_id(r);
	sim_out(r, 0, sim_link_value(id, 0));
	free(id);
	return SIM_STEP_EXPAND;
}

enum sim_step sim_run_parallel_sleep(struct sim_run *r)
{
	static const char *const images[] = {"image1", "image2", "image3"};
	static const char *const sleeps[] = {"sleep1", "sleep2", "sleep3"};
	static const char *const inputs[] = {"input1", "input2", "input3"};
	char *ids[3], *blend;
	struct sim_new_node *f;

	for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
		f = sim_fresh(r, "TestSleep", NULL);
		fresh_arg(r, f, "value", images[i]);
		fresh_arg(r, f, "seconds", sleeps[i]);
		ids[i] = fresh_id(r);
	}
	f = sim_fresh(r, "TestVariadicAverage", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
		sim_fresh_link(f, inputs[i], ids[i], 0);
		free(ids[i]);
	}
	blend = fresh_id(r);
	sim_out(r, 0, sim_link_value(blend, 0));
	free(blend);
	return SIM_STEP_EXPAND;
}

enum sim_step sim_run_dynamic_cycle(struct sim_run *r)
{
	struct sim_new_node *f = sim_fresh(r, "StubMask", NULL);
	char *mask, *first, *second;

	sim_fresh_value(f, "value", sim_value_json("0.5", 3));
	sim_fresh_value(f, "height", sim_value_int(512));
	sim_fresh_value(f, "width", sim_value_int(512));
	sim_fresh_value(f, "batch_size", sim_value_int(1));
	mask = fresh_id(r);
	f = sim_fresh(r, "TestLazyMixImages", NULL);
	fresh_arg(r, f, "image1", "input1");
	sim_fresh_link(f, "mask", mask, 0);
	first = fresh_id(r);
	f = sim_fresh(r, "TestLazyMixImages", NULL);
	sim_fresh_link(f, "image1", first, 0);
	fresh_arg(r, f, "image2", "input2");
	sim_fresh_link(f, "mask", mask, 0);
	second = fresh_id(r);
	/* And back: the cycle. */
	sim_fresh_link(&r->fresh[1], "image2", second, 0);
	sim_out(r, 0, sim_link_value(second, 0));
	free(mask);
	free(first);
	free(second);
	return SIM_STEP_EXPAND;
}

/* --- loops -------------------------------------------------------------------
 */

static struct sim_value *stub(void)
{
	return sim_value_json("\"stub\"", 6);
}

enum sim_step sim_run_for_open(struct sim_run *r)
{
	struct sim_new_node *f = sim_fresh(r, "TestWhileLoopOpen", NULL);
	const char *remaining =
		sim_arg(r, loop_value[0]) ? loop_value[0] : "remaining";

	fresh_arg(r, f, "condition", remaining);
	fresh_arg(r, f, loop_value[0], remaining);
	sim_out(r, 0, stub());
	sim_out(r, 1, sim_value_ref(sim_arg(r, remaining)));
	for (size_t i = 1; i < LOOP_VALUES; i++) {
		fresh_arg(r, f, loop_value[i], loop_value[i]);
		sim_out(r, 1 + i, sim_value_ref(sim_arg(r, loop_value[i])));
	}
	return SIM_STEP_EXPAND;
}

enum sim_step sim_run_while_open(struct sim_run *r)
{
	sim_out(r, 0, stub());
	for (size_t i = 0; i < LOOP_VALUES; i++)
		sim_out(r, 1 + i, sim_value_ref(sim_arg(r, loop_value[i])));
	return SIM_STEP_DONE;
}

/* Where a raw link leads: the opening node of the loop. */
static char *raw_link_id(const struct sim_run *r, const char *name)
{
	const struct sim_value *v = sim_arg(r, name);

	return v ? json_string_dup(json_at(sim_value_as_json(v), 0), v->len)
	         : NULL;
}

enum sim_step sim_run_for_close(struct sim_run *r)
{
	struct sim_new_node *f;
	char *open = raw_link_id(r, "flow_control"), *sub, *cond;

	if (!open)
		return sim_fail(r, "TypeError", "flow_control is no link");
	f = sim_fresh(r, "TestIntMathOperation", NULL);
	sim_fresh_value(f, "operation", sim_value_json("\"subtract\"", 10));
	sim_fresh_link(f, "a", open, 1);
	sim_fresh_value(f, "b", sim_value_int(1));
	sub = fresh_id(r);
	f = sim_fresh(r, "TestToBoolNode", NULL);
	sim_fresh_link(f, "value", sub, 0);
	cond = fresh_id(r);
	f = sim_fresh(r, "TestWhileLoopClose", NULL);
	fresh_arg(r, f, "flow_control", "flow_control");
	sim_fresh_link(f, "condition", cond, 0);
	sim_fresh_link(f, loop_value[0], sub, 0);
	for (size_t i = 1; i < LOOP_VALUES; i++) {
		fresh_arg(r, f, loop_value[i], loop_value[i]);
		sim_out(r, i - 1, sim_link_value(f->id, (long)i));
	}
	free(open);
	free(sub);
	free(cond);
	return SIM_STEP_EXPAND;
}

/* Nodes between the ends of a loop: reachable upstream from its close and
 * downstream from its open. */
struct body {
	struct sim_run *run;
	struct sim_node **seen; /* upstream of the close */
	size_t nseen;
	struct sim_node **in;
	size_t nin;
};

static bool is_in(struct sim_node *const *list, size_t n,
                  const struct sim_node *x)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == x)
			return true;
	}
	return false;
}

static void add_to(struct sim_node ***listp, size_t *np, struct sim_node *n)
{
	*listp = sim_realloc(*listp, *np + 1, sizeof(struct sim_node *));
	(*listp)[(*np)++] = n;
}

static void look_upstream(struct body *b, struct sim_node *n)
{
	for (size_t i = 0; i < n->ninputs; i++) {
		struct sim_node *from =
			n->inputs[i].link ? sim_graph_find(&b->run->exec->graph,
		                                           n->inputs[i].link)
					  : NULL;

		if (from && !is_in(b->seen, b->nseen, from)) {
			add_to(&b->seen, &b->nseen, from);
			look_upstream(b, from);
		}
	}
}

static bool depends_on(const struct body *b, const struct sim_node *n,
                       const struct sim_node *from)
{
	for (size_t i = 0; i < n->ninputs; i++) {
		if (n->inputs[i].link &&
		    strcmp(n->inputs[i].link, from->id) == 0)
			return true;
	}
	return false;
}

static void collect_downstream(struct body *b, struct sim_node *from)
{
	for (size_t i = 0; i < b->nseen; i++) {
		struct sim_node *n = b->seen[i];

		if (depends_on(b, n, from) && !is_in(b->in, b->nin, n)) {
			add_to(&b->in, &b->nin, n);
			collect_downstream(b, n);
		}
	}
}

/* The name of a node's copy in the expansion; valid once all are added. */
static const char *copy_id(const struct body *b, const char *id)
{
	for (size_t i = 0; i < b->nin; i++) {
		if (strcmp(b->in[i]->id, id) == 0)
			return b->run->fresh[i].id;
	}
	return NULL;
}

static void copy_inputs(struct body *b, size_t index, bool is_open)
{
	struct sim_node *n = b->in[index];
	struct sim_new_node *f = &b->run->fresh[index];

	for (size_t i = 0; i < n->ninputs; i++) {
		struct sim_input *in = &n->inputs[i];
		const char *copy = in->link ? copy_id(b, in->link) : NULL;

		/* The next round begins with what this one arrived at. */
		if (is_open && strncmp(in->name, "initial_value", 13) == 0)
			continue;
		if (copy)
			sim_fresh_link(f, in->name, copy, in->slot);
		else if (in->link)
			sim_fresh_link(f, in->name, in->link, in->slot);
		else
			sim_fresh_value(f, in->name, sim_value_ref(in->value));
	}
	for (size_t i = 0; is_open && i < LOOP_VALUES; i++)
		fresh_arg(b->run, f, loop_value[i], loop_value[i]);
}

static enum sim_step next_round(struct sim_run *r, struct sim_node *open)
{
	struct body b = {.run = r};
	const char *again = NULL;

	look_upstream(&b, r->node);
	collect_downstream(&b, open);
	if (!is_in(b.in, b.nin, r->node))
		add_to(&b.in, &b.nin, r->node);
	if (!is_in(b.in, b.nin, open))
		add_to(&b.in, &b.nin, open);
	/* "Recurse" instead of the own name keeps names from growing. */
	for (size_t i = 0; i < b.nin; i++) {
		struct sim_new_node *f =
			sim_fresh(r, b.in[i]->cls->row->name,
		                  b.in[i] == r->node ? "Recurse" : b.in[i]->id);

		f->display = sim_strdup(b.in[i]->id);
	}
	for (size_t i = 0; i < b.nin; i++)
		copy_inputs(&b, i, b.in[i] == open);
	again = copy_id(&b, r->node->id);
	for (size_t i = 0; i < LOOP_VALUES; i++)
		sim_out(r, i, sim_link_value(again, (long)i));
	free(b.seen);
	free(b.in);
	return SIM_STEP_EXPAND;
}

enum sim_step sim_run_while_close(struct sim_run *r)
{
	char *id = raw_link_id(r, "flow_control");
	struct sim_node *open = id ? sim_graph_find(&r->exec->graph, id) : NULL;

	free(id);
	if (!open)
		return sim_fail(r, "TypeError", "flow_control is no link");
	if (sim_arg_bool(r, "condition", false))
		return next_round(r, open);
	for (size_t i = 0; i < LOOP_VALUES; i++)
		sim_out(r, i, sim_value_ref(sim_arg(r, loop_value[i])));
	return SIM_STEP_DONE;
}
