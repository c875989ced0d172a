/*
 * poster.h - gives prompts to ComfyUI: one POST at a time, so that their order
 * is kept; in turns and with a bound on what is outstanding when there are
 * several tenants; backing off while ComfyUI is away; none during a pause.
 */
#ifndef SUPERVISOR_POSTER_H
#define SUPERVISOR_POSTER_H

#include "supervisor/supervisor.h"

void poster_init(struct supervisor *sv);
void poster_deinit(struct supervisor *sv);
/* Posts the next one, if it is time. */
void poster_kick(struct supervisor *sv);
/* Likewise, but without waiting for the backoff. */
void poster_kick_now(struct supervisor *sv);
/* Posts nothing from now on, or goes on; survives a restart. Submitters that
 * wait for an answer get it: queued. */
int poster_set_paused(struct supervisor *sv, bool paused, struct error *err);
/* A prompt accepted now would be posted without waiting for others' turns. */
bool poster_has_room(const struct supervisor *sv);

#endif
