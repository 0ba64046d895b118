/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared store on a real Redis, call by call: run by tests/engines with a URL, skipped without.
 * A lease is short here where it has to run out, and long where it must not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis/link.h"
#include "redis/numbers.h"
#include "tasks/shared.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LANE = 3, PARTITIONS = 4, LONG_MS = 600000, SHORT_MS = 400, PATIENCE = 60000, SOME = 8 };

struct rig {
    struct service_url url;
    struct tasks_shared *store, *other; /* of two processes */
    struct tasks_backend tasks, others;
    lsn_t lsn;
    char why[TASKS_SHARED_WHY_MAX];
};

static struct tasks_shared *open_one(struct rig *rig, uint64_t lease_ms, uint64_t keep_ms) {
    const struct tasks_shared_options options = {
        .url = &rig->url, .lease_ms = lease_ms, .keep_ms = keep_ms};
    struct tasks_shared *s;
    assert_int_equal(tasks_shared_open(os_real(), &options, &s, rig->why), 0);
    assert_int_equal(tasks_shared_join(s, "journal", true, PARTITIONS, rig->why), 0);
    return s;
}

static struct rig *begin_with(void **state, const char *name, uint64_t lease_ms, uint64_t keep_ms) {
    char text[512];
    const char *why;
    if (!*state)
        skip();
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    snprintf(text, sizeof text, "%s?prefix=%s-", (const char *)*state, name);
    assert_true(service_url_parse(text, &rig->url, &why));
    rig->store = open_one(rig, lease_ms, keep_ms);
    rig->other = open_one(rig, lease_ms, keep_ms);
    rig->tasks = tasks_shared_backend(rig->store);
    rig->others = tasks_shared_backend(rig->other);
    return rig;
}

static struct rig *begin(void **state, const char *name) {
    return begin_with(state, name, LONG_MS, 0);
}

static void end(struct rig *rig) {
    tasks_shared_close(rig->store);
    tasks_shared_close(rig->other);
    free(rig);
}

/* ---- Records ---- */

struct batch {
    struct buffer payloads[SOME];
    struct journal_record records[SOME];
    const struct journal_record *list[SOME];
    size_t n;
};

static void add(struct rig *rig, struct batch *b, const struct task_record *record) {
    size_t i = b->n++;
    assert_true(i < SOME);
    b->payloads[i] = BUFFER_INIT;
    task_record_encode(&b->payloads[i], record);
    b->records[i] = (struct journal_record){.lsn = ++rig->lsn,
                                            .key_hash = record->id.key,
                                            .wall_us = os_wall_us(os_real()),
                                            .kind = JOURNAL_KIND_TASKS,
                                            .payload = buffer_bytes(&b->payloads[i])};
    b->list[i] = &b->records[i];
}

static struct work_verdict apply(struct tasks_shared *s, const struct batch *b, size_t first) {
    struct work_verdict v = {0};
    assert_int_equal(tasks_shared_work_ops.apply(s, LANE, b->list + first, b->n - first, &v), 0);
    return v;
}

static void free_batch(struct batch *b) {
    for (size_t i = 0; i < b->n; i++)
        buffer_deinit(&b->payloads[i]);
    *b = (struct batch){0};
}

static void apply_one(struct rig *rig, const struct task_record *record) {
    struct batch b = {0};
    add(rig, &b, record);
    struct work_verdict v = apply(rig->store, &b, 0);
    assert_int_equal(v.outcome, WORK_OK);
    assert_int_equal(v.applied, 1);
    free_batch(&b);
}

static struct task_record creation(struct rig *rig, uint8_t priority, const char *key) {
    return (struct task_record){.op = TASK_OP_CREATE,
                                .id =
                                    rig->tasks.ops->new_id(rig->tasks.store, os_wall_us(os_real())),
                                .request = {.type = BYTES_LITERAL("long_task"),
                                            .args = BYTES_LITERAL("{\"total\":1}"),
                                            .idempotency_key = bytes_of_string(key),
                                            .priority = priority}};
}

static struct task_id create(struct rig *rig, uint8_t priority) {
    const struct task_record record = creation(rig, priority, "");
    apply_one(rig, &record);
    return record.id;
}

static void change(struct rig *rig, struct task_id id, enum task_op op, uint32_t attempt,
                   enum task_outcome outcome) {
    struct task_record record = {.op = op, .id = id, .attempt = attempt, .outcome = outcome};
    if (op == TASK_OP_START)
        record.worker = BYTES_LITERAL("host:1");
    apply_one(rig, &record);
}

static struct task get(struct rig *rig, struct task_id id) {
    struct task_ref ref;
    assert_int_equal(rig->others.ops->get(rig->others.store, id, true, &ref), 0);
    struct task task = ref.task;
    task_unref(&ref); /* its texts go with it */
    return task;
}

static size_t take(struct tasks_backend tasks, size_t n, struct task_ref *refs) {
    size_t taken = 0;
    assert_int_equal(tasks.ops->take(tasks.store, 0, n, refs, &taken), 0);
    return taken;
}

/* Waits until there is one. */
static struct task_ref take_one(struct tasks_backend tasks) {
    struct task_ref ref = {0};
    for (int i = 0; i < PATIENCE && take(tasks, 1, &ref) == 0; i++)
        usleep(1000);
    assert_non_null(ref.held);
    return ref;
}

static enum tasks_worth worth_of(struct tasks_backend tasks, const struct task_ref *ref) {
    const struct tasks_at_work at_work = {.workers = 1, .busy = 1};
    struct tasks_renewal renewal = {.id = ref->task.id,
                                    .attempt = ref->task.attempts + 1,
                                    .current = 7,
                                    .total = 9,
                                    .moved = true};
    assert_int_equal(tasks.ops->renew(tasks.store, &at_work, &renewal, 1), 0);
    return renewal.worth;
}

