/*
 * keeper.c - see keeper.h.
 *
 * A successor starts only after the end of the session channel was seen: what
 * the old worker had sent whole is read first, so no answer is given twice.
 */
#include "workers/front/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/json_span.h"
#include "common/list.h"
#include "common/log.h"
#include "ipc/channel.h"
#include "ipc/client.h"
#include "workers/front/autostart.h"
#include "workers/front/files.h"
#include "workers/front/spawn.h"

#define HELLO_MAX 16384
#define REPLY_MAX 8192

struct pending {
	struct list node;
	uint64_t line;
	struct buf payload;
	char *path; /* may be written for it; NULL: none */
	struct buf records[KEEPER_RECORDS_MAX];
	size_t record_count;
	unsigned faults;
	bool cancelled;
};

struct keeper {
	struct ev_loop *loop;
	struct keeper_config kc;
	struct keeper_handlers h;
	void *user;
	struct list pending; /* in order of their numbers */
	size_t pending_count, pending_bytes;
	uint64_t next_line;
	struct files files;
	struct buf session; /* the worker's record of itself, the latest */
	/* the worker */
	pid_t pid; /* 0: none */
	ev_child child;
	struct channel channel;
	ev_io reader, writer;
	ev_timer ready_timer;
	bool ready, exited, reading_over;
	bool paused; /* nothing is read from it */
	bool ended;  /* keeper_end() */
	int status;  /* of its end */
	unsigned early_deaths;
	/* looking for a supervisor */
	ev_timer rebus;
	double rebus_s;
	ev_io starting; /* a supervisor; active while that goes on */
	ev_tstamp start_failed;
	bool *freed; /* set when a callback frees the keeper */
};

static int worker_start(struct keeper *k, int bus_fd, struct error *err);
static void worker_check_end(struct keeper *k);

/* --- unanswered requests ------------------------------------------------- */

static struct pending *pending_find(struct keeper *k, uint64_t line)
{
	struct list *it;

	list_for_each (it, &k->pending) {
		struct pending *p = list_entry(it, struct pending, node);

		if (p->line == line)
			return p;
	}
	return NULL;
}

static void pending_free(struct keeper *k, struct pending *p)
{
	list_del(&p->node);
	k->pending_count--;
	k->pending_bytes -= p->payload.len;
	for (size_t i = 0; i < p->record_count; i++)
		buf_deinit(&p->records[i]);
	buf_deinit(&p->payload);
	free(p->path);
	free(p);
}

static void pending_record(struct pending *p, struct span bytes)
{
	struct buf *b;

	if (p->record_count == KEEPER_RECORDS_MAX) {
		/* The latest checkpoint says more than the one before it; the
		 * first record is the intent and stays. */
		buf_reset(&p->records[KEEPER_RECORDS_MAX - 1]);
		b = &p->records[KEEPER_RECORDS_MAX - 1];
	} else {
		b = &p->records[p->record_count++];
		buf_init(b, CHANNEL_PAYLOAD_MAX);
	}
	if (buf_append(b, bytes.p, bytes.n) < 0)
		log_error("keeper", "out of memory for a record (line=%llu)",
		          (unsigned long long)p->line);
}

static void session_record(struct keeper *k, struct span bytes)
{
	buf_reset(&k->session);
	if (buf_append(&k->session, bytes.p, bytes.n) < 0) {
		log_error("keeper", "the session's record (%zu bytes) is lost",
		          bytes.n);
		buf_reset(&k->session);
	}
}

/* --- sending ------------------------------------------------------------- */

static void send_frame(struct keeper *k, enum channel_type type, uint64_t line,
                       struct span payload, int fd)
{
	int r = channel_send(&k->channel, type, line, payload, fd);

	if (r < 0) {
		/* The worker takes nothing, or we are out of memory: its end
		 * and the replay are the way out of both. */
		log_error("keeper", "cannot send %s to the worker: %s",
		          channel_type_name(type), strerror(-r));
		if (k->pid > 0)
			(void)kill(k->pid, SIGKILL);
		return;
	}
	ev_io_start(k->loop, &k->writer);
}

