/* SPDX-License-Identifier: Apache-2.0 */
/* The journal on a disk that works: appending, reading, segments, retention, bounds. */
#include "journal/test_support.h"

static void expect_range(const struct reading *r, lsn_t first, size_t n) {
    assert_int_equal(r->n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(r->seen[i].lsn, first + i);
}

static void test_append_then_read(void **state UNUSED) {
    struct bench b = bench_new(1);
    struct reading got = READING_INIT;
    b.options.window_bytes = 1 << 20;
    bench_open(&b);
    assert_int_equal(b.found.next_lsn, 1);
    for (uint64_t id = 1; id <= 20; id++)
        assert_int_equal(append_one(b.j, id, 50), id);
    assert_int_equal(journal_appended(b.j), 20);
    assert_int_equal(journal_durable(b.j), 0);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    assert_int_equal(got.n, 0); /* nothing past the durable lsn */
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(journal_durable(b.j), 20);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    expect_range(&got, 1, 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(got.seen[i].id, i + 1);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_reopen_goes_on(void **state UNUSED) {
    struct bench b = bench_new(2);
    struct reading got = READING_INIT;
    bench_open(&b);
    for (uint64_t id = 1; id <= 300; id++) {
        append_one(b.j, id, 8 + id % 200);
        if (id % 7 == 0)
            assert_int_equal(journal_commit(b.j), 0);
        if (id % 50 == 0)
            bench_reopen(&b);
    }
    bench_reopen(&b);
    assert_int_equal(b.found.next_lsn, 301);
    assert_int_equal(b.found.first_lsn, 1);
    assert_int_equal(b.found.torn_bytes, 0);
    assert_int_equal(b.found.damaged_bytes, 0);
    assert_true(b.found.segments > 5);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    expect_range(&got, 1, 300);
    reading_deinit(&got);
    bench_free(&b);
}

/* Opening and closing without a write leaves the directory as it is. */
static void test_idle_open_writes_no_segment(void **state UNUSED) {
    struct bench b = bench_new(3);
    bench_open(&b);
    append_one(b.j, 1, 100);
    bench_reopen(&b);
    size_t before = count_files(b.os, DIRECTORY, "segment-");
    for (int i = 0; i < 5; i++)
        bench_reopen(&b);
    assert_int_equal(count_files(b.os, DIRECTORY, "segment-"), before);
    assert_int_equal(journal_durable(b.j), 1);
    bench_free(&b);
}

static void test_cursor_crosses_between_memory_and_disk(void **state UNUSED) {
    struct bench b = bench_new(4);
    struct reading got = READING_INIT;
    struct journal_cursor *c;
    b.options.window_bytes = 16 << 10;
    bench_open(&b);
    assert_int_equal(journal_cursor_new(b.j, 1, &c), 0);
    uint64_t id = 0;
    for (int round = 0; round < 40; round++) {
        unsigned records = round % 4 == 0 ? 300 : 3; /* falls behind, then keeps up */
        for (unsigned i = 0; i < records; i++)
            append_one(b.j, ++id, 100);
        assert_int_equal(journal_commit(b.j), 0);
        assert_int_equal(read_on(c, &got), JOURNAL_E_END);
        assert_int_equal(got.n, id);
    }
    expect_range(&got, 1, id);
    journal_cursor_free(c);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_batch_outlives_its_window(void **state UNUSED) {
    struct bench b = bench_new(5);
    struct journal_cursor *c;
    struct journal_batch *batch;
    bench_open(&b);
    append_one(b.j, 42, 100);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(journal_cursor_new(b.j, 1, &c), 0);
    assert_int_equal(journal_read(c, &batch), 0);
    assert_int_equal(journal_read(c, &batch), JOURNAL_E_END); /* batch untouched */
    for (uint64_t id = 100; id < 30000; id++)
        append_one(b.j, id, 100);
    assert_int_equal(journal_commit(b.j), 0);
    journal_cursor_free(c);
    assert_int_equal(batch->n, 1);
    assert_int_equal(batch->next_lsn, 2);
    assert_true(record_is_whole(batch->records[0].payload));
    assert_int_equal(load_u64(batch->records[0].payload.data), 42);
    journal_batch_unref(journal_batch_ref(batch));
    journal_batch_unref(batch);
    bench_free(&b);
}

static void test_groups_stay_in_one_segment(void **state UNUSED) {
    struct bench b = bench_new(6);
    struct reading got = READING_INIT;
    bench_open(&b);
    lsn_t last = 0;
    for (uint64_t id = 1; id <= 200; id += 10) {
        assert_int_equal(append_group(b.j, id, 10, 150, &last), 0); /* 2 of them fill a segment */
        assert_int_equal(journal_commit(b.j), 0);
    }
    bench_reopen(&b);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    expect_range(&got, 1, 200);
    for (size_t i = 0; i < got.n; i++)
        assert_int_equal(got.seen[i].flags & JOURNAL_MORE, i % 10 == 9 ? 0 : JOURNAL_MORE);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_oversize_group_gets_its_own_segment(void **state UNUSED) {
    struct bench b = bench_new(7);
    struct reading got = READING_INIT;
    bench_open(&b);
    append_one(b.j, 1, 100);
    append_one(b.j, 2, 1 << 20);
    assert_int_equal(append_group(b.j, 3, 100, 1000, NULL), 0);
    append_one(b.j, 103, 100);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    expect_range(&got, 1, 103);
    bench_reopen(&b);
    reading_deinit(&got);
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    expect_range(&got, 1, 103);
    assert_int_equal(b.found.damaged_bytes, 0);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_group_too_large_is_refused(void **state UNUSED) {
    struct bench b = bench_new(8);
    bench_open(&b);
    uint8_t *large = calloc(1, JOURNAL_GROUP_MAX_BYTES);
    assert_non_null(large);
    struct journal_record record = {.kind = JOURNAL_KIND_POINTS,
                                    .payload = bytes_of(large, JOURNAL_GROUP_MAX_BYTES)};
    assert_int_equal(journal_append(b.j, &record, 1), JOURNAL_E_TOO_LARGE);
    assert_int_equal(journal_appended(b.j), 0);
    record.payload.size -= 64;
    assert_int_equal(journal_append(b.j, &record, 1), 0);
    assert_int_equal(journal_commit(b.j), 0);
    free(large);
    bench_free(&b);
}

static void test_invariant_6_pending_bytes_are_bounded(void **state UNUSED) {
    struct bench b = bench_new(9);
    b.options.pending_bytes_max = 4096;
    bench_open(&b);
    unsigned n = 0;
    while (append_group(b.j, n + 1, 1, 100, NULL) == 0)
        assert_true(++n < 100);
    assert_in_range(n, 20, 4096 / 140);
    assert_int_equal(append_group(b.j, 1, 1, 100, NULL), JOURNAL_E_OVERLOAD);
    assert_int_equal(journal_commit(b.j), 0);
    append_one(b.j, n + 1, 8000); /* alone it may be larger than the bound */
    bench_free(&b);
}

static void test_invariant_3_retention_follows_the_lowest_persisted(void **state UNUSED) {
    struct bench b = bench_new(10);
    struct reading got = READING_INIT;
    struct journal_consumer *slow, *fast;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "slow", JOURNAL_KIND_POINTS, 0, &slow), 0);
    assert_int_equal(journal_consumer_new(b.j, "fast", JOURNAL_KIND_EVENTS, 0, &fast), 0);
    for (uint64_t id = 1; id <= 400; id++) {
        append_one(b.j, id, 100);
        assert_int_equal(journal_commit(b.j), 0);
    }
    struct journal_stats before, after;
    journal_stats(b.j, &before);
    journal_consumer_persisted(fast, 400);
    assert_int_equal(journal_commit(b.j), 0);
    journal_stats(b.j, &after);
    assert_int_equal(after.segments, before.segments);
    journal_consumer_persisted(slow, 200);
    assert_int_equal(journal_commit(b.j), 0);
    journal_stats(b.j, &after);
    assert_true(after.segments < before.segments);
    assert_int_equal(count_files(b.os, DIRECTORY, "segment-"), after.segments);
    assert_int_equal(read_from(b.j, 201, &got), JOURNAL_E_END);
    expect_range(&got, 201, 200);
    reading_deinit(&got);
    journal_consumer_persisted(slow, 100); /* never moves back */
    journal_consumer_persisted(slow, 400);
    assert_int_equal(journal_commit(b.j), 0);
    journal_stats(b.j, &after);
    assert_int_equal(after.segments, 1); /* the last stays */
    bench_reopen(&b);
    assert_int_equal(b.found.next_lsn, 401);
    /* A cursor behind what is left begins with the oldest there is. */
    assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
    assert_true(got.n < 20);
    expect_range(&got, b.found.first_lsn, 401 - b.found.first_lsn);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_retention_keeps_what_it_was_asked_to(void **state UNUSED) {
    struct bench b = bench_new(11);
    struct journal_consumer *c;
    struct journal_stats stats;
    b.options.keep_bytes = 20 << 10;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "c", JOURNAL_KIND_POINTS, 0, &c), 0);
    for (uint64_t id = 1; id <= 400; id++)
        journal_consumer_persisted(c, append_one(b.j, id, 100));
    assert_int_equal(journal_commit(b.j), 0);
    journal_stats(b.j, &stats);
    assert_in_range(stats.segments, 6, 8); /* 4 KiB of frames each */
    bench_free(&b);
}

static void test_released_segments_are_recycled(void **state UNUSED) {
    struct bench b = bench_new(12);
    struct reading got = READING_INIT;
    struct journal_consumer *c;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "c", JOURNAL_KIND_POINTS, 0, &c), 0);
    for (uint64_t id = 1; id <= 2000; id++) {
        lsn_t lsn = append_one(b.j, id, 60);
        assert_int_equal(journal_commit(b.j), 0);
        if (id % 10 == 0)
            journal_consumer_persisted(c, lsn - 5);
        assert_true(count_files(b.os, DIRECTORY, "spare-") <= 2);
        assert_true(count_files(b.os, DIRECTORY, "segment-") <= 4);
        if (id % 333 == 0) { /* what recycled segments held before is never taken for new */
            sim_kill(b.sim);
            bench_close(&b);
            bench_open(&b);
            assert_int_equal(b.found.next_lsn, id + 1);
            assert_int_equal(b.found.torn_bytes, 0);
            assert_int_equal(b.found.damaged_bytes, 0);
            assert_int_equal(journal_consumer_new(b.j, "c", JOURNAL_KIND_POINTS, lsn - 5, &c), 0);
        }
    }
    assert_int_equal(read_from(b.j, 1996, &got), JOURNAL_E_END);
    expect_range(&got, 1996, 5);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_invariant_6_a_kind_pins_no_more_than_its_bound(void **state UNUSED) {
    struct bench b = bench_new(13);
    struct journal_consumer *points, *events;
    b.options.pin_bytes_max[JOURNAL_KIND_EVENTS] = 64 << 10;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "p", JOURNAL_KIND_POINTS, 0, &points), 0);
    assert_int_equal(journal_consumer_new(b.j, "e", JOURNAL_KIND_EVENTS, 0, &events), 0);
    int r = 0;
    uint64_t id = 0;
    while (r == 0 && id < 2000) {
        r = append_group(b.j, ++id, 1, 100, NULL);
        assert_int_equal(journal_commit(b.j), 0);
    }
    assert_int_equal(r, JOURNAL_E_PINNED);
    assert_in_range(journal_consumer_pinned_bytes(events), 64 << 10, 66 << 10);
    uint8_t payload[100];
    record_fill(payload, 1, sizeof payload);
    struct journal_record other = {.kind = JOURNAL_KIND_POINTS,
                                   .payload = bytes_of(payload, sizeof payload)};
    assert_int_equal(journal_append(b.j, &other, 1), 0); /* other kinds go on */
    struct journal_record control = {.kind = JOURNAL_KIND_EVENTS,
                                     .flags = JOURNAL_CONTROL,
                                     .payload = bytes_of(payload, sizeof payload)};
    assert_int_equal(journal_append(b.j, &control, 1), 0); /* has a reserve */
    journal_consumer_persisted(events, journal_durable(b.j));
    assert_int_equal(append_group(b.j, 1, 1, 100, NULL), 0);
    assert_in_range(journal_consumer_pinned_bytes(events), 1, 1000);
    bench_free(&b);
}

