/*
 * request_job.c - batch and chain as commands: of one request many prompts.
 *
 * Two kinds of record go to whoever keeps the request: {"index", "id",
 * "resubmits"} before a prompt is given to anybody, and {"index", "result"}
 * at its end. A successor of ours takes up the ended ones as they are and looks
 * the others up. Records are written one at a time, in the order of their
 * making.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/workflow.h"
#include "workers/batch.h"
#include "workers/chain.h"
#include "workers/request_ops.h"

#define TIMEOUT_MAX_MS (INT64_C(366) * 86400 * 1000)
#define OUTPUT_MAX     (PROGRESS_OUTPUTS_MAX + (8u << 20))
#define ANSWER_MAX     (15u << 20) /* of all results together */

struct job_item {
	struct json workflow; /* of the request's text; batch */
	char *prompt_id;      /* that the request gave it, or NULL */
	size_t nodes;
	char *result; /* JSON text, once it has ended */
	size_t result_len;
};

/* A record that isn't safe yet. */
struct job_record {
	struct list node;
	struct buf text;
	bool intent; /* the engine waits for it */
	size_t index;
};

struct job {
	struct command *command;
	struct batch *batch;
	struct chain *chain;
	struct job_item *items;
	size_t count, completed, failed;
	double fraction;
	struct list records;
	struct worker_record record; /* the first of them, on its way */
	bool recording;
};

/* --- records ------------------------------------------------------------- */

static void record_free(struct job_record *r)
{
	list_del(&r->node);
	buf_deinit(&r->text);
	free(r);
}

static void job_write_record(struct job *j);

static void on_recorded(void *user)
{
	struct job *j = user;
	struct job_record *r =
		list_entry(list_pop(&j->records), struct job_record, node);
	bool intent = r->intent;
	size_t index = r->index;

	j->recording = false;
	record_free(r);
	job_write_record(j);
	if (intent && j->batch)
		batch_go(j->batch, index);
	else if (intent && j->chain)
		chain_go(j->chain, index);
}

/* Without its record a prompt is not submitted: the job ends with that. */
static void job_write_record(struct job *j)
{
	struct job_record *r;
	struct error err;

	if (j->recording || list_empty(&j->records))
		return;
	r = list_first(&j->records, struct job_record, node);
	j->record =
		(struct worker_record){.on_written = on_recorded, .user = j};
	j->recording = true;
	if (command_record(j->command, span_make(r->text.data, r->text.len),
	                   &j->record, &err) == 0)
		return;
	j->recording = false;
	log_error("job", "a record was not written: %s", err.text);
	if (j->batch)
		batch_cancel(j->batch);
	else
		chain_cancel(j->chain);
}

static struct job_record *job_add_record(struct job *j, size_t index,
                                         bool intent)
{
	struct job_record *r = calloc(1, sizeof(*r));

	if (!r) {
		log_error("job", "no memory for a record");
		return NULL;
	}
	r->index = index;
	r->intent = intent;
	buf_init(&r->text, OUTPUT_MAX);
	list_append(&j->records, &r->node);
	(void)buf_printf(&r->text, "{\"index\":%zu,", index);
	return r;
}

static void job_intend(struct job *j, size_t index, const char *prompt_id,
                       unsigned resubmits)
{
	struct job_record *r = job_add_record(j, index, true);

	if (!r)
		return; /* it is never submitted; its timeout ends it */
	(void)buf_puts(&r->text, "\"id\":");
	(void)buf_json_string(&r->text, prompt_id, strlen(prompt_id));
	(void)buf_printf(&r->text, ",\"resubmits\":%u}", resubmits);
	job_write_record(j);
}

static void job_record_end(struct job *j, size_t index)
{
	const struct job_item *it = &j->items[index];
	struct job_record *r = job_add_record(j, index, false);

	if (!r)
		return;
	(void)buf_puts(&r->text, "\"result\":");
	(void)buf_append(&r->text, it->result, it->result_len);
	(void)buf_putc(&r->text, '}');
	if (buf_ok(&r->text))
		job_write_record(j);
	else
		record_free(r);
}

/* --- what it says -------------------------------------------------------- */

