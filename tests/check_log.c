/*
 * check_log.c - what comes out of the log's sinks: form, cuts, escapes, folds,
 * and that a full or closed sink neither blocks nor kills.
 */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/utf8.h"
#include "tests/runner.h"

#define OUT_MAX (256 * 1024)

static int saved_stderr = -1;
static int sink = -1; /* our end of what stands in for stderr */
static char out[OUT_MAX];

/* Makes `fd` stderr. */
static void redirect(int fd)
{
	if (fd == STDERR_FILENO)
		return;
	ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	ck_assert_int_eq(close(fd), 0);
}

static void redirect_to_pipe(void)
{
	int p[2];

	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	ck_assert_int_eq(fcntl(p[0], F_SETFL, O_NONBLOCK), 0);
	redirect(p[1]);
	sink = p[0];
}

static void setup(void)
{
	clock_fake(1000000);
	saved_stderr = dup(STDERR_FILENO);
	ck_assert_int_ge(saved_stderr, 0);
	log_open("tester", LOG_TO_STDERR, LOG_LEVEL_INFO);
	redirect_to_pipe();
}

static void teardown(void)
{
	/* Whatever a test left in the fold table goes to the pipe, not to the
	 * next test. */
	log_flush();
	if (sink >= 0)
		(void)close(sink);
	sink = -1;
	(void)dup2(saved_stderr, STDERR_FILENO);
	(void)close(saved_stderr);
	clock_fake(-1);
}

