/* SPDX-License-Identifier: Apache-2.0 */
/* Idempotency keys: decided once, kept for a day, bounded, the same after a restart. */
#include "events/test_support.h"

#define HOUR_NS UINT64_C(3600000000000)

struct rig {
    struct sim *sim;
    struct event_once *once;
    lsn_t lsn;
};

static void init_within(struct rig *r, uint64_t keys_max, struct budget *budget) {
    const struct event_once_options options = {.keys_max = keys_max, .budget = budget};
    *r = (struct rig){0};
    assert_int_equal(sim_new(1, &r->sim), 0);
    assert_int_equal(event_once_new(sim_os(r->sim), &options, &r->once), 0);
}

static void init_with(struct rig *r, uint64_t keys_max) {
    init_within(r, keys_max, NULL);
}

static void deinit(struct rig *r) {
    event_once_free(r->once);
    sim_free(r->sim);
}

static int begin(struct rig *r, const char *route, const char *key, uint64_t body,
                 enum event_once_decision *ret_decision, struct event_once_entry *ret_entry) {
    return event_once_begin(r->once, text_of(route), text_of(key), body, ret_decision, ret_entry);
}

/* Uses a key; a new one is kept. */
static enum event_once_decision use(struct rig *r, const char *key, uint64_t body,
                                    struct event_once_entry *ret_entry) {
    enum event_once_decision decision;
    assert_int_equal(begin(r, "/a", key, body, &decision, ret_entry), 0);
    if (decision == EVENT_ONCE_NEW) {
        ret_entry->first = ret_entry->last = ++r->lsn;
        event_once_end(r->once, ret_entry, true);
    }
    return decision;
}

static void test_new_again_other(void **state UNUSED) {
    struct rig r;
    struct event_once_entry entry, again;
    enum event_once_decision decision;
    init_with(&r, 100);
    assert_int_equal(use(&r, "k", 1, &entry), EVENT_ONCE_NEW);
    assert_int_equal(use(&r, "k", 1, &again), EVENT_ONCE_AGAIN);
    assert_true(again.last == entry.last);
    assert_int_equal(use(&r, "k", 2, &again), EVENT_ONCE_OTHER);
    assert_int_equal(use(&r, "l", 2, &again), EVENT_ONCE_NEW);
    /* Another route has keys of its own, and route and key do not run into each other. */
    assert_int_equal(begin(&r, "/ak", "", 1, &decision, &entry), 0);
    assert_int_equal(decision, EVENT_ONCE_NEW);
    event_once_end(r.once, &entry, false);
    /* What was not appended is not kept. */
    assert_int_equal(begin(&r, "/ak", "", 2, &decision, &entry), 0);
    assert_int_equal(decision, EVENT_ONCE_NEW);
    event_once_end(r.once, &entry, false);
    assert_int_equal(event_once_size(r.once), 2);
    deinit(&r);
}

struct forgotten {
    uint8_t keys[64][16];
    size_t n;
};
static void forget(void *context, const uint8_t key[16]) {
    struct forgotten *f = context;
    memcpy(f->keys[f->n++], key, 16);
}

static void test_kept_for_a_day(void **state UNUSED) {
    struct rig r;
    struct event_once_entry first, entry;
    struct forgotten forgotten = {0};
    init_with(&r, 100);
    assert_int_equal(use(&r, "k", 1, &first), EVENT_ONCE_NEW);
    os_sleep_ns(sim_os(r.sim), 23 * HOUR_NS);
    assert_int_equal(use(&r, "l", 1, &entry), EVENT_ONCE_NEW);
    assert_int_equal(use(&r, "k", 2, &entry), EVENT_ONCE_OTHER);
    event_once_expire(r.once, forget, &forgotten);
    assert_int_equal(forgotten.n, 0);
    os_sleep_ns(sim_os(r.sim), 2 * HOUR_NS);
    event_once_expire(r.once, forget, &forgotten);
    assert_int_equal(forgotten.n, 1);
    assert_memory_equal(forgotten.keys[0], first.key, 16);
    assert_int_equal(event_once_size(r.once), 1);
    assert_int_equal(use(&r, "k", 2, &entry), EVENT_ONCE_NEW);
    assert_int_equal(use(&r, "l", 1, &entry), EVENT_ONCE_AGAIN);
    deinit(&r);
}

/* Used again when its day is over, but before it was forgotten: it is not deleted from disk. */
static void test_used_again_after_its_day(void **state UNUSED) {
    struct rig r;
    struct event_once_entry entry;
    struct forgotten forgotten = {0};
    init_with(&r, 100);
    assert_int_equal(use(&r, "k", 1, &entry), EVENT_ONCE_NEW);
    os_sleep_ns(sim_os(r.sim), 25 * HOUR_NS);
    assert_int_equal(use(&r, "k", 2, &entry), EVENT_ONCE_NEW);
    event_once_expire(r.once, forget, &forgotten);
    assert_int_equal(forgotten.n, 0);
    assert_int_equal(event_once_size(r.once), 1);
    assert_int_equal(use(&r, "k", 2, &entry), EVENT_ONCE_AGAIN);
    deinit(&r);
}

