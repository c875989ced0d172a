/*
 * check_upstream_tls.c - the link over TLS: whom it trusts, what name it wants
 * to see, what it says when the handshake fails.
 *
 * The server is a child of the test with a certificate made for the occasion.
 * It answers a handshake with a text frame that holds the server name it was
 * asked for ("-" for none), and a large binary frame.
 */
#include <arpa/inet.h>
#include <ev.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "supervisor/upstream.h"
#include "supervisor/upstream_tls.h"
#include "tests/runner.h"
#include "tests/ws_server.h"

#define LIMIT_S   30
#define ID        "0b1f2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
#define GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define LARGE     300000 /* more than a read, and than a TLS record */
#define DAY_S     86400L
#define LOCAL_SAN "DNS:localhost,IP:127.0.0.1,IP:::1"

static struct ev_loop *loop;
static struct resolver *resolver;
static struct upstream *link_;
static struct config cfg;
static struct error err;
static pid_t child;
static bool too_late;
static char ca_path[PATH_MAX];
static X509 *cert;
static EVP_PKEY *key;

static struct {
	enum upstream_state state;
	char text[300];
	size_t binary_len;
	bool binary_ok;
} seen;

/* --- the server ----------------------------------------------------------- */

static void make_cert(const char *san, int from_days, int until_days)
{
	X509_EXTENSION *ext;
	X509_NAME *name;
	FILE *f;

	key = EVP_EC_gen("P-256");
	cert = X509_new();
	ck_assert(key && cert);
	(void)X509_set_version(cert, X509_VERSION_3);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	(void)X509_gmtime_adj(X509_getm_notBefore(cert), from_days * DAY_S);
	(void)X509_gmtime_adj(X509_getm_notAfter(cert), until_days * DAY_S);
	(void)X509_set_pubkey(cert, key);
	name = X509_get_subject_name(cert);
	(void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
	                                 (const unsigned char *)"test", -1, -1,
	                                 0);
	(void)X509_set_issuer_name(cert, name);
	ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);
	ck_assert_ptr_nonnull(ext);
	ck_assert_int_eq(X509_add_ext(cert, ext, -1), 1);
	X509_EXTENSION_free(ext);
	ck_assert_int_gt(X509_sign(cert, key, EVP_sha256()), 0);
	(void)snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", runner_tmpdir());
	f = fopen(ca_path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(PEM_write_X509(f, cert), 1);
	ck_assert_int_eq(fclose(f), 0);
}

static void add_handshake(struct buf *out, const char *request)
{
	const char *p = strcasestr(request, "\r\nSec-WebSocket-Key: ");
	unsigned char hash[EVP_MAX_MD_SIZE], accept[64];
	unsigned int hash_len;
	char text[128];

	if (!p)
		_exit(2);
	p += strlen("\r\nSec-WebSocket-Key: ");
	(void)snprintf(text, sizeof(text), "%.24s" GUID, p);
	(void)EVP_Digest(text, strlen(text), hash, &hash_len, EVP_sha1(), NULL);
	(void)EVP_EncodeBlock(accept, hash, (int)hash_len);
	(void)buf_printf(out,
	                 "HTTP/1.1 101 Switching Protocols\r\n"
	                 "Upgrade: websocket\r\nConnection: Upgrade\r\n"
	                 "Sec-WebSocket-Accept: %s\r\n\r\n",
	                 accept);
}

/* What a proxy does, if it is asked first. */
static void take_tunnel(int fd)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\n\r\n";
	char text[1024];
	ssize_t n = recv(fd, text, 1, MSG_PEEK);

	if (n != 1 || text[0] != 'C')
		return;
	n = recv(fd, text, sizeof(text), 0);
	if (n < 4 || memcmp(text + n - 4, "\r\n\r\n", 4) != 0 ||
	    send(fd, ok, strlen(ok), 0) < 0)
		_exit(3);
}

static void serve(SSL *ssl)
{
	static char large[LARGE];
	struct buf out = BUF_INIT(LARGE + 8192);
	char request[8192] = "";
	const char *name;
	int n, have = 0;

	if (SSL_accept(ssl) != 1)
		return;
	while (!strstr(request, "\r\n\r\n")) {
		n = SSL_read(ssl, request + have,
		             (int)sizeof(request) - 1 - have);
		if (n <= 0)
			return;
		have += n;
		request[have] = '\0';
	}
	name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	name = name ? name : "-";
	memset(large, 'L', sizeof(large));
	add_handshake(&out, request);
	ws_frame(&out, WS_TEXT, name, strlen(name), strlen(name));
	ws_frame(&out, WS_BINARY, large, sizeof(large), sizeof(large));
	(void)SSL_write(ssl, out.data, (int)out.len);
	while (SSL_read(ssl, request, sizeof(request)) > 0)
		;
	buf_deinit(&out);
}