static void job_news(struct job *j, size_t index, const struct follow_news *n)
{
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);
	const struct cmx_progress *p = progress_get(n->progress);
	struct span class = SPAN_NULL;
	struct json w = j->items[index].workflow;

	(void)buf_printf(&b,
	                 "{\"index\":%zu,\"fraction\":%.4f,\"total_nodes\":%zu",
	                 index, j->fraction, j->items[index].nodes);
	if (p->current_node && json_is(w, JSON_OBJECT))
		class = workflow_class_of(w, p->current_node);
	if (class.p) {
		/* Raw bytes of a JSON string: quoted again as they stand. */
		(void)buf_puts(&b, ",\"class\":\"");
		(void)buf_append(&b, class.p, class.n);
		(void)buf_putc(&b, '"');
	}
	(void)buf_puts(&b, ",\"progress\":");
	(void)progress_to_json(n->progress, PROGRESS_JSON_NO_OUTPUTS, &b);
	(void)buf_putc(&b, '}');
	/* One that is left out is followed by a later one, or by the end. */
	if (buf_ok(&b))
		(void)command_output(j->command, span_make(b.data, b.len));
}

static void job_item_ended(struct job *j, size_t index, bool ok,
                           struct buf *result)
{
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);
	struct job_item *it = &j->items[index];

	*(ok ? &j->completed : &j->failed) += 1;
	it->result = buf_steal(result, &it->result_len);
	if (!it->result)
		return;
	job_record_end(j, index);
	(void)buf_printf(&b,
	                 "{\"index\":%zu,\"fraction\":%.4f,\"result\":", index,
	                 j->fraction);
	(void)buf_append(&b, it->result, it->result_len);
	(void)buf_putc(&b, '}');
	if (buf_ok(&b))
		(void)command_output(j->command, span_make(b.data, b.len));
}

static void job_put_results(const struct job *j, bool whole, struct buf *b)
{
	buf_reset(b);
	(void)buf_printf(
		b,
		"{\"status\":\"%s\",\"total\":%zu,\"completed\":%zu,"
		"\"failed\":%zu,\"elapsed_ms\":%" PRId64 ",\"results\":[",
		j->failed ? "failed" : "completed", j->count, j->completed,
		j->failed, clock_ms() - j->command->received_ms);
	for (size_t i = 0; i < j->count; i++) {
		const struct job_item *it = &j->items[i];
		struct json r;

		(void)buf_puts(b, i ? "," : "");
		if (it->result && whole) {
			(void)buf_append(b, it->result, it->result_len);
			continue;
		}
		(void)buf_printf(b, "{\"index\":%zu", i);
		if (it->result && json_parse(&r, it->result, it->result_len,
		                             JSON_NONFINITE, NULL) == JSON_OK) {
			(void)buf_puts(b, ",\"outputs_left_out\":true");
			(void)buf_json_key(b, "prompt_id");
			(void)json_compact(b, json_get(r, "prompt_id"));
			(void)buf_json_key(b, "status");
			(void)json_compact(b, json_get(r, "status"));
		}
		(void)buf_putc(b, '}');
	}
	(void)buf_puts(b, "]}");
}

static void job_done(struct job *j)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct error err;

	job_put_results(j, true, &b);
	if (!buf_ok(&b))
		job_put_results(j, false, &b);
	if (buf_ok(&b)) {
		command_ok(j->command, span_make(b.data, b.len));
		return;
	}
	error_set(&err, ERR_LIMIT, "the results are too long");
	command_fail(j->command, &err, SPAN_NULL);
}

/* --- life ---------------------------------------------------------------- */

static struct job *job_new(struct command *c, size_t count, struct error *err)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j)
		j->items = calloc(count + 1, sizeof(*j->items));
	if (!j || !j->items) {
		free(j);
		error_set_nomem(err, "job");
		return NULL;
	}
	j->command = c;
	j->count = count;
	list_init(&j->records);
	for (size_t i = 0; i < count; i++)
		j->items[i].workflow = JSON_MISSING;
	c->job = j;
	return j;
}

static void job_drop(struct command *c)
{
	struct job *j = c->job;
	struct list *it, *tmp;

	if (!j)
		return;
	worker_record_forget(&j->record);
	j->batch = batch_free(j->batch);
	j->chain = chain_free(j->chain);
	list_for_each_safe (it, tmp, &j->records)
		record_free(list_entry(it, struct job_record, node));
	for (size_t i = 0; i < j->count; i++) {
		free(j->items[i].prompt_id);
		free(j->items[i].result);
	}
	free(j->items);
	free(j);
	c->job = NULL;
}

