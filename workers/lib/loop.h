/*
 * loop.h - the library's event loop: as much of libev's interface as the code
 * that the library shares with the worker uses (ev_io, ev_timer, ev_now_update;
 * see <ev.h>), over one epoll descriptor.
 *
 * libev itself doesn't do, for it can neither be driven from somebody else's
 * loop (its next deadline is not to be had) nor does it report a lack of
 * memory but by abort(). The functions that loop.c defines are local to the
 * library; a program may use the real libev beside it.
 */
#ifndef WORKERS_LIB_LOOP_H
#define WORKERS_LIB_LOOP_H

#include <stdbool.h>

struct ev_loop;

#define LOOP_EVENTS_MAX 64 /* descriptors served in one turn */

/* NULL with errno set. */
struct ev_loop *loop_new(void);
/* Watchers need not be stopped before. NULL is fine; returns NULL. */
struct ev_loop *loop_free(struct ev_loop *l);

/* A descriptor that is readable whenever loop_turn(l, false) has something to
 * do, timers included, as long as loop_arm() was called after the last change.
 * Belongs to the loop. Negative errno on failure. */
int loop_fd(struct ev_loop *l);
/* Sets the descriptor to the next timer. To be called whenever control goes
 * back to the program. 0 or a negative errno. */
int loop_arm(struct ev_loop *l);

/* Waits, if `wait`, until a descriptor is ready, a timer is due or a signal
 * came, and calls the callbacks of what is due by then. 0 or a negative errno:
 * epoll's, or what a watcher could not be started for (-ENOMEM, -ENOSPC). */
int loop_turn(struct ev_loop *l, bool wait);

#endif