static _Noreturn void run_server(int listener)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	SSL *ssl;
	int fd;

	(void)signal(SIGPIPE, SIG_IGN);
	if (!ctx || SSL_CTX_use_certificate(ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey(ctx, key) != 1)
		_exit(1);
	for (;;) {
		fd = accept(listener, NULL, NULL);
		if (fd < 0)
			_exit(4);
		take_tunnel(fd);
		ssl = SSL_new(ctx);
		(void)SSL_set_fd(ssl, fd);
		serve(ssl);
		SSL_free(ssl);
		(void)close(fd);
	}
}

/* Its port; 0 without IPv6. */
static unsigned int start_server(bool ipv6)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6,
	                          .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in a4 = {.sin_family = AF_INET};
	struct sockaddr *a = ipv6 ? (void *)&a6 : (void *)&a4;
	socklen_t len = ipv6 ? sizeof(a6) : sizeof(a4);
	int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, a, len) < 0) {
		ck_assert(ipv6);
		if (fd >= 0)
			(void)close(fd);
		return 0;
	}
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, a, &len), 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		run_server(fd);
	(void)close(fd);
	return ntohs(ipv6 ? a6.sin6_port : a4.sin_port);
}

/* --- fixture -------------------------------------------------------------- */

static void on_text(void *user, const char *frame, size_t len,
                    int64_t received_us)
{
	ck_assert_uint_lt(len, sizeof(seen.text));
	memcpy(seen.text, frame, len);
	seen.text[len] = '\0';
}

static void on_binary(void *user, const char *frame, size_t len,
                      int64_t received_us)
{
	seen.binary_ok = len > 0 && frame[0] == 'L' &&
	                 memcmp(frame, frame + 1, len - 1) == 0;
	seen.binary_len = len;
}

static void on_state(void *user, enum upstream_state state)
{
	seen.state = state;
}

static void setup(void)
{
	static char empty[] = "";

	log_set_level(LOG_LEVEL_ERROR);
	memset(&seen, 0, sizeof(seen));
	memset(&cfg, 0, sizeof(cfg));
	memset(&err, 0, sizeof(err));
	cfg.ca_file = cfg.proxy = empty;
	cfg.connect_timeout_ms = 5000;
	cfg.ping_interval_s = 30;
	cfg.pong_timeout_s = 10;
	child = 0;
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	resolver = resolver_new(loop, &err);
	ck_assert_ptr_nonnull(resolver);
}

static void teardown(void)
{
	int status;

	link_ = upstream_free(link_);
	if (child > 0) {
		(void)kill(child, SIGKILL);
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert_msg(WIFSIGNALED(status), "server: status %d", status);
	}
	resolver = resolver_free(resolver);
	ev_loop_destroy(loop);
	X509_free(cert);
	EVP_PKEY_free(key);
	cert = NULL;
	key = NULL;
}

static void on_too_late(struct ev_loop *l, struct ev_timer *w, int revents)
{
	too_late = true;
}

static void run_until(enum upstream_state state)
{
	struct ev_timer limit;

	ev_timer_init(&limit, on_too_late, LIMIT_S, 0.);
	ev_timer_start(loop, &limit);
	too_late = false;
	while ((seen.state != state ||
	        (state == UPSTREAM_CONNECTED && seen.binary_len == 0)) &&
	       !too_late)
		ev_run(loop, EVRUN_ONCE);
	ev_timer_stop(loop, &limit);
	ck_assert_msg(!too_late, "in vain: state %s, %s",
	              upstream_state_debug_name(upstream_state(link_)),
	              upstream_last_error(link_));
}

static const struct upstream_handlers handlers = {
	.on_text = on_text,
	.on_binary = on_binary,
	.on_state = on_state,
};

static void start(const char *host, unsigned int port)
{
	char text[128];
	struct url url;

	(void)snprintf(text, sizeof(text), "https://%s:%u", host, port);
	ck_assert_int_eq(url_parse(&url, text, &err), 0);
	link_ = upstream_new(loop, resolver, &url, &cfg, NULL, ID, &handlers,
	                     NULL, &err);
	ck_assert_msg(link_ != NULL, "%s", err.text);
	upstream_start(link_);
}

