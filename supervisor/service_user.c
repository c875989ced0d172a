/*
 * service_user.c - see service_user.h.
 */
#include "supervisor/service_user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/account.h"
#include "common/cleanup.h"

#define PARENT_MODE 0755 /* of what lies above the places; root's */
#define STATE_MODE  0700
#define RUN_MODE    0755 /* everybody may reach the socket */

/* --- who ------------------------------------------------------------------ */

/* Both places named by hand: root's own, for root alone. */
static bool is_private(const struct config *cfg)
{
	return config_origin_of(cfg, "user") == CONFIG_DEFAULT &&
	       config_origin_of(cfg, "socket") == CONFIG_FLAG &&
	       config_origin_of(cfg, "state_dir") == CONFIG_FLAG;
}

static int no_such_user(const struct config *cfg, struct error *err)
{
	return error_set(
		err, ERR_CONFIG,
		"started as root, and there is no user \"%s\" to become: make "
		"one with \"useradd --system --user-group --home-dir %s "
		"--shell /usr/sbin/nologin %s\", or name another by the key "
		"user in %s",
		cfg->user, CONFIG_SYSTEM_STATE_DIR, cfg->user,
		CONFIG_SYSTEM_FILE);
}

static int find_group(struct service_user *u, const struct config *cfg,
                      struct error *err)
{
	if (cfg->group[0] == '\0') {
		if (u->gid != (gid_t)-1)
			return 0;
		return error_set(err, ERR_CONFIG,
		                 "user %s is not in the user database: name "
		                 "his group by the key group",
		                 cfg->user);
	}
	if (account_find_group(cfg->group, &u->gid, err) == 0)
		return 0;
	if (err)
		err->code = ERR_CONFIG;
	return error_prefix(err, "group");
}

int service_user_find(struct service_user *u, const struct config *cfg,
                      bool own, struct error *err)
{
	uid_t service;

	*u = (struct service_user){.uid = geteuid(), .gid = getegid()};
	if (own)
		return 0;
	if (u->uid != 0) {
		u->shared = account_find_user(cfg->user, &service, NULL,
		                              NULL) == 0 &&
		            service == u->uid;
		return 0;
	}
	if (account_find_user(cfg->user, &u->uid, &u->gid, err) < 0) {
		u->uid = 0;
		if (err && err->code != ERR_NOT_FOUND)
			return -1;
		return is_private(cfg) ? 0 : no_such_user(cfg, err);
	}
	if (find_group(u, cfg, err) < 0)
		return -1;
	u->shared = u->drop = u->uid != 0;
	u->name = account_name(u->uid);
	return 0;
}

void service_user_deinit(struct service_user *u)
{
	free(u->name);
	*u = (struct service_user)SERVICE_USER_NULL;
}

/* --- places --------------------------------------------------------------- */

static int cannot_make(const char *path, int errnum, struct error *err)
{
	return error_set_errno(err, errnum, "cannot make the directory %s",
	                       path);
}

/* What is missing above it; `path` is changed and put back. */
static int make_parents(char *path, struct error *err)
{
	char *slash;
	int r = 0;

	for (slash = strchr(path + 1, '/'); slash && r == 0;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, PARENT_MODE) == 0)
			(void)chmod(path, PARENT_MODE); /* whatever the umask */
		else if (errno != EEXIST)
			r = cannot_make(path, errno, err);
		*slash = '/';
	}
	return r;
}

/* Only what we make ourselves is given away: a directory that is there may be
 * anybody's, and is left as it is. */
static int make_place(const struct service_user *u, char *path, mode_t mode,
                      struct error *err)
{
	cleanup_close int fd = -1;
	struct stat st;

	if (make_parents(path, err) < 0)
		return -1;
	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? 0 : cannot_make(path, errno, err);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return cannot_make(path, errno, err);
	if (st.st_uid != 0)
		return error_set(err, ERR_DENIED,
		                 "the directory %s was exchanged by another "
		                 "user while it was made",
		                 path);
	if (fchmod(fd, mode) < 0 || fchown(fd, u->uid, u->gid) < 0)
		return cannot_make(path, errno, err);
	return 0;
}

