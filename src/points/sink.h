/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another server that keeps the points of a store (points_store_options.sink): the workers' lanes
 * send to it what they would have put into segments.
 *
 * Sending is called by the worker of a lane, so by one thread a lane, and blocks until the points
 * are in effect there or there is an answer of another kind. What is sent twice must leave what one
 * sending leaves: a start sends again what was not persisted as sent.
 */
#ifndef MILLRACE_POINTS_SINK_H
#define MILLRACE_POINTS_SINK_H

#include "points/catalog.h"

/* Consecutive records of a lane that have these in common; views. */
struct points_sink_batch {
    const struct points_collection *collection;
    enum point_op op; /* POINT_UPSERT, whose vectors fit the configuration, or POINT_DELETE */
    enum point_ordering ordering;
    const struct point_record *points; /* of one id several: the last counts */
    size_t n;
    /* By the monotonic clock: from then on nothing more of it is written to a socket, as it may be
     * another process's to send by then; what the server has of it is no whole request. 0: never.
     */
    uint64_t send_by_ns;
};

enum { POINTS_SINK_SENTENCE = 256 };
struct points_sink_answer {
    enum work_outcome outcome; /* of the whole batch; WORK_REJECT: of some point in it */
    bool too_much;             /* fewer at a time may do better */
    bool unknown_collection;   /* why it is rejected */
    char sentence[POINTS_SINK_SENTENCE];
};

struct points_sink {
    /* Negative: the sink is broken. */
    int (*send)(void *context, const struct points_sink_batch *batch,
                struct points_sink_answer *ret_answer) MUST_USE;
    void *context;
    /* Asks whether the collection is there. False: there is no answer. NULL: it cannot be asked. */
    bool (*has)(void *context, const struct points_collection *collection, bool *ret_has) MUST_USE;
};

#endif
