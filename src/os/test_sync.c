/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks: each misuse of a table runs in a child process, which must abort. Then what locks,
 * conditions and events are for, with threads.
 */
#include "os/os.h"
#include "os/sync.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct locks {
    struct mutex low;
    struct mutex high;
    struct mutex high_too;
    struct rwlock middle;
    struct condition condition;
};

static void locks_init(struct locks *l) {
    mutex_init(&l->low, LOCK_RANK_SERVE);
    mutex_init(&l->high, LOCK_RANK_LOG);
    mutex_init(&l->high_too, LOCK_RANK_LOG);
    rwlock_init(&l->middle, LOCK_RANK_JOURNAL);
    condition_init(&l->condition);
}

static void locks_deinit(struct locks *l) {
    mutex_deinit(&l->low);
    mutex_deinit(&l->high);
    mutex_deinit(&l->high_too);
    rwlock_deinit(&l->middle);
    condition_deinit(&l->condition);
}

/* Allowed. */
static void in_order(struct locks *l) {
    mutex_lock(&l->low);
    rwlock_read(&l->middle);
    mutex_lock(&l->high);
    mutex_unlock(&l->low); /* released in any order */
    rwlock_unlock(&l->middle);
    mutex_unlock(&l->high);
    rwlock_write(&l->middle);
    rwlock_unlock(&l->middle);
    mutex_lock(&l->low);
    mutex_unlock(&l->low);
}
static void try_against_the_order(struct locks *l) {
    mutex_lock(&l->high);
    if (mutex_trylock(&l->low))
        mutex_unlock(&l->low);
    mutex_unlock(&l->high);
}
static void wait_and_time_out(struct locks *l) {
    mutex_lock(&l->low);
    if (condition_wait_until(&l->condition, &l->low, 1))
        _exit(1);
    mutex_unlock(&l->low);
}

/* Refused. */
static void against_the_order(struct locks *l) {
    mutex_lock(&l->high);
    mutex_lock(&l->low);
}
static void same_lock_twice(struct locks *l) {
    mutex_lock(&l->low);
    mutex_lock(&l->low);
}
static void same_rank_twice(struct locks *l) {
    mutex_lock(&l->high);
    mutex_lock(&l->high_too);
}
static void same_rank_tried(struct locks *l) {
    mutex_lock(&l->high);
    if (!mutex_trylock(&l->high_too))
        _exit(1);
}
static void read_twice(struct locks *l) {
    rwlock_read(&l->middle);
    rwlock_read(&l->middle);
}
static void read_against_the_order(struct locks *l) {
    mutex_lock(&l->high);
    rwlock_read(&l->middle);
}
static void write_against_the_order(struct locks *l) {
    mutex_lock(&l->high);
    rwlock_write(&l->middle);
}
static void against_what_was_tried(struct locks *l) {
    if (!mutex_trylock(&l->high))
        _exit(1);
    mutex_lock(&l->low);
}
static void unlock_without_lock(struct locks *l) {
    mutex_unlock(&l->low);
}
static void wait_without_lock(struct locks *l) {
    condition_wait(&l->condition, &l->low);
}

static const struct {
    void (*run)(struct locks *l);
    bool aborts;
} rules[] = {
    {in_order, false},
    {try_against_the_order, false},
    {wait_and_time_out, false},
    {against_the_order, true},
    {same_lock_twice, true},
    {same_rank_twice, true},
    {same_rank_tried, true},
    {read_twice, true},
    {read_against_the_order, true},
    {write_against_the_order, true},
    {against_what_was_tried, true},
    {unlock_without_lock, true},
    {wait_without_lock, true},
};

static void run_in_child(void (*run)(struct locks *l)) {
    struct rlimit none = {0};
    struct locks l;
    /* No core, no message, and cmocka's handler out of the way; a deadlock ends too. */
    if (setrlimit(RLIMIT_CORE, &none) != 0 || close(STDERR_FILENO) != 0 ||
        signal(SIGABRT, SIG_DFL) == SIG_ERR)
        _exit(1);
    alarm(10);
    locks_init(&l);
    run(&l);
    locks_deinit(&l);
    _exit(0);
}

static void test_ranks(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(rules); i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            run_in_child(rules[i].run);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
        bool done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (rules[i].aborts ? !aborted : !done)
            fail_msg("rule %zu: status %d", i, status);
    }
}

enum { THREADS = 4, ROUNDS = 20000 };

