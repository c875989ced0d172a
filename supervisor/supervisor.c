/*
 * supervisor.c - see supervisor.h: making the parts, signals, housekeeping, and
 * the orderly end. In the order of dependence; taken down in reverse.
 */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/program.h"
#include "common/sandbox.h"
#include "common/version.h"
#include "supervisor/life.h"
#include "supervisor/metrics.h"
#include "supervisor/polling.h"
#include "supervisor/position.h"
#include "supervisor/poster.h"
#include "supervisor/roles.h"
#include "supervisor/stream.h"

#define STOP_POLL_S 0.02
#define URL_ROOM    (2 * (size_t)URL_TEXT_MAX)
/* Of an event line; the rest is the data's. */
#define PROGRESS_ROOM ((size_t)LINE_MAX_BYTES / 4 * 3)
#define HTTP_IDLE_MS  15000 /* kept-alive connections are closed after it */
#define MODE_SHARED   0666
#define MODE_OWN      0600
#define FDS_BESIDE    64 /* descriptors that are no client's */

/* --- settings ------------------------------------------------------------- */

/* Whom we are to be, and whom we are to serve. */
static int find_people(struct service_user *u, struct admission *a,
                       const struct config *cfg, const struct options *o,
                       struct error *err)
{
	*a = (struct admission){0};
	if (service_user_find(u, cfg, !o->system, err) < 0 ||
	    admission_init(a, cfg, u->uid, u->shared, err) < 0)
		return -1;
	/* Told by `user = root`, it may. */
	if (u->uid != 0 || !admission_has_others(a) ||
	    config_origin_of(cfg, "user") != CONFIG_DEFAULT)
		return 0;
	return error_set(err, ERR_CONFIG,
	                 "root's own supervisor serves nobody else: name a "
	                 "user to become by the key user, or let nobody in");
}

static int check_people(const struct config *cfg, const struct options *o,
                        struct error *err)
{
	struct service_user u;
	struct admission a;
	int r = find_people(&u, &a, cfg, o, err);

	service_user_deinit(&u);
	admission_deinit(&a);
	return r;
}

int supervisor_check(const struct config *cfg, const struct options *o,
                     struct error *err)
{
	char address[64];
	struct url url;
	int port;

	if (url_parse(&url, cfg->comfyui, err) < 0)
		return error_prefix(err, "comfyui");
	if (cfg->metrics_listen[0] != '\0' &&
	    metrics_parse_listen(cfg->metrics_listen, address, &port, err) < 0)
		return -1;
	if (check_people(cfg, o, err) < 0)
		return -1;
	if (log_level_from_name(cfg->log_level) < 0)
		return error_set(err, ERR_CONFIG,
		                 "log_level must be error, warn, info or "
		                 "debug, not \"%s\"",
		                 cfg->log_level);
	return 0;
}

static int settle(struct supervisor *sv, struct error *err)
{
	int r;

	if (find_people(&sv->user, &sv->admission, &sv->cfg, sv->options, err) <
	            0 ||
	    url_parse(&sv->url, sv->cfg.comfyui, err) < 0)
		return -1;
	buf_init(&sv->url_text, URL_ROOM);
	if (url_http(&sv->url, &sv->url_text) != 0)
		return error_set_nomem(err, "URL");
	sv->single_user = !admission_has_others(&sv->admission);
	sv->socket_mode = (mode_t)sv->cfg.socket_mode;
	if (sv->socket_mode == 0)
		sv->socket_mode = sv->single_user ? MODE_OWN : MODE_SHARED;
	r = uuid_new(sv->epoch);
	return r < 0 ? error_set_errno(err, r, "cannot make an epoch") : 0;
}

/* As many descriptors as clients may need, if the hard limit allows. */
static void raise_limit(struct supervisor *sv)
{
	rlim_t want =
		(rlim_t)sv->cfg.max_clients + PREVIEWS_OPEN_MAX + FDS_BESIDE;
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0) {
		log_warn("supervisor", "getrlimit: %s", strerror(errno));
		sv->fd_limit = (size_t)want;
		return;
	}
	sv->fd_limit = (size_t)l.rlim_cur;
	if (want > SUPERVISOR_NOFILE_MAX)
		want = SUPERVISOR_NOFILE_MAX;
	if (l.rlim_max != RLIM_INFINITY && want > l.rlim_max)
		want = l.rlim_max;
	if (want <= l.rlim_cur)
		return;
	l.rlim_cur = want;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		log_warn("supervisor", "setrlimit: %s", strerror(errno));
	else
		sv->fd_limit = (size_t)want;
}

