/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The laws of workers without threads: a simulated system, a journal that commits when it is told
 * to, work_catch_up. test_threads.c has the threads.
 */
#include "work/testing.h"

#include <errno.h>

static const struct work_options four_lanes = {.lanes = 4, .threads_min = 1};

static void test_invariant_4_a_lane_applies_once_in_order(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    lsn_t last = rig_append_many(&rig, 2000);
    rig_commit(&rig);
    assert_false(work_visible(rig.work, 1, 1));
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), 2000);
    assert_int_equal(work_visible_lsn(rig.work), last);
    assert_true(work_visible(rig.work, 0xf, last));
    assert_false(work_visible(rig.work, 1, last + 1));
    rig_close(&rig);
}

static void test_lanes_are_spread_and_independent_of_slots(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    unsigned by_lane[4] = {0};
    for (uint64_t i = 0; i < 4000; i++)
        by_lane[work_lane_of(rig.work, i * 64)]++; /* one slot of a table of 64 */
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(by_lane[i], 900, 1100);
    rig_close(&rig);
}

/* A lane without records is told how far it has come, and so is visible. */
static void test_idle_lanes_pass(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    lsn_t last = 0;
    for (unsigned i = 0; i < 100; i++) {
        last = rig_append(&rig, 7);
        if (i % 10 == 0) {
            rig_commit(&rig);
            rig_catch_up(&rig);
        }
    }
    last = rig_append_record(&rig, JOURNAL_KIND_EVENTS, 0, 1, 40);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), 100);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(rig.store->position[i], last);
    rig_close(&rig);
}

static void count_largest(struct test_store *s, unsigned lane, size_t n) {
    (void)lane;
    size_t *largest = s->context;
    *largest = n > *largest ? n : *largest;
}

static void test_batches_are_full_but_not_fuller(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig,
                 &(struct work_options){.lanes = 2, .threads_min = 1, .batch_records_max = 5});
    size_t largest = 0;
    rig.store->context = &largest;
    rig.store->on_batch = count_largest;
    for (unsigned i = 0; i < 40; i++) { /* each its own batch of the journal */
        rig_append(&rig, 3);
        rig_commit(&rig);
    }
    rig_catch_up(&rig);
    assert_int_equal(largest, 5);
    assert_int_equal(atomic_load(&rig.store->applied), 40);
    rig_close(&rig);
}

/* ---- Control ---- */
static void test_control_comes_before_what_follows(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    for (unsigned i = 0; i < 300; i++)
        if (i % 10 == 0)
            rig_append_control(&rig);
        else
            rig_append(&rig, i % KEYS);
    rig_append_record(&rig, JOURNAL_KIND_EVENTS, JOURNAL_CONTROL, 0, 32);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->controls), 30);
    lsn_t control = 0;
    for (size_t i = 0; i < rig.store->n_happenings; i++) {
        struct happening *h = &rig.store->happenings[i];
        if (h->what == 'c') {
            assert_true(h->lsn > control);
            control = h->lsn;
        } else {
            assert_true(h->lsn < control + 10); /* the next control is at + 10 */
        }
    }
    rig_close(&rig);
}

static int control_fails(struct test_store *s, const struct journal_record *record) {
    (void)record;
    int *times = s->context;
    return (*times)-- > 0 ? -EIO : 0;
}

static void test_control_that_fails_holds_back_what_follows(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    int times = 2;
    rig.store->context = &times;
    rig.store->on_control = control_fails;
    rig_append_many(&rig, 10);
    lsn_t control = rig_append_control(&rig);
    lsn_t last = rig_append_many(&rig, 10);
    rig_commit(&rig);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(work_catch_up(rig.work, NULL, NULL), -EIO);
    assert_true(work_visible_lsn(rig.work) < control);
    assert_true(atomic_load(&rig.store->applied) <= 10);
    struct work_status status;
    work_status(rig.work, &status);
    assert_true(status.lag_records >= 11);
    assert_string_equal(status.reason, "the store does not take a control record");
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->controls), 1);
    assert_int_equal(atomic_load(&rig.store->applied), 20);
    assert_int_equal(work_visible_lsn(rig.work), last);
    rig_close(&rig);
}

