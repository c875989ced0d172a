/*
 * library.c - a program that uses libcomfymux, for test_library.py: each
 * command does one thing with it, checks what it can check by itself, and
 * prints a line of what it saw. Strict C99: what a user's compiler might be.
 */
#include <comfymux.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(x)                                                               \
	do {                                                                   \
		if (!(x)) {                                                    \
			printf("line %d: %s is not so; last error: %s\n",      \
			       __LINE__, #x, cmx_last_error());                \
			fflush(stdout);                                        \
			_exit(1);                                              \
		}                                                              \
	} while (0)
#define PATIENCE_MS 60000
#define COUNT_MAX   16

static char **args; /* behind the command */
static int arg_count;

static char *read_file(const char *name)
{
	FILE *f = fopen(name, "r");
	char *text = calloc(1, 1 << 20);

	CHECK(f && text);
	CHECK(fread(text, 1, (1 << 20) - 1, f) > 0);
	fclose(f);
	return text;
}

static struct cmx *new_client(void)
{
	struct cmx *c;

	CHECK(cmx_new(&c, NULL) == 0);
	return c;
}

static void show(const struct cmx_progress *p)
{
	printf("%s %s %s %.2f\n", cmx_status_name(p->status),
	       cmx_method_name(p->method),
	       p->current_node ? p->current_node : "-",
	       p->current_node_progress);
	fflush(stdout);
}

static void on_show(void *user, const struct cmx_progress *p)
{
	(void)user;
	show(p);
}

static void show_result(int code, const struct cmx_result *r)
{
	printf("end %s: %s\n", cmx_strerror(code), r && r->text ? r->text : "");
	if (r)
		printf("submitted %d, %s, %s, %zu lines, %s\n", r->submitted,
		       r->progress->prompt_id[0] ? "id" : "no id",
		       r->progress->outputs, r->log_count,
		       r->node_errors ? "node_errors" : "no node_errors");
	fflush(stdout);
}

/* run FILE [TIMEOUT_MS] */
static int do_run(void)
{
	char *text = read_file(args[0]);
	struct cmx *c = new_client();
	struct cmx_result *r;
	int code = cmx_run(c, text, arg_count > 1 ? atol(args[1]) : 0, on_show,
	                   NULL, &r);

	show_result(code, r);
	if (code == CMX_OK) {
		CHECK(r->code == CMX_OK && !r->text);
		CHECK(strcmp(r->log[r->log_count - 1], "Execution finished") ==
		      0);
	} else {
		CHECK(strlen(cmx_last_error()) > 0);
	}
	/* Results outlive their client. */
	cmx_free(c);
	CHECK(r && r->progress->prompt_id);
	cmx_result_free(r);
	free(text);
	return 0;
}

/* plain FILE: no callback, no result */
static int do_plain(void)
{
	char *text = read_file(args[0]);
	struct cmx *c = new_client();

	CHECK(cmx_run(c, text, 0, NULL, NULL, NULL) == CMX_OK);
	cmx_free(c);
	free(text);
	puts("done");
	return 0;
}

/* available */
static int do_available(void)
{
	struct cmx *c = new_client();
	int r = cmx_events_available(c);

	CHECK(cmx_is_connected(c) == 1 || r == 0);
	printf("%d %d %s\n", r, cmx_connect(c), r ? "" : cmx_last_error());
	printf("%d\n", cmx_is_connected(c));
	CHECK(cmx_reset(c) == 0);
	CHECK(cmx_is_connected(c) == 0);
	CHECK(cmx_events_available(c) == r);
	cmx_free(c);
	return 0;
}

/* --- subscriptions -------------------------------------------------------- */

struct sub {
	struct cmx_subscription *sub;
	unsigned news, errors;
	enum cmx_status last;
	char type[64];
	int leaves; /* in its first callback */
};

static void on_news(void *user, const struct cmx_progress *p)
{
	struct sub *s = user;

	CHECK(s->errors == 0);
	s->news++;
	s->last = p->status;
	if (s->leaves) {
		CHECK(s->sub);
		cmx_unsubscribe(s->sub);
		s->sub = NULL;
	}
}

static void on_error(void *user, const struct cmx_error *e)
{
	struct sub *s = user;

	CHECK(!s->leaves);
	s->errors++;
	strncpy(s->type, e->type, sizeof(s->type) - 1);
	CHECK(strlen(e->message) > 0);
}

static void subscribe(struct cmx *c, const char *id, struct sub *s)
{
	CHECK(cmx_subscribe(c, id, on_news, on_error, s, &s->sub) == 0);
}

static int over(const struct sub *s)
{
	return s->errors > 0 || (s->news > 0 && s->last == CMX_COMPLETED);
}

static void wait_over(struct cmx *c, const struct sub *s, int count)
{
	int left = count;

	while (left > 0) {
		CHECK(cmx_wait(c, PATIENCE_MS) == 1);
		left = 0;
		for (int i = 0; i < count; i++)
			left += !over(&s[i]);
	}
}

/* watch ID...: of each, how many errors, of what type, and the last status */
static int do_watch(void)
{
	struct sub s[COUNT_MAX];
	struct cmx *c = new_client();

	memset(s, 0, sizeof(s));
	for (int i = 0; i < arg_count; i++)
		subscribe(c, args[i], &s[i]);
	wait_over(c, s, arg_count);
	for (int i = 0; i < arg_count; i++) {
		const struct cmx_progress *p = cmx_progress(c, args[i]);

		CHECK(p && strcmp(p->prompt_id, args[i]) == 0);
		CHECK(p->status == (s[i].errors ? CMX_FAILED : CMX_COMPLETED));
		printf("%u %s %s\n", s[i].errors, s[i].type,
		       cmx_status_name(s[i].last));
	}
	/* Nothing comes after the end. */
	while (cmx_wait(c, 300) == 1)
		;
	for (int i = 0; i < arg_count; i++) {
		CHECK(s[i].errors <= 1);
		cmx_unsubscribe(s[i].sub);
		CHECK(!cmx_progress(c, args[i]));
	}
	cmx_free(c);
	return 0;
}

/* leave ID: three watch it, two leave in a callback, one of these by the hand
 * of the other */
static struct sub three[3];

static void on_leave_both(void *user, const struct cmx_progress *p)
{
	(void)user;
	(void)p;
	three[0].news++;
	cmx_unsubscribe(three[0].sub);
	cmx_unsubscribe(three[1].sub);
	three[0].sub = three[1].sub = NULL;
}

static int do_leave(void)
{
	struct cmx *c = new_client();
	unsigned before;

	three[1].leaves = 1;
	CHECK(cmx_subscribe(c, args[0], on_leave_both, on_error, &three[0],
	                    &three[0].sub) == 0);
	subscribe(c, args[0], &three[1]);
	subscribe(c, args[0], &three[2]);
	while (three[0].news == 0)
		CHECK(cmx_wait(c, PATIENCE_MS) == 1);
	puts("left");
	(void)fflush(stdout);
	before = three[1].news;
	wait_over(c, &three[2], 1);
	CHECK(three[0].news == 1 && three[1].news == before && before <= 1);
	CHECK(three[2].news > 1 && three[2].last == CMX_COMPLETED);
	cmx_free(c);
	puts("done");
	return 0;
}

/* --- foreign loop --------------------------------------------------------- */

struct ending {
	int ends, code;
	unsigned news;
};

static void on_count(void *user, const struct cmx_progress *p)
{
	(void)p;
	((struct ending *)user)->news++;
}

static void on_end(void *user, const struct cmx_result *r)
{
	struct ending *e = user;

	e->ends++;
	e->code = r->code;
}

/* loop FILE...: a client for each */
static int do_loop(void)
{
	struct cmx *c[COUNT_MAX];
	struct ending e[COUNT_MAX];
	struct pollfd p[COUNT_MAX];
	int left = arg_count;

	memset(e, 0, sizeof(e));
	for (int i = 0; i < arg_count; i++) {
		char *text = read_file(args[i]);
		struct cmx_task *t;

		c[i] = new_client();
		CHECK(cmx_start(c[i], text, 0, on_count, on_end, &e[i], &t) ==
		      0);
		CHECK(strlen(cmx_task_prompt_id(t)) == 36);
		CHECK(cmx_progress(c[i], cmx_task_prompt_id(t)));
		free(text);
		p[i].fd = cmx_fd(c[i]);
		p[i].events = POLLIN;
		CHECK(p[i].fd >= 0 && cmx_fd(c[i]) == p[i].fd);
	}
	while (left > 0) {
		CHECK(poll(p, (nfds_t)arg_count, PATIENCE_MS) > 0);
		left = 0;
		for (int i = 0; i < arg_count; i++) {
			if (p[i].revents)
				CHECK(cmx_dispatch(c[i]) == 0);
			left += e[i].ends == 0;
		}
	}
	for (int i = 0; i < arg_count; i++) {
		CHECK(e[i].ends == 1 && e[i].news > 0);
		puts(cmx_strerror(e[i].code));
		cmx_free(c[i]);
	}
	return 0;
}

/* --- ends ----------------------------------------------------------------- */

static struct cmx *victim;

static void on_free(void *user, const struct cmx_progress *p)
{
	struct cmx_result *r;

	(void)user;
	(void)p;
	CHECK(victim);
	CHECK(cmx_run(victim, "{}", 0, NULL, NULL, &r) == CMX_E_BUSY);
	CHECK(cmx_dispatch(victim) == CMX_E_BUSY);
	CHECK(cmx_wait(victim, 0) == CMX_E_BUSY);
	CHECK(cmx_reset(victim) == CMX_E_BUSY);
	CHECK(cmx_events_available(victim) == CMX_E_BUSY);
	cmx_free(victim);
	CHECK(cmx_cancel(victim, "x") == CMX_E_CANCELLED);
	victim = NULL;
}

/* free FILE: in a callback of cmx_run */
static int do_free(void)
{
	char *text = read_file(args[0]);
	struct cmx_result *r;

	victim = new_client();
	CHECK(cmx_run(victim, text, 0, on_free, NULL, &r) == CMX_E_CANCELLED);
	CHECK(!victim && !r);
	free(text);
	puts("done");
	return 0;
}

static void on_cancel(void *user, const struct cmx_progress *p)
{
	if (p->status == CMX_EXECUTING)
		CHECK(cmx_cancel(user, p->prompt_id) == 0);
}

/* cancel FILE: from the callback of cmx_run */
static int do_cancel(void)
{
	char *text = read_file(args[0]);
	struct cmx *c = new_client();
	struct cmx_result *r;
	int code = cmx_run(c, text, 0, on_cancel, c, &r);

	show_result(code, r);
	CHECK(code == CMX_E_CANCELLED && r->submitted);
	cmx_result_free(r);
	cmx_free(c);
	free(text);
	return 0;
}

/* cancel-other ID: of a prompt that somebody else submitted */
static int do_cancel_other(void)
{
	struct cmx *c = new_client();
	struct sub s;

	memset(&s, 0, sizeof(s));
	subscribe(c, args[0], &s);
	while (s.news == 0)
		CHECK(cmx_wait(c, PATIENCE_MS) == 1);
	CHECK(cmx_cancel(c, args[0]) == 0);
	wait_over(c, &s, 1);
	printf("%u %s\n", s.errors, s.type);
	cmx_free(c);
	return 0;
}

/* drop FILE: started, then let go of; the prompt runs on */
static int do_drop(void)
{
	char *text = read_file(args[0]);
	struct cmx *c = new_client();
	struct ending e;
	struct cmx_task *t;

	memset(&e, 0, sizeof(e));
	CHECK(cmx_start(c, text, 0, on_count, on_end, &e, &t) == 0);
	while (e.news == 0)
		CHECK(cmx_wait(c, PATIENCE_MS) == 1);
	puts(cmx_task_prompt_id(t));
	cmx_task_free(t);
	CHECK(cmx_wait(c, 300) >= 0 && e.ends == 0);
	cmx_free(c);
	free(text);
	return 0;
}

/* loop-free FILE: freed while a request is under way */
static int do_loop_free(void)
{
	char *text = read_file(args[0]);
	struct cmx *c = new_client();
	struct ending e;

	memset(&e, 0, sizeof(e));
	CHECK(cmx_start(c, text, 0, on_count, on_end, &e, NULL) == 0);
	for (int i = 0; i < 20; i++)
		CHECK(cmx_wait(c, 20) >= 0);
	CHECK(e.ends == 0);
	cmx_free(c);
	free(text);
	puts("done");
	return 0;
}

/* --- many ----------------------------------------------------------------- */

struct seen {
	unsigned news, items;
	size_t count;
	unsigned running, most;
	char state[COUNT_MAX]; /* 0, 1: running, 2: over */
};

static void on_item_news(void *user, size_t index, const struct cmx_progress *p)
{
	struct seen *s = user;

	(void)p;
	CHECK(index < s->count && s->state[index] < 2);
	s->running += s->state[index] == 0;
	s->state[index] = 1;
	if (s->running > s->most)
		s->most = s->running;
	s->news++;
}

static void on_item(void *user, size_t index, const struct cmx_result *r)
{
	struct seen *s = user;

	CHECK(index < s->count && r->index == index && s->state[index] < 2);
	s->running -= s->state[index] == 1;
	s->state[index] = 2;
	s->items++;
}

static void show_all(int code, const struct cmx_results *all)
{
	printf("end %s\n", cmx_strerror(code));
	for (size_t i = 0; all && i < all->count; i++) {
		const struct cmx_result *r = all->items[i];

		CHECK(r->index == i);
		printf("%s|%s|%s\n", cmx_strerror(r->code),
		       r->text ? r->text : "", r->handed ? r->handed : "");
	}
}

/* batch CONCURRENCY STOP FILE...; "-" is a text that is no JSON, "0" is NULL */
static int do_batch(void)
{
	struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT;
	const char *texts[COUNT_MAX];
	struct cmx *c = new_client();
	struct cmx_results *all;
	struct seen seen;
	int code;

	memset(&seen, 0, sizeof(seen));
	seen.count = (size_t)arg_count - 2;
	o.concurrency = (unsigned)atoi(args[0]);
	o.stop_on_error = atoi(args[1]) != 0;
	o.on_progress = on_item_news;
	o.on_item = on_item;
	o.user = &seen;
	for (int i = 2; i < arg_count; i++)
		texts[i - 2] = strcmp(args[i], "-") == 0   ? "{\"1\": "
		               : strcmp(args[i], "0") == 0 ? NULL
		                                           : read_file(args[i]);
	code = cmx_batch(c, texts, seen.count, &o, &all);
	show_all(code, all);
	CHECK(!all || seen.items == seen.count);
	CHECK(seen.most <= o.concurrency);
	cmx_results_free(all);
	cmx_free(c);
	for (int i = 2; i < arg_count; i++) {
		if (args[i][1] != '\0')
			free((void *)(uintptr_t)texts[i - 2]);
	}
	return 0;
}

/* chain STOP (FILE STEP NODE TO)...; STEP "-": takes nothing */
static int do_chain(void)
{
	struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT;
	struct cmx_step steps[COUNT_MAX];
	struct cmx *c = new_client();
	struct cmx_results *all;
	struct seen seen;
	int code;

	memset(&seen, 0, sizeof(seen));
	memset(steps, 0, sizeof(steps));
	o.stop_on_error = atoi(args[0]) != 0;
	o.on_progress = on_item_news;
	o.on_item = on_item;
	o.user = &seen;
	for (int i = 1; i + 3 < arg_count; i += 4) {
		struct cmx_step *s = &steps[seen.count++];

		s->workflow = read_file(args[i]);
		if (args[i + 1][0] == '-')
			continue;
		s->input_step = (size_t)atoi(args[i + 1]);
		s->input_node = args[i + 2];
		s->output_to = args[i + 3];
	}
	code = cmx_chain(c, steps, seen.count, &o, &all);
	show_all(code, all);
	CHECK(!all || seen.items == seen.count);
	CHECK(seen.most <= 1);
	cmx_results_free(all);
	cmx_free(c);
	for (size_t i = 0; i < seen.count; i++)
		free((void *)(uintptr_t)steps[i].workflow);
	return 0;
}

/* --- the process ---------------------------------------------------------- */

/* libcurl's own: two ends of a pair, of which nobody else has either. */
static int is_pair(int fd)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof(peer);

	return getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
	       peer.sun_family == AF_UNIX && len == sizeof(sa_family_t);
}

