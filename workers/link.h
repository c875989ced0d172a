/*
 * link.h - a worker's two ways to ComfyUI: the bus (supervisor), and HTTP of
 * its own. Owns both; knows which is in force.
 *
 * HTTP is set up on first use and its connections are closed when no call is
 * left, so that an idle worker holds neither memory nor half-dead sockets.
 */
#ifndef WORKERS_LINK_H
#define WORKERS_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/comfy_api.h"
#include "common/error.h"
#include "common/list.h"
#include "common/macros.h"
#include "ipc/client.h"

struct credentials;
struct ev_loop;
struct poller;
struct link;

/* How long is waited for what. */
struct link_patience {
	/* hello and attach together */
	unsigned attach_ms;
	/* A bus that says nothing is pinged after quiet_ms, while events or
	 * replies are awaited, and dropped when the answer takes ping_ms: a
	 * stopped supervisor is as good as none. */
	unsigned quiet_ms, ping_ms;
	/* A prompt given to a supervisor that went away before it said what
	 * became of it is posted directly after this long, under the same id;
	 * and the same for somebody who only waits to cancel it. */
	unsigned away_ms, away_cancel_ms;
	/* Between the look-ups of a POST whose reply is missing: it may still
	 * be under validation. */
	unsigned lookup_gap_ms;
};
#define LINK_ATTACH_MS      5000
#define LINK_QUIET_MS       15000
#define LINK_PING_MS        10000
#define LINK_AWAY_MS        30000
#define LINK_AWAY_CANCEL_MS 3000
#define LINK_LOOKUP_GAP_MS  1000

/* What the keeper's hello told; strings are copied by link_new. */
struct link_config {
	const char *kind;        /* "run", "mcp" ... for attach */
	const char *comfyui;     /* URL that the user named; "": none */
	const char *default_url; /* to go to without one, and without a
	                            supervisor that says where; "": see
	                            LINK_DEFAULT_URL */
	const char *address;     /* numeric address for it, or "" */
	const char *client_id; /* to submit with when alone; "": a fresh one */
	const char *ca_file, *proxy;
	/* To be shown to the server of this URL and no other. NULL: none. They
	 * outlive the link. */
	const struct credentials *credentials;
	const char *credentials_url;
	/* Why there are none, though some were named; then no request is made.
	 * "" or NULL: nothing went wrong. */
	const char *credentials_error;
	unsigned connect_timeout_ms, request_timeout_ms, poll_interval_ms;
	unsigned sessions; /* last told, for the polling rate */
	bool had_bus;      /* a supervisor has served this session before */
	/* Acts for one tenant among several with the service's rights: without
	 * a bus only prompts of this session may be looked at (link_may_see).
	 */
	bool tenant;
	const char *bus_error; /* why there is no bus, if there is none */
	const struct link_patience *patience; /* NULL: the above */
};

/* Strings may be NULL for "". What is not told is learned from the supervisor;
 * without one the default URL and a fresh client id are taken. */
#define LINK_DEFAULT_URL "http://127.0.0.1:8188"

#define LINK_CLAIMS_MAX 4096 /* prompt ids remembered as this session's */

struct link *link_new(struct ev_loop *loop, const struct link_config *cfg,
                      struct error *err);
/* Last of all: whoever follows, executes or watches has to be gone. Open
 * questions get no callback. */
struct link *link_free(struct link *l);

/* Takes over a connected bus descriptor (-1: there is none). hello and attach
 * follow by themselves; a former bus is dropped. */
int link_set_bus(struct link *l, int fd, struct error *err);
/* hello and attach were answered: events come, ops can be asked. */
bool link_on_bus(const struct link *l);
/* A descriptor was given and its hello or attach is not answered yet: whoever
 * is about to choose between bus and HTTP waits for link_watch to tell. */
bool link_bus_pending(const struct link *l);
/* Some supervisor serves this session, or did: prompts of the session may be in
 * its queue. */
bool link_had_bus(const struct link *l);

/* Asks the supervisor; see client_request. Fails with ERR_UNREACHABLE when
 * there is no bus. */
uint64_t link_ask(struct link *l, enum op op, struct span params,
                  unsigned timeout_ms, client_reply_cb *cb, void *user,
                  struct error *err);
/* When a callback hears that the bus broke (`in` NULL, ERR_UNREACHABLE),
 * link_on_bus is false already and on_bus follows. */
void link_forget(struct link *l, uint64_t id);

#define LINK_OWED_MAX                                                          \
	256 /* cancels owed; past that the oldest is forgotten                 \
	     */

/* The supervisor, which is away, may hold this prompt, and its user doesn't
 * want it any more: it is told as soon as it is back. 0 or -ENOMEM. */
