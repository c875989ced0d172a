/*
 * hub_impl.h - what the files of the hub share with each other and nobody
 * else.
 */
#ifndef SUPERVISOR_HUB_IMPL_H
#define SUPERVISOR_HUB_IMPL_H

#include "supervisor/hub.h"

/* Consumes `fd` and `creds`, also on failure. NULL with `err` set. */
struct peer *peer_new(struct hub *h, int fd, struct creds *creds,
                      bool is_operator, struct error *err);
/* `why` is for the log; NULL: it just left. */
void peer_close(struct peer *p, const char *why);
/* Handles lines that are there. May close it. */
void peer_work(struct peer *p);
/* Writes what is there. May close it. */
void peer_write(struct peer *p);

#endif
