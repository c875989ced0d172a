/*
 * keeper_worker.c - where a session's worker comes from: the supervisor, which
 * forks it, or ourselves, when there is none; its bus; its end.
 *
 * A successor starts only after the end of the session channel was seen: what
 * the old worker had sent whole is read first, so no answer is given twice. A
 * worker of our own gives way to a forked one as soon as a supervisor is there.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "ipc/client.h"
#include "workers/front/autostart.h"
#include "workers/front/keeper_impl.h"
#include "workers/front/spawn.h"

static void check_end(struct keeper *k);
static void look_later(struct keeper *k);
static int use_supervisor(struct keeper *k, int fd, struct error *err);
static int start_own(struct keeper *k, int bus, struct error *err);

/* --- the worker's words --------------------------------------------------- */

static void read_all(struct keeper *k)
{
	ev_io_stop(k->loop, &k->reader);
	ev_io_stop(k->loop, &k->writer);
	k->over = true;
	k->live = false;
	check_end(k);
}

/* Frames that came whole. False: the keeper is gone, paused, or done with this
 * worker. */
static bool take_frames(struct keeper *k)
{
	struct channel_frame f;
	struct error err = ERROR_NULL;
	bool freed = false;
	int n;

	/* Its address is taken back before this returns. */
	// cppcheck-suppress autoVariables
	k->freed = &freed;
	while (!k->paused && (n = channel_next(&k->channel, &f, &err)) != 0) {
		if (n < 0) {
			log_error("keeper", "the worker sent garbage: %s",
			          err.text);
			keeper_worker_drop(k);
			k->channel.eof = true;
			break;
		}
		keeper_on_frame(k, &f);
		if (f.fd >= 0)
			(void)close(f.fd);
		if (freed)
			return false;
	}
	k->freed = NULL;
	return !k->paused;
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, reader);

	if (channel_read(&k->channel) < 0)
		k->channel.eof = true;
	if (take_frames(k) && k->channel.eof)
		read_all(k);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, writer);
	size_t before = channel_queued(&k->channel);

	/* A worker that is gone is noticed by the reader, after what it still
	 * had to say. */
	if (channel_flush(&k->channel) < 0 || !channel_wants_write(&k->channel))
		ev_io_stop(loop, w);
	if (k->h.on_room && before >= KEEPER_BACKLOG_LOW &&
	    channel_queued(&k->channel) < KEEPER_BACKLOG_LOW)
		k->h.on_room(k->user);
}

/* A worker at the other end of `fd`, which is consumed. */
static int open_worker(struct keeper *k, int fd, bool hosted, struct error *err)
{
	int r = channel_init(&k->channel, fd, false);

	if (r < 0) {
		(void)close(fd);
		return error_set_errno(err, -r, "cannot use a session channel");
	}
	ev_timer_stop(k->loop, &k->due);
	k->has_worker = k->live = true;
	k->hosted = hosted;
	k->over = k->exited = k->ready = k->replaced = false;
	k->status = -1;
	ev_io_set(&k->reader, k->channel.fd, EV_READ);
	ev_io_set(&k->writer, k->channel.fd, EV_WRITE);
	if (!k->paused)
		ev_io_start(k->loop, &k->reader);
	ev_timer_set(&k->ready_timer,
	             (hosted ? KEEPER_HOSTED_MS : KEEPER_READY_MS) / 1000.0,
	             0.);
	ev_timer_start(k->loop, &k->ready_timer);
	keeper_replay(k);
	return 0;
}

static void close_worker(struct keeper *k)
{
	ev_io_stop(k->loop, &k->reader);
	ev_io_stop(k->loop, &k->writer);
	ev_child_stop(k->loop, &k->child);
	ev_timer_stop(k->loop, &k->ready_timer);
	channel_deinit(&k->channel);
	files_deinit(&k->files);
	k->has_worker = k->live = k->answer_due = false;
	k->pid = 0;
}

/* Our own is killed. The supervisor's is stopped by the end of its session: the
 * connection, and what we say to it. */
void keeper_worker_drop(struct keeper *k)
{
	if (!k->has_worker)
		return;
	k->live = false;
	if (!k->hosted) {
		(void)kill(k->pid, SIGKILL);
		return;
	}
	(void)shutdown(k->channel.fd, SHUT_WR);
	k->host = host_free(k->host);
}

