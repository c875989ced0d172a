/*
 * check_store.c - what survives: written, read again, after a crash, from a
 * damaged file, on a full disk.
 */
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/store.h"
#include "tests/runner.h"

static char path[4096];
static struct store *s;
static struct error err;

static void open_store(void)
{
	err = (struct error)ERROR_NULL;
	s = store_open(path, &err);
	ck_assert_msg(s != NULL, "%s", err.text);
}

static void reopen(void)
{
	s = store_close(s);
	open_store();
}

static void setup(void)
{
	ck_assert_int_lt(
		snprintf(path, sizeof(path), "%s/test.db", runner_tmpdir()),
		(int)sizeof(path));
	(void)unlink(path);
	open_store();
}

static void teardown(void)
{
	s = store_close(s);
}

static const char *id_of(int n)
{
	static char id[4][UUID_LEN + 1];
	static int at;

	at = (at + 1) % 4;
	(void)snprintf(id[at], sizeof(id[at]), "00000000-0000-4000-8000-%012d",
	               n);
	return id[at];
}

static int64_t accept_n(int n, uid_t uid, struct span workflow)
{
	struct store_accept a = {
		.id = id_of(n),
		.uid = uid,
		.session = "s1",
		.workflow = workflow,
		.extra_data = n % 2 ? SPAN("{\"x\":1}") : SPAN_NULL,
		.submitted_at = 1000 + n,
	};
	int64_t row = 0;

	ck_assert_msg(store_accept(s, &a, &row, &err) == 0, "%s", err.text);
	ck_assert_int_gt(row, 0);
	return row;
}

static int64_t accept_one(int n, uid_t uid)
{
	return accept_n(n, uid, SPAN("{\"1\":{\"class_type\":\"X\"}}"));
}

static void end_one(int64_t row, const char *result, int64_t at)
{
	ck_assert_msg(store_end(s, row, SPAN(result), at, &err) == 0, "%s",
	              err.text);
}

/* --- rows as text --------------------------------------------------------- */

static char seen[8192];

static bool on_active(void *user, const struct store_active *a)
{
	size_t n = strlen(seen);

	(void)snprintf(seen + n, sizeof(seen) - n, "%d:%u:%d:%s:%.0f%s ",
	               atoi(a->id + 24), (unsigned)a->uid, (int)a->state,
	               a->remote_id ? a->remote_id : "-",
	               a->has_number ? a->number : -1.0,
	               a->cancelled ? ":cancelled" : "");
	return true;
}

static const char *active(void)
{
	seen[0] = '\0';
	ck_assert_int_eq(store_each_active(s, on_active, NULL, &err), 0);
	return seen;
}

static bool on_ended(void *user, const struct store_ended *e)
{
	size_t n = strlen(seen);

	(void)snprintf(seen + n, sizeof(seen) - n, "%d:%u:%.*s:%lld:%lld ",
	               atoi(e->id + 24), (unsigned)e->uid, (int)e->result.n,
	               e->result.p, (long long)e->submitted_at,
	               (long long)e->ended_at);
	return true;
}

static const char *ended(const uid_t *uid, unsigned limit)
{
	seen[0] = '\0';
	ck_assert_int_eq(
		store_each_ended(s, uid, 0, limit, on_ended, NULL, &err), 0);
	return seen;
}

/* --- the life of a row ---------------------------------------------------- */

