/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of points share: configurations, a journal on a simulated disk that commits when
 * told to. Included by tests only.
 */
#ifndef MILLRACE_POINTS_TEST_SUPPORT_H
#define MILLRACE_POINTS_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/sim.h"
#include "points/bulk.h"
#include "points/catalog.h"

#include <stdio.h>
#include <stdlib.h>

/* One unnamed vector. */
static inline struct point_config config_of(uint32_t dimension, enum point_distance distance) {
    struct point_config c = {.n_vectors = 1};
    c.vectors[0].dimension = dimension;
    c.vectors[0].distance = distance;
    point_config_finish(&c);
    return c;
}

struct rig {
    struct sim *sim;
    struct journal *j;
    struct points_catalog *catalog;
    struct bulk_tasks *tasks;
};

static inline struct rig rig_new(void) {
    struct rig rig;
    struct journal_options options = {.no_thread = true};
    struct journal_recovery found;
    uint64_t gap;
    assert_int_equal(sim_new(1, &rig.sim), 0);
    assert_int_equal(journal_open(sim_os(rig.sim), "journal", &options, &rig.j, &found), 0);
    assert_int_equal(journal_advance(rig.j, 0, &gap), 0);
    assert_int_equal(points_catalog_new(&rig.catalog), 0);
    assert_int_equal(bulk_tasks_new(sim_os(rig.sim), &rig.tasks), 0);
    return rig;
}

static inline void rig_free(struct rig *rig) {
    bulk_tasks_free(rig->tasks);
    points_catalog_free(rig->catalog);
    journal_close(rig->j);
    sim_free(rig->sim);
}

/* The incarnation of a new collection of 4 numbers. */
static inline lsn_t rig_create(struct rig *rig, const char *name) {
    struct point_config config = config_of(4, DISTANCE_DOT);
    lsn_t lsn = 0;
    int condition = 0;
    assert_int_equal(points_catalog_create(rig->catalog, rig->j, bytes_of_string(name), &config,
                                           &lsn, &condition),
                     0);
    return lsn;
}

static inline lsn_t rig_drop(struct rig *rig, const char *name) {
    lsn_t lsn = 0;
    int condition = 0;
    assert_int_equal(
        points_catalog_drop(rig->catalog, rig->j, NULL, bytes_of_string(name), &lsn, &condition),
        0);
    return lsn;
}

#endif
