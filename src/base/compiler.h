/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the compiler can check for us, by short names. No code, no state.
 */
#ifndef MILLRACE_BASE_COMPILER_H
#define MILLRACE_BASE_COMPILER_H

/* Every fallible function carries this: an error that nobody looks at does not compile. */
#define MUST_USE __attribute__((__warn_unused_result__))
#define PRINTF_LIKE(format, first) __attribute__((__format__(__printf__, format, first)))
#define NORETURN __attribute__((__noreturn__))
#define UNUSED __attribute__((__unused__))
/* Runs fn(&variable) when the variable leaves its scope. */
#define CLEANUP(fn) __attribute__((__cleanup__(fn)))

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