/* All that the sink got so far. */
static const char *drain(void)
{
	size_t len = 0;
	ssize_t n;

	while ((n = read(sink, out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	return out;
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

START_TEST(line_has_level_role_pid_module)
{
	char want[128];

	log_info("hub", "client %d left", 7);
	ck_assert_int_gt(snprintf(want, sizeof(want),
	                          "info tester[%ld] hub: client 7 left\n",
	                          (long)getpid()),
	                 0);
	ck_assert_str_eq(drain(), want);
}
END_TEST

START_TEST(levels_filter)
{
	log_debug("m", "quiet");
	ck_assert_str_eq(drain(), "");
	log_set_level(LOG_LEVEL_DEBUG);
	ck_assert_int_eq(log_get_level(), LOG_LEVEL_DEBUG);
	log_debug("m", "loud");
	ck_assert_ptr_nonnull(strstr(drain(), "debug tester["));
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("m", "quiet");
	log_error("m", "bad");
	ck_assert_ptr_nonnull(strstr(drain(), "error tester["));
	ck_assert_uint_eq(count(out, "\n"), 1);
}
END_TEST

START_TEST(level_names)
{
	ck_assert_int_eq(log_level_from_name("error"), LOG_LEVEL_ERROR);
	ck_assert_int_eq(log_level_from_name("warn"), LOG_LEVEL_WARN);
	ck_assert_int_eq(log_level_from_name("info"), LOG_LEVEL_INFO);
	ck_assert_int_eq(log_level_from_name("debug"), LOG_LEVEL_DEBUG);
	ck_assert_int_eq(log_level_from_name("INFO"), -1);
	ck_assert_int_eq(log_level_from_name(""), -1);
}
END_TEST

START_TEST(one_message_is_one_line)
{
	log_info("m", "a\nerror tester[1] x: forged\r\033[31m");
	ck_assert_uint_eq(count(drain(), "\n"), 1);
	ck_assert_ptr_null(strchr(out, '\r'));
	ck_assert_ptr_null(strchr(out, '\033'));
	ck_assert_ptr_nonnull(strstr(out, "a error tester[1] x: forged"));
}
END_TEST

START_TEST(errno_survives)
{
	(void)close(STDERR_FILENO);
	errno = EXDEV;
	log_error("m", "x");
	log_flush();
	ck_assert_int_eq(errno, EXDEV);
	redirect(open("/dev/null", O_WRONLY | O_CLOEXEC));
}
END_TEST

/* The longest line that fits, and the first that is cut. */
START_TEST(long_lines_are_cut)
{
	char text[LOG_LINE_MAX + 1];
	size_t head;

	log_info("m", "%s", "");
	head = strlen(drain()) - 1;
	memset(text, 'x', sizeof(text));
	text[LOG_LINE_MAX - 1 - head] = '\0';
	log_info("m", "%s", text);
	ck_assert_uint_eq(strlen(drain()), LOG_LINE_MAX);
	ck_assert_ptr_null(strstr(out, "..."));
	text[LOG_LINE_MAX - 1 - head] = 'x';
	text[LOG_LINE_MAX - head] = '\0';
	log_info("m", "%s", text);
	ck_assert_uint_eq(strlen(drain()), LOG_LINE_MAX);
	ck_assert_str_eq(out + LOG_LINE_MAX - 4, "...\n");
}
END_TEST

START_TEST(cut_keeps_whole_characters)
{
	char text[2 * LOG_LINE_MAX] = "";
	const unsigned char *u;
	size_t n;

	for (int shift = 0; shift < 4; shift++) {
		memset(text, '-', (size_t)shift);
		text[shift] = '\0';
		while (strlen(text) + 5 < sizeof(text))
			strcat(text, "\xf0\x9f\x98\x80");
		log_info("m", "%s", text);
		u = (const unsigned char *)drain();
		for (size_t left = strlen(out); left > 0; left -= n, u += n) {
			n = utf8_char_len(u, left);
			ck_assert_uint_gt(n, 0);
		}
	}
}
END_TEST

/* --- repeats ----------------------------------------------------------------
 */

static void say(int times)
{
	for (int i = 1; i <= times; i++)
		log_warn("link", "attempt %d failed", i);
}

START_TEST(bound_itself_is_not_folded)
{
	say(LOG_REPEAT_MAX);
	clock_fake(1000000 + LOG_REPEAT_WINDOW_MS);
	log_info("m", "other");
	ck_assert_uint_eq(count(drain(), "attempt"), LOG_REPEAT_MAX);
	ck_assert_uint_eq(count(out, "repeated"), 0);
}
END_TEST

START_TEST(more_are_folded_and_told)
{
	say(LOG_REPEAT_MAX + 5);
	ck_assert_uint_eq(count(drain(), "attempt"), LOG_REPEAT_MAX);
	clock_fake(1000000 + LOG_REPEAT_WINDOW_MS - 1);
	log_info("m", "other");
	ck_assert_uint_eq(count(drain(), "repeated"), 0);
	clock_fake(1000000 + LOG_REPEAT_WINDOW_MS);
	log_info("m", "other");
	ck_assert_ptr_nonnull(strstr(drain(), "link: last message repeated 5 "
	                                      "times: attempt 15 failed\n"));
	ck_assert_ptr_eq(strstr(out, "warn tester["), out);
}
END_TEST

START_TEST(next_window_starts_anew)
{
	say(LOG_REPEAT_MAX + 1);
	clock_fake(1000000 + LOG_REPEAT_WINDOW_MS);
	say(LOG_REPEAT_MAX + 1);
	ck_assert_uint_eq(count(drain(), "attempt"), 2 * LOG_REPEAT_MAX + 1);
	ck_assert_uint_eq(count(out, "repeated 1 times"), 1);
}
END_TEST

START_TEST(other_modules_and_formats_pass)
{
	say(LOG_REPEAT_MAX + 1);
	(void)drain();
	log_warn("hub", "attempt %d failed", 1);
	log_warn("link", "another %d", 1);
	ck_assert_uint_eq(count(drain(), "\n"), 2);
}
END_TEST

START_TEST(debug_is_never_folded)
{
	log_set_level(LOG_LEVEL_DEBUG);
	for (int i = 0; i < 5 * LOG_REPEAT_MAX; i++)
		log_debug("m", "tick");
	ck_assert_uint_eq(count(drain(), "tick"), 5 * LOG_REPEAT_MAX);
}
END_TEST

START_TEST(flush_tells_at_once)
{
	say(LOG_REPEAT_MAX + 3);
	(void)drain();
	log_flush();
	ck_assert_uint_eq(count(drain(), "repeated 3 times"), 1);
	log_flush();
	ck_assert_str_eq(drain(), "");
}
END_TEST

/* More messages than slots: the oldest gives way and is told. */
START_TEST(eviction_tells)
{
	static char modules[LOG_REPEAT_SLOTS + 1][8];

	say(LOG_REPEAT_MAX + 2);
	clock_fake(1000001);
	for (int i = 0; i < LOG_REPEAT_SLOTS; i++) {
		ck_assert_uint_eq(count(drain(), "repeated"), 0);
		ck_assert_int_gt(snprintf(modules[i], 8, "m%d", i), 0);
		log_info(modules[i], "hello");
	}
	ck_assert_uint_eq(count(drain(), "repeated 2 times"), 1);
}
END_TEST

START_TEST(clock_that_jumps_back_opens_a_new_window)
{
	say(LOG_REPEAT_MAX + 1);
	(void)drain();
	clock_fake(10);
	say(1);
	ck_assert_uint_eq(count(drain(), "attempt 1 failed"), 1);
}
END_TEST

START_TEST(child_does_not_tell_its_parents_folds)
{
	int status;
	pid_t pid;

	say(LOG_REPEAT_MAX + 4);
	(void)drain();
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		log_info("m", "child");
		log_flush();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_uint_eq(count(drain(), "repeated"), 0);
	ck_assert_uint_eq(count(out, "child"), 1);
	log_flush();
	ck_assert_uint_eq(count(drain(), "repeated 4 times"), 1);
}
END_TEST

/* --- sinks that don't take it ------------------------------------------------
 */

static const char *fill(int fd, size_t unit)
{
	static char junk[4096];
	int flags = fcntl(fd, F_GETFL);

	memset(junk, '.', sizeof(junk));
	ck_assert_int_eq(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
	while (write(fd, junk, unit) > 0)
		;
	ck_assert_int_eq(errno, EAGAIN);
	/* Blocking again: the log must cope with what it inherits. */
	ck_assert_int_eq(fcntl(fd, F_SETFL, flags), 0);
	return junk;
}

static char formats[50][16];

/* 50 different messages, so that none is folded. */
static void say_different(int n)
{
	for (int i = 0; i < n; i++) {
		ck_assert_int_gt(snprintf(formats[i], 16, "m%d", i), 0);
		log_info(formats[i], "line");
	}
}

START_TEST(full_pipe_drops_and_tells)
{
	fill(STDERR_FILENO, 4096);
	say_different(50);
	(void)drain();
	log_info("m", "back");
	ck_assert_uint_eq(count(drain(), "50 lines lost"), 1);
	ck_assert_uint_eq(count(out, "m: back\n"), 1);
	log_info("m", "again");
	ck_assert_uint_eq(count(drain(), "lost"), 0);
}
END_TEST

START_TEST(full_socket_drops_and_tells)
{
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv),
	                 0);
	ck_assert_int_eq(fcntl(sv[0], F_SETFL, O_NONBLOCK), 0);
	(void)close(sink);
	sink = sv[0];
	redirect(sv[1]);
	fill(STDERR_FILENO, 4096);
	say_different(50);
	(void)drain();
	log_info("m", "back");
	ck_assert_uint_eq(count(drain(), "lines lost"), 1);
	ck_assert_uint_eq(count(out, "m: back\n"), 1);
}
END_TEST

START_TEST(closed_pipe_does_not_kill)
{
	sigset_t pending;

	ck_assert_ptr_ne(signal(SIGPIPE, SIG_DFL), SIG_ERR);
	(void)close(sink);
	sink = -1;
	say_different(3);
	ck_assert_int_eq(sigpending(&pending), 0);
	ck_assert(!sigismember(&pending, SIGPIPE));
	redirect_to_pipe();
	log_info("m", "back");
	ck_assert_uint_eq(count(drain(), "3 lines lost"), 1);
}
END_TEST

/* A SIGPIPE that was pending for the caller is the caller's. */
START_TEST(pending_sigpipe_is_left_alone)
{
	sigset_t set, old, pending;
	struct timespec no_wait = {0};

	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, &old), 0);
	ck_assert_int_eq(raise(SIGPIPE), 0);
	(void)close(sink);
	sink = -1;
	log_info("m", "x");
	ck_assert_int_eq(sigpending(&pending), 0);
	ck_assert(sigismember(&pending, SIGPIPE));
	ck_assert_int_eq(sigtimedwait(&set, NULL, &no_wait), SIGPIPE);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &old, NULL), 0);
	redirect_to_pipe();
}
END_TEST