/* What needs root, if we are; then we are it no more. */
static int give_up_root(struct supervisor *sv, struct error *err)
{
	if (service_user_make_places(&sv->user, &sv->cfg, err) < 0)
		return -1;
	if (!notify_has_socket() &&
	    service_user_needs_socket(&sv->user, &sv->cfg) &&
	    hub_make_socket(&sv->hub, sv, err) < 0)
		return -1;
	return service_user_become(&sv->user, err);
}

/* --- ComfyUI -------------------------------------------------------------- */

struct credentials_files supervisor_credentials(const struct supervisor *sv)
{
	return (struct credentials_files){
		.client_cert = sv->cfg.client_cert,
		.client_key = sv->cfg.client_key,
		.token_file = sv->cfg.token_file,
		.header_file = sv->cfg.header_file,
	};
}

static int load_credentials(struct supervisor *sv, struct error *err)
{
	struct credentials_files files = supervisor_credentials(sv);

	if (credentials_load(&sv->credentials, &files, err) < 0)
		return -1;
	if (sv->credentials.header_count > 0 && !sv->url.tls &&
	    !url_is_loopback(&sv->url))
		log_warn("supervisor",
		         "the credentials of token_file and header_file go to "
		         "%.*s in the clear; https keeps them secret",
		         (int)sv->url_text.len, sv->url_text.data);
	return 0;
}

static int make_api(struct supervisor *sv, struct error *err)
{
	struct http_config c = {
		.ca_file = sv->cfg.ca_file,
		.credentials = &sv->credentials,
		.proxy = sv->cfg.proxy,
		.connect_timeout_ms = (unsigned)sv->cfg.connect_timeout_ms,
		.timeout_ms = (unsigned)sv->cfg.request_timeout_ms,
	};

	sv->http = http_new(sv->loop, &c, err);
	if (!sv->http)
		return -1;
	sv->api = comfy_api_new(sv->loop, sv->http, &sv->url, err);
	return sv->api ? 0 : -1;
}

static void free_api(struct supervisor *sv)
{
	sv->api = comfy_api_free(sv->api);
	sv->http = http_free(sv->http);
}

static bool api_busy(const struct supervisor *sv)
{
	return sv->poster.posting || sv->reconcile.queue_asked ||
	       !list_empty(&sv->calls);
}

/* New timeouts need a new api; that waits until nothing is under way. */
static void renew_api(struct supervisor *sv)
{
	struct http *http = sv->http;
	struct comfy_api *api = sv->api;
	struct error err = ERROR_NULL;

	sv->http = NULL;
	sv->api = NULL;
	if (make_api(sv, &err) < 0) {
		log_error("supervisor", "timeouts stay as they were: %s",
		          err.text);
		free_api(sv);
		sv->http = http;
		sv->api = api;
	} else {
		comfy_api_free(api);
		http_free(http);
	}
	sv->api_stale = false;
}

struct api_call *api_call_new(struct supervisor *sv, const char *id)
{
	struct api_call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->sv = sv;
	memcpy(c->id, id, sizeof(c->id));
	list_append(&sv->calls, &c->link);
	return c;
}

struct prompt *api_call_end(struct api_call *c)
{
	struct prompt *p = tracker_find(&c->sv->tracker, c->id, UUID_LEN);

	list_del(&c->link);
	free(c);
	return p;
}

void api_answered(struct supervisor *sv, const struct comfy_result *r)
{
	enum comfy_outcome outcome = r->outcome;
	int class = r->status / 100;

	sv->last_http_ms = clock_ms();
	if (class < 0 || class >= COUNTERS_HTTP_CLASSES)
		class = 0;
	sv->counters.http_status[class]++;
	if (outcome != COMFY_OK && outcome != COMFY_E_REJECTED)
		sv->counters.http_errors++;
}

/* --- housekeeping --------------------------------------------------------- */

static void check_idle(struct supervisor *sv, int64_t now_ms)
{
	int64_t limit_ms = sv->cfg.idle_exit_s * 1000;

	if (!sv->options->autostarted || limit_ms == 0)
		return;
	if (sv->hub.peer_count > 0 || sv->tracker.active > 0 ||
	    sv->jobs.active > 0)
		sv->hub.idle_since_ms = now_ms;
	if (now_ms - sv->hub.idle_since_ms >= limit_ms)
		supervisor_stop(sv, "nobody needs it any more", true);
}

