/*
 * config_impl.h - what the files of the configuration share with each other
 * and nobody else.
 */
#ifndef COMMON_CONFIG_IMPL_H
#define COMMON_CONFIG_IMPL_H

#include "common/config.h"

/* config_value.c */

/* Where the value of a key of that kind is. */
char **config_string_at(struct config *c, size_t key);
int64_t *config_int_at(struct config *c, size_t key);
bool *config_bool_at(struct config *c, size_t key);
/* CONFIG_KEY_COUNT if there is none. */
size_t config_find_key(const char *name);
/* The error for that case, with the nearest key. Returns -1. */
int config_unknown_key(const char *name, struct error *err);
int config_set_value(struct config *c, size_t key, const char *value,
                     enum config_origin origin, struct error *err);
int config_check_socket_path(const char *path, struct error *err);

/* config_parse.c */

/* Index of a file's name in c->files, where it is added if need be. */
int config_add_file(struct config *c, const char *name, unsigned *indexp,
                    struct error *err);
/* `trusted`: -1 too if somebody else than root and ourselves can write it. */
int config_read_file(struct config *c, const char *path, bool must_exist,
                     bool trusted, struct error *err);

/* config_place.c */

/* Set, and not empty. */
const char *config_env_get(const char *name);
/* Reads the file that `src` names, or those of the usual places. */
int config_load_files(struct config *c, const struct config_sources *src,
                      struct error *err);
/* state_dir and socket where nobody has named them, and the candidates. */
int config_fill_user_defaults(struct config *c, bool system, bool daemon,
                              struct error *err);

#endif
