/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the store share: a log of transitions as the journal would hold it, a model
 * that is a plain list of tasks, and comparisons of all that the store answers with it. All is
 * decided by one seed, the clock too. RocksDB does its own I/O, so the directory is a real one.
 */
#ifndef MILLRACE_TASKS_LOCAL_TEST_FIXTURE_H
#define MILLRACE_TASKS_LOCAL_TEST_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "os/file.h"
#include "tasks/redis.h"
#include "tasks/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOG_MAX = 60000, TASKS_MAX = 20000, TYPES = 3 };
static const uint64_t TEST_START_US = 1700000000000000;
static const uint64_t SECOND_US = 1000000;
static const char *const TYPE_NAMES[TYPES] = {"long_task", "exec", "import"};

struct rng {
    uint64_t state;
};
static inline uint64_t rng_next(struct rng *r) {
    return hash64_u64(r->state++);
}
static inline unsigned rng_below(struct rng *r, unsigned n) {
    return (unsigned)(rng_next(r) % n);
}

/* The real system but for its clock. */
struct test_os {
    struct os os;
    struct os_ops ops;
    _Atomic uint64_t wall_us;
};
static inline uint64_t test_wall_us(struct os *os) {
    return atomic_load(&((struct test_os *)os)->wall_us);
}

/* The end of a task that took its last worker with it. */
struct model_letter {
    lsn_t lsn;
    struct task_id id;
    bool there;
};
enum { LETTERS_MAX = 2000 };

struct fixture {
    struct test_os os;
    char directory[64];
    struct rng rng;
    struct journal_record *log; /* lsn i + 1 at i */
    size_t n_log;
    struct task *tasks; /* the model: in the order in which they were made */
    bool *forgotten;    /* likewise */
    size_t n_tasks;
    struct model_letter letters[LETTERS_MAX]; /* by lsn */
    size_t n_letters;
    size_t applied;         /* of the log */
    struct service_url url; /* of a Redis that keeps the tasks: MILLRACE_TEST_TASKS has it */
    struct tasks_store_options options;
    bool only_new_ids; /* none that is older than others */
    struct tasks_store *store;
    struct tasks_store_report report;
};

/* ---- Life ---- */
static inline void remove_tree(const char *directory) {
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", directory, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static inline int fixture_open(struct fixture *f) {
    char why[256] = "";
    int r = tasks_store_open(&f->os.os, f->directory, &f->options, &f->store, &f->report, why,
                             sizeof why);
    f->applied = r == 0 ? tasks_store_position(f->store) : 0;
    return r;
}

static inline void fixture_close(struct fixture *f) {
    f->store = tasks_store_close(f->store);
}

/* A checkpoint that fails, as a directory stands where its file would be. */
static inline void expect_failure(struct fixture *f) {
    char file[128];
    snprintf(file, sizeof file, "%s/ingest.sst", f->directory);
    (void)unlink(file); /* of one that failed before */
    assert_int_equal(mkdir(file, 0700), 0);
    assert_true(tasks_store_checkpoint(f->store) < 0);
    assert_int_equal(rmdir(file), 0);
}

/* tests/engines runs some tests once more like that, each with a prefix that nobody else has. */
static inline void keep_elsewhere(struct fixture *f) {
    const char *redis = getenv("MILLRACE_TEST_TASKS"), *why;
    struct tasks_redis_options options = {.url = &f->url};
    char text[512];
    if (!redis)
        return;
    snprintf(text, sizeof text, "%s?prefix=%s", redis, f->directory);
    assert_true(service_url_parse(text, &f->url, &why));
    assert_int_equal(tasks_redis_new(os_real(), &options, &f->options.remote), 0);
}

