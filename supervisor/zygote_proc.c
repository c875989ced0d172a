/*
 * zygote_proc.c - see zygote_proc.h.
 */
#include "supervisor/zygote_proc.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/program.h"
#include "ipc/channel.h"
#include "supervisor/roles.h"

/* A message that waits for room in the socket. */
struct outgoing {
	struct list link;
	int fds[ZYGOTE_FD_COUNT]; /* -1: none */
	size_t len;
	char packet[];
};

struct zygote_proc {
	struct ev_loop *loop;
	struct zygote_handlers h;
	void *user;
	pid_t pid; /* 0 once reaped */
	int status;
	int channel; /* -1 once all was read */
	ev_io reader, writer;
	ev_timer leave; /* after retiring */
	struct list out;
	bool retired;
	bool shut; /* nothing can be sent any more */
	bool proven;
};

static void on_leave_deadline(struct ev_loop *loop, ev_timer *w, int revents);

/* --- the end -------------------------------------------------------------- */

/* The first that waits. */
static void drop_outgoing(struct zygote_proc *z)
{
	struct outgoing *o =
		list_entry(list_pop(&z->out), struct outgoing, link);

	for (int i = 0; i < ZYGOTE_FD_COUNT; i++) {
		if (o->fds[i] >= 0)
			(void)close(o->fds[i]);
	}
	free(o);
}

/* Nothing goes out any more; what waited is lost. */
static void shut(struct zygote_proc *z)
{
	z->shut = true;
	ev_io_stop(z->loop, &z->writer);
	while (!list_empty(&z->out))
		drop_outgoing(z);
	if (z->channel >= 0)
		(void)shutdown(z->channel, SHUT_WR);
}

static void destroy(struct zygote_proc *z)
{
	shut(z);
	ev_io_stop(z->loop, &z->reader);
	ev_timer_stop(z->loop, &z->leave);
	if (z->channel >= 0)
		(void)close(z->channel);
	free(z);
}

struct zygote_proc *zygote_proc_free(struct zygote_proc *z)
{
	if (z)
		destroy(z);
	return NULL;
}

void zygote_proc_kill_itself(struct zygote_proc *z)
{
	if (z->pid > 0 && kill(z->pid, SIGKILL) < 0)
		log_warn("zygote", "kill: %s", strerror(errno));
}

static void end_if_complete(struct zygote_proc *z)
{
	if (z->pid > 0 || z->channel >= 0)
		return;
	z->h.on_gone(z->user, z, z->status);
	destroy(z);
}

/* All that it had to say was read. */
static void hang_up(struct zygote_proc *z)
{
	shut(z);
	ev_io_stop(z->loop, &z->reader);
	(void)close(steal_fd(&z->channel));
	if (z->pid > 0 && !ev_is_active(&z->leave)) {
		ev_timer_set(&z->leave, roles[ROLE_ZYGOTE].leave_ms / 1e3, 0.);
		ev_timer_start(z->loop, &z->leave);
	}
	end_if_complete(z);
}

static void on_leave_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct zygote_proc *z = w->data;

	log_warn("zygote", "it doesn't leave: killed (pid=%d)", (int)z->pid);
	zygote_proc_kill_itself(z);
}

/* --- in ------------------------------------------------------------------- */

static void take_news(struct zygote_proc *z, const struct zygote_message *m)
{
	switch (m->type) {
	case ZYGOTE_FORKED:
		z->proven = true;
		z->h.on_forked(z->user, m->generation, m->pid);
		return;
	case ZYGOTE_FAILED:
		z->h.on_failed(z->user, m->generation, m->value);
		return;
	case ZYGOTE_EXITED:
		z->h.on_exited(z->user, m->generation, m->value);
		return;
	default:
		log_error("zygote", "it sent a %s, which is ours to send",
		          zygote_type_name(m->type));
		zygote_proc_kill_itself(z);
	}
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	static char packet[ZYGOTE_MESSAGE_MAX];
	struct zygote_proc *z = w->data;
	struct zygote_message m;
	int fds[ZYGOTE_FD_COUNT], r = 1;

	for (int n = 0; n < ZYGOTE_NEWS_PER_TURN; n++) {
		r = zygote_recv(z->channel, packet, &m, fds);
		if (r <= 0)
			break;
		take_news(z, &m);
	}
	if (r > 0 || r == -EAGAIN)
		return;
	if (r < 0 && r != -ECONNRESET) {
		log_error("zygote", "its channel: %s", strerror(-r));
		zygote_proc_kill_itself(z);
	}
	hang_up(z);
}