static void send_hello(struct keeper *k, bool bus)
{
	const struct config *c = k->kc.cfg;
	cleanup_buf struct buf b = BUF_INIT(HELLO_MAX);

	(void)buf_putc(&b, '{');
	(void)buf_json_key(&b, "kind");
	(void)buf_json_string(&b, k->kc.kind, strlen(k->kc.kind));
	(void)buf_json_key(&b, "comfyui");
	(void)buf_json_string(&b, c->comfyui, strlen(c->comfyui));
	(void)buf_json_key(&b, "ca_file");
	(void)buf_json_string(&b, c->ca_file, strlen(c->ca_file));
	(void)buf_json_key(&b, "proxy");
	(void)buf_json_string(&b, c->proxy, strlen(c->proxy));
	(void)buf_printf(&b,
	                 ",\"comfyui_named\":%s,\"bus\":%s,"
	                 "\"connect_timeout_ms\":%lld,"
	                 "\"request_timeout_ms\":%lld,"
	                 "\"poll_interval_ms\":%lld,"
	                 "\"mcp_wait_ms\":%lld,\"mcp_cancel\":\"%s\","
	                 "\"log_level\":\"%s\"",
	                 k->kc.comfyui_named ? "true" : "false",
	                 bus ? "true" : "false",
	                 (long long)c->connect_timeout_ms,
	                 (long long)c->request_timeout_ms,
	                 (long long)c->poll_interval_ms,
	                 (long long)c->default_wait_s * 1000, c->cancel_policy,
	                 c->log_level);
	if (!bus && k->kc.no_bus) {
		(void)buf_json_key(&b, "no_bus");
		(void)buf_json_string(&b, k->kc.no_bus, strlen(k->kc.no_bus));
	}
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b)) {
		log_error("keeper",
		          "the configuration is too long to pass on "
		          "(over %d bytes)",
		          HELLO_MAX);
		return;
	}
	send_frame(k, CHANNEL_HELLO, 0, span_make(b.data, b.len), -1);
}

static void send_request(struct keeper *k, const struct pending *p)
{
	for (size_t i = 0; i < p->record_count; i++)
		send_frame(k, CHANNEL_RECORD, p->line,
		           span_make(p->records[i].data, p->records[i].len),
		           -1);
	send_frame(k, CHANNEL_REQUEST, p->line,
	           span_make(p->payload.data, p->payload.len), -1);
	if (p->cancelled)
		send_frame(k, CHANNEL_CANCEL, p->line, SPAN_NULL, -1);
}

/* --- files --------------------------------------------------------------- */

static void answer_file(struct keeper *k, enum channel_type type, uint64_t line,
                        uint64_t token, const struct error *failure,
                        const char *path, int fd)
{
	cleanup_buf struct buf b = BUF_INIT(REPLY_MAX);

	(void)buf_printf(&b, "{\"token\":%llu", (unsigned long long)token);
	if (failure) {
		const char *why = error_code_name(failure->code);

		(void)buf_puts(&b, ",\"error\":{\"type\":");
		(void)buf_json_string(&b, why, strlen(why));
		(void)buf_json_key(&b, "message");
		(void)buf_json_string(&b, failure->text, strlen(failure->text));
		(void)buf_putc(&b, '}');
	}
	if (path) {
		(void)buf_json_key(&b, "path");
		(void)buf_json_string(&b, path, strlen(path));
	}
	(void)buf_putc(&b, '}');
	send_frame(k, type, line, span_make(b.data, b.len), fd);
}

