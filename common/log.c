/*
 * log.c - see log.h.
 * Levels, repeats and lost lines here; form in log_format.c, sinks in
 * log_sink.c.
 */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log_impl.h"
#include "common/utf8.h"

#define SAFE_MAX     256 /* bytes of one log_safe() text */
#define SAFE_BUFFERS 4
#define REPEAT_TEXT  128 /* bytes kept of a folded message */
#define ELLIPSIS     "..."

const struct log_levels log_levels[LOG_LEVEL_COUNT] = {
	[LOG_LEVEL_ERROR] = {"error", LOG_DAEMON | LOG_ERR},
	[LOG_LEVEL_WARN] = {"warn", LOG_DAEMON | LOG_WARNING},
	[LOG_LEVEL_INFO] = {"info", LOG_DAEMON | LOG_INFO},
	[LOG_LEVEL_DEBUG] = {"debug", LOG_DAEMON | LOG_DEBUG},
};

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
	enum log_format format;
	const char *syslog_path, *journal_path, *file;
	bool zone_known;
	bool torn; /* the last line came through in part */
	char session[LOG_SESSION_MAX];
} state = {
	.role = "comfymux",
	.sink = LOG_TO_STDERR,
	.level = LOG_LEVEL_INFO,
	.syslog_path = "/dev/log",
	.journal_path = "/run/systemd/journal/socket",
};

/* What is counted is each thread's own: with a hook, several may log. */
static _Thread_local struct {
	uint64_t lost;
	pid_t pid; /* whose repeats these are */
	struct repeat repeats[LOG_REPEAT_SLOTS];
} counted;

/* --- lines -----------------------------------------------------------------
 */

/* A message is one line, whatever its text holds. */
static size_t clean(char text[LOG_LINE_MAX], int n)
{
	size_t len = n < 0 ? 0 : (size_t)n;

	if (len > LOG_LINE_MAX - 1) {
		/* Cut, not in the midst of a character. */
		len = LOG_LINE_MAX - 1 - strlen(ELLIPSIS);
		for (int i = 0;
		     i < 3 && ((unsigned char)text[len] & 0xc0) == 0x80; i++)
			len--;
		memcpy(text + len, ELLIPSIS, sizeof(ELLIPSIS));
		len += strlen(ELLIPSIS);
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = ' ';
	}
	return len;
}

static ssize_t send_syslog(enum log_level level, const char *line, size_t len)
{
	char head[96];
	/* No time stamp: the daemon puts its own, and one from here would need
	 * the time zone file. */
	int n = snprintf(head, sizeof(head),
	                 "<%d>%.32s[%ld]: ", log_levels[level].priority,
	                 state.role, (long)getpid());

	if (n < 0)
		return -EINVAL;
	return log_write_datagram(state.syslog_path, head, (size_t)n, line,
	                          len);
}

static ssize_t write_out(const char *line, size_t len)
{
	return state.sink == LOG_TO_FILE ? log_write_file(line, len)
	                                 : log_write_stderr(line, len);
}

/* Onto a stream; true if at least its beginning arrived. */
static bool send_stream(char line[LOG_LINE_MAX], size_t len)
{
	ssize_t n;

	line[len++] = '\n';
	if (state.torn) {
		/* A lone newline can't be cut in two. */
		if (write_out("\n", 1) != 1)
			return false;
		state.torn = false;
	}
	n = write_out(line, len);
	if (n < 0)
		return false;
	state.torn = (size_t)n < len;
	return true;
}

/* True if the line reached the sink, at least its beginning. */
static bool send_line(enum log_level level, const char *module,
                      const char *text, size_t len)
{
	const struct log_message m = {
		.level = level,
		.role = state.role,
		.module = module,
		.text = text,
		.len = len,
		.timed = state.sink == LOG_TO_FILE,
		.headed = state.sink == LOG_TO_SYSLOG,
	};
	char line[LOG_LINE_MAX];

	switch (state.sink) {
	case LOG_TO_HOOK:
		if (state.hook)
			state.hook(state.hook_user, level, module, text);
		return true;
	case LOG_TO_JOURNAL:
		len = log_format_journal(&m, line);
		return log_write_datagram(state.journal_path, "", 0, line,
		                          len) >= 0;
	case LOG_TO_SYSLOG:
		len = log_format_line(state.format, &m, line);
		return send_syslog(level, line, len) >= 0;
	case LOG_TO_STDERR:
	case LOG_TO_FILE:
		break;
	}
	return send_stream(line, log_format_line(state.format, &m, line));
}

static void report_lost(void)
{
	char text[LOG_LINE_MAX];
	size_t len;

	if (counted.lost == 0)
		return;
	len = clean(text,
	            snprintf(text, sizeof(text),
	                     "%llu lines lost, the log was full or closed",
	                     (unsigned long long)counted.lost));
	if (send_line(LOG_LEVEL_WARN, "log", text, len))
		counted.lost = 0;
}

static void put_line(enum log_level level, const char *module, const char *text,
                     size_t len)
{
	report_lost();
	if (!send_line(level, module, text, len))
		counted.lost++;
}

