/*
 * request.c - the commands in hand: taking them in, records, waiting until it
 * is clear whether there is a supervisor, and answering each once.
 */
#include "workers/request.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/progress.h"
#include "ipc/channel.h"
#include "workers/request_ops.h"

#define ANSWER_MAX (CHANNEL_PAYLOAD_MAX + 1024)

static const struct command_op *const ops[] = {
	&command_run,      &command_submit,    &command_watch,
	&command_progress, &command_cancel_op, &command_queue,
	&command_history,  &command_comfy,     &command_view,
	&command_batch,    &command_chain,
};

struct commands {
	struct worker *worker;
	const struct command_sink *sink;
	void *user; /* the sink's */
	struct link *link;
	struct link_watch bus;
	struct list list; /* in the order of their coming */
	size_t count;
	struct list records; /* whose requests haven't come yet */
	size_t record_count;
	uint64_t told_line; /* likewise: its predecessor's last output */
	struct buf told;
};

struct worker *command_worker(const struct command *c)
{
	return c->all->worker;
}

struct link *command_link(const struct command *c)
{
	return c->all->link;
}

bool command_output(const struct command *c, struct span bytes)
{
	return c->all->sink->output(c->all->user, c->line, bytes);
}

bool command_preview(const struct command *c, struct preview *p, bool last)
{
	return c->all->sink->preview(c->all->user, c->line, p, last);
}

int command_record(const struct command *c, struct span record,
                   struct worker_record *r, struct error *err)
{
	return c->all->sink->record(c->all->user, c->line, record, r, err);
}

static void record_free(struct command_record *r)
{
	list_del(&r->node);
	free(r->prompt_id);
	free(r->text);
	free(r);
}

static void records_free(struct list *records)
{
	struct list *it;

	while ((it = list_pop(records)))
		record_free(list_entry(it, struct command_record, node));
}

static void command_free(struct command *c)
{
	if (c->op && c->started && c->op->drop)
		c->op->drop(c);
	link_forget(c->all->link, c->ask_id);
	if (c->call)
		comfy_call_cancel(c->call);
	if (c->holds_api)
		link_api_release(c->all->link);
	list_del(&c->node);
	c->all->count--;
	buf_deinit(&c->text);
	buf_deinit(&c->told);
	records_free(&c->records);
	free(c->recorded);
	free(c);
}

/* --- answers ------------------------------------------------------------- */

static void respond_error(struct commands *all, uint64_t line,
                          const struct error *err, struct span extra)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	const char *type = error_code_name(err->code);

	buf_puts(&b, "{\"ok\":false,\"error\":{\"type\":");
	buf_json_string(&b, type, strlen(type));
	buf_json_key(&b, "message");
	buf_json_string(&b, err->text, strlen(err->text));
	if (extra.n > 0) {
		buf_putc(&b, ',');
		buf_append(&b, extra.p, extra.n);
	}
	buf_puts(&b, "}}");
	if (buf_ok(&b) &&
	    all->sink->respond(all->user, line, span_make(b.data, b.len)))
		return;
	/* Without what made it too long. */
	if (extra.n > 0)
		respond_error(all, line, err, SPAN_NULL);
	else
		(void)all->sink->respond(
			all->user, line,
			SPAN("{\"ok\":false,\"error\":{\"type\":\"internal\","
		             "\"message\":\"out of memory\"}}"));
}

void command_fail(struct command *c, const struct error *err, struct span extra)
{
	respond_error(c->all, c->line, err, extra);
	command_free(c);
}

void command_ok(struct command *c, struct span result)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct error err;

	buf_puts(&b, "{\"ok\":true,\"result\":");
	buf_append(&b, result.p, result.n);
	buf_putc(&b, '}');
	if (buf_ok(&b) && c->all->sink->respond(c->all->user, c->line,
	                                        span_make(b.data, b.len))) {
		command_free(c);
		return;
	}
	error_set(&err, ERR_LIMIT,
	          "the result is longer than %u bytes; ask for less",
	          CHANNEL_PAYLOAD_MAX);
	command_fail(c, &err, SPAN_NULL);
}