static void on_sweep(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;
	int64_t now_ms = clock_ms();

	if (sv->stopping)
		return;
	hub_sweep(&sv->hub, now_ms);
	previews_sweep(sv);
	stream_sweep(sv, now_ms);
	life_prune(sv, now_ms);
	if (!api_busy(sv)) {
		if (sv->api_stale)
			renew_api(sv);
		if (now_ms - sv->last_http_ms >= HTTP_IDLE_MS)
			http_close_idle(sv->http);
	}
	sandbox_tell();
	log_flush();
	check_idle(sv, now_ms);
}

static void on_save(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)life_save(w->data);
}

static int load_fresh(struct config *fresh, const struct options *o,
                      struct error *err)
{
	struct config_sources src = options_sources(o);

	if (config_load(fresh, &src, err) < 0)
		return -1;
	if (supervisor_check(fresh, o, err) == 0)
		return 0;
	config_deinit(fresh);
	return -1;
}

/* One line for each key: each is somebody's change. */
static void tell_ignored(struct buf *ignored)
{
	char *key, *save = NULL;

	if (ignored->len == 0 || !buf_cstr(ignored))
		return;
	for (key = strtok_r(ignored->data, ", ", &save); key;
	     key = strtok_r(NULL, ", ", &save))
		log_warn("supervisor", "%s was changed and needs a restart",
		         key);
}

void supervisor_reload(struct supervisor *sv)
{
	struct error err = ERROR_NULL;
	struct buf ignored = BUF_INIT(4096);
	struct config fresh;
	int r;

	notify_reloading();
	r = log_reopen();
	if (r < 0)
		log_error("supervisor", "the log stays where it was, %s: %s",
		          sv->cfg.log_to, strerror(-r));
	log_share_file();
	if (load_fresh(&fresh, sv->options, &err) < 0) {
		log_error("supervisor",
		          "configuration not read again, it stays as it was: "
		          "%s",
		          err.text);
		notify_reloaded();
		return;
	}
	if (config_reload(&sv->cfg, &fresh, &ignored) < 0)
		log_error("supervisor", "configuration not applied");
	config_deinit(&fresh);
	log_info("supervisor", "configuration read again");
	tell_ignored(&ignored);
	buf_deinit(&ignored);
	log_set_level((enum log_level)log_level_from_name(sv->cfg.log_level));
	log_set_format(
		(enum log_format)log_format_from_name(sv->cfg.log_format));
	upstream_reconfigure(sv->upstream, &sv->cfg);
	sv->api_stale = true;
	polling_watch(sv);
	poster_kick(sv);
	notify_reloaded();
}

/* --- stopping ------------------------------------------------------------- */

static void try_finish(struct supervisor *sv)
{
	if (upstream_state(sv->upstream) == UPSTREAM_DOWN &&
	    (!sv->nursery.stopping || nursery_idle(&sv->nursery)) &&
	    hub_drained(&sv->hub))
		ev_break(sv->loop, EVBREAK_ALL);
}

static void on_stop_grace(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct supervisor *sv = w->data;

	if (clock_ms() >= sv->stop_by_ms)
		ev_break(loop, EVBREAK_ALL);
	else
		try_finish(sv);
}

void supervisor_stop(struct supervisor *sv, const char *why, bool with_workers)
{
	if (sv->stopping) {
		/* Told twice: at once. */
		ev_break(sv->loop, EVBREAK_ALL);
		return;
	}
	log_info("supervisor", "stopping: %s", why);
	notify_stopping(why);
	sv->stopping = true;
	sv->stop_by_ms = clock_ms() + SUPERVISOR_STOP_MS;
	hub_close_door(&sv->hub);
	if (with_workers)
		nursery_stop(&sv->nursery);
	upstream_stop(sv->upstream);
	ev_timer_set(&sv->stop_grace, STOP_POLL_S, STOP_POLL_S);
	ev_timer_start(sv->loop, &sv->stop_grace);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
	struct supervisor *sv = w->data;

	switch (w->signum) {
	case SIGHUP:
		supervisor_reload(sv);
		break;
	case SIGUSR2:
		/* For a restart: the next one finds the workers alive. */
		supervisor_stop(sv, "SIGUSR2", false);
		break;
	default:
		supervisor_stop(sv, w->signum == SIGTERM ? "SIGTERM" : "SIGINT",
		                true);
	}
}

