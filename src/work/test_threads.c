/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The laws of workers with threads, on the real system: order and one thread a lane under random
 * retries, no lost wake-up, scaling, stalls, stopping in the middle. What a broken law looks like
 * is counted by the store (testing.h) and asserted by rig_close.
 */
#include "os/test_wait.h"
#include "work/testing.h"

#include <unistd.h>

#ifdef MILLRACE_TINY
enum { STRAGGLER_ROUNDS = 200, STRAGGLER_EVERY = 150 };
#else
enum { STRAGGLER_ROUNDS = 12, STRAGGLER_EVERY = 500 }; /* each waits for seconds */
#endif

static void rig_open_real(struct rig *rig, const struct work_options *options) {
    *rig = (struct rig){.journal_options = {.sync = JOURNAL_SYNC_OS, .segment_bytes = 1 << 20}};
    snprintf(rig->directory, sizeof rig->directory, "/tmp/millrace-work-XXXXXX");
    assert_non_null(mkdtemp(rig->directory));
    rig_open(rig, os_real(), options);
}

static void remove_entry(void *context, const char *name) {
    struct rig *rig = context;
    char path[OS_PATH_MAX];
    assert_int_equal(os_path_join(path, rig->directory, "%s", name), 0);
    assert_int_equal(os_remove(rig->os, path), 0);
}

static void rig_close_real(struct rig *rig) {
    struct rig copy = *rig;
    rig_close(rig);
    assert_int_equal(os_list(copy.os, copy.directory, remove_entry, &copy), 0);
    assert_int_equal(os_rmdir(copy.os, copy.directory), 0);
}

static void print_status(struct rig *rig) {
    struct work_status s;
    work_status(rig->work, &s);
    print_error("appended %llu durable %llu dispatched %llu visible %llu lag %llu queued %zu "
                "threads %u sleepers %u retrying %u down %u stalled %d: %s\n",
                (unsigned long long)journal_appended(rig->journal),
                (unsigned long long)journal_durable(rig->journal),
                (unsigned long long)rig->work->dispatched,
                (unsigned long long)work_visible_lsn(rig->work), (unsigned long long)s.lag_records,
                rig->work->queued_bytes, s.threads, atomic_load(&rig->work->sleepers),
                s.lanes_retrying, s.lanes_down, s.stalled, s.reason);
}

/* Waits until the condition holds; false, and says how things stand, after WAIT_MS. */
static bool eventually(struct rig *rig, bool (*holds)(struct rig *rig)) {
    uint64_t deadline = os_monotonic_ns(rig->os) + WAIT_MS * NS_PER_MS;
    while (!holds(rig)) {
        if (os_monotonic_ns(rig->os) > deadline) {
            print_status(rig);
            return false;
        }
        os_sleep_ns(rig->os, NS_PER_MS / 4);
    }
    return true;
}

static bool all_visible(struct rig *rig) {
    return work_visible_lsn(rig->work) >= journal_appended(rig->journal);
}

static unsigned settled(const struct rig *rig) {
    return atomic_load(&rig->store->applied) + atomic_load(&rig->store->rejected);
}

static struct work_status status_of(struct rig *rig) {
    struct work_status status;
    work_status(rig->work, &status);
    return status;
}

/* ---- Order ---- */
static enum work_outcome random_outcome(struct test_store *s, const struct journal_record *record,
                                        unsigned tried) {
    (void)s;
    uint64_t dice = hash64_u64(record->lsn * 8 + tried) % 1000;
    if (tried < 2 && dice < 5)
        return WORK_RETRY;
    return dice >= 990 ? WORK_REJECT : WORK_OK;
}

enum { APPENDERS = 2, APPENDED = 10000 };

static void append_some(void *argument) {
    struct rig *rig = argument;
    for (unsigned i = 0; i < APPENDED; i++) {
        rig_append(rig, (uint32_t)(hash64_u64(i) % KEYS));
        if (i % 500 == 0)
            rig_append_control(rig);
    }
}

