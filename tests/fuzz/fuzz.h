/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fuzz target defines and what it may use. A target must be deterministic, must free all it
 * allocates, and aborts (FUZZ_CHECK) when something that must hold does not.
 */
#ifndef MILLRACE_FUZZ_FUZZ_H
#define MILLRACE_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* libFuzzer's name for it; always returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* assert would do, but says nothing when a build switches it off. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
