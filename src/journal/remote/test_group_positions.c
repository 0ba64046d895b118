/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a group member commits where the positions are the engine's, beside an engine that does what
 * the test says within a call, and answers commits when it says so. Memory is out when it says so,
 * too.
 */
#include "journal/remote/shared.h"

#include "os/sim.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PARTITIONS = 2, SALT = 0x5a17, ROUNDS = 100, COMMITS_MAX = 4, SESSION_S = 10 };
#define SECOND_NS UINT64_C(1000000000)

static struct sim *sim;

/* ---- Memory ---- */

static bool memory_is_out;

/* In place of the library's, for what grows. */
void *realloc(void *ptr, size_t size) {
    static void *(*real)(void *, size_t);
    if (memory_is_out)
        return NULL;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "realloc");
    return real(ptr, size);
}

/* ---- The engine ---- */

static struct {
    struct shared_member member;
    uint64_t at[PARTITIONS];  /* where it reads, once it was sought */
    uint64_t end[PARTITIONS]; /* of the log */
    uint64_t hole;            /* the offset of partition 0 that has no message; 0: none has none */
    uint64_t committed[PARTITIONS];
    uint64_t trimmed[PARTITIONS];
    struct shared_position sent[COMMITS_MAX][PARTITIONS];
    size_t n_sent[COMMITS_MAX]; /* not answered */
    bool silent;                /* it answers none */
    void (*within)(void);       /* done in the next call */
    struct buffer message;
} engine;

static void answer_one(void) {
    struct shared_member *m = &engine.member;
    for (size_t i = 0; i < engine.n_sent[0]; i++)
        engine.committed[engine.sent[0][i].partition] = engine.sent[0][i].offset;
    memmove(engine.sent, engine.sent + 1, sizeof engine.sent - sizeof engine.sent[0]);
    memmove(engine.n_sent, engine.n_sent + 1, sizeof engine.n_sent - sizeof engine.n_sent[0]);
    m->unanswered--;
    m->taken_ns = m->sent_ns;
    m->turn(m->context, false);
}

static int join(struct os *os UNUSED, const struct log_options *options UNUSED,
                struct shared_member **ret_member) {
    for (unsigned p = 0; p < PARTITIONS; p++)
        engine.member.generation[p] = p + 1;
    *ret_member = &engine.member;
    return 0;
}

static void leave(struct shared_member *m UNUSED) {
}

static int next(struct shared_member *m UNUSED, uint64_t wait_ms UNUSED,
                struct shared_delivery *ret_delivery) {
    void (*within)(void) = engine.within;
    engine.within = NULL;
    if (within)
        within();
    if (!engine.silent && engine.member.unanswered)
        answer_one();
    for (unsigned p = 0; p < PARTITIONS; p++) {
        if (engine.at[p] >= engine.end[p])
            continue;
        engine.at[p] += p == 0 && engine.hole && engine.at[p] == engine.hole;
        *ret_delivery = (struct shared_delivery){
            .partition = p, .offset = engine.at[p]++, .bytes = buffer_bytes(&engine.message)};
        return 0;
    }
    return LOG_E_END;
}

static void release(struct shared_delivery *d UNUSED) {
}

static int seek(struct shared_member *m UNUSED, unsigned p, bool known UNUSED, uint64_t *offset) {
    engine.at[p] = *offset;
    return 0;
}

static void pause_partition(struct shared_member *m UNUSED, unsigned p UNUSED, bool on UNUSED) {
}

static uint64_t end_of(struct shared_member *m UNUSED, unsigned p) {
    return engine.end[p];
}

static void commit(struct shared_member *m, const struct shared_position *positions, size_t n) {
    assert_true(m->unanswered < COMMITS_MAX);
    if (m->unanswered == 0)
        m->sent_ns = os_monotonic_ns(sim_os(sim));
    memcpy(engine.sent[m->unanswered], positions, n * sizeof *positions);
    engine.n_sent[m->unanswered++] = n;
}

static int committed(struct shared_member *m UNUSED, unsigned p, uint64_t *ret_offset) {
    *ret_offset = engine.committed[p];
    return 0;
}

static int trim(struct shared_member *m UNUSED, unsigned p, uint64_t offset) {
    assert_true(offset <= engine.committed[p]);
    engine.trimmed[p] = offset;
    return 0;
}

static const struct shared_member_ops member_ops = {.join = join,
                                                    .leave = leave,
                                                    .next = next,
                                                    .release = release,
                                                    .seek = seek,
                                                    .pause = pause_partition,
                                                    .end = end_of,
                                                    .commit = commit,
                                                    .committed = committed,
                                                    .trim = trim};
static const struct shared_driver driver = {.member = &member_ops};

const struct shared_driver *shared_driver_find(const struct service_url *url UNUSED) {
    return &driver;
}

