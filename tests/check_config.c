/*
 * check_config.c - the configuration: precedence, bounds of every key, what a
 * mistake is called, where things are when nobody names them.
 *
 * With UPDATE=1 in the environment, etc/comfymux.conf is written afresh
 * instead of being compared.
 */
#include "common/config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "tests/runner.h"

static char home[PATH_MAX];

static void make_dir(const char *path)
{
	ck_assert_msg(mkdir(path, 0700) == 0 || errno == EEXIST, "%s", path);
}

static const char *below(const char *dir, const char *name)
{
	static char path[PATH_MAX];

	ck_assert_int_lt(snprintf(path, sizeof(path), "%s/%s", dir, name),
	                 (int)sizeof(path));
	return path;
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

/* A home of its own, and nothing else in the environment that counts. */
static void setup(void)
{
	(void)snprintf(home, sizeof(home), "%s", runner_tmpdir());
	make_dir(below(home, ".config"));
	make_dir(below(home, ".config/comfymux"));
	(void)unlink(below(home, ".config/comfymux/comfymux.conf"));
	ck_assert_int_eq(setenv("HOME", home, 1), 0);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("XDG_STATE_HOME");
	unsetenv("COMFYUI_HOST");
	unsetenv("COMFYMUX_SOCKET");
}

static int load(struct config *c, const char *file,
                const struct config_flag *flags, size_t n, struct error *err)
{
	struct config_sources src = {
		.file = file, .flags = flags, .flag_count = n};

	return config_load(c, &src, err);
}

static int parse(struct config *c, const char *text, struct error *err)
{
	ck_assert_int_eq(config_init(c, NULL), 0);
	return config_parse(c, text, strlen(text), "test.conf", err);
}

START_TEST(defaults)
{
	struct config c;

	ck_assert_int_eq(config_init(&c, NULL), 0);
	ck_assert_str_eq(c.comfyui, "http://127.0.0.1:8188");
	ck_assert_int_eq(c.request_timeout_ms, 30000);
	ck_assert(c.autostart);
	ck_assert_str_eq(c.ca_file, "");
	ck_assert_str_eq(c.state_dir, below(home, ".local/state/comfymux"));
	ck_assert_int_eq(config_origin_of(&c, "comfyui"), CONFIG_DEFAULT);
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		const struct config_key_info *k = &config_keys[i];

		ck_assert_msg(k->kind == CONFIG_STRING ||
		                      (k->def >= k->min && k->def <= k->max),
		              "%s", k->name);
	}
	config_deinit(&c);
	config_deinit(&c);
}
END_TEST

START_TEST(parses_each_kind)
{
	struct config c;
	struct error err = ERROR_NULL;
	int r = parse(&c,
	              "\xef\xbb\xbf# a comment\n"
	              "; another\n"
	              "\n"
	              "comfyui = https://gpu/comfy/   ; and why\r\n"
	              "[comfymux] # section\n"
	              "    autostart=No\n"
	              "\tretain_s : 60\n"
	              "socket_mode = 0660\n"
	              "log_level=debug\n"
	              "ca_file =\n"
	              "operator_group = a b",
	              &err);

	ck_assert_msg(r == 0, "%s", err.text);
	ck_assert_str_eq(c.comfyui, "https://gpu/comfy/");
	ck_assert(!c.autostart);
	ck_assert_int_eq(c.retain_s, 60);
	ck_assert_int_eq(c.socket_mode, 0660);
	ck_assert_str_eq(c.log_level, "debug");
	ck_assert_str_eq(c.ca_file, "");
	ck_assert_str_eq(c.operator_group, "a b");
	ck_assert_int_eq(config_origin_of(&c, "retain_s"), CONFIG_FILE);
	ck_assert_str_eq(config_file_of(&c, "retain_s"), "test.conf");
	ck_assert_int_eq(config_origin_of(&c, "idle_exit_s"), CONFIG_DEFAULT);
	ck_assert_ptr_null(config_file_of(&c, "idle_exit_s"));
	ck_assert_int_eq(config_origin_of(&c, "nonsense"), CONFIG_DEFAULT);
	config_deinit(&c);
}
END_TEST