/* The directory that the socket lies in. */
static void socket_dir(const struct config *cfg, char dir[PATH_MAX])
{
	const char *slash = strrchr(cfg->socket, '/');
	int n = slash ? (int)(slash - cfg->socket) : 0;

	if (slash && n == 0)
		n = 1; /* the root's */
	(void)snprintf(dir, PATH_MAX, "%.*s", n ? n : 1,
	               slash ? cfg->socket : ".");
}

int service_user_make_places(const struct service_user *u,
                             const struct config *cfg, struct error *err)
{
	char path[PATH_MAX];
	int n;

	if (!u->drop)
		return 0;
	n = snprintf(path, sizeof(path), "%s", cfg->state_dir);
	if (n >= (int)sizeof(path))
		return cannot_make(cfg->state_dir, ENAMETOOLONG, err);
	if (make_place(u, path, STATE_MODE, err) < 0)
		return -1;
	socket_dir(cfg, path);
	return make_place(u, path, RUN_MODE, err);
}

bool service_user_needs_socket(const struct service_user *u,
                               const struct config *cfg)
{
	char dir[PATH_MAX];
	struct stat st;

	socket_dir(cfg, dir);
	return u->drop && stat(dir, &st) == 0 && st.st_uid != u->uid;
}

/* --- for good ------------------------------------------------------------- */

static int cannot_become(const struct service_user *u, const char *what,
                         struct error *err)
{
	return error_set_errno(err, errno, "cannot become user %u: %s",
	                       (unsigned)u->uid, what);
}

/* The bounding set goes while we may still do it; without CAP_SETPCAP (a
 * container's root) it stays, and no_new_privs does what it was for. */
static void drop_bounding_set(void)
{
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0;
	     cap++)
		(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

static int set_capabilities(const struct service_user *u, struct error *err)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 &&
	    errno != EINVAL)
		return cannot_become(u, "ambient capabilities", err);
	if (syscall(SYS_capset, &head, none) < 0)
		return cannot_become(u, "capabilities", err);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return cannot_become(u, "no_new_privs", err);
	return 0;
}

static int set_ids(const struct service_user *u, struct error *err)
{
	int r;

	r = u->name ? initgroups(u->name, u->gid) : setgroups(0, NULL);
	if (r < 0)
		return cannot_become(u, "groups", err);
	if (setresgid(u->gid, u->gid, u->gid) < 0)
		return cannot_become(u, "gid", err);
	if (setresuid(u->uid, u->uid, u->uid) < 0)
		return cannot_become(u, "uid", err);
	return 0;
}

static bool has_no_capability(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct have[2];

	if (syscall(SYS_capget, &head, have) < 0)
		return false;
	return (have[0].effective | have[0].permitted | have[0].inheritable |
	        have[1].effective | have[1].permitted | have[1].inheritable) ==
	       0;
}

static bool is_so(const struct service_user *u)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;

	return getresuid(&r, &e, &s) == 0 && getresgid(&rg, &eg, &sg) == 0 &&
	       r == u->uid && e == u->uid && s == u->uid && rg == u->gid &&
	       eg == u->gid && sg == u->gid && has_no_capability() &&
	       setuid(0) < 0 && (u->gid == 0 || setgid(0) < 0);
}

int service_user_become(const struct service_user *u, struct error *err)
{
	if (!u->drop)
		return 0;
	drop_bounding_set();
	if (set_ids(u, err) < 0 || set_capabilities(u, err) < 0)
		return -1;
	if (is_so(u))
		return 0;
	return error_set(err, ERR_SYSTEM,
	                 "became user %u, but not for good: something of "
	                 "root's is left",
	                 (unsigned)u->uid);
}