/* Only what its request's own user named. */
static int check_open(struct keeper *k, const struct pending *p,
                      const char *path, bool write, struct error *err)
{
	struct span request;

	if (!p)
		return error_set(err, ERR_NOT_FOUND,
		                 "the request is answered already");
	if (!k->h.may_open)
		return write && p->path
		               ? 0
		               : error_set(err, ERR_DENIED,
		                           "this request names no file to "
		                           "write");
	request = span_make(p->payload.data, p->payload.len);
	return path && k->h.may_open(k->user, request, path)
	               ? 0
	               : error_set(err, ERR_DENIED,
	                           "this request doesn't name the file");
}

static void on_open(struct keeper *k, const struct pending *p, struct json body,
                    uint64_t token)
{
	struct error err = ERROR_NULL;
	cleanup_free char *name = json_string_dup(json_get(body, "name"), 4096);
	cleanup_free char *path = json_string_dup(json_get(body, "path"), 4096);
	cleanup_close int reading = -1;
	bool write = false, overwrite = false;
	int fd = -1;

	(void)json_bool(json_get(body, "write"), &write);
	(void)json_bool(json_get(body, "overwrite"), &overwrite);
	if (check_open(k, p, path, write, &err) == 0) {
		if (write)
			(void)files_create(&k->files, token,
			                   k->h.may_open ? path : p->path,
			                   name ? name : "", overwrite, &fd,
			                   &err);
		else
			fd = reading = files_open(path, &err);
	}
	answer_file(k, CHANNEL_FILE, p ? p->line : 0, token,
	            fd < 0 ? &err : NULL, NULL, fd);
}

static void on_close_file(struct keeper *k, uint64_t line, struct json body,
                          uint64_t token)
{
	struct error err = ERROR_NULL;
	cleanup_free char *path = NULL;
	bool keep = false;

	(void)json_bool(json_get(body, "keep"), &keep);
	if (!keep) {
		files_drop(&k->files, token);
		(void)error_set(&err, ERR_CANCELLED, "dropped");
	} else {
		(void)files_commit(&k->files, token, &path, &err);
	}
	answer_file(k, CHANNEL_CLOSED, line, token, path ? NULL : &err, path,
	            -1);
}

static void on_file_frame(struct keeper *k, const struct channel_frame *f)
{
	struct json body;
	uint64_t token;

	if (json_parse(&body, f->payload.p, f->payload.n, 0, NULL) != JSON_OK ||
	    !json_uint64(json_get(body, "token"), &token)) {
		log_warn("keeper", "the worker sent a %s that is none",
		         channel_type_name(f->type));
		return;
	}
	if (f->type == CHANNEL_OPEN)
		on_open(k, pending_find(k, f->line), body, token);
	else
		on_close_file(k, f->line, body, token);
}

/* --- the bus ------------------------------------------------------------- */

static void on_rebus(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, rebus);
	struct error err = ERROR_NULL;
	int fd = client_connect(k->kc.cfg, NULL, &err);

	if (fd >= 0) {
		send_frame(k, CHANNEL_BUS, 0, SPAN_NULL, fd);
		(void)close(fd);
		k->rebus_s = KEEPER_REBUS_MS_MIN / 1000.0;
		return;
	}
	/* Only while somebody waits for an answer: an idle session looks again
	 * when it is asked something. */
	if (list_empty(&k->pending))
		return;
	k->rebus_s *= 2;
	if (k->rebus_s > KEEPER_REBUS_MS_MAX / 1000.0)
		k->rebus_s = KEEPER_REBUS_MS_MAX / 1000.0;
	ev_timer_set(&k->rebus, k->rebus_s, 0.);
	ev_timer_start(loop, &k->rebus);
}

static void look_for_bus(struct keeper *k)
{
	if (ev_is_active(&k->rebus))
		return;
	ev_timer_set(&k->rebus, k->rebus_s, 0.);
	ev_timer_start(k->loop, &k->rebus);
}

