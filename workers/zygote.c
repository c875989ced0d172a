/*
 * zygote.c - see zygote.h.
 */
#include "workers/zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/http.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "ipc/zygote.h"

#define CHILDREN_MIN 16
/* How far a worker looks for descriptors that must not be there: what it
 * should have closed had low numbers. */
#define VERIFY_FDS 64

struct child {
	uint64_t generation;
	pid_t pid;
};

struct zygote {
	int channel;
	struct child *children;
	size_t count, cap;
	sigset_t wait_mask; /* while waiting: SIGCHLD comes through */
	const struct zygote_options *setup;
};

/* Of the fork request in hand; static, since what a worker was told lies in
 * it. */
static char packet[ZYGOTE_MESSAGE_MAX];
static struct zygote_message request;

/* --- reports -------------------------------------------------------------- */

/* Blocks while the supervisor doesn't read: nothing may be lost, and there is
 * nothing else to do. 0, or -1 once it is gone. */
static int report(const struct zygote *z, enum zygote_type type,
                  uint64_t generation, pid_t pid, int value)
{
	const struct zygote_message m = {.type = type,
	                                 .generation = generation,
	                                 .pid = pid,
	                                 .value = value};
	char out[ZYGOTE_MESSAGE_MAX];
	ssize_t n = zygote_encode(&m, out);
	int r = n < 0 ? (int)n : zygote_send(z->channel, out, (size_t)n, NULL);

	if (r == 0)
		return 0;
	if (r != -EPIPE && r != -ECONNRESET)
		log_error("zygote", "cannot report %s: %s",
		          zygote_type_name(type), strerror(-r));
	return -1;
}

/* --- children ------------------------------------------------------------- */

static struct child *find_pid(struct zygote *z, pid_t pid)
{
	for (size_t i = 0; i < z->count; i++) {
		if (z->children[i].pid == pid)
			return &z->children[i];
	}
	return NULL;
}

static int make_room(struct zygote *z)
{
	size_t cap = z->cap ? 2 * z->cap : CHILDREN_MIN;
	struct child *more;

	if (z->count < z->cap)
		return 0;
	more = realloc(z->children, cap * sizeof(*more));
	if (!more)
		return -ENOMEM;
	z->children = more;
	z->cap = cap;
	return 0;
}

static int reap(struct zygote *z)
{
	struct child *c;
	uint64_t generation;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		c = find_pid(z, pid);
		/* Adopted: not one of ours. */
		if (!c)
			continue;
		generation = c->generation;
		*c = z->children[--z->count];
		if (report(z, ZYGOTE_EXITED, generation, pid, status) < 0)
			return -1;
	}
	return 0;
}

static void on_kill(const struct zygote *z, const struct zygote_message *m)
{
	for (size_t i = 0; i < z->count; i++) {
		if (z->children[i].generation != m->generation)
			continue;
		if (kill(z->children[i].pid, m->value) < 0)
			log_warn("zygote", "kill: %s", strerror(errno));
		return;
	}
}

/* --- forking -------------------------------------------------------------- */

/* Nothing but the standard three and the two channels lies open. */
static int verify(const struct worker_start *start)
{
	for (int fd = STDERR_FILENO + 1; fd < VERIFY_FDS; fd++) {
		if (fd == start->session_fd || fd == start->bus_fd)
			continue;
		if (fcntl(fd, F_GETFD) >= 0) {
			log_error("worker", "descriptor %d was inherited", fd);
			return -1;
		}
	}
	return 0;
}

/* In the child. What has to be random is drawn from the kernel when it is
 * needed, by uuid, map and the TLS library, so nothing is left to reseed. */
static void become_worker(struct zygote *z, struct worker_start *start,
                          int fds[ZYGOTE_FD_COUNT])
{
	const struct zygote_told *told = &request.told;
	struct error err = ERROR_NULL;

	free(z->children);
	(void)prctl(PR_SET_NAME, "comfymux-worker");
	log_set_format(told->log_format);
	(void)log_open("worker", told->log_sink, told->log_level);
	*start = (struct worker_start){.session_fd = fds[ZYGOTE_FD_SESSION],
	                               .bus_fd = fds[ZYGOTE_FD_BUS],
	                               .tenant = told->tenant,
	                               .told = told,
	                               .credentials = z->setup->credentials};
	if (worker_begin(start, &err) == 0 && verify(start) == 0) {
		/* Before a byte is read of what the keeper, who may be anybody,
		 * has to say. */
		if (z->setup->sandbox)
			sandbox_enter(SANDBOX_WORKER);
		return;
	}
	if (err.code != ERR_NONE)
		log_error("worker", "%s", err.text);
	_exit(EXIT_FAILURE);
}

