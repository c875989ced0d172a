/*
 * machine.c - what can be looked at without asking anybody: programs, places
 * and their permissions, limits.
 */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <pwd.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/program.h"
#include "workers/doctor/doctor.h"

#define FREE_MIN      (256ull << 20) /* bytes, for the database */
#define FDS_BESIDE    64
#define NOFILE_LITTLE 1024

void doctor_programs(struct doctor *d)
{
	static const char *const names[] = {"comfymux", "comfymuxd",
	                                    "comfymux-worker"};
	struct error err = ERROR_NULL;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_free char *path = program_find(names[i], &err);

		if (!path) {
			doctor_tell(d, VERDICT_FAIL, "programs",
			            "install comfymux again, whole", "%s",
			            err.text);
			return;
		}
	}
	doctor_tell(d, VERDICT_OK, "programs", NULL,
	            "all of one installation are there");
}

static void check_free(struct doctor *d, const char *path)
{
	struct statvfs v;
	uint64_t bytes;

	if (statvfs(path, &v) < 0)
		return;
	bytes = (uint64_t)v.f_bavail * v.f_frsize;
	if (bytes < FREE_MIN)
		doctor_tell(d, VERDICT_WARN, "disk",
		            "make room: prompts that can't be stored aren't "
		            "accepted",
		            "%" PRIu64 " MB are free in %s", bytes >> 20, path);
}

static void check_state_dir(struct doctor *d)
{
	const char *path = d->cfg.state_dir;
	struct stat st;

	if (stat(path, &st) < 0) {
		if (errno == ENOENT)
			doctor_tell(d, VERDICT_OK, "state", NULL,
			            "%s is made when it is needed", path);
		else
			doctor_tell(d, VERDICT_FAIL, "state",
			            "see the permissions of the directories "
			            "above it, or name another by --state-dir",
			            "%s: %s", path, strerror(errno));
		return;
	}
	if (!S_ISDIR(st.st_mode))
		doctor_tell(d, VERDICT_FAIL, "state",
		            "remove it, or name another by --state-dir",
		            "%s is no directory", path);
	else if (st.st_mode & 077)
		doctor_tell(d, VERDICT_WARN, "state",
		            "chmod 700 it: who reads the client id in it can "
		            "take the events of everybody",
		            "%s is open to others (mode %o)", path,
		            (unsigned)st.st_mode & 0777);
	else if (st.st_uid == geteuid() && access(path, W_OK) < 0)
		doctor_tell(d, VERDICT_FAIL, "state",
		            "chmod 700 it, or name another by --state-dir",
		            "%s can't be written", path);
	else
		doctor_tell(d, VERDICT_OK, "state", NULL, "%s", path);
	check_free(d, path);
}

static void check_service_user(struct doctor *d)
{
	if (access(CONFIG_SYSTEM_FILE, F_OK) < 0)
		return;
	if (d->cfg.user[0] >= '0' && d->cfg.user[0] <= '9')
		return;
	/* No thread runs here. */
	/* cppcheck-suppress getpwnamCalled */
	if (getpwnam(d->cfg.user))
		doctor_tell(d, VERDICT_OK, "service user", NULL, "%s",
		            d->cfg.user);
	else
		doctor_tell(d, VERDICT_FAIL, "service user",
		            "make one: useradd --system --user-group "
		            "--home-dir /var/lib/comfymux --shell "
		            "/usr/sbin/nologin comfymux",
		            "there is no user %s, as whom the service would "
		            "run",
		            d->cfg.user);
}

void doctor_places(struct doctor *d)
{
	check_state_dir(d);
	check_service_user(d);
}

void doctor_limits(struct doctor *d)
{
	struct rlimit l;
	rlim_t want = (rlim_t)d->cfg.max_clients + FDS_BESIDE;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	if (l.rlim_max != RLIM_INFINITY && l.rlim_max < want)
		doctor_tell(d,
		            l.rlim_max < NOFILE_LITTLE ? VERDICT_FAIL
		                                       : VERDICT_WARN,
		            "limits",
		            "raise it (ulimit -Hn, LimitNOFILE= in the unit), "
		            "or lower max_clients",
		            "%" PRIu64 " descriptors at most, max_clients "
		            "needs %" PRIu64,
		            (uint64_t)l.rlim_max, (uint64_t)want);
	else
		doctor_tell(d, VERDICT_OK, "limits", NULL,
		            "descriptors suffice for max_clients = %" PRId64,
		            d->cfg.max_clients);
}
