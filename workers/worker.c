/*
 * worker.c - the loop of one worker: frames in, frames out, and when to leave.
 *
 * The end of the session channel ends the process at once, whatever is in
 * hand: prompts that were submitted run on, and a successor finds them by the
 * records. What a full channel can't take now is kept (answers) or left out
 * (outputs), so nothing here ever blocks.
 */
#include "workers/worker.h"

#include <errno.h>
#include <ev.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "ipc/creds.h"
#include "ipc/zygote.h"
#include "workers/link.h"
#include "workers/record_mac.h"
#include "workers/worker_private.h"

void worker_leave(struct worker *w, int status)
{
	if (w->left)
		return;
	w->left = true;
	w->status = status;
	ev_break(w->loop, EVBREAK_ALL);
}

void worker_lost_keeper(struct worker *w, int r)
{
	log_debug("worker", "the keeper is gone (%s)",
	          r < 0 ? strerror(-r) : "end of file");
	worker_leave(w, 0);
}

/* --- in ------------------------------------------------------------------ */

/* A bus tells where ComfyUI is. A service's worker takes it from a supervisor
 * of its own user only, whoever made the socketpair or listens at the other
 * end. */
static bool worker_trusts(const struct worker *w, int bus)
{
	struct error err = ERROR_NULL;
	struct creds creds;
	uid_t uid;

	if (!w->told || bus < 0)
		return true;
	if (creds_get(&creds, bus, &err) < 0) {
		log_warn("worker", "the bus cannot be used: %s", err.text);
		return false;
	}
	uid = creds.uid;
	creds_deinit(&creds);
	if (uid == geteuid() || uid == 0)
		return true;
	log_warn("worker", "a bus of uid %u was refused", (unsigned)uid);
	return false;
}

static void worker_bus_frame(struct worker *w, const struct channel_frame *f)
{
	char why[256];
	int fd = f->fd;

	if (!worker_trusts(w, fd)) {
		(void)close(fd);
		fd = -1;
	}
	if (!w->link) {
		if (w->early_bus >= 0)
			(void)close(w->early_bus);
		w->early_bus = fd;
		return;
	}
	worker_set_bus(w, fd);
	if (f->fd < 0 && f->payload.n > 0) {
		(void)snprintf(why, sizeof(why), "%s",
		               log_safe(f->payload.p, f->payload.n));
		link_set_bus_error(w->link, why);
	}
	if (w->kind->on_bus)
		w->kind->on_bus(w->state);
}

static void worker_end(struct worker *w)
{
	w->draining = true;
	if (w->kind && w->kind->on_end)
		w->kind->on_end(w->state);
	if (!w->held)
		worker_drain(w);
}

/* The keeper may be anybody, and with the service's rights the prompts that its
 * records name would be looked up for it, whoever's they are. */
static void worker_record_frame(struct worker *w, const struct channel_frame *f)
{
	if (w->tenant && !(w->told && record_mac_good(w->told->record_key,
	                                              f->line, f->payload))) {
		log_warn("worker",
		         "a record of line %" PRIu64 " is not one of ours: "
		         "what it names is asked of the supervisor",
		         f->line);
		link_doubt_records(w->link);
	}
	w->kind->on_record(w->state, f->line, f->payload);
}

/* Frames that mean something only after hello. */
static void worker_session_frame(struct worker *w,
                                 const struct channel_frame *f)
{
	switch (f->type) {
	case CHANNEL_REQUEST:
		if (!w->draining)
			w->kind->on_request(w->state, f->line, f->payload);
		return;
	case CHANNEL_CANCEL:
		w->kind->on_cancel(w->state, f->line);
		return;
	case CHANNEL_RECORD:
		worker_record_frame(w, f);
		return;
	case CHANNEL_OUTPUT:
		w->kind->on_told(w->state, f->line, f->payload);
		return;
	case CHANNEL_FILE:
	case CHANNEL_CLOSED:
		remote_files_on_frame(&w->files, f);
		return;
	default:
		return;
	}
}

static int worker_frame(struct worker *w, const struct channel_frame *f,
                        struct error *err)
{
	switch (f->type) {
	case CHANNEL_HELLO:
		return worker_hello(w, f->payload, err);
	case CHANNEL_BUS:
		worker_bus_frame(w, f);
		return 0;
	case CHANNEL_END:
		worker_end(w);
		return 0;
	default:
		if (!w->link) {
			if (f->fd >= 0)
				(void)close(f->fd);
			return error_set(err, ERR_PROTOCOL, "%s before hello",
			                 channel_type_name(f->type));
		}
		worker_session_frame(w, f);
		return 0;
	}
}