/* Looks once, and tells the worker what came of it. */
static void answer_bus(struct keeper *k, const char *why)
{
	struct error err = ERROR_NULL;
	int fd = client_connect(k->kc.cfg, NULL, &err);

	if (fd >= 0) {
		ev_timer_stop(k->loop, &k->rebus);
		k->rebus_s = KEEPER_REBUS_MS_MIN / 1000.0;
	}
	send_frame(k, CHANNEL_BUS, 0,
	           fd >= 0 ? SPAN_NULL : SPAN(why ? why : err.text), fd);
	if (fd >= 0)
		(void)close(fd);
}

static void on_started(struct ev_loop *loop, ev_io *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, starting);
	struct error err = ERROR_NULL;
	int fd = w->fd;
	bool ok;

	ev_io_stop(loop, w);
	ok = autostart_finish(fd, &err);
	if (!ok)
		k->start_failed = ev_now(loop);
	answer_bus(k, ok ? NULL : err.text);
}

/* Starts a supervisor if there is none and that is wanted; the worker hears of
 * it later. */
static void start_bus(struct keeper *k)
{
	struct error err = ERROR_NULL;
	int fd = client_connect(k->kc.cfg, NULL, &err);
	bool again = k->start_failed == 0. ||
	             ev_now(k->loop) - k->start_failed > KEEPER_RESTART_S;

	if (fd >= 0) {
		(void)close(fd);
	} else if (err.code == ERR_UNREACHABLE && again &&
	           !ev_is_active(&k->starting)) {
		fd = autostart_begin(k->kc.cfg, &err);
		if (fd >= 0) {
			ev_io_set(&k->starting, fd, EV_READ);
			ev_io_start(k->loop, &k->starting);
			return;
		}
	}
	answer_bus(k, NULL);
}

static void on_want_bus(struct keeper *k, struct span how)
{
	if (span_eq_str(how, "start"))
		start_bus(k);
	else if (span_eq_str(how, "look"))
		answer_bus(k, NULL);
	else
		look_for_bus(k);
}

/* --- the worker ---------------------------------------------------------- */

static void on_frame(struct keeper *k, const struct channel_frame *f)
{
	struct pending *p;

	switch (f->type) {
	case CHANNEL_READY:
		k->ready = true;
		k->early_deaths = 0;
		ev_timer_stop(k->loop, &k->ready_timer);
		break;
	case CHANNEL_OUTPUT:
		if (pending_find(k, f->line))
			k->h.on_output(k->user, f->line, f->payload);
		break;
	case CHANNEL_RECORD:
		if (f->line == 0)
			session_record(k, f->payload);
		p = pending_find(k, f->line);
		if (p)
			pending_record(p, f->payload);
		break;
	case CHANNEL_RESPONSE:
		p = pending_find(k, f->line);
		if (p) {
			pending_free(k, p);
			k->h.on_response(k->user, f->line, f->payload);
		}
		break;
	case CHANNEL_OPEN:
	case CHANNEL_CLOSE:
		on_file_frame(k, f);
		break;
	case CHANNEL_WANT_BUS:
		on_want_bus(k, f->payload);
		break;
	case CHANNEL_LOG:
		k->h.on_log(k->user, f->payload);
		break;
	default:
		log_warn("keeper", "unexpected %s from the worker",
		         channel_type_name(f->type));
	}
}

/* Frames that came whole. False: the keeper is gone, paused, or done with this
 * worker. */
static bool take_frames(struct keeper *k)
{
	struct channel_frame f;
	struct error err = ERROR_NULL;
	bool freed = false;
	int n;

	k->freed = &freed;
	while (!k->paused && (n = channel_next(&k->channel, &f, &err)) != 0) {
		if (n < 0) {
			log_error("keeper", "the worker sent garbage: %s",
			          err.text);
			(void)kill(k->pid, SIGKILL);
			k->channel.eof = true;
			break;
		}
		on_frame(k, &f);
		if (f.fd >= 0)
			(void)close(f.fd);
		if (freed)
			return false;
	}
	k->freed = NULL;
	return !k->paused;
}