void command_pass_error(struct command *c, const struct incoming *in)
{
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct error err;

	buf_puts(&b, "{\"ok\":false,\"error\":");
	buf_append(&b, in->error.text.p, in->error.text.n);
	buf_putc(&b, '}');
	if (buf_ok(&b) && c->all->sink->respond(c->all->user, c->line,
	                                        span_make(b.data, b.len))) {
		command_free(c);
		return;
	}
	incoming_error(in, &err);
	command_fail(c, &err, SPAN_NULL);
}

/* --- parameters ---------------------------------------------------------- */

int command_string(const struct command *c, const char *key, size_t max,
                   char **outp, struct error *err)
{
	struct json j = json_get(c->params, key);

	*outp = NULL;
	if (json_is(j, JSON_NONE) || json_is(j, JSON_NULL))
		return 0;
	*outp = json_string_dup(j, max);
	return *outp ? 0
	             : error_set(err, ERR_INVALID,
	                         "%s: %s must be a string of at most %zu bytes",
	                         c->op->name, key, max);
}

int command_need_string(const struct command *c, const char *key, size_t max,
                        char **outp, struct error *err)
{
	if (command_string(c, key, max, outp, err))
		return -1;
	if (!*outp || !**outp) {
		free(*outp);
		*outp = NULL;
		return error_set(err, ERR_INVALID, "%s needs %s", c->op->name,
		                 key);
	}
	return 0;
}

int command_int(const struct command *c, const char *key, int64_t max,
                int64_t def, int64_t *outp, struct error *err)
{
	struct json j = json_get(c->params, key);

	*outp = def;
	if (json_is(j, JSON_NONE) || json_is(j, JSON_NULL))
		return 0;
	if (!json_int64(j, outp) || *outp < 0 || *outp > max)
		return error_set(err, ERR_INVALID,
		                 "%s: %s must be an integer from 0 to %" PRId64,
		                 c->op->name, key, max);
	return 0;
}

int command_prompt_params(struct buf *b, const char *prompt_id,
                          struct error *err)
{
	buf_putc(b, '{');
	buf_json_key(b, "prompt_id");
	buf_json_string(b, prompt_id, strlen(prompt_id));
	buf_putc(b, '}');
	return buf_ok(b) ? 0 : error_set_nomem(err, "request");
}

int command_check_sight(struct command *c, const char *prompt_id,
                        struct error *err)
{
	struct link *l = command_link(c);

	if (prompt_id ? link_may_see(l, prompt_id) : link_may_see_all(l))
		return 0;
	return error_set(err, ERR_UNREACHABLE,
	                 "no supervisor (%s) that could tell which prompts are "
	                 "yours",
	                 link_bus_error(l));
}

/* --- asking -------------------------------------------------------------- */

struct comfy_api *command_api(struct command *c, struct error *err)
{
	struct comfy_api *api = link_api(c->all->link, err);

	if (api && !c->holds_api) {
		link_api_hold(c->all->link);
		c->holds_api = true;
	}
	return api;
}

static void on_answer(void *user, const struct incoming *in,
                      const struct error *err)
{
	struct command *c = user;
	struct error bad = ERROR_NULL;

	c->ask_id = 0;
	if (!err) {
		command_ok(c, in->result.text);
	} else if (!in && err->code == ERR_TIMEOUT) {
		/* The user's own time has not run out. */
		bad = *err;
		bad.code = ERR_UNREACHABLE;
		command_fail(c, &bad, SPAN_NULL);
	} else if (in && err->code == ERR_NOT_FOUND && c->alone &&
	           link_owns_rest(command_link(c))) {
		/* The web page's, perhaps. */
		if (c->alone(c, &bad))
			command_fail(c, &bad, SPAN_NULL);
	} else if (in) {
		command_pass_error(c, in);
	} else if (err->code != ERR_UNREACHABLE || !c->alone) {
		command_fail(c, err, SPAN_NULL);
	} else if (c->alone(c, &bad)) {
		command_fail(c, &bad, SPAN_NULL);
	}
}

int command_ask(struct command *c, enum op op, struct span params,
                int (*alone)(struct command *c, struct error *err),
                struct error *err)
{
	if (!link_on_bus(c->all->link) && alone)
		return alone(c, err);
	c->alone = alone;
	c->ask_id = link_ask(c->all->link, op, params, 0, on_answer, c, err);
	return c->ask_id ? 0 : -1;
}