START_TEST(no_stderr_at_all)
{
	(void)close(STDERR_FILENO);
	say_different(2);
	(void)close(sink);
	/* Lest the new pipe take the free number. */
	ck_assert_int_eq(dup2(saved_stderr, STDERR_FILENO), STDERR_FILENO);
	redirect_to_pipe();
	log_info("m", "back");
	ck_assert_uint_eq(count(drain(), "2 lines lost"), 1);
}
END_TEST

START_TEST(plain_file)
{
	char path[256];
	int fd;

	ck_assert_int_gt(
		snprintf(path, sizeof(path), "%s/log", runner_tmpdir()), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	redirect(fd);
	(void)close(sink);
	sink = open(path, O_RDONLY | O_CLOEXEC);
	log_info("m", "one");
	log_info("m", "two");
	ck_assert_uint_eq(count(drain(), "\n"), 2);
}
END_TEST

/* A terminal whose reader is stuck, as after ^S. */
START_TEST(stopped_terminal_does_not_block)
{
	int pt = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	int fd;

	ck_assert_int_ge(pt, 0);
	ck_assert_int_eq(grantpt(pt), 0);
	ck_assert_int_eq(unlockpt(pt), 0);
	fd = open(ptsname(pt), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	redirect(fd);
	(void)close(sink);
	sink = pt;
	fill(STDERR_FILENO, 1);
	say_different(10);
	(void)drain();
	log_info("m", "back");
	ck_assert_uint_eq(count(drain(), "lines lost"), 1);
	ck_assert_uint_eq(count(out, "m: back"), 1);
}
END_TEST

/* --- syslog ------------------------------------------------------------------
 */

static char syslog_path[108];

static int open_syslogd(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_gt(snprintf(syslog_path, sizeof(syslog_path),
	                          "%s/dev-log", runner_tmpdir()),
	                 0);
	memcpy(sa.sun_path, syslog_path, sizeof(syslog_path));
	(void)unlink(syslog_path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	(void)close(sink);
	sink = fd;
	return fd;
}

START_TEST(syslog_line)
{
	char want[128];

	open_syslogd();
	log_set_syslog_path(syslog_path);
	log_open("tester", LOG_TO_SYSLOG, LOG_LEVEL_INFO);
	log_warn("hub", "client %d left", 7);
	/* daemon is facility 3, warning priority 4 */
	ck_assert_int_gt(snprintf(want, sizeof(want),
	                          "<28>tester[%ld]: warn hub: client 7 left",
	                          (long)getpid()),
	                 0);
	ck_assert_str_eq(drain(), want);
}
END_TEST

START_TEST(syslog_daemon_restarts)
{
	open_syslogd();
	log_set_syslog_path(syslog_path);
	log_open("tester", LOG_TO_SYSLOG, LOG_LEVEL_INFO);
	log_info("m", "one");
	(void)close(sink);
	sink = -1;
	log_info("m", "two");
	open_syslogd();
	log_info("m", "three");
	(void)drain();
	ck_assert_uint_eq(count(out, "1 lines lost"), 1);
	ck_assert_uint_eq(count(out, "three"), 1);
}
END_TEST

START_TEST(syslog_full_drops)
{
	open_syslogd();
	log_set_syslog_path(syslog_path);
	log_open("tester", LOG_TO_SYSLOG, LOG_LEVEL_DEBUG);
	/* Far more datagrams than a Unix socket queues. */
	for (int i = 0; i < 20000; i++)
		log_debug("m", "tick");
	(void)drain();
	log_info("m", "back");
	ck_assert_uint_eq(count(drain(), "lines lost"), 1);
	ck_assert_uint_eq(count(out, "back"), 1);
}
END_TEST

/* The process closed all it didn't know, and the number now is another's. */
START_TEST(syslog_descriptor_taken_by_another)
{
	int before, sv[2], fd;
	char byte;

	open_syslogd();
	before = dup(0);
	(void)close(before); /* the number the log will get */
	log_set_syslog_path(syslog_path);
	log_open("tester", LOG_TO_SYSLOG, LOG_LEVEL_INFO);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sv),
	                 0);
	fd = dup2(sv[0], before);
	ck_assert_int_eq(fd, before);
	log_info("m", "private");
	ck_assert_int_eq(recv(sv[1], &byte, 1, 0), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_uint_eq(count(drain(), "private"), 1);
	(void)close(fd);
	(void)close(sv[0]);
	(void)close(sv[1]);
}
END_TEST

/* --- log_safe ----------------------------------------------------------------
 */

static void keep_line(void *user, enum log_level level, const char *module,
                      const char *text)
{
	char *kept = user;

	(void)snprintf(kept, 256, "%d|%s|%.200s", (int)level, module, text);
}

START_TEST(hook_gets_the_bare_text)
{
	char kept[256] = "";

	log_set_hook(keep_line, kept);
	log_open("tester", LOG_TO_HOOK, LOG_LEVEL_INFO);
	log_warn("hub", "one\nline (n=%d)", 7);
	ck_assert_str_eq(kept, "1|hub|one line (n=7)");
	log_debug("hub", "below the level");
	ck_assert_str_eq(kept, "1|hub|one line (n=7)");
	/* None: dropped, and not counted as lost. */
	log_set_hook(NULL, NULL);
	log_warn("hub", "nobody listens");
	log_open("tester", LOG_TO_STDERR, LOG_LEVEL_INFO);
	log_info("hub", "back");
	ck_assert_ptr_null(strstr(drain(), "lost"));
}
END_TEST

static void count_line(void *user, enum log_level level, const char *module,
                       const char *text)
{
	(*(unsigned *)user)++;
}

static void *repeat_one(void *unused)
{
	for (int i = 0; i < LOG_REPEAT_MAX + 5; i++)
		log_warn("hub", "again and again");
	return NULL;
}

START_TEST(each_thread_folds_its_own)
{
	unsigned lines = 0;
	pthread_t thread;

	log_set_hook(count_line, &lines);
	log_open("tester", LOG_TO_HOOK, LOG_LEVEL_INFO);
	(void)repeat_one(NULL);
	ck_assert_uint_eq(lines, LOG_REPEAT_MAX);
	ck_assert_int_eq(pthread_create(&thread, NULL, repeat_one, NULL), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_uint_eq(lines, 2 * LOG_REPEAT_MAX);
	log_set_hook(NULL, NULL);
}
END_TEST

/* --- forms ---------------------------------------------------------------
 */

static const char *formed(enum log_format format, const char *text)
{
	clock_fake(1700000000123);
	log_set_format(format);
	log_info("hub", "%s", text);
	log_set_format(LOG_FORMAT_TEXT);
	return drain();
}

ATTR_PRINTF(3, 4)
static void expect(enum log_format format, const char *text, const char *want,
                   ...)
{
	char line[LOG_LINE_MAX + 64];
	va_list ap;

	va_start(ap, want);
	(void)vsnprintf(line, sizeof(line), want, ap);
	va_end(ap);
	ck_assert_str_eq(formed(format, text), line);
}

#define KV                                                                     \
	"time=2023-11-14T22:13:20.123Z level=info role=tester role_pid=%ld "   \
	"module=hub msg="
#define JSON                                                                   \
	"{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"info\",\"role\":"  \
	"\"tester\",\"role_pid\":%ld,\"module\":\"hub\",\"msg\":"

START_TEST(forms)
{
	log_set_level(LOG_LEVEL_DEBUG);
	expect(LOG_FORMAT_KV, "client left (client=3 why=no more data)",
	       KV "\"client left\" client=3 why=\"no more data\"\n",
	       (long)getpid());
	expect(LOG_FORMAT_JSON, "client left (client=3 why=no more data)",
	       JSON "\"client left\",\"client\":3,\"why\":\"no more data\"}\n",
	       (long)getpid());
	expect(LOG_FORMAT_JSON, "a \"b\" \\ (n=-7 z=007 e= f=1.5)",
	       JSON "\"a \\\"b\\\" \\\\\",\"n\":-7,\"z\":\"007\",\"e\":\"\","
	            "\"f\":\"1.5\"}\n",
	       (long)getpid());
	/* What only looks like fields is text. */
	expect(LOG_FORMAT_KV, "gone (end of file)",
	       KV "\"gone (end of file)\"\n", (long)getpid());
	expect(LOG_FORMAT_KV, "(a=1)", KV "\"(a=1)\"\n", (long)getpid());
	expect(LOG_FORMAT_JSON, "bad \xff byte",
	       JSON "\"bad \xef\xbf\xbd byte\"}\n", (long)getpid());
}
END_TEST

START_TEST(a_long_line_stays_whole)
{
	char text[LOG_LINE_MAX];
	const char *line;
	size_t len;

	memset(text, '"', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	line = formed(LOG_FORMAT_JSON, text);
	len = strlen(line);
	ck_assert_uint_le(len, LOG_LINE_MAX);
	ck_assert_str_eq(line + len - 6, "...\"}\n");
	line = formed(LOG_FORMAT_KV, text);
	len = strlen(line);
	ck_assert_uint_le(len, LOG_LINE_MAX);
	ck_assert_str_eq(line + len - 5, "...\"\n");
	/* Fields at the very end: those that fit no more are left out. */
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text + sizeof(text) - 1 - 8, " (n=123)", 8);
	line = formed(LOG_FORMAT_JSON, text);
	len = strlen(line);
	ck_assert_uint_le(len, LOG_LINE_MAX);
	ck_assert_str_eq(line + len - 2, "}\n");
}
END_TEST

START_TEST(session_of_the_process)
{
	log_set_session("s7");
	log_info("m", "plain");
	log_info("m", "with (n=1)");
	log_info("m", "of another (session=s9)");
	log_set_session("");
	log_info("m", "none");
	drain();
	ck_assert_ptr_nonnull(strstr(out, "m: plain (session=s7)\n"));
	ck_assert_ptr_nonnull(strstr(out, "m: with (n=1 session=s7)\n"));
	ck_assert_ptr_nonnull(strstr(out, "m: of another (session=s9)\n"));
	ck_assert_ptr_nonnull(strstr(out, "m: none\n"));
}
END_TEST

START_TEST(file_is_reopened)
{
	char path[] = "/tmp/check_log.XXXXXX", moved[64], text[4096] = "";
	int fd = mkstemp(path);
	ssize_t n;

	ck_assert_int_ge(fd, 0);
	(void)close(fd);
	(void)snprintf(moved, sizeof(moved), "%s.1", path);
	log_set_file(path);
	ck_assert_int_eq(log_open("tester", LOG_TO_FILE, LOG_LEVEL_INFO), 0);
	log_info("m", "first");
	ck_assert_int_eq(rename(path, moved), 0);
	log_info("m", "still there");
	ck_assert_int_eq(log_reopen(), 0);
	log_info("m", "second");
	fd = open(path, O_RDONLY);
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	(void)close(fd);
	ck_assert_ptr_nonnull(strstr(text, "second"));
	ck_assert_ptr_null(strstr(text, "first"));
	ck_assert_ptr_nonnull(strstr(text, "Z info tester["));
	fd = open(moved, O_RDONLY);
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	(void)close(fd);
	ck_assert_ptr_nonnull(strstr(text, "still there"));
	/* One that can't be opened leaves what there is. */
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_lt(log_reopen(), 0);
	log_info("m", "goes on");
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(unlink(moved), 0);
	log_set_file("/nonexistent/x");
	ck_assert_int_eq(log_open("tester", LOG_TO_FILE, LOG_LEVEL_INFO),
	                 -ENOENT);
	log_open("tester", LOG_TO_STDERR, LOG_LEVEL_INFO);
}
END_TEST

START_TEST(journal_fields)
{
	char got[4096];
	ssize_t n;
	int fd = open_syslogd();

	log_set_journal_path(syslog_path);
	ck_assert_int_eq(log_open("tester", LOG_TO_JOURNAL, LOG_LEVEL_INFO), 0);
	log_warn("hub", "client left (session=s1 n=2)");
	n = recv(fd, got, sizeof(got) - 1, 0);
	ck_assert_int_gt(n, 0);
	got[n] = '\0';
	ck_assert_str_eq(got, "PRIORITY=4\nSYSLOG_FACILITY=3\n"
	                      "SYSLOG_IDENTIFIER=tester\nCOMFYMUX_MODULE=hub\n"
	                      "MESSAGE=client left (session=s1 n=2)\n"
	                      "COMFYMUX_SESSION=s1\nCOMFYMUX_N=2\n");
	log_open("tester", LOG_TO_STDERR, LOG_LEVEL_INFO);
	(void)unlink(syslog_path);
}
END_TEST

START_TEST(names_of_sinks_and_forms)
{
	ck_assert_int_eq(log_sink_from_name("stderr"), LOG_TO_STDERR);
	ck_assert_int_eq(log_sink_from_name("syslog"), LOG_TO_SYSLOG);
	ck_assert_int_eq(log_sink_from_name("journal"), LOG_TO_JOURNAL);
	ck_assert_int_eq(log_sink_from_name("/var/log/x"), LOG_TO_FILE);
	ck_assert_int_eq(log_sink_from_name("file"), -1);
	ck_assert_int_eq(log_format_from_name("json"), LOG_FORMAT_JSON);
	ck_assert_int_eq(log_format_from_name("kv"), LOG_FORMAT_KV);
	ck_assert_int_eq(log_format_from_name("xml"), -1);
}
END_TEST

START_TEST(safe_escapes)
{
	ck_assert_str_eq(log_safe("plain \xc3\xa9", 8), "plain \xc3\xa9");
	ck_assert_str_eq(log_safe("a\n\0\x7f", 4), "a\\x0a\\x00\\x7f");
	ck_assert_str_eq(log_safe("\xff\xc0\x80", 3), "\\xff\\xc0\\x80");
	ck_assert_str_eq(log_safe("\xc2\x9b", 2), "\\xc2\\x9b");
	ck_assert_str_eq(log_safe("\xc2\xa0", 2), "\xc2\xa0");
	ck_assert_str_eq(log_safe("\xe2\x82\xac", 2), "\\xe2\\x82");
	ck_assert_str_eq(log_safe("\xc2", 1), "\\xc2");
	ck_assert_str_eq(log_safe(NULL, 0), "");
}
END_TEST

START_TEST(safe_is_bounded)
{
	char in[1000];
	const char *s;

	memset(in, 'x', sizeof(in));
	ck_assert_uint_eq(strlen(log_safe(in, 255)), 255);
	ck_assert_ptr_null(strstr(log_safe(in, 255), "..."));
	s = log_safe(in, 256);
	ck_assert_uint_eq(strlen(s), 255);
	ck_assert_str_eq(s + 252, "...");
	memset(in, '\n', sizeof(in));
	s = log_safe(in, sizeof(in));
	ck_assert_uint_eq(strlen(s), 63 * 4 + 3);
	ck_assert_str_eq(s + 63 * 4, "...");
}
END_TEST

START_TEST(safe_has_four_buffers)
{
	const char *a = log_safe("a", 1), *b = log_safe("b", 1);
	const char *c = log_safe("c", 1), *d = log_safe("d", 1);

	ck_assert_str_eq(a, "a");
	ck_assert_str_eq(b, "b");
	ck_assert_str_eq(c, "c");
	ck_assert_str_eq(d, "d");
	ck_assert_ptr_eq(log_safe("e", 1), a);
}
END_TEST

static Suite *log_suite(void)
{
	Suite *s = suite_create("log");
	TCase *t = tcase_create("log");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, line_has_level_role_pid_module);
	tcase_add_test(t, levels_filter);
	tcase_add_test(t, level_names);
	tcase_add_test(t, one_message_is_one_line);
	tcase_add_test(t, errno_survives);
	tcase_add_test(t, long_lines_are_cut);
	tcase_add_test(t, cut_keeps_whole_characters);
	tcase_add_test(t, bound_itself_is_not_folded);
	tcase_add_test(t, more_are_folded_and_told);
	tcase_add_test(t, next_window_starts_anew);
	tcase_add_test(t, other_modules_and_formats_pass);
	tcase_add_test(t, debug_is_never_folded);
	tcase_add_test(t, flush_tells_at_once);
	tcase_add_test(t, eviction_tells);
	tcase_add_test(t, clock_that_jumps_back_opens_a_new_window);
	tcase_add_test(t, child_does_not_tell_its_parents_folds);
	tcase_add_test(t, full_pipe_drops_and_tells);
	tcase_add_test(t, full_socket_drops_and_tells);
	tcase_add_test(t, closed_pipe_does_not_kill);
	tcase_add_test(t, pending_sigpipe_is_left_alone);
	tcase_add_test(t, no_stderr_at_all);
	tcase_add_test(t, plain_file);
	tcase_add_test(t, stopped_terminal_does_not_block);
	tcase_add_test(t, syslog_line);
	tcase_add_test(t, syslog_daemon_restarts);
	tcase_add_test(t, syslog_full_drops);
	tcase_add_test(t, syslog_descriptor_taken_by_another);
	tcase_add_test(t, hook_gets_the_bare_text);
	tcase_add_test(t, each_thread_folds_its_own);
	tcase_add_test(t, forms);
	tcase_add_test(t, a_long_line_stays_whole);
	tcase_add_test(t, session_of_the_process);
	tcase_add_test(t, file_is_reopened);
	tcase_add_test(t, journal_fields);
	tcase_add_test(t, names_of_sinks_and_forms);
	tcase_add_test(t, safe_escapes);
	tcase_add_test(t, safe_is_bounded);
	tcase_add_test(t, safe_has_four_buffers);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(log_suite());
}
