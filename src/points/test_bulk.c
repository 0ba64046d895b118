/* SPDX-License-Identifier: Apache-2.0 */
/* Bulk tasks: their states, replay, checkpoint and JSON. */
#include "points/test_support.h"

#include <errno.h>

static char *describe(struct rig *rig, const char *id, lsn_t visible) {
    struct buffer out = BUFFER_INIT;
    bool ended;
    int r =
        bulk_tasks_describe(rig->tasks, bytes_of_string(id), visible, rig->catalog, &out, &ended);
    if (r == POINTS_E_NOT_FOUND)
        return NULL;
    assert_int_equal(r, 0);
    buffer_append_u8(&out, 0);
    return (char *)out.data;
}

static void expect(struct rig *rig, const char *id, lsn_t visible, const char *part) {
    char *text = describe(rig, id, visible);
    assert_non_null(text);
    if (!strstr(text, part))
        fail_msg("%s is not in %s", part, text);
    free(text);
}

/* The record of a task's end, decoded; payload owns its bytes. */
static struct point_record end_record(struct bulk_task *task, enum bulk_status status,
                                      const char *reason, struct buffer *payload) {
    struct point_record record;
    bulk_task_encode_end(task, status, reason, payload);
    assert_int_equal(buffer_check(payload), 0);
    assert_true(point_record_decode(buffer_bytes(payload), &record));
    assert_int_equal(record.op, POINT_BULK);
    return record;
}

static void end(struct bulk_task *task, enum bulk_status status, const char *reason, lsn_t lsn) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    end_record(task, status, reason, &payload);
    bulk_task_ended(task, lsn);
}

static struct bulk_task *begin(struct rig *rig, lsn_t incarnation, char id[BULK_ID_SIZE]) {
    struct bulk_task *task;
    assert_int_equal(bulk_task_begin(rig->tasks, "ingest", "a", incarnation, &task), 0);
    memcpy(id, bulk_task_id(task), BULK_ID_SIZE);
    assert_int_equal(strlen(id), BULK_ID_SIZE - 1);
    return task;
}

static void test_life_of_a_task(void **state UNUSED) {
    struct rig rig = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    char id[BULK_ID_SIZE];
    struct bulk_task *task = begin(&rig, incarnation, id);
    expect(&rig, id, 0, "\"status\":\"running\",\"progress\":0.0");
    expect(&rig, id, 0, "\"total\":null");
    bulk_task_accepted(task, 11, 20, 10);
    bulk_task_accepted(task, 21, 30, 10);
    bulk_task_error(task, 7, "missing field `id`");
    expect(&rig, id, 0,
           "\"rejected\":1,\"errors\":[{\"line\":7,\"error\":\"missing field `id`\"}]");
    end(task, BULK_SUCCEEDED, NULL, 31);
    expect(&rig, id, 10, "\"status\":\"running\",\"progress\":0.0,\"current\":0,\"total\":20");
    expect(&rig, id, 20, "\"progress\":0.5,\"current\":10");
    expect(&rig, id, 29, "\"status\":\"running\"");
    expect(&rig, id, 29, "\"finished_at\":null");
    expect(&rig, id, 30, "\"status\":\"succeeded\",\"progress\":1.0,\"current\":20");
    expect(&rig, id, 30, "\"error\":null");
    rig_free(&rig);
}

static void test_bad_ends(void **state UNUSED) {
    struct rig rig = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    char id[BULK_ID_SIZE];
    struct bulk_task *task = begin(&rig, incarnation, id);
    bulk_task_accepted(task, 2, 4, 3);
    end(task, BULK_INTERRUPTED, "after record 3: the client went away", 5);
    expect(&rig, id, 2, "\"status\":\"failed\"");
    expect(&rig, id, 2, "\"error\":\"after record 3: the client went away\"");
    expect(&rig, id, 4, "\"current\":3");
    task = begin(&rig, incarnation, id);
    bulk_task_abandon(task);
    assert_null(describe(&rig, id, 0));
    assert_null(describe(&rig, "5", 0));
    assert_null(describe(&rig, "nonsense", 0));
    rig_free(&rig);
}

/* A task of the records first to last, whose end stands right behind them: appended, and known to
 * the journal, but not yet to its upload. The payload owns the record's bytes. */
