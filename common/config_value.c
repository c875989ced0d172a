/*
 * config_value.c - the table of keys, and one value at a time: checked against
 * config.def and stored.
 *
 * Every source goes through config_set_value(), so that a value is held to the
 * same bounds whether it came from a file, the environment or a flag.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config_impl.h"
#include "common/log.h"
#include "common/url.h"

#define TYPO_MAX     2  /* edits between a typo and its key */
#define KEY_TEXT_MAX 64 /* longer keys get no suggestion */

_Static_assert(CONFIG_SOCKET_PATH_MAX ==
                       sizeof(((struct sockaddr_un *)0)->sun_path) - 1,
               "CONFIG_SOCKET_PATH_MAX does not fit this system");

const struct config_key_info config_keys[CONFIG_KEY_COUNT] = {
#define K_STRING(name_, def_, env_, reload_, doc_)                             \
	{.name = #name_,                                                       \
	 .kind = CONFIG_STRING,                                                \
	 .offset = offsetof(struct config, name_),                             \
	 .def_string = (def_),                                                 \
	 .env = (env_),                                                        \
	 .reload = (reload_),                                                  \
	 .doc = (doc_)},
#define K_INT(name_, def_, min_, max_, unit_, reload_, doc_)                   \
	{.name = #name_,                                                       \
	 .kind = CONFIG_INT,                                                   \
	 .offset = offsetof(struct config, name_),                             \
	 .def = (def_),                                                        \
	 .min = (min_),                                                        \
	 .max = (max_),                                                        \
	 .unit = (unit_),                                                      \
	 .reload = (reload_),                                                  \
	 .doc = (doc_)},
#define K_BOOL(name_, def_, reload_, doc_)                                     \
	{.name = #name_,                                                       \
	 .kind = CONFIG_BOOL,                                                  \
	 .offset = offsetof(struct config, name_),                             \
	 .def = (def_),                                                        \
	 .max = 1,                                                             \
	 .reload = (reload_),                                                  \
	 .doc = (doc_)},
#include "common/config.def"
#undef K_STRING
#undef K_INT
#undef K_BOOL
};

char **config_string_at(struct config *c, size_t key)
{
	return (char **)(void *)((char *)c + config_keys[key].offset);
}

int64_t *config_int_at(struct config *c, size_t key)
{
	return (int64_t *)(void *)((char *)c + config_keys[key].offset);
}

bool *config_bool_at(struct config *c, size_t key)
{
	return (bool *)(void *)((char *)c + config_keys[key].offset);
}

size_t config_find_key(const char *name)
{
	size_t i;

	for (i = 0; i < CONFIG_KEY_COUNT; i++) {
		if (strcmp(config_keys[i].name, name) == 0)
			break;
	}
	return i;
}

/* Levenshtein's distance; '-' counts as '_', since flags are written so. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[KEY_TEXT_MAX + 1], n = strlen(b);

	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];
		char ca = a[i] == '-' ? '_' : a[i];

		row[0] = i + 1;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (ca != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[n];
}

int config_unknown_key(const char *name, struct error *err)
{
	const char *nearest = NULL;
	size_t best = TYPO_MAX + 1;

	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		size_t d;

		if (strlen(name) > KEY_TEXT_MAX)
			break;
		d = edit_distance(name, config_keys[i].name);
		if (d < best) {
			best = d;
			nearest = config_keys[i].name;
		}
	}
	if (nearest)
		return error_set(err, ERR_CONFIG,
		                 "unknown key \"%s\"; did you mean \"%s\"?",
		                 log_safe(name, strlen(name)), nearest);
	return error_set(err, ERR_CONFIG, "unknown key \"%s\"",
	                 log_safe(name, strlen(name)));
}

static int bad_value(size_t key, const char *value, const char *expected,
                     struct error *err)
{
	return error_set(err, ERR_CONFIG, "%s: \"%s\" is not %s",
	                 config_keys[key].name, log_safe(value, strlen(value)),
	                 expected);
}

/* A fresh copy. A path relative to the working directory is fine on the command
 * line; in a file it would mean something else for each reader. */
static char *copy_path(size_t key, const char *value, enum config_origin origin,
                       struct error *err)
{
	struct buf path = BUF_INIT(PATH_MAX);
	char cwd[PATH_MAX], *copy;

	if (value[0] != '/' && origin == CONFIG_FILE) {
		(void)bad_value(key, value, "an absolute path", err);
		return NULL;
	}
	if (value[0] != '/') {
		if (!getcwd(cwd, sizeof(cwd))) {
			(void)error_set_errno(err, errno,
			                      "%s: cannot tell the working "
			                      "directory",
			                      config_keys[key].name);
			return NULL;
		}
		(void)buf_printf(&path, "%s/", cwd);
	}
	(void)buf_puts(&path, value);
	copy = buf_steal(&path, NULL);
	buf_deinit(&path);
	if (!copy)
		(void)error_set(err, ERR_CONFIG, "%s: path is too long: %s",
		                config_keys[key].name,
		                log_safe(value, strlen(value)));
	return copy;
}

