/*
 * check_url.c - URLs: what is accepted, what is refused and in which words,
 * and that what is written is read back the same.
 */
#include "common/url.h"

#include <stdio.h>
#include <string.h>

#include "tests/runner.h"

static struct {
	const char *text;
	bool tls;
	const char *host;
	unsigned port;
	const char *path;
	const char *http; /* as url_http writes it */
} good[] = {
	{"http://127.0.0.1:8188", false, "127.0.0.1", 8188, "",
         "http://127.0.0.1:8188"},
	{"127.0.0.1:8188", false, "127.0.0.1", 8188, "",
         "http://127.0.0.1:8188"},
	{"gpu-box", false, "gpu-box", 80, "", "http://gpu-box"},
	{"gpu_box:8188/", false, "gpu_box", 8188, "", "http://gpu_box:8188"},
	{"GPU.Example.ORG.", false, "gpu.example.org.", 80, "",
         "http://gpu.example.org."},
	{"https://host/comfy/", true, "host", 443, "/comfy",
         "https://host/comfy"},
	{"HTTPS://host:443/comfy///", true, "host", 443, "/comfy",
         "https://host/comfy"},
	{"wss://host", true, "host", 443, "", "https://host"},
	{"ws://host:80/a/b", false, "host", 80, "/a/b", "http://host/a/b"},
	{"https://host:80", true, "host", 80, "", "https://host:80"},
	{"http://host:443", false, "host", 443, "", "http://host:443"},
	{"http://[::1]:8188", false, "::1", 8188, "", "http://[::1]:8188"},
	{"[0:0:0:0:0:0:0:1]", false, "::1", 80, "", "http://[::1]"},
	{"https://[2001:DB8::A]/x", true, "2001:db8::a", 443, "/x",
         "https://[2001:db8::a]/x"},
	{"http://host:65535", false, "host", 65535, "", "http://host:65535"},
	{"http://host:1", false, "host", 1, "", "http://host:1"},
	{"http://host/user/a@b.org/proxy/8188/", false, "host", 80,
         "/user/a@b.org/proxy/8188", "http://host/user/a@b.org/proxy/8188"},
	{"http://host/%7Ejoe/...", false, "host", 80, "/%7Ejoe/...",
         "http://host/%7Ejoe/..."},
	{"http://host//x", false, "host", 80, "//x", "http://host//x"},
};

START_TEST(accepts)
{
	struct url u, again;
	struct error err = ERROR_NULL;
	struct buf text = BUF_INIT(4096);

	ck_assert_msg(url_parse(&u, good[_i].text, &err) == 0, "%s: %s",
	              good[_i].text, err.text);
	ck_assert_int_eq(u.tls, good[_i].tls);
	ck_assert_str_eq(u.host, good[_i].host);
	ck_assert_uint_eq(u.port, good[_i].port);
	ck_assert_str_eq(u.path, good[_i].path);
	ck_assert_int_eq(url_http(&u, &text), 0);
	ck_assert_str_eq(buf_cstr(&text), good[_i].http);
	ck_assert_int_eq(url_parse(&again, buf_cstr(&text), NULL), 0);
	ck_assert(url_eq(&u, &again));
	buf_deinit(&text);
}
END_TEST

