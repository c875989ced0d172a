/*
 * main.c - comfymux-worker: does the work of one session. Started by comfymux,
 * with the session channel as descriptor 3 and, with --bus, a supervisor's bus
 * channel as descriptor 4; or by comfymuxd, with --zygote, to be the process
 * that its workers are forked from.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/credentials.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/version.h"
#include "ipc/channel.h"
#include "ipc/zygote.h"
#include "workers/job_worker.h"
#include "workers/worker.h"
#include "workers/zygote.h"

#define EXIT_USAGE 2

static const char usage[] =
	"usage: comfymux-worker [--bus]\n"
	"       comfymux-worker --zygote [--credentials] [--no-sandbox]\n"
	"\n"
	"The worker of one session: comfymux and comfymuxd start it, not "
	"people.\n"
	"Descriptor 3 is the session channel to its keeper.\n"
	"\n"
	"  --bus      descriptor 4 is the bus channel to the supervisor\n"
	"  --zygote   fork workers on request of the supervisor, which is at the\n"
	"             other end of descriptor 3\n"
	"  --credentials  descriptor 4 has what is shown to ComfyUI\n"
	"  --no-sandbox   keep all system calls\n"
	"  --version  print the version and exit\n"
	"  --help     print this and exit\n";

static bool is_socket(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

struct arguments {
	struct worker_start start;
	bool zygote, credentials;
	struct zygote_options setup;
};

/* -1: go on; else the status to exit with. */
static int parse_arguments(int argc, char **argv, struct arguments *a)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--bus") == 0) {
			a->start.bus_fd = CHANNEL_BUS_FD;
		} else if (strcmp(argv[i], CHANNEL_ZYGOTE_ARGUMENT) == 0) {
			a->zygote = true;
		} else if (strcmp(argv[i], CHANNEL_CREDENTIALS_ARGUMENT) == 0) {
			a->credentials = true;
		} else if (strcmp(argv[i], CHANNEL_NO_SANDBOX_ARGUMENT) == 0) {
			a->setup.sandbox = false;
		} else if (strcmp(argv[i], "--version") == 0) {
			return printf("comfymux-worker %s\n",
			              comfymux_version) < 0;
		} else if (strcmp(argv[i], "--help") == 0) {
			return fputs(usage, stdout) == EOF;
		} else {
			fprintf(stderr,
			        "comfymux-worker: unknown argument: %s\n"
			        "See comfymux-worker --help.\n",
			        argv[i]);
			return EXIT_USAGE;
		}
	}
	return -1;
}

static int check_channels(struct worker_start *start)
{
	if (!is_socket(start->session_fd)) {
		fprintf(stderr,
		        "comfymux-worker: descriptor %d is not a session "
		        "channel; use comfymux, which starts its worker "
		        "itself.\n",
		        start->session_fd);
		return -1;
	}
	/* Told that there is one, but without it: the session goes on alone. */
	if (start->bus_fd >= 0 && !is_socket(start->bus_fd)) {
		fprintf(stderr,
		        "comfymux-worker: descriptor %d is not a bus channel; "
		        "going on without.\n",
		        start->bus_fd);
		start->bus_fd = -1;
	}
	return 0;
}

/* The user's standard input and output are the keeper's. */
static int let_go_of_stdio(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int r = fd < 0 || dup2(fd, STDIN_FILENO) < 0 ||
	        dup2(fd, STDOUT_FILENO) < 0;

	if (r)
		fprintf(stderr, "comfymux-worker: /dev/null: %s\n",
		        strerror(errno));
	if (fd > STDERR_FILENO)
		(void)close(fd);
	return r ? -1 : 0;
}

/* In a worker's first process: nothing was inherited that it needs. */
static int begin(struct worker_start *start)
{
	struct error err;

	if (check_channels(start) || let_go_of_stdio())
		return -1;
	if (worker_begin(start, &err) == 0)
		return 0;
	fprintf(stderr, "comfymux-worker: %s\n", err.text);
	return -1;
}

/* From the supervisor, who has read the files. */
static int take_credentials(struct credentials *c)
{
	char *packed = NULL;
	size_t len = 0;
	int r = fd_read_all(CHANNEL_CREDENTIALS_FD, CREDENTIALS_PACKED_MAX,
	                    &packed, &len);

	if (r == 0)
		r = credentials_unpack(c, span_make(packed, len));
	if (packed)
		explicit_bzero(packed, len);
	free(packed);
	if (r < 0)
		fprintf(stderr,
		        "comfymux-worker: descriptor %d has no credentials: "
		        "%s\n",
		        CHANNEL_CREDENTIALS_FD, strerror(-r));
	return r;
}

/* -1 in the workers that it forks; else the status to exit with. */
static int be_zygote(struct arguments *a, struct worker_start *start)
{
	static struct credentials credentials;
	/* The same start as a worker's: nothing but its one channel. */
	struct worker_start own = {.session_fd = CHANNEL_ZYGOTE_FD,
	                           .bus_fd = -1};

	if (a->credentials) {
		if (take_credentials(&credentials) < 0)
			return EXIT_USAGE;
		a->setup.credentials = &credentials;
	}
	if (begin(&own))
		return EXIT_USAGE;
	log_open("zygote", LOG_TO_STDERR, LOG_LEVEL_INFO);
	switch (zygote_run(own.session_fd, &a->setup, start)) {
	case ZYGOTE_WORKER:
		return -1;
	case ZYGOTE_OVER:
		log_flush();
		return 0;
	case ZYGOTE_BROKEN:
		break;
	}
	log_flush();
	return 1;
}

/* The kernel takes it all back at once. What the libraries would do at exit
 * costs 1 ms, most of it for copies of pages that are shared with the zygote;
 * but it is then that sanitizers look for leaks. */
static _Noreturn void leave(int status)
{
	log_flush();
	if (SANITIZED)
		exit(status);
	_exit(status);
}

int main(int argc, char **argv)
{
	struct arguments a = {
		.start = {.session_fd = CHANNEL_SESSION_FD, .bus_fd = -1},
		.setup = {.sandbox = true},
	};
	int status = parse_arguments(argc, argv, &a);

	if (status >= 0)
		return status;
	log_open("worker", LOG_TO_STDERR, LOG_LEVEL_INFO);
	if (a.zygote) {
		status = be_zygote(&a, &a.start);
		if (status >= 0)
			return status;
	} else if (begin(&a.start)) {
		return EXIT_USAGE;
	}
	status = a.start.told && a.start.told->job ? job_worker_run(&a.start)
	                                           : worker_run(&a.start);
	leave(status);
}