static void job_cancel(struct command *c)
{
	struct job *j = c->job;

	if (j->batch)
		batch_cancel(j->batch);
	else if (j->chain)
		chain_cancel(j->chain);
}

/* What a predecessor knew of an item: its last intent, and its end. */
struct replayed {
	struct json result, id;
	uint64_t resubmits;
};

static int job_restore_item(struct job *j, size_t index,
                            const struct replayed *r, struct error *err)
{
	struct job_item *it = &j->items[index];
	cleanup_free char *id = json_string_dup(r->id, PROGRESS_ID_MAX);
	bool ok = json_string_eq(json_get(r->result, "status"), "completed");

	if (json_is(r->result, JSON_OBJECT)) {
		*(ok ? &j->completed : &j->failed) += 1;
		it->result = strndup(r->result.text.p, r->result.text.n);
		it->result_len = r->result.text.n;
		if (!it->result)
			return error_set_nomem(err, "result");
		if (j->batch)
			batch_restore_ended(j->batch, index, ok);
		else
			return chain_restore_ended(
				j->chain, index, ok,
				json_get(r->result, "outputs").text, err);
		return 0;
	}
	if (!id)
		return 0;
	return j->batch ? batch_restore_intent(j->batch, index, id,
	                                       (unsigned)r->resubmits, err)
	                : chain_restore_intent(j->chain, index, id, err);
}

static int job_restore(struct job *j, struct error *err)
{
	struct replayed *all = calloc(j->count, sizeof(*all));
	struct list *it;
	int r = 0;

	if (!all)
		return error_set_nomem(err, "records");
	list_for_each (it, &j->command->records) {
		const struct command_record *rec =
			list_entry(it, struct command_record, node);
		struct json text;
		uint64_t index;

		if (json_parse(&text, rec->text, rec->len, JSON_NONFINITE,
		               NULL) ||
		    !json_uint64(json_get(text, "index"), &index) ||
		    index >= j->count)
			continue;
		if (json_is(json_get(text, "result"), JSON_OBJECT))
			all[index].result = json_get(text, "result");
		else
			all[index].id = json_get(text, "id");
		(void)json_uint64(json_get(text, "resubmits"),
		                  &all[index].resubmits);
	}
	for (size_t i = 0; i < j->count && r == 0; i++)
		r = job_restore_item(j, i, &all[i], err);
	free(all);
	return r;
}

static bool job_flag(const struct command *c, const char *key, bool otherwise)
{
	bool b = otherwise;

	(void)json_bool(json_get(c->params, key), &b);
	return b;
}

/* --- batch --------------------------------------------------------------- */

static void on_want(void *user, size_t index)
{
	struct job *j = user;
	struct job_item *it = &j->items[index];
	struct json w = it->workflow;
	struct error err;

	if (workflow_parse(&w, w.text.p, w.text.n, "workflow", &err)) {
		batch_fail_item(j->batch, index, &err);
		return;
	}
	it->workflow = w;
	it->nodes = workflow_node_count(w);
	batch_supply(j->batch, index, w.text, NULL);
}

static void on_batch_intent(void *user, size_t index, const char *prompt_id,
                            unsigned resubmits)
{
	job_intend(user, index, prompt_id, resubmits);
}

static void on_news(void *user, size_t index, const struct follow_news *news)
{
	struct job *j = user;

	if (j->batch)
		j->fraction = batch_plan_fraction(batch_plan_of(j->batch));
	job_news(j, index, news);
}

static void on_lost(void *user, size_t index, const char *prompt_id,
                    unsigned resubmits)
{
	struct job *j = user;
	cleanup_buf struct buf b = BUF_INIT(1024);

	(void)buf_printf(&b,
	                 "{\"index\":%zu,\"fraction\":%.4f,\"resubmits\":%u,"
	                 "\"lost\":",
	                 index, j->fraction, resubmits);
	(void)buf_json_string(&b, prompt_id, strlen(prompt_id));
	(void)buf_putc(&b, '}');
	if (buf_ok(&b))
		(void)command_output(j->command, span_make(b.data, b.len));
}

static void on_item(void *user, const struct batch_result *r)
{
	struct job *j = user;
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);

	j->fraction = batch_plan_fraction(batch_plan_of(j->batch));
	batch_result_json(r, &b);
	job_item_ended(j, r->index, r->end == EXECUTE_COMPLETED, &b);
}

static void on_batch_done(void *user, const struct batch_plan *plan)
{
	job_done(user);
}

