/*
 * log.c - see log.h.
 *
 * stderr belongs to others too, so it can't be made non-blocking: a pipe gets
 * RWF_NOWAIT (or a poll first, where the kernel doesn't know that), a socket
 * MSG_DONTWAIT, a terminal is opened anew for the line. syslog(3) blocks when
 * the daemon at the other end hangs, hence the small client of our own.
 */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/utf8.h"

#define SAFE_MAX     256 /* bytes of one log_safe() text */
#define SAFE_BUFFERS 4
#define REPEAT_TEXT  128 /* bytes kept of a folded message */
#define ELLIPSIS     "..."

static const struct {
	const char *name;
	int priority;
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", LOG_DAEMON | LOG_ERR},
	[LOG_LEVEL_WARN] = {"warn", LOG_DAEMON | LOG_WARNING},
	[LOG_LEVEL_INFO] = {"info", LOG_DAEMON | LOG_INFO},
	[LOG_LEVEL_DEBUG] = {"debug", LOG_DAEMON | LOG_DEBUG},
};
STATIC_ASSERT_ARRAY_SIZE(levels, LOG_LEVEL_COUNT);

/* One message that is watched for repeats. */
struct repeat {
	const char *module, *fmt; /* fmt NULL: free */
	enum log_level level;
	int64_t since_ms;       /* start of the window */
	uint64_t count;         /* written or folded in the window */
	uint64_t folded;        /* of these, not written */
	char text[REPEAT_TEXT]; /* the last one folded */
};

static struct {
	const char *role;
	enum log_sink sink;
	enum log_level level;
	log_hook *hook;
	void *hook_user;
	const char *syslog_path;
	int syslog_fd;
	dev_t syslog_dev; /* these two tell whether the number still is ours */
	ino_t syslog_ino;
	bool sealed; /* nothing can be opened */
	bool torn;   /* the last line came through in part */
} state = {
	.role = "comfymux",
	.sink = LOG_TO_STDERR,
	.level = LOG_LEVEL_INFO,
	.syslog_path = "/dev/log",
	.syslog_fd = -1,
};

/* What is counted is each thread's own: with a hook, several may log. */
static _Thread_local struct {
	uint64_t lost;
	pid_t pid; /* whose repeats these are */
	struct repeat repeats[LOG_REPEAT_SLOTS];
} counted;

/* --- sinks: each returns bytes written or a negative errno ---------------- */

static ssize_t result(ssize_t n)
{
	return n < 0 ? -errno : n;
}

static ssize_t write_when_ready(const char *line, size_t len)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	/* A pipe that polls writable has room for PIPE_BUF bytes, more than a
	 * line; a second writer may still be quicker, which RWF_NOWAIT rules
	 * out where it works. */
	if (poll(&p, 1, 0) != 1)
		return -EAGAIN;
	return result(write(STDERR_FILENO, line, len));
}

/* EPIPE comes with a signal that would end the process. */
static ssize_t write_pipe(const char *line, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)line, len};
	struct timespec no_wait = {0};
	sigset_t sigpipe, before, pending;
	ssize_t n;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	sigemptyset(&pending);
	(void)sigpending(&pending);
	(void)pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
	n = result(pwritev2(STDERR_FILENO, &iov, 1, -1, RWF_NOWAIT));
	if (n < 0 && n != -EAGAIN && n != -EPIPE && n != -EBADF)
		n = write_when_ready(line, len);
	if (n == -EPIPE && !sigismember(&pending, SIGPIPE))
		(void)sigtimedwait(&sigpipe, NULL, &no_wait);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

