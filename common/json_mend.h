/*
 * json_mend.h - what Python writes and JSON's readers refuse: lone surrogates.
 *
 * Python reads file names that aren't UTF-8 as strings with lone surrogates,
 * and its json module writes those as "\udcff". Strict readers take no text
 * with one, which would cost the whole reply for one name; so they become
 * U+FFFD before anything else looks at the text. Pure.
 */
#ifndef COMMON_JSON_MEND_H
#define COMMON_JSON_MEND_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/span.h"

/* Whether `text` may hold an escape of a surrogate, paired ones included: most
 * have none, and are used as they are. */
bool json_may_need_mending(struct span text);
/* Appends the text with each escape of a lone surrogate written as \ufffd; all
 * other bytes stay, the length too. 0, or what buf_append says. */
int json_mend(struct buf *out, struct span text);

#endif
