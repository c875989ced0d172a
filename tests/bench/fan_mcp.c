/*
 * fan_mcp.c - readers that are MCP clients: each starts `comfymux mcp`, calls
 * execute_workflow_sync with a progress token and takes the time of each
 * notification. The stamp comes through as the largest step of a node's
 * progress: "step 3 of T_NS".
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/bench/fan.h"

struct mcp_args {
	char *comfymux, *socket, *workflow;
};

static void start_session(struct mcp_args *a, int *to, int *from)
{
	int in[2], out[2];
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		fan_die("pipe");
	pid = fork();
	if (pid < 0)
		fan_die("fork");
	if (pid == 0) {
		/* The session ends with its stdin, not with a signal. */
		(void)prctl(PR_SET_PDEATHSIG, 0);
		if (dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0)
			_exit(126);
		(void)execl(a->comfymux, a->comfymux, "mcp", "--socket",
		            a->socket, (char *)NULL);
		_exit(127);
	}
	(void)close(in[0]);
	(void)close(out[1]);
	*to = in[1];
	*from = out[0];
}

static void await_line(int fd)
{
	char c;

	do {
		if (read(fd, &c, 1) != 1)
			fan_die("the session ended");
	} while (c != '\n');
}

static _Noreturn void body(struct fan_reader *r, size_t i, void *arg)
{
	static const char initialize[] =
		"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\","
		"\"params\":{\"protocolVersion\":\"2025-11-25\","
		"\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\","
		"\"version\":\"1\"}}}\n";
	struct mcp_args *a = arg;
	char call[4096];
	int to, from, n;

	start_session(a, &to, &from);
	fan_write(to, initialize, sizeof(initialize) - 1);
	await_line(from);
	n = snprintf(call, sizeof(call),
	             "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\","
	             "\"params\":{\"name\":\"execute_workflow_sync\","
	             "\"arguments\":{\"workflow\":%s,\"timeout_ms\":3600000},"
	             "\"_meta\":{\"progressToken\":\"t\"}}}\n",
	             a->workflow);
	if (n < 0 || (size_t)n >= sizeof(call))
		fan_die("the workflow is too long");
	fan_write(to, call, (size_t)n);
	/* The first notification says that it is queued. */
	await_line(from);
	atomic_store(&r->ready, 1);
	fan_read_all(r, from, " of ");
}

int fan_mcp(int argc, char **argv)
{
	struct mcp_args a;
	struct fan f;

	if (argc != 4)
		fan_die("mcp takes COMFYMUX PATH N WORKFLOW");
	a = (struct mcp_args){argv[0], argv[1], argv[3]};
	fan_init(&f, (size_t)strtoul(argv[2], 0, 10));
	for (size_t i = 0; i < f.count; i++)
		fan_start(&f, i, body, &a);
	fan_wait_ready(&f);
	fan_finish(&f);
	return 0;
}
