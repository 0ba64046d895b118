/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each thread keeps a bit for every rank that it holds. Taking a lock asserts that no bit at or
 * above its rank is set, which refuses a wrong order and the same rank twice in one test. A trylock
 * cannot deadlock, so it may go against the order, but what it took is recorded and what is locked
 * after it is checked. Errors of pthread calls are errors of the program, hence asserts.
 */
#include "os/sync.h"

#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000 };
static_assert(LOCK_RANK_COUNT <= 64, "a rank is a bit of a 64-bit word");

static _Thread_local uint64_t held_ranks;

static void assert_order(enum lock_rank rank) {
    assert(rank > 0 && rank < LOCK_RANK_COUNT);
    assert(held_ranks >> rank == 0 && "a lock is taken against its rank");
}

static void record(enum lock_rank rank) {
    assert(!(held_ranks >> rank & 1) && "two locks of one rank are held");
    held_ranks |= UINT64_C(1) << rank;
}

static void forget(enum lock_rank rank) {
    assert(held_ranks >> rank & 1 && "a lock is released that is not held");
    held_ranks &= ~(UINT64_C(1) << rank);
}

static void must_succeed(int r) {
    assert(r == 0);
    (void)r;
}

void mutex_init(struct mutex *m, enum lock_rank rank) {
    must_succeed(pthread_mutex_init(&m->lock, NULL));
    m->rank = rank;
}

void mutex_deinit(struct mutex *m) {
    must_succeed(pthread_mutex_destroy(&m->lock));
}

void mutex_lock(struct mutex *m) {
    assert_order(m->rank);
    must_succeed(pthread_mutex_lock(&m->lock));
    record(m->rank);
}

bool mutex_trylock(struct mutex *m) {
    int r = pthread_mutex_trylock(&m->lock);
    if (r == EBUSY)
        return false;
    must_succeed(r);
    record(m->rank);
    return true;
}

void mutex_unlock(struct mutex *m) {
    forget(m->rank);
    must_succeed(pthread_mutex_unlock(&m->lock));
}

void rwlock_init(struct rwlock *l, enum lock_rank rank) {
    pthread_rwlockattr_t attributes;
    must_succeed(pthread_rwlockattr_init(&attributes));
    /* A stream of readers must not starve a writer; reading twice is refused by rank anyhow. */
    must_succeed(
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
    must_succeed(pthread_rwlock_init(&l->lock, &attributes));
    must_succeed(pthread_rwlockattr_destroy(&attributes));
    l->rank = rank;
}

void rwlock_deinit(struct rwlock *l) {
    must_succeed(pthread_rwlock_destroy(&l->lock));
}

void rwlock_read(struct rwlock *l) {
    assert_order(l->rank);
    must_succeed(pthread_rwlock_rdlock(&l->lock));
    record(l->rank);
}

void rwlock_write(struct rwlock *l) {
    assert_order(l->rank);
    must_succeed(pthread_rwlock_wrlock(&l->lock));
    record(l->rank);
}

void rwlock_unlock(struct rwlock *l) {
    forget(l->rank);
    must_succeed(pthread_rwlock_unlock(&l->lock));
}

void condition_init(struct condition *c) {
    pthread_condattr_t attributes;
    must_succeed(pthread_condattr_init(&attributes));
    must_succeed(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    must_succeed(pthread_cond_init(&c->cond, &attributes));
    must_succeed(pthread_condattr_destroy(&attributes));
}

void condition_deinit(struct condition *c) {
    must_succeed(pthread_cond_destroy(&c->cond));
}

/* The rank stays recorded while the wait has given the lock up: a thread that waits takes none. */
void condition_wait(struct condition *c, struct mutex *m) {
    assert(held_ranks >> m->rank & 1 && "waiting needs the lock");
    must_succeed(pthread_cond_wait(&c->cond, &m->lock));
}

bool condition_wait_until(struct condition *c, struct mutex *m, uint64_t deadline_ns) {
    assert(held_ranks >> m->rank & 1 && "waiting needs the lock");
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    int r = pthread_cond_timedwait(&c->cond, &m->lock, &deadline);
    if (r == ETIMEDOUT)
        return false;
    must_succeed(r);
    return true;
}

void condition_signal(struct condition *c) {
    must_succeed(pthread_cond_signal(&c->cond));
}

void condition_broadcast(struct condition *c) {
    must_succeed(pthread_cond_broadcast(&c->cond));
}

int event_init(struct event *e) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return error_origin(-errno);
    e->fd = fd;
    return 0;
}

void event_deinit(struct event *e) {
    if (e->fd >= 0)
        (void)close(e->fd); /* nothing is kept in it */
    e->fd = -1;
}

void event_signal(struct event *e) {
    int saved = errno; /* a signal handler must leave it alone */
    uint64_t one = 1;
    ssize_t n = write(e->fd, &one, sizeof one);
    /* EAGAIN: the counter is at its maximum, so it is signalled. */
    assert(n == sizeof one || errno == EAGAIN);
    (void)n;
    errno = saved;
}

void event_clear(struct event *e) {
    uint64_t count;
    ssize_t n = read(e->fd, &count, sizeof count);
    assert(n == sizeof count || errno == EAGAIN);
    (void)n;
}
