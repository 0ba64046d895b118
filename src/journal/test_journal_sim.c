/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal on a disk that fails: the nth call, the power at every change of the disk, a full
 * disk, a sync that hangs. A run is a script drawn from a seed, in several lives; a model keeps
 * what was appended and what of it was acknowledged. After each life the journal must give back:
 *
 *   - everything acknowledged (above what the consumer has persisted), exactly and in order,
 *   - nothing that was not appended, no lsn left out,
 *   - of every group all or nothing,
 *   - and call nothing damaged, because nothing is.
 *
 * MILLRACE_SEED=n replays the scripts of one seed, MILLRACE_CUTS=n cuts so often.
 */
#include "journal/test_support.h"

#include <errno.h>

enum { CUTS = 20000, OPS_MAX = 40, LIVES = 3 };

struct group {
    lsn_t first;
    size_t n;
    uint64_t id;
    size_t found;
    bool acknowledged;
};

struct run {
    uint64_t seed;
    uint64_t crash_at;
    uint64_t fail_at;
    int fail_error;
    uint64_t chance; /* state of the script's random numbers */
    struct bench b;
    struct journal_consumer *consumer;
    lsn_t persisted;
    uint64_t next_id;
    struct group *groups;
    size_t n;
    size_t capacity;
    bool faulted;
    bool active; /* a test that ends while it is set has failed */
};

static uint64_t chance(struct run *r, uint64_t below) {
    r->chance = hash64_u64(r->chance);
    return r->chance % below;
}

/* ---- a disk that watches: invariant 7 ---- */

/* Files on which a sync failed must not be written or synced again. The table is per process
 * because a call of the os carries nothing of the test's. */
static struct {
    const struct os_ops *inner;
    struct os_ops outer;
    const struct os_file *failed[16];
} watch;

static bool watch_failed(const struct os_file *file) {
    for (size_t i = 0; i < ARRAY_LENGTH(watch.failed); i++)
        if (watch.failed[i] == file)
            return true;
    return false;
}

static int watched_sync(struct os *os, struct os_file *file) {
    assert_false(watch_failed(file));
    int r = watch.inner->sync(os, file);
    for (size_t i = 0; r && i < ARRAY_LENGTH(watch.failed); i++) {
        if (!watch.failed[i]) {
            watch.failed[i] = file;
            break;
        }
    }
    return r;
}

static int watched_write(struct os *os, struct os_file *file, const void *data, size_t size,
                         uint64_t offset, size_t *ret_size) {
    assert_false(watch_failed(file));
    return watch.inner->write(os, file, data, size, offset, ret_size);
}

static void watched_close(struct os *os, struct os_file *file) {
    for (size_t i = 0; i < ARRAY_LENGTH(watch.failed); i++)
        if (watch.failed[i] == file)
            watch.failed[i] = NULL;
    watch.inner->close(os, file);
}

static void watch_begin(struct os *os) {
    watch.inner = os->ops;
    watch.outer = *os->ops;
    watch.outer.sync = watched_sync;
    watch.outer.write = watched_write;
    watch.outer.close = watched_close;
    memset(watch.failed, 0, sizeof watch.failed);
    os->ops = &watch.outer;
}

/* ---- the model ---- */

static void model_add(struct run *r, lsn_t first, size_t n) {
    if (r->n == r->capacity) {
        r->capacity = r->capacity ? 2 * r->capacity : 64;
        r->groups = realloc(r->groups, r->capacity * sizeof *r->groups);
        assert_non_null(r->groups);
    }
    r->groups[r->n++] = (struct group){.first = first, .n = n, .id = r->next_id};
    r->next_id += n;
}

static void model_acknowledge(struct run *r, lsn_t durable) {
    for (size_t i = r->n; i-- > 0 && !r->groups[i].acknowledged;)
        if (r->groups[i].first + r->groups[i].n - 1 <= durable)
            r->groups[i].acknowledged = true;
}

/* Counts what of each group was read, and that nothing else was. */
static void model_count(struct run *r, const struct reading *got) {
    size_t g = 0;
    for (size_t i = 0; i < r->n; i++)
        r->groups[i].found = 0;
    for (size_t i = 0; i < got->n; i++) {
        const struct seen *s = &got->seen[i];
        if (i > 0)
            assert_int_equal(s->lsn, got->seen[i - 1].lsn + 1);
        while (g < r->n && r->groups[g].first + r->groups[g].n <= s->lsn)
            g++;
        assert_true(g < r->n && r->groups[g].first <= s->lsn);
        assert_int_equal(s->id, r->groups[g].id + (s->lsn - r->groups[g].first));
        r->groups[g].found++;
    }
}