/* What had come was taken: is more to be expected? */
static void reading_done(struct keeper *k)
{
	if (!k->channel.eof)
		return;
	ev_io_stop(k->loop, &k->reader);
	ev_io_stop(k->loop, &k->writer);
	k->reading_over = true;
	worker_check_end(k);
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, reader);
	int r = channel_read(&k->channel);

	if (r < 0)
		k->channel.eof = true;
	if (take_frames(k))
		reading_done(k);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, writer);

	size_t before = channel_queued(&k->channel);

	/* A worker that is gone is noticed by the reader, after what it still
	 * had to say. */
	if (channel_flush(&k->channel) < 0 || !channel_wants_write(&k->channel))
		ev_io_stop(loop, &k->writer);
	if (k->h.on_room && before >= KEEPER_BACKLOG_LOW &&
	    channel_queued(&k->channel) < KEEPER_BACKLOG_LOW)
		k->h.on_room(k->user);
}

static void on_child(struct ev_loop *loop, ev_child *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, child);

	ev_child_stop(loop, w);
	k->exited = true;
	k->status = w->rstatus;
	worker_check_end(k);
}

/* Stopped, or stuck before it ever read: SIGSTOP is no EOF, so the wait has an
 * end. */
static void on_not_ready(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct keeper *k = container_of(w, struct keeper, ready_timer);

	log_error("keeper", "the worker did not get ready within %d s",
	          KEEPER_READY_MS / 1000);
	(void)kill(k->pid, SIGKILL);
}

static bool is_fault(int status)
{
	if (!WIFSIGNALED(status))
		return false;
	switch (WTERMSIG(status)) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
	case SIGSYS:
		return true;
	default:
		return false;
	}
}

static void log_obituary(const struct keeper *k)
{
	if (WIFSIGNALED(k->status))
		log_warn("keeper", "the worker (pid %d) was killed by %s",
		         (int)k->pid, strsignal(WTERMSIG(k->status)));
	else
		log_warn("keeper", "the worker (pid %d) exited with status %d",
		         (int)k->pid, WEXITSTATUS(k->status));
}

/* Gives a request up. */
static void request_fail(struct keeper *k, struct pending *p,
                         const struct error *err)
{
	cleanup_buf struct buf request = p->payload;
	uint64_t line = p->line;

	/* pending_free() counts and frees it. */
	k->pending_bytes -= request.len;
	buf_init(&p->payload, CHANNEL_PAYLOAD_MAX);
	pending_free(k, p);
	if (k->h.on_failed) {
		k->h.on_failed(k->user, span_make(request.data, request.len),
		               err);
	} else {
		cleanup_buf struct buf b = BUF_INIT(REPLY_MAX);

		(void)buf_puts(&b, "{\"ok\":false,\"error\":{\"type\":"
		                   "\"internal\"");
		(void)buf_json_key(&b, "message");
		(void)buf_json_string(&b, err->text, strlen(err->text));
		(void)buf_puts(&b, "}}");
		k->h.on_response(k->user, line, span_make(b.data, b.len));
	}
}

/* Answers the requests that crashed two workers. False: a callback freed the
 * keeper. */
static bool blame(struct keeper *k)
{
	struct list *it, *next;
	struct error err = ERROR_NULL;
	bool freed = false;

	(void)error_set(&err, ERR_INTERNAL,
	                "this request crashed the worker twice; it is not "
	                "tried again");
	k->freed = &freed;
	list_for_each_safe (it, next, &k->pending) {
		struct pending *p = list_entry(it, struct pending, node);

		if (++p->faults < KEEPER_FAULTS_MAX)
			continue;
		request_fail(k, p, &err);
		if (freed)
			return false;
	}
	k->freed = NULL;
	return true;
}