/* Other threads read files (c-ares its resolv.conf) that are open to an exec
 * for a moment: what stays so is a leak. */
static int closes_on_exec(int fd)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; i < PATIENCE_MS; i++) {
		if ((fcntl(fd, F_GETFD) & FD_CLOEXEC) || is_pair(fd))
			return 1;
		(void)nanosleep(&ms, NULL);
	}
	return 0;
}

static int count_dir(const char *name, int check_cloexec)
{
	DIR *d = opendir(name);
	struct dirent *e;
	int n = 0;

	CHECK(d);
	while ((e = readdir(d))) {
		int fd = atoi(e->d_name);

		n += e->d_name[0] != '.';
		if (check_cloexec && e->d_name[0] != '.' && fd > 2 &&
		    fd != dirfd(d))
			CHECK(closes_on_exec(fd));
	}
	closedir(d);
	return n;
}

static void check_signals(struct sigaction *before, int compare)
{
	for (int i = 1; i < 32; i++) {
		struct sigaction now;

		memset(&now, 0, sizeof(now));
		(void)sigaction(i, NULL, &now);
		if (compare)
			CHECK(now.sa_handler == before[i].sa_handler);
		else
			before[i] = now;
	}
}

static void on_fds(void *user, const struct cmx_progress *p)
{
	sigset_t mask;

	(void)user;
	(void)p;
	(void)count_dir("/proc/self/fd", 1);
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
	CHECK(sigismember(&mask, SIGPIPE) == 0);
}

