/*
 * config.h - the configuration: flags over environment over file over default.
 *
 * The keys are declared in config.def. A key that is not known, a value out of
 * range or of the wrong type is an error that names file, line and key.
 */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"

#define CONFIG_LINE_MAX         4096 /* bytes of a line in the file */
#define CONFIG_FILE_MAX         (256u << 10)
#define CONFIG_SYSTEM_FILE      "/etc/comfymux/comfymux.conf"
#define CONFIG_SYSTEM_SOCKET    "/run/comfymux/comfymux.sock"
#define CONFIG_SYSTEM_STATE_DIR "/var/lib/comfymux"
#define CONFIG_SERVICE_USER     "comfymux"

#define CONFIG_SOCKET_PATH_MAX 107 /* sun_path of Linux, less the NUL */
#define CONFIG_FILES_MAX       2   /* files read by one config_load */
#define CONFIG_CANDIDATES_MAX  3

enum config_key {
#define K_STRING(name, def, env, reload, doc)         CONFIG_KEY_##name,
#define K_INT(name, def, min, max, unit, reload, doc) CONFIG_KEY_##name,
#define K_BOOL(name, def, reload, doc)                CONFIG_KEY_##name,
#include "common/config.def"
#undef K_STRING
#undef K_INT
#undef K_BOOL
	CONFIG_KEY_COUNT
};

struct config {
#define K_STRING(name, def, env, reload, doc)         char *name;
#define K_INT(name, def, min, max, unit, reload, doc) int64_t name;
#define K_BOOL(name, def, reload, doc)                bool name;
#include "common/config.def"
#undef K_STRING
#undef K_INT
#undef K_BOOL
	/* The rest is config.c's: see config_origin_of, config_file_of and
	 * config_socket_candidate. */
	unsigned char origin[CONFIG_KEY_COUNT];
	unsigned char origin_file[CONFIG_KEY_COUNT]; /* index of `files` */
	size_t file_count, candidate_count;
	char *files[CONFIG_FILES_MAX];
	char *candidates[CONFIG_CANDIDATES_MAX];
};

/* What config.def says about a key. */
enum config_kind {
	CONFIG_STRING,
	CONFIG_INT,
	CONFIG_BOOL,
};
struct config_key_info {
	const char *name;
	enum config_kind kind;
	size_t offset;          /* of the value in struct config */
	const char *def_string; /* CONFIG_STRING; may be NULL */
	int64_t def, min, max;  /* CONFIG_INT, CONFIG_BOOL */
	const char *unit;       /* CONFIG_INT, else NULL */
	const char *env;        /* name of a variable, or NULL */
	bool reload;
	const char *doc;
};
extern const struct config_key_info config_keys[CONFIG_KEY_COUNT];

enum config_origin {
	CONFIG_DEFAULT,
	CONFIG_FILE,
	CONFIG_ENV,
	CONFIG_FLAG,
};

/* One "key = value" that came from the command line. */
struct config_flag {
	const char *key, *value;
};

struct config_sources {
	const char *file; /* --config; NULL: the usual places */
	const struct config_flag *flags;
	size_t flag_count;
	/* The system's service: its places are the defaults, and only the
	 * system's file or the one named by --config is read, which nobody but
	 * root and ourselves can have written. */
	bool system;
	bool daemon; /* a supervisor: its socket has to be a name that fits */
};

/* All keys at their defaults, those of a client where they depend on it;
 * strings are allocated. */
int config_init(struct config *c, struct error *err);
/* Safe twice. */
void config_deinit(struct config *c);

/* Reads every source in order of precedence. A file named by --config must
 * exist; the usual ones (/etc/comfymux/comfymux.conf, then
 * $XDG_CONFIG_HOME/comfymux/comfymux.conf or ~/.config/...; the user's wins)
 * need not. Works with nothing but HOME in the environment. On failure `c` is
 * left as config_deinit leaves it. */
int config_load(struct config *c, const struct config_sources *src,
                struct error *err);

/* Parses one file's text into `c`; `name` is for messages. For tests and
 * fuzzing, config_load uses it. */
int config_parse(struct config *c, const char *text, size_t len,
                 const char *name, struct error *err);

/* Where the value of `key` came from; CONFIG_DEFAULT for a key that is not
 * known. */
enum config_origin config_origin_of(const struct config *c, const char *key);
/* The name of the file that it came from, NULL if from none. */
const char *config_file_of(const struct config *c, const char *key);
/* The value of a key as it would stand in the file. */
int config_value_text(const struct config *c, enum config_key key,
                      struct buf *out);

/* Applies from `fresh` what SIGHUP may change; names of keys that differ but
 * need a restart are appended to `ignored`, separated by ", ". */
int config_reload(struct config *c, struct config *fresh, struct buf *ignored);

/* The socket paths that a client tries, in order, one a call; NULL when there
 * are no more. `i` counts from 0. `explicitp` tells whether the user named it
 * (flag, environment, file), in which case it is the only one. */
const char *config_socket_candidate(const struct config *c, size_t i,
                                    bool *explicitp);

/* Writes the example configuration: every key with its sentence and default,
 * commented out. etc/comfymux.conf is this output. Values that depend on the
 * user are those of a system service. */
int config_example(struct buf *out);
/* Writes the table for README.md, in Markdown. */
int config_reference(struct buf *out);

#endif