/* The session is over; `err` NULL: as it should be. */
static void give_up(struct keeper *k, const struct error *err)
{
	bool freed = false;

	k->freed = &freed;
	while (err && k->h.on_failed && !list_empty(&k->pending)) {
		request_fail(k, list_first(&k->pending, struct pending, node),
		             err);
		if (freed)
			return;
	}
	k->freed = NULL;
	k->h.on_gone(k->user, err);
}

static void worker_clear(struct keeper *k)
{
	ev_io_stop(k->loop, &k->reader);
	ev_io_stop(k->loop, &k->writer);
	ev_child_stop(k->loop, &k->child);
	ev_timer_stop(k->loop, &k->ready_timer);
	channel_deinit(&k->channel);
	files_deinit(&k->files);
	k->pid = 0;
	k->ready = k->exited = k->reading_over = false;
}

/* Its end is complete when both its words are read and its status is known. */
static void worker_check_end(struct keeper *k)
{
	struct error err = ERROR_NULL;
	int bus;

	if (!k->exited || !k->reading_over)
		return;
	if (k->ended && WIFEXITED(k->status) && WEXITSTATUS(k->status) == 0) {
		worker_clear(k);
		give_up(k, NULL);
		return;
	}
	log_obituary(k);
	k->early_deaths = k->ready ? 0 : k->early_deaths + 1;
	if (is_fault(k->status) && !blame(k))
		return;
	worker_clear(k);
	if (k->early_deaths >= KEEPER_EARLY_DEATHS) {
		(void)error_set(&err, ERR_SYSTEM,
		                "%u workers in a row died before they were "
		                "ready; see their messages above",
		                k->early_deaths);
		give_up(k, &err);
		return;
	}
	bus = client_connect(k->kc.cfg, NULL, NULL);
	if (worker_start(k, bus, &err) < 0)
		give_up(k, &err);
}

/* Consumes bus_fd. */
static int worker_start(struct keeper *k, int bus_fd, struct error *err)
{
	cleanup_close int bus = bus_fd, mine = -1, theirs = -1;
	struct list *it;
	int sv[2], r;

	r = fd_socketpair(sv, 0);
	if (r < 0)
		return error_set_errno(err, -r,
		                       "cannot make a session channel");
	mine = sv[0];
	theirs = sv[1];
	k->pid = spawn_worker(theirs, bus, err);
	if (k->pid < 0) {
		k->pid = 0;
		return -1;
	}
	ev_child_init(&k->child, on_child, k->pid, 0);
	ev_child_start(k->loop, &k->child);
	r = channel_init(&k->channel, mine, false);
	if (r < 0) {
		(void)kill(k->pid, SIGKILL);
		return error_set_errno(err, -r, "cannot use a session channel");
	}
	(void)steal_fd(&mine);
	ev_io_init(&k->reader, on_readable, k->channel.fd, EV_READ);
	ev_io_init(&k->writer, on_writable, k->channel.fd, EV_WRITE);
	if (!k->paused)
		ev_io_start(k->loop, &k->reader);
	ev_timer_set(&k->ready_timer, KEEPER_READY_MS / 1000.0, 0.);
	ev_timer_start(k->loop, &k->ready_timer);
	send_hello(k, bus >= 0);
	if (k->session.len > 0)
		send_frame(k, CHANNEL_RECORD, 0,
		           span_make(k->session.data, k->session.len), -1);
	list_for_each (it, &k->pending)
		send_request(k, list_entry(it, struct pending, node));
	if (k->ended)
		send_frame(k, CHANNEL_END, 0, SPAN_NULL, -1);
	return 0;
}

/* --- public -------------------------------------------------------------- */

