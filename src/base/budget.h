/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget: the one ceiling for the memory of a process (invariant 6), divided into a part for
 * each kind of memory that grows with the load. What is large is counted here by whoever holds it;
 * a kind that has used its part up stops only what needs more of that kind, so slow readers cannot
 * stop writes, nor uploads reads. The parts together are less than the ceiling: the rest is for
 * what is small or fixed and not counted (code, threads, tables).
 *
 * Made by serve before the threads, owned by it; each room borrows it. Thread-safe, lock-free. A
 * budget of NULL has no bound and counts nothing: tests and tools.
 */
#ifndef MILLRACE_BASE_BUDGET_H
#define MILLRACE_BASE_BUDGET_H

#include "base/compiler.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum budget_kind {
    BUDGET_POINTS,      /* rows that are in no file yet, maps of ids, bitmaps */
    BUDGET_JOURNAL,     /* blocks: the window, what waits for a sync, queues, what cursors read */
    BUDGET_BODIES,      /* request bodies, decoders, what an upload holds */
    BUDGET_ANSWERS,     /* being made, and held until slow readers have taken them */
    BUDGET_CONNECTIONS, /* libmicrohttpd's memory of connections that were used */
    BUDGET_DICTIONARY,  /* of events: strings that have an id */
    BUDGET_KEYS,        /* idempotency keys of events */
    BUDGET_KINDS,
};

struct budget {
    uint64_t limit;
    struct {
        alignas(64) _Atomic uint64_t used;
        uint64_t part;
    } kinds[BUDGET_KINDS];
};

void budget_init(struct budget *b, uint64_t limit);
/* "points", …: for metrics. */
const char *budget_kind_name(enum budget_kind kind);

/* False when it does not fit: nothing was taken then. */
bool budget_take(struct budget *b, enum budget_kind kind, uint64_t n) MUST_USE;
/* Counts what must be held in any case, past the part if need be. */
void budget_add(struct budget *b, enum budget_kind kind, uint64_t n);
/* Gives back what was taken or added. */
void budget_give(struct budget *b, enum budget_kind kind, uint64_t n);

uint64_t budget_used(const struct budget *b, enum budget_kind kind);
/* UINT64_MAX for a budget of NULL. */
uint64_t budget_part(const struct budget *b, enum budget_kind kind);
/* The part is used up: take no more of what can wait. */
bool budget_spent(const struct budget *b, enum budget_kind kind);
/* Three quarters of it are: time to make room. */
bool budget_pressed(const struct budget *b, enum budget_kind kind);

#endif