/* ---- Joining ---- */

static void test_what_the_keys_mean_is_agreed(void **state) {
    struct rig *rig = begin(state, "join");
    assert_int_equal(tasks_shared_join(rig->store, "another", true, PARTITIONS, rig->why),
                     TASKS_E_REFUSED);
    assert_non_null(strstr(rig->why, "another journal"));
    assert_int_equal(tasks_shared_join(rig->store, "journal", true, PARTITIONS + 1, rig->why),
                     TASKS_E_REFUSED);
    assert_non_null(strstr(rig->why, "divided into 4 partitions, not 5: give partitions=4"));
    assert_int_equal(tasks_shared_join(rig->store, "journal", true, PARTITIONS, rig->why), 0);
    assert_ptr_equal(strstr(tasks_shared_identity(rig->store), "join-/"),
                     tasks_shared_identity(rig->store));
    assert_string_equal(tasks_shared_identity(rig->store), tasks_shared_identity(rig->other));
    end(rig);
}

static void test_what_is_not_to_be_made_is_not(void **state) {
    struct rig *rig = begin(state, "made");
    char text[512];
    struct service_url url;
    struct tasks_shared *s;
    const char *why;
    assert_int_equal(tasks_shared_join(rig->store, "journal", false, PARTITIONS, rig->why), 0);
    assert_string_equal(tasks_shared_identity(rig->store), tasks_shared_identity(rig->other));
    snprintf(text, sizeof text, "%s?prefix=not-made-", (const char *)*state);
    assert_true(service_url_parse(text, &url, &why));
    const struct tasks_shared_options options = {.url = &url};
    assert_int_equal(tasks_shared_open(os_real(), &options, &s, rig->why), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tasks_shared_join(s, "journal", false, PARTITIONS, rig->why),
                         TASKS_E_NOT_FOUND);
    tasks_shared_close(s);
    end(rig);
}

/* ---- Applying ---- */

static void test_a_batch_that_comes_again_changes_nothing(void **state) {
    struct rig *rig = begin(state, "again");
    struct batch b = {0};
    struct task_record record = creation(rig, 5, "");
    lsn_t position = 99;
    add(rig, &b, &record);
    const struct task_id id = record.id;
    record = (struct task_record){
        .op = TASK_OP_START, .id = id, .attempt = 1, .worker = BYTES_LITERAL("host:1")};
    add(rig, &b, &record);
    record = (struct task_record){
        .op = TASK_OP_END, .id = id, .attempt = 1, .outcome = TASK_OUTCOME_DIED};
    add(rig, &b, &record);
    assert_int_equal(tasks_shared_position(rig->store, LANE, &position), 0);
    assert_int_equal(position, 0);
    assert_int_equal(apply(rig->store, &b, 0).applied, 3);
    assert_int_equal(get(rig, id).deaths, 1);
    /* Another worker has the partition from before, and gets it, or a part of it, again. */
    assert_int_equal(apply(rig->other, &b, 0).applied, 3);
    assert_int_equal(apply(rig->other, &b, 1).applied, 2);
    assert_int_equal(get(rig, id).deaths, 1);
    assert_int_equal(get(rig, id).status, TASK_QUEUED);
    assert_int_equal(tasks_shared_position(rig->other, LANE, &position), 0);
    assert_int_equal(position, 3);
    free_batch(&b);
    end(rig);
}

/* Records that would change the task if they were applied once more. */
static void test_what_is_behind_the_position_is_passed(void **state) {
    struct rig *rig = begin(state, "behind");
    struct batch b = {0};
    struct task_record record = creation(rig, 5, "");
    const struct task_id id = record.id;
    add(rig, &b, &record);
    record = (struct task_record){.op = TASK_OP_CANCEL, .id = id};
    add(rig, &b, &record);
    record.op = TASK_OP_RETRY;
    add(rig, &b, &record);
    record = (struct task_record){
        .op = TASK_OP_START, .id = id, .attempt = 1, .worker = BYTES_LITERAL("host:1")};
    add(rig, &b, &record);
    assert_int_equal(apply(rig->store, &b, 0).applied, 4);
    record = (struct task_record){.op = TASK_OP_SAVE, .id = id, .attempt = 1, .current = 3};
    add(rig, &b, &record);
    assert_int_equal(apply(rig->other, &b, 1).applied, 4);
    assert_int_equal(get(rig, id).status, TASK_RUNNING);
    assert_int_equal(get(rig, id).current, 3);
    free_batch(&b);
    end(rig);
}

struct rival {
    struct tasks_shared *store;
    struct batch *batches;
    size_t n;
};

static void *race(void *argument) {
    struct rival *r = argument;
    for (size_t i = 0; i < r->n; i++)
        for (struct work_verdict v = {.outcome = WORK_DOWN}; v.outcome != WORK_OK;)
            v = apply(r->store, &r->batches[i], 0);
    return NULL;
}

