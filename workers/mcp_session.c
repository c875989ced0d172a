/*
 * mcp_session.c - lines, the requests in them, and their answers: see
 * mcp_session.h.
 *
 * A request lives from mcp_request_new() to mcp_answer(), mcp_refuse() or
 * mcp_drop(); a line until its last request ends. Methods that work on while
 * others come in hang their state on the request and release it in drop().
 */
#include "workers/mcp_session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "workers/mcp_private.h"

/* Kept free of results in the reply to a batch: room to refuse every entry. */
#define BATCH_RESERVE ((size_t)RPC_BATCH_MAX * 4 * RPC_ID_MAX)

static void line_check(struct mcp_session *s, struct mcp_line *l);

/* --- answers ------------------------------------------------------------- */

static const char no_memory[] =
	"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32603,"
	"\"message\":\"Out of memory\"}}";

static void respond(struct mcp_session *s, struct mcp_line *l,
                    struct span answer)
{
	if (!s->stopping && !s->io->respond(s->user, l->number, answer))
		log_error("mcp", "an answer of %zu bytes does not fit",
		          answer.n);
	l->answered = true;
}

/* The reply to one message: on its way, or kept until the batch is through.
 * False: it is too long for that. */
static bool reply(struct mcp_session *s, struct mcp_line *l, struct span text,
                  size_t reserve)
{
	if (!l->is_batch) {
		if (text.n > RPC_REPLY_MAX - 1)
			return false;
		respond(s, l, text);
		return true;
	}
	if (l->replies.len + text.n + 3 + reserve > RPC_REPLY_MAX - 1)
		return false;
	if (l->replies.len > 0)
		(void)buf_putc(&l->replies, ',');
	(void)buf_append(&l->replies, text.p, text.n);
	return true;
}

void mcp_reply_error(struct mcp_session *s, struct mcp_line *l, struct span id,
                     enum rpc_code code, struct span data, const char *message)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);

	(void)rpc_error(&b, id, code, message, data);
	if (!buf_ok(&b) || !reply(s, l, span_make(b.data, b.len), 0))
		(void)reply(s, l, SPAN(no_memory), 0);
}

static void request_free(struct mcp_request *r)
{
	struct mcp_session *s = r->session;
	struct mcp_line *l = r->line;

	if (r->key)
		(void)map_remove(&s->in_flight, r->key, r->key_len);
	free(r->key);
	list_del(&r->node);
	s->request_count--;
	free(r);
	l->open--;
	line_check(s, l);
	if (s->ending)
		s->end_ms = clock_ms() + MCP_END_MS;
	mcp_check_ended(s);
}

void mcp_refuse(struct mcp_request *r, enum rpc_code code, struct span data,
                const char *fmt, ...)
{
	char message[RPC_MESSAGE_MAX + 1];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	mcp_reply_error(r->session, r->line, r->id, code, data, message);
	request_free(r);
}

void mcp_answer(struct mcp_request *r, struct span result)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);

	(void)rpc_result(&b, r->id, result);
	if (buf_ok(&b) && reply(r->session, r->line, span_make(b.data, b.len),
	                        BATCH_RESERVE)) {
		request_free(r);
		return;
	}
	mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL,
	           r->line->is_batch
	                   ? "The replies of this batch don't fit into one "
	                     "message; send this request by itself"
	                   : "The result does not fit into one message");
}

void mcp_answer_buf(struct mcp_request *r, const struct buf *b)
{
	if (buf_ok(b))
		mcp_answer(r, span_make(b->data, b->len));
	else
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL,
		           "The result could not be put together");
}

static void abandon(struct mcp_request *r, bool stop)
{
	if (r->started && r->method->drop)
		r->method->drop(r, stop);
}

void mcp_drop(struct mcp_request *r, bool stop)
{
	abandon(r, stop);
	request_free(r);
}

/* --- lines --------------------------------------------------------------- */

static void line_free(struct mcp_line *l)
{
	while (!list_empty(&l->records))
		mcp_record_free(list_entry(list_pop(&l->records),
		                           struct mcp_record, node));
	list_del(&l->node);
	buf_deinit(&l->replies);
	free(l->text);
	free(l);
}

/* A batch's replies go out together, once the last is there. */
static void respond_batch(struct mcp_session *s, struct mcp_line *l)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);

	(void)buf_putc(&b, '[');
	(void)buf_append(&b, l->replies.data, l->replies.len);
	(void)buf_putc(&b, ']');
	respond(s, l,
	        buf_ok(&b) && buf_ok(&l->replies) ? span_make(b.data, b.len)
	                                          : SPAN(no_memory));
}

