/*
 * sim_http_prompt.c - POST /prompt.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/uuid.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_http.h"
#include "tests/sim/sim_text.h"
#include "tests/sim/sim_validate.h"

struct post {
	struct json body, prompt, prompt_id, extra, client_id, number, front;
};

static void read_post(struct post *p)
{
	static const char *const keys[] = {"prompt",     "prompt_id",
	                                   "extra_data", "client_id",
	                                   "number",     "front"};
	struct json out[ARRAY_SIZE(keys)];

	json_get_many(p->body, keys, out, ARRAY_SIZE(keys));
	p->prompt = out[0];
	p->prompt_id = out[1];
	p->extra = out[2];
	p->client_id = out[3];
	p->number = out[4];
	p->front = out[5];
}

/* What truly came, for tests to compare with. */
static void journal_post(struct sim *sim, const struct post *p,
                         const char *prompt_id, const char *result)
{
	struct buf b = BUF_INIT(SIM_JOURNAL_MAX);

	(void)buf_puts(&b, "\"prompt_id\":");
	if (prompt_id)
		(void)sim_put_string(&b, prompt_id);
	else
		(void)buf_puts(&b, "null");
	(void)buf_puts(&b, ",\"client_id\":");
	if (json_is(p->client_id, JSON_NONE) || json_compact(&b, p->client_id))
		(void)buf_puts(&b, "null");
	(void)buf_printf(&b, ",\"result\":\"%s\",\"workflow\":", result);
	if (json_is(p->prompt, JSON_NONE) || json_compact(&b, p->prompt))
		(void)buf_puts(&b, "null");
	sim_journal_add(&sim->journal, "post", &b);
	buf_deinit(&b);
}

static char *new_id(void)
{
	char uuid[UUID_LEN + 1];

	if (uuid_new(uuid))
		abort();
	return sim_strdup(uuid);
}

/* NULL: --strict-uuid doesn't like it. */
static char *choose_id(struct sim *sim, const struct post *p)
{
	struct buf b = BUF_INIT(SIM_BODY_MAX);
	char *text;

	if (sim->options.ignore_prompt_id || json_is(p->prompt_id, JSON_NONE))
		return new_id();
	if (sim->options.strict_uuid) {
		if (json_is(p->prompt_id, JSON_NULL))
			return new_id();
		text = json_string_dup(p->prompt_id, UUID_LEN);
		if (text && uuid_valid(text, strlen(text)))
			return text;
		free(text);
		return NULL;
	}
	/* str() of whatever came: None for null. */
	(void)sim_put_python(&b, p->prompt_id, false);
	text = buf_steal(&b, NULL);
	return text ? text : new_id();
}

static void refuse(struct sim_reply *reply, const struct buf *error,
                   const struct buf *node_errors)
{
	reply->status = 400;
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"error\": ");
	(void)buf_append(&reply->body, error->data, error->len);
	(void)buf_puts(&reply->body, ", \"node_errors\": ");
	(void)buf_append(&reply->body, node_errors->data, node_errors->len);
	(void)buf_putc(&reply->body, '}');
}

static void refuse_text(struct sim_reply *reply, const char *type,
                        const char *message, const char *details)
{
	reply->status = 400;
	sim_reply_json(reply);
	(void)buf_printf(&reply->body,
	                 "{\"error\": {\"type\": \"%s\", \"message\": \"%s\", "
	                 "\"details\": \"%s\", \"extra_info\": {}}, "
	                 "\"node_errors\": {}}",
	                 type, message, details);
}

/* extra_data with client_id in it. */
static bool put_extra(struct buf *b, const struct post *p)
{
	if (!json_is(p->extra, JSON_NONE) && !json_is(p->extra, JSON_OBJECT))
		return false;
	if (json_is(p->client_id, JSON_NONE) && json_is(p->extra, JSON_NONE))
		return buf_puts(b, "{}") == 0;
	if (json_is(p->client_id, JSON_NONE))
		return sim_put_json(b, p->extra) == 0;
	if (json_is(p->extra, JSON_NONE)) {
		(void)buf_puts(b, "{\"client_id\": ");
		(void)sim_put_json(b, p->client_id);
		return buf_putc(b, '}') == 0;
	}
	return json_object_set(b, p->extra, SPAN("client_id"),
	                       p->client_id.text) == 0;
}

static void take_number(struct sim *sim, const struct post *p, double given,
                        struct sim_prompt *out)
{
	struct sim_value *front;