struct keeper *keeper_new(struct ev_loop *loop, const struct keeper_config *kc,
                          const struct keeper_handlers *h, void *user,
                          struct error *err)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k) {
		if (kc->bus_fd >= 0)
			(void)close(kc->bus_fd);
		(void)error_set_nomem(err, "a session");
		return NULL;
	}
	k->loop = loop;
	k->kc = *kc;
	k->h = *h;
	k->user = user;
	k->next_line = 1;
	k->channel = (struct channel)CHANNEL_NULL;
	k->rebus_s = KEEPER_REBUS_MS_MIN / 1000.0;
	list_init(&k->pending);
	files_init(&k->files);
	ev_timer_init(&k->ready_timer, on_not_ready, 0., 0.);
	ev_timer_init(&k->rebus, on_rebus, 0., 0.);
	ev_io_init(&k->starting, on_started, -1, EV_READ);
	buf_init(&k->session, KEEPER_SESSION_MAX);
	if (worker_start(k, kc->bus_fd, err) < 0)
		return keeper_free(k);
	return k;
}

struct keeper *keeper_free(struct keeper *k)
{
	if (!k)
		return NULL;
	if (k->freed)
		*k->freed = true;
	ev_timer_stop(k->loop, &k->rebus);
	if (ev_is_active(&k->starting)) {
		ev_io_stop(k->loop, &k->starting);
		(void)close(k->starting.fd);
	}
	worker_clear(k);
	buf_deinit(&k->session);
	while (!list_empty(&k->pending))
		pending_free(k, list_first(&k->pending, struct pending, node));
	free(k);
	return NULL;
}

uint64_t keeper_request(struct keeper *k, struct span payload, const char *path,
                        struct error *err)
{
	struct pending *p;

	if (k->pending_count >= KEEPER_REQUESTS_MAX ||
	    k->pending_bytes + payload.n > KEEPER_PENDING_BYTES) {
		(void)error_set(err, ERR_LIMIT,
		                "%zu requests (%zu bytes) are unanswered "
		                "already",
		                k->pending_count, k->pending_bytes);
		return 0;
	}
	if (payload.n > CHANNEL_PAYLOAD_MAX) {
		(void)error_set(err, ERR_LIMIT,
		                "a request of %zu bytes is larger than the %u "
		                "that fit",
		                payload.n, CHANNEL_PAYLOAD_MAX);
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		(void)error_set_nomem(err, "a request");
		return 0;
	}
	buf_init(&p->payload, CHANNEL_PAYLOAD_MAX);
	list_init(&p->node);
	if (buf_append(&p->payload, payload.p, payload.n) < 0 ||
	    (path && !(p->path = strdup(path)))) {
		buf_deinit(&p->payload);
		free(p);
		(void)error_set_nomem(err, "a request");
		return 0;
	}
	p->line = k->next_line++;
	list_append(&k->pending, &p->node);
	k->pending_count++;
	k->pending_bytes += payload.n;
	/* While the worker changes, the successor gets it by the replay. */
	if (k->pid > 0 && !k->exited && !k->reading_over)
		send_request(k, p);
	return p->line;
}

void keeper_cancel(struct keeper *k, uint64_t line)
{
	struct pending *p = pending_find(k, line);

	if (!p || p->cancelled)
		return;
	p->cancelled = true;
	if (k->pid > 0 && !k->exited && !k->reading_over)
		send_frame(k, CHANNEL_CANCEL, line, SPAN_NULL, -1);
}

void keeper_end(struct keeper *k)
{
	k->ended = true;
	if (k->pid > 0 && !k->exited && !k->reading_over)
		send_frame(k, CHANNEL_END, 0, SPAN_NULL, -1);
}

void keeper_pause(struct keeper *k, bool paused)
{
	if (k->paused == paused)
		return;
	k->paused = paused;
	if (k->pid == 0 || k->reading_over)
		return;
	if (paused) {
		ev_io_stop(k->loop, &k->reader);
		return;
	}
	ev_io_start(k->loop, &k->reader);
	/* What had come before the pause lies in the channel, and no event
	 * would tell of it. */
	ev_feed_event(k->loop, &k->reader, EV_READ);
}

size_t keeper_backlog(const struct keeper *k)
{
	return channel_queued(&k->channel);
}

size_t keeper_pending(const struct keeper *k)
{
	return k->pending_count;
}
