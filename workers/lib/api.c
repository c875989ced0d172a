/*
 * api.c - libcomfymux: clients, and how control comes into the library and
 * goes back to the program; see comfymux.h.
 *
 * SIGPIPE: libcurl's TLS library writes without MSG_NOSIGNAL. While control is
 * in the library the signal is blocked in the calling thread, and one that
 * came of it is taken off; in callbacks the program has its own mask.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdutil.h"
#include "common/http.h"
#include "common/log.h"
#include "common/utf8.h"
#include "common/version.h"
#include "workers/lib/lib.h"
#include "workers/lib/loop.h"

#define STRUCT_SIZE_MAX 4096 /* bytes of options, in whatever version */

_Static_assert(CMX_PROMPT_ID_MAX == PROGRESS_ID_MAX, "as documented");

/* --- errors --------------------------------------------------------------- */

static _Thread_local char last_error[ERROR_TEXT_MAX];

void lib_set_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(last_error, sizeof(last_error), fmt, ap);
	va_end(ap);
}

int lib_code(enum error_code code)
{
	static const int codes[] = {
		[ERR_NONE] = CMX_OK,
		[ERR_INVALID] = CMX_E_INVALID,
		[ERR_CONFIG] = CMX_E_CONFIG,
		[ERR_NOT_FOUND] = CMX_E_NOT_FOUND,
		[ERR_DENIED] = CMX_E_DENIED,
		[ERR_LIMIT] = CMX_E_LIMIT,
		[ERR_BUSY] = CMX_E_LIMIT,
		[ERR_REJECTED] = CMX_E_REJECTED,
		[ERR_UNREACHABLE] = CMX_E_UNREACHABLE,
		[ERR_TIMEOUT] = CMX_E_TIMEOUT,
		[ERR_CANCELLED] = CMX_E_CANCELLED,
		[ERR_LOST] = CMX_E_FAILED,
		[ERR_PROTOCOL] = CMX_E_PROTOCOL,
		[ERR_SYSTEM] = CMX_E_SYSTEM,
		[ERR_INTERNAL] = CMX_E_INTERNAL,
	};
	STATIC_ASSERT_ARRAY_SIZE(codes, ERR_CODE_COUNT);

	return codes[code];
}

static int fail_errno(int errnum, const char *what)
{
	struct error err;

	(void)error_set_errno(&err, errnum, "%s", what);
	return lib_fail(errnum == ENOMEM ? CMX_E_NOMEM : CMX_E_SYSTEM, "%s",
	                err.text);
}

const char *cmx_last_error(void)
{
	return last_error;
}

const char *cmx_strerror(int code)
{
	static const char *const texts[] = {
		[-CMX_OK] = "all went well",
		[-CMX_E_INVALID] = "invalid argument",
		[-CMX_E_NOMEM] = "out of memory",
		[-CMX_E_CONFIG] = "bad configuration",
		[-CMX_E_UNREACHABLE] = "no answer",
		[-CMX_E_DENIED] = "permission denied",
		[-CMX_E_REJECTED] = "refused by ComfyUI",
		[-CMX_E_FAILED] = "the prompt failed",
		[-CMX_E_TIMEOUT] = "not done in time",
		[-CMX_E_CANCELLED] = "cancelled",
		[-CMX_E_NOT_FOUND] = "not found",
		[-CMX_E_LIMIT] = "a bound was reached",
		[-CMX_E_BUSY] = "would block inside a callback",
		[-CMX_E_FORKED] = "the client is another process's",
		[-CMX_E_PROTOCOL] = "the other side broke the protocol",
		[-CMX_E_SYSTEM] = "the operating system refused",
		[-CMX_E_INTERNAL] = "internal error",
		[-CMX_E_PARTIAL] = "some did not complete",
	};
	STATIC_ASSERT_ARRAY_SIZE(texts, -CMX_E_PARTIAL + 1);

	if (code > 0 || code < CMX_E_PARTIAL)
		return code > 0 ? texts[0] : "unknown error";
	return texts[-code];
}

const char *cmx_version(void)
{
	return comfymux_version;
}

/* --- the process ---------------------------------------------------------- */

