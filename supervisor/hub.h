/*
 * hub.h - the connected clients: accepting, reading, writing, each within
 * bounds, none waiting for another.
 *
 * Requests go to ops.h. What is to be written waits in the client's queue and
 * goes out once a turn of the loop, so that a burst of events costs a client
 * one system call.
 */
#ifndef SUPERVISOR_HUB_H
#define SUPERVISOR_HUB_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/list.h"
#include "common/span.h"
#include "ipc/conn.h"
#include "ipc/creds.h"
#include "ipc/listener.h"
#include "ipc/message.h"
#include "supervisor/client_queue.h"
#include "supervisor/limits.h"
#include "supervisor/preview_box.h"
#include "supervisor/subscription.h"

struct prompt;
struct session;
struct supervisor;
struct tenant;

#define HUB_LINES_PER_TURN     32 /* requests of one client handled at once */
#define HUB_SNAPSHOTS_PER_TURN 64 /* of one client built at once */
/* Unfinished request lines of all clients together. */
#define HUB_LINES_BYTES_MAX (256u << 20)
/* Requests of one client that wait for ComfyUI; past it no more are read. */
#define HUB_WAITS_MAX 256
/* Events of a prompt that runs before its POST is answered. */
#define WAIT_HELD_MAX 64
/* Bytes handed to the kernel's and conn's side, where nothing is folded. */
#define HUB_CONN_LOW (64u << 10)
/* A client whose queue is full and that takes nothing for so long has died
 * without closing, or is stopped: it is disconnected. */
#define HUB_STALL_MS 60000
/* Accepting pauses for so long when descriptors run out. */
#define HUB_PAUSE_S 1.0
/* Share of max_clients that one uid may take, unless it is an operator's. */
#define HUB_TENANT_SHARE 2
/* Descriptors per connection of operator_reserve that are kept free. */
#define HUB_FDS_PER_RESERVE 2
#define HUB_NAME_MAX        64 /* bytes of a client's name */

struct peer {
	struct list link;    /* hub.peers */
	struct list dirty;   /* hub.dirty, or itself */
	struct list backlog; /* hub.backlog, or itself: lines wait */
	struct list stalled; /* hub.stalled, or itself */
	struct supervisor *sv;
	uint64_t number; /* for the log */
	struct conn conn;
	struct creds creds;
	struct client_queue queue;
	struct preview_box previews;
	ev_io reader, writer;
	struct tenant *tenant;
	struct subscriber subscriber;
	bool is_operator;
	bool greeted; /* hello was answered */
	bool closing; /* to be closed as soon as nobody holds it */
	bool leaving; /* it has closed its end, and all lines are handled */
	char name[HUB_NAME_MAX + 1];
	struct session *session; /* of which it is keeper or bus; NULL: none */
	bool is_bus;             /* made for a session's worker */
	struct list waits;       /* its requests that wait for ComfyUI */
	size_t wait_count;
	struct list prompts; /* that it submitted, not over */
	size_t in_flight;    /* their number */
	int64_t stalled_ms;  /* since when nothing was taken */
	/* Receipt of the oldest frame of which something is to be written; 0:
	 * none. */
	int64_t frame_us;
};

/* A request whose answer depends on ComfyUI. Belongs to a peer and to a
 * prompt, and goes with the first of them. */
struct wait {
	struct list by_peer, by_prompt;
	struct peer *peer;
	struct prompt *prompt;
	/* submit: as if subscribe followed. What is told before the answer is
	 * held back until then, see tell_hold. */
	bool subscribe;
	bool previews; /* ... with previews */
	struct frame *held[WAIT_HELD_MAX];
	size_t held_count;
	uint64_t held_missed; /* that there was no room for */
	size_t id_len;
	char id[MESSAGE_ID_MAX];
};

struct hub {
	struct supervisor *sv;
	struct listener listener;
	struct lines_budget budget;
	ev_io acceptor;
	ev_timer pause;
	ev_idle backlog_runner;
	ev_prepare flusher;
	struct list peers, dirty, backlog, stalled;
	size_t peer_count;
	uint64_t next_peer;
	int64_t idle_since_ms; /* no clients; only while peer_count is 0 */
};

/* The socket alone, for a place where only root can make it. It belongs to the
 * service's user; nobody is let in yet. */
int hub_make_socket(struct hub *h, struct supervisor *sv, struct error *err);
int hub_init(struct hub *h, struct supervisor *sv, struct error *err);
/* Accepts no more, and takes the socket's name away. */
void hub_close_door(struct hub *h);
/* Closes everybody. Safe twice. */
void hub_deinit(struct hub *h);
/* Nothing waits to be written. */
bool hub_drained(const struct hub *h);
/* Once in a while: drops clients that take nothing. */
void hub_sweep(struct hub *h, int64_t now_ms);

/* Replies; `result` as in reply_ok, `extra` as in reply_error. */
void peer_reply(struct peer *p, struct span id, struct span result);
void peer_refuse(struct peer *p, struct span id, const struct error *err,
                 struct span extra);
/* An event for it; the caller keeps his reference. */
void peer_tell(struct peer *p, struct frame *f, enum event_fold fold,
               const char *prompt_id);
/* A line that is never left out. */
void peer_send(struct peer *p, struct frame *f);
/* Snapshots are due, or something else wants the flusher. */
void peer_touch(struct peer *p);

/* May the client's user have `more` of it? 0, or -1 with `err`; operators may
 * always. */
int peer_check_limit(struct peer *p, enum limit which, size_t more,
                     struct error *err);

/* Puts the request on a list of the prompt's; NULL when out of memory. */
struct wait *wait_new(struct peer *p, struct span id, struct prompt *prompt,
                      struct list *on);
void wait_free(struct wait *w);
static inline struct span wait_id(const struct wait *w)
{
	return span_make(w->id_len > 0 ? w->id : NULL, w->id_len);
}

/* A client on a socketpair's end (consumed, on failure too) that acts for these
 * credentials: a bus. `roomy`: as many as operators may have. NULL with `err`.
 */
struct peer *hub_adopt(struct hub *h, int fd, const struct creds *as,
                       bool roomy, bool is_operator, struct error *err);

static inline struct peer *peer_of(struct subscriber *s)
{
	return container_of(s, struct peer, subscriber);
}

#endif
