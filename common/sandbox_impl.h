/*
 * sandbox_impl.h - what the two files of the sandbox share with each other and
 * nobody else.
 */
#ifndef COMMON_SANDBOX_IMPL_H
#define COMMON_SANDBOX_IMPL_H

#include "common/macros.h"
#include "common/sandbox.h"

#define SANDBOX_FILTERS (!SANITIZED)

/* Each 0 or a negative errno. */
int sandbox_filter_prepare(enum sandbox_profile profile);
int sandbox_filter_load(enum sandbox_profile profile);
/* The path, alone on a page of its own, of the one program to be started. */
void sandbox_filter_program(const char *path);

#endif
