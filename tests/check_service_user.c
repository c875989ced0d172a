/*
 * check_service_user.c - whom a supervisor becomes, and that it is for good.
 * What needs root is done in a child, and left out without.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "supervisor/service_user.h"
#include "tests/runner.h"

#define NOBODY "no-such-user-here"

static struct error err;

/* As config_load would with these on the command line; NULL: not there. */
static void load(struct config *c, const char *user, const char *group,
                 const char *socket, const char *state_dir)
{
	const struct config_flag all[] = {{"user", user},
	                                  {"group", group},
	                                  {"socket", socket},
	                                  {"state_dir", state_dir}};
	struct config_flag flags[4];
	struct config_sources src = {
		.file = "/dev/null", .flags = flags, .system = true};

	for (size_t i = 0; i < 4; i++) {
		if (all[i].value)
			flags[src.flag_count++] = all[i];
	}
	err = (struct error)ERROR_NULL;
	ck_assert_msg(config_load(c, &src, &err) == 0, "%s", err.text);
}

START_TEST(ones_own_stays_itself)
{
	struct service_user u;
	struct config c;

	load(&c, "12345", "12345", NULL, NULL);
	ck_assert_int_eq(service_user_find(&u, &c, true, &err), 0);
	ck_assert_uint_eq(u.uid, geteuid());
	ck_assert(!u.drop && !u.shared);
	ck_assert_int_eq(service_user_become(&u, &err), 0);
	service_user_deinit(&u);
	config_deinit(&c);
}
END_TEST

START_TEST(who)
{
	struct service_user u;
	struct config c;

	if (geteuid() != 0)
		return;
	load(&c, "12345", "54321", NULL, NULL);
	ck_assert_int_eq(service_user_find(&u, &c, false, &err), 0);
	ck_assert_uint_eq(u.uid, 12345);
	ck_assert_uint_eq(u.gid, 54321);
	ck_assert(u.drop && u.shared);
	service_user_deinit(&u);
	service_user_deinit(&u);
	config_deinit(&c);

	load(&c, "root", NULL, NULL, NULL);
	ck_assert_int_eq(service_user_find(&u, &c, false, &err), 0);
	ck_assert(!u.drop && !u.shared);
	service_user_deinit(&u);
	config_deinit(&c);

	/* A number has no group of its own. */
	load(&c, "12345", NULL, NULL, NULL);
	ck_assert_int_eq(service_user_find(&u, &c, false, &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.text, "group"));
	config_deinit(&c);
}
END_TEST

START_TEST(no_such_user)
{
	struct service_user u;
	struct config c;

	if (geteuid() != 0)
		return;
	load(&c, NOBODY, NULL, "/tmp/s", "/tmp/d");
	ck_assert_int_eq(service_user_find(&u, &c, false, &err), -1);
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.text, "useradd"));
	ck_assert_ptr_nonnull(strstr(err.text, NOBODY));
	config_deinit(&c);
	load(&c, "12345", NOBODY, NULL, NULL);
	ck_assert_int_eq(service_user_find(&u, &c, false, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "group"));
	config_deinit(&c);
}
END_TEST

static void check_mode(const char *path, mode_t mode, uid_t uid)
{
	struct stat st;

	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, mode);
	ck_assert_uint_eq(st.st_uid, uid);
}

START_TEST(places)
{
	char state[256], run[256], sock[256];
	struct service_user u = {.uid = 12345, .gid = 12345, .drop = true};
	struct config c;
	const char *dir = runner_tmpdir();

	if (geteuid() != 0)
		return;
	(void)umask(077);
	(void)snprintf(state, sizeof(state), "%s/a/b/state", dir);
	(void)snprintf(run, sizeof(run), "%s/run", dir);
	(void)snprintf(sock, sizeof(sock), "%s/run/s", dir);
	load(&c, NULL, NULL, sock, state);
	ck_assert_int_eq(service_user_make_places(&u, &c, &err), 0);
	check_mode(state, 0700, 12345);
	check_mode(run, 0755, 12345);
	*strrchr(state, '/') = '\0';
	check_mode(state, 0755, 0);
	ck_assert(!service_user_needs_socket(&u, &c));
	/* Again, with one that is somebody else's: left as it is. */
	ck_assert_int_eq(chown(run, 777, 777), 0);
	ck_assert_int_eq(service_user_make_places(&u, &c, &err), 0);
	check_mode(run, 0755, 777);
	ck_assert(service_user_needs_socket(&u, &c));
	config_deinit(&c);
}
END_TEST

START_TEST(places_that_cannot_be)
{
	struct service_user u = {.uid = 12345, .gid = 12345, .drop = true};
	struct config c;

	if (geteuid() != 0)
		return;
	load(&c, NULL, NULL, "/tmp/s", "/dev/null/state");
	ck_assert_int_eq(service_user_make_places(&u, &c, &err), -1);
	ck_assert_ptr_nonnull(strstr(err.text, "/dev/null"));
	config_deinit(&c);
}
END_TEST

/* 0 if this process is nobody but 12345, and can't be anybody else. */
static int look(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	int bad = 0;
	const char *want;

	if (!f)
		return 10;
	while (fgets(line, sizeof(line), f)) {
		want = NULL;
		if (strncmp(line, "Uid:", 4) == 0)
			want = "Uid:\t12345\t12345\t12345\t12345\n";
		else if (strncmp(line, "Gid:", 4) == 0)
			want = "Gid:\t12346\t12346\t12346\t12346\n";
		else if (strncmp(line, "NoNewPrivs:", 11) == 0)
			want = "NoNewPrivs:\t1\n";
		else if (strncmp(line, "Cap", 3) == 0 &&
		         strncmp(line, "CapBnd", 6) != 0)
			bad += strstr(line, "0000000000000000") == NULL;
		bad += want && strcmp(line, want) != 0;
	}
	(void)fclose(f);
	return bad + (seteuid(0) == 0) + (setresuid(0, 0, 0) == 0) +
	       (access("/proc/1/mem", R_OK) == 0);
}

START_TEST(for_good)
{
	const struct service_user u = {
		.uid = 12345, .gid = 12346, .drop = true};
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return;
	pid = fork();
	if (pid == 0)
		_exit(service_user_become(&u, &err) < 0 ? 100 : look());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* Whoever isn't root can't become anybody, and hears of it. */
START_TEST(without_root)
{
	const struct service_user first = {
		.uid = 12345, .gid = 12345, .drop = true};
	const struct service_user second = {
		.uid = 54321, .gid = 54321, .drop = true};
	int status;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && service_user_become(&first, &err) < 0)
			_exit(1);
		_exit(service_user_become(&second, &err) < 0 &&
		                      strstr(err.text, "54321")
		              ? 0
		              : 2);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

static Suite *service_user_suite(void)
{
	Suite *s = suite_create("service_user");
	TCase *t = tcase_create("service_user");

	tcase_add_test(t, ones_own_stays_itself);
	tcase_add_test(t, who);
	tcase_add_test(t, no_such_user);
	tcase_add_test(t, places);
	tcase_add_test(t, places_that_cannot_be);
	tcase_add_test(t, for_good);
	tcase_add_test(t, without_root);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(service_user_suite());
}