/* ---- Reject ---- */
static enum work_outcome reject_sevenths(struct test_store *s, const struct journal_record *record,
                                         unsigned tried) {
    (void)s, (void)tried;
    return record->lsn % 7 == 0 ? WORK_REJECT : WORK_OK;
}

static void test_invariant_5_reject_takes_one_record(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    rig.store->script = reject_sevenths;
    lsn_t last = rig_append_many(&rig, 700);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->rejected), 100);
    assert_int_equal(atomic_load(&rig.store->applied), 600);
    assert_int_equal(work_visible_lsn(rig.work), last);
    char reason[8] = "";
    assert_true(work_rejection(rig.work, 6, 8, reason, sizeof reason));
    assert_string_equal(reason, "the scr");
    assert_false(work_rejection(rig.work, 8, 13, reason, sizeof reason));
    assert_false(work_rejection(rig.work, 701, 900, reason, sizeof reason));
    rig_close(&rig);
}

static enum work_outcome reject_slowly(struct test_store *s, const struct journal_record *record,
                                       unsigned tried) {
    (void)tried;
    os_sleep_ns(s->os, UINT64_C(3000000000));
    if (record->lsn == 3)
        assert_int_equal(work_visible_lsn(s->work), 2);
    return WORK_REJECT;
}

/* Or a lane full of them would look stalled. */
static void test_slow_rejections_show_before_the_batch_ends(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig,
                 &(struct work_options){.lanes = 1, .threads_min = 1, .batch_records_max = 8});
    rig.store->script = reject_slowly;
    rig_append_many(&rig, 6);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->rejected), 6);
    rig_close(&rig);
}

static int reject_fails(struct test_store *s, const struct journal_record *record) {
    (void)record;
    int *times = s->context;
    return (*times)-- > 0 ? -ENOSPC : 0;
}

static void test_reject_that_fails_is_down_not_lost(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    int times = 1;
    rig.store->context = &times;
    rig.store->on_reject = reject_fails;
    rig.store->script = reject_sevenths;
    rig_append_many(&rig, 21);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), -ENOSPC);
    char reason[64];
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->rejected), 3);
    assert_true(work_rejection(rig.work, 7, 7, reason, sizeof reason));
    rig_close(&rig);
}

static void test_rejections_forget_the_oldest(void **state) {
    (void)state;
    struct rejections r;
    char reason[8];
    assert_int_equal(rejections_init(&r), 0);
    assert_false(rejections_find(&r, 0, UINT64_MAX, reason, sizeof reason));
    for (lsn_t lsn = 1; lsn <= REJECTIONS_MAX + 10; lsn++)
        rejections_add(&r, lsn, "why");
    assert_false(rejections_find(&r, 1, 10, reason, sizeof reason));
    assert_true(rejections_find(&r, 1, 11, reason, sizeof reason));
    assert_string_equal(reason, "why");
    rejections_deinit(&r);
}

/* ---- Retry ---- */
enum { RETRIED_KEY = 5, RETRIES = 9 };

static enum work_outcome retry_key(struct test_store *s, const struct journal_record *record,
                                   unsigned tried) {
    (void)s;
    return record_key(record) == RETRIED_KEY && tried < RETRIES ? WORK_RETRY : WORK_OK;
}

/* The times between the tries of one record stay below 10 ms · 2^n, and grow. */
static void assert_backoff(const struct test_store *s, lsn_t lsn) {
    uint64_t before = 0, total = 0;
    unsigned tries = 0;
    for (size_t i = 0; i < s->n_happenings; i++) {
        const struct happening *h = &s->happenings[i];
        if (h->lsn != lsn)
            continue;
        uint64_t most_ms = (uint64_t)WORK_RETRY_FIRST_MS << (tries > 0 ? tries - 1 : 0);
        most_ms = most_ms < WORK_RETRY_MAX_MS ? most_ms : WORK_RETRY_MAX_MS;
        if (tries++ > 0) {
            assert_true(h->at_ns - before <= (most_ms + 1) * NS_PER_MS);
            total += h->at_ns - before;
        }
        before = h->at_ns;
    }
    assert_int_equal(tries, RETRIES + 1);
    assert_true(total > WORK_RETRY_MAX_MS * NS_PER_MS / 20); /* not all at once */
}

