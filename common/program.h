/*
 * program.h - the other programs of this installation.
 */
#ifndef COMMON_PROGRAM_H
#define COMMON_PROGRAM_H

#include "common/error.h"

/* The path of a program that lies beside this one, or in ../lib/comfymux; the
 * caller's to free. NULL with `err` set. PATH is not asked: what it leads to
 * may be another release. */
char *program_find(const char *name, struct error *err);

#endif
