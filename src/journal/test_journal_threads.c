/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal with its own thread: on the real system, several appenders, readers and a consumer at
 * once (run under tsan); on the simulated one, a sync that hangs.
 */
#include "journal/test_support.h"
#include "os/sync.h"
#include "os/test_wait.h"

#include <stdatomic.h>

enum { APPENDERS = 3, APPENDS = 3000, READERS = 2 };

struct stage {
    struct os *os;
    struct journal *j;
    struct journal_consumer *consumer;
    _Atomic uint64_t next_id;
    _Atomic unsigned failures; /* cmocka's asserts are for the main thread only */
    lsn_t end;
};

static void appender(void *argument) {
    struct stage *s = argument;
    uint8_t payload[200];
    for (unsigned i = 0; i < APPENDS; i++) {
        uint64_t id = atomic_fetch_add(&s->next_id, 1);
        struct journal_record record = {.key_hash = id, .kind = JOURNAL_KIND_EVENTS};
        record_fill(payload, id, 8 + id % 190);
        record.payload = bytes_of(payload, 8 + id % 190);
        int r;
        while ((r = journal_append(s->j, &record, 1)) == JOURNAL_E_OVERLOAD)
            os_sleep_ns(s->os, 100000);
        bool waits = i % 64 == 0;
        if (r || (waits && journal_wait(s->j, record.lsn, WAIT_MS)))
            atomic_fetch_add(&s->failures, 1);
        if (waits && journal_durable(s->j) < record.lsn)
            atomic_fetch_add(&s->failures, 1);
    }
}

/* Every reader sees every record once, in order; persisting as it goes recycles segments under
 * nobody, because both are behind the consumer. */
static void reader(void *argument) {
    struct stage *s = argument;
    struct journal_cursor *c;
    lsn_t next = 1;
    if (journal_cursor_new(s->j, 1, &c)) {
        atomic_fetch_add(&s->failures, 1);
        return;
    }
    while (next <= s->end) {
        struct journal_batch *b;
        int r = journal_read(c, &b);
        if (r == JOURNAL_E_END) {
            os_sleep_ns(s->os, 50000);
            continue;
        }
        if (r) {
            atomic_fetch_add(&s->failures, 1);
            break;
        }
        for (size_t i = 0; i < b->n; i++, next++)
            if (b->records[i].lsn != next || !record_is_whole(b->records[i].payload))
                atomic_fetch_add(&s->failures, 1);
        journal_batch_unref(b);
    }
    journal_cursor_free(c);
}

static void make_directory(char out[OS_PATH_MAX]) {
    uint64_t name;
    assert_int_equal(os_random(os_real(), &name, sizeof name), 0);
    assert_int_equal(os_path_join(out, "/tmp", "millrace-test-journal-%016llx/journal",
                                  (unsigned long long)name),
                     0);
}

struct removal {
    const char *directory;
};
static void remove_name(void *context, const char *name) {
    const struct removal *removal = context;
    char path[OS_PATH_MAX];
    if (os_path_join(path, removal->directory, "%s", name) == 0)
        ignore_result(os_remove(os_real(), path));
}
static void remove_directory(char *directory) {
    struct removal removal = {.directory = directory};
    ignore_result(os_list(os_real(), directory, remove_name, &removal));
    ignore_result(os_rmdir(os_real(), directory));
    *strrchr(directory, '/') = '\0';
    ignore_result(os_rmdir(os_real(), directory));
}

static void run_threads(enum journal_sync sync) {
    char directory[OS_PATH_MAX];
    struct os_thread *threads[APPENDERS + READERS];
    const struct journal_options options = {.sync = sync,
                                            .segment_bytes = 64 << 10,
                                            .window_bytes = 64 << 10,
                                            .sync_deadline_ms = WAIT_MS,
                                            .pending_bytes_max = 256 << 10};
    struct stage s = {.os = os_real(), .next_id = 1, .end = APPENDERS * APPENDS};
    struct journal_stats stats;
    make_directory(directory);
    assert_int_equal(journal_open(s.os, directory, &options, &s.j, NULL), 0);
    assert_int_equal(journal_consumer_new(s.j, "c", JOURNAL_KIND_EVENTS, 0, &s.consumer), 0);
    for (unsigned i = 0; i < APPENDERS + READERS; i++)
        assert_int_equal(
            os_thread_start(s.os, "test", i < APPENDERS ? appender : reader, &s, &threads[i]), 0);
    for (unsigned i = 0; i < APPENDERS + READERS; i++)
        os_thread_join(s.os, threads[i]);
    assert_int_equal(s.failures, 0);
    journal_consumer_persisted(s.consumer, s.end);
    UNTIL((journal_stats(s.j, &stats), stats.segments == 1)); /* by the journal's own thread */
    assert_int_equal(stats.appended_records, s.end);
    journal_close(s.j);

    struct journal_recovery found;
    assert_int_equal(journal_open(s.os, directory, &options, &s.j, &found), 0);
    assert_int_equal(found.next_lsn, s.end + 1);
    journal_close(s.j);
    remove_directory(directory);
}

static void test_many_threads_group(void **state UNUSED) {
    run_threads(JOURNAL_SYNC_GROUP);
}
static void test_many_threads_always(void **state UNUSED) {
    run_threads(JOURNAL_SYNC_ALWAYS);
}
static void test_many_threads_os(void **state UNUSED) {
    run_threads(JOURNAL_SYNC_OS);
}

/* In real time: the journal's thread is a real one although its clock is not. */
static void wait_durable(struct journal *j, lsn_t lsn) {
    UNTIL(journal_durable(j) >= lsn);
    assert_int_equal(journal_durable(j), lsn);
}

/* Invariant 10: a sync past its deadline turns appends away while reads go on. */
static void test_invariant_10_a_hanging_sync_refuses_appends(void **state UNUSED) {
    struct bench b = bench_new(3);
    struct reading got = READING_INIT;
    b.options.no_thread = false;
    b.options.sync_deadline_ms = 2000;
    bench_open(&b);
    lsn_t first = append_one(b.j, 1, 100);
    wait_durable(b.j, first);
    sim_set_faults(b.sim, &(struct sim_faults){.hold_syncs = true});
    lsn_t held = append_one(b.j, 2, 100);
    while (journal_state(b.j) == JOURNAL_OK)
        os_sleep_ns(b.os, 1000000); /* simulated time */
    assert_int_equal(journal_state(b.j), JOURNAL_HANGING);
    assert_int_equal(append_group(b.j, 3, 1, 100, NULL), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    assert_int_equal(got.n, 1);
    assert_int_equal(journal_durable(b.j), first);
    sim_set_faults(b.sim, NULL);
    wait_durable(b.j, held);
    UNTIL(journal_state(b.j) == JOURNAL_OK);
    reading_deinit(&got);
    bench_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads_group),
        cmocka_unit_test(test_many_threads_always),
        cmocka_unit_test(test_many_threads_os),
        cmocka_unit_test(test_invariant_10_a_hanging_sync_refuses_appends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
