/*
 * runner.h - what every unit test program shares: running its suite, reading
 * test data, temporary directories.
 */
#ifndef TESTS_RUNNER_H
#define TESTS_RUNNER_H

#include <check.h>
#include <stddef.h>

/* Runs the suite and returns main's exit status. CK_FORK=no works (valgrind,
 * debugger). */
int runner_run(Suite *s);

/* How often to go round a long loop without waits: `n` times, or a twentieth of
 * that where all is some thirty times as slow (scripts/run-checks --valgrind),
 * and one round shows as much about memory as the next. So runner_times(1) is 0
 * there: what takes long once is left out. */
int runner_times(int n);

/* A file below tests/data (directory from TEST_DATA, default "tests/data"),
 * NUL-terminated, freed by the caller. Fails the test if it cannot be read. */
char *runner_read_data(const char *name, size_t *lenp);

/* The path of the same; a static buffer. */
const char *runner_data_path(const char *name);

/* A fresh directory below TMPDIR; a static buffer, removed with all its
 * content when the process ends. */
const char *runner_tmpdir(void);

#endif
