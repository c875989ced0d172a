/*
 * job.c - see job.h.
 */
#include "workers/front/job.h"

#include <signal.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "ipc/client.h"
#include "workers/front/autostart.h"

struct job_request {
	struct list node;
	uint64_t line;
	void *what;
	const struct job_waiter *waiter;
};

static struct job_request *job_find(struct job *j, uint64_t line)
{
	struct job_request *r;
	struct list *it;

	list_for_each (it, &j->asks) {
		r = list_entry(it, struct job_request, node);
		if (r->line == line)
			return r;
	}
	return NULL;
}

static void on_output(void *user, uint64_t line, struct span bytes)
{
	struct job *j = user;
	struct job_request *r = job_find(j, line);
	struct json out;

	if (r && r->waiter->on_output &&
	    json_parse(&out, bytes.p, bytes.n, JSON_NONFINITE, NULL) == JSON_OK)
		r->waiter->on_output(j, r->what, out);
}

static void on_response(void *user, uint64_t line, struct span bytes)
{
	struct job *j = user;
	struct job_request *r = job_find(j, line);
	const struct job_waiter *w;
	struct json body = JSON_MISSING;
	bool ok = false;
	void *what;

	if (!r)
		return;
	w = r->waiter;
	what = r->what;
	list_del(&r->node);
	j->ask_count--;
	free(r);
	if (json_parse(&body, bytes.p, bytes.n, JSON_NONFINITE, NULL))
		log_error("job", "the worker's answer is no JSON: a bug, "
		                 "please report it");
	(void)json_bool(json_get(body, "ok"), &ok);
	w->on_answer(j, what, ok, json_get(body, ok ? "result" : "error"));
}

static void on_gone(void *user, const struct error *err)
{
	struct job *j = user;

	if (err)
		job_view_note(&j->view, "%s", err->text);
	job_end(j, err ? cli_exit_of(err->code) : EXIT_FAILED);
}

static void on_log(void *user, struct span text)
{
	struct job *j = user;

	job_view_note(&j->view, "%.*s", (int)text.n, text.p);
}

/* The first Ctrl-C cancels and waits for the ends, the second leaves. */
static void on_interrupt(struct ev_loop *loop, ev_signal *w, int revents)
{
	struct job *j = w->data;
	struct list *it;

	if (j->interrupts++ > 0) {
		job_end(j, EXIT_CANCELLED);
		return;
	}
	if (!j->keeper) {
		j->on_cancel(j);
		return;
	}
	job_view_note(&j->view, "cancelling; press Ctrl-C again to leave "
	                        "without waiting");
	j->cancelled = true;
	list_for_each (it, &j->asks)
		keeper_cancel(j->keeper,
		              list_entry(it, struct job_request, node)->line);
	j->on_cancel(j);
}

int job_open(struct job *j, const char *kind, struct error *err)
{
	static const struct keeper_handlers handlers = {
		.on_output = on_output,
		.on_response = on_response,
		.on_gone = on_gone,
		.on_log = on_log,
	};
	struct keeper_config kc = {.cfg = &j->cli->cfg,
	                           .kind = kind,
	                           .comfyui_named = j->cli->comfyui_named};
	struct error no_bus = ERROR_NULL;

	list_init(&j->asks);
	ev_signal_init(&j->interrupt, on_interrupt, SIGINT);
	ev_signal_init(&j->terminate, on_interrupt, SIGTERM);
	j->interrupt.data = j->terminate.data = j;
	ev_signal_start(j->loop, &j->interrupt);
	ev_signal_start(j->loop, &j->terminate);
	if (!kind)
		return 0;
	kc.bus_fd = autostart_connect(&j->cli->cfg, &no_bus);
	if (kc.bus_fd < 0 && no_bus.code != ERR_UNREACHABLE) {
		*err = no_bus;
		return -1;
	}
	kc.no_bus = no_bus.text;
	j->keeper = keeper_new(j->loop, &kc, &handlers, j, err);
	return j->keeper ? 0 : -1;
}

void job_run(struct job *j)
{
	while (!j->done)
		(void)ev_run(j->loop, 0);
}

void job_end(struct job *j, int status)
{
	if (j->done)
		return;
	j->done = true;
	j->status = status;
	ev_break(j->loop, EVBREAK_ALL);
}

void job_close(struct job *j)
{
	struct list *it;

	if (!j->asks.next)
		return;
	ev_signal_stop(j->loop, &j->interrupt);
	ev_signal_stop(j->loop, &j->terminate);
	j->keeper = keeper_free(j->keeper);
	while ((it = list_pop(&j->asks)))
		free(list_entry(it, struct job_request, node));
	job_view_deinit(&j->view);
}

int job_ask(struct job *j, struct span request, const char *path, void *what,
            const struct job_waiter *w, struct error *err)
{
	struct job_request *r = calloc(1, sizeof(*r));

	if (!r)
		return error_set_nomem(err, "request");
	r->what = what;
	r->waiter = w;
	r->line = keeper_request(j->keeper, request, path, err);
	if (r->line == 0) {
		free(r);
		return -1;
	}
	list_append(&j->asks, &r->node);
	j->ask_count++;
	return 0;
}

void job_refusal(struct json body, struct error *err)
{
	cleanup_free char *type = json_string_dup(json_get(body, "type"), 256);
	cleanup_free char *message =
		json_string_dup(json_get(body, "message"), ERROR_TEXT_MAX);

	(void)error_set(err, error_code_from_name(type ? type : ""), "%s",
	                message ? message : "no answer");
}
