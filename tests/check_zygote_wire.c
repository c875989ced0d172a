/*
 * check_zygote_wire.c - messages between supervisor and zygote: what goes in
 * comes out, and nothing else comes in.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/macros.h"
#include "ipc/zygote.h"
#include "tests/runner.h"

#define TOLD                                                                   \
	{                                                                      \
		.comfyui = "http://127.0.0.1:8188/", .address = "127.0.0.1",   \
		.client_id = "0b0d64be-4ea5-4ad2-8d2c-2f58d0c1f4ce",           \
		.ca_file = "", .proxy = "", .connect_timeout_ms = 5000,        \
		.request_timeout_ms = UINT32_MAX, .poll_interval_ms = 1500,    \
		.sessions = 3, .log_level = LOG_LEVEL_DEBUG, .tenant = true,   \
		.record_key = {1, 2, 3, UINT32_MAX},                           \
	}

static const struct zygote_message samples[] = {
	{.type = ZYGOTE_FORK, .generation = 1, .told = TOLD},
	{.type = ZYGOTE_KILL, .generation = UINT64_MAX, .value = 9},
	{.type = ZYGOTE_KILL, .generation = 7, .value = ZYGOTE_SIGNAL_MAX},
	{.type = ZYGOTE_FORKED, .generation = 2, .pid = 1},
	{.type = ZYGOTE_FORKED, .generation = 2, .pid = INT32_MAX},
	{.type = ZYGOTE_FAILED, .generation = 3, .value = ZYGOTE_ERRNO_MAX},
	{.type = ZYGOTE_EXITED, .generation = 4, .pid = 99, .value = 0},
	{.type = ZYGOTE_EXITED, .generation = 4, .pid = 99, .value = 0xffff},
};

static const struct zygote_message bad[] = {
	{.type = ZYGOTE_NONE, .generation = 1},
	{.type = ZYGOTE_TYPE_COUNT, .generation = 1},
	{.type = ZYGOTE_FORK, .generation = 0, .told = TOLD},
	{.type = ZYGOTE_FORK, .generation = 1, .pid = 1, .told = TOLD},
	{.type = ZYGOTE_KILL, .generation = 1, .value = 0},
	{.type = ZYGOTE_KILL, .generation = 1, .value = -9},
	{.type = ZYGOTE_KILL, .generation = 1, .value = ZYGOTE_SIGNAL_MAX + 1},
	{.type = ZYGOTE_FORKED, .generation = 1, .pid = 0},
	{.type = ZYGOTE_FORKED, .generation = 1, .pid = -1},
	{.type = ZYGOTE_FORKED, .generation = 1, .pid = 5, .value = 1},
	{.type = ZYGOTE_FAILED, .generation = 1, .value = 0},
	{.type = ZYGOTE_FAILED, .generation = 1, .value = ZYGOTE_ERRNO_MAX + 1},
	{.type = ZYGOTE_EXITED, .generation = 1, .pid = 5, .value = 0x10000},
};

static void require_equal(const struct zygote_message *a,
                          const struct zygote_message *b)
{
	ck_assert_int_eq(a->type, b->type);
	ck_assert_uint_eq(a->generation, b->generation);
	ck_assert_int_eq(a->pid, b->pid);
	ck_assert_int_eq(a->value, b->value);
	if (a->type != ZYGOTE_FORK)
		return;
	ck_assert_str_eq(a->told.comfyui, b->told.comfyui);
	ck_assert_str_eq(a->told.address, b->told.address);
	ck_assert_str_eq(a->told.client_id, b->told.client_id);
	ck_assert_str_eq(a->told.ca_file, b->told.ca_file);
	ck_assert_str_eq(a->told.proxy, b->told.proxy);
	ck_assert_uint_eq(a->told.connect_timeout_ms,
	                  b->told.connect_timeout_ms);
	ck_assert_uint_eq(a->told.request_timeout_ms,
	                  b->told.request_timeout_ms);
	ck_assert_uint_eq(a->told.poll_interval_ms, b->told.poll_interval_ms);
	ck_assert_uint_eq(a->told.sessions, b->told.sessions);
	ck_assert_mem_eq(a->told.record_key, b->told.record_key,
	                 sizeof(a->told.record_key));
	ck_assert_int_eq(a->told.log_level, b->told.log_level);
	ck_assert_int_eq(a->told.log_sink, b->told.log_sink);
	ck_assert_int_eq(a->told.log_format, b->told.log_format);
	ck_assert_int_eq(a->told.tenant, b->told.tenant);
}

START_TEST(test_round_trip)
{
	const struct zygote_message *m = &samples[_i];
	static char packet[ZYGOTE_MESSAGE_MAX];
	struct zygote_message back;
	ssize_t n = zygote_encode(m, packet);

	ck_assert_int_ge(n, ZYGOTE_HEADER_LEN);
	ck_assert_int_eq(n == ZYGOTE_HEADER_LEN, m->type != ZYGOTE_FORK);
	ck_assert_int_eq(zygote_decode(&back, packet, (size_t)n), 0);
	require_equal(m, &back);
	/* A packet is whole or nothing. */
	for (ssize_t cut = 0; cut < n; cut++)
		ck_assert_int_eq(zygote_decode(&back, packet, (size_t)cut),
		                 -EPROTO);
	packet[n] = '\0';
	ck_assert_int_eq(zygote_decode(&back, packet, (size_t)n + 1), -EPROTO);
}
END_TEST