static ssize_t write_terminal(const char *line, size_t len)
{
	ssize_t n;
	int fd = -1;

	if (!state.sealed)
		fd = open("/proc/self/fd/2",
		          O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return write_when_ready(line, len);
	n = result(write(fd, line, len));
	(void)close(fd);
	return n;
}

static ssize_t write_stderr(const char *line, size_t len)
{
	struct stat st;

	/* Asked anew for each line: stderr may be redirected at any time. */
	if (fstat(STDERR_FILENO, &st) < 0)
		return -errno;
	if (S_ISFIFO(st.st_mode))
		return write_pipe(line, len);
	if (S_ISSOCK(st.st_mode))
		return result(send(STDERR_FILENO, line, len,
		                   MSG_DONTWAIT | MSG_NOSIGNAL));
	if (S_ISCHR(st.st_mode) && isatty(STDERR_FILENO))
		return write_terminal(line, len);
	return result(write(STDERR_FILENO, line, len));
}

static int syslog_connect(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r;

	if (strlen(state.syslog_path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, state.syslog_path, strlen(state.syslog_path));
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    fstat(fd, &st) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	state.syslog_fd = fd;
	state.syslog_dev = st.st_dev;
	state.syslog_ino = st.st_ino;
	return 0;
}

/* False if the descriptor was closed behind our back, as those do who close
 * all they don't know; the number may mean somebody else's socket by now. */
static bool syslog_is_ours(void)
{
	struct stat st;

	return state.syslog_fd >= 0 && fstat(state.syslog_fd, &st) == 0 &&
	       st.st_dev == state.syslog_dev && st.st_ino == state.syslog_ino;
}

static ssize_t write_syslog(enum log_level level, const char *line, size_t len)
{
	char head[96];
	struct iovec iov[2] = {{head, 0}, {(void *)(uintptr_t)line, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n = -ENOTCONN;
	int r;

	/* No time stamp: the daemon puts its own, and one from here would need
	 * the time zone file. */
	r = snprintf(head, sizeof(head),
	             "<%d>%.32s[%ld]: ", levels[level].priority, state.role,
	             (long)getpid());
	if (r < 0)
		return -EINVAL;
	iov[0].iov_len = (size_t)r;
	if (syslog_is_ours()) {
		n = result(sendmsg(state.syslog_fd, &msg,
		                   MSG_DONTWAIT | MSG_NOSIGNAL));
		if (n >= 0 || n == -EAGAIN || n == -ENOBUFS)
			return n < 0 ? n : (ssize_t)len;
		(void)close(state.syslog_fd);
	}
	/* The daemon was restarted, or this is the first line. */
	state.syslog_fd = -1;
	r = syslog_connect();
	if (r < 0)
		return r;
	n = result(sendmsg(state.syslog_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
	return n < 0 ? n : (ssize_t)len;
}

/* --- lines -----------------------------------------------------------------
 */

/* Appends to a line of `len` bytes; returns the new length, at most
 * LOG_LINE_MAX - 1 so that the newline has room. */
ATTR_PRINTF(3, 0)
static size_t append_va(char line[LOG_LINE_MAX], size_t len, const char *fmt,
                        va_list ap)
{
	size_t max = LOG_LINE_MAX - 1, end;
	int n = vsnprintf(line + len, LOG_LINE_MAX - len, fmt, ap);

	if (n < 0)
		return len;
	if ((size_t)n <= max - len)
		return len + (size_t)n;
	/* Cut, not in the midst of a character. */
	end = max - strlen(ELLIPSIS);
	for (int i = 0; i < 3 && ((unsigned char)line[end] & 0xc0) == 0x80; i++)
		end--;
	memcpy(line + end, ELLIPSIS, strlen(ELLIPSIS));
	return end + strlen(ELLIPSIS);
}

ATTR_PRINTF(3, 4)
static size_t append(char line[LOG_LINE_MAX], size_t len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	len = append_va(line, len, fmt, ap);
	va_end(ap);
	return len;
}

/* `level role[pid] module: `; syslog has role and pid in its own head, a hook
 * is told level and module apart. */
static size_t begin_line(char line[LOG_LINE_MAX], enum log_level level,
                         const char *module)
{
	if (state.sink == LOG_TO_HOOK)
		return 0;
	if (state.sink == LOG_TO_SYSLOG)
		return append(line, 0, "%s %.32s: ", levels[level].name,
		              module);
	return append(line, 0, "%s %.32s[%ld] %.32s: ", levels[level].name,
	              state.role, (long)getpid(), module);
}

/* True if the line reached the sink, at least its beginning. */
static bool send_line(enum log_level level, const char *module,
                      char line[LOG_LINE_MAX], size_t len)
{
	ssize_t n;

	/* One message is one line, whatever its text holds. */
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = ' ';
	}
	if (state.sink == LOG_TO_SYSLOG)
		return write_syslog(level, line, len) >= 0;
	if (state.sink == LOG_TO_HOOK) {
		line[len] = '\0';
		if (state.hook)
			state.hook(state.hook_user, level, module, line);
		return true;
	}
	line[len++] = '\n';
	if (state.torn) {
		/* A lone newline can't be cut in two. */
		if (write_stderr("\n", 1) != 1)
			return false;
		state.torn = false;
	}
	n = write_stderr(line, len);
	if (n < 0)
		return false;
	state.torn = (size_t)n < len;
	return true;
}

static void report_lost(void)
{
	char line[LOG_LINE_MAX];
	size_t len;

	if (counted.lost == 0)
		return;
	len = begin_line(line, LOG_LEVEL_WARN, "log");
	len = append(line, len, "%llu lines lost, the log was full or closed",
	             (unsigned long long)counted.lost);
	if (send_line(LOG_LEVEL_WARN, "log", line, len))
		counted.lost = 0;
}

static void put_line(enum log_level level, const char *module,
                     char line[LOG_LINE_MAX], size_t len)
{
	report_lost();
	if (!send_line(level, module, line, len))
		counted.lost++;
}

/* --- repeats ---------------------------------------------------------------
 */

static void report_repeat(struct repeat *r)
{
	char line[LOG_LINE_MAX];
	size_t len;

	if (r->fmt && r->folded > 0) {
		len = begin_line(line, r->level, r->module);
		len = append(line, len, "last message repeated %llu times: %s",
		             (unsigned long long)r->folded, r->text);
		put_line(r->level, r->module, line, len);
	}
	r->fmt = NULL;
}

static bool is_repeat_of(const struct repeat *r, const char *module,
                         const char *fmt)
{
	return r->fmt && strcmp(r->fmt, fmt) == 0 &&
	       strcmp(r->module, module) == 0;
}

/* The slot of the message; a free one, else the one whose window is oldest,
 * if it isn't watched yet. Closes the windows that are over. */
static struct repeat *find_repeat(const char *module, const char *fmt,
                                  int64_t now_ms)
{
	struct repeat *r, *found = NULL, *oldest = &counted.repeats[0];

	for (size_t i = 0; i < LOG_REPEAT_SLOTS; i++) {
		r = &counted.repeats[i];
		if (r->fmt && (now_ms - r->since_ms >= LOG_REPEAT_WINDOW_MS ||
		               now_ms < r->since_ms))
			report_repeat(r);
		if (is_repeat_of(r, module, fmt))
			found = r;
		else if (oldest->fmt &&
		         (!r->fmt || r->since_ms < oldest->since_ms))
			oldest = r;
	}
	if (found)
		return found;
	report_repeat(oldest);
	return oldest;
}

static bool is_folded(enum log_level level, const char *module, const char *fmt,
                      const char *text, size_t len)
{
	int64_t now_ms = clock_ms();
	struct repeat *r;

	r = find_repeat(module, fmt, now_ms);
	if (!r->fmt)
		*r = (struct repeat){.module = module,
		                     .fmt = fmt,
		                     .level = level,
		                     .since_ms = now_ms};
	if (++r->count <= LOG_REPEAT_MAX)
		return false;
	r->folded++;
	if (len >= sizeof(r->text))
		len = sizeof(r->text) - 1;
	while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
		len--;
	memcpy(r->text, text, len);
	r->text[len] = '\0';
	return true;
}

/* What the parent folded or lost is the parent's to tell. */
static void forget_parent(void)
{
	pid_t pid = getpid();

	if (counted.pid == pid)
		return;
	memset(counted.repeats, 0, sizeof(counted.repeats));
	counted.lost = 0;
	counted.pid = pid;
}

/* --- interface -------------------------------------------------------------
 */

void log_open(const char *role, enum log_sink sink, enum log_level level)
{
	int saved_errno = errno;

	if (syslog_is_ours())
		(void)close(state.syslog_fd);
	state.syslog_fd = -1;
	state.role = role;
	state.sink = sink;
	state.level = level;
	/* Now, while the process may still open things; should the daemon not
	 * run yet, the first line tries again. */
	if (sink == LOG_TO_SYSLOG)
		(void)syslog_connect();
	errno = saved_errno;
}

void log_set_hook(log_hook *hook, void *user)
{
	state.hook = hook;
	state.hook_user = user;
}

void log_set_syslog_path(const char *path)
{
	state.syslog_path = path;
}

void log_set_level(enum log_level level)
{
	state.level = level;
}

enum log_level log_get_level(void)
{
	return state.level;
}

int log_level_from_name(const char *name)
{
	for (int i = 0; i < LOG_LEVEL_COUNT; i++) {
		if (strcmp(levels[i].name, name) == 0)
			return i;
	}
	return -1;
}

void log_flush(void)
{
	int saved_errno = errno;

	forget_parent();
	for (size_t i = 0; i < LOG_REPEAT_SLOTS; i++)
		report_repeat(&counted.repeats[i]);
	report_lost();
	errno = saved_errno;
}

static size_t put_text(char *to, size_t len, size_t max, const char *text)
{
	while (*text && len < max)
		to[len++] = *text++;
	return len;
}

bool log_from_signal(enum log_level level, const char *text)
{
	char line[256], digits[12];
	size_t len = 0, n = sizeof(digits);
	unsigned pid = (unsigned)getpid();

	if (state.sink != LOG_TO_STDERR)
		return false;
	digits[--n] = '\0';
	do
		digits[--n] = (char)('0' + pid % 10);
	while ((pid /= 10) > 0);
	len = put_text(line, len, sizeof(line) - 1, levels[level].name);
	len = put_text(line, len, sizeof(line) - 1, " ");
	len = put_text(line, len, sizeof(line) - 1, state.role);
	len = put_text(line, len, sizeof(line) - 1, "[");
	len = put_text(line, len, sizeof(line) - 1, digits + n);
	len = put_text(line, len, sizeof(line) - 1, "] ");
	len = put_text(line, len, sizeof(line) - 1, text);
	line[len++] = '\n';
	return write_when_ready(line, len) == (ssize_t)len;
}

void log_seal(void)
{
	state.sealed = true;
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	int saved_errno = errno;
	size_t head, len;
	va_list ap;

	if (level > state.level || (state.sink == LOG_TO_HOOK && !state.hook))
		return;
	forget_parent();
	head = begin_line(line, level, module);
	va_start(ap, fmt);
	len = append_va(line, head, fmt, ap);
	va_end(ap);
	line[len] = '\0';
	if (level == LOG_LEVEL_DEBUG ||
	    !is_folded(level, module, fmt, line + head, len - head))
		put_line(level, module, line, len);
	errno = saved_errno;
}

/* Bytes of the printable character at `s`; 0 if it must be escaped. The range
 * U+0080 to U+009F holds control characters that terminals obey. */
static size_t printable_len(const unsigned char *s, size_t n)
{
	size_t len = utf8_char_len(s, n);

	if (s[0] < 0x20 || s[0] == 0x7f ||
	    (len == 2 && s[0] == 0xc2 && s[1] < 0xa0))
		return 0;
	return len;
}

const char *log_safe(const char *p, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	static _Thread_local char buffers[SAFE_BUFFERS][SAFE_MAX];
	static _Thread_local unsigned int next;
	const unsigned char *s = (const unsigned char *)p;
	char *out = buffers[next++ % SAFE_BUFFERS];
	size_t len = 0, cut = 0, i = 0, c, need;

	while (i < n) {
		c = printable_len(s + i, n - i);
		need = c ? c : 4;
		if (len + need > SAFE_MAX - 1) {
			/* `cut`: the last place that leaves room for dots. */
			memcpy(out + cut, ELLIPSIS, sizeof(ELLIPSIS));
			return out;
		}
		if (c) {
			memcpy(out + len, s + i, c);
		} else {
			out[len] = '\\';
			out[len + 1] = 'x';
			out[len + 2] = hex[s[i] >> 4];
			out[len + 3] = hex[s[i] & 15];
			c = 1;
		}
		i += c;
		len += need;
		if (len + strlen(ELLIPSIS) <= SAFE_MAX - 1)
			cut = len;
	}
	out[len] = '\0';
	return out;
}