/* --- taking in ----------------------------------------------------------- */

static void command_start(struct command *c)
{
	struct error err = ERROR_NULL;

	c->started = true;
	if (c->op->start(c, &err))
		command_fail(c, &err, SPAN_NULL);
}

static void command_cancelled(struct command *c)
{
	struct error err;

	error_set(&err, ERR_CANCELLED, "cancelled");
	command_fail(c, &err, SPAN_NULL);
}

/* Those that waited for hello and attach to be answered, one way or the other.
 * A command may end, and be gone, when it is started: so from the front. */
static void on_bus(void *user, bool up)
{
	struct commands *all = user;
	struct list *it = all->list.next;
	struct command *c;

	while (it != &all->list) {
		c = list_entry(it, struct command, node);
		it = it->next;
		if (!c->started)
			command_start(c);
	}
}

static int command_parse(struct command *c, struct span request,
                         struct error *err)
{
	struct json whole, name;
	size_t at;

	buf_init(&c->text, request.n + 1);
	if (buf_append(&c->text, request.p, request.n))
		return error_set_nomem(err, "request");
	if (json_parse(&whole, c->text.data, c->text.len, JSON_NONFINITE,
	               &at) ||
	    !json_is(whole, JSON_OBJECT))
		return error_set(err, ERR_INVALID,
		                 "the request is not a JSON object");
	name = json_get(whole, "op");
	c->params = json_get(whole, "params");
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		if (json_string_eq(name, ops[i]->name))
			c->op = ops[i];
	}
	if (!c->op)
		return error_set(err, ERR_NOT_FOUND, "no such op: %s",
		                 log_safe(name.text.p, name.text.n));
	return 0;
}

/* What a predecessor recorded for this line, if anything. */
static void commands_take_records(struct commands *all, struct command *c)
{
	struct command_record *r;
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &all->records) {
		r = list_entry(it, struct command_record, node);
		if (r->line != c->line)
			continue;
		list_del(&r->node);
		all->record_count--;
		list_append(&c->records, &r->node);
		if (!r->prompt_id)
			continue;
		free(c->recorded);
		c->recorded = steal_ptr(&r->prompt_id);
		c->recorded_chosen = r->chosen;
	}
}

static struct command *commands_find(struct commands *all, uint64_t line)
{
	struct command *c;
	struct list *it;

	list_for_each (it, &all->list) {
		c = list_entry(it, struct command, node);
		if (c->line == line)
			return c;
	}
	return NULL;
}

void commands_request(struct commands *all, uint64_t line, struct span request)
{
	struct command *c;
	struct error err;

	if (commands_find(all, line)) {
		log_warn("request", "line %" PRIu64 " came twice", line);
		return;
	}
	if (all->count >= REQUEST_COMMANDS_MAX) {
		error_set(&err, ERR_LIMIT, "more than %d requests at once",
		          REQUEST_COMMANDS_MAX);
		respond_error(all, line, &err, SPAN_NULL);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		error_set_nomem(&err, "request");
		respond_error(all, line, &err, SPAN_NULL);
		return;
	}
	c->all = all;
	c->line = line;
	c->received_ms = clock_ms();
	list_init(&c->records);
	commands_take_records(all, c);
	buf_init(&c->told, CHANNEL_PAYLOAD_MAX);
	if (all->told_line == line && all->told.len > 0) {
		c->told = all->told;
		buf_init(&all->told, CHANNEL_PAYLOAD_MAX);
	}
	list_append(&all->list, &c->node);
	all->count++;
	if (command_parse(c, request, &err))
		command_fail(c, &err, SPAN_NULL);
	else if (!link_bus_pending(all->link))
		command_start(c);
}

