/*
 * preview_box.h - the previews of one client: one on its way, the latest of the
 * others waits. Pure.
 *
 * The next one goes when the client has acknowledged the last; what comes
 * meanwhile takes the place of what waits. Its descriptor stays held until the
 * client has read all that was sent, not only said so: what lies unread in a
 * socket is kept in memory at our cost, so that it has to be counted.
 */
#ifndef SUPERVISOR_PREVIEW_BOX_H
#define SUPERVISOR_PREVIEW_BOX_H

#include <stdbool.h>
#include <stddef.h>

#include "common/uuid.h"
#include "ipc/frame.h"

#define PREVIEW_UNREAD_MAX 8  /* sent to one client, not known to be read */
#define PREVIEW_PACED_MAX  4  /* of these; the others are for last ones alone */
#define PREVIEWS_USER_MAX  16 /* held for all clients of one user */

struct preview_box {
	struct frame *unread[PREVIEW_UNREAD_MAX];
	size_t unread_count;
	size_t unacked;
	struct frame *next;         /* NULL: none waits */
	char next_id[UUID_LEN + 1]; /* its prompt */
	size_t *held;               /* by the boxes of one user */
};

void preview_box_init(struct preview_box *b, size_t *held);
/* Lets go of everything; safe twice. */
void preview_box_deinit(struct preview_box *b);

enum preview_fate {
	PREVIEW_TAKEN,
	PREVIEW_FOLDED,  /* likewise, and one that waited is gone */
	PREVIEW_REFUSED, /* PREVIEWS_USER_MAX */
};
/* A new one of `prompt_id` waits now, see preview_box_pop; the caller keeps his
 * reference. */
enum preview_fate preview_box_offer(struct preview_box *b, struct frame *f,
                                    const char *prompt_id);

/* The client has taken one: the oldest that is open. */
void preview_box_ack(struct preview_box *b);
/* It has read all that was sent. */
void preview_box_read(struct preview_box *b);
/* What may go now, for the caller to send and not to keep; NULL: nothing. */
struct frame *preview_box_pop(struct preview_box *b);
/* Likewise the one of this prompt, which ends, though another is open. */
struct frame *preview_box_last(struct preview_box *b, const char *prompt_id);
/* Nothing of this prompt (NULL: of any) is to come. Returns whether there was
 * something. */
bool preview_box_forget(struct preview_box *b, const char *prompt_id);

#endif