/* What was not acknowledged and is gone is forgotten: it must not come back. What is there counts
 * as acknowledged now. What is persisted may be gone, or come back with a segment whose unlinking
 * the power cut undid. */
static void model_check(struct run *r, const struct reading *got) {
    size_t kept = 0;
    model_count(r, got);
    for (size_t i = 0; i < r->n; i++) {
        struct group *g = &r->groups[i];
        assert_true(g->found == 0 || g->found == g->n);
        assert_true(g->found || !g->acknowledged || g->first + g->n - 1 <= r->persisted);
        g->acknowledged |= g->found > 0;
        if (g->acknowledged)
            r->groups[kept++] = *g;
    }
    r->n = kept;
}

static void run_verify(struct run *r) {
    struct journal *j = r->b.j;
    struct reading got = READING_INIT;
    struct journal_stats stats;
    assert_int_equal(journal_durable(j), journal_appended(j));
    assert_int_equal(read_from(j, 1, &got), JOURNAL_E_END);
    model_check(r, &got);
    if (got.n)
        assert_int_equal(journal_durable(j), got.seen[got.n - 1].lsn);
    reading_deinit(&got);
    journal_stats(j, &stats);
    assert_int_equal(stats.damaged_records, 0);
    assert_int_equal(stats.damaged_bytes, 0);
}

/* ---- the script ---- */

static void op_append(struct run *r) {
    static const size_t sizes[] = {8, 30, 100, 400, 470, 1000, 1500, 5000, 9000};
    size_t n = 1 + chance(r, 4) * chance(r, 2);
    size_t size = sizes[chance(r, ARRAY_LENGTH(sizes))];
    lsn_t last;
    int result = append_group(r->b.j, r->next_id, n, size, &last);
    if (!result)
        model_add(r, last - n + 1, n);
    else
        assert_int_equal(result, JOURNAL_E_UNAVAILABLE);
}

static void op_commit(struct run *r) {
    if (journal_commit(r->b.j) == 0)
        assert_int_equal(journal_durable(r->b.j), journal_appended(r->b.j));
    model_acknowledge(r, journal_durable(r->b.j));
}

/* Reads may fail while the disk does, but never say anything false. */
static void op_read(struct run *r) {
    struct reading got = READING_INIT;
    int result = read_from(r->b.j, 1 + chance(r, journal_durable(r->b.j) + 1), &got);
    assert_true(result == JOURNAL_E_END || result < 0);
    model_count(r, &got);
    reading_deinit(&got);
}

static void op_persist(struct run *r) {
    lsn_t to = chance(r, journal_durable(r->b.j) + 1);
    if (to > r->persisted)
        r->persisted = to;
    journal_consumer_persisted(r->consumer, r->persisted);
}

static void live(struct run *r) {
    uint64_t ops = 1 + chance(r, OPS_MAX);
    for (uint64_t i = 0; i < ops; i++) {
        uint64_t what = chance(r, 20);
        if (what < 9)
            op_append(r);
        else if (what < 15)
            op_commit(r);
        else if (what < 17)
            op_read(r);
        else if (what < 19)
            op_persist(r);
        else
            os_sleep_ns(r->b.os, UINT64_C(1500000000));
    }
}

/* Faults for the coming life, of which the first has those that the test steps through. */
static void set_faults(struct run *r, unsigned life) {
    struct sim_faults faults = {.short_transfers = r->seed % 3 == 0};
    if (life == 0) {
        faults.crash_at = r->crash_at;
        faults.fail_at = r->fail_at;
        faults.fail_error = r->fail_error;
    } else if (r->crash_at) {
        faults.crash_at = chance(r, 2) ? 0 : 1 + chance(r, 60);
    }
    sim_set_faults(r->b.sim, &faults);
}

/* True when the journal is open. A fault may strike while it opens; then it is as if the process
 * had died there. */
static bool run_open(struct run *r) {
    int result = journal_open(r->b.os, DIRECTORY, &r->b.options, &r->b.j, &r->b.found);
    if (result) {
        assert_true(result < 0 && sim_faulted(r->b.sim));
        return false;
    }
    assert_int_equal(
        journal_consumer_new(r->b.j, "c", JOURNAL_KIND_EVENTS, r->persisted, &r->consumer), 0);
    assert_true(sim_faulted(r->b.sim) || r->b.found.damaged_bytes == 0);
    return true;
}