static struct bulk_task *finish(struct rig *rig, lsn_t incarnation, char id[BULK_ID_SIZE],
                                lsn_t first, lsn_t last, struct buffer *payload) {
    struct bulk_task *task = begin(rig, incarnation, id);
    bulk_task_accepted(task, first, last, last - first + 1);
    struct point_record record = end_record(task, BULK_SUCCEEDED, NULL, payload);
    assert_int_equal(bulk_tasks_replay(rig->tasks, last + 1, &record), 0);
    return task;
}

static void replay_end(struct rig *rig, lsn_t lsn, const struct buffer *payload) {
    struct point_record record;
    assert_true(point_record_decode(buffer_bytes(payload), &record));
    assert_int_equal(bulk_tasks_replay(rig->tasks, lsn, &record), 0);
}

static void replay_drop(struct rig *rig, lsn_t incarnation, lsn_t applied) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    struct point_record record;
    point_record_encode_drop(&payload, incarnation, applied);
    assert_true(point_record_decode(buffer_bytes(&payload), &record));
    bulk_tasks_dropped(rig->tasks, &record);
}

/* Dropped before all was applied: failed for good. Applied before the drop: succeeded for good. The
 * journal alone gives the same answer, also where a reader came too early. */
static void test_dropped_collections(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer early_end = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer late_end = BUFFER_INIT;
    struct rig rig = rig_new(), other = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    rig_create(&other, "a");
    char early[BULK_ID_SIZE], late[BULK_ID_SIZE];
    bulk_task_ended(finish(&rig, incarnation, early, 2, 3, &early_end), 4);
    bulk_task_ended(finish(&rig, incarnation, late, 5, 6, &late_end), 7);
    rig_drop(&rig, "a"); /* with 4 applied, as its record will say */
    expect(&rig, early, 100, "\"status\":\"running\"");
    expect(&rig, late, 100, "\"status\":\"running\"");
    replay_drop(&rig, incarnation, 4);
    replay_end(&other, 4, &early_end);
    replay_end(&other, 7, &late_end);
    expect(&other, late, 100, "\"status\":\"succeeded\""); /* the drop is yet to come */
    replay_drop(&other, incarnation, 4);
    struct rig *both[] = {&rig, &other};
    for (size_t i = 0; i < 2; i++) {
        expect(both[i], early, 100, "\"status\":\"succeeded\"");
        expect(both[i], late, 100, "\"status\":\"failed\"");
        expect(both[i], late, 100, "\"error\":\"the collection was dropped");
    }
    rig_free(&rig);
    rig_free(&other);
}

/* The workers come to the end and to the drop before the upload's thread goes on. */
static void test_a_drop_between_the_record_and_its_end(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer early_end = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer late_end = BUFFER_INIT;
    struct rig rig = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    char early[BULK_ID_SIZE], late[BULK_ID_SIZE];
    struct bulk_task *first = finish(&rig, incarnation, early, 2, 3, &early_end);
    struct bulk_task *second = finish(&rig, incarnation, late, 5, 6, &late_end);
    rig_drop(&rig, "a");
    replay_drop(&rig, incarnation, 3);
    expect(&rig, late, 100, "\"status\":\"running\"");
    bulk_task_ended(first, 4);
    bulk_task_ended(second, 7);
    expect(&rig, early, 100, "\"status\":\"succeeded\"");
    expect(&rig, late, 100, "\"status\":\"failed\"");
    rig_free(&rig);
}

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

/* A page, as one text; the key of its last task. */
struct list {
    struct buffer text;
    uint64_t last;
};

static void add_to_list(void *context, uint64_t key, struct bytes json) {
    struct list *l = context;
    assert_true(l->last == 0 || key < l->last); /* the newest first */
    l->last = key;
    buffer_append_bytes(&l->text, json);
}

static char *list(struct rig *rig, const char *status, size_t limit, uint64_t *below) {
    struct list l = {0};
    assert_int_equal(bulk_tasks_each(rig->tasks, bytes_of_string(status), BYTES_LITERAL(""), *below,
                                     limit, 100, rig->catalog, add_to_list, &l),
                     0);
    *below = l.last;
    buffer_append_u8(&l.text, 0);
    assert_false(l.text.failed);
    return (char *)l.text.data;
}