static struct {
	const char *text, *reason;
} bad[] = {
	{"", "empty"},
	{"http://", "host is missing"},
	{"http:///x", "host is missing"},
	{":8188", "host is missing"},
	{"ftp://host", "unknown scheme"},
	{"http://host:", "1 to 65535"},
	{"http://host:0", "1 to 65535"},
	{"http://host:65536", "1 to 65535"},
	{"http://host:99999999999999999999", "1 to 65535"},
	{"http://host:8188x", "not a number"},
	{"http://host:+80", "not a number"},
	{"http://::1", "brackets"},
	{"http://[::1", "brackets"},
	{"http://[::g]", "brackets"},
	{"http://[fe80::1%25eth0]", "brackets"},
	{"http://[1.2.3.4]", "brackets"},
	{"http://[::1]8188", "behind the bracket"},
	{"http://[::1]:", "1 to 65535"},
	{"http://ho st", "space at character 10"},
	{" http://host", "space at character 1"},
	{"http://host\n", "control character at character 12"},
	{"http://host/\x7f", "control character"},
	{"http://h\xc3\xb6st", "punycode"},
	{"http://host/?a=b", "query"},
	{"http://host?a", "query"},
	{"http://host/#a", "fragment"},
	{"http://a..b", "empty label"},
	{"http://.a", "empty label"},
	{"http://a..", "empty label"},
	{"http://a!b", "no host name has"},
	{"http://127.1", "IPv4"},
	{"http://2130706433", "IPv4"},
	{"http://1.2.3.256", "IPv4"},
	{"http://1.2.3.4.", "IPv4"},
	{"http://host/a/../b", "\"..\""},
	{"http://host/..", "\"..\""},
	{"http://host/./b", "\"..\""},
	{"http://host/a/%2E%2e/b", "\"..\""},
	{"http://host/.%2e", "\"..\""},
	{"http://host/a%2", "hex digits"},
	{"http://host/a%zz", "hex digits"},
	{"http://host/a<b", "percent-encoded"},
	{"http://host/a\\b", "percent-encoded"},
};

START_TEST(refuses)
{
	struct url u;
	struct error err = ERROR_NULL;

	ck_assert_msg(url_parse(&u, bad[_i].text, &err) == -1, "accepted: %s",
	              bad[_i].text);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_msg(strstr(err.text, bad[_i].reason) != NULL,
	              "%s: \"%s\" does not say \"%s\"", bad[_i].text, err.text,
	              bad[_i].reason);
	ck_assert_int_eq(url_parse(&u, bad[_i].text, NULL), -1);
}
END_TEST

static const char *const secrets[] = {
	"http://joe:hunter2@host",     "joe:hunter2@host:8188",
	"ftp://joe:hunter2@host",      "http://joe:hunter2@host:0/",
	"http://joe:hunter2 x@host",   "http://joe:hunter2/x@host",
	"http://joe:hunter2?x@host/y", "http://joe:hunter2\x01@host",
};

START_TEST(keeps_secrets_out_of_messages)
{
	struct url u;
	struct error err = ERROR_NULL;

	ck_assert_int_eq(url_parse(&u, secrets[_i], &err), -1);
	ck_assert_msg(!strstr(err.text, "hunter2"), "%s", err.text);
	ck_assert_msg(strstr(err.text, "host") != NULL, "%s", err.text);
}
END_TEST

START_TEST(length_bounds)
{
	char text[URL_TEXT_MAX + 2];
	struct url u;
	struct error err = ERROR_NULL;

	/* The whole text, at its bound: the path has all but one character. */
	memset(text, 'a', sizeof(text));
	text[0] = 'h';
	text[1] = '/';
	text[URL_TEXT_MAX] = '\0';
	ck_assert_int_eq(url_parse(&u, text, &err), 0);
	ck_assert_uint_eq(strlen(u.path), URL_TEXT_MAX - 1);
	text[URL_TEXT_MAX] = 'a';
	text[URL_TEXT_MAX + 1] = '\0';
	ck_assert_int_eq(url_parse(&u, text, &err), -1);
	ck_assert(strstr(err.text, "too long"));

	/* A label has 63 characters at most, a host URL_HOST_MAX. */
	memset(text, 'a', sizeof(text));
	text[63] = '\0';
	ck_assert_int_eq(url_parse(&u, text, &err), 0);
	text[63] = 'a';
	text[64] = '\0';
	ck_assert_int_eq(url_parse(&u, text, &err), -1);
	ck_assert(strstr(err.text, "label"));
	memset(text, 'a', sizeof(text));
	for (size_t i = 63; i < sizeof(text); i += 64)
		text[i] = '.';
	text[URL_HOST_MAX] = '\0';
	ck_assert_int_eq(url_parse(&u, text, &err), 0);
	ck_assert_uint_eq(strlen(u.host), URL_HOST_MAX);
	text[URL_HOST_MAX] = '.';
	text[URL_HOST_MAX + 1] = '\0';
	ck_assert_int_eq(url_parse(&u, text, &err), -1);
	ck_assert(strstr(err.text, "host is too long"));
}
END_TEST