START_TEST(test_life)
{
	struct buf workflow = BUF_INIT(1000), extra = BUF_INIT(1000);
	const double number = 42;
	int64_t row = accept_one(1, 1000);

	ck_assert_str_eq(active(), "1:1000:0:-:-1 ");
	ck_assert_int_eq(store_load_workflow(s, row, &workflow, &extra, &err),
	                 0);
	ck_assert_str_eq(buf_cstr(&workflow), "{\"1\":{\"class_type\":\"X\"}}");
	ck_assert_str_eq(buf_cstr(&extra), "{\"x\":1}");
	ck_assert_int_eq(
		store_set_state(s, row, STORE_POSTING, NULL, NULL, &err), 0);
	ck_assert_str_eq(active(), "1:1000:1:-:-1 ");
	/* Until ComfyUI has it the workflow stays. */
	ck_assert_int_eq(store_load_workflow(s, row, &workflow, &extra, &err),
	                 0);
	ck_assert_int_eq(store_set_state(s, row, STORE_SUBMITTED, "theirs",
	                                 &number, &err),
	                 0);
	ck_assert_str_eq(active(), "1:1000:2:theirs:42 ");
	ck_assert_int_eq(store_load_workflow(s, row, &workflow, &extra, &err),
	                 -1);
	ck_assert_int_eq(err.code, ERR_NOT_FOUND);
	end_one(row, "{}", 5000);
	ck_assert_str_eq(active(), "");
	ck_assert_str_eq(ended(NULL, 10), "1:1000:{}:1001:5000 ");
	ck_assert_uint_eq(store_count_ended(s, NULL), 1);
	reopen();
	ck_assert_str_eq(ended(NULL, 10), "1:1000:{}:1001:5000 ");
	ck_assert_uint_eq(store_count_ended(s, NULL), 1);
	buf_deinit(&workflow);
	buf_deinit(&extra);
}
END_TEST

START_TEST(test_state_keeps_what_is_known)
{
	const double number = 7;
	int64_t row = accept_one(1, 1000);

	(void)store_set_state(s, row, STORE_SUBMITTED, "theirs", &number, &err);
	(void)store_set_state(s, row, STORE_SUBMITTED, NULL, NULL, &err);
	ck_assert_str_eq(active(), "1:1000:2:theirs:7 ");
}
END_TEST

START_TEST(test_a_cancel_stays)
{
	int64_t row = accept_one(1, 1000);

	(void)accept_one(2, 1000);
	ck_assert_int_eq(store_set_cancelled(s, row, true, &err), 0);
	reopen();
	ck_assert_str_eq(active(), "1:1000:0:-:-1:cancelled 2:1000:0:-:-1 ");
	(void)store_set_state(s, row, STORE_SUBMITTED, NULL, NULL, &err);
	ck_assert_str_eq(active(), "1:1000:2:-:-1:cancelled 2:1000:0:-:-1 ");
	ck_assert_int_eq(store_set_cancelled(s, row, false, &err), 0);
	ck_assert_str_eq(active(), "1:1000:2:-:-1 2:1000:0:-:-1 ");
}
END_TEST

START_TEST(test_order_of_acceptance)
{
	for (int i = 5; i > 0; i--)
		accept_one(i, 1000);
	ck_assert_str_eq(active(), "5:1000:0:-:-1 4:1000:0:-:-1 3:1000:0:-:-1 "
	                           "2:1000:0:-:-1 1:1000:0:-:-1 ");
}
END_TEST

START_TEST(test_id_is_taken)
{
	struct store_accept a = {.id = id_of(1),
	                         .uid = 1001,
	                         .session = "",
	                         .workflow = SPAN("{}")};
	int64_t row;

	accept_one(1, 1000);
	ck_assert_int_eq(store_accept(s, &a, &row, &err), -1);
	ck_assert_int_eq(err.code, ERR_BUSY);
	/* Nothing of it stays behind, and the store works on. */
	ck_assert_str_eq(active(), "1:1000:0:-:-1 ");
	accept_one(2, 1000);
}
END_TEST

START_TEST(test_forget)
{
	int64_t row = accept_one(1, 1000);

	ck_assert_int_eq(store_forget(s, row, &err), 0);
	ck_assert_str_eq(active(), "");
	accept_one(1, 1001);
	ck_assert_str_eq(active(), "1:1001:0:-:-1 ");
}
END_TEST

START_TEST(test_bytes_stay_as_they_are)
{
	static const char text[] = "{\"seed\": 18446744073709551615, \"t\": "
				   "\"\xc3\xa9\\u0000 \\ud83d\\ude00\"}";
	struct buf workflow = BUF_INIT(20u << 20), extra = BUF_INIT(100);
	size_t big = 16u << 20;
	char *blob = malloc(big);
	int64_t row = accept_n(2, 1000, SPAN(text));

	ck_assert_ptr_nonnull(blob);
	for (size_t i = 0; i < big; i++)
		blob[i] = (char)(i * 7);
	(void)store_load_workflow(s, row, &workflow, &extra, &err);
	ck_assert_uint_eq(workflow.len, sizeof(text) - 1);
	ck_assert_mem_eq(workflow.data, text, workflow.len);
	ck_assert_uint_eq(extra.len, 0);
	buf_reset(&workflow);
	row = accept_n(4, 1000, span_make(blob, big));
	(void)store_load_workflow(s, row, &workflow, &extra, &err);
	ck_assert_uint_eq(workflow.len, big);
	ck_assert_mem_eq(workflow.data, blob, big);
	free(blob);
	buf_deinit(&workflow);
	buf_deinit(&extra);
}
END_TEST