int shared_check_url(const struct service_url *url UNUSED, char why[LOG_WHY_MAX] UNUSED) {
    return 0;
}

unsigned journal_url_partitions(const struct service_url *url UNUSED) {
    return PARTITIONS;
}

/* ---- The rig ---- */

static struct group *group;
static unsigned records[PARTITIONS];

static void make_message(void) {
    const struct frame frame = {.kind = JOURNAL_KIND_POINTS, .payload = BYTES_LITERAL("one")};
    shared_message_begin(&engine.message);
    uint8_t *at = buffer_reserve(&engine.message, frame_bytes(frame.payload.size));
    assert_non_null(at);
    frame_store(at, SALT, &frame, frame_payload_crc(SALT, frame.payload));
    engine.message.size += frame_bytes(frame.payload.size);
    shared_message_end(&engine.message, SALT, 1);
    assert_int_equal(buffer_check(&engine.message), 0);
}

static int start(void **state UNUSED) {
    static const struct service_url url;
    char why[GROUP_WHY_MAX];
    memset(&engine, 0, sizeof engine);
    memset(records, 0, sizeof records);
    engine.member = (struct shared_member){
        .ops = &member_ops, .reachable = true, .session_ns = SESSION_S * SECOND_NS};
    make_message();
    const struct group_options options = {.url = &url, .name = "points"};
    return sim_new(1, &sim) || group_open(sim_os(sim), &options, &group, why) ? -1 : 0;
}

static int stop(void **state UNUSED) {
    group = group_close(group);
    buffer_deinit(&engine.message);
    sim = sim_free(sim);
    return 0;
}

/* Persists what comes, once. */
static void read_once(void) {
    struct group_batch batch;
    os_sleep_ns(sim_os(sim), SECOND_NS);
    if (group_read(group, 0, &batch))
        return;
    records[batch.partition] += (unsigned)batch.n;
    group_persisted(group, batch.partition, batch.records[batch.n - 1].lsn);
}

static void read_until(unsigned p, unsigned least) {
    for (unsigned i = 0; i < ROUNDS && records[p] < least; i++)
        read_once();
    assert_true(records[p] >= least);
}

/* ---- Tests ---- */

/* What is committed with the loss is answered late; another has come further by then. */
static void lose_one(void) {
    struct shared_member *m = &engine.member;
    m->turn(m->context, true);
    m->generation[1] = 0;
    os_sleep_ns(sim_os(sim), SESSION_S * SECOND_NS);
    for (unsigned n = m->unanswered; n > 0; n--)
        answer_one();
    engine.committed[1] = 9;
}

/* The lease is to be kept at once, though the call is not over in which the partition went. */
static void test_what_was_taken_away_is_anothers_to_commit(void **state UNUSED) {
    engine.end[1] = 3;
    read_until(1, 3);
    engine.within = lose_one;
    for (unsigned i = 0; i < 10; i++)
        read_once();
    assert_int_equal(engine.committed[1], 9);
}

/* A partition is read again from where we are, though the group does not know it yet: who has seen
 * it there relies on it. */
static void test_nobody_goes_back_behind_what_was_persisted(void **state UNUSED) {
    engine.end[0] = 3;
    read_until(0, 3);
    engine.silent = true;
    engine.hole = 3;
    engine.end[0] = 6;
    read_until(0, 5);
    for (unsigned i = 0; i < 10; i++)
        read_once();
    assert_int_equal(records[0], 5);
}

/* While there is always something to commit, the log does not grow for ever. */
static void test_the_log_is_trimmed_under_a_steady_load(void **state UNUSED) {
    for (unsigned i = 0; i < ROUNDS; i++) {
        engine.end[0]++;
        read_once();
    }
    assert_int_equal(records[0], ROUNDS);
    assert_true(engine.trimmed[0] > ROUNDS / 2);
}

/* The first of all, for which there is no room yet. */
static void test_what_there_was_no_memory_for_comes_again(void **state UNUSED) {
    struct group_batch batch;
    engine.end[0] = 3;
    memory_is_out = true;
    for (unsigned i = 0; i < 3; i++) {
        os_sleep_ns(sim_os(sim), SECOND_NS);
        assert_int_not_equal(group_read(group, 0, &batch), 0);
    }
    memory_is_out = false;
    read_until(0, 3);
    assert_int_equal(records[0], 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_was_taken_away_is_anothers_to_commit, start,
                                        stop),
        cmocka_unit_test_setup_teardown(test_nobody_goes_back_behind_what_was_persisted, start,
                                        stop),
        cmocka_unit_test_setup_teardown(test_the_log_is_trimmed_under_a_steady_load, start, stop),
        cmocka_unit_test_setup_teardown(test_what_there_was_no_memory_for_comes_again, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
