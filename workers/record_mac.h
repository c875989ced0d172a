/*
 * record_mac.h - records that only a worker of the same user and service can
 * have made.
 *
 * A tenant's worker has the service's rights, and its keeper hands it what a
 * predecessor recorded; the keeper, who may be anybody, could as well make it
 * up. The code is the last member of the object, so whoever has no key
 * (a worker of the keeper's own) reads the record as it is. SipHash-2-4 with
 * 128 bits of key: the worker is linked with no larger cryptography, and 64
 * bits of code are plenty where a wrong guess costs a process.
 */
#ifndef WORKERS_RECORD_MAC_H
#define WORKERS_RECORD_MAC_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/span.h"

#define RECORD_MAC_LEN 25 /* bytes that a record grows by */

/* Appends the record, a JSON object with members, with its code. 0 or -1. */
int record_mac_add(struct buf *out, const uint32_t key[4], uint64_t line,
                   struct span record);
/* Whether the record of `line` was made with this key. */
bool record_mac_good(const uint32_t key[4], uint64_t line, struct span record);

#endif
