/*
 * nursery.c - see nursery.h: sessions and their keepers.
 */
#include "supervisor/nursery.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "supervisor/nursery_impl.h"
#include "supervisor/ops.h"
#include "supervisor/supervisor.h"

/* --- how many there are --------------------------------------------------- */

static bool is_news(const struct nursery *n)
{
	size_t more = n->attached > n->told ? n->attached - n->told
	                                    : n->told - n->attached;

	return more * NURSERY_CROWD_PART > n->told;
}

static struct frame *build_count(const struct nursery *n)
{
	struct event_line ev = {.event = EVENT_SESSIONS,
	                        .t_ms = clock_epoch_ms()};
	struct buf line = BUF_INIT(1024);
	struct frame *f = NULL;
	char data[64];
	int len;

	len = snprintf(data, sizeof(data), "{\"sessions\":%zu}", n->attached);
	ev.data = span_make(data, (size_t)len);
	if (event_build(&line, &ev) == 0)
		f = frame_new(line.data, line.len, -1);
	buf_deinit(&line);
	return f;
}

static void on_crowd(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct nursery *n = w->data;
	struct frame *f = is_news(n) ? build_count(n) : NULL;
	const struct session *s;
	struct list *it;

	if (!f)
		return;
	n->told = n->attached;
	list_for_each (it, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (s->keeper)
			peer_tell(s->keeper, f, FOLD_KEEP, NULL);
		/* A bus is told by the answer to its attach, to begin with. */
		if (s->bus && s->bus != s->keeper && s->bus->greeted)
			peer_tell(s->bus, f, FOLD_KEEP, NULL);
	}
	frame_unref(f);
}

/* Not from inside: whoever calls walks the sessions, perhaps. */
static void count_sessions(struct nursery *n, bool one_more)
{
	n->attached += one_more ? 1 : (size_t)-1;
	if (n->stopping || !is_news(n) || ev_is_active(&n->crowd))
		return;
	ev_timer_set(&n->crowd, NURSERY_CROWD_S, 0.);
	ev_timer_start(n->sv->loop, &n->crowd);
}

/* --- one session ---------------------------------------------------------- */

static struct session *session_new(struct nursery *n, const char *id,
                                   struct error *err)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s) {
		(void)error_set_nomem(err, "session");
		return NULL;
	}
	s->nursery = n;
	s->keeper_fd = -1;
	(void)snprintf(s->id, sizeof(s->id), "%s", id);
	list_init(&s->link);
	worker_watchers_init(s);
	if (map_add(&n->by_id, s->id, strlen(s->id), s) != 0) {
		free(s);
		(void)error_set_nomem(err, "session");
		return NULL;
	}
	list_append(&n->sessions, &s->link);
	return s;
}

static void session_free(struct session *s)
{
	struct nursery *n = s->nursery;

	(void)map_remove(&n->by_id, s->id, strlen(s->id));
	list_del(&s->link);
	worker_release(s);
	jobs_session_gone(&n->sv->jobs, s);
	if (s->bus)
		s->bus->session = NULL;
	if (s->keeper) {
		s->keeper->session = NULL;
		s->keeper->tenant->usage.used[LIMIT_SESSIONS]--;
		count_sessions(n, false);
	}
	if (s->keeper_fd >= 0)
		(void)close(s->keeper_fd);
	free(s);
}

bool session_has_work(const struct session *s)
{
	return s->job && s->job->state != JOB_OVER && !s->nursery->stopping;
}

void session_settle(struct session *s)
{
	if (!s->keeper && !worker_proc_exists(&s->worker) &&
	    !session_has_work(s))
		session_free(s);
}

pid_t session_pid(const struct session *s)
{
	if (s->worker.pid > 0 && worker_proc_exists(&s->worker))
		return s->worker.pid;
	if (!s->bus)
		return 0;
	if (s->bus->conn.sender > 0)
		return s->bus->conn.sender;
	return s->host == SESSION_SELF ? s->bus->creds.pid : 0;
}

static void set_bus(struct session *s, struct peer *p)
{
	/* The former one goes when its other end is closed. */
	if (s->bus && s->bus != s->keeper)
		s->bus->session = NULL;
	s->bus = p;
	p->session = s;
}

