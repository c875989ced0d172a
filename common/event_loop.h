/*
 * event_loop.h - what libev leaves to be asked for.
 */
#ifndef COMMON_EVENT_LOOP_H
#define COMMON_EVENT_LOOP_H

struct ev_loop;

/* Lets an idle loop sleep until something happens. Of itself libev wakes up
 * every minute to see whether somebody has set the clock, unless it has a
 * timerfd which tells. Where none can be had it goes on as before: that costs
 * wake-ups and nothing else. */
void event_loop_sleep_long(struct ev_loop *loop);

#endif
