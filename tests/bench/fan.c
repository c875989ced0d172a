/*
 * fan.c - see fan.h: reader processes, their figures, and main().
 */
#include "tests/bench/fan.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t fan_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

void fan_die(const char *what, ...)
{
	int e = errno;
	va_list ap;

	va_start(ap, what);
	(void)fputs("bench: ", stderr);
	(void)vfprintf(stderr, what, ap);
	va_end(ap);
	(void)fprintf(stderr, " (%s)\n", e ? strerror(e) : "no errno");
	exit(1);
}

void fan_write(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fan_die("write");
		p += n;
		len -= (size_t)n;
	}
}

int fan_connect_unix(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(to.sun_path))
		fan_die("socket for %s", path);
	memcpy(to.sun_path, path, strlen(path) + 1);
	/* A crowd at the door is let in by and by. */
	while (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			fan_die("connect to %s", path);
	}
	return fd;
}

/* --- figures -------------------------------------------------------------- */

static size_t bucket_of(uint64_t ns)
{
	unsigned top;
	size_t b;

	if (ns < HISTOGRAM_CUTS)
		return (size_t)ns;
	top = 63 - (unsigned)__builtin_clzll(ns);
	b = (top - 5) * (size_t)HISTOGRAM_CUTS +
	    ((ns >> (top - 6)) - HISTOGRAM_CUTS);
	return b < HISTOGRAM_BUCKETS ? b : HISTOGRAM_BUCKETS - 1;
}

static double bucket_value(size_t b)
{
	size_t row = b / HISTOGRAM_CUTS, cut = b % HISTOGRAM_CUTS;

	if (row == 0)
		return (double)b;
	return ((double)(HISTOGRAM_CUTS + cut) + 0.5) *
	       (double)(UINT64_C(1) << (row - 1));
}

void histogram_add(struct histogram *h, int64_t ns)
{
	uint64_t v = ns > 0 ? (uint64_t)ns : 0;

	h->n[bucket_of(v)]++;
	h->count++;
	if (v > h->max_ns)
		h->max_ns = v;
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->n[i] += from->n[i];
	to->count += from->count;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
}

double histogram_at(const struct histogram *h, double part)
{
	uint64_t wanted = (uint64_t)(part * (double)h->count), seen = 0;

	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->n[i];
		if (seen > wanted)
			return bucket_value(i);
	}
	return (double)h->max_ns;
}

/* --- readers -------------------------------------------------------------- */

void fan_init(struct fan *f, size_t count)
{
	void *shared;

	if (count == 0 || count > FAN_READERS_MAX)
		fan_die("from 1 to %d readers", FAN_READERS_MAX);
	shared = mmap(NULL, count * sizeof(*f->readers), PROT_READ | PROT_WRITE,
	              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fan_die("mmap");
	*f = (struct fan){.count = count, .readers = shared};
	for (size_t i = 0; i < count; i++)
		f->readers[i].fd = -1;
}

static void spread(size_t i, size_t count)
{
	cpu_set_t all, one;
	size_t cpus, wanted;

	if (sched_getaffinity(0, sizeof(all), &all))
		fan_die("sched_getaffinity");
	cpus = (size_t)CPU_COUNT(&all);
	if (count <= cpus)
		return;
	wanted = i % cpus;
	CPU_ZERO(&one);
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &all) && wanted-- == 0)
			CPU_SET(cpu, &one);
	}
	if (sched_setaffinity(0, sizeof(one), &one))
		fan_die("sched_setaffinity");
}

void fan_start(struct fan *f, size_t i,
               void (*body)(struct fan_reader *r, size_t i, void *arg),
               void *arg)
{
	pid_t parent = getpid(), pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid < 0)
		fan_die("fork");
	if (pid > 0) {
		f->readers[i].pid = pid;
		return;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	if (f->spread)
		spread(i, f->count);
	body(&f->readers[i], i, arg);
	_exit(0);
}