static char *copy_text(const char *value, struct error *err)
{
	char *copy = strdup(value);

	if (!copy)
		(void)error_set_nomem(err, "configuration");
	return copy;
}

int config_check_socket_path(const char *path, struct error *err)
{
	size_t len = strlen(path);

	if (len <= CONFIG_SOCKET_PATH_MAX)
		return 0;
	return error_set(err, ERR_CONFIG,
	                 "socket: path of %zu bytes is longer than the %d that "
	                 "a Unix socket allows; choose a shorter one: %s",
	                 len, CONFIG_SOCKET_PATH_MAX, log_safe(path, len));
}

static int check_string(size_t key, const char *value, struct error *err)
{
	struct url url;

	for (const char *p = value; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return bad_value(key, value,
			                 "free of control characters", err);
	}
	switch (key) {
	case CONFIG_KEY_comfyui:
		if (url_parse(&url, value, err) == 0)
			return 0;
		if (err)
			err->code = ERR_CONFIG;
		return error_prefix(err, "comfyui");
	case CONFIG_KEY_log_level:
		if (log_level_from_name(value) < 0)
			return bad_value(key, value,
			                 "one of error, warn, info, debug",
			                 err);
		return 0;
	case CONFIG_KEY_log_to:
		if (log_sink_from_name(value) < 0)
			return bad_value(key, value,
			                 "stderr, syslog, journal or the "
			                 "absolute path of a file",
			                 err);
		return 0;
	case CONFIG_KEY_log_format:
		if (log_format_from_name(value) < 0)
			return bad_value(key, value, "one of text, kv, json",
			                 err);
		return 0;
	case CONFIG_KEY_cancel_policy:
		if (strcmp(value, "auto") != 0 &&
		    strcmp(value, "detach") != 0 &&
		    strcmp(value, "interrupt") != 0)
			return bad_value(key, value,
			                 "one of auto, detach, interrupt", err);
		return 0;
	case CONFIG_KEY_socket:
	case CONFIG_KEY_state_dir:
		if (!*value)
			return error_set(err, ERR_CONFIG, "%s: path is empty",
			                 config_keys[key].name);
		return 0;
	default:
		return 0;
	}
}

static bool is_path(size_t key)
{
	return key == CONFIG_KEY_socket || key == CONFIG_KEY_state_dir ||
	       key == CONFIG_KEY_ca_file || key == CONFIG_KEY_client_cert ||
	       key == CONFIG_KEY_client_key || key == CONFIG_KEY_token_file ||
	       key == CONFIG_KEY_header_file;
}

static int set_string(struct config *c, size_t key, const char *value,
                      enum config_origin origin, struct error *err)
{
	char *copy, **slot = config_string_at(c, key);
	bool path = is_path(key);

	if (check_string(key, value, err) < 0)
		return -1;
	copy = path && *value ? copy_path(key, value, origin, err)
	                      : copy_text(value, err);
	if (!copy)
		return -1;
	if (key == CONFIG_KEY_socket &&
	    config_check_socket_path(copy, err) < 0) {
		free(copy);
		return -1;
	}
	free(*slot);
	*slot = copy;
	return 0;
}

static int set_int(struct config *c, size_t key, const char *value,
                   struct error *err)
{
	const struct config_key_info *k = &config_keys[key];
	bool octal = strcmp(k->unit, "octal") == 0;
	int64_t v;
	char *end;

	/* strtoll would take white space and a plus, too. */
	if (*value != '-' && (*value < '0' || *value > '9'))
		return bad_value(key, value, "a number", err);
	errno = 0;
	v = strtoll(value, &end, octal ? 8 : 10);
	if (*end || end == value)
		return bad_value(key, value,
		                 octal ? "an octal number" : "a number", err);
	if (errno == ERANGE || v < k->min || v > k->max)
		return error_set(err, ERR_CONFIG,
		                 octal ? "%s: %s is out of range (0%llo to "
		                         "0%llo)"
		                       : "%s: %s is out of range (%lld to "
		                         "%lld)",
		                 k->name, log_safe(value, strlen(value)),
		                 (long long)k->min, (long long)k->max);
	*config_int_at(c, key) = v;
	return 0;
}

static int set_bool(struct config *c, size_t key, const char *value,
                    struct error *err)
{
	static const char *const words[2][4] = {
		{"no", "false", "off", "0"},
		{"yes", "true", "on", "1"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words[0]); i++) {
		for (int v = 0; v < 2; v++) {
			if (strcasecmp(value, words[v][i]) == 0) {
				*config_bool_at(c, key) = v;
				return 0;
			}
		}
	}
	return bad_value(key, value, "yes or no", err);
}

int config_set_value(struct config *c, size_t key, const char *value,
                     enum config_origin origin, struct error *err)
{
	int r = -1;

	switch (config_keys[key].kind) {
	case CONFIG_STRING:
		r = set_string(c, key, value, origin, err);
		break;
	case CONFIG_INT:
		r = set_int(c, key, value, err);
		break;
	case CONFIG_BOOL:
		r = set_bool(c, key, value, err);
		break;
	}
	if (r == 0)
		c->origin[key] = (unsigned char)origin;
	return r;
}
