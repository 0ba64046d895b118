/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded store as a backend; and what all stores hand out. */
#include "tasks/backend.h"

void task_unref(struct task_ref *ref) {
    if (ref->held)
        ref->held->release(ref->held);
    *ref = (struct task_ref){0};
}

static struct task_id new_id(void *store, uint64_t wall_us) {
    return tasks_store_new_id(store, wall_us);
}
static int admit(void *store, uint64_t n) {
    return tasks_store_admit(store, n);
}
static int get(void *store, struct task_id id, bool with_args, struct task_ref *ret_ref) {
    return tasks_store_get(store, id, with_args, ret_ref);
}
static int list(void *store, const struct tasks_filter *filter,
                bool (*each)(void *context, const struct task *task), void *context) {
    return tasks_store_list(store, filter, each, context);
}
static int take(void *store, uint64_t now_us, size_t n, struct task_ref *ret_refs, size_t *ret_n) {
    return tasks_store_take(store, now_us, n, ret_refs, ret_n);
}
static void give_back(void *store, const struct task_ref *ref) {
    tasks_store_give_back(store, ref->task.id);
}
static uint64_t next_due_us(void *store) {
    return tasks_store_next_due_us(store);
}
static void listen_to(void *store, struct tasks_listener *listener) {
    tasks_store_listen(store, listener);
}
static int once(void *store, struct bytes key, struct task_id id, int (*append)(void *context),
                void *context, struct task_id *ret_id, bool *ret_new) {
    return tasks_store_once(store, key, id, append, context, ret_id, ret_new);
}
static int each_running(void *store, void (*each)(void *context, const struct task *task),
                        void *context) {
    return tasks_store_each_running(store, each, context);
}

struct tasks_backend tasks_embedded(struct tasks_store *store) {
    static const struct tasks_backend_ops ops = {
        .new_id = new_id,
        .admit = admit,
        .get = get,
        .list = list,
        .take = take,
        .give_back = give_back,
        .next_due_us = next_due_us,
        .listen = listen_to,
        .once = once,
        .each_running = each_running,
    };
    return (struct tasks_backend){.ops = &ops, .store = store};
}