static void on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct worker *w = container_of(io, struct worker, reader);
	struct channel_frame f;
	struct error err = ERROR_NULL;
	int r = channel_read(&w->channel), next = 0;

	if (r < 0) {
		worker_lost_keeper(w, r);
		return;
	}
	while (!w->left && (next = channel_next(&w->channel, &f, &err)) > 0) {
		if (worker_frame(w, &f, &err)) {
			next = -1;
			break;
		}
	}
	if (w->left)
		return;
	if (next < 0) {
		log_error("worker", "session ended: %s", err.text);
		worker_leave(w, 1);
	} else if (w->channel.eof) {
		worker_lost_keeper(w, 0);
	}
}

static void on_term(struct ev_loop *loop, ev_signal *s, int revents)
{
	worker_leave(container_of(s, struct worker, term), 0);
}

static void on_no_hello(struct ev_loop *loop, ev_timer *t, int revents)
{
	log_error("worker", "no hello within %d s", WORKER_HELLO_MS / 1000);
	worker_leave(container_of(t, struct worker, hello), 1);
}

static void on_drained_too_late(struct ev_loop *loop, ev_timer *t, int revents)
{
	log_warn("worker", "left with answers that the keeper didn't take");
	worker_leave(container_of(t, struct worker, drain), 0);
}

/* --- life ---------------------------------------------------------------- */

/* Everything but the named two and 0 to 2: what a forked child inherits is not
 * its own to hold. */
static int close_others(int a, int b)
{
	unsigned low = (unsigned)(a < b ? a : b);
	unsigned high = (unsigned)(a < b ? b : a);
	int r = 0;

	if (b < 0)
		low = high = (unsigned)a;
	if (low > 3)
		r |= close_range(3, low - 1, 0);
	if (high > low + 1)
		r |= close_range(low + 1, high - 1, 0);
	r |= close_range(high + 1, ~0u, 0);
	return r;
}

int worker_begin(struct worker_start *start, struct error *err)
{
	sigset_t none;

	if (start->session_fd < 3 || (start->bus_fd >= 0 && start->bus_fd < 3))
		return error_set(err, ERR_INTERNAL,
		                 "channel on a standard descriptor");
	if (close_others(start->session_fd, start->bus_fd))
		return error_set_errno(err, errno,
		                       "cannot close inherited descriptors");
	for (int sig = 1; sig < NSIG; sig++) {
		/* Some can't be set; those have no handler either. */
		(void)signal(sig, SIG_DFL);
	}
	(void)sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL))
		return error_set_errno(err, errno, "cannot unblock signals");
	return 0;
}

/* Ctrl-C and a closing terminal reach the whole process group; it is the
 * keeper who decides what they mean. */
static void ignore_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGINT, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
}

static void worker_init(struct worker *w, const struct worker_start *start)
{
	worker_out_init(w);
	remote_files_init(&w->files);
	w->early_bus = start->bus_fd;
	w->tenant = start->tenant;
	w->told = start->told;
	w->told_credentials = start->credentials;
	credentials_init(&w->credentials);
	ev_signal_init(&w->term, on_term, SIGTERM);
	ev_signal_start(w->loop, &w->term);
	ev_timer_init(&w->hello, on_no_hello, WORKER_HELLO_MS / 1000.0, 0.);
	ev_timer_start(w->loop, &w->hello);
	ev_timer_init(&w->drain, on_drained_too_late, 0., 0.);
	ev_io_init(&w->reader, on_readable, w->channel.fd, EV_READ);
	ev_io_start(w->loop, &w->reader);
}

static void worker_deinit(struct worker *w)
{
	if (w->state)
		w->kind->stop(w->state);
	w->link = link_free(w->link);
	credentials_deinit(&w->credentials);
	remote_files_deinit(&w->files);
	worker_out_deinit(w);
	ev_io_stop(w->loop, &w->reader);
	ev_signal_stop(w->loop, &w->term);
	ev_timer_stop(w->loop, &w->hello);
	ev_timer_stop(w->loop, &w->drain);
	if (w->early_bus >= 0)
		(void)close(w->early_bus);
}

int worker_run(const struct worker_start *start)
{
	struct worker w = {.status = 1};
	int r;

	ignore_signals();
	/* Not the default loop: a process forked while one runs would have to
	 * take it apart first. */
	w.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!w.loop) {
		log_error("worker", "no event loop");
		return 1;
	}
	event_loop_sleep_long(w.loop);
	r = channel_init(&w.channel, start->session_fd, true);
	if (r < 0) {
		log_error("worker", "session channel: %s", strerror(-r));
		ev_loop_destroy(w.loop);
		return 1;
	}
	worker_init(&w, start);
	ev_run(w.loop, 0);
	worker_deinit(&w);
	channel_deinit(&w.channel);
	ev_loop_destroy(w.loop);
	return w.status;
}

struct link *worker_link(const struct worker *w)
{
	return w->link;
}

struct ev_loop *worker_loop(const struct worker *w)
{
	return w->loop;
}

struct remote_files *worker_remote_files(struct worker *w)
{
	return &w->files;
}
