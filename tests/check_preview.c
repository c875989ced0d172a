/*
 * check_preview.c - what a worker keeps of previews: sealed files of the length
 * that was told, a bounded number of them, none of them left open.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "ipc/message.h"
#include "tests/runner.h"
#include "workers/preview.h"

static struct preview preview;

static void setup(void)
{
	preview = (struct preview)PREVIEW_NULL;
}

static void teardown(void)
{
	preview_drop(&preview);
	preview_drop(&preview);
}

static int take(struct preview *p, const char *data, int fd)
{
	struct json j;

	ck_assert_int_eq(json_parse(&j, data, strlen(data), 0, NULL), JSON_OK);
	return preview_take(p, j, fd);
}

static int sealed(const char *text)
{
	int fd = fd_sealed("test", text, strlen(text));

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void assert_content(const struct preview *p, const char *text)
{
	struct buf b = BUF_INIT(100);

	ck_assert(preview_is(p));
	ck_assert_int_eq(preview_read(p, &b), 0);
	ck_assert_uint_eq(b.len, strlen(text));
	ck_assert_mem_eq(b.data, text, b.len);
	buf_deinit(&b);
}

START_TEST(test_latest)
{
	int one = sealed("one"), three = sealed("three");

	ck_assert(!preview_is(&preview));
	ck_assert_int_eq(
		take(&preview, "{\"bytes\":3,\"mime\":\"image/png\"}", one), 0);
	(void)close(one);
	assert_content(&preview, "one");
	ck_assert_str_eq(preview.mime, "image/png");
	one = preview.fd;
	ck_assert_int_eq(take(&preview, "{\"bytes\":5}", three), 0);
	(void)close(three);
	assert_content(&preview, "three");
	ck_assert_str_eq(preview.mime, "application/octet-stream");
	ck_assert_int_lt(fcntl(one, F_GETFD), 0);
	/* Reading doesn't move anything. */
	assert_content(&preview, "three");
}
END_TEST

#define SIXTY_TWO                                                              \
	"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

START_TEST(test_mime)
{
	static const char *const bad[] = {
		"{\"bytes\":1,\"mime\":\"image/png\\n\"}",
		"{\"bytes\":1,\"mime\":\"image\"}",
		"{\"bytes\":1,\"mime\":\"image/\\\"\"}",
		"{\"bytes\":1,\"mime\":7}",
		"{\"bytes\":1,\"mime\":\"a/" SIXTY_TWO "\"}",
	};
	int fd = sealed("x");

	ck_assert_int_eq(take(&preview, bad[_i], fd), 0);
	ck_assert_str_eq(preview.mime, "application/octet-stream");
	(void)close(fd);
}
END_TEST

/* What could shrink while it is read, or isn't what was told, is left alone;
 * what is kept stays. */
START_TEST(test_refused)
{
	int fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int good = sealed("good"), null, empty, p[2];

	ck_assert_int_eq(take(&preview, "{\"bytes\":4}", good), 0);
	ck_assert_int_eq(write(fd, "abc", 3), 3);
	ck_assert_int_eq(take(&preview, "{\"bytes\":3}", fd), -EPROTO);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	ck_assert_int_eq(take(&preview, "{\"bytes\":3}", fd), -EPROTO);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW),
	                 0);
	ck_assert_int_eq(take(&preview, "{\"bytes\":2}", fd), -EPROTO);
	ck_assert_int_eq(take(&preview, "{\"bytes\":4}", fd), -EPROTO);
	ck_assert_int_eq(take(&preview, "{\"bytes\":-3}", fd), -EPROTO);
	ck_assert_int_eq(take(&preview, "{}", fd), -EPROTO);
	empty = sealed("");
	ck_assert_int_eq(take(&preview, "{\"bytes\":0}", empty), -EPROTO);
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(take(&preview, "{\"bytes\":0}", null), -EPROTO);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(take(&preview, "{\"bytes\":1}", p[0]), -EPROTO);
	ck_assert_int_eq(take(&preview, "{\"bytes\":1}", -1), -EPROTO);
	assert_content(&preview, "good");
	ck_assert_int_eq(take(&preview, "{\"bytes\":3}", fd), 0);
	assert_content(&preview, "abc");
	(void)close(fd);
	(void)close(good);
	(void)close(empty);
	(void)close(null);
	(void)close(p[0]);
	(void)close(p[1]);
}
END_TEST

/* The longest, and one byte more. */
START_TEST(test_bytes_bound)
{
	static char data[PREVIEW_BYTES_MAX + 1];
	struct buf b = BUF_INIT(PREVIEW_BYTES_MAX);
	char told[64];
	int fd;

	for (size_t n = PREVIEW_BYTES_MAX; n <= PREVIEW_BYTES_MAX + 1; n++) {
		fd = fd_sealed("test", data, n);
		ck_assert_int_ge(fd, 0);
		(void)snprintf(told, sizeof(told), "{\"bytes\":%zu}", n);
		ck_assert_int_eq(take(&preview, told, fd),
		                 n <= PREVIEW_BYTES_MAX ? 0 : -EFBIG);
		(void)close(fd);
	}
	ck_assert_int_eq(preview_read(&preview, &b), 0);
	ck_assert_uint_eq(b.len, PREVIEW_BYTES_MAX);
	buf_deinit(&b);
}
END_TEST

/* As many as may be kept; one more takes another's place only. */
START_TEST(test_count_bound)
{
	static struct preview all[PREVIEWS_KEPT_MAX];
	int fd = sealed("x");

	for (size_t i = 0; i < PREVIEWS_KEPT_MAX; i++) {
		all[i].fd = -1;
		ck_assert_int_eq(take(&all[i], "{\"bytes\":1}", fd), 0);
	}
	ck_assert_int_eq(take(&preview, "{\"bytes\":1}", fd), -EMFILE);
	ck_assert(!preview_is(&preview));
	ck_assert_int_eq(take(&all[0], "{\"bytes\":1}", fd), 0);
	preview_move(&preview, &all[0]);
	ck_assert(!preview_is(&all[0]));
	ck_assert_int_eq(take(&all[0], "{\"bytes\":1}", fd), -EMFILE);
	preview_drop(&all[1]);
	ck_assert_int_eq(take(&all[0], "{\"bytes\":1}", fd), 0);
	preview_move(&all[2], &all[3]);
	ck_assert_int_eq(take(&all[1], "{\"bytes\":1}", fd), 0);
	for (size_t i = 0; i < PREVIEWS_KEPT_MAX; i++)
		preview_drop(&all[i]);
	(void)close(fd);
}
END_TEST

static Suite *preview_suite(void)
{
	Suite *s = suite_create("preview");
	TCase *t = tcase_create("preview");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_latest);
	tcase_add_loop_test(t, test_mime, 0, 5);
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_bytes_bound);
	tcase_add_test(t, test_count_bound);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(preview_suite());
}