static void line_check(struct mcp_session *s, struct mcp_line *l)
{
	if (l->reading || l->open > 0)
		return;
	if (l->is_batch && l->replies.len > 0)
		respond_batch(s, l);
	if (!l->answered)
		respond(s, l, SPAN_NULL);
	line_free(l);
}

static void read_batch(struct mcp_session *s, struct mcp_line *l,
                       struct json array)
{
	size_t count = json_count(array);
	struct rpc_message m;
	struct json_iter it;
	struct json element;
	unsigned index = 0;

	if (!mcp_has_batches(s->negotiated) || count == 0 ||
	    count > RPC_BATCH_MAX) {
		mcp_reply_error(s, l, SPAN_NULL, RPC_INVALID_REQUEST, SPAN_NULL,
		                count == 0 ? "An empty batch"
		                : count > RPC_BATCH_MAX
		                        ? "More than 256 messages in a batch"
		                        : "Batches exist in protocol version "
		                          "2025-03-26 only");
		return;
	}
	l->is_batch = true;
	json_iter_init(&it, array);
	while (json_iter_next(&it, NULL, &element)) {
		rpc_parse_value(&m, element);
		mcp_handle(s, l, &m, index++);
	}
}

void mcp_session_line(struct mcp_session *s, uint64_t number, struct span text)
{
	struct mcp_line *l = calloc(1, sizeof(*l));
	struct rpc_message m;

	if (!l || !(l->text = malloc(text.n + 1))) {
		free(l);
		if (!s->io->respond(s->user, number, SPAN(no_memory)))
			log_error("mcp", "no memory for a line");
		return;
	}
	memcpy(l->text, text.p, text.n);
	l->number = number;
	l->reading = true;
	l->told = s->told_line == number ? s->told : -1;
	buf_init(&l->replies, RPC_REPLY_MAX);
	list_init(&l->records);
	list_append(&s->lines, &l->node);
	mcp_take_records(s, l);
	rpc_parse(&m, l->text, text.n);
	if (m.kind == RPC_BATCH)
		read_batch(s, l, m.whole);
	else
		mcp_handle(s, l, &m, 0);
	l->reading = false;
	line_check(s, l);
}

void mcp_session_drop_line(struct mcp_session *s, uint64_t number)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &s->requests) {
		struct mcp_request *r =
			list_entry(it, struct mcp_request, node);

		if (r->line->number == number)
			mcp_drop(r, false);
	}
}

/* --- requests ------------------------------------------------------------ */

/* Ids are the same if type and value are: a string's escapes don't count. The
 * key is the caller's to free. */
static char *make_key(struct json id, size_t *lenp)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_ID_MAX + 1);

	if (json_is(id, JSON_STRING)) {
		(void)buf_putc(&b, 's');
		(void)json_string_decode(id, &b);
	} else {
		(void)buf_putc(&b, 'n');
		(void)buf_append(&b, id.text.p, id.text.n);
	}
	return buf_steal(&b, lenp);
}

struct mcp_request *mcp_find(struct mcp_session *s, struct json id)
{
	cleanup_free char *key = NULL;
	size_t len;

	if (id.text.n > RPC_ID_MAX)
		return NULL;
	key = make_key(id, &len);
	return key ? map_get(&s->in_flight, key, len) : NULL;
}

/* In the map of those in flight: 0, -EEXIST, -ENOMEM. */
static int request_enter(struct mcp_request *r)
{
	struct json id = {r->id.p[0] == '"' ? JSON_STRING : JSON_NUMBER, r->id};
	char *key = make_key(id, &r->key_len);
	int e = key ? map_add(&r->session->in_flight, key, r->key_len, r)
	            : -ENOMEM;

	if (e < 0) {
		free(key);
		return e;
	}
	r->key = key;
	return 0;
}

/* A string or an integer, echoed unchanged; anything else is as if no progress
 * had been asked for. */
static struct span progress_token(struct json params)
{
	struct json token =
		json_get(json_get(params, "_meta"), "progressToken");
	int64_t whole;

	if (token.text.n > RPC_ID_MAX ||
	    (!json_is(token, JSON_STRING) && !json_int64(token, &whole)))
		return SPAN_NULL;
	return token.text;
}