/* leaks FILE ID: descriptors, threads, handlers and mask are as before */
static int do_leaks(void)
{
	struct sigaction before[32];
	char *text = read_file(args[0]);
	int fds = 0, threads = 0;
	sigset_t mask;

	check_signals(before, 0);
	/* The first round may set up what the process keeps. */
	for (int round = 0; round < 4; round++) {
		struct cmx *c = new_client();
		struct sub s[2];

		memset(s, 0, sizeof(s));
		CHECK(cmx_fd(c) >= 0);
		CHECK(cmx_run(c, text, 0, on_fds, NULL, NULL) == CMX_OK);
		subscribe(c, args[1], &s[0]);
		subscribe(c, "no-such-prompt", &s[1]);
		wait_over(c, s, 2);
		CHECK(cmx_start(c, text, 0, NULL, on_end, NULL, NULL) == 0);
		CHECK(cmx_wait(c, 100) >= 0);
		cmx_free(c);
		if (round == 0) {
			fds = count_dir("/proc/self/fd", 0);
			threads = count_dir("/proc/self/task", 0);
		}
	}
	CHECK(count_dir("/proc/self/fd", 0) == fds);
	CHECK(count_dir("/proc/self/task", 0) == threads && threads == 1);
	check_signals(before, 1);
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
	CHECK(sigismember(&mask, SIGPIPE) == 0);
	free(text);
	printf("%d\n", fds);
	return 0;
}