/* Two workers have the partition, as far as each knows: what one applies the other does not. */
static void test_two_at_once_apply_each_record_once(void **state) {
    enum { TIMES = 100 };
    struct rig *rig = begin(state, "race");
    struct batch *batches = calloc(TIMES, sizeof *batches);
    struct task_record record = {.op = TASK_OP_CANCEL, .id = create(rig, 5)};
    struct tasks_store_stats one, two;
    pthread_t thread;
    assert_non_null(batches);
    for (size_t i = 0; i < TIMES; i++) {
        record.op = i % 2 ? TASK_OP_RETRY : TASK_OP_CANCEL;
        add(rig, &batches[i], &record);
    }
    struct rival first = {rig->store, batches, TIMES}, second = {rig->other, batches, TIMES};
    assert_int_equal(pthread_create(&thread, NULL, race, &second), 0);
    race(&first);
    pthread_join(thread, NULL);
    tasks_shared_stats(rig->store, &one);
    tasks_shared_stats(rig->other, &two);
    assert_int_equal(one.ended[TASK_CANCELLED] + two.ended[TASK_CANCELLED], TIMES / 2);
    for (size_t i = 0; i < TIMES; i++)
        free_batch(&batches[i]);
    free(batches);
    end(rig);
}

/* A command that is none of the store's; up to 4 words, NULL behind them. An integer is returned.
 */
static long long tell(struct rig *rig, const char *const words[5]) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    struct bytes command[4];
    struct redis_link link;
    char why[REDIS_WHY_MAX];
    size_t n = 0;
    for (; words[n]; n++)
        command[n] = bytes_of_string(words[n]);
    redis_link_init(&link, os_real(), &rig->url, 20000, why);
    redis_link_begin(&link, 0);
    assert_int_equal(redis_link_command(&link, command, n, &reply), 0);
    long long answer = reply->integer;
    redis_link_deinit(&link);
    return answer;
}
#define TELL(rig, ...) tell(rig, (const char *const[5]){__VA_ARGS__})

/* As after a failover without the newest writes. */
/* Where it may be made; who only looks changes nothing. */
static void test_what_an_earlier_version_made_gets_an_identity(void **state) {
    struct rig *rig = begin(state, "earlier");
    TELL(rig, "HDEL", "{earlier-tasks}:meta", "identity");
    assert_int_equal(tasks_shared_join(rig->store, "journal", false, PARTITIONS, rig->why), 0);
    assert_string_equal(tasks_shared_identity(rig->store), "");
    assert_int_equal(tasks_shared_join(rig->store, "journal", true, PARTITIONS, rig->why), 0);
    assert_int_equal(tasks_shared_join(rig->other, "journal", false, PARTITIONS, rig->why), 0);
    assert_non_null(strstr(tasks_shared_identity(rig->store), "earlier-/"));
    assert_string_equal(tasks_shared_identity(rig->store), tasks_shared_identity(rig->other));
    end(rig);
}

static void test_a_position_that_went_back_is_noticed(void **state) {
    struct rig *rig = begin(state, "lost");
    struct batch b = {0};
    struct task_record record = creation(rig, 5, "");
    lsn_t position;
    create(rig, 5);
    TELL(rig, "DEL", "{lost-tasks}:positions");
    const struct journal_record strange = {
        .lsn = ++rig->lsn, .kind = JOURNAL_KIND_TASKS, .payload = BYTES_LITERAL("?")};
    assert_int_not_equal(tasks_shared_work_ops.reject(rig->store, LANE, &strange, "?"), 0);
    add(rig, &b, &record);
    struct work_verdict v = apply(rig->store, &b, 0);
    assert_int_equal(v.outcome, WORK_DOWN);
    assert_non_null(strstr(v.reason, "has lost"));
    assert_int_equal(tasks_shared_position(rig->store, LANE, &position), 0);
    assert_int_equal(position, 0); /* where it is read from anew */
    assert_int_equal(apply(rig->store, &b, 0).outcome, WORK_OK);
    free_batch(&b);
    end(rig);
}

/* The script ran, but no replica has what it did: also when it is found done. */
static void test_what_no_replica_has_is_not_applied(void **state) {
    struct rig *rig = begin(state, "replicas");
    struct batch b = {0};
    struct task_record record = creation(rig, 5, "");
    struct service_url url;
    struct tasks_shared_options options = {.url = &url};
    struct tasks_shared *s;
    char text[512];
    const char *why;
    snprintf(text, sizeof text, "%s?prefix=replicas-&replicas=1", (const char *)*state);
    assert_true(service_url_parse(text, &url, &why));
    assert_int_equal(tasks_shared_open(os_real(), &options, &s, rig->why), 0);
    add(rig, &b, &record);
    for (int i = 0; i < 2; i++) {
        struct work_verdict v = apply(s, &b, 0);
        assert_int_equal(v.outcome, WORK_DOWN);
        assert_int_equal(v.applied, 0);
    }
    assert_int_equal(apply(rig->store, &b, 0).applied, 1);
    tasks_shared_close(s);
    free_batch(&b);
    end(rig);
}

static void test_what_is_no_record_is_kept_apart(void **state) {
    struct rig *rig = begin(state, "letters");
    const struct journal_record record = {
        .lsn = ++rig->lsn, .kind = JOURNAL_KIND_TASKS, .payload = BYTES_LITERAL("?")};
    const struct journal_record *const list[] = {&record};
    struct work_verdict v = {0};
    struct tasks_store_stats stats;
    assert_int_equal(tasks_shared_work_ops.apply(rig->store, LANE, list, 1, &v), 0);
    assert_int_equal(v.outcome, WORK_REJECT);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tasks_shared_work_ops.reject(rig->store, LANE, &record, v.reason), 0);
    assert_int_equal(tasks_shared_look(rig->other), 0);
    tasks_shared_stats(rig->other, &stats);
    assert_int_equal(stats.dead_letters, 1);
    create(rig, 5);
    end(rig);
}

/* ---- Letters ---- */

static int reject(struct rig *rig, lsn_t lsn, uint8_t flags) {
    const struct journal_record record = {
        .lsn = lsn, .kind = JOURNAL_KIND_TASKS, .flags = flags, .payload = BYTES_LITERAL("?")};
    return tasks_shared_work_ops.reject(rig->store, LANE, &record, "it is none");
}