/* Invariant 4: the store counts two threads in a lane, a record twice, a key out of order. */
static void test_order_under_threads_and_random_retries(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 8,
                                               .threads_min = 4,
                                               .batch_records_max = 16,
                                               .queue_bytes_max = 64 << 10});
    rig.store->script = random_outcome;
    assert_int_equal(work_start(rig.work), 0);
    struct os_thread *appenders[APPENDERS];
    for (unsigned i = 0; i < APPENDERS; i++)
        assert_int_equal(os_thread_start(rig.os, "append", append_some, &rig, &appenders[i]), 0);
    for (unsigned i = 0; i < APPENDERS; i++)
        os_thread_join(rig.os, appenders[i]);
    assert_true(eventually(&rig, all_visible));
    assert_int_equal(settled(&rig), APPENDERS * APPENDED);
    assert_true(atomic_load(&rig.store->rejected) > 0);
    assert_int_equal(atomic_load(&rig.store->controls), APPENDERS * APPENDED / 500);
    assert_int_equal(status_of(&rig).lag_records, 0);
    rig_close_real(&rig);
}

/* ---- Waiting for visibility ---- */
struct waiter {
    struct work_listener listener;
    struct mutex lock;
    struct condition called;
    bool rung;
};

static void waiter_visible(struct work_listener *listener) {
    struct waiter *waiter = CONTAINER_OF(listener, struct waiter, listener);
    mutex_lock(&waiter->lock);
    waiter->rung = true;
    condition_signal(&waiter->called);
    mutex_unlock(&waiter->lock);
}

/* Lowers wanted, then checks, then sleeps: as http does. False: it was never woken. */
static bool wait_visible(struct rig *rig, struct waiter *waiter, uint64_t mask, lsn_t lsn) {
    uint64_t deadline = os_monotonic_ns(rig->os) + WAIT_MS * NS_PER_MS;
    bool in_time = true;
    for (;;) {
        waiter->listener.wanted = lsn;
        if (work_visible(rig->work, mask, lsn) || !in_time)
            return in_time;
        mutex_lock(&waiter->lock);
        while (!waiter->rung && in_time)
            in_time = condition_wait_until(&waiter->called, &waiter->lock, deadline);
        waiter->rung = false;
        mutex_unlock(&waiter->lock);
    }
}

static void waiter_init(struct waiter *waiter, struct rig *rig) {
    *waiter = (struct waiter){.listener = {.visible = waiter_visible, .wanted = UINT64_MAX}};
    mutex_init(&waiter->lock, LOCK_RANK_HTTP);
    condition_init(&waiter->called);
    work_listen(rig->work, &waiter->listener);
}

static void waiter_deinit(struct waiter *waiter) {
    condition_deinit(&waiter->called);
    mutex_deinit(&waiter->lock);
}

static void a_moment(struct test_store *s, unsigned lane, size_t n) {
    (void)lane, (void)n;
    os_sleep_ns(s->os, NS_PER_MS / 10);
}

/* A few writes in a row, then quiet, and the last is waited for by its own lane or by all: nothing
 * later wakes a waiter that was forgotten. */
static void test_no_wake_up_is_lost(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = 2});
    rig.store->on_batch = a_moment;
    struct waiter waiter;
    waiter_init(&waiter, &rig);
    assert_int_equal(work_start(rig.work), 0);
    for (uint32_t i = 0; i < 1500; i++) {
        lsn_t lsn = 0;
        uint32_t key = 0;
        for (unsigned n = 0; n <= i % 4; n++) {
            os_sleep_ns(rig.os, hash64_u64(i * 4 + n) % 100000);
            key = (uint32_t)hash64_u64(i + n) % KEYS;
            lsn = i % 50 == 0 ? rig_append_control(&rig) : rig_append(&rig, key);
        }
        uint64_t mask = i % 2 == 0 ? 0xf : UINT64_C(1) << rig_lane(&rig, key);
        assert_true(wait_visible(&rig, &waiter, mask, lsn));
    }
    work_stop(rig.work);
    waiter_deinit(&waiter);
    rig_close_real(&rig);
}

