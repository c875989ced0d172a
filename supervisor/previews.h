/*
 * previews.h - pictures of what is being made, from ComfyUI's binary frames to
 * the clients that asked: one sealed file in memory a frame, which all share.
 *
 * Only frames that name their prompt are passed on (binary type 4). Those of
 * the older kind could be anybody's, also a prompt's that isn't ours: ComfyUI
 * sends pictures of a prompt without client_id to every socket.
 */
#ifndef SUPERVISOR_PREVIEWS_H
#define SUPERVISOR_PREVIEWS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/comfy_event.h"
#include "common/error.h"

struct peer;
struct prompt;
struct supervisor;

#define PREVIEWS_OPEN_MAX 128 /* files at once, for all clients */
/* Part of RLIMIT_NOFILE that they may be, where that is less. */
#define PREVIEWS_FDS_SHARE 8
/* Bytes of what a preview says of itself. */
#define PREVIEW_META_MAX 4096

struct previews {
	size_t wanted;   /* subscriptions that bring them */
	size_t open;     /* files */
	size_t open_max; /* as RLIMIT_NOFILE allows */
	bool failing;    /* the last one could not be made */
};

void previews_init(struct supervisor *sv);
static inline bool previews_wanted(const struct previews *pv)
{
	return pv->wanted > 0;
}

/* A binary frame, while somebody wants previews. */
void previews_take(struct supervisor *sv, const struct comfy_event *ev);
/* The prompt is about to be told to have ended: its last one first. */
void previews_end(struct supervisor *sv, struct prompt *p);
/* A client has taken one. */
void previews_ack(struct peer *peer);
/* It doesn't want those of this prompt (NULL: any) any more. */
void previews_forget(struct peer *peer, const char *prompt_id);
/* It may have read what it was sent: that is let go of, and the next one sent
 * if it is due. */
void previews_settle(struct peer *peer);
/* That for all, once in a while. */
void previews_sweep(struct supervisor *sv);

#endif