static void check_connects(const char *host, unsigned int port,
                           const char *name)
{
	start(host, port);
	run_until(UPSTREAM_CONNECTED);
	ck_assert_str_eq(seen.text, name);
	ck_assert_uint_eq(seen.binary_len, LARGE);
	ck_assert(seen.binary_ok);
}

static void check_fails(const char *host, unsigned int port, const char *part)
{
	start(host, port);
	run_until(UPSTREAM_WAITING);
	ck_assert_msg(strstr(upstream_last_error(link_), part) != NULL,
	              "\"%s\" lacks \"%s\"", upstream_last_error(link_), part);
}

/* --- tests ---------------------------------------------------------------- */

START_TEST(test_name)
{
	make_cert(LOCAL_SAN, 0, 1);
	cfg.ca_file = ca_path;
	check_connects("localhost", start_server(false), "localhost");
}
END_TEST

START_TEST(test_ipv4)
{
	make_cert(LOCAL_SAN, 0, 1);
	cfg.ca_file = ca_path;
	check_connects("127.0.0.1", start_server(false), "-");
}
END_TEST

START_TEST(test_ipv6)
{
	unsigned int port;

	make_cert(LOCAL_SAN, 0, 1);
	cfg.ca_file = ca_path;
	port = start_server(true);
	if (port != 0)
		check_connects("[::1]", port, "-");
}
END_TEST

START_TEST(test_proxy)
{
	char proxy[64];

	make_cert("DNS:comfy.invalid", 0, 1);
	cfg.ca_file = ca_path;
	(void)snprintf(proxy, sizeof(proxy), "127.0.0.1:%u",
	               start_server(false));
	cfg.proxy = proxy;
	check_connects("comfy.invalid", 443, "comfy.invalid");
}
END_TEST

/* Closing and opening again, over TLS. */
START_TEST(test_reconnect)
{
	make_cert(LOCAL_SAN, 0, 1);
	cfg.ca_file = ca_path;
	check_connects("localhost", start_server(false), "localhost");
	seen.binary_len = 0;
	upstream_reconnect(link_, "test");
	run_until(UPSTREAM_CLOSING);
	run_until(UPSTREAM_CONNECTED);
	ck_assert_uint_eq(upstream_reconnects(link_), 1);
	upstream_stop(link_);
	run_until(UPSTREAM_DOWN);
}
END_TEST

/* Without ca_file the system's authorities count; here they are named by
 * OpenSSL's own variable. */
START_TEST(test_system_authorities)
{
	make_cert(LOCAL_SAN, 0, 1);
	ck_assert_int_eq(setenv("SSL_CERT_FILE", ca_path, 1), 0);
	check_connects("localhost", start_server(false), "localhost");
	ck_assert_int_eq(unsetenv("SSL_CERT_FILE"), 0);
}
END_TEST

START_TEST(test_not_trusted)
{
	make_cert(LOCAL_SAN, 0, 1);
	check_fails("localhost", start_server(false),
	            "certificate not accepted: self-signed certificate");
}
END_TEST

/* What lies about near the current directory is no authority. */
START_TEST(test_share_not_trusted)
{
	char path[PATH_MAX + 64], cwd[PATH_MAX];
	const char *dir;

	make_cert(LOCAL_SAN, 0, 1);
	dir = runner_tmpdir();
	(void)snprintf(path, sizeof(path), "%s/share", dir);
	(void)mkdir(path, 0700);
	(void)snprintf(path, sizeof(path), "%s/share/%08lx.0", dir,
	               X509_subject_name_hash(cert));
	(void)unlink(path);
	ck_assert_int_eq(symlink(ca_path, path), 0);
	(void)snprintf(path, sizeof(path), "%s/cwd", dir);
	(void)mkdir(path, 0700);
	ck_assert_ptr_nonnull(getcwd(cwd, sizeof(cwd)));
	ck_assert_int_eq(chdir(path), 0);
	check_fails("localhost", start_server(false),
	            "certificate not accepted");
	ck_assert_int_eq(chdir(cwd), 0);
}
END_TEST

static const struct {
	const char *san, *host, *part;
} mismatches[] = {
	{"DNS:other.invalid", "localhost", "hostname mismatch"},
	{"IP:127.0.0.1", "localhost", "hostname mismatch"},
	{"DNS:*host", "localhost", "hostname mismatch"},
	{"IP:127.0.0.2,DNS:localhost", "127.0.0.1", "IP address mismatch"},
	{"DNS:127.0.0.1", "127.0.0.1", "IP address mismatch"},
};