/* The life ends: by a clean close, a kill, or the power. */
static void run_end_life(struct run *r) {
    bool crashed = r->crash_at && sim_faulted(r->b.sim);
    uint64_t how = chance(r, 3);
    if (how == 1 && !crashed)
        sim_kill(r->b.sim);
    bench_close(&r->b);
    if (crashed || (how == 2 && r->crash_at))
        sim_power_cut(r->b.sim);
    memset(watch.failed, 0, sizeof watch.failed);
}

static void run_begin(struct run *r) {
    r->active = true;
    r->chance = r->seed;
    r->next_id = 1;
    r->b = bench_new(r->seed ^ (r->crash_at << 32) ^ r->fail_at);
    r->b.options.sync = r->seed % 4 == 0 ? JOURNAL_SYNC_ALWAYS : JOURNAL_SYNC_GROUP;
    watch_begin(r->b.os);
}

static void run_finish(struct run *r) {
    bench_free(&r->b);
    free(r->groups);
    r->groups = NULL;
    r->n = r->capacity = 0;
    r->persisted = 0;
    r->active = false;
}

/* Lives, each verified at the beginning of the next. */
static void run(struct run *r) {
    r->faulted = false;
    run_begin(r);
    for (unsigned life = 0; life < LIVES; life++) {
        set_faults(r, life);
        if (run_open(r))
            live(r);
        if (life == 0)
            r->faulted = sim_faulted(r->b.sim);
        run_end_life(r);
        sim_set_faults(r->b.sim, NULL);
        assert_true(run_open(r));
        run_verify(r);
        run_end_life(r);
    }
    run_finish(r);
}

static int setup(void **state) {
    struct run *r = calloc(1, sizeof *r);
    *state = r;
    return r ? 0 : -1;
}

static int teardown(void **state) {
    struct run *r = *state;
    if (r->active)
        print_error("MILLRACE_SEED=%llu crash_at %llu fail_at %llu fail_error %d\n",
                    (unsigned long long)r->seed, (unsigned long long)r->crash_at,
                    (unsigned long long)r->fail_at, r->fail_error);
    free(r);
    return 0;
}

static uint64_t number_from_environment(const char *name, uint64_t instead) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : instead;
}

/* ---- the tests ---- */

/* Every script is cut at its 1st, 2nd, … change of the disk, until it ends without. */
static void test_invariants_1_and_7_power_cut_at_every_change(void **state) {
    struct run *r = *state;
    uint64_t cuts = 0, only = number_from_environment("MILLRACE_SEED", 0);
    uint64_t cuts_max = number_from_environment("MILLRACE_CUTS", CUTS);
    for (r->seed = only ? only : 1; cuts < cuts_max && (!only || r->seed == only); r->seed++) {
        r->faulted = true;
        for (r->crash_at = 1; r->faulted; r->crash_at++, cuts++)
            run(r);
    }
    print_message("%llu power cuts, %llu scripts\n", (unsigned long long)cuts,
                  (unsigned long long)r->seed);
}

/* A sync or write fails, and some changes later the power goes. */
static void test_invariant_7_power_cut_after_a_failure(void **state) {
    struct run *r = *state;
    uint64_t only = number_from_environment("MILLRACE_SEED", 0);
    for (r->seed = only ? only : 1; r->seed <= (only ? only : 300); r->seed++) {
        for (r->fail_at = 1 + r->seed % 7; r->fail_at < 120; r->fail_at += 7) {
            r->fail_error = r->fail_at % 2 ? -EIO : OS_E_FULL;
            r->crash_at = 1 + hash64_u64(r->seed ^ r->fail_at) % 80;
            run(r);
        }
    }
}

static void sweep(struct run *r, int error) {
    r->fail_error = error;
    for (r->seed = 1; r->seed <= 12; r->seed++) {
        r->faulted = true;
        for (r->fail_at = 1; r->faulted; r->fail_at++)
            run(r);
    }
}

static void test_the_nth_call_fails_with_eio(void **state) {
    sweep(*state, -EIO);
}
static void test_the_nth_call_finds_the_disk_full(void **state) {
    sweep(*state, OS_E_FULL);
}
static void test_the_nth_call_is_interrupted(void **state) {
    sweep(*state, OS_E_INTERRUPTED);
}
static void test_the_nth_call_finds_no_memory(void **state) {
    sweep(*state, -ENOMEM);
}

/* The records of a sync that failed go to a new segment; that file is never synced again (the
 * watching disk asserts it), and the journal ends it at what was synced before. */
