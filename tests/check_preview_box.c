/*
 * check_preview_box.c - the previews of one client: one open, the latest of the
 * others waits; what is held is counted and let go of.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/preview_box.h"
#include "tests/runner.h"

#define ANN "00000000-0000-4000-8000-00000000000a"
#define BOB "00000000-0000-4000-8000-00000000000b"

static struct preview_box box;
static size_t held, open_files;

static void setup(void)
{
	held = open_files = 0;
	preview_box_init(&box, &held);
}

static void teardown(void)
{
	preview_box_deinit(&box);
	preview_box_deinit(&box);
	ck_assert_uint_eq(held, 0);
	ck_assert_uint_eq(open_files, 0);
}

static enum preview_fate offer(const char *text, const char *id)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct frame *f = frame_new(text, strlen(text), fd);
	enum preview_fate fate;

	ck_assert_int_ge(fd, 0);
	ck_assert_ptr_nonnull(f);
	f->counted = &open_files;
	open_files++;
	fate = preview_box_offer(&box, f, id);
	(void)frame_unref(f);
	return fate;
}

static void assert_frame(const struct frame *f, const char *text)
{
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(f->len, strlen(text));
	ck_assert_mem_eq(f->data, text, f->len);
}

START_TEST(test_one_at_a_time)
{
	ck_assert_ptr_null(preview_box_pop(&box));
	ck_assert_int_eq(offer("1", ANN), PREVIEW_TAKEN);
	assert_frame(preview_box_pop(&box), "1");
	ck_assert_ptr_null(preview_box_pop(&box));
	ck_assert_int_eq(offer("2", ANN), PREVIEW_TAKEN);
	ck_assert_ptr_null(preview_box_pop(&box));
	ck_assert_uint_eq(held, 2);
	preview_box_ack(&box);
	assert_frame(preview_box_pop(&box), "2");
	ck_assert_uint_eq(held, 2);
}
END_TEST

START_TEST(test_latest_wins)
{
	ck_assert_int_eq(offer("1", ANN), PREVIEW_TAKEN);
	assert_frame(preview_box_pop(&box), "1");
	ck_assert_int_eq(offer("2", ANN), PREVIEW_TAKEN);
	ck_assert_int_eq(offer("3", BOB), PREVIEW_FOLDED);
	ck_assert_int_eq(offer("4", ANN), PREVIEW_FOLDED);
	ck_assert_uint_eq(held, 2);
	ck_assert_uint_eq(open_files, 2);
	preview_box_ack(&box);
	assert_frame(preview_box_pop(&box), "4");
}
END_TEST

/* Acknowledging is not reading: what may lie in the socket stays counted, and
 * past the bound nothing more goes there. A few places are left for the last
 * ones of prompts. */
START_TEST(test_unread)
{
	size_t i;

	for (i = 0; i < PREVIEW_PACED_MAX; i++) {
		ck_assert_int_eq(offer("x", ANN), PREVIEW_TAKEN);
		ck_assert_ptr_nonnull(preview_box_pop(&box));
		preview_box_ack(&box);
		ck_assert_uint_eq(held, i + 1);
	}
	for (; i < PREVIEW_UNREAD_MAX; i++) {
		ck_assert_int_eq(offer("z", BOB), PREVIEW_TAKEN);
		ck_assert_ptr_null(preview_box_pop(&box));
		ck_assert_ptr_nonnull(preview_box_last(&box, BOB));
		ck_assert_uint_eq(held, i + 1);
	}
	while (box.unacked > 0)
		preview_box_ack(&box);
	ck_assert_int_eq(offer("y", ANN), PREVIEW_TAKEN);
	ck_assert_ptr_null(preview_box_pop(&box));
	ck_assert_ptr_null(preview_box_last(&box, ANN));
	ck_assert_uint_eq(open_files, PREVIEW_UNREAD_MAX + 1);
	preview_box_read(&box);
	ck_assert_uint_eq(open_files, 1);
	ck_assert_uint_eq(held, 1);
	assert_frame(preview_box_pop(&box), "y");
}
END_TEST

/* Acknowledging what was never sent brings nothing forward. */
START_TEST(test_ack_of_nothing)
{
	preview_box_ack(&box);
	preview_box_ack(&box);
	ck_assert_int_eq(offer("1", ANN), PREVIEW_TAKEN);
	assert_frame(preview_box_pop(&box), "1");
	ck_assert_int_eq(offer("2", ANN), PREVIEW_TAKEN);
	ck_assert_ptr_null(preview_box_pop(&box));
}
END_TEST

/* The edge of what a user may hold: one more is refused, the next one that
 * only takes another's place isn't. */
START_TEST(test_user_bound)
{
	held = PREVIEWS_USER_MAX - 1;
	ck_assert_int_eq(offer("1", ANN), PREVIEW_TAKEN);
	ck_assert_uint_eq(held, PREVIEWS_USER_MAX);
	ck_assert_int_eq(offer("2", ANN), PREVIEW_FOLDED);
	assert_frame(preview_box_pop(&box), "2");
	ck_assert_int_eq(offer("3", ANN), PREVIEW_REFUSED);
	ck_assert_uint_eq(open_files, 1);
	preview_box_read(&box);
	preview_box_ack(&box);
	ck_assert_uint_eq(held, PREVIEWS_USER_MAX - 1);
	ck_assert_int_eq(offer("4", ANN), PREVIEW_TAKEN);
	ck_assert(preview_box_forget(&box, NULL));
	ck_assert_uint_eq(held, PREVIEWS_USER_MAX - 1);
	held = 0;
}
END_TEST

START_TEST(test_last)
{
	ck_assert_int_eq(offer("1", ANN), PREVIEW_TAKEN);
	assert_frame(preview_box_pop(&box), "1");
	ck_assert_int_eq(offer("2", ANN), PREVIEW_TAKEN);
	ck_assert_ptr_null(preview_box_last(&box, BOB));
	assert_frame(preview_box_last(&box, ANN), "2");
	ck_assert_ptr_null(preview_box_last(&box, ANN));
	/* Both are open. */
	ck_assert_int_eq(offer("3", BOB), PREVIEW_TAKEN);
	preview_box_ack(&box);
	ck_assert_ptr_null(preview_box_pop(&box));
	preview_box_ack(&box);
	assert_frame(preview_box_pop(&box), "3");
}
END_TEST

START_TEST(test_forget)
{
	ck_assert_int_eq(offer("1", ANN), PREVIEW_TAKEN);
	assert_frame(preview_box_pop(&box), "1");
	ck_assert_int_eq(offer("2", ANN), PREVIEW_TAKEN);
	ck_assert(!preview_box_forget(&box, BOB));
	ck_assert_uint_eq(open_files, 2);
	ck_assert(preview_box_forget(&box, ANN));
	ck_assert_uint_eq(open_files, 1);
	preview_box_ack(&box);
	ck_assert_ptr_null(preview_box_pop(&box));
}
END_TEST

static Suite *preview_box_suite(void)
{
	Suite *s = suite_create("preview_box");
	TCase *t = tcase_create("preview_box");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_one_at_a_time);
	tcase_add_test(t, test_latest_wins);
	tcase_add_test(t, test_unread);
	tcase_add_test(t, test_ack_of_nothing);
	tcase_add_test(t, test_user_bound);
	tcase_add_test(t, test_last);
	tcase_add_test(t, test_forget);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(preview_box_suite());
}