int link_owe_cancel(struct link *l, const char *prompt_id);
bool link_owes_cancel(const struct link *l, const char *prompt_id);

/* Changes when another life of the supervisor is at the other end: seq of
 * events counts anew. "" before the first bus. */
const char *link_epoch(const struct link *l);
struct ev_loop *link_loop(const struct link *l);
const struct link_patience *link_patience(const struct link *l);

/* ComfyUI's HTTP interface; made on first use. NULL with `err` set. */
struct comfy_api *link_api(struct link *l, struct error *err);
/* Every call that took the api tells when it is done, for closing idle
 * connections. */
void link_api_hold(struct link *l);
void link_api_release(struct link *l);

/* What asks /queue and /history for all who follow without a bus. */
struct poller *link_poller(struct link *l);
/* ComfyUI's URL, for messages. */
const char *link_url(const struct link *l);

/* Whom this worker acts for, by the supervisor's word; without one, oneself. */
uid_t link_uid(const struct link *l);

/* The client id to submit with when alone. */
const char *link_client_id(const struct link *l);
/* max(poll_interval_ms, sessions x 50 ms), jittered by a tenth. */
unsigned link_poll_ms(struct link *l);
/* Some moment within that, evenly spread: for what many workers are moved to
 * by one event. */
unsigned link_spread_ms(struct link *l);
/* Why there is no bus, for the user: "" while there is one. */
const char *link_bus_error(const struct link *l);
/* Whoever looked for a bus and found none says why. */
void link_set_bus_error(struct link *l, const char *text);

/* Whoever wants to know about events and about the bus coming and going. The
 * watcher may be removed, or others added, inside a call. */
struct link_watch {
	struct list node; /* private */
	uint64_t serial;  /* private */
	/* An event of `prompt_id`, or of every prompt if NULL. */
	const char *prompt_id;
	/* NULL: no events are wanted. */
	void (*on_event)(void *user, const struct incoming *ev);
	/* A preview of `prompt_id`, which the supervisor was asked for; `fd` is
	 * closed afterwards. NULL: not wanted. */
	void (*on_preview)(void *user, struct json data, int fd);
	/* The bus is ready (true), or gone or was refused (false). */
	void (*on_bus)(void *user, bool up);
	void *user;
};
void link_watch_add(struct link *l, struct link_watch *w);
/* Safe twice (a removed or zeroed watch). */
void link_watch_remove(struct link *l, struct link_watch *w);
/* Whether anybody watches this prompt in particular. */
bool link_watched(const struct link *l, const char *prompt_id);
/* Called when the bus broke, and when polling begins without one, so that the
 * keeper can look for another; not where a supervisor refused the session. */
void link_on_bus_lost(struct link *l, void (*cb)(void *user), void *user);

/* A change that the user should hear of in one line: that we poll and why,
 * that ComfyUI doesn't answer. Each is told once until it changes. */
void link_on_notice(struct link *l, void (*cb)(void *user, const char *text),
                    void *user);
void link_notice(struct link *l, const char *fmt, ...) ATTR_PRINTF(2, 3);
/* Somebody polls: tells why, unless it was told or there is a bus. */
void link_tell_polling(struct link *l);

/* Remembers a prompt as one of this session. */
int link_claim(struct link *l, const char *prompt_id);
bool link_claimed(const struct link *l, const char *prompt_id);
/* A predecessor's records were handed over that nobody vouches for: what they
 * name is this session's only if the supervisor says so. */
void link_doubt_records(struct link *l);
bool link_doubts_records(const struct link *l);
/* Appends the newest claims, at most `max`, as a JSON array, oldest first. */
void link_put_claims(const struct link *l, size_t max, struct buf *out);
/* Called after each new claim, for a successor's sake. */
void link_on_claim(struct link *l, void (*cb)(void *user), void *user);
/* Whether this prompt may be looked at without the supervisor's word. */
bool link_may_see(const struct link *l, const char *prompt_id);
/* Whether everything in ComfyUI may. */
bool link_may_see_all(const struct link *l);
/* Whether what the supervisor doesn't know, the web page's prompts and files,
 * counts as one's own: not where it serves others, unless one is an operator of
 * it. */
bool link_owns_rest(const struct link *l);

/* Turns for those who submit without a supervisor: one new prompt of a session
 * is outstanding at a time, in the order of asking. */
struct link_turn {
	struct list node; /* private */
	bool held;        /* private */
	void (*on_turn)(void *user);
	void *user;
};
/* on_turn is called once, never from inside. */
void link_turn_ask(struct link *l, struct link_turn *t);
/* Gives the turn back, or the place in line. Safe twice, and zeroed. */
void link_turn_done(struct link *l, struct link_turn *t);

#endif