static const struct {
	const char *text, *message; /* both ends of the message are compared */
} mistakes[] = {
	{"comfyu = x", "test.conf:1: unknown key \"comfyu\"; did you mean "
                       "\"comfyui\"?"},
	{"\n\nretain-s=60", "test.conf:3: unknown key \"retain-s\"; did you "
                            "mean \"retain_s\"?"},
	{"frobnicate=1", "test.conf:1: unknown key \"frobnicate\""},
	{"[comfyui]", "test.conf:1: unknown section [comfyui]"},
	{"[comfymux", "test.conf:1: unknown section [comfymux"},
	{"[comfymux] retain_s=60", "test.conf:1: unknown section"},
	{"[ comfymux ]", "test.conf:1: unknown section"},
	{"retain_s=60\n\n[comfymux]\nretain_s=70",
         "test.conf:4: key \"retain_s\" is given a second time"},
	{"retain_s=60\n  retain_s=70", "test.conf:2: key \"retain_s\""},
	{"retain_s=60\njust words\nfrobnicate=1",
         "test.conf:2: not of the form key = value"},
	{"frobnicate=1\njust words", "test.conf:1: unknown key"},
	{"= 1", "test.conf:1: unknown key \"\""},
	{"retain_s = 59", "test.conf:1: retain_s: 59 is out of range (60 to "
                          "31536000)"},
	{"retain_s = 31536001", "test.conf:1: retain_s: 31536001 is out of"},
	{"retain_s = 99999999999999999999", "test.conf:1: retain_s: 999"},
	{"retain_s = -60", "test.conf:1: retain_s: -60 is out of range"},
	{"retain_s = 60s", "test.conf:1: retain_s: \"60s\" is not a number"},
	{"retain_s = +60", "test.conf:1: retain_s: \"+60\" is not a number"},
	{"retain_s = 0x60", "test.conf:1: retain_s: \"0x60\" is not a number"},
	{"retain_s = 1e3", "test.conf:1: retain_s: \"1e3\" is not a number"},
	{"retain_s =", "test.conf:1: retain_s: \"\" is not a number"},
	{"retain_s = -", "test.conf:1: retain_s: \"-\" is not a number"},
	{"socket_mode = 0668", "test.conf:1: socket_mode: \"0668\" is not an "
                               "octal number"},
	{"socket_mode = 01000", "test.conf:1: socket_mode: 01000 is out of "
                                "range (00 to 0777)"},
	{"autostart = maybe", "test.conf:1: autostart: \"maybe\" is not yes"},
	{"autostart =", "test.conf:1: autostart: \"\" is not yes or no"},
	{"log_level = trace", "test.conf:1: log_level: \"trace\" is not one "
                              "of error, warn, info, debug"},
	{"cancel_policy = maybe", "test.conf:1: cancel_policy: \"maybe\" is "
                                  "not one of auto, detach, interrupt"},
	{"default_wait_s = 0", "test.conf:1: default_wait_s: 0 is out of "
                               "range (1 to 3600)"},
	{"default_wait_s = 3601", "test.conf:1: default_wait_s: 3601 is out of "
                                  "range (1 to 3600)"},
	{"log_to = file", "test.conf:1: log_to: \"file\" is not stderr, "},
	{"comfyui = ftp://x", "test.conf:1: comfyui: URL \"ftp://x\": unknown"},
	{"comfyui =", "test.conf:1: comfyui: URL is empty"},
	{"socket =", "test.conf:1: socket: path is empty"},
	{"state_dir =", "test.conf:1: state_dir: path is empty"},
	{"socket = a.sock", "test.conf:1: socket: \"a.sock\" is not an "
                            "absolute path"},
	{"state_dir = ~/x", "test.conf:1: state_dir: \"~/x\" is not an "
                            "absolute path"},
	{"proxy = a\x01z", "test.conf:1: proxy: "},
};

START_TEST(names_mistakes)
{
	const char *want = mistakes[_i].message;
	struct config c;
	struct error err = ERROR_NULL;

	ck_assert_msg(parse(&c, mistakes[_i].text, &err) == -1, "accepted: %s",
	              mistakes[_i].text);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_msg(strncmp(err.text, want, strlen(want)) == 0,
	              "\"%s\" is not \"%s\"", err.text, want);
	config_deinit(&c);
}
END_TEST

