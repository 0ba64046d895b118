/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared journal on a real engine, written by two processes' journals and applied by members that
 * come and go: every record that was acknowledged has its effect once, and those of a key in their
 * order.
 *
 *   MILLRACE_TEST_JOURNAL='kafka://127.0.0.1:9092/?topic-prefix=LOG&partitions=4' \
 *       build-debug/src/test-work-share
 *
 * LOG becomes a name of this run. Without the variable every test is skipped.
 */
#include "work/share.h"

#include "base/hash.h"
#include "os/sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { KEYS = 50, WRITERS = 2, RECORDS_MAX = 40000, PATIENCE_MS = 60000, REFUSED = 3 };
#define URL_VARIABLE "MILLRACE_TEST_JOURNAL"

/* ---- A store that all members share, as a Redis Cluster is ---- */

struct store {
    struct mutex lock;
    lsn_t position[GROUP_PARTITIONS_MAX];
    /* Of a journal whose messages have no offsets: what was numbered, as hashes; of each its number
     * is its place. */
    uint64_t session[GROUP_PARTITIONS_MAX];
    uint64_t ids[GROUP_PARTITIONS_MAX][RECORDS_MAX];
    unsigned n_ids[GROUP_PARTITIONS_MAX];
    unsigned last[WRITERS][KEYS]; /* number of the last record applied */
    bool applied[WRITERS][RECORDS_MAX];
    atomic_uint n_applied;
    unsigned rejected;
    unsigned faults;
    atomic_uint down; /* so many calls to come are answered with down */
};

/* A record: its writer, its number and its key. */
static void apply_one(struct store *s, const struct journal_record *r) {
    unsigned writer = load_u32(r->payload.data), number = load_u32(r->payload.data + 4);
    unsigned key = load_u32(r->payload.data + 8);
    s->faults += s->applied[writer][number] || number < s->last[writer][key];
    s->applied[writer][number] = true;
    s->last[writer][key] = number;
    atomic_fetch_add(&s->n_applied, 1);
}

static int store_apply(void *store, unsigned lane, const struct journal_record *const *records,
                       size_t n, struct work_verdict *ret_verdict) {
    struct store *s = store;
    struct work_verdict v = {.outcome = WORK_OK, .applied = 0};
    mutex_lock(&s->lock);
    if (atomic_load(&s->down)) {
        atomic_fetch_sub(&s->down, 1);
        v = (struct work_verdict){.outcome = WORK_DOWN, .reason = "it is down"};
    }
    for (; v.outcome == WORK_OK && v.applied < n; v.applied++) {
        const struct journal_record *r = records[v.applied];
        if (r->lsn <= s->position[lane])
            continue;
        if (load_u32(r->payload.data + 4) % 1000 == REFUSED) {
            v.outcome = WORK_REJECT;
            v.reason = "it is one of those";
            break;
        }
        apply_one(s, r);
        s->position[lane] = r->lsn;
    }
    mutex_unlock(&s->lock);
    *ret_verdict = v;
    return 0;
}

static int store_reject(void *store, unsigned lane, const struct journal_record *r,
                        const char *reason) {
    struct store *s = store;
    mutex_lock(&s->lock);
    s->faults += strcmp(reason, "it is one of those") != 0 || r->lsn <= s->position[lane];
    s->position[lane] = r->lsn;
    s->rejected++;
    mutex_unlock(&s->lock);
    return 0;
}

static int store_position(void *store, unsigned partition, lsn_t *ret_lsn) {
    struct store *s = store;
    mutex_lock(&s->lock);
    *ret_lsn = s->position[partition];
    mutex_unlock(&s->lock);
    return 0;
}

static uint64_t number_of(struct store *s, unsigned partition, struct bytes id) {
    uint64_t hash = hash64(id.data, id.size);
    for (unsigned i = s->n_ids[partition]; i > 0; i--)
        if (s->ids[partition][i - 1] == hash)
            return i - 1;
    s->ids[partition][s->n_ids[partition]] = hash;
    return s->n_ids[partition]++;
}

