/*
 * autostart.c - see autostart.h.
 */
#include "workers/front/autostart.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/program.h"
#include "ipc/client.h"
#include "workers/front/spawn.h"

static bool wanted(const struct config *cfg)
{
	enum config_origin socket = config_origin_of(cfg, "socket");

	return cfg->autostart && socket != CONFIG_FLAG &&
	       socket != CONFIG_ENV && access(CONFIG_SYSTEM_FILE, F_OK) != 0;
}

/* One newline says that it listens; EOF that it ended without. */
static bool wait_ready(int fd)
{
	int64_t until = clock_ms() + AUTOSTART_WAIT_MS;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;

	for (;;) {
		int64_t left = until - clock_ms();
		int r;

		if (left <= 0)
			return false;
		r = poll(&p, 1, (int)left);
		if (r > 0)
			return read(fd, &c, 1) == 1;
		if (r < 0 && errno != EINTR)
			return false;
	}
}

static int start_supervisor(const struct config *cfg, struct error *err)
{
	cleanup_free char *path = program_find("comfymuxd", err);
	cleanup_close int ready = -1, ready_child = -1;
	char *argv[12];
	size_t n = 0;
	int pipefd[2];
	/* Not const: what execv takes. */
	char autostarted[] = "--autostarted", ready_fd[] = "--ready-fd",
	     three[] = "3", comfyui[] = "--comfyui", state[] = "--state-dir",
	     sock[] = "--socket";

	if (!path)
		return -1;
	argv[n++] = path;
	argv[n++] = autostarted;
	argv[n++] = ready_fd;
	argv[n++] = three;
	/* Where clients of this user will look, whatever files the supervisor
	 * reads for itself. */
	argv[n++] = sock;
	argv[n++] = cfg->socket;
	argv[n++] = state;
	argv[n++] = cfg->state_dir;
	if (config_origin_of(cfg, "comfyui") >= CONFIG_ENV) {
		argv[n++] = comfyui;
		argv[n++] = cfg->comfyui;
	}
	argv[n] = NULL;
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "cannot make a pipe");
	ready = pipefd[0];
	ready_child = pipefd[1];
	if (spawn_detached(argv, ready_child, err) < 0)
		return -1;
	(void)close(steal_fd(&ready_child));
	if (!wait_ready(ready))
		return error_set(err, ERR_UNREACHABLE,
		                 "%s was started and did not come up; run it "
		                 "in a terminal to see why",
		                 path);
	return 0;
}

int autostart_connect(const struct config *cfg, struct error *err)
{
	int fd = client_connect(cfg, NULL, err);
	struct error why = ERROR_NULL;
	bool started;

	if (fd >= 0 || !err || err->code != ERR_UNREACHABLE || !wanted(cfg))
		return fd;
	/* One that came up at the same moment is just as good: it is asked
	 * again whether or not the start succeeded. */
	started = start_supervisor(cfg, &why) == 0;
	fd = client_connect(cfg, NULL, err);
	if (fd < 0 && !started)
		(void)error_set(err, ERR_UNREACHABLE, "%s", why.text);
	return fd;
}

/* Nothing of ours may stay open in it: whoever waits for our end waits for the
 * end of all who hold our stdout. Handlers of ours would write to descriptors
 * that mean something else by then. */
static ATTR_NORETURN void start_apart(const struct config *cfg, int report)
{
	struct error err = ERROR_NULL;
	sigset_t none;
	int null;

	for (int s = 1; s < NSIG; s++)
		(void)signal(s, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	report = dup2(report, 3);
	if (report < 0)
		_exit(1);
	(void)close_range(4, ~0u, 0);
	(void)fcntl(report, F_SETFD, FD_CLOEXEC);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(null, 2) < 0)
		_exit(1);
	if (start_supervisor(cfg, &err) < 0)
		(void)!write(report, err.text, strlen(err.text));
	_exit(0);
}

int autostart_begin(const struct config *cfg, struct error *err)
{
	cleanup_close int mine = -1, theirs = -1;
	sigset_t all, before;
	int pipefd[2];
	pid_t pid;

	if (!wanted(cfg))
		return error_set(err, ERR_UNREACHABLE, "none is running");
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "cannot make a pipe");
	mine = pipefd[0];
	theirs = pipefd[1];
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		start_apart(cfg, theirs);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return error_set_errno(err, errno, "cannot fork");
	return steal_fd(&mine);
}

bool autostart_finish(int fd, struct error *err)
{
	char text[ERROR_TEXT_MAX];
	ssize_t n = read(fd, text, sizeof(text) - 1);

	(void)close(fd);
	if (n <= 0)
		return true;
	text[n] = '\0';
	(void)error_set(err, ERR_UNREACHABLE, "%s", text);
	return false;
}
