/*
 * log_impl.h - what the files of the log share. Nobody else includes it.
 */
#ifndef COMMON_LOG_IMPL_H
#define COMMON_LOG_IMPL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/log.h"

#define LOG_FIELDS_MAX 24 /* "key=value" of one message that are told apart */

struct log_levels {
	const char *name;
	int priority; /* of syslog */
};
extern const struct log_levels log_levels[LOG_LEVEL_COUNT];

/* One message, before it is put into form. */
struct log_message {
	enum log_level level;
	const char *role, *module;
	const char *text; /* free of control characters */
	size_t len;
	bool timed;  /* people who read the sink want the time */
	bool headed; /* the sink tells role and pid itself */
};

/* Bytes written to `line`, at most LOG_LINE_MAX - 1, no newline. */
size_t log_format_line(enum log_format format, const struct log_message *m,
                       char line[LOG_LINE_MAX]);
/* systemd's journal wants its fields apart, each on a line. */
size_t log_format_journal(const struct log_message *m, char line[LOG_LINE_MAX]);

/* The same where no lock may be taken: `text` is a string without anything to
 * be escaped; cut at `size`. */
size_t log_format_signal(enum log_format format, const struct log_message *m,
                         int64_t epoch_ms, char *line, size_t size);
#define LOG_SIGNAL_MAX 320 /* bytes of such a line */

/* Where lines go; each returns bytes written or a negative errno, and never
 * blocks. Those of stderr and of a file may be short. */
ssize_t log_write_stderr(const char *line, size_t len);
/* The same where nothing may be opened; safe in a signal handler. */
ssize_t log_write_when_ready(const char *line, size_t len);
ssize_t log_write_file(const char *line, size_t len);
/* A datagram to the socket at `path`, `head` before it. */
ssize_t log_write_datagram(const char *path, const char *head, size_t head_len,
                           const char *line, size_t len);

/* Opens what `sink` needs, now; a datagram socket that isn't there yet is tried
 * again with each line. 0 or a negative errno. */
int log_sink_open(enum log_sink sink, const char *path);
void log_sink_close(void);
/* From now on nothing can be opened. */
void log_sink_seal(void);
/* stderr becomes what is held. */
void log_sink_share(void);

#endif
