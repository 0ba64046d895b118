/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of events share: a journal on a simulated disk that commits when told to, and
 * texts. Included by tests only.
 */
#ifndef MILLRACE_EVENTS_TEST_SUPPORT_H
#define MILLRACE_EVENTS_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "events/once.h"
#include "os/sim.h"

#include <stdio.h>
#include <stdlib.h>

struct journal_rig {
    struct sim *sim;
    struct os *os;
    struct journal *j;
};

static inline void rig_init(struct journal_rig *rig) {
    const struct journal_options options = {.no_thread = true, .disk_reserve_bytes = 1};
    struct journal_recovery found;
    assert_int_equal(sim_new(1, &rig->sim), 0);
    rig->os = sim_os(rig->sim);
    assert_int_equal(journal_open(rig->os, "journal", &options, &rig->j, &found), 0);
}

static inline void rig_deinit(struct journal_rig *rig) {
    journal_close(rig->j);
    sim_free(rig->sim);
}

static inline struct bytes text_of(const char *text) {
    return bytes_of_string(text);
}

#endif
