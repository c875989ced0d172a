/*
 * client_queue.c - see client_queue.h.
 */
#include "supervisor/client_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	struct list link;
	struct frame *frame;
	char id[UUID_LEN + 1]; /* of a STEP, key in `steps`; else "" */
};

struct due {
	struct list link;
	uint64_t missed, seq;
	char id[UUID_LEN + 1];
};

void client_queue_init(struct client_queue *q, size_t quota)
{
	*q = (struct client_queue){.quota = quota};
	list_init(&q->entries);
	list_init(&q->due);
	list_init(&q->spare);
}

static void drop_due(struct client_queue *q, struct due *d)
{
	(void)map_remove(&q->due_by_id, d->id, strlen(d->id));
	list_del(&d->link);
	free(d);
}

/* Takes the entry out; its frame is the caller's. */
static struct frame *take(struct client_queue *q, struct entry *e)
{
	struct frame *f = e->frame;

	if (e->id[0] != '\0')
		(void)map_remove(&q->steps, e->id, strlen(e->id));
	list_del(&e->link);
	q->count--;
	q->bytes -= f->len;
	if (q->total)
		*q->total -= f->len;
	if (q->spare_count < CLIENT_QUEUE_SPARE_MAX) {
		list_append(&q->spare, &e->link);
		q->spare_count++;
	} else {
		free(e);
	}
	return f;
}

void client_queue_deinit(struct client_queue *q)
{
	struct frame *f;
	struct list *n;

	while ((f = client_queue_pop(q)))
		frame_unref(f);
	client_queue_forget_due(q);
	while ((n = list_pop(&q->spare)))
		free(list_entry(n, struct entry, link));
	q->spare_count = 0;
	map_deinit(&q->steps);
	map_deinit(&q->due_by_id);
}

static struct entry *entry_get(struct client_queue *q)
{
	struct entry *e;

	if (list_empty(&q->spare))
		return malloc(sizeof(*e));
	e = list_first(&q->spare, struct entry, link);
	list_del(&e->link);
	q->spare_count--;
	return e;
}

static int append(struct client_queue *q, struct frame *f, const char *step_id)
{
	struct entry *e = entry_get(q);

	if (!e)
		return -ENOMEM;
	e->id[0] = '\0';
	if (step_id) {
		memcpy(e->id, step_id, sizeof(e->id));
		if (map_add(&q->steps, e->id, strlen(e->id), e) != 0) {
			free(e);
			return -ENOMEM;
		}
	}
	e->frame = frame_ref(f);
	list_append(&q->entries, &e->link);
	q->count++;
	q->bytes += f->len;
	if (q->total)
		*q->total += f->len;
	return 0;
}

int client_queue_reply(struct client_queue *q, struct frame *f)
{
	return append(q, f, NULL);
}

/* `f`: the event that is left out, NULL if none is. */
static void add_missed(struct due *d, const struct frame *f)
{
	if (!f)
		return;
	d->missed++;
	d->seq = f->seq;
}

/* `f`: as add_missed(). */
static int note_due(struct client_queue *q, const char *prompt_id,
                    const struct frame *f)
{
	struct due *d = map_get(&q->due_by_id, prompt_id, strlen(prompt_id));

	if (d) {
		add_missed(d, f);
		return 0;
	}
	if (q->due_by_id.count >= CLIENT_QUEUE_DUE_MAX)
		return -ENOBUFS;
	d = malloc(sizeof(*d));
	if (!d)
		return -ENOMEM;
	memcpy(d->id, prompt_id, sizeof(d->id));
	d->missed = d->seq = 0;
	add_missed(d, f);
	if (map_add(&q->due_by_id, d->id, strlen(d->id), d) != 0) {
		free(d);
		return -ENOMEM;
	}
	list_append(&q->due, &d->link);
	return 0;
}

/* The newest STEP stands for those before it, and comes behind whatever was
 * queued since: `seq` never runs backwards. */
static void fold_step(struct client_queue *q, const char *prompt_id)
{
	struct entry *old = map_get(&q->steps, prompt_id, strlen(prompt_id));

	if (!old)
		return;
	frame_unref(take(q, old));
	q->folded++;
}

int client_queue_event(struct client_queue *q, struct frame *f,
                       enum event_fold fold, const char *prompt_id)
{
	if (!prompt_id) {
		if (!client_queue_full(q))
			return append(q, f, NULL);
		q->missed++;
		return 0;
	}
	if (!list_empty(&q->due) &&
	    map_get(&q->due_by_id, prompt_id, strlen(prompt_id))) {
		q->missed++;
		return note_due(q, prompt_id, f);
	}
	if (fold == FOLD_STEP && q->count > 0)
		fold_step(q, prompt_id);
	/* A frame larger than the quota goes when nothing else waits. */
	if (q->count > 0 &&
	    (q->bytes + f->len > q->quota || client_queue_over(q))) {
		q->missed++;
		return note_due(q, prompt_id, f);
	}
	return append(q, f, fold == FOLD_STEP ? prompt_id : NULL);
}

int client_queue_want(struct client_queue *q, const char *prompt_id)
{
	return note_due(q, prompt_id, NULL);
}

void client_queue_unwant(struct client_queue *q, const char *prompt_id)
{
	struct due *d = map_get(&q->due_by_id, prompt_id, strlen(prompt_id));

	if (d)
		drop_due(q, d);
}

void client_queue_forget_due(struct client_queue *q)
{
	struct list *n;

	while ((n = list_pop(&q->due)))
		drop_due(q, list_entry(n, struct due, link));
}

bool client_queue_due(struct client_queue *q, char id[UUID_LEN + 1],
                      uint64_t *missedp, uint64_t *seqp)
{
	struct due *d;

	/* Half the quota, so that a snapshot isn't followed by the next miss
	 * at once. */
	if (list_empty(&q->due) || q->bytes > q->quota / 2 ||
	    client_queue_over(q))
		return false;
	d = list_first(&q->due, struct due, link);
	memcpy(id, d->id, sizeof(d->id));
	*missedp = d->missed;
	*seqp = d->seq;
	drop_due(q, d);
	return true;
}

struct frame *client_queue_pop(struct client_queue *q)
{
	struct list *n = list_pop(&q->entries);

	return n ? take(q, list_entry(n, struct entry, link)) : NULL;
}