START_TEST(test_out_of_range)
{
	static char packet[ZYGOTE_MESSAGE_MAX];

	ck_assert_int_eq(zygote_encode(&bad[_i], packet), -EINVAL);
}
END_TEST

/* Every byte of the header says something that is checked. */
START_TEST(test_header)
{
	struct zygote_message m = {.type = ZYGOTE_KILL,
	                           .generation = 5,
	                           .value = 15},
			      back;
	char packet[ZYGOTE_MESSAGE_MAX], c;
	ssize_t n = zygote_encode(&m, packet);

	for (int at = 0; at < 8; at++) {
		c = packet[at];
		packet[at] = (char)(c ^ 0x40);
		ck_assert_int_eq(zygote_decode(&back, packet, (size_t)n),
		                 -EPROTO);
		packet[at] = c;
	}
	memset(packet + 8, 0, 8);
	ck_assert_int_eq(zygote_decode(&back, packet, (size_t)n), -EPROTO);
}
END_TEST

START_TEST(test_longest_strings)
{
	static char longest[ZYGOTE_STRING_MAX + 2];
	static char packet[ZYGOTE_MESSAGE_MAX];
	struct zygote_message m = {.type = ZYGOTE_FORK, .generation = 1}, back;
	ssize_t n;

	memset(longest, 'x', ZYGOTE_STRING_MAX);
	m.told = (struct zygote_told){.comfyui = longest,
	                              .address = longest,
	                              .client_id = longest,
	                              .ca_file = longest,
	                              .proxy = longest};
	n = zygote_encode(&m, packet);
	ck_assert_int_eq(n, ZYGOTE_MESSAGE_MAX);
	ck_assert_int_eq(zygote_decode(&back, packet, (size_t)n), 0);
	require_equal(&m, &back);
	longest[ZYGOTE_STRING_MAX] = 'x';
	ck_assert_int_eq(zygote_encode(&m, packet), -EMSGSIZE);
	m.told = samples[0].told;
	m.told.log_level = LOG_LEVEL_COUNT;
	ck_assert_int_eq(zygote_encode(&m, packet), -EINVAL);
}
END_TEST

/* The tail of a fork request, byte by byte: lengths that lie, NULs inside. */
START_TEST(test_broken_tail)
{
	static char packet[ZYGOTE_MESSAGE_MAX], copy[ZYGOTE_MESSAGE_MAX];
	const size_t first = ZYGOTE_HEADER_LEN + 4 * ZYGOTE_NUMBERS;
	struct zygote_message m = samples[0], back;
	size_t n = (size_t)zygote_encode(&m, packet);

	memcpy(copy, packet, n);
	copy[first]++;
	ck_assert_int_eq(zygote_decode(&back, copy, n), -EPROTO);
	memcpy(copy, packet, n);
	copy[first + 1] = (char)0xff;
	ck_assert_int_eq(zygote_decode(&back, copy, n), -EPROTO);
	memcpy(copy, packet, n);
	copy[first + 4] = '\0';
	ck_assert_int_eq(zygote_decode(&back, copy, n), -EPROTO);
	memcpy(copy, packet, n);
	copy[n - 1] = 'x';
	ck_assert_int_eq(zygote_decode(&back, copy, n), -EPROTO);
	memcpy(copy, packet, n);
	copy[ZYGOTE_HEADER_LEN + 28] = 8; /* a flag that doesn't exist */
	ck_assert_int_eq(zygote_decode(&back, copy, n), -EPROTO);
	memcpy(copy, packet, n);
	copy[ZYGOTE_HEADER_LEN + 16] = LOG_LEVEL_COUNT;
	ck_assert_int_eq(zygote_decode(&back, copy, n), -EPROTO);
}
END_TEST

