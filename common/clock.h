/*
 * clock.h - time, in milliseconds, replaceable in tests.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

/* Monotonic; for durations and deadlines. */
int64_t clock_ms(void);
/* Since the epoch; for what is shown or stored. */
int64_t clock_epoch_ms(void);
/* Microseconds, monotonic. */
int64_t clock_us(void);

/* Tests: freeze both clocks at `ms` (monotonic = epoch = ms); -1 thaws. */
void clock_fake(int64_t ms);

#endif
