/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consecutive records of a lane, sent to a sink (points/sink.h): how many go together, and what an
 * answer means for those that come next.
 *
 *   records ─▶ cut where collection, operation or ordering change ─▶ sent, and answered ─▶
 *        ok       all of them are in effect
 *        reject   of one record: it is the bad one; of more: the first half is tried by itself, and
 *                 so on, until the bad one stands alone
 *        retry    again later, perhaps with fewer
 *        down     again later
 *
 * One thread, one sending at a time: the records of a point go out in order, and one that is not
 * answered goes out again before any later one.
 */
#ifndef MILLRACE_POINTS_SENDING_H
#define MILLRACE_POINTS_SENDING_H

#include "points/sink.h"

#ifdef MILLRACE_TINY
enum { SENDING_RECORDS_MAX = 8, SENDING_BYTES_MAX = 1 << 10 };
#else
enum { SENDING_RECORDS_MAX = 512, SENDING_BYTES_MAX = 1 << 20 };
#endif
/* A slow server answers one after the other: whoever looks on must see that it goes on. */
#define SENDING_TURN_NS UINT64_C(5000000000)

struct sending {
    size_t limit; /* records in the next batch; halved by trouble, doubled by success */
    struct point_record points[SENDING_RECORDS_MAX];
    struct points_sink_answer answer; /* the newest; its sentence is the verdict's reason */
};
void sending_init(struct sending *s);
/* The outcome, with its sentence kept as the reason. */
enum work_outcome sending_say(struct sending *s, enum work_outcome outcome, const char *sentence);
/* Decodes the first record to points[0], payload being what it holds, or another in its place. A
 * sentence: it can never be sent, which is why. NULL: it can. */
const char *sending_decode(struct sending *s, struct bytes payload);
/* Sends it, if its vectors fit the collection, and what can go with it: *ret_n records in all, and
 * the outcome is that of all. send_by_ns: as of struct points_sink_batch. */
enum work_outcome sending_try(struct sending *s, const struct points_sink *sink,
                              const struct points_collection *collection,
                              const struct journal_record *const *records, size_t n,
                              uint64_t send_by_ns, size_t *ret_n);
/* So many were rejected. WORK_REJECT: the first is the bad one; WORK_OK: to be tried again at once,
 * which is then with fewer. */
enum work_outcome sending_narrow(struct sending *s, size_t n);

#endif