static struct {
	pthread_once_t once;
	struct error err;
	cmx_log_fn *log;
	void *log_user;
} process = {.once = PTHREAD_ONCE_INIT};

static void start_process(void)
{
	log_open("libcomfymux", LOG_TO_HOOK, LOG_LEVEL_ERROR);
	process.err = (struct error)ERROR_NULL;
	(void)http_global_init(&process.err);
}

static void on_log(void *user, enum log_level level, const char *module,
                   const char *text)
{
	process.log(process.log_user, (enum cmx_log_level)level, text);
}

void cmx_set_log(cmx_log_fn *fn, void *user, enum cmx_log_level level)
{
	_Static_assert((int)CMX_LOG_DEBUG == (int)LOG_LEVEL_DEBUG &&
	                       (int)CMX_LOG_ERROR == (int)LOG_LEVEL_ERROR,
	               "the same levels");

	(void)pthread_once(&process.once, start_process);
	process.log = fn;
	process.log_user = user;
	log_set_level(level > CMX_LOG_DEBUG ? LOG_LEVEL_DEBUG
	                                    : (enum log_level)level);
	log_set_hook(fn ? on_log : NULL, NULL);
}

/* Elsewhere descriptors that somebody pushes at us are closed by a process of
 * their own, for that may take time. A library forks nothing, and its one peer
 * is a supervisor that it trusts. */
void fd_discard(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
}

/* --- in and out ----------------------------------------------------------- */

static void block_sigpipe(struct cmx *c)
{
	sigset_t sigpipe, pending;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	sigemptyset(&pending);
	(void)sigpending(&pending);
	c->sigpipe_was_pending = sigismember(&pending, SIGPIPE) == 1;
	(void)pthread_sigmask(SIG_BLOCK, &sigpipe, &c->mask);
}

static void unblock_sigpipe(bool was_pending, const sigset_t *mask)
{
	const struct timespec no_wait = {0};
	sigset_t sigpipe;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	while (!was_pending && sigtimedwait(&sigpipe, NULL, &no_wait) > 0)
		;
	(void)pthread_sigmask(SIG_SETMASK, mask, NULL);
}

static void free_all(struct list *things)
{
	struct lib_thing *t;

	while (!list_empty(things)) {
		t = list_first(things, struct lib_thing, node);
		list_del(&t->node);
		t->free(t);
	}
}

/* Everything that it has. */
static void destroy(struct cmx *c)
{
	free_all(&c->dead);
	free_all(&c->tasks);
	free_all(&c->subscriptions);
	lib_link_free(c);
	loop_free(c->loop);
	config_deinit(&c->cfg);
	free(c->comfyui);
	free(c->socket);
	free(c->config);
	free(c);
}

int lib_enter(struct cmx *c, enum lib_entry how)
{
	if (!c)
		return lib_fail(CMX_E_INVALID, "the client is NULL");
	if (c->pid != getpid())
		return lib_fail(CMX_E_FORKED,
		                "the client was made by process %ld, before a "
		                "fork; make one in this process",
		                (long)c->pid);
	if (c->freed)
		return lib_fail(CMX_E_CANCELLED, "the client was freed");
	if (how == LIB_BLOCKS && c->in_turn)
		return lib_fail(CMX_E_BUSY,
		                "a function that blocks was called inside a "
		                "callback of the same client");
	if (c->entered++ == 0)
		block_sigpipe(c);
	return 0;
}

int lib_leave(struct cmx *c, int r)
{
	bool was_pending = c->sigpipe_was_pending;
	sigset_t mask = c->mask;
	int armed;

	if (--c->entered > 0)
		return r;
	if (c->freed) {
		destroy(c);
		r = lib_fail(CMX_E_CANCELLED,
		             "the client was freed in a callback");
	} else {
		armed = loop_arm(c->loop);
		if (armed < 0 && r >= 0)
			r = fail_errno(-armed, "cannot set a timer");
	}
	unblock_sigpipe(was_pending, &mask);
	return r;
}

bool lib_tell_begin(struct cmx *c)
{
	if (c->freed)
		return false;
	c->telling = true;
	unblock_sigpipe(c->sigpipe_was_pending, &c->mask);
	return true;
}

void lib_tell_end(struct cmx *c)
{
	block_sigpipe(c);
	c->telling = false;
}