/* --- beginning and end ---------------------------------------------------- */

static void init_watchers(struct supervisor *sv)
{
	ev_timer_init(&sv->save, on_save, 0., 0.);
	ev_timer_init(&sv->sweep, on_sweep, 0., 0.);
	ev_timer_init(&sv->stop_grace, on_stop_grace, 0., 0.);
	ev_signal_init(&sv->on_term, on_signal, SIGTERM);
	ev_signal_init(&sv->on_int, on_signal, SIGINT);
	ev_signal_init(&sv->on_hup, on_signal, SIGHUP);
	ev_signal_init(&sv->on_usr2, on_signal, SIGUSR2);
	sv->save.data = sv->sweep.data = sv->stop_grace.data = sv;
	sv->on_term.data = sv->on_int.data = sv->on_hup.data = sv;
	sv->on_usr2.data = sv;
}

static double sweep_period(const struct supervisor *sv)
{
	if (sv->options->autostarted && sv->cfg.idle_exit_s > 0 &&
	    (double)sv->cfg.idle_exit_s < SUPERVISOR_SWEEP_S)
		return (double)sv->cfg.idle_exit_s / 2;
	return SUPERVISOR_SWEEP_S;
}

static void start_watchers(struct supervisor *sv)
{
	ev_timer_set(&sv->sweep, sweep_period(sv), sweep_period(sv));
	ev_timer_start(sv->loop, &sv->sweep);
	ev_signal_start(sv->loop, &sv->on_term);
	ev_signal_start(sv->loop, &sv->on_int);
	ev_signal_start(sv->loop, &sv->on_hup);
}

static int open_parts(struct supervisor *sv, struct error *err)
{
	if (state_dir_open(&sv->state_dir, sv->cfg.state_dir, err) < 0)
		return -1;
	if (state_dir_is_paused(&sv->state_dir, &sv->paused, err) < 0)
		return -1;
	if (sv->paused)
		log_warn("supervisor", "the service is paused since an "
		                       "operator asked for it; comfymux "
		                       "resume ends that");
	sv->store = store_open(state_dir_file(&sv->state_dir, STORE_FILE), err);
	if (!sv->store || life_restore(sv, err) < 0)
		return -1;
	sv->resolver = resolver_new(sv->loop, err);
	if (!sv->resolver || http_global_init(err) < 0 || make_api(sv, err) < 0)
		return -1;
	sv->upstream = upstream_new(sv->loop, sv->resolver, &sv->url, &sv->cfg,
	                            &sv->credentials, sv->state_dir.client_id,
	                            &stream_handlers, sv, err);
	if (!sv->upstream)
		return -1;
	if (nursery_init(&sv->nursery, sv, err) < 0 ||
	    jobs_init(&sv->jobs, sv, err) < 0)
		return -1;
	if (sv->cfg.metrics_listen[0] != '\0') {
		sv->metrics = metrics_http_new(sv, sv->cfg.metrics_listen, err);
		if (!sv->metrics)
			return -1;
	}
	return hub_init(&sv->hub, sv, err);
}

/* What came so far came from the administrator; clients and ComfyUI follow. */
static int seal(struct supervisor *sv, struct error *err)
{
	struct error why = ERROR_NULL;
	char *path = program_find(roles[ROLE_ZYGOTE].program, &why);

	if (path) {
		sv->worker_program = sandbox_allow_program(path, err);
		free(path);
		if (!sv->worker_program)
			return -1;
	} else {
		log_warn("supervisor", "no workers can be forked: %s",
		         why.text);
	}
	sandbox_enter(SANDBOX_SUPERVISOR);
	return 0;
}

