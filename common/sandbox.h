/*
 * sandbox.h - what a process gives up for good once it has its things
 * together: privileges to be gained by exec, being looked into, resources past
 * a bound, and system calls that its role doesn't need.
 *
 * A call that the profile doesn't have fails with EPERM, and the first of each
 * number is logged with that number: the process goes on, and somebody learns
 * of it. Where the processor's registers can't be set from here the call fails
 * silently.
 *
 * What can't be applied (an old kernel, a container that refuses) is logged
 * once in a process and those that it forks; it is no error. In builds with
 * sanitizers, which open files and trace themselves, there is no filter, and
 * that is logged likewise.
 */
#ifndef COMMON_SANDBOX_H
#define COMMON_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

enum sandbox_profile {
	/* Its descriptors, sockets of the Internet, memory, time. No files but
	 * those handed to it, no processes, no other user's or own. */
	SANDBOX_WORKER,
	/* Likewise, and host names looked up: files opened for reading, and
	 * threads. For a worker that has no supervisor to do that. */
	SANDBOX_WORKER_RESOLVING,
	/* A worker's, and what it takes to fork and end workers. */
	SANDBOX_ZYGOTE,
	/* Everything but what would reach beyond its duties: other processes'
	 * memory, mounts, modules, raw sockets, other ids, and programs but
	 * the one of sandbox_allow_program(). */
	SANDBOX_SUPERVISOR,
	SANDBOX_PROFILE_COUNT
};

/* Address space of a worker. Replies, files on their way and the texts made of
 * them stay below some hundred megabytes; what grows past this runs away. */
#define SANDBOX_WORKER_AS_BYTES ((size_t)4 << 30)
#define SANDBOX_WORKER_NOFILE   256 /* descriptors of a worker */

/* Works the profile's filter out, so that a later sandbox_enter() in this
 * process or a child of it need not. Optional. */
void sandbox_prepare(enum sandbox_profile profile);
/* For good. Single-threaded processes only. Never fails; see above. */
void sandbox_enter(enum sandbox_profile profile);

/* The one program that SANDBOX_SUPERVISOR may start, to be called before
 * sandbox_enter(): the path, on a page that can't be written any more, which
 * alone counts. NULL with `err` set on failure. */
char *sandbox_allow_program(const char *path, struct error *err);

/* Whether a filter is in force in this process, and how long sandbox_enter()
 * took. */
bool sandbox_filtered(void);
unsigned sandbox_cost_us(void);

/* Says, by the log, what was refused since the last call; for processes whose
 * log doesn't go to stderr, where the signal handler says it at once. */
void sandbox_tell(void);

#endif