void lib_thing_add(struct list *kind, struct lib_thing *t,
                   void (*free_it)(struct lib_thing *t))
{
	t->free = free_it;
	t->dead = false;
	list_append(kind, &t->node);
}

void lib_thing_drop(struct cmx *c, struct lib_thing *t)
{
	if (t->dead)
		return;
	list_del(&t->node);
	t->dead = true;
	if (c->in_turn)
		list_append(&c->dead, &t->node);
	else
		t->free(t);
}

bool lib_turn(struct cmx *c, bool wait, int *rp)
{
	int r;

	c->in_turn = true;
	r = loop_turn(c->loop, wait);
	c->in_turn = false;
	free_all(&c->dead);
	*rp = r < 0 ? fail_errno(-r, "cannot wait for events") : 0;
	return r >= 0 && !c->freed;
}

int lib_run_until(struct cmx *c, const bool *donep)
{
	int r = 0;

	while (!*donep && lib_turn(c, true, &r))
		;
	return r;
}

int cmx_fd(struct cmx *c)
{
	int r = lib_enter(c, LIB_QUICK);

	if (r < 0)
		return r;
	r = loop_fd(c->loop);
	if (r < 0)
		r = fail_errno(-r, "cannot make a timer");
	return lib_leave(c, r);
}

int cmx_dispatch(struct cmx *c)
{
	int r = lib_enter(c, LIB_BLOCKS);

	if (r < 0)
		return r;
	(void)lib_turn(c, false, &r);
	return lib_leave(c, r);
}

/* 1: there is something to do. */
static int wait_for_fd(struct cmx *c, int timeout_ms)
{
	struct pollfd p = {.events = POLLIN};
	int r = loop_fd(c->loop);

	p.fd = r;
	if (r >= 0)
		r = loop_arm(c->loop);
	if (r < 0)
		return fail_errno(-r, "cannot make a timer");
	r = poll(&p, 1, timeout_ms);
	if (r < 0 && errno != EINTR)
		return fail_errno(errno, "cannot wait for events");
	return r > 0;
}

int cmx_wait(struct cmx *c, int64_t timeout_ms)
{
	int r;

	if (timeout_ms > CMX_TIMEOUT_MAX_MS)
		return lib_fail(CMX_E_INVALID,
		                "a timeout of more than %d ms; a negative one "
		                "waits without end",
		                CMX_TIMEOUT_MAX_MS);
	r = lib_enter(c, LIB_BLOCKS);
	if (r < 0)
		return r;
	r = wait_for_fd(c, timeout_ms < 0 ? -1 : (int)timeout_ms);
	if (r > 0 && lib_turn(c, false, &r))
		r = 1;
	return lib_leave(c, r);
}

/* --- clients -------------------------------------------------------------- */

static int load_config(const struct cmx *c, struct config *cfg,
                       struct error *err)
{
	struct config_flag flags[2];
	struct config_sources src = {.file = c->config, .flags = flags};

	if (c->comfyui)
		flags[src.flag_count++] =
			(struct config_flag){"comfyui", c->comfyui};
	if (c->socket)
		flags[src.flag_count++] =
			(struct config_flag){"socket", c->socket};
	return config_load(cfg, &src, err);
}

static bool copy_option(char **to, const char *from)
{
	if (!from)
		return true;
	*to = strdup(from);
	return *to != NULL;
}

static int client_init(struct cmx *c, const struct cmx_options *o,
                       struct error *err)
{
	list_init(&c->subscriptions);
	list_init(&c->tasks);
	list_init(&c->dead);
	c->pid = getpid();
	c->no_events = o->no_events;
	backoff_init(&c->backoff, backoff_link_ms, ARRAY_SIZE(backoff_link_ms),
	             10, (uint64_t)clock_us());
	if (!copy_option(&c->comfyui, o->comfyui) ||
	    !copy_option(&c->socket, o->socket) ||
	    !copy_option(&c->config, o->config))
		return error_set_nomem(err, "a client");
	c->loop = loop_new();
	if (!c->loop)
		return error_set_errno(err, errno, "cannot make an epoll set");
	if (load_config(c, &c->cfg, err)) {
		err->code = ERR_CONFIG;
		return -1;
	}
	return lib_link_renew(c, &c->cfg, err);
}

