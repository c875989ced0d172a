/*
 * uuid.h - random UUIDs (RFC 9562, version 4), canonical lower case.
 */
#ifndef COMMON_UUID_H
#define COMMON_UUID_H

#include <stdbool.h>
#include <stddef.h>

#define UUID_LEN 36 /* characters, terminator not counted */

/* Fills `out` with a fresh one. 0, or a negative errno if the kernel gave no
 * randomness. */
int uuid_new(char out[UUID_LEN + 1]);
/* True if `s` is a canonical lower-case UUID of any version. */
bool uuid_valid(const char *s, size_t len);

#endif