/* --- history -------------------------------------------------------------- */

START_TEST(test_history)
{
	const uid_t ann = 1000, bob = 1001, eve = 1002;
	bool found;

	end_one(accept_one(1, ann), "a", 100);
	end_one(accept_one(2, bob), "b", 300);
	end_one(accept_one(3, ann), "c", 200);
	end_one(accept_one(4, ann), "d", 200);
	accept_one(5, ann);
	ck_assert_str_eq(ended(NULL, 10),
	                 "2:1001:b:1002:300 4:1000:d:1004:200 "
	                 "3:1000:c:1003:200 1:1000:a:1001:100 ");
	ck_assert_str_eq(ended(NULL, 1), "2:1001:b:1002:300 ");
	ck_assert_str_eq(ended(&ann, 2),
	                 "4:1000:d:1004:200 3:1000:c:1003:200 ");
	ck_assert_str_eq(ended(&bob, 2), "2:1001:b:1002:300 ");
	ck_assert_str_eq(ended(&eve, 2), "");
	ck_assert_uint_eq(store_count_ended(s, &ann), 3);
	ck_assert_uint_eq(store_count_ended(s, &eve), 0);
	ck_assert_uint_eq(store_count_ended(s, NULL), 4);
	seen[0] = '\0';
	ck_assert_int_eq(
		store_find_ended(s, id_of(3), on_ended, NULL, &found, &err), 0);
	ck_assert(found);
	ck_assert_str_eq(seen, "3:1000:c:1003:200 ");
	/* Not over, not there. */
	(void)store_find_ended(s, id_of(5), on_ended, NULL, &found, &err);
	ck_assert(!found);
	(void)store_find_ended(s, id_of(9), on_ended, NULL, &found, &err);
	ck_assert(!found);
}
END_TEST

START_TEST(test_an_end_counts_once)
{
	int64_t row = accept_one(1, 1000);

	end_one(row, "a", 100);
	end_one(row, "b", 200);
	ck_assert_str_eq(ended(NULL, 10), "1:1000:a:1001:100 ");
	ck_assert_uint_eq(store_count_ended(s, NULL), 1);
}
END_TEST

START_TEST(test_prune)
{
	for (int i = 0; i < 10; i++)
		end_one(accept_one(i, 1000), "x", 100 + i);
	accept_one(20, 1000);
	/* To the one. */
	ck_assert_int_eq(store_prune(s, 10, 0, &err), 0);
	ck_assert_int_eq(store_prune(s, 7, 0, &err), 3);
	ck_assert_uint_eq(store_count_ended(s, NULL), 7);
	ck_assert_int_eq(store_prune(s, 100, 105, &err), 2);
	ck_assert_str_eq(ended(NULL, 100), "9:1000:x:1009:109 8:1000:x:1008:108"
	                                   " 7:1000:x:1007:107 6:1000:x:1006:10"
	                                   "6 5:1000:x:1005:105 ");
	ck_assert_int_eq(store_prune(s, 0, 0, &err), 5);
	ck_assert_uint_eq(store_count_ended(s, NULL), 0);
	/* What is not over is never touched. */
	ck_assert_str_eq(active(), "20:1000:0:-:-1 ");
	reopen();
	ck_assert_uint_eq(store_count_ended(s, NULL), 0);
}
END_TEST

