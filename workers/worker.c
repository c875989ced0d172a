/*
 * worker.c - the loop of one worker: frames in, frames out, and when to leave.
 *
 * The end of the session channel ends the process at once, whatever is in
 * hand: prompts that were submitted run on, and a successor finds them by the
 * records. What a full channel can't take now is kept (answers) or left out
 * (outputs), so nothing here ever blocks.
 */
#include "workers/worker.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/credentials.h"
#include "common/http.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "common/url.h"
#include "ipc/creds.h"
#include "ipc/zygote.h"
#include "workers/link.h"
#include "workers/mcp.h"
#include "workers/record_mac.h"
#include "workers/request.h"
#include "workers/worker_private.h"

#define HELLO_STRING_MAX 4096 /* bytes of a string in hello */
#define LOG_TEXT_MAX     1500

/* The kinds of session there are; the last serves whatever the others don't. */
static const struct worker_kind *const kinds[] = {&request_kind, &mcp_kind};

/* An answer that the channel had no room for. */
struct worker_answer {
	struct list node;
	uint64_t line;
	size_t len;
	char bytes[];
};

struct worker {
	struct ev_loop *loop;
	struct channel channel;
	ev_io reader, writer;
	ev_signal term;
	ev_timer hello;        /* deadline for it */
	ev_timer drain;        /* deadline for the last answers */
	ev_timer written;      /* tells what was written, from the loop */
	uint64_t queued_total; /* bytes ever queued on the channel */
	struct list records;   /* waiting to be written, oldest first */
	struct list answers;
	size_t answer_bytes; /* of `answers` */
	struct remote_files files;
	bool behind;   /* an output was left out */
	bool draining; /* END came */
	bool held;     /* and the kind isn't through with it */
	bool left;     /* nothing more is to be done */
	int status;
	bool tenant;
	const struct zygote_told *told; /* NULL: hello is believed */
	const struct credentials *told_credentials;
	struct credentials credentials; /* of one without a supervisor */
	int early_bus;                  /* came before hello; -1: none */
	struct link *link;
	const struct worker_kind *kind;
	void *state;
};

static void worker_leave(struct worker *w, int status)
{
	if (w->left)
		return;
	w->left = true;
	w->status = status;
	ev_break(w->loop, EVBREAK_ALL);
}

/* The keeper is gone: the same whether reading or writing shows it. */
static void worker_lost_keeper(struct worker *w, int r)
{
	log_debug("worker", "the keeper is gone (%s)",
	          r < 0 ? strerror(-r) : "end of file");
	worker_leave(w, 0);
}

/* --- out ----------------------------------------------------------------- */

static void worker_watch_out(struct worker *w)
{
	if (channel_wants_write(&w->channel) && !w->left)
		ev_io_start(w->loop, &w->writer);
	else
		ev_io_stop(w->loop, &w->writer);
	if (!list_empty(&w->records) && !ev_is_active(&w->written) &&
	    list_first(&w->records, struct worker_record, node)->mark <=
	            w->queued_total - channel_queued(&w->channel)) {
		ev_timer_set(&w->written, 0., 0.);
		ev_timer_start(w->loop, &w->written);
	}
}

int worker_send(struct worker *w, enum channel_type type, uint64_t line,
                struct span payload)
{
	int r;

	if (w->left)
		return 0;
	r = channel_send(&w->channel, type, line, payload, -1);
	if (r < 0)
		return r;
	w->queued_total += CHANNEL_HEADER_LEN + payload.n;
	r = channel_flush(&w->channel);
	if (r < 0)
		worker_lost_keeper(w, r);
	worker_watch_out(w);
	return 0;
}

/* Answers wait in order behind those that wait already. */
static int worker_keep_answer(struct worker *w, uint64_t line,
                              struct span answer)
{
	struct worker_answer *a = malloc(sizeof(*a) + answer.n);

	if (!a)
		return -ENOMEM;
	a->line = line;
	a->len = answer.n;
	if (answer.n > 0)
		memcpy(a->bytes, answer.p, answer.n);
	list_append(&w->answers, &a->node);
	w->answer_bytes += a->len;
	return 0;
}

