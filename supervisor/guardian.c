/*
 * guardian.c - see guardian.h.
 *
 * It has no event loop and allocates nothing once it runs: a poll over a
 * signalfd and the pipe by which the supervisor says that it serves.
 */
#include "supervisor/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/backoff.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "supervisor/service_user.h"

#define READY_FD        3 /* of the supervisor */
#define EXTRA_ARGUMENTS 3 /* --guarded --ready-fd 3 */
#define JITTER_PERCENT  10
#define MODE_PIDFILE    0644

enum {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
};

struct guardian {
	const struct options *o;
	const struct config *cfg;
	char **argv; /* of the supervisor; argv[0] is the program's path */
	int pidfile; /* -1: none */
	int tell;    /* to the foreground, until the first readiness */
	int signals; /* signalfd */
	sigset_t before;
	pid_t child;                /* 0: none runs */
	int ready;                  /* from the child, until it serves; -1 */
	int64_t started_ms, due_ms; /* due: of the next start */
	bool served;                /* once, so crashes are mended */
	bool stopping;              /* it was told to stop */
	struct backoff backoff;
};

/* --- before the fork ------------------------------------------------------ */

static int open_pidfile(const char *path, int *fdp, struct error *err)
{
	cleanup_close int fd = -1;

	*fdp = -1;
	if (!path)
		return 0;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
	          MODE_PIDFILE);
	if (fd < 0)
		return error_set_errno(err, errno,
		                       "cannot open the pid file %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return error_set_errno(err, errno, "cannot lock %s",
			                       path);
		return error_set(err, ERR_BUSY,
		                 "it runs already: another one holds the pid "
		                 "file %s",
		                 path);
	}
	*fdp = steal_fd(&fd);
	return 0;
}

/* Ours alone: --daemon, and --pidfile with its value. */
static bool is_ours(char *const *argv, int i, int *argsp)
{
	static const char pidfile[] = "--pidfile";

	*argsp = 1;
	if (strcmp(argv[i], "--daemon") == 0)
		return true;
	if (strcmp(argv[i], pidfile) == 0) {
		*argsp = 2;
		return true;
	}
	return strncmp(argv[i], pidfile, strlen(pidfile)) == 0 &&
	       argv[i][strlen(pidfile)] == '=';
}

/* The supervisor's command line, in memory that stays; NULL with `err`. Strings
 * are argv's. */
static char **child_arguments(char **argv, bool system, struct error *err)
{
	static char *made[GUARDIAN_ARGUMENTS_MAX];
	static char guarded[] = "--guarded", for_system[] = "--guarded=system",
		    ready[] = "--ready-fd", three[] = "3", path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	size_t n = 0;
	int args;

	if (len < 0) {
		(void)error_set_errno(err, errno,
		                      "cannot tell where this program lies");
		return NULL;
	}
	path[len] = '\0';
	made[n++] = path;
	for (int i = 1; argv[i]; i += args) {
		if (is_ours(argv, i, &args))
			continue;
		if (n + EXTRA_ARGUMENTS + 1 >= GUARDIAN_ARGUMENTS_MAX) {
			(void)error_set(
				err, ERR_LIMIT, "more than %d arguments",
				GUARDIAN_ARGUMENTS_MAX - EXTRA_ARGUMENTS - 2);
			return NULL;
		}
		made[n++] = argv[i];
	}
	made[n++] = system ? for_system : guarded;
	made[n++] = ready;
	made[n++] = three;
	made[n] = NULL;
	return made;
}

/* --- the child ------------------------------------------------------------ */

static void write_pids(const struct guardian *g)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%d\n%d\n", (int)getpid(),
	                 (int)g->child);

	if (g->pidfile < 0 || n < 0)
		return;
	if (g->child == 0)
		n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(g->pidfile, 0) < 0 ||
	    pwrite(g->pidfile, text, (size_t)n, 0) != n)
		log_warn("guardian", "cannot write %s: %s", g->o->pidfile,
		         strerror(errno));
}

static ATTR_NORETURN void become_supervisor(const struct guardian *g, int ready)
{
	if (ready != READY_FD && dup2(ready, READY_FD) < 0)
		_exit(STATUS_FAILURE);
	(void)fcntl(READY_FD, F_SETFD, 0);
	(void)close_range(READY_FD + 1, ~0u, 0);
	(void)sigprocmask(SIG_SETMASK, &g->before, NULL);
	(void)execv(g->argv[0], g->argv);
	log_error("guardian", "cannot start %s: %s", g->argv[0],
	          strerror(errno));
	_exit(STATUS_FAILURE);
}