struct mcp_request *mcp_request_new(struct mcp_session *s, struct mcp_line *l,
                                    const struct rpc_message *m, unsigned index)
{
	struct mcp_request *r;
	int e;

	if (s->request_count >= MCP_REQUESTS_MAX) {
		mcp_reply_error(s, l, m->id, RPC_INTERNAL_ERROR, SPAN_NULL,
		                "Too many requests in flight; wait for answers "
		                "first");
		return NULL;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		mcp_reply_error(s, l, m->id, RPC_INTERNAL_ERROR, SPAN_NULL,
		                "Out of memory");
		return NULL;
	}
	r->session = s;
	r->line = l;
	r->index = index;
	r->id = m->id;
	r->params = m->params;
	list_append(&s->requests, &r->node);
	s->request_count++;
	l->open++;
	e = request_enter(r);
	if (e == 0) {
		r->token = progress_token(m->params);
		mcp_progress_init(&r->progress, l->told, clock_ms());
		return r;
	}
	mcp_refuse(r, e == -EEXIST ? RPC_INVALID_REQUEST : RPC_INTERNAL_ERROR,
	           SPAN_NULL, "%s",
	           e == -EEXIST ? "A request with this id is in flight already"
	                        : "Out of memory");
	return NULL;
}

/* --- the end ------------------------------------------------------------- */

static void drop_all(struct mcp_session *s)
{
	while (!list_empty(&s->requests))
		mcp_drop(list_entry(list_pop(&s->requests), struct mcp_request,
		                    node),
		         false);
}

/* Later: whoever calls may be walking through the requests, or be a tool that
 * goes on afterwards. */
void mcp_check_ended(struct mcp_session *s)
{
	if (!s->ending)
		return;
	ev_timer_stop(s->loop, &s->last);
	ev_timer_set(&s->last, 0., 0.);
	ev_timer_start(s->loop, &s->last);
}

static bool something_quick(struct mcp_session *s)
{
	struct list *it;

	list_for_each (it, &s->requests)
		if (!list_entry(it, struct mcp_request, node)->waiting)
			return true;
	return false;
}

/* Whoever wrote a line into a pipe waits for what comes of it. */
static void refuse_quick(struct mcp_session *s)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &s->requests) {
		struct mcp_request *r =
			list_entry(it, struct mcp_request, node);

		if (r->waiting)
			continue;
		abandon(r, false);
		mcp_refuse(r, RPC_INTERNAL_ERROR, SPAN_NULL,
		           "No answer within %d s of the end of stdin; keep it "
		           "open to wait for longer",
		           MCP_END_MS / 1000);
	}
}

static void on_last(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct mcp_session *s = container_of(w, struct mcp_session, last);
	int64_t left_ms = s->end_ms - clock_ms();

	if (left_ms > 0 && something_quick(s)) {
		ev_timer_set(w, (double)left_ms / 1000.0, 0.);
		ev_timer_start(loop, w);
		return;
	}
	s->ending = false;
	refuse_quick(s);
	drop_all(s);
	s->io->ended(s->user);
}

void mcp_session_end(struct mcp_session *s)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &s->requests) {
		struct mcp_request *r =
			list_entry(it, struct mcp_request, node);

		if (r->method->end)
			r->method->end(r);
	}
	s->ending = true;
	s->end_ms = clock_ms() + MCP_END_MS;
	mcp_check_ended(s);
}

/* --- life ---------------------------------------------------------------- */

struct mcp_session *mcp_session_new(const struct mcp_session_config *cfg,
                                    struct error *err)
{
	struct mcp_session *s = calloc(1, sizeof(*s));

	if (!s) {
		(void)error_set_nomem(err, "an MCP session");
		return NULL;
	}
	s->loop = cfg->loop;
	s->link = cfg->link;
	s->worker = cfg->worker;
	s->io = cfg->io;
	s->user = cfg->user;
	s->negotiated = MCP_VERSION_COUNT;
	s->host = (struct tool_host){
		.loop = cfg->loop,
		.link = cfg->link,
		.default_wait_ms = cfg->default_wait_ms ? cfg->default_wait_ms
	                                                : TOOL_DEFAULT_WAIT_MS,
		.cancel_policy = cfg->cancel_policy,
	};
	tool_host_init(&s->host);
	mcp_records_init(s);
	list_init(&s->lines);
	list_init(&s->requests);
	mcp_ticker_init(s);
	ev_timer_init(&s->last, on_last, 0., 0.);
	mcp_bus_init(s);
	return s;
}

struct mcp_session *mcp_session_free(struct mcp_session *s)
{
	if (!s)
		return NULL;
	/* Whoever comes after us answers what is left. */
	s->stopping = true;
	drop_all(s);
	tool_host_deinit(&s->host);
	while (!list_empty(&s->lines))
		line_free(
			list_entry(list_pop(&s->lines), struct mcp_line, node));
	mcp_records_deinit(s);
	mcp_bus_deinit(s);
	ev_timer_stop(s->loop, &s->ticker);
	ev_timer_stop(s->loop, &s->last);
	map_deinit(&s->in_flight);
	free(s);
	return NULL;
}