static int append_event_at(struct journal *j, uint8_t flags) {
    uint8_t payload[64];
    record_fill(payload, 1, sizeof payload);
    struct journal_record record = {
        .kind = JOURNAL_KIND_EVENTS, .flags = flags, .payload = bytes_of(payload, sizeof payload)};
    int r = journal_append(j, &record, 1);
    assert_int_equal(journal_commit(j), 0);
    return r;
}

/* A store that is down pins little when little is written, but it may not do so for ever. */
static void test_invariant_6_a_kind_pins_no_longer_than_its_bound(void **state UNUSED) {
    static const uint64_t minute_ns = UINT64_C(60000000000);
    struct bench b = bench_new(16);
    struct journal_consumer *points, *events;
    b.options.pin_ms_max[JOURNAL_KIND_EVENTS] = 3600000;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "p", JOURNAL_KIND_POINTS, 0, &points), 0);
    assert_int_equal(journal_consumer_new(b.j, "e", JOURNAL_KIND_EVENTS, 0, &events), 0);
    for (unsigned minute = 0; minute < 60; minute++) {
        assert_int_equal(append_event_at(b.j, 0), 0);
        os_sleep_ns(b.os, minute_ns);
    }
    assert_in_range(journal_consumer_pinned_ms(events), 3600000 - 3600000 / 16, 3600000);
    os_sleep_ns(b.os, minute_ns);
    assert_int_equal(append_event_at(b.j, 0), JOURNAL_E_PINNED);
    assert_int_equal(append_event_at(b.j, JOURNAL_CONTROL), 0); /* has a reserve */
    assert_int_equal(journal_consumer_pinned_ms(points), 0);    /* has no bound */
    journal_consumer_persisted(events, journal_durable(b.j) / 2);
    assert_in_range(journal_consumer_pinned_ms(events), 27 * 60000, 33 * 60000);
    assert_int_equal(append_event_at(b.j, 0), 0);
    journal_consumer_persisted(events, journal_durable(b.j));
    assert_int_equal(journal_consumer_pinned_ms(events), 0);
    os_sleep_ns(b.os, 200 * minute_ns); /* nothing waits, however long */
    assert_int_equal(append_event_at(b.j, 0), 0);
    bench_free(&b);
}