static void test_invariant_5_retry_backs_off_in_its_lane_only(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    rig.store->script = retry_key;
    rig_append(&rig, RETRIED_KEY);
    for (uint32_t i = 0; i < 60; i++)
        rig_append(&rig, i % KEYS == RETRIED_KEY ? 6 : i % KEYS);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), 61);
    assert_backoff(rig.store, 1);
    unsigned lane = rig_lane(&rig, RETRIED_KEY);
    bool applied_first = false; /* was the retried record applied? */
    unsigned others_after = 0;
    for (size_t i = 0; i < rig.store->n_happenings; i++) {
        struct happening *h = &rig.store->happenings[i];
        if (h->what == 'a' && h->lsn == 1)
            applied_first = true;
        if (h->what == 'a' && h->lane == lane)
            assert_true(applied_first);
        else if (h->what == 'a')
            others_after += applied_first;
    }
    assert_int_equal(others_after, 0);
    rig_close(&rig);
}

static enum work_outcome retry_for_ever(struct test_store *s, const struct journal_record *record,
                                        unsigned tried) {
    (void)s, (void)tried;
    return record->lsn > 3 ? WORK_RETRY : WORK_OK;
}

static void test_retry_without_end_ends_catching_up(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &(struct work_options){.lanes = 1, .threads_min = 1, .stall_ms = 100});
    rig.store->script = retry_for_ever;
    rig_append_many(&rig, 6);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    assert_int_equal(work_visible_lsn(rig.work), 3);
    struct work_status status;
    work_status(rig.work, &status);
    assert_int_equal(status.lanes_retrying, 1);
    assert_int_equal(status.lag_records, 3);
    assert_string_equal(status.reason, "the script says so");
    rig.store->script = NULL;
    rig_catch_up(&rig);
    assert_int_equal(work_visible_lsn(rig.work), 6);
    rig_close(&rig);
}

/* ---- Down ---- */
static enum work_outcome down_for_one_key(struct test_store *s, const struct journal_record *record,
                                          unsigned tried) {
    (void)tried;
    bool *down = s->context;
    return *down && record_key(record) == RETRIED_KEY ? WORK_DOWN : WORK_OK;
}

static void test_invariant_5_down_stops_its_lane_and_recovers(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    bool down = true;
    rig.store->context = &down;
    rig.store->script = down_for_one_key;
    rig_append(&rig, RETRIED_KEY);
    lsn_t last = rig_append_many(&rig, 50);
    rig_commit(&rig);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    assert_int_equal(atomic_load(&rig.store->rejected), 0);
    assert_int_equal(work_visible_lsn(rig.work), 0);
    struct work_status status;
    work_status(rig.work, &status);
    assert_int_equal(status.lanes_down, 1);
    down = false;
    rig_catch_up(&rig);
    assert_int_equal(work_visible_lsn(rig.work), last);
    assert_int_equal(atomic_load(&rig.store->applied), 51);
    work_status(rig.work, &status);
    assert_int_equal(status.lanes_down, 0);
    assert_int_equal(status.lag_records, 0);
    rig_close(&rig);
}

static void test_a_broken_store_is_down(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    rig.store->broken = -EIO;
    rig_append_many(&rig, 20);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), -EIO);
    rig.store->broken = 0;
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), 20);
    rig_close(&rig);
}

/* ---- Bounds ---- */
struct most {
    size_t queued_bytes;
};

static void watch_queue(struct test_store *s, unsigned lane, size_t n) {
    (void)lane, (void)n;
    struct most *most = s->context;
    if (s->work->queued_bytes > most->queued_bytes)
        most->queued_bytes = s->work->queued_bytes;
}

/* 2 MB of records go through a queue of 64 KiB: never more than the bound and one batch. */
static void test_the_queue_is_bounded(void **state) {
    (void)state;
    enum { QUEUE = 64 << 10, RECORD = 1000, BATCH = 512 * (RECORD + 200) };
    struct rig rig;
    rig_open_sim(&rig,
                 &(struct work_options){.lanes = 4, .threads_min = 1, .queue_bytes_max = QUEUE});
    struct most most = {0};
    rig.store->context = &most;
    rig.store->on_batch = watch_queue;
    for (unsigned i = 0; i < 2000; i++) {
        rig_append_record(&rig, JOURNAL_KIND_POINTS, 0, i % KEYS, RECORD);
        if (i % 8 == 0) /* batches of 8 */
            rig_commit(&rig);
    }
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), 2000);
    assert_in_range(most.queued_bytes, QUEUE / 2, QUEUE + BATCH);
    assert_int_equal(rig.work->queued_bytes, 0);
    assert_int_equal(rig.work->unapplied_records, 0);
    rig_close(&rig);
}

