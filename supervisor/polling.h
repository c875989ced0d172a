/*
 * polling.h - looking instead of listening: reconcile on the loop, with its
 * requests to ComfyUI.
 */
#ifndef SUPERVISOR_POLLING_H
#define SUPERVISOR_POLLING_H

#include "supervisor/supervisor.h"

void polling_init(struct supervisor *sv);
void polling_deinit(struct supervisor *sv);
/* Sets the timer to when reconcile wants to be called; after whatever may have
 * changed that. */
void polling_arm(struct supervisor *sv);
/* Something is in flight (again): the clock runs while the link is down. */
void polling_watch(struct supervisor *sv);

#endif
