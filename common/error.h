/*
 * error.h - why something failed, in words that reach whoever can act.
 *
 * Functions that can fail for a reason a person should read return 0, or -1
 * with a `struct error` filled in: what failed, on what, what to do next.
 * Functions whose only failures are the machine's return 0 or a negative
 * errno. A NULL `struct error *` is allowed everywhere and drops the text.
 */
#ifndef COMMON_ERROR_H
#define COMMON_ERROR_H

#include <stdarg.h>

#include "common/macros.h"

#define ERROR_TEXT_MAX 1024 /* bytes of text kept, terminator included */

enum error_code {
	ERR_NONE,
	ERR_INVALID,     /* bad input: argument, JSON, line, file */
	ERR_CONFIG,      /* configuration */
	ERR_NOT_FOUND,   /* no such prompt, file, op ... (or not yours) */
	ERR_DENIED,      /* permission */
	ERR_LIMIT,       /* a named bound was reached */
	ERR_BUSY,        /* taken by another: lock, address, id */
	ERR_REJECTED,    /* ComfyUI refused the workflow */
	ERR_UNREACHABLE, /* ComfyUI or supervisor does not answer */
	ERR_TIMEOUT,     /* the time that was given is up */
	ERR_CANCELLED,
	ERR_LOST,     /* ComfyUI forgot the prompt */
	ERR_PROTOCOL, /* the peer broke the protocol */
	ERR_SYSTEM,   /* the operating system said no */
	ERR_INTERNAL, /* our own bug, or out of memory */
	ERR_CODE_COUNT
};

struct error {
	enum error_code code;
	char text[ERROR_TEXT_MAX];
};

#define ERROR_NULL                                                             \
	{                                                                      \
		.code = ERR_NONE                                               \
	}

/* Fills `e` (may be NULL). Always returns -1, so that callers can return it.
 * A text longer than ERROR_TEXT_MAX is cut at a UTF-8 boundary. */
int error_set(struct error *e, enum error_code code, const char *fmt, ...)
	ATTR_PRINTF(3, 4);

/* As error_set with ERR_SYSTEM, and ": strerror(errnum)" behind the text. */
int error_set_errno(struct error *e, int errnum, const char *fmt, ...)
	ATTR_PRINTF(3, 4);

/* Out of memory: ERR_INTERNAL, names what was being made. Returns -1. */
int error_set_nomem(struct error *e, const char *what);

/* Puts "prefix: " before the text that is there. Returns -1. */
int error_prefix(struct error *e, const char *fmt, ...) ATTR_PRINTF(2, 3);

/* The name used on the wire and in logs, "not_found" for ERR_NOT_FOUND. */
const char *error_code_name(enum error_code code);

/* The code of a wire name; ERR_INTERNAL for one that is not known. */
enum error_code error_code_from_name(const char *name);

#endif
