/*
 * main.c - comfymux-top: arguments, and the loop that joins the supervisor's
 * news, the user's keys and the screen.
 */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/account.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/program_args.h"
#include "workers/top/feed.h"
#include "workers/top/input.h"
#include "workers/top/screen.h"

#define FLAGS_MAX  8
#define PAINT_S    0.05 /* at most so often is drawn, however much happens */
#define USERS_KEPT 64

/* As everywhere in comfymux (workers/front/cli.h). */
enum {
	EXIT_FINE = 0,
	EXIT_BROKEN = 1,
	EXIT_MISUSED = 2,
};

struct top {
	struct ev_loop *loop;
	struct config cfg;
	struct top_model model;
	struct top_view view;
	struct feed feed;
	ev_io keys;
	ev_timer paint;
	ev_signal resized, stopped, ends[3];
	struct error err; /* why it ended, if it wasn't wanted */
};

/* --- painting ------------------------------------------------------------- */

static void paint_soon(struct top *t)
{
	if (!ev_is_active(&t->paint)) {
		ev_timer_set(&t->paint, PAINT_S, 0);
		ev_timer_start(t->loop, &t->paint);
	}
}

static void on_paint(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct top *t = w->data;

	screen_draw(&t->model, &t->view);
}

static void on_change(void *user)
{
	paint_soon(user);
}

static void on_note(void *user, const char *text)
{
	struct top *t = user;

	top_note(&t->view, clock_ms(), "%s", text);
	paint_soon(t);
}

static void on_hopeless(void *user, const struct error *err)
{
	struct top *t = user;

	t->err = *err;
	ev_break(t->loop, EVBREAK_ALL);
}

/* --- the user ------------------------------------------------------------- */

static void act(struct top *t, enum top_action action)
{
	switch (action) {
	case TOP_QUIT:
		ev_break(t->loop, EVBREAK_ALL);
		break;
	case TOP_CANCEL:
		feed_cancel(&t->feed, t->view.target);
		break;
	case TOP_RESTART:
		feed_restart(&t->feed, t->view.target);
		break;
	case TOP_REDRAW:
		screen_spoilt();
		break;
	case TOP_NOTHING:
		break;
	}
}

static void on_keys(struct ev_loop *loop, ev_io *w, int revents)
{
	struct top *t = w->data;
	int key;

	if (!screen_there()) {
		ev_break(loop, EVBREAK_ALL);
		return;
	}
	while ((key = screen_key()) != SCREEN_NONE)
		act(t, top_input(&t->view, &t->model, key, screen_page(),
		                 clock_ms()));
	/* At once: whoever types wants to see it. */
	screen_draw(&t->model, &t->view);
}

static void on_resized(struct ev_loop *loop, ev_signal *w, int revents)
{
	struct top *t = w->data;

	screen_resized();
	screen_draw(&t->model, &t->view);
}

/* Ctrl-Z: the terminal is the shell's until `fg`. */
static void on_stopped(struct ev_loop *loop, ev_signal *w, int revents)
{
	struct top *t = w->data;

	screen_suspend();
	(void)raise(SIGSTOP);
	screen_resized();
	screen_draw(&t->model, &t->view);
}

static void on_end(struct ev_loop *loop, ev_signal *w, int revents)
{
	ev_break(loop, EVBREAK_ALL);
}

/* --- start and end -------------------------------------------------------- */

/* Looked up once each: a directory service may be slow. */
static const char *user_name(int64_t uid)
{
	static struct {
		int64_t uid;
		char *name; /* NULL: he has none */
	} users[USERS_KEPT];
	static size_t count;
	size_t i;

	for (i = 0; i < count && users[i].uid != uid; i++)
		;
	if (i == count) {
		if (count == USERS_KEPT || uid < 0)
			return NULL;
		users[i].uid = uid;
		users[i].name = account_name((uid_t)uid);
		count++;
	}
	return users[i].name;
}

static void signal_start(struct top *t, ev_signal *w,
                         void (*cb)(struct ev_loop *, ev_signal *, int),
                         int signum)
{
	ev_signal_init(w, cb, signum);
	w->data = t;
	ev_signal_start(t->loop, w);
}

static void watch_all(struct top *t)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP};

	signal_start(t, &t->resized, on_resized, SIGWINCH);
	signal_start(t, &t->stopped, on_stopped, SIGTSTP);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		signal_start(t, &t->ends[i], on_end, ends[i]);
	ev_init(&t->paint, on_paint);
	t->paint.data = t;
	ev_io_init(&t->keys, on_keys, STDIN_FILENO, EV_READ);
	t->keys.data = t;
	ev_io_start(t->loop, &t->keys);
}

static void run(struct top *t)
{
	static const struct feed_handlers handlers = {
		.on_change = on_change,
		.on_note = on_note,
		.on_hopeless = on_hopeless,
	};

	top_model_init(&t->model);
	t->model.user_name = user_name;
	watch_all(t);
	feed_start(&t->feed, t->loop, &t->cfg, &t->model, &handlers, t);
	screen_draw(&t->model, &t->view);
	(void)ev_run(t->loop, 0);
	feed_stop(&t->feed);
	top_model_deinit(&t->model);
	screen_close();
}

static int fail(const struct error *err, int status)
{
	(void)fprintf(stderr, "comfymux: %s\n", err->text);
	return status;
}

static int print_help(void)
{
	(void)printf("Usage: comfymux top [OPTION]...\n"
	             "Watch sessions and prompts, and step in.\n\nKeys:\n");
	for (size_t i = 0; top_key_help[i].keys; i++)
		(void)printf("  %-20s  %s\n", top_key_help[i].keys,
		             top_key_help[i].text);
	return fflush(stdout) == 0 ? EXIT_FINE : EXIT_BROKEN;
}

int main(int argc, char **argv)
{
	static const struct program_args args = {.program = "comfymux-top",
	                                         .command = "top",
	                                         .help = print_help};
	struct config_flag flags[FLAGS_MAX];
	struct config_sources src = {.flags = flags};
	struct top t = {.err = ERROR_NULL};
	int status;

	(void)setlocale(LC_CTYPE, "");
	(void)signal(SIGPIPE, SIG_IGN);
	/* Its lines would spoil the screen: what matters is shown there. */
	(void)log_open("top", LOG_TO_STDERR, LOG_LEVEL_ERROR);
	status = program_args(&args, argv, &src, flags, FLAGS_MAX);
	if (status >= 0)
		return status;
	if (config_load(&t.cfg, &src, &t.err) < 0)
		return fail(&t.err, EXIT_MISUSED);
	t.loop = ev_default_loop(0);
	if (!t.loop)
		(void)error_set(&t.err, ERR_SYSTEM, "no event loop");
	else if (screen_open(&t.err) == 0)
		run(&t);
	config_deinit(&t.cfg);
	switch (t.err.code) {
	case ERR_NONE:
		return EXIT_FINE;
	case ERR_INVALID:
	case ERR_CONFIG:
		return fail(&t.err, EXIT_MISUSED);
	default:
		return fail(&t.err, EXIT_BROKEN);
	}
}