/* Whether "key = value" is accepted; if so the value is what was meant. */
static bool accepts(const struct config_key_info *k, long long value)
{
	char text[128];
	struct config c;
	bool ok;

	if (strcmp(k->unit, "octal") == 0 && value >= 0)
		(void)snprintf(text, sizeof(text), "%s = %llo", k->name,
		               (unsigned long long)value);
	else
		(void)snprintf(text, sizeof(text), "%s = %lld", k->name, value);
	ok = parse(&c, text, NULL) == 0;
	if (ok)
		ck_assert_int_eq(*(int64_t *)(void *)((char *)&c + k->offset),
		                 value);
	config_deinit(&c);
	return ok;
}

/* Every number at its edges, and one step beyond them. */
START_TEST(bounds_of_each_number)
{
	const struct config_key_info *k = &config_keys[_i];

	if (k->kind != CONFIG_INT)
		return;
	ck_assert(accepts(k, k->min));
	ck_assert(accepts(k, k->max));
	ck_assert(!accepts(k, k->min - 1));
	ck_assert(!accepts(k, k->max + 1));
}
END_TEST

START_TEST(long_lines_and_files)
{
	char *text = malloc(CONFIG_FILE_MAX + 2);
	struct config c;
	struct error err = ERROR_NULL;

	ck_assert_ptr_nonnull(text);
	/* A value as long as the line allows arrives whole. */
	memset(text, 'x', CONFIG_LINE_MAX + 2);
	memcpy(text, "proxy=", 6);
	memcpy(text + CONFIG_LINE_MAX, "\nretain_s=60", 13);
	ck_assert_msg(parse(&c, text, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(strlen(c.proxy), CONFIG_LINE_MAX - 6);
	ck_assert_int_eq(c.retain_s, 60);
	config_deinit(&c);

	memset(text, 'x', CONFIG_LINE_MAX + 2);
	memcpy(text, "\nproxy=", 7);
	text[CONFIG_LINE_MAX + 2] = '\0';
	ck_assert_int_eq(parse(&c, text, &err), -1);
	ck_assert_str_eq(err.text,
	                 "test.conf:2: line of 4097 bytes is too long "
	                 "(at most 4096)");
	config_deinit(&c);

	memset(text, '\n', CONFIG_FILE_MAX + 1);
	text[CONFIG_FILE_MAX] = '\0';
	ck_assert_int_eq(parse(&c, text, &err), 0);
	config_deinit(&c);
	text[CONFIG_FILE_MAX] = '\n';
	text[CONFIG_FILE_MAX + 1] = '\0';
	ck_assert_int_eq(parse(&c, text, &err), -1);
	ck_assert(strstr(err.text, "larger than 262144 bytes"));
	config_deinit(&c);

	ck_assert_int_eq(config_init(&c, NULL), 0);
	ck_assert_int_eq(config_parse(&c, "a\0b", 3, "bin", &err), -1);
	ck_assert(strstr(err.text, "bin: file holds a NUL byte"));
	config_deinit(&c);
	free(text);
}
END_TEST

START_TEST(socket_path_bound)
{
	char text[256] = "socket=/", *path = text + strlen("socket=");
	struct config c;
	struct error err = ERROR_NULL;
	const char *candidate;

	memset(path + 1, 's', CONFIG_SOCKET_PATH_MAX - 1);
	ck_assert_int_eq(parse(&c, text, &err), 0);
	ck_assert_str_eq(c.socket, path);
	config_deinit(&c);
	path[CONFIG_SOCKET_PATH_MAX] = 's';
	ck_assert_int_eq(parse(&c, text, &err), -1);
	ck_assert(strstr(err.text, "108 bytes is longer than the 107"));
	ck_assert(strstr(err.text, path));
	config_deinit(&c);

	/* One that nobody could serve is no candidate, and no error. */
	path[CONFIG_SOCKET_PATH_MAX - 9] = '\0';
	ck_assert_int_eq(setenv("XDG_STATE_HOME", path, 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), 0);
	for (size_t i = 0;
	     (candidate = config_socket_candidate(&c, i, NULL)) != NULL; i++)
		ck_assert(!strstr(candidate, path));
	config_deinit(&c);
}
END_TEST

START_TEST(precedence)
{
	const struct config_flag flags[] = {
		{"comfyui", "http://flag"},
		{"socket", "/flag.sock"},
	};
	char own[PATH_MAX];
	struct config c;
	struct error err = ERROR_NULL;

	(void)snprintf(own, sizeof(own), "%s",
	               below(home, ".config/comfymux/comfymux.conf"));
	write_text(own, "comfyui = http://file\nsocket=/file.sock\n");
	ck_assert_msg(load(&c, NULL, NULL, 0, &err) == 0, "%s", err.text);
	ck_assert_str_eq(c.comfyui, "http://file");
	ck_assert_int_eq(config_origin_of(&c, "comfyui"), CONFIG_FILE);
	ck_assert_str_eq(config_file_of(&c, "comfyui"), own);
	config_deinit(&c);

	/* Empty counts as unset. */
	ck_assert_int_eq(setenv("COMFYUI_HOST", "", 1), 0);
	ck_assert_int_eq(setenv("COMFYMUX_SOCKET", "/env.sock", 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), 0);
	ck_assert_str_eq(c.comfyui, "http://file");
	ck_assert_str_eq(c.socket, "/env.sock");
	ck_assert_int_eq(config_origin_of(&c, "socket"), CONFIG_ENV);
	config_deinit(&c);

	ck_assert_int_eq(setenv("COMFYUI_HOST", "env:1", 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), 0);
	ck_assert_str_eq(c.comfyui, "env:1");
	config_deinit(&c);
	ck_assert_int_eq(load(&c, NULL, flags, ARRAY_SIZE(flags), &err), 0);
	ck_assert_str_eq(c.comfyui, "http://flag");
	ck_assert_str_eq(c.socket, "/flag.sock");
	ck_assert_int_eq(config_origin_of(&c, "socket"), CONFIG_FLAG);
	config_deinit(&c);
}
END_TEST

START_TEST(files)
{
	char path[PATH_MAX];
	struct config c;
	struct error err = ERROR_NULL;

	/* A file that is named has to be there, and is the only one. */
	write_text(below(home, ".config/comfymux/comfymux.conf"),
	           "retain_s = 61\n");
	(void)snprintf(path, sizeof(path), "%s", below(home, "named.conf"));
	(void)unlink(path);
	ck_assert_int_eq(load(&c, path, NULL, 0, &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	write_text(path, "max_clients = 8\n");
	ck_assert_int_eq(load(&c, path, NULL, 0, &err), 0);
	ck_assert_int_eq(c.max_clients, 8);
	ck_assert_int_eq(c.retain_s, 86400);
	config_deinit(&c);
	write_text(path, "max_clients = 8\nx\n");
	ck_assert_int_eq(load(&c, path, NULL, 0, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "named.conf:2: "));
	/* A failure leaves nothing to release. */
	ck_assert_ptr_null(c.comfyui);
	config_deinit(&c);

	/* XDG_CONFIG_HOME goes before ~/.config, unless it is relative. */
	make_dir(below(home, "xdg"));
	make_dir(below(home, "xdg/comfymux"));
	write_text(below(home, "xdg/comfymux/comfymux.conf"), "retain_s=62\n");
	ck_assert_int_eq(setenv("XDG_CONFIG_HOME", below(home, "xdg"), 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), 0);
	ck_assert_int_eq(c.retain_s, 62);
	config_deinit(&c);
	ck_assert_int_eq(setenv("XDG_CONFIG_HOME", "xdg", 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), 0);
	ck_assert_int_eq(c.retain_s, 61);
	config_deinit(&c);

	/* A directory in its place is an error, not "no file". */
	ck_assert_int_eq(unlink(below(home, "xdg/comfymux/comfymux.conf")), 0);
	make_dir(below(home, "xdg/comfymux/comfymux.conf"));
	ck_assert_int_eq(setenv("XDG_CONFIG_HOME", below(home, "xdg"), 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "xdg/comfymux/comfymux.conf"));
	ck_assert_int_eq(rmdir(below(home, "xdg/comfymux/comfymux.conf")), 0);
}
END_TEST

START_TEST(bad_flags_and_environment)
{
	struct config_flag flag = {"state-dir", "/x"};
	struct config c;
	struct error err = ERROR_NULL;

	ck_assert_int_eq(load(&c, NULL, &flag, 1, &err), -1);
	ck_assert_str_eq(err.text, "command line: unknown key \"state-dir\"; "
	                           "did you mean \"state_dir\"?");
	flag = (struct config_flag){"socket", ""};
	ck_assert_int_eq(load(&c, NULL, &flag, 1, &err), -1);
	ck_assert_str_eq(err.text, "command line: socket: path is empty");
	ck_assert_int_eq(setenv("COMFYUI_HOST", "http://x:0", 1), 0);
	ck_assert_int_eq(load(&c, NULL, NULL, 0, &err), -1);
	ck_assert_int_eq(
		strncmp(err.text,
	                "environment variable COMFYUI_HOST: comfyui: ", 44),
		0);
}
END_TEST

START_TEST(relative_paths_of_flags)
{
	struct config_flag flag = {"socket", "a.sock"};
	char cwd[PATH_MAX], want[PATH_MAX + 8];
	struct config c;
	struct error err = ERROR_NULL;

	ck_assert_ptr_nonnull(getcwd(cwd, sizeof(cwd)));
	ck_assert_int_eq(chdir(home), 0);
	ck_assert_msg(load(&c, NULL, &flag, 1, &err) == 0, "%s", err.text);
	ck_assert_int_eq(chdir(cwd), 0);
	(void)snprintf(want, sizeof(want), "%s/a.sock", home);
	ck_assert_str_eq(c.socket, want);
	config_deinit(&c);
}
END_TEST

static bool runtime_dir(char *out, size_t size)
{
	struct stat st;

	(void)snprintf(out, size, "/run/user/%lu", (unsigned long)geteuid());
	return stat(out, &st) == 0 && st.st_uid == geteuid();
}

START_TEST(candidates)
{
	struct config_flag flag = {"socket", "/mine.sock"};
	char runtime[64];
	struct config c;
	bool is_explicit = true;
	size_t i = 0;

	if (access(CONFIG_SYSTEM_FILE, F_OK) == 0)
		return; /* it may name a socket */
	ck_assert_int_eq(load(&c, NULL, NULL, 0, NULL), 0);
	if (runtime_dir(runtime, sizeof(runtime)))
		ck_assert_str_eq(config_socket_candidate(&c, i++, NULL),
		                 below(runtime, "comfymux.sock"));
	ck_assert_str_eq(config_socket_candidate(&c, i++, &is_explicit),
	                 below(home, ".local/state/comfymux/comfymux.sock"));
	ck_assert(!is_explicit);
	ck_assert_str_eq(config_socket_candidate(&c, i++, NULL),
	                 CONFIG_SYSTEM_SOCKET);
	ck_assert_ptr_null(config_socket_candidate(&c, i, NULL));
	config_deinit(&c);

	ck_assert_int_eq(load(&c, NULL, &flag, 1, NULL), 0);
	ck_assert_str_eq(config_socket_candidate(&c, 0, &is_explicit),
	                 "/mine.sock");
	ck_assert(is_explicit);
	ck_assert_ptr_null(config_socket_candidate(&c, 1, NULL));
	config_deinit(&c);
}
END_TEST

/* What steers the service is root's, or its own. */
START_TEST(a_file_that_others_can_write)
{
	struct config_sources src = {.daemon = true, .system = true};
	const char *path = below(home, "mine.conf");
	struct error err = ERROR_NULL;
	struct config c;

	src.file = path;
	write_text(path, "retain_s = 61\n");
	ck_assert_int_eq(chmod(path, 0644), 0);
	ck_assert_int_eq(config_load(&c, &src, &err), 0);
	config_deinit(&c);
	for (mode_t bit = 0002; bit <= 0020; bit *= 8) {
		ck_assert_int_eq(chmod(path, 0644 | bit), 0);
		ck_assert_int_eq(config_load(&c, &src, &err), -1);
		ck_assert_int_eq(err.code, ERR_CONFIG);
		ck_assert_ptr_nonnull(strstr(err.text, "chmod go-w"));
		ck_assert_ptr_nonnull(strstr(err.text, path));
	}
	src.system = false;
	ck_assert_int_eq(config_load(&c, &src, &err), 0);
	config_deinit(&c);
	if (geteuid() != 0)
		return;
	src.system = true;
	ck_assert_int_eq(chmod(path, 0644), 0);
	ck_assert_int_eq(chown(path, 12345, 0), 0);
	ck_assert_int_eq(config_load(&c, &src, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "belongs to user 12345"));
}
END_TEST

START_TEST(places_of_a_daemon)
{
	struct config_sources src = {.daemon = true, .system = geteuid() == 0};
	char runtime[64];
	struct config c;

	if (access(CONFIG_SYSTEM_FILE, F_OK) == 0)
		return;
	write_text(below(home, ".config/comfymux/comfymux.conf"),
	           "retain_s = 61\n");
	ck_assert_int_eq(config_load(&c, &src, NULL), 0);
	if (geteuid() == 0) {
		ck_assert_str_eq(c.socket, CONFIG_SYSTEM_SOCKET);
		ck_assert_str_eq(c.state_dir, CONFIG_SYSTEM_STATE_DIR);
		/* Root's home does not steer the service. */
		ck_assert_int_eq(c.retain_s, 86400);
	} else {
		ck_assert_str_eq(c.state_dir,
		                 below(home, ".local/state/comfymux"));
		ck_assert_int_eq(c.retain_s, 61);
		if (runtime_dir(runtime, sizeof(runtime)))
			ck_assert_str_eq(c.socket,
			                 below(runtime, "comfymux.sock"));
		else
			ck_assert_str_eq(c.socket,
			                 below(c.state_dir, "comfymux.sock"));
	}
	config_deinit(&c);
}
END_TEST

START_TEST(home_from_the_user_database)
{
	struct config c;
	struct error err = ERROR_NULL;

	/* Relative and missing alike: the user database decides. */
	ck_assert_int_eq(setenv("HOME", "relative", 1), 0);
	if (config_init(&c, &err) == 0) {
		ck_assert_int_eq(c.state_dir[0], '/');
		config_deinit(&c);
	} else {
		ck_assert_ptr_nonnull(strstr(err.text, "set HOME"));
	}
	unsetenv("HOME");
	ck_assert_int_eq(setenv("XDG_STATE_HOME", "/somewhere", 1), 0);
	ck_assert_int_eq(config_init(&c, &err), 0);
	ck_assert_str_eq(c.state_dir, "/somewhere/comfymux");
	config_deinit(&c);
}
END_TEST

START_TEST(reload)
{
	struct config c, fresh;
	struct buf ignored = BUF_INIT(1024);

	ck_assert_int_eq(parse(&c, "log_level=warn\nretain_s=60", NULL), 0);
	ck_assert_int_eq(parse(&fresh,
	                       "log_level=debug\nautostart=no\n"
	                       "comfyui=http://new\nidle_exit_s=1",
	                       NULL),
	                 0);
	ck_assert_int_eq(config_reload(&c, &fresh, &ignored), 0);
	ck_assert_str_eq(buf_cstr(&ignored), "comfyui, autostart");
	ck_assert_str_eq(c.log_level, "debug");
	ck_assert_int_eq(c.retain_s, 86400);
	ck_assert_int_eq(config_origin_of(&c, "retain_s"), CONFIG_DEFAULT);
	ck_assert_int_eq(c.idle_exit_s, 1);
	ck_assert_int_eq(config_origin_of(&c, "idle_exit_s"), CONFIG_FILE);
	ck_assert_str_eq(config_file_of(&c, "idle_exit_s"), "test.conf");
	ck_assert_str_eq(c.comfyui, "http://127.0.0.1:8188");
	ck_assert(c.autostart);
	buf_reset(&ignored);
	config_deinit(&fresh);
	ck_assert_str_eq(c.log_level, "debug");

	/* Nothing to apply, nothing to say. */
	ck_assert_int_eq(parse(&fresh, "log_level=debug\nidle_exit_s=1", NULL),
	                 0);
	ck_assert_int_eq(config_reload(&c, &fresh, &ignored), 0);
	ck_assert_uint_eq(ignored.len, 0);
	config_deinit(&fresh);
	config_deinit(&c);
	buf_deinit(&ignored);
}
END_TEST

START_TEST(example_is_the_file_in_etc)
{
	struct buf out = BUF_INIT(CONFIG_FILE_MAX);
	const char *path = runner_data_path("../../etc/comfymux.conf");
	char *file;
	size_t len;

	ck_assert_int_eq(config_example(&out), 0);
	if (getenv("UPDATE"))
		ck_assert_int_eq(fd_write_file(path, out.data, out.len, 0644),
		                 0);
	file = runner_read_data("../../etc/comfymux.conf", &len);
	ck_assert_msg(len == out.len && memcmp(file, out.data, len) == 0,
	              "etc/comfymux.conf is not what config.def says; "
	              "UPDATE=1 writes it");
	free(file);
	buf_deinit(&out);
}
END_TEST

/* Every line that is a key, with its '#' taken away, must be accepted and
 * change nothing. */
START_TEST(example_holds_the_defaults)
{
	struct buf out = BUF_INIT(CONFIG_FILE_MAX);
	struct buf plain = BUF_INIT(CONFIG_FILE_MAX);
	struct config c, def;
	struct error err = ERROR_NULL;
	char *save = NULL;
	size_t keys = 0;

	ck_assert_int_eq(config_example(&out), 0);
	ck_assert_ptr_nonnull(buf_cstr(&out));
	ck_assert_int_eq(config_init(&def, NULL), 0);
	/* As it stands it sets nothing. */
	ck_assert_msg(parse(&c, out.data, &err) == 0, "%s", err.text);
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++)
		ck_assert_int_eq(config_origin_of(&c, config_keys[i].name),
		                 CONFIG_DEFAULT);
	config_deinit(&c);
	for (char *line = strtok_r(out.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		ck_assert_uint_le(strlen(line), 80);
		if (line[0] != '#' || line[1] == ' ' || line[1] == '\0')
			continue;
		ck_assert_int_eq(buf_printf(&plain, "%s\n", line + 1), 0);
		keys++;
	}
	ck_assert_uint_eq(keys, CONFIG_KEY_COUNT);
	ck_assert_msg(parse(&c, buf_cstr(&plain), &err) == 0, "%s", err.text);
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		struct buf a = BUF_INIT(4096), b = BUF_INIT(4096);

		ck_assert_int_eq(config_origin_of(&c, config_keys[i].name),
		                 CONFIG_FILE);
		ck_assert_int_eq(config_value_text(&c, (enum config_key)i, &a),
		                 0);
		ck_assert_int_eq(
			config_value_text(&def, (enum config_key)i, &b), 0);
		if (i != CONFIG_KEY_socket && i != CONFIG_KEY_state_dir)
			ck_assert_str_eq(buf_cstr(&a), buf_cstr(&b));
		buf_deinit(&a);
		buf_deinit(&b);
	}
	config_deinit(&c);
	config_deinit(&def);
	buf_deinit(&out);
	buf_deinit(&plain);
}
END_TEST

START_TEST(reference_has_every_key)
{
	struct buf out = BUF_INIT(CONFIG_FILE_MAX), tiny = BUF_INIT(100);
	char cell[64];
	size_t rows = 0;

	ck_assert_int_eq(config_reference(&out), 0);
	ck_assert_ptr_nonnull(buf_cstr(&out));
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		(void)snprintf(cell, sizeof(cell), "\n| `%s` | ",
		               config_keys[i].name);
		ck_assert_msg(strstr(out.data, cell) != NULL, "%s", cell);
	}
	/* Five columns, and no bar inside a cell. */
	for (char *p = out.data; *p; p += *p ? 1 : 0) {
		size_t n = strcspn(p, "\n"), bars = 0;

		for (size_t i = 0; i < n; i++)
			bars += p[i] == '|';
		ck_assert_uint_eq(bars, 6);
		p += n;
		rows++;
	}
	ck_assert_uint_eq(rows, CONFIG_KEY_COUNT + 2);
	ck_assert_int_lt(config_reference(&tiny), 0);
	ck_assert_int_lt(config_example(&tiny), 0);
	buf_deinit(&out);
	buf_deinit(&tiny);
}
END_TEST

static Suite *config_suite(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("config");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, defaults);
	tcase_add_test(t, parses_each_kind);
	tcase_add_loop_test(t, names_mistakes, 0, ARRAY_SIZE(mistakes));
	tcase_add_loop_test(t, bounds_of_each_number, 0, CONFIG_KEY_COUNT);
	tcase_add_test(t, long_lines_and_files);
	tcase_add_test(t, socket_path_bound);
	tcase_add_test(t, precedence);
	tcase_add_test(t, files);
	tcase_add_test(t, bad_flags_and_environment);
	tcase_add_test(t, relative_paths_of_flags);
	tcase_add_test(t, candidates);
	tcase_add_test(t, a_file_that_others_can_write);
	tcase_add_test(t, places_of_a_daemon);
	tcase_add_test(t, home_from_the_user_database);
	tcase_add_test(t, reload);
	tcase_add_test(t, example_is_the_file_in_etc);
	tcase_add_test(t, example_holds_the_defaults);
	tcase_add_test(t, reference_has_every_key);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(config_suite());
}
