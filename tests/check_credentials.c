/*
 * check_credentials.c - files of certificates, tokens and headers: their modes
 * and forms, errors that don't tell what they hold, and the packed form.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/credentials.h"
#include "common/fdutil.h"
#include "tests/runner.h"

#define SECRET "s3cr3t-t0ken"
#define CERT   "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
#define KEY    "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"

static struct credentials c;
static struct error err;

static void setup(void)
{
	err = (struct error)ERROR_NULL;
	credentials_init(&c);
}

static void teardown(void)
{
	credentials_deinit(&c);
	credentials_deinit(&c);
}

static char *put(const char *name, const char *text, mode_t mode)
{
	char *path;

	ck_assert_int_gt(asprintf(&path, "%s/%s", runner_tmpdir(), name), 0);
	ck_assert_int_eq(fd_write_file(path, text, strlen(text), mode), 0);
	return path;
}

/* The credentials of one file of secrets; -1 with an error that holds nothing
 * of it. */
static int load_text(bool token, const char *text, mode_t mode)
{
	char *path = put("secret", text, mode);
	struct credentials_files f = {0};
	int r;

	if (token)
		f.token_file = path;
	else
		f.header_file = path;
	r = credentials_load(&c, &f, &err);
	if (r < 0) {
		ck_assert_msg(strstr(err.text, path) != NULL, "%s", err.text);
		ck_assert_msg(!strstr(err.text, SECRET), "%s", err.text);
	}
	free(path);
	return r;
}

START_TEST(test_nothing)
{
	struct credentials_files f = {.ca_file = "", .token_file = ""};

	ck_assert_int_eq(credentials_load(&c, &f, &err), 0);
	ck_assert_uint_eq(c.header_count + c.ca.len + c.cert.len + c.key.len,
	                  0);
}
END_TEST

START_TEST(test_token)
{
	ck_assert_int_eq(load_text(true, SECRET "\n", 0600), 0);
	ck_assert_uint_eq(c.header_count, 1);
	ck_assert_str_eq(c.headers[0].name, "Authorization");
	ck_assert_str_eq(c.headers[0].value, "Bearer " SECRET);
}
END_TEST

START_TEST(test_bad_tokens)
{
	static const char *const bad[] = {"",
	                                  "\n",
	                                  SECRET "\n" SECRET "\n",
	                                  SECRET " " SECRET,
	                                  SECRET "\x01",
	                                  SECRET "\r\nX: y"};

	ck_assert_int_lt(load_text(true, bad[_i], 0600), 0);
	ck_assert_int_eq(err.code, ERR_CONFIG);
}
END_TEST

START_TEST(test_token_at_the_edge)
{
	char text[CREDENTIALS_HEADER_MAX + 2];

	memset(text, 'a', sizeof(text));
	text[CREDENTIALS_HEADER_MAX] = '\0';
	ck_assert_int_eq(load_text(true, text, 0600), 0);
	credentials_deinit(&c);
	text[CREDENTIALS_HEADER_MAX] = 'a';
	text[CREDENTIALS_HEADER_MAX + 1] = '\0';
	ck_assert_int_lt(load_text(true, text, 0600), 0);
}
END_TEST

/* The tests run as root or as the owner: both may read it, and must not if
 * others may as well. */
START_TEST(test_modes)
{
	static const struct {
		mode_t mode;
		bool good, good_of_root;
	} rows[] = {
		{0600, true, true},   {0400, true, true},
		{0640, false, true},  {0440, false, true},
		{0660, false, false}, {0604, false, false},
		{0602, false, false}, {0644, false, false},
	};
	bool good = geteuid() == 0 ? rows[_i].good_of_root : rows[_i].good;

	ck_assert_int_eq(load_text(true, SECRET, rows[_i].mode), good ? 0 : -1);
	if (!good) {
		ck_assert_int_eq(err.code, ERR_DENIED);
		ck_assert_ptr_nonnull(strstr(err.text, "chmod 600"));
	}
}
END_TEST

START_TEST(test_headers)
{
	ck_assert_int_eq(load_text(false,
	                           "# a comment\n"
	                           "X-Api-Key: " SECRET "\r\n"
	                           "\n"
	                           "  Cookie :ignored\n",
	                           0600),
	                 -1);
	ck_assert_ptr_nonnull(strstr(err.text, "line 4"));
	ck_assert_int_eq(load_text(false,
	                           "# a comment\n"
	                           "X-Api-Key: " SECRET "\r\n"
	                           "\n"
	                           "Cookie:a=b; c=d",
	                           0600),
	                 0);
	ck_assert_uint_eq(c.header_count, 2);
	ck_assert_str_eq(c.headers[0].name, "X-Api-Key");
	ck_assert_str_eq(c.headers[0].value, SECRET);
	ck_assert_str_eq(c.headers[1].value, "a=b; c=d");
}
END_TEST

START_TEST(test_bad_headers)
{
	static const char *const bad[] = {
		"no colon " SECRET,
		": " SECRET,
		"A:",
		"A b: " SECRET,
		"Host: " SECRET,
		"content-length: 1",
		"Transfer-Encoding: chunked",
		"Connection: close",
		"Sec-WebSocket-Protocol: " SECRET,
		"A: " SECRET "\x7f",
	};

	ck_assert_int_lt(load_text(false, bad[_i], 0600), 0);
	ck_assert_int_eq(err.code, ERR_CONFIG);
}
END_TEST

