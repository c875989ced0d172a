/*
 * fuzz_config.c - any bytes as a configuration file. What is accepted has all
 * its numbers within bounds and, written out key by key, gives the same again;
 * what is refused is refused in one printable line that names the file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME "fuzz.conf"

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static void check_refused(const struct error *err)
{
	require(err->code == ERR_CONFIG, "the error is one of configuration");
	require(strncmp(err->text, NAME ":", strlen(NAME) + 1) == 0,
	        "the error names the file");
	for (const char *p = err->text; *p; p++)
		require((unsigned char)*p >= ' ' && *p != 0x7f,
		        "an error is printable");
}

static void check_bounds(const struct config *c)
{
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		const struct config_key_info *k = &config_keys[i];
		const char *at = (const char *)c + k->offset;
		int64_t v;

		if (k->kind == CONFIG_STRING)
			require(*(char *const *)(const void *)at != NULL,
			        "no string is NULL");
		if (k->kind != CONFIG_INT)
			continue;
		v = *(const int64_t *)(const void *)at;
		require(v >= k->min && v <= k->max, "numbers keep to bounds");
	}
	require(strlen(c->socket) <= CONFIG_SOCKET_PATH_MAX ||
	                config_origin_of(c, "socket") == CONFIG_DEFAULT,
	        "the socket's path fits");
}

static void value_of(const struct config *c, size_t key, struct buf *out)
{
	require(config_value_text(c, (enum config_key)key, out) == 0,
	        "a value can be written");
}

/* Writes what came from the file as a file, and reads that. */
static void check_round_trip(const struct config *c)
{
	struct buf text = BUF_INIT((size_t)2 * CONFIG_FILE_MAX);
	struct config again;
	struct error err = ERROR_NULL;

	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		if (config_origin_of(c, config_keys[i].name) != CONFIG_FILE)
			continue;
		(void)buf_printf(&text, "%s=", config_keys[i].name);
		value_of(c, i, &text);
		(void)buf_putc(&text, '\n');
	}
	require(config_init(&again, NULL) == 0, "defaults");
	require(config_parse(&again, text.data ? text.data : "", text.len, NAME,
	                     &err) == 0,
	        err.text);
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		struct buf a = BUF_INIT(CONFIG_FILE_MAX);
		struct buf b = BUF_INIT(CONFIG_FILE_MAX);

		value_of(c, i, &a);
		value_of(&again, i, &b);
		require(a.len == b.len && (a.len == 0 ||
		                           memcmp(a.data, b.data, a.len) == 0),
		        config_keys[i].name);
		buf_deinit(&a);
		buf_deinit(&b);
	}
	config_deinit(&again);
	buf_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config c;
	struct error err = ERROR_NULL;

	require(setenv("HOME", "/nonexistent", 1) == 0, "a home");
	require(config_init(&c, NULL) == 0, "defaults");
	if (config_parse(&c, (const char *)data, size, NAME, &err) == 0) {
		check_bounds(&c);
		check_round_trip(&c);
	} else {
		check_refused(&err);
	}
	config_deinit(&c);
	return 0;
}