/* 0 or a negative errno. */
static int start_child(struct guardian *g)
{
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	g->child = fork();
	if (g->child == 0)
		become_supervisor(g, p[1]);
	r = -errno;
	(void)close(p[1]);
	if (g->child < 0) {
		(void)close(p[0]);
		g->child = 0;
		return r;
	}
	g->ready = p[0];
	g->started_ms = clock_ms();
	write_pids(g);
	return 0;
}

/* Starts it, or puts that off when the system can't. */
static void try_start(struct guardian *g)
{
	int r = start_child(g);

	if (r == 0)
		return;
	g->due_ms = clock_ms() + backoff_next_ms(&g->backoff);
	log_error("guardian", "cannot fork: %s", strerror(-r));
}

static void on_served(struct guardian *g)
{
	int null;

	if (g->served)
		return;
	g->served = true;
	if (write(g->tell, "\n", 1) != 1)
		log_debug("guardian", "nobody waits in the foreground");
	(void)close(g->tell);
	g->tell = -1;
	/* From here on the terminal is its user's again. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0 && !g->o->keep_stderr)
		(void)dup2(null, STDERR_FILENO);
	if (null >= 0)
		(void)close(null);
}

static void on_ready(struct guardian *g)
{
	char c;
	ssize_t n = read(g->ready, &c, 1);

	(void)close(g->ready);
	g->ready = -1;
	if (n == 1)
		on_served(g);
}

/* --- its end -------------------------------------------------------------- */

static int status_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_FAILURE;
}

static void log_death(const struct guardian *g, int status, uint32_t delay_ms)
{
	if (WIFSIGNALED(status))
		log_error("guardian",
		          "the supervisor was killed; it is started again "
		          "(pid=%d signal=%d delay_ms=%u)",
		          (int)g->child, WTERMSIG(status), delay_ms);
	else
		log_error("guardian",
		          "the supervisor failed; it is started again (pid=%d "
		          "status=%d delay_ms=%u)",
		          (int)g->child, WEXITSTATUS(status), delay_ms);
}

/* True when that is the guardian's end, too. */
static bool on_death(struct guardian *g, int status)
{
	uint32_t delay_ms = 0;

	if (g->ready >= 0)
		on_ready(g); /* it may have served for a moment */
	if (g->stopping || !g->served || status == 0) {
		g->child = 0;
		return true;
	}
	if (clock_ms() - g->started_ms >= GUARDIAN_STABLE_MS)
		backoff_reset(&g->backoff);
	else
		delay_ms = backoff_next_ms(&g->backoff);
	log_death(g, status, delay_ms);
	g->child = 0;
	g->due_ms = clock_ms() + delay_ms;
	write_pids(g);
	return false;
}

/* True with *statusp when it is over. */
static bool reap(struct guardian *g, int *statusp)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == g->child && on_death(g, status)) {
			*statusp = status_of(status);
			return true;
		}
	}
	return false;
}

/* --- the loop ------------------------------------------------------------- */

static bool on_signal(struct guardian *g, int *statusp)
{
	struct signalfd_siginfo info;

	if (read(g->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return false;
	if (info.ssi_signo == SIGCHLD)
		return reap(g, statusp);
	if (info.ssi_signo != SIGHUP)
		g->stopping = true;
	if (g->child > 0) {
		(void)kill(g->child, (int)info.ssi_signo);
		return false;
	}
	/* Between two lives of the supervisor. */
	*statusp = STATUS_OK;
	return g->stopping;
}

static int wait_ms(const struct guardian *g)
{
	int64_t left;

	if (g->child > 0)
		return -1;
	left = g->due_ms - clock_ms();
	return left > 0 ? (int)left : 0;
}

static int guard(struct guardian *g)
{
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
	int status = STATUS_FAILURE;

	try_start(g);
	for (;;) {
		p[0].fd = g->signals;
		p[1].fd = g->ready;
		p[0].revents = p[1].revents = 0;
		if (poll(p, 2, wait_ms(g)) < 0 && errno != EINTR)
			return STATUS_FAILURE;
		if (g->ready >= 0 && p[1].revents != 0)
			on_ready(g);
		if (p[0].revents != 0 && on_signal(g, &status))
			return status;
		if (g->child == 0 && !g->stopping && clock_ms() >= g->due_ms)
			try_start(g);
	}
}

/* --- into the background -------------------------------------------------- */

static int take_signals(struct guardian *g)
{
	static const int passed[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD};
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
		(void)sigaddset(&set, passed[i]);
	(void)sigprocmask(SIG_BLOCK, &set, &g->before);
	/* Whatever the shell made ours ignore, the supervisor must not. */
	(void)sigemptyset(&g->before);
	(void)signal(SIGPIPE, SIG_IGN);
	g->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return g->signals < 0 ? -errno : 0;
}

static int settle(void)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0)
		return -errno;
	(void)setsid();
	(void)umask(077);
	(void)prctl(PR_SET_NAME, "comfymuxd");
	return chdir("/") < 0 ? -errno : 0;
}