/* ---- Who wakes whom ---- */
enum { TOGETHER = 4 };

/* Returns when TOGETHER batches are under way at once. */
static void meet(struct test_store *s, unsigned lane, size_t n) {
    (void)n;
    atomic_uint *met = s->context;
    atomic_fetch_add(met, 1);
    uint64_t deadline = os_monotonic_ns(s->os) + WAIT_MS * NS_PER_MS;
    while (atomic_load(met) % TOGETHER != 0 && os_monotonic_ns(s->os) < deadline)
        os_sleep_ns(s->os, NS_PER_MS / 10);
    fault_if(s, atomic_load(met) % TOGETHER != 0, "who leaves work behind wakes another", lane);
}

/* One commit readies four lanes; the journal's listener wakes one thread, the threads wake each
 * other. */
static void test_threads_wake_each_other(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = TOGETHER});
    atomic_uint met = 0;
    rig.store->context = &met;
    rig.store->on_batch = meet;
    assert_int_equal(work_start(rig.work), 0);
    uint32_t keys[TOGETHER] = {0};
    struct journal_record group[TOGETHER];
    for (unsigned lane = 0; lane < TOGETHER; lane++) {
        while (rig_lane(&rig, keys[lane]) != lane)
            keys[lane]++;
        group[lane] = (struct journal_record){.kind = JOURNAL_KIND_POINTS,
                                              .key_hash = hash64(&keys[lane], sizeof keys[lane]),
                                              .payload = bytes_of(&keys[lane], sizeof keys[lane])};
    }
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(journal_append(rig.journal, group, TOGETHER), 0);
        assert_true(eventually(&rig, all_visible));
    }
    rig_close_real(&rig);
}

static bool one_is_visible(struct rig *rig) {
    return work_visible_lsn(rig->work) >= *(lsn_t *)rig->store->context;
}

/* Records of other kinds alone are passed though nobody is woken for them; the next of ours is
 * dealt at once, wherever the cursor was left. */
static void test_other_kinds_are_passed(void **state) {
    (void)state;
    struct rig rig;
    lsn_t last = 0;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = 2});
    rig.store->context = &last;
    assert_int_equal(work_start(rig.work), 0);
    for (unsigned round = 0; round < 5; round++) {
        for (uint32_t i = 0; i < 100; i++)
            last = rig_append_record(&rig, JOURNAL_KIND_TASKS, 0, i, 64);
        assert_true(eventually(&rig, one_is_visible));
        assert_int_equal(status_of(&rig).lag_records, 0);
        last = rig_append(&rig, round);
        assert_true(eventually(&rig, one_is_visible));
    }
    assert_int_equal(atomic_load(&rig.store->applied), 5);
    rig_close_real(&rig);
}

/* ---- How many threads ---- */
static void slow_batch(struct test_store *s, unsigned lane, size_t n) {
    (void)lane, (void)n;
    os_sleep_ns(s->os, 4 * NS_PER_MS);
}

static bool four_threads(struct rig *rig) {
    return status_of(rig).threads == 4;
}

static bool one_thread(struct rig *rig) {
    return status_of(rig).threads == 1;
}

static void test_threads_follow_the_lag(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 8,
                                               .threads_min = 1,
                                               .threads_max = 4,
                                               .batch_records_max = 4,
                                               .queue_bytes_max = 64 << 10});
    rig.store->on_batch = slow_batch;
    assert_int_equal(work_start(rig.work), 0);
    for (unsigned round = 1; round <= 2; round++) { /* a thread's place is used again */
        assert_true(one_thread(&rig));
        rig_append_many(&rig, 2000);
        assert_true(eventually(&rig, four_threads));
        assert_true(eventually(&rig, all_visible));
        if (round == 1)
            assert_true(eventually(&rig, one_thread));
    }
    assert_int_equal(settled(&rig), 4000);
    rig_close_real(&rig);
}

/* ---- Stall ---- */
static void hang_while_told(struct test_store *s, unsigned lane, size_t n) {
    (void)lane, (void)n;
    atomic_bool *hang = s->context;
    while (atomic_load(hang))
        os_sleep_ns(s->os, NS_PER_MS);
}

