/*
 * nursery_worker.c - forked workers and their zygotes: asking for them, their
 * deadlines, their end. The obituary is composed in one place, bury().
 *
 * Whoever is the parent of a worker is the only one to signal it, so that no
 * pid is reused meanwhile: its zygote, by generation; or we, once the zygote
 * is gone and the worker was found among our children.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/credentials.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "ipc/zygote.h"
#include "supervisor/nursery_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/zygote_proc.h"

#define FIRST_FREE_FD 16 /* above every number that a zygote is promised */

/* How a worker ended. */
struct worker_end {
	enum {
		END_UNFORKED, /* it couldn't be forked: `value` is the errno */
		END_LOST,     /* its zygote took the answer with it */
		END_UNKNOWN,  /* nobody heard how */
		END_STATUS,   /* `value` as wait() gives it */
	} how;
	int value;
};

static void bury(struct session *s, const struct worker_end *end);

/* --- signals -------------------------------------------------------------- */

static void signal_worker(struct session *s, int sig)
{
	int r = 0;

	if (s->zygote)
		r = zygote_proc_kill(s->zygote, s->worker.generation, sig);
	else if (s->worker.pid > 0 && kill(s->worker.pid, sig) < 0)
		r = -errno;
	/* A zygote that takes nothing any more is about to be gone: then it is
	 * sent again. */
	if (r < 0 && r != -EPIPE)
		log_warn("nursery", "cannot signal a worker: %s (session=%s)",
		         strerror(-r), s->id);
}

/* SIGKILL was not enough. */
static void blame_parent(struct session *s)
{
	log_error("nursery",
	          "SIGKILL doesn't end a worker (session=%s pid=%d%s)", s->id,
	          (int)s->worker.pid, s->zygote ? "); its zygote goes" : "");
	if (s->zygote)
		zygote_proc_kill_itself(s->zygote);
}

static void act(struct session *s, unsigned actions)
{
	struct ev_loop *loop = s->nursery->sv->loop;

	if (actions & (WORKER_DO_DISARM | WORKER_DO_ARM))
		ev_timer_stop(loop, &s->deadline);
	if (actions & WORKER_DO_ARM) {
		ev_timer_set(&s->deadline,
		             worker_proc_patience_ms(&s->worker) / 1e3, 0.);
		ev_timer_start(loop, &s->deadline);
	}
	if (actions & WORKER_DO_TERM)
		signal_worker(s, SIGTERM);
	if (actions & WORKER_DO_KILL)
		signal_worker(s, SIGKILL);
	if (actions & WORKER_DO_PARENT)
		blame_parent(s);
}

void worker_tell(struct session *s, enum worker_event ev)
{
	act(s, worker_proc_event(&s->worker, ev, clock_ms()));
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct session *s = w->data;

	if (s->worker.state == WORKER_STARTING)
		log_warn("nursery",
		         "worker didn't get ready: killed (session=%s pid=%d)",
		         s->id, (int)s->worker.pid);
	worker_tell(s, WORKER_EV_DEADLINE);
}

/* --- the end -------------------------------------------------------------- */

