/*
 * worker_fakes.h - what a worker talks to, played by the test on the loop under
 * test: a supervisor's end of the bus, and a ComfyUI with just enough of a
 * queue and a history.
 *
 * Both speak the wire; nothing of theirs is called by the code under test.
 */
#ifndef TESTS_WORKER_FAKES_H
#define TESTS_WORKER_FAKES_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/json_span.h"
#include "ipc/lines.h"
#include "tests/script_server.h"

struct link;

#define FAKE_EPOCH "epoch-1"

/* --- bus ----------------------------------------------------------------- */

struct fake_bus {
	struct ev_loop *loop;
	int fd; /* our end; -1: closed */
	ev_io io;
	struct lines lines;
	const char *epoch;
	bool deaf;          /* reads nothing: a stopped supervisor */
	bool refuse_attach; /* "another ComfyUI" */
	/* Every request but hello, attach and ping, which are answered. */
	void (*on_request)(struct fake_bus *b, const char *op, struct json req);
	void *user;
	unsigned hellos, attaches, pings;
	char attach[1024]; /* the last attach request */
};

/* Connects it to `l`. Fields set before stay, the rest is reset. */
void fake_bus_connect(struct fake_bus *b, struct ev_loop *loop, struct link *l);
/* The same without a link: the other end, the caller's. */
int fake_bus_open(struct fake_bus *b, struct ev_loop *loop);
void fake_bus_close(struct fake_bus *b);
void fake_bus_reply(struct fake_bus *b, struct json req, const char *result);
/* `extra`: further members of error, or NULL. */
void fake_bus_refuse(struct fake_bus *b, struct json req, const char *type,
                     const char *extra);
/* `data` and `progress`: JSON text, may be NULL. */
void fake_bus_event(struct fake_bus *b, const char *event, unsigned seq,
                    const char *prompt_id, const char *data,
                    const char *progress);

/* --- ComfyUI ------------------------------------------------------------- */

enum fake_post {
	FAKE_POST_TAKE,
	FAKE_POST_REJECT,     /* 400 with node_errors */
	FAKE_POST_500,        /* plain text */
	FAKE_POST_502,        /* a gateway's, not taken */
	FAKE_POST_DROP,       /* not taken, connection closed */
	FAKE_POST_TAKE_DROP,  /* taken, connection closed before the reply */
	FAKE_POST_TAKE_LATER, /* likewise, but seen in the queue only when
	                         fake_comfy_settle is called */
	FAKE_POST_HANG,       /* taken, no reply */
	FAKE_POST_OTHER_ID,   /* an old server: an id of its own */
	FAKE_POST_OTHER_DROP, /* likewise, connection closed before it is told
	                       */
	FAKE_POST_PARTLY,     /* 200 with node_errors */
};

enum fake_prompt_state {
	FAKE_PENDING,
	FAKE_RUNNING,
	FAKE_DONE,
	FAKE_FAILED,
	FAKE_INTERRUPTED,
	FAKE_GONE,
	FAKE_HIDDEN, /* under validation */
};

#define FAKE_PROMPTS_MAX 64
#define FAKE_OTHER_ID    "0123456789abcdef0123456789abcdef"

struct fake_prompt {
	char id[64];
	char client_id[64];
	char mark[64]; /* of extra_data */
	enum fake_prompt_state state;
	unsigned posts; /* how often it was submitted */
};

struct fake_comfy {
	struct script_server *server;
	enum fake_post post;
	enum fake_prompt_state other_state; /* of FAKE_POST_OTHER_DROP */
	bool refuse_all;                    /* every reply is 503 */
	bool closed; /* every connection is closed unanswered */
	struct fake_prompt prompts[FAKE_PROMPTS_MAX];
	size_t count;
	unsigned posts, queues, histories, interrupts, deletes, views;
	char last_body[65536];
	const char *view; /* body of /view; NULL: 404 */
};

void fake_comfy_init(struct fake_comfy *c, struct ev_loop *loop);
void fake_comfy_deinit(struct fake_comfy *c);
struct fake_prompt *fake_comfy_add(struct fake_comfy *c, const char *id,
                                   enum fake_prompt_state state);
struct fake_prompt *fake_comfy_find(struct fake_comfy *c, const char *id);
/* What was hidden is pending. */
void fake_comfy_settle(struct fake_comfy *c);

/* --- link ---------------------------------------------------------------- */

/* Short ones, so that a test sees the end of them. */
extern const struct link_patience fake_patience;

/* A link of "my-client" to this ComfyUI, as yet without a bus, that has the
 * above; fails the test if there can't be one. */
struct link *fake_link_new(struct ev_loop *loop, const struct fake_comfy *c,
                           unsigned poll_interval_ms);

/* --- loop ---------------------------------------------------------------- */

/* Runs the loop until *flag, failing the test after 20 s. */
#define run_until(loop, condition)                                             \
	do {                                                                   \
		struct run_limit limit_;                                       \
		run_limit_start(&limit_, loop);                                \
		while (!(condition)) {                                         \
			ev_run(loop, EVRUN_ONCE);                              \
			ck_assert_msg(!limit_.over, "waited in vain for %s",   \
			              #condition);                             \
		}                                                              \
		run_limit_stop(&limit_, loop);                                 \
	} while (0)

struct run_limit {
	ev_timer timer;
	bool over;
};
void run_limit_start(struct run_limit *r, struct ev_loop *loop);
void run_limit_stop(struct run_limit *r, struct ev_loop *loop);
/* Runs the loop for this long. */
void run_for(struct ev_loop *loop, unsigned ms);

#endif