static void test_full_and_never_forgotten_early(void **state UNUSED) {
    struct rig r;
    struct event_once_entry entry;
    enum event_once_decision decision;
    init_with(&r, 2);
    assert_int_equal(use(&r, "a", 1, &entry), EVENT_ONCE_NEW);
    assert_int_equal(use(&r, "b", 1, &entry), EVENT_ONCE_NEW);
    assert_int_equal(begin(&r, "/a", "c", 1, &decision, &entry), EVENTS_E_FULL);
    assert_int_equal(use(&r, "a", 1, &entry), EVENT_ONCE_AGAIN);
    os_sleep_ns(sim_os(r.sim), 25 * HOUR_NS);
    event_once_expire(r.once, NULL, NULL);
    assert_int_equal(use(&r, "c", 1, &entry), EVENT_ONCE_NEW);
    deinit(&r);
}

/* Refusals append nothing, so that no checkpoint comes and forgets: when their day is over the keys
 * make room all the same. */
static void test_full_heals_without_a_checkpoint(void **state UNUSED) {
    struct rig r;
    struct event_once_entry entry;
    enum event_once_decision decision;
    struct forgotten forgotten = {0};
    init_with(&r, 2);
    assert_int_equal(use(&r, "a", 1, &entry), EVENT_ONCE_NEW);
    os_sleep_ns(sim_os(r.sim), HOUR_NS);
    assert_int_equal(use(&r, "b", 1, &entry), EVENT_ONCE_NEW);
    os_sleep_ns(sim_os(r.sim), 23 * HOUR_NS);
    assert_int_equal(use(&r, "c", 1, &entry), EVENT_ONCE_NEW);
    assert_int_equal(begin(&r, "/a", "d", 1, &decision, &entry), EVENTS_E_FULL);
    assert_int_equal(use(&r, "b", 1, &entry), EVENT_ONCE_AGAIN);
    event_once_expire(r.once, forget, &forgotten);
    assert_int_equal(forgotten.n, 1);
    assert_int_equal(event_once_size(r.once), 2);
    deinit(&r);
    init_with(&r, 0);
    assert_int_equal(begin(&r, "/a", "a", 1, &decision, &entry), EVENTS_E_FULL);
    deinit(&r);
}

/* 64 bytes a key, and room for a power of two of them: a part of 64 KiB has it for 1,024, of which
 * a sixteenth is for those that a checkpoint has yet to forget. */
static void test_invariant_6_keys_stay_within_their_part_of_the_budget(void **state UNUSED) {
    enum { PART = 64 << 10, FIT = 1024, KEYS = FIT - FIT / 16 };
    struct rig r;
    struct event_once_entry entry;
    enum event_once_decision decision;
    struct budget budget;
    char key[32];
    budget_init(&budget, 32 * PART);
    init_within(&r, 1000000, &budget);
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "first %u", i);
        assert_int_equal(use(&r, key, 1, &entry), EVENT_ONCE_NEW);
    }
    assert_int_equal(begin(&r, "/a", "one more", 1, &decision, &entry), EVENTS_E_FULL);
    os_sleep_ns(sim_os(r.sim), 25 * HOUR_NS);
    for (unsigned i = 0; i < FIT - KEYS; i++) {
        snprintf(key, sizeof key, "second %u", i);
        assert_int_equal(use(&r, key, 1, &entry), EVENT_ONCE_NEW);
    }
    assert_int_equal(budget_used(&budget, BUDGET_KEYS), PART);
    deinit(&r);
    assert_int_equal(budget_used(&budget, BUDGET_KEYS), 0);
}

/* Many keys that come and go, so that the ring goes round and the table moves entries up. */
static void test_many(void **state UNUSED) {
    struct rig r;
    struct event_once_entry entry;
    char key[16];
    init_with(&r, 100000);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "%u", round * 100 + i);
            assert_int_equal(use(&r, key, i, &entry), EVENT_ONCE_NEW);
        }
        os_sleep_ns(sim_os(r.sim), 5 * HOUR_NS); /* so that the last five rounds count */
        event_once_expire(r.once, NULL, NULL);
        for (unsigned i = 0; i < 600 && i < (round + 1) * 100; i++) {
            unsigned number = (round + 1) * 100 - 1 - i;
            snprintf(key, sizeof key, "%u", number);
            enum event_once_decision decision;
            assert_int_equal(begin(&r, "/a", key, number % 100, &decision, &entry), 0);
            assert_int_equal(decision, i < 400 ? EVENT_ONCE_AGAIN : EVENT_ONCE_NEW);
            if (decision == EVENT_ONCE_NEW)
                event_once_end(r.once, &entry, false);
        }
    }
    deinit(&r);
}