static int store_number(void *store, unsigned partition, struct group_numbers *numbers) {
    struct store *s = store;
    mutex_lock(&s->lock);
    if (numbers->n == 0)
        numbers->session = ++s->session[partition];
    bool newest = numbers->session == s->session[partition];
    for (size_t i = 0; newest && i < numbers->n; i++)
        numbers->offsets[i] = number_of(s, partition, numbers->ids[i]);
    mutex_unlock(&s->lock);
    return newest ? 0 : JOURNAL_E_END;
}

static const struct work_store_ops store_ops = {
    .name = "events", .kind = JOURNAL_KIND_EVENTS, .apply = store_apply, .reject = store_reject};

/* ---- The rig ---- */

struct rig {
    struct os *os;
    struct service_url url;
    struct metrics *metrics[2]; /* of each member */
    struct share *members[2];
    struct store store;
    struct journal *journals[WRITERS];
    unsigned written[WRITERS];
};

static void tell(void *context UNUSED, const char *sentence UNUSED) {
}

/* An engine that is busy makes what is missing slowly. */
static int open_patiently(struct rig *rig, const struct journal_options *options,
                          struct journal **ret_journal) {
    uint64_t until = os_monotonic_ns(rig->os) + PATIENCE_MS * UINT64_C(1000000);
    int r;
    do
        r = journal_open(rig->os, "", options, ret_journal, NULL);
    while (r == JOURNAL_E_UNAVAILABLE && os_monotonic_ns(rig->os) < until);
    return r;
}

static int setup(void **state) {
    struct rig *rig = calloc(1, sizeof *rig);
    char text[1024];
    const char *why, *form = getenv(URL_VARIABLE);
    uint64_t number;
    if (!rig)
        return -1;
    *state = rig;
    if (!form)
        return 0;
    rig->os = os_real();
    const char *at = strstr(form, "LOG");
    if (!at || os_random(rig->os, &number, sizeof number))
        return -1;
    snprintf(text, sizeof text, "%.*ss%016llx-%s", (int)(at - form), form,
             (unsigned long long)number, at + 3);
    if (!service_url_parse(text, &rig->url, &why))
        return -1;
    mutex_init(&rig->store.lock, LOCK_RANK_WORK_POOL);
    const struct journal_options options = {.url = &rig->url, .name = store_ops.name, .tell = tell};
    for (int i = 0; i < WRITERS; i++)
        if (open_patiently(rig, &options, &rig->journals[i]))
            return -1;
    return metrics_new(&rig->metrics[0]) || metrics_new(&rig->metrics[1]) ? -1 : 0;
}

