/*
 * hand_over.h - one image from ComfyUI's output back to its input folder: GET
 * /view, POST /upload/image, for nodes that can't be told to read it where it
 * lies.
 */
#ifndef WORKERS_HAND_OVER_H
#define WORKERS_HAND_OVER_H

#include "common/chain_spec.h"
#include "workers/link.h"

#define HAND_OVER_MAX (64u << 20) /* bytes of the image */

struct hand_over;

/* `name` is what the image is called in the input folder ("x.png", or
 * "sub/x.png"); NULL with `err` set on failure. */
typedef void hand_over_cb(void *user, const char *name,
                          const struct error *err);
/* Calls back exactly once, never from inside; it is gone when the callback
 * returns. NULL with `err` set and no callback on failure. */
struct hand_over *hand_over_new(struct link *l, const struct chain_image *image,
                                hand_over_cb *cb, void *user,
                                struct error *err);
/* No callback will come. NULL is fine; returns NULL. */
struct hand_over *hand_over_free(struct hand_over *h);

#endif