static size_t letters_page(struct rig *rig, lsn_t below, size_t max, lsn_t *out) {
    const struct letter_box box = tasks_shared_letter_box(rig->other);
    size_t n = 0;
    assert_int_equal(box.ops->page(box.store, below, max, out, &n, rig->why), 0);
    return n;
}

static void count_letter(void *n, const struct work_letter *letter) {
    assert_true(bytes_equal(letter->record.payload, BYTES_LITERAL("?")));
    assert_true(bytes_equal(letter->reason, BYTES_LITERAL("it is none")));
    assert_true(letter->changed == WORK_LETTER_NOBODY_KNOWS);
    ++*(size_t *)n;
}

static void test_letters_are_read_by_pages(void **state) {
    enum { LETTERS = 5 };
    struct rig *rig = begin(state, "letter-pages");
    const struct letter_box box = tasks_shared_letter_box(rig->other);
    lsn_t numbers[LETTERS + 1] = {0};
    size_t seen = 0;
    for (lsn_t lsn = 1; lsn <= LETTERS; lsn++)
        assert_int_equal(reject(rig, lsn, 0), 0);
    assert_int_equal(letters_page(rig, 0, 2, numbers), 2);
    assert_true(numbers[0] == work_letter_number(5, LANE));
    assert_int_equal(letters_page(rig, numbers[1], LETTERS, numbers + 2), 3);
    assert_true(numbers[LETTERS - 1] == work_letter_number(1, LANE));
    assert_int_equal(box.ops->read(box.store, numbers, LETTERS, count_letter, &seen, rig->why), 0);
    assert_int_equal(seen, LETTERS);
    assert_int_equal(box.ops->drop(box.store, numbers[1], rig->why), 0);
    assert_int_equal(box.ops->drop(box.store, numbers[1], rig->why), WORK_LETTER_E_GONE);
    assert_int_equal(letters_page(rig, 0, LETTERS, numbers), LETTERS - 1);
    /* Those of an earlier version have no numbers yet. */
    TELL(rig, "DEL", "{letter-pages-tasks}:numbers");
    assert_int_equal(letters_page(rig, 0, LETTERS, numbers), 0);
    tasks_shared_close(open_one(rig, LONG_MS, 0));
    assert_int_equal(letters_page(rig, 0, LETTERS, numbers), LETTERS - 1);
    end(rig);
}

#ifdef MILLRACE_TINY /* else they are too many */
static void test_letters_have_a_bound(void **state) {
    enum { MOST = 20 };
    struct rig *rig = begin(state, "letter-bound");
    const struct letter_box box = tasks_shared_letter_box(rig->other);
    lsn_t lsn = 1, numbers[MOST + 1];
    for (; lsn <= MOST; lsn++)
        assert_int_equal(reject(rig, lsn, 0), 0);
    assert_int_equal(reject(rig, lsn, 0), WORK_LETTER_E_FULL);
    assert_int_equal(reject(rig, MOST, 0), 0); /* it is behind the position */
    assert_int_equal(box.ops->drop(box.store, work_letter_number(4, LANE), rig->why), 0);
    assert_int_equal(reject(rig, lsn, 0), 0);
    assert_int_equal(reject(rig, ++lsn, JOURNAL_LETTER), 0); /* none is kept of it */
    assert_int_equal(letters_page(rig, 0, MOST + 1, numbers), MOST);
    end(rig);
}
#endif

static void add_about(struct rig *rig, struct batch *b, lsn_t letter,
                      const struct task_record *record) {
    const struct work_letter_record about = {.op = WORK_LETTER_REPLAY, .letter = letter};
    size_t i = b->n;
    add(rig, b, record);
    buffer_clear(&b->payloads[i]);
    work_letter_encode(&b->payloads[i], &about);
    task_record_encode(&b->payloads[i], record);
    b->records[i].payload = buffer_bytes(&b->payloads[i]);
    b->records[i].flags = JOURNAL_LETTER;
}

/* Of two in one batch, and one that comes later, the first has its effect. */
static void test_a_letter_is_written_again_once(void **state) {
    struct rig *rig = begin(state, "letter-again");
    const struct letter_box box = tasks_shared_letter_box(rig->other);
    struct task_record records[3];
    struct task_ref ref;
    lsn_t letter = work_letter_number(++rig->lsn, LANE);
    bool gone = true;
    assert_int_equal(reject(rig, rig->lsn, 0), 0);
    assert_int_equal(box.ops->settle(box.store, letter, &gone, rig->why), 0);
    assert_false(gone);
    for (size_t i = 0; i < ARRAY_LENGTH(records); i++)
        records[i] = creation(rig, 5, "");
    struct batch both = {0}, later = {0};
    add_about(rig, &both, letter, &records[0]);
    add_about(rig, &both, letter, &records[1]);
    add_about(rig, &later, letter, &records[2]);
    assert_int_equal(apply(rig->store, &both, 0).applied, 2);
    assert_int_equal(apply(rig->store, &later, 0).applied, 1);
    assert_int_equal(box.ops->settle(box.store, letter, &gone, rig->why), 0);
    assert_true(gone);
    assert_int_equal(get(rig, records[0].id).status, TASK_QUEUED);
    for (size_t i = 1; i < ARRAY_LENGTH(records); i++)
        assert_int_equal(rig->others.ops->get(rig->others.store, records[i].id, false, &ref),
                         TASKS_E_NOT_FOUND);
    free_batch(&both);
    free_batch(&later);
    end(rig);
}

