/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP Vegas (Brakmo and Peterson, 1995), as Netflix's concurrency-limits applies it to calls: of n
 * calls under way at a server that takes `alone` for one without a queue, and now takes `now`,
 * n · (1 - alone / now) wait in its queue. After each round, as many answers as calls may be under
 * way, that estimate decides:
 *
 *   a call was refused                            half as many, at once
 *   the queue is longer than it need be           a tenth less
 *   it is short, and the limit was reached        one more
 *
 * A short queue is wanted: it keeps the server busy. What a call takes alone is the fastest round
 * seen, and is measured anew now and then with half the calls under way (as BBR does with its
 * PROBE_RTT), since a server may have become slower for reasons of its own.
 */
#include "points/qdrant/limiter.h"

#include <math.h>

static const double START = 2, REFUSED = 0.5, SLOWER = 0.9, PROBE_SHARE = 0.5;
/* Calls in the queue: a number, and a share of the limit, for what latency varies by itself. */
static const double SHORT = 1, SHORT_SHARE = 1.0 / 16, LONG = 2, LONG_SHARE = 1.0 / 8;
/* The first round of a probe still has answers to calls from before it. */
enum { PROBE_EVERY_ROUNDS = 100, PROBE_ROUNDS = 2 };

void limiter_init(struct limiter *l, unsigned most) {
    *l = (struct limiter){.most = most, .limit = fmin(START, most)};
}

unsigned limiter_limit(const struct limiter *l) {
    double limit = l->probe ? l->limit * PROBE_SHARE : l->limit;
    return limit < 1 ? 1 : (unsigned)limit;
}

static void set_limit(struct limiter *l, double limit) {
    l->limit = fmin(fmax(limit, 1), l->most);
}

static void begin_round(struct limiter *l) {
    l->answers = 0;
    l->sum_us = 0;
    l->filled = false;
}

static void adjust(struct limiter *l, double now_us) {
    double queue = l->limit * (1 - l->alone_us / now_us);
    if (queue > LONG + l->limit * LONG_SHARE)
        set_limit(l, l->limit * SLOWER);
    else if (queue < SHORT + l->limit * SHORT_SHARE && l->filled)
        set_limit(l, l->limit + 1);
}

static void end_round(struct limiter *l) {
    double now_us = fmax(l->sum_us / l->answers, 1);
    bool first = l->rounds == 0 && l->probe == 0;
    if (l->probe == 1 || first || now_us < l->alone_us)
        l->alone_us = now_us;
    if (l->probe == 0)
        adjust(l, now_us);
    else
        l->probe--;
    if (l->rounds++ == PROBE_EVERY_ROUNDS) {
        l->rounds = 1;
        l->probe = PROBE_ROUNDS;
    }
    begin_round(l);
}

void limiter_note(struct limiter *l, uint64_t took_us, unsigned in_flight, bool refused) {
    if (refused) {
        set_limit(l, l->limit * REFUSED);
        begin_round(l);
        return;
    }
    l->answers++;
    l->sum_us += (double)took_us;
    l->filled |= in_flight >= limiter_limit(l);
    if (l->answers >= limiter_limit(l))
        end_round(l);
}