/* A lane that is down while the queues are full does not hold up the others: it is let go and reads
 * for itself when it recovers. */
static void test_a_straggler_reads_for_itself(void **state) {
    (void)state;
    enum { QUEUE = 16 << 10, RECORDS = 2000 };
    struct rig rig;
    rig_open_sim(&rig,
                 &(struct work_options){.lanes = 4, .threads_min = 1, .queue_bytes_max = QUEUE});
    bool down = true;
    rig.store->context = &down;
    rig.store->script = down_for_one_key;
    uint64_t bit = UINT64_C(1) << rig_lane(&rig, RETRIED_KEY);
    lsn_t first = 0, last = 0;
    for (unsigned i = 0; i < RECORDS; i++) {
        last = rig_append(&rig, i % KEYS);
        if (i % KEYS == RETRIED_KEY && first == 0)
            first = last;
        if (i % 16 == 0)
            rig_commit(&rig);
    }
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    assert_false(work_visible(rig.work, 0xf & ~bit, last));
    os_sleep_ns(rig.os, WORK_STRAGGLE_MS * NS_PER_MS);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    assert_true(work_visible(rig.work, 0xf & ~bit, last));
    assert_false(work_visible(rig.work, bit, first));
    struct work_status status;
    work_status(rig.work, &status);
    assert_int_equal(status.lanes_down, 1);
    assert_int_equal(status.lag_records, RECORDS - atomic_load(&rig.store->applied));
    assert_true(rig.work->queued_bytes < QUEUE);

    down = false;
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), RECORDS);
    last = rig_append_many(&rig, 100); /* back among the others */
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), RECORDS + 100);
    assert_int_equal(rig.work->queued_bytes, 0);
    assert_int_equal(rig.work->unapplied_records, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(rig.work->lanes[i].straggles);
        assert_int_equal(rig.store->position[i], last);
    }
    rig_close(&rig);
}

struct two_troubles {
    bool down; /* first, as down_for_one_key has it */
    bool control_fails;
};

static int control_fails_while_told(struct test_store *s, const struct journal_record *record) {
    (void)record;
    struct two_troubles *troubles = s->context;
    return troubles->control_fails ? -EIO : 0;
}

/* A straggler stops where the dispatcher stands, also in the middle of a batch of the journal: here
 * before a control record that the store refuses. Else what lies behind would come twice. */
static void test_a_straggler_stays_behind_the_dispatcher(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &(struct work_options){.lanes = 4,
                                              .threads_min = 1,
                                              .batch_records_max = 512,
                                              .queue_bytes_max = 16 << 10});
    struct two_troubles troubles = {.down = true, .control_fails = true};
    rig.store->context = &troubles;
    rig.store->script = down_for_one_key;
    rig.store->on_control = control_fails_while_told;
    rig_append_many(&rig, 2000);
    lsn_t control = rig_append_control(&rig);
    rig_append_many(&rig, 300);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    os_sleep_ns(rig.os, WORK_STRAGGLE_MS * NS_PER_MS);
    while (rig.work->dispatched < control - 1)
        assert_true(work_catch_up(rig.work, NULL, NULL) != 0);
    const struct lane *lane = &rig.work->lanes[rig_lane(&rig, RETRIED_KEY)];
    assert_true(lane->straggles);
    troubles.down = false;
    while (lane->straggles)
        assert_int_equal(work_catch_up(rig.work, NULL, NULL), -EIO);
    troubles.control_fails = false;
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), 2300);
    rig_close(&rig);
}

/* While a straggler that has come up tells the store how far it is, another thread deals it more:
 * the one that has the lane lets go of it and does not apply that too. */
struct meanwhile {
    struct rig *rig;
    bool down;
    bool dealt;
};