/* A task whose workers died, as often as it may; the letter of that. */
static lsn_t let_die(struct rig *rig, struct task_id *ret_id) {
    struct batch b = {0};
    struct task_record record = creation(rig, 5, "");
    const struct task_id id = record.id;
    add(rig, &b, &record);
    for (uint32_t attempt = 1; attempt <= TASK_DEATHS_MAX; attempt++) {
        record = (struct task_record){
            .op = TASK_OP_START, .id = id, .attempt = attempt, .worker = BYTES_LITERAL("host:1")};
        add(rig, &b, &record);
        record = (struct task_record){
            .op = TASK_OP_END, .id = id, .attempt = attempt, .outcome = TASK_OUTCOME_DIED};
        add(rig, &b, &record);
    }
    lsn_t letter = work_letter_number(rig->lsn, LANE);
    record = (struct task_record){.op = TASK_OP_RELEASE, .id = id, .attempt = TASK_DEATHS_MAX};
    add(rig, &b, &record);
    assert_int_equal(apply(rig->store, &b, 0).outcome, WORK_OK);
    assert_int_equal(get(rig, id).status, TASK_FAILED);
    free_batch(&b);
    *ret_id = id;
    return letter;
}

static bool is_gone(struct rig *rig, lsn_t letter) {
    const struct letter_box box = tasks_shared_letter_box(rig->other);
    bool gone = false;
    assert_int_equal(box.ops->settle(box.store, letter, &gone, rig->why), 0);
    return gone;
}

/* The letter is the END, whatever else is said of the attempt afterwards. To try it again takes it
 * away, and so does who asks for just that. */
static void test_the_last_death_is_a_letter(void **state) {
    struct rig *rig = begin(state, "death");
    struct task_id id;
    lsn_t letter = let_die(rig, &id);
    assert_false(is_gone(rig, letter));
    struct batch again = {0};
    const struct task_record record = {.op = TASK_OP_RETRY, .id = id};
    add_about(rig, &again, letter, &record);
    assert_int_equal(apply(rig->store, &again, 0).outcome, WORK_OK);
    assert_int_equal(get(rig, id).status, TASK_QUEUED);
    assert_true(is_gone(rig, letter));
    assert_int_equal(TELL(rig, "EXISTS", "{death-tasks}:deadly"), 0);
    free_batch(&again);
    end(rig);
}

/* Else it would count as one of those that are beside the bound, for as long as its task is
 * known. */
static void test_a_death_whose_letter_became_another_task_has_none(void **state) {
    struct rig *rig = begin(state, "death-edited");
    const struct letter_box box = tasks_shared_letter_box(rig->other);
    struct task_id id;
    struct batch edited = {0};
    lsn_t letter = let_die(rig, &id);
    const struct task_record record = creation(rig, 5, "");
    add_about(rig, &edited, letter, &record);
    assert_int_equal(apply(rig->store, &edited, 0).outcome, WORK_OK);
    assert_int_equal(get(rig, record.id).status, TASK_QUEUED);
    assert_int_equal(get(rig, id).status, TASK_FAILED);
    assert_true(is_gone(rig, letter));
    assert_int_equal(TELL(rig, "EXISTS", "{death-edited-tasks}:deadly"), 0);
    letter = let_die(rig, &id);
    assert_int_equal(TELL(rig, "EXISTS", "{death-edited-tasks}:deadly"), 1);
    assert_int_equal(box.ops->drop(box.store, letter, rig->why), 0);
    assert_int_equal(TELL(rig, "EXISTS", "{death-edited-tasks}:deadly"), 0);
    free_batch(&edited);
    end(rig);
}

/* ---- The queue ---- */

static void test_what_is_best_is_taken_once(void **state) {
    struct rig *rig = begin(state, "queue");
    struct task_ref refs[SOME];
    const struct task_id low = create(rig, 1), first = create(rig, 9), second = create(rig, 9);
    struct task_record later = creation(rig, 9, "");
    later.request.run_at_us = os_wall_us(os_real()) + UINT64_C(3600000000);
    apply_one(rig, &later);
    assert_int_equal(take(rig->tasks, 2, refs), 2);
    assert_int_equal(refs[0].task.id.key, first.key);
    assert_int_equal(refs[1].task.id.key, second.key);
    assert_true(bytes_equal(refs[0].task.request.args, BYTES_LITERAL("{\"total\":1}")));
    assert_int_equal(take(rig->others, SOME, refs + 2), 1);
    assert_int_equal(refs[2].task.id.key, low.key);
    rig->tasks.ops->give_back(rig->tasks.store, &refs[1]);
    assert_int_equal(take(rig->tasks, SOME, refs + 3), 1);
    assert_int_equal(refs[3].task.id.key, second.key);
    assert_int_equal(refs[3].task.attempts + 1, 1); /* nobody began with that number */
    for (size_t i = 0; i < 4; i++)
        task_unref(&refs[i]);
    end(rig);
}