bool worker_respond(struct worker *w, uint64_t line, struct span answer)
{
	int r = -ENOBUFS;

	if (answer.n > CHANNEL_PAYLOAD_MAX)
		return false;
	if (list_empty(&w->answers))
		r = worker_send(w, CHANNEL_RESPONSE, line, answer);
	if (r < 0)
		r = worker_keep_answer(w, line, answer);
	if (r < 0) {
		/* A successor, with more memory, answers instead. */
		log_error("worker", "no memory for an answer");
		worker_leave(w, 1);
	}
	return true;
}

static void worker_send_kept(struct worker *w)
{
	struct worker_answer *a;
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, &w->answers) {
		a = list_entry(it, struct worker_answer, node);
		if (worker_send(w, CHANNEL_RESPONSE, a->line,
		                span_make(a->bytes, a->len)) < 0)
			return;
		list_del(&a->node);
		w->answer_bytes -= a->len;
		free(a);
	}
}

size_t worker_queued(const struct worker *w)
{
	return channel_queued(&w->channel) + w->answer_bytes;
}

void worker_want_room(struct worker *w)
{
	w->behind = true;
}

bool worker_output(struct worker *w, uint64_t line, struct span bytes)
{
	if (channel_queued(&w->channel) > WORKER_QUEUE_HIGH ||
	    worker_send(w, CHANNEL_OUTPUT, line, bytes) < 0) {
		worker_want_room(w);
		return false;
	}
	return true;
}

void worker_log(struct worker *w, uint64_t line, const char *fmt, ...)
{
	char text[LOG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (worker_send(w, CHANNEL_LOG, line, SPAN(text)) < 0)
		log_warn("worker", "%s", text);
}

int worker_record(struct worker *w, uint64_t line, struct span record,
                  struct worker_record *r, struct error *err)
{
	cleanup_buf struct buf signed_record =
		BUF_INIT(record.n + RECORD_MAC_LEN + 1);

	if (w->tenant && w->told) {
		if (record_mac_add(&signed_record, w->told->record_key, line,
		                   record))
			return error_set_nomem(err, "a record");
		record = span_make(signed_record.data, signed_record.len);
	}
	if (worker_send(w, CHANNEL_RECORD, line, record) < 0)
		return error_set(err, ERR_LIMIT,
		                 "the session's channel is full");
	r->mark = w->queued_total;
	list_append(&w->records, &r->node);
	worker_watch_out(w);
	return 0;
}

void worker_record_forget(struct worker_record *r)
{
	if (r->node.next)
		list_del(&r->node);
}

static void on_written(struct ev_loop *loop, ev_timer *t, int revents)
{
	struct worker *w = container_of(t, struct worker, written);
	struct worker_record *r;

	while (!w->left && !list_empty(&w->records)) {
		r = list_first(&w->records, struct worker_record, node);
		if (r->mark > w->queued_total - channel_queued(&w->channel))
			break;
		list_del(&r->node);
		r->on_written(r->user);
	}
}

/* After END: nothing more to say, and all of it said. */
static void worker_leave_if_done(struct worker *w)
{
	if (w->draining && !w->held && !channel_wants_write(&w->channel) &&
	    list_empty(&w->answers))
		worker_leave(w, 0);
}

void worker_hold(struct worker *w)
{
	w->held = true;
}

void worker_release(struct worker *w)
{
	w->held = false;
	worker_leave_if_done(w);
}

static void on_writable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct worker *w = container_of(io, struct worker, writer);
	int r = channel_flush(&w->channel);

	if (r < 0) {
		worker_lost_keeper(w, r);
		return;
	}
	worker_send_kept(w);
	worker_watch_out(w);
	if (w->behind && channel_queued(&w->channel) < WORKER_QUEUE_LOW) {
		w->behind = false;
		if (w->kind->on_room)
			w->kind->on_room(w->state);
	}
	worker_leave_if_done(w);
}

/* --- in ------------------------------------------------------------------ */