START_TEST(test_prune_in_batches)
{
	ck_assert_int_eq(store_begin(s, &err), 0);
	for (int i = 0; i < STORE_PRUNE_BATCH + 5; i++)
		end_one(accept_one(i, 1000), "x", 100 + i);
	ck_assert_int_eq(store_commit(s, &err), 0);
	ck_assert_int_eq(store_prune(s, 0, 0, &err), STORE_PRUNE_BATCH);
	ck_assert_int_eq(store_prune(s, 0, 0, &err), 5);
	ck_assert_int_eq(store_prune(s, 0, 0, &err), 0);
}
END_TEST

/* --- groups --------------------------------------------------------------- */

START_TEST(test_group)
{
	int64_t a = accept_one(1, 1000), b = accept_one(2, 1000);

	ck_assert_int_eq(store_begin(s, &err), 0);
	end_one(a, "a", 1);
	end_one(b, "b", 2);
	ck_assert_uint_eq(store_count_ended(s, NULL), 0);
	store_rollback(s);
	ck_assert_uint_eq(store_count_ended(s, NULL), 0);
	ck_assert_str_eq(ended(NULL, 9), "");
	ck_assert_int_eq(store_begin(s, &err), 0);
	end_one(a, "a", 1);
	end_one(b, "b", 2);
	ck_assert_int_eq(store_commit(s, &err), 0);
	ck_assert_uint_eq(store_count_ended(s, NULL), 2);
	reopen();
	ck_assert_uint_eq(store_count_ended(s, NULL), 2);
}
END_TEST

/* --- crashes -------------------------------------------------------------- */

START_TEST(test_killed_process_leaves_all)
{
	pid_t child;
	int status;

	s = store_close(s);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		s = store_open(path, NULL);
		for (int i = 0; s && i < 50; i++) {
			int64_t row = accept_one(i, 1000);

			if (i % 2)
				(void)store_end(s, row, SPAN("r"), i, NULL);
		}
		(void)kill(getpid(), SIGKILL);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status));
	open_store();
	ck_assert_uint_eq(store_count_ended(s, NULL), 25);
	(void)active();
	ck_assert_uint_eq(strlen(seen), strlen("0:1000:0:-:-1 ") * 5 +
	                                        strlen("10:1000:0:-:-1 ") * 20);
}
END_TEST

/* However late the thread is, it shortens the log while writing goes on. */
START_TEST(test_checkpoints_bound_the_log)
{
	struct stat st = {0};
	char wal[4200];
	int n = 0;

	(void)snprintf(wal, sizeof(wal), "%s-wal", path);
	while (n < 3000 || st.st_size > 2 * STORE_LOG_PAGES_MAX * 4096) {
		end_one(accept_one(n, 1000), "{\"status\":\"completed\"}", n);
		ck_assert_int_eq(stat(wal, &st), 0);
		n++;
		ck_assert_int_lt(n, 200000);
	}
	reopen();
	ck_assert_uint_eq(store_count_ended(s, NULL), (unsigned)n);
}
END_TEST

/* --- files that are no good ----------------------------------------------- */

static void refuse(const char *word)
{
	err = (struct error)ERROR_NULL;
	ck_assert_ptr_null(store_open(path, &err));
	ck_assert_msg(strstr(err.text, path) != NULL, "%s", err.text);
	ck_assert_msg(strstr(err.text, word) != NULL, "%s", err.text);
}

static void write_file(const char *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	(void)close(fd);
}

START_TEST(test_not_a_database)
{
	static char junk[8192], after[8192];
	int fd;

	s = store_close(s);
	memset(junk, 'j', sizeof(junk));
	write_file(junk, sizeof(junk));
	refuse("damaged");
	/* It is left as it was. */
	fd = open(path, O_RDONLY);
	ck_assert_int_eq(read(fd, after, sizeof(after)), sizeof(after));
	(void)close(fd);
	ck_assert_mem_eq(junk, after, sizeof(junk));
}
END_TEST

START_TEST(test_damaged_in_the_middle)
{
	char junk[2000];
	int fd;

	for (int i = 0; i < 500; i++)
		accept_one(i, 1000);
	s = store_close(s);
	memset(junk, 0x5a, sizeof(junk));
	fd = open(path, O_WRONLY);
	for (off_t at = 4096; at < 40960; at += 4096)
		ck_assert_int_eq(pwrite(fd, junk, sizeof(junk), at),
		                 sizeof(junk));
	(void)close(fd);
	refuse("damaged");
}
END_TEST

