/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests with threads: they wait for what must come to be, never for a span of time, as a busy
 * machine stretches every span. Only a broken program meets the deadline.
 */
#ifndef MILLRACE_OS_TEST_WAIT_H
#define MILLRACE_OS_TEST_WAIT_H

#include "os/os.h"

enum { WAIT_MS = 60000 };

/* False when what began at begin_ns has taken too long; otherwise after a moment. */
static UNUSED bool wait_more(uint64_t begin_ns) {
    if (os_monotonic_ns(os_real()) - begin_ns > WAIT_MS * UINT64_C(1000000))
        return false;
    os_sleep_ns(os_real(), 1000000);
    return true;
}

/* Waits until the condition holds; fails when it does not come to hold. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        uint64_t begin_ns_ = os_monotonic_ns(os_real());                                           \
        while (!(condition))                                                                       \
            if (!wait_more(begin_ns_))                                                             \
                fail_msg("never came to be: %s", #condition);                                      \
    } while (0)

#endif