/* Records that came at once have one mark: what is left of them is as old as it. */
static void test_invariant_6_the_rest_of_a_burst_pins_as_long(void **state UNUSED) {
    static const uint64_t minute_ns = UINT64_C(60000000000);
    struct bench b = bench_new(17);
    struct journal_consumer *events;
    b.options.pin_ms_max[JOURNAL_KIND_EVENTS] = 3600000;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "e", JOURNAL_KIND_EVENTS, 0, &events), 0);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(append_event_at(b.j, 0), 0);
    journal_consumer_persisted(events, 5);
    os_sleep_ns(b.os, 50 * minute_ns);
    assert_in_range(journal_consumer_pinned_ms(events), 50 * 60000, 50 * 60000 + 3600000 / 16);
    assert_int_equal(append_event_at(b.j, 0), 0);
    os_sleep_ns(b.os, 11 * minute_ns);
    assert_int_equal(append_event_at(b.j, 0), JOURNAL_E_PINNED);
    journal_consumer_persisted(events, 10); /* the eleventh has a mark of its own */
    assert_in_range(journal_consumer_pinned_ms(events), 11 * 60000, 11 * 60000 + 3600000 / 16);
    assert_int_equal(append_event_at(b.j, 0), 0);
    bench_free(&b);
}

static void test_invariant_6_memory_is_counted(void **state UNUSED) {
    struct bench b = bench_new(17);
    struct budget budget;
    budget_init(&budget, 64 << 20); /* 8 MiB are the journal's */
    b.options.budget = &budget;
    bench_open(&b);
    int r = 0;
    uint64_t id = 0;
    while (r == 0 && id < 20000) /* nothing is committed */
        r = append_group(b.j, ++id, 1, 1000, NULL);
    assert_int_equal(r, JOURNAL_E_OVERLOAD);
    uint64_t part = budget_part(&budget, BUDGET_JOURNAL);
    assert_in_range(budget_used(&budget, BUDGET_JOURNAL), part, part + (2 << 20));
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(append_group(b.j, 1, 1, 1000, NULL), 0);
    bench_close(&b);
    assert_int_equal(budget_used(&budget, BUDGET_JOURNAL), 0);
    bench_free(&b);
}