/* Stopped, or stuck before it ever read: SIGSTOP is no EOF, so the wait has an
 * end. The supervisor's patience ends before ours; if nothing comes of that,
 * nobody can end the worker, and none may take its place. */
static void on_not_ready(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, ready_timer);
	struct error err = ERROR_NULL;

	if (!k->replaced)
		log_error("keeper", "the worker did not get ready in time");
	if (k->live || !k->hosted) {
		keeper_worker_drop(k);
		ev_timer_set(w, KEEPER_READY_MS / 1000.0, 0.);
		ev_timer_start(loop, w);
		return;
	}
	(void)error_set(&err, ERR_TIMEOUT,
	                "the worker neither answers nor ends; is it stopped "
	                "(SIGSTOP)?");
	keeper_give_up(k, &err);
}

/* --- the worker's end ----------------------------------------------------- */

static bool is_fault(int status)
{
	if (status < 0 || !WIFSIGNALED(status))
		return false;
	switch (WTERMSIG(status)) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
	case SIGSYS:
		return true;
	default:
		return false;
	}
}

static void log_obituary(const struct keeper *k)
{
	/* What the supervisor stopped is replaced, and nobody's concern. */
	enum log_level level =
		k->hosted && k->status == 0 ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN;

	if (k->status < 0)
		log_warn("keeper", "the worker is gone");
	else if (WIFSIGNALED(k->status))
		log_warn("keeper", "the worker (pid %d) was killed by %s",
		         (int)k->pid, strsignal(WTERMSIG(k->status)));
	else if (log_get_level() >= level)
		log_write(level, "keeper",
		          "the worker (pid %d) exited with status %d",
		          (int)k->pid, WEXITSTATUS(k->status));
}

/* Nobody is going to tell how it ended. */
static void end_unknown(struct keeper *k)
{
	if (!k->has_worker || !k->hosted || k->exited)
		return;
	k->exited = true;
	check_end(k);
}

static void on_child(struct ev_loop *loop, ev_child *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, child);

	ev_child_stop(loop, w);
	k->exited = true;
	k->live = false;
	k->status = w->rstatus;
	check_end(k);
}

/* The next one, after the end of one or at the beginning: from the supervisor
 * if there is one, else our own. Gives up if neither can be had. */
static void next_worker(struct keeper *k)
{
	struct error err = ERROR_NULL;
	int fd = -1;

	if (k->next_fd >= 0) {
		if (open_worker(k, steal_fd(&k->next_fd), true, &err) < 0)
			keeper_give_up(k, &err);
		return;
	}
	if (k->host && use_supervisor(k, -1, &err) == 0)
		return;
	if (!k->host)
		fd = client_connect(k->kc.cfg, NULL, &err);
	if (keeper_worker_start(k, fd, &err) < 0)
		keeper_give_up(k, &err);
}

static void on_due(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, due);

	ev_timer_stop(loop, w);
	if (k->ended && list_empty(&k->pending))
		keeper_give_up(k, NULL);
	else
		next_worker(k);
}

void keeper_worker_hurry(struct keeper *k)
{
	if (ev_is_active(&k->due))
		ev_feed_event(k->loop, &k->due, EV_TIMER);
}

/* A worker of our own that leaves unasked will do so again: its successor
 * waits, each time longer, and in the end there is none. What signals end
 * doesn't count: a fault is blamed on its request, other signals on nobody.
 * The delay; -1: that's it. */
static int count_exit(struct keeper *k)
{
	struct error err = ERROR_NULL;

	if (k->hosted || k->replaced || !k->ready || !WIFEXITED(k->status))
		return 0;
	if (ev_now(k->loop) - k->ready_at >= KEEPER_STABLE_MS / 1000.0)
		k->exits = 0;
	if (++k->exits < KEEPER_EXITS_MAX)
		return KEEPER_EXIT_WAIT_MS << (k->exits - 1);
	(void)error_set(&err, ERR_SYSTEM,
	                "%u workers in a row left without an answer (exit "
	                "status %d); see their messages above",
	                k->exits, WEXITSTATUS(k->status));
	keeper_give_up(k, &err);
	return -1;
}

