/*
 * program_args.h - the command line of a program that a command of comfymux
 * execs (doctor, top): the options that every command takes, and --json.
 */
#ifndef COMMON_PROGRAM_ARGS_H
#define COMMON_PROGRAM_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"

struct program_args {
	const char *program; /* "comfymux-doctor" */
	const char *command; /* "doctor", which stands before the options */
	int (*help)(void);   /* --help: prints it, returns the exit status */
	bool *json;          /* set by --json; NULL: there is no such option */
};

/* Adds to `src` and to `flags`, its flags, of which there is room for `max`.
 * -1: go on; else the status to exit with, everything was said. */
int program_args(const struct program_args *a, char **argv,
                 struct config_sources *src, struct config_flag *flags,
                 size_t max);

#endif