static void check_text(int (*put)(const struct url *, struct buf *),
                       const char *url, const char *want)
{
	struct url u;
	struct buf out = BUF_INIT(4096);

	ck_assert_int_eq(url_parse(&u, url, NULL), 0);
	ck_assert_int_eq(put(&u, &out), 0);
	ck_assert_str_eq(buf_cstr(&out), want);
	buf_deinit(&out);
}

START_TEST(authority)
{
	check_text(url_authority, "http://host", "host");
	check_text(url_authority, "http://host:80/x", "host");
	check_text(url_authority, "https://host:443", "host");
	check_text(url_authority, "https://host:80", "host:80");
	check_text(url_authority, "http://[::1]:8188", "[::1]:8188");
	check_text(url_authority, "wss://[::1]", "[::1]");
}
END_TEST

START_TEST(websocket_path)
{
	struct url u;
	struct buf out = BUF_INIT(4096), tiny = BUF_INIT(8);

	ck_assert_int_eq(url_parse(&u, "https://host/comfy/", NULL), 0);
	ck_assert_int_eq(url_ws_path(&u, "a b/\xc3\xa4&c=~", &out), 0);
	ck_assert_str_eq(buf_cstr(&out),
	                 "/comfy/ws?clientId=a%20b%2F%C3%A4%26c%3D~");
	ck_assert_int_lt(url_ws_path(&u, "x", &tiny), 0);
	ck_assert(!buf_ok(&tiny));
	buf_deinit(&out);
	buf_deinit(&tiny);
}
END_TEST

START_TEST(encodes_every_byte)
{
	char all[256];
	struct buf out = BUF_INIT(4096);
	const char *p;

	for (int i = 0; i < 256; i++)
		all[i] = (char)i;
	ck_assert_int_eq(url_encode(&out, all, sizeof(all)), 0);
	p = buf_cstr(&out);
	for (int i = 0; i < 256; i++) {
		char want[4];

		if (*p != '%') {
			ck_assert_int_eq(*p, all[i]);
			ck_assert(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			                 "abcdefghijklmnopqrstuvwxyz"
			                 "0123456789-._~",
			                 *p) != NULL);
			p++;
			continue;
		}
		(void)snprintf(want, sizeof(want), "%%%02X", (unsigned)i);
		ck_assert_int_eq(strncmp(p, want, 3), 0);
		p += 3;
	}
	ck_assert_int_eq(*p, '\0');
	/* 66 unreserved characters stand for themselves. */
	ck_assert_uint_eq(out.len, 66 + 190 * 3);
	buf_deinit(&out);
}
END_TEST

START_TEST(equality)
{
	static const char *const different[] = {
		"http://host:8188/a",  "https://host:8188/a",
		"http://host:8189/a",  "http://host:8188/b",
		"http://other:8188/a", "http://host:8188",
	};
	struct url a, b;

	for (size_t i = 0; i < ARRAY_SIZE(different); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(different); j++) {
			ck_assert_int_eq(url_parse(&a, different[i], NULL), 0);
			ck_assert_int_eq(url_parse(&b, different[j], NULL), 0);
			ck_assert_int_eq(url_eq(&a, &b), i == j);
		}
	}
	ck_assert_int_eq(url_parse(&a, "WS://HOST:8188/a/", NULL), 0);
	ck_assert_int_eq(url_parse(&b, different[0], NULL), 0);
	ck_assert(url_eq(&a, &b));
}
END_TEST

static Suite *url_suite(void)
{
	Suite *s = suite_create("url");
	TCase *t = tcase_create("url");

	tcase_add_loop_test(t, accepts, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(t, refuses, 0, ARRAY_SIZE(bad));
	tcase_add_loop_test(t, keeps_secrets_out_of_messages, 0,
	                    ARRAY_SIZE(secrets));
	tcase_add_test(t, length_bounds);
	tcase_add_test(t, authority);
	tcase_add_test(t, websocket_path);
	tcase_add_test(t, encodes_every_byte);
	tcase_add_test(t, equality);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(url_suite());
}