static void *run_in_thread(void *text)
{
	struct cmx *c = new_client();

	for (int i = 0; i < 3; i++)
		CHECK(cmx_run(c, text, 0, on_fds, NULL, NULL) == CMX_OK);
	CHECK(cmx_run(c, "[", 0, NULL, NULL, NULL) == CMX_E_INVALID);
	CHECK(strlen(cmx_last_error()) > 0);
	cmx_free(c);
	return NULL;
}

/* threads FILE...: each a client in a thread of its own */
static int do_threads(void)
{
	pthread_t t[COUNT_MAX];
	char *texts[COUNT_MAX];

	/* All of them first: the threads look at descriptors. */
	for (int i = 0; i < arg_count; i++)
		texts[i] = read_file(args[i]);
	for (int i = 0; i < arg_count; i++)
		CHECK(pthread_create(&t[i], NULL, run_in_thread, texts[i]) ==
		      0);
	for (int i = 0; i < arg_count; i++) {
		CHECK(pthread_join(t[i], NULL) == 0);
		free(texts[i]);
	}
	/* The threads' errors are theirs. */
	CHECK(strcmp(cmx_last_error(), "") == 0);
	puts("done");
	return 0;
}

static void in_child(struct cmx *parents, const char *text)
{
	struct cmx_subscription *s;
	struct cmx *own;

	CHECK(cmx_connect(parents) == CMX_E_FORKED);
	CHECK(cmx_fd(parents) == CMX_E_FORKED);
	CHECK(cmx_subscribe(parents, "x", NULL, NULL, NULL, &s) ==
	      CMX_E_FORKED);
	CHECK(!s);
	cmx_free(parents);
	own = new_client();
	CHECK(cmx_run(own, text, 0, NULL, NULL, NULL) == CMX_OK);
	cmx_free(own);
	_exit(0);
}