static bool is_fault(const struct worker_end *end)
{
	if (end->how != END_STATUS || !WIFSIGNALED(end->value))
		return false;
	switch (WTERMSIG(end->value)) {
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

/* "exited with status 1", into a static buffer. */
static const char *describe(const struct worker_end *end)
{
	static char text[128];

	switch (end->how) {
	case END_UNFORKED:
		(void)snprintf(text, sizeof(text), "could not be forked: %s",
		               strerror(end->value));
		break;
	case END_LOST:
		return "was not forked: the zygote died";
	case END_UNKNOWN:
		return "ended, nobody heard how";
	case END_STATUS:
		if (WIFSIGNALED(end->value))
			(void)snprintf(text, sizeof(text),
			               "was killed by signal %d (%s)",
			               WTERMSIG(end->value),
			               strsignal(WTERMSIG(end->value)));
		else
			(void)snprintf(text, sizeof(text),
			               "exited with status %d",
			               WEXITSTATUS(end->value));
		break;
	}
	return text;
}

/* To the keeper, whose child it isn't. */
static void send_obituary(struct session *s, const struct worker_end *end)
{
	struct buf data = BUF_INIT(256), line = BUF_INIT(1024);
	struct event_line ev = {.event = EVENT_WORKER,
	                        .t_ms = clock_epoch_ms()};
	struct frame *f = NULL;

	(void)buf_printf(&data, "{\"pid\":%d", (int)s->worker.pid);
	if (end->how == END_STATUS && WIFSIGNALED(end->value))
		(void)buf_printf(&data, ",\"signal\":%d", WTERMSIG(end->value));
	else if (end->how == END_STATUS)
		(void)buf_printf(&data, ",\"status\":%d",
		                 WEXITSTATUS(end->value));
	(void)buf_putc(&data, '}');
	ev.data = span_make(data.data, data.len);
	if (buf_ok(&data) && event_build(&line, &ev) == 0)
		f = frame_new(line.data, line.len, -1);
	if (f)
		peer_send(s->keeper, f);
	else
		s->keeper->closing = true; /* it would wait in vain */
	frame_unref(f);
	buf_deinit(&data);
	buf_deinit(&line);
}

/* Nobody wanted it. Status 0 is a worker that has seen the end of its session,
 * perhaps before we have. */
static bool is_failure(const struct session *s, const struct worker_end *end)
{
	return worker_proc_failed(&s->worker) &&
	       !(end->how == END_STATUS && end->value == 0);
}

static void log_obituary(const struct session *s, const struct worker_end *end)
{
	log_write(is_failure(s, end) ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
	          "nursery",
	          "worker %s (session=%s pid=%d uid=%u generation=%llu)",
	          describe(end), s->id, (int)s->worker.pid, (unsigned)s->uid,
	          (unsigned long long)s->worker.generation);
}

/* Whoever waits for the worker that couldn't be forked. */
static void miscarry(struct session *s, const struct worker_end *end)
{
	struct error err = ERROR_NULL;

	if (end->how == END_LOST && s->tries < NURSERY_TRIES) {
		worker_start(s);
		return;
	}
	(void)error_set(&err, ERR_SYSTEM, "a worker %s", describe(end));
	session_refuse(s, &err);
}

/* A job has nobody who would ask for another worker. */
static void worker_succeed(struct session *s, bool forked)
{
	if (!forked)
		restart_policy_died(&s->policy, clock_ms(), -1);
	s->tries = 0;
	worker_start(s);
}

/* May free the session. */
static void bury(struct session *s, const struct worker_end *end)
{
	struct nursery *n = s->nursery;
	bool forked = end->how == END_STATUS || end->how == END_UNKNOWN;
	int64_t now_ms = clock_ms();
	unsigned actions = worker_proc_event(
		&s->worker, forked ? WORKER_EV_EXITED : WORKER_EV_FAILED,
		now_ms);

	act(s, actions);
	if (!(actions & WORKER_DO_OBITUARY))
		return;
	log_obituary(s, end);
	s->zygote = NULL;
	if (is_failure(s, end)) {
		n->sv->counters.workers_failed++;
		if (forked)
			restart_policy_died(
				&s->policy, now_ms,
				s->worker.ready_ms < 0
					? -1
					: now_ms - s->worker.ready_ms);
	}
	/* Its siblings to come must not share the layout and the canary that
	 * whoever made it crash may have learned from it. */
	if (is_fault(end))
		zygotes_retire(n);
	if (s->keeper && forked)
		send_obituary(s, end);
	if (session_has_work(s))
		worker_succeed(s, forked);
	else if (s->asked && forked)
		worker_start(s);
	else if (s->asked)
		miscarry(s, end);
	session_settle(s);
}

/* --- zygotes -------------------------------------------------------------- */

static struct session *find_generation(const struct nursery *n,
                                       uint64_t generation)
{
	struct session *s;
	struct list *it;

	list_for_each (it, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (s->worker.generation == generation &&
		    worker_proc_exists(&s->worker))
			return s;
	}
	return NULL;
}

static void on_forked(void *user, uint64_t generation, pid_t pid)
{
	struct nursery *n = user;
	struct session *s = find_generation(n, generation);

	if (!s)
		return;
	s->worker.pid = pid;
	n->sv->counters.workers++;
	log_info("nursery",
	         "worker forked (session=%s pid=%d uid=%u generation=%llu)",
	         s->id, (int)pid, (unsigned)s->uid,
	         (unsigned long long)generation);
	if (s->worker.state == WORKER_STARTING)
		session_answer(s);
}

static void on_failed(void *user, uint64_t generation, int errnum)
{
	struct session *s = find_generation(user, generation);
	const struct worker_end end = {.how = END_UNFORKED, .value = errnum};

	if (s)
		bury(s, &end);
}

static void on_exited(void *user, uint64_t generation, int status)
{
	struct session *s = find_generation(user, generation);
	const struct worker_end end = {.how = END_STATUS, .value = status};

	if (s)
		bury(s, &end);
}

static bool is_our_child(pid_t pid)
{
	siginfo_t info;

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) ==
	       0;
}

/* Its zygote is gone, and was reaped: so by now its workers are ours. */
static void inherit(struct session *s)
{
	struct worker_end end = {.how = END_LOST};

	s->zygote = NULL;
	if (s->worker.pid > 0) {
		end.how = END_UNKNOWN;
		if (is_our_child(s->worker.pid)) {
			/* What the zygote may not have passed on. */
			if (s->worker.state == WORKER_STOPPING)
				signal_worker(s, SIGTERM);
			else if (s->worker.state == WORKER_KILLED)
				signal_worker(s, SIGKILL);
			return;
		}
	}
	bury(s, &end);
}

static void forget_zygote(struct nursery *n, const struct zygote_proc *z)
{
	for (size_t i = 0; i < n->zygote_count; i++) {
		if (n->zygotes[i] == z) {
			n->zygotes[i] = n->zygotes[--n->zygote_count];
			break;
		}
	}
}

static void on_gone(void *user, struct zygote_proc *z, int status)
{
	struct nursery *n = user;
	struct list *it, *next;
	struct session *s;

	forget_zygote(n, z);
	if (n->zygote == z) {
		const struct worker_end end = {.how = END_STATUS,
		                               .value = status};

		log_warn("nursery", "the zygote %s", describe(&end));
		n->zygote = NULL;
		restart_policy_died(&n->zygote_policy, clock_ms(),
		                    zygote_proc_proven(z)
		                            ? clock_ms() - n->zygote_started_ms
		                            : -1);
	}
	list_for_each_safe (it, next, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (s->zygote == z)
			inherit(s);
	}
}

void zygotes_retire(struct nursery *n)
{
	if (n->zygote)
		zygote_proc_retire(n->zygote);
	n->zygote = NULL;
}

static const struct zygote_handlers handlers = {
	.on_forked = on_forked,
	.on_failed = on_failed,
	.on_exited = on_exited,
	.on_gone = on_gone,
};

/* Read anew for each zygote, so that restart-workers picks a new token up.
 * *fdp: above the numbers that a zygote is promised; -1: there are none. */
static int open_credentials(const struct supervisor *sv, int *fdp,
                            struct error *err)
{
	struct buf packed = BUF_INIT(CREDENTIALS_PACKED_MAX);
	struct credentials_files files = supervisor_credentials(sv);
	cleanup_close int fd = -1;
	struct credentials c;
	int r;

	*fdp = -1;
	files.ca_file = sv->url.tls ? sv->cfg.ca_file : "";
	files.with_system_ca = sv->url.tls;
	if (credentials_load(&c, &files, err) < 0)
		return -1;
	r = credentials_pack(&c, &packed);
	if (r == 0 && (c.ca.len > 0 || c.cert.len > 0 || c.header_count > 0)) {
		fd = fd_sealed("credentials", packed.data, packed.len);
		*fdp = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
		r = fd < 0 ? fd : *fdp < 0 ? -errno : 0;
	}
	if (packed.data)
		explicit_bzero(packed.data, packed.cap);
	buf_deinit(&packed);
	credentials_deinit(&c);
	return r < 0 ? error_set_errno(err, -r, "cannot pass credentials on")
	             : 0;
}

static struct zygote_proc *start_zygote(struct nursery *n, struct error *err)
{
	struct supervisor *sv = n->sv;
	struct zygote_setup setup = {.program = sv->worker_program,
	                             .sandbox = sv->cfg.sandbox};
	struct zygote_proc *z;

	if (open_credentials(sv, &setup.credentials_fd, err) < 0)
		return NULL;
	z = zygote_proc_start(sv->loop, &setup, &handlers, n, err);
	if (setup.credentials_fd >= 0)
		(void)close(setup.credentials_fd);
	return z;
}

/* The one that serves; a fresh one if there is none. It is not exec'd before a
 * worker is wanted: it would take 1.5 MB for nothing. */
static struct zygote_proc *get_zygote(struct nursery *n, struct error *err)
{
	int64_t wait_ms;
	struct zygote_proc *z;

	if (n->zygote && zygote_proc_serves(n->zygote))
		return n->zygote;
	zygotes_retire(n);
	wait_ms = restart_policy_wait_ms(&n->zygote_policy, clock_ms());
	if (wait_ms > 0) {
		(void)error_set(err, ERR_SYSTEM,
		                "zygotes keep dying; the next one is tried in "
		                "%lld ms",
		                (long long)wait_ms);
		return NULL;
	}
	if (n->zygote_count == NURSERY_ZYGOTES_MAX) {
		(void)error_set(err, ERR_LIMIT,
		                "%d zygotes are about to leave already",
		                NURSERY_ZYGOTES_MAX);
		return NULL;
	}
	z = start_zygote(n, err);
	if (!z)
		return NULL;
	n->zygotes[n->zygote_count++] = z;
	n->zygote_started_ms = clock_ms();
	n->sv->counters.zygotes++;
	return n->zygote = z;
}

/* --- forking -------------------------------------------------------------- */

static struct zygote_told make_told(const struct session *s)
{
	const struct supervisor *sv = s->nursery->sv;

	return (struct zygote_told){
		.comfyui = sv->url_text.data,
		.address = upstream_address(sv->upstream),
		.client_id = sv->state_dir.client_id,
		.ca_file = sv->cfg.ca_file,
		.proxy = sv->cfg.proxy,
		.connect_timeout_ms = (uint32_t)sv->cfg.connect_timeout_ms,
		.request_timeout_ms = (uint32_t)sv->cfg.request_timeout_ms,
		.poll_interval_ms = (uint32_t)sv->cfg.poll_interval_ms,
		.sessions = (uint32_t)s->nursery->attached,
		.log_level = log_get_level(),
		/* A file is our own stderr, see main.c. */
		.log_sink = log_get_sink() == LOG_TO_FILE ? LOG_TO_STDERR
	                                                  : log_get_sink(),
		.log_format = log_get_format(),
		.tenant = !sv->single_user && !session_is_operator(s),
		.job = s->job != NULL,
	};
}

static int fork_now(struct session *s, struct error *err)
{
	struct nursery *n = s->nursery;
	struct zygote_proc *z = get_zygote(n, err);
	cleanup_close int keeper = -1, session = -1;
	struct zygote_told told;
	int sv[2], bus, r;

	if (!z)
		return -1;
	r = fd_socketpair(sv, 0);
	if (r < 0)
		return error_set_errno(err, -r, "cannot make a session");
	keeper = sv[0];
	session = sv[1];
	bus = session_make_bus(s, err);
	if (bus < 0)
		return -1;
	told = make_told(s);
	state_dir_record_key(&n->sv->state_dir, s->uid, told.record_key);
	s->worker.generation = ++n->generation;
	/* Consumes session and bus. */
	r = zygote_proc_fork(z, s->worker.generation, &told, steal_fd(&session),
	                     bus);
	if (r < 0)
		return error_set_errno(err, -r, "cannot ask for a worker");
	s->zygote = z;
	if (s->keeper_fd >= 0)
		(void)close(s->keeper_fd);
	/* A job's worker has nobody at the other end. */
	s->keeper_fd = s->job ? -1 : steal_fd(&keeper);
	worker_tell(s, WORKER_EV_FORK);
	if (s->had_worker && s->tries == 1) {
		s->restarts++;
		n->sv->counters.worker_restarts++;
	}
	s->had_worker = true;
	return 0;
}

static void on_due(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct session *s = w->data;
	struct error err = ERROR_NULL;

	s->tries++;
	if (fork_now(s, &err) < 0) {
		log_error("nursery", "no worker: %s (session=%s)", err.text,
		          s->id);
		session_refuse(s, &err);
		if (session_has_work(s))
			worker_succeed(s, false);
	}
}

void worker_start(struct session *s)
{
	struct ev_loop *loop = s->nursery->sv->loop;
	int64_t wait_ms = restart_policy_wait_ms(&s->policy, clock_ms());

	if (wait_ms > 0)
		log_info("nursery",
		         "a successor starts in %lld ms (session=%s)",
		         (long long)wait_ms, s->id);
	/* Never from inside: whoever calls may hold the keeper's peer. */
	ev_timer_set(&s->due, (double)wait_ms / 1e3, 0.);
	ev_timer_start(loop, &s->due);
}

void worker_watchers_init(struct session *s)
{
	ev_timer_init(&s->deadline, on_deadline, 0., 0.);
	ev_timer_init(&s->due, on_due, 0., 0.);
	s->deadline.data = s->due.data = s;
}

void worker_release(struct session *s)
{
	ev_timer_stop(s->nursery->sv->loop, &s->deadline);
	ev_timer_stop(s->nursery->sv->loop, &s->due);
}

/* --- reaping -------------------------------------------------------------- */

static struct session *find_pid(const struct nursery *n, pid_t pid)
{
	struct session *s;
	struct list *it;

	list_for_each (it, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (s->worker.pid == pid && worker_proc_exists(&s->worker))
			return s;
	}
	return NULL;
}

/* Every child that ends, those we inherited included: zygotes, orphaned
 * workers, helpers that somebody forked and forgot. */
static void on_child(struct ev_loop *loop, ev_child *w, int revents)
{
	struct nursery *n = w->data;
	struct worker_end end = {.how = END_STATUS, .value = w->rstatus};
	struct session *s;

	if (!WIFEXITED(w->rstatus) && !WIFSIGNALED(w->rstatus))
		return;
	for (size_t i = 0; i < n->zygote_count; i++) {
		if (zygote_proc_pid(n->zygotes[i]) == w->rpid) {
			zygote_proc_reaped(n->zygotes[i], w->rstatus);
			return;
		}
	}
	s = find_pid(n, w->rpid);
	if (s)
		bury(s, &end);
}

int zygotes_init(struct nursery *n, struct error *err)
{
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return error_set_errno(err, errno,
		                       "cannot become the reaper of orphans");
	ev_child_init(&n->children, on_child, 0, 0);
	/* At once: until then the pid is nobody's. */
	ev_set_priority(&n->children, EV_MAXPRI);
	n->children.data = n;
	ev_child_start(n->sv->loop, &n->children);
	return 0;
}

void zygotes_deinit(struct nursery *n)
{
	struct session *s;
	struct list *it;

	list_for_each (it, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (n->stopping && worker_proc_exists(&s->worker))
			signal_worker(s, SIGKILL);
	}
	for (size_t i = 0; i < n->zygote_count; i++)
		(void)zygote_proc_free(n->zygotes[i]);
	n->zygote_count = 0;
	n->zygote = NULL;
	ev_child_stop(n->sv->loop, &n->children);
}
