/*
 * macros.h - the few macros that every file may use.
 */
#ifndef COMMON_MACROS_H
#define COMMON_MACROS_H

#include <stddef.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Fails to compile when a table and the enum that indexes it drift apart. */
#define STATIC_ASSERT_ARRAY_SIZE(a, n)                                         \
	_Static_assert(ARRAY_SIZE(a) == (size_t)(n),                           \
	               "table " #a " does not match " #n)

/* The object of type `type` whose member `member` is at `ptr`. */
#define container_of(ptr, type, member)                                        \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Built with a sanitizer that keeps books on memory. */
#define SANITIZED 0
#if defined(__SANITIZE_ADDRESS__)
#undef SANITIZED
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#undef SANITIZED
#define SANITIZED 1
#endif
#endif

#define ATTR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define ATTR_MUST_CHECK        __attribute__((warn_unused_result))
#define ATTR_NORETURN          __attribute__((noreturn))
#define ATTR_UNUSED            __attribute__((unused))

#endif
