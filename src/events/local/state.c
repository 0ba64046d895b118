/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small values (little-endian; block: u32 length, then the bytes).
 *
 *   state    u32 version 2, u32 lanes, u64 number of the checkpoint, u64 position of each lane,
 *            i64 floor, u64 letters, u64 elements of the dictionary (not in version 1), u32 n,
 *            then n minutes, ascending: i64 minute, for each action u64 count, i64 sum
 *   element  u64 lsn, u32 id, block collection, block element
 *   once     u64 hash of the body, u64 wall_us
 *   letter   keyed/letter.h
 */
#include "events/local/internal.h"

#include <errno.h>

enum { STATE_VERSION = 2 };

void state_deinit(struct state *s) {
    minute_totals_deinit(&s->totals);
}

static void encode_totals(struct buffer *out, const struct minute_totals *t) {
    buffer_append_u32(out, (uint32_t)t->n);
    for (size_t i = 0; i < t->n; i++) {
        buffer_append_u64(out, (uint64_t)t->list[i].minute);
        for (size_t k = 0; k < EVENT_ACTIONS; k++) {
            buffer_append_u64(out, t->list[i].of[k].count);
            buffer_append_u64(out, (uint64_t)t->list[i].of[k].sum);
        }
    }
}

int state_encode(const struct state *s, struct buffer *out) {
    buffer_append_u32(out, STATE_VERSION);
    buffer_append_u32(out, s->n_lanes);
    buffer_append_u64(out, s->number);
    for (unsigned i = 0; i < s->n_lanes; i++)
        buffer_append_u64(out, s->positions[i]);
    buffer_append_u64(out, (uint64_t)s->floor);
    buffer_append_u64(out, s->letters);
    buffer_append_u64(out, s->elements);
    encode_totals(out, &s->totals);
    return buffer_check(out);
}

static int decode_totals(struct reader *r, struct minute_totals *t) {
    uint32_t n = reader_u32(r);
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        int64_t minute = (int64_t)reader_u64(r);
        if (t->n > 0 && t->list[t->n - 1].minute >= minute)
            return error_origin(-EBADMSG);
        struct minute_total *total = minute_totals_at(t, minute);
        if (!total)
            return error_origin(-ENOMEM);
        for (size_t k = 0; k < EVENT_ACTIONS; k++) {
            total->of[k].count = reader_u64(r);
            total->of[k].sum = (int64_t)reader_u64(r);
        }
    }
    return r->failed || r->at != r->end ? error_origin(-EBADMSG) : 0;
}

int state_decode(struct bytes value, struct state *ret_state) {
    struct state s = {0};
    struct reader r = reader_of(value);
    uint32_t version = reader_u32(&r);
    if (!r.failed && version > STATE_VERSION)
        return error_origin(-EPROTONOSUPPORT);
    s.n_lanes = reader_u32(&r);
    if (version == 0 || s.n_lanes == 0 || s.n_lanes > WORK_LANES_MAX)
        return error_origin(-EBADMSG);
    s.number = reader_u64(&r);
    for (unsigned i = 0; i < s.n_lanes; i++)
        s.positions[i] = reader_u64(&r);
    s.floor = (int64_t)reader_u64(&r);
    s.letters = reader_u64(&r);
    s.elements = version == 1 ? ELEMENTS_UNKNOWN : reader_u64(&r);
    int error = decode_totals(&r, &s.totals);
    if (error < 0) {
        state_deinit(&s);
        return error_trace(error);
    }
    *ret_state = s;
    return 0;
}

void element_encode(struct buffer *out, lsn_t lsn, struct bytes collection, uint32_t id,
                    struct bytes element) {
    buffer_append_u64(out, lsn);
    buffer_append_u32(out, id);
    buffer_append_block(out, collection);
    buffer_append_block(out, element);
}

bool element_decode(struct bytes value, lsn_t *ret_lsn, struct bytes *ret_collection,
                    uint32_t *ret_id, struct bytes *ret_element) {
    struct reader r = reader_of(value);
    lsn_t lsn = reader_u64(&r);
    uint32_t id = reader_u32(&r);
    struct bytes collection = reader_block(&r);
    struct bytes element = reader_block(&r);
    if (r.failed || r.at != r.end)
        return false;
    *ret_lsn = lsn;
    *ret_id = id;
    *ret_collection = collection;
    *ret_element = element;
    return true;
}

void once_encode(struct buffer *out, const struct event_once_entry *entry) {
    buffer_append_u64(out, entry->body_hash);
    buffer_append_u64(out, entry->wall_us);
}

bool once_decode(struct bytes key, struct bytes value, struct event_once_entry *ret_entry) {
    struct event_once_entry entry = {0};
    struct reader r = reader_of(value);
    entry.body_hash = reader_u64(&r);
    entry.wall_us = reader_u64(&r);
    if (r.failed || r.at != r.end || key.size != 1 + sizeof entry.key)
        return false;
    memcpy(entry.key, key.data + 1, sizeof entry.key);
    *ret_entry = entry;
    return true;
}