static int teardown(void **state) {
    struct rig *rig = *state;
    for (int i = 0; i < 2; i++) {
        share_stop(rig->members[i]);
        rig->members[i] = share_free(rig->members[i]);
        if (rig->metrics[i])
            metrics_free(rig->metrics[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        journal_close(rig->journals[i]);
    free(rig);
    return 0;
}

static void start_member(struct rig *rig, int i) {
    const struct share_options options = {.url = &rig->url,
                                          .ops = &store_ops,
                                          .store = &rig->store,
                                          .position = store_position,
                                          .number = store_number,
                                          .tell = tell};
    assert_int_equal(share_start(rig->os, &options, rig->metrics[i], &rig->members[i]), 0);
}

static void stop_member(struct rig *rig, int i) {
    share_stop(rig->members[i]);
    metrics_refresh(rig->metrics[i]); /* somebody may scrape them until the end */
    rig->members[i] = share_free(rig->members[i]);
    rig->metrics[i] = metrics_free(rig->metrics[i]);
    assert_int_equal(metrics_new(&rig->metrics[i]), 0);
}

/* Groups of several records, of keys that differ. */
static void write_some(struct rig *rig, unsigned n) {
    for (unsigned done = 0; done < n;)
        for (unsigned w = 0; w < WRITERS; w++) {
            uint8_t payloads[10][12];
            struct journal_record records[10];
            for (unsigned i = 0; i < 10; i++, done++) {
                unsigned number = rig->written[w]++;
                uint32_t key = (uint32_t)(hash64_u64(number) % KEYS);
                store_u32(payloads[i], w);
                store_u32(payloads[i] + 4, number);
                store_u32(payloads[i] + 8, key);
                records[i] = (struct journal_record){.kind = JOURNAL_KIND_EVENTS,
                                                     .key_hash = hash64(&key, sizeof key),
                                                     .payload = bytes_of(payloads[i], 12)};
            }
            assert_true(rig->written[w] <= RECORDS_MAX);
            assert_int_equal(journal_append(rig->journals[w], records, 10), 0);
        }
    for (unsigned w = 0; w < WRITERS; w++)
        assert_int_equal(
            journal_wait(rig->journals[w], journal_appended(rig->journals[w]), PATIENCE_MS), 0);
}

static bool all_applied(struct rig *rig) {
    unsigned written = 0, refused = 0;
    for (unsigned w = 0; w < WRITERS; w++) {
        written += rig->written[w];
        refused += (rig->written[w] + 999 - REFUSED) / 1000;
    }
    return atomic_load(&rig->store.n_applied) == written - refused;
}

static bool has_partitions(struct rig *rig, int i) {
    struct share_status status;
    share_status(rig->members[i], &status);
    return status.partitions > 0;
}

#define assert_comes_true(rig, what)                                                               \
    do {                                                                                           \
        uint64_t until = os_monotonic_ns((rig)->os) + PATIENCE_MS * UINT64_C(1000000);             \
        while (!(what) && os_monotonic_ns((rig)->os) < until)                                      \
            os_sleep_ns((rig)->os, 10000000);                                                      \
        assert_true(what);                                                                         \
    } while (0)

/* ---- Tests ---- */

static void test_members_come_and_go(void **state) {
    struct rig *rig = *state;
    if (!rig->os)
        skip();
    write_some(rig, 2000);
    start_member(rig, 0);
    assert_comes_true(rig, all_applied(rig));
    start_member(rig, 1);
    while (!has_partitions(rig, 1)) { /* a rebalance under load, however long it takes */
        if (rig->written[0] < RECORDS_MAX / 2)
            write_some(rig, 20);
        os_sleep_ns(rig->os, 1000000);
    }
    write_some(rig, 4000);
    assert_comes_true(rig, all_applied(rig));
    stop_member(rig, 0);
    write_some(rig, 2000);
    assert_comes_true(rig, all_applied(rig));
    stop_member(rig, 1);
    write_some(rig, 1000);
    atomic_store(&rig->store.down, 5);
    start_member(rig, 0); /* goes on from the store's position */
    assert_comes_true(rig, all_applied(rig));
    assert_int_equal(rig->store.faults, 0);
    assert_int_equal(rig->store.rejected, (rig->written[0] + 999 - REFUSED) / 1000 +
                                              (rig->written[1] + 999 - REFUSED) / 1000);
}

/* A topic made anew under the same name has offsets that the store knows already. */
static void test_a_store_ahead_is_not_fed(void **state) {
    struct rig *rig = *state;
    if (!rig->os)
        skip();
    if (service_url_parameter(&rig->url, "queues")) /* whose numbers are the store's own */
        return;
    for (unsigned p = 0; p < GROUP_PARTITIONS_MAX; p++)
        rig->store.position[p] = UINT64_C(1) << 57;
    write_some(rig, 200);
    start_member(rig, 0);
    struct share_status status;
    assert_comes_true(rig, (share_status(rig->members[0], &status),
                            strstr(status.journal_reason, "ahead of the journal")));
    assert_int_equal(atomic_load(&rig->store.n_applied), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_members_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_store_ahead_is_not_fed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
