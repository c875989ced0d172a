/*
 * cleanup.h - scope-bound release of locals.
 *
 *     cleanup_free char *text = strdup(s);
 *     cleanup_close int fd = open(...);
 *     return steal_fd(&fd);      // hands over, the local forgets
 */
#ifndef COMMON_CLEANUP_H
#define COMMON_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_p(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void cleanup_fclose_p(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

static inline int steal_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

static inline void *steal_ptr_(void **p)
{
	void *r = *p;

	*p = NULL;
	return r;
}

/* Takes the pointer out of the variable at `pp`, which then is NULL. */
#define steal_ptr(pp) ((__typeof__(*(pp)))steal_ptr_((void **)(void *)(pp)))

#define cleanup_free   __attribute__((cleanup(cleanup_free_p)))
#define cleanup_close  __attribute__((cleanup(cleanup_close_p)))
#define cleanup_fclose __attribute__((cleanup(cleanup_fclose_p)))

#endif
