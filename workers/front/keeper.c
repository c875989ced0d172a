/*
 * keeper.c - see keeper.h: requests and the frames about them. Where the worker
 * comes from, and what follows its end, is in keeper_worker.c.
 */
#include "workers/front/keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/json_span.h"
#include "common/log.h"
#include "workers/front/keeper_impl.h"

#define HELLO_MAX 16384
#define REPLY_MAX 8192

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
	buf_deinit(&p->last);
	free(p->records);
	buf_deinit(&p->payload);
	free(p->path);
	free(p);
}

/* Room for one more; past the bound, and without memory for it, the latest is
 * replaced: it says more than the one before it, and the first is the intent.
 */
static struct buf *pending_next_record(struct pending *p)
{
	struct buf *more;
	size_t cap;

	if (p->record_count == p->record_cap &&
	    p->record_cap < KEEPER_RECORDS_MAX) {
		cap = p->record_cap ? 4 * p->record_cap : 4;
		more = reallocarray(p->records, cap, sizeof(*more));
		if (more) {
			p->records = more;
			p->record_cap = cap;
		}
	}
	if (p->record_count < p->record_cap) {
		more = &p->records[p->record_count++];
		buf_init(more, CHANNEL_PAYLOAD_MAX);
		return more;
	}
	if (p->record_count == 0)
		return NULL;
	more = &p->records[p->record_count - 1];
	buf_reset(more);
	return more;
}

static void pending_record(struct pending *p, struct span bytes)
{
	struct buf *b = pending_next_record(p);

	if (!b || buf_append(b, bytes.p, bytes.n) < 0)
		log_error("keeper", "out of memory for a record (line=%llu)",
		          (unsigned long long)p->line);
}

/* What the client has seen last: a successor must not fall behind it. */
static void pending_output(struct pending *p, struct span bytes)
{
	buf_reset(&p->last);
	if (bytes.n <= KEEPER_LAST_MAX &&
	    buf_append(&p->last, bytes.p, bytes.n) < 0) {
		log_warn("keeper", "out of memory for an output's copy");
		buf_reset(&p->last);
	}
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

void keeper_send(struct keeper *k, enum channel_type type, uint64_t line,
                 struct span payload, int fd)
{
	int r = channel_send(&k->channel, type, line, payload, fd);

	if (r < 0) {
		/* The worker takes nothing, or we are out of memory: its end
		 * and the replay are the way out of both. */
		log_error("keeper", "cannot send %s to the worker: %s",
		          channel_type_name(type), strerror(-r));
		keeper_worker_drop(k);
		return;
	}
	ev_io_start(k->loop, &k->writer);
}

/* Copies a member of what the supervisor told. */
static void put_fact(struct buf *b, struct json from, const char *key)
{
	struct json j = json_get(from, key);

	if (json_is(j, JSON_NONE))
		return;
	(void)buf_json_key(b, key);
	(void)buf_append(b, j.text.p, j.text.n);
}

/* Where ComfyUI is. What the user named stands; else the last supervisor's word
 * counts more than our own configuration, which need not know. */
static void put_comfyui(struct keeper *k, struct buf *b)
{
	const char *url = k->kc.cfg->comfyui;
	struct json facts, comfyui, told;

	(void)buf_json_key(b, "comfyui");
	if (k->facts.len == 0 || json_parse(&facts, k->facts.data, k->facts.len,
	                                    0, NULL) != JSON_OK) {
		(void)buf_json_string(b, url, strlen(url));
		return;
	}
	comfyui = json_get(facts, "comfyui");
	told = json_get(comfyui, "url");
	if (k->kc.comfyui_named || !json_is(told, JSON_STRING))
		(void)buf_json_string(b, url, strlen(url));
	else
		(void)buf_append(b, told.text.p, told.text.n);
	put_fact(b, comfyui, "address");
	put_fact(b, comfyui, "client_id");
	(void)buf_printf(b, ",\"sessions\":%" PRIu64, k->sessions);
}

static void put(struct buf *b, const char *key, const char *value)
{
	(void)buf_json_key(b, key);
	(void)buf_json_string(b, value, strlen(value));
}

/* What a worker of our own reads, before it gives up opening files. One of the
 * supervisor's has the supervisor's. */
static void put_files(const struct config *c, struct buf *b)
{
	put(b, "configured_url", c->comfyui);
	put(b, "ca_file", c->ca_file);
	put(b, "client_cert", c->client_cert);
	put(b, "client_key", c->client_key);
	put(b, "token_file", c->token_file);
	put(b, "header_file", c->header_file);
	put(b, "proxy", c->proxy);
}

static void send_hello(struct keeper *k)
{
	const struct config *c = k->kc.cfg;
	cleanup_buf struct buf b = BUF_INIT(HELLO_MAX + HOST_FACTS_MAX);

	(void)buf_putc(&b, '{');
	(void)buf_json_key(&b, "kind");
	(void)buf_json_string(&b, k->kc.kind, strlen(k->kc.kind));
	put_comfyui(k, &b);
	if (!k->hosted)
		put_files(c, &b);
	(void)buf_printf(&b,
	                 ",\"comfyui_named\":%s,\"bus\":%s,\"sandbox\":%s,"
	                 "\"connect_timeout_ms\":%lld,"
	                 "\"request_timeout_ms\":%lld,"
	                 "\"poll_interval_ms\":%lld,"
	                 "\"mcp_wait_ms\":%lld,\"mcp_cancel\":\"%s\","
	                 "\"log_level\":\"%s\"",
	                 k->kc.comfyui_named ? "true" : "false",
	                 k->hosted ? "true" : "false",
	                 c->sandbox ? "true" : "false",
	                 (long long)c->connect_timeout_ms,
	                 (long long)c->request_timeout_ms,
	                 (long long)c->poll_interval_ms,
	                 (long long)c->default_wait_s * 1000, c->cancel_policy,
	                 c->log_level);
	if (!k->hosted && k->no_bus[0] != '\0') {
		(void)buf_json_key(&b, "no_bus");
		(void)buf_json_string(&b, k->no_bus, strlen(k->no_bus));
	}
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b)) {
		log_error("keeper",
		          "the configuration is too long to pass on "
		          "(over %d bytes)",
		          HELLO_MAX + HOST_FACTS_MAX);
		return;
	}
	keeper_send(k, CHANNEL_HELLO, 0, span_make(b.data, b.len), -1);
}