	out->number_int = json_is(p->number, JSON_NONE);
	out->number = given;
	if (!out->number_int)
		return;
	out->number = (double)sim->queue.next_number++;
	if (json_is(p->front, JSON_NONE))
		return;
	front = sim_value_json(p->front.text.p, p->front.text.n);
	/* 0 - 0 rather than -0. */
	if (sim_value_truth(front))
		out->number = 0 - out->number;
	sim_value_unref(front);
}

/* Hands everything over to a prompt of the queue. */
static struct sim_prompt *make_prompt(const struct post *p,
                                      struct sim_validation *v, char *id,
                                      struct buf *extra)
{
	struct sim_prompt *prompt = sim_prompt_new();
	struct json j, client_id;

	prompt->id = id;
	prompt->workflow = buf_steal(&v->workflow, &prompt->workflow_len);
	prompt->extra_data = buf_steal(extra, &prompt->extra_len);
	if (!prompt->workflow || !prompt->extra_data)
		abort();
	/* It may also have come within extra_data (recording 29). */
	if (json_parse(&j, prompt->extra_data, prompt->extra_len,
	               JSON_NONFINITE, NULL) == JSON_OK) {
		client_id = json_get(j, "client_id");
		prompt->client_id = json_string_dup(client_id, 65536);
	}
	prompt->outputs = v->outputs;
	prompt->noutputs = v->noutputs;
	v->outputs = NULL;
	v->noutputs = 0;
	return prompt;
}

static void accept(struct sim *sim, const struct post *p,
                   struct sim_validation *v, struct sim_prompt *numbers,
                   struct sim_reply *reply, char *id)
{
	struct buf extra = BUF_INIT(SIM_BODY_MAX);
	struct sim_prompt *prompt;

	if (!put_extra(&extra, p)) {
		buf_deinit(&extra);
		journal_post(sim, p, id, "crash");
		free(id);
		sim_reply_crash(reply);
		return;
	}
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"prompt_id\": ");
	(void)sim_put_string(&reply->body, id);
	(void)buf_puts(&reply->body, ", \"number\": ");
	(void)sim_put_number(&reply->body, numbers->number,
	                     numbers->number_int);
	(void)buf_puts(&reply->body, ", \"node_errors\": ");
	(void)buf_append(&reply->body, v->node_errors.data, v->node_errors.len);
	(void)buf_putc(&reply->body, '}');
	journal_post(sim, p, id, "queued");
	prompt = make_prompt(p, v, id, &extra);
	prompt->number = numbers->number;
	prompt->number_int = numbers->number_int;
	buf_deinit(&extra);
	if (sim_queue_put(&sim->queue, prompt)) {
		sim_reply_text(reply, 503, "comfysim: the queue is full");
		return;
	}
	sim_exec_wake(&sim->exec);
}

static void validate(struct sim *sim, const struct post *p,
                     struct sim_prompt *numbers, struct sim_reply *reply)
{
	struct json targets = json_get(p->body, "partial_execution_targets");
	char *id = choose_id(sim, p);
	struct sim_validation v;

	if (!id) {
		journal_post(sim, p, NULL, "refused");
		refuse_text(reply, "invalid_prompt_id", "Invalid prompt_id",
		            "prompt_id must be a canonical lowercase UUID");
		return;
	}
	switch (sim_validate(&v, p->prompt, targets, &sim->files)) {
	case SIM_VALID:
		accept(sim, p, &v, numbers, reply, id);
		break;
	case SIM_INVALID:
		journal_post(sim, p, id, "refused");
		free(id);
		refuse(reply, &v.error, &v.node_errors);
		break;
	case SIM_CRASH:
		journal_post(sim, p, id, "crash");
		free(id);
		sim_reply_crash(reply);
		break;
	}
	sim_validation_deinit(&v);
}

void sim_post_prompt(struct sim *sim, const struct sim_request *req,
                     struct sim_reply *reply, const char *tail)
{
	struct sim_prompt numbers = {0};
	struct post p = {0};
	double given = 0;

	if (json_parse(&p.body, req->body.data, req->body.len, JSON_NONFINITE,
	               NULL) != JSON_OK) {
		sim_journal_add(&sim->journal, "post_unreadable", NULL);
		sim_reply_crash(reply);
		return;
	}
	read_post(&p);
	if (!json_is(p.number, JSON_NONE) && !json_double(p.number, &given)) {
		journal_post(sim, &p, NULL, "crash");
		sim_reply_crash(reply);
		return;
	}
	/* Counted before anything is checked: a refusal uses a number up. */
	take_number(sim, &p, given, &numbers);
	if (json_is(p.prompt, JSON_NONE)) {
		journal_post(sim, &p, NULL, "refused");
		refuse_text(reply, "no_prompt", "No prompt provided",
		            "No prompt provided");
		return;
	}
	validate(sim, &p, &numbers, reply);
}