/* ---- Restart ---- */

static int collect(void *context, const struct event_once_entry *entry) {
    struct rig *to = context;
    struct event_once_entry as_restored = *entry;
    as_restored.first = as_restored.last = 0;
    return event_once_restore(to->once, &as_restored);
}

static void test_restored_in_any_order(void **state UNUSED) {
    struct rig from, to;
    struct event_once_entry entry, entries[20];
    struct forgotten forgotten = {0};
    uint64_t next;
    char key[8];
    init_with(&from, 100);
    init_with(&to, 100);
    for (unsigned i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "%u", i);
        assert_int_equal(use(&from, key, i, &entries[i]), EVENT_ONCE_NEW);
        os_sleep_ns(sim_os(from.sim), HOUR_NS);
    }
    assert_int_equal(event_once_each(from.once, 0, 5, collect, &to, &next), 0);
    assert_int_equal(next, 5); /* what is not durable is not written */
    assert_int_equal(event_once_size(to.once), 5);
    deinit(&to);
    init_with(&to, 100);
    for (unsigned i = 20; i-- > 0;)
        assert_int_equal(collect(&to, &entries[i]), 0);
    os_sleep_ns(sim_os(to.sim), 34 * HOUR_NS + HOUR_NS / 2);
    event_once_expire(to.once, forget, &forgotten);
    assert_int_equal(forgotten.n, 11);
    assert_memory_equal(forgotten.keys[10], entries[10].key, 16);
    assert_int_equal(use(&to, "12", 12, &entry), EVENT_ONCE_AGAIN);
    assert_int_equal(entry.last, 0);
    deinit(&from);
    deinit(&to);
}

static void test_replay(void **state UNUSED) {
    struct rig from, to;
    struct event_once_entry entry;
    CLEANUP(buffer_deinit) struct buffer body = BUFFER_INIT;
    init_with(&from, 100);
    init_with(&to, 1);
    assert_int_equal(use(&from, "k", 7, &entry), EVENT_ONCE_NEW);
    event_once_encode(&body, &entry);
    assert_int_equal(body.size, EVENT_ONCE_BODY);
    assert_int_equal(event_once_replay(to.once, 3, entry.wall_us, buffer_bytes(&body)), 0);
    assert_int_equal(event_once_replay(to.once, 3, entry.wall_us, buffer_bytes(&body)), 0);
    assert_int_equal(event_once_size(to.once), 1);
    assert_int_equal(use(&to, "k", 7, &entry), EVENT_ONCE_AGAIN);
    assert_int_equal(entry.last, 3);
    assert_int_equal(use(&to, "k", 8, &entry), EVENT_ONCE_OTHER);
    /* What is durable counts although the table is full. */
    body.data[0] ^= 1;
    assert_int_equal(event_once_replay(to.once, 4, entry.wall_us, buffer_bytes(&body)), 0);
    assert_int_equal(event_once_size(to.once), 2);
    body.size--;
    assert_int_equal(event_once_replay(to.once, 5, entry.wall_us, buffer_bytes(&body)), -EPROTO);
    deinit(&from);
    deinit(&to);
}

/* ---- Threads: one of them is first, the other waits for it ---- */

enum { RACED = 2000 };
struct racer {
    struct rig *rig;
    unsigned first;
};

static void race(void *argument) {
    struct racer *racer = argument;
    for (unsigned i = 0; i < RACED; i++) {
        char key[16];
        enum event_once_decision decision;
        struct event_once_entry entry;
        snprintf(key, sizeof key, "%u", i);
        if (begin(racer->rig, "/a", key, i, &decision, &entry) || decision != EVENT_ONCE_NEW)
            continue;
        racer->first++;
        event_once_end(racer->rig->once, &entry, true);
    }
}

static void test_twins(void **state UNUSED) {
    struct rig r;
    struct os_thread *threads[2];
    struct racer racers[2] = {{.rig = &r}, {.rig = &r}};
    init_with(&r, 2 * RACED);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(os_thread_start(os_real(), "racer", race, &racers[i], &threads[i]), 0);
    for (size_t i = 0; i < 2; i++)
        os_thread_join(os_real(), threads[i]);
    assert_int_equal(racers[0].first + racers[1].first, RACED);
    assert_int_equal(event_once_size(r.once), RACED);
    deinit(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_again_other),
        cmocka_unit_test(test_kept_for_a_day),
        cmocka_unit_test(test_used_again_after_its_day),
        cmocka_unit_test(test_full_and_never_forgotten_early),
        cmocka_unit_test(test_full_heals_without_a_checkpoint),
        cmocka_unit_test(test_invariant_6_keys_stay_within_their_part_of_the_budget),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_restored_in_any_order),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_twins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