/* --- repeats ---------------------------------------------------------------
 */

static void report_repeat(struct repeat *r)
{
	char text[LOG_LINE_MAX];
	size_t len;

	if (r->fmt && r->folded > 0) {
		len = clean(text,
		            snprintf(text, sizeof(text),
		                     "last message repeated %llu times: %s",
		                     (unsigned long long)r->folded, r->text));
		put_line(r->level, r->module, text, len);
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

/* " (session=s1)" behind the text, or within the brackets that it ends in. */
static size_t add_session(char text[LOG_LINE_MAX], size_t len)
{
	const char *open = strrchr(text, '(');
	bool within;
	int n;

	text[len] = '\0';
	if (state.session[0] == '\0' || strstr(text, "session="))
		return len;
	within = len > 0 && text[len - 1] == ')' && open && strchr(open, '=');
	if (within)
		len--;
	n = snprintf(text + len, LOG_LINE_MAX - len, "%ssession=%s)",
	             within ? " " : " (", state.session);
	if (n > 0 && (size_t)n < LOG_LINE_MAX - len)
		return len + (size_t)n;
	/* No room: the text matters more. */
	if (within)
		text[len++] = ')';
	text[len] = '\0';
	return len;
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

static const char *sink_path(void)
{
	switch (state.sink) {
	case LOG_TO_SYSLOG:
		return state.syslog_path;
	case LOG_TO_JOURNAL:
		return state.journal_path;
	case LOG_TO_FILE:
		return state.file;
	case LOG_TO_STDERR:
	case LOG_TO_HOOK:
		break;
	}
	return NULL;
}

int log_open(const char *role, enum log_sink sink, enum log_level level)
{
	int saved_errno = errno, r;

	state.role = role;
	state.sink = sink;
	state.level = level;
	/* Once, while files may be opened: it looks for the time zone, and a
	 * worker that its zygote forks may no more. */
	if (!state.zone_known)
		tzset();
	state.zone_known = true;
	r = log_sink_open(sink, sink_path());
	errno = saved_errno;
	return r;
}

int log_reopen(void)
{
	int saved_errno = errno, r = 0;

	if (state.sink == LOG_TO_FILE)
		r = log_sink_open(state.sink, state.file);
	state.torn = r == 0 ? false : state.torn;
	errno = saved_errno;
	return r;
}

void log_set_session(const char *id)
{
	if (state.sink != LOG_TO_HOOK)
		(void)snprintf(state.session, sizeof(state.session), "%s", id);
}

void log_set_file(const char *path)
{
	state.file = path;
}

void log_set_format(enum log_format format)
{
	state.format = format;
}

enum log_format log_get_format(void)
{
	return state.format;
}

enum log_sink log_get_sink(void)
{
	return state.sink;
}

int log_format_from_name(const char *name)
{
	static const char *const names[] = {
		[LOG_FORMAT_TEXT] = "text",
		[LOG_FORMAT_KV] = "kv",
		[LOG_FORMAT_JSON] = "json",
	};

	STATIC_ASSERT_ARRAY_SIZE(names, LOG_FORMAT_COUNT);
	for (int i = 0; i < LOG_FORMAT_COUNT; i++) {
		if (strcmp(names[i], name) == 0)
			return i;
	}
	return -1;
}

void log_share_file(void)
{
	if (state.sink == LOG_TO_FILE)
		log_sink_share();
}

int log_sink_from_name(const char *name)
{
	if (name[0] == '/')
		return LOG_TO_FILE;
	if (strcmp(name, "stderr") == 0)
		return LOG_TO_STDERR;
	if (strcmp(name, "syslog") == 0)
		return LOG_TO_SYSLOG;
	return strcmp(name, "journal") == 0 ? LOG_TO_JOURNAL : -1;
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

void log_set_journal_path(const char *path)
{
	state.journal_path = path;
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
		if (strcmp(log_levels[i].name, name) == 0)
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

bool log_from_signal(enum log_level level, const char *module, const char *text)
{
	struct log_message m = {.level = level,
	                        .role = state.role,
	                        .module = module,
	                        .text = text};
	char line[LOG_SIGNAL_MAX];
	size_t len;

	if (state.sink != LOG_TO_STDERR)
		return false;
	len = log_format_signal(state.format, &m, clock_epoch_ms(), line,
	                        sizeof(line) - 1);
	line[len++] = '\n';
	return log_write_when_ready(line, len) == (ssize_t)len;
}

void log_seal(void)
{
	log_sink_seal();
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
	char text[LOG_LINE_MAX];
	int saved_errno = errno;
	size_t len;
	va_list ap;

	if (level > state.level || (state.sink == LOG_TO_HOOK && !state.hook))
		return;
	forget_parent();
	va_start(ap, fmt);
	len = clean(text, vsnprintf(text, sizeof(text), fmt, ap));
	va_end(ap);
	len = add_session(text, len);
	if (level == LOG_LEVEL_DEBUG ||
	    !is_folded(level, module, fmt, text, len))
		put_line(level, module, text, len);
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
