/*
 * early.c - see early.h.
 */
#include "supervisor/early.h"

#include <stdlib.h>
#include <string.h>

struct early_frame {
	size_t id_len, len;
	char bytes[]; /* id, frame */
};

static void drop_oldest(struct early *e)
{
	struct early_frame *f = e->frames[0];

	e->bytes -= f->id_len + f->len;
	e->count--;
	for (size_t i = 0; i < e->count; i++)
		e->frames[i] = e->frames[i + 1];
	free(f);
}

void early_clear(struct early *e)
{
	while (e->count > 0)
		drop_oldest(e);
}

void early_keep(struct early *e, struct span prompt_id, const char *frame,
                size_t len)
{
	size_t size = prompt_id.n + len;
	struct early_frame *f;

	if (size > EARLY_BYTES_MAX)
		return;
	while (e->count == EARLY_FRAMES_MAX ||
	       (e->count > 0 && e->bytes + size > EARLY_BYTES_MAX))
		drop_oldest(e);
	f = malloc(sizeof(*f) + size);
	if (!f)
		return;
	f->id_len = prompt_id.n;
	f->len = len;
	memcpy(f->bytes, prompt_id.p, prompt_id.n);
	memcpy(f->bytes + prompt_id.n, frame, len);
	e->frames[e->count++] = f;
	e->bytes += size;
}

void early_replay(struct early *e, struct span prompt_id, early_cb *cb,
                  void *user)
{
	struct early taken = *e;
	struct early_frame *f;

	/* The callback may keep frames of its own. */
	*e = (struct early){0};
	for (size_t i = 0; i < taken.count; i++) {
		f = taken.frames[i];
		if (span_eq(span_make(f->bytes, f->id_len), prompt_id))
			cb(user, f->bytes + f->id_len, f->len);
	}
	early_clear(&taken);
}