static enum work_outcome down_meanwhile(struct test_store *s, const struct journal_record *record,
                                        unsigned tried) {
    const struct meanwhile *m = s->context;
    (void)tried;
    return m->down && record_key(record) == RETRIED_KEY ? WORK_DOWN : WORK_OK;
}

static void deal_meanwhile(struct test_store *s, unsigned lane, lsn_t lsn) {
    (void)lsn;
    struct meanwhile *m = s->context;
    if (m->down || m->dealt || lane != rig_lane(m->rig, RETRIED_KEY))
        return;
    m->dealt = true;
    rig_append(m->rig, RETRIED_KEY);
    rig_commit(m->rig);
    mutex_lock(&s->work->pool);
    int r = work_dispatch(s->work);
    mutex_unlock(&s->work->pool);
    assert_int_equal(r, 0);
}

static void test_a_straggler_that_came_up_is_let_go_of(void **state) {
    (void)state;
    enum { QUEUE = 16 << 10, RECORDS = 2000 };
    struct rig rig;
    rig_open_sim(&rig,
                 &(struct work_options){.lanes = 4, .threads_min = 1, .queue_bytes_max = QUEUE});
    struct meanwhile meanwhile = {.rig = &rig, .down = true};
    rig.store->context = &meanwhile;
    rig.store->script = down_meanwhile;
    rig.store->on_passed = deal_meanwhile;
    rig_append(&rig, RETRIED_KEY);
    for (unsigned i = 0; i < RECORDS; i++) {
        uint32_t key = i % KEYS;
        if (rig_lane(&rig, key) == rig_lane(&rig, RETRIED_KEY))
            key = RETRIED_KEY;
        rig_append(&rig, key);
    }
    lsn_t last = rig_append(&rig, 0);
    for (uint32_t key = 0; rig_lane(&rig, key) == rig_lane(&rig, RETRIED_KEY); key++)
        last = rig_append(&rig, key + 1);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    os_sleep_ns(rig.os, WORK_STRAGGLE_MS * NS_PER_MS);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    assert_true(rig.work->lanes[rig_lane(&rig, RETRIED_KEY)].straggles);
    meanwhile.down = false;
    rig_catch_up(&rig);
    assert_true(meanwhile.dealt);
    rig_catch_up(&rig);
    assert_int_equal(atomic_load(&rig.store->applied), journal_durable(rig.journal));
    assert_true(journal_durable(rig.journal) > last);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(rig.work->lanes[i].state, LANE_IDLE);
    rig_close(&rig);
}

/* ---- Positions ---- */
/* Workers that begin at persisted positions deal each lane what is above its own, and no more: the
 * store counts a record that comes twice, or a gap, as a fault. */
static void test_replay_from_each_lanes_position(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    lsn_t persisted[WORK_LANES_MAX] = {0};
    struct test_store *s = rig.store;
    for (unsigned round = 1; round <= 20; round++) {
        rig_append_many(&rig, 37);
        rig_commit(&rig);
        rig_catch_up(&rig);
        /* Crash: of each lane only what was persisted is there. */
        for (unsigned lane = 0; lane < 4; lane++)
            if (hash64_u64(round * 4 + lane) % 2)
                persisted[lane] = s->position[lane];
        for (lsn_t lsn = 1; lsn <= journal_durable(rig.journal); lsn++)
            s->seen[lsn] = 0;
        memset(s->key_last, 0, sizeof s->key_last);
        memcpy(s->position, persisted, sizeof persisted);
        unsigned before = atomic_load(&s->applied);
        rig.work = work_free(rig.work);
        rig_open_work(&rig, persisted);
        rig_catch_up(&rig);
        unsigned expected = 0;
        for (unsigned i = 0; i < 37 * round; i++) {
            uint32_t key = (uint32_t)(hash64_u64(i % 37) % KEYS);
            expected += i + 1 > persisted[rig_lane(&rig, key)];
        }
        assert_int_equal(atomic_load(&s->applied) - before, expected);
    }
    rig_close(&rig);
}

/* A lane's visible position is just below its oldest record not applied, also when others and
 * other lanes' records are far ahead. */
