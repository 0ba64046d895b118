/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The builder: one thread that makes new things of sealed segments while nothing else wants the
 * core (merged segments; a graph would be another kind of build).
 *
 *   planned ──▶ running ──▶ built ──▶ adopted or given up, and freed
 *   (checkpoint) (builder)            (checkpoint)
 *
 * It works in memory and takes no lock of the store: what is sealed does not change, and a thread
 * that seldom gets the core must not hold what others wait for. Plans are made, and what was built
 * is written and taken in, by checkpoints. So files have one writer, a disk that fails meets the
 * builder nowhere, and a crash loses no more than work.
 */
#ifndef MILLRACE_POINTS_LOCAL_BUILDER_H
#define MILLRACE_POINTS_LOCAL_BUILDER_H

#include "os/os.h"
#include "os/sync.h"

#include <stdatomic.h>

struct points_store;
struct build;

struct build_kind {
    /* The builder's part. A failure means that the build is given up. Ends soon, with any result,
     * once builder_is_stopping. */
    int (*run)(struct build *b, struct points_store *s);
    /* The checkpoint's part, under its lock. What fails is given up: the store stays as it was. */
    int (*adopt)(struct build *b, struct points_store *s);
    void (*free)(struct build *b);
};

/* Each kind has this as its first member. */
struct build {
    const struct build_kind *kind;
    struct build *next;
};

struct builder {
    struct os_thread *thread; /* NULL: not started */
    _Atomic bool stopping;
    struct mutex lock; /* LOCK_RANK_BUILDER: what follows */
    struct condition wake;
    struct build *planned;
    struct build *built;
    bool running;
};

void builder_init(struct builder *b);
/* Ends the thread and frees what is there. */
void builder_deinit(struct builder *b, struct points_store *s);
int builder_start(struct builder *b, struct points_store *s) MUST_USE;
static inline bool builder_is_stopping(const struct builder *b) {
    return atomic_load_explicit(&b->stopping, memory_order_relaxed);
}

/* Takes it over. */
void builder_plan(struct builder *b, struct build *build);
/* Nothing is planned, runs or waits to be adopted. */
bool builder_is_idle(struct builder *b);
/* Runs one planned build, in the caller's thread. False: there is none. */
bool builder_run_one(struct builder *b, struct points_store *s);
/* Adopts what was built. Under the checkpoint's lock. */
void builder_adopt(struct builder *b, struct points_store *s);

#endif
