/*
 * runner.c - see runner.h.
 */
#include "tests/runner.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char tmpdir[PATH_MAX];
static pid_t tmpdir_owner;

int runner_run(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

const char *runner_data_path(const char *name)
{
	static char path[PATH_MAX];
	const char *dir = getenv("TEST_DATA");

	ck_assert_int_lt(snprintf(path, sizeof(path), "%s/%s",
	                          dir ? dir : "tests/data", name),
	                 (int)sizeof(path));
	return path;
}

char *runner_read_data(const char *name, size_t *lenp)
{
	const char *path = runner_data_path(name);
	FILE *f = fopen(path, "rb");
	char *data;
	long size;

	ck_assert_msg(f != NULL, "cannot open %s", path);
	ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
	size = ftell(f);
	ck_assert_int_ge(size, 0);
	rewind(f);
	data = malloc((size_t)size + 1);
	ck_assert_ptr_nonnull(data);
	ck_assert_uint_eq(fread(data, 1, (size_t)size, f), (size_t)size);
	data[size] = '\0';
	(void)fclose(f);
	if (lenp)
		*lenp = (size_t)size;
	return data;
}

static int remove_one(const char *path, const struct stat *st, int flag,
                      struct FTW *ftw)
{
	return remove(path);
}

static void remove_tmpdir(void)
{
	/* check's forked children leave it to the process that made it. */
	if (getpid() == tmpdir_owner)
		(void)nftw(tmpdir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int runner_times(int n)
{
	return getenv("TEST_SLOW") ? n / 20 : n;
}

const char *runner_tmpdir(void)
{
	const char *base = getenv("TMPDIR");

	if (tmpdir_owner == getpid())
		return tmpdir;
	ck_assert_int_lt(snprintf(tmpdir, sizeof(tmpdir), "%s/comfymux.XXXXXX",
	                          base ? base : "/tmp"),
	                 (int)sizeof(tmpdir));
	ck_assert_ptr_nonnull(mkdtemp(tmpdir));
	tmpdir_owner = getpid();
	ck_assert_int_eq(atexit(remove_tmpdir), 0);
	return tmpdir;
}