/* False: that's it. */
static bool count_early_death(struct keeper *k)
{
	struct error err = ERROR_NULL;

	k->early_deaths = k->ready || k->replaced ? 0 : k->early_deaths + 1;
	if (k->early_deaths < KEEPER_EARLY_DEATHS)
		return true;
	if (k->hosted) {
		log_warn("keeper",
		         "%u workers of the supervisor died before "
		         "they were ready: going on with one of our "
		         "own",
		         k->early_deaths);
		k->own_only = true;
		k->early_deaths = 0;
		/* A wish for one more of them may be open. */
		k->host = host_free(k->host);
		if (k->next_fd >= 0)
			(void)close(steal_fd(&k->next_fd));
		return true;
	}
	(void)error_set(&err, ERR_SYSTEM,
	                "%u workers in a row died before they were ready; see "
	                "their messages above",
	                k->early_deaths);
	keeper_give_up(k, &err);
	return false;
}

/* After keeper_end(): it left of itself, or nothing was asked of it. */
static bool ended_well(const struct keeper *k)
{
	return k->ended && !k->replaced &&
	       (k->status == 0 || (k->hosted && list_empty(&k->pending)));
}

/* False: none is wanted, or nobody is there to be asked. */
static bool ask_successor(struct keeper *k)
{
	struct error err = ERROR_NULL;

	if (!k->host || (k->ended && list_empty(&k->pending)))
		return false;
	return host_asked(k->host) || host_ask(k->host, HOST_FORK, &err) == 0;
}

static void check_end(struct keeper *k)
{
	int wait_ms;

	if (!k->has_worker || !k->over)
		return;
	/* The supervisor hears by this that its worker is of no more use, if it
	 * doesn't know yet; the answer comes after the obituary. */
	if (!k->exited && k->hosted)
		k->exited = !ask_successor(k);
	if (!k->exited)
		return;
	if (ended_well(k)) {
		close_worker(k);
		keeper_give_up(k, NULL);
		return;
	}
	if (!k->replaced)
		log_obituary(k);
	if (is_fault(k->status) && !keeper_blame(k))
		return;
	if (!count_early_death(k))
		return;
	wait_ms = count_exit(k);
	if (wait_ms < 0)
		return;
	close_worker(k);
	if (wait_ms == 0) {
		next_worker(k);
		return;
	}
	ev_timer_set(&k->due, wait_ms / 1000.0, 0.);
	ev_timer_start(k->loop, &k->due);
	if (k->ended)
		keeper_worker_hurry(k);
}

/* --- the supervisor ------------------------------------------------------- */

/* Answers a worker that asked for a bus. */
static void answer_bus(struct keeper *k, int fd)
{
	if (!k->live || (fd < 0 && !k->answer_due))
		return;
	k->answer_due = false;
	keeper_send(k, CHANNEL_BUS, 0, fd >= 0 ? SPAN_NULL : SPAN(k->no_bus),
	            fd);
}

static void note_no_bus(struct keeper *k, const struct error *err)
{
	(void)snprintf(k->no_bus, sizeof(k->no_bus), "%s", err->text);
}

/* For the worker that there is, or for one of our own, to begin with. */
static void on_bus(struct keeper *k, int fd)
{
	struct error err = ERROR_NULL;

	if (k->has_worker)
		answer_bus(k, fd);
	else if (start_own(k, fd, &err) < 0)
		keeper_give_up(k, &err);
}

static void on_granted(void *user, enum host_wish wish, int fd)
{
	struct keeper *k = user;

	ev_timer_stop(k->loop, &k->rebus);
	k->rebus_s = KEEPER_REBUS_MS_MIN / 1000.0;
	if (wish == HOST_KEEP) {
		bool too_late = k->has_worker && k->over;

		if (!too_late)
			on_bus(k, fd);
		(void)close(fd);
		/* It died while that was asked for: now for a successor. */
		if (too_late)
			check_end(k);
		return;
	}
	if (k->next_fd >= 0)
		(void)close(k->next_fd);
	k->next_fd = fd;
	if (!k->has_worker) {
		next_worker(k);
	} else if (k->hosted) {
		end_unknown(k);
	} else if (k->live) {
		/* Ours gives way. It reads this as the keeper's end; what it
		 * said until then counts. */
		k->replaced = true;
		k->live = false;
		ev_io_stop(k->loop, &k->writer);
		(void)shutdown(k->channel.fd, SHUT_WR);
		ev_timer_set(&k->ready_timer, KEEPER_READY_MS / 1000.0, 0.);
		ev_timer_start(k->loop, &k->ready_timer);
	}
}

