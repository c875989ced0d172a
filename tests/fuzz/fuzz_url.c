/*
 * fuzz_url.c - any text as a URL. What is accepted must be written so that it
 * is read back the same, and what is refused must be refused in printable
 * words; url_encode() must be undone by decoding.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static void check_printable(const char *text)
{
	require(*text != '\0', "an error has a text");
	for (const char *p = text; *p; p++)
		require((unsigned char)*p >= ' ' && *p != 0x7f,
		        "an error is printable");
}

static void check_accepted(const struct url *u)
{
	struct url again;
	struct buf http = BUF_INIT((size_t)2 * URL_TEXT_MAX);
	struct buf ws = BUF_INIT((size_t)2 * URL_TEXT_MAX);
	size_t len = strlen(u->path);

	require(*u->host && u->port != 0, "host and port are there");
	require(len == 0 || (u->path[0] == '/' && u->path[len - 1] != '/'),
	        "path begins with a slash and ends without");
	require(url_http(u, &http) == 0, "a URL can be written");
	require(url_parse(&again, buf_cstr(&http), NULL) == 0,
	        "what is written is accepted");
	require(url_eq(u, &again), "and means the same");
	require(url_ws_path(u, "id", &ws) == 0, "so can its path");
	require(strpbrk(buf_cstr(&ws), " \r\n#") == NULL,
	        "a path fits into a request line");
	buf_reset(&ws);
	require(url_authority(u, &ws) == 0 &&
	                strstr(http.data, buf_cstr(&ws)) != NULL,
	        "the authority is a part of the URL");
	buf_deinit(&http);
	buf_deinit(&ws);
}

static int hex(char c)
{
	return c <= '9' ? c - '0' : c - 'A' + 10;
}

static void check_encoding(const char *text, size_t len)
{
	struct buf out = BUF_INIT(3 * len + 1);
	size_t at = 0;

	require(url_encode(&out, text, len) == 0, "anything can be encoded");
	for (size_t i = 0; i < out.len; i++) {
		int c = (unsigned char)out.data[i];

		if (c == '%') {
			c = hex(out.data[i + 1]) << 4 | hex(out.data[i + 2]);
			i += 2;
		}
		require(at < len && (char)c == text[at],
		        "decoding undoes encoding");
		at++;
	}
	require(at == len, "nothing is lost");
	buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct url u;
	struct error err = ERROR_NULL;

	if (!text)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	check_encoding(text, size);
	if (url_parse(&u, text, &err) == 0)
		check_accepted(&u);
	else
		check_printable(err.text);
	free(text);
	return 0;
}
