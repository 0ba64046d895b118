/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue, of which every runner takes: what is taken is claimed for the time of a lease, and
 * ready again when it was neither started nor renewed by then. What is started has a lease, kept by
 * renewing, too. One thread of a process, and shared_wake from any.
 */
#include "tasks/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    NS_PER_MS = 1000000,
    EMPTY_MS = 50, /* an empty queue is asked again after so long, unless we filled it ourselves */
    AWAY_MS = 500, /* and so is a Redis that does not answer */
    EXPIRED_SOME = 64,
    TAKE_FIELDS = 4,
    EXPIRED_FIELDS = 3,
};

void shared_wake(struct tasks_shared *s) {
    atomic_store(&s->take_ns, 0);
    if (s->listener && s->listener->queued)
        s->listener->queued(s->listener);
}

static void pause(struct tasks_shared *s, uint64_t asked_ns, uint64_t ms) {
    uint64_t expected = asked_ns; /* who was woken since asks at once */
    (void)atomic_compare_exchange_strong(&s->take_ns, &expected,
                                         os_monotonic_ns(s->os) + ms * NS_PER_MS);
}

uint64_t shared_next_due_us(void *store) {
    struct tasks_shared *s = store;
    uint64_t take_ns = atomic_load(&s->take_ns), now_ns = os_monotonic_ns(s->os);
    uint64_t left_ns = take_ns > now_ns ? take_ns - now_ns : 0;
    return os_wall_us(s->os) + left_ns / 1000;
}

/* ---- Giving back ---- */

struct returned {
    struct task_id id;
    uint32_t attempt;
};

static void give_back_all(struct tasks_shared *s) {
    const struct returned *returned = (const void *)s->returned.data;
    size_t n = s->returned.size / sizeof *returned;
    if (n == 0)
        return;
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_GIVE_BACK);
    for (size_t i = 0; i < n; i++) {
        call_add_id(&c, returned[i].id);
        call_add_number(&c, returned[i].attempt);
    }
    int r = call_run(&c, s, false, RUNNER_TIMEOUT_MS);
    (void)r; /* then they are ready again when their claims have run out */
    buffer_clear(&s->returned);
}

/* Nobody waits for the network here: a worker returns many at once, and the others must be heard.
 */
void shared_give_back(void *store, const struct task_ref *ref) {
    struct tasks_shared *s = store;
    const struct returned returned = {.id = ref->task.id, .attempt = ref->task.attempts + 1};
    size_t size = s->returned.size;
    buffer_append(&s->returned, &returned, sizeof returned);
    if (s->returned.failed) {
        s->returned.failed = false;
        s->returned.size = size; /* it is ready again when the claim has run out */
    }
    atomic_store(&s->take_ns, 0);
}

/* ---- Taking ---- */

/* The attempt that Redis gave is the next one of the task that is handed out. */
static int take_one(redisReply *const *fields, struct task_ref *ret_ref) {
    struct task_id id;
    if (fields[1]->type != REDIS_REPLY_INTEGER || fields[1]->integer < 1 ||
        fields[1]->integer > UINT32_MAX || !id_of_digits(reply_text(fields[0]), &id))
        return error_origin(-EBADMSG);
    int r =
        tasks_hold(id, reply_text(fields[2]), reply_text(fields[3]), (struct bytes){0}, ret_ref);
    if (!r)
        ret_ref->task.attempts = (uint32_t)fields[1]->integer - 1;
    return error_trace(r);
}

/* What cannot be read stays claimed, and is claimed again and again: others go on. */
static size_t take_all(const redisReply *reply, struct task_ref *ret_refs, size_t n) {
    size_t taken = 0;
    if (reply->type != REDIS_REPLY_ARRAY)
        return 0;
    for (size_t i = 0; i + TAKE_FIELDS <= reply->elements && taken < n; i += TAKE_FIELDS)
        if (take_one(reply->element + i, &ret_refs[taken]) == 0)
            taken++;
    return taken;
}

int shared_take(void *store, uint64_t now_us UNUSED, size_t n, struct task_ref *ret_refs,
                size_t *ret_n) {
    struct tasks_shared *s = store;
    uint64_t take_ns = atomic_load(&s->take_ns);
    *ret_n = 0;
    if (os_monotonic_ns(s->os) < take_ns)
        return 0;
    give_back_all(s);
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_TAKE);
    call_add_number(&c, n);
    call_add_number(&c, s->options.lease_ms);
    /* On the replicas, too: after a failover a number must not be given again. */
    int r = call_run(&c, s, true, RUNNER_TIMEOUT_MS);
    if (r) {
        pause(s, take_ns, AWAY_MS);
        return r;
    }
    *ret_n = take_all(c.command.reply, ret_refs, n);
    if (*ret_n < n)
        pause(s, take_ns, EMPTY_MS);
    return 0;
}

/* ---- Leases ---- */

static void add_renewal(struct call *c, const struct tasks_renewal *renewal) {
    call_add_id(c, renewal->id);
    call_add_number(c, renewal->attempt);
    if (renewal->moved)
        call_add_text(c, arena_format(&c->arena, "%" PRIu32 " %" PRIu64 " %" PRIu64,
                                      renewal->attempt, renewal->current, renewal->total));
    else
        call_add(c, BYTES_LITERAL(""));
}

static int read_worth(const redisReply *reply, struct tasks_renewal *renewals, size_t n,
                      char why[REDIS_WHY_MAX]) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != n)
        return tasks_odd(why);
    for (size_t i = 0; i < n; i++) {
        long long worth = reply->element[i]->integer;
        renewals[i].worth = worth == TASKS_WORTH_ITSELF || worth == TASKS_WORTH_CANCELLED
                                ? (enum tasks_worth)worth
                                : TASKS_WORTH_NOTHING;
    }
    return 0;
}

int shared_renew(void *store, const struct tasks_at_work *at_work, struct tasks_renewal *renewals,
                 size_t n) {
    struct tasks_shared *s = store;
    CLEANUP(call_deinit) struct call c;
    give_back_all(s);
    call_init(&c, s, SCRIPT_RENEW);
    call_add_number(&c, s->options.lease_ms);
    call_add_text(&c, s->runner);
    if (at_work)
        call_add_number(&c, at_work->workers);
    else
        call_add_text(&c, "-1");
    call_add_number(&c, at_work ? at_work->busy : 0);
    for (size_t i = 0; i < n; i++)
        add_renewal(&c, &renewals[i]);
    int r = call_run(&c, s, false, RUNNER_TIMEOUT_MS);
    return r ? r : read_worth(c.command.reply, renewals, n, c.why);
}

int shared_each_expired(void *store, void (*each)(void *context, const struct task *task),
                        void *context) {
    struct tasks_shared *s = store;
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_EXPIRED);
    call_add_number(&c, s->options.lease_ms);
    call_add_number(&c, EXPIRED_SOME);
    int r = call_run(&c, s, false, RUNNER_TIMEOUT_MS);
    const redisReply *reply = c.command.reply;
    if (!r && reply->type != REDIS_REPLY_ARRAY)
        r = tasks_odd(c.why);
    for (size_t i = 0; !r && i + EXPIRED_FIELDS <= reply->elements; i += EXPIRED_FIELDS) {
        redisReply *const *fields = reply->element + i;
        struct task_ref ref;
        struct task_id id;
        if (!id_of_digits(reply_text(fields[0]), &id) ||
            tasks_hold(id, reply_text(fields[1]), (struct bytes){0}, reply_text(fields[2]), &ref))
            continue;
        if (ref.task.status == TASK_RUNNING)
            each(context, &ref.task);
        task_unref(&ref);
    }
    return r;
}
