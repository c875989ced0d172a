/*
 * clock.c - see clock.h.
 *
 * CLOCK_MONOTONIC can't fail on a kernel that runs us, so nothing is returned
 * for it.
 */
#include "common/clock.h"

#include <time.h>

#define CLOCK_NOT_FAKED (-1)

static int64_t fake_ms = CLOCK_NOT_FAKED;

static int64_t read_us(clockid_t id)
{
	struct timespec ts = {0};

	(void)clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_ms(void)
{
	return fake_ms >= 0 ? fake_ms : read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_epoch_ms(void)
{
	return fake_ms >= 0 ? fake_ms : read_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_us(void)
{
	return fake_ms >= 0 ? fake_ms * 1000 : read_us(CLOCK_MONOTONIC);
}

void clock_fake(int64_t ms)
{
	fake_ms = ms < 0 ? CLOCK_NOT_FAKED : ms;
}
