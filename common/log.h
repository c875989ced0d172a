/*
 * log.h - the process's log: levels, one sink, repeats rate-limited.
 *
 * A message is a text with what is worth looking for behind it, as `(key=value
 * ...)`: a line about a session or a prompt has session= or prompt_id=. The
 * text never holds secrets or the contents of workflows. Bytes from peers are
 * escaped before they are printed.
 *
 * Writing never blocks and never kills: a sink that is full or closed costs
 * the line, and the next one that gets through tells how many were lost. With a
 * hook several threads may write at once (each folds its own repeats, and the
 * hook is called in whichever writes); sinks are for one thread. System calls
 * used, for whoever writes a filter: getpid, fstat, write, pwritev2, poll,
 * sendto, open, close, socket, connect, rt_sigprocmask, rt_sigpending,
 * rt_sigtimedwait.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>

#include "common/error.h"
#include "common/macros.h"

#define LOG_SESSION_MAX 16   /* bytes of a session's id, with its NUL */
#define LOG_LINE_MAX    2048 /* bytes of one line, longer ones are cut */

/* A message (same module, same format) is written LOG_REPEAT_MAX times within
 * LOG_REPEAT_WINDOW_MS; what comes on top is counted, and told as one line
 * when the window is over. Debug lines are never folded. */
#define LOG_REPEAT_MAX       10
#define LOG_REPEAT_WINDOW_MS 10000
#define LOG_REPEAT_SLOTS     32 /* messages watched at a time */

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_COUNT
};

/* The journal has fields of its own, and a hook gets the bare text. */
enum log_format {
	LOG_FORMAT_TEXT, /* level role[pid] module: text (key=value ...) */
	LOG_FORMAT_KV,   /* level=... role=... module=... msg="..." key=value */
	LOG_FORMAT_JSON, /* the same as an object, with the time */
	LOG_FORMAT_COUNT
};

enum log_sink {
	LOG_TO_STDERR,
	LOG_TO_SYSLOG,
	LOG_TO_JOURNAL, /* systemd's, with fields of its own */
	LOG_TO_FILE,    /* that log_set_file() named */
	LOG_TO_HOOK,    /* whatever log_set_hook() named; nowhere if nothing */
};

/* Takes one message, without level and module before it and without a newline;
 * `text` is NUL-terminated, free of control characters, and valid during the
 * call only. It must not write to the log itself. */
typedef void log_hook(void *user, enum log_level level, const char *module,
                      const char *text);

/* `role` ("comfymuxd", "worker") must be static. Before the first call the log
 * goes to stderr at level info. 0, or a negative errno when the file can't be
 * opened; lines are lost then. */
int log_open(const char *role, enum log_sink sink, enum log_level level);
/* The file that LOG_TO_FILE means, absolute; must be static. */
void log_set_file(const char *path);
/* Opens the file anew, after it was moved away; with any other sink nothing
 * happens. 0 or a negative errno, the old one stays in use then. */
int log_reopen(void);
/* Makes stderr the file, for processes that are started from now on; to be
 * said again after log_reopen(). Nothing with any other sink. */
void log_share_file(void);
/* "stderr", "syslog", "journal", or the absolute path of a file; -1 for
 * others. */
int log_sink_from_name(const char *name);

/* Each line of this process is about that session from now on; "": none. With
 * a hook nothing happens: its program may have several. */
void log_set_session(const char *id);

void log_set_format(enum log_format format);
enum log_format log_get_format(void);
enum log_sink log_get_sink(void);
/* "text", "kv", "json"; -1 for others. */
int log_format_from_name(const char *name);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warn", "info", "debug"; -1 for others. */
int log_level_from_name(const char *name);

/* Tells now what was folded or lost; for the end of a process and for a timer
 * in a quiet one. */
void log_flush(void);
/* Where the syslog socket is, instead of /dev/log; must be static. Before
 * log_open(). */
void log_set_syslog_path(const char *path);
void log_set_journal_path(const char *path);

/* For a program that embeds us: every line goes to `hook`, which stands until
 * the next call; NULL drops them. Levels and the folding of repeats hold as for
 * any other sink. log_open() with LOG_TO_HOOK puts it in force. */
void log_set_hook(log_hook *hook, void *user);

/* `module` and `fmt` must be static: repeats are known by them. */
void log_write(enum log_level level, const char *module, const char *fmt, ...)
	ATTR_PRINTF(3, 4);

#define log_error(module, ...) log_write(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...)  log_write(LOG_LEVEL_WARN, module, __VA_ARGS__)
#define log_info(module, ...)  log_write(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...)                                                 \
	do {                                                                   \
		if (log_get_level() >= LOG_LEVEL_DEBUG)                        \
			log_write(LOG_LEVEL_DEBUG, module, __VA_ARGS__);       \
	} while (0)

/* From a signal handler: a short text with nothing in it that JSON escapes, to
 * stderr if that is where the log goes and it takes it now. False if not. */
bool log_from_signal(enum log_level level, const char *module,
                     const char *text);

/* This process can't open files any more: terminals are written to as they
 * are. */
void log_seal(void);

/* Printable copy of peer bytes for messages: control characters and invalid
 * UTF-8 become \xNN, cut to `max` bytes with "..."; points into one of four
 * rotating static buffers of 256 bytes, the thread's own. */
const char *log_safe(const char *p, size_t n);

#endif
