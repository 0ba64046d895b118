/* SPDX-License-Identifier: Apache-2.0 */
/* Records that the journal refuses are kept, in order, and each is appended once. */
#include "tasks/outbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/sim.h"

enum { N = 1000 };

static struct journal *open_journal(struct os *os) {
    const struct journal_options options = {
        .pending_bytes_max = 40 << 10, .disk_reserve_bytes = 1, .no_thread = true};
    struct journal_recovery recovery;
    struct journal *j;
    assert_int_equal(os_mkdir(os, "/j"), 0);
    assert_int_equal(journal_open(os, "/j", &options, &j, &recovery), 0);
    return j;
}

static void add(struct outbox *o, uint64_t key, struct bytes text) {
    outbox_add(o, &(struct task_record){.op = TASK_OP_END,
                                        .id = {key, 1},
                                        .attempt = 1,
                                        .outcome = TASK_OUTCOME_FAILED,
                                        .text = text});
}

static uint64_t count_in_order(struct journal *j) {
    struct journal_cursor *c;
    struct journal_batch *batch;
    struct task_record record;
    uint64_t n = 0;
    assert_int_equal(journal_cursor_new(j, 1, &c), 0);
    while (journal_read(c, &batch) == 0) {
        for (size_t i = 0; i < batch->n; i++) {
            assert_int_equal(batch->records[i].kind, JOURNAL_KIND_TASKS);
            assert_true(task_record_decode(batch->records[i].payload, &record));
            assert_int_equal(record.id.key, ++n);
        }
        journal_batch_unref(batch);
    }
    journal_cursor_free(c);
    return n;
}

static void test_what_is_refused_is_kept(void **state) {
    (void)state;
    static uint8_t text[200];
    struct sim *sim;
    struct outbox o;
    unsigned refused = 0;
    assert_int_equal(sim_new(1, &sim), 0);
    struct journal *j = open_journal(sim_os(sim));
    outbox_init(&o, sim_os(sim));
    for (uint64_t key = 1; key <= N; key++)
        add(&o, key, bytes_of(text, sizeof text - key % 100));
    while (!outbox_is_empty(&o)) {
        outbox_send(&o, j);
        refused += !outbox_is_empty(&o);
        assert_int_equal(journal_commit(j), 0);
    }
    assert_true(refused > 1);
    assert_int_equal(count_in_order(j), N);
    outbox_deinit(&o);
    journal_close(j);
    sim_free(sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_refused_is_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
