/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watermark, and what follows from it: late tags, minutes that are deleted, bounds. The clock
 * is the test's; the rest is the real system.
 */
#include "events/local/internal.h"
#include "events/local/test_fixture.h"

enum { HOUR_S = 3600 };

/* The real system with a clock that is set by hand. */
struct clock_os {
    struct os os;
    struct os_ops ops;
    uint64_t now_ns;
};

static uint64_t clock_ns(struct os *os) {
    return CONTAINER_OF(os, struct clock_os, os)->now_ns;
}

static void clock_init(struct clock_os *c) {
    c->ops = *os_real()->ops;
    c->ops.monotonic_ns = clock_ns;
    c->os.ops = &c->ops;
    c->now_ns = UINT64_C(1000000000);
}

static int64_t ms_of(int64_t minute) {
    return minute * EVENT_MINUTE_MS;
}

static void log_at(struct fixture *f, int64_t minute, unsigned n) {
    while (n-- > 0) {
        struct event_tag tag = some_tag(f);
        tag.time_ms = ms_of(minute) + n % 60000;
        log_tag(f, some_cookie(f), tag, events_store_is_late(f->store, tag.time_ms));
    }
    apply_all(f);
}

static void open_with_clock(struct fixture *f, struct clock_os *c) {
    clock_init(c);
    fixture_init(f, 1, 2);
    f->os = &c->os;
    f->options.hot_bytes_max = 16 << 20;
    assert_int_equal(fixture_open(f), 0);
}

static struct events_store_stats stats_of(struct fixture *f) {
    struct events_store_stats stats;
    events_store_stats(f->store, &stats);
    return stats;
}

/* One tag dated 2099, or a few, don't move it; enough do. */
static void test_one_tag_of_2099(void **state) {
    (void)state;
    const int64_t in_2099 = INT64_C(4070908800000) / EVENT_MINUTE_MS;
    struct clock_os c;
    struct fixture f;
    open_with_clock(&f, &c);
    assert_int_equal(stats_of(&f).watermark_ms, 0);
    log_at(&f, TEST_MINUTE, EVENT_WATERMARK_TAGS - 1);
    assert_int_equal(stats_of(&f).watermark_ms, 0);
    log_at(&f, in_2099, 1);
    assert_int_equal(stats_of(&f).watermark_ms, ms_of(TEST_MINUTE));
    assert_false(events_store_is_late(f.store, ms_of(TEST_MINUTE - EVENT_REACH_MINUTES)));
    assert_true(events_store_is_late(f.store, ms_of(TEST_MINUTE - EVENT_REACH_MINUTES) - 1));
    log_at(&f, TEST_MINUTE - 2000, 3); /* late: kept in profiles only, and counted */
    assert_int_equal(stats_of(&f).tags_late, 3);
    check_store(&f);
    check_aggregates(&f, in_2099);
    check_aggregates(&f, TEST_MINUTE - 2000);
    log_at(&f, in_2099, EVENT_WATERMARK_TAGS - 2);
    assert_int_equal(stats_of(&f).watermark_ms, ms_of(TEST_MINUTE));
    log_at(&f, in_2099, 1);
    assert_int_equal(stats_of(&f).watermark_ms, ms_of(in_2099));
    assert_true(events_store_is_late(f.store, ms_of(TEST_MINUTE)));
    fixture_deinit(&f);
}

/* It is the same after a replay, and after a checkpoint. */
static void test_the_watermark_is_kept(void **state) {
    (void)state;
    struct clock_os c;
    struct fixture f;
    open_with_clock(&f, &c);
    for (int64_t minute = 0; minute < 30; minute++)
        log_at(&f, TEST_MINUTE + minute, 1 + (unsigned)minute % 7);
    int64_t watermark = stats_of(&f).watermark_ms;
    for (unsigned round = 0; round < 2; round++) {
        fixture_close(&f);
        assert_int_equal(fixture_open(&f), 0);
        apply_all(&f);
        assert_int_equal(stats_of(&f).watermark_ms, watermark);
        assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    }
    fixture_deinit(&f);
}

static uint64_t rows_of(struct fixture *f, int64_t minute) {
    uint64_t rows = 0;
    for (unsigned origin = 1; origin <= ORIGINS; origin++)
        for (unsigned action = 0; action < EVENT_ACTIONS; action++) {
            const struct event_aggregate_query q = {.first_minute = minute,
                                                    .minutes = 1,
                                                    .action = action,
                                                    .ids[EVENT_FILTER_ORIGIN] = origin};
            struct event_aggregate out;
            assert_int_equal(events_store_aggregate(f->store, &q, &out), 0);
            rows += out.count;
        }
    return rows;
}