int worker_want_bus(struct worker *w, bool start)
{
	return worker_send(w, CHANNEL_WANT_BUS, 0,
	                   start ? SPAN("start") : SPAN("look"));
}

static void on_bus_lost(void *user)
{
	if (worker_send(user, CHANNEL_WANT_BUS, 0, SPAN_NULL) < 0)
		log_warn("worker", "the keeper was not told of a lost bus");
}

static void on_notice(void *user, const char *text)
{
	worker_log(user, 0, "%s", text);
}

static void worker_set_bus(struct worker *w, int fd)
{
	struct error err;

	if (link_set_bus(w->link, fd, &err))
		log_warn("worker", "the bus cannot be used: %s", err.text);
}

static unsigned hello_unsigned(struct json hello, const char *key, unsigned def)
{
	int64_t v;

	return json_int64(json_get(hello, key), &v) && v > 0 && v <= INT32_MAX
	               ? (unsigned)v
	               : def;
}

/* Where a service's worker goes, and as whom, is not for its keeper to say. */
static void worker_obey(const struct worker *w, struct link_config *cfg)
{
	const struct zygote_told *t = w->told;

	if (!t)
		return;
	cfg->comfyui = NULL;
	cfg->default_url = t->comfyui;
	cfg->address = t->address;
	cfg->client_id = t->client_id;
	cfg->ca_file = t->ca_file;
	cfg->proxy = t->proxy;
	cfg->credentials = w->told_credentials;
	cfg->credentials_url = t->comfyui;
	cfg->credentials_error = NULL;
	cfg->connect_timeout_ms = t->connect_timeout_ms;
	cfg->request_timeout_ms = t->request_timeout_ms;
	cfg->poll_interval_ms = t->poll_interval_ms;
	cfg->sessions = t->sessions;
}

/* As the user, whose worker this is. The files are read now: later it can't
 * open any. */
static void worker_load_credentials(struct worker *w, struct json hello,
                                    struct link_config *cfg, struct error *err)
{
	static const char *const keys[] = {"client_cert", "client_key",
	                                   "token_file", "header_file"};
	char *s[ARRAY_SIZE(keys)] = {NULL};
	struct credentials_files files = {.ca_file = cfg->ca_file};
	struct url url;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		s[i] = json_string_dup(json_get(hello, keys[i]),
		                       HELLO_STRING_MAX);
	files.client_cert = s[0];
	files.client_key = s[1];
	files.token_file = s[2];
	files.header_file = s[3];
	files.with_system_ca =
		cfg->credentials_url &&
		url_parse(&url, cfg->credentials_url, NULL) == 0 && url.tls;
	if (credentials_load(&w->credentials, &files, err) == 0)
		cfg->credentials = &w->credentials;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		free(s[i]);
}

/* Of a worker without a supervisor, once it knows where ComfyUI is: who looks
 * names up needs files and threads for it. */
static void worker_shut_in(const struct worker *w, struct json hello)
{
	struct error err = ERROR_NULL;
	bool wanted = true;
	struct url url;

	(void)json_bool(json_get(hello, "sandbox"), &wanted);
	if (w->told || !wanted)
		return;
	/* The TLS library reads its configuration. */
	if (http_global_init(&err) < 0)
		log_warn("worker", "%s", err.text);
	sandbox_enter(url_parse(&url, link_url(w->link), NULL) == 0 &&
	                              url_is_numeric(&url)
	                      ? SANDBOX_WORKER
	                      : SANDBOX_WORKER_RESOLVING);
}