/* fork FILE: a child in the middle of a run */
static int do_fork(void)
{
	char *text = read_file(args[0]);
	struct cmx *c = new_client();
	struct ending e;
	int status;
	pid_t pid;

	memset(&e, 0, sizeof(e));
	CHECK(cmx_start(c, text, 0, on_count, on_end, &e, NULL) == 0);
	while (e.news == 0)
		CHECK(cmx_wait(c, PATIENCE_MS) == 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		in_child(c, text);
	while (e.ends == 0)
		CHECK(cmx_wait(c, PATIENCE_MS) == 1);
	CHECK(e.code == CMX_OK);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cmx_free(c);
	free(text);
	puts("done");
	return 0;
}

static void on_log(void *user, enum cmx_log_level level, const char *text)
{
	(*(unsigned *)user)++;
	/* As libcurl's TLS library would, on a connection that broke. */
	CHECK(pthread_kill(pthread_self(), SIGPIPE) == 0);
	printf("log %d: %s\n", (int)level, text);
}

/* log FILE */
static int do_log(void)
{
	char *text = read_file(args[0]);
	unsigned lines = 0;
	struct cmx *c;

	cmx_set_log(on_log, &lines, CMX_LOG_INFO);
	c = new_client();
	CHECK(cmx_run(c, text, 0, NULL, NULL, NULL) == CMX_OK);
	cmx_free(c);
	cmx_set_log(NULL, NULL, CMX_LOG_INFO);
	free(text);
	printf("%u lines\n", lines);
	return 0;
}

/* --- bad input ------------------------------------------------------------ */

static void bad_client(void)
{
	struct cmx_options o;
	struct cmx *c = (struct cmx *)1;
	char many[sizeof(o) + 16];

	CHECK(cmx_new(NULL, NULL) == CMX_E_INVALID);
	memset(&o, 0, sizeof(o));
	CHECK(cmx_new(&c, &o) == CMX_E_INVALID && !c);
	o.struct_size = 1 << 20;
	CHECK(cmx_new(&c, &o) == CMX_E_INVALID && !c);
	o.struct_size = sizeof(o);
	o.comfyui = "no URL";
	CHECK(cmx_new(&c, &o) == CMX_E_CONFIG && !c);
	CHECK(strstr(cmx_last_error(), "no URL"));
	o.comfyui = NULL;
	o.config = "/no/such/file";
	CHECK(cmx_new(&c, &o) == CMX_E_CONFIG && !c);
	CHECK(strstr(cmx_last_error(), "/no/such/file"));
	/* Newer and older headers. */
	memset(many, 0, sizeof(many));
	((struct cmx_options *)(void *)many)->struct_size = sizeof(many);
	CHECK(cmx_new(&c, (struct cmx_options *)(void *)many) == 0);
	cmx_free(c);
	many[sizeof(many) - 1] = 1;
	CHECK(cmx_new(&c, (struct cmx_options *)(void *)many) == CMX_E_INVALID);
	o.struct_size = offsetof(struct cmx_options, config);
	CHECK(cmx_new(&c, &o) == 0);
	cmx_free(c);
	cmx_free(NULL);
}

static void bad_null_client(void)
{
	struct cmx_subscription *s;
	struct cmx_results *all;
	struct cmx_result *r;
	struct cmx_step step;
	struct cmx_task *t;
	const char *one[] = {"{}"};

	memset(&step, 0, sizeof(step));
	CHECK(cmx_run(NULL, "{}", 0, NULL, NULL, &r) == CMX_E_INVALID && !r);
	CHECK(cmx_batch(NULL, one, 1, NULL, &all) == CMX_E_INVALID && !all);
	CHECK(cmx_chain(NULL, &step, 1, NULL, &all) == CMX_E_INVALID);
	CHECK(cmx_subscribe(NULL, "a", NULL, NULL, NULL, &s) == CMX_E_INVALID);
	CHECK(!s && !cmx_progress(NULL, "a"));
	CHECK(cmx_start(NULL, "{}", 0, NULL, on_end, NULL, &t) ==
	      CMX_E_INVALID);
	CHECK(cmx_cancel(NULL, "a") == CMX_E_INVALID);
	CHECK(cmx_connect(NULL) == CMX_E_INVALID);
	CHECK(cmx_reset(NULL) == CMX_E_INVALID);
	CHECK(cmx_events_available(NULL) == CMX_E_INVALID);
	CHECK(cmx_is_connected(NULL) == 0);
	CHECK(cmx_fd(NULL) == CMX_E_INVALID);
	CHECK(cmx_dispatch(NULL) == CMX_E_INVALID);
	CHECK(cmx_wait(NULL, 0) == CMX_E_INVALID);
	CHECK(cmx_task_cancel(NULL) == CMX_E_INVALID);
	CHECK(strcmp(cmx_task_prompt_id(NULL), "") == 0);
	cmx_unsubscribe(NULL);
	cmx_task_free(NULL);
	cmx_result_free(NULL);
	cmx_results_free(NULL);
}

static void bad_runs(struct cmx *c)
{
	static const char *const texts[] = {"",
	                                    "{",
	                                    "[]",
	                                    "7",
	                                    "{\"1\": 7}",
	                                    "{\"1\": {}}",
	                                    "{\"1\": {\"class_type\": 3}}",
	                                    "{\"a\xff\": {}}",
	                                    "{\"nodes\": [], \"links\": []}"};
	static const int64_t timeouts[] = {-1, INT64_MIN, INT64_MAX,
	                                   (int64_t)CMX_TIMEOUT_MAX_MS + 1};
	struct cmx_result *r = (struct cmx_result *)1;

	CHECK(cmx_run(c, NULL, 0, NULL, NULL, &r) == CMX_E_INVALID && !r);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		CHECK(cmx_run(c, texts[i], 0, NULL, NULL, &r) == CMX_E_INVALID);
		CHECK(!r && strlen(cmx_last_error()) > 0);
	}
	for (size_t i = 0; i < sizeof(timeouts) / sizeof(*timeouts); i++)
		CHECK(cmx_run(c, "{}", timeouts[i], NULL, NULL, &r) ==
		      CMX_E_INVALID);
	CHECK(cmx_wait(c, INT64_MAX) == CMX_E_INVALID);
	CHECK(cmx_start(c, "{}", 0, NULL, NULL, NULL, NULL) == CMX_E_INVALID);
}

