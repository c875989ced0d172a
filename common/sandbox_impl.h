/*
 * sandbox_impl.h - what the two files of the sandbox share with each other and
 * nobody else.
 */
#ifndef COMMON_SANDBOX_IMPL_H
#define COMMON_SANDBOX_IMPL_H

#include "common/sandbox.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#endif

#ifdef SANDBOX_SANITIZED
#define SANDBOX_FILTERS 0
#else
#define SANDBOX_FILTERS 1
#endif

/* Each 0 or a negative errno. */
int sandbox_filter_prepare(enum sandbox_profile profile);
int sandbox_filter_load(enum sandbox_profile profile);
/* The path, alone on a page of its own, of the one program to be started. */
void sandbox_filter_program(const char *path);

#endif