static int worker_make_link(struct worker *w, struct json hello,
                            struct error *err)
{
	static const char *const keys[] = {
		"kind",    "comfyui", "address", "client_id",
		"ca_file", "proxy",   "no_bus",  "configured_url"};
	char *s[ARRAY_SIZE(keys)] = {NULL};
	struct link_config cfg;
	struct error why = ERROR_NULL;
	bool named = false;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		s[i] = json_string_dup(json_get(hello, keys[i]),
		                       HELLO_STRING_MAX);
	(void)json_bool(json_get(hello, "comfyui_named"), &named);
	cfg = (struct link_config){
		.kind = s[0] ? s[0] : "run",
		.comfyui = named ? s[1] : NULL,
		.default_url = s[1],
		.address = s[2],
		.client_id = s[3],
		.ca_file = s[4],
		.proxy = s[5],
		.bus_error = s[6],
		.credentials_url = s[7],
		.connect_timeout_ms =
			hello_unsigned(hello, "connect_timeout_ms", 5000),
		.request_timeout_ms =
			hello_unsigned(hello, "request_timeout_ms", 30000),
		.poll_interval_ms =
			hello_unsigned(hello, "poll_interval_ms", 1500),
		.sessions = hello_unsigned(hello, "sessions", 1),
		/* A supervisor told it to the keeper. */
		.had_bus = w->told ||
	                   !json_is(json_get(hello, "sessions"), JSON_NONE),
		.tenant = w->tenant,
	};
	if (!w->told) {
		worker_load_credentials(w, hello, &cfg, &why);
		cfg.credentials_error = why.text;
	}
	worker_obey(w, &cfg);
	w->link = link_new(w->loop, &cfg, err);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		free(s[i]);
	return w->link ? 0 : -1;
}

static int worker_start_kind(struct worker *w, struct json hello,
                             struct error *err)
{
	struct json name = json_get(hello, "kind");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!kinds[i]->serves(name))
			continue;
		w->kind = kinds[i];
		w->state = w->kind->start(w, hello, err);
		return w->state ? 0 : -1;
	}
	return error_set(err, ERR_INVALID, "no such kind of session: %s",
	                 log_safe(name.text.p, name.text.n));
}

static int worker_hello(struct worker *w, struct span payload,
                        struct error *err)
{
	cleanup_free char *level = NULL;
	struct json hello;

	if (w->link)
		return error_set(err, ERR_PROTOCOL, "hello came twice");
	if (json_parse(&hello, payload.p, payload.n, 0, NULL) ||
	    !json_is(hello, JSON_OBJECT))
		return error_set(err, ERR_PROTOCOL,
		                 "hello is not a JSON object");
	level = json_string_dup(json_get(hello, "log_level"), 16);
	if (!w->told && level && log_level_from_name(level) >= 0)
		log_set_level((enum log_level)log_level_from_name(level));
	if (worker_make_link(w, hello, err))
		return -1;
	worker_shut_in(w, hello);
	link_on_bus_lost(w->link, on_bus_lost, w);
	link_on_notice(w->link, on_notice, w);
	if (worker_start_kind(w, hello, err))
		return -1;
	if (w->early_bus >= 0)
		worker_set_bus(w, steal_fd(&w->early_bus));
	ev_timer_stop(w->loop, &w->hello);
	return worker_send(w, CHANNEL_READY, 0, SPAN_NULL);
}

/* A bus tells where ComfyUI is. A service's worker takes it from a supervisor
 * of its own user only, whoever made the socketpair or listens at the other
 * end. */
static bool worker_trusts(const struct worker *w, int bus)
{
	struct error err = ERROR_NULL;
	struct creds creds;
	uid_t uid;

	if (!w->told || bus < 0)
		return true;
	if (creds_get(&creds, bus, &err) < 0) {
		log_warn("worker", "the bus cannot be used: %s", err.text);
		return false;
	}
	uid = creds.uid;
	creds_deinit(&creds);
	if (uid == geteuid() || uid == 0)
		return true;
	log_warn("worker", "a bus of uid %u was refused", (unsigned)uid);
	return false;
}

static void worker_bus_frame(struct worker *w, const struct channel_frame *f)
{
	char why[256];
	int fd = f->fd;

	if (!worker_trusts(w, fd)) {
		(void)close(fd);
		fd = -1;
	}
	if (!w->link) {
		if (w->early_bus >= 0)
			(void)close(w->early_bus);
		w->early_bus = fd;
		return;
	}
	worker_set_bus(w, fd);
	if (f->fd < 0 && f->payload.n > 0) {
		(void)snprintf(why, sizeof(why), "%s",
		               log_safe(f->payload.p, f->payload.n));
		link_set_bus_error(w->link, why);
	}
	if (w->kind->on_bus)
		w->kind->on_bus(w->state);
}

