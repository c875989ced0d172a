/*
 * config_place.c - where things are when nobody names them: configuration
 * files, state directory, socket.
 *
 * What depends on the user is filled in last, since it must not fail where the
 * user has named a value.
 */
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config_impl.h"

#define FILE_NAME      "comfymux/comfymux.conf"
#define SOCKET_NAME    "comfymux.sock"
#define PASSWD_BUF_MAX (64u << 10) /* one entry of the user database */

const char *config_env_get(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

/* As config_env_get; a path that isn't absolute counts as unset, as the XDG
 * base directory specification has it. */
static const char *env_get_dir(const char *name)
{
	const char *v = config_env_get(name);

	return v && *v == '/' ? v : NULL;
}

/* Home directory from the user database. NULL if there is none. */
static char *home_from_passwd(void)
{
	char *space = malloc(PASSWD_BUF_MAX), *home = NULL;
	struct passwd pw, *found = NULL;

	if (space &&
	    getpwuid_r(geteuid(), &pw, space, PASSWD_BUF_MAX, &found) == 0 &&
	    found && pw.pw_dir && pw.pw_dir[0] == '/')
		home = strdup(pw.pw_dir);
	free(space);
	return home;
}

/* "$<env>/<name>", or "<home>/<below>/<name>". NULL if neither is known, or
 * the path is too long for this system. */
static char *user_path(const char *env, const char *below, const char *name)
{
	const char *dir = env_get_dir(env), *home = env_get_dir("HOME");
	cleanup_free char *pw_home = NULL;
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX - 1);

	if (!dir && !home) {
		pw_home = home_from_passwd();
		home = pw_home;
		if (!home)
			return NULL;
	}
	if (dir)
		(void)buf_printf(&path, "%s/%s", dir, name);
	else
		(void)buf_printf(&path, "%s/%s/%s", home, below, name);
	return buf_steal(&path, NULL);
}

/* "/run/user/UID/comfymux.sock" if that directory is there. */
static bool runtime_socket(char *out, size_t size)
{
	char dir[64];
	struct stat st;
	unsigned long uid = geteuid();

	(void)snprintf(dir, sizeof(dir), "/run/user/%lu", uid);
	(void)snprintf(out, size, "%s/%s", dir, SOCKET_NAME);
	return stat(dir, &st) == 0 && S_ISDIR(st.st_mode) &&
	       st.st_uid == geteuid();
}

static char *own_state_dir(void)
{
	return user_path("XDG_STATE_HOME", ".local/state", "comfymux");
}

/* NULL if out of memory. */
static char *socket_in(const char *dir)
{
	struct buf cleanup_buf path = BUF_INIT(PATH_MAX + sizeof(SOCKET_NAME));

	(void)buf_printf(&path, "%s/%s", dir, SOCKET_NAME);
	return buf_steal(&path, NULL);
}

static int add_candidate(struct config *c, const char *path, struct error *err)
{
	char *copy;

	/* Nobody can serve a socket there. */
	if (strlen(path) > CONFIG_SOCKET_PATH_MAX)
		return 0;
	copy = strdup(path);
	if (!copy)
		return error_set_nomem(err, "configuration");
	c->candidates[c->candidate_count++] = copy;
	return 0;
}

static int fill_candidates(struct config *c, struct error *err)
{
	cleanup_free char *in_state = socket_in(c->state_dir);
	char runtime[128];

	if (!in_state)
		return error_set_nomem(err, "configuration");
	if (c->origin[CONFIG_KEY_socket] != CONFIG_DEFAULT)
		return add_candidate(c, c->socket, err);
	if (runtime_socket(runtime, sizeof(runtime)) &&
	    add_candidate(c, runtime, err) < 0)
		return -1;
	if (add_candidate(c, in_state, err) < 0)
		return -1;
	return add_candidate(c, CONFIG_SYSTEM_SOCKET, err);
}

static int fill_state_dir(struct config *c, bool system, struct error *err)
{
	if (c->state_dir)
		return 0;
	c->state_dir =
		system ? strdup(CONFIG_SYSTEM_STATE_DIR) : own_state_dir();
	if (c->state_dir)
		return 0;
	return error_set(err, ERR_CONFIG,
	                 "cannot tell where to keep state: set HOME, or name a "
	                 "directory with --state-dir");
}

static int fill_socket(struct config *c, bool system, bool daemon,
                       struct error *err)
{
	char runtime[128];

	if (c->socket)
		return 0;
	if (system)
		c->socket = strdup(CONFIG_SYSTEM_SOCKET);
	else if (runtime_socket(runtime, sizeof(runtime)))
		c->socket = strdup(runtime);
	else
		c->socket = socket_in(c->state_dir);
	if (!c->socket)
		return error_set_nomem(err, "configuration");
	/* For a client it is one candidate of several. */
	return daemon ? config_check_socket_path(c->socket, err) : 0;
}

int config_fill_user_defaults(struct config *c, bool system, bool daemon,
                              struct error *err)
{
	if (fill_state_dir(c, system, err) < 0 ||
	    fill_socket(c, system, daemon, err) < 0)
		return -1;
	return fill_candidates(c, err);
}

int config_load_files(struct config *c, const struct config_sources *src,
                      struct error *err)
{
	cleanup_free char *own = NULL;

	if (src->file)
		return config_read_file(c, src->file, true, src->system, err);
	if (config_read_file(c, CONFIG_SYSTEM_FILE, false, src->system, err) <
	    0)
		return -1;
	/* What root's home holds must not steer the service. */
	if (src->system)
		return 0;
	own = user_path("XDG_CONFIG_HOME", ".config", FILE_NAME);
	return own ? config_read_file(c, own, false, false, err) : 0;
}
