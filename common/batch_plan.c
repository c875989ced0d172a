/*
 * batch_plan.c - see batch_plan.h.
 */
#include "common/batch_plan.h"

#include <stdlib.h>
#include <string.h>

int batch_plan_init(struct batch_plan *p, size_t count,
                    const struct batch_options *o, struct error *err)
{
	memset(p, 0, sizeof(*p));
	p->options = *o;
	if (count == 0)
		return error_set(err, ERR_INVALID,
		                 "the batch is empty: give at least one "
		                 "workflow");
	if (count > BATCH_ITEMS_MAX)
		return error_set(err, ERR_LIMIT,
		                 "%zu workflows, and a batch holds at most %d; "
		                 "make several of it",
		                 count, BATCH_ITEMS_MAX);
	if (o->concurrency < 1 || o->concurrency > BATCH_CONCURRENCY_MAX)
		return error_set(err, ERR_INVALID,
		                 "concurrency must be from 1 to %d, not %u",
		                 BATCH_CONCURRENCY_MAX, o->concurrency);
	if (o->resubmits > BATCH_RESUBMITS_MAX)
		p->options.resubmits = BATCH_RESUBMITS_MAX;
	p->items = calloc(count, sizeof(*p->items));
	if (!p->items)
		return error_set_nomem(err, "batch");
	p->count = count;
	p->in_state[BATCH_WAITING] = count;
	return 0;
}

void batch_plan_deinit(struct batch_plan *p)
{
	free(p->items);
	p->items = NULL;
	p->count = 0;
}

static void plan_enter(struct batch_plan *p, size_t index, enum batch_state s)
{
	struct batch_plan_item *it = &p->items[index];

	if (it->state == BATCH_RUNNING)
		p->running -= (double)it->fraction;
	it->fraction = 0;
	p->in_state[it->state]--;
	it->state = (unsigned char)s;
	p->in_state[s]++;
	/* Nothing of what was added and taken away again stays. */
	if (p->in_state[BATCH_RUNNING] == 0)
		p->running = 0;
}

static bool plan_first_waiting(struct batch_plan *p, size_t *indexp)
{
	while (p->next < p->count && p->items[p->next].state != BATCH_WAITING)
		p->next++;
	*indexp = p->next;
	return p->next < p->count;
}

bool batch_plan_next(struct batch_plan *p, size_t *indexp)
{
	if (p->stopped ||
	    p->in_state[BATCH_RUNNING] >= p->options.concurrency ||
	    !plan_first_waiting(p, indexp))
		return false;
	plan_enter(p, *indexp, BATCH_RUNNING);
	return true;
}

void batch_plan_advance(struct batch_plan *p, size_t index, double fraction)
{
	struct batch_plan_item *it = &p->items[index];

	if (it->state != BATCH_RUNNING || !(fraction > (double)it->fraction))
		return;
	p->running -= (double)it->fraction;
	it->fraction = fraction < 1 ? (float)fraction : 1;
	p->running += (double)it->fraction;
}

bool batch_plan_ended(struct batch_plan *p, size_t index, enum batch_outcome o)
{
	struct batch_plan_item *it = &p->items[index];

	if (it->state != BATCH_RUNNING)
		return false;
	if (o == BATCH_OUTCOME_LOST && !p->stopped &&
	    it->resubmits < p->options.resubmits) {
		it->resubmits++;
		p->resubmitted++;
		return true;
	}
	plan_enter(p, index,
	           o == BATCH_OUTCOME_OK ? BATCH_COMPLETED : BATCH_FAILED);
	if (o != BATCH_OUTCOME_OK && p->options.stop_on_error)
		p->stopped = true;
	return false;
}

void batch_plan_stop(struct batch_plan *p)
{
	p->stopped = true;
}

bool batch_plan_skip(struct batch_plan *p, size_t *indexp)
{
	if (!p->stopped || !plan_first_waiting(p, indexp))
		return false;
	plan_enter(p, *indexp, BATCH_SKIPPED);
	return true;
}

bool batch_plan_over(const struct batch_plan *p)
{
	return p->in_state[BATCH_WAITING] + p->in_state[BATCH_RUNNING] == 0;
}

void batch_plan_restore_ended(struct batch_plan *p, size_t index, bool ok)
{
	if (index >= p->count || p->items[index].state != BATCH_WAITING)
		return;
	plan_enter(p, index, ok ? BATCH_COMPLETED : BATCH_FAILED);
	if (!ok && p->options.stop_on_error)
		p->stopped = true;
}

void batch_plan_restore_running(struct batch_plan *p, size_t index,
                                unsigned resubmits)
{
	if (index >= p->count || p->items[index].state != BATCH_WAITING)
		return;
	plan_enter(p, index, BATCH_RUNNING);
	p->items[index].resubmits = resubmits < BATCH_RESUBMITS_MAX
	                                    ? (unsigned char)resubmits
	                                    : BATCH_RESUBMITS_MAX;
	p->resubmitted += p->items[index].resubmits;
}

double batch_plan_fraction(const struct batch_plan *p)
{
	double done = (double)(p->count - p->in_state[BATCH_WAITING] -
	                       p->in_state[BATCH_RUNNING]);

	return p->count == 0 ? 0 : (done + p->running) / (double)p->count;
}
