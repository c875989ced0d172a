/*
 * check_options.c - the command line of comfymuxd.
 */
#include <string.h>
#include <unistd.h>

#include "common/macros.h"
#include "supervisor/options.h"
#include "tests/runner.h"

#define ARGS_MAX 8

static struct options o;
static struct error err;

/* Splits at spaces. */
static int parse(const char *line)
{
	static char text[512], name[] = "comfymuxd";
	char *argv[ARGS_MAX + 1] = {name}, *save = NULL, *arg;
	int argc = 1;

	err = (struct error)ERROR_NULL;
	ck_assert_uint_lt(strlen(line), sizeof(text));
	memcpy(text, line, strlen(line) + 1);
	for (arg = strtok_r(text, " ", &save); arg;
	     arg = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, ARGS_MAX);
		argv[argc++] = arg;
	}
	return options_parse(&o, argc, argv, &err);
}

static const char *flag(const char *key)
{
	struct config_sources s = options_sources(&o);

	for (size_t i = 0; i < s.flag_count; i++) {
		if (strcmp(s.flags[i].key, key) == 0)
			return s.flags[i].value;
	}
	return "";
}

START_TEST(test_nothing)
{
	ck_assert_int_eq(parse(""), 0);
	ck_assert_int_eq(o.action, OPTIONS_RUN);
	ck_assert_int_eq(o.ready_fd, -1);
	ck_assert(!o.autostarted);
	ck_assert_uint_eq(options_sources(&o).flag_count, 0);
	ck_assert(options_sources(&o).daemon);
	ck_assert_ptr_null(options_sources(&o).file);
}
END_TEST

START_TEST(test_background)
{
	ck_assert_int_eq(parse("--daemon --pidfile /p"), 0);
	ck_assert(o.daemon && !o.guarded);
	ck_assert_str_eq(o.pidfile, "/p");
	ck_assert_int_eq(parse("--daemon --pidfile=/q"), 0);
	ck_assert_str_eq(o.pidfile, "/q");
	ck_assert_int_eq(parse("--guarded --ready-fd 0"), 0);
	ck_assert(o.guarded && !o.daemon);
	ck_assert_int_eq(o.ready_fd, 0);
	ck_assert(!o.for_system);
	ck_assert_int_eq(parse("--guarded=system"), 0);
	ck_assert(o.guarded && o.system);
	ck_assert_int_eq(parse("--guarded=system --autostarted"), 0);
	ck_assert(!o.system);
	ck_assert_int_eq(parse("--guarded=x"), -1);
}
END_TEST

START_TEST(test_values)
{
	ck_assert_int_eq(parse("--comfyui http://x:1 --socket=/s --state-dir "
	                       "/d --config=/c"),
	                 0);
	ck_assert_str_eq(flag("comfyui"), "http://x:1");
	ck_assert_str_eq(flag("socket"), "/s");
	ck_assert_str_eq(flag("state_dir"), "/d");
	ck_assert_str_eq(options_sources(&o).file, "/c");
}
END_TEST

START_TEST(test_the_last_one_counts)
{
	ck_assert_int_eq(parse("--socket /a --socket /b --socket=/c"), 0);
	ck_assert_str_eq(flag("socket"), "/c");
	ck_assert_uint_eq(options_sources(&o).flag_count, 1);
}
END_TEST

START_TEST(test_switches)
{
	ck_assert_int_eq(parse("--autostarted --check-config"), 0);
	ck_assert(o.autostarted);
	ck_assert_int_eq(o.action, OPTIONS_CHECK_CONFIG);
	ck_assert_int_eq(parse("--help --nonsense"), 0);
	ck_assert_int_eq(o.action, OPTIONS_HELP);
	ck_assert_int_eq(parse("--version"), 0);
	ck_assert_int_eq(o.action, OPTIONS_VERSION);
	ck_assert_int_eq(parse("--ready-fd 0"), 0);
	ck_assert_int_eq(o.ready_fd, 0);
	ck_assert_int_eq(parse("--log-level debug"), 0);
	ck_assert_str_eq(flag("log_level"), "debug");
}
END_TEST

static const char *const bad[] = {
	"--nonsense",
	"nonsense",
	"--socket",
	"--sockets /x",
	"--config",
	"--ready-fd",
	"--ready-fd x",
	"--ready-fd -1",
	"--ready-fd 3x",
	"--ready-fd 999",
	"--pidfile",
	"--pidfile /p",
	"--daemon --ready-fd 0",
	"--ready-fd 99999999999999999999",
	"--autostarted=1",
	"-x",
	"--check-config=yes",
};

START_TEST(test_bad)
{
	ck_assert_msg(parse(bad[_i]) == -1, "%s", bad[_i]);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_uint_gt(strlen(err.text), 10);
}
END_TEST

/* Each option that is taken is explained. */
START_TEST(test_help_is_complete)
{
	static const char *const all[] = {
		"--comfyui", "--socket",      "--state-dir",   "--config",
		"--version", "--log-level",   "--autostarted", "--ready-fd",
		"--help",    "--check-config"};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		ck_assert_ptr_nonnull(strstr(options_help, all[i]));
}
END_TEST

static Suite *options_suite(void)
{
	Suite *s = suite_create("options");
	TCase *t = tcase_create("all");

	tcase_add_test(t, test_nothing);
	tcase_add_test(t, test_background);
	tcase_add_test(t, test_values);
	tcase_add_test(t, test_the_last_one_counts);
	tcase_add_test(t, test_switches);
	tcase_add_loop_test(t, test_bad, 0, (int)ARRAY_SIZE(bad));
	tcase_add_test(t, test_help_is_complete);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(options_suite());
}
