/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many calls may be under way at once, from how long they take: adaptive concurrency. A rise in
 * latency is taken as a queue at the server, before it has to refuse (limiter.c says how, and where
 * that is from). Plain state; its owner locks.
 */
#ifndef MILLRACE_POINTS_QDRANT_LIMITER_H
#define MILLRACE_POINTS_QDRANT_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

struct limiter {
    unsigned most;
    double limit;
    double alone_us; /* what a call takes without a queue; 0: not known yet */
    unsigned rounds; /* since that was measured */
    unsigned probe;  /* rounds of measuring it that are left */
    /* the round under way */
    unsigned answers;
    double sum_us;
    bool filled; /* as many calls as allowed were under way at some time */
};

void limiter_init(struct limiter *l, unsigned most);
/* 1 … most. */
unsigned limiter_limit(const struct limiter *l);
/* A call was answered; in_flight counted it. refused: with a wish to be left alone for a while. */
void limiter_note(struct limiter *l, uint64_t took_us, unsigned in_flight, bool refused);

#endif