static void test_invariant_7_failed_sync_is_never_retried(void **state) {
    struct run *r = *state;
    struct journal_stats stats;
    struct reading got = READING_INIT;
    run_begin(r);
    assert_true(run_open(r));
    append_one(r->b.j, 1, 100);
    assert_int_equal(journal_commit(r->b.j), 0);
    append_one(r->b.j, 2, 100);
    sim_set_faults(r->b.sim, &(struct sim_faults){.fail_at = 2, .fail_error = -EIO});
    assert_int_equal(journal_commit(r->b.j), -EIO);
    assert_int_equal(journal_durable(r->b.j), 1);
    assert_int_equal(journal_state(r->b.j), JOURNAL_REFUSING);
    assert_string_equal(journal_state_text(r->b.j), "Input/output error");
    assert_int_equal(append_group(r->b.j, 3, 1, 100, NULL), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(read_from(r->b.j, 1, &got), JOURNAL_E_END);
    assert_int_equal(got.n, 1); /* reads go on */
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(journal_durable(r->b.j), 2);
    assert_int_equal(journal_state(r->b.j), JOURNAL_OK);
    journal_stats(r->b.j, &stats);
    assert_int_equal(stats.segments, 2);
    assert_int_equal(stats.sync_failures, 1);
    reading_deinit(&got);
    run_finish(r);
}

/* Recovery takes over groups that were acknowledged one by one; the power goes at each of its
 * changes of the disk, so that it would show if the new segment sealed the old one too early. */
static void test_power_cut_while_recovery_takes_over(void **state) {
    struct run *r = *state;
    bool faulted = true;
    for (r->crash_at = 1; faulted; r->crash_at++) {
        run_begin(r);
        r->b.options.sync = JOURNAL_SYNC_ALWAYS;
        bench_open(&r->b);
        for (uint64_t id = 1; id <= 6; id++)
            append_one(r->b.j, id, 100); /* each says that nothing is synced */
        assert_int_equal(journal_commit(r->b.j), 0);
        sim_kill(r->b.sim);
        bench_close(&r->b);
        sim_set_faults(r->b.sim, &(struct sim_faults){.crash_at = r->crash_at});
        if (journal_open(r->b.os, DIRECTORY, &r->b.options, &r->b.j, NULL) == 0)
            bench_close(&r->b);
        faulted = sim_faulted(r->b.sim);
        sim_power_cut(r->b.sim);
        bench_open(&r->b);
        assert_int_equal(journal_durable(r->b.j), 6);
        run_finish(r);
    }
}

/* A segment that was cut is never used again: its records beyond the cut have lsns that are given
 * out again, and here one would lie exactly where the next new record is looked for. */
static void test_cut_records_do_not_come_back_in_a_recycled_segment(void **state UNUSED) {
    struct bench b = bench_new(5);
    struct journal_consumer *c;
    const size_t frame = 40 + 104;
    bench_open(&b);
    append_one(b.j, 1, 104);
    assert_int_equal(journal_commit(b.j), 0);
    for (uint64_t id = 2; id <= 6; id++)
        append_one(b.j, id, 104);
    assert_int_equal(journal_commit(b.j), 0);
    sim_kill(b.sim);
    bench_close(&b);
    /* As if record 2 had been torn: cut there. 3 to 6 are whole, from 4096 + 512 + frame on. */
    assert_int_equal(sim_flip_bit(b.sim, DIRECTORY "/segment-000000000001", (4096 + 512 + 50) * 8),
                     0);
    b.options.disk_reserve_bytes = 1;
    sim_set_space(b.sim, 24 << 10); /* too little for a spare of zeros: the recycled one is next */
    bench_open(&b);
    assert_int_equal(b.found.next_lsn, 2);
    assert_true(b.found.torn_bytes >= 5 * frame);
    assert_int_equal(journal_consumer_new(b.j, "c", JOURNAL_KIND_EVENTS, 0, &c), 0);
    append_one(b.j, 102, 9000);
    assert_int_equal(journal_commit(b.j), 0);
    journal_consumer_persisted(c, 2);
    assert_int_equal(journal_commit(b.j), 0);
    append_one(b.j, 103, 512 + 2 * frame - 40);
    assert_int_equal(journal_commit(b.j), 0);
    sim_kill(b.sim);
    bench_close(&b);
    bench_open(&b);
    assert_int_equal(b.found.next_lsn, 4);
    bench_free(&b);
}

static void test_invariant_6_full_disk_refuses_and_heals(void **state) {
    struct run *r = *state;
    struct reading got = READING_INIT;
    run_begin(r);
    r->b.options.disk_reserve_bytes = 1;
    assert_true(run_open(r));
    sim_set_space(r->b.sim, 0);
    uint64_t id = 0;
    int result = 0;
    while (!result && id < 1000) {
        result = append_group(r->b.j, id + 1, 1, 200, NULL);
        id += result == 0;
        ignore_result(journal_commit(r->b.j));
    }
    assert_int_equal(result, JOURNAL_E_UNAVAILABLE);
    assert_int_equal(journal_state(r->b.j), JOURNAL_REFUSING);
    for (int i = 0; i < 10; i++)
        assert_int_not_equal(journal_commit(r->b.j), 0);
    sim_set_space(r->b.sim, UINT64_MAX);
    os_sleep_ns(r->b.os, UINT64_C(1000000000));
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(journal_state(r->b.j), JOURNAL_OK);
    assert_int_equal(journal_durable(r->b.j), id); /* what was accepted is not lost */
    append_one(r->b.j, id + 1, 200);
    assert_int_equal(journal_commit(r->b.j), 0);
    bench_reopen(&r->b);
    assert_int_equal(read_from(r->b.j, 1, &got), JOURNAL_E_END);
    assert_int_equal(got.n, id + 1);
    reading_deinit(&got);
    run_finish(r);
}

static void test_invariant_6_space_reserve_refuses_before_it_is_used(void **state) {
    struct run *r = *state;
    run_begin(r);
    r->b.options.disk_reserve_bytes = 1 << 20;
    assert_true(run_open(r));
    append_one(r->b.j, 1, 100);
    assert_int_equal(journal_commit(r->b.j), 0);
    sim_set_space(r->b.sim, 1000);
    os_sleep_ns(r->b.os, UINT64_C(1000000000));
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(append_group(r->b.j, 2, 1, 100, NULL), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(count_files(r->b.os, DIRECTORY, "spare-"), 0); /* given back */
    sim_set_space(r->b.sim, UINT64_MAX);
    os_sleep_ns(r->b.os, UINT64_C(1000000000));
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(append_group(r->b.j, 2, 1, 100, NULL), 0);
    run_finish(r);
}

/* Else a disk full of points would stay full: the drop that makes room is a control record. */
static void test_invariant_6_deletes_may_use_half_of_the_reserve(void **state) {
    struct run *r = *state;
    struct journal_record drop = {
        .kind = JOURNAL_KIND_POINTS, .flags = JOURNAL_CONTROL, .payload = BYTES_LITERAL("drop")};
    struct journal_record delete = {
        .kind = JOURNAL_KIND_EVENTS, .flags = JOURNAL_DELETES, .payload = BYTES_LITERAL("delete")};
    struct journal_record both[] = {drop, {.kind = JOURNAL_KIND_POINTS, .payload = drop.payload}};
    run_begin(r);
    r->b.options.disk_reserve_bytes = 1 << 20;
    assert_true(run_open(r));
    sim_set_space(r->b.sim, 768 << 10);
    os_sleep_ns(r->b.os, UINT64_C(1000000000));
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(journal_state(r->b.j), JOURNAL_REFUSING);
    assert_int_equal(append_group(r->b.j, 1, 1, 100, NULL), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(journal_append(r->b.j, both, 2), JOURNAL_E_UNAVAILABLE);
    assert_int_equal(journal_append(r->b.j, &drop, 1), 0);
    assert_int_equal(journal_append(r->b.j, &delete, 1), 0);
    assert_int_equal(delete.flags, 0); /* it is not kept */
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(journal_durable(r->b.j), delete.lsn);
    sim_set_space(r->b.sim, 256 << 10);
    os_sleep_ns(r->b.os, UINT64_C(1000000000));
    assert_int_equal(journal_commit(r->b.j), 0);
    assert_int_equal(journal_append(r->b.j, &drop, 1), JOURNAL_E_UNAVAILABLE);
    delete.flags = JOURNAL_DELETES;
    assert_int_equal(journal_append(r->b.j, &delete, 1), JOURNAL_E_UNAVAILABLE);
    run_finish(r);
}

int main(void) {
#define SIM_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        SIM_TEST(test_invariants_1_and_7_power_cut_at_every_change),
        SIM_TEST(test_invariant_7_power_cut_after_a_failure),
        SIM_TEST(test_the_nth_call_fails_with_eio),
        SIM_TEST(test_the_nth_call_finds_the_disk_full),
        SIM_TEST(test_the_nth_call_is_interrupted),
        SIM_TEST(test_the_nth_call_finds_no_memory),
        SIM_TEST(test_invariant_7_failed_sync_is_never_retried),
        SIM_TEST(test_power_cut_while_recovery_takes_over),
        SIM_TEST(test_cut_records_do_not_come_back_in_a_recycled_segment),
        SIM_TEST(test_invariant_6_full_disk_refuses_and_heals),
        SIM_TEST(test_invariant_6_space_reserve_refuses_before_it_is_used),
        SIM_TEST(test_invariant_6_deletes_may_use_half_of_the_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
