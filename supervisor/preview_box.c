/*
 * preview_box.c - see preview_box.h.
 */
#include "supervisor/preview_box.h"

#include <string.h>

void preview_box_init(struct preview_box *b, size_t *held)
{
	*b = (struct preview_box){.held = held};
}

/* The next one is the client's: its descriptor stays held here. */
static struct frame *send_next(struct preview_box *b)
{
	struct frame *f = b->next;

	b->next = NULL;
	b->unread[b->unread_count++] = f;
	b->unacked++;
	return f;
}

enum preview_fate preview_box_offer(struct preview_box *b, struct frame *f,
                                    const char *prompt_id)
{
	bool folds = b->next != NULL;

	if (!folds && *b->held >= PREVIEWS_USER_MAX)
		return PREVIEW_REFUSED;
	if (folds)
		(void)frame_unref(b->next);
	else
		++*b->held;
	b->next = frame_ref(f);
	memcpy(b->next_id, prompt_id, sizeof(b->next_id));
	return folds ? PREVIEW_FOLDED : PREVIEW_TAKEN;
}

void preview_box_ack(struct preview_box *b)
{
	if (b->unacked > 0)
		b->unacked--;
}

void preview_box_read(struct preview_box *b)
{
	*b->held -= b->unread_count;
	while (b->unread_count > 0)
		(void)frame_unref(b->unread[--b->unread_count]);
}

struct frame *preview_box_pop(struct preview_box *b)
{
	if (!b->next || b->unacked > 0 || b->unread_count >= PREVIEW_PACED_MAX)
		return NULL;
	return send_next(b);
}

struct frame *preview_box_last(struct preview_box *b, const char *prompt_id)
{
	if (!b->next || strcmp(b->next_id, prompt_id) != 0 ||
	    b->unread_count == PREVIEW_UNREAD_MAX)
		return NULL;
	return send_next(b);
}

bool preview_box_forget(struct preview_box *b, const char *prompt_id)
{
	if (!b->next || (prompt_id && strcmp(b->next_id, prompt_id) != 0))
		return false;
	b->next = frame_unref(b->next);
	--*b->held;
	return true;
}

void preview_box_deinit(struct preview_box *b)
{
	if (!b->held)
		return;
	(void)preview_box_forget(b, NULL);
	preview_box_read(b);
	b->unacked = 0;
}