static void bad_ids(struct cmx *c)
{
	char longest[CMX_PROMPT_ID_MAX + 2];
	const char *const ids[] = {NULL,   "",      longest,
	                           "a\nb", "a\x7f", "\xff\xfe"};
	struct cmx_subscription *s;

	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		CHECK(cmx_subscribe(c, ids[i], NULL, NULL, NULL, &s) ==
		      CMX_E_INVALID);
		CHECK(!s && !cmx_progress(c, ids[i]));
		CHECK(cmx_cancel(c, ids[i]) == CMX_E_INVALID);
	}
	CHECK(cmx_subscribe(c, "a", NULL, NULL, NULL, NULL) == CMX_E_INVALID);
	/* At the bound it is one; and one that tries to climb is, too. */
	longest[CMX_PROMPT_ID_MAX] = '\0';
	CHECK(cmx_subscribe(c, longest, NULL, NULL, NULL, &s) == 0);
	cmx_unsubscribe(s);
	CHECK(cmx_subscribe(c, "../../queue?x=1", NULL, NULL, NULL, &s) == 0);
	CHECK(cmx_wait(c, 100) >= 0);
	cmx_unsubscribe(s);
}

static void bad_many(struct cmx *c)
{
	static struct cmx_step steps[CMX_CHAIN_MAX + 1];
	static const char *texts[CMX_BATCH_MAX + 1];
	struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT;
	struct cmx_results *all = NULL;

	CHECK(cmx_batch(c, NULL, 1, NULL, &all) == CMX_E_INVALID);
	CHECK(cmx_batch(c, texts, 0, NULL, &all) == CMX_E_INVALID);
	CHECK(cmx_batch(c, texts, CMX_BATCH_MAX + 1, NULL, &all) ==
	      CMX_E_LIMIT);
	CHECK(cmx_chain(c, NULL, 1, NULL, &all) == CMX_E_INVALID);
	CHECK(cmx_chain(c, steps, 0, NULL, &all) == CMX_E_INVALID);
	CHECK(cmx_chain(c, steps, CMX_CHAIN_MAX + 1, NULL, &all) ==
	      CMX_E_LIMIT);
	o.concurrency = 0;
	CHECK(cmx_batch(c, texts, 2, &o, &all) == CMX_E_INVALID);
	CHECK(strstr(cmx_last_error(), "concurrency"));
	o.concurrency = CMX_CONCURRENCY_MAX + 1;
	CHECK(cmx_batch(c, texts, 2, &o, &all) == CMX_E_INVALID);
	o.concurrency = CMX_CONCURRENCY_MAX;
	o.timeout_ms = -1;
	CHECK(cmx_batch(c, texts, 2, &o, &all) == CMX_E_INVALID);
	o.timeout_ms = 0;
	o.struct_size = 0;
	CHECK(cmx_batch(c, texts, 2, &o, &all) == CMX_E_INVALID);
	CHECK(!all);
	CHECK(cmx_start_batch(c, texts, 2, NULL, NULL, NULL, NULL) ==
	      CMX_E_INVALID);
	/* Every one is at fault, none is forgotten. */
	CHECK(cmx_batch(c, texts, 2, NULL, &all) == CMX_E_PARTIAL);
	CHECK(all->count == 2 && all->items[1]->code == CMX_E_INVALID);
	CHECK(!all->items[1]->submitted && all->items[1]->progress);
	cmx_results_free(all);
	steps[1].workflow = "{\"1\": {\"class_type\": \"X\", \"inputs\": {}}}";
	steps[1].params = "[";
	CHECK(cmx_chain(c, steps, 2, NULL, &all) == CMX_E_PARTIAL);
	CHECK(all->count == 2);
	CHECK(strstr(all->items[0]->text, "NULL"));
	CHECK(strstr(all->items[1]->text, "params"));
	cmx_results_free(all);
}

