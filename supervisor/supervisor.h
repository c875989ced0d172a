/*
 * supervisor.h - the daemon's parts, and who owns them. The pure modules don't
 * know it; those that act on several parts take it as their first argument.
 */
#ifndef SUPERVISOR_SUPERVISOR_H
#define SUPERVISOR_SUPERVISOR_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/backoff.h"
#include "common/buf.h"
#include "common/comfy_api.h"
#include "common/config.h"
#include "common/credentials.h"
#include "common/http.h"
#include "common/resolve.h"
#include "common/url.h"
#include "supervisor/admission.h"
#include "supervisor/counters.h"
#include "supervisor/early.h"
#include "supervisor/hub.h"
#include "supervisor/jobs.h"
#include "supervisor/notify.h"
#include "supervisor/nursery.h"
#include "supervisor/options.h"
#include "supervisor/previews.h"
#include "supervisor/reconcile.h"
#include "supervisor/service_user.h"
#include "supervisor/state_dir.h"
#include "supervisor/store.h"
#include "supervisor/tracker.h"
#include "supervisor/upstream.h"

/* After a POST ComfyUI tells every live socket its queue's length; a link that
 * hears nothing for so long is deaf (recording 12). */
#define SUPERVISOR_DEAF_MS 5000
/* Silence for so long while something runs is looked into; a node may well
 * work for minutes, so the time doubles with each look in vain. */
#define SUPERVISOR_SILENCE_MS     10000
#define SUPERVISOR_SILENCE_MAX_MS 60000
/* An orderly stop waits so long for clients to take what is theirs. */
#define SUPERVISOR_STOP_MS 3000
/* Soft limit of open descriptors that is asked for. */
#define SUPERVISOR_NOFILE_MAX 131072
#define SUPERVISOR_SWEEP_S    5.0 /* between two rounds of housekeeping */
#define SUPERVISOR_PRUNE_MS   60000
/* Results wait so long to be stored together. */
#define SUPERVISOR_SAVE_S 0.05
/* Ended prompts kept in memory while the store can't take them. */
#define SUPERVISOR_UNSAVED_MAX 10000

/* The line at the door of ComfyUI: one POST at a time. */
struct poster {
	bool posting;          /* a POST is under way, */
	char id[UUID_LEN + 1]; /* of this prompt */
	int64_t started_ms;    /* then */
	int64_t settled_ms;    /* what was left to us is posted from then on */
	struct backoff backoff;
	ev_timer retry;
	/* Prompts whose submitter was told nothing yet, in order. */
	struct list unanswered;
	/* A POST was answered with another id than ours, or with ours. */
	bool server_picks_ids, server_takes_ids;
};

/* Where our prompts stand in ComfyUI's queue. */
struct positions {
	int64_t remaining; /* running and waiting, as told last; -1 unknown */
	/* Of them not ours, and before the last of ours, when looked last. */
	size_t others, others_in_front;
	bool looked; /* others_in_front holds for `looked_at` remaining */
	int64_t looked_remaining;
	size_t looked_outstanding;
	bool stale;     /* to be worked out anew */
	ev_timer pass;  /* ... by then */
	ev_timer fewer; /* ComfyUI has fewer than we think: look into it */
};

struct supervisor {
	struct ev_loop *loop;
	const struct options *options;
	struct config cfg;
	struct url url;
	struct credentials credentials; /* to be shown to ComfyUI */
	char *worker_program;           /* NULL: not found, or no sandbox */
	struct buf url_text;
	char epoch[UUID_LEN + 1];
	struct service_user user; /* whom we are */
	struct admission admission;
	mode_t socket_mode;
	size_t fd_limit; /* descriptors that there may be */
	/* Only one uid can connect: no turns, everything is posted at once. */
	bool single_user;

	/* By an operator: nothing is posted. As the state directory says. */
	bool paused;

	struct state_dir state_dir;
	struct store *store;
	struct tracker tracker;
	struct resolver *resolver;
	struct http *http;
	struct comfy_api *api;
	struct list calls; /* HTTP requests under way that name a prompt */
	bool api_stale;    /* timeouts changed: made anew when nothing runs */
	struct upstream *upstream;
	bool upstream_started;
	const char *link_name; /* state of the link told last; static */
	struct reconcile reconcile;
	ev_timer reconcile_timer;
	struct poster poster;
	struct positions positions;
	struct early early;
	struct nursery nursery;
	struct jobs jobs;
	struct hub hub;
	struct previews previews;
	struct notify notify;
	struct metrics_http *metrics; /* NULL: none */
	int64_t started_epoch_ms;

	struct list unsaved; /* prompts that ended and are not stored yet */
	size_t unsaved_count;
	ev_timer save;
	bool save_failing;
	int64_t pruned_ms;

	int64_t frame_us; /* receipt of the frame that is handled now; 0: none
	                   */
	int64_t last_frame_ms; /* upstream */
	int64_t last_status_ms;
	int64_t unheard_ms;  /* when something was found that wasn't told */
	int64_t deaf_due_ms; /* a status frame is expected by then; -1 */
	int64_t silence_ms;  /* before the next look */
	ev_timer deaf;

	int64_t last_http_ms; /* answer */
	ev_timer sweep, stop_grace;
	ev_signal on_term, on_int, on_hup, on_usr2;
	bool stopping;
	int64_t stop_by_ms;

	uint64_t event_stamp;
	struct buf data, progress, line; /* scratch of tell.c and ops.c */
	struct counters counters;
};

/* Everything but the running: state directory, database, socket, link. On
 * failure nothing is left behind. */
int supervisor_init(struct supervisor *sv, const struct options *o,
                    struct config *cfg, struct error *err);
/* Serves until it is told to stop. */
void supervisor_run(struct supervisor *sv);
void supervisor_deinit(struct supervisor *sv);
/* What can be said of a configuration without acting on it. */
int supervisor_check(const struct config *cfg, const struct options *o,
                     struct error *err);

/* Files of what is shown to ComfyUI, but for authorities. */
struct credentials_files supervisor_credentials(const struct supervisor *sv);

/* Reads the configuration again (SIGHUP). */
void supervisor_reload(struct supervisor *sv);
/* Begins an orderly stop; a second time: at once. Forked workers are stopped,
 * too, or left to be given a bus by the next supervisor. */
void supervisor_stop(struct supervisor *sv, const char *why, bool with_workers);

static inline bool supervisor_link_up(const struct supervisor *sv)
{
	return sv->upstream &&
	       upstream_state(sv->upstream) == UPSTREAM_CONNECTED;
}

/* An HTTP request that concerns a prompt: freed by its callback, or at the
 * end. */
struct api_call {
	struct list link;
	struct supervisor *sv;
	char id[UUID_LEN + 1];
};
struct api_call *api_call_new(struct supervisor *sv, const char *id);
/* Frees it and returns its prompt, NULL if that is gone. */
struct prompt *api_call_end(struct api_call *c);
/* Every answer passes here: counts, and renews the api if that is due. */
void api_answered(struct supervisor *sv, const struct comfy_result *r);

#endif