/* Its last words are read here, as there may be no end of file after them: a
 * worker that was stopped as soon as it was forked holds the channel too. */
void zygote_proc_reaped(struct zygote_proc *z, int status)
{
	static char packet[ZYGOTE_MESSAGE_MAX];
	struct zygote_message m;
	int fds[ZYGOTE_FD_COUNT];

	z->pid = 0;
	z->status = status;
	ev_timer_stop(z->loop, &z->leave);
	if (z->channel < 0) {
		end_if_complete(z);
		return;
	}
	while (zygote_recv(z->channel, packet, &m, fds) > 0)
		take_news(z, &m);
	hang_up(z);
}

/* --- out ------------------------------------------------------------------ */

/* 0; 1 if it has to wait; or a negative errno. */
static int send_one(struct zygote_proc *z, const struct outgoing *o)
{
	int r = zygote_send(z->channel, o->packet, o->len,
	                    o->fds[0] >= 0 ? o->fds : NULL);

	return r == -EAGAIN ? 1 : r;
}

static void flush(struct zygote_proc *z)
{
	int r;

	while (!list_empty(&z->out)) {
		r = send_one(z, list_first(&z->out, struct outgoing, link));
		if (r > 0) {
			ev_io_start(z->loop, &z->writer);
			return;
		}
		drop_outgoing(z);
		if (r < 0) {
			/* A request would be missing: it is of no more use. */
			if (r != -EPIPE && r != -ECONNRESET)
				log_error("zygote", "cannot ask it: %s",
				          strerror(-r));
			shut(z);
			return;
		}
	}
	ev_io_stop(z->loop, &z->writer);
	if (z->retired)
		shut(z);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	flush(w->data);
}

/* Consumes what is in fds. */
static int enqueue(struct zygote_proc *z, const struct zygote_message *m,
                   const int fds[ZYGOTE_FD_COUNT])
{
	static char packet[ZYGOTE_MESSAGE_MAX];
	ssize_t n = zygote_encode(m, packet);
	struct outgoing *o = NULL;

	if (!z->shut && n > 0)
		o = malloc(sizeof(*o) + (size_t)n);
	if (!o) {
		for (int i = 0; i < ZYGOTE_FD_COUNT; i++) {
			if (fds[i] >= 0)
				(void)close(fds[i]);
		}
		return z->shut ? -EPIPE : n < 0 ? (int)n : -ENOMEM;
	}
	list_init(&o->link);
	memcpy(o->fds, fds, sizeof(o->fds));
	o->len = (size_t)n;
	memcpy(o->packet, packet, (size_t)n);
	list_append(&z->out, &o->link);
	flush(z);
	return 0;
}

int zygote_proc_fork(struct zygote_proc *z, uint64_t generation,
                     const struct zygote_told *told, int session_fd, int bus_fd)
{
	const struct zygote_message m = {
		.type = ZYGOTE_FORK, .generation = generation, .told = *told};
	const int fds[ZYGOTE_FD_COUNT] = {
		[ZYGOTE_FD_SESSION] = session_fd, [ZYGOTE_FD_BUS] = bus_fd};

	return enqueue(z, &m, fds);
}

int zygote_proc_kill(struct zygote_proc *z, uint64_t generation, int sig)
{
	const struct zygote_message m = {
		.type = ZYGOTE_KILL, .generation = generation, .value = sig};
	const int none[ZYGOTE_FD_COUNT] = {-1, -1};

	return enqueue(z, &m, none);
}

