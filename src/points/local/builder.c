/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The builder's thread and its two lists.
 */
#include "points/local/builder.h"

#include "os/process.h"
#include "points/local/internal.h"

void builder_init(struct builder *b) {
    mutex_init(&b->lock, LOCK_RANK_BUILDER);
    condition_init(&b->wake);
}

static struct build *free_builds(struct build *list) {
    while (list) {
        struct build *next = list->next;
        list->kind->free(list);
        list = next;
    }
    return NULL;
}

void builder_deinit(struct builder *b, struct points_store *s) {
    mutex_lock(&b->lock);
    atomic_store(&b->stopping, true);
    condition_signal(&b->wake);
    mutex_unlock(&b->lock);
    os_thread_join(s->os, b->thread);
    b->planned = free_builds(b->planned);
    b->built = free_builds(b->built);
    condition_deinit(&b->wake);
    mutex_deinit(&b->lock);
}

static void give_up(struct points_store *s, struct build *build) {
    build->kind->free(build);
    atomic_fetch_add(&s->builds_given_up, 1);
}

/* ---- The thread ---- */

static struct build *begin(struct builder *b) {
    mutex_lock(&b->lock);
    struct build *build = b->planned;
    if (build)
        b->planned = build->next;
    b->running = build != NULL;
    mutex_unlock(&b->lock);
    return build;
}

static void end(struct builder *b, struct build *built) {
    mutex_lock(&b->lock);
    if (built) {
        built->next = b->built;
        b->built = built;
    }
    b->running = false;
    mutex_unlock(&b->lock);
}

bool builder_run_one(struct builder *b, struct points_store *s) {
    struct build *build = begin(b);
    if (!build)
        return false;
    if (build->kind->run(build, s)) {
        give_up(s, build);
        end(b, NULL);
    } else {
        end(b, build);
        store_want_checkpoint(s);
    }
    return true;
}

/* Waits until something is planned; false: it is time to end. */
static bool await_plan(struct builder *b) {
    mutex_lock(&b->lock);
    while (!b->planned && !builder_is_stopping(b))
        condition_wait(&b->wake, &b->lock);
    mutex_unlock(&b->lock);
    return !builder_is_stopping(b);
}

static void build_on(void *argument) {
    struct points_store *s = argument;
    process_thread_idle();
    while (await_plan(&s->builder))
        builder_run_one(&s->builder, s);
}

int builder_start(struct builder *b, struct points_store *s) {
    return error_trace(os_thread_start(s->os, "builder", build_on, s, &b->thread));
}

/* ---- The checkpoint's side ---- */

void builder_plan(struct builder *b, struct build *build) {
    mutex_lock(&b->lock);
    build->next = b->planned;
    b->planned = build;
    condition_signal(&b->wake);
    mutex_unlock(&b->lock);
}

bool builder_is_idle(struct builder *b) {
    mutex_lock(&b->lock);
    bool idle = !b->planned && !b->running && !b->built;
    mutex_unlock(&b->lock);
    return idle;
}

static struct build *take_built(struct builder *b) {
    mutex_lock(&b->lock);
    struct build *build = b->built;
    if (build)
        b->built = build->next;
    mutex_unlock(&b->lock);
    return build;
}

void builder_adopt(struct builder *b, struct points_store *s) {
    for (struct build *build; (build = take_built(b));)
        if (build->kind->adopt(build, s))
            give_up(s, build);
        else
            build->kind->free(build);
}
