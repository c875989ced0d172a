/*
 * error.c - see error.h.
 *
 * Texts are put together in a local buffer first, so that arguments may point
 * into the very text that is being replaced.
 */
#include "common/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

static const char *const code_names[] = {
	[ERR_NONE] = "none",
	[ERR_INVALID] = "invalid",
	[ERR_CONFIG] = "config",
	[ERR_NOT_FOUND] = "not_found",
	[ERR_DENIED] = "denied",
	[ERR_LIMIT] = "limit",
	[ERR_BUSY] = "busy",
	[ERR_REJECTED] = "rejected",
	[ERR_UNREACHABLE] = "unreachable",
	[ERR_TIMEOUT] = "timeout",
	[ERR_CANCELLED] = "cancelled",
	[ERR_LOST] = "lost",
	[ERR_PROTOCOL] = "protocol",
	[ERR_SYSTEM] = "system",
	[ERR_INTERNAL] = "internal",
};
STATIC_ASSERT_ARRAY_SIZE(code_names, ERR_CODE_COUNT);

/* How much of `s` to keep when only `room` bytes fit: never half a
 * character. */
static size_t cut_len(const char *s, size_t len, size_t room)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t back = 0;

	if (len <= room)
		return len;
	while (back < 3 && back < room && (u[room - back] & 0xc0) == 0x80)
		back++;
	/* Nothing but continuations isn't UTF-8; then any place is as good. */
	return (u[room - back] & 0xc0) == 0x80 ? room : room - back;
}

/* Formats into `text`, which has one byte more than a text may have, so that
 * cut_len() sees what comes behind the cut. */
ATTR_PRINTF(2, 0)
static size_t format(char text[ERROR_TEXT_MAX + 1], const char *fmt, va_list ap)
{
	int n = vsnprintf(text, ERROR_TEXT_MAX + 1, fmt, ap);

	if (n < 0) {
		text[0] = '\0';
		return 0;
	}
	return n > ERROR_TEXT_MAX ? ERROR_TEXT_MAX : (size_t)n;
}

/* Sets the text to `head` and all of `tail` that fits behind it; if `tail` is
 * the part that must survive, `head` gives way. */
static void set_text(struct error *e, const char *head, size_t head_len,
                     const char *tail, size_t tail_len, bool keep_tail)
{
	size_t room = sizeof(e->text) - 1;

	if (keep_tail && tail_len < room)
		head_len = cut_len(head, head_len, room - tail_len);
	head_len = cut_len(head, head_len, room);
	tail_len = cut_len(tail, tail_len, room - head_len);
	memcpy(e->text, head, head_len);
	memcpy(e->text + head_len, tail, tail_len);
	e->text[head_len + tail_len] = '\0';
}

int error_set(struct error *e, enum error_code code, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX + 1];
	va_list ap;
	size_t len;

	if (!e)
		return -1;
	va_start(ap, fmt);
	len = format(text, fmt, ap);
	va_end(ap);
	e->code = code;
	set_text(e, text, len, "", 0, false);
	return -1;
}

int error_set_errno(struct error *e, int errnum, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX + 1], reason[128];
	va_list ap;
	size_t len;
	int n;

	if (!e)
		return -1;
	va_start(ap, fmt);
	len = format(text, fmt, ap);
	va_end(ap);
	n = snprintf(reason, sizeof(reason), ": %s",
	             strerror(errnum < 0 ? -errnum : errnum));
	e->code = ERR_SYSTEM;
	set_text(e, text, len, reason,
	         n < 0 ? 0 : strnlen(reason, sizeof(reason)), true);
	return -1;
}

int error_set_nomem(struct error *e, const char *what)
{
	return error_set(e, ERR_INTERNAL, "out of memory (%s)", what);
}

int error_prefix(struct error *e, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX + 1], old[ERROR_TEXT_MAX];
	va_list ap;
	size_t len;

	if (!e)
		return -1;
	va_start(ap, fmt);
	len = format(text, fmt, ap);
	va_end(ap);
	memcpy(old, e->text, sizeof(old));
	/* A prefix that fills the text leaves no room for ": ". */
	len = cut_len(text, len, sizeof(e->text) - 3);
	text[len++] = ':';
	text[len++] = ' ';
	set_text(e, text, len, old, strnlen(old, sizeof(old)), false);
	return -1;
}

const char *error_code_name(enum error_code code)
{
	if ((unsigned int)code >= ERR_CODE_COUNT)
		return code_names[ERR_INTERNAL];
	return code_names[code];
}

enum error_code error_code_from_name(const char *name)
{
	for (unsigned int i = 0; i < ERR_CODE_COUNT; i++) {
		if (strcmp(code_names[i], name) == 0)
			return (enum error_code)i;
	}
	return ERR_INTERNAL;
}
