/*
 * nursery_impl.h - what the two files of the nursery share: nursery.c (sessions
 * and their keepers) and nursery_worker.c (workers and zygotes).
 */
#ifndef SUPERVISOR_NURSERY_IMPL_H
#define SUPERVISOR_NURSERY_IMPL_H

#include "supervisor/nursery.h"

/* nursery.c */
/* The worker that was asked for is forked: answers the attach. */
void session_answer(struct session *s);
/* ... or can't be had. */
void session_refuse(struct session *s, const struct error *err);
/* Has a worker without a keeper: its job is not over. */
bool session_has_work(const struct session *s);
/* Frees it if neither keeper nor worker is left. */
void session_settle(struct session *s);
/* A bus for the session's worker, bound to the keeper's identity: the worker's
 * end, or -1. */
int session_make_bus(struct session *s, struct error *err);

/* nursery_worker.c */
void worker_watchers_init(struct session *s);
/* Forks one as soon as that may be; session_answer or session_refuse follow,
 * perhaps at once. */
void worker_start(struct session *s);
/* Something happened to it that is not its end. */
void worker_tell(struct session *s, enum worker_event ev);
void worker_release(struct session *s); /* stops all timers */
int zygotes_init(struct nursery *n, struct error *err);
void zygotes_retire(struct nursery *n);
void zygotes_deinit(struct nursery *n);

#endif
