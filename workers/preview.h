/*
 * preview.h - a preview that a worker keeps: the latest of a prompt, as the
 * file that the supervisor shares among all who asked. Nothing is copied before
 * somebody wants the bytes.
 */
#ifndef WORKERS_PREVIEW_H
#define WORKERS_PREVIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/json_span.h"

struct worker;

#define PREVIEW_MIME_LEN  63 /* bytes of a MIME type, longest that is kept */
#define PREVIEWS_KEPT_MAX 64 /* files that this process holds */

struct preview {
	int fd; /* -1: there is none */
	size_t bytes;
	char mime[PREVIEW_MIME_LEN + 1];
};

#define PREVIEW_NULL                                                           \
	{                                                                      \
		.fd = -1                                                       \
	}

static inline bool preview_is(const struct preview *p)
{
	return p->fd >= 0;
}

/* Keeps the one of event data `data` in place of what is there; `fd` stays the
 * caller's. 0 or a negative errno: -EPROTO if it is not what the event says or
 * could still change, -EFBIG past PREVIEW_BYTES_MAX, -EMFILE past
 * PREVIEWS_KEPT_MAX; then `p` is as it was. */
int preview_take(struct preview *p, struct json data, int fd);
/* Safe twice. */
void preview_drop(struct preview *p);
/* Hands it over; what `to` had is dropped. */
void preview_move(struct preview *to, struct preview *from);
/* Appends the picture. 0 or a negative errno. */
int preview_read(const struct preview *p, struct buf *out);

/* Sends it to the keeper, for request `line`. False: not now, the keeper has
 * something to take first; the kind's on_room comes. `last`: now or never. */
bool preview_send(struct worker *w, uint64_t line, const struct preview *p,
                  bool last);

#endif