/* ---- Replay and checkpoint ---- */

static void test_replay_is_idempotent(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    struct rig rig = rig_new(), other = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    rig_create(&other, "a");
    char id[BULK_ID_SIZE];
    struct bulk_task *task = begin(&rig, incarnation, id);
    bulk_task_error(task, 1, "a \"quoted\" sentence");
    bulk_task_accepted(task, 0, 0, 5); /* in one group with the end */
    struct point_record record = end_record(task, BULK_SUCCEEDED, NULL, &payload);
    /* The worker may be here before the request's own thread. */
    assert_int_equal(bulk_tasks_replay(rig.tasks, 10, &record), 0);
    expect(&rig, id, 3, "\"status\":\"running\"");
    bulk_task_ended(task, 10);
    assert_int_equal(bulk_tasks_replay(rig.tasks, 10, &record), 0);
    assert_int_equal(bulk_tasks_replay(other.tasks, 10, &record), 0);
    assert_int_equal(bulk_tasks_replay(other.tasks, 10, &record), 0);
    for (lsn_t visible = 4; visible <= 10; visible++) {
        char *a = describe(&rig, id, visible), *b = describe(&other, id, visible);
        assert_string_equal(a, b);
        assert_int_equal(strstr(a, "\"succeeded\"") != NULL, visible >= 9);
        free(a);
        free(b);
    }
    rig_free(&rig);
    rig_free(&other);
}

/* The points of one group with the end are the lsns right before it. */
static void test_group_with_the_end(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    struct rig rig = rig_new();
    char id[BULK_ID_SIZE];
    struct bulk_task *task = begin(&rig, rig_create(&rig, "a"), id);
    bulk_task_accepted(task, 0, 0, 5);
    struct point_record record = end_record(task, BULK_SUCCEEDED, NULL, &payload);
    bulk_task_ended(task, 10);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(bulk_tasks_replay(rig.tasks, 10, &record), 0);
    expect(&rig, id, 4, "\"progress\":0.0,\"current\":0,\"total\":5");
    expect(&rig, id, 6, "\"current\":2,");
    expect(&rig, id, 9, "\"status\":\"succeeded\",\"progress\":1.0,\"current\":5");
    uint64_t below = 0;
    char *text = list(&rig, "", 100, &below);
    assert_int_equal(count(text, "\"id\":"), 1); /* however often it was replayed */
    free(text);
    rig_free(&rig);
}

/* The workers see the record, and a checkpoint is made, before the upload's thread goes on. */
static void test_a_checkpoint_between_the_record_and_its_end(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct rig rig = rig_new(), other = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    rig_create(&other, "a");
    char id[BULK_ID_SIZE];
    struct bulk_task *task = begin(&rig, incarnation, id);
    bulk_task_accepted(task, 2, 4, 3);
    struct point_record record = end_record(task, BULK_SUCCEEDED, NULL, &payload);
    assert_int_equal(bulk_tasks_replay(rig.tasks, 5, &record), 0);
    bulk_tasks_encode(rig.tasks, 5, &out);
    assert_int_equal(bulk_tasks_decode(other.tasks, buffer_bytes(&out)), 0);
    expect(&other, id, 4, "\"status\":\"succeeded\"");
    expect(&rig, id, 4, "\"status\":\"running\"");
    bulk_task_ended(task, 5);
    expect(&rig, id, 4, "\"status\":\"succeeded\"");
    rig_free(&rig);
    rig_free(&other);
}

