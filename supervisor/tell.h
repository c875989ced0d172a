/*
 * tell.h - event lines to those who subscribed: built once, queued for each.
 */
#ifndef SUPERVISOR_TELL_H
#define SUPERVISOR_TELL_H

#include "supervisor/supervisor.h"

/* `data` is JSON text or {NULL, 0}. Nothing is built when nobody watches. */
void tell_event(struct supervisor *sv, struct prompt *p, enum event event,
                struct span data);
/* An event of ComfyUI, with what its data is cut down to. */
void tell_comfy_event(struct supervisor *sv, struct prompt *p,
                      const struct comfy_event *ev);
/* The state so far, to one client; `missed` events were left out before, until
 * number `seq`. The prompt may have ended and be in the store only, which knows
 * of no numbers. False if there is none of that id (any more). */
bool tell_snapshot(struct supervisor *sv, struct peer *peer, const char *id,
                   uint64_t missed, uint64_t seq);
/* A submit that subscribes waits for its answer: from now on events are held
 * for it, a snapshot first. `previews`: it wants them, from its answer on. */
void tell_hold(struct supervisor *sv, struct wait *w, bool previews);
/* Its answer was given: what was held goes out, then events as they come. 0,
 * -ENOBUFS or -ENOMEM as subscription_add. */
int tell_release(struct supervisor *sv, struct wait *w);
/* The snapshot now if the client takes it, else as soon as it does. */
void tell_snapshot_soon(struct supervisor *sv, struct peer *peer,
                        const char *id);
/* A job's state, to those who subscribed to it. */
void tell_job(struct supervisor *sv, struct job *job);
/* The same to one client, now. False if there is no such job (any more). */
bool tell_job_state(struct supervisor *sv, struct peer *peer, const char *id);
/* Of the link, to every client with a subscription. */
void tell_upstream(struct supervisor *sv);

/* The prompt's state as JSON in sv->progress; flags of progress_to_json. */
struct span tell_progress(struct supervisor *sv, const struct prompt *p,
                          unsigned flags);

#endif
