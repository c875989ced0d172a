/*
 * host.c - see host.h.
 */
#include "workers/front/host.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/json_span.h"
#include "common/log.h"
#include "common/version.h"
#include "ipc/client.h"

#define PARAMS_MAX 8192

struct host {
	struct ev_loop *loop;
	struct host_config cfg;
	struct host_handlers h;
	void *user;
	struct client *client;
	ev_timer hello;
	bool asked;
	enum host_wish wish;
};

/* --- what comes ----------------------------------------------------------- */

static void refused(struct host *h, const struct error *err)
{
	struct error copy = *err;

	h->asked = false;
	h->h.on_refused(h->user, h->wish, &copy);
}

/* Whoever goes on without that supervisor needs its word the more. */
static void keep_facts(struct host *h, struct json result)
{
	struct buf *b = h->cfg.facts;

	(void)json_uint64(json_get(result, "sessions"), h->cfg.sessions);
	buf_reset(b);
	if (buf_append(b, result.text.p, result.text.n) < 0) {
		log_warn("keeper",
		         "the supervisor's %zu bytes about ComfyUI "
		         "are not kept",
		         result.text.n);
		buf_reset(b);
	}
}

static void on_attached(void *user, const struct incoming *in,
                        const struct error *err)
{
	struct host *h = user;
	struct error bad = ERROR_NULL;
	char *session;
	int fd;

	if (err) {
		/* What broke is told by on_close. */
		if (in || err->code != ERR_UNREACHABLE)
			refused(h, err);
		return;
	}
	fd = client_take_fd(h->client);
	if (fd < 0) {
		(void)error_set(&bad, ERR_PROTOCOL,
		                "the supervisor is of another release: it "
		                "starts no workers");
		refused(h, &bad);
		return;
	}
	session = json_string_dup(json_get(in->result, "session"),
	                          HOST_SESSION_ID - 1);
	if (session)
		memcpy(h->cfg.session, session, strlen(session) + 1);
	free(session);
	keep_facts(h, in->result);
	h->asked = false;
	h->h.on_granted(h->user, h->wish, fd);
}

/* As wait() would have told the parent. */
static int wait_status(struct json data)
{
	int64_t v;

	if (json_int64(json_get(data, "signal"), &v) && v > 0 && v < NSIG)
		return (int)v;
	if (json_int64(json_get(data, "status"), &v) && v >= 0 && v <= 255)
		return (int)v << 8;
	return -1;
}

static void on_event(void *user, const struct incoming *ev)
{
	struct host *h = user;
	int64_t pid;

	if (ev->event == EVENT_SESSIONS)
		(void)json_uint64(json_get(ev->data, "sessions"),
		                  h->cfg.sessions);
	if (ev->event != EVENT_WORKER)
		return;
	if (!json_int64(json_get(ev->data, "pid"), &pid) || pid < 0 ||
	    pid > INT32_MAX)
		pid = 0;
	h->h.on_worker_end(h->user, (pid_t)pid, wait_status(ev->data));
}

static void on_ready(void *user, const struct client_server *server)
{
	struct host *h = user;

	ev_timer_stop(h->loop, &h->hello);
}

static void on_close(void *user, const struct error *err)
{
	struct host *h = user;

	ev_timer_stop(h->loop, &h->hello);
	h->asked = false;
	h->h.on_lost(h->user, err);
}

static void on_no_hello(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct host *h = container_of(w, struct host, hello);
	struct error err = ERROR_NULL;

	(void)error_set(&err, ERR_TIMEOUT,
	                "the supervisor did not answer within %d s",
	                HOST_HELLO_MS / 1000);
	h->client = client_free(h->client);
	h->asked = false;
	h->h.on_lost(h->user, &err);
}

/* --- what goes ------------------------------------------------------------ */

static void put(struct buf *b, const char *key, const char *value)
{
	(void)buf_json_key(b, key);
	(void)buf_json_string(b, value, strlen(value));
}

int host_ask(struct host *h, enum host_wish wish, struct error *err)
{
	cleanup_buf struct buf b = BUF_INIT(PARAMS_MAX);

	(void)buf_putc(&b, '{');
	put(&b, "kind", h->cfg.kind);
	put(&b, "worker", wish == HOST_FORK ? "fork" : "keep");
	if (h->cfg.comfyui)
		put(&b, "comfyui", h->cfg.comfyui);
	if (h->cfg.session[0] != '\0')
		put(&b, "session", h->cfg.session);
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b))
		return error_set_nomem(err, "a request for a worker");
	if (client_request(h->client, OP_ATTACH, span_make(b.data, b.len),
	                   HOST_ATTACH_MS, on_attached, h, err) == 0)
		return -1;
	h->asked = true;
	h->wish = wish;
	return 0;
}

bool host_asked(const struct host *h)
{
	return h->asked;
}

/* --- life ----------------------------------------------------------------- */

struct host *host_new(struct ev_loop *loop, int fd,
                      const struct host_config *cfg,
                      const struct host_handlers *h, void *user,
                      struct error *err)
{
	static const struct client_handlers handlers = {
		.on_event = on_event,
		.on_ready = on_ready,
		.on_close = on_close,
	};
	struct host *host = calloc(1, sizeof(*host));
	char name[64];
	int r;

	if (!host) {
		(void)close(fd);
		(void)error_set_nomem(err, "a session");
		return NULL;
	}
	host->loop = loop;
	host->cfg = *cfg;
	host->h = *h;
	host->user = user;
	ev_timer_init(&host->hello, on_no_hello, HOST_HELLO_MS / 1000.0, 0.);
	(void)snprintf(name, sizeof(name), "comfymux %.32s/%s", cfg->kind,
	               comfymux_version);
	/* Consumes fd. */
	host->client = client_new(loop, fd, name, &handlers, host, err);
	if (!host->client)
		return host_free(host);
	r = client_expect_fds(host->client);
	if (r < 0) {
		(void)error_set_errno(err, -r, "cannot take descriptors");
		return host_free(host);
	}
	ev_timer_start(loop, &host->hello);
	return host;
}

struct host *host_free(struct host *h)
{
	if (!h)
		return NULL;
	ev_timer_stop(h->loop, &h->hello);
	(void)client_free(h->client);
	free(h);
	return NULL;
}