static void set_keeper(struct session *s, struct peer *p)
{
	s->keeper = p;
	count_sessions(s->nursery, true);
	p->tenant->usage.used[LIMIT_SESSIONS]++;
	p->session = s;
	s->uid = p->creds.uid;
}

/* What the keeper's end of a session causes, whether it went or lost the
 * session to another connection (which then has it still). */
static void unset_keeper(struct session *s)
{
	s->keeper->session = NULL;
	s->keeper->tenant->usage.used[LIMIT_SESSIONS]--;
	if (s->bus == s->keeper)
		s->bus = NULL;
	s->keeper = NULL;
	count_sessions(s->nursery, false);
	s->asked = false;
	ev_timer_stop(s->nursery->sv->loop, &s->due);
	if (s->keeper_fd >= 0)
		(void)close(steal_fd(&s->keeper_fd));
}

static void end_session(struct session *s)
{
	unset_keeper(s);
	worker_tell(s, WORKER_EV_LEAVE);
	session_settle(s);
}

/* --- whose session -------------------------------------------------------- */

static bool id_fits(const char *id)
{
	size_t n = strlen(id);

	return n >= 2 && n < NURSERY_ID_MAX - 5 && id[0] == 's' &&
	       id[1] != '0' && strspn(id + 1, "0123456789") == n - 1;
}

struct session *nursery_find(const struct nursery *n, const char *id)
{
	return map_get(&n->by_id, id, strlen(id));
}

/* A fresh id, or the one that was asked for if nobody has it: the session is
 * from before a restart. */
static struct session *begin_session(struct nursery *n, const char *want,
                                     struct error *err)
{
	char id[NURSERY_ID_MAX];
	unsigned long long number;
	struct session *s;

	if (want[0] != '\0' && id_fits(want) && !nursery_find(n, want)) {
		number = strtoull(want + 1, NULL, 10);
		if (number >= n->next_id)
			n->next_id = number + 1;
		s = session_new(n, want, err);
		if (s)
			s->had_worker = true;
		return s;
	}
	(void)snprintf(id, sizeof(id), "s%llu",
	               (unsigned long long)n->next_id++);
	return session_new(n, id, err);
}

/* The session that the keeper has, comes back to, or begins. */
static struct session *settle_session(struct nursery *n, struct peer *p,
                                      const struct nursery_wish *wish,
                                      struct error *err)
{
	struct session *s = nursery_find(n, wish->session);

	if (wish->session[0] == '\0' && wish->host != SESSION_SELF)
		s = p->session;
	/* Ids count anew with each supervisor, so that two keepers may come
	 * back to the same one: the first has it. */
	if (s && (s->uid != p->creds.uid ||
	          (s->keeper && s->keeper->creds.pid != p->creds.pid)))
		s = NULL;
	if (s && s->asked) {
		(void)error_set(err, ERR_BUSY,
		                "an attach of session %s is being answered",
		                s->id);
		return NULL;
	}
	if (s && s->keeper == p)
		return s;
	if (!s && !p->session &&
	    peer_check_limit(p, LIMIT_SESSIONS, 1, err) < 0)
		return NULL;
	if (p->session && p->session != s)
		end_session(p->session);
	if (!s)
		s = begin_session(n, wish->session, err);
	else if (s->keeper)
		unset_keeper(s);
	if (s)
		set_keeper(s, p);
	return s;
}

/* --- answers -------------------------------------------------------------- */

static struct span ask_id(const struct session *s)
{
	return span_make(s->ask_len > 0 ? s->ask : NULL, s->ask_len);
}

void session_answer(struct session *s)
{
	if (!s->asked || s->keeper_fd < 0)
		return;
	s->asked = false;
	/* Consumes the descriptor. */
	ops_attached(s->nursery->sv, s->keeper, ask_id(s),
	             steal_fd(&s->keeper_fd));
}

void session_refuse(struct session *s, const struct error *err)
{
	if (s->keeper_fd >= 0)
		(void)close(steal_fd(&s->keeper_fd));
	if (!s->asked)
		return;
	s->asked = false;
	peer_refuse(s->keeper, ask_id(s), err, SPAN_NULL);
}