static void test_who_lost_a_task_is_told(void **state) {
    struct rig *rig = begin(state, "worth");
    struct task_ref mine, its;
    const struct task_id id = create(rig, 5);
    mine = take_one(rig->tasks);
    assert_int_equal(worth_of(rig->tasks, &mine), TASKS_WORTH_ITSELF);
    change(rig, id, TASK_OP_START, 1, 0);
    assert_int_equal(worth_of(rig->tasks, &mine), TASKS_WORTH_ITSELF);
    assert_int_equal(get(rig, id).current, 7);
    assert_int_equal(get(rig, id).total, 9);
    change(rig, id, TASK_OP_END, 1, TASK_OUTCOME_DIED);
    assert_int_equal(worth_of(rig->tasks, &mine), TASKS_WORTH_NOTHING);
    its = take_one(rig->others);
    rig->others.ops->give_back(rig->others.store, &its);
    assert_int_equal(worth_of(rig->others, &its), TASKS_WORTH_NOTHING);
    assert_int_equal(worth_of(rig->tasks, &mine), TASKS_WORTH_NOTHING); /* its end was heard */
    task_unref(&its);
    its = take_one(rig->others);
    assert_int_equal(its.task.attempts + 1, 2);
    change(rig, id, TASK_OP_START, 2, 0);
    change(rig, id, TASK_OP_END, 1, TASK_OUTCOME_SUCCEEDED); /* of who slept */
    assert_int_equal(get(rig, id).status, TASK_RUNNING);
    assert_int_equal(get(rig, id).current, 0);
    assert_int_equal(worth_of(rig->others, &its), TASKS_WORTH_ITSELF);
    change(rig, id, TASK_OP_CANCEL, 0, 0);
    assert_int_equal(worth_of(rig->others, &its), TASKS_WORTH_CANCELLED);
    task_unref(&mine);
    task_unref(&its);
    end(rig);
}

static void note_expired(void *context, const struct task *task) {
    *(uint32_t *)context = task->attempts;
}

static void test_what_nobody_renews_runs_out(void **state) {
    struct rig *rig = begin_with(state, "expired", SHORT_MS, 0);
    const struct tasks_at_work at_work = {.workers = 1};
    struct task_ref ref;
    uint32_t expired = 0;
    const struct task_id id = create(rig, 5);
    ref = take_one(rig->tasks);
    task_unref(&ref);
    ref = take_one(rig->others); /* the claim ran out */
    assert_int_equal(ref.task.attempts + 1, 2);
    task_unref(&ref);
    change(rig, id, TASK_OP_START, 2, 0);
    /* Nobody was heard of for longer than a lease: as if Redis had been away. */
    usleep(2 * SHORT_MS * 1000);
    assert_int_equal(rig->others.ops->each_expired(rig->others.store, note_expired, &expired), 0);
    assert_int_equal(expired, 0);
    for (int i = 0; i < PATIENCE && !expired; i++) {
        /* Somebody is heard of, and so Redis was not away. */
        assert_int_equal(rig->others.ops->renew(rig->others.store, &at_work, NULL, 0), 0);
        assert_int_equal(rig->others.ops->each_expired(rig->others.store, note_expired, &expired),
                         0);
        usleep(1000);
    }
    assert_int_equal(expired, 2);
    end(rig);
}

/* Whoever has the task is dead, and Redis' clock was an hour ahead when he was heard. */
static void test_a_clock_that_was_set_back_keeps_no_lease(void **state) {
    struct rig *rig = begin_with(state, "clock", SHORT_MS, 0);
    const struct tasks_at_work at_work = {.workers = 1};
    uint32_t expired = 0;
    char later[32], digits[40];
    const struct task_id id = create(rig, 5);
    struct task_ref ref = take_one(rig->tasks);
    change(rig, id, TASK_OP_START, ref.task.attempts + 1, 0);
    task_unref(&ref);
    snprintf(later, sizeof later, "%llu",
             (unsigned long long)os_wall_us(os_real()) / 1000 + 3600000);
    snprintf(digits, sizeof digits, "%016llx%016llx", (unsigned long long)id.key,
             (unsigned long long)id.low);
    TELL(rig, "ZADD", "{clock-tasks}:leases", later, digits);
    TELL(rig, "HSET", "{clock-tasks}:counts", "heard", later);
    for (int i = 0; i < PATIENCE && !expired; i++) {
        assert_int_equal(rig->others.ops->renew(rig->others.store, &at_work, NULL, 0), 0);
        assert_int_equal(rig->others.ops->each_expired(rig->others.store, note_expired, &expired),
                         0);
        usleep(1000);
    }
    assert_int_equal(expired, 1);
    end(rig);
}

/* ---- For the routes ---- */

static void test_a_key_has_one_task(void **state) {
    struct rig *rig = begin(state, "once");
    const struct task_record record = creation(rig, 5, "key"), another = creation(rig, 5, "key");
    struct tasks_claim claim = {.key = BYTES_LITERAL("key"), .id = record.id};
    assert_int_equal(rig->tasks.ops->claim(rig->tasks.store, &claim, 1), 0);
    assert_true(claim.is_new);
    /* The other does not know whether it was appended. */
    claim.id = another.id;
    assert_int_equal(rig->others.ops->claim(rig->others.store, &claim, 1), 0);
    assert_true(claim.is_new);
    assert_int_equal(claim.id.key, record.id.key);
    apply_one(rig, &record);
    apply_one(rig, &record);
    claim.id = another.id;
    assert_int_equal(rig->others.ops->claim(rig->others.store, &claim, 1), 0);
    assert_false(claim.is_new);
    assert_int_equal(claim.id.low, record.id.low);
    end(rig);
}

static bool count(void *context, const struct task *task UNUSED) {
    ++*(size_t *)context;
    return true;
}

static size_t listed(struct rig *rig, struct tasks_filter filter) {
    size_t n = 0;
    filter.limit = SOME;
    assert_int_equal(rig->others.ops->list(rig->others.store, &filter, count, &n), 0);
    return n;
}

#define GHOST "0000000000000000000000000000000"

struct keys {
    uint64_t keys[2 * SOME];
    size_t n;
};

static bool note_key(void *context, const struct task *task) {
    struct keys *keys = context;
    assert_true(keys->n < ARRAY_LENGTH(keys->keys));
    keys->keys[keys->n++] = task->id.key;
    return true;
}

