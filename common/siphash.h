/*
 * siphash.h - SipHash (Aumasson, Bernstein 2012): a keyed hash of 64 bits.
 *
 * With 1 and 3 rounds it spreads the keys of hash tables; with 2 and 4 it is
 * the authentication code of short texts that its authors recommend. Words are
 * taken in the machine's byte order: results never leave the machine.
 */
#ifndef COMMON_SIPHASH_H
#define COMMON_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint64_t key[2], int c_rounds, int d_rounds,
                 const char *text, size_t len);

#endif