/* Alone, only while somebody waits for an answer: an idle session looks again
 * when it is asked something. */
static bool wants_bus(const struct keeper *k)
{
	return k->live && (k->hosted || !list_empty(&k->pending));
}

/* No worker from there, or no bus. */
static void go_without(struct keeper *k, const struct error *err)
{
	struct error failure = ERROR_NULL;

	note_no_bus(k, err);
	k->host = host_free(k->host);
	if (!k->has_worker) {
		if (start_own(k, -1, &failure) < 0)
			keeper_give_up(k, &failure);
	} else if (k->over) {
		end_unknown(k);
	} else {
		/* One that serves another ComfyUI is asked no more. */
		if (wants_bus(k) && err->code != ERR_CONFIG)
			look_later(k);
		answer_bus(k, -1);
	}
}

static void on_refused(void *user, enum host_wish wish, const struct error *err)
{
	struct keeper *k = user;
	struct error failure;

	/* It serves us, but can't fork: a bus for a worker of our own is the
	 * next best. */
	if (wish == HOST_FORK && err->code != ERR_CONFIG) {
		k->own_only = true;
		if (host_ask(k->host, HOST_KEEP, &failure) == 0) {
			end_unknown(k);
			return;
		}
	}
	go_without(k, err);
}

static void on_lost(void *user, const struct error *err)
{
	struct keeper *k = user;

	log_debug("keeper", "the supervisor is gone: %s", err->text);
	k->own_only = false; /* the next one may do better */
	go_without(k, err);
}

static void on_worker_end(void *user, pid_t pid, int status)
{
	struct keeper *k = user;

	if (!k->has_worker || !k->hosted || k->exited)
		return;
	k->pid = pid;
	k->status = status;
	k->exited = true;
	k->live = false;
	check_end(k);
}

/* At `fd`, which is consumed, unless we are connected already. */
static int use_supervisor(struct keeper *k, int fd, struct error *err)
{
	static const struct host_handlers handlers = {
		.on_granted = on_granted,
		.on_refused = on_refused,
		.on_worker_end = on_worker_end,
		.on_lost = on_lost,
	};
	struct host_config cfg = {
		.kind = k->kc.kind,
		.comfyui = k->kc.comfyui_named ? k->kc.cfg->comfyui : NULL,
		.session = k->session_id,
		.sessions = &k->sessions,
		.facts = &k->facts,
	};
	bool keep = k->own_only || (k->live && k->hosted);

	if (!k->host)
		k->host = host_new(k->loop, fd, &cfg, &handlers, k, err);
	if (!k->host)
		return -1;
	if (host_asked(k->host))
		return 0;
	if (host_ask(k->host, keep ? HOST_KEEP : HOST_FORK, err) == 0)
		return 0;
	k->host = host_free(k->host);
	return -1;
}

/* Looks once. The worker, if it asked, is told what came of it. */
static bool look(struct keeper *k)
{
	struct error err = ERROR_NULL;
	int fd = k->host ? -1 : client_connect(k->kc.cfg, NULL, &err);

	if ((k->host || fd >= 0) && use_supervisor(k, fd, &err) == 0)
		return true;
	note_no_bus(k, &err);
	answer_bus(k, -1);
	return false;
}

static void on_rebus(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, rebus);

	if (k->live && !look(k) && wants_bus(k))
		look_later(k);
}

static void look_later(struct keeper *k)
{
	if (ev_is_active(&k->rebus))
		return;
	ev_timer_set(&k->rebus, k->rebus_s, 0.);
	ev_timer_start(k->loop, &k->rebus);
	k->rebus_s *= 2;
	if (k->rebus_s > KEEPER_REBUS_MS_MAX / 1000.0)
		k->rebus_s = KEEPER_REBUS_MS_MAX / 1000.0;
}