static void worker_end(struct worker *w)
{
	w->draining = true;
	if (w->kind && w->kind->on_end)
		w->kind->on_end(w->state);
	worker_leave_if_done(w);
	if (w->left)
		return;
	ev_timer_set(&w->drain, WORKER_DRAIN_MS / 1000.0, 0.);
	ev_timer_start(w->loop, &w->drain);
}

/* The keeper may be anybody, and with the service's rights the prompts that its
 * records name would be looked up for it, whoever's they are. */
static void worker_record_frame(struct worker *w, const struct channel_frame *f)
{
	if (w->tenant && !(w->told && record_mac_good(w->told->record_key,
	                                              f->line, f->payload))) {
		log_warn("worker",
		         "a record of line %" PRIu64 " is not one of ours: "
		         "what it names is asked of the supervisor",
		         f->line);
		link_doubt_records(w->link);
	}
	w->kind->on_record(w->state, f->line, f->payload);
}

/* Frames that mean something only after hello. */
static void worker_session_frame(struct worker *w,
                                 const struct channel_frame *f)
{
	switch (f->type) {
	case CHANNEL_REQUEST:
		if (!w->draining)
			w->kind->on_request(w->state, f->line, f->payload);
		return;
	case CHANNEL_CANCEL:
		w->kind->on_cancel(w->state, f->line);
		return;
	case CHANNEL_RECORD:
		worker_record_frame(w, f);
		return;
	case CHANNEL_OUTPUT:
		w->kind->on_told(w->state, f->line, f->payload);
		return;
	case CHANNEL_FILE:
	case CHANNEL_CLOSED:
		remote_files_on_frame(&w->files, f);
		return;
	default:
		return;
	}
}

static int worker_frame(struct worker *w, const struct channel_frame *f,
                        struct error *err)
{
	switch (f->type) {
	case CHANNEL_HELLO:
		return worker_hello(w, f->payload, err);
	case CHANNEL_BUS:
		worker_bus_frame(w, f);
		return 0;
	case CHANNEL_END:
		worker_end(w);
		return 0;
	default:
		if (!w->link) {
			if (f->fd >= 0)
				(void)close(f->fd);
			return error_set(err, ERR_PROTOCOL, "%s before hello",
			                 channel_type_name(f->type));
		}
		worker_session_frame(w, f);
		return 0;
	}
}

static void on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
	struct worker *w = container_of(io, struct worker, reader);
	struct channel_frame f;
	struct error err = ERROR_NULL;
	int r = channel_read(&w->channel), next = 0;

	if (r < 0) {
		worker_lost_keeper(w, r);
		return;
	}
	while (!w->left && (next = channel_next(&w->channel, &f, &err)) > 0) {
		if (worker_frame(w, &f, &err)) {
			next = -1;
			break;
		}
	}
	if (w->left)
		return;
	if (next < 0) {
		log_error("worker", "session ended: %s", err.text);
		worker_leave(w, 1);
	} else if (w->channel.eof) {
		worker_lost_keeper(w, 0);
	}
}

static void on_term(struct ev_loop *loop, ev_signal *s, int revents)
{
	worker_leave(container_of(s, struct worker, term), 0);
}

static void on_no_hello(struct ev_loop *loop, ev_timer *t, int revents)
{
	log_error("worker", "no hello within %d s", WORKER_HELLO_MS / 1000);
	worker_leave(container_of(t, struct worker, hello), 1);
}

static void on_drained_too_late(struct ev_loop *loop, ev_timer *t, int revents)
{
	log_warn("worker", "left with answers that the keeper didn't take");
	worker_leave(container_of(t, struct worker, drain), 0);
}

/* --- life ---------------------------------------------------------------- */

/* Everything but the named two and 0 to 2: what a forked child inherits is not
 * its own to hold. */