START_TEST(test_mismatch)
{
	make_cert(mismatches[_i].san, 0, 1);
	cfg.ca_file = ca_path;
	check_fails(mismatches[_i].host, start_server(false),
	            mismatches[_i].part);
}
END_TEST

START_TEST(test_expired)
{
	make_cert(LOCAL_SAN, -10, -1);
	cfg.ca_file = ca_path;
	check_fails("localhost", start_server(false), "has expired");
}
END_TEST

START_TEST(test_not_yet_valid)
{
	make_cert(LOCAL_SAN, 1, 2);
	cfg.ca_file = ca_path;
	check_fails("localhost", start_server(false), "not yet valid");
}
END_TEST

START_TEST(test_not_tls)
{
	struct ws_server *plain = ws_server_new(loop, false);

	ws_script(plain)->answer = WS_RAW;
	/* It waits for a request that it understands; so the first bytes are
	 * pushed at the client. */
	start("127.0.0.1", ws_server_port(plain));
	while (ws_seen(plain)->connections == 0)
		ev_run(loop, EVRUN_ONCE);
	ws_server_write(plain, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
	run_until(UPSTREAM_WAITING);
	ck_assert_ptr_nonnull(strstr(upstream_last_error(link_),
	                             "TLS handshake failed: wrong version"));
	link_ = upstream_free(link_);
	(void)ws_server_free(plain);
}
END_TEST

START_TEST(test_dropped_in_handshake)
{
	struct ws_server *plain = ws_server_new(loop, false);

	start("127.0.0.1", ws_server_port(plain));
	while (ws_seen(plain)->connections == 0)
		ev_run(loop, EVRUN_ONCE);
	ws_server_drop(plain, _i != 0);
	run_until(UPSTREAM_WAITING);
	ck_assert_ptr_nonnull(strstr(upstream_last_error(link_), "handshake"));
	link_ = upstream_free(link_);
	(void)ws_server_free(plain);
}
END_TEST

/* A server that says nothing during the handshake is left when asked. */
START_TEST(test_stop_in_handshake)
{
	struct ws_server *mute = ws_server_new(loop, false);

	start("127.0.0.1", ws_server_port(mute));
	while (ws_seen(mute)->connections == 0)
		ev_run(loop, EVRUN_ONCE);
	upstream_stop(link_);
	run_until(UPSTREAM_DOWN);
	while (ws_seen(mute)->open != 0)
		ev_run(loop, EVRUN_ONCE);
	(void)ws_server_free(mute);
}
END_TEST

START_TEST(test_bad_ca_file)
{
	char path[PATH_MAX];
	struct url url;
	FILE *f;

	ck_assert_int_eq(url_parse(&url, "https://localhost", &err), 0);
	ck_assert_ptr_null(upstream_tls_new(&url, "/no/such/file", &err));
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.text, "ca_file /no/such/file"));
	ck_assert_msg(strstr(err.text, "No such file") != NULL, "%s", err.text);
	(void)snprintf(path, sizeof(path), "%s/empty.pem", runner_tmpdir());
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_ptr_null(upstream_tls_new(&url, path, &err));
	ck_assert_ptr_nonnull(strstr(err.text, path));
	/* The link is not made without it. */
	cfg.ca_file = path;
	ck_assert_ptr_null(upstream_new(loop, resolver, &url, &cfg, NULL, ID,
	                                &handlers, NULL, &err));
}
END_TEST

static Suite *upstream_tls_suite(void)
{
	Suite *s = suite_create("upstream_tls");
	TCase *t = tcase_create("upstream_tls");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 2 * LIMIT_S);
	tcase_add_test(t, test_name);
	tcase_add_test(t, test_ipv4);
	tcase_add_test(t, test_ipv6);
	tcase_add_test(t, test_proxy);
	tcase_add_test(t, test_reconnect);
	tcase_add_test(t, test_system_authorities);
	tcase_add_test(t, test_not_trusted);
	tcase_add_test(t, test_share_not_trusted);
	tcase_add_loop_test(t, test_mismatch, 0, (int)ARRAY_SIZE(mismatches));
	tcase_add_test(t, test_expired);
	tcase_add_test(t, test_not_yet_valid);
	tcase_add_test(t, test_not_tls);
	tcase_add_loop_test(t, test_dropped_in_handshake, 0, 2);
	tcase_add_test(t, test_stop_in_handshake);
	tcase_add_test(t, test_bad_ca_file);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(upstream_tls_suite());
}