/* --- the socket ----------------------------------------------------------- */

static int sv[2];

static void setup(void)
{
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	ck_assert_int_eq(fd_set_nonblock(sv[1]), 0);
}

static void teardown(void)
{
	(void)close(sv[0]);
	(void)close(sv[1]);
}

static int send_sample(const struct zygote_message *m, const int *fds)
{
	static char packet[ZYGOTE_MESSAGE_MAX];
	ssize_t n = zygote_encode(m, packet);

	ck_assert_int_gt(n, 0);
	return zygote_send(sv[0], packet, (size_t)n, fds);
}

START_TEST(test_descriptors)
{
	static char packet[ZYGOTE_MESSAGE_MAX];
	struct zygote_message m;
	struct stat a, b;
	int fds[2], got[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(send_sample(&samples[0], fds), 0);
	ck_assert_int_eq(send_sample(&samples[1], NULL), 0);
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), 1);
	require_equal(&samples[0], &m);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fstat(fds[i], &a), 0);
		ck_assert_int_eq(fstat(got[i], &b), 0);
		ck_assert_uint_eq(a.st_ino, b.st_ino);
		ck_assert_int_eq(fcntl(got[i], F_GETFD), FD_CLOEXEC);
		(void)close(fds[i]);
		(void)close(got[i]);
	}
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), 1);
	require_equal(&samples[1], &m);
	ck_assert_int_eq(got[0], -1);
	ck_assert_int_eq(got[1], -1);
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), -EAGAIN);
	(void)shutdown(sv[0], SHUT_WR);
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), 0);
}
END_TEST

/* Descriptors where none belong, too few, or none where two do. */
START_TEST(test_wrong_descriptors)
{
	static char packet[ZYGOTE_MESSAGE_MAX];
	struct zygote_message m;
	int fds[2] = {0, 0}, got[2], lowest = dup(0), again;

	ck_assert_int_ge(lowest, 0);
	(void)close(lowest);
	ck_assert_int_eq(send_sample(&samples[0], NULL), 0);
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), -EPROTO);
	ck_assert_int_eq(send_sample(&samples[1], fds), 0);
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), -EPROTO);
	ck_assert_int_eq(got[0], -1);
	ck_assert_int_eq(fd_send(sv[0], "x", 1, 0), 1);
	ck_assert_int_eq(zygote_recv(sv[1], packet, &m, got), -EPROTO);
	ck_assert_int_eq(got[0], -1);
	/* None was kept. */
	again = dup(0);
	ck_assert_int_eq(again, lowest);
	(void)close(again);
}
END_TEST

START_TEST(test_names)
{
	for (int t = 0; t < ZYGOTE_TYPE_COUNT; t++)
		ck_assert_int_gt(
			(int)strlen(zygote_type_name((enum zygote_type)t)), 0);
	ck_assert_str_eq(zygote_type_name(ZYGOTE_TYPE_COUNT), "?");
}
END_TEST

static Suite *zygote_wire_suite(void)
{
	Suite *s = suite_create("zygote_wire");
	TCase *t = tcase_create("codec"), *io = tcase_create("socket");

	tcase_add_loop_test(t, test_round_trip, 0, ARRAY_SIZE(samples));
	tcase_add_loop_test(t, test_out_of_range, 0, ARRAY_SIZE(bad));
	tcase_add_test(t, test_header);
	tcase_add_test(t, test_longest_strings);
	tcase_add_test(t, test_broken_tail);
	tcase_add_test(t, test_names);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(io, setup, teardown);
	tcase_add_test(io, test_descriptors);
	tcase_add_test(io, test_wrong_descriptors);
	suite_add_tcase(s, io);
	return s;
}

int main(void)
{
	return runner_run(zygote_wire_suite());
}