int supervisor_init(struct supervisor *sv, const struct options *o,
                    struct config *cfg, struct error *err)
{
	*sv = (struct supervisor){.options = o, .cfg = *cfg};
	*cfg = (struct config){0}; /* consumes cfg */
	sv->state_dir = (struct state_dir)STATE_DIR_NULL;
	sv->hub.listener = (struct listener)LISTENER_NULL;
	tracker_init(&sv->tracker);
	list_init(&sv->calls);
	list_init(&sv->unsaved);
	buf_init(&sv->data, LINE_MAX_BYTES);
	buf_init(&sv->progress, PROGRESS_ROOM);
	buf_init(&sv->line, LINE_MAX_BYTES);
	(void)umask(077);
	(void)signal(SIGPIPE, SIG_IGN);
	/* A file too large is a failed write like a full disk, no more. */
	(void)signal(SIGXFSZ, SIG_IGN);
	sv->loop = ev_default_loop(EVFLAG_AUTO);
	if (!sv->loop)
		return error_set(err, ERR_SYSTEM, "cannot make an event loop");
	init_watchers(sv);
	/* Who is told to make room while he starts does so in order. */
	ev_signal_start(sv->loop, &sv->on_usr2);
	polling_init(sv);
	poster_init(sv);
	positions_init(sv);
	stream_init(sv);
	credentials_init(&sv->credentials);
	if (settle(sv, err) < 0)
		goto fail;
	raise_limit(sv);
	previews_init(sv);
	if (give_up_root(sv, err) < 0)
		goto fail;
	if (load_credentials(sv, err) < 0 || open_parts(sv, err) < 0)
		goto fail;
	start_watchers(sv);
	if (sv->cfg.sandbox && seal(sv, err) < 0)
		goto fail;
	return 0;
fail:
	supervisor_deinit(sv);
	return -1;
}

static void tell_ready(struct supervisor *sv)
{
	int fd = sv->options->ready_fd;

	log_info("supervisor",
	         "serving %s (comfyui=%.*s state_dir=%s users=%s version=%s)",
	         sv->cfg.socket, (int)sv->url_text.len, sv->url_text.data,
	         sv->cfg.state_dir, sv->single_user ? "one" : "several",
	         comfymux_version);
	if (sv->user.uid == 0)
		log_info("supervisor",
		         "running as root, which nothing here needs");
	notify_ready(&sv->notify, sv->loop);
	if (fd < 0)
		return;
	if (write(fd, "\n", 1) != 1)
		log_warn("supervisor", "--ready-fd %d: %s", fd,
		         strerror(errno));
	(void)close(fd);
}

void supervisor_run(struct supervisor *sv)
{
	sv->upstream_started = true;
	sv->started_epoch_ms = clock_epoch_ms();
	upstream_start(sv->upstream);
	polling_watch(sv);
	tell_ready(sv);
	poster_kick(sv);
	ev_run(sv->loop, 0);
	log_info("supervisor", "stopped");
}

static void free_calls(struct supervisor *sv)
{
	struct list *n;

	while ((n = list_pop(&sv->calls)))
		(void)api_call_end(list_entry(n, struct api_call, link));
}

void supervisor_deinit(struct supervisor *sv)
{
	sv->stopping = true;
	notify_deinit(&sv->notify);
	sv->metrics = metrics_http_free(sv->metrics);
	/* Results first: what follows can't lose them any more. */
	if (sv->store)
		(void)life_save(sv);
	hub_deinit(&sv->hub);
	jobs_deinit(&sv->jobs);
	nursery_deinit(&sv->nursery);
	free_api(sv);
	free_calls(sv);
	sv->upstream = upstream_free(sv->upstream);
	sv->resolver = resolver_free(sv->resolver);
	stream_deinit(sv);
	positions_deinit(sv);
	poster_deinit(sv);
	polling_deinit(sv);
	ev_timer_stop(sv->loop, &sv->save);
	ev_timer_stop(sv->loop, &sv->sweep);
	ev_timer_stop(sv->loop, &sv->stop_grace);
	ev_signal_stop(sv->loop, &sv->on_term);
	ev_signal_stop(sv->loop, &sv->on_int);
	ev_signal_stop(sv->loop, &sv->on_hup);
	ev_signal_stop(sv->loop, &sv->on_usr2);
	tracker_deinit(&sv->tracker);
	sv->store = store_close(sv->store);
	state_dir_close(&sv->state_dir);
	buf_deinit(&sv->data);
	buf_deinit(&sv->progress);
	buf_deinit(&sv->line);
	buf_deinit(&sv->url_text);
	admission_deinit(&sv->admission);
	service_user_deinit(&sv->user);
	credentials_deinit(&sv->credentials);
	config_deinit(&sv->cfg);
	ev_loop_destroy(sv->loop);
}
