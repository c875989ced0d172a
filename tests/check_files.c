/*
 * check_files.c - files written as the user, whole or not at all.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "tests/runner.h"
#include "workers/front/files.h"

static char dir[512];
static struct files files;

static void setup(void)
{
	static int number;

	(void)snprintf(dir, sizeof(dir), "%s/%d-%d", runner_tmpdir(),
	               (int)getpid(), number++);
	ck_assert_int_eq(mkdir(dir, 0777), 0);
	files_init(&files);
}

static void teardown(void)
{
	files_deinit(&files);
	files_deinit(&files);
}

static const char *in_dir(const char *name)
{
	static char path[1024];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static size_t entries(void)
{
	char cmd[700];
	FILE *p;
	size_t n = 0;

	(void)snprintf(cmd, sizeof(cmd), "ls -A %s", dir);
	p = popen(cmd, "r");
	ck_assert_ptr_nonnull(p);
	while (fgets(cmd, sizeof(cmd), p))
		n++;
	(void)pclose(p);
	return n;
}

static void write_all(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

START_TEST(test_commit_renames)
{
	struct error err;
	struct stat st;
	char *path = NULL;
	int fd;

	(void)umask(027);
	ck_assert_int_eq(files_create(&files, 1, in_dir("a.png"), "x.png",
	                              false, &fd, &err),
	                 0);
	write_all(fd, "hello");
	ck_assert_int_ne(access(in_dir("a.png"), F_OK), 0);
	ck_assert_int_eq(files_commit(&files, 1, &path, &err), 0);
	ck_assert_str_eq(path, in_dir("a.png"));
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 5);
	ck_assert_uint_eq(st.st_mode & 0777, 0640);
	ck_assert_uint_eq(entries(), 1);
	free(path);
}
END_TEST

START_TEST(test_drop_leaves_nothing)
{
	struct error err;
	int fd;

	ck_assert_int_eq(
		files_create(&files, 1, in_dir("a"), "a", false, &fd, &err), 0);
	write_all(fd, "half");
	files_drop(&files, 1);
	files_drop(&files, 1);
	ck_assert_uint_eq(entries(), 0);
}
END_TEST

START_TEST(test_directory_keeps_the_name_only)
{
	static const struct {
		const char *name, *lands;
	} table[] = {
		{"out.png", "out.png"},
		{"../../etc/passwd", "passwd"},
		{"/abs/olute.png", "olute.png"},
		{"..", NULL},
		{"a/..", NULL},
		{"", NULL},
		{"dir/", NULL},
	};
	struct error err;
	char *path;
	int fd, r;

	r = files_create(&files, 1, dir, table[_i].name, false, &fd, &err);
	if (!table[_i].lands) {
		ck_assert_int_eq(r, -1);
		ck_assert_int_eq(err.code, ERR_INVALID);
		ck_assert_uint_eq(entries(), 0);
		return;
	}
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(files_commit(&files, 1, &path, &err), 0);
	ck_assert_str_eq(path, in_dir(table[_i].lands));
	free(path);
}
END_TEST

START_TEST(test_existing_file)
{
	struct error err;
	char *path, text[8] = "";
	int fd;

	fd = open(in_dir("a"), O_CREAT | O_WRONLY, 0644);
	write_all(fd, "old");
	(void)close(fd);
	ck_assert_int_eq(
		files_create(&files, 1, in_dir("a"), "a", false, &fd, &err),
		-1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(err.text, in_dir("a")));
	ck_assert_int_eq(
		files_create(&files, 1, in_dir("a"), "a", true, &fd, &err), 0);
	write_all(fd, "new");
	ck_assert_int_eq(files_commit(&files, 1, &path, &err), 0);
	free(path);
	fd = open(in_dir("a"), O_RDONLY);
	ck_assert_int_eq(read(fd, text, 7), 3);
	ck_assert_str_eq(text, "new");
	(void)close(fd);
}
END_TEST

/* The name may be taken while the bytes come in. */
START_TEST(test_name_taken_meanwhile)
{
	struct error err;
	char *path;
	int fd, other;

	ck_assert_int_eq(
		files_create(&files, 1, in_dir("a"), "a", false, &fd, &err), 0);
	other = open(in_dir("a"), O_CREAT | O_EXCL | O_WRONLY, 0644);
	ck_assert_int_ge(other, 0);
	(void)close(other);
	ck_assert_int_eq(files_commit(&files, 1, &path, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, in_dir("a")));
	ck_assert_uint_eq(entries(), 1);
}
END_TEST

START_TEST(test_bound)
{
	struct error err;
	char name[32];
	int fd;

	for (uint64_t i = 0; i < FILES_OPEN_MAX; i++) {
		(void)snprintf(name, sizeof(name), "f%d", (int)i);
		ck_assert_int_eq(files_create(&files, i, in_dir(name), name,
		                              false, &fd, &err),
		                 0);
	}
	ck_assert_int_eq(files_create(&files, 999, in_dir("one-more"), "x",
	                              false, &fd, &err),
	                 -1);
	ck_assert_int_eq(err.code, ERR_LIMIT);
	files_drop(&files, 0);
	ck_assert_int_eq(files_create(&files, 1, in_dir("same-token"), "x",
	                              false, &fd, &err),
	                 -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
}
END_TEST

START_TEST(test_missing_directory)
{
	struct error err;
	int fd;

	ck_assert_int_eq(files_create(&files, 1, in_dir("no/such/a"), "a",
	                              false, &fd, &err),
	                 -1);
	ck_assert_ptr_nonnull(strstr(err.text, "no/such/a"));
}
END_TEST

START_TEST(test_replace)
{
	struct error err = ERROR_NULL;
	char path[1024], *data = NULL;
	mode_t mask = umask(027);
	struct stat st;
	size_t len;

	(void)snprintf(path, sizeof(path), "%s", in_dir("p"));
	ck_assert_int_eq(files_replace(path, SPAN("one"), &err), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	ck_assert_int_eq(files_replace(path, SPAN("three"), &err), 0);
	(void)umask(mask);
	ck_assert_int_eq(fd_read_file(path, 100, &data, &len), 0);
	ck_assert_str_eq(data, "three");
	free(data);
	ck_assert_uint_eq(entries(), 1);
	/* Nothing but a file is replaced, wherever it leads. */
	ck_assert_int_eq(symlink(path, in_dir("link")), 0);
	ck_assert_int_eq(mkfifo(in_dir("fifo"), 0600), 0);
	ck_assert_int_lt(files_replace(in_dir("link"), SPAN("x"), &err), 0);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_int_lt(files_replace(in_dir("fifo"), SPAN("x"), &err), 0);
	ck_assert_int_lt(files_replace(dir, SPAN("x"), &err), 0);
	ck_assert_int_lt(files_replace(in_dir("no/p"), SPAN("x"), &err), 0);
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	ck_assert_uint_eq(entries(), 3);
}
END_TEST

static Suite *files_suite(void)
{
	Suite *s = suite_create("files");
	TCase *t = tcase_create("files");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_commit_renames);
	tcase_add_test(t, test_drop_leaves_nothing);
	tcase_add_loop_test(t, test_directory_keeps_the_name_only, 0, 7);
	tcase_add_test(t, test_existing_file);
	tcase_add_test(t, test_name_taken_meanwhile);
	tcase_add_test(t, test_bound);
	tcase_add_test(t, test_missing_directory);
	tcase_add_test(t, test_replace);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(files_suite());
}
