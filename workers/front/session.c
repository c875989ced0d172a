/*
 * session.c - see session.h.
 */
#include "workers/front/session.h"

#include <ev.h>
#include <signal.h>
#include <stdio.h>

#include "common/clock.h"
#include "ipc/client.h"
#include "workers/front/autostart.h"
#include "workers/front/files.h"
#include "workers/front/keeper.h"

struct session {
	const struct cli *cli;
	const struct session_job *job;
	struct ev_loop *loop;
	struct keeper *keeper;
	struct show show;
	ev_signal interrupt, terminate;
	uint64_t line;
	unsigned interrupts;
	bool preview_failed; /* and the user was told */
	bool done;
	int status;
};

static void finish(struct session *s, int status)
{
	if (s->done)
		return;
	s->status = status;
	s->done = true;
	ev_break(s->loop, EVBREAK_ALL);
}

/* --- what the worker says ------------------------------------------------ */

static void on_output(void *user, uint64_t number, struct span bytes)
{
	struct session *s = user;
	struct json line;

	if (json_parse(&line, bytes.p, bytes.n, 0, NULL) == JSON_OK)
		show_update(&s->show, line);
}

/* The run goes on without: a preview is worth a line, not a failure. */
static void on_preview(void *user, uint64_t number, struct span image)
{
	struct session *s = user;
	struct error err = ERROR_NULL;
	int r = files_replace(s->job->preview, image, &err);

	if (r < 0 && !s->preview_failed)
		show_note(&s->show, SPAN(err.text));
	s->preview_failed = r < 0;
}

static void on_response(void *user, uint64_t number, struct span bytes)
{
	struct session *s = user;
	struct json body;
	bool ok = false;

	if (json_parse(&body, bytes.p, bytes.n, 0, NULL) != JSON_OK) {
		show_finish(&s->show);
		(void)fprintf(stderr, "comfymux: the worker's answer is no "
		                      "JSON: a bug, please report it\n");
		finish(s, EXIT_FAILED);
		return;
	}
	(void)json_bool(json_get(body, "ok"), &ok);
	show_result(&s->show, json_get(body, "result"));
	show_finish(&s->show);
	finish(s, s->job->print(s->cli, ok,
	                        json_get(body, ok ? "result" : "error"),
	                        clock_ms() - s->show.started_ms));
}

static void on_gone(void *user, const struct error *err)
{
	struct session *s = user;

	show_finish(&s->show);
	finish(s, cli_fail(err));
}

static void on_log(void *user, struct span text)
{
	struct session *s = user;

	show_note(&s->show, text);
}

/* --- what the user wants ------------------------------------------------- */

/* The first Ctrl-C asks for cancelling and waits for its end, the second
 * leaves. */
static void on_interrupt(struct ev_loop *loop, ev_signal *w, int revents)
{
	struct session *s = w->data;

	if (!s->job->cancel || s->interrupts++ > 0 || !s->keeper) {
		show_finish(&s->show);
		finish(s, s->job->interrupted);
		return;
	}
	show_note(&s->show, SPAN("cancelling; press Ctrl-C again to leave "
	                         "without waiting"));
	keeper_cancel(s->keeper, s->line);
}

static void watch_signals(struct session *s)
{
	ev_signal_init(&s->interrupt, on_interrupt, SIGINT);
	ev_signal_init(&s->terminate, on_interrupt, SIGTERM);
	s->interrupt.data = s->terminate.data = s;
	ev_signal_start(s->loop, &s->interrupt);
	ev_signal_start(s->loop, &s->terminate);
}

static int start(struct session *s, struct error *err)
{
	const struct keeper_handlers handlers = {
		.on_output = on_output,
		.on_preview = s->job->preview ? on_preview : NULL,
		.on_response = on_response,
		.on_gone = on_gone,
		.on_log = on_log,
	};
	struct keeper_config kc = {.cfg = &s->cli->cfg,
	                           .kind = "run",
	                           .comfyui_named = s->cli->comfyui_named};
	struct error no_bus = ERROR_NULL;

	kc.bus_fd = s->job->autostart
	                    ? autostart_connect(&s->cli->cfg, &no_bus)
	                    : client_connect(&s->cli->cfg, NULL, &no_bus);
	if (kc.bus_fd < 0 && no_bus.code != ERR_UNREACHABLE) {
		*err = no_bus;
		return -1;
	}
	kc.no_bus = no_bus.text;
	s->keeper = keeper_new(s->loop, &kc, &handlers, s, err);
	if (!s->keeper)
		return -1;
	s->line = keeper_request(s->keeper, s->job->request, s->job->path, err);
	return s->line == 0 ? -1 : 0;
}

int session_run(const struct cli *cli, const struct session_job *job)
{
	struct session s = {.cli = cli, .job = job, .loop = ev_default_loop(0)};
	struct error err = ERROR_NULL;

	if (!s.loop) {
		(void)error_set(&err, ERR_SYSTEM,
		                "no event loop: libev found "
		                "no way to wait here");
		return cli_fail(&err);
	}
	show_init(&s.show, s.loop, cli, job->label);
	watch_signals(&s);
	if (start(&s, &err) < 0)
		finish(&s, cli_fail(&err));
	while (!s.done)
		(void)ev_run(s.loop, 0);
	s.keeper = keeper_free(s.keeper);
	ev_signal_stop(s.loop, &s.interrupt);
	ev_signal_stop(s.loop, &s.terminate);
	show_deinit(&s.show);
	return s.status;
}
