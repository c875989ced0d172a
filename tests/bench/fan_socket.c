/*
 * fan_socket.c - readers on the supervisor's socket: each is a process that
 * subscribes to one prompt, or to all, and takes the time of each event.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/fan.h"

struct socket_args {
	const char *path;
	char (*ids)[64]; /* NULL: everything */
};

/* Reads up to the reply with that id; nothing stamped comes before "ready". */
static void await_reply(int fd, const char *id)
{
	char buf[65536];
	size_t len = 0;

	for (;;) {
		ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);

		if (n <= 0)
			fan_die("the supervisor hung up");
		len += (size_t)n;
		buf[len] = '\0';
		if (strstr(buf, "\"error\""))
			fan_die("refused: %s", buf);
		if (strstr(buf, id))
			return;
		if (len + 1 == sizeof(buf))
			len = 0;
	}
}

static _Noreturn void body(struct fan_reader *r, size_t i, void *arg)
{
	struct socket_args *a = arg;
	int fd = fan_connect_unix(a->path);
	static const char hello[] =
		"{\"op\":\"hello\",\"id\":\"bench-hello\"}\n";
	char line[256];
	int n;

	fan_write(fd, hello, sizeof(hello) - 1);
	await_reply(fd, "bench-hello");
	n = snprintf(line, sizeof(line),
	             "{\"op\":\"subscribe\",\"id\":\"bench-sub\"%s%s%s}\n",
	             a->ids ? ",\"prompt_id\":\"" : "", a->ids ? a->ids[i] : "",
	             a->ids ? "\"" : "");
	fan_write(fd, line, (size_t)n);
	await_reply(fd, "bench-sub");
	atomic_store(&r->ready, 1);
	fan_read_all(r, fd, "\"t_ns\"");
}

static void read_ids(struct socket_args *a, const char *file, size_t count)
{
	FILE *f = fopen(file, "re");

	if (!f)
		fan_die("open %s", file);
	a->ids = calloc(count, sizeof(*a->ids));
	for (size_t i = 0; a->ids && i < count; i++) {
		if (fscanf(f, "%63s", a->ids[i]) != 1)
			fan_die("%s has fewer than %zu ids", file, count);
	}
	(void)fclose(f);
}

int fan_socket(int argc, char **argv)
{
	struct socket_args a = {0};
	struct fan f;

	if (argc != 3)
		fan_die("socket takes PATH N IDS_FILE|all");
	fan_init(&f, (size_t)strtoul(argv[1], 0, 10));
	a.path = argv[0];
	f.spread = strcmp(argv[2], "all") == 0;
	if (!f.spread)
		read_ids(&a, argv[2], f.count);
	for (size_t i = 0; i < f.count; i++)
		fan_start(&f, i, body, &a);
	fan_wait_ready(&f);
	fan_finish(&f);
	free(a.ids);
	return 0;
}