bool session_is_operator(const struct session *s)
{
	/* Programs drive an MCP session, with words from anywhere: it doesn't
	 * get at other people's work because its user could. */
	if (s->job)
		return s->nursery->sv->single_user;
	return s->keeper && s->keeper->is_operator &&
	       (s->nursery->sv->single_user || strcmp(s->kind, "mcp") != 0);
}

int session_make_bus(struct session *s, struct error *err)
{
	struct hub *h = &s->nursery->sv->hub;
	struct creds job = {.uid = s->uid};
	cleanup_close int theirs = -1;
	struct peer *p;
	int sv[2];
	int r = fd_socketpair(sv, 0);

	if (r < 0)
		return error_set_errno(err, -r, "cannot make a bus");
	theirs = sv[1];
	/* Consumes sv[0]. */
	p = hub_adopt(h, sv[0], s->keeper ? &s->keeper->creds : &job,
	              s->keeper ? s->keeper->is_operator : true,
	              session_is_operator(s), err);
	if (!p)
		return -1;
	set_bus(s, p);
	return steal_fd(&theirs);
}

static int attach_self(struct session *s, struct peer *p, struct span id)
{
	if (s->had_worker)
		s->restarts++;
	s->had_worker = true;
	s->host = SESSION_SELF;
	worker_tell(s, WORKER_EV_LEAVE);
	set_bus(s, p);
	ops_attached(s->nursery->sv, p, id, -1);
	return 0;
}

/* The worker lives, and needs nothing but a bus. */
static int attach_kept(struct session *s, struct peer *p, struct span id,
                       struct error *err)
{
	int fd;

	if (!worker_proc_exists(&s->worker))
		s->host = SESSION_ADOPTED;
	fd = session_make_bus(s, err);
	if (fd < 0)
		return -1;
	s->had_worker = true;
	worker_tell(s, WORKER_EV_RETURN);
	/* Consumes fd. */
	ops_attached(s->nursery->sv, p, id, fd);
	return 0;
}

static int attach_forked(struct session *s, struct span id)
{
	s->host = SESSION_FORKED;
	s->asked = true;
	s->tries = 0;
	s->ask_len = id.n;
	if (id.n > 0)
		memcpy(s->ask, id.p, id.n);
	/* A former one is on its way out: its keeper has seen the end of its
	 * channel. The obituary goes on from there. */
	if (worker_proc_exists(&s->worker))
		worker_tell(s, WORKER_EV_LEAVE);
	else
		worker_start(s);
	return 0;
}

int nursery_attach(struct nursery *n, struct peer *p, struct span request_id,
                   const struct nursery_wish *wish, struct error *err)
{
	struct session *s;

	if (n->stopping)
		return error_set(err, ERR_BUSY, "the supervisor is stopping");
	s = settle_session(n, p, wish, err);
	if (!s)
		return -1;
	s->kind = wish->kind;
	log_info("nursery",
	         "session attached (session=%s kind=%s uid=%u keeper=%d)",
	         s->id, s->kind, (unsigned)s->uid, (int)p->creds.pid);
	switch (wish->host) {
	case SESSION_SELF:
		return attach_self(s, p, request_id);
	case SESSION_ADOPTED:
		return attach_kept(s, p, request_id, err);
	case SESSION_FORKED:
		break;
	}
	return attach_forked(s, request_id);
}

int nursery_bus_attached(struct nursery *n, struct peer *p, struct error *err)
{
	struct session *s = p->session;

	if (!s || s->bus != p)
		return error_set(err, ERR_NOT_FOUND,
		                 "the session of this bus is over");
	worker_tell(s, WORKER_EV_ATTACHED);
	return 0;
}

void nursery_peer_gone(struct nursery *n, struct peer *p)
{
	struct session *s = p->session;

	if (!s)
		return;
	p->session = NULL;
	if (p == s->keeper) {
		log_info("nursery", "session ended (session=%s uid=%u)", s->id,
		         (unsigned)s->uid);
		end_session(s);
	} else if (p == s->bus) {
		s->bus = NULL;
	}
}

/* --- detached jobs -------------------------------------------------------- */