static void test_visible_of_a_lane_that_waits(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    bool down = true;
    rig.store->context = &down;
    rig.store->script = down_for_one_key;
    unsigned lane = rig_lane(&rig, RETRIED_KEY);
    uint32_t other = 0;
    while (rig_lane(&rig, other) == lane)
        other++;
    for (unsigned i = 0; i < 10; i++)
        rig_append(&rig, other);
    lsn_t stuck = rig_append(&rig, RETRIED_KEY);
    lsn_t last = rig_append(&rig, other);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, NULL, NULL), WORK_E_DOWN);
    uint64_t bit = UINT64_C(1) << lane;
    assert_true(work_visible(rig.work, bit, stuck - 1));
    assert_false(work_visible(rig.work, bit, stuck));
    assert_true(work_visible(rig.work, 0xf & ~bit, last));
    assert_int_equal(work_visible_lsn(rig.work), stuck - 1);
    down = false;
    rig_catch_up(&rig);
    rig_close(&rig);
}

struct counting_listener {
    struct work_listener listener;
    unsigned calls;
};

static void count_call(struct work_listener *listener) {
    CONTAINER_OF(listener, struct counting_listener, listener)->calls++;
}

static void test_a_listener_is_called_once_an_asking(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    struct counting_listener l = {.listener = {.visible = count_call, .wanted = UINT64_MAX}};
    work_listen(rig.work, &l.listener);
    rig_append_many(&rig, 10);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(l.calls, 0);
    l.listener.wanted = 15;
    rig_append_many(&rig, 4);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(l.calls, 0);
    rig_append_many(&rig, 100);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_int_equal(l.calls, 1);
    assert_true(l.listener.wanted == UINT64_MAX);
    rig_close(&rig);
}

struct told {
    lsn_t last;
    lsn_t end;
    unsigned times;
};

static void told_progress(void *context, lsn_t at, lsn_t end) {
    struct told *told = context;
    assert_true(at >= told->last && at <= end);
    *told = (struct told){.last = at, .end = end, .times = told->times + 1};
}

/* While a lane is released, the dispatcher goes on and finds it busy: the lane itself must tell
 * whoever waits that it has come as far. The hooks play the dispatcher of another thread. */
struct release_race {
    struct work_listener listener;
    struct rig *rig;
    uint64_t lane_bit;
    lsn_t lsn;
    unsigned stage;
    bool woken;
};

static void recheck(struct work_listener *listener) {
    struct release_race *race = CONTAINER_OF(listener, struct release_race, listener);
    listener->wanted = race->lsn;
    race->woken = work_visible(race->rig->work, race->lane_bit, race->lsn);
}

static void dispatch_another(struct release_race *race) {
    race->lsn = rig_append_record(race->rig, JOURNAL_KIND_EVENTS, 0, 1, 32);
    rig_commit(race->rig);
    race->listener.wanted = race->lsn;
    mutex_lock(&race->rig->work->pool);
    assert_int_equal(work_dispatch(race->rig->work), 0);
    mutex_unlock(&race->rig->work->pool);
}

static void dispatch_in_apply(struct test_store *s, unsigned lane, size_t n) {
    (void)lane, (void)n;
    struct release_race *race = s->context;
    if (race->stage++ == 0)
        dispatch_another(race);
}

static void dispatch_in_passed(struct test_store *s, unsigned lane, lsn_t lsn) {
    (void)lsn;
    struct release_race *race = s->context;
    if (race->lane_bit == UINT64_C(1) << lane && race->stage++ == 1)
        dispatch_another(race);
}

static void test_a_released_lane_tells_how_far_it_came(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    struct release_race race = {.listener = {.visible = recheck, .wanted = UINT64_MAX},
                                .rig = &rig,
                                .lane_bit = UINT64_C(1) << rig_lane(&rig, 3)};
    rig.store->context = &race;
    rig.store->on_batch = dispatch_in_apply;
    rig.store->on_passed = dispatch_in_passed;
    work_listen(rig.work, &race.listener);
    rig_append(&rig, 3);
    rig_commit(&rig);
    rig_catch_up(&rig);
    assert_true(race.stage >= 2);
    assert_true(race.woken);
    rig_close(&rig);
}

static void test_progress_is_told(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    struct told told = {0};
    assert_int_equal(work_catch_up(rig.work, told_progress, &told), 0);
    lsn_t last = rig_append_many(&rig, 500);
    rig_commit(&rig);
    assert_int_equal(work_catch_up(rig.work, told_progress, &told), 0);
    assert_int_equal(told.last, last);
    assert_int_equal(told.end, last);
    assert_true(told.times > 1);
    rig_close(&rig);
}