static void test_checkpoint(void **state UNUSED) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct rig rig = rig_new(), other = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    rig_create(&other, "a");
    char ids[4][BULK_ID_SIZE];
    for (unsigned i = 0; i < 3; i++) {
        struct bulk_task *task = begin(&rig, incarnation, ids[i]);
        bulk_task_accepted(task, 10 * i + 2, 10 * i + 9, 8);
        bulk_task_error(task, i, "bad");
        end(task, i == 1 ? BULK_FAILED : BULK_SUCCEEDED, i == 1 ? "why" : NULL, 10 * i + 10);
    }
    begin(&rig, incarnation, ids[3]); /* under way: not in a checkpoint */
    expect(&rig, ids[0], 9, "\"status\":\"succeeded\"");
    bulk_tasks_encode(rig.tasks, 20, &out);
    assert_int_equal(bulk_tasks_decode(other.tasks, buffer_bytes(&out)), 0);
    for (unsigned i = 0; i < 2; i++) {
        char *a = describe(&rig, ids[i], 25), *b = describe(&other, ids[i], 25);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
    assert_null(describe(&other, ids[2], 100));
    assert_null(describe(&other, ids[3], 100));
    for (size_t size = 0; size < out.size; size++) {
        struct bulk_tasks *t;
        uint8_t *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, out.data, size);
        assert_int_equal(bulk_tasks_new(sim_os(rig.sim), &t), 0);
        assert_int_equal(bulk_tasks_decode(t, bytes_of(copy, size)), -EPROTO);
        bulk_tasks_free(t);
        free(copy);
    }
    rig_free(&rig);
    rig_free(&other);
}

static void test_errors_are_bounded(void **state UNUSED) {
    struct rig rig = rig_new();
    char id[BULK_ID_SIZE], sentence[1000];
    struct bulk_task *task = begin(&rig, rig_create(&rig, "a"), id);
    memset(sentence, 'x', sizeof sentence - 1);
    sentence[sizeof sentence - 1] = '\0';
    for (unsigned i = 1; i <= 3 * BULK_ERRORS_MAX; i++)
        bulk_task_error(task, i, i == 2 ? sentence : "bad");
    expect(&rig, id, 0, "\"rejected\":300");
    expect(&rig, id, 0, "{\"line\":100,");
    char *text = describe(&rig, id, 0);
    assert_null(strstr(text, "{\"line\":101,"));
    assert_true(strlen(text) < 20000);
    free(text);
    rig_free(&rig);
}

/* ---- The list ---- */

static void test_list_pages(void **state UNUSED) {
    struct rig rig = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    char ids[7][BULK_ID_SIZE];
    uint64_t below = 0;
    for (unsigned i = 0; i < 7; i++) {
        struct bulk_task *task = begin(&rig, incarnation, ids[i]);
        if (i > 0)
            assert_true(strcmp(ids[i], ids[i - 1]) > 0);
        end(task, i % 2 ? BULK_FAILED : BULK_SUCCEEDED, NULL, i + 2);
    }
    for (int left = 7; left > 0; left -= 3) {
        char *text = list(&rig, "", 3, &below);
        assert_int_equal(count(text, "\"id\":"), left < 3 ? left : 3);
        assert_non_null(strstr(text, ids[left - 1]));
        free(text);
    }
    below = 0;
    char *failed = list(&rig, "failed", 100, &below);
    assert_int_equal(count(failed, "\"status\":\"failed\""), 3);
    assert_int_equal(count(failed, "\"id\":"), 3);
    free(failed);
    rig_free(&rig);
}

static void test_the_newest_are_kept(void **state UNUSED) {
    enum { TASKS = 10005 };
    struct rig rig = rig_new();
    lsn_t incarnation = rig_create(&rig, "a");
    char running[BULK_ID_SIZE], first[BULK_ID_SIZE], last[BULK_ID_SIZE];
    struct bulk_task *under_way = begin(&rig, incarnation, running);
    end(begin(&rig, incarnation, first), BULK_SUCCEEDED, NULL, 2);
    for (unsigned i = 0; i < TASKS; i++)
        end(begin(&rig, incarnation, last), BULK_SUCCEEDED, NULL, i + 3);
    assert_null(describe(&rig, first, 0));
    expect(&rig, last, TASKS + 10, "\"succeeded\"");
    expect(&rig, running, 0, "\"running\"");
    end(under_way, BULK_SUCCEEDED, NULL, TASKS + 20);
    rig_free(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life_of_a_task),
        cmocka_unit_test(test_bad_ends),
        cmocka_unit_test(test_dropped_collections),
        cmocka_unit_test(test_a_drop_between_the_record_and_its_end),
        cmocka_unit_test(test_replay_is_idempotent),
        cmocka_unit_test(test_group_with_the_end),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_a_checkpoint_between_the_record_and_its_end),
        cmocka_unit_test(test_errors_are_bounded),
        cmocka_unit_test(test_list_pages),
        cmocka_unit_test(test_the_newest_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