/* bad: needs nobody to answer */
static int do_bad(void)
{
	struct cmx *c;

	bad_client();
	bad_null_client();
	c = new_client();
	bad_runs(c);
	bad_ids(c);
	bad_many(c);
	cmx_free(c);
	CHECK(strlen(cmx_strerror(-9999)) > 0 && strlen(cmx_strerror(9)) > 0);
	for (int i = CMX_E_PARTIAL; i <= 0; i++)
		CHECK(strlen(cmx_strerror(i)) > 0);
	CHECK(cmx_status_name((enum cmx_status)77));
	CHECK(cmx_method_name((enum cmx_method)77));
	puts("done");
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
	int args;
} commands[] = {
	{"run", do_run, 1},
	{"plain", do_plain, 1},
	{"available", do_available, 0},
	{"watch", do_watch, 1},
	{"leave", do_leave, 1},
	{"loop", do_loop, 1},
	{"free", do_free, 1},
	{"loop-free", do_loop_free, 1},
	{"cancel", do_cancel, 1},
	{"cancel-other", do_cancel_other, 1},
	{"drop", do_drop, 1},
	{"batch", do_batch, 2},
	{"chain", do_chain, 1},
	{"leaks", do_leaks, 2},
	{"threads", do_threads, 1},
	{"fork", do_fork, 1},
	{"log", do_log, 1},
	{"bad", do_bad, 0},
};

int main(int argc, char **argv)
{
	args = argv + 2;
	arg_count = argc - 2;
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (argc > 1 && strcmp(argv[1], commands[i].name) == 0 &&
		    arg_count >= commands[i].args)
			return commands[i].run();
	}
	fprintf(stderr, "usage: library COMMAND ...\n");
	return 2;
}