static void on_started(struct ev_loop *loop, ev_io *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, starting);
	struct error err = ERROR_NULL;
	int fd = w->fd;

	ev_io_stop(loop, w);
	if (autostart_finish(fd, &err)) {
		(void)look(k);
		return;
	}
	k->start_failed = ev_now(loop);
	note_no_bus(k, &err);
	answer_bus(k, -1);
}

/* Starts a supervisor if there is none and that is wanted; the worker hears of
 * it later. */
static void look_or_start(struct keeper *k)
{
	struct error err = ERROR_NULL;
	int fd = k->host ? -1 : client_connect(k->kc.cfg, NULL, &err);
	bool again = k->start_failed == 0. ||
	             ev_now(k->loop) - k->start_failed > KEEPER_RESTART_S;

	if (k->host || fd >= 0) {
		if (use_supervisor(k, fd, &err) == 0)
			return;
	} else if (ev_is_active(&k->starting)) {
		return;
	} else if (err.code == ERR_UNREACHABLE && again) {
		fd = autostart_begin(k->kc.cfg, &err);
		if (fd >= 0) {
			ev_io_set(&k->starting, fd, EV_READ);
			ev_io_start(k->loop, &k->starting);
			return;
		}
	}
	note_no_bus(k, &err);
	answer_bus(k, -1);
}

void keeper_on_want_bus(struct keeper *k, struct span how)
{
	if (!k->live)
		return;
	if (span_eq_str(how, "start")) {
		k->answer_due = true;
		look_or_start(k);
	} else if (span_eq_str(how, "look")) {
		k->answer_due = true;
		(void)look(k);
	} else {
		look_later(k);
	}
}

/* --- beginning and end ---------------------------------------------------- */

static int start_own(struct keeper *k, int bus, struct error *err)
{
	cleanup_close int mine = -1, theirs = -1;
	pid_t pid;
	int sv[2];
	int r = fd_socketpair(sv, 0);

	if (r < 0)
		return error_set_errno(err, -r,
		                       "cannot make a session channel");
	mine = sv[0];
	theirs = sv[1];
	pid = spawn_worker(theirs, bus, err);
	if (pid < 0)
		return -1;
	/* Consumes mine. */
	if (open_worker(k, steal_fd(&mine), false, err) < 0) {
		(void)kill(pid, SIGKILL);
		return -1;
	}
	k->pid = pid;
	ev_child_set(&k->child, pid, 0);
	ev_child_start(k->loop, &k->child);
	return 0;
}

int keeper_worker_start(struct keeper *k, int fd, struct error *err)
{
	struct error why = ERROR_NULL;

	if (fd < 0)
		return start_own(k, -1, err);
	if (use_supervisor(k, fd, &why) == 0)
		return 0;
	note_no_bus(k, &why);
	return start_own(k, -1, err);
}

void keeper_worker_init(struct keeper *k)
{
	k->channel = (struct channel)CHANNEL_NULL;
	k->next_fd = -1;
	buf_init(&k->facts, HOST_FACTS_MAX);
	k->rebus_s = KEEPER_REBUS_MS_MIN / 1000.0;
	if (k->kc.no_bus)
		(void)snprintf(k->no_bus, sizeof(k->no_bus), "%s",
		               k->kc.no_bus);
	ev_timer_init(&k->ready_timer, on_not_ready, 0., 0.);
	ev_timer_init(&k->rebus, on_rebus, 0., 0.);
	ev_timer_init(&k->due, on_due, 0., 0.);
	ev_io_init(&k->starting, on_started, -1, EV_READ);
	ev_io_init(&k->reader, on_readable, -1, EV_READ);
	ev_io_init(&k->writer, on_writable, -1, EV_WRITE);
	ev_child_init(&k->child, on_child, 0, 0);
}

void keeper_worker_deinit(struct keeper *k)
{
	ev_timer_stop(k->loop, &k->rebus);
	ev_timer_stop(k->loop, &k->due);
	if (ev_is_active(&k->starting)) {
		ev_io_stop(k->loop, &k->starting);
		(void)close(k->starting.fd);
	}
	close_worker(k);
	k->host = host_free(k->host);
	if (k->next_fd >= 0)
		(void)close(steal_fd(&k->next_fd));
	buf_deinit(&k->facts);
}
