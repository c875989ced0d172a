/*
 * check_roles.c - the process table in the code and in ARCHITECTURE.md are the
 * same, and its numbers fit together.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fdutil.h"
#include "supervisor/roles.h"
#include "supervisor/supervisor.h"
#include "tests/runner.h"

START_TEST(test_architecture)
{
	char path[PATH_MAX];
	struct buf rows = BUF_INIT(1 << 20);
	char *text, *row, *save;
	size_t len;

	(void)snprintf(path, sizeof(path), "%s",
	               runner_data_path("../../ARCHITECTURE.md"));
	ck_assert_int_eq(fd_read_file(path, 1 << 20, &text, &len), 0);
	ck_assert_int_eq(roles_table(&rows), 0);
	ck_assert_ptr_nonnull(buf_cstr(&rows));
	for (row = strtok_r(rows.data, "\n", &save); row;
	     row = strtok_r(NULL, "\n", &save)) {
		ck_assert_msg(strstr(text, row),
		              "ARCHITECTURE.md lacks this row:\n%s", row);
	}
	free(text);
	buf_deinit(&rows);
}
END_TEST

/* An orderly stop kills what doesn't leave, and still sees it go. */
START_TEST(test_patience)
{
	const struct role_info *w = &roles[ROLE_WORKER];

	ck_assert_uint_lt(w->term_ms, SUPERVISOR_STOP_MS);
	ck_assert_uint_gt(w->ready_ms, w->term_ms);
	ck_assert_uint_gt(roles[ROLE_ZYGOTE].leave_ms, 0);
}
END_TEST

static Suite *roles_suite(void)
{
	Suite *s = suite_create("roles");
	TCase *t = tcase_create("all");

	tcase_add_test(t, test_architecture);
	tcase_add_test(t, test_patience);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(roles_suite());
}
