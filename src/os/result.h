/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an errno becomes a result of this room: one of the conditions of os.h, or a fatal error that
 * is marked where it was born. For the files of src/os/ only. Pure, thread-safe.
 */
#ifndef MILLRACE_OS_RESULT_H
#define MILLRACE_OS_RESULT_H

#include "os/os.h"

/* The condition for errno e, or error_origin(-e) with the caller's file and line. */
#define os_result(e) os_result_at((e), __FILE__, __LINE__)

int os_result_at(int e, const char *file, int line) MUST_USE;

#endif
