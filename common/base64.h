/*
 * base64.h - base64 (RFC 4648, section 4) back to bytes. buf_base64() is the
 * other direction.
 */
#ifndef COMMON_BASE64_H
#define COMMON_BASE64_H

#include "common/buf.h"

/* Appends the decoded bytes of `text`. White space is passed over, padding may
 * be missing, a "data:...;base64," prefix is taken off. 0; -EINVAL for anything
 * else, what buf_append says when there is no room. */
int base64_decode(struct buf *out, const char *text, size_t len);

#endif
