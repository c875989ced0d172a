/*
 * sim_queue.c - see sim_queue.h.
 */
#include "tests/sim/sim_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/sim/sim_text.h"

struct sim_prompt *sim_prompt_new(void)
{
	struct sim_prompt *p = sim_calloc(1, sizeof(*p));

	p->created_ms = clock_epoch_ms();
	return p;
}

void sim_prompt_free(struct sim_prompt *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->noutputs; i++)
		free(p->outputs[i]);
	free(p->outputs);
	free(p->id);
	free(p->client_id);
	free(p->workflow);
	free(p->extra_data);
	free(p->result);
	free(p);
}

void sim_prompt_put(struct buf *b, const struct sim_prompt *p)
{
	(void)buf_putc(b, '[');
	(void)sim_put_number(b, p->number, p->number_int);
	(void)buf_puts(b, ", ");
	(void)sim_put_string(b, p->id);
	(void)buf_puts(b, ", ");
	(void)buf_append(b, p->workflow, p->workflow_len);
	(void)buf_puts(b, ", ");
	(void)buf_append(b, p->extra_data, p->extra_len);
	(void)buf_puts(b, ", ");
	(void)sim_put_strings(b, p->outputs, p->noutputs);
	(void)buf_putc(b, ']');
}

void sim_queue_init(struct sim_queue *q, void (*on_change)(void *), void *arg)
{
	memset(q, 0, sizeof(*q));
	q->on_change = on_change;
	q->arg = arg;
}

static void drop_pending(struct sim_queue *q)
{
	for (size_t i = 0; i < q->npending; i++)
		sim_prompt_free(q->pending[i]);
	free(q->pending);
	q->pending = NULL;
	q->npending = 0;
}

void sim_history_wipe(struct sim_queue *q)
{
	for (size_t i = 0; i < q->nhistory; i++)
		sim_prompt_free(q->history[i]);
	free(q->history);
	q->history = NULL;
	q->nhistory = 0;
}

void sim_queue_clear(struct sim_queue *q)
{
	drop_pending(q);
	sim_history_wipe(q);
	sim_prompt_free(q->running);
	q->running = NULL;
	q->next_number = 0;
}

/* --- the heap, as Python's heapq arranges it ---------------------------------
 */

static bool before(const struct sim_prompt *a, const struct sim_prompt *b)
{
	if (a->number < b->number)
		return true;
	return a->number <= b->number && a->seq < b->seq;
}

static void sift_down(struct sim_prompt **heap, size_t start, size_t pos)
{
	struct sim_prompt *p = heap[pos];

	while (pos > start) {
		size_t parent = (pos - 1) / 2;

		if (!before(p, heap[parent]))
			break;
		heap[pos] = heap[parent];
		pos = parent;
	}
	heap[pos] = p;
}

/* To a leaf first, then up again. */
static void sift_up(struct sim_prompt **heap, size_t n, size_t pos)
{
	size_t start = pos, child = 2 * pos + 1;
	struct sim_prompt *p = heap[pos];

	while (child < n) {
		if (child + 1 < n && !before(heap[child], heap[child + 1]))
			child++;
		heap[pos] = heap[child];
		pos = child;
		child = 2 * pos + 1;
	}
	heap[pos] = p;
	sift_down(heap, start, pos);
}

int sim_queue_put(struct sim_queue *q, struct sim_prompt *p)
{
	if (q->npending >= SIM_QUEUE_MAX) {
		sim_prompt_free(p);
		return -EMSGSIZE;
	}
	if (q->npending % 64 == 0)
		q->pending = sim_realloc(q->pending, q->npending + 64,
		                         sizeof(struct sim_prompt *));
	p->seq = q->next_seq++;
	q->pending[q->npending++] = p;
	sift_down(q->pending, 0, q->npending - 1);
	q->on_change(q->arg);
	return 0;
}

struct sim_prompt *sim_queue_take(struct sim_queue *q)
{
	struct sim_prompt *p;

	if (!q->npending || q->running)
		return NULL;
	p = q->pending[0];
	q->pending[0] = q->pending[--q->npending];
	if (q->npending)
		sift_up(q->pending, q->npending, 0);
	q->running = p;
	p->started_ms = clock_epoch_ms();
	q->on_change(q->arg);
	return p;
}

void sim_queue_wipe(struct sim_queue *q)
{
	drop_pending(q);
	q->on_change(q->arg);
}

