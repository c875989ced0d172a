/*
 * fan_start.c - how long until a program that was just started has answered
 * `initialize`; and, as the baseline, until one that does nothing but connect
 * to a socket has done so.
 */
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/fan.h"

#define PAUSE_MS 20

struct started {
	pid_t pid;
	int to, from;
	int64_t at_ns;
};

static void start_one(struct started *s, char **argv)
{
	static const char line[] =
		"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\","
		"\"params\":{\"protocolVersion\":\"2025-11-25\","
		"\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\","
		"\"version\":\"1\"}}}\n";
	posix_spawn_file_actions_t actions;
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) ||
	    posix_spawn_file_actions_init(&actions) ||
	    posix_spawn_file_actions_adddup2(&actions, in[0], 0) ||
	    posix_spawn_file_actions_adddup2(&actions, out[1], 1))
		fan_die("pipes");
	s->at_ns = fan_now_ns();
	if (posix_spawn(&s->pid, argv[0], &actions, NULL, argv, environ))
		fan_die("start of %s", argv[0]);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(in[0]);
	(void)close(out[1]);
	s->to = in[1];
	s->from = out[0];
	fan_write(s->to, line, sizeof(line) - 1);
}

static void end_one(struct started *s)
{
	(void)close(s->to);
	(void)close(s->from);
	(void)waitpid(s->pid, NULL, 0);
}

/* Starts `n` at once and takes each one's time to its first byte. */
static void round_of(struct histogram *h, size_t n, char **argv)
{
	struct started *s = calloc(n, sizeof(*s));
	struct pollfd *p = calloc(n, sizeof(*p));
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};
	char c;

	if (!s || !p)
		fan_die("memory");
	for (size_t i = 0; i < n; i++) {
		start_one(&s[i], argv);
		p[i] = (struct pollfd){.fd = s[i].from, .events = POLLIN};
	}
	for (size_t left = n; left > 0;) {
		if (poll(p, n, -1) < 0)
			fan_die("poll");
		for (size_t i = 0; i < n; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			if (read(p[i].fd, &c, 1) != 1)
				fan_die("%s did not answer", argv[0]);
			histogram_add(h, fan_now_ns() - s[i].at_ns);
			p[i].fd = -1;
			left--;
		}
	}
	for (size_t i = 0; i < n; i++)
		end_one(&s[i]);
	/* What it leaves to do is not the next one's. */
	(void)nanosleep(&pause, NULL);
	free(s);
	free(p);
}

/* What the baseline's program does. */
static int connect_only(const char *path)
{
	int fd = fan_connect_unix(path);
	char c;

	fan_write(STDOUT_FILENO, "\n", 1);
	/* Whoever started it writes a line and hangs up when it has seen ours.
	 */
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	(void)close(fd);
	return 0;
}

int fan_start_times(int argc, char **argv)
{
	char exe[] = "/proc/self/exe", sub[] = "start", what[] = "connect-only";
	char *self[] = {exe, sub, what, NULL, NULL};
	struct histogram *h;
	size_t count, at_once;

	if (argc == 2 && strcmp(argv[0], "connect-only") == 0)
		return connect_only(argv[1]);
	if (argc < 4)
		fan_die("start takes COUNT AT_ONCE PROGRAM ARG...");
	count = strtoul(argv[0], 0, 10);
	at_once = strtoul(argv[1], 0, 10);
	h = calloc(1, sizeof(*h));
	if (!h || at_once == 0 || at_once > FAN_READERS_MAX)
		fan_die("from 1 to %d at once", FAN_READERS_MAX);
	if (strcmp(argv[2], "connect") == 0) {
		self[3] = argv[3];
		argv = self;
	} else {
		argv += 2;
	}
	for (size_t i = 0; i < count; i += at_once)
		round_of(h, at_once, argv);
	(void)printf("{\"count\": %llu, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
	             (unsigned long long)h->count, histogram_at(h, 0.5) / 1e3,
	             histogram_at(h, 0.99) / 1e3);
	free(h);
	return 0;
}