START_TEST(test_headers_at_the_edge)
{
	struct buf text = BUF_INIT(1 << 20);

	for (int i = 0; i < CREDENTIALS_HEADERS_MAX; i++)
		(void)buf_printf(&text, "X-%d: y\n", i);
	ck_assert_int_eq(load_text(false, buf_cstr(&text), 0600), 0);
	credentials_deinit(&c);
	(void)buf_puts(&text, "X: y\n");
	ck_assert_int_lt(load_text(false, buf_cstr(&text), 0600), 0);
	buf_reset(&text);
	/* Few, but long. */
	for (int i = 0; i < 3; i++)
		(void)buf_printf(&text, "X: %0*d\n",
		                 CREDENTIALS_HEADERS_BYTES / 2, 1);
	ck_assert_int_lt(load_text(false, buf_cstr(&text), 0600), 0);
	buf_deinit(&text);
}
END_TEST

START_TEST(test_certificates)
{
	char *cert = put("cert", CERT, 0644), *key = put("key", KEY, 0600);
	char *both = put("both", CERT KEY, 0600);
	struct credentials_files f = {
		.ca_file = cert, .client_cert = cert, .client_key = key};

	ck_assert_int_eq(credentials_load(&c, &f, &err), 0);
	ck_assert_str_eq(c.ca.data, CERT);
	ck_assert_str_eq(c.cert.data, CERT);
	ck_assert_str_eq(c.key.data, KEY);
	credentials_deinit(&c);
	f.client_cert = both;
	f.client_key = NULL;
	ck_assert_int_eq(credentials_load(&c, &f, &err), 0);
	ck_assert_str_eq(c.key.data, CERT KEY);
	credentials_deinit(&c);
	/* A key for anybody, no key, a key alone, no certificate. */
	ck_assert_int_eq(chmod(both, 0644), 0);
	ck_assert_int_lt(credentials_load(&c, &f, &err), 0);
	ck_assert_int_eq(err.code, ERR_DENIED);
	ck_assert_int_eq(chmod(cert, 0600), 0);
	f.client_cert = cert;
	ck_assert_int_lt(credentials_load(&c, &f, &err), 0);
	f.client_cert = NULL;
	f.client_key = key;
	ck_assert_int_lt(credentials_load(&c, &f, &err), 0);
	f = (struct credentials_files){.ca_file = key, .client_cert = key};
	ck_assert_int_lt(credentials_load(&c, &f, &err), 0);
	f = (struct credentials_files){.ca_file = "/no/such/file"};
	ck_assert_int_lt(credentials_load(&c, &f, &err), 0);
	f = (struct credentials_files){.token_file = "/dev/zero"};
	ck_assert_int_lt(credentials_load(&c, &f, &err), 0);
	free(cert);
	free(key);
	free(both);
}
END_TEST

START_TEST(test_system)
{
	struct credentials_files f = {.with_system_ca = true};

	ck_assert_msg(credentials_load(&c, &f, &err) == 0, "%s", err.text);
	ck_assert_uint_gt(c.ca.len, 1000);
}
END_TEST

START_TEST(test_packed)
{
	char *cert = put("cert", CERT, 0644), *key = put("key", KEY, 0600);
	char *token = put("token", SECRET, 0600);
	char *headers = put("headers", "A: 1\nB: 2\n", 0600);
	struct credentials_files f = {.ca_file = cert,
	                              .client_cert = cert,
	                              .client_key = key,
	                              .token_file = token,
	                              .header_file = headers};
	struct buf packed = BUF_INIT(CREDENTIALS_PACKED_MAX);

	ck_assert_int_eq(credentials_load(&c, &f, &err), 0);
	ck_assert_int_eq(credentials_pack(&c, &packed), 0);
	credentials_deinit(&c);
	ck_assert_int_eq(
		credentials_unpack(&c, span_make(packed.data, packed.len)), 0);
	ck_assert_uint_eq(c.ca.len, strlen(CERT));
	ck_assert_uint_eq(c.key.len, strlen(KEY));
	ck_assert_uint_eq(c.header_count, 3);
	ck_assert_str_eq(c.headers[0].value, "Bearer " SECRET);
	ck_assert_str_eq(c.headers[2].name, "B");
	credentials_deinit(&c);
	/* Cut anywhere it is refused or shorter, and never read past its end.
	 */
	for (size_t n = 0; n < packed.len; n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, packed.data, n);
		(void)credentials_unpack(&c, span_make(copy, n));
		credentials_deinit(&c);
		free(copy);
	}
	ck_assert_int_eq(credentials_unpack(&c, SPAN("\xff\xff\xff\xff")),
	                 -EPROTO);
	buf_deinit(&packed);
	free(cert);
	free(key);
	free(token);
	free(headers);
}
END_TEST

static Suite *credentials_suite(void)
{
	Suite *s = suite_create("credentials");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_nothing);
	tcase_add_test(t, test_token);
	tcase_add_loop_test(t, test_bad_tokens, 0, 6);
	tcase_add_test(t, test_token_at_the_edge);
	tcase_add_loop_test(t, test_modes, 0, 8);
	tcase_add_test(t, test_headers);
	tcase_add_loop_test(t, test_bad_headers, 0, 10);
	tcase_add_test(t, test_headers_at_the_edge);
	tcase_add_test(t, test_certificates);
	tcase_add_test(t, test_system);
	tcase_add_test(t, test_packed);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(credentials_suite());
}
