/*
 * check_resolve.c - the resolver against a name server in this process, which
 * answers over UDP on the loop under test.
 *
 * Names tell the server what to do: "two.test" has two IPv4 addresses and one
 * IPv6, "many.test" has more than are kept, "none.test" exists without
 * addresses, "silent.test" is never answered, anything else doesn't exist.
 */
#include "common/resolve.h"

#include <arpa/inet.h>
#include <ev.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/macros.h"
#include "tests/runner.h"

#define GUARD_S    60. /* far beyond what any test needs */
#define TIMEOUT_MS 30000
#define MANY       (RESOLVE_ADDRESSES_MAX + 3)

enum { DNS_HEADER = 12, TYPE_A = 1, TYPE_AAAA = 28, RCODE_NXDOMAIN = 3 };

static struct ev_loop *loop;
static struct resolver *resolver;
static ev_io dns;
static ev_timer guard;
static char server[32];
static unsigned questions;

/* What the last callback got. */
static struct {
	unsigned calls;
	bool ok;
	struct resolve_result result;
	struct error error;
} got;

/* --- the name server
 * ------------------------------------------------------------- */

static size_t put_record(unsigned char *out, unsigned type, const void *addr,
                         size_t len)
{
	const unsigned char fixed[] = {
		0xc0, DNS_HEADER, /* the name of the question */
		0,    (unsigned char)type, 0, 1, 0, 0, 0, 60,
		0,    (unsigned char)len,
	};

	memcpy(out, fixed, sizeof(fixed));
	memcpy(out + sizeof(fixed), addr, len);
	return sizeof(fixed) + len;
}

static unsigned put_records(unsigned char *msg, size_t *lenp, const char *name,
                            unsigned type)
{
	unsigned n = 0, count = 0;
	struct in6_addr loopback = IN6ADDR_LOOPBACK_INIT;

	if (strcmp(name, "two") == 0)
		count = type == TYPE_A ? 2 : 1;
	else if (strcmp(name, "many") == 0)
		count = type == TYPE_A ? MANY : 0;
	for (; n < count; n++) {
		unsigned char a[4] = {127, 0, 1, (unsigned char)(n + 1)};

		if (type == TYPE_A)
			*lenp += put_record(msg + *lenp, type, a, sizeof(a));
		else
			*lenp += put_record(msg + *lenp, type, &loopback,
			                    sizeof(loopback));
	}
	return n;
}

static void on_question(struct ev_loop *l, ev_io *io, int revents)
{
	unsigned char msg[1024];
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	char name[64] = "";
	size_t len, label;
	unsigned type, n;
	ssize_t got_len = recvfrom(io->fd, msg, 512, 0,
	                           (struct sockaddr *)&from, &from_len);

	ck_assert_int_gt(got_len, DNS_HEADER);
	questions++;
	label = msg[DNS_HEADER];
	ck_assert_uint_lt(label, sizeof(name));
	memcpy(name, msg + DNS_HEADER + 1, label);
	len = DNS_HEADER;
	while (msg[len] != 0)
		len += msg[len] + 1u;
	type = msg[len + 2];
	len += 5; /* the question's end */
	if (strcmp(name, "silent") == 0)
		return;
	memset(msg + 6, 0, 6); /* no answers yet, no other sections */
	n = put_records(msg, &len, name, type);
	msg[2] = 0x81; /* a response, recursion desired */
	msg[3] = 0x80; /* recursion available */
	msg[7] = (unsigned char)n;
	if (n == 0 && strcmp(name, "none") != 0 && strcmp(name, "two") != 0 &&
	    strcmp(name, "many") != 0)
		msg[3] |= RCODE_NXDOMAIN;
	ck_assert_int_eq(
		sendto(io->fd, msg, len, 0, (struct sockaddr *)&from, from_len),
		(ssize_t)len);
}

/* --- fixture ------------------------------------------------------------- */

static void ATTR_NORETURN on_guard(struct ev_loop *l, ev_timer *t, int revents)
{
	ck_abort_msg("the loop does not end");
}