/* Whatever is asked for: the newest are named in the lists and gone by the time they are read, and
 * the next three have one key. */
static void test_a_page_is_full_and_has_all_of_a_key(void **state) {
    struct rig *rig = begin(state, "pages");
    const struct task_id oldest = create(rig, 5);
    struct task_record record = creation(rig, 5, "");
    for (int i = 0; i < 3; i++, record.id.low++)
        apply_one(rig, &record);
    /* Names are of ids turned around: these ones' are the largest. */
    TELL(rig, "ZADD", "{pages-tasks}:lists", "0", "a:" GHOST "0");
    TELL(rig, "ZADD", "{pages-tasks}:lists", "0", "a:" GHOST "1");
    TELL(rig, "ZADD", "{pages-tasks}:lists", "0", "0:" GHOST "0");
    TELL(rig, "ZADD", "{pages-tasks}:lists", "0", "0:" GHOST "1");
    const struct tasks_filter asked[] = {{.limit = 2},
                                         {.limit = 2, .statuses = 1U << TASK_QUEUED},
                                         {.limit = 2, .type = BYTES_LITERAL("long_task")}};
    for (size_t i = 0; i < ARRAY_LENGTH(asked); i++) {
        struct tasks_filter filter = asked[i];
        struct keys keys = {.n = 0};
        assert_int_equal(rig->others.ops->list(rig->others.store, &filter, note_key, &keys), 0);
        assert_int_equal(keys.n, 3);
        filter.below = keys.keys[2];
        assert_int_equal(rig->others.ops->list(rig->others.store, &filter, note_key, &keys), 0);
        assert_int_equal(keys.n, 4);
        assert_int_equal(keys.keys[3], oldest.key);
    }
    end(rig);
}

static void test_what_ended_long_ago_is_forgotten(void **state) {
    struct rig *rig = begin_with(state, "forget", LONG_MS, 1);
    const struct task_record record = creation(rig, 5, "key");
    struct tasks_claim claim = {.key = BYTES_LITERAL("key"), .id = record.id};
    struct tasks_store_stats stats;
    apply_one(rig, &record);
    const struct task_id kept = create(rig, 5);
    change(rig, record.id, TASK_OP_CANCEL, 0, 0);
    assert_int_equal(listed(rig, (struct tasks_filter){.below = record.id.key}), 0);
    for (int i = 0; i < PATIENCE; i++) {
        assert_int_equal(tasks_shared_look(rig->store), 0);
        tasks_shared_stats(rig->store, &stats);
        if (!stats.by_status[TASK_CANCELLED])
            break;
        usleep(1000);
    }
    assert_int_equal(stats.by_status[TASK_CANCELLED], 0);
    assert_int_equal(stats.by_status[TASK_QUEUED], 1);
    assert_int_equal(listed(rig, (struct tasks_filter){0}), 1);
    assert_int_equal(listed(rig, (struct tasks_filter){.type = BYTES_LITERAL("long_task")}), 1);
    assert_int_equal(listed(rig, (struct tasks_filter){.statuses = 1U << TASK_CANCELLED}), 0);
    assert_int_equal(get(rig, kept).status, TASK_QUEUED);
    assert_int_equal(rig->tasks.ops->claim(rig->tasks.store, &claim, 1), 0);
    assert_true(claim.is_new);
    end(rig);
}

/* ---- Numbers of messages (redis/numbers.h) ---- */

/* In a session, the messages that a text names, a letter each: what they are given. */
static int number_in(struct tasks_shared *s, uint64_t session, const char *letters,
                     uint64_t *ret_numbers) {
    struct bytes ids[SOME];
    struct group_numbers numbers = {
        .session = session, .ids = ids, .n = strlen(letters), .offsets = ret_numbers};
    assert_true(numbers.n <= SOME);
    for (size_t i = 0; i < numbers.n; i++)
        ids[i] = bytes_of(letters + i, 1);
    return tasks_shared_number(s, LANE, &numbers);
}

static uint64_t begin_session(struct tasks_shared *s) {
    struct group_numbers numbers = {0};
    assert_int_equal(tasks_shared_number(s, LANE, &numbers), 0);
    return numbers.session;
}

#define assert_numbers(store, session, letters, ...)                                               \
    do {                                                                                           \
        uint64_t got_[SOME] = {0};                                                                 \
        const uint64_t wanted_[] = {__VA_ARGS__};                                                  \
        assert_int_equal(number_in(store, session, letters, got_), 0);                             \
        assert_memory_equal(got_, wanted_, sizeof wanted_);                                        \
    } while (0)

static void test_a_message_keeps_its_number(void **state) {
    struct rig *rig = begin(state, "numbers");
    uint64_t session = begin_session(rig->store);
    assert_numbers(rig->store, session, "abc", 0, 1, 2);
    assert_numbers(rig->store, session, "bc", 1, 2);
    session = begin_session(rig->other);
    assert_numbers(rig->other, session, "cdaeae", 2, 3, 0, 4, 0, 4);
    end(rig);
}

static void test_who_is_put_out_numbers_nothing(void **state) {
    struct rig *rig = begin(state, "sessions");
    uint64_t first = begin_session(rig->store), second = begin_session(rig->other), got[SOME];
    assert_true(second > first);
    assert_int_equal(number_in(rig->store, first, "a", got), JOURNAL_E_END);
    assert_numbers(rig->other, second, "ba", 0, 1);
    assert_int_equal(number_in(rig->store, first, "b", got), JOURNAL_E_END);
    assert_numbers(rig->other, second, "c", 2);
    end(rig);
}

/* The newest are remembered, and a number is given once, whatever became of the script that gave
 * the last. */
