/*
 * check_frame.c - frames: references, descriptors, the ring of a queue and what
 * goes into one system call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/frame.h"
#include "tests/runner.h"

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

START_TEST(references)
{
	struct frame *f = frame_new("abc", 3, -1);

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(f->len, 3);
	ck_assert_mem_eq(f->data, "abc", 3);
	ck_assert_ptr_eq(frame_ref(f), f);
	ck_assert_ptr_null(frame_unref(f));
	ck_assert_mem_eq(f->data, "abc", 3);
	ck_assert_ptr_null(frame_unref(f));
	ck_assert_ptr_null(frame_unref(NULL));
}
END_TEST

START_TEST(two_pieces)
{
	struct frame *f = frame_new_pair("head", 4, "body", 4, -1);

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(f->len, 8);
	ck_assert_mem_eq(f->data, "headbody", 8);
	(void)frame_unref(f);
	f = frame_new_pair("head", 4, NULL, 0, -1);
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(f->len, 4);
	(void)frame_unref(f);
	ck_assert_ptr_null(frame_new_pair("x", SIZE_MAX, "y", 1, -1));
	ck_assert_ptr_null(frame_new("x", SIZE_MAX, -1));
}
END_TEST

START_TEST(descriptor_goes_with_the_last_reference)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct frame *f = frame_new("a", 1, fd);

	ck_assert_ptr_nonnull(f);
	(void)frame_ref(f);
	(void)frame_unref(f);
	ck_assert(is_open(fd));
	(void)frame_unref(f);
	ck_assert(!is_open(fd));
}
END_TEST

START_TEST(counted_while_it_lives)
{
	struct frame *f = frame_new("a", 1, -1);
	size_t count = 1;

	ck_assert_ptr_nonnull(f);
	f->counted = &count;
	(void)frame_ref(f);
	(void)frame_unref(f);
	ck_assert_uint_eq(count, 1);
	(void)frame_unref(f);
	ck_assert_uint_eq(count, 0);
}
END_TEST

/* Grown while it is wrapped around, the order stays. */
START_TEST(ring_keeps_order)
{
	struct frame **ring = NULL;
	size_t cap = 0, head = 0, count = 0, next_in = 0, next_out = 0;
	static char marks[1000];

	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 23; i++) {
			if (count == cap)
				ck_assert_int_eq(frame_ring_grow(&ring, &cap,
				                                 &head, count),
				                 0);
			ck_assert_uint_eq(cap & (cap - 1), 0);
			ring[(head + count++) & (cap - 1)] =
				(struct frame *)(void *)&marks[next_in++];
		}
		for (int i = 0; i < 11; i++) {
			ck_assert_ptr_eq((void *)ring[head],
			                 (void *)&marks[next_out++]);
			head = (head + 1) & (cap - 1);
			count--;
		}
	}
	ck_assert_uint_eq(count, 40 * 12);
	free(ring);
}
END_TEST

#define RING 128

static struct frame *ring[RING];

static void fill_ring(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		ring[i] = frame_new("ab", 2, -1);
		ck_assert_ptr_nonnull(ring[i]);
	}
}

static void empty_ring(size_t n)
{
	for (size_t i = 0; i < n; i++)
		ring[i] = frame_unref(ring[i]);
}

START_TEST(many_frames_in_one_call)
{
	int sv[2];

	ck_assert_int_eq(fd_socketpair(sv, 1), 0);
	fill_ring(RING);
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, 0, RING, 0),
	                 2 * FRAME_BATCH_MAX);
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, 100, 3, 1), 5);
	/* Around the end of the ring. */
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, RING - 1, 2, 0), 4);
	empty_ring(RING);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

START_TEST(frame_with_descriptor_goes_alone)
{
	int sv[2], fds[FD_PASS_MAX];
	size_t n;
	char got[64];

	ck_assert_int_eq(fd_socketpair(sv, 1), 0);
	fill_ring(5);
	ring[2]->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(ring[2]->fd, 0);
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, 0, 5, 0), 4);
	ck_assert_int_eq(fd_recv(sv[1], got, sizeof(got), fds, &n), 4);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, 2, 3, 0), 2);
	ck_assert_int_eq(fd_recv(sv[1], got, sizeof(got), fds, &n), 2);
	ck_assert_uint_eq(n, 1);
	(void)close(fds[0]);
	/* Its rest is bytes like any other. */
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, 2, 3, 1), 5);
	ck_assert_int_eq(fd_recv(sv[1], got, sizeof(got), fds, &n), 5);
	ck_assert_uint_eq(n, 0);
	(void)close(sv[1]);
	ck_assert_int_eq(frame_ring_send(sv[0], ring, RING, 0, 1, 0), -EPIPE);
	empty_ring(5);
	(void)close(sv[0]);
}
END_TEST

static Suite *frame_suite(void)
{
	Suite *s = suite_create("frame");
	TCase *t = tcase_create("frame");

	tcase_add_test(t, references);
	tcase_add_test(t, two_pieces);
	tcase_add_test(t, descriptor_goes_with_the_last_reference);
	tcase_add_test(t, counted_while_it_lives);
	tcase_add_test(t, ring_keeps_order);
	tcase_add_test(t, many_frames_in_one_call);
	tcase_add_test(t, frame_with_descriptor_goes_alone);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(frame_suite());
}