static void setup(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	(void)snprintf(server, sizeof(server), "127.0.0.1:%u",
	               (unsigned)ntohs(addr.sin_port));
	ev_io_init(&dns, on_question, fd, EV_READ);
	ev_io_start(loop, &dns);
	/* So that ev_run() returns when the resolver has nothing open. */
	ev_unref(loop);
	ev_timer_init(&guard, on_guard, GUARD_S, 0.);
	ev_timer_start(loop, &guard);
	ev_unref(loop);
	resolver = resolver_new(loop, NULL);
	ck_assert_ptr_nonnull(resolver);
	resolver_set_server(resolver, server);
	memset(&got, 0, sizeof(got));
	questions = 0;
}

static void teardown(void)
{
	resolver = resolver_free(resolver);
	ev_ref(loop);
	ev_timer_stop(loop, &guard);
	ev_ref(loop);
	ev_io_stop(loop, &dns);
	ck_assert_int_eq(close(dns.fd), 0);
	ev_loop_destroy(loop);
}

static void on_result(void *user, const struct resolve_result *result,
                      const struct error *err)
{
	ck_assert((result != NULL) != (err != NULL));
	got.calls++;
	got.ok = result != NULL;
	if (result)
		got.result = *result;
	else
		got.error = *err;
}

static struct resolve_query *start(const char *host, unsigned timeout_ms)
{
	struct error err = ERROR_NULL;
	struct resolve_query *q = resolve_start(resolver, host, timeout_ms,
	                                        on_result, NULL, &err);

	ck_assert_msg(q != NULL, "%s", err.text);
	return q;
}

static void resolve(const char *host, unsigned timeout_ms)
{
	(void)start(host, timeout_ms);
	ck_assert_uint_eq(got.calls, 0);
	ev_run(loop, 0);
	ck_assert_uint_eq(got.calls, 1);
}

/* --- tests ------------------------------------------------------------- */

static const struct {
	const char *host, *first, *second;
} local[] = {
	{"127.0.0.1", "127.0.0.1", NULL},
	{"192.0.2.7", "192.0.2.7", NULL},
	{"::1", "::1", NULL},
	{"2001:DB8:0::1", "2001:db8::1", NULL},
	{"localhost", "127.0.0.1", "::1"},
	{"LocalHost.", "127.0.0.1", "::1"},
};

START_TEST(answers_locally)
{
	resolve(local[_i].host, TIMEOUT_MS);
	ck_assert(got.ok);
	ck_assert_uint_eq(got.result.count, local[_i].second ? 2 : 1);
	ck_assert_str_eq(got.result.address[0], local[_i].first);
	if (local[_i].second)
		ck_assert_str_eq(got.result.address[1], local[_i].second);
	ck_assert_uint_eq(questions, 0);
}
END_TEST

static bool has_address(const char *text)
{
	for (size_t i = 0; i < got.result.count; i++) {
		if (strcmp(got.result.address[i], text) == 0)
			return true;
	}
	return false;
}

START_TEST(asks_for_both_families)
{
	resolve("two.test", TIMEOUT_MS);
	ck_assert_msg(got.ok, "%s", got.error.text);
	ck_assert_uint_eq(got.result.count, 3);
	ck_assert(has_address("127.0.1.1"));
	ck_assert(has_address("127.0.1.2"));
	ck_assert(has_address("::1"));
	ck_assert_uint_ge(questions, 2);
}
END_TEST

START_TEST(keeps_no_more_than_fit)
{
	resolve("many.test", TIMEOUT_MS);
	ck_assert(got.ok);
	ck_assert_uint_eq(got.result.count, RESOLVE_ADDRESSES_MAX);
}
END_TEST

static const char *const missing[] = {"no-such.test", "none.test"};

START_TEST(names_what_is_missing)
{
	resolve(missing[_i], TIMEOUT_MS);
	ck_assert(!got.ok);
	ck_assert_int_eq(got.error.code, ERR_UNREACHABLE);
	ck_assert_msg(strstr(got.error.text, missing[_i]) != NULL, "%s",
	              got.error.text);
}
END_TEST

START_TEST(refuses_bad_names)
{
	char name[400];

	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	resolve(name, TIMEOUT_MS);
	ck_assert(!got.ok);
	got.calls = 0;
	resolve("", TIMEOUT_MS);
	ck_assert(!got.ok);
}
END_TEST