static const struct batch_handlers batch_handlers = {
	.on_want = on_want,
	.on_intent = on_batch_intent,
	.on_news = on_news,
	.on_lost = on_lost,
	.on_item = on_item,
	.on_done = on_batch_done,
};

static int batch_options_of(const struct command *c, struct batch_options *o,
                            struct error *err)
{
	int64_t concurrency, resubmits;

	if (command_int(c, "concurrency", INT32_MAX, BATCH_CONCURRENCY,
	                &concurrency, err) ||
	    command_int(c, "resubmits", BATCH_RESUBMITS_MAX, 0, &resubmits,
	                err) ||
	    command_int(c, "timeout_ms", TIMEOUT_MAX_MS, 0, &o->timeout_ms,
	                err))
		return -1;
	o->concurrency = (unsigned)concurrency;
	o->resubmits = (unsigned)resubmits;
	o->stop_on_error = job_flag(c, "stop_on_error", false);
	return 0;
}

static int batch_start(struct command *c, struct error *err)
{
	struct json list = json_get(c->params, "workflows"), w;
	struct batch_options o;
	struct json_iter it;
	struct job *j;
	size_t i = 0;

	if (!json_is(list, JSON_ARRAY))
		return error_set(err, ERR_INVALID,
		                 "batch needs workflows, an array");
	if (batch_options_of(c, &o, err))
		return -1;
	j = job_new(c, json_count(list), err);
	if (!j)
		return -1;
	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &w))
		j->items[i++].workflow = w;
	j->batch = batch_new(command_link(c), j->count, &o, &batch_handlers, j,
	                     err);
	if (!j->batch || job_restore(j, err))
		return -1;
	if (c->cancelled)
		batch_cancel(j->batch);
	return 0;
}

const struct command_op command_batch = {
	.name = "batch",
	.start = batch_start,
	.cancel = job_cancel,
	.drop = job_drop,
};

/* --- chain --------------------------------------------------------------- */

static void on_chain_intent(void *user, size_t index, const char *prompt_id)
{
	job_intend(user, index, prompt_id, 0);
}

static void on_step(void *user, const struct chain_result *r)
{
	struct job *j = user;
	cleanup_buf struct buf b = BUF_INIT(OUTPUT_MAX);

	j->fraction = (double)(r->index + 1) / (double)j->count;
	chain_result_json(r, &b);
	job_item_ended(j, r->index, r->end == EXECUTE_COMPLETED, &b);
}

static void on_progress(void *user, double fraction)
{
	struct job *j = user;

	j->fraction = fraction;
}

static void on_chain_done(void *user, size_t failed)
{
	job_done(user);
}

static const struct chain_handlers chain_handlers = {
	.on_intent = on_chain_intent,
	.on_news = on_news,
	.on_step = on_step,
	.on_progress = on_progress,
	.on_done = on_chain_done,
};

/* Their texts live as long as the chain. */
static void job_take_steps(struct job *j, const struct chain_spec *spec)
{
	for (size_t i = 0; i < spec->count; i++) {
		const struct chain_step *s = &spec->steps[i];

		j->items[i].nodes = s->nodes;
		if (s->workflow.len == 0 ||
		    json_parse(&j->items[i].workflow, s->workflow.data,
		               s->workflow.len, JSON_NONFINITE, NULL))
			j->items[i].workflow = JSON_MISSING;
	}
}

static int chain_start(struct command *c, struct error *err)
{
	struct chain_spec *spec = chain_spec_parse(c->params, err);
	struct chain_options o;
	struct job *j;

	if (!spec)
		return -1;
	o.stop_on_error = spec->has_stop ? spec->stop_on_error : true;
	if (command_int(c, "timeout_ms", TIMEOUT_MAX_MS, 0, &o.timeout_ms,
	                err)) {
		(void)chain_spec_free(spec);
		return -1;
	}
	j = job_new(c, spec->count, err);
	if (!j) {
		(void)chain_spec_free(spec);
		return -1;
	}
	j->chain =
		chain_new(command_link(c), spec, &o, &chain_handlers, j, err);
	if (!j->chain)
		return -1;
	job_take_steps(j, chain_spec_of(j->chain));
	if (job_restore(j, err))
		return -1;
	if (c->cancelled)
		chain_cancel(j->chain);
	return 0;
}

const struct command_op command_chain = {
	.name = "chain",
	.start = chain_start,
	.cancel = job_cancel,
	.drop = job_drop,
};
