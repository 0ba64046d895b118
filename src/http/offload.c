/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The query threads: they run what would hold a loop up. And those that wait for other servers, so
 * that none of them keeps a query from its thread. The queue of either pool is bounded by number
 * and by age; a finished request goes back to its loop by http_loop_post.
 */
#include "http/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { QUEUE_MAX = 4 };
#else
enum { QUEUE_MAX = 1024 };
#endif
enum { QUEUE_AGE_MAX_S = 30 };

struct http_pool_thread {
    struct http_pool *pool;
    struct os_thread *thread;
    struct http_worker worker;
};

/* The next request, or NULL when the pool ends and nothing is left. */
static struct http_request *pool_take(struct http_pool *pool) {
    mutex_lock(&pool->lock);
    while (!pool->head && !pool->ending)
        condition_wait(&pool->ready, &pool->lock);
    struct http_request *r = pool->head;
    if (r) {
        pool->head = r->job_next;
        if (!pool->head)
            pool->tail = NULL;
        pool->n--;
    }
    mutex_unlock(&pool->lock);
    return r;
}

static void pool_run_one(struct http_pool_thread *t, struct http_request *r) {
    r->worker = &t->worker;
    http_worker_begin(&t->worker);
    /* Whoever waited for so long is gone, or has asked again. */
    if (os_monotonic_ns(r->loop->server->os) > r->deadline_ns)
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
    else
        r->job(r->job_context, r);
    assert(!r->then == http_request_answered(r));
    http_worker_end(&t->worker);
    r->worker = &r->loop->worker;
    http_loop_post(r);
}

static void pool_thread_run(void *thread) {
    struct http_pool_thread *t = thread;
    for (struct http_request *r; (r = pool_take(t->pool));)
        pool_run_one(t, r);
}

static void offload(struct http_pool *pool, struct http_request *r, http_handler job,
                    void *context) {
    assert(r->state == REQUEST_RUNNING && !http_request_answered(r));
    r->job = job;
    r->job_context = context;
    r->job_next = NULL;
    r->deadline_ns = r->loop->now_ns + QUEUE_AGE_MAX_S * UINT64_C(1000000000);
    mutex_lock(&pool->lock);
    bool taken = pool->n < QUEUE_MAX && !pool->ending;
    if (taken) {
        r->state = REQUEST_WAITING;
        *(pool->tail ? &pool->tail->job_next : &pool->head) = r;
        pool->tail = r;
        pool->n++;
    }
    mutex_unlock(&pool->lock);
    if (taken) /* whoever wakes finds the lock free */
        condition_signal(&pool->ready);
    else
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, NULL);
}

void http_offload(struct http_request *r, http_handler job, void *context) {
    offload(&r->loop->server->pool, r, job, context);
}

void http_offload_waiting(struct http_request *r, http_handler job, void *context) {
    assert(r->loop->server->options.waiting_threads > 0);
    offload(&r->loop->server->waiting, r, job, context);
}

void http_resume(struct http_request *r, http_handler handler, void *context) {
    assert(r->state == REQUEST_WAITING && !http_request_answered(r));
    r->then = handler;
    r->then_context = context;
}

static int pool_thread_start(struct http_server *s, struct http_pool *pool, const char *name,
                             struct http_pool_thread *t) {
    t->pool = pool;
    int r = http_worker_init(&t->worker, s->options.body_max_bytes);
    if (!r)
        r = os_thread_start(s->os, name, pool_thread_run, t, &t->thread);
    if (r)
        http_worker_deinit(&t->worker);
    return r ? error_fold(r) : 0;
}

void http_pool_init(struct http_pool *pool) {
    mutex_init(&pool->lock, LOCK_RANK_HTTP);
    condition_init(&pool->ready);
}

void http_pool_deinit(struct http_pool *pool) {
    condition_deinit(&pool->ready);
    mutex_deinit(&pool->lock);
}

int http_pool_start(struct http_pool *pool, struct http_server *s, const char *name,
                    unsigned threads) {
    if (threads == 0)
        return 0;
    pool->threads = calloc(threads, sizeof *pool->threads);
    if (!pool->threads)
        return error_origin(-ENOMEM);
    for (; pool->n_threads < threads; pool->n_threads++) {
        int r = pool_thread_start(s, pool, name, &pool->threads[pool->n_threads]);
        if (r)
            return error_trace(r);
    }
    return 0;
}

void http_pool_stop(struct http_pool *pool, struct http_server *s) {
    mutex_lock(&pool->lock);
    pool->ending = true;
    condition_broadcast(&pool->ready);
    mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->n_threads; i++) {
        os_thread_join(s->os, pool->threads[i].thread);
        http_worker_deinit(&pool->threads[i].worker);
    }
    pool->n_threads = 0;
    free(pool->threads);
    pool->threads = NULL;
}