/* Whether the database still has columns of a minute. */
static bool is_on_disk(struct fixture *f, unsigned lane, int64_t minute) {
    struct database database;
    struct base *base;
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    char why[64];
    int error;
    assert_int_equal(events_database_open(&database, f->os, f->directory, 1 << 20,
                                          EVENTS_DATABASE_READ, why, sizeof why),
                     0);
    assert_int_equal(base_new(&database, &base), 0);
    base_take(base);
    key_minute(&first, lane, minute);
    base_cursor_init(&cursor, base, false);
    base_cursor_seek(&cursor, key_view(&first));
    bool there = base_cursor_at(&cursor, &key, &value, &error) && key.size > first.size &&
                 memcmp(key.data, first.bytes, first.size) == 0;
    base_cursor_deinit(&cursor);
    base_unref(base);
    database_close(&database);
    return there;
}

/* A minute out of reach goes after an hour, not before; and does not come back by a replay. */
static void test_minutes_go_after_an_hour(void **state) {
    (void)state;
    const int64_t later = TEST_MINUTE + EVENT_REACH_MINUTES + 1;
    struct clock_os c;
    struct fixture f;
    open_with_clock(&f, &c);
    log_at(&f, TEST_MINUTE, 20);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    log_at(&f, TEST_MINUTE, 5); /* small: merged */
    log_at(&f, later, EVENT_WATERMARK_TAGS);
    c.now_ns += UINT64_C(60000000000); /* the watermark is noted once a minute */
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    c.now_ns += UINT64_C(1000000000) * (HOUR_S - 1);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    assert_int_equal(rows_of(&f, TEST_MINUTE), 25);
    c.now_ns += UINT64_C(1000000000);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    assert_int_equal(rows_of(&f, TEST_MINUTE), 0);
    assert_int_equal(rows_of(&f, later), EVENT_WATERMARK_TAGS);
    assert_int_equal(stats_of(&f).minutes, 1);
    log_tag(&f, 1,
            (struct event_tag){.time_ms = ms_of(TEST_MINUTE),
                               .ids[EVENT_COLLECTION_COUNTRY] = 1,
                               .ids[EVENT_COLLECTION_ORIGIN] = 1,
                               .ids[EVENT_COLLECTION_BRAND] = 1,
                               .ids[EVENT_COLLECTION_CATEGORY] = 1},
            false); /* decided to be in time, long ago */
    apply_all(&f);
    assert_int_equal(stats_of(&f).minutes, 1);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    fixture_close(&f);
    for (unsigned lane = 0; lane < 2; lane++) {
        assert_false(is_on_disk(&f, lane, TEST_MINUTE));
        assert_true(is_on_disk(&f, lane, later));
    }
    assert_int_equal(fixture_open(&f), 0);
    assert_int_equal(rows_of(&f, TEST_MINUTE), 0);
    assert_int_equal(rows_of(&f, later), EVENT_WATERMARK_TAGS);
    check_profile(&f, 1, INT64_MIN, INT64_MAX, 200);
    fixture_deinit(&f);
}

/* More minutes than may be: their tags count as late, and nothing is lost of the others. */
static void test_too_many_minutes(void **state) {
    (void)state;
    struct clock_os c;
    struct fixture f;
    open_with_clock(&f, &c);
    struct event_tag tag = some_tag(&f);
    for (int64_t i = 0; i < EVENT_MINUTES_MAX + 10; i++) {
        tag.time_ms = ms_of(TEST_MINUTE + EVENT_MINUTES_MAX - i);
        log_tag(&f, 1, tag, false);
    }
    apply_all(&f);
    assert_int_equal(stats_of(&f).minutes, EVENT_MINUTES_MAX);
    assert_int_equal(stats_of(&f).tags_late, 10);
    assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
    check_profile(&f, 1, INT64_MIN, INT64_MAX, 200);
    fixture_deinit(&f);
}

/* Days of tags within the hour that minutes out of reach are kept: they make room for the new. */
static void test_many_days_in_an_hour(void **state) {
    (void)state;
    const int64_t n = EVENT_MINUTES_MAX + 4000, a_checkpoint = 2500;
    struct clock_os c;
    struct fixture f;
    open_with_clock(&f, &c);
    struct event_tag tag = some_tag(&f);
    for (int64_t i = 0; i < n; i++) {
        tag.time_ms = ms_of(TEST_MINUTE + i);
        log_tag(&f, 1, tag, false);
        if ((i + 1) % a_checkpoint == 0) {
            apply_all(&f);
            assert_int_equal(events_store_checkpoint(f.store, NULL), 0);
        }
    }
    apply_all(&f);
    assert_int_equal(stats_of(&f).tags_late, 0);
    for (int64_t i = n - EVENT_REACH_MINUTES; i < n; i += 100)
        assert_int_equal(rows_of(&f, TEST_MINUTE + i), 1);
    fixture_deinit(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_tag_of_2099),
        cmocka_unit_test(test_the_watermark_is_kept),
        cmocka_unit_test(test_minutes_go_after_an_hour),
        cmocka_unit_test(test_too_many_minutes),
        cmocka_unit_test(test_many_days_in_an_hour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
