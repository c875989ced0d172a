/*
 * model.h - what `comfymux top` knows: the answers to `status` and `queue`, and
 * the events, folded into sessions, prompts and rates. Knows no screen and asks
 * nobody.
 *
 * All texts come from others: they are kept as they came, cut to a bound, and
 * text.h takes out what a terminal would obey.
 */
#ifndef WORKERS_TOP_MODEL_H
#define WORKERS_TOP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/comfymux.h"
#include "common/list.h"
#include "common/map.h"
#include "ipc/message.h"

#define TOP_PROMPTS_MAX   5000 /* shown; ended ones make room first */
#define TOP_SESSIONS_MAX  5000 /* shown; further ones are counted */
#define TOP_ENDED_KEEP_MS 60000
#define TOP_ID_MAX        CMX_PROMPT_ID_MAX
#define TOP_TEXT_MAX      63 /* bytes of a node's id, an error's type ... */
#define TOP_URL_MAX       255
#define TOP_BUCKETS_MAX   32 /* of the histogram of latencies */

struct top_session {
	char id[TOP_TEXT_MAX + 1];
	char kind[TOP_TEXT_MAX + 1];
	char user[TOP_TEXT_MAX + 1]; /* name, or the uid where it has none */
	int64_t pid, keeper_pid;
	int64_t uid, in_flight, restarts;
};

struct top_prompt {
	struct list link; /* of top_model.prompts, the oldest first */
	char id[TOP_ID_MAX + 1];
	enum cmx_status status;
	bool paused;
	char node[TOP_TEXT_MAX + 1]; /* that runs; "" if none */
	char error[TOP_TEXT_MAX + 1];
	double fraction;   /* of the node, 0 to 1 */
	double value, max; /* steps of the node; max 0: not known */
	int64_t position;  /* -1: not known */
	size_t nodes_done; /* completed or from the cache */
	int64_t since_ms;  /* submitted (epoch), or first heard of */
	bool since_known;  /* submitted */
	int64_t ended_ms;  /* 0: it goes on */
};

/* Counts of latencies by their upper bounds. */
struct top_latency {
	size_t count; /* of bounds; one more bucket than bounds */
	int64_t bounds_us[TOP_BUCKETS_MAX];
	int64_t buckets[TOP_BUCKETS_MAX + 1];
};

/* The connection to the supervisor. */
enum top_link {
	TOP_LINK_AWAY,   /* none, and tried again */
	TOP_LINK_COMING, /* connected, hello not answered yet */
	TOP_LINK_UP,
};

struct top_model {
	const char *(*user_name)(int64_t uid); /* NULL: none has a name */
	enum top_link link;
	char link_error[TOP_URL_MAX + 1];
	/* of status */
	char version[TOP_TEXT_MAX + 1];
	char url[TOP_URL_MAX + 1];
	char upstream[TOP_TEXT_MAX + 1];
	char upstream_error[TOP_URL_MAX + 1];
	int64_t pid, reconnects, subscribers;
	int64_t running, waiting, retained;
	bool paused, is_operator;
	int64_t status_ms; /* monotonic, when the last one came; 0: none yet */
	struct top_session *sessions;
	size_t session_count, sessions_left_out;
	/* of events */
	struct list prompts;
	struct map by_id;
	size_t prompt_count;
	bool prompts_left_out; /* there are more than TOP_PROMPTS_MAX */
	bool ages_wanted; /* there is a prompt whose age `queue` would tell */
	/* rates: between the last two answers to status */
	uint64_t heard;      /* events so far */
	uint64_t heard_then; /* at the last answer */
	int64_t frames;      /* from ComfyUI, so far; -1: not told */
	int64_t missed;      /* likewise; left out for slow readers */
	double heard_rate;   /* per second */
	double frames_rate;  /* negative: not known */
	struct top_latency latency, latency_then;
};

void top_model_init(struct top_model *m);
/* Safe twice. */
void top_model_deinit(struct top_model *m);

/* The supervisor is there: what it won't tell again is forgotten. */
void top_model_connected(struct top_model *m, const char *version, pid_t pid,
                         bool is_operator);
void top_model_away(struct top_model *m, const char *why);

/* `result` of status; `now_ms` monotonic. */
void top_model_status(struct top_model *m, struct json result, int64_t now_ms);
/* `result` of queue: since when prompts wait. */
void top_model_queue(struct top_model *m, struct json result);
/* `epoch_ms`: now. */
void top_model_event(struct top_model *m, const struct incoming *ev,
                     int64_t epoch_ms);
/* Forgets prompts that ended a while ago. */
void top_model_age(struct top_model *m, int64_t epoch_ms);

const struct top_prompt *top_model_prompt(const struct top_model *m,
                                          const char *id);
const struct top_session *top_model_session(const struct top_model *m,
                                            const char *id);

/* The bound, in us, below which `share` (0 to 1) of what was written between
 * the last two answers stayed; -1: nothing was, or it isn't told; INT64_MAX:
 * above all bounds. */
int64_t top_model_latency_us(const struct top_model *m, double share);

#endif
