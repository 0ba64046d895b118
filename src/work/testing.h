/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of this room share: a store that checks the laws of lanes while it is applied to,
 * and does as a script says; a rig of system, journal, store and workers around it. A broken law is
 * counted, not asserted: the threads of the workers are not cmocka's.
 */
#ifndef MILLRACE_WORK_TESTING_H
#define MILLRACE_WORK_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "os/file.h"
#include "os/sim.h"
#include "work/internal.h"

enum { KEYS = 97, RECORDS_MAX = 65536 };

/* What happened, in order; kept while the store is applied to by one thread. */
struct happening {
    char what; /* 'a' applied, 'r' rejected, 'c' control, 't' told to try again or down */
    unsigned lane;
    lsn_t lsn;
    uint64_t at_ns;
};

struct test_store {
    /* Says what becomes of a record; called with the number of times it was tried before. May be
     * NULL: all is well. */
    enum work_outcome (*script)(struct test_store *store, const struct journal_record *record,
                                unsigned tried);
    int (*on_control)(struct test_store *store, const struct journal_record *record);
    int (*on_reject)(struct test_store *store, const struct journal_record *record);
    void (*on_batch)(struct test_store *store, unsigned lane, size_t n);
    void (*on_passed)(struct test_store *store, unsigned lane, lsn_t lsn);
    void *context;
    struct work *work;
    struct os *os;
    int broken; /* apply returns this while it is negative */
    bool log;

    atomic_uint faults; /* laws broken */
    atomic_uint applied;
    atomic_uint rejected;
    atomic_uint controls;
    atomic_uint batches;
    atomic_int inside[WORK_LANES_MAX];
    lsn_t position[WORK_LANES_MAX]; /* by apply, reject and passed */
    lsn_t key_last[KEYS];
    unsigned char tried[RECORDS_MAX];
    unsigned char seen[RECORDS_MAX]; /* applied or rejected so often */
    size_t n_happenings;
    struct happening happenings[RECORDS_MAX];
};

static inline void fault_if(struct test_store *s, bool broken, const char *law, lsn_t lsn) {
    if (!broken)
        return;
    if (atomic_fetch_add(&s->faults, 1) < 5)
        print_error("broken: %s (lsn %llu)\n", law, (unsigned long long)lsn);
}

static inline void happened(struct test_store *s, char what, unsigned lane, lsn_t lsn) {
    if (s->log && s->n_happenings < RECORDS_MAX)
        s->happenings[s->n_happenings++] = (struct happening){
            .what = what, .lane = lane, .lsn = lsn, .at_ns = os_monotonic_ns(s->os)};
}

static inline uint32_t record_key(const struct journal_record *record) {
    return load_u32(record->payload.data);
}

/* Whether a record may come now, and its place in the order; the lane moves. */
static inline void settle(struct test_store *s, unsigned lane, const struct journal_record *r) {
    uint32_t key = record_key(r);
    fault_if(s, r->lsn <= s->position[lane], "a lane's records come in order, above its position",
             r->lsn);
    fault_if(s, r->lsn <= s->key_last[key], "a key's records come in order", r->lsn);
    fault_if(s, s->seen[r->lsn]++ != 0, "a record comes once", r->lsn);
    fault_if(s, work_lane_of(s->work, r->key_hash) != lane, "a key has one lane", r->lsn);
    fault_if(s, work_visible(s->work, UINT64_C(1) << lane, r->lsn),
             "nothing is visible before it is applied", r->lsn);
    s->position[lane] = r->lsn;
    s->key_last[key] = r->lsn;
}

static inline int test_apply(void *store, unsigned lane,
                             const struct journal_record *const *records, size_t n,
                             struct work_verdict *ret_verdict) {
    struct test_store *s = store;
    fault_if(s, atomic_exchange(&s->inside[lane], 1) != 0, "one thread a lane", records[0]->lsn);
    fault_if(s, n == 0, "a batch is not empty", 0);
    atomic_fetch_add(&s->batches, 1);
    if (s->on_batch)
        s->on_batch(s, lane, n);
    int r = s->broken;
    struct work_verdict verdict = {.outcome = WORK_OK};
    while (r == 0 && verdict.applied < n) {
        const struct journal_record *record = records[verdict.applied];
        if (s->script)
            verdict.outcome = s->script(s, record, s->tried[record->lsn]++);
        if (verdict.outcome != WORK_OK) {
            verdict.reason = "the script says so";
            happened(s, 't', lane, record->lsn);
            break;
        }
        settle(s, lane, record);
        happened(s, 'a', lane, record->lsn);
        atomic_fetch_add(&s->applied, 1);
        verdict.applied++;
    }
    if (r == 0)
        *ret_verdict = verdict;
    atomic_store(&s->inside[lane], 0);
    return r;
}

static inline int test_control(void *store, const struct journal_record *record) {
    struct test_store *s = store;
    int r = s->on_control ? s->on_control(s, record) : 0;
    if (r == 0) {
        happened(s, 'c', 0, record->lsn);
        atomic_fetch_add(&s->controls, 1);
    }
    return r;
}

