/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers race with the lanes and with checkpoints, for ThreadSanitizer and for the law that a
 * reader sees each tag exactly once. Tag n of a cookie carries the number n, so what a profile
 * shows must be 0, 1, …, up to at least what was applied before the question. Broken laws are
 * counted, not asserted: the threads are not cmocka's.
 */
#include "events/local/test_fixture.h"

#include <stdatomic.h>

enum { LANES = 3, ROUNDS = 150, THREAD_COOKIES = 6, READERS = 2 };

struct race {
    struct fixture f;
    struct os_thread *threads[LANES + READERS + 1];
    _Atomic uint64_t applied[THREAD_COOKIES]; /* tags of each cookie, told after apply */
    atomic_uint writers;
    atomic_uint faults;
};

struct task {
    struct race *race;
    unsigned number;
};

static unsigned lane_of(unsigned cookie) {
    return work_lane_of_hash(event_key_hash(cookie_text(cookie)), LANES);
}

static void fault_if(struct race *race, bool broken, const char *law) {
    if (broken && atomic_fetch_add(&race->faults, 1) < 5)
        fprintf(stderr, "broken: %s\n", law);
}

/* The record of tag n of a cookie, in memory of its own. */
static void make_record(struct buffer *payload, struct journal_record *record, unsigned cookie,
                        uint64_t n, lsn_t lsn) {
    struct bytes text = cookie_text(cookie);
    struct event_tag tag = {.time_ms = TEST_MINUTE * EVENT_MINUTE_MS + (int64_t)n,
                            .cookie = text,
                            .ids[EVENT_COLLECTION_COUNTRY] = 1,
                            .ids[EVENT_COLLECTION_ORIGIN] = 1 + cookie,
                            .ids[EVENT_COLLECTION_BRAND] = 1,
                            .ids[EVENT_COLLECTION_CATEGORY] = 1,
                            .measure = 2,
                            .product_number = (int64_t)n};
    buffer_clear(payload);
    event_record_encode_tag(payload, &tag, false);
    *record = (struct journal_record){
        .lsn = lsn, .key_hash = event_key_hash(text), .payload = buffer_bytes(payload)};
}

static void write_lane(void *argument) {
    const struct task *task = argument;
    struct race *race = task->race;
    struct buffer payload = BUFFER_INIT;
    lsn_t lsn = 0;
    for (uint64_t n = 0; n < ROUNDS; n++) {
        os_sleep_ns(race->f.os, 1000000); /* so that many checkpoints fall into the race */
        for (unsigned cookie = 0; cookie < THREAD_COOKIES; cookie++) {
            struct journal_record record;
            const struct journal_record *list = &record;
            struct work_verdict v = {.outcome = WORK_RETRY};
            if (lane_of(cookie) != task->number)
                continue;
            make_record(&payload, &record, cookie, n, ++lsn);
            while (v.outcome == WORK_RETRY)
                if (events_store_work_ops.apply(race->f.store, task->number, &list, 1, &v) < 0)
                    break;
            fault_if(race, v.outcome != WORK_OK, "a tag is applied");
            atomic_store(&race->applied[cookie], n + 1);
        }
    }
    buffer_deinit(&payload);
    atomic_fetch_sub(&race->writers, 1);
}

static void read_profile(struct race *race, unsigned cookie) {
    struct arena arena = ARENA_INIT(1 << 20);
    struct event_profile profile = {.arena = &arena};
    uint64_t before = atomic_load(&race->applied[cookie]);
    int r = events_store_profile(race->f.store, cookie_text(cookie), INT64_MIN, INT64_MAX, 200,
                                 &profile);
    const struct event_list *list = &profile.lists[EVENT_VIEW];
    fault_if(race, r != 0, "a profile can be read");
    fault_if(race, list->n < before, "what was applied is seen");
    for (size_t i = 0; i < list->n; i++)
        fault_if(race, list->tags[i].product_number != (int64_t)(list->n - 1 - i),
                 "each tag is seen exactly once");
    arena_deinit(&arena);
}

static void read_aggregate(struct race *race, unsigned cookie) {
    const struct event_aggregate_query q = {
        .first_minute = TEST_MINUTE, .minutes = 1, .ids[EVENT_FILTER_ORIGIN] = 1 + cookie};
    struct event_aggregate out = {0};
    uint64_t before = atomic_load(&race->applied[cookie]);
    int r = events_store_aggregate(race->f.store, &q, &out);
    uint64_t after = atomic_load(&race->applied[cookie]);
    fault_if(race, r != 0, "an aggregate can be read");
    fault_if(race, out.count < before || out.count > after + 1, "each row is seen exactly once");
    fault_if(race, out.sum != 2 * (int64_t)out.count, "with its price");
}

static void read_all(void *argument) {
    const struct task *task = argument;
    while (atomic_load(&task->race->writers) > 0)
        for (unsigned cookie = 0; cookie < THREAD_COOKIES; cookie++) {
            read_profile(task->race, cookie);
            read_aggregate(task->race, cookie);
        }
}

static void checkpoint_all(void *argument) {
    const struct task *task = argument;
    struct events_store_stats stats;
    while (atomic_load(&task->race->writers) > 0) {
        fault_if(task->race, events_store_checkpoint(task->race->f.store, NULL) != 0,
                 "a checkpoint succeeds");
        events_store_stats(task->race->f.store, &stats);
    }
}

static void test_readers_see_each_tag_once(void **state) {
    (void)state;
    static struct race race;
    struct task tasks[LANES + READERS + 1];
    fixture_init(&race.f, 1, LANES);
    race.f.options.hot_bytes_max = 64 << 10;
    assert_int_equal(fixture_open(&race.f), 0);
    atomic_store(&race.writers, LANES);
    for (unsigned i = 0; i < ARRAY_LENGTH(tasks); i++) {
        tasks[i] = (struct task){&race, i};
        void (*run)(void *) = i < LANES             ? write_lane
                              : i < LANES + READERS ? read_all
                                                    : checkpoint_all;
        assert_int_equal(os_thread_start(race.f.os, "test", run, &tasks[i], &race.threads[i]), 0);
    }
    for (unsigned i = 0; i < ARRAY_LENGTH(tasks); i++)
        os_thread_join(race.f.os, race.threads[i]);
    for (unsigned cookie = 0; cookie < THREAD_COOKIES; cookie++)
        read_profile(&race, cookie);
    assert_int_equal(atomic_load(&race.faults), 0);
    fixture_deinit(&race.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_see_each_tag_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