START_TEST(test_cut_short)
{
	for (int i = 0; i < 500; i++)
		accept_one(i, 1000);
	s = store_close(s);
	ck_assert_int_eq(truncate(path, 3 * 4096 + 100), 0);
	refuse("damaged");
}
END_TEST

static void sql(const char *text)
{
	sqlite3 *db;

	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	(void)sqlite3_close(db);
}

START_TEST(test_of_another_program)
{
	s = store_close(s);
	(void)unlink(path);
	sql("CREATE TABLE theirs(x)");
	refuse("another program");
}
END_TEST

START_TEST(test_of_a_later_version)
{
	s = store_close(s);
	sql("PRAGMA user_version = 99");
	refuse("later comfymuxd");
}
END_TEST

START_TEST(test_of_an_earlier_version)
{
	(void)accept_one(1, 1000);
	s = store_close(s);
	sql("ALTER TABLE prompt DROP COLUMN cancelled;"
	    "PRAGMA user_version = 2");
	open_store();
	ck_assert_str_eq(active(), "1:1000:0:-:-1 ");
	ck_assert_int_eq(
		store_set_cancelled(s, accept_one(2, 1000), true, &err), 0);
	reopen();
	ck_assert_str_eq(active(), "1:1000:0:-:-1 2:1000:0:-:-1:cancelled ");
}
END_TEST

START_TEST(test_no_directory)
{
	s = store_close(s);
	(void)strcat(path, ".d/x.db");
	refuse("--state-dir");
}
END_TEST

START_TEST(test_a_directory_in_its_place)
{
	s = store_close(s);
	(void)unlink(path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	refuse("state database");
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* A write that fails half-way undoes itself, and the store works on. */
START_TEST(test_disk_full)
{
	struct rlimit was, small;
	struct store_accept a = {.id = id_of(7), .session = ""};
	static char big[4 << 20];
	int64_t row;
	int r;

	accept_one(1, 1000);
	memset(big, 'x', sizeof(big));
	a.workflow = span_make(big, sizeof(big));
	/* No file may grow beyond 1 MiB. */
	ck_assert_ptr_ne((void *)signal(SIGXFSZ, SIG_IGN), (void *)SIG_ERR);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
	small = was;
	small.rlim_cur = 1 << 20;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	r = store_accept(s, &a, &row, &err);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &was), 0);
	ck_assert_int_eq(r, -1);
	ck_assert_int_eq(err.code, ERR_SYSTEM);
	ck_assert_msg(strstr(err.text, path) != NULL, "%s", err.text);
	ck_assert_str_eq(active(), "1:1000:0:-:-1 ");
	a.workflow = SPAN("{}");
	ck_assert_msg(store_accept(s, &a, &row, &err) == 0, "%s", err.text);
}
END_TEST

static Suite *store_suite(void)
{
	Suite *suite = suite_create("store");
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_life);
	tcase_add_test(t, test_state_keeps_what_is_known);
	tcase_add_test(t, test_a_cancel_stays);
	tcase_add_test(t, test_order_of_acceptance);
	tcase_add_test(t, test_id_is_taken);
	tcase_add_test(t, test_forget);
	tcase_add_test(t, test_bytes_stay_as_they_are);
	tcase_add_test(t, test_history);
	tcase_add_test(t, test_an_end_counts_once);
	tcase_add_test(t, test_prune);
	tcase_add_test(t, test_prune_in_batches);
	tcase_add_test(t, test_group);
	tcase_add_test(t, test_killed_process_leaves_all);
	tcase_add_test(t, test_checkpoints_bound_the_log);
	tcase_add_test(t, test_not_a_database);
	tcase_add_test(t, test_damaged_in_the_middle);
	tcase_add_test(t, test_cut_short);
	tcase_add_test(t, test_of_another_program);
	tcase_add_test(t, test_of_a_later_version);
	tcase_add_test(t, test_of_an_earlier_version);
	tcase_add_test(t, test_no_directory);
	tcase_add_test(t, test_a_directory_in_its_place);
	tcase_add_test(t, test_disk_full);
	suite_add_tcase(suite, t);
	return suite;
}

int main(void)
{
	return runner_run(store_suite());
}