START_TEST(gives_up_in_time)
{
	resolve("silent.test", 50);
	ck_assert(!got.ok);
	ck_assert_int_eq(got.error.code, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(got.error.text, "silent.test"));
	ck_assert_ptr_nonnull(strstr(got.error.text, "50 ms"));
	/* The next one works. */
	got.calls = 0;
	resolve("two.test", TIMEOUT_MS);
	ck_assert(got.ok);
}
END_TEST

/* An IPv4 entry of this machine's /etc/hosts that is not about localhost, which
 * is answered before c-ares is asked. False if there is none. */
static bool find_in_hosts(char *addr, char *name)
{
	FILE *f = fopen("/etc/hosts", "r");
	char line[512];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		struct in_addr ip;

		found = sscanf(line, "%63s %63s", addr, name) == 2 &&
		        inet_pton(AF_INET, addr, &ip) == 1 &&
		        strncmp(name, "localhost", 9) != 0;
	}
	if (f)
		(void)fclose(f);
	return found;
}

START_TEST(reads_etc_hosts)
{
	char addr[64], name[64];

	if (!find_in_hosts(addr, name))
		return;
	resolve(name, TIMEOUT_MS);
	ck_assert_msg(got.ok, "%s", got.error.text);
	ck_assert_msg(has_address(addr), "%s is not %s", name, addr);
	ck_assert_uint_eq(questions, 0);
}
END_TEST

START_TEST(cancelled_queries_stay_silent)
{
	struct resolve_query *a = start("two.test", TIMEOUT_MS);
	struct resolve_query *b = start("127.0.0.1", TIMEOUT_MS);

	(void)start("silent.test", 200);
	resolve_cancel(a);
	resolve_cancel(b);
	ev_run(loop, 0);
	ck_assert_uint_eq(got.calls, 1);
	ck_assert_int_eq(got.error.code, ERR_UNREACHABLE);
}
END_TEST

START_TEST(many_at_once)
{
	for (int i = 0; i < 50; i++)
		(void)start(i % 2 ? "two.test" : "no-such.test", TIMEOUT_MS);
	ev_run(loop, 0);
	ck_assert_uint_eq(got.calls, 50);
}
END_TEST

START_TEST(freed_with_open_queries)
{
	(void)start("silent.test", TIMEOUT_MS);
	(void)start("two.test", TIMEOUT_MS);
	(void)start("::1", TIMEOUT_MS);
	ev_run(loop, EVRUN_NOWAIT);
	resolver = resolver_free(resolver);
	got.calls = 0;
	ev_run(loop, 0);
	ck_assert_uint_eq(got.calls, 0);
}
END_TEST

static void on_free(void *user, const struct resolve_result *result,
                    const struct error *err)
{
	got.calls++;
	resolver = resolver_free(resolver);
}

static void on_again(void *user, const struct resolve_result *result,
                     const struct error *err)
{
	got.calls++;
	ck_assert_ptr_nonnull(
		resolve_start(resolver, user, TIMEOUT_MS, on_free, NULL, NULL));
}

/* A callback may start the next query, and it may free the resolver while
 * others are open. */
START_TEST(callback_does_what_it_likes)
{
	static char next[] = "no-such.test";

	(void)start("silent.test", TIMEOUT_MS);
	ck_assert_ptr_nonnull(resolve_start(resolver, "two.test", TIMEOUT_MS,
	                                    on_again, next, NULL));
	ev_run(loop, 0);
	ck_assert_uint_eq(got.calls, 2);
	ck_assert_ptr_null(resolver);
}
END_TEST

static Suite *resolve_suite(void)
{
	Suite *s = suite_create("resolve");
	TCase *t = tcase_create("resolve");

	tcase_set_timeout(t, 2 * GUARD_S);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, answers_locally, 0, ARRAY_SIZE(local));
	tcase_add_test(t, asks_for_both_families);
	tcase_add_test(t, keeps_no_more_than_fit);
	tcase_add_loop_test(t, names_what_is_missing, 0, ARRAY_SIZE(missing));
	tcase_add_test(t, refuses_bad_names);
	tcase_add_test(t, gives_up_in_time);
	tcase_add_test(t, reads_etc_hosts);
	tcase_add_test(t, cancelled_queries_stay_silent);
	tcase_add_test(t, many_at_once);
	tcase_add_test(t, freed_with_open_queries);
	tcase_add_test(t, callback_does_what_it_likes);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(resolve_suite());
}