static bool stalled(struct rig *rig) {
    return status_of(rig).stalled;
}

static bool well(struct rig *rig) {
    return !stalled(rig);
}

static void test_a_lane_that_hangs_is_a_stall(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = 1, .stall_ms = 50});
    atomic_bool hang = true;
    rig.store->context = &hang;
    rig.store->on_batch = hang_while_told;
    assert_int_equal(work_start(rig.work), 0);
    assert_false(stalled(&rig));
    rig_append(&rig, 1);
    assert_true(eventually(&rig, stalled));
    assert_true(status_of(&rig).lag_ms >= 50);
    assert_int_equal(status_of(&rig).lag_records, 1);
    atomic_store(&hang, false);
    assert_true(eventually(&rig, all_visible));
    assert_true(eventually(&rig, well));
    rig_close_real(&rig);
}

static int hang_in_control(struct test_store *s, const struct journal_record *record) {
    (void)record;
    hang_while_told(s, 0, 0);
    return 0;
}

static void test_a_dispatcher_that_hangs_is_a_stall(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = 1, .stall_ms = 50});
    atomic_bool hang = true;
    rig.store->context = &hang;
    rig.store->on_control = hang_in_control;
    assert_int_equal(work_start(rig.work), 0);
    rig_append_control(&rig);
    assert_true(eventually(&rig, stalled));
    atomic_store(&hang, false);
    assert_true(eventually(&rig, all_visible));
    assert_true(eventually(&rig, well));
    rig_close_real(&rig);
}

/* ---- Down ---- */
enum { DOWN_KEY = 5 };

static enum work_outcome down_while_told(struct test_store *s, const struct journal_record *record,
                                         unsigned tried) {
    (void)tried;
    atomic_bool *down = s->context;
    return record_key(record) == DOWN_KEY && atomic_load(down) ? WORK_DOWN : WORK_OK;
}

static bool others_visible(struct rig *rig) {
    uint64_t others = 0xf & ~(UINT64_C(1) << rig_lane(rig, DOWN_KEY));
    return work_visible(rig->work, others, journal_appended(rig->journal));
}

static bool one_lane_down(struct rig *rig) {
    return status_of(rig).lanes_down == 1;
}

static void test_down_stops_one_lane_and_recovers(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = 2, .stall_ms = 1000});
    atomic_bool down = true;
    rig.store->context = &down;
    rig.store->script = down_while_told;
    assert_int_equal(work_start(rig.work), 0);
    rig_append(&rig, DOWN_KEY);
    rig_append_many(&rig, 50);
    assert_true(eventually(&rig, others_visible));
    assert_true(eventually(&rig, one_lane_down));
    os_sleep_ns(rig.os, 1500 * NS_PER_MS);
    assert_false(stalled(&rig)); /* down is not a stall */
    assert_true(work_visible_lsn(rig.work) == 0);
    atomic_store(&down, false);
    assert_true(eventually(&rig, all_visible));
    assert_int_equal(settled(&rig), 51);
    assert_int_equal(atomic_load(&rig.store->rejected), 0);
    rig_close_real(&rig);
}

/* Lanes go down and come back at random while records flow through a queue that is far too small:
 * stragglers part from the others and come up with them again, and every law holds. */
static enum work_outcome down_at_times(struct test_store *s, const struct journal_record *record,
                                       unsigned tried) {
    atomic_bool *seen = s->context; /* a straggler; the first stays down until then */
    if (record->lsn == STRAGGLER_EVERY && !atomic_load(seen))
        return WORK_DOWN;
    return tried < 2 && record->lsn % STRAGGLER_EVERY == 0 ? WORK_DOWN : WORK_OK;
}

static bool some_lane_straggles(struct rig *rig) {
    bool straggles = false;
    mutex_lock(&rig->work->pool);
    for (unsigned lane = 0; lane < rig->options.lanes; lane++)
        straggles |= rig->work->lanes[lane].straggles;
    mutex_unlock(&rig->work->pool);
    return straggles;
}