void fan_wait_ready(struct fan *f)
{
	for (size_t i = 0; i < f->count; i++) {
		while (!atomic_load(&f->readers[i].ready)) {
			const struct timespec ms = {.tv_nsec = 1000000};

			if (waitpid(f->readers[i].pid, NULL, WNOHANG) != 0)
				fan_die("reader %zu has ended", i);
			(void)nanosleep(&ms, NULL);
		}
	}
	(void)printf("ready\n");
	(void)fflush(stdout);
}

void fan_finish(struct fan *f)
{
	struct histogram *all = calloc(1, sizeof(*all));
	uint64_t least = UINT64_MAX;
	int64_t silence = 0;
	char c;

	if (!all)
		fan_die("memory");
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	for (size_t i = 0; i < f->count; i++) {
		struct fan_reader *r = &f->readers[i];

		(void)kill(r->pid, SIGTERM);
		(void)waitpid(r->pid, NULL, 0);
		histogram_merge(all, &r->latency);
		if (r->latency.count < least)
			least = r->latency.count;
		if (r->silence_ns > silence)
			silence = r->silence_ns;
	}
	(void)printf("{\"readers\": %zu, \"count\": %llu, \"least\": %llu, "
	             "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
	             "\"max_us\": %.1f, \"silence_ms\": %.1f}\n",
	             f->count, (unsigned long long)all->count,
	             (unsigned long long)least, histogram_at(all, 0.5) / 1e3,
	             histogram_at(all, 0.99) / 1e3,
	             histogram_at(all, 0.999) / 1e3, (double)all->max_ns / 1e3,
	             (double)silence / 1e6);
	free(all);
}

#define STAMP_AGE_NS INT64_C(600000000000) /* no frame is under way so long */

static void note(struct fan_reader *r, const char *p, const char *end,
                 const char *stamp, int64_t now_ns)
{
	const char *at = memmem(p, (size_t)(end - p), stamp, strlen(stamp));
	int64_t t_ns = 0;

	if (!at)
		return;
	for (at += strlen(stamp); at < end && (*at == ' ' || *at == ':'); at++)
		;
	for (; at < end && *at >= '0' && *at <= '9'; at++)
		t_ns = t_ns * 10 + (*at - '0');
	/* Some other number: a line that no frame of ours caused. */
	if (now_ns - t_ns > STAMP_AGE_NS)
		return;
	histogram_add(&r->latency, now_ns - t_ns);
	if (r->last_ns && now_ns - r->last_ns > r->silence_ns)
		r->silence_ns = now_ns - r->last_ns;
	r->last_ns = now_ns;
}

void fan_read_all(struct fan_reader *r, int fd, const char *stamp)
{
	char *buf = malloc(FAN_READ_BYTES);
	size_t len = 0;

	if (!buf)
		fan_die("memory");
	for (;;) {
		ssize_t n = read(fd, buf + len, FAN_READ_BYTES - len);
		int64_t now_ns = fan_now_ns();
		char *p = buf, *end, *nl;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(n < 0);
		end = buf + len + (size_t)n;
		while ((nl = memchr(p, '\n', (size_t)(end - p)))) {
			note(r, p, nl, stamp, now_ns);
			p = nl + 1;
		}
		len = (size_t)(end - p);
		memmove(buf, p, len);
		if (len == FAN_READ_BYTES)
			fan_die("a line of more than %d bytes", FAN_READ_BYTES);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{"relay", fan_relay},
		{"socket", fan_socket},
		{"mcp", fan_mcp},
		{"start", fan_start_times},
	};

	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands);
	     i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 2, argv + 2);
	}
	(void)fprintf(stderr,
	              "usage: bench relay PORT N targeted|broadcast\n"
	              "       bench socket PATH N IDS_FILE|all\n"
	              "       bench mcp COMFYMUX PATH N WORKFLOW\n"
	              "       bench start COUNT AT_ONCE PROGRAM ARG...\n"
	              "       bench start COUNT AT_ONCE connect PATH\n");
	return 2;
}
