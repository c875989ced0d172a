/*
 * options.h - the command line of comfymuxd.
 */
#ifndef SUPERVISOR_OPTIONS_H
#define SUPERVISOR_OPTIONS_H

#include <stdbool.h>

#include "common/config.h"
#include "common/error.h"

#define OPTIONS_FLAGS_MAX 8 /* keys of the configuration among the flags */

enum options_action {
	OPTIONS_RUN,
	OPTIONS_CHECK_CONFIG,
	OPTIONS_HELP,
	OPTIONS_VERSION,
};

struct options {
	enum options_action action;
	const char *config_file;
	struct config_flag flags[OPTIONS_FLAGS_MAX];
	size_t flag_count;
	bool autostarted; /* leave when idle */
	bool daemon;      /* into the background, see guardian.h */
	bool guarded;     /* started by such a one */
	bool for_system;  /* ... which was started as root, for the system */
	bool keep_stderr; /* the log goes there by wish; set by main.c */
	bool system;      /* the system's service, not somebody's own */
	int ready_fd;     /* a newline is written there when it listens; -1 */
	const char *pidfile; /* NULL: none */
};

/* Strings point into argv. -1 with `err` set: usage. */
int options_parse(struct options *o, int argc, char **argv, struct error *err);
/* Where the configuration comes from, for config_load. */
struct config_sources options_sources(const struct options *o);

extern const char options_help[];

#endif