/* The pid; 0 in the child; or a negative errno. */
static pid_t fork_worker(struct zygote *z, struct worker_start *start,
                         int fds[ZYGOTE_FD_COUNT])
{
	pid_t pid = make_room(z);

	if (pid < 0)
		return pid;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		become_worker(z, start, fds);
		return 0;
	}
	z->children[z->count++] =
		(struct child){.generation = request.generation, .pid = pid};
	return pid;
}

enum step {
	STEP_ON,
	STEP_WORKER, /* this is the new process */
	STEP_OVER,
	STEP_BROKEN,
};

static enum step on_fork(struct zygote *z, struct worker_start *start,
                         int fds[ZYGOTE_FD_COUNT])
{
	pid_t pid = fork_worker(z, start, fds);
	int r;

	if (pid == 0)
		return STEP_WORKER;
	(void)close(fds[ZYGOTE_FD_SESSION]);
	(void)close(fds[ZYGOTE_FD_BUS]);
	if (pid > 0)
		r = report(z, ZYGOTE_FORKED, request.generation, pid, 0);
	else
		r = report(z, ZYGOTE_FAILED, request.generation, 0, -pid);
	return r < 0 ? STEP_OVER : STEP_ON;
}

/* --- the loop ------------------------------------------------------------- */

static enum step broken(int r)
{
	log_error("zygote", "the supervisor's channel: %s", strerror(-r));
	return STEP_BROKEN;
}

static enum step take_request(struct zygote *z, struct worker_start *start)
{
	int fds[ZYGOTE_FD_COUNT];
	int r = zygote_recv(z->channel, packet, &request, fds);

	if (r == 0 || r == -ECONNRESET)
		return STEP_OVER;
	if (r < 0)
		return broken(r);
	switch (request.type) {
	case ZYGOTE_FORK:
		return on_fork(z, start, fds);
	case ZYGOTE_KILL:
		on_kill(z, &request);
		return STEP_ON;
	default:
		return broken(-EPROTO);
	}
}

static enum step turn(struct zygote *z, struct worker_start *start)
{
	struct pollfd p = {.fd = z->channel, .events = POLLIN};

	sandbox_tell();
	if (reap(z) < 0)
		return STEP_OVER;
	if (ppoll(&p, 1, NULL, &z->wait_mask) < 0)
		return errno == EINTR ? STEP_ON : broken(-errno);
	return p.revents ? take_request(z, start) : STEP_ON;
}

static enum zygote_outcome serve(struct zygote *z, struct worker_start *start)
{
	static const enum zygote_outcome outcomes[] = {
		[STEP_WORKER] = ZYGOTE_WORKER,
		[STEP_OVER] = ZYGOTE_OVER,
		[STEP_BROKEN] = ZYGOTE_BROKEN,
	};
	enum step s;

	do
		s = turn(z, start);
	while (s == STEP_ON);
	return outcomes[s];
}

static void on_child(int sig)
{
	/* Interrupts ppoll(); reap() looks each time round. */
}

/* A terminal's signals are the supervisor's to judge. */
static int set_signals(struct zygote *z)
{
	struct sigaction sa = {.sa_handler = on_child};
	sigset_t blocked;

	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &blocked, &z->wait_mask) < 0 ||
	    sigaction(SIGCHLD, &sa, NULL) < 0)
		return -errno;
	(void)sigdelset(&z->wait_mask, SIGCHLD);
	sa.sa_handler = SIG_IGN;
	if (sigaction(SIGINT, &sa, NULL) < 0 ||
	    sigaction(SIGHUP, &sa, NULL) < 0)
		return -errno;
	return 0;
}

/* What workers will need is worked out once, in memory that they share. */
static void shut_in(const struct zygote_options *setup)
{
	if (!setup->sandbox)
		return;
	sandbox_prepare(SANDBOX_WORKER);
	sandbox_enter(SANDBOX_ZYGOTE);
}

enum zygote_outcome zygote_run(int channel, const struct zygote_options *setup,
                               struct worker_start *start)
{
	struct zygote z = {.channel = channel, .setup = setup};
	struct error err = ERROR_NULL;
	enum zygote_outcome o = ZYGOTE_BROKEN;
	int r = set_signals(&z);

	(void)prctl(PR_SET_NAME, "comfymux-zygote");
	/* Before any fork: what it allocates is shared by all workers. */
	if (r < 0)
		log_error("zygote", "signals: %s", strerror(-r));
	else if (http_global_init(&err) < 0)
		log_error("zygote", "%s", err.text);
	else {
		shut_in(setup);
		o = serve(&z, start);
	}
	if (o != ZYGOTE_WORKER) {
		free(z.children);
		(void)close(channel);
	}
	return o;
}
