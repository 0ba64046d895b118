/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching: a thread reads all that is watched, five times a second, while there is any. A watch is
 * known to the thread by its number alone, as it may go while the thread reads.
 */
#include "tasks/redis/internal.h"

#include <errno.h>
#include <stdlib.h>

enum { TURN_MS = 200, MS_NS = 1000000 };

struct tasks_watch {
    struct tasks_watch *next; /* older */
    uint64_t number;
    struct task_id id;
    int result; /* of the last reading */
    struct buffer state, progress;
};

/* Some of the watches, as the thread has them without the lock. */
struct round {
    uint64_t numbers[READ_SOME];
    struct task_id ids[READ_SOME];
    size_t n;
};

/* Those below the number, which are older. */
static void gather_locked(const struct tasks_shared *s, uint64_t below, struct round *round) {
    round->n = 0;
    for (const struct tasks_watch *w = s->watches; w && round->n < READ_SOME; w = w->next) {
        if (w->number >= below)
            continue;
        round->numbers[round->n] = w->number;
        round->ids[round->n++] = w->id;
    }
}

static void take(struct tasks_watch *w, int result, struct bytes state, struct bytes progress) {
    w->result = result ? result : state.size ? 0 : TASKS_E_NOT_FOUND;
    if (w->result)
        return;
    buffer_clear(&w->state);
    buffer_clear(&w->progress);
    buffer_append_bytes(&w->state, state);
    buffer_append_bytes(&w->progress, progress);
    if (w->state.failed || w->progress.failed)
        w->result = -ENOMEM;
}

/* Both are in order of falling numbers. */
static void take_all_locked(struct tasks_shared *s, const struct round *round, int result,
                            const struct redis_command commands[2]) {
    struct tasks_watch *w = s->watches;
    for (size_t i = 0; i < round->n; i++) {
        while (w && w->number > round->numbers[i])
            w = w->next;
        if (!w || w->number != round->numbers[i])
            continue;
        if (result)
            take(w, TASKS_E_UNAVAILABLE, (struct bytes){0}, (struct bytes){0});
        else
            take(w, 0, reply_text(commands[0].reply->element[i]),
                 reply_text(commands[1].reply->element[i]));
    }
}

static void look_at_all(struct tasks_shared *s) {
    struct round round;
    gather_locked(s, UINT64_MAX, &round);
    while (round.n && !s->stopping) {
        struct redis_command commands[2] = {0};
        mutex_unlock(&s->lock);
        int r = tasks_read_some(s, round.ids, round.n, commands);
        mutex_lock(&s->lock);
        take_all_locked(s, &round, r, commands);
        redis_commands_free(commands, 2);
        gather_locked(s, round.numbers[round.n - 1], &round);
    }
}

static void run(void *store) {
    struct tasks_shared *s = store;
    mutex_lock(&s->lock);
    while (!s->stopping) {
        look_at_all(s);
        uint64_t next_ns = os_monotonic_ns(s->os) + (uint64_t)TURN_MS * MS_NS;
        while (!s->stopping && condition_wait_until(&s->wake, &s->lock, next_ns))
            ;
    }
    mutex_unlock(&s->lock);
}

int watch_start(struct tasks_shared *s) {
    return error_fold(os_thread_start(s->os, "tasks", run, s, &s->watcher));
}

void watch_stop(struct tasks_shared *s) {
    mutex_lock(&s->lock);
    s->stopping = true;
    condition_broadcast(&s->wake);
    mutex_unlock(&s->lock);
    os_thread_join(s->os, s->watcher);
    s->watcher = NULL;
}

int tasks_shared_watch(struct tasks_shared *s, struct task_id id, struct tasks_watch **ret_watch) {
    struct tasks_watch *w = calloc(1, sizeof *w);
    if (!w)
        return error_origin(-ENOMEM);
    w->id = id;
    w->result = TASKS_E_UNAVAILABLE;
    mutex_lock(&s->lock);
    w->number = ++s->watch_number;
    w->next = s->watches;
    s->watches = w;
    mutex_unlock(&s->lock);
    *ret_watch = w;
    return 0;
}

int tasks_shared_watched(struct tasks_shared *s, const struct tasks_watch *w,
                         struct task_ref *ret_ref) {
    mutex_lock(&s->lock);
    int r = w->result;
    if (!r)
        r = tasks_hold(w->id, buffer_bytes(&w->state), (struct bytes){0},
                       buffer_bytes(&w->progress), ret_ref);
    mutex_unlock(&s->lock);
    return r > 0 ? r : error_trace(r);
}

void tasks_shared_unwatch(struct tasks_shared *s, struct tasks_watch *w) {
    struct tasks_watch **at = &s->watches;
    mutex_lock(&s->lock);
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    mutex_unlock(&s->lock);
    buffer_deinit(&w->state);
    buffer_deinit(&w->progress);
    free(w);
}