int nursery_begin_job(struct nursery *n, struct job *job, struct error *err)
{
	struct session *s;

	if (n->stopping)
		return error_set(err, ERR_BUSY, "the supervisor is stopping");
	s = begin_session(n, "", err);
	if (!s)
		return -1;
	s->kind = job->kind;
	s->uid = job->uid;
	s->host = SESSION_FORKED;
	s->job = job;
	job->session = s;
	log_info("nursery", "session of a job (id=%s kind=%s uid=%u job=%s)",
	         s->id, s->kind, (unsigned)s->uid, job->id);
	worker_start(s);
	return 0;
}

void nursery_stop_job(struct session *s)
{
	if (worker_proc_exists(&s->worker))
		worker_tell(s, WORKER_EV_STOP);
}

/* --- orders --------------------------------------------------------------- */

/* Of a worker that is nobody's child here. The pid is the kernel's word about
 * whoever wrote last on the bus; that it lives still is known by the bus, whose
 * other end it holds, being asked after the pid was pinned. */
static bool signal_adopted(const struct session *s, int sig)
{
	struct pollfd p = {.events = POLLRDHUP};
	cleanup_close int pidfd = -1;
	pid_t pid = session_pid(s);

	if (pid <= 0 || !s->bus)
		return false;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	p.fd = s->bus->conn.fd;
	if (pidfd < 0 || poll(&p, 1, 0) != 0)
		return false;
	if (syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) == 0)
		return true;
	log_warn("nursery", "worker cannot be stopped: %s (session=%s pid=%d)",
	         strerror(errno), s->id, (int)pid);
	return false;
}

/* Whether another is to take its place: not if its session is over. */
static bool stop_worker(struct session *s)
{
	bool leaving = s->worker.state == WORKER_LEAVING;

	if (worker_proc_exists(&s->worker)) {
		worker_tell(s, WORKER_EV_STOP);
		return !leaving;
	}
	return s->host == SESSION_ADOPTED && signal_adopted(s, SIGTERM);
}

/* All of them, or (not NULL) those that `by` may see. */
static size_t stop_workers(struct nursery *n, const struct peer *by)
{
	struct list *it, *next;
	struct session *s;
	size_t count = 0;

	list_for_each_safe (it, next, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (!by || may_see(by->creds.uid, by->is_operator, s->uid))
			count += stop_worker(s);
	}
	return count;
}

size_t nursery_restart(struct nursery *n, const struct peer *by,
                       struct session *s)
{
	size_t count = s ? stop_worker(s) : stop_workers(n, by);

	/* It takes the signals with it, in order; whoever is to be forked from
	 * now on comes from its successor. */
	if (by->is_operator)
		zygotes_retire(n);
	log_info("nursery", "workers restarted (session=%s uid=%u count=%zu)",
	         s ? s->id : "all", (unsigned)by->creds.uid, count);
	return count;
}

void nursery_stop(struct nursery *n)
{
	struct error err = ERROR_NULL;
	struct list *it, *next;
	struct session *s;

	n->stopping = true;
	ev_timer_stop(n->sv->loop, &n->crowd);
	(void)error_set(&err, ERR_BUSY, "the supervisor is stopping");
	list_for_each_safe (it, next, &n->sessions) {
		s = list_entry(it, struct session, link);
		ev_timer_stop(n->sv->loop, &s->due);
		session_refuse(s, &err);
	}
	(void)stop_workers(n, NULL);
	zygotes_retire(n);
}

bool nursery_idle(const struct nursery *n)
{
	const struct session *s;
	struct list *it;

	list_for_each (it, &n->sessions) {
		s = list_entry(it, struct session, link);
		if (worker_proc_exists(&s->worker))
			return false;
	}
	return true;
}

/* --- beginning and end ---------------------------------------------------- */

int nursery_init(struct nursery *n, struct supervisor *sv, struct error *err)
{
	*n = (struct nursery){.sv = sv, .next_id = 1};
	list_init(&n->sessions);
	ev_timer_init(&n->crowd, on_crowd, 0., 0.);
	n->crowd.data = n;
	return zygotes_init(n, err);
}

void nursery_deinit(struct nursery *n)
{
	struct list *it;

	if (!n->sv)
		return;
	zygotes_deinit(n);
	while ((it = list_pop(&n->sessions)))
		session_free(list_entry(it, struct session, link));
	ev_timer_stop(n->sv->loop, &n->crowd);
	map_deinit(&n->by_id);
	*n = (struct nursery){0};
}