/* ---- The journal's faults ---- */
/* The nth call of the disk fails while workers read what is no longer in memory: the error comes
 * out, nothing is lost, and the next try goes on. */
static void test_a_failing_read_loses_nothing(void **state) {
    (void)state;
    struct rig rig;
    bool faulted = true;
    for (uint64_t nth = 1; faulted; nth++) {
        rig_open_sim(&rig, &four_lanes);
        rig.work = work_free(rig.work);
        rig.journal = journal_close(rig.journal);
        rig.journal_options.window_bytes = 1;
        rig_open_journal(&rig);
        lsn_t last = rig_append_many(&rig, 200);
        rig_commit(&rig);
        rig.journal = journal_close(rig.journal);
        rig_open_journal(&rig);
        rig_open_work(&rig, NULL);
        sim_set_faults(rig.sim, &(struct sim_faults){.fail_at = nth, .fail_error = -EIO});
        int r = work_catch_up(rig.work, NULL, NULL);
        faulted = sim_faulted(rig.sim);
        assert_int_equal(r, faulted ? -EIO : 0);
        sim_set_faults(rig.sim, &(struct sim_faults){0});
        rig_catch_up(&rig);
        assert_int_equal(work_visible_lsn(rig.work), last);
        assert_int_equal(atomic_load(&rig.store->applied), 200);
        rig_close(&rig);
        assert_true(nth < 1000);
    }
}

static void test_retention_follows_the_lowest_lane(void **state) {
    (void)state;
    struct rig rig;
    rig_open_sim(&rig, &four_lanes);
    lsn_t last = rig_append_many(&rig, 100);
    rig_commit(&rig);
    rig_catch_up(&rig);
    struct work_status status;
    work_status(rig.work, &status);
    uint64_t before = status.pinned_bytes;
    assert_true(before > 0);
    work_persisted(rig.work, (lsn_t[]){last, last, last, 1});
    work_status(rig.work, &status);
    assert_true(status.pinned_bytes > 0 && status.pinned_bytes <= before);
    work_persisted(rig.work, (lsn_t[]){last, last, last, last});
    work_status(rig.work, &status);
    assert_true(status.pinned_bytes < before / 10);
    rig_close(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariant_4_a_lane_applies_once_in_order),
        cmocka_unit_test(test_lanes_are_spread_and_independent_of_slots),
        cmocka_unit_test(test_idle_lanes_pass),
        cmocka_unit_test(test_batches_are_full_but_not_fuller),
        cmocka_unit_test(test_control_comes_before_what_follows),
        cmocka_unit_test(test_control_that_fails_holds_back_what_follows),
        cmocka_unit_test(test_invariant_5_reject_takes_one_record),
        cmocka_unit_test(test_slow_rejections_show_before_the_batch_ends),
        cmocka_unit_test(test_reject_that_fails_is_down_not_lost),
        cmocka_unit_test(test_rejections_forget_the_oldest),
        cmocka_unit_test(test_invariant_5_retry_backs_off_in_its_lane_only),
        cmocka_unit_test(test_retry_without_end_ends_catching_up),
        cmocka_unit_test(test_invariant_5_down_stops_its_lane_and_recovers),
        cmocka_unit_test(test_a_broken_store_is_down),
        cmocka_unit_test(test_the_queue_is_bounded),
        cmocka_unit_test(test_a_straggler_reads_for_itself),
        cmocka_unit_test(test_a_straggler_stays_behind_the_dispatcher),
        cmocka_unit_test(test_a_straggler_that_came_up_is_let_go_of),
        cmocka_unit_test(test_replay_from_each_lanes_position),
        cmocka_unit_test(test_visible_of_a_lane_that_waits),
        cmocka_unit_test(test_a_listener_is_called_once_an_asking),
        cmocka_unit_test(test_a_released_lane_tells_how_far_it_came),
        cmocka_unit_test(test_progress_is_told),
        cmocka_unit_test(test_a_failing_read_loses_nothing),
        cmocka_unit_test(test_retention_follows_the_lowest_lane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