struct counter {
    struct mutex mutex;
    struct rwlock rwlock;
    struct condition condition;
    uint64_t by_mutex;
    uint64_t by_rwlock;
    int waiting;
    bool go;
};

static void counter_init(struct counter *c) {
    *c = (struct counter){0};
    mutex_init(&c->mutex, LOCK_RANK_SERVE);
    rwlock_init(&c->rwlock, LOCK_RANK_JOURNAL);
    condition_init(&c->condition);
}

static void counter_deinit(struct counter *c) {
    mutex_deinit(&c->mutex);
    rwlock_deinit(&c->rwlock);
    condition_deinit(&c->condition);
}

static void count(void *argument) {
    struct counter *c = argument;
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 3 != 0)
            mutex_lock(&c->mutex);
        else
            while (!mutex_trylock(&c->mutex))
                ;
        c->by_mutex++;
        rwlock_write(&c->rwlock);
        c->by_rwlock++;
        rwlock_unlock(&c->rwlock);
        mutex_unlock(&c->mutex);
        rwlock_read(&c->rwlock);
        uint64_t seen = c->by_rwlock;
        rwlock_unlock(&c->rwlock);
        assert_true(seen > 0);
    }
}

static void start_all(void (*run)(void *), void *argument, struct os_thread *threads[THREADS]) {
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(os_thread_start(os_real(), "count", run, argument, &threads[i]), 0);
}

static void join_all(struct os_thread *threads[THREADS]) {
    for (int i = 0; i < THREADS; i++)
        os_thread_join(os_real(), threads[i]);
}

static void test_exclusion(void **state) {
    (void)state;
    struct counter c;
    struct os_thread *threads[THREADS];
    counter_init(&c);
    start_all(count, &c, threads);
    join_all(threads);
    assert_int_equal(c.by_mutex, THREADS * ROUNDS);
    assert_int_equal(c.by_rwlock, THREADS * ROUNDS);
    counter_deinit(&c);
}

static void wait_to_go(void *argument) {
    struct counter *c = argument;
    mutex_lock(&c->mutex);
    c->waiting++;
    condition_broadcast(&c->condition);
    while (!c->go)
        condition_wait(&c->condition, &c->mutex);
    c->waiting--;
    mutex_unlock(&c->mutex);
}

static void test_condition(void **state) {
    (void)state;
    struct counter c;
    struct os_thread *threads[THREADS];
    counter_init(&c);
    start_all(wait_to_go, &c, threads);
    mutex_lock(&c.mutex);
    while (c.waiting < THREADS)
        assert_true(
            condition_wait_until(&c.condition, &c.mutex, os_monotonic_ns(os_real()) + 10000000000));
    c.go = true;
    condition_broadcast(&c.condition);
    mutex_unlock(&c.mutex);
    join_all(threads);
    assert_int_equal(c.waiting, 0);
    counter_deinit(&c);
}

static void test_deadline(void **state) {
    (void)state;
    struct counter c;
    counter_init(&c);
    mutex_lock(&c.mutex);
    uint64_t deadline_ns = os_monotonic_ns(os_real()) + 20000000;
    while (condition_wait_until(&c.condition, &c.mutex, deadline_ns)) /* woken for nothing */
        ;
    assert_true(os_monotonic_ns(os_real()) >= deadline_ns);
    condition_signal(&c.condition); /* nobody waits: forgotten */
    assert_false(condition_wait_until(&c.condition, &c.mutex, deadline_ns));
    mutex_unlock(&c.mutex);
    counter_deinit(&c);
}

static bool readable(const struct event *e) {
    struct pollfd fd = {.fd = e->fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void test_event(void **state) {
    (void)state;
    struct event e;
    assert_int_equal(event_init(&e), 0);
    assert_false(readable(&e));
    event_clear(&e); /* not signalled: nothing happens */
    errno = 77;
    event_signal(&e);
    event_signal(&e);
    assert_int_equal(errno, 77);
    assert_true(readable(&e));
    event_clear(&e);
    assert_false(readable(&e));
    uint64_t most = UINT64_MAX - 1;
    assert_int_equal(write(e.fd, &most, sizeof most), sizeof most);
    event_signal(&e); /* it cannot count on, and need not */
    assert_true(readable(&e));
    event_deinit(&e);
    event_deinit(&e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks),     cmocka_unit_test(test_exclusion),
        cmocka_unit_test(test_condition), cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