static inline void fixture_init(struct fixture *f, uint64_t seed) {
    *f = (struct fixture){.rng = {seed << 20}, .options = {.keep_ms = 1000000000}};
    f->os.ops = *os_real()->ops;
    f->os.ops.wall_us = test_wall_us;
    f->os.os.ops = &f->os.ops;
    f->os.wall_us = TEST_START_US;
    snprintf(f->directory, sizeof f->directory, "/tmp/millrace-tasks-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    keep_elsewhere(f);
    f->log = calloc(LOG_MAX, sizeof *f->log);
    f->tasks = calloc(TASKS_MAX, sizeof *f->tasks);
    f->forgotten = calloc(TASKS_MAX, sizeof *f->forgotten);
    assert_true(f->log && f->tasks && f->forgotten);
}

static inline void fixture_deinit(struct fixture *f) {
    fixture_close(f);
    if (f->url.n_hosts > 0)
        tasks_redis_free(f->options.remote);
    remove_tree(f->directory);
    for (size_t i = 0; i < f->n_log; i++)
        free((void *)(uintptr_t)f->log[i].payload.data);
    free(f->log);
    free(f->tasks);
    free(f->forgotten);
}

/* ---- The log, and the model ---- */
static inline struct task *model_find(struct fixture *f, struct task_id id) {
    for (size_t i = f->n_tasks; i-- > 0;)
        if (f->tasks[i].id.key == id.key)
            return f->tasks[i].id.low == id.low && !f->forgotten[i] ? &f->tasks[i] : NULL;
    return NULL;
}

static inline void model_create(struct fixture *f, const struct task_record *r, uint64_t wall_us) {
    for (size_t i = 0; i < f->n_tasks; i++)
        if (f->tasks[i].id.key == r->id.key)
            return;
    assert_true(f->n_tasks < TASKS_MAX);
    struct task *t = &f->tasks[f->n_tasks++];
    *t = (struct task){.id = r->id,
                       .request = r->request,
                       .created_us = wall_us,
                       .due_us = r->request.run_at_us > wall_us ? r->request.run_at_us : wall_us};
    if (t->request.args.size == 0)
        t->request.args = BYTES_LITERAL("{}");
}

/* The next record of the log, a µs after the one before. */
static inline void log_append(struct fixture *f, uint64_t key, uint8_t flags,
                              const struct buffer *payload) {
    assert_true(f->n_log < LOG_MAX);
    assert_int_equal(buffer_check(payload), 0);
    f->log[f->n_log] = (struct journal_record){.lsn = f->n_log + 1,
                                               .key_hash = key,
                                               .wall_us = ++f->os.wall_us,
                                               .kind = JOURNAL_KIND_TASKS,
                                               .flags = flags,
                                               .payload = buffer_bytes(payload)};
    f->n_log++;
}

/* The letters of a task that is tried again are gone; one that has died too often has one more. */
static inline void model_letters(struct fixture *f, const struct task_record *r,
                                 const struct task *after) {
    for (size_t i = 0; i < f->n_letters && r->op == TASK_OP_RETRY; i++)
        if (f->letters[i].id.key == r->id.key)
            f->letters[i].there = false;
    if (r->op != TASK_OP_END || r->outcome != TASK_OUTCOME_DIED || after->status != TASK_FAILED)
        return;
    assert_true(f->n_letters < LETTERS_MAX);
    f->letters[f->n_letters++] = (struct model_letter){.lsn = f->n_log, .id = r->id, .there = true};
}

/* The model goes on with it. True: it did fit. */
static inline bool log_record(struct fixture *f, const struct task_record *record) {
    struct buffer payload = BUFFER_INIT;
    struct task_record r;
    task_record_encode(&payload, record);
    log_append(f, record->id.key, 0, &payload);
    assert_true(task_record_decode(buffer_bytes(&payload), &r)); /* for views that last */
    uint64_t wall_us = f->os.wall_us;
    if (r.op == TASK_OP_CREATE) {
        model_create(f, &r, wall_us);
        return true;
    }
    struct task *t = model_find(f, r.id);
    if (!t || !task_transition(t, &r, wall_us))
        return false;
    if (t->status == TASK_SUCCEEDED)
        t->request.args = (struct bytes){0};
    model_letters(f, &r, t);
    return true;
}

/* Drops a letter, or has its task tried again; the letter may be gone. */
static inline void log_letter(struct fixture *f, struct model_letter *l, bool drop) {
    struct buffer payload = BUFFER_INIT;
    const struct task_record retry = {.op = TASK_OP_RETRY, .id = l->id};
    const struct work_letter_record about = {.op = drop ? WORK_LETTER_DROP : WORK_LETTER_REPLAY,
                                             .letter = l->lsn};
    work_letter_encode(&payload, &about);
    if (!drop)
        task_record_encode(&payload, &retry);
    log_append(f, l->id.key, JOURNAL_LETTER, &payload);
    struct task *t = model_find(f, l->id);
    if (!l->there || !t)
        return;
    if (!drop) {
        assert_true(task_transition(t, &retry, f->os.wall_us));
        model_letters(f, &retry, t);
    }
    l->there = false;
}

static inline struct task_id some_id(struct fixture *f) {
    struct task_id id = tasks_store_new_id(f->store, f->os.wall_us);
    if (!f->only_new_ids && rng_below(&f->rng, 20) == 0) /* older than others, or one of them */
        id.key -= 1 + rng_below(&f->rng, 200);
    return id;
}

/* Bytes that tell where they come from, of some length. */
static inline struct bytes some_text(struct fixture *f, char *out, size_t size) {
    int n = snprintf(out, size, "{\"n\":%zu%.*s}", f->n_log, (int)rng_below(&f->rng, 30),
                     "                                   ");
    return bytes_of(out, (size_t)n);
}

static inline struct task_id log_create(struct fixture *f, unsigned type, unsigned priority,
                                        uint64_t run_at_us) {
    char args[64], key[24];
    struct task_record r = {.op = TASK_OP_CREATE,
                            .id = some_id(f),
                            .request = {.type = bytes_of_string(TYPE_NAMES[type]),
                                        .priority = (uint8_t)priority,
                                        .run_at_us = run_at_us,
                                        .max_retries = rng_below(&f->rng, 3)}};
    if (rng_below(&f->rng, 2))
        r.request.args = some_text(f, args, sizeof args);
    if (rng_below(&f->rng, 4) == 0) {
        snprintf(key, sizeof key, "key-%zu", f->n_log);
        r.request.idempotency_key = bytes_of_string(key);
    }
    log_record(f, &r);
    return r.id;
}

static inline bool log_op(struct fixture *f, enum task_op op, struct task_id id, uint32_t attempt,
                          enum task_outcome outcome) {
    char text[64], saved[64];
    struct task_record r = {.op = op, .id = id};
    if (op == TASK_OP_START || op == TASK_OP_SAVE || op == TASK_OP_END || op == TASK_OP_RELEASE)
        r.attempt = attempt;
    if (op == TASK_OP_START)
        r.worker = BYTES_LITERAL("host:1");
    if (op == TASK_OP_SAVE || op == TASK_OP_END || op == TASK_OP_RELEASE) {
        r.current = rng_below(&f->rng, 100);
        r.total = 100;
        if (rng_below(&f->rng, 2))
            r.saved = some_text(f, saved, sizeof saved);
    }
    if (op == TASK_OP_END) {
        r.outcome = outcome;
        r.text = some_text(f, text, sizeof text);
        r.due_us = rng_below(&f->rng, 2) ? f->os.wall_us + rng_below(&f->rng, 3) * SECOND_US : 0;
    }
    return log_record(f, &r);
}

static inline void log_some_create(struct fixture *f) {
    static const uint64_t delays[] = {0, 0, 0, 1, 3600};
    uint64_t delay = delays[rng_below(&f->rng, 5)];
    log_create(f, rng_below(&f->rng, TYPES), rng_below(&f->rng, TASK_PRIORITIES),
               delay ? f->os.wall_us + delay * SECOND_US : 0);
}

/* A transition of some task, which mostly fits: rather a new one than an old one. */
static inline void log_some_op(struct fixture *f) {
    size_t back = rng_below(&f->rng, rng_below(&f->rng, 4) ? 20 : (unsigned)f->n_tasks);
    const struct task *t = &f->tasks[f->n_tasks - 1 - (back < f->n_tasks ? back : 0)];
    struct task_id id = t->id;
    unsigned dice = rng_below(&f->rng, 100);
    if (dice < 3)
        id.low ^= 1;
    if (t->status == TASK_QUEUED && dice < 8 && t->attempts) /* a late one */
        log_op(f, TASK_OP_START, id, t->attempts, 0);
    else if (t->status == TASK_QUEUED && dice < 75)
        log_op(f, TASK_OP_START, id, t->attempts + (dice < 12 ? 2 : 1), 0);
    else if (t->status == TASK_RUNNING && dice < 75)
        log_op(f,
               dice < 20   ? TASK_OP_SAVE
               : dice < 25 ? TASK_OP_RELEASE
                           : TASK_OP_END,
               id, t->attempts + (dice < 8), 1 + (dice & 3));
    else if (task_status_is_end(t->status) && dice < 60)
        log_op(f, TASK_OP_RETRY, id, 0, 0);
    else
        log_op(f, 1 + rng_below(&f->rng, 6) + 1, id, t->attempts + 1, 1 + (dice & 3));
}

static inline void log_some_letter(struct fixture *f) {
    size_t newest = f->n_letters < 4 ? f->n_letters : 4;
    log_letter(f, &f->letters[f->n_letters - 1 - rng_below(&f->rng, (unsigned)newest)],
               rng_below(&f->rng, 2));
}

static inline void log_some(struct fixture *f, size_t n) {
    while (n-- > 0)
        if (f->n_letters > 0 && rng_below(&f->rng, 40) == 0)
            log_some_letter(f);
        else if (f->n_tasks == 0 || rng_below(&f->rng, 4) == 0)
            log_some_create(f);
        else
            log_some_op(f);
}

/* ---- Applying ---- */
/* The log as far as it goes, in batches of random sizes; checkpoints when the store asks for it. */
static inline void apply_all(struct fixture *f) {
    const struct work_store_ops *ops = &tasks_store_work_ops;
    while (f->applied < f->n_log) {
        const struct journal_record *batch[64];
        size_t left = f->n_log - f->applied, n = 1 + rng_below(&f->rng, 64);
        struct work_verdict v;
        n = n < left ? n : left;
        for (size_t i = 0; i < n; i++)
            batch[i] = &f->log[f->applied + i];
        assert_int_equal(ops->apply(f->store, 0, batch, n, &v), 0);
        f->applied += v.applied;
        if (v.outcome == WORK_REJECT)
            assert_int_equal(ops->reject(f->store, 0, &f->log[f->applied++], v.reason), 0);
        else if (v.outcome == WORK_RETRY)
            assert_int_equal(tasks_store_checkpoint(f->store), 0);
        else
            assert_int_equal(v.outcome, WORK_OK);
    }
}

/* ---- Comparing ---- */
static inline void expect_task(const struct task *a, const struct task *b, bool with_args) {
    assert_true(a->id.key == b->id.key && a->id.low == b->id.low);
    assert_int_equal(a->status, b->status);
    assert_true(a->attempts == b->attempts && a->failures == b->failures && a->deaths == b->deaths);
    assert_true(a->created_us == b->created_us && a->started_us == b->started_us);
    assert_true(a->finished_us == b->finished_us && a->due_us == b->due_us);
    assert_true(a->current == b->current && a->total == b->total);
    assert_true(bytes_equal(a->worker, b->worker) && bytes_equal(a->result, b->result));
    assert_true(bytes_equal(a->error, b->error) && bytes_equal(a->saved, b->saved));
    assert_true(bytes_equal(a->request.type, b->request.type));
    assert_true(bytes_equal(a->request.idempotency_key, b->request.idempotency_key));
    assert_true(a->request.run_at_us == b->request.run_at_us);
    assert_true(a->request.timeout_ms == b->request.timeout_ms);
    assert_int_equal(a->request.max_retries, b->request.max_retries);
    assert_int_equal(a->request.priority, b->request.priority);
    if (with_args)
        assert_true(bytes_equal(a->request.args, b->request.args));
}

static inline void check_gets(struct fixture *f) {
    for (size_t i = 0; i < f->n_tasks; i++) {
        struct task_ref ref;
        int r = tasks_store_get(f->store, f->tasks[i].id, true, &ref);
        assert_int_equal(r, f->forgotten[i] ? TASKS_E_NOT_FOUND : 0);
        if (r == 0) {
            expect_task(&ref.task, &f->tasks[i], true);
            task_unref(&ref);
        }
    }
    struct task_ref ref;
    assert_int_equal(tasks_store_get(f->store, (struct task_id){12345, 1}, false, &ref),
                     TASKS_E_NOT_FOUND);
}

static inline int compare_newest(const void *a, const void *b) {
    const struct task *x = *(const struct task *const *)a, *y = *(const struct task *const *)b;
    return (x->id.key < y->id.key) - (x->id.key > y->id.key);
}

static inline bool model_passes(const struct task *t, const struct tasks_filter *filter) {
    return (!filter->statuses || filter->statuses >> t->status & 1) &&
           (!filter->type.size || bytes_equal(filter->type, t->request.type)) &&
           (!filter->below || t->id.key < filter->below);
}

struct expected {
    const struct task **tasks;
    size_t n;
    size_t at;
};

static inline bool expect_next(void *context, const struct task *task) {
    struct expected *e = context;
    assert_true(e->at < e->n);
    expect_task(task, e->tasks[e->at++], false);
    return true;
}

static inline void check_list(struct fixture *f, const struct tasks_filter *filter) {
    struct expected e = {.tasks = calloc(f->n_tasks + 1, sizeof *e.tasks)};
    assert_non_null(e.tasks);
    for (size_t i = 0; i < f->n_tasks; i++)
        if (!f->forgotten[i] && model_passes(&f->tasks[i], filter))
            e.tasks[e.n++] = &f->tasks[i];
    qsort(e.tasks, e.n, sizeof *e.tasks, compare_newest);
    e.n = e.n < filter->limit ? e.n : filter->limit;
    assert_int_equal(tasks_store_list(f->store, filter, expect_next, &e), 0);
    assert_int_equal(e.at, e.n);
    free(e.tasks);
}

static inline void check_lists(struct fixture *f) {
    check_list(f, &(struct tasks_filter){.limit = SIZE_MAX});
    for (unsigned i = 0; i < 24; i++) {
        struct tasks_filter filter = {.statuses = rng_below(&f->rng, 1 << TASK_STATUSES),
                                      .limit = 1 + rng_below(&f->rng, 100)};
        if (rng_below(&f->rng, 2))
            filter.type = bytes_of_string(TYPE_NAMES[rng_below(&f->rng, TYPES)]);
        if (f->n_tasks > 0 && rng_below(&f->rng, 2))
            filter.below =
                f->tasks[rng_below(&f->rng, (unsigned)f->n_tasks)].id.key + rng_below(&f->rng, 2);
        check_list(f, &filter);
    }
    check_list(f, &(struct tasks_filter){.limit = 5, .type = BYTES_LITERAL("unknown")});
}

static inline int compare_due(const void *a, const void *b) {
    const struct task *x = *(const struct task *const *)a, *y = *(const struct task *const *)b;
    if (x->request.priority != y->request.priority)
        return x->request.priority > y->request.priority ? -1 : 1;
    if (x->due_us != y->due_us)
        return x->due_us < y->due_us ? -1 : 1;
    return x->id.key < y->id.key ? -1 : x->id.key > y->id.key;
}

/* Takes all that is due, in the model's order, and gives it back. */
static inline void check_queue(struct fixture *f) {
    struct expected e = {.tasks = calloc(f->n_tasks + 1, sizeof *e.tasks)};
    struct task_ref *refs = calloc(f->n_tasks + 2, sizeof *refs);
    uint64_t now_us = f->os.wall_us, next_us = UINT64_MAX, oldest_us = 0;
    size_t n = 0, more;
    assert_true(e.tasks && refs);
    for (size_t i = 0; i < f->n_tasks; i++) {
        const struct task *t = &f->tasks[i];
        if (t->status != TASK_QUEUED)
            continue;
        if (t->due_us > now_us) {
            next_us = t->due_us < next_us ? t->due_us : next_us;
            continue;
        }
        e.tasks[e.n++] = t;
        oldest_us = oldest_us && oldest_us < t->due_us ? oldest_us : t->due_us;
    }
    qsort(e.tasks, e.n, sizeof *e.tasks, compare_due);
    size_t first = rng_below(&f->rng, 5);
    assert_int_equal(tasks_store_take(f->store, now_us, first, refs, &n), 0);
    assert_int_equal(tasks_store_take(f->store, now_us, e.n + 1 - n, refs + n, &more), 0);
    assert_int_equal(n + more, e.n);
    for (size_t i = 0; i < e.n; i++)
        expect_task(&refs[i].task, e.tasks[i], true);
    assert_true(tasks_store_next_due_us(f->store) == next_us);
    for (size_t i = e.n; i-- > 0; task_unref(&refs[i]))
        tasks_store_give_back(f->store, refs[i].task.id);
    struct tasks_store_stats stats;
    tasks_store_stats(f->store, &stats);
    assert_true(stats.oldest_due_us == oldest_us);
    free(e.tasks);
    free(refs);
}

static inline void check_counts(struct fixture *f) {
    uint64_t counts[TASK_STATUSES] = {0};
    struct tasks_store_stats stats;
    for (size_t i = 0; i < f->n_tasks; i++)
        if (!f->forgotten[i])
            counts[f->tasks[i].status]++;
    tasks_store_stats(f->store, &stats);
    assert_memory_equal(stats.by_status, counts, sizeof counts);
}

struct seen_letters {
    const struct fixture *f;
    size_t next; /* of the model's, downwards */
};

static inline bool is_letter(const struct fixture *f, const struct model_letter *l) {
    return l->there && model_find((struct fixture *)(uintptr_t)f, l->id) != NULL;
}

static inline void expect_letter(void *context, const struct work_letter *letter) {
    struct seen_letters *seen = context;
    const struct model_letter *l;
    do {
        assert_true(seen->next > 0);
        l = &seen->f->letters[--seen->next];
    } while (!is_letter(seen->f, l));
    assert_int_equal(letter->record.lsn, l->lsn);
    assert_int_equal(letter->record.key_hash, l->id.key);
    assert_true(bytes_equal(letter->record.payload, seen->f->log[l->lsn - 1].payload));
    assert_true(letter->reason.size > 20);
}

static inline void check_letters(struct fixture *f) {
    const struct work_store_ops *ops = &tasks_store_work_ops;
    struct seen_letters seen = {f, f->n_letters};
    static lsn_t lsns[LETTERS_MAX];
    size_t n = 0, there = 0;
    for (size_t i = 0; i < f->n_letters; i++)
        there += is_letter(f, &f->letters[i]);
    assert_int_equal(work_letters_page(ops->letters(f->store), 0, LETTERS_MAX, lsns, &n), 0);
    assert_int_equal(n, there);
    assert_int_equal(ops->read_letters(f->store, lsns, n, expect_letter, &seen), 0);
    while (seen.next > 0)
        assert_false(is_letter(f, &f->letters[--seen.next]));
}

/* Everything, in many ways. */
static inline void check_store(struct fixture *f) {
    check_gets(f);
    check_lists(f);
    check_queue(f);
    check_counts(f);
    check_letters(f);
}

#endif