/* Marks take place in a segment: what they take is not forgotten on one side of the sum, else every
 * quiet second would let a kind pin more. */
static void test_invariant_6_marks_do_not_hide_what_is_pinned(void **state UNUSED) {
    struct bench b = bench_new(15);
    struct journal_consumer *c;
    bench_open(&b);
    assert_int_equal(journal_consumer_new(b.j, "c", JOURNAL_KIND_EVENTS, 0, &c), 0);
    for (uint64_t id = 1; id <= 50; id++) {
        append_one(b.j, id, 100);
        assert_int_equal(journal_commit(b.j), 0);
        os_sleep_ns(b.os, UINT64_C(2000000000));
        assert_int_equal(journal_commit(b.j), 0); /* writes a mark */
    }
    append_one(b.j, 51, 100);
    assert_int_equal(journal_commit(b.j), 0);
    journal_consumer_persisted(c, journal_durable(b.j));
    for (uint64_t id = 52; id <= 61; id++)
        append_one(b.j, id, 100);
    assert_in_range(journal_consumer_pinned_bytes(c), 10 * 140, 10 * 144);
    bench_free(&b);
}

static void test_read_only_changes_nothing(void **state UNUSED) {
    struct bench b = bench_new(14);
    struct reading got = READING_INIT;
    struct journal *reader;
    struct journal_recovery found;
    bench_open(&b);
    for (uint64_t id = 1; id <= 100; id++)
        append_one(b.j, id, 100);
    assert_int_equal(journal_commit(b.j), 0);
    sim_set_faults(b.sim, NULL);
    struct journal_options options = {.read_only = true};
    assert_int_equal(journal_open(b.os, DIRECTORY, &options, &reader, &found), 0);
    assert_int_equal(found.next_lsn, 101);
    assert_int_equal(journal_durable(reader), 100);
    assert_int_equal(append_group(reader, 1, 1, 100, NULL), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(read_from(reader, 1, &got), JOURNAL_E_END);
    expect_range(&got, 1, 100);
    journal_close(reader);
    assert_int_equal(sim_disk_changes(b.sim), 0);
    append_one(b.j, 101, 100);
    reading_deinit(&got);
    bench_free(&b);
}

static void test_second_open_is_refused(void **state UNUSED) {
    struct bench b = bench_new(15);
    struct journal *other = NULL;
    bench_open(&b);
    assert_int_equal(journal_open(b.os, DIRECTORY, &b.options, &other, NULL), JOURNAL_E_LOCKED);
    assert_null(other);
    bench_reopen(&b);
    bench_free(&b);
}

static void test_newer_version_is_refused(void **state UNUSED) {
    struct bench b = bench_new(16);
    struct journal *other = NULL;
    bench_open(&b);
    append_one(b.j, 1, 100);
    bench_close(&b);
    uint8_t header[2048];
    struct os_file *file;
    size_t size;
    assert_int_equal(os_open(b.os, DIRECTORY "/segment-000000000001", OS_OPEN_WRITE, &file), 0);
    assert_int_equal(os_read_all(b.os, file, header, sizeof header, 0, &size), 0);
    store_u32(header + 8, load_u32(header + 8) + 1);
    store_u32(header + 2044, crc32c(0, header, 2044));
    assert_int_equal(os_write_all(b.os, file, header, sizeof header, 0), 0);
    assert_int_equal(os_write_all(b.os, file, header, sizeof header, sizeof header), 0);
    os_close(b.os, file);
    assert_int_equal(journal_open(b.os, DIRECTORY, &b.options, &other, NULL), JOURNAL_E_VERSION);
    assert_int_equal(count_files(b.os, DIRECTORY, "segment-"), 1);
    bench_free(&b);
}

static void test_invariant_2_a_store_ahead_makes_a_gap(void **state UNUSED) {
    struct bench b = bench_new(17);
    uint64_t gap = 99;
    bench_open(&b);
    for (int life = 0; life < 3; life++) {
        struct reading got = READING_INIT;
        if (life == 0) {
            append_one(b.j, 1, 50);
            assert_int_equal(journal_commit(b.j), 0);
            assert_int_equal(journal_advance(b.j, 1, &gap), 0);
            assert_int_equal(gap, 0);
            assert_int_equal(journal_advance(b.j, 10, &gap), 0);
            assert_int_equal(gap, 9);
            assert_int_equal(append_one(b.j, 2, 50), 12);
            assert_int_equal(journal_commit(b.j), 0);
        } else {
            bench_reopen(&b);
            assert_int_equal(b.found.next_lsn, 13);
            assert_int_equal(b.found.damaged_records, 0);
        }
        assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
        assert_int_equal(got.n, 3);
        assert_int_equal(got.seen[1].lsn, 11);
        assert_int_equal(got.seen[1].kind, JOURNAL_KIND_JOURNAL);
        assert_int_equal(got.seen[2].lsn, 12);
        reading_deinit(&got);
        assert_int_equal(read_from(b.j, 5, &got), JOURNAL_E_END); /* inside the gap */
        assert_int_equal(got.n, 2);
        reading_deinit(&got);
    }
    bench_free(&b);
}

static void test_sync_modes_read_back(void **state UNUSED) {
    for (int mode = JOURNAL_SYNC_ALWAYS; mode <= JOURNAL_SYNC_OS; mode++) {
        struct bench b = bench_new(18);
        struct reading got = READING_INIT;
        b.options.sync = (enum journal_sync)mode;
        bench_open(&b);
        for (uint64_t id = 1; id <= 500; id++) {
            append_one(b.j, id, 70);
            if (id % 13 == 0)
                assert_int_equal(journal_commit(b.j), 0);
            if (id % 100 == 0)
                os_sleep_ns(b.os, UINT64_C(2000000000));
        }
        assert_int_equal(journal_commit(b.j), 0);
        assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
        expect_range(&got, 1, 500);
        reading_deinit(&got);
        bench_reopen(&b);
        assert_int_equal(b.found.next_lsn, 501);
        assert_int_equal(read_from(b.j, 1, &got), JOURNAL_E_END);
        expect_range(&got, 1, 500);
        reading_deinit(&got);
        bench_free(&b);
    }
}

struct heard {
    struct journal_listener listener;
    struct journal_observer observer;
    lsn_t durable;
    uint64_t records;
};
static void hear(struct journal_listener *listener, lsn_t durable) {
    struct heard *h = CONTAINER_OF(listener, struct heard, listener);
    assert_true(durable >= h->durable);
    h->durable = durable;
}
static void observe(struct journal_observer *observer, uint64_t write_ns UNUSED,
                    uint64_t sync_ns UNUSED, uint64_t bytes UNUSED, uint64_t records) {
    CONTAINER_OF(observer, struct heard, observer)->records += records;
}

static void test_listeners_hear_of_every_commit(void **state UNUSED) {
    struct bench b = bench_new(19);
    struct heard h = {.listener = {.durable = hear}, .observer = {.committed = observe}};
    bench_open(&b);
    journal_listen(b.j, &h.listener);
    journal_observe(b.j, &h.observer);
    for (uint64_t id = 1; id <= 100; id++)
        append_one(b.j, id, 100);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(h.durable, 100);
    assert_int_equal(h.records, 100);
    assert_int_equal(journal_wait(b.j, 100, 0), 0);
    assert_int_equal(journal_wait(b.j, 101, 0), JOURNAL_E_TIMEOUT);
    journal_unlisten(b.j, &h.listener);
    append_one(b.j, 101, 100);
    assert_int_equal(journal_commit(b.j), 0);
    assert_int_equal(h.durable, 100);
    bench_free(&b);
}

static void note_sentence(void *context, const char *sentence) {
    (*(unsigned *)context)++;
    assert_true(strlen(sentence) > 10);
}

static void test_verify_finds_nothing_in_a_good_journal(void **state UNUSED) {
    struct bench b = bench_new(20);
    struct journal_recovery found;
    unsigned sentences = 0;
    bench_open(&b);
    for (uint64_t id = 1; id <= 300; id++) {
        append_one(b.j, id, 100);
        if (id % 50 == 0)
            bench_reopen(&b);
    }
    bench_close(&b);
    sim_set_faults(b.sim, NULL);
    assert_int_equal(journal_verify(b.os, DIRECTORY, note_sentence, &sentences, &found), 0);
    assert_int_equal(sentences, 0);
    assert_int_equal(found.next_lsn, 301);
    assert_int_equal(found.damaged_bytes, 0);
    assert_int_equal(sim_disk_changes(b.sim), 0);
    bench_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_then_read),
        cmocka_unit_test(test_reopen_goes_on),
        cmocka_unit_test(test_idle_open_writes_no_segment),
        cmocka_unit_test(test_cursor_crosses_between_memory_and_disk),
        cmocka_unit_test(test_batch_outlives_its_window),
        cmocka_unit_test(test_groups_stay_in_one_segment),
        cmocka_unit_test(test_oversize_group_gets_its_own_segment),
        cmocka_unit_test(test_group_too_large_is_refused),
        cmocka_unit_test(test_invariant_6_pending_bytes_are_bounded),
        cmocka_unit_test(test_invariant_3_retention_follows_the_lowest_persisted),
        cmocka_unit_test(test_retention_keeps_what_it_was_asked_to),
        cmocka_unit_test(test_released_segments_are_recycled),
        cmocka_unit_test(test_invariant_6_a_kind_pins_no_more_than_its_bound),
        cmocka_unit_test(test_invariant_6_a_kind_pins_no_longer_than_its_bound),
        cmocka_unit_test(test_invariant_6_the_rest_of_a_burst_pins_as_long),
        cmocka_unit_test(test_invariant_6_memory_is_counted),
        cmocka_unit_test(test_invariant_6_marks_do_not_hide_what_is_pinned),
        cmocka_unit_test(test_read_only_changes_nothing),
        cmocka_unit_test(test_second_open_is_refused),
        cmocka_unit_test(test_newer_version_is_refused),
        cmocka_unit_test(test_invariant_2_a_store_ahead_makes_a_gap),
        cmocka_unit_test(test_sync_modes_read_back),
        cmocka_unit_test(test_listeners_hear_of_every_commit),
        cmocka_unit_test(test_verify_finds_nothing_in_a_good_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