static void test_the_newest_numbers_are_remembered(void **state) {
    struct rig *rig = begin(state, "kept");
    uint64_t session = begin_session(rig->store), offsets[GROUP_NUMBERS_MAX];
    char texts[GROUP_NUMBERS_MAX][16];
    struct bytes ids[GROUP_NUMBERS_MAX];
    assert_numbers(rig->store, session, "a", 0);
    for (unsigned done = 0; done < REDIS_NUMBERS_KEPT - 2; done++) {
        struct group_numbers numbers = {.session = session, .ids = ids, .n = 1, .offsets = offsets};
        snprintf(texts[0], sizeof texts[0], "more-%u", done);
        ids[0] = bytes_of_string(texts[0]);
        assert_int_equal(tasks_shared_number(rig->store, LANE, &numbers), 0);
        assert_int_equal(offsets[0], done + 1);
    }
    assert_numbers(rig->store, session, "ba", REDIS_NUMBERS_KEPT - 1, 0);
    assert_numbers(rig->store, session, "c", REDIS_NUMBERS_KEPT);
    assert_int_equal(TELL(rig, "HDEL", "{kept-tasks}:numbers:3", "next"), 1);
    assert_numbers(rig->store, session, "ab", REDIS_NUMBERS_KEPT + 1, REDIS_NUMBERS_KEPT - 1);
    end(rig);
}

/* As by a replica that was promoted without the newest numbers of the master. */
static void test_another_server_goes_on_far_above(void **state) {
    struct rig *rig = begin(state, "jump");
    const uint64_t least = UINT64_C(1) << 28; /* from one to the next, unless its clock is above */
    uint64_t session = begin_session(rig->store), got[SOME];
    assert_numbers(rig->store, session, "ab", 0, 1);
    assert_int_equal(TELL(rig, "HSET", "{jump-tasks}:numbers:3", "server", "another"), 0);
    assert_int_equal(number_in(rig->store, session, "b", got), JOURNAL_E_END);
    session = begin_session(rig->store);
    assert_true(session > least); /* of a former server none is so high */
    assert_int_equal(number_in(rig->store, session, "c", got), 0);
    const uint64_t first = got[0];
    assert_true(first >= least);
    assert_numbers(rig->store, session, "bcd", 1, first, first + 1);
    assert_int_equal(TELL(rig, "HSET", "{jump-tasks}:numbers:3", "server", "another"), 0);
    session = begin_session(rig->store);
    assert_int_equal(number_in(rig->store, session, "ec", got), 0);
    assert_true(got[0] > first + 1);
    assert_int_equal(got[1], first);
    end(rig);
}

static void test_what_no_replica_has_is_not_numbered(void **state) {
    struct rig *rig = begin(state, "unreplicated");
    struct service_url url;
    struct tasks_shared_options options = {.url = &url};
    struct group_numbers numbers = {0};
    struct tasks_shared *s;
    char text[512];
    const char *why;
    snprintf(text, sizeof text, "%s?prefix=unreplicated-&replicas=1", (const char *)*state);
    assert_true(service_url_parse(text, &url, &why));
    assert_int_equal(tasks_shared_open(os_real(), &options, &s, rig->why), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tasks_shared_number(s, LANE, &numbers), JOURNAL_E_UNAVAILABLE);
    tasks_shared_close(s);
    end(rig);
}

int main(int argc, char **argv) {
    char *url = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_what_the_keys_mean_is_agreed, url),
        cmocka_unit_test_prestate(test_what_is_not_to_be_made_is_not, url),
        cmocka_unit_test_prestate(test_a_batch_that_comes_again_changes_nothing, url),
        cmocka_unit_test_prestate(test_what_is_behind_the_position_is_passed, url),
        cmocka_unit_test_prestate(test_two_at_once_apply_each_record_once, url),
        cmocka_unit_test_prestate(test_what_an_earlier_version_made_gets_an_identity, url),
        cmocka_unit_test_prestate(test_a_position_that_went_back_is_noticed, url),
        cmocka_unit_test_prestate(test_what_no_replica_has_is_not_applied, url),
        cmocka_unit_test_prestate(test_what_is_no_record_is_kept_apart, url),
        cmocka_unit_test_prestate(test_letters_are_read_by_pages, url),
#ifdef MILLRACE_TINY
        cmocka_unit_test_prestate(test_letters_have_a_bound, url),
#endif
        cmocka_unit_test_prestate(test_a_letter_is_written_again_once, url),
        cmocka_unit_test_prestate(test_the_last_death_is_a_letter, url),
        cmocka_unit_test_prestate(test_a_death_whose_letter_became_another_task_has_none, url),
        cmocka_unit_test_prestate(test_what_is_best_is_taken_once, url),
        cmocka_unit_test_prestate(test_who_lost_a_task_is_told, url),
        cmocka_unit_test_prestate(test_what_nobody_renews_runs_out, url),
        cmocka_unit_test_prestate(test_a_clock_that_was_set_back_keeps_no_lease, url),
        cmocka_unit_test_prestate(test_a_key_has_one_task, url),
        cmocka_unit_test_prestate(test_a_page_is_full_and_has_all_of_a_key, url),
        cmocka_unit_test_prestate(test_what_ended_long_ago_is_forgotten, url),
        cmocka_unit_test_prestate(test_a_message_keeps_its_number, url),
        cmocka_unit_test_prestate(test_who_is_put_out_numbers_nothing, url),
        cmocka_unit_test_prestate(test_the_newest_numbers_are_remembered, url),
        cmocka_unit_test_prestate(test_another_server_goes_on_far_above, url),
        cmocka_unit_test_prestate(test_what_no_replica_has_is_not_numbered, url),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
