/*
 * buf.h - a growing byte buffer with a hard cap.
 *
 * Appending past `max`, or running out of memory, marks the buffer failed and
 * leaves its content as it was; later appends do nothing. So a builder appends
 * throughout and asks buf_ok() once at the end.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macros.h"

struct buf {
	char *data; /* NULL while cap is 0; not terminated */
	size_t len, cap;
	size_t max; /* bytes; len <= max always */
	bool failed;
};

#define BUF_INIT(max_)                                                         \
	{                                                                      \
		.max = (max_)                                                  \
	}

/* An empty buffer that holds at most `max` bytes. Allocates nothing. */
void buf_init(struct buf *b, size_t max);
/* Releases the memory; safe twice; the buffer is empty and usable then. */
void buf_deinit(struct buf *b);
/* Empties the buffer and clears `failed`; keeps the memory. */
void buf_reset(struct buf *b);
static inline bool buf_ok(const struct buf *b)
{
	return !b->failed;
}

/* Each appends and returns 0, or -ENOMEM / -EMSGSIZE (and marks failed). */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_puts(struct buf *b, const char *s);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) ATTR_PRINTF(2, 3);
/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
int buf_json_string(struct buf *b, const char *s, size_t len);
/* `"key":` with the comma before it that the last byte calls for. */
int buf_json_key(struct buf *b, const char *key);
/* Standard base64 with padding. */
int buf_base64(struct buf *b, const void *data, size_t len);

/* Room for `len` more bytes; buf_commit() then says how many were written.
 * NULL when there is no room. */
char *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);

/* Drops the first `len` bytes (at most all). */
void buf_consume(struct buf *b, size_t len);

/* A terminating NUL behind the content (not counted in len); the data, or
 * NULL on failure. */
const char *buf_cstr(struct buf *b);

/* Hands the memory (NUL-terminated) to the caller, who frees it; NULL when
 * failed. The buffer is empty then. */
char *buf_steal(struct buf *b, size_t *lenp);

#define cleanup_buf __attribute__((cleanup(buf_deinit)))

#endif