static void test_stragglers_part_and_come_up(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 8,
                                               .threads_min = 3,
                                               .batch_records_max = 16,
                                               .queue_bytes_max = 8 << 10});
    atomic_bool seen = false;
    rig.store->context = &seen;
    rig.store->script = down_at_times;
    assert_int_equal(work_start(rig.work), 0);
    for (unsigned i = 0; i < STRAGGLER_ROUNDS; i++) {
        rig_append_many(&rig, 100);
        os_sleep_ns(rig.os, NS_PER_MS);
        if (some_lane_straggles(&rig))
            atomic_store(&seen, true);
    }
    assert_true(atomic_load(&seen) || eventually(&rig, some_lane_straggles));
    atomic_store(&seen, true);
    assert_true(eventually(&rig, all_visible));
    assert_int_equal(settled(&rig), 100 * STRAGGLER_ROUNDS);
    assert_int_equal(status_of(&rig).lag_records, 0);
    rig_close_real(&rig);
}

/* ---- Stopping ---- */
static void very_slow_batch(struct test_store *s, unsigned lane, size_t n) {
    (void)lane, (void)n;
    os_sleep_ns(s->os, 40 * NS_PER_MS);
}

static bool some_settled(struct rig *rig) {
    return settled(rig) > 100;
}

static void test_stop_in_the_middle_and_go_on(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4,
                                               .threads_min = 2,
                                               .batch_records_max = 8,
                                               .queue_bytes_max = 32 << 10});
    rig.store->on_batch = very_slow_batch;
    rig.store->script = random_outcome;
    rig_append_many(&rig, 3000);
    assert_int_equal(work_start(rig.work), 0);
    assert_true(eventually(&rig, some_settled)); /* the rest would take seconds */
    work_stop(rig.work);
    unsigned before = settled(&rig);
    assert_int_equal(status_of(&rig).threads, 0);
    os_sleep_ns(rig.os, 20 * NS_PER_MS);
    assert_int_equal(settled(&rig), before);
    assert_true(before < 3000);

    /* From the store's positions, as after a restart: each record once. */
    rig.work = work_free(rig.work);
    rig_open_work(&rig, NULL);
    rig.store->on_batch = NULL;
    assert_int_equal(work_start(rig.work), 0);
    assert_true(eventually(&rig, all_visible));
    work_stop(rig.work);
    rig_append_many(&rig, 100);
    assert_int_equal(work_start(rig.work), 0);
    assert_true(eventually(&rig, all_visible));
    assert_int_equal(settled(&rig), 3100);
    rig_close_real(&rig);
}

/* Threads come and go while records flow. */
static void test_start_and_stop_again_and_again(void **state) {
    (void)state;
    struct rig rig;
    rig_open_real(&rig, &(struct work_options){.lanes = 4, .threads_min = 1, .threads_max = 3});
    for (unsigned i = 0; i < 100; i++) {
        rig_append_many(&rig, 50);
        assert_int_equal(work_start(rig.work), 0);
        if (i % 2)
            assert_true(eventually(&rig, all_visible));
        work_stop(rig.work);
    }
    assert_int_equal(work_start(rig.work), 0);
    assert_true(eventually(&rig, all_visible));
    assert_int_equal(settled(&rig), 5000);
    rig_close_real(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_under_threads_and_random_retries),
        cmocka_unit_test(test_no_wake_up_is_lost),
        cmocka_unit_test(test_threads_wake_each_other),
        cmocka_unit_test(test_other_kinds_are_passed),
        cmocka_unit_test(test_threads_follow_the_lag),
        cmocka_unit_test(test_a_lane_that_hangs_is_a_stall),
        cmocka_unit_test(test_a_dispatcher_that_hangs_is_a_stall),
        cmocka_unit_test(test_down_stops_one_lane_and_recovers),
        cmocka_unit_test(test_stragglers_part_and_come_up),
        cmocka_unit_test(test_stop_in_the_middle_and_go_on),
        cmocka_unit_test(test_start_and_stop_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