void zygote_proc_retire(struct zygote_proc *z)
{
	if (z->retired)
		return;
	z->retired = true;
	log_debug("zygote", "retired (pid=%d)", (int)z->pid);
	if (!z->shut && list_empty(&z->out))
		shut(z);
	ev_timer_set(&z->leave, roles[ROLE_ZYGOTE].leave_ms / 1e3, 0.);
	ev_timer_start(z->loop, &z->leave);
}

pid_t zygote_proc_pid(const struct zygote_proc *z)
{
	return z->pid;
}

bool zygote_proc_serves(const struct zygote_proc *z)
{
	return !z->retired && !z->shut && z->pid > 0;
}

bool zygote_proc_proven(const struct zygote_proc *z)
{
	return z->proven;
}

/* --- the beginning -------------------------------------------------------- */

static int set_attributes(posix_spawnattr_t *attr)
{
	sigset_t all, none;
	int r;

	(void)sigfillset(&all);
	(void)sigemptyset(&none);
	r = posix_spawnattr_setsigdefault(attr, &all);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attr, &none);
	if (r == 0)
		r = posix_spawnattr_setflags(
			attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	return r;
}

/* 0 or an errno. The parent waits, in vfork's way, for the exec and no longer;
 * one that fails is told here. */
static int spawn(pid_t *pidp, char *path, const struct zygote_setup *setup,
                 int channel)
{
	char zygote[] = CHANNEL_ZYGOTE_ARGUMENT;
	char credentials[] = CHANNEL_CREDENTIALS_ARGUMENT;
	char open[] = CHANNEL_NO_SANDBOX_ARGUMENT;
	char *argv[5] = {path, zygote};
	size_t argc = 2;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r = posix_spawn_file_actions_init(&actions);

	if (r != 0)
		return r;
	if (setup->credentials_fd >= 0)
		argv[argc++] = credentials;
	if (!setup->sandbox)
		argv[argc++] = open;
	r = posix_spawnattr_init(&attr);
	if (r != 0) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return r;
	}
	r = set_attributes(&attr);
	/* The standard ones it sees to itself, and closes what is above. */
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, channel,
		                                     CHANNEL_ZYGOTE_FD);
	if (r == 0 && setup->credentials_fd >= 0)
		r = posix_spawn_file_actions_adddup2(&actions,
		                                     setup->credentials_fd,
		                                     CHANNEL_CREDENTIALS_FD);
	if (r == 0)
		r = posix_spawn(pidp, path, &actions, &attr, argv, environ);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

static void init_watchers(struct zygote_proc *z)
{
	ev_io_init(&z->reader, on_readable, z->channel, EV_READ);
	ev_io_init(&z->writer, on_writable, z->channel, EV_WRITE);
	ev_timer_init(&z->leave, on_leave_deadline, 0., 0.);
	z->reader.data = z->writer.data = z->leave.data = z;
	ev_io_start(z->loop, &z->reader);
}

struct zygote_proc *zygote_proc_start(struct ev_loop *loop,
                                      const struct zygote_setup *setup,
                                      const struct zygote_handlers *h,
                                      void *user, struct error *err)
{
	cleanup_free char *found = NULL;
	char *path = setup->program;
	cleanup_close int mine = -1, theirs = -1;
	struct zygote_proc *z;
	int sv[2], r;

	if (!path) {
		found = program_find(roles[ROLE_ZYGOTE].program, err);
		path = found;
	}
	if (!path)
		return NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
		(void)error_set_errno(err, errno, "cannot make a zygote");
		return NULL;
	}
	mine = sv[0];
	theirs = sv[1];
	r = fd_set_nonblock(mine);
	z = r == 0 ? calloc(1, sizeof(*z)) : NULL;
	if (!z) {
		(void)error_set_errno(err, r < 0 ? -r : ENOMEM,
		                      "cannot make a zygote");
		return NULL;
	}
	r = spawn(&z->pid, path, setup, theirs);
	if (r != 0) {
		free(z);
		(void)error_set_errno(err, r, "cannot start %s", path);
		return NULL;
	}
	z->loop = loop;
	z->h = *h;
	z->user = user;
	z->channel = steal_fd(&mine);
	list_init(&z->out);
	init_watchers(z);
	log_info("zygote", "started (pid=%d)", (int)z->pid);
	return z;
}