static inline int test_reject(void *store, unsigned lane, const struct journal_record *record,
                              const char *reason) {
    struct test_store *s = store;
    fault_if(s, atomic_exchange(&s->inside[lane], 1) != 0, "one thread a lane", record->lsn);
    fault_if(s, strcmp(reason, "the script says so") != 0, "the reason is the store's",
             record->lsn);
    int r = s->on_reject ? s->on_reject(s, record) : 0;
    if (r == 0) {
        settle(s, lane, record);
        happened(s, 'r', lane, record->lsn);
        atomic_fetch_add(&s->rejected, 1);
    }
    atomic_store(&s->inside[lane], 0);
    return r;
}

static inline void test_passed(void *store, unsigned lane, lsn_t lsn) {
    struct test_store *s = store;
    fault_if(s, atomic_exchange(&s->inside[lane], 1) != 0, "passed comes one thread a lane", lsn);
    fault_if(s, lsn <= s->position[lane], "passed moves forward", lsn);
    s->position[lane] = lsn;
    if (s->on_passed)
        s->on_passed(s, lane, lsn);
    atomic_store(&s->inside[lane], 0);
}

static const struct work_store_ops test_ops = {.name = "points",
                                               .kind = JOURNAL_KIND_POINTS,
                                               .apply = test_apply,
                                               .control = test_control,
                                               .reject = test_reject,
                                               .passed = test_passed};

/* ---- The rig ---- */
struct rig {
    struct sim *sim; /* NULL: the real system */
    struct os *os;
    char directory[64];
    struct journal_options journal_options;
    struct journal *journal;
    struct metrics *metrics;
    struct test_store *store;
    struct work_options options;
    struct work *work;
};

static inline void rig_open_journal(struct rig *rig) {
    struct journal_recovery recovery;
    assert_int_equal(
        journal_open(rig->os, rig->directory, &rig->journal_options, &rig->journal, &recovery), 0);
}

/* Makes workers that begin at these positions (NULL: at the store's). */
static inline void rig_open_work(struct rig *rig, const lsn_t *positions) {
    if (!positions)
        positions = rig->store->position;
    assert_int_equal(work_new(rig->os, rig->journal, &test_ops, rig->store, positions,
                              &rig->options, rig->metrics, &rig->work),
                     0);
    rig->store->work = rig->work;
}

static inline void rig_open(struct rig *rig, struct os *os, const struct work_options *options) {
    rig->os = os;
    rig->options = *options;
    rig->store = calloc(1, sizeof *rig->store);
    assert_non_null(rig->store);
    rig->store->os = os;
    assert_int_equal(metrics_new(&rig->metrics), 0);
    assert_int_equal(os_make_path(os, rig->directory), 0);
    rig_open_journal(rig);
    rig_open_work(rig, NULL);
}

/* Deterministic: a simulated system, no threads, work_catch_up only. */
static inline void rig_open_sim(struct rig *rig, const struct work_options *options) {
    *rig = (struct rig){.directory = "/data/journal",
                        .journal_options = {.no_thread = true, .segment_bytes = 256 << 10}};
    assert_int_equal(sim_new(1, &rig->sim), 0);
    rig_open(rig, sim_os(rig->sim), options);
    rig->store->log = true;
}

static inline void rig_close(struct rig *rig) {
    assert_int_equal(atomic_load(&rig->store->faults), 0);
    rig->work = work_free(rig->work);
    rig->journal = journal_close(rig->journal);
    rig->metrics = metrics_free(rig->metrics);
    free(rig->store);
    sim_free(rig->sim);
}

/* Appends one record; returns its lsn. */
static inline lsn_t rig_append_record(struct rig *rig, uint8_t kind, uint8_t flags, uint32_t key,
                                      size_t size) {
    uint8_t payload[1024] = {0};
    assert_true(size >= 4 && size <= sizeof payload);
    store_u32(payload, key);
    struct journal_record record = {.kind = kind,
                                    .flags = flags,
                                    .key_hash = hash64(&key, sizeof key),
                                    .payload = bytes_of(payload, size)};
    int r = journal_append(rig->journal, &record, 1);
    while (r == JOURNAL_E_OVERLOAD && !rig->journal_options.no_thread) {
        os_sleep_ns(rig->os, 1000000);
        r = journal_append(rig->journal, &record, 1);
    }
    assert_int_equal(r, 0);
    return record.lsn;
}

static inline lsn_t rig_append(struct rig *rig, uint32_t key) {
    return rig_append_record(rig, JOURNAL_KIND_POINTS, 0, key, 32);
}

static inline lsn_t rig_append_control(struct rig *rig) {
    return rig_append_record(rig, JOURNAL_KIND_POINTS, JOURNAL_CONTROL, 0, 32);
}

/* Appends n records over all keys, in an order that looks random, and commits them. */
static inline lsn_t rig_append_many(struct rig *rig, unsigned n) {
    lsn_t last = 0;
    for (unsigned i = 0; i < n; i++)
        last = rig_append(rig, (uint32_t)(hash64_u64(i) % KEYS));
    return last;
}

static inline void rig_commit(struct rig *rig) {
    assert_int_equal(journal_commit(rig->journal), 0);
}

static inline void rig_catch_up(struct rig *rig) {
    assert_int_equal(work_catch_up(rig->work, NULL, NULL), 0);
}

static inline unsigned rig_lane(const struct rig *rig, uint32_t key) {
    return work_lane_of(rig->work, hash64(&key, sizeof key));
}

#endif
