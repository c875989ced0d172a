/*
 * config.c - see config.h. Here: loading in order of precedence, asking where
 * a value came from, reloading. The parts are in config_value.c,
 * config_parse.c, config_place.c and config_doc.c.
 */
#include "common/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_impl.h"

static int set_defaults(struct config *c, struct error *err)
{
	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		const struct config_key_info *k = &config_keys[i];

		if (k->kind == CONFIG_INT)
			*config_int_at(c, i) = k->def;
		else if (k->kind == CONFIG_BOOL)
			*config_bool_at(c, i) = k->def != 0;
		else if (k->def_string) {
			*config_string_at(c, i) = strdup(k->def_string);
			if (!*config_string_at(c, i))
				return error_set_nomem(err, "configuration");
		}
	}
	return 0;
}

int config_init(struct config *c, struct error *err)
{
	if (set_defaults(c, err) < 0 ||
	    config_fill_user_defaults(c, false, false, err) < 0) {
		config_deinit(c);
		return -1;
	}
	return 0;
}

void config_deinit(struct config *c)
{
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		if (config_keys[i].kind == CONFIG_STRING)
			free(*config_string_at(c, i));
	}
	for (size_t i = 0; i < c->file_count; i++)
		free(c->files[i]);
	for (size_t i = 0; i < c->candidate_count; i++)
		free(c->candidates[i]);
	memset(c, 0, sizeof(*c));
}

static int load_env(struct config *c, struct error *err)
{
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		const char *name = config_keys[i].env;
		const char *value = name ? config_env_get(name) : NULL;

		if (value && config_set_value(c, i, value, CONFIG_ENV, err) < 0)
			return error_prefix(err, "environment variable %s",
			                    name);
	}
	return 0;
}

static int load_flags(struct config *c, const struct config_sources *src,
                      struct error *err)
{
	for (size_t i = 0; i < src->flag_count; i++) {
		const struct config_flag *f = &src->flags[i];
		size_t key = config_find_key(f->key);
		int r;

		if (key == CONFIG_KEY_COUNT)
			r = config_unknown_key(f->key, err);
		else
			r = config_set_value(c, key, f->value, CONFIG_FLAG,
			                     err);
		if (r < 0)
			return error_prefix(err, "command line");
	}
	return 0;
}

int config_load(struct config *c, const struct config_sources *src,
                struct error *err)
{
	if (set_defaults(c, err) < 0 || config_load_files(c, src, err) < 0 ||
	    load_env(c, err) < 0 || load_flags(c, src, err) < 0 ||
	    config_fill_user_defaults(c, src->system, src->daemon, err) < 0) {
		config_deinit(c);
		return -1;
	}
	return 0;
}

enum config_origin config_origin_of(const struct config *c, const char *key)
{
	size_t i = config_find_key(key);

	return i == CONFIG_KEY_COUNT ? CONFIG_DEFAULT
	                             : (enum config_origin)c->origin[i];
}

const char *config_file_of(const struct config *c, const char *key)
{
	size_t i = config_find_key(key);

	if (i == CONFIG_KEY_COUNT || c->origin[i] != CONFIG_FILE)
		return NULL;
	return c->files[c->origin_file[i]];
}

const char *config_socket_candidate(const struct config *c, size_t i,
                                    bool *explicitp)
{
	if (explicitp)
		*explicitp = c->origin[CONFIG_KEY_socket] != CONFIG_DEFAULT;
	return i < c->candidate_count ? c->candidates[i] : NULL;
}

static bool same_value(struct config *a, struct config *b, size_t key)
{
	switch (config_keys[key].kind) {
	case CONFIG_STRING:
		return strcmp(*config_string_at(a, key),
		              *config_string_at(b, key)) == 0;
	case CONFIG_INT:
		return *config_int_at(a, key) == *config_int_at(b, key);
	case CONFIG_BOOL:
		return *config_bool_at(a, key) == *config_bool_at(b, key);
	}
	return true;
}

static void swap_value(struct config *a, struct config *b, size_t key)
{
	char *s;

	switch (config_keys[key].kind) {
	case CONFIG_STRING:
		s = *config_string_at(a, key);
		*config_string_at(a, key) = *config_string_at(b, key);
		*config_string_at(b, key) = s;
		break;
	case CONFIG_INT:
		*config_int_at(a, key) = *config_int_at(b, key);
		break;
	case CONFIG_BOOL:
		*config_bool_at(a, key) = *config_bool_at(b, key);
		break;
	}
}

static int copy_origin(struct config *c, const struct config *fresh, size_t key)
{
	unsigned file;

	c->origin[key] = fresh->origin[key];
	if (c->origin[key] != CONFIG_FILE)
		return 0;
	if (config_add_file(c, fresh->files[fresh->origin_file[key]], &file,
	                    NULL) < 0)
		return -ENOMEM;
	c->origin_file[key] = (unsigned char)file;
	return 0;
}

int config_reload(struct config *c, struct config *fresh, struct buf *ignored)
{
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		int r = 0;

		if (same_value(c, fresh, i))
			continue;
		if (config_keys[i].reload) {
			swap_value(c, fresh, i);
			r = copy_origin(c, fresh, i);
			if (r < 0)
				return r;
			continue;
		}
		if (ignored->len > 0)
			r = buf_puts(ignored, ", ");
		if (r == 0)
			r = buf_puts(ignored, config_keys[i].name);
		if (r < 0)
			return r;
	}
	return 0;
}