/* Nothing that follows needs root. */
static int give_up_root(const struct guardian *g)
{
	struct service_user u;
	struct error err = ERROR_NULL;
	int r = service_user_find(&u, g->cfg, !g->o->system, &err);

	if (r == 0 && u.drop) {
		r = service_user_make_places(&u, g->cfg, &err);
		if (r == 0 && !service_user_needs_socket(&u, g->cfg))
			r = service_user_become(&u, &err);
	}
	service_user_deinit(&u);
	if (r < 0)
		(void)dprintf(STDERR_FILENO, "comfymuxd: %s\n", err.text);
	return r;
}

static int be_guardian(struct guardian *g)
{
	int r = settle(), status;

	if (r == 0 && give_up_root(g) < 0)
		return STATUS_FAILURE;
	if (r == 0)
		r = take_signals(g);
	if (r < 0) {
		(void)dprintf(STDERR_FILENO,
		              "comfymuxd: cannot go into the background: %s\n",
		              strerror(-r));
		return STATUS_FAILURE;
	}
	backoff_init(&g->backoff, backoff_link_ms, ARRAY_SIZE(backoff_link_ms),
	             JITTER_PERCENT, (uint64_t)getpid());
	status = guard(g);
	/* Empty tells that nothing is left, where it can't be removed. */
	if (g->pidfile >= 0 && unlink(g->o->pidfile) < 0)
		(void)!ftruncate(g->pidfile, 0);
	return status;
}

/* In the foreground: until it serves, or is gone. */
static int await(pid_t guardian, int ready)
{
	struct pollfd p = {.fd = ready, .events = POLLIN};
	int64_t until = clock_ms() + GUARDIAN_READY_MS, left;
	int status, r;
	char c;

	do {
		left = until - clock_ms();
		r = poll(&p, 1, left > 0 ? (int)left : 0);
	} while (r < 0 && errno == EINTR);
	if (r > 0 && read(ready, &c, 1) == 1)
		return STATUS_OK;
	if (r == 0) {
		(void)dprintf(STDERR_FILENO,
		              "comfymuxd: it is not ready after %d s; it goes "
		              "on in the background (pid %d)\n",
		              GUARDIAN_READY_MS / 1000, (int)guardian);
		return STATUS_FAILURE;
	}
	while (waitpid(guardian, &status, 0) < 0) {
		if (errno != EINTR)
			return STATUS_FAILURE;
	}
	status = status_of(status);
	return status == STATUS_OK ? STATUS_FAILURE : status;
}

int guardian_run(const struct options *o, const struct config *cfg, char **argv,
                 struct error *err)
{
	struct guardian g = {.o = o, .cfg = cfg, .ready = -1};
	int p[2], status;
	pid_t pid;

	/* Whatever the caller left open isn't ours to keep. */
	(void)close_range(STDERR_FILENO + 1, ~0u, 0);
	if (open_pidfile(o->pidfile, &g.pidfile, err) < 0)
		return -1;
	g.argv = child_arguments(argv, o->system, err);
	if (!g.argv)
		return -1;
	if (pipe2(p, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "cannot make a pipe");
	pid = fork();
	if (pid < 0)
		return error_set_errno(err, errno, "cannot fork");
	g.tell = p[1];
	if (pid == 0) {
		(void)close(p[0]);
		status = be_guardian(&g);
	} else {
		(void)close(p[1]);
		status = await(pid, p[0]);
		(void)close(p[0]);
	}
	return status;
}