static int close_others(int a, int b)
{
	unsigned low = (unsigned)(a < b ? a : b);
	unsigned high = (unsigned)(a < b ? b : a);
	int r = 0;

	if (b < 0)
		low = high = (unsigned)a;
	if (low > 3)
		r |= close_range(3, low - 1, 0);
	if (high > low + 1)
		r |= close_range(low + 1, high - 1, 0);
	r |= close_range(high + 1, ~0u, 0);
	return r;
}

int worker_begin(struct worker_start *start, struct error *err)
{
	sigset_t none;

	if (start->session_fd < 3 || (start->bus_fd >= 0 && start->bus_fd < 3))
		return error_set(err, ERR_INTERNAL,
		                 "channel on a standard descriptor");
	if (close_others(start->session_fd, start->bus_fd))
		return error_set_errno(err, errno,
		                       "cannot close inherited descriptors");
	for (int sig = 1; sig < NSIG; sig++) {
		/* Some can't be set; those have no handler either. */
		(void)signal(sig, SIG_DFL);
	}
	(void)sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL))
		return error_set_errno(err, errno, "cannot unblock signals");
	return 0;
}

/* Ctrl-C and a closing terminal reach the whole process group; it is the
 * keeper who decides what they mean. */
static void ignore_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGINT, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
}

static void worker_init(struct worker *w, const struct worker_start *start)
{
	list_init(&w->records);
	list_init(&w->answers);
	remote_files_init(&w->files);
	w->early_bus = start->bus_fd;
	w->tenant = start->tenant;
	w->told = start->told;
	w->told_credentials = start->credentials;
	credentials_init(&w->credentials);
	ev_signal_init(&w->term, on_term, SIGTERM);
	ev_signal_start(w->loop, &w->term);
	ev_timer_init(&w->hello, on_no_hello, WORKER_HELLO_MS / 1000.0, 0.);
	ev_timer_start(w->loop, &w->hello);
	ev_timer_init(&w->drain, on_drained_too_late, 0., 0.);
	ev_timer_init(&w->written, on_written, 0., 0.);
	ev_io_init(&w->reader, on_readable, w->channel.fd, EV_READ);
	ev_io_init(&w->writer, on_writable, w->channel.fd, EV_WRITE);
	ev_io_start(w->loop, &w->reader);
}

static void worker_deinit(struct worker *w)
{
	struct worker_answer *a;
	struct list *it, *tmp;

	if (w->state)
		w->kind->stop(w->state);
	w->link = link_free(w->link);
	credentials_deinit(&w->credentials);
	remote_files_deinit(&w->files);
	list_for_each_safe (it, tmp, &w->answers) {
		a = list_entry(it, struct worker_answer, node);
		list_del(&a->node);
		free(a);
	}
	ev_io_stop(w->loop, &w->reader);
	ev_io_stop(w->loop, &w->writer);
	ev_signal_stop(w->loop, &w->term);
	ev_timer_stop(w->loop, &w->hello);
	ev_timer_stop(w->loop, &w->drain);
	ev_timer_stop(w->loop, &w->written);
	if (w->early_bus >= 0)
		(void)close(w->early_bus);
}

int worker_run(const struct worker_start *start)
{
	struct worker w = {.status = 1};
	int r;

	ignore_signals();
	/* Not the default loop: a process forked while one runs would have to
	 * take it apart first. */
	w.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!w.loop) {
		log_error("worker", "no event loop");
		return 1;
	}
	r = channel_init(&w.channel, start->session_fd, true);
	if (r < 0) {
		log_error("worker", "session channel: %s", strerror(-r));
		ev_loop_destroy(w.loop);
		return 1;
	}
	worker_init(&w, start);
	ev_run(w.loop, 0);
	worker_deinit(&w);
	channel_deinit(&w.channel);
	ev_loop_destroy(w.loop);
	return w.status;
}

struct link *worker_link(const struct worker *w)
{
	return w->link;
}

struct ev_loop *worker_loop(const struct worker *w)
{
	return w->loop;
}

struct remote_files *worker_remote_files(struct worker *w)
{
	return &w->files;
}
