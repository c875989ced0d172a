/*
 * event_loop.c - see event_loop.h.
 */
#include "common/event_loop.h"

#include <ev.h>

static void on_never(struct ev_loop *loop, ev_periodic *w, int revents)
{
}

void event_loop_sleep_long(struct ev_loop *loop)
{
	ev_periodic first;

	/* The first to be started has the timerfd made, which stays. */
	ev_periodic_init(&first, on_never, 0., 0., NULL);
	ev_periodic_start(loop, &first);
	ev_periodic_stop(loop, &first);
}