int cmx_new(struct cmx **clientp, const struct cmx_options *options)
{
	struct cmx_options o = {.struct_size = sizeof(o)};
	struct error err;
	struct cmx *c;

	if (!clientp)
		return lib_fail(CMX_E_INVALID, "no place for the client");
	*clientp = NULL;
	if (options && lib_read_struct(&o, sizeof(o), options) < 0)
		return CMX_E_INVALID;
	(void)pthread_once(&process.once, start_process);
	if (process.err.code != ERR_NONE)
		return lib_fail_with(&process.err);
	c = calloc(1, sizeof(*c));
	if (!c)
		return lib_fail(CMX_E_NOMEM, "out of memory: a client");
	if (client_init(c, &o, &err)) {
		destroy(c);
		return lib_fail_with(&err);
	}
	*clientp = c;
	return 0;
}

void cmx_free(struct cmx *c)
{
	bool was_pending;
	sigset_t mask;

	if (!c || c->pid != getpid() || c->freed)
		return;
	if (c->entered > 0) {
		c->freed = true;
		return;
	}
	/* A TLS connection says good-bye. */
	block_sigpipe(c);
	was_pending = c->sigpipe_was_pending;
	mask = c->mask;
	destroy(c);
	unblock_sigpipe(was_pending, &mask);
}

int cmx_reset(struct cmx *c)
{
	struct config fresh;
	struct error err;
	int r = lib_enter(c, LIB_BLOCKS);

	if (r < 0)
		return r;
	if (load_config(c, &fresh, &err))
		return lib_leave(c, lib_fail(CMX_E_CONFIG, "%s", err.text));
	free_all(&c->tasks);
	free_all(&c->subscriptions);
	if (lib_link_renew(c, &fresh, &err)) {
		config_deinit(&fresh);
		return lib_leave(c, lib_fail_with(&err));
	}
	config_deinit(&c->cfg);
	c->cfg = fresh;
	backoff_reset(&c->backoff);
	return lib_leave(c, r);
}

/* --- arguments ------------------------------------------------------------ */

/* A program that was compiled with an older header gives less; of one that was
 * with a newer one the rest must be zero. */
int lib_read_struct(void *to, size_t size, const void *from)
{
	const char *bytes = from;
	size_t n;

	memset(to, 0, size);
	memcpy(&n, from, sizeof(n));
	if (n < sizeof(n) || n > STRUCT_SIZE_MAX)
		return lib_fail(CMX_E_INVALID,
		                "struct_size of the options is not their size");
	for (size_t i = size; i < n; i++) {
		if (bytes[i] != 0)
			return lib_fail(CMX_E_INVALID,
			                "an option that this version of the "
			                "library doesn't know");
	}
	memcpy(to, from, n < size ? n : size);
	return 0;
}

int lib_check_prompt_id(const char *id)
{
	size_t len, n;

	if (!id)
		return lib_fail(CMX_E_INVALID, "the prompt id is NULL");
	len = strnlen(id, PROGRESS_ID_MAX + 1);
	if (len == 0 || len > PROGRESS_ID_MAX)
		return lib_fail(CMX_E_INVALID, "a prompt id has 1 to %d bytes",
		                PROGRESS_ID_MAX);
	for (size_t i = 0; i < len; i += n) {
		n = utf8_char_len((const unsigned char *)id + i, len - i);
		if (n == 0 || (unsigned char)id[i] < 0x20 || id[i] == 0x7f)
			return lib_fail(CMX_E_INVALID,
			                "the prompt id holds control "
			                "characters, or is not UTF-8");
	}
	return 0;
}

int lib_check_timeout(int64_t *timeout_msp)
{
	if (*timeout_msp < 0 || *timeout_msp > CMX_TIMEOUT_MAX_MS)
		return lib_fail(CMX_E_INVALID,
		                "the timeout is 1 to %d ms, or 0 for %d ms",
		                CMX_TIMEOUT_MAX_MS, CMX_TIMEOUT_MS);
	if (*timeout_msp == 0)
		*timeout_msp = CMX_TIMEOUT_MS;
	return 0;
}
