/*
 * sandbox.c - see sandbox.h: no_new_privs, not dumpable, limits, and the order
 * in which all is applied. The filters are in sandbox_filter.c.
 */
#include "common/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/sandbox_impl.h"

struct limit {
	__rlimit_resource_t resource;
	const char *name;
	rlim_t max;
};

/* clang-format off */
static const struct limit core_only[] = {
	{RLIMIT_CORE, "RLIMIT_CORE", 0},
};
static const struct limit worker_limits[] = {
	{RLIMIT_CORE, "RLIMIT_CORE", 0},
	{RLIMIT_NOFILE, "RLIMIT_NOFILE", SANDBOX_WORKER_NOFILE},
	{RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", 0},
	{RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 0},
	{RLIMIT_NPROC, "RLIMIT_NPROC", 0},
#if !SANITIZED /* whose shadow memory is address space */
	{RLIMIT_AS, "RLIMIT_AS", SANDBOX_WORKER_AS_BYTES},
#endif
};
/* Likewise, but for the threads that look names up. */
static const struct limit resolving_limits[] = {
	{RLIMIT_CORE, "RLIMIT_CORE", 0},
	{RLIMIT_NOFILE, "RLIMIT_NOFILE", SANDBOX_WORKER_NOFILE},
#if !SANITIZED
	{RLIMIT_AS, "RLIMIT_AS", SANDBOX_WORKER_AS_BYTES},
#endif
};

static const struct {
	const struct limit *limits;
	size_t count;
} profiles[] = {
	[SANDBOX_WORKER] = {worker_limits, ARRAY_SIZE(worker_limits)},
	[SANDBOX_WORKER_RESOLVING] = {resolving_limits,
				      ARRAY_SIZE(resolving_limits)},
	[SANDBOX_ZYGOTE] = {core_only, ARRAY_SIZE(core_only)},
	[SANDBOX_SUPERVISOR] = {core_only, ARRAY_SIZE(core_only)},
};
STATIC_ASSERT_ARRAY_SIZE(profiles, SANDBOX_PROFILE_COUNT);
/* clang-format on */

enum missing {
	MISSING_PRIVS = 1 << 0,
	MISSING_DUMP = 1 << 1,
	MISSING_LIMIT = 1 << 2,
	MISSING_FILTER = 1 << 3,
};

/* Children inherit it, so that one cause is told once. */
static unsigned told;
static bool filtered;
static unsigned cost_us;

static void missing(enum missing what, const char *name, int error)
{
	if (told & what)
		return;
	told |= what;
	log_warn("sandbox", "%s can't be applied: %s; going on without", name,
	         strerror(error));
}

/* Down only: what is lower already stays. */
static void set_limit(const struct limit *l)
{
	struct rlimit r;

	if (getrlimit(l->resource, &r) < 0) {
		missing(MISSING_LIMIT, l->name, errno);
		return;
	}
	if (r.rlim_max > l->max)
		r.rlim_max = l->max;
	if (r.rlim_cur > r.rlim_max)
		r.rlim_cur = r.rlim_max;
	if (setrlimit(l->resource, &r) < 0)
		missing(MISSING_LIMIT, l->name, errno);
}

static void set_filter(enum sandbox_profile profile)
{
	int r;

	if (SANDBOX_FILTERS) {
		r = sandbox_filter_load(profile);
		filtered = r == 0;
		if (r < 0)
			missing(MISSING_FILTER, "the system call filter", -r);
	} else if (!(told & MISSING_FILTER)) {
		told |= MISSING_FILTER;
		/* For the operator: a worker's words go to the user. */
		if (profile == SANDBOX_SUPERVISOR)
			log_info("sandbox", "no system call filter in a build "
			                    "with sanitizers");
	}
}

void sandbox_prepare(enum sandbox_profile profile)
{
	int r = SANDBOX_FILTERS ? sandbox_filter_prepare(profile) : 0;

	if (r < 0)
		missing(MISSING_FILTER, "the system call filter", -r);
}

void sandbox_enter(enum sandbox_profile profile)
{
	int64_t start_us = clock_us();

	if (profile != SANDBOX_SUPERVISOR) {
		log_seal();
		/* Reads the time zone's file, which gmtime() would do later,
		 * unless whoever forked this process has done it. */
		if (!filtered)
			tzset();
	}
	for (size_t i = 0; i < profiles[profile].count; i++)
		set_limit(&profiles[profile].limits[i]);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		missing(MISSING_PRIVS, "no_new_privs", errno);
	/* The sanitizers' leak check traces its own process. */
	if (SANDBOX_FILTERS && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		missing(MISSING_DUMP, "PR_SET_DUMPABLE", errno);
	set_filter(profile);
	cost_us = (unsigned)(clock_us() - start_us);
	log_debug("sandbox", "entered (us=%u filter=%s)", cost_us,
	          filtered ? "yes" : "no");
}

bool sandbox_filtered(void)
{
	return filtered;
}

unsigned sandbox_cost_us(void)
{
	return cost_us;
}

char *sandbox_allow_program(const char *path, struct error *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = strlen(path) + 1;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *copy;

	if (len > page) {
		(void)error_set(err, ERR_LIMIT, "%s: the path is too long",
		                path);
		return NULL;
	}
	// cppcheck-suppress invalidFunctionArg ; -1 goes with MAP_ANONYMOUS
	copy = mmap(NULL, page, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (copy == MAP_FAILED) {
		(void)error_set_errno(err, errno, "cannot keep a path");
		return NULL;
	}
	memcpy(copy, path, len);
	if (mprotect(copy, page, PROT_READ) < 0) {
		(void)error_set_errno(err, errno, "cannot keep a path");
		(void)munmap(copy, page);
		return NULL;
	}
	sandbox_filter_program(copy);
	return copy;
}
