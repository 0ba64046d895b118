/* SPDX-License-Identifier: Apache-2.0 */
/* Batches for a sink, one after the other: see sending.h. */
#include "points/sending.h"

#include <stdio.h>

void sending_init(struct sending *s) {
    s->limit = SENDING_RECORDS_MAX;
    s->answer = (struct points_sink_answer){.outcome = WORK_OK};
}

enum work_outcome sending_say(struct sending *s, enum work_outcome outcome, const char *sentence) {
    if (sentence != s->answer.sentence)
        (void)snprintf(s->answer.sentence, sizeof s->answer.sentence, "%s", sentence);
    return outcome;
}

const char *sending_decode(struct sending *s, struct bytes payload) {
    struct point_record *record = &s->points[0];
    if (!point_record_decode(payload, record))
        return "not a point record of a version known here";
    if (record->op != POINT_UPSERT && record->op != POINT_DELETE)
        return "a control record among those of a lane";
    return NULL;
}

static bool fits(const struct points_collection *c, const struct point_record *record) {
    return record->op == POINT_DELETE || point_record_fits(&c->config, record);
}

/* False: it is another's. */
static bool decode_next(const struct points_collection *c, struct bytes payload,
                        struct point_record *ret_record) {
    size_t home = c->home.size;
    if (home && (payload.size < home || memcmp(payload.data, c->home.data, home) != 0))
        return false;
    return point_record_decode(bytes_of(payload.data + home, payload.size - home), ret_record);
}

/* How many of the records go with the first, which is decoded. */
static size_t gather(struct sending *s, const struct points_collection *c,
                     const struct journal_record *const *records, size_t n) {
    size_t bytes = records[0]->payload.size, i = 1;
    for (; i < n && i < s->limit; i++) {
        struct point_record *record = &s->points[i];
        bytes += records[i]->payload.size;
        if ((records[i]->flags & JOURNAL_LETTER) || bytes > SENDING_BYTES_MAX ||
            !decode_next(c, records[i]->payload, record) || record->op != s->points[0].op ||
            record->incarnation != s->points[0].incarnation ||
            record->ordering != s->points[0].ordering || !fits(c, record))
            break;
    }
    return i;
}

enum work_outcome sending_try(struct sending *s, const struct points_sink *sink,
                              const struct points_collection *collection,
                              const struct journal_record *const *records, size_t n,
                              uint64_t send_by_ns, size_t *ret_n) {
    *ret_n = 1;
    s->answer = (struct points_sink_answer){.outcome = WORK_OK};
    if (!fits(collection, &s->points[0]))
        return sending_say(s, WORK_REJECT, "the vectors do not fit the collection's configuration");
    *ret_n = gather(s, collection, records, n);
    const struct points_sink_batch batch = {.collection = collection,
                                            .op = s->points[0].op,
                                            .ordering = s->points[0].ordering,
                                            .points = s->points,
                                            .n = *ret_n,
                                            .send_by_ns = send_by_ns};
    if (sink->send(sink->context, &batch, &s->answer))
        return sending_say(s, WORK_RETRY, "out of memory");
    if (s->answer.too_much)
        s->limit = *ret_n > 1 ? *ret_n / 2 : 1;
    else if (s->answer.outcome == WORK_OK && s->limit < SENDING_RECORDS_MAX)
        s->limit = s->limit < SENDING_RECORDS_MAX / 2 ? 2 * s->limit : (size_t)SENDING_RECORDS_MAX;
    return s->answer.outcome;
}

enum work_outcome sending_narrow(struct sending *s, size_t n) {
    if (n == 1)
        return WORK_REJECT;
    s->limit = n / 2;
    return WORK_OK;
}