void commands_recorded(struct commands *all, uint64_t line, struct span record)
{
	struct command_record *r;
	struct json j;

	if (json_parse(&j, record.p, record.n, JSON_NONFINITE, NULL))
		return;
	r = all->record_count < REQUEST_RECORDS_MAX ? calloc(1, sizeof(*r))
	                                            : NULL;
	if (r) {
		list_init(&r->node);
		r->line = line;
		r->prompt_id = json_string_dup(json_get(j, "prompt_id"),
		                               PROGRESS_ID_MAX);
		(void)json_bool(json_get(j, "chosen"), &r->chosen);
		r->text = strndup(record.p, record.n);
		r->len = record.n;
	}
	if (!r || !r->text) {
		log_warn("request", "record of line %" PRIu64 " not kept",
		         line);
		if (r)
			record_free(r);
		return;
	}
	list_append(&all->records, &r->node);
	all->record_count++;
}

void commands_told(struct commands *all, uint64_t line, struct span output)
{
	all->told_line = line;
	buf_reset(&all->told);
	if (buf_append(&all->told, output.p, output.n) < 0)
		buf_reset(&all->told);
}

void commands_cancel(struct commands *all, uint64_t line)
{
	struct command *c = commands_find(all, line);

	if (!c)
		return; /* answered already */
	c->cancelled = true;
	if (!c->op->cancel)
		command_cancelled(c);
	else if (c->started)
		c->op->cancel(c);
	/* Else it sees the flag when it starts. */
}

static void request_on_room(void *state)
{
	struct commands *all = state;
	struct command *c;
	struct list *it;

	list_for_each (it, &all->list) {
		c = list_entry(it, struct command, node);
		if (c->started && c->op->room)
			c->op->room(c);
	}
}

static bool request_serves(struct json name)
{
	return !json_string_eq(name, "mcp");
}

struct commands *commands_new(struct link *l, struct worker *w,
                              const struct command_sink *sink, void *user,
                              struct error *err)
{
	struct commands *all = calloc(1, sizeof(*all));

	if (!all) {
		error_set_nomem(err, "commands");
		return NULL;
	}
	all->worker = w;
	all->sink = sink;
	all->user = user;
	all->link = l;
	list_init(&all->list);
	list_init(&all->records);
	buf_init(&all->told, CHANNEL_PAYLOAD_MAX);
	all->bus = (struct link_watch){
		.prompt_id = "",
		.on_bus = on_bus,
		.user = all,
	};
	link_watch_add(all->link, &all->bus);
	return all;
}

struct commands *commands_free(struct commands *all)
{
	struct list *it, *tmp;

	if (!all)
		return NULL;
	list_for_each_safe (it, tmp, &all->list)
		command_free(list_entry(it, struct command, node));
	records_free(&all->records);
	link_watch_remove(all->link, &all->bus);
	buf_deinit(&all->told);
	free(all);
	return NULL;
}

/* --- the command line's -------------------------------------------------- */

static bool sink_respond(void *user, uint64_t line, struct span answer)
{
	return worker_respond(user, line, answer);
}

static bool sink_output(void *user, uint64_t line, struct span bytes)
{
	return worker_output(user, line, bytes);
}

static int sink_record(void *user, uint64_t line, struct span record,
                       struct worker_record *r, struct error *err)
{
	return worker_record(user, line, record, r, err);
}

static bool sink_preview(void *user, uint64_t line, struct preview *p,
                         bool last)
{
	return preview_send(user, line, p, last);
}

static void *request_start(struct worker *w, struct json hello,
                           struct error *err)
{
	static const struct command_sink sink = {
		.respond = sink_respond,
		.output = sink_output,
		.record = sink_record,
		.preview = sink_preview,
	};

	return commands_new(worker_link(w), w, &sink, w, err);
}

static void request_on_request(void *state, uint64_t line, struct span request)
{
	commands_request(state, line, request);
}

static void request_on_record(void *state, uint64_t line, struct span record)
{
	commands_recorded(state, line, record);
}

static void request_on_told(void *state, uint64_t line, struct span output)
{
	commands_told(state, line, output);
}

static void request_on_cancel(void *state, uint64_t line)
{
	commands_cancel(state, line);
}

static void request_stop(void *state)
{
	(void)commands_free(state);
}

const struct worker_kind request_kind = {
	.serves = request_serves,
	.start = request_start,
	.on_record = request_on_record,
	.on_told = request_on_told,
	.on_request = request_on_request,
	.on_cancel = request_on_cancel,
	.on_room = request_on_room,
	.stop = request_stop,
};
