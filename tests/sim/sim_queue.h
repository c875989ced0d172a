/*
 * sim_queue.h - prompts that wait, the one that runs, and the history of those
 * that ran.
 *
 * What a client posted is kept as text and copied as text, so that a seed of
 * 18446744073709551615 comes back digit for digit.
 */
#ifndef TESTS_SIM_QUEUE_H
#define TESTS_SIM_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/map.h"

#define SIM_QUEUE_MAX   100000 /* pending prompts */
#define SIM_HISTORY_MAX 10000  /* entries; the oldest goes */

struct sim_prompt {
	char *id;
	char *client_id; /* NULL: none */
	char *workflow;  /* JSON text */
	size_t workflow_len;
	char *extra_data; /* JSON text */
	size_t extra_len;
	char **outputs; /* ids of the nodes to run */
	size_t noutputs;
	double number;
	bool number_int; /* else it was given by the client: a float */
	uint64_t seq;
	int64_t created_ms, started_ms, ended_ms;
	/* once it has run: JSON texts */
	char *result; /* outputs, status and meta, without braces */
	bool success;
};

struct sim_prompt *sim_prompt_new(void);
void sim_prompt_free(struct sim_prompt *p);
/* [number, id, workflow, extra_data, outputs] */
void sim_prompt_put(struct buf *b, const struct sim_prompt *p);

struct sim_queue {
	/* A heap in the order that Python's heapq keeps, since GET /queue shows
	 * it as it lies. */
	struct sim_prompt **pending;
	size_t npending;
	struct sim_prompt *running; /* NULL: none */
	/* oldest first; a second run under one id takes the first's place */
	struct sim_prompt **history;
	size_t nhistory;
	int64_t next_number;
	uint64_t next_seq;
	void (*on_change)(void *arg);
	void *arg;
};

void sim_queue_init(struct sim_queue *q, void (*on_change)(void *), void *arg);
/* Forgets everything and starts counting at 0; tells nobody. */
void sim_queue_clear(struct sim_queue *q);
/* Takes over the prompt; -EMSGSIZE if the queue is full. */
int sim_queue_put(struct sim_queue *q, struct sim_prompt *p);
/* The next one becomes the running one; NULL if none waits. */
struct sim_prompt *sim_queue_take(struct sim_queue *q);
/* The running one goes to history. */
void sim_queue_done(struct sim_queue *q);
/* First pending prompt of that id goes; false if there is none. */
bool sim_queue_delete(struct sim_queue *q, const char *id);
void sim_queue_wipe(struct sim_queue *q);
struct sim_prompt *sim_queue_find(const struct sim_queue *q, const char *id);
/* pending and running */
size_t sim_queue_remaining(const struct sim_queue *q);
void sim_queue_put_json(const struct sim_queue *q, struct buf *b);

struct sim_prompt *sim_history_find(const struct sim_queue *q, const char *id);
bool sim_history_delete(struct sim_queue *q, const char *id);
void sim_history_wipe(struct sim_queue *q);
/* {id: entry, ...}; `max_items` and `offset` as in the query, -1: not given. */
void sim_history_put_json(const struct sim_queue *q, struct buf *b,
                          int64_t max_items, int64_t offset);
void sim_history_put_entry(struct buf *b, const struct sim_prompt *p);

#endif