bool sim_queue_delete(struct sim_queue *q, const char *id)
{
	for (size_t i = 0; i < q->npending; i++) {
		if (strcmp(q->pending[i]->id, id) != 0)
			continue;
		sim_prompt_free(q->pending[i]);
		memmove(&q->pending[i], &q->pending[i + 1],
		        (q->npending - i - 1) * sizeof(struct sim_prompt *));
		q->npending--;
		for (size_t k = q->npending / 2; k-- > 0;)
			sift_up(q->pending, q->npending, k);
		q->on_change(q->arg);
		return true;
	}
	return false;
}

struct sim_prompt *sim_queue_find(const struct sim_queue *q, const char *id)
{
	if (q->running && strcmp(q->running->id, id) == 0)
		return q->running;
	for (size_t i = 0; i < q->npending; i++) {
		if (strcmp(q->pending[i]->id, id) == 0)
			return q->pending[i];
	}
	return NULL;
}

size_t sim_queue_remaining(const struct sim_queue *q)
{
	return q->npending + (q->running ? 1 : 0);
}

void sim_queue_put_json(const struct sim_queue *q, struct buf *b)
{
	(void)buf_puts(b, "{\"queue_running\": [");
	if (q->running)
		sim_prompt_put(b, q->running);
	(void)buf_puts(b, "], \"queue_pending\": [");
	for (size_t i = 0; i < q->npending; i++) {
		if (i)
			(void)buf_puts(b, ", ");
		sim_prompt_put(b, q->pending[i]);
	}
	(void)buf_puts(b, "]}");
}

/* --- history
 * ------------------------------------------------------------------ */

void sim_queue_done(struct sim_queue *q)
{
	struct sim_prompt *p = q->running;

	q->running = NULL;
	p->ended_ms = clock_epoch_ms();
	if (q->nhistory > SIM_HISTORY_MAX) {
		sim_prompt_free(q->history[0]);
		memmove(&q->history[0], &q->history[1],
		        --q->nhistory * sizeof(struct sim_prompt *));
	}
	for (size_t i = 0; i < q->nhistory; i++) {
		if (strcmp(q->history[i]->id, p->id) == 0) {
			sim_prompt_free(q->history[i]);
			q->history[i] = p;
			q->on_change(q->arg);
			return;
		}
	}
	if (q->nhistory % 64 == 0)
		q->history = sim_realloc(q->history, q->nhistory + 64,
		                         sizeof(struct sim_prompt *));
	q->history[q->nhistory++] = p;
	q->on_change(q->arg);
}

struct sim_prompt *sim_history_find(const struct sim_queue *q, const char *id)
{
	for (size_t i = q->nhistory; i-- > 0;) {
		if (strcmp(q->history[i]->id, id) == 0)
			return q->history[i];
	}
	return NULL;
}

bool sim_history_delete(struct sim_queue *q, const char *id)
{
	for (size_t i = 0; i < q->nhistory; i++) {
		if (strcmp(q->history[i]->id, id) != 0)
			continue;
		sim_prompt_free(q->history[i]);
		memmove(&q->history[i], &q->history[i + 1],
		        (q->nhistory - i - 1) * sizeof(struct sim_prompt *));
		q->nhistory--;
		return true;
	}
	return false;
}

void sim_history_put_entry(struct buf *b, const struct sim_prompt *p)
{
	(void)sim_put_string(b, p->id);
	(void)buf_puts(b, ": {\"prompt\": ");
	sim_prompt_put(b, p);
	(void)buf_puts(b, ", ");
	(void)buf_puts(b, p->result);
	(void)buf_putc(b, '}');
}

void sim_history_put_json(const struct sim_queue *q, struct buf *b,
                          int64_t max_items, int64_t offset)
{
	int64_t n = (int64_t)q->nhistory, put = 0;

	if (offset < 0)
		offset = max_items >= 0 ? n - max_items : 0;
	(void)buf_putc(b, '{');
	for (int64_t i = offset > 0 ? offset : 0; i < n; i++) {
		if (put++)
			(void)buf_puts(b, ", ");
		sim_history_put_entry(b, q->history[i]);
		/* Looked at after the fact, as the original does: 0 items with
		 * an offset gives one. */
		if (max_items >= 0 && put >= max_items)
			break;
	}
	(void)buf_putc(b, '}');
}