static void send_request(struct keeper *k, const struct pending *p)
{
	for (size_t i = 0; i < p->record_count; i++)
		keeper_send(k, CHANNEL_RECORD, p->line,
		            span_make(p->records[i].data, p->records[i].len),
		            -1);
	if (p->last.len > 0)
		keeper_send(k, CHANNEL_OUTPUT, p->line,
		            span_make(p->last.data, p->last.len), -1);
	keeper_send(k, CHANNEL_REQUEST, p->line,
	            span_make(p->payload.data, p->payload.len), -1);
	if (p->cancelled)
		keeper_send(k, CHANNEL_CANCEL, p->line, SPAN_NULL, -1);
}

void keeper_replay(struct keeper *k)
{
	struct list *it;

	send_hello(k);
	if (k->session.len > 0)
		keeper_send(k, CHANNEL_RECORD, 0,
		            span_make(k->session.data, k->session.len), -1);
	list_for_each (it, &k->pending) {
		send_request(k, list_entry(it, struct pending, node));
	}
	if (k->ended)
		keeper_send(k, CHANNEL_END, 0, SPAN_NULL, -1);
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
	keeper_send(k, type, line, span_make(b.data, b.len), fd);
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
			reading = files_open(path, &err);
	}
	if (reading >= 0)
		fd = reading;
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

/* --- previews ------------------------------------------------------------ */

/* The MIME type is for those who don't know what to do with the picture. */
static void on_preview_frame(struct keeper *k, const struct channel_frame *f)
{
	const char *end = memchr(f->payload.p, '\n', f->payload.n);
	size_t head = end ? (size_t)(end - f->payload.p) + 1 : f->payload.n;

	if (k->h.on_preview && pending_find(k, f->line) && head < f->payload.n)
		k->h.on_preview(
			k->user, f->line,
			span_make(f->payload.p + head, f->payload.n - head));
}

/* --- frames -------------------------------------------------------------- */

void keeper_on_frame(struct keeper *k, const struct channel_frame *f)
{
	struct pending *p;

	switch (f->type) {
	case CHANNEL_READY:
		k->ready = true;
		k->ready_at = ev_now(k->loop);
		k->early_deaths = 0;
		ev_timer_stop(k->loop, &k->ready_timer);
		break;
	case CHANNEL_OUTPUT:
		p = pending_find(k, f->line);
		if (p) {
			pending_output(p, f->payload);
			k->h.on_output(k->user, f->line, f->payload);
		}
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
	case CHANNEL_PREVIEW:
		on_preview_frame(k, f);
		break;
	case CHANNEL_WANT_BUS:
		keeper_on_want_bus(k, f->payload);
		break;
	case CHANNEL_LOG:
		k->h.on_log(k->user, f->payload);
		break;
	default:
		log_warn("keeper", "unexpected %s from the worker",
		         channel_type_name(f->type));
	}
}

/* --- giving up ----------------------------------------------------------- */

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

bool keeper_blame(struct keeper *k)
{
	struct list *it, *next;
	struct error err = ERROR_NULL;
	bool freed = false;

	(void)error_set(&err, ERR_INTERNAL,
	                "this request crashed the worker twice; it is not "
	                "tried again");
	/* Its address is taken back before this returns. */
	// cppcheck-suppress autoVariables
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

void keeper_give_up(struct keeper *k, const struct error *err)
{
	bool freed = false;

	/* Its address is taken back before this returns. */
	// cppcheck-suppress autoVariables
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
	list_init(&k->pending);
	files_init(&k->files);
	buf_init(&k->session, KEEPER_SESSION_MAX);
	keeper_worker_init(k);
	if (keeper_worker_start(k, kc->bus_fd, err) < 0)
		return keeper_free(k);
	return k;
}

struct keeper *keeper_free(struct keeper *k)
{
	struct list *it;

	if (!k)
		return NULL;
	if (k->freed)
		*k->freed = true;
	keeper_worker_deinit(k);
	buf_deinit(&k->session);
	while ((it = list_pop(&k->pending)))
		pending_free(k, list_entry(it, struct pending, node));
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
	buf_init(&p->last, KEEPER_LAST_MAX);
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
	if (k->live)
		send_request(k, p);
	return p->line;
}

void keeper_cancel(struct keeper *k, uint64_t line)
{
	struct pending *p = pending_find(k, line);

	if (!p || p->cancelled)
		return;
	p->cancelled = true;
	if (k->live)
		keeper_send(k, CHANNEL_CANCEL, line, SPAN_NULL, -1);
}

void keeper_end(struct keeper *k)
{
	k->ended = true;
	if (k->live)
		keeper_send(k, CHANNEL_END, 0, SPAN_NULL, -1);
	keeper_worker_hurry(k);
}

void keeper_pause(struct keeper *k, bool paused)
{
	if (k->paused == paused)
		return;
	k->paused = paused;
	if (!k->has_worker || k->over)
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
	/* Without a worker everything waits for one. */
	return k->live ? channel_queued(&k->channel) : k->pending_bytes;
}

size_t keeper_pending(const struct keeper *k)
{
	return k->pending_count;
}
